"""The loss by hand and what it leaves out."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmattn.speech.lina.losses import guided_attention_loss, lina_loss, targets, top_k_accuracy
from mmattn.speech.lina.network.batch import collate
from tests.speech.lina.tiny import utterances

BATCH = collate(utterances((4, 6), (3, 2)))
LOGITS = torch.randn(2, 8, 2, 15, generator=torch.Generator().manual_seed(0)).double()


def test_the_loss_is_the_mean_over_real_targets_that_are_no_starts() -> None:
    terms = []
    for item, columns in ((0, 9), (1, 5)):  # frames + codebooks + 1
        for column in range(1, columns):
            for codebook in range(2):
                wanted = int(BATCH.audio[item, column, codebook])
                if wanted != 1:
                    terms.append(-LOGITS[item, column - 1, codebook].log_softmax(0)[wanted])
    assert len(terms) == 2 * (8 + 4) - 2
    found = lina_loss(LOGITS, BATCH.audio, BATCH.audio_valid)
    torch.testing.assert_close(found.total, torch.stack(terms).mean())


def test_codebooks_are_told_apart() -> None:
    logits = LOGITS.clone()
    logits[:, :, 1] = 0.0
    found = lina_loss(logits, BATCH.audio, BATCH.audio_valid).per_codebook
    assert found[1].item() == pytest.approx(torch.tensor(15.0).log().item())
    wanted = targets(BATCH.audio, BATCH.audio_valid)[..., 0]
    expected = F.cross_entropy(logits[:, :, 0].flatten(0, 1), wanted.flatten(), ignore_index=1)
    torch.testing.assert_close(found[0], expected)


def test_the_padding_has_no_influence() -> None:
    changed = LOGITS.clone()
    changed[1, 4:] = 100.0
    before, after = (lina_loss(x, BATCH.audio, BATCH.audio_valid).total for x in (LOGITS, changed))
    assert before.item() == after.item()


def test_half_precision_logits_are_summed_in_single() -> None:
    half = LOGITS.bfloat16()
    found = lina_loss(half, BATCH.audio, BATCH.audio_valid)
    assert found.total.dtype == torch.float32
    torch.testing.assert_close(found.total, lina_loss(half.float(), BATCH.audio, BATCH.audio_valid).total)


def test_accuracy_counts_tokens_among_the_likeliest() -> None:
    wanted = targets(BATCH.audio, BATCH.audio_valid)
    right = F.one_hot(wanted, 15).double()
    assert top_k_accuracy(right, BATCH.audio, BATCH.audio_valid, k=1).tolist() == [1.0, 1.0]
    assert top_k_accuracy(-right, BATCH.audio, BATCH.audio_valid, k=14).tolist() == [0.0, 0.0]
    assert top_k_accuracy(-right, BATCH.audio, BATCH.audio_valid, k=15).tolist() == [1.0, 1.0]


def test_weights_say_what_a_codebook_counts() -> None:
    logits = torch.randn(*BATCH.audio[:, 1:].shape, 15, generator=torch.Generator().manual_seed(0))
    plain = lina_loss(logits, BATCH.audio, BATCH.audio_valid)
    first = lina_loss(logits, BATCH.audio, BATCH.audio_valid, [1.0, 0.0])
    torch.testing.assert_close(first.total, plain.per_codebook[0])
    torch.testing.assert_close(first.per_codebook, plain.per_codebook)
    alike = lina_loss(logits, BATCH.audio, BATCH.audio_valid, [3.0, 3.0])
    torch.testing.assert_close(alike.total, plain.total)


def valid(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])  # the first frame reads the end, the second both
    off = 1 - math.exp(-1 / (2 * 0.5**2))
    expected = (off + 0.5 * off) / 2
    assert guided_attention_loss(maps, valid(2), valid(2), sigma=0.5).item() == pytest.approx(expected)


def test_padding_counts_for_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 2, 5, 4, generator=generator).softmax(-1)
    alone = guided_attention_loss(maps, valid(5), valid(4))
    padded = torch.rand(2, 2, 7, 6, generator=generator)
    padded[0, :, :5, :4] = maps[0]
    padded[1] = 0.0
    both = guided_attention_loss(padded, valid(5, 7), valid(4, 6))
    assert both.item() * 12 == pytest.approx(alone.item() * 5, rel=1e-5)
