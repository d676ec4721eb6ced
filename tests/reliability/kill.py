"""Kills batch runs at random moments and compares what resuming makes of them with a run that nothing stopped.

``python -m tests.reliability.kill --kills 180`` kills runs of a small predictor whose numbers depend on the batch, as
those of real models do; ``--crane 12`` kills ``mmattn infer crane`` over twelve drawn pictures. Moments are drawn from
``--seed``. After every kill each record must describe files that are there, and no record of before may be gone. When
a run ends by itself, every file must be the same, byte for byte. Prints a line of JSON and exits with 1 for a loss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmattn.core.batch.inputs import InferRequest
from mmattn.core.batch.records import has_outputs, read_records
from mmattn.core.batch.runner import run_batch
from mmattn.media.files import write_bytes, write_text

ROOT = Path(__file__).parents[2]
ITEMS = 24


@dataclass(frozen=True)
class NoisyResult:
    """Two files, one of them large enough to be cut."""

    numbers: NDArray[np.float32]

    def save(self, directory: Path, name: str) -> list[Path]:
        data, text = directory / f"{name}.data.bin", directory / f"{name}.sum.txt"
        write_bytes(data, self.numbers.tobytes())
        write_text(text, f"{self.numbers.sum():.6f}\n")
        return [data, text]

    def to_json(self) -> dict[str, Any]:
        return {"first": float(self.numbers[0])}


class NoisyPredictor:
    """Draws its numbers, once for a batch, and lets the size of the batch in."""

    def predict(self, item: bytes) -> NoisyResult:
        return self.predict_batch([item])[0]

    def predict_batch(self, items: Sequence[bytes]) -> list[NoisyResult]:
        time.sleep(0.002)
        drawn = torch.rand(len(items), 20_000) / len(items)
        return [NoisyResult(row) for row in drawn.numpy()]


def run_noisy(inputs: Path, output: Path) -> int:
    """Runs the small predictor over a folder."""
    request = InferRequest(system="noisy", inputs=[str(inputs)], output=output, batch_size=4, workers=2)

    def finish(folder: Path, records: Sequence[dict[str, Any]]) -> None:
        write_text(folder / "index.html", f"{len(records)} results\n")

    return run_batch(
        request,
        suffixes=[".txt"],
        make_predictor=lambda items: NoisyPredictor(),  # type: ignore[arg-type, return-value]
        read=Path.read_bytes,
        finish=finish,
    )


def start_noisy(inputs: Path, output: Path) -> int:
    """Starts a run in a fork of this process, which has one thread and everything imported; returns its id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = run_noisy(inputs, output)
        finally:
            os._exit(code)
    return child


def start_crane(inputs: Path, output: Path) -> int:
    """Starts ``mmattn infer crane`` and returns its id."""
    command = [sys.executable, "-m", "mmattn", "infer", "crane", str(inputs), "--output", str(output)]
    process = subprocess.Popen([*command, "--device", "cpu"], cwd=ROOT, stderr=subprocess.DEVNULL)
    process.returncode = 0  # waited for by its id below
    return process.pid


def make_texts(folder: Path) -> None:
    for number in range(ITEMS):
        write_text(folder / "abc"[number % 3] / f"{number}.txt", "x" * number)


def make_pictures(folder: Path, count: int) -> None:
    from PIL import Image

    from mmattn.vision.crane.synthetic.scenes import draw, evaluation_items

    folder.mkdir()
    for number, item in zip(range(count), evaluation_items("test", count), strict=False):
        Image.fromarray(draw(item).picture).save(folder / f"{number:02d}.png")


def content(output: Path) -> dict[str, Any]:
    """Returns every file of a finished run by its path: bytes, and the journal without times."""
    found: dict[str, Any] = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if path.is_file() and name not in ("results.jsonl", "run.json", "index.html"):
            found[name] = path.read_bytes()
    for record in read_records(output / "results.jsonl"):
        found[f"record of {record['input']}"] = {key: value for key, value in record.items() if key != "seconds"}
    run = json.loads((output / "run.json").read_text())
    found["run.json"] = [run["state"], run["options"], run["items"]]
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def wait(child: int, seconds: float) -> int | None:
    """Waits for a child; returns its exit status, None if it still runs."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.0005, seconds))


def check_records(output: Path, before: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the records there are now, and what is wrong with them."""
    records = {record["input"]: record for record in read_records(output / "results.jsonl")}
    wrong = [f"{name}: record lost" for name, record in before.items() if records.get(name) != record]
    wrong += [f"{name}: files not as recorded" for name, r in records.items() if not has_outputs(r, output)]
    return records, wrong


def campaign(start: Callable[[Path, Path], int], inputs: Path, work: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kills runs until so many were killed, and returns what was found."""
    began = time.monotonic()
    status = wait(start(inputs, work / "whole"), 600)
    assert status == 0, status
    length, expected = time.monotonic() - began, content(work / "whole")
    moments = random.Random(seed)
    done, runs, kept, lost = 0, 0, 0, []
    while done < kills:
        output, records = work / f"run{runs}", {}
        runs += 1
        while True:
            child = start(inputs, output)
            status = wait(child, moments.uniform(0, length) if done < kills else 600)
            if status is not None:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done += 1
            records, wrong = check_records(output, records)
            kept += len(records)
            lost += [f"run {runs}, kill {done}: {text}" for text in wrong]
        if status == 0:
            lost += [f"run {runs}: {name} differs" for name in differences(content(output), expected)]
        else:
            lost.append(f"run {runs}: exit status {status}")
    return {"kills": done, "runs": runs, "seconds of a run": round(length, 2), "records found": kept, "lost": lost}


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills batch runs at random moments and checks what is left.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crane", type=int, metavar="N", help="kill 'mmattn infer crane' over N drawn pictures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.crane:
            make_pictures(work / "in", given.crane)
        else:
            make_texts(work / "in")
        start = start_crane if given.crane else start_noisy
        found = campaign(start, work / "in", work, kills=given.kills, seed=given.seed)
    print(json.dumps(found))
    return 1 if found["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
