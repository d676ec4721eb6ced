"""Frame head, Monte-Carlo dropout, positions and the aggregation of a clip."""

import math

import pytest
import torch

from mmattn.video.crash.network.heads import Classifier, VideoAggregation, positional_encoding


def classifier(dropout: float = 0.5) -> Classifier:
    torch.manual_seed(0)
    return Classifier(8, 4, dropout)


@torch.no_grad()
def test_dropout_is_on_in_training_only_unless_said_otherwise() -> None:
    head, x = classifier().eval(), torch.randn(64, 8)
    plain = head.dense2(head.dense1(x).relu())
    assert torch.equal(head(x), plain)
    assert not torch.allclose(head(x, drop=True), plain)
    assert not torch.allclose(head.train()(x), plain)
    assert torch.equal(head(x, drop=False), plain)


@torch.no_grad()
def test_samples_average_probabilities_and_measure_their_spread() -> None:
    head, x = classifier().eval(), torch.randn(5, 8)
    torch.manual_seed(7)
    logits, spread = head.sample(x, 4)
    torch.manual_seed(7)
    passes = torch.stack([head(x, drop=True).softmax(-1) for _ in range(4)])
    torch.testing.assert_close(logits.softmax(-1), passes.mean(0))
    torch.testing.assert_close(spread, passes[..., 1].std(0))
    assert spread.min() > 0


@torch.no_grad()
def test_samples_of_certain_scores_have_finite_logits() -> None:
    head = classifier().eval()
    head.dense2.bias.copy_(torch.tensor([-1e4, 1e4]))
    logits, spread = head.sample(torch.randn(3, 8), 3)
    assert logits.isfinite().all()
    assert torch.equal(logits.softmax(-1)[:, 1], torch.ones(3))
    assert torch.equal(spread, torch.zeros(3))


def test_positions_are_sines_and_cosines_of_falling_frequency() -> None:
    table = positional_encoding(50, 6)
    for t, d in ((0, 0), (3, 2), (49, 4)):
        angle = t / 10000 ** (d / 6)
        assert table[t, d].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[t, d + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert positional_encoding(4, 5).shape == (4, 5)


@torch.no_grad()
def test_clips_longer_than_the_table_get_the_positions_they_need() -> None:
    torch.manual_seed(0)
    long, short = VideoAggregation(8, 4), VideoAggregation(8, 4)
    short.load_state_dict(long.state_dict())
    short.positions = short.positions[:3]
    hidden = torch.randn(2, 130, 8)
    torch.testing.assert_close(long(hidden), short(hidden))
    # All frames take part, the last one too.
    changed = hidden.clone()
    changed[:, -1] += 1.0
    assert (long(changed) - long(hidden)).abs().max() > 1e-4


@torch.no_grad()
def test_aggregation_is_attention_over_time_then_mean_and_maximum() -> None:
    torch.manual_seed(0)
    module, hidden = VideoAggregation(8, 2).double(), torch.randn(2, 5, 8).double()
    x = hidden + positional_encoding(5, 8).double()
    q, k, v = module.qkv(x).chunk(3, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / 2.0
        heads.append(scores.softmax(-1) @ v[..., part])
    out = module.dense(torch.cat(heads, dim=-1))
    expected = torch.cat([out.mean(1), out.max(1).values], dim=-1)
    torch.testing.assert_close(module(hidden), expected)


def test_the_table_of_positions_is_not_saved() -> None:
    assert sorted(VideoAggregation(8, 4).state_dict()) == ["dense.bias", "dense.weight", "qkv.weight"]
