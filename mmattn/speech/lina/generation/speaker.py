"""What speaks: a model, its codec and its tokenizer with the choices of one run; all between a text and its sound.

A :class:`Speaker` never changes. It makes the planner of a text, says what a text begins with, makes and judges an
attempt at one sentence (:mod:`.attempts` and :mod:`.session` say which), and makes the recording of them.

Shapes: M text tokens, Q codebooks, n frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.kernels.sampling import SamplingOptions
from mmattn.speech.lina.codec.protocol import Codec
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.datasets.recordings import LEAST_SECONDS, Recording
from mmattn.speech.lina.generation.narration import Narrator
from mmattn.speech.lina.generation.steps import Generation, GenerationOptions, Speech, SpeechRequest
from mmattn.speech.lina.judges.watchdog import AlignmentReport, Watchdog, alignment_report
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.decoder import DecoderState
from mmattn.speech.lina.results import LinaSentence
from mmattn.speech.lina.text.planning import PlannedSentence, TextPlanner
from mmattn.speech.lina.text.sentences import LEAST_CHARACTERS
from mmattn.speech.lina.text.tokens import TextTokens, Tokenizer
from mmattn.speech.lina.voices.cloning import encode_recording
from mmattn.speech.lina.voices.files import Voice

__all__ = ["PUBLISHED", "Beginning", "Speaker", "SpeakingChoice", "SpokenSentence", "choose_speaking", "draw_seed"]

PUBLISHED: dict[str, float] = {
    "temperature": 1.0, "top_k": 100, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "sampled_codebooks": 1,
    "guidance": 1.0, "max_characters": 200,
}  # fmt: skip
"""Of theodorblackbird/lina-speech, and the longest sentence, which it does not limit; also the names that
``LinaConfig.speaking`` may hold."""


class SpeakingChoice(NamedTuple):
    """How a run speaks.

    Attributes:
        sampling: The rules of the draw.
        guidance: Its weight; 1 is none.
        max_characters: Longest sentence that is spoken at one go.
    """

    sampling: SamplingOptions
    guidance: float
    max_characters: int


def choose_speaking(options: LinaInferOptions, speaking: Mapping[str, Any]) -> SpeakingChoice:
    """Returns how a run speaks: as its options say, else as the checkpoint recommends, else as published.

    Args:
        options: Of the run; None leaves a choice to the checkpoint.
        speaking: What the checkpoint says, :attr:`LinaConfig.speaking`.

    Raises:
        InputError: If a value is out of range, or the checkpoint names something else.

    >>> chosen = choose_speaking(LinaInferOptions(top_k=5), {"temperature": 0.7, "top_k": 50, "max_characters": 80})
    >>> chosen.sampling.temperature, chosen.sampling.top_k, chosen.guidance, chosen.max_characters
    (0.7, 5, 1.0, 80)
    """
    unknown = sorted(set(speaking) - set(PUBLISHED))
    if unknown:
        raise InputError(
            f"The checkpoint recommends {', '.join(unknown)}, which is no choice of speaking.",
            f"Expected some of {', '.join(PUBLISHED)}.",
        )
    given = {name: getattr(options, name) for name in PUBLISHED if getattr(options, name) is not None}
    values: dict[str, Any] = {**PUBLISHED, **speaking, **given}
    longest = values.pop("max_characters")
    if not isinstance(longest, int) or longest < LEAST_CHARACTERS:
        raise InputError(f"max_characters is {longest!r}, expected a whole number of at least {LEAST_CHARACTERS}.")
    try:
        guidance = float(values.pop("guidance"))
        return SpeakingChoice(SamplingOptions(**values), guidance, longest)
    except (ValueError, TypeError) as error:
        raise InputError(f"An option is out of range: {error}") from error


@dataclass(frozen=True)
class Beginning:
    """What a text is spoken from.

    Attributes:
        state: Of the voice; None is the model's own start.
        prompt: (Q, n) codes of a recording to go on from.
        prompt_text: What is said in it.
        voice: Name of the voice; empty for none.
    """

    state: DecoderState | None = None
    prompt: Tensor | None = None
    prompt_text: TextTokens | None = None
    voice: str = ""


@dataclass(frozen=True)
class SpokenSentence:
    """One sentence, spoken.

    Attributes:
        plan: What was to be said.
        codes: (Q, n).
        alignment: (n, M) float32 weights of the sentence's tokens; with a prompt rows may sum to less than 1.
        finished: Whether it ended by itself and was not cut.
        report: How it read the text.
        problems: What is wrong with it, in words.
        retries: Attempts after the first.
        state: To go on from; None if it was cut.
    """

    plan: PlannedSentence
    codes: Tensor
    alignment: npt.NDArray[np.float32]
    finished: bool
    report: AlignmentReport
    problems: tuple[str, ...]
    retries: int
    state: DecoderState | None

    def describe(self, *, start: float, seconds: float) -> LinaSentence:
        """Returns what a result tells about the sentence.

        Args:
            start: Where it begins in the recording, seconds.
            seconds: How long it is.
        """
        return LinaSentence(
            text=self.plan.text,
            symbols=self.plan.tokens.symbols,
            words=self.plan.tokens.words,
            alignment=np.ascontiguousarray(self.alignment.T),
            start=start,
            seconds=seconds,
            finished=self.finished,
            retries=self.retries,
            problems=self.problems,
            report=self.report,
        )


def draw_seed(seed: int, place: int, attempt: int) -> int:
    """Returns the seed of one attempt at one sentence.

    >>> draw_seed(0, 1, 0) != draw_seed(1, 0, 0)
    True
    """
    return int(np.random.SeedSequence([seed, place, attempt]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True, eq=False)
class Speaker:
    """Speaks as one run is to; another run's is ``dataclasses.replace(speaker, options=...)``.

    Attributes:
        model: In evaluation mode.
        codec: Of it.
        tokenizer: Of it.
        options: Of the run.

    Raises:
        InputError: If an option of sampling, or what the checkpoint recommends, is out of range.
    """

    model: LinaModel
    codec: Codec
    tokenizer: Tokenizer
    options: LinaInferOptions

    def __post_init__(self) -> None:
        _ = self.choice  # tells at once of what is out of range

    @cached_property
    def choice(self) -> SpeakingChoice:
        """How it speaks."""
        return choose_speaking(self.options, self.model.config.speaking)

    @cached_property
    def watchdog(self) -> Watchdog:
        """What is expected of sentences."""
        return Watchdog.of(self.options, self.model.config, self.frame_rate)

    @property
    def frame_rate(self) -> float:
        """Codec frames per second."""
        return self.codec.sample_rate / self.codec.hop

    @property
    def retries(self) -> int:
        """How often a sentence that failed is spoken again."""
        # Without randomness another attempt would say the same.
        drawn = self.choice.sampling
        is_random = drawn.temperature > 0 and drawn.top_k != 1 and drawn.sampled_codebooks != 0
        return self.options.retries if is_random else 0

    def planner(self) -> TextPlanner:
        """Returns what makes sentences of a text."""
        return TextPlanner(self.tokenizer, self.choice.max_characters)

    def narrator(self) -> Narrator:
        """Returns what makes a recording of codes."""
        return Narrator(self.codec, self.options)

    def beginning(self, voice: Voice | None) -> Beginning:
        """Returns what a text is spoken from: a voice, the recording that the run continues, both, or neither.

        Args:
            voice: Of the model.

        Raises:
            InputError: If the recording cannot be used, or is too short to be continued.
            MediaError: If it cannot be read.
        """
        codes, text = self._prompt
        if voice is None:
            return Beginning(None, codes, text)
        fresh = self.model.initial_state(1)
        return Beginning(voice.state.to(fresh.position.device)(fresh), codes, text, voice.name)

    def attempt(self, plan: PlannedSentence, beginning: Beginning, seed: int) -> Generation:
        """Returns the first attempt at one sentence, to be stepped.

        Args:
            plan: The sentence.
            beginning: What it is spoken from.
            seed: Of its text.
        """
        request = self.request(plan, beginning, draw_seed(seed, plan.place, 0))
        return Generation(self.model, [request], self.generation_options(self.limit(plan)))

    def judge(self, plan: PlannedSentence, beginning: Beginning, speech: Speech, retries: int = 0) -> SpokenSentence:
        """Returns an attempt, cut to its limit, with all that is wrong with it.

        Args:
            plan: What was to be said.
            beginning: What it was spoken from.
            speech: What the model said.
            retries: Attempts before.
        """
        limit = self.limit(plan)
        frames = min(speech.codes.shape[1], limit)
        finished = speech.finished and frames < limit
        rows = speech.alignment[:frames].float().cpu().numpy()
        before = 0 if beginning.prompt_text is None else len(beginning.prompt_text.ids) - 2
        # The prompt's start stands for the sentence's own.
        alignment = np.concatenate([rows[:, :1], rows[:, 1 + before :]], axis=1)
        report = alignment_report(alignment, plan.tokens.words)
        tokens, words = len(plan.tokens.ids) - 2, plan.tokens.count_words()
        problems = self.watchdog.problems(tokens, words, frames, finished=finished, report=report)
        state = speech.state if finished else None
        return SpokenSentence(plan, speech.codes[:, :frames], alignment, finished, report, problems, retries, state)

    def following(self, beginning: Beginning, spoken: SpokenSentence) -> Beginning:
        """Returns what the sentence after this one is spoken from."""
        if self.options.carry == "voice" or spoken.state is None:
            return beginning
        return Beginning(spoken.state.for_next_text(self.model.initial_state(1)))

    def record(self, spoken: Sequence[SpokenSentence]) -> tuple[npt.NDArray[np.float32], tuple[LinaSentence, ...]]:
        """Returns the samples (n,) of the sentences of one text, at least one, and what a result tells about each."""
        narrator, rate = self.narrator(), self.codec.sample_rate
        pieces, sentences, place = [], [], 0
        for sentence in spoken:
            pause = narrator.begin(sentence.plan.after)
            sound = np.concatenate([narrator.push(sentence.codes), narrator.end(is_cut=not sentence.finished)])
            start = place + len(pause)
            place = start + len(sound)
            pieces += [pause, sound]
            sentences.append(sentence.describe(start=start / rate, seconds=len(sound) / rate))
        return np.concatenate(pieces), tuple(sentences)

    def request(self, plan: PlannedSentence, beginning: Beginning, seed: int) -> SpeechRequest:
        """Returns one sentence as it is asked of the model; ``seed`` is that of the attempt."""
        text = plan.tokens.ids
        if beginning.prompt_text is not None:
            text = torch.cat([beginning.prompt_text.ids[:-1], text[1:]])
        return SpeechRequest(text, beginning.prompt, beginning.state, seed)

    def limit(self, plan: PlannedSentence) -> int:
        """Returns the frames at which a sentence is cut."""
        return self.watchdog.limit(len(plan.tokens.ids) - 2)

    def generation_options(self, limit: int) -> GenerationOptions:
        """Returns how sentences are generated of which the longest may have ``limit`` frames."""
        # The frames up to the limit are then the same whether this or a longer sentence of the batch sets it: forcing
        # ends into the first codebook reaches the last one's frames only after it.
        frames = limit + self.model.config.num_codebooks - 1
        return GenerationOptions(sampling=self.choice.sampling, max_frames=frames, guidance=self.choice.guidance)

    @cached_property
    def _prompt(self) -> tuple[Tensor | None, TextTokens | None]:
        """Codes (Q, n) and text tokens of the recording that the run continues, None without one."""
        options = self.options
        if options.prompt is None or options.prompt_text is None:
            return None, None
        recording = Recording(Path(options.prompt).expanduser(), options.prompt_text)
        codes, tokens, seconds = encode_recording(recording, self.codec, self.tokenizer)
        if seconds < LEAST_SECONDS:
            raise InputError(
                f"{recording.name} holds {seconds:.2f} s of speech, too little to go on from.",
                "Three to ten seconds are good.",
            )
        return codes, tokens
