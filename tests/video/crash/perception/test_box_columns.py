"""Every column of a box file is checked, in every form, with the row in the message."""

from pathlib import Path

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.video.crash.perception.box_file import read_box_file

FOLDER = Path(__file__).parent / "box_cases"
TIMES = np.arange(100) / 10

MESSAGES = {
    "box-neg.npz": "row 0: frame is -1, expected a whole number",
    "box-frac.npz": "row 0: frame is 0.5, expected a whole number",
    "box-dt.npz": "frame holds datetime64",
    "box-clsnan.npz": "row 0: class is nan",
    "box-str.npz": "frame holds <U1, expected numbers",
    "box-zerod.npz": "frame or time (n,) and boxes (n, 4)",
    "box-frnan.csv": "line 2: frame is nan",
    "box-frinf.csv": "line 2: frame is inf",
    "box-cat.json": "entry 0: category_id is [], expected",
    "box-catd.json": "entry 0: category_id is {}, expected",
}


@pytest.mark.parametrize(("name", "message"), MESSAGES.items(), ids=MESSAGES.keys())
def test_each_case_is_one_message(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_box_file(FOLDER / name, TIMES)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_class_names_may_be_bytes() -> None:
    assert read_box_file(FOLDER / "box-bytes.npz", TIMES).kinds.tolist() == [0]


def test_an_array_is_refused_by_its_header_before_it_fills_the_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", det=np.zeros((1_500_000, 1, 6)))
    with pytest.raises(InputError, match=r"det .* has 72,000,000 bytes; the limit is"):
        read_box_file(tmp_path / "a.npz", TIMES)


BAD = {
    "a.json": ('[{"frame": 1e999, "x1": 0, "y1": 0, "x2": 1, "y2": 1}]', "frame is inf"),
    "b.json": ("[" * 100_000, "no JSON of boxes"),
    "c.json": ('[{"frame": ' + "9" * 5_000 + ', "x1": 0, "y1": 0, "x2": 1, "y2": 1}]', "no JSON of boxes"),
    "d.json": ('[{"frame": 0, "x1": ' + "9" * 400 + ', "y1": 0, "x2": 1, "y2": 1}]', "entry 0: x1 is"),
    "e.csv": ("time,x1,y1,x2,y2\ninf,0,0,1,1\n", "line 2: time is inf"),
}


@pytest.mark.parametrize(("name", "content", "message"), [(k, *v) for k, v in BAD.items()], ids=BAD.keys())
def test_numbers_out_of_every_range_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_box_file(tmp_path / name, TIMES)
    assert message in str(caught.value)
