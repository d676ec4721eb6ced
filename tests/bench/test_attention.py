"""The attention benchmark's masks and closures, at sizes that take no time."""

import functools

import torch
import torch.nn.functional as F

from mmattn.bench import attention as bench
from mmattn.bench.timer import Peer, compare
from mmattn.kernels import attention


def test_random_mask_gives_every_block_row_the_same_tenth_of_the_keys():
    index = bench.random_index(8192)
    assert index.count.shape == (1, 8, 64)
    assert torch.equal(index.count.unique(), torch.tensor([6], dtype=torch.int32))
    assert not torch.equal(index.mask()[0, 0], index.mask()[0, 1])
    assert torch.equal(index.mask(), bench.random_index(8192).mask())


def test_window_mask_is_the_last_keys_and_nothing_later():
    tokens = bench.window_index(300, 40).tokens()[0, 0]
    distance = torch.arange(300)[:, None] - torch.arange(300)
    assert torch.equal(tokens, (distance >= 0) & (distance < 40))


def test_all_forms_of_the_same_mask_agree_forward_and_backward():
    tensors = bench.inputs(256)
    for index in (bench.window_index(256, 50), bench.random_index(256)):
        ours = functools.partial(attention, blocks=index)
        masked = functools.partial(F.scaled_dot_product_attention, attn_mask=index.tokens())
        for make in (bench.forward, bench.forward_backward):
            (row,) = compare(make(ours, tensors), {"mask": Peer(make(masked, tensors))}, repeats=1, warmup=0)
            assert row.agreement is not None
            assert row.agreement.max_rel < 1e-5


def test_a_forward_and_backward_run_returns_output_and_three_gradients():
    run = bench.forward_backward(F.scaled_dot_product_attention, bench.inputs(128))
    assert [tuple(x.shape) for x in run()] == [(1, 8, 128, 64)] * 4
