"""Attention against code that others wrote: torch's own, Hugging Face's GPT-J, and diffusers."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

from sora_edu.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    attention_macs,
    attention_weights,
    causal_mask,
    padding_mask,
    rotary_attention,
    scaled_dot_product,
)
from sora_edu.positions import rope_angles

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def qkv(generator):
    """Queries and keys of 8 channels, values of 6; 5 tokens ask, 7 are asked."""
    shapes = [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("shape", [None, (2, 3, 5, 7), (5, 7), (2, 1, 1, 7), (3, 5, 1)])
def test_written_out_and_fused_are_one(qkv, generator, shape):
    mask = None if shape is None else torch.rand(shape, generator=generator) < 0.6
    wanted = F.scaled_dot_product_attention(*qkv, mask)
    torch.testing.assert_close(scaled_dot_product(*qkv, mask), wanted, **EXACT)
    single = [x.float() for x in qkv]
    torch.testing.assert_close(
        scaled_dot_product(*single, mask), wanted.float(), rtol=1e-5, atol=1e-5
    )  # and in float32


def test_number_by_number_and_fused_are_one(qkv):
    wanted = F.scaled_dot_product_attention(*qkv)[1, 2]
    q, k, v = (x[1, 2] for x in qkv)
    torch.testing.assert_close(torch.stack([attend(query, k, v) for query in q]), wanted, **EXACT)


def test_the_causal_mask_is_torchs(qkv):
    q, k, v = qkv[1], qkv[1].flip(-1), qkv[2]
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(scaled_dot_product(q, k, v, causal_mask(7)), wanted, **EXACT)
    new = scaled_dot_product(q[..., 4:, :], k, v, causal_mask(3, past=4))
    torch.testing.assert_close(new, wanted[..., 4:, :], **EXACT)


@pytest.mark.parametrize("base", [100.0, 10000.0])
def test_rotary_attention_is_gptjs(generator, base):
    """GPT-J turns neighbouring channels too, at the speeds of Su et al."""
    q, k, v = torch.randn(
        3, 2, 9, 4, 16, generator=generator, dtype=torch.float64
    )  # b n h d, as GPT-J has it
    angles = torch.arange(9).double()[:, None] * base ** (-torch.arange(0, 16, 2).double() / 16)
    turned = [apply_rotary_pos_emb(x, angles.sin()[None], angles.cos()[None]).transpose(1, 2) for x in (q, k)]
    wanted = F.scaled_dot_product_attention(*turned, v.transpose(1, 2))
    ours = rotary_attention(*(x.transpose(1, 2) for x in (q, k, v)), angles)
    torch.testing.assert_close(ours, wanted, **EXACT)
    torch.testing.assert_close(rope_angles(torch.arange(9), 16, base), angles.float())


def test_self_attention_with_angles_is_rotary_attention_in_each_head(generator):
    torch.manual_seed(0)
    mine = SelfAttention(24, 3).double()
    x = torch.randn(2, 6, 24, generator=generator, dtype=torch.float64)
    angles = torch.rand(6, 4, generator=generator, dtype=torch.float64)
    q, k, v = (mine.qkv(x)[..., i * 24 : i * 24 + 24].view(2, 6, 3, 8) for i in range(3))
    turned = [apply_rotary_pos_emb(y, angles.sin()[None], angles.cos()[None]).transpose(1, 2) for y in (q, k)]
    seen = F.scaled_dot_product_attention(*turned, v.transpose(1, 2))
    wanted = mine.out(seen.transpose(1, 2).reshape(2, 6, 24))
    torch.testing.assert_close(mine(x, angles=angles), wanted, **EXACT)


@pytest.fixture
def cross(generator):
    """Our cross-attention, torch's with the same weights, tokens and a context of another width."""
    torch.manual_seed(0)
    mine = CrossAttention(12, 3, context_width=20).double()
    theirs = nn.MultiheadAttention(12, 3, kdim=20, vdim=20, batch_first=True).double()
    k, v = mine.kv.weight.chunk(2)
    theirs.load_state_dict(
        {
            "q_proj_weight": mine.q.weight,
            "k_proj_weight": k,
            "v_proj_weight": v,
            "in_proj_bias": torch.cat([mine.q.bias, mine.kv.bias]),
            "out_proj.weight": mine.out.weight,
            "out_proj.bias": mine.out.bias,
        }
    )
    x = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 7, 20, generator=generator, dtype=torch.float64)
    return mine, theirs, x, context


