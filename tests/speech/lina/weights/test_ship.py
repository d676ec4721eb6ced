"""The embedded model, and how it is put into the package."""

from pathlib import Path

import pytest
import torch

from mmattn.core.weights.checkpoint import embedded_path, load_checkpoint
from mmattn.errors import CheckpointError
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor
from mmattn.speech.lina.synthetic.voices import TRAINING_VOICES
from mmattn.speech.lina.weights.ship import ship
from mmattn.speech.lina.weights.store import StoredLina
from tests.speech.lina.tiny_folder import write_model


def test_shipped_checkpoint_is_half_as_large_and_speaks_with_its_voices(tmp_path: Path) -> None:
    source = write_model(tmp_path / "trained")
    target = ship(source, tmp_path / "assets", {"temperature": 0.5})
    (target / "README.md").write_text("# The card\n")
    ship(source, target, {"temperature": 0.6})
    assert (target / "README.md").read_text() == "# The card\n"
    tensors, config = load_checkpoint(target, "lina")
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert config["speaking"] == {"temperature": 0.6}
    predictor = LinaPredictor.from_pretrained(target)
    assert predictor.load_voice("slt").name == "slt"
    assert predictor.sampling.temperature == 0.6


def test_a_model_without_codec_is_not_shipped(tmp_path: Path) -> None:
    stored = StoredLina.load(write_model(tmp_path / "trained"))
    StoredLina(stored.config, stored.tensors, {}).save(tmp_path / "mute", card="# mute\n")
    with pytest.raises(CheckpointError, match="holds no codec"):
        ship(tmp_path / "mute", tmp_path / "assets")


def test_embedded_model_reads_two_sentences() -> None:
    pytest.importorskip("gruut")
    folder = embedded_path("lina")
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 16e6
    predictor = LinaPredictor.from_pretrained("embedded")
    assert sorted(predictor.voices) == sorted(voice.name for voice in TRAINING_VOICES)
    assert predictor.default_voice == "slt"
    texts = ["The small boat crossed the river.", "Nobody had opened the letter."]
    for result in predictor.predict_batch(
        [LinaItem(text, voice) for text, voice in zip(texts, ["slt", "rms"], strict=True)]
    ):
        report = result.sentences[0].report
        assert result.finished
        assert report.reached_end
        assert report.monotonic > 0.95
        assert 1.0 < result.seconds < 4.0
