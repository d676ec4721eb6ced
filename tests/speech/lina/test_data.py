"""The data module: batches with the right codes, texts and speakers, in an order that can be repeated."""

import pickle
from itertools import chain
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from mmattn.errors import InputError
from mmattn.media.audio import read_audio
from mmattn.speech.lina.data import LinaBatch, LinaDataModule
from mmattn.speech.lina.datasets.batches import BucketBatches
from mmattn.speech.lina.text.tokenizers import CharacterTokenizer
from mmattn.speech.lina.weights.store import save_codec
from tests.speech.lina.codec import tiny
from tests.speech.lina.speech_folders import ljspeech, plain_folder, say


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_codec(tmp_path_factory.mktemp("codec"), tiny.embedded(), card="tiny"))


@pytest.fixture
def data(tmp_path: Path, codec: str) -> LinaDataModule:
    return module(plain_folder(tmp_path / "data"), codec, batch_size=3, seed=1)


def module(root: Path, codec: str, **options: object) -> LinaDataModule:
    settings = {"tokenizer": "characters", "buckets": 2, "codec": codec, **options}
    return LinaDataModule(str(root), **settings)  # type: ignore[arg-type]


def test_a_batch_has_codes_texts_speakers_and_names(data: LinaDataModule) -> None:
    assert data.speakers == ["anna", "ben"]
    batches = list(data.train_dataloader())
    assert sorted(name for batch in batches for name in batch.names) == [
        f"train/{speaker}/{index}" for speaker in ("anna", "ben") for index in range(4)
    ]
    for batch in batches:
        assert isinstance(batch, LinaBatch)
        assert batch.speakers.dtype == torch.int64
        assert batch.speech.audio.shape[2] == 3
        for row, (name, speaker) in enumerate(zip(batch.names, batch.speakers.tolist(), strict=True)):
            assert data.speakers[speaker] == name.split("/")[1]
            wave = read_audio(Path(str(data.root), name + ".wav")).samples
            expected = tiny.embedded().encode(torch.from_numpy(wave)[None])[0]
            audio = batch.speech.audio[row][batch.speech.audio_valid[row]]
            assert torch.equal(audio[1 : 1 + expected.shape[1], 0], expected[0] + 3)
            text = batch.speech.text[row][batch.speech.text_valid[row]]
            assert torch.equal(text, CharacterTokenizer().encode(f"hello number {name[-1]}").ids)


def test_validation_comes_in_order_and_strangers_have_no_number(data: LinaDataModule) -> None:
    say(Path(str(data.root)) / "val" / "carl" / "0.wav", "who is this?")
    (val,) = list(data.val_dataloader())
    assert val.names == ["val/anna/0", "val/ben/0", "val/carl/0"]
    assert val.speakers.tolist() == [0, 1, -1]


def test_a_test_gets_recordings_and_needs_no_codec(data: LinaDataModule) -> None:
    plain = module(Path(str(data.root)), "no/such/codec", eval_batch_size=2)
    batches = list(plain.test_dataloader())
    assert [[file.name for file in batch] for batch in batches] == [["test/anna/0", "test/ben/0"], ["test/carl/0"]]
    assert batches[1][0].text == "who is this?"
    with pytest.raises(InputError, match="needs prediction data"):
        plain.predict_dataloader()


def test_pairs_of_a_speaker_are_long_utterances(data: LinaDataModule, codec: str) -> None:
    more = module(Path(str(data.root)), codec, joined=0.5)
    dataset, plain = more.train_dataset(), data.train_dataset()
    assert dataset is not None
    assert plain is not None
    assert (len(plain), len(dataset)) == (8, 12)
    for index in range(8, 12):
        first, second = (plain.names.index(name) for name in dataset.names[index].split("+"))
        assert first != second
        assert dataset.speakers[index] == plain.speakers[first] == plain.speakers[second]
        joined = dataset[index].utterance
        expected = torch.cat([plain[first].utterance.codes, plain[second].utterance.codes], dim=1)
        assert torch.equal(joined.codes, expected)
        texts = [f"hello number {plain.names[place][-1]}" for place in (first, second)]
        assert torch.equal(joined.text, CharacterTokenizer().encode(", ".join(texts)).ids)


def test_a_tokenizer_is_learned_once_from_training_texts(tmp_path: Path, codec: str) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    file = tmp_path / "pieces.json"
    options = {"tokenizer": "bpe", "tokenizer_options": {"file": str(file)}}
    root = plain_folder(tmp_path / "data")
    with pytest.raises(InputError, match=r"pieces\.json is missing"):
        module(root, codec, **options).train_dataset()
    learned = module(root, codec, learn_tokenizer=True, **options).built_tokenizer
    assert "hello" in learned.encode("hello").symbols
    assert "this" not in learned.encode("this").symbols  # carl says it, in the test alone
    before = file.read_bytes()
    say(root / "train" / "anna" / "9.wav", "something else entirely")
    assert module(root, codec, learn_tokenizer=True, **options).built_tokenizer.vocab_size == learned.vocab_size
    assert file.read_bytes() == before


def test_batches_go_to_a_device(data: LinaDataModule) -> None:
    batch = next(iter(data.train_dataloader())).to("meta")
    assert {batch.speakers.device.type, batch.speech.audio.device.type, batch.speech.text.device.type} == {"meta"}
    assert len(batch.names) == len(batch.speakers)


