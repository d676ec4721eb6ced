from pathlib import Path

import pytest

from mmattn.core.training.configs import check_config, list_configs, resolve_configs
from mmattn.errors import InputError

BAD = {
    "anchors": (Path(__file__).with_name("anchors.yaml").read_text(), "more than 100,000 values"),
    "an anchor in itself": ("a: &a [*a]", "more than 100,000 values"),
    "brackets": ("[" * 50_000, "nests too deep|no YAML"),
    "no YAML": ("a: [1", "is no YAML"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_a_config_is_bounded_before_it_is_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    for words in (["--config", str(tmp_path / "a.yaml")], [f"--config={tmp_path / 'a.yaml'}"]):
        with pytest.raises(InputError, match=message):
            resolve_configs(words)


def test_a_large_config_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(InputError, match=r"the limit is 1,048,576"):
        resolve_configs(["-c", str(tmp_path / "a.yaml")])


def test_json_on_the_command_line_is_bounded_and_anchors_may_be_used() -> None:
    assert resolve_configs(["--config", '{"a": [1, 2]}']) == ["--config", '{"a": [1, 2]}']
    with pytest.raises(InputError, match=r"on the command line nests|on the command line is no YAML"):
        resolve_configs(["--config", "{a: " + "[" * 50_000])
    check_config("a: &a [1, 2]\nb: [*a, *a]", "it")


def test_every_shipped_config_is_in_bounds() -> None:
    names = list_configs()
    assert len(resolve_configs([word for name in names for word in ("-c", name)])) == 2 * len(names) > 0