def test_cross_attention_is_torchs(cross):
    mine, theirs, x, context = cross
    wanted, weights = theirs(x, context, context, average_attn_weights=False)
    torch.testing.assert_close(mine(x, context), wanted, **EXACT)
    torch.testing.assert_close(mine.weights(x, context), weights, **EXACT)


def test_cross_attention_with_padding_is_torchs(cross):
    """torch forbids where its key_padding_mask is True; ours allows where True."""
    mine, theirs, x, context = cross
    real = padding_mask([7, 4], 7)
    wanted, weights = theirs(x, context, context, key_padding_mask=~real[:, 0, 0], average_attn_weights=False)
    torch.testing.assert_close(mine(x, context, real), wanted, **EXACT)
    torch.testing.assert_close(mine.weights(x, context, real), weights, **EXACT)


def test_cross_attention_is_that_of_diffusers(cross):
    mine, _, x, context = cross
    theirs = Attention(
        12, cross_attention_dim=20, heads=3, dim_head=4, bias=True, processor=AttnProcessor()
    ).double()
    (k, v), (k_bias, v_bias) = mine.kv.weight.chunk(2), mine.kv.bias.chunk(2)
    pairs = {"to_q": (mine.q.weight, mine.q.bias), "to_k": (k, k_bias), "to_v": (v, v_bias)}
    pairs["to_out.0"] = (mine.out.weight, mine.out.bias)
    theirs.load_state_dict(
        {f"{n}.{p}": t for n, (w, b) in pairs.items() for p, t in (("weight", w), ("bias", b))}
    )
    torch.testing.assert_close(mine(x, context), theirs(x, context), **EXACT)


def test_weights_of_self_attention_are_torchs(generator):
    torch.manual_seed(0)
    mine = SelfAttention(12, 3).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    names = {"in_proj_weight": mine.qkv.weight, "in_proj_bias": mine.qkv.bias}
    theirs.load_state_dict(names | {"out_proj.weight": mine.out.weight, "out_proj.bias": mine.out.bias})
    x = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    mask = causal_mask(5)
    _, wanted = theirs(x, x, x, attn_mask=~mask, average_attn_weights=False)
    torch.testing.assert_close(mine.weights(x, mask), wanted, **EXACT)


@pytest.mark.parametrize(("tokens", "context"), [(16, None), (16, 5), (64, None)])
def test_macs_are_what_torch_counts(tokens, context):
    """torch counts two operations for each multiply-add; on the meta device it sees all of them."""
    with torch.device("meta"):
        x = torch.zeros(1, tokens, 24)
        layer = SelfAttention(24, 3) if context is None else CrossAttention(24, 3)
        others = () if context is None else (torch.zeros(1, context, 24),)
    with FlopCounterMode(display=False) as counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        layer(x, *others)
    assert attention_macs(tokens, 24, context) == counter.get_total_flops() // 2


def test_gradients_are_those_of_the_fused_version(qkv):
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False  # a whole row hidden must not spoil the gradients either
    inputs = [x.requires_grad_() for x in qkv]
    wanted = torch.autograd.grad(F.scaled_dot_product_attention(*inputs, mask).square().sum(), inputs)
    mine = torch.autograd.grad(scaled_dot_product(*inputs, mask).square().sum(), inputs)
    for got, want in zip(mine, wanted, strict=True):
        assert math.isfinite(float(got.abs().sum()))
        torch.testing.assert_close(got, want, **EXACT)


def test_weights_are_a_softmax_written_by_hand(qkv):
    q, k, _ = qkv
    powers = torch.einsum("bhnd,bhmd->bhnm", q, k).div(8**0.5).exp()
    torch.testing.assert_close(attention_weights(q, k), powers / powers.sum(-1, keepdim=True), **EXACT)
