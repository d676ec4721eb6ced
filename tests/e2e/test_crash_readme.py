"""Every command and every line of Python in CRASH's README is run, as a reader would paste it.

The folders it speaks of (``drives/``, ``data/ccd``, ...) are made here: short videos, and random features of the
published size. What needs a camera, or weights nobody can fetch offline, must end with a message that says so.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from mmattn.cli import main
from mmattn.video.crash.model import CrashConfig, build_model
from mmattn.video.crash.weights.convert import to_published
from tests.e2e.test_readme import ROOT, SHORT, blocks, serves_a_page
from tests.video.crash import fake_datasets
from tests.video.crash.tiny_door import drive, write_drive

README = "mmattn/video/crash/README.md"
FEW_CLIPS = [f"--data.init_args.{name}=3" for name in ("val", "test", "test_head_on")]
# What these commands end with instead: their first words, the exit code, the message.
REFUSED = {"--live 0": (2, "camera"), "--boxes b/": (2, "are not on this machine")}

pytestmark = pytest.mark.e2e


def shown_commands() -> list[str]:
    lines = [line for language, text in blocks(README) if not language for line in text.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("mmattn ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a reader might be in."""
    folder = tmp_path_factory.mktemp("desk")
    for place in ("drives/monday.mp4", "drives/north/tuesday.mp4", "calm_drives/sunday.mp4", "drive.mp4"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        write_drive(folder / place)
    (folder / "b").mkdir()
    (folder / "b" / "monday.csv").write_text("frame,x1,y1,x2,y2,score\n0,1,1,20,20,0.9\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_datasets, "WIDTH", 4096)
        patch.setattr(fake_datasets, "BOXES", 19)
        fake_datasets.write_ccd(folder / "data" / "ccd", per_kind=5)
        fake_datasets.write_dad(folder / "data" / "dad", per_kind=1)
    config = CrashConfig()
    torch.manual_seed(0)
    torch.save(
        {"epoch": 3, "model": to_published(build_model(config).state_dict(), config)}, folder / "final_model.pth"
    )
    assert (
        main(["convert", "crash", str(folder / "final_model.pth"), "--dataset", "ccd", "--output", str(folder / "ccd")])
        == 0
    )
    (folder / "mmattn").symlink_to(ROOT / "mmattn")
    return folder


@pytest.mark.parametrize("command", shown_commands())
def test_every_shown_command_runs(
    command: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(desk)
    words = shlex.split(command)[1:]
    if words[0] == "app":
        assert serves_a_page(words, desk)
        return
    words += {"fit": SHORT, "test": FEW_CLIPS, "infer": ["--overwrite"]}.get(words[0], [])
    if words[:3] == ["data", "make", "crash"]:
        words += ["--clips", "2"]
    code = main(words)
    shown = " ".join(capsys.readouterr().err.split())
    refused = next((answer for part, answer in REFUSED.items() if part in command), (0, ""))
    assert code == refused[0], shown
    assert re.search(refused[1], shown)


def test_the_shown_python_runs(desk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(desk)
    (text,) = [text for language, text in blocks(README) if language == "python"]
    found: dict[str, object] = {"frame": np.asarray(drive(1)[0])}
    exec(compile(text, README, "exec"), found)
    assert 0.0 <= float(found["result"].score) <= 1.0  # type: ignore[attr-defined]


def test_every_link_to_a_file_leads_somewhere():
    page = ROOT / README
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link.split("#")[0]).exists()] == []
