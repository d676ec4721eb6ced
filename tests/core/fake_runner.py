"""A system small enough to see the runner through: it counts the bytes of text files.

Also a program, for tests that kill it: ``python -m tests.core.fake_runner INPUT OUTPUT SECONDS_PER_ITEM``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.core.batch.inputs import InferRequest, InputItem
from mmattn.core.batch.runner import run_batch


@dataclass(frozen=True)
class CountOptions:
    unit: str = "bytes"


@dataclass(frozen=True)
class CountResult:
    text: bytes

    def save(self, directory: Path, name: str) -> list[Path]:
        if b"unsavable" in self.text:
            (directory / f"{name}.half.txt").write_bytes(b"half")
            raise ValueError("this result cannot be written")
        path = directory / f"{name}.count.txt"
        path.write_text(str(len(self.text)))
        return [path]

    def to_json(self) -> dict[str, Any]:
        return {"length": len(self.text) if b"nan" not in self.text else float("nan")}

    def plot(self) -> NDArray[np.uint8]:
        return np.zeros((1, 1, 3), np.uint8)


@dataclass
class CountPredictor:
    seconds: float = 0.0
    batches: list[int] = field(default_factory=list)

    def predict(self, item: bytes) -> CountResult:
        return self.predict_batch([item])[0]

    def predict_batch(self, items: Sequence[bytes]) -> list[CountResult]:
        self.batches.append(len(items))
        for item in items:
            if item.startswith(b"bad"):
                raise RuntimeError("the model cannot look at this")
            time.sleep(self.seconds)
        return [CountResult(item) for item in items]


@dataclass
class Harness:
    """Runs the fake system and remembers what the runner did with it."""

    output: Path
    inputs: Sequence[str | Path]
    predictors: list[CountPredictor] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    finished: list[list[dict[str, Any]]] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, **changes: Any) -> int:
        settings: dict[str, Any] = {"options": CountOptions(), "batch_size": 2, "workers": 1, **changes}
        request = InferRequest(system="count", inputs=[str(i) for i in self.inputs], output=self.output, **settings)
        return run_batch(request, suffixes=[".txt"], make_predictor=self.load, read=Path.read_bytes, finish=self.finish)

    def load(self, items: Sequence[InputItem]) -> CountPredictor:
        self.planned = [item.name for item in items]
        self.predictors.append(CountPredictor(self.seconds))
        return self.predictors[-1]

    def finish(self, output: Path, records: Sequence[dict[str, Any]]) -> None:
        self.finished.append(list(records))
        (output / "index.html").write_text(f"{len(records)} results")


if __name__ == "__main__":
    sys.exit(Harness(Path(sys.argv[2]), [sys.argv[1]], seconds=float(sys.argv[3])).run(batch_size=1))
