"""Lina's benchmarks at sizes that take no time, and the straightforward form against the authors' numbers."""

import pytest
import torch

from mmattn.bench import lina as bench
from mmattn.bench.peers.lina import PerStepLina
from mmattn.bench.timer import Options
from mmattn.errors import WeightsUnavailableError
from mmattn.speech.lina.predictor import LinaPredictor
from tests.golden import test_lina as golden

QUICK = Options(repeats=1, quick=True)
FIXTURE = "lina_a.safetensors"


def test_all_precisions_agree_with_the_straightforward_form_and_a_quick_run_claims_nothing() -> None:
    report = bench.decode(QUICK)
    assert report.agrees
    assert report.missed == []
    assert [(case.rpartition(" ")[2], comparison.peer) for case, comparison in report.comparisons] == [
        (precision, peer)
        for precision in ("float32", "bfloat16", "int8")
        for peer in ("text side every step", "and text encoder")
    ]
    assert [measure.unit for measure in report.measures] == ["", "tokens/s"] * 3


def test_speech_is_timed_alone_in_a_batch_and_to_its_first_sound() -> None:
    report = bench.speech(QUICK)
    assert [measure.unit for measure in report.measures] == ["s/s", "s/s", "s"]
    assert all(measure.value > 0 and measure.target is None for measure in report.measures)
    assert report.notes[0].startswith("random weights")


def test_without_an_embedded_model_random_weights_speak_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise WeightsUnavailableError("There is no embedded model.")

    tiny = bench.random_predictor(dim=32, num_layers=1).with_options(max_seconds=0.2)
    monkeypatch.setattr(LinaPredictor, "from_pretrained", missing)
    monkeypatch.setattr(bench, "random_predictor", lambda **_: tiny)
    report = bench.speech(Options(repeats=1))
    assert report.notes == ["no embedded model: random weights of its shape (width 256, 3 + 3 layers)"]
    assert [measure.target for measure in report.measures] == [0.5, 0.15, 0.5]


@pytest.mark.parametrize("every_step", [False, True])
def test_the_straightforward_form_says_what_the_authors_code_says(every_step: bool) -> None:
    stored = golden.tensors(FIXTURE)
    heads = golden.network(FIXTURE).config.text_heads
    peer = PerStepLina(golden.published_weights(FIXTURE), text_heads=heads, encode_every_step=every_step)
    found = peer.decode(stored["step/text_token"], stored["step/audio_token"][:, :-1])
    torch.testing.assert_close(found, stored["step/logits_cached"], atol=1e-5, rtol=1e-4)
