import pickle
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import TensorDataset

from mmattn.core.training.datamodule import BaseDataModule, EpochShuffle
from mmattn.errors import InputError


class Numbers(BaseDataModule):
    """The numbers 0 to 9 as training data; nothing else."""

    configure_hints: ClassVar[dict[str, str]] = {"test": "Set data.init_args.test_root."}

    def train_dataset(self) -> TensorDataset:
        return TensorDataset(torch.arange(10))


def order(data: Numbers, epoch: int = 0) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [int(n) for (batch,) in loader for n in batch]


def test_training_order_depends_on_seed_and_epoch_alone() -> None:
    first = order(Numbers(batch_size=3, seed=1))
    assert sorted(first) == list(range(10))
    assert first == order(Numbers(batch_size=5, seed=1))
    assert first != order(Numbers(seed=1), epoch=1)
    assert first != order(Numbers(seed=2))
    assert order(Numbers(seed=1), epoch=1) == order(Numbers(seed=1), epoch=1)


def test_missing_split_names_what_to_configure() -> None:
    with pytest.raises(InputError, match=r"needs test data, .* none configured. Set data.init_args.test_root"):
        Numbers().test_dataloader()


def test_fit_without_validation_data_is_allowed_and_validate_is_not() -> None:
    data = Numbers()
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING))
    assert data.val_dataloader() == []
    data.trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.VALIDATING))
    with pytest.raises(InputError, match="needs validation data"):
        data.val_dataloader()


def test_empty_split_is_an_error() -> None:
    class Empty(BaseDataModule):
        def train_dataset(self) -> TensorDataset:
            return TensorDataset(torch.zeros(0))

    with pytest.raises(InputError, match="train split of Empty is empty"):
        Empty().train_dataloader()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"eval_batch_size": -2}], ids=str)
def test_impossible_loader_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Numbers(**options)


def test_wrapped_training_set_replaces_the_items() -> None:
    data = Numbers(batch_size=10)
    data.wrap_train = lambda items: TensorDataset(items.tensors[0] + 100)
    assert sorted(order(data)) == list(range(100, 110))


def test_workers_are_spawned_and_deliver_the_same_order() -> None:
    data = Numbers(batch_size=4, num_workers=1, seed=3)
    assert data.train_dataloader().multiprocessing_context.get_start_method() == "spawn"
    assert order(data) == order(Numbers(batch_size=4, seed=3))


def test_evaluation_batches_may_be_larger() -> None:
    data = Numbers(batch_size=2, eval_batch_size=5)
    (batch,) = next(iter(data.loader(data.train_dataset(), data.eval_batch_size)))
    assert isinstance(batch, Tensor)
    assert batch.tolist() == [0, 1, 2, 3, 4]


def test_shuffle_has_the_length_of_its_items() -> None:
    assert len(EpochShuffle(range(7), seed=0)) == 7


def test_loading_processes_get_the_settings_and_not_the_trainer() -> None:
    data = Numbers(batch_size=3, num_workers=2, seed=5)
    data.trainer = SimpleNamespace(model=lambda: None)  # what cannot be pickled
    data.wrap_train = lambda items: items
    copy = pickle.loads(pickle.dumps(data.collate)).__self__
    assert (copy.batch_size, copy.num_workers, copy.seed) == (3, 2, 5)
    assert (copy.trainer, copy.wrap_train) == (None, None)
    assert data.trainer is not None
