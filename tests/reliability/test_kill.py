import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = int(os.environ.get("MMATTN_FUZZ", "24"))


def test_killed_runs_lose_nothing_and_end_as_a_run_that_nothing_stopped() -> None:
    command = [sys.executable, "-m", "tests.reliability.kill", "--kills", str(KILLS)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120 + 2 * KILLS,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lost"] == []
    assert found["kills"] >= KILLS
    # Some were killed with work done and some with work left.
    assert 0 < found["records found"] < 24 * found["kills"]
