"""Data and model must fit, and a checkpoint says what it was trained with."""

from pathlib import Path

import pytest

from mmattn.errors import InputError
from mmattn.speech.lina.config import LinaConfig
from mmattn.speech.lina.data import LinaDataModule
from mmattn.speech.lina.text.bpe import train_bpe
from mmattn.speech.lina.training.fit import check_fits, described
from mmattn.speech.lina.weights.store import save_codec
from tests.speech.lina.codec import tiny
from tests.speech.lina.speech_folders import plain_folder


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_codec(tmp_path_factory.mktemp("codec"), tiny.embedded(), card="tiny"))


def module(root: Path, codec: str, **options: object) -> LinaDataModule:
    settings = {"tokenizer": "characters", "codec": codec, **options}
    return LinaDataModule(str(root), **settings)  # type: ignore[arg-type]


def test_a_model_must_fit(tmp_path: Path, codec: str) -> None:
    data = module(plain_folder(tmp_path / "data"), codec)
    fitting = LinaConfig(num_codebooks=3, codebook_size=16, text_vocab=38)
    check_fits(data, fitting)
    with pytest.raises(InputError, match="The data have 3 codebooks of 16, and the model 1 of 16"):
        check_fits(data, LinaConfig(num_codebooks=1, codebook_size=16))
    with pytest.raises(InputError, match="has 38 ids, and the model's text_vocab is 30"):
        check_fits(data, LinaConfig(num_codebooks=3, codebook_size=16, text_vocab=30))
    two = module(Path(str(data.root)), codec, codebooks=2)
    check_fits(two, LinaConfig(num_codebooks=2, codebook_size=16))
    told = described(two, LinaConfig(num_codebooks=2, codebook_size=16))
    assert (told.tokenizer, told.codec) == ("characters", "embedded")
    assert told.codec_options == {**tiny.EMBEDDED.to_dict(), "codebooks": 2}
    with pytest.raises(InputError, match=r"codebooks is 4, and the codec .* has 3"):
        module(Path(str(data.root)), codec, codebooks=4).prepare_data()


def test_the_tokenizers_file_is_named_as_it_lies_beside_the_model(tmp_path: Path, codec: str) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    file = train_bpe(["hello number one, who is this?"] * 3, tmp_path / "pieces.json")
    data = module(plain_folder(tmp_path / "data"), codec, tokenizer="bpe", tokenizer_options={"file": str(file)})
    assert described(data, LinaConfig()).tokenizer_options == {"file": "pieces.json"}
    assert sum(len(batch.names) for batch in data.train_dataloader()) == 8
