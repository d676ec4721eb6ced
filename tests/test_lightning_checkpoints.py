"""Lightning checkpoints written by 'mmattn fit' before the systems got rooms are read as they were.

They name their task by its path (``_class_path``), so a task that moves would make every run of a user unreadable.
"""

from pathlib import Path

import pytest
import torch

from mmattn.speech.lina.task import LinaTask
from mmattn.video.crash.task import CrashTask
from mmattn.vision.crane.task import CraneTask

FOLDER = Path(__file__).parent / "checkpoints"
TASKS = {"crane": CraneTask, "crash": CrashTask, "lina": LinaTask}


@pytest.mark.parametrize("system", TASKS)
def test_the_named_class_is_the_one_that_reads_it(system: str) -> None:
    stored = torch.load(FOLDER / f"{system}.ckpt", weights_only=True)
    task = TASKS[system]
    assert stored["hyper_parameters"]["_class_path"] == f"{task.__module__}.{task.__qualname__}"
    loaded = task.load_from_checkpoint(FOLDER / f"{system}.ckpt")
    tensors = loaded.state_dict()
    assert stored["state_dict"]
    for name, tensor in stored["state_dict"].items():
        assert torch.equal(tensors[name], tensor), name


def test_an_old_crash_gives_the_risks_it_gave() -> None:
    task = CrashTask.load_from_checkpoint(FOLDER / "crash.ckpt").eval()
    features = torch.linspace(0, 1, 12 * 4 * 6).reshape(1, 12, 4, 6)
    with torch.no_grad():
        logits = task.model(features).logits
    assert logits[0, ::4].flatten().tolist() == pytest.approx(CRASH_LOGITS, abs=1e-5)


def test_an_old_lina_gives_the_logits_it_gave() -> None:
    task = LinaTask.load_from_checkpoint(FOLDER / "lina.ckpt").eval()
    memory = task.model.remember(torch.arange(1, 9)[None])
    with torch.no_grad():
        logits = task.model.advance(torch.arange(12).reshape(1, 6, 2), memory, task.model.initial_state(1)).logits
    assert logits[0, -1, :, 3:6].flatten().tolist() == pytest.approx(LINA_LOGITS, abs=1e-5)


CRASH_LOGITS = [0.502838, -0.34691, 0.535754, -0.33131, 0.584623, -0.286351]
LINA_LOGITS = [0.8821, -0.387024, -0.130112, -0.908828, -0.663516, -1.266328]
