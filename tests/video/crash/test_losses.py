"""The loss by hand, its two weightings, and the learned weights of its terms."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.video.crash.config import CrashLossOptions
from mmattn.video.crash.losses import crash_loss, frame_losses, time_weights
from mmattn.video.crash.model import CrashOutput

PLAIN = CrashLossOptions(learn_rho=False)
UPSTREAM = CrashLossOptions(learn_rho=False, weighting="upstream_batch_mean")


def scores(batch: int = 3, frames: int = 6, aux: bool = True, seed: int = 0) -> CrashOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, frames, 2, generator=generator).double().requires_grad_()
    extra = torch.randn(batch, 2, generator=generator).double().requires_grad_() if aux else None
    return CrashOutput(logits, logits.new_zeros(batch, frames, 4), logits.new_zeros(batch, frames, 8), extra)


def test_two_clips_are_weighted_as_by_hand() -> None:
    logits = torch.zeros(2, 3, 2).double()
    logits[0, :, 1] = math.log(3.0)  # the accident gets probability 3/4
    found = frame_losses(logits, torch.tensor([1, 0]), torch.tensor([3.0, 4.0]), 2.0, PLAIN)
    for t, weight in enumerate((math.exp(-0.5), math.exp(-0.25), 1.0)):
        expected = (weight * -math.log(0.75) + -math.log(0.5)) / 2
        assert found[t].item() == pytest.approx(expected, rel=1e-6)


def test_weights_rise_to_one_at_the_accident_and_stay_there() -> None:
    weights = time_weights(5, torch.tensor([1.0, 3.0, 5.0]), torch.tensor([10.0, 10.0, 20.0]), 1.0)
    assert weights[0].tolist() == [1.0] * 5
    torch.testing.assert_close(weights[1], torch.tensor([math.exp(-0.2), math.exp(-0.1), 1.0, 1.0, 1.0]))
    torch.testing.assert_close(weights[2, 0], torch.tensor(math.exp(-0.2)))
    assert weights[2, 4] == 1.0


def test_batch_mean_weights_every_accident_by_the_mean_over_all_clips() -> None:
    output, label, toa = scores(), torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0])
    mean = time_weights(6, toa, 10.0, 0.5).mean(0)
    entropy = torch.stack([F.cross_entropy(output.logits[:, t], label, reduction="none") for t in range(6)], dim=1)
    expected = torch.stack([entropy[0] * mean, entropy[1], entropy[2] * mean]).mean(0)
    torch.testing.assert_close(frame_losses(output.logits, label, toa, 10.0, UPSTREAM), expected)
    assert not torch.allclose(frame_losses(output.logits, label, toa, 10.0, PLAIN), expected)


@given(toa=st.floats(1.0, 6.0), fps=st.sampled_from([5.0, 10.0, 20.0]), label=st.integers(0, 1), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_both_weightings_agree_on_a_batch_of_one(toa: float, fps: float, label: int, seed: int) -> None:
    logits = scores(1, seed=seed).logits
    arguments = (logits, torch.tensor([label]), torch.tensor([toa]), fps)
    torch.testing.assert_close(frame_losses(*arguments, PLAIN), frame_losses(*arguments, UPSTREAM))


def test_a_batch_without_accidents_is_plain_cross_entropy() -> None:
    output, label = scores(), torch.zeros(3, dtype=torch.long)
    found = crash_loss(output, label, torch.full((3,), 7.0), 10.0, PLAIN)
    expected = F.cross_entropy(output.logits.flatten(0, 1), label.repeat_interleave(6), reduction="sum") / 3
    torch.testing.assert_close(found.frame, expected)


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    output, label, toa = scores(), torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0])
    rho = (torch.tensor(1.3).double(), torch.tensor(0.8).double())
    plain = crash_loss(output, label, toa, 10.0, PLAIN)
    options = CrashLossOptions(frame_weight=3.0, aux_weight=5.0)
    found = crash_loss(output, label, toa, 10.0, options, rho=rho)
    torch.testing.assert_close(found.frame, plain.frame / 1.3**2)
    torch.testing.assert_close(found.auxiliary, plain.auxiliary / 0.8**2)
    torch.testing.assert_close(plain.auxiliary, F.cross_entropy(output.aux_logits, label))  # type: ignore[arg-type]
    torch.testing.assert_close(found.total, 1.5 * found.frame + 2.5 * found.auxiliary + math.log(1.3 * 0.8))
    torch.testing.assert_close(plain.total, 0.5 * plain.frame + 7.5 * plain.auxiliary)


def test_the_sign_of_rho_is_free_and_the_logarithm_ends_before_zero() -> None:
    output, label, toa = scores(), torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0])

    def total(first: float, second: float) -> torch.Tensor:
        return crash_loss(output, label, toa, 10.0, rho=(torch.tensor(first), torch.tensor(second))).total

    torch.testing.assert_close(total(-1.3, 0.8), total(1.3, 0.8))
    rho = torch.tensor(1e-4, requires_grad=True)
    found = crash_loss(output, label, toa, 10.0, rho=(rho, torch.tensor(1e-4)))
    assert found.log.item() == pytest.approx(math.log(1e-6))
    found.total.backward()
    assert rho.grad is not None
    assert rho.grad < 0  # descent leads away from zero
    assert rho.grad.isfinite()


def test_without_an_auxiliary_head_only_the_first_rho_is_learned() -> None:
    output = scores(aux=False)
    rho = (torch.tensor(1.5, requires_grad=True), torch.tensor(0.1, requires_grad=True))
    found = crash_loss(output, torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0]), 10.0, rho=rho)
    assert found.auxiliary.item() == 0.0
    assert found.log.item() == pytest.approx(math.log(1.5))
    found.total.backward()
    assert rho[0].grad is not None
    assert rho[1].grad is None or rho[1].grad.item() == 0.0


def test_frames_after_the_accident_can_be_left_out() -> None:
    output, label, toa = scores(), torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0])
    options = CrashLossOptions(learn_rho=False, after_accident=False)
    crash_loss(output, label, toa, 10.0, options).frame.backward()
    assert output.logits.grad is not None
    used = output.logits.grad.abs().amax(-1) > 0
    assert used.tolist() == [[True] * 2 + [False] * 4, [True] * 6, [True] * 6]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_compared_in_single_precision(dtype: torch.dtype) -> None:
    output = scores(aux=False)
    half = output._replace(logits=output.logits.detach().to(dtype))
    single = output._replace(logits=half.logits.float())
    arguments = (torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0]), 10.0, PLAIN)
    assert torch.equal(crash_loss(half, *arguments).total, crash_loss(single, *arguments).total)


def test_learning_rho_needs_it() -> None:
    with pytest.raises(InputError, match="learn_rho is on, but no rho was given") as caught:
        crash_loss(scores(), torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0]), 10.0)
    assert "model.rho_1" in caught.value.hint


def test_loss_passes_gradcheck() -> None:
    label, toa = torch.tensor([1, 0, 1]), torch.tensor([2.0, 7.0, 6.0])
    output = scores()

    def total(logits: torch.Tensor, aux: torch.Tensor) -> torch.Tensor:
        return crash_loss(output._replace(logits=logits, aux_logits=aux), label, toa, 10.0, PLAIN).total

    assert torch.autograd.gradcheck(total, (output.logits, output.aux_logits))
