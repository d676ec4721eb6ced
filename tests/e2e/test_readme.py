"""Every command and every line of Python that a README shows is run, as a reader would paste it.

The folders the READMEs speak of (``photos/``, ``good/``, ``data/mvtec``, ...) are made here with small content.
Commands that need weights nobody can fetch offline must end with the one message that says so.
"""

import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.cli import main
from mmattn.media.video_writer import VideoWriter
from tests.vision.crane.fake_datasets import write_dataset

ROOT = Path(__file__).resolve().parents[2]
READMES = ["README.md", "mmattn/vision/crane/README.md", "CONTRIBUTING.md"]
NEEDS_WEIGHTS = ("crane/mvtec", "--checkpoint crane_visa")
# Shortens what would train or test for minutes; the command itself is the reader's.
SHORT = ["--config", "trainer/cpu_smoke"]

pytestmark = pytest.mark.e2e


def blocks(name: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), flags=re.S | re.M)


def shown_commands(program: str) -> list[str]:
    lines = [line for name in READMES for language, text in blocks(name) if not language for line in text.splitlines()]
    found = [line.split("#")[0].strip() for line in lines if line.startswith(f"{program} ")]
    return list(dict.fromkeys(found))


def shown_python() -> list[str]:
    return [text for name in READMES for language, text in blocks(name) if language == "python"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a reader might be in."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    for place in ["photos/a.jpg", "photos/b.png", "photos/c.png", "good/1.png", "good/2.png", "good/3.png", "part.jpg"]:
        (folder / place).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / place)
    with VideoWriter(folder / "line.mp4", fps=8.0) as writer:
        for _ in range(8):
            writer.write(rng.integers(0, 256, (64, 80, 3), dtype=np.uint8))
    write_dataset("mvtec", folder / "data" / "mvtec")
    write_released(folder / "trained_on_visa_crane" / "epoch_5.pth")
    (folder / "epoch_5.pth").write_bytes((folder / "trained_on_visa_crane" / "epoch_5.pth").read_bytes())
    (folder / "mmattn").symlink_to(ROOT / "mmattn")
    return folder


def write_released(path: Path) -> None:
    """Writes random prompts in the layout of the released files: width 768, 12 context vectors, 8 deep prompts of 4."""
    ids = torch.zeros(1, 77, dtype=torch.int32)
    normal, abnormal = ids.clone(), ids.clone()
    normal[0, :16] = torch.tensor([49406, *[343] * 12, 14115, 269, 49407])
    abnormal[0, :17] = torch.tensor([49406, *[343] * 12, 13568, 14115, 269, 49407])
    state = {f"compound_prompts_text.{i}": torch.randn(4, 768) for i in range(8)}
    for side, tokens in (("pos", normal), ("neg", abnormal)):
        state[f"ctx_{side}"] = torch.randn(1, 1, 12, 768)
        state[f"token_prefix_{side}"] = torch.zeros(1, 1, 1, 768)
        state[f"token_suffix_{side}"] = torch.zeros(1, 1, 64, 768)
        state[f"tokenized_prompts_{side}"] = tokens
    path.parent.mkdir(exist_ok=True)
    torch.save({"prompt_learner": state}, path)


@pytest.mark.parametrize("command", shown_commands("mmattn"))
def test_every_shown_command_runs(
    command: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(desk)
    words = shlex.split(command)[1:]
    if words[0] == "app":
        assert serves_a_page(words, desk)
        return
    if words[0] in {"fit", "test"}:
        words += SHORT
    if words[0] == "infer":
        words += ["--overwrite"]  # the pages use one output folder for several examples
    code = main(words)
    shown = capsys.readouterr().err
    if any(part in command for part in NEEDS_WEIGHTS):
        assert code == 2
        assert "are not on this machine" in " ".join(shown.split())
    else:
        assert code == 0, shown


@pytest.mark.parametrize("number", range(len(shown_python())))
def test_every_shown_line_of_python_runs(number: int, desk: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(desk)
    exec(compile(shown_python()[number], f"README block {number}", "exec"), {})


@pytest.mark.parametrize("command", shown_commands("make"))
def test_every_shown_make_target_exists(command: str):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    assert set(command.split()[1:]) <= set(targets)


def test_every_link_to_a_file_leads_somewhere():
    for name in READMES:
        page = ROOT / name
        links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text(encoding="utf-8"))
        missing = [link for link in links if not (page.parent / link.split("#")[0]).exists()]
        assert missing == [], f"{name} links to {missing}"


def serves_a_page(words: list[str], folder: Path) -> bool:
    """Starts an app as a reader would and asks it for its page."""
    port = 7991
    process = subprocess.Popen([sys.executable, "-m", "mmattn", *words, "--port", str(port)], cwd=folder)
    try:
        for _ in range(240):
            time.sleep(0.5)
            if process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    return answer.status == 200
            except OSError:
                continue
        return False
    finally:
        process.terminate()
        process.wait(timeout=30)
