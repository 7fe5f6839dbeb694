"""Self-attention, against torch.nn.MultiheadAttention with the same weights and the written-out softmax."""

import math

import pytest
import torch
from torch import nn

from sora_edu.attention import SelfAttention

WIDTH, HEADS = 12, 3


@pytest.fixture
def attention() -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(WIDTH, HEADS).double()


@pytest.fixture
def x(generator):
    return torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64)


@pytest.fixture
def mask(generator):
    """A different rule for each sample, head and query; every query may attend to itself."""
    return (torch.rand(2, HEADS, 5, 5, generator=generator) < 0.5) | torch.eye(5, dtype=torch.bool)


def torchs_own(mine: SelfAttention) -> nn.MultiheadAttention:
    """torch's module with the weights of ours."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.qkv.weight,
            "in_proj_bias": mine.qkv.bias,
            "out_proj.weight": mine.out.weight,
            "out_proj.bias": mine.out.bias,
        }
    )
    return theirs


def written_out(mine: SelfAttention, x, mask=None):
    """softmax(Q K^T / sqrt(d_k) + M) V, head by head."""
    size = WIDTH // HEADS
    q, k, v = (x @ w.T + b for w, b in zip(mine.qkv.weight.chunk(3), mine.qkv.bias.chunk(3), strict=True))
    heads = []
    for head in range(HEADS):
        own = slice(head * size, (head + 1) * size)
        queries, keys = q[..., own], k[..., own]
        if not isinstance(mine.norm_q, nn.Identity):
            queries = queries / (queries.square().mean(-1, keepdim=True) + 1e-6).sqrt() * mine.norm_q.weight
            keys = keys / (keys.square().mean(-1, keepdim=True) + 1e-6).sqrt() * mine.norm_k.weight
        scores = queries @ keys.transpose(1, 2) / math.sqrt(size)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, head], -math.inf)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ v[..., own])
    return torch.cat(heads, dim=-1) @ mine.out.weight.T + mine.out.bias


def test_it_is_torchs_multi_head_attention(attention, x):
    wanted, _ = torchs_own(attention)(x, x, x, need_weights=False)
    torch.testing.assert_close(attention(x), wanted)


def test_a_mask_is_true_where_attending_is_allowed(attention, x, mask):
    """The module of torch forbids where its mask is True, the other way round."""
    wanted, _ = torchs_own(attention)(x, x, x, attn_mask=~mask.flatten(0, 1), need_weights=False)
    torch.testing.assert_close(attention(x, mask), wanted)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_it_is_the_written_out_softmax(x, mask, masked, qk_norm):
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS, qk_norm).double()
    if qk_norm:  # weights of 1 would hide a swap of the two norms
        nn.init.normal_(attention.norm_q.weight)
        nn.init.normal_(attention.norm_k.weight)
    mask = mask if masked else None
    torch.testing.assert_close(attention(x, mask), written_out(attention, x, mask))


def test_one_mask_serves_all_heads_and_queries(attention, x):
    keys = torch.tensor([[True, True, False, True, False], [True] * 5])
    short = attention(x[:1, [0, 1, 3]])
    torch.testing.assert_close(attention(x, keys[:, None, None])[:1, [0, 1, 3]], short)


def test_what_is_masked_is_not_seen(attention, x):
    keys = torch.tensor([True, True, True, True, False]).expand(2, 1, 1, 5)
    x.requires_grad_()
    attention(x, keys)[:, :4].square().sum().backward()
    assert not x.grad[:, 4].any() and x.grad[:, :4].all()


def test_tokens_have_no_order(attention, x):
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order])


def test_with_qk_norm_the_size_of_queries_and_keys_does_not_matter(x):
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS, qk_norm=True).double()
    nn.init.normal_(attention.qkv.bias)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[: 2 * WIDTH] *= 50
        attention.qkv.bias[: 2 * WIDTH] *= 50
    torch.testing.assert_close(attention(x), before, rtol=1e-4, atol=1e-5)


def test_its_size_is_that_of_the_formula(attention):
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(attention) == 4 * WIDTH**2 + 4 * WIDTH
    assert count(SelfAttention(WIDTH, HEADS, True)) == count(attention) + 2 * WIDTH // HEADS


def test_it_runs_in_bfloat16(x):
    torch.manual_seed(0)
    attention, x = SelfAttention(WIDTH, HEADS, qk_norm=True), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        quick = attention(x)
    assert quick.dtype == torch.bfloat16
    torch.testing.assert_close(quick.float(), attention(x), rtol=0.05, atol=0.02)


def test_heads_that_do_not_divide_the_width_are_explained():
    with pytest.raises(ValueError, match="width=10 is not a multiple of heads=4"):
        SelfAttention(10, 4)
