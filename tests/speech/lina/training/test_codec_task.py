import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from mmattn.errors import InputError
from mmattn.media.audio import write_audio
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.training.codec_data import CodecDataModule, FreshDraws, RandomCrops, WholeRecordings
from mmattn.speech.lina.training.codec_task import CodecTask
from mmattn.speech.lina.weights.store import load_codec
from tests.speech.lina.codec.tiny import EMBEDDED

RATE = EMBEDDED.sample_rate


def voice(seconds: float, seed: int) -> np.ndarray:
    """Harmonics of a gliding tone, as a voice has them."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(60 + 20 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time)) / RATE
    return (0.1 * sum(np.sin(k * phase) / k for k in range(1, 6))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("voices")
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            write_audio(root / split / "someone" / f"{i}.wav", voice(1.0 + i, i), RATE)
            (root / split / "someone" / f"{i}.txt").write_text("la la la")
    return root


def data(root: Path, **options: Any) -> CodecDataModule:
    options = {"crop_seconds": 0.256, "crops_per_epoch": 120, "batch_size": 4} | options
    return CodecDataModule(str(root), sample_rate=RATE, **options)


def task(**options: Any) -> CodecTask:
    options = {"unquantized_steps": 10, "kept_steps": 8, "warmup_steps": 5, "lr": 3e-3, "config": EMBEDDED} | options
    return CodecTask(**options)


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=CSVLogger(folder), enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1, enable_checkpointing=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def test_training_lowers_the_loss_and_writes_a_codec(folder: Path, tmp_path: Path) -> None:
    seed_everything(1)  # forty steps are few: in one run of four the codes are no worse yet than what they stand for
    run = trainer(tmp_path, max_steps=40)
    run.fit(task(), data(folder))
    rows = list(csv.DictReader(Path(str(run.log_dir), "metrics.csv").read_text().splitlines()))
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    # Codebooks are placed after the tenth step, and only then restarted.
    assert [bool(row["train/restarted"]) for row in rows if row["train/loss"]] == [False] * 10 + [True] * 30
    codec = load_codec(Path(str(run.log_dir), "codec"))
    assert isinstance(codec, EmbeddedCodec)
    assert codec.config == EMBEDDED
    measured = run.test(task(test_checkpoint=str(Path(str(run.log_dir), "codec"))), data(folder), verbose=False)[0]
    assert measured["test/stream_difference"] < 1e-6
    assert {"test/mel_1", "test/mel_2", "test/mel_unquantized", "test/perplexity_3"} <= set(measured)
    assert 1.0 <= measured["test/perplexity_1"] <= EMBEDDED.codebook_size
    assert measured["test/mel_unquantized"] < measured["test/mel_1"]

    again = task(initial_checkpoint=str(Path(str(run.log_dir), "codec")), config=None, lr=1e-9)
    before = again.codec.quantizer.codebook.clone()
    trainer(tmp_path / "again", max_steps=1).fit(again, data(folder))
    # Trained codebooks are not placed anew.
    assert (again.codec.quantizer.codebook - before).square().mean() < 0.05 * before.square().mean()


def test_a_run_without_codebooks_writes_no_codec(folder: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=2)
    run.fit(task(), data(folder))
    assert not Path(str(run.log_dir), "codec").exists()


def test_gradients_reach_the_encoder_past_the_quantiser() -> None:
    torch.manual_seed(0)
    trained = task(commitment=0.0)
    trained.log = trained.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    trained.is_quantized.fill_(True)
    trained.learner.adopt(trained.codec.quantizer)
    trained.training_step(torch.randn(4, 256), 0).backward()
    for name, parameter in trained.codec.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_half_of_the_batch_uses_all_codebooks() -> None:
    torch.manual_seed(0)
    trained = task()
    trained.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    x = torch.randn(40, 3, EMBEDDED.code_dim)
    trained.learner.adopt(trained.codec.quantizer)
    words = trained.codec.quantizer.stages(x)[1]
    sums = words.cumsum(0)
    quantized = trained._quantize(x)
    used = torch.stack([(sums[q] - quantized).abs().amax((1, 2)) < 1e-5 for q in range(3)])
    assert used.sum(0).tolist() == [1] * 40
    assert bool(used[2, :20].all())
    assert sorted(set(used[:, 20:].float().argmax(0).tolist())) == [0, 1, 2]


def test_crops_depend_on_their_number_alone(folder: Path) -> None:
    files = sorted((folder / "train").rglob("*.wav"))
    crops, again = (RandomCrops(files, RATE, 0.25, seed=3) for _ in range(2))
    assert torch.equal(crops[17], again[17])
    assert not torch.equal(crops[17], crops[18])
    assert not torch.equal(crops[17], RandomCrops(files, RATE, 0.25, seed=4)[17])
    assert crops.ends == [1.0, 3.0, 6.0]
    assert all(crops[i].shape == (250,) for i in range(20))


def test_longer_recordings_are_drawn_more_often_and_short_ones_are_continued(tmp_path: Path) -> None:
    for name, seconds, level in (("a", 0.1, 0.9), ("b", 0.9, 0.3)):
        wave = level * np.sign(voice(seconds, 0))
        write_audio(tmp_path / f"{name}.wav", wave.astype(np.float32), RATE)
    crops = RandomCrops(sorted(tmp_path.iterdir()), RATE, 0.2)
    drawn = [crops[i] for i in range(300)]
    short = [crop for crop in drawn if crop[150:].abs().max() < 1e-3]
    assert 10 < len(short) < 60
    # Gains from -6 dB to none.
    peaks = torch.stack([crop.abs().max() for crop in drawn if crop[150:].abs().max() > 0.1])
    assert 0.14 < peaks.min() < 0.17
    assert 0.28 < peaks.max() < 0.31


def test_every_epoch_draws_other_crops(folder: Path) -> None:
    draws = FreshDraws(3)
    draws.set_epoch(2)
    assert (list(draws), len(draws)) == ([6, 7, 8], 3)
    loader = data(folder, crops_per_epoch=8).train_dataloader()
    assert [tuple(batch.shape) for batch in loader] == [(4, 256)] * 2


def test_whole_recordings_are_cut_and_resampled(folder: Path) -> None:
    files = sorted((folder / "val").rglob("*.wav"))
    whole = WholeRecordings(files, RATE // 2, 1.5)
    assert [len(whole[i]) for i in range(len(whole))] == [500, 750]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recordings in .*train"):
        data(tmp_path).train_dataset()
    with pytest.raises(InputError, match="crop_seconds"):
        data(tmp_path, crop_seconds=0)
    with pytest.raises(InputError, match=r"kept_steps <= unquantized_steps"):
        task(kept_steps=20)
