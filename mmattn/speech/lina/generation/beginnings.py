"""What a text is spoken from: a voice, a recording that is continued, or the model's own start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.datasets.recordings import LEAST_SECONDS, Recording
from mmattn.speech.lina.generation.speaker import Beginning
from mmattn.speech.lina.items import VoiceChoice
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.text.tokens import Tokenizer
from mmattn.speech.lina.voices.cloning import encode_recording
from mmattn.speech.lina.voices.files import Voice, load_voice, locate_voice

__all__ = ["Beginnings"]


class Beginnings:
    """Where the texts of one run begin.

    Args:
        model: That speaks.
        codec: Of it.
        tokenizer: Of it.
        voices: Files of the voices that ship with it, by name.
        default: Name of the one that speaks if none is chosen and nothing is continued; None is the model's own start.
        fingerprint: Of the model's weights; voices name it.
        options: Of the run: its voice, and the recording to continue.
    """

    def __init__(
        self,
        model: LinaModel,
        codec: Codec,
        tokenizer: Tokenizer,
        *,
        voices: Mapping[str, Path],
        default: str | None,
        fingerprint: str,
        options: LinaInferOptions,
    ) -> None:
        self._model, self._codec, self._tokenizer = model, codec, tokenizer
        self._voices, self._default, self._fingerprint = voices, default, fingerprint
        self._options = options
        self._prompt: Beginning | None = None

    def load_voice(self, voice: str | Path) -> Voice:
        """As :meth:`~mmattn.speech.lina.predictor.LinaPredictor.load_voice`."""
        return load_voice(locate_voice(voice, self._voices), self._fingerprint)

    def begin(self, choice: VoiceChoice | None) -> tuple[Beginning, str]:
        """Returns what an item is spoken from, and the name of its voice, empty for none.

        Args:
            choice: Who speaks; None as the options say.

        Raises:
            InputError: If the voice is unknown or of another type, or the recording too short to be continued.
            CheckpointError: If the voice is of another model.
            MediaError: If the recording cannot be read.
        """
        if not isinstance(choice, str | Path | Voice | None):
            raise InputError(
                f"The voice is {choice!r:.60}, a {type(choice).__name__}.",
                "Expected a name, the path of a file, or a Voice.",
            )
        chosen = choice if choice is not None else self._options.voice
        prompt = self._read_prompt()
        if chosen is None and prompt is None:
            chosen = self._default
        beginning = prompt or Beginning()
        if chosen is None:
            return beginning, ""
        voice = chosen if isinstance(chosen, Voice) else self.load_voice(chosen)
        if voice.model != self._fingerprint:
            raise CheckpointError(
                f"Voice '{voice.name}' was made for model {voice.model or 'unknown'}; this is {self._fingerprint}.",
                "Clone the voice with this model.",
            )
        device = next(self._model.parameters()).device
        return replace(beginning, state=voice.state.to(device)(self._model.initial_state(1))), voice.name

    def _read_prompt(self) -> Beginning | None:
        """Returns the recording to continue, which is encoded once."""
        options = self._options
        if self._prompt is None and options.prompt is not None and options.prompt_text is not None:
            recording = Recording(Path(options.prompt).expanduser(), options.prompt_text)
            codes, tokens, seconds = encode_recording(recording, self._codec, self._tokenizer)
            if seconds < LEAST_SECONDS:
                raise InputError(
                    f"{recording.name} holds {seconds:.2f} s of speech, too little to go on from.",
                    "Three to ten seconds are good.",
                )
            self._prompt = Beginning(None, codes, tokens)
        return self._prompt
