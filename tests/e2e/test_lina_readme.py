"""What Lina's README shows is run, with the embedded model.

Not run here: cloning (minutes; ``tests/speech/lina/test_commands.py`` clones with a tiny model), ``convert`` (needs
released weights; the same file), ``app`` (``test_lina_app.py``), and training, testing and making data
(``tests/speech/lina/test_configs.py`` and ``test_synthetic.py`` do a little of each).
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mmattn.cli import main
from mmattn.media.audio import read_audio, write_audio
from mmattn.speech.lina.predictor import LinaPredictor

pytest.importorskip("gruut")

PAGE = Path(__file__).parents[2] / "mmattn/speech/lina/README.md"
ELSEWHERE = ("--clone", "anna.safetensors", "mmattn app", "mmattn convert", "mmattn fit", "mmattn test", "data make")

pytestmark = pytest.mark.e2e


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder a reader might be in."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "script.txt").write_text("Hello there.\nThe door was open.\n")
    (folder / "story.txt").write_text("It was late. Nobody came.\n\nThen it rained.\n")
    spoken = LinaPredictor.from_pretrained("embedded").predict("What is said in it.")
    write_audio(folder / "ref.wav", spoken.samples, spoken.sample_rate)
    for number in range(3):
        name = folder / f"LJSpeech-1.1/wavs/LJ001-000{number}.wav"
        write_audio(name, spoken.samples, spoken.sample_rate)
    lines = [f"LJ001-000{number}|What is said in it.|What is said in it." for number in range(3)]
    (folder / "LJSpeech-1.1/metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


COMMANDS = [
    line.split("#")[0].strip()
    for block in blocks("")
    for line in block.splitlines()
    if not any(word in line for word in ELSEWHERE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    words = [str(tmp_path) if word == "out" else word for word in shlex.split(command)]
    assert main(words[1:]) == 0
    if words[1] == "infer":
        sounds = sorted(tmp_path.rglob("*.wav"))
        assert sounds
        assert all(np.abs(read_audio(sound).samples).max() > 0.05 for sound in sounds)


def test_commands_are_found() -> None:
    assert len(COMMANDS) == 5


def test_python() -> None:
    (code,) = blocks("python")
    found: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), found)
    assert 0.5 < found["result"].seconds < 6
    assert len(found["chunk"].samples) > 0
