"""resolve(): which backend runs, and why."""

import pytest
import torch

from mmattn.kernels.backends import BACKENDS, resolve


class _Elsewhere:
    """Stands for a tensor on a device this machine does not have."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)


@pytest.mark.parametrize(("device", "name"), [("cpu", "cpu"), ("cuda", "triton"), ("mps", "reference")])
def test_auto_follows_the_device_and_says_why(device: str, name: str) -> None:
    resolution = resolve(_Elsewhere(device))
    assert resolution.name == name
    assert device in resolution.reason.lower()


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_terms_take_the_form_that_knows_them_on_every_device_and_say_so(device: str) -> None:
    resolution = resolve(_Elsewhere(device), terms=("bias", "softcap"))
    assert resolution.name == "scored"
    assert "bias, softcap given" in resolution.reason
    assert device in resolution.reason


@pytest.mark.parametrize("backend", ["cpu", "triton", "flex"])
def test_backends_without_terms_refuse_them(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend '{backend}' knows no alibi_slopes; use backend='auto', 'scored'"):
        resolve(torch.zeros(1), backend, terms=("alibi_slopes",))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "auto"])
def test_a_named_backend_is_taken(backend: str) -> None:
    assert resolve(torch.zeros(1), backend) == (backend, f"backend={backend!r} was asked for")


def test_the_cpu_backend_refuses_other_devices() -> None:
    with pytest.raises(ValueError, match="got cuda; use backend='auto'"):
        resolve(_Elsewhere("cuda"), "cpu")
