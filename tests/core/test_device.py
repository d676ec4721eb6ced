import pytest
import torch

from mmattn.core.device import resolve_device
from mmattn.errors import InputError


def test_auto_is_cuda_when_there_is_one_and_the_cpu_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_a_name_that_is_no_device_lists_what_can_be_given() -> None:
    with pytest.raises(InputError, match=r"^'gpu' is not a device\. Use auto, cpu, cuda, cuda:N or mps\.$"):
        resolve_device("gpu")


def test_cuda_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"Device 'cuda:0' was asked for, but torch .* sees no CUDA device"):
        resolve_device("cuda:0")


def test_a_gpu_number_that_is_too_large_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1").index == 1
    with pytest.raises(InputError, match=r"there are 2 CUDA devices, counted from 0\. Use a number below 2"):
        resolve_device("cuda:2")


def test_mps_without_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="Device 'mps' was asked for, but this machine has none"):
        resolve_device("mps")
