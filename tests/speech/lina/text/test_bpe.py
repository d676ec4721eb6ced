"""Pieces of words from a file of the tokenizers library."""

import json
import logging
from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.text.bpe import BpeTokenizer, train_bpe
from mmattn.speech.lina.text.tokenizers import build_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Don't stop; it's there!", "Over there, the others wait?"] * 9


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bpe(TEXTS, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


def test_a_trained_file_has_the_published_settings(file: Path) -> None:
    stored = json.loads(file.read_text())
    vocab = stored["model"]["vocab"]
    assert {token: vocab[token] for token in ("[PAD]", "[BOS]", "[EOS]", " ")} == {
        "[PAD]": 0, "[BOS]": 1, "[EOS]": 2, " ": 3,
    }  # fmt: skip
    assert "[UNK]" not in vocab
    assert len(vocab) <= 256
    assert "the" in vocab


def test_pieces_and_their_words(file: Path) -> None:
    tokenizer = build_tokenizer("bpe", {"file": file.name}, file.parent)
    tokens = tokenizer.encode("Don't the others, 5?")
    assert "".join(tokens.symbols) == "[BOS]don't the others, five?[EOS]"
    assert tokens.ids[[0, -1]].tolist() == [1, 2]
    assert int(tokens.ids.max()) < tokenizer.vocab_size
    spelled = ["", "", "", ""]
    for symbol, word in zip(tokens.symbols, tokens.words, strict=True):
        if word >= 0:
            spelled[word] += symbol
    assert spelled == ["don't", "the", "others", "five"]


def test_unknown_characters_are_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    narrow = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, " ": 3, "a": 4}, merges=[])
    )
    narrow.add_special_tokens(["[BOS]", "[EOS]"])
    narrow.save(str(tmp_path / "narrow.json"))
    tokenizer = BpeTokenizer(tmp_path / "narrow.json")
    with caplog.at_level(logging.WARNING):
        assert tokenizer.encode("Zap a").ids.tolist() == [1, 4, 3, 4, 2]
    assert [record.message for record in caplog.records] == [
        "Left out characters that the tokenizer's file does not know: p z"
    ]
    with pytest.raises(InputError, match="knows no letter of 'zzz'"):
        tokenizer.encode("zzz")


def test_files_that_are_missing_or_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        BpeTokenizer(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="is no file of the tokenizers library"):
        BpeTokenizer(tmp_path / "bad.json")
    other = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "[PAD]": 1}, merges=[]))
    other.save(str(tmp_path / "other.json"))
    with pytest.raises(InputError, match=r"\[1, None, None\], expected 0, 1 and 2"):
        BpeTokenizer(tmp_path / "other.json")
    with pytest.raises(InputError, match="no text to learn"):
        train_bpe(["...", ""], tmp_path / "none.json")
