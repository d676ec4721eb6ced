"""Mutated files: every reader answers with its own errors, in bounded time and memory.

50 cases a reader; ``MMATTN_FUZZ=1000`` sets another number. ``python -m tests.media.fuzz_child READER CASES FOLDER``
prints the figures of one reader.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")
pytest.importorskip("soundfile")

CASES = int(os.environ.get("MMATTN_FUZZ", "50"))
READERS = ("picture", "recording", "video", "array", "boxes", "boxes-json", "boxes-npz", "pickle", "weights",
           "safetensors", "config", "list")  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a process as Linux has them")
@pytest.mark.parametrize("reader", READERS)
def test_fuzz_a_mutated_file_is_read_or_refused_in_our_words(reader: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.media.fuzz_child", reader, str(CASES), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120 + CASES)
    case = (tmp_path / "case").read_text() if (tmp_path / "case").exists() else "none"
    assert done.returncode == 0, f"died with {done.returncode} at case {case}: {done.stderr[-2000:]}"
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["unexpected"] == []
    assert sum(figures["outcomes"].values()) == CASES
    assert figures["outcomes"].keys() - {"read"}, "no mutation was refused: the files are not mutated"
    assert figures["megabytes"] < 1024
