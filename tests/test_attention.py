"""Attention: its laws, its masks, and what it refuses; `parity/` compares it with code that others wrote.

Self-attention is compared here with torch.nn.MultiheadAttention and the written-out softmax.
"""

import math
from inspect import unwrap

import pytest
import torch
from torch import nn

from sora_edu.attention import (
    CrossAttention,
    KeyValueCache,
    SelfAttention,
    attend,
    attention_macs,
    attention_weights,
    causal_mask,
    merge_heads,
    padding_mask,
    rotary_attention,
    scaled_dot_product,
    split_heads,
)
from sora_edu.positions import rope_angles, sinusoidal

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


# --- laws ------------------------------------------------------------------------------------------------


@pytest.fixture
def qkv(generator):
    return torch.randn(3, 2, HEADS, 5, 4, generator=generator, dtype=torch.float64)


def test_rows_of_weights_add_up_to_one(qkv, mask):
    for hidden in (None, mask):
        weights = attention_weights(qkv[0], qkv[1], hidden)
        assert weights.min() >= 0
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 5).double())
    assert not weights[~mask].any()


def test_answers_stay_between_the_smallest_and_the_largest_value(qkv):
    q, k, v = qkv
    answers = scaled_dot_product(10 * q, k, v)
    assert (answers <= v.amax(-2, keepdim=True) + 1e-12).all()
    assert (answers >= v.amin(-2, keepdim=True) - 1e-12).all()


def test_equal_scores_make_the_mean(qkv):
    answers = scaled_dot_product(torch.zeros_like(qkv[0]), qkv[1], qkv[2])
    torch.testing.assert_close(answers, qkv[2].mean(-2, keepdim=True).expand_as(answers))


def test_the_order_of_keys_does_not_matter_and_that_of_queries_only_orders_the_answers(qkv):
    q, k, v = qkv
    order = torch.tensor([3, 0, 4, 1, 2])
    answers = scaled_dot_product(q, k, v)
    torch.testing.assert_close(scaled_dot_product(q, k[..., order, :], v[..., order, :]), answers)
    torch.testing.assert_close(scaled_dot_product(q[..., order, :], k, v), answers[..., order, :])


def test_the_root_keeps_the_spread_of_scores_at_one(generator):
    """Products of d normal numbers have variance d: the reason for the root in section 3.2.1."""
    for d in (4, 64, 512):
        q, k = torch.randn(2, 4000, d, generator=generator)
        products = (q * k).sum(-1)
        assert products.var().item() == pytest.approx(d, rel=0.1)
        assert (products / math.sqrt(d)).std().item() == pytest.approx(1, rel=0.05)


def test_huge_scores_do_not_overflow(qkv):
    q, k, v = 1e3 * qkv
    torch.testing.assert_close(
        scaled_dot_product(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v)
    )
    assert attend(q[0, 0, 0], k[0, 0], v[0, 0]).isfinite().all()


def test_the_decks_example_has_the_decks_shapes():
    """Six words of 512 channels: a (6, 6) table of weights, and (6, 512) out."""
    words = ["YOUR", "CAT", "IS", "A", "LOVELY", "CAT"]
    table = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    x = table[[sorted(set(words)).index(word) for word in words]]
    weights = attention_weights(x, x)
    assert weights.shape == (6, 6) and scaled_dot_product(x, x, x).shape == (6, 512)
    torch.testing.assert_close(weights[1], weights[5])  # the two cats, without positions
    weights = attention_weights(x + sinusoidal(6, 512), x + sinusoidal(6, 512))
    assert not torch.allclose(weights[1], weights[5], atol=1e-2)


