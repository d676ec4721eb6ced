"""``mmattn infer lina --clone FOLDER --save-voice FILE --consent "..."``: what is checked, learned and written.

Everything that can be wrong is found before the model is loaded; the voice file appears when it is complete.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmattn.core.errors import InputError
from mmattn.media.audio import is_audio
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.infer_lines import read_script

if TYPE_CHECKING:
    from mmattn.speech.lina.predictor import LinaPredictor

__all__ = ["CloningPlan", "clone_voice", "find_recordings", "plan_cloning"]

_SUFFIX = ".safetensors"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloningPlan:
    """One voice to be cloned.

    Attributes:
        recordings: Sound file and what is said in it.
        target: Voice file to write.
        consent: The speaker's statement.
    """

    recordings: list[tuple[Path, str]]
    target: Path
    consent: str

    def __str__(self) -> str:
        count = len(self.recordings)
        return f"a voice from {count} recording{'' if count == 1 else 's'} -> {self.target}"


def plan_cloning(options: LinaInferOptions, *, overwrite: bool = False) -> CloningPlan:
    """Returns what ``--clone``, ``--save-voice`` and ``--consent`` ask for.

    Raises:
        InputError: If one of them is missing, the recordings are incomplete, the voice file exists and ``overwrite``
            is not set, or ``--voice`` or ``--prompt`` is given too.
    """
    if options.save_voice is None:
        raise InputError("--clone needs a file for the voice.", "For example: --save-voice anna.safetensors")
    if not (options.consent or "").strip():
        raise InputError(
            "--clone needs the statement of the speaker that the voice may be used.",
            "For example: --consent 'I, Anna Smith, agree to the use of my voice, 1 May 2026'",
        )
    for name, value in (("--voice", options.voice), ("--prompt", options.prompt)):
        if value is not None:
            raise InputError(f"--clone and {name} are both given.", "The cloned voice is the one that speaks.")
    target = Path(options.save_voice).expanduser()
    if target.suffix != _SUFFIX:
        raise InputError(f"--save-voice is '{target}', expected a name that ends in {_SUFFIX}.")
    if not target.parent.is_dir():
        raise InputError(f"--save-voice is '{target}', whose folder does not exist.", "Make it first.")
    if target.exists() and not overwrite:
        raise InputError(
            f"The voice '{target}' exists.", f"Speak with it: --voice {target}; or clone it anew: --overwrite."
        )
    return CloningPlan(find_recordings(Path(str(options.clone)).expanduser()), target, str(options.consent).strip())


def find_recordings(path: Path) -> list[tuple[Path, str]]:
    """Returns the recordings of a speaker with what is said in them.

    Args:
        path: A folder in one of the layouts of :mod:`.layouts`, such as ``1.wav`` beside ``1.txt``, or one recording.

    Raises:
        InputError: If there is no recording, or a text is missing or empty.
    """
    if not path.exists():
        raise InputError(f"--clone '{path}' does not exist.", f"The current folder is '{Path.cwd()}'.")
    if is_audio(path) and path.is_file():
        text = path.with_suffix(".txt")
        if not text.is_file():
            raise InputError(f"'{path}' has no text.", f"Write what is said in it to '{text.name}' beside it.")
        return [(path, read_script(text).strip())]
    from mmattn.speech.lina.layouts import find_utterances

    found = find_utterances(path)
    speakers = sorted({item.speaker for item in found})
    if len(speakers) > 1:
        log.warning(
            "The recordings are of %d speakers (%s, ...); one voice is made of all.", len(speakers), speakers[0]
        )
    return [(item.audio, item.text) for item in found]


def clone_voice(predictor: LinaPredictor, plan: CloningPlan) -> Path:
    """Learns the voice, shows how long it will take, and returns the file it wrote.

    Raises:
        InputError: If a recording cannot be used.
        MediaError: If one cannot be read.
    """
    from tqdm import tqdm

    from mmattn.speech.lina.predictor import Recording
    from mmattn.speech.lina.voice import save_voice

    recordings = [Recording(audio=path, text=text) for path, text in plan.recordings]
    with tqdm(desc="cloning", unit="step", file=sys.stderr) as bar:

        def report(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        voice = predictor.clone(recordings, consent=plan.consent, name=plan.target.stem, report=report)
    file = save_voice(plan.target, voice)
    print(f"voice of {file.stat().st_size / 1e3:.0f} kB -> {file}", file=sys.stderr)
    return file
