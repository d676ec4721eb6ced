"""The config and its errors."""

import json
from typing import Any

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.config import LinaConfig, LinaInferOptions
from tests.speech.lina.tiny import tiny_config


def test_a_config_survives_json() -> None:
    config = tiny_config(position="sinusoidal", codec_options={"bandwidth": 6.0})
    assert LinaConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match="no field width"):
        LinaConfig.from_dict({"width": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"mixer": "lstm"}, "mixer is 'lstm', expected one of gla, simple_gla, rwkv6"),
        ({"cross_attention": "both"}, "cross_attention is 'both'"),
        ({"dim": 20}, r"dim is 20, expected a multiple of 4 \* text_heads = 8"),
        ({"num_heads": 3}, "cannot be divided among num_heads 3"),
        ({"position_dim": 6, "expand_v": 0.5}, "makes a width of 3 from 6"),
        ({"cross_attention": "plain", "cross_heads": 3}, r"cross_heads = 12"),
    ],
)
def test_fields_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_derived_sizes() -> None:
    config = tiny_config()
    assert (config.audio_vocab, config.blind_dim) == (15, 8)
    assert tiny_config(position_dim=None).blind_dim == 16


def test_the_defaults_of_a_run_are_the_published_ones() -> None:
    options = LinaInferOptions()
    assert (options.temperature, options.top_k, options.top_p, options.guidance) == (None,) * 4


@pytest.mark.parametrize(("name", "value", "message"), [
    ("sentence_pause", 1e9, "sentence_pause is 1000000000.0, expected 0 to 60 seconds"),
    ("paragraph_pause", float("inf"), "paragraph_pause is inf, expected 0 to 60"),
    ("part_pause", float("nan"), "part_pause is nan, expected 0 to 60"),
    ("part_pause", -0.1, "part_pause is -0.1, expected 0 to 60"),
    ("max_seconds", 601, "max_seconds is 601, expected more than 0 and at most 600"),
    ("max_seconds", float("inf"), "max_seconds is inf, expected"),
])  # fmt: skip
def test_pauses_and_sentences_have_an_end(name: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LinaInferOptions(**{name: value})
    LinaInferOptions(sentence_pause=60, paragraph_pause=60, part_pause=0, max_seconds=600)
