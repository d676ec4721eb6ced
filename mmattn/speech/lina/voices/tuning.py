"""Initial-state tuning: learning a voice from samples of it, with all weights frozen.

Source: arXiv 2410.23320 and theodorblackbird/lina-speech: the training loss, Adam with learning rate 0.1, two
utterances a batch, four batches an update, each sample once per pass in an order that is drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from mmattn.errors import InputError
from mmattn.speech.lina.losses import lina_loss
from mmattn.speech.lina.model import LinaModel
from mmattn.speech.lina.network.batch import TextAndCodes, collate
from mmattn.speech.lina.voices.state import SCALE, InitialState

__all__ = ["TuningOptions", "TuningStep", "tune"]


@dataclass(frozen=True, kw_only=True)
class TuningOptions:
    """Settings of a tuning; the defaults are the published ones.

    Attributes:
        rank: Of each state; None learns whole states.
        scale: Factor of the products.
        learning_rate: Of Adam.
        batch_size: Utterances of a batch.
        accumulate: Batches of an update.
        passes: How often each sample is seen.
        seed: Of the start and the order.
        with_alignment: Learn the alignment network's state too (experimental).
        with_extras: Learn convolution caches too (experimental).
    """

    rank: int | None = 1
    scale: float = SCALE
    learning_rate: float = 0.1
    batch_size: int = 2
    accumulate: int = 4
    passes: int = 1
    seed: int = 123
    with_alignment: bool = False
    with_extras: bool = False


@dataclass(frozen=True)
class TuningStep:
    """Where a tuning stands after a batch.

    Attributes:
        step: Batches done.
        total: Batches in all.
        loss: Of this batch, nats per token.
        state: As it is now; copy it to keep a snapshot.
    """

    step: int
    total: int
    loss: float
    state: InitialState


def tune(
    model: LinaModel,
    utterances: Sequence[TextAndCodes],
    options: TuningOptions | None = None,
    *,
    report: Callable[[TuningStep], None] | None = None,
) -> InitialState:
    """Returns the state that makes the model speak like some samples.

    Args:
        model: Its weights and its mode are as before when this returns.
        utterances: Texts and the voice's codes.
        options: Settings; None takes the published ones.
        report: Called after every batch.

    Raises:
        InputError: If there are no utterances, or they do not fit together.
    """
    options = options or TuningOptions()
    if not utterances:
        raise InputError("There are no samples to learn a voice from.")
    state = InitialState.draw(
        model.initial_state(1),
        rank=options.rank,
        scale=options.scale,
        with_alignment=options.with_alignment,
        with_extras=options.with_extras,
        seed=options.seed,
    )
    optimizer = torch.optim.Adam(state.parameters(), lr=options.learning_rate)
    batches = list(_batches(len(utterances), options))
    device = model.audio_embedding.device
    with _frozen(model):
        for step, rows in enumerate(batches, start=1):
            batch = collate([utterances[row] for row in rows]).to(device)
            output = model(batch, state=state(model.initial_state(len(rows))))
            loss = lina_loss(output.logits, batch.audio, batch.audio_valid).total
            (loss / options.accumulate).backward()
            if step % options.accumulate == 0 or step == len(batches):
                optimizer.step()
                optimizer.zero_grad()
            if report is not None:
                report(TuningStep(step, len(batches), loss.item(), state))
    return state.requires_grad_(False)


def _batches(count: int, options: TuningOptions) -> Iterator[list[int]]:
    """Yields the samples of every batch; each pass sees every sample once, in an order of its own."""
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.passes):
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[i : i + options.batch_size] for i in range(0, count, options.batch_size))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of the weights, for a while."""
    training, learned = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in learned:
            parameter.requires_grad_(True)
