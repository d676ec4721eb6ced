"""Exported files compute what the model computes; what cannot be exported is refused."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mmattn.errors import InputError
from mmattn.vision.crane.weights.export import export_model
from tests.vision.crane.tiny import tiny_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    differences = export_model(tiny_model(), folder)
    assert set(differences) == {"crane.pt2", "crane.onnx"}
    assert max(differences.values()) < 1e-5
    return folder


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(7))


def test_the_torch_program_equals_the_model_on_another_picture(exported: Path, image: torch.Tensor):
    with torch.no_grad():
        score, anomaly_map = torch.export.load(exported / "crane.pt2").module()(image)
        expected = tiny_model()(image)
    torch.testing.assert_close(score, expected.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(anomaly_map, expected.anomaly_map, atol=1e-5, rtol=0)


def test_the_onnx_file_equals_the_model_on_another_picture(exported: Path, image: torch.Tensor):
    session = onnxruntime.InferenceSession(str(exported / "crane.onnx"), providers=["CPUExecutionProvider"])
    score, anomaly_map = session.run(["score", "anomaly_map"], {"images": image.numpy()})
    with torch.no_grad():
        expected = tiny_model()(image)
    np.testing.assert_allclose(score, expected.score.numpy(), atol=1e-5)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.numpy(), atol=1e-5)


def test_the_description_says_what_goes_in_and_comes_out(exported: Path):
    description = json.loads((exported / "export.json").read_text())
    assert description["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert description["std"] == pytest.approx([0.26862954, 0.26130258, 0.27577711])
    assert description["input"]["shape"] == [1, 3, 48, 48]
    assert description["outputs"]["anomaly_map"] == [1, 48, 48]


def test_a_model_that_conditions_its_prompts_has_no_static_form(tmp_path: Path):
    with pytest.raises(InputError, match="no static form"):
        export_model(tiny_model(inference_context=True), tmp_path)
    assert list(tmp_path.iterdir()) == []
