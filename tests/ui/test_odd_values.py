"""Every function of every page, called over the network with what no page sends: the answer is a notice of ours."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mmattn.speech.lina.predictor import LinaPredictor
from mmattn.ui import crane, crash, lina
from mmattn.ui.hub import build_hub
from tests.speech.lina.tiny_folder import write_model
from tests.ui.crash.parts import tiny_predictor as tiny_crash
from tests.ui.served import Visitor, served
from tests.vision.crane.tiny import tiny_predictor as tiny_crane

SYSTEMS = ("crane", "crash", "lina")
OUTSIDE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
MISSING = {"path": "/tmp/gradio/none/none.png", "meta": {"_type": "gradio.FileData"}}
ADDRESS = {"path": "http://127.0.0.1:1/x.png", "url": "http://127.0.0.1:1/x.png", "meta": {"_type": "gradio.FileData"}}
ODD = {
    "none": None,
    "text": "no such thing",
    "not a number": math.nan,
    "infinite": math.inf,
    "huge": 10**400,
    "negative": -1e308,
    "list": [[], None, {}],
    "mapping": {"path": 3},
    "outside": OUTSIDE,
    "several outside": [OUTSIDE, OUTSIDE],
    "missing": MISSING,
    "address": ADDRESS,
    "null in a path": {"path": "a\0b", "meta": {"_type": "gradio.FileData"}},
    "true": True,
}
# What only a library, Python or this machine would say.
FOREIGN = re.compile(
    r"/etc|/tmp|/work|/home|site-packages|Traceback|Error\b|Exception|NoneType|object has no|argument|gradio|pydantic"
    r"|codec|subscriptable|unsupported|dict|tuple|\bint\b|\bstr\b",
)


def build(system: str, folder: Path) -> gr.Blocks:
    if system == "crane":
        return crane.build_app({"tiny": tiny_crane()}, examples=[])
    if system == "crash":
        return crash.build_app({"tiny": tiny_crash()}, examples=[])
    return lina.build_app(
        {"tiny": LinaPredictor.from_pretrained(str(write_model(folder)), device="cpu")}, can_stream=False
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[gr.Blocks, str]]:
    folder = tmp_path_factory.mktemp("models")
    demo = build_hub({system: build(system, folder / system) for system in SYSTEMS})
    with served(demo) as url:
        yield demo, url


def check(end: dict[str, Any], call: str) -> bool:
    """Checks how a call ended and returns whether it was refused."""
    if end["success"]:
        return False
    told = end["output"]["error"]
    assert isinstance(told, str), (call, end)
    assert len(told) > 15, (call, end)
    assert not FOREIGN.search(told), (call, told)
    return True


@pytest.mark.parametrize("odd", ODD)
def test_odd_values_give_a_notice_without_library_text_or_paths(hub: tuple[gr.Blocks, str], odd: str):
    demo, url = hub
    visitor, refused = Visitor(url), 0
    for number, fn in demo.fns.items():
        if fn.connection == "stream" or not fn.queue:
            continue
        end = visitor.call(number, *[ODD[odd]] * len(fn.inputs))
        refused += check(end, f"{fn.name} with {odd}")
    assert refused >= 8


@pytest.mark.parametrize("change", [-1, 1])
def test_too_few_or_too_many_values_are_a_notice(hub: tuple[gr.Blocks, str], change: int):
    demo, url = hub
    visitor, tried = Visitor(url), 0
    for number, fn in demo.fns.items():
        if fn.connection == "stream" or not fn.queue or len(fn.inputs) + change < 0:
            continue
        end = visitor.call(number, *[None] * (len(fn.inputs) + change))
        assert check(end, f"{fn.name} with {change:+d}"), fn.name
        tried += 1
    assert tried >= 15


def test_the_three_public_functions_are_among_them(hub: tuple[gr.Blocks, str]):
    demo, _ = hub
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert public == {"detect", "watch", "speak"}


def test_a_file_that_was_sent_but_is_none_is_named_without_its_folder(hub: tuple[gr.Blocks, str], tmp_path: Path):
    demo, url = hub
    visitor = Visitor(url)
    sent = visitor.http.post("/gradio_api/upload", files={"files": ("torn.png", b"no picture")}).json()
    file = {"path": sent[0], "meta": {"_type": "gradio.FileData"}}
    number, _ = next((n, fn) for n, fn in demo.fns.items() if fn.api_name == "detect")
    end = visitor.call(number, None, [file], "tiny", None)
    assert check(end, "torn")
    assert "torn.png" in end["output"]["error"]
