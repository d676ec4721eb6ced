"""CRASH beside its straightforward form: scoring clips, a training step, and a streamed frame.

Sizes are those of the released recipe: 4096 features of 20 slots, width 512, clips of 100 frames. Weights and features
are random; the time does not depend on their values. Ours scores with packed weights. Much of the gain may come from
the matrix product alone (oneDNN's in the place of MKL's, see :mod:`mmattn.kernels.products`), so the same form is
also timed on PyTorch's own product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from mmattn.bench.peers.crash import PerStepCrash
from mmattn.bench.report import Measure, Report, without_targets
from mmattn.bench.timer import Options, Peer, Run, interleave, num_threads
from mmattn.video.crash.config import CrashConfig
from mmattn.video.crash.losses import crash_loss
from mmattn.video.crash.model import CrashModel, CrashOutput
from mmattn.video.crash.weights.convert import to_published

__all__ = ["forward", "streaming", "training"]

Score = Callable[[], Tensor]

_SIZES = {"hidden_dim": 64, "grid": (8, 8), "feature_dim": 32, "num_boxes": 5}


def forward(options: Options) -> Report:
    """Scores one clip and ten clips at once, without gradients."""
    report = Report("crash_forward")
    model, peer = build(options.quick)
    model.pack_weights()
    for batch, target in ((1, 1.3), (10, 1.6)):
        features = make_features(model, batch, options.quick)
        ours = _scoring(model, features)
        peers = {
            "frame by frame": Peer(_scoring(peer, features), target=target),
            "ours on torch's own product": Peer(_without_onednn(ours)),
        }
        report.compare(f"forward {tuple(features.shape)}", ours, peers, options)
    return without_targets(report) if options.quick else report


def training(options: Options) -> Report:
    """Forward, loss and backward of a batch of ten clips, dropout off; the optimiser is the same for both."""
    report = Report("crash_training")
    model, peer = build(options.quick)
    model.train()
    features = make_features(model, 10, options.quick)
    peers = {"frame by frame": Peer(_training_step(peer, features), target=1.3)}
    report.compare(f"training step {tuple(features.shape)}", _training_step(model, features), peers, options)
    return without_targets(report) if options.quick else report


def streaming(options: Options) -> Report:
    """One frame of a stream beside one frame of a clip that is scored as a whole."""
    report = Report("crash_streaming")
    model, _ = build(options.quick)
    model.pack_weights()
    features = make_features(model, 1, options.quick)
    runs = {"clip": _scoring(model, features), "stream": _streaming(model, features)}
    frames = features.shape[1]
    for threads in options.threads:
        with num_threads(threads):
            difference = float((runs["clip"]() - runs["stream"]()).abs().max())
            timings = interleave(runs, repeats=options.repeats)
        clip, stream = (timings[name].median / frames for name in ("clip", "stream"))
        note = f"{stream * 1e3:.3g} ms over {clip * 1e3:.3g} ms, {threads} thread(s), logits differ by {difference:.1e}"
        report.measures.append(Measure("streamed frame over batched frame", stream / clip, "x", 1.2, note=note))
    return without_targets(report) if options.quick else report


def build(quick: bool) -> tuple[CrashModel, PerStepCrash]:
    """Returns our model and the straightforward one with the same weights, both without dropout."""
    torch.manual_seed(0)
    config = CrashConfig(dropout=0.0, **(_SIZES if quick else {}))  # type: ignore[arg-type]
    model = CrashModel.from_config(config)
    peer = PerStepCrash(config.feature_dim, config.hidden_dim, config.grid)
    peer.load_state_dict(to_published(model.state_dict(), config), strict=False)
    return model, peer


def make_features(model: CrashModel, batch: int, quick: bool) -> Tensor:
    """Returns features (B, T, N + 1, F) in [0, 1), seed 0; T is 100, or 8 when quick."""
    shape = (batch, 8 if quick else 100, model.config.num_boxes + 1, model.config.feature_dim)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _scoring(model: CrashModel | PerStepCrash, features: Tensor) -> Score:
    @torch.inference_mode()
    def run() -> Tensor:
        logits: Tensor = model(features).logits
        return logits

    return run


def _without_onednn(run: Score) -> Score:
    def without() -> Tensor:
        with warnings.catch_warnings():
            # Setting the flags of oneDNN also touches those of GPUs that are not there, and says so.
            warnings.simplefilter("ignore", UserWarning)
            with torch.backends.mkldnn.flags(enabled=False):
                return run()

    return without


def _streaming(model: CrashModel, features: Tensor) -> Score:
    @torch.inference_mode()
    def run() -> Tensor:
        state, rows = model.initial_state(len(features)), []
        for frame in features.unbind(1):
            logits, _, state = model.step(frame, state)
            rows.append(logits)
        return torch.stack(rows, dim=1)

    return run


def _training_step(model: CrashModel | PerStepCrash, features: Tensor) -> Run:
    """Returns a step whose outputs are the loss and the gradient of the first layer."""
    labels = torch.arange(len(features)) % 2
    toa = torch.full((len(features),), 0.9 * features.shape[1])
    first = next(parameter for name, parameter in model.named_parameters() if name.startswith("phi_x"))

    def run() -> list[Tensor]:
        model.zero_grad()
        found = model(features)
        output = CrashOutput(found.logits, found.logits, found.logits, found.aux_logits)
        total = crash_loss(output, labels, toa, 20.0, rho=(model.rho_1, model.rho_2)).total
        total.backward()
        return [total.detach(), first.new_zeros(()) if first.grad is None else first.grad]

    return run
