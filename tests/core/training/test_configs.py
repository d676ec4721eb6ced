from pathlib import Path

import pytest

from mmattn.core.training import configs
from mmattn.core.training.configs import find_config, list_configs, resolve_configs
from mmattn.errors import InputError


@pytest.fixture(params=["wheel", "checkout"])
def shipped(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site" / "mmattn"
    folder = package / "configs" if request.param == "wheel" else package.parent / "configs"
    for name in ("crane/embedded.yaml", "crane/visa.yaml", "trainer/debug.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("seed_everything: 1\n")
    package.mkdir(exist_ok=True)
    monkeypatch.setattr(configs, "files", lambda name: package)
    return folder


@pytest.mark.parametrize("name", ["crane/embedded", "crane/embedded.yaml"])
def test_a_short_name_finds_the_shipped_file(shipped: Path, name: str) -> None:
    assert find_config(name) == shipped / "crane" / "embedded.yaml"
    assert list_configs() == ["crane/embedded", "crane/visa", "trainer/debug"]


def test_an_existing_file_comes_before_a_shipped_one(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crane").mkdir()
    Path("crane/embedded.yaml").write_text("mine: true\n")
    assert find_config("crane/embedded.yaml") == Path("crane/embedded.yaml")
    assert find_config("crane/embedded") == shipped / "crane" / "embedded.yaml"


def test_a_misspelt_name_shows_the_near_ones(shipped: Path) -> None:
    with pytest.raises(
        InputError, match=r"^Config 'crane/embeded' is neither a file nor a shipped config\. .*: crane/em"
    ):
        find_config("crane/embeded")


def test_a_name_of_a_system_lists_all_of_that_system(shipped: Path) -> None:
    with pytest.raises(InputError, match=r"Shipped ones: crane/embedded, crane/visa\.$"):
        find_config("crane/nope")


def test_names_behind_the_flag_become_paths(shipped: Path) -> None:
    file = str(shipped / "crane" / "visa.yaml")
    words = ["--config", "crane/visa", "--config=crane/visa", "--seed", "crane/visa", "-c", '{"a": 1}']
    assert resolve_configs(words) == ["--config", file, f"--config={file}", "--seed", "crane/visa", "-c", '{"a": 1}']
    with pytest.raises(InputError, match="neither a file nor a shipped config"):
        resolve_configs(["--config", "crane/nope"])


def test_an_unrelated_name_lists_all(shipped: Path) -> None:
    with pytest.raises(InputError, match=r"Shipped ones: crane/embedded, crane/visa, trainer/debug\."):
        find_config("zzz")


def test_an_installation_without_configs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "files", lambda name: tmp_path / "mmattn")
    with pytest.raises(InputError, match="This installation has no configs folder"):
        find_config("crane/embedded")
