"""Training of the token model through Lightning, on a folder of a few recordings."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from mmattn.attention.recurrent.gla import GatedLinearAttention
from mmattn.errors import InputError
from mmattn.media.audio import read_audio
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.data import LinaDataModule
from mmattn.speech.lina.network.batch import START
from mmattn.speech.lina.predictor import LinaItem, LinaPredictor
from mmattn.speech.lina.task import LinaTask
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.voices import cloning
from mmattn.speech.lina.voices.files import load_voice
from mmattn.speech.lina.voices.tuning import TuningOptions
from mmattn.speech.lina.weights.store import StoredLina, save_codec
from tests.speech.lina.codec.tiny import embedded
from tests.speech.lina.tiny import tiny_config
from tests.speech.lina.tiny_folder import CODEC, write_recording

VOCAB = build_tokenizer("characters", {}).vocab_size
STATEMENT = "A hum."


def config(**changes: Any) -> LinaConfig:
    return tiny_config(text_vocab=VOCAB, position="sinusoidal", **changes)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    save_codec(tmp_path / "codec", embedded(config=CODEC), card="# tiny\n")
    for split, count in (("train", 4), ("val", 2)):
        for speaker in ("anna", "bert"):
            for i in range(count):
                write_recording(tmp_path / "speech" / split / speaker / f"{i}.wav", "hello there", 0.3 + 0.1 * i)
    return tmp_path


def data(workplace: Path, **changes: Any) -> LinaDataModule:
    return LinaDataModule(
        str(workplace / "speech"), codec=str(workplace / "codec"), tokenizer="characters", batch_size=4, **changes
    )


def task(workplace: Path, **changes: Any) -> LinaTask:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"config": config(), "codec": str(workplace / "codec"), "warmup_steps": 1, "spoken": 2}
    return LinaTask(**(usual | changes))


def trainer(workplace: Path, steps: int = 2, **changes: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=CSVLogger(workplace / "run", name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **changes,
    )


def test_what_was_trained_speaks_with_its_voices(workplace: Path) -> None:
    trained = task(workplace, voices=["bert", "anna"], voice_statement=STATEMENT, guided_weight=1.0, frame_masking=0.5)
    run = trainer(workplace)
    run.fit(trained, data(workplace))
    assert {"val/loss", "val/top1_1", "val/top10_2", "val/guided", "val/finished"} <= set(run.logged_metrics)
    folder = workplace / "run" / "step_2"
    stored = StoredLina.load(folder)
    assert (stored.config.tokenizer, stored.config.codec) == ("characters", "embedded")
    for name, tensor in trained.model.state_dict().items():
        torch.testing.assert_close(stored.tensors[name], tensor)
    predictor = LinaPredictor.from_pretrained(folder)
    assert sorted(predictor.voices) == ["anna", "bert"]
    voice = load_voice(folder / "voices" / "anna.safetensors", predictor.fingerprint)
    assert voice.consent == STATEMENT
    torch.testing.assert_close(voice.state.tensors["layer0_k"], trained.table.keys[0][1:].detach())


def test_loss_falls(workplace: Path) -> None:
    trained = task(workplace, lr=1e-2, spoken=0, voices=["anna"], voice_statement=STATEMENT)
    before = trained.table.values[0].detach().clone()
    losses: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    trainer(workplace, 30, callbacks=[Watch()], limit_val_batches=0).fit(trained, data(workplace))
    assert losses[-1] < 0.7 * losses[0]
    assert float((trained.table.values[0].detach() - before).abs().mean()) > 0.01


def test_speakers_without_a_state_start_as_the_model_does(workplace: Path) -> None:
    trained = task(workplace, voices=["bert"], voice_statement=STATEMENT)
    trainer(workplace, 1, limit_val_batches=0).fit(trained, data(workplace))
    state = trained._start(torch.tensor([0, 1, -1]))  # anna, bert, somebody
    assert [float(row.detach().abs().max()) > 0 for row in state.layers[0][0]] == [False, True, False]


def test_hidden_frames_say_nothing(workplace: Path) -> None:
    module = data(workplace)
    module.prepare_data()
    batch = next(iter(module.train_dataloader()))
    trained = task(workplace, frame_masking=0.5)
    hidden = trained._hide_frames(batch.speech)
    changed = (hidden.audio != batch.speech.audio).any(-1)
    assert 0.2 < float(changed.float().mean()) < 0.8
    assert bool((hidden.audio[changed] == START).all())
    assert task(workplace)._hide_frames(batch.speech) is batch.speech


def test_gates_remember_at_first(workplace: Path) -> None:
    layers = [m for m in task(workplace, gate_bias=4.0).model.modules() if isinstance(m, GatedLinearAttention)]
    assert layers
    for layer in layers:
        bias = layer.gk_proj[1].bias.view(layer.num_heads, -1)
        torch.testing.assert_close(bias, torch.linspace(0, 4, bias.shape[1]).expand_as(bias))


def test_guidance_fades(workplace: Path) -> None:
    trained = task(workplace, guided_weight=2.0, guided_until=0.5)
    weights: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            weights.append(trained._guided_weight())

    trainer(workplace, 4, callbacks=[Watch()], limit_val_batches=0).fit(trained, data(workplace))
    assert weights == [2.0, 1.0, 0.0, 0.0]


def test_training_goes_on_from_a_checkpoint_folder(workplace: Path) -> None:
    trained = task(workplace)
    trainer(workplace, 1).fit(trained, data(workplace))
    again = LinaTask(initial_checkpoint=str(workplace / "run" / "step_1"))
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, trained.model.state_dict()[name])
    assert again.model.training


def test_a_checkpoint_has_the_tokenizers_file(workplace: Path) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    options = {"file": str(workplace / "pieces.json")}
    pieces = LinaDataModule(
        str(workplace / "speech"), codec=str(workplace / "codec"), tokenizer="bpe", tokenizer_options=options,
        learn_tokenizer=True, batch_size=4,
    )  # fmt: skip
    trainer(workplace, 1).fit(
        task(workplace, config=tiny_config(text_vocab=64, position="sinusoidal"), recompute=True), pieces
    )
    (workplace / "pieces.json").unlink()
    predictor = LinaPredictor.from_pretrained(workplace / "run" / "step_1", max_seconds=0.5, retries=0)
    assert predictor.tokenizer.encode("hello").symbols[1:-1] == ["hello"]
    assert len(predictor.predict("hello").samples) > 0


@pytest.mark.parametrize("named", ["test_checkpoint", "ckpt_path"])
def test_a_test_speaks_and_judges(workplace: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    monkeypatch.setattr(cloning, "usual_tuning", lambda count: TuningOptions(passes=1))
    write_recording(workplace / "speech/test/anna/0.wav", "hello stranger")
    for part in ("clone", "test"):
        write_recording(workplace / f"strangers/carl/{part}/0.wav", "good morning")
    usual: dict[str, Any] = {"voices": ["anna"], "voice_statement": STATEMENT}
    usual |= {"test_options": {"max_seconds": 0.5, "retries": 0}}
    run = trainer(workplace, 1)
    first = task(workplace, **usual)
    run.fit(first, data(workplace))
    run.save_checkpoint(workplace / "last.ckpt")
    recordings = data(workplace, held_out=str(workplace / "strangers"))
    if named == "test_checkpoint":
        # Its other weights, which nobody asked for, would give another duration.
        other = task(workplace, **usual, test_checkpoint=str(workplace / "run" / "step_1"), codec=None)
        path = None
    else:
        other, path = task(workplace, **usual), workplace / "last.ckpt"
    tested = trainer(workplace, 1)
    (numbers,) = tested.test(other, recordings, ckpt_path=path, weights_only=True if path else None, verbose=False)
    assert numbers["test/speech/sentences"] == numbers["test/speech_of_carl/sentences"] == 1
    assert (numbers["test/speech/seen_words"], numbers["test/speech/unseen_words"]) == (1, 1)
    spoken = read_audio(next((workplace / "run/test/speech").glob("*_anna.wav"))).samples
    expected = LinaPredictor.from_pretrained(workplace / "run" / "step_1", max_seconds=0.5, retries=0)
    np.testing.assert_allclose(spoken, expected.predict(LinaItem("hello stranger", "anna", 0)).samples, atol=1e-4)
    assert (workplace / "run/test/table.md").read_text().startswith("|")


def test_a_test_needs_the_voices_that_are_configured(workplace: Path) -> None:
    write_recording(workplace / "speech/test/anna/0.wav", "hello stranger")
    with pytest.raises(InputError, match="no held-out voices"):
        trainer(workplace, 1).test(task(workplace), data(workplace, held_out=str(workplace / "nobody")), verbose=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voices": ["carl"], "voice_statement": STATEMENT}, "no training recordings of carl; there are anna, bert"),
        ({"config": config(num_codebooks=1)}, "2 codebooks of 12, and the model 1 of 12"),
    ],
)
def test_data_that_do_not_fit(workplace: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trainer(workplace, 1).fit(task(workplace, **changes), data(workplace))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, "expected lr > 0"),
        ({"frame_masking": 1.0}, r"frame_masking in \[0, 1\)"),
        ({"voices": ["anna"]}, "voice_statement is empty"),
    ],
)
def test_wrong_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LinaTask(**changes)
