from pathlib import Path

import pytest

from mmattn.core.batch.inputs import expand_inputs
from mmattn.errors import InputError

PICTURES = {".png", ".jpg"}


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = ("photos/x.png", "photos/a/x.png", "photos/b/x.JPG", "photos/b/notes.txt", "photos/.hidden.png")
    for name in (*files, "photos/.git/x.png", "other/x.png", "other/only.png", "texts/t.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty" / ".cache").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str | Path, output: Path | None = None) -> list[str]:
    return [item.name for item in expand_inputs(arguments, suffixes=PICTURES, output=output)]


def test_a_folder_is_searched_and_keeps_its_sub_folders(tree: Path) -> None:
    assert names("photos") == ["x.png", "a/x.png", "b/x.JPG"]
    assert names(tree / "photos") == names("photos/")
    assert [i.path for i in expand_inputs(["photos/a"], suffixes=PICTURES)] == [tree / "photos" / "a" / "x.png"]


def test_a_file_is_named_by_itself_and_may_be_hidden() -> None:
    assert names("photos/a/x.png", "photos/.hidden.png") == ["x.png", ".hidden.png"]


def test_a_file_given_twice_is_taken_once() -> None:
    assert names("photos", "photos/a/x.png", "./photos/../photos") == ["x.png", "a/x.png", "b/x.JPG"]


def test_a_glob_keeps_folders_below_its_fixed_part(tree: Path) -> None:
    assert names("photos/**/*.png") == ["a/x.png", "x.png"]
    assert names(f"{tree}/photos/*/x.*") == ["a/x.png", "b/x.JPG"]
    assert sorted(names("photos/*")) == ["a/x.png", "b/x.JPG", "x.png"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tree: Path) -> None:
    (tree / "img[1].png").write_bytes(b"")
    assert names("img[1].png") == ["img[1].png"]


def test_a_list_keeps_relative_folders_and_skips_comments(tree: Path) -> None:
    (tree / "list.txt").write_text(f"# chosen\nphotos/a/x.png\n\n  photos/x.png \n{tree}/other/only.png\n")
    assert names("@list.txt") == ["photos/a/x.png", "photos/x.png", "only.png"]


def test_two_roots_with_the_same_name_get_prefixes_that_do_not_depend_on_each_other() -> None:
    both = names("photos", "other")
    assert len(set(both)) == 5
    photos, other = {name.split("/")[0] for name in both}
    assert {photos.rsplit("-", 1)[0], other.rsplit("-", 1)[0]} == {"photos", "other"}
    assert set(names("photos/a", "other")) >= {name for name in both if name.startswith("other-")}


def test_roots_without_a_clash_keep_plain_names() -> None:
    assert names("photos/b", "other") == ["x.JPG", "only.png", "x.png"]


def test_the_output_folder_inside_the_input_is_left_out(tree: Path) -> None:
    (tree / "photos" / "out").mkdir()
    (tree / "photos" / "out" / "x.png.overlay.png").write_bytes(b"")
    assert names("photos", output=Path("photos/out")) == ["x.png", "a/x.png", "b/x.JPG"]
    assert "out/x.png.overlay.png" in names("photos")
    assert names("photos/**/*.png", output=Path("photos/out")) == ["a/x.png", "x.png"]


def test_input_and_output_must_differ() -> None:
    with pytest.raises(InputError, match="'photos' is both input and output"):
        names("photos", output=Path("photos"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("nowhere.png", r"Input 'nowhere\.png' does not exist\. The current folder is"),
        ("empty", r"Folder 'empty' has no files in it"),
        ("texts", r"Folder 'texts' has 1 file in it, none of an accepted type\. Accepted: \.jpg \.png\."),
        ("texts/t.txt", r"Input 'texts/t\.txt' is not of an accepted type\. Accepted: \.jpg \.png\."),
        ("photos/*.gif", r"Pattern 'photos/\*\.gif' matches no file\."),
        ("texts/*", r"Pattern 'texts/\*' matches no file of an accepted type"),
        ("@no.txt", r"List file 'no\.txt' cannot be read: There is no file"),
    ],
)
def test_an_argument_that_leads_nowhere_says_why(argument: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        names(argument)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", r"List file 'list\.txt' names no input"),
        (b"photos/x.png\nno.png\n", r"List file 'list\.txt', line 2: Input 'no\.png' does not exist"),
        (b"@list.txt.bak\n", r"line 1: a list cannot name another list"),
        (b"\xff\xfe\x00", r"is not UTF-8 text"),
    ],
    ids=["empty", "missing", "nested", "binary"],
)
def test_a_bad_list_names_file_and_line(content: bytes, message: str) -> None:
    Path("list.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        names("@list.txt")


def test_no_argument_is_an_error() -> None:
    with pytest.raises(InputError, match="No input was given"):
        names()


def test_file_names_with_spaces_and_other_scripts_are_kept(tree: Path) -> None:
    (tree / "odd").mkdir()
    for name in ("ключ 1.png", "a'b\"c.png", "日本.png"):
        (tree / "odd" / name).write_bytes(b"")
    assert sorted(names("odd")) == sorted(["ключ 1.png", "a'b\"c.png", "日本.png"])
