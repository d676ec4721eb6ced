"""States of every stateful layer and kernel: as large after 2,000 tokens as after 60, and good to train on."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmattn.attention import (
    DeltaNet,
    GatedLinearAttention,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    NeuralMemory,
    PrefixLinearAttention,
    Rwkv6,
    SimpleGatedLinearAttention,
)
from mmattn.attention.recurrent.parts import ShortConv
from mmattn.attention.titans import MacOptions, MemoryOptions
from mmattn.attention.titans.segmented import SegmentedAttention
from mmattn.kernels import linear
from mmattn.kernels.memory import Memory, MemoryState, neural_memory, neural_memory_step
from mmattn.kernels.states import map_tensors, own_storage, trainable

SMALL = MemoryOptions(chunk_size=4)
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "gla": lambda: GatedLinearAttention(8, num_heads=2, use_short_conv=True),
    "simple gla": lambda: SimpleGatedLinearAttention(8, num_heads=2),
    "delta net": lambda: DeltaNet(8, num_heads=2),
    "rwkv6": lambda: Rwkv6(8, num_heads=2),
    "prefix": lambda: PrefixLinearAttention(8, num_heads=2),
    "short convolution": lambda: ShortConv(8),
    "windows": lambda: SegmentedAttention(8, 4, dim_head=4, heads=2),
    "sliding windows": lambda: SegmentedAttention(8, 4, dim_head=4, heads=2, sliding=True),
    "memory": lambda: NeuralMemory(8, SMALL),
    "memory as gate": lambda: MemoryAsGate(8, 4, dim_head=4, heads=2, memory=SMALL),
    "memory as layer": lambda: MemoryAsLayer(8, 4, dim_head=4, heads=2, memory=SMALL),
    "memory as context": lambda: MemoryAsContext(
        MacOptions(num_tokens=9, dim=8, depth=2, segment_len=4, dim_head=4, heads=2)
    ),
}


def _stream(name: str, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    if name == "memory as context":
        return torch.randint(9, (1, tokens), generator=generator)
    return torch.randn(1, tokens, 8, generator=generator)


def _after(layer: nn.Module, name: str, tokens: int) -> Any:
    state = layer(_stream(name, tokens))[-1]
    return state.compact() if name == "memory" else state


def _saved(state: Any) -> int:
    tensors: list[Tensor] = []
    map_tensors(state, lambda x: tensors.append(x) or x)  # type: ignore[func-returns-value]
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.tell()


@pytest.mark.parametrize("name", LAYERS)
def test_the_size_of_a_state_does_not_depend_on_how_much_was_read(name: str) -> None:
    layer = LAYERS[name]()
    with torch.no_grad():
        # Both lengths end at the same place of a window and of a chunk.
        short, long = (_saved(_after(layer, name, tokens)) for tokens in (61, 2_041))
    assert long == pytest.approx(short, abs=256)


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_made_under_inference_mode_can_be_trained_on(name: str) -> None:
    layer = LAYERS[name]()
    with torch.no_grad():
        expected = layer(_stream(name, 5), _after(layer, name, 6))[0]
    with torch.inference_mode():
        state = _after(layer, name, 6)
    out = layer(_stream(name, 5), state)[0]
    torch.testing.assert_close(out, expected)
    out.square().mean().backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in layer.parameters())
    # One token takes another way.
    layer(_stream(name, 1), state)[0].square().mean().backward()


def _kernel_inputs(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


STEPS: dict[str, Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]] = {
    "gla": lambda x, s: linear.gated_linear_attention_step(x[0], x[1], x[2], -x[3].abs(), s),
    "simple gla": lambda x, s: linear.simple_gla_step(x[0], x[1], x[2], -x[3][..., 0].abs(), s),
    "delta": lambda x, s: linear.delta_rule_step(x[0], x[1], x[2], x[3][..., 0].sigmoid(), s),
    "linear": lambda x, s: linear.linear_attention_step(x[0], x[1], x[2], s),
    "rwkv6": lambda x, s: linear.rwkv6_step(x[0], x[1], x[2], -x[3].abs(), x[3][0], s),
    "chunks": lambda x, s: linear.gated_linear_attention(
        *(y[:, :, None].expand(-1, -1, 9, -1) for y in (x[0], x[1], x[2], -x[3].abs())), initial_state=s
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_kernels_go_on_from_such_a_state(name: str) -> None:
    inputs = _kernel_inputs(*[(1, 2, 4)] * 4)
    with torch.inference_mode():
        state = torch.ones(1, 2, 4, 4)
    out, _ = STEPS[name](inputs, state)
    out.sum().backward()
    assert inputs[0].grad is not None
    torch.testing.assert_close(out, STEPS[name](inputs, torch.ones(1, 2, 4, 4))[0])


def test_the_memory_goes_on_from_such_a_state() -> None:
    q, k, v = (x[:, :, None] for x in _kernel_inputs(*[(1, 2, 4)] * 3))
    gate = torch.full((1, 2, 1), 0.3)
    with torch.inference_mode():
        state = MemoryState.start(Memory((torch.ones(1, 2, 4, 4),)))
    neural_memory(q, k, v, gate, gate, initial_state=state)[0].sum().backward()
    out, _ = neural_memory_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], gate[..., 0], gate[..., 0], None, state)
    out.sum().backward()


def test_own_storage_holds_what_is_there_and_no_more() -> None:
    whole = torch.arange(100.0)
    kept = own_storage((whole[90:], 5, None))
    assert torch.equal(kept[0], whole[90:])
    assert kept[0].untyped_storage().nbytes() == 40
    assert kept[1:] == (5, None)


def test_ordinary_states_are_handed_on_as_they_are() -> None:
    state = (torch.ones(2), 1)
    assert trainable(state)[0] is state[0]
    with torch.inference_mode():
        made = torch.ones(2)
        assert trainable(made) is made
    assert not trainable(made).is_inference()
