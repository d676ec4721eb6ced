"""Crane without Python: the static-prompt model as a ``torch.export`` program and as ONNX.

With static prompts the two text features are constants, so the exported graph is vision tower, comparison and
smoothing: one CLIP-normalised picture (1, 3, S, S) in, its score (1,) and map (1, S, S) out. What was written is run
on a random picture and compared with the model before the file counts as done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mmattn.errors import InputError, MissingExtraError, MmattnError
from mmattn.media.files import atomic_path, write_text
from mmattn.vision.crane.model import CraneModel, StaticCrane
from mmattn.vision.crane.network.preprocess import CLIP_MEAN, CLIP_STD

__all__ = ["ExportFormat", "export_model"]

ExportFormat = Literal["torch", "onnx"]
TOLERANCE = 1e-4


def export_model(
    model: CraneModel, output: Path, formats: Sequence[ExportFormat] = ("torch", "onnx")
) -> dict[str, float]:
    """Writes ``crane.pt2`` and/or ``crane.onnx`` and ``export.json`` below ``output``.

    Args:
        model: The network; its prompts are used unconditioned.
        output: Folder, made if needed.
        formats: What to write.

    Returns:
        The largest difference between each file's outputs and the model's, by file name.

    Raises:
        InputError: If the model conditions its prompts at inference: its text features are not constants.
        MissingExtraError: If the ONNX packages are not installed.
        MmattnError: If an exported file disagrees with the model by more than 1e-4.
    """
    if model.config.inference_context:
        raise InputError(
            "This model conditions its prompts on every picture, so it has no static form.",
            "Export it with inference_context off.",
        )
    output.mkdir(parents=True, exist_ok=True)
    static = StaticCrane(model.cpu().eval()).eval()
    size = model.config.image_size
    example = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = static(example)
    writers = {"torch": _write_torch, "onnx": _write_onnx}
    differences = {}
    for name in formats:
        file, actual = writers[name](static, example, output)
        difference = max(float((a - b).abs().max()) for a, b in zip(actual, expected, strict=True))
        if not difference <= TOLERANCE:
            file.unlink()
            raise MmattnError(f"The exported {file.name} differs from the model by {difference:.2g}; it was removed.")
        differences[file.name] = difference
    description = {
        "input": {"name": "images", "shape": [1, 3, size, size], "dtype": "float32"},
        "preprocessing": "RGB, bicubic resize to the square, [0, 1], minus mean, divided by std",
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STD),
        "outputs": {"score": [1], "anomaly_map": [1, size, size]},
        "max_difference": differences,
    }
    write_text(output / "export.json", json.dumps(description, indent=2) + "\n")
    return differences


def _write_torch(static: StaticCrane, example: Tensor, output: Path) -> tuple[Path, Sequence[Tensor]]:
    file = output / "crane.pt2"
    with torch.no_grad():
        program = torch.export.export(static, (example,))
    # A stream of ours: of its own, torch's writer tells no full disk from other errors.
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream)
    with torch.no_grad():
        return file, torch.export.load(file).module()(example)


def _write_onnx(static: StaticCrane, example: Tensor, output: Path) -> tuple[Path, Sequence[Tensor]]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it and would fail with a traceback)
    except ImportError as error:
        raise MissingExtraError(str(error.name), "export", "Writing ONNX") from error
    file = output / "crane.onnx"
    with atomic_path(file) as temporary, torch.no_grad():
        torch.onnx.export(
            static,
            (example,),
            temporary,
            input_names=["images"],
            output_names=["score", "anomaly_map"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return file, [torch.from_numpy(x) for x in session.run(None, {"images": example.numpy()})]
