"""The voices and recordings of one visitor of the Lina page: collected, cloned, uploaded; gone with the visit."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmattn.errors import InputError
from mmattn.media.audio import is_audio, read_audio
from mmattn.speech.lina.datasets.recordings import MOST_SECONDS
from mmattn.speech.lina.generation.script import read_script
from mmattn.speech.lina.predictor import LinaPredictor, Recording
from mmattn.speech.lina.voices.cloning import Progress
from mmattn.speech.lina.voices.files import save_voice

__all__ = ["OWN_VOICE", "Recorded", "Visit", "clone", "voice_choices", "voice_of"]

OWN_VOICE = "(the model's own)"
"""What the only choice is called where there is no voice at all."""

LEAST_SECONDS, MOST_RECORDINGS = 0.5, 60
LONGEST_TEXT = 600


@dataclass(frozen=True)
class Recorded:
    """One recording for a clone.

    Attributes:
        path: Sound file.
        text: What is said in it.
        seconds: Its length.
    """

    path: Path
    text: str
    seconds: float


@dataclass
class Visit:
    """What is kept of one visitor; its files are removed when it is forgotten.

    Attributes:
        folder: Of the files.
        recordings: Collected for a clone.
        voices: Cloned or uploaded ones by the name shown: file, and fingerprint of the model that it fits.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mmattn-lina-")))
    recordings: list[Recorded] = field(default_factory=list)
    voices: dict[str, tuple[Path, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def record(self, audio: str | Path | None, text: str) -> None:
        """Adds one recording.

        Raises:
            InputError: If there is no sound or no text, it is too short or too long, or there are enough.
            MediaError: If it cannot be read.
        """
        self.recordings.append(self._kept(audio, text, len(self.recordings)))

    def record_files(self, files: Sequence[str | Path]) -> int:
        """Adds recordings with their texts, ``x.wav`` with ``x.txt``, and returns how many; all or none.

        Raises:
            InputError: If a recording has no text, or one that is not UTF-8.
            MediaError: If one cannot be read.
        """
        paths = [Path(file) for file in files]
        texts = {path.stem: path for path in paths if path.suffix.lower() == ".txt"}
        sounds = [path for path in paths if is_audio(path)]
        silent = [path.name for path in sounds if path.stem not in texts]
        if silent:
            stem = Path(silent[0]).stem
            raise InputError(f"{silent[0]} has no text.", f"Upload {stem}.txt too, with what is said in it.")
        if not sounds:
            raise InputError("There is no recording among these files.", "Upload x.wav together with x.txt.")
        # All are looked at before the first is added.
        numbered = enumerate(sounds, len(self.recordings))
        self.recordings += [self._kept(path, read_script(texts[path.stem]), number) for number, path in numbered]
        return len(sounds)

    def _kept(self, audio: str | Path | None, text: str, number: int) -> Recorded:
        """Checks a recording, the ``number``-th counted from 0, and returns a copy of it that stays."""
        if audio is None:
            raise InputError("There is no recording yet.", "Record the sentence, or upload a file.")
        said = " ".join(text.split())
        if not said:
            raise InputError("Write what is said in the recording.", "A clone learns from both together.")
        if len(said) > LONGEST_TEXT:
            raise InputError(f"The text has {len(said)} characters; this page takes up to {LONGEST_TEXT}.")
        if number >= MOST_RECORDINGS:
            raise InputError(f"There are {MOST_RECORDINGS} recordings, which is enough.", "Clone the voice now.")
        seconds = read_audio(audio, max_seconds=MOST_SECONDS).seconds
        if seconds < LEAST_SECONDS:
            raise InputError(f"The recording lasts {seconds:.2f} s, expected at least {LEAST_SECONDS:g} s.")
        kept = self.folder / f"recording-{number:02d}{Path(audio).suffix.lower()}"
        shutil.copyfile(audio, kept)
        return Recorded(kept, said, seconds)

    def add_voice(self, predictor: LinaPredictor, file: str | Path) -> str:
        """Adds a voice file and returns the name it is shown under.

        Raises:
            CheckpointError: If it is none, or of another model.
        """
        voice = predictor.load_voice(Path(file))
        name = self.new_name(voice.name or Path(file).stem)
        kept = self.folder / f"{name}.safetensors"
        shutil.copyfile(file, kept)
        self.voices[name] = (kept, predictor.fingerprint)
        return name

    def new_name(self, wanted: str) -> str:
        """Returns a name that is a file name and not taken."""
        base = re.sub(r"[^\w-]+", "-", wanted).strip("-")[:40] or "voice"
        name, number = base, 2
        while name in self.voices:
            name, number = f"{base}-{number}", number + 1
        return name


def clone(
    predictor: LinaPredictor,
    visit: Visit | None,
    *,
    name: str,
    consent: str,
    has_agreed: bool,
    report: Progress | None = None,
) -> str:
    """Learns a voice from the visit's recordings and returns the name it is shown under.

    Args:
        predictor: The model that will speak with it.
        visit: With recordings.
        name: What to call it.
        consent: The speaker's statement.
        has_agreed: Whether the box was ticked.
        report: Called after every step.

    Raises:
        InputError: If something is missing, or a recording cannot be used.
        MediaError: If one cannot be read.
    """
    if visit is None or not visit.recordings:
        raise InputError("There are no recordings yet.", "Add some above: about a minute makes a good clone.")
    if not name.strip():
        raise InputError("Give the voice a name.")
    if not has_agreed or not consent.strip():
        raise InputError(
            "A voice is cloned with its owner's consent only.", "Tick the box and write the speaker's statement."
        )
    recordings = [Recording(audio=item.path, text=item.text) for item in visit.recordings]
    voice = predictor.clone(recordings, consent=consent.strip(), name=name.strip(), report=report)
    shown = visit.new_name(name)
    visit.voices[shown] = (save_voice(visit.folder / f"{shown}.safetensors", voice), predictor.fingerprint)
    return shown


def voice_choices(predictor: LinaPredictor, visit: Visit | None) -> list[tuple[str, str]]:
    """Returns (label, value) of the voices that a model can speak with, at least one: the visitor's first."""
    own = [] if visit is None else [name for name, (_, fits) in visit.voices.items() if fits == predictor.fingerprint]
    mine = [(f"{name} · yours", f"yours:{name}") for name in own]
    known = [*mine, *((name, name) for name in predictor.voices)]
    return known or [(OWN_VOICE, OWN_VOICE)]


def voice_of(predictor: LinaPredictor, visit: Visit | None, choice: str | None) -> Path | None:
    """Returns the voice file behind a choice; None for the model's own.

    Raises:
        InputError: If this model has no such voice.
    """
    if choice in (None, OWN_VOICE):
        return None
    text = str(choice)
    if text.startswith("yours:"):
        file, fits = (visit.voices if visit else {}).get(text.removeprefix("yours:"), (None, ""))
        if file is not None and fits == predictor.fingerprint:
            return file
    elif text in predictor.voices:
        return predictor.voices[text]
    raise InputError(f"This model has no voice {text.removeprefix('yours:')!r}.", "Choose another one.")