def test_the_order_depends_on_seed_and_epoch_alone(data: LinaDataModule, codec: str) -> None:
    def names(loader: DataLoader[LinaBatch], epoch: int) -> list[list[str]]:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        return [batch.names for batch in loader]

    loader = data.train_dataloader()
    first, second = names(loader, 0), names(loader, 1)
    assert first != second
    again = module(Path(str(data.root)), codec, batch_size=3, seed=1).train_dataloader()
    assert names(again, 1) == second
    other = module(Path(str(data.root)), codec, batch_size=3, seed=2).train_dataloader()
    assert names(other, 0) != first


def test_the_cache_serves_every_number_of_codebooks(data: LinaDataModule, codec: str, tmp_path: Path) -> None:
    data.prepare_data()
    root = Path(str(data.root))
    stored = {path: path.stat().st_mtime_ns for path in root.glob(".tokens/*/*.safetensors")}
    assert len({path.parent.name.split("-")[0] for path in stored}) == 2
    fewer = module(root, codec, codebooks=2)
    assert next(iter(fewer.train_dataloader())).speech.audio.shape[2] == 2
    assert {path: path.stat().st_mtime_ns for path in root.glob(".tokens/*/*.safetensors")} == stored
    elsewhere = module(root, codec, cache=str(tmp_path / "elsewhere"))
    elsewhere.prepare_data()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2


def test_what_goes_to_a_loading_process_is_small_and_light(data: LinaDataModule) -> None:
    loader = data.train_dataloader()
    assert loader.collate_fn.__module__ == "mmattn.speech.lina.datasets.batches"
    copy = pickle.loads(pickle.dumps(loader.dataset))
    assert [item.utterance.name for item in copy[[1, 0]]] == ["train/anna/1", "train/anna/0"]


def test_lengths_outside_the_range_are_left_out(data: LinaDataModule, codec: str) -> None:
    # 0.4, 0.5, 0.6, 0.7 s of 16 samples a frame: 25, 32, 38, 44 frames.
    some = module(Path(str(data.root)), codec, min_frames=30, max_frames=40)
    dataset = some.train_dataset()
    assert dataset is not None
    assert sorted(dataset.frames) == [32, 32, 38, 38]
    assert some.val_dataset() is None


def test_frames_per_batch_bound_the_padded_size(data: LinaDataModule, codec: str) -> None:
    loader = module(Path(str(data.root)), codec, frames_per_batch=100).train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    for batch in batches:
        longest = max(int(valid.sum()) for valid in batch.speech.audio_valid) - 4  # delay of three codebooks
        assert len(batch.names) * longest <= 100


def test_a_dataset_without_splits(tmp_path: Path, codec: str) -> None:
    data = module(ljspeech(tmp_path, count=60), codec)
    assert data.speakers == ["LJ"]
    parts = (data.train_dataset(), data.val_dataset(), data.test_dataset())
    sizes = [len(part) for part in parts if part is not None]
    assert sum(sizes) == 60


def test_missing_data_are_told_before_a_missing_codec(tmp_path: Path) -> None:
    data = LinaDataModule(root=str(tmp_path / "nowhere"), codec=str(tmp_path / "no_codec"))
    with pytest.raises(InputError, match="nowhere"):
        data.prepare_data()


def test_nothing_configured_says_what_to_set(codec: str) -> None:
    data = LinaDataModule(codec=codec)
    assert data.speakers == []
    with pytest.raises(InputError, match=r"data\.init_args\.root"):
        data.train_dataloader()


@pytest.mark.parametrize(
    "options",
    [{"buckets": 0}, {"min_frames": 9, "max_frames": 8}, {"codebooks": 0}, {"frames_per_batch": 0}, {"joined": -1}],
)
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        LinaDataModule(**options)  # type: ignore[arg-type]


class Listener(LightningModule):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.heard: list[list[str]] = []

    def training_step(self, batch: LinaBatch, index: int) -> Tensor:
        assert isinstance(batch, LinaBatch)
        self.heard.append(batch.names)
        return self.weight * batch.speech.audio.float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_trains_on_it_with_a_new_order_in_each_epoch(data: LinaDataModule) -> None:
    listener = Listener()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(listener, data)
    count = len(listener.heard) // 2
    first, second = listener.heard[:count], listener.heard[count:]
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert first != second


def test_buckets_hold_everything_once_in_batches_of_like_lengths() -> None:
    frames = [int(x) for x in torch.randint(20, 400, (200,), generator=torch.Generator().manual_seed(0))]
    sampler = BucketBatches(frames, batch_size=8, frames_per_batch=2000, buckets=5)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(chain(*batches)) == list(range(200))
    assert all(max(frames[i] for i in b) - min(frames[i] for i in b) <= (399 - 20) / 5 + 1 for b in batches)
    assert all(len(b) * max(frames[i] for i in b) <= 2000 for b in batches)
    sampler.set_epoch(1)
    assert len(list(sampler)) == len(batches)


def test_buckets_of_equal_or_single_lengths() -> None:
    assert sorted(chain(*BucketBatches([5] * 7, batch_size=3))) == list(range(7))
    assert list(BucketBatches([5000], batch_size=3, frames_per_batch=100)) == [[0]]


def test_a_text_that_cannot_be_spoken_is_left_out(tmp_path: Path, codec: str) -> None:
    for index in range(11):
        say(tmp_path / "train" / f"{index}.wav", "hello" if index else "***")
    say(tmp_path / "val" / "0.wav", "hello")
    dataset = module(tmp_path, codec).train_dataset()
    assert dataset is not None
    assert len(dataset) == 10
