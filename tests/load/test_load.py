"""The load test in small: a few clients for some seconds, a tiny model."""

import os

import numpy as np
import pytest
from PIL import Image

from mmattn.ui import queue as queue_module
from mmattn.ui.crane import build_app
from tests.load.load import load, number_of
from tests.ui.served import Visitor, served
from tests.vision.crane.tiny import tiny_predictor


def test_a_few_clients_are_served_and_leave_nothing_in_the_line(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_module, "GONE_SECONDS", 1.0)
    file = tmp_path_factory.mktemp("load") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(file)

    def make(visitor: Visitor) -> list[object]:
        sent = visitor.http.post("/gradio_api/upload", files={"files": ("a.png", file.read_bytes())}).json()
        return [{"path": sent[0], "meta": {"_type": "gradio.FileData"}}, None, "tiny", None]

    demo = build_app({"tiny": tiny_predictor()}, examples=[])
    with served(demo) as url:
        seen = load(url, os.getpid(), number_of(url, "detect"), make, clients=5, seconds=3.0)
        assert seen.ends["served"] >= 3
        assert not [end for end in seen.ends if end.startswith("failed")]
        assert list(demo._queue.jobs()) == []
