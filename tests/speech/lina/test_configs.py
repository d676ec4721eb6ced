"""The shipped experiments run a step on a few recordings."""

import json
from pathlib import Path

import pytest

from mmattn.core.training.lightning_cli import build
from mmattn.speech.lina.codec.embedded import EmbeddedCodecConfig
from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.speech.lina.voices import cloning
from mmattn.speech.lina.voices.tuning import TuningOptions
from mmattn.speech.lina.weights.store import StoredLina, save_codec
from tests.speech.lina.codec.tiny import embedded, wavtokenizer
from tests.speech.lina.tiny_folder import write_recording

pytest.importorskip("gruut")

SHORT = [
    "--trainer.max_steps", "1", "--trainer.precision", "32-true", "--trainer.callbacks", "[]",
    "--trainer.enable_progress_bar", "false", "--data.init_args.num_workers", "0",
]  # fmt: skip


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_codec_experiment_trains_a_step(workplace: Path) -> None:
    for split in ("train", "val"):
        write_recording(workplace / f"runs/lina_data/codec/{split}/0.wav", None, rate=16_000)
    small = [
        "--model.init_args.unquantized_steps", "1", "--model.init_args.kept_steps", "1",
        "--model.init_args.config", '{"dim": 16, "hidden": 16, "codebook_size": 8, "code_dim": 4}',
        "--data.init_args.crops_per_epoch", "24", "--trainer.val_check_interval", "1",
    ]  # fmt: skip
    cli = build(["fit", "--config", "lina/embedded_codec", *SHORT, *small])
    assert cli.trainer.global_step == 1
    assert (workplace / "runs/lina_codec/version_0/codec/model.safetensors").is_file()


def test_model_experiment_trains_a_step_and_speaks(workplace: Path) -> None:
    config = EmbeddedCodecConfig(dim=16, hidden=16, code_dim=4, encoder_layers=1, frame_layers=1, half_layers=1)
    save_codec(workplace / "runs/lina_codec/version_0/codec", embedded(config=config), card="# tiny\n")
    for split in ("train", "val"):
        write_recording(workplace / f"runs/lina_data/speech/{split}/slt/0.wav", "hello there", rate=16_000)
    small = ["--model.init_args.voices", "[slt]", "--trainer.val_check_interval", "1", "--model.init_args.spoken", "1"]
    cli = build(["fit", "--config", "lina/embedded", *SHORT, *small])
    assert cli.trainer.global_step == 1
    predictor = LinaPredictor.from_pretrained("runs/lina_embedded/version_0/step_1")
    assert (predictor.default_voice, list(predictor.voices)) == ("slt", ["slt"])
    assert predictor.config.codec_options["codebooks"] == 4


def test_model_experiment_is_tested_with_what_ships(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    monkeypatch.setattr(cloning, "usual_tuning", lambda count: TuningOptions(passes=1))
    write_recording(workplace / "runs/lina_data/speech/train/slt/0.wav", "hello there", rate=16_000)
    write_recording(workplace / "runs/lina_data/speech/test/slt/0.wav", "hello stranger", rate=16_000)
    for part in ("clone", "test"):
        write_recording(workplace / f"runs/lina_data/held_out/awb/{part}/0.wav", "good morning", rate=16_000)
    build(["test", "--config", "lina/embedded", *SHORT])
    written = json.loads((workplace / "runs/lina_embedded/version_0/test/scores.json").read_text())
    total = written["rows"]["speech"]["total"]
    assert (total["sentences"], total["seen_words"], total["unseen_words"]) == (1, 1, 1)
    assert total["cer"] < 0.5  # the shipped model does speak
    assert "speech of awb" in written["rows"]


def test_libritts_experiment_trains_a_step_at_the_released_options(workplace: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    save_codec(workplace / "codec", wavtokenizer(), card="# tiny\n")
    for subset, speaker in (("train-clean-100", "103"), ("dev-clean", "84")):
        for number in range(2):
            name = f"{speaker}_1240_000000_00000{number}"
            file = write_recording(workplace / f"data/LibriTTS_R/{subset}/{speaker}/1240/{name}.wav", None, rate=800)
            file.with_suffix(".normalized.txt").write_text("Hello there.", encoding="utf-8")
    small = [
        "--model.init_args.config", '{"dim": 16, "num_layers": 1, "text_layers": 1, "codebook_size": 32}',
        "--model.init_args.recompute", "true",
        "--data.init_args.codec", "codec", "--data.init_args.codec_options", "{}",
        "--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.val_check_interval", "1",
    ]  # fmt: skip
    cli = build(["fit", "--config", "lina/libritts", *SHORT, *small])
    assert cli.trainer.global_step == 1
    stored = StoredLina.load("runs/lina_libritts/version_0/step_1")
    assert (stored.config.codec, stored.config.tokenizer_options) == (
        "wavtokenizer",
        {"file": "lina_libritts_bpe256.json"},
    )
    predictor = LinaPredictor.from_pretrained("runs/lina_libritts/version_0/step_1", codec="codec")
    assert predictor.tokenizer.vocab_size <= 256
