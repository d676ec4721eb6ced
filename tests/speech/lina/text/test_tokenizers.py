"""Tokenizers by name, and characters."""

import builtins
import importlib
import sys
from typing import Any

import pytest
import torch

from mmattn.errors import InputError, MissingExtraError
from mmattn.speech.lina.text import phonemes
from mmattn.speech.lina.text.tokenizers import CHARACTERS, build_tokenizer


def test_characters_are_numbered_for_ever() -> None:
    assert "".join(CHARACTERS) == "_^$ ',.?!;:-abcdefghijklmnopqrstuvwxyz"
    assert build_tokenizer("characters", {}).vocab_size == 38


def test_characters_of_a_text_and_their_words() -> None:
    tokens = build_tokenizer("characters", {}).encode("Well-known? It's  NASA!")
    assert "".join(tokens.symbols) == "^well-known? it's nasa!$"
    assert tokens.ids.dtype == torch.int64
    assert [CHARACTERS[i] for i in tokens.ids.tolist()] == tokens.symbols
    assert tokens.ids[[0, -1]].tolist() == [1, 2]
    words = [-1, *[0] * 4, -1, *[1] * 5, -1, -1, *[2] * 4, -1, *[3] * 4, -1, -1]
    assert tokens.words == words


@pytest.mark.parametrize("text", ["", "  ", "...", "你好"])
def test_nothing_to_speak_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match=r"nothing to speak|text is empty"):
        build_tokenizer("characters", {}).encode(text)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="no tokenizer 'words'"):
        build_tokenizer("words", {})
    with pytest.raises(InputError, match="'characters' was given the options file, expected none"):
        build_tokenizer("characters", {"file": "x"})
    with pytest.raises(InputError, match="'bpe' was given the options none, expected file"):
        build_tokenizer("bpe", {})


@pytest.mark.parametrize(
    ("tokenizer", "package", "extra"),
    [("gruut", "gruut", "speech"), ("bpe", "tokenizers", "vlm"), ("characters", "num2words", "speech")],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tokenizer: str, package: str, extra: str
) -> None:

    original: Any = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return original(name, *args, **kwargs)

    def refuse_module(name: str, *args: Any) -> Any:
        return refuse(name) if name.split(".")[0] == package else sys.modules[name]

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(importlib, "import_module", refuse_module)
    phonemes.phonemizer.cache_clear()
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*mmattn\[{extra}\]"):
        build_tokenizer(tokenizer, {"file": "x"} if tokenizer == "bpe" else {}).encode("Room 5")
