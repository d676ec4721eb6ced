"""Many visitors at once: how many are served, how many refused, what is left when they have gone.

    nice python -m tests.load.load crane --clients 50 --seconds 120

Serves the app in a process of its own. Each client is a session that asks for one job after the other; every third
job it goes away in the middle, without a word, and comes back as somebody new. At the end all are gone, and a newcomer
asks once more: its wait tells whether those who left still stand in the line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from mmattn.core.weights.checkpoint import embedded_path
from tests.ui.served import Visitor

API_NAMES = {"crane": "detect", "crash": "watch", "lina": "speak"}
TEXT = "The kettle began to sing, and the cat opened one eye."


@dataclass
class Figures:
    """What came of a load.

    Attributes:
        ends: How many jobs were ``served``, ``refused`` (with the reason), left or failed.
        slowest: Seconds of the slowest served job, its wait included.
        newcomer: Seconds until somebody was served after all had gone.
        memory: MB of the server before, at the end, and after the newcomer.
    """

    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    newcomer: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)


def memory_mb(pid: int) -> int:
    """Returns the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


def number_of(url: str, api_name: str) -> int:
    """Returns the number of a public function."""
    functions = httpx.get(url.rstrip("/") + "/config", timeout=60).json()["dependencies"]
    return int(next(fn["id"] for fn in functions if fn["api_name"] == api_name))


def sample(system: str) -> Path:
    """Returns a bundled picture or video."""
    folder = embedded_path(system) / "samples"
    return min(file for file in folder.iterdir() if file.suffix in {".jpg", ".png", ".mp4"})


def values(system: str, visitor: Visitor, name: str = "embedded") -> list[Any]:
    """Returns what a visitor sends, its file uploaded."""
    if system == "lina":
        return [TEXT, name, voice_of(visitor), None, 0.8, 50, 0, False]
    file = sample(system)
    sent = visitor.http.post("/gradio_api/upload", files={"files": (file.name, file.read_bytes())})
    sent.raise_for_status()
    data = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
    return [data, None, name, None] if system == "crane" else [data, name]


def voice_of(visitor: Visitor) -> str:
    """Returns the preselected voice."""
    blocks = visitor.http.get("/config").json()["components"]
    return str(next(b["props"]["value"] for b in blocks if b["props"].get("elem_id") == "lina-voice"))


def client(url: str, number: int, make: Callable[[Visitor], list[Any]], until: float, seed: int, seen: Figures) -> None:
    """Asks again and again until the clock shows ``until``."""
    draw = random.Random(seed)
    while time.monotonic() < until:
        visitor = Visitor(url)
        begun = time.monotonic()
        try:
            visitor.join(number, *make(visitor))
            if draw.random() < 1 / 3:
                time.sleep(draw.random())
                seen.ends["left"] += 1
                continue
            end = waited(visitor, until)
        except httpx.HTTPStatusError as error:
            seen.ends[f"refused: {error.response.text[:60]}"] += 1
            time.sleep(1)
        except httpx.HTTPError as error:
            seen.ends[f"failed: {type(error).__name__}"] += 1
        else:
            if end is None:
                seen.ends["left"] += 1
            elif end["success"]:
                seen.ends["served"] += 1
                seen.slowest = max(seen.slowest, time.monotonic() - begun)
            else:
                seen.ends[f"refused: {end['output'].get('error')}"] += 1
                time.sleep(1)
        finally:
            visitor.http.close()


def waited(visitor: Visitor, until: float) -> dict[str, Any] | None:
    """Waits for the one job and returns how it ended; None when the clock came to ``until``."""
    for message in visitor.messages():
        if message["msg"] == "process_completed":
            return message
        if time.monotonic() >= until:
            break
    return None


def load(
    url: str, pid: int, number: int, make: Callable[[Visitor], list[Any]], *, clients: int, seconds: float
) -> Figures:
    """Puts a load on a page and returns the figures.

    Args:
        url: Of the page.
        pid: Process that serves it.
        number: Of the function that is asked for.
        make: Returns what a visitor sends.
        clients: Sessions at a time.
        seconds: How long.
    """
    seen = Figures()
    first = Visitor(url)
    assert first.call(number, *make(first))["success"]
    seen.memory["before"] = memory_mb(pid)
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=client, args=(url, number, make, until, i, seen), daemon=True) for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, until - time.monotonic()))
    seen.memory["at the end"] = memory_mb(pid)
    for thread in threads:
        thread.join(120)
    # As many more ask and are gone before they listen.
    for _ in range(clients):
        gone = Visitor(url)
        with suppress(httpx.HTTPError):
            gone.join(number, *make(gone))
        gone.http.close()
    begun = time.monotonic()
    while not (last := Visitor(url)).call(number, *make(last))["success"]:
        time.sleep(0.5)
    seen.newcomer = time.monotonic() - begun
    seen.memory["after"] = memory_mb(pid)
    return seen


def main() -> int:
    """Serves a system, puts the load on it and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=API_NAMES)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--port", type=int, default=7990)
    args = parser.parse_args()
    command = [sys.executable, "-m", "mmattn", "app", args.system, "--port", str(args.port), "--device", "cpu"]
    url = f"http://127.0.0.1:{args.port}"
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(240):
                with suppress(httpx.HTTPError):
                    if httpx.get(url + "/config").status_code == 200:
                        break
                time.sleep(0.5)
            number = number_of(url, API_NAMES[args.system])
            seen = load(url, server.pid, number, lambda visitor: values(args.system, visitor),
                        clients=args.clients, seconds=args.seconds)  # fmt: skip
        finally:
            server.terminate()
    print(json.dumps({"system": args.system, "clients": args.clients, "seconds": args.seconds, **vars(seen)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
