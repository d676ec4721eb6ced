"""Reads mutated files in a process of its own, with limits, and prints what happened as JSON.

Run as ``python -m tests.media.fuzz_child READER CASES FOLDER``; a case is drawn from its number alone. The
number of the case that is being read stands in ``FOLDER/case``, so that a process that dies tells at which.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmattn.errors import MmattnError

MEGABYTE = 1 << 20
GROWTH = 1024 * MEGABYTE
SECONDS = 20  # for one file: the sizes are a few kB, and the machine may be busy


def seeds(reader: str, folder: Path) -> tuple[list[bytes], str, Callable[[Path], Any]]:
    """Returns small valid files, their suffix, and what reads them."""
    out = io.BytesIO()
    table = {"frame": np.arange(4), "boxes": np.tile([0.0, 0, 5, 5], (4, 1)), "scores": np.ones(4)}
    if reader == "picture":
        from mmattn.media.image import read_image

        files = []
        rng = np.random.default_rng(0)
        for mode, form in (("RGB", "PNG"), ("L", "TIFF"), ("RGB", "JPEG"), ("P", "GIF"), ("RGB", "BMP"), ("F", "TIFF")):
            picture = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).convert(mode)
            picture.save(out := io.BytesIO(), format=form)
            files.append(out.getvalue())
        return files, ".png", read_image
    if reader == "recording":
        import soundfile

        from mmattn.media.audio import read_audio

        files = []
        wave = np.sin(np.arange(800) / 5)
        for form, kind in (
            ("WAV", "PCM_16"),
            ("FLAC", "PCM_16"),
            ("OGG", "VORBIS"),
            ("AU", "PCM_16"),
            ("AIFF", "PCM_16"),
        ):
            soundfile.write(out := io.BytesIO(), wave, 16_000, format=form, subtype=kind)
            files.append(out.getvalue())
        return files, ".wav", lambda path: read_audio(path, sample_rate=24_000)
    if reader == "video":
        from mmattn.media.video import open_video
        from mmattn.media.video_writer import VideoWriter

        with VideoWriter(folder / "seed.mp4", 10, key_interval=4) as writer:
            for level in range(8):
                writer.write(np.full((32, 48, 3), level * 30, np.uint8))

        def read_video(path: Path) -> None:
            with open_video(path) as video:
                for number in range(min(len(video), 50)):
                    video.get_batch([number])

        return [(folder / "seed.mp4").read_bytes()], ".mp4", read_video
    if reader == "array":
        from mmattn.media.npz import read_any

        np.savez(out, x=np.arange(60.0).reshape(3, 20))
        np.savez_compressed(packed := io.BytesIO(), x=np.arange(60.0))
        return [out.getvalue(), packed.getvalue()], ".npz", lambda path: read_any(path, "x", 1 << 26)
    if reader == "boxes":
        from mmattn.video.crash.perception.box_file import read_box_file

        text = "frame,x1,y1,x2,y2,score,class\n0,0,0,5,5,0.5,car\n1,0,0,6,6,1,2\n"
        return [text.encode()], ".csv", lambda path: read_box_file(path, np.arange(9) / 10)
    if reader == "boxes-json":
        from mmattn.video.crash.perception.box_file import read_box_file

        entries = [{"image_id": 0, "bbox": [0, 0, 5, 5], "category_id": 3}, {"frame": 1, "boxes": [[0, 0, 1, 1, 1, 0]]}]
        return [json.dumps(entries).encode()], ".json", lambda path: read_box_file(path, np.arange(9) / 10)
    if reader == "boxes-npz":
        from mmattn.video.crash.perception.box_file import read_box_file

        np.savez(out, **table)
        return [out.getvalue()], ".npz", lambda path: read_box_file(path, np.arange(9) / 10)
    if reader == "pickle":
        from mmattn.media.plain_pickle import load_plain_pickle

        value = {"v": [(1, 2.5, np.arange(6.0).reshape(2, 3)), "text"], "w": {"n": None, 7: b"x"}}
        return [pickle.dumps(value, protocol) for protocol in (0, 2, 4)], ".pkl", load_plain_pickle
    if reader == "weights":
        import torch

        from mmattn.core.weights.torch_file import load_torch_file

        torch.save({"state_dict": {"w": torch.zeros(3, 4)}, "n": [1, (2, 3)]}, out)
        torch.save({"w": torch.zeros(3, 4)}, old := io.BytesIO(), _use_new_zipfile_serialization=False)
        return [out.getvalue(), old.getvalue()], ".pt", load_torch_file
    if reader == "safetensors":
        import torch
        from safetensors.torch import save

        from mmattn.core.weights.checkpoint import read_safetensors

        return [save({"w": torch.zeros(3, 4), "b": torch.ones(2)})], ".safetensors", read_safetensors
    if reader == "config":
        from mmattn.core.training.configs import resolve_configs

        text = "a: &a [1, two]\nb: {c: *a, d: [*a, *a]}\ntrainer:\n  max_epochs: 3\n"
        return [text.encode()], ".yaml", lambda path: resolve_configs(["--config", str(path)])
    from mmattn.core.batch.inputs import expand_inputs

    (folder / "x.png").touch()
    os.chdir(folder)
    lines = "\ufeff# list\nx.png\n*.png\n"
    return [lines.encode()], ".txt", lambda path: expand_inputs([f"@{path}"], suffixes=[".png"])


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Returns a file with bytes changed, cut, repeated, moved or set to extremes."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(content)) if content else 0
        kind = rng.randrange(7)
        if kind == 0:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            content[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)))
        elif kind == 2:
            del content[at : at + rng.choice((1, 4, 50))]
        elif kind == 3:
            content[at:at] = content[at : at + rng.choice((1, 8, 100))]
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            content[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 8))))
        else:
            to = rng.randrange(len(content)) if content else 0
            content[at : at + 8] = content[to : to + 8]
    return bytes(content)


def main(reader: str, cases: int, folder: Path) -> None:
    """Reads every case and prints the counts by kind of error, the slowest and the memory."""
    files, suffix, read = seeds(reader, folder)
    path = folder / f"x{suffix}"
    for data in files:
        path.write_bytes(data)
        read(path)  # valid, and everything is imported
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * GROWTH, used + 2 * GROWTH))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    unexpected, slowest = [], 0.0
    for number in range(cases):
        rng = random.Random(f"{reader} {number}")
        data = mutated(rng.choice(files), rng)
        path.write_bytes(data)
        (folder / "case").write_text(str(number))
        signal.alarm(SECONDS)  # ends the process: a hang in a library takes no exception
        started = time.process_time()
        try:
            read(path)
            outcomes["read"] += 1
        except MmattnError as error:
            outcomes[type(error).__name__] += 1
        except Exception as error:  # what the test is about
            unexpected.append(f"case {number}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.process_time() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"outcomes": outcomes, "unexpected": unexpected, "slowest": slowest, "megabytes": grown / 1024}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
