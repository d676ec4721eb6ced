"""Lina-Speech: how fast it speaks with its codec, and what a step of the published size costs.

``lina_speech`` goes through the predictor: text in, sound out. It takes the embedded model; a copy of the project that
ships none takes random weights of its shape and says so - such a model ends where chance has it, which changes how long
the speech is, not what a second of it costs.

``lina_decode`` takes random weights of the published shape and given columns; logits are compared before times are.
The straightforward form makes keys, values and positions of the text again for every frame, as the public code does;
beside it stands one that also encodes the text again.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import get_args

import torch
from torch import Tensor

from mmattn.bench.peers.lina import PerStepLina
from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Options, Peer, Run, compare, num_threads
from mmattn.errors import WeightsUnavailableError
from mmattn.kernels.products import Precision
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import START
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.results import LinaResult
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.weights.convert import published_state
from mmattn.speech.lina.weights.store import StoredLina

__all__ = ["decode", "random_predictor", "speech"]

SENTENCES = (
    "The old harbour was quiet before the first boats came in.",
    "She folded the letter twice and put it back into her pocket.",
    "A cold wind from the north had blown for three days.",
    "Nobody could say when the bridge would open again.",
    "He counted the stairs on his way down to the cellar.",
    "The garden looks different when the apple trees bloom.",
    "We should leave early if we want to see the sunrise.",
    "Most of the visitors had gone home before the rain began.",
)
# Largest difference of logits, as a part of the largest logit, with which a benchmark still counts as agreeing.
_TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 2e-2, "int8": 5e-2}
_TARGET = {"bfloat16": 2.0, "int8": 2.0}
_TINY = {"dim": 32, "num_layers": 1, "text_layers": 1, "codebook_size": 64}


def speech(options: Options) -> Report:
    """Speaks one sentence and eight at once, codec included, and takes the time to the first chunk of a session."""
    report = Report("lina_speech")
    predictor, what = _predictor(options.quick)
    report.notes.append(what)
    for threads in options.threads:
        with num_threads(threads):
            for batch, target in ((1, 0.5), (8, 0.15)):
                texts = SENTENCES[:batch]
                runs = [predictor.predict_batch(texts) for _ in range(options.repeats + 1)][1:]
                ratio = statistics.median(_work(run) / _seconds(run) for run in runs)
                note = f"median of {len(runs)}, {_seconds(runs[0]):.3g} s of speech each, {threads} thread(s)"
                name = f"seconds of work per second of speech, batch {batch}"
                report.measures.append(Measure(name, ratio, "s/s", target, note=note))
            first = statistics.median(_first_audio(predictor) for _ in range(options.repeats))
            note = f"median of {options.repeats} sessions, {threads} thread(s)"
            report.measures.append(Measure("first audio of a session", first, "s", 0.5, note=note))
    return without_targets(report) if options.quick else report


def decode(options: Options) -> Report:
    """Decodes given columns one by one, with weights of each precision, beside the straightforward form."""
    report = Report("lina_decode")
    config = LinaConfig(**(_TINY if options.quick else {}))  # type: ignore[arg-type]
    tokens, columns, judged = (12, 6, 6) if options.quick else (100, 30, 200)
    torch.manual_seed(0)
    reference = LinaModel(config).eval()
    text, audio = _inputs(config, tokens, judged)
    peers = {
        "text side every step": PerStepLina(_published(reference), text_heads=config.text_heads),
        "and text encoder": PerStepLina(_published(reference), text_heads=config.text_heads, encode_every_step=True),
    }
    wanted = peers["text side every step"].decode(text, audio)
    for precision in get_args(Precision):
        model = LinaModel(config).eval()
        model.load_state_dict(reference.state_dict())
        model.pack(precision)
        report.measures.append(_difference(precision, _decoding(model, text, audio)(), wanted))
        for threads in options.threads:
            comparisons = compare(
                _decoding(model, text, audio[:, :columns]),
                {
                    name: Peer(_peer_decoding(peer, text, audio[:, :columns]), target=_TARGET.get(precision))
                    for name, peer in peers.items()
                },
                repeats=options.repeats,
                threads=threads,
                tolerance=_TOLERANCE[precision],
            )
            report.add(f"{columns} columns, {tokens} text tokens, {precision}", comparisons)
            rate = columns / comparisons[0].ours.median
            report.measures.append(Measure(f"{precision} weights", rate, "tokens/s", note=f"{threads} thread(s)"))
    return without_targets(report) if options.quick else report


def random_predictor(**changes: object) -> LinaPredictor:
    """Returns a predictor of random weights, seed 0, of the embedded model's shape; it never says anything.

    Args:
        **changes: Fields of the config.
    """
    torch.manual_seed(0)
    codec = EmbeddedCodec().eval()
    tokenizer = build_tokenizer("characters", {})
    fields: dict[str, object] = {
        "dim": 256, "num_layers": 3, "text_layers": 3, "text_vocab": tokenizer.vocab_size, "tokenizer": "characters",
        "num_codebooks": codec.codebooks, "codebook_size": codec.codebook_size, "codec": "embedded",
        "codec_options": asdict(codec.config),
    }  # fmt: skip
    config = LinaConfig(**{**fields, **changes})  # type: ignore[arg-type]
    stored = StoredLina(config, LinaModel(config).state_dict(), codec.state_dict())
    predictor = LinaPredictor(stored, stored.build_codec(), tokenizer, device=torch.device("cpu"))
    # Noise is never what was expected; every sentence would be tried again.
    return predictor.with_options(max_seconds=4.0, retries=0)


def _predictor(quick: bool) -> tuple[LinaPredictor, str]:
    """Returns who speaks, and a line that says who that is."""
    if quick:
        return random_predictor(dim=32, num_layers=1).with_options(max_seconds=0.2), "random weights, tiny"
    try:
        return LinaPredictor.from_pretrained("embedded", device="cpu"), "the embedded model"
    except WeightsUnavailableError:
        return random_predictor(), "no embedded model: random weights of its shape (width 256, 3 + 3 layers)"


def _work(results: Sequence[LinaResult]) -> float:
    return sum(result.work_seconds for result in results)


def _seconds(results: Sequence[LinaResult]) -> float:
    return sum(len(result.samples) / result.sample_rate for result in results)


def _first_audio(predictor: LinaPredictor) -> float:
    with predictor.open_session() as session:
        session.feed(SENTENCES[0])
        next(session.flush())
        return session.first_audio_seconds or 0.0


def _inputs(config: LinaConfig, tokens: int, columns: int) -> tuple[Tensor, Tensor]:
    """Returns a text (1, M) and audio columns (1, N, Q), the first of them the start."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, config.text_vocab, (1, tokens), generator=generator)
    audio = torch.randint(3, config.audio_vocab, (1, columns, config.num_codebooks), generator=generator)
    audio[:, 0] = START
    return text, audio


def _published(model: LinaModel) -> dict[str, Tensor]:
    return published_state(model.state_dict(), model.config)


def _decoding(model: LinaModel, text: Tensor, audio: Tensor) -> Run:
    @torch.inference_mode()
    def run() -> Tensor:
        memory, state, logits = model.remember(text), model.initial_state(len(text)), []
        for column in audio.split(1, dim=1):
            out = model.advance(column, memory, state, with_maps=True)
            state = out.state
            logits.append(out.logits)
        return torch.cat(logits, dim=1)

    return run


def _peer_decoding(peer: PerStepLina, text: Tensor, audio: Tensor) -> Run:
    return lambda: peer.decode(text, audio)


def _difference(precision: str, found: object, wanted: Tensor) -> Measure:
    """Returns how often the likeliest token is the same, and in the note how far logits are apart."""
    if not isinstance(found, Tensor):
        raise TypeError(f"expected logits, got {type(found).__name__}")
    same = (found.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    largest, scale = (found - wanted).abs().max().item(), wanted.std().item()
    note = f"{wanted[..., 0].numel()} tokens; logits differ by at most {largest:.2g}, their deviation is {scale:.3g}"
    return Measure(f"{precision} weights, likeliest token the same", same, note=note)
