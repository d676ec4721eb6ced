"""Voice files: what they record, whom they refuse."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmattn.errors import CheckpointError, InputError
from mmattn.speech.lina.voices.files import Voice, fingerprint, load_voice, save_voice
from mmattn.speech.lina.voices.state import InitialState
from tests.speech.lina.tiny import tiny_model

CONSENT = "I, Anna, agree that my voice is used, 1 May 2026."


def a_voice(**changes: str) -> Voice:
    model = tiny_model()
    fields = {"model": fingerprint(model.state_dict()), "consent": CONSENT, "name": "anna", **changes}
    return Voice(InitialState.draw(model.initial_state(1), scale=0.5), **fields)


def test_a_voice_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    voice = a_voice()
    file = save_voice(tmp_path / "anna.safetensors", voice)
    again = load_voice(file, voice.model)
    assert (again.name, again.model, again.consent, again.state.scale) == ("anna", voice.model, CONSENT, 0.5)
    for name, tensor in voice.state.tensors.items():
        assert torch.equal(again.state.tensors[name], tensor)
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["consent"] == CONSENT
    assert [path.name for path in tmp_path.iterdir()] == ["anna.safetensors"]


def test_another_model_refuses_it(tmp_path: Path) -> None:
    voice = a_voice()
    file = save_voice(tmp_path / "anna.safetensors", voice)
    other = fingerprint(tiny_model(seed=1).state_dict())
    with pytest.raises(
        CheckpointError, match=f"'anna.safetensors' was made for model {voice.model}; this is model {other}"
    ):
        load_voice(file, other)


def test_a_fingerprint_knows_weights_and_not_their_precision() -> None:
    tensors = tiny_model().state_dict()
    same = {name: tensor.half() for name, tensor in tensors.items()}
    changed = {**tensors, "head": tensors["head"] + 0.01}
    assert fingerprint(tensors) == fingerprint(same) == fingerprint(dict(reversed(tensors.items())))
    assert fingerprint(changed) != fingerprint(tensors)
    assert fingerprint({"a": torch.zeros(4)}) != fingerprint({"a": torch.zeros(2, 2)})


@pytest.mark.parametrize("consent", ["", "  "])
def test_no_voice_is_saved_without_consent(tmp_path: Path, consent: str) -> None:
    with pytest.raises(InputError, match="statement that its speaker agreed"):
        save_voice(tmp_path / "anna.safetensors", a_voice(consent=consent))
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_hold_a_voice_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"saved as .safetensors, not as 'anna.pt'"):
        save_voice(tmp_path / "anna.pt", a_voice())
    with pytest.raises(InputError, match=r"folder .* does not exist"):
        save_voice(tmp_path / "no" / "anna.safetensors", a_voice())
    with pytest.raises(InputError, match="fingerprint of the model"):
        save_voice(tmp_path / "anna.safetensors", a_voice(model=""))


def test_a_published_voice_is_read_only_when_any_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "expresso.safetensors"
    tensors = {name: t.detach() for name, t in a_voice().state.tensors.items()}
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match="does not say which model"):
        load_voice(file, "0123456789abcdef")
    voice = load_voice(file, None)
    assert (voice.name, voice.model, voice.consent, voice.state.scale) == ("expresso", "", "", 0.02)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"weight": torch.zeros(2)}, {}, "no tensor 'weight'"),
        ({}, {}, "holds no states"),
        ({"layer0": torch.zeros(1, 2, 2, 2)}, {"format": "mmattn-lina-voice-9"}, "format mmattn-lina-voice-9"),
        ({"layer0": torch.full((1, 1, 1, 1), torch.nan)}, {}, "not finite"),
        ({"layer0": torch.zeros(1, 1, 1, 1)}, {"format": "mmattn-lina-voice-1", "scale": "much"}, "scale is no number"),
    ],
)
def test_a_file_that_is_no_voice_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], message: str
) -> None:
    save_file(tensors, tmp_path / "x.safetensors", metadata=metadata or None)
    with pytest.raises(CheckpointError, match=message):
        load_voice(tmp_path / "x.safetensors", None)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_voice(tmp_path / "x.safetensors", None)
    (tmp_path / "x.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(CheckpointError, match="damaged or no voice file"):
        load_voice(tmp_path / "x.safetensors", None)
