from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmattn.speech.lina.codec.protocol import Codec, decode_windowed
from mmattn.speech.lina.config import LinaInferOptions
from mmattn.speech.lina.generation.narration import Leveller, Narrator
from tests.speech.lina.codec.tiny import codes_of, embedded, wavtokenizer

OPTIONS = LinaInferOptions(part_pause=0.05, sentence_pause=0.1, paragraph_pause=0.3)
UNEVEN = replace(OPTIONS, even_loudness=False)


@torch.inference_mode()
def narrate(
    codec: Codec, sentences: list[torch.Tensor], portions: list[int] | None = None, *, even: bool = True
) -> tuple[np.ndarray, list[int]]:
    """Returns the recording and the lengths of its pieces."""
    narrator, pieces = Narrator(codec, OPTIONS if even else UNEVEN), []
    for place, codes in enumerate(sentences):
        pieces.append(narrator.begin("sentence" if place else "start"))
        sizes = portions or [codes.shape[1]]
        cuts = [0, *np.cumsum(sizes * codes.shape[1])[: codes.shape[1]].clip(max=codes.shape[1]).tolist()]
        pieces += [narrator.push(codes[:, start:stop]) for start, stop in pairwise(cuts)]
        pieces.append(narrator.end())
    return np.concatenate(pieces), [len(piece) for piece in pieces]


@pytest.mark.parametrize("portions", [[1], [3, 1, 5], [40]])
@pytest.mark.parametrize("is_finite", [True, False])
def test_portions_change_no_bit(is_finite: bool, portions: list[int]) -> None:
    codec = embedded() if is_finite else wavtokenizer()
    sentences = [codes_of(codec, frames, seed=frames)[0] for frames in (50, 1, 33)]
    whole, _ = narrate(codec, sentences)
    assert np.array_equal(narrate(codec, sentences, portions)[0], whole)
    assert len(whole) == 84 * codec.hop + 2 * round(0.1 * codec.sample_rate)


def test_a_finite_codec_gives_the_samples_of_one_decode() -> None:
    codec, codes = embedded(), codes_of(embedded(), 150)
    with torch.inference_mode():
        expected = codec.decode(codes)[0].numpy()
    np.testing.assert_allclose(narrate(codec, [codes[0]], even=False)[0], expected, atol=1e-5)


def test_another_codec_gives_its_windowed_decode() -> None:
    codec, codes = wavtokenizer(), codes_of(wavtokenizer(), 150)
    with torch.inference_mode():
        expected = decode_windowed(codec, codes)[0].numpy()
    assert np.array_equal(narrate(codec, [codes[0]], even=False)[0], expected)


def test_the_first_sound_comes_early_and_pieces_grow() -> None:
    codec = embedded()
    _, sizes = narrate(codec, [codes_of(codec, 300)[0]], [1], even=False)
    heard = [(place, size // codec.hop) for place, size in enumerate(sizes) if size]
    first_step = round(0.08 * 1000 / 16)
    assert heard[0] == (first_step + codec.context, first_step)
    assert [size for _, size in heard[:5]] == [5, 10, 20, 40, 62]


def test_a_cut_sentence_fades_out() -> None:
    codec = embedded()
    with torch.inference_mode():
        ends = []
        for is_cut in (False, True):
            narrator = Narrator(codec, UNEVEN)
            narrator.begin("start")
            narrator.push(codes_of(codec, 3)[0])
            ends.append(narrator.end(is_cut=is_cut))
    np.testing.assert_array_equal(ends[1][:-10], ends[0][:-10])
    np.testing.assert_allclose(ends[1][-10:], ends[0][-10:] * np.linspace(1, 0, 10), atol=1e-7)


def test_pushing_before_a_sentence_has_begun_is_an_error() -> None:
    narrator = Narrator(embedded(), OPTIONS)
    with pytest.raises(ValueError, match="call begin first"):
        narrator.push(codes_of(embedded(), 3)[0])
    with pytest.raises(ValueError, match="call begin and push first"):
        narrator.end()


def level(*sentences: np.ndarray) -> list[np.ndarray]:
    leveller, out = Leveller(1000), []
    for sentence in sentences:
        leveller.begin()
        out.append(leveller.push(sentence.astype(np.float32)))
        leveller.end()
    return out


def test_sentences_come_near_the_loudness_of_those_before() -> None:
    noise = np.random.default_rng(0).normal(size=4000) * 0.1
    first, soft, loud = level(noise, noise * 0.6, noise * 1.6)
    assert np.array_equal(first, noise.astype(np.float32))
    assert 0.85 < soft[2000:].std() / noise[2000:].std() < 1.0
    assert 0.9 < loud[2000:].std() / noise[2000:].std() < 1.2
    # The beginning of a sentence is left as it is.
    np.testing.assert_allclose(soft[:50], noise[:50] * 0.6, atol=1e-6)


def test_the_gain_is_bounded_and_silence_does_not_count() -> None:
    noise = np.random.default_rng(0).normal(size=20_000) * 0.1
    _, soft, silent = level(noise, noise * 0.1, noise * 1e-4)
    assert soft[10_000:].std() / (noise[10_000:].std() * 0.1) == pytest.approx(10 ** (6 / 20), rel=1e-3)
    np.testing.assert_allclose(silent, noise * 1e-4, rtol=1e-5)
