"""Tokens on disk: computed once, resumed, redone when what they are of has changed."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmattn.errors import InputError, MediaError
from mmattn.speech.lina.codec.embedded import EmbeddedCodec
from mmattn.speech.lina.datasets import token_cache
from mmattn.speech.lina.datasets.layouts import find_utterances
from mmattn.speech.lina.datasets.records import SpeechFile
from mmattn.speech.lina.datasets.token_cache import (
    TokenShards,
    codec_fingerprint,
    encode_recordings,
    encode_texts,
    text_fingerprint,
)
from mmattn.speech.lina.text.tokenizers import TextTokens, build_tokenizer
from tests.speech.lina.codec import tiny
from tests.speech.lina.speech_folders import record, say


class CountingCodec(EmbeddedCodec):
    """The tiny codec, counting what it encodes, with an accident where asked for."""

    def __init__(self, accident: int | None = None) -> None:
        super().__init__(tiny.EMBEDDED)
        self.load_state_dict(tiny.embedded().state_dict())
        self.calls, self.accident = 0, accident
        self.eval()

    def encode(self, wave: Tensor) -> Tensor:
        if self.calls == self.accident:
            raise KeyboardInterrupt
        self.calls += 1
        return super().encode(wave)


@pytest.fixture
def files(tmp_path: Path) -> list[SpeechFile]:
    for index in range(10):
        say(tmp_path / "data" / f"{index}.wav", f"number {index}", seconds=0.2 + 0.05 * index)
    return find_utterances(tmp_path / "data")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHARD", 4)


def test_codes_are_those_of_the_codec_and_are_computed_once(tmp_path: Path, files: list[SpeechFile]) -> None:
    codec = CountingCodec()
    codes = encode_recordings(files, codec, tmp_path / "cache")
    assert [code.shape for code in codes if code is not None] == [(3, -(-(200 + 50 * i) // 16)) for i in range(10)]
    assert codec.calls == 10
    assert codes[0] is not None
    assert codes[0].dtype == torch.int16
    wave = token_cache.read_audio(files[0].audio).samples
    with torch.inference_mode():
        expected = tiny.embedded().encode(torch.from_numpy(wave)[None])[0]
    assert torch.equal(codes[0].long(), expected)
    again = encode_recordings(files, codec, tmp_path / "cache")
    assert codec.calls == 10
    assert all(torch.equal(a, b) for a, b in zip(codes, again, strict=True) if a is not None and b is not None)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, files: list[SpeechFile]) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_recordings(files, CountingCodec(accident=6), tmp_path)
    stored = sorted(path.name for path in tmp_path.glob("codes-*/*"))
    assert len(stored) == 2  # a full shard, and the two that were done
    assert all(name.endswith(".safetensors") for name in stored)
    codec = CountingCodec()
    assert all(code is not None for code in encode_recordings(files, codec, tmp_path))
    assert codec.calls == 4


def test_only_what_has_changed_is_done_again(tmp_path: Path, files: list[SpeechFile]) -> None:
    encode_recordings(files, CountingCodec(), tmp_path)
    record(files[3].audio, seconds=0.9)
    say(files[0].audio.with_name("00.wav"), "new")
    codec = CountingCodec()
    codes = encode_recordings(find_utterances(files[0].audio.parent), codec, tmp_path)
    assert codec.calls == 2
    assert len(codes) == 11
    assert codes[4] is not None
    assert codes[4].shape == (3, 57)


def test_another_codec_has_a_cache_of_its_own(tmp_path: Path, files: list[SpeechFile]) -> None:
    encode_recordings(files, CountingCodec(), tmp_path)
    other = CountingCodec()
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    assert codec_fingerprint(other) != codec_fingerprint(CountingCodec())
    encode_recordings(files, other, tmp_path)
    assert other.calls == 10
    assert len(list(tmp_path.glob("codes-*"))) == 2


def test_a_damaged_shard_is_made_again(
    tmp_path: Path, files: list[SpeechFile], caplog: pytest.LogCaptureFixture
) -> None:
    encode_recordings(files, CountingCodec(), tmp_path)
    shard = min(tmp_path.glob("codes-*/*"))
    lost = len(TokenShards(shard.parent).read())
    shard.write_bytes(shard.read_bytes()[:40])
    codec = CountingCodec()
    with caplog.at_level(logging.WARNING):
        assert all(code is not None for code in encode_recordings(files, codec, tmp_path))
    assert "is damaged and made again" in caplog.text
    assert 0 < codec.calls < lost


def test_recordings_that_cannot_be_read_are_named_and_left_out(
    tmp_path: Path, files: list[SpeechFile], capsys: pytest.CaptureFixture[str]
) -> None:
    files[5].audio.write_bytes(b"RIFF")
    codes = encode_recordings(files, CountingCodec(), tmp_path)
    assert [code is None for code in codes] == [index == 5 for index in range(10)]
    assert f"left out: {files[5].audio}" in capsys.readouterr().err
    record(files[6].audio, loudness=0.0)
    with pytest.raises(InputError, match=r"2 of 10 utterances cannot be used.*is silent"):
        encode_recordings(files, CountingCodec(), tmp_path)


def test_a_codec_whose_codes_do_not_fit_is_refused(tmp_path: Path) -> None:
    codec = CountingCodec()
    codec.config = tiny.EmbeddedCodecConfig(codebook_size=40_000)
    with pytest.raises(InputError, match="40000 codes"):
        encode_recordings([], codec, tmp_path)


def test_a_shard_that_cannot_be_written_is_an_error(
    tmp_path: Path, files: list[SpeechFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise MediaError("The disk is full.")

    monkeypatch.setattr(TokenShards, "write", full)
    with pytest.raises(MediaError, match="The disk is full"):
        encode_recordings(files, CountingCodec(), tmp_path)


def test_texts_are_read_once_each(tmp_path: Path, files: list[SpeechFile], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_tokenizer("characters", {})
    key = text_fingerprint("characters", {}, tokenizer)
    texts = encode_texts([*files, files[0]], tokenizer, key, tmp_path)
    assert texts[3] is not None
    assert torch.equal(texts[3].long(), tokenizer.encode("number 3").ids)
    assert texts[3].dtype == torch.int16
    assert texts[10] is texts[0]

    def refuse(self: object, text: str) -> TextTokens:
        raise AssertionError(text)

    monkeypatch.setattr(type(tokenizer), "encode", refuse)
    again = encode_texts(files, tokenizer, key, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(texts, again, strict=False) if a is not None and b is not None)


def test_texts_that_cannot_be_spoken_are_named_and_left_out(
    tmp_path: Path, files: list[SpeechFile], capsys: pytest.CaptureFixture[str]
) -> None:
    files[2].audio.with_suffix(".txt").write_text("***")
    tokenizer = build_tokenizer("characters", {})
    changed = find_utterances(files[0].audio.parent)
    assert encode_texts(changed, tokenizer, "key", tmp_path)[2] is None
    assert f"left out: {files[2].audio}: There is nothing to speak in '***'" in capsys.readouterr().err


def test_tokenizers_differ_in_their_fingerprint() -> None:
    characters = build_tokenizer("characters", {})
    assert text_fingerprint("characters", {}, characters) == text_fingerprint("characters", {}, characters)
    assert text_fingerprint("characters", {}, characters) != text_fingerprint("bpe", {}, characters)
    assert text_fingerprint("bpe", {"file": "a"}, characters) != text_fingerprint("bpe", {"file": "b"}, characters)
