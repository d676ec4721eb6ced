from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.voices.files import find_voices, locate_voice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "voices").mkdir()
    for name in ("slt.safetensors", "awb.safetensors", ".slt.safetensors.partial", "notes.txt", ".x.safetensors"):
        (tmp_path / "voices" / name).write_bytes(b"")
    return tmp_path


def test_voice_files_are_found_by_name_and_sorted(folder: Path) -> None:
    assert list(find_voices(folder).items()) == [
        ("awb", folder / "voices" / "awb.safetensors"),
        ("slt", folder / "voices" / "slt.safetensors"),
    ]


def test_no_folder_has_no_voices(tmp_path: Path) -> None:
    assert find_voices(tmp_path) == find_voices(None) == {}


def test_a_name_goes_before_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = find_voices(folder)
    monkeypatch.chdir(folder)
    (folder / "slt").write_bytes(b"")
    assert locate_voice("slt", shipped) == shipped["slt"]
    assert locate_voice("SLT", shipped) == shipped["slt"]
    assert locate_voice("./slt", shipped) == Path("slt")
    assert locate_voice(folder / "voices" / "awb.safetensors", shipped) == shipped["awb"]


def test_what_is_neither_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no voice 'anna', neither by this name nor as a file. .*voices awb, slt"):
        locate_voice("anna", find_voices(folder))
    with pytest.raises(InputError, match="comes without voices; pass a file"):
        locate_voice("anna", {})
    with pytest.raises(InputError, match="There is no voice 'ANNA'"):
        locate_voice("ANNA", {"Anna": Path("a"), "anna": Path("b")})
