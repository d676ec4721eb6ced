"""A published model, its codec and its tokenizer become one folder, or none."""

from pathlib import Path

import pytest
import torch

from mmattn.cli import main
from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.text.bpe import train_bpe
from mmattn.speech.lina.text.tokenizers import build_tokenizer
from mmattn.speech.lina.weights.convert import published_state
from mmattn.speech.lina.weights.folder import TOKENIZER_FILE, convert_files
from mmattn.speech.lina.weights.store import StoredLina, build_codec
from tests.speech.lina.codec.tiny import codes_of, wavtokenizer
from tests.speech.lina.tiny import tiny_model
from tests.speech.lina.weights.test_wavtokenizer import published

TEXTS = ["the cat sat on the mat", "a rat ate the hat"]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The three published files, each in a folder of its own."""
    pytest.importorskip("tokenizers")
    model = tiny_model(num_codebooks=1, codebook_size=32, text_vocab=256)
    paths = {"model": tmp_path / "m/lina.pth", "codec": tmp_path / "c/wav.ckpt", "tokenizer": tmp_path / "t/bpe.json"}
    for path in paths.values():
        path.parent.mkdir()
    torch.save({"model": published_state(model.state_dict(), model.config)}, paths["model"])
    torch.save({"state_dict": published()}, paths["codec"])
    train_bpe(TEXTS, paths["tokenizer"])
    return {**paths, "output": tmp_path / "out"}


def test_all_three_lie_in_one_folder(files: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    flags = ["--codec", str(files["codec"]), "--tokenizer", str(files["tokenizer"])]
    assert main(["convert", "lina", str(files["model"]), "--output", str(files["output"]), *flags]) == 0
    out, err = capsys.readouterr()
    assert "mmattn infer lina SCRIPT.txt --checkpoint" in out
    assert "note:" not in err
    stored = StoredLina.load(files["output"])
    assert (stored.config.codec, stored.config.tokenizer) == ("wavtokenizer", "bpe")
    codec = build_codec(stored.config.codec, stored.config.codec_options, stored.part)
    codes = codes_of(wavtokenizer(), 6)
    torch.testing.assert_close(codec.decode(codes), wavtokenizer().decode(codes), atol=1e-5, rtol=1e-4)
    tokenizer = build_tokenizer(stored.config.tokenizer, stored.config.tokenizer_options, files["output"])
    assert "".join(tokenizer.encode("the rat").symbols[1:-1]) == "the rat"


def test_what_is_not_there_is_named(files: dict[str, Path]):
    folder, missing = convert_files(files["model"], files["output"])
    assert [line.split(" is ")[0] for line in missing] == ["the codec", "the tokenizer"]
    assert not (folder / TOKENIZER_FILE).exists()


def test_a_tokenizer_beside_the_weights_is_taken(files: dict[str, Path]):
    files["tokenizer"].rename(files["model"].with_name("bpe256.json"))
    folder, missing = convert_files(files["model"].parent, files["output"])
    assert [line.split(" is ")[0] for line in missing] == ["the codec"]
    assert (folder / TOKENIZER_FILE).is_file()


def test_parts_that_do_not_fit_leave_nothing_behind(files: dict[str, Path], tmp_path: Path):
    other = tiny_model(num_codebooks=2, codebook_size=32, text_vocab=20)
    torch.save(published_state(other.state_dict(), other.config), files["model"])
    with pytest.raises(CheckpointError, match=r"speaks in 2 codebook\(s\) of 32"):
        convert_files(files["model"], files["output"], codec=files["codec"])
    with pytest.raises(CheckpointError, match="tokens, the model knows 20"):
        convert_files(files["model"], files["output"], tokenizer=files["tokenizer"])
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(InputError, match=r"torn\.json"):
        convert_files(files["model"], files["output"], tokenizer=tmp_path / "torn.json")
    with pytest.raises(CheckpointError, match="is no WavTokenizer"):
        convert_files(files["model"], files["output"], codec=files["model"])
    assert not files["output"].exists()


def test_a_folder_with_other_things_in_it_is_left_alone(files: dict[str, Path]):
    files["output"].mkdir()
    (files["output"] / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        convert_files(files["model"], files["output"])
    assert [file.name for file in files["output"].iterdir()] == ["letter.txt"]
