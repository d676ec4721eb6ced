"""A voice learned from recordings: they are made ready, encoded, and a state is tuned on them (:mod:`.tuning`)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.datasets.recordings import LEAST_SECONDS, Recording, prepare
from mmattn.speech.lina.judges.watchdog import fits_text
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import TextAndCodes
from mmattn.speech.lina.text.tokens import TextTokens, Tokenizer
from mmattn.speech.lina.voices.files import Voice
from mmattn.speech.lina.voices.tuning import TuningOptions, TuningStep, tune

__all__ = [
    "ENOUGH_SECONDS",
    "Progress",
    "check_consent",
    "encode_recording",
    "learn_voice",
    "read_utterances",
    "usual_tuning",
]

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]
"""Called with the step, the number of steps, and the loss in nats per token."""

_UPDATES = 200
_BATCH = 4
ENOUGH_SECONDS = 10.0
"""Speech below which a voice hardly becomes alike."""


def usual_tuning(count: int) -> TuningOptions:
    """Returns settings for a small model: about 200 updates, a minute or two on one core.

    Args:
        count: Number of recordings.

    >>> usual_tuning(40).passes
    20
    """
    batch = min(_BATCH, max(1, count))
    return TuningOptions(rank=4, batch_size=batch, accumulate=1, passes=max(1, math.ceil(_UPDATES * batch / count)))


def check_consent(consent: str) -> None:
    """Checks that there is a statement of consent.

    Raises:
        InputError: If it is empty.
    """
    if not consent.strip():
        raise InputError(
            "A voice is cloned only with the statement that its speaker agreed to it; there is none.",
            "For example: --consent 'I, Anna Smith, agree to the use of my voice, 1 May 2026'.",
        )


def learn_voice(
    model: LinaModel,
    utterances: Sequence[TextAndCodes],
    *,
    fingerprint: str,
    consent: str,
    name: str,
    options: TuningOptions | None = None,
    report: Progress | None = None,
) -> Voice:
    """Returns the voice of some utterances.

    Args:
        model: Its weights stay as they are.
        utterances: From :func:`read_utterances`.
        fingerprint: Of the model.
        consent: The speaker's statement that the voice may be used, word for word.
        name: What the voice is called.
        options: Of the tuning; None takes :func:`usual_tuning`.
        report: Called after every step.

    Raises:
        InputError: If the statement is empty, or there are no utterances.
    """
    check_consent(consent)

    def tell(step: TuningStep) -> None:
        if report is not None:
            report(step.step, step.total, step.loss)

    state = tune(model, utterances, options or usual_tuning(max(1, len(utterances))), report=tell)
    return Voice(state, fingerprint, consent.strip(), name)


def read_utterances(
    recordings: Sequence[Recording], codec: Codec, tokenizer: Tokenizer, *, seconds_per_token: float
) -> list[TextAndCodes]:
    """Returns recordings as codes and text tokens; warns if they are shorter than ten seconds together.

    Args:
        recordings: With their texts.
        codec: Of the model.
        tokenizer: Of the model.
        seconds_per_token: Usual length of a token, by which a text that is another recording's is noticed.

    Raises:
        InputError: If there are none, one cannot be used or does not fit its text, or all are shorter than half a
            second together.
        MediaError: If a file cannot be read.
    """
    if not recordings:
        raise InputError("There are no recordings to learn a voice from.", "Pass some, a minute of speech in all.")
    utterances, total = [], 0.0
    for recording in recordings:
        codes, tokens, seconds = encode_recording(recording, codec, tokenizer)
        total += seconds
        if not fits_text(len(tokens.ids) - 2, seconds, seconds_per_token):
            raise InputError(
                f"The text of {recording.name} does not fit it: {seconds:.1f} s for {recording.text[:60]!r}.",
                "Check that the text is what is said in this recording, and all of it.",
            )
        utterances.append(TextAndCodes(tokens.ids, codes, recording.name))
    if total < LEAST_SECONDS:
        raise InputError(
            f"The recordings hold {total:.2f} s of speech, too little to learn a voice from.",
            "A minute is good; ten seconds are the least that sounds alike.",
        )
    if total < ENOUGH_SECONDS:
        logger.warning(
            "The recordings hold %.1f s of speech; the voice may not sound alike. A minute is good, %g s the least.",
            total,
            ENOUGH_SECONDS,
        )
    return utterances


def encode_recording(recording: Recording, codec: Codec, tokenizer: Tokenizer) -> tuple[Tensor, TextTokens, float]:
    """Returns codes (Q, n), text tokens, and the seconds of speech of a recording.

    Raises:
        InputError: If it or its text cannot be used.
        MediaError: If a file cannot be read.
    """
    try:
        tokens = tokenizer.encode(recording.text)
    except InputError as error:
        raise InputError(f"The text of {recording.name} cannot be used: {error.message}", error.hint) from error
    samples = prepare(recording, codec.sample_rate)
    device = next(codec.parameters()).device if isinstance(codec, nn.Module) else torch.device("cpu")
    # Not inference mode: tuning has to remember the codes for its backward pass.
    with torch.no_grad():
        codes = codec.encode(torch.from_numpy(samples)[None].to(device))[0]
    return codes.cpu(), tokens, len(samples) / codec.sample_rate
