import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from mmattn.core.weights.torch_file import load_torch_file, read_entries
from mmattn.errors import CheckpointError, InputError
from mmattn.media.pickle_bounds import BoundsError, check_bounds
from mmattn.media.plain_pickle import load_plain_pickle


def as_key(steps: bytes) -> bytes:
    return b"\x80\x02}K\x01\x85" + steps + b"Ns."


DOUBLED = as_key(b"2\x86" * 40)
DEEP = as_key(b"\x85" * 100_000)
COLLIDING = pickle.dumps({(2**61 - 1) * (i << 32): None for i in range(1, 20_000)}, protocol=2)
PAIRS = pickle.dumps(dict.fromkeys([(i, -i) for i in range(2_000)]), protocol=2)

BAD = {
    "a tuple holds itself twice": (DOUBLED, "a tuple of more than"),
    "tuples in tuples": (DEEP, "nests deeper"),
    "integers of one hash": (COLLIDING, "integers of over 64 bits"),
    "thousands of tuples as keys": (PAIRS, "tuples as keys"),
    "a set of thousands of tuples": (pickle.dumps({(i, -i) for i in range(3_000)}, protocol=2), "tuples as keys"),
    "lists in lists": (b"\x80\x02" + b"]" * 100 + b"a" * 99 + b".", "nests deeper"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
def test_what_would_never_end_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(BoundsError, match=reason):
        check_bounds(data)
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match="refused"):
        load_plain_pickle(tmp_path / "a.pkl")


def test_the_number_of_instructions_is_bounded() -> None:
    with pytest.raises(BoundsError, match="more than 1,000 instructions"):
        check_bounds(pickle.dumps(list(range(2_000))), max_instructions=1_000)


@pytest.mark.parametrize("data", [b"\x80\x02\x85.", b"\x80\x02h\x07.", b"\x80\x02K\x01s.", b"\x80\x02((s."])
def test_a_stack_or_memo_that_is_not_there_is_damage(data: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="stack or memo"):
        check_bounds(data)


def test_plain_data_and_every_protocol_pass() -> None:
    value = {"a": [1, 2.5, (3, "x")], "b": {"c": b"d", 5: {1, 2}}, "e": OrderedDict(f=frozenset([1]))}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        file = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
        check_bounds(file)
        assert file.read() == b"rest"


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_formats_pass_and_are_bounded(tmp_path: Path, zipped: bool) -> None:
    state = OrderedDict((f"layer{i}.weight", torch.full((2, 3), float(i))) for i in range(3_000))
    torch.save({"state_dict": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_entries(tmp_path / "a.pt")["layer7.weight"], torch.full((2, 3), 7.0))
    bad = io.BytesIO()
    torch.save({"a": 1}, bad, _use_new_zipfile_serialization=zipped)
    (tmp_path / "b.pt").write_bytes(_with_pickle(bad.getvalue(), DOUBLED, zipped=zipped))
    with pytest.raises(CheckpointError, match="refused: it holds a tuple"):
        load_torch_file(tmp_path / "b.pt")


def test_compressed_torch_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="it is compressed"):
        load_torch_file(tmp_path / "a.pt")


def test_a_table_that_stands_in_itself_ends(tmp_path: Path) -> None:
    table: dict[str, object] = {"x": torch.zeros(1)}
    table["model"] = table
    torch.save(table, tmp_path / "a.pt")
    assert read_entries(tmp_path / "a.pt") == {}


def _with_pickle(file: bytes, data: bytes, *, zipped: bool) -> bytes:
    """Puts another pickle in the place of the content."""
    if not zipped:
        end = io.BytesIO(file)
        for _ in range(3):
            check_bounds(end)
        return file[: end.tell()] + data + pickle.dumps([], protocol=2)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, data if entry.filename.endswith("data.pkl") else old.read(entry))
    return out.getvalue()
