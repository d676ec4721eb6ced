from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.media.paths import contained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "folder" / "inner").symlink_to("a")
    (tmp_path / "folder" / "circle").symlink_to("circle")
    return tmp_path / "folder"


@pytest.mark.parametrize("path", ["x", "a/x", "a/../x", "./a/x", "new/x", "inner/x", "link", "..x", "a/..x"])
def test_paths_that_stay_inside_are_returned(folder: Path, path: str) -> None:
    found = contained(path, folder)
    assert found == folder / path.replace("a/../", "").removeprefix("./")
    assert contained(path, folder, links_may_leave=True) == found


@pytest.mark.parametrize(
    "path", ["../x", "..", ".", "a/..", "a/../../x", "/etc/passwd", "//x", "inner/../../x", "", "a\0b"]
)
@pytest.mark.parametrize("links_may_leave", [False, True])
def test_paths_that_leave_are_refused_with_or_without_links(folder: Path, path: str, links_may_leave: bool) -> None:
    with pytest.raises(InputError, match=r"^The path '"):
        contained(path, folder, links_may_leave=links_may_leave)


@pytest.mark.parametrize("path", ["link/x", "link/deep/x", "inner/../link/x", "circle/x"])
def test_a_link_leads_out_only_where_that_is_allowed(folder: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"leads outside of|cannot be followed"):
        contained(path, folder)
    assert contained(path, folder, links_may_leave=True) == folder / path.replace("inner/../", "")


def test_a_folder_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    assert contained("a/x", tmp_path / "alias") == tmp_path / "alias" / "a" / "x"