def test_products_round_a_triangle_agree_whenever_queries_are_keys(qkv):
    """A01 A12 A20 = A02 A21 A10 if the scores are symmetric, whatever the rows are divided by."""

    def both_ways(w):
        return w[..., 0, 1] * w[..., 1, 2] * w[..., 2, 0], w[..., 0, 2] * w[..., 2, 1] * w[..., 1, 0]

    torch.testing.assert_close(*both_ways(attention_weights(qkv[0], qkv[0])))
    one, other = both_ways(attention_weights(qkv[0], qkv[1]))
    assert not torch.isclose(one, other, rtol=0.01).any()


# --- heads -----------------------------------------------------------------------------------------------


def test_heads_share_the_channels_of_each_token(x):
    heads = split_heads(x, HEADS)
    assert heads.shape == (2, HEADS, 5, WIDTH // HEADS)
    for token in range(5):
        for head in range(HEADS):
            assert torch.equal(heads[1, head, token], x[1, token, 4 * head : 4 * head + 4])
    assert torch.equal(merge_heads(heads), x)


def test_many_heads_are_single_heads_side_by_side(attention, x):
    size = WIDTH // HEADS
    answers = []
    for head in range(HEADS):
        rows = torch.cat([torch.arange(head * size, (head + 1) * size) + part * WIDTH for part in range(3)])
        q, k, v = (x @ attention.qkv.weight[rows].T + attention.qkv.bias[rows]).chunk(3, dim=-1)
        answers.append(nn.functional.scaled_dot_product_attention(q, k, v))
    torch.testing.assert_close(attention.out(torch.cat(answers, dim=-1)), attention(x))


# --- masks -----------------------------------------------------------------------------------------------


def test_a_causal_mask_lets_nobody_see_the_future(attention, x):
    before = attention(x, causal_mask(5))
    changed = x.clone()
    changed[:, 3] += 1
    after = attention(changed, causal_mask(5))
    assert torch.equal(after[:, :3], before[:, :3])
    assert ((after - before)[:, 3:].abs().amax(-1) > 1e-3).all()


def test_the_last_row_of_a_causal_mask_sees_everything():
    assert causal_mask(4).tolist() == [[column <= row for column in range(4)] for row in range(4)]
    assert causal_mask(2, past=3).tolist() == [[True] * 4 + [False], [True] * 5]


def test_a_padding_mask_hides_what_is_no_word(attention, x):
    mask = padding_mask([5, 2], 5)
    assert mask.shape == (2, 1, 1, 5) and mask[:, 0, 0].sum(-1).tolist() == [5, 2]
    torch.testing.assert_close(attention(x, mask)[1:, :2], attention(x[1:, :2]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_that_is_hidden_whole_gets_zeros(x, dtype):
    torch.manual_seed(0)
    layer, cross = SelfAttention(WIDTH, HEADS).to(dtype), CrossAttention(WIDTH, HEADS).to(dtype)
    mask = padding_mask([5, 0], 5)
    x = x.to(dtype).requires_grad_()
    for output, out in ((layer(x, mask), layer.out), (cross(x, x, mask), cross.out)):
        torch.testing.assert_close(output[1], out.bias.expand(5, -1))  # zeros, passed through the last layer
        assert output.isfinite().all()
    assert not layer.weights(x, mask)[1].any() and not cross.weights(x, x, mask)[1].any()
    (gradient,) = torch.autograd.grad(layer(x, mask).sum() + layer.weights(x, mask).sum(), x)
    assert gradient.isfinite().all()


# --- positions inside ------------------------------------------------------------------------------------


def test_with_rotary_attention_only_distances_count(qkv):
    q, k, v = qkv
    here, there = (rope_angles(first + torch.arange(5), 4).double() for first in (0, 1000))
    moved = rotary_attention(q, k, v, there)
    torch.testing.assert_close(moved, rotary_attention(q, k, v, here), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(moved, scaled_dot_product(q, k, v), atol=0.05)


def test_rotary_attention_leaves_values_alone(qkv):
    q, k, v = qkv
    angles = rope_angles(torch.arange(5), 4).double()
    answers = rotary_attention(q, k, torch.ones_like(v), angles)
    torch.testing.assert_close(answers, torch.ones_like(v))


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_token_by_token_with_a_cache_is_all_at_once(x, qk_norm, turned):
    torch.manual_seed(0)
    attention = SelfAttention(WIDTH, HEADS, qk_norm).double()
    if qk_norm:
        nn.init.normal_(attention.norm_k.weight)
    angles = rope_angles(torch.arange(5), WIDTH // HEADS).double() if turned else None
    cache, steps = KeyValueCache(), []
    for place in range(5):
        own = None if angles is None else angles[place : place + 1]
        steps.append(attention(x[:, place : place + 1], cache=cache, angles=own))
    torch.testing.assert_close(torch.cat(steps, 1), attention(x, causal_mask(5), angles=angles))


# --- cost ------------------------------------------------------------------------------------------------


def test_macs_by_hand():
    assert attention_macs(1, 1) == 2 + 2 + 2
    assert attention_macs(3, 10) == 4 * 3 * 100 + 2 * 9 * 10
    assert attention_macs(3, 10, context=5) == 2 * 3 * 100 + 2 * 5 * 100 + 2 * 15 * 10


# --- bad input -------------------------------------------------------------------------------------------


def ask(*shapes, mask=None):
    """`scaled_dot_product` without the shape checks of the tests, as a learner calls it."""
    return unwrap(scaled_dot_product)(*(torch.ones(shape) for shape in shapes), mask)


def cached_twice(*samples: int) -> None:
    """Fills one cache with tokens of batches of different sizes."""
    cache = KeyValueCache()
    for b in samples:
        cache.extend(torch.ones(b, 2, 1, 4), torch.ones(b, 2, 1, 4))


BAD = {
    r"q \(5, 4\), k \(5, 3\).*equally many channels": lambda: ask((5, 4), (5, 3), (5, 4)),
    r"every key needs one value, but there are 5, 6": lambda: ask((5, 4), (5, 4), (6, 4)),
    r"all axes before the last two": lambda: ask((2, 5, 4), (3, 5, 4), (3, 5, 4)),
    r"k \(4,\).*\(…, tokens, channels\)": lambda: ask((5, 4), (4,), (5, 4)),
    r"mask holds torch.float32; give booleans": lambda: ask((5, 4), (5, 4), (5, 4), mask=torch.ones(5, 5)),
    r"mask has shape \(4, 5\); it must be \(5, 5\)": lambda: ask(
        (5, 4), (5, 4), (5, 4), mask=torch.ones(4, 5, dtype=torch.bool)
    ),
    r"width=10 is not a multiple of heads=3; .*\[1, 2, 5, 10\]": lambda: unwrap(split_heads)(
        torch.ones(1, 2, 10), 3
    ),
    r"width=12 is not a multiple of heads=0": lambda: SelfAttention(12, 0),
    r"width=10 is not a multiple of heads=4": lambda: CrossAttention(10, 4),
    r"x has shape \(1, 2, 11\); this layer takes \(samples, tokens, 12\)": lambda: SelfAttention(12, 3)(
        torch.ones(1, 2, 11)
    ),
    r"context has shape \(1, 2, 12\); .* 20\)": lambda: CrossAttention(12, 3, 20)(
        torch.ones(1, 2, 12), torch.ones(1, 2, 12)
    ),
    r"lengths=\[6\]: .* size=5": lambda: padding_mask([6], 5),
    r"lengths=\[\]": lambda: padding_mask([], 5),
    r"length=0": lambda: causal_mask(0),
    r"tokens=0": lambda: attention_macs(0, 4),
    r"keys of shape \(1, 2, 1, 4\): this cache holds \(2, 2, any number, 4\)": lambda: cached_twice(2, 1),
    r"q \(1, 3\), k \(5, 4\)": lambda: unwrap(attend)(torch.ones(3), torch.ones(5, 4), torch.ones(5, 4)),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input_is_explained(said):
    with pytest.raises(ValueError, match=said):
        BAD[said]()
