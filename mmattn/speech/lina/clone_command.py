"""``mmattn infer lina --clone FOLDER --save-voice FILE --consent "..."``: what is checked, learned and written.

Everything that can be wrong is found before the model is loaded; the voice file appears when it is complete.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmattn.core.batch.inputs import InferRequest, InputItem
from mmattn.core.batch.journal import Journal
from mmattn.core.batch.runner import describe_run
from mmattn.errors import InputError
from mmattn.media.audio import is_audio
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.script import read_script

if TYPE_CHECKING:
    from mmattn.speech.lina.predictor import LinaPredictor

__all__ = ["CloningPlan", "check_output", "clone_voice", "find_recordings", "plan_cloning"]

_SUFFIX = ".safetensors"
_NAMED = 8


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
    """Returns what ``--clone``, ``--speaker``, ``--save-voice`` and ``--consent`` ask for.

    Raises:
        InputError: If one of them is missing, the recordings are incomplete or of several speakers, the voice file
            exists and ``overwrite`` is not set, or ``--voice`` or ``--prompt`` is given too.
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
    recordings = find_recordings(Path(str(options.clone)).expanduser(), options.speaker)
    return CloningPlan(recordings, target, str(options.consent).strip())


def check_output(request: InferRequest, items: Sequence[InputItem]) -> None:
    """Tells, before a voice is cloned, that what it is to say cannot go to the output folder; writes nothing.

    Args:
        request: To speak with the voice that is not there yet.
        items: What it is to say.

    Raises:
        InputError: If the folder holds results: those of another voice, for a new one is never the same.
        OutputError: If the folder cannot be written.
    """
    voice = f"{Path(request.options.voice).name} (not cloned yet)"
    journal = Journal(request.output, describe_run(replace(request, options=replace(request.options, voice=voice))))
    journal.plan(items, overwrite=request.overwrite)
    place = next(folder for folder in (journal.folder, *journal.folder.parents) if folder.exists())
    code = errno.EACCES if place.is_dir() else errno.ENOTDIR
    if code == errno.ENOTDIR or not os.access(place, os.W_OK | os.X_OK):
        raise journal.output.unwritable(OSError(code, os.strerror(code)))


def find_recordings(path: Path, speaker: str | None = None) -> list[tuple[Path, str]]:
    """Returns the recordings of a speaker with what is said in them.

    Args:
        path: A folder in one of the layouts of :mod:`.datasets.layouts`, such as ``1.wav`` beside ``1.txt``, or one
            recording.
        speaker: Whose recordings are wanted, as the layout names them; None where there is only one.

    Raises:
        InputError: If there is no recording, a text is missing or empty, the recordings are of several speakers and
            none was chosen, or the chosen one is not among them.
    """
    if not path.exists():
        raise InputError(f"--clone '{path}' does not exist.", f"The current folder is '{Path.cwd()}'.")
    if is_audio(path) and path.is_file():
        if speaker is not None:
            raise InputError(f"--speaker {speaker} is given with one recording, '{path}'.", "Leave --speaker out.")
        text = path.with_suffix(".txt")
        if not text.is_file():
            raise InputError(f"'{path}' has no text.", f"Write what is said in it to '{text.name}' beside it.")
        return [(path, read_script(text).strip())]
    from mmattn.speech.lina.datasets.layouts import find_utterances

    found = find_utterances(path)
    counts = Counter(item.speaker for item in found)
    if speaker is None and len(counts) > 1:
        raise InputError(
            f"The recordings in '{path}' are of {len(counts)} speakers: {_speakers(counts)}.",
            f"A voice is one speaker's. Choose one, such as --speaker {min(counts)}; or pass a folder of one.",
        )
    if speaker is not None and speaker not in counts:
        raise InputError(
            f"There is no speaker '{speaker}' in '{path}'.", f"Its recordings are of: {_speakers(counts)}."
        )
    return [(item.audio, item.text) for item in found if speaker in (None, item.speaker)]


def _speakers(counts: Counter[str]) -> str:
    """Returns the speakers with the numbers of their recordings, the first few if there are many."""
    named = [f"{speaker} ({counts[speaker]})" for speaker in sorted(counts)]
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")


def clone_voice(predictor: LinaPredictor, plan: CloningPlan) -> Path:
    """Learns the voice, shows how long it will take, and returns the file it wrote.

    Raises:
        InputError: If a recording cannot be used.
        MediaError: If one cannot be read.
    """
    from tqdm import tqdm

    from mmattn.speech.lina.predictor import Recording
    from mmattn.speech.lina.voices.files import save_voice

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
