"""Attention: how tokens look at each other (chapter 03).

A token asks with its *query* q. Every token that can be asked has a *key* k, which says what it offers, and a
*value* v, which is what it hands over. The products of a query with all keys, scaled and passed through a
softmax, are weights that add up to 1; the answer is the weighted sum of the values.

    softmax(Q K^T / sqrt(d)) V

Shapes: b samples, h heads, n tokens that ask, m tokens that are asked, d channels (of a query and a key; in
a module: of a token), e channels of a value. A boolean mask is True where attending is allowed, as in
torch's `scaled_dot_product_attention` (torch's `MultiheadAttention` means the opposite). A token that may
look at nothing gets zeros.

Sources: Vaswani et al. 2017, section 3.2; Su et al. 2021, RoFormer (rotary attention); Dehghani et al. 2023
and Esser et al. 2024 (normalised queries and keys).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sora_edu.positions import rotate

__all__ = [
    "CrossAttention", "KeyValueCache", "SelfAttention", "attend", "attention_macs", "attention_weights",
    "causal_mask", "merge_heads", "padding_mask", "rotary_attention", "scaled_dot_product", "split_heads",
]  # fmt: skip


def attend(
    query: Float[Tensor, " d"], keys: Float[Tensor, "m d"], values: Float[Tensor, "m e"]
) -> Float[Tensor, " e"]:
    """The answer that one token gets, one number at a time: the definition, slow and plain.

    Raises ValueError for shapes that do not fit. Source: Vaswani et al. 2017, section 3.2.1.
    """
    _refuse_misfits(query[None], keys, values, None)
    scores = []
    for key in keys:
        product = sum(a * b for a, b in zip(query, key, strict=True))
        scores.append(product / math.sqrt(len(query)))
    highest = max(scores)  # taken off first: exp(1000) is no number, and the ratios stay what they are
    powers = [torch.exp(score - highest) for score in scores]
    weights = [power / sum(powers) for power in powers]
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def scaled_dot_product(
    q: Float[Tensor, "*batch n d"],
    k: Float[Tensor, "*batch m d"],
    v: Float[Tensor, "*batch m e"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch n e"]:
    """softmax(Q K^T / sqrt(d)) V, written out; the modules below call torch's fused version of it.

    `mask` is True where a query (row) may attend to a key (column); its shape broadcasts to "*batch n m". A
    query that may attend to nothing gets zeros. Raises ValueError for shapes that do not fit and for a mask
    that is not boolean. Source: Vaswani et al. 2017, equation 1.
    """
    _refuse_misfits(q, k, v, mask)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        return scores.softmax(dim=-1) @ v
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0) @ v  # a row that is hidden whole is 0/0 so far


def attention_weights(
    q: Float[Tensor, "*batch n d"], k: Float[Tensor, "*batch m d"], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, "*batch n m"]:
    """How strongly each query attends to each key: the answers to values that are 1 at one key each.

    Rows add up to 1, or to 0 where the mask hides a whole row. Raises what `scaled_dot_product` raises.
    """
    one_hot = torch.eye(k.shape[-2], dtype=k.dtype, device=k.device)
    return scaled_dot_product(q, k, one_hot.expand(*k.shape[:-2], -1, -1), mask)


def rotary_attention(
    q: Float[Tensor, "*batch n d"],
    k: Float[Tensor, "*batch n d"],
    v: Float[Tensor, "*batch n e"],
    angles: Float[Tensor, "n d//2"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "*batch n e"]:
    """Attention that knows distances: queries and keys are turned by their places (RoPE), values are not.

    `angles` as `sora_edu.positions.rope_angles` makes them. Raises ValueError for shapes that do not fit.
    Source: Su et al. 2021, RoFormer, section 3.2.
    """
    return scaled_dot_product(rotate(q, angles), rotate(k, angles), v, mask)


# --- heads -----------------------------------------------------------------------------------------------


def split_heads(x: Float[Tensor, "b n width"], heads: int) -> Float[Tensor, "b {heads} n d"]:
    """Shares the channels of every token among the heads: head 0 gets the first `width / heads`, and so on.

    Raises ValueError when the heads do not divide the width.
    """
    _refuse_heads(x.shape[-1], heads)
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def merge_heads(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n {x.shape[1]*x.shape[3]}"]:
    """Puts the heads' answers side by side again, in the order in which `split_heads` took them apart."""
    return rearrange(x, "b h n d -> b n (h d)")


# --- masks -----------------------------------------------------------------------------------------------


def causal_mask(length: int, past: int = 0) -> Bool[Tensor, "n m"]:
    """True where token `past + i` may look at token j: at itself and at what came before.

    Rows are the `length` new tokens, columns the `past` tokens that a cache holds followed by the new ones.
    Raises ValueError for a length below 1 or a negative past.
    """
    if length < 1 or past < 0:
        raise ValueError(f"length={length}, past={past}: length must be at least 1, past at least 0")
    return torch.ones(length, past + length, dtype=torch.bool).tril(diagonal=past)


def padding_mask(lengths: list[int], size: int) -> Bool[Tensor, "b 1 1 {size}"]:
    """True for real tokens, where sample i has `lengths[i]` of them and is filled up to `size`.

    The two axes of 1 stand for heads and queries: what is no word may be looked at by nobody. Raises
    ValueError for a length outside 0 .. size.
    """
    if not lengths or min(lengths) < 0 or max(lengths) > size:
        raise ValueError(f"lengths={lengths}: give one length of 0 to size={size} for each sample")
    return (torch.arange(size) < torch.tensor(lengths)[:, None])[:, None, None, :]


# --- modules ---------------------------------------------------------------------------------------------


class _WideRMSNorm(nn.RMSNorm):
    """RMSNorm that works in the format of its weights, and answers in that of its input."""

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d_k)) V in `heads` heads side by side. Vaswani et al. 2017, section 3.2.

    With `qk_norm`, queries and keys pass an RMSNorm first, which keeps their products from growing in
    training (Dehghani et al. 2023; Esser et al. 2024).
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False):
        super().__init__()
        _refuse_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_q = _WideRMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.norm_k = _WideRMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def _project(self, x, angles):
        _refuse_width("x", x, self.out.in_features)
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k = self.norm_q(q), self.norm_k(k)
        return (q, k, v) if angles is None else (rotate(q, angles), rotate(k, angles), v)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "..."] | None = None,
        cache: "KeyValueCache | None" = None,
        angles: Float[Tensor, "n pairs"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` ("#b #h #n m") is True where a query may attend to a key; `angles` turn queries and keys.

        With a `cache`, x holds new tokens only: they attend to what the cache has seen and to each other, and
        are added to it. The mask then has a column for each of these m tokens; the angles are those of the
        new tokens. Raises ValueError for shapes that do not fit.
        """
        q, k, v = self._project(x, angles)
        if cache is not None:
            k, v = cache.extend(k, v)
        return self.out(_fused(q, k, v, mask))

    def weights(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "..."] | None = None,
        angles: Float[Tensor, "n pairs"] | None = None,
    ) -> Float[Tensor, "b h n n"]:
        """How strongly each token attends to each, in each head; rows sum to 1, or to 0 if hidden whole."""
        q, k, _ = self._project(x, angles)
        return attention_weights(q, k, mask)


def _fused(q, k, v, mask) -> Float[Tensor, "b n width"]:
    """torch's own fused `scaled_dot_product` for all heads, and their answers side by side."""
    _refuse_misfits(q, k, v, mask)
    return merge_heads(F.scaled_dot_product_attention(q, k, v, mask))


class CrossAttention(nn.Module):
    """Attention from one sequence to another: queries from x, keys and values from the context.

    The encoder-decoder attention of Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None):
        """`context_width`: channels of the context; None for the same as `width`."""
        super().__init__()
        _refuse_heads(width, heads)
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context_width or width, 2 * width)
        self.out = nn.Linear(width, width)

    def _project(self, x, context):
        _refuse_width("x", x, self.q.in_features)
        _refuse_width("context", context, self.kv.in_features)
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(context), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        return q, k, v

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` ("#b #h #n m") is True where a token of x may attend to a token of the context.

        Raises ValueError for shapes that do not fit.
        """
        q, k, v = self._project(x, context)
        return self.out(_fused(q, k, v, mask))

    def weights(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "b h n m"]:
        """How strongly each token of x attends to each of the context; rows sum to 1, or 0 if hidden."""
        q, k, _ = self._project(x, context)
        return attention_weights(q, k, mask)


class KeyValueCache:
    """Keys and values of the tokens that one attention layer has seen, so that none is worked out twice."""

    def __init__(self):
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def extend(
        self, keys: Float[Tensor, "b h n d"], values: Float[Tensor, "b h n d"]
    ) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
        """Adds the keys and values of new tokens, and returns those of all tokens so far.

        Raises ValueError for samples, heads or channels that are not those of the tokens before.
        """
        if self.keys is not None:
            _refuse_others(keys, self.keys)
            keys, values = torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)
        self.keys, self.values = keys, values
        return keys, values


# --- cost and bad input ----------------------------------------------------------------------------------


def attention_macs(tokens: int, width: int, context: int | None = None) -> int:
    """Multiply-adds (MACs) of one attention layer for one sample, however many heads it has.

    Projections of queries and of the output for each token, of keys and values for each token of the context
    (`context` of them; None for self-attention), then a product with every key and a sum over every value.
    Softmax, biases and scaling are not counted. Raises ValueError for numbers below 1.
    """
    asked = tokens if context is None else context
    if min(tokens, width, asked) < 1:
        raise ValueError(f"tokens={tokens}, width={width}, context={context}: each must be at least 1")
    projections = 2 * tokens * width**2 + 2 * asked * width**2
    return projections + 2 * tokens * asked * width


def _refuse_heads(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        near = [h for h in range(1, width + 1) if width % h == 0]
        raise ValueError(f"width={width} is not a multiple of heads={heads}; heads that divide it: {near}")


def _refuse_others(keys: Tensor, cached: Tensor) -> None:
    (b, h, _, d), fits = cached.shape, (*keys.shape[:2], *keys.shape[3:])
    if fits != (b, h, d):
        raise ValueError(f"keys of shape {tuple(keys.shape)}: this cache holds ({b}, {h}, any number, {d})")


def _refuse_width(name: str, x: Tensor, width: int) -> None:
    if x.ndim != 3 or x.shape[-1] != width:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; this layer takes (samples, tokens, {width})")


def _refuse_misfits(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{shapes}: queries and keys are (…, tokens, channels), equally many channels")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{shapes}: every key needs one value, but there are {k.shape[-2]}, {v.shape[-2]}")
    if not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        raise ValueError(f"{shapes}: all axes before the last two must be the same")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"mask holds {mask.dtype}; give booleans, True where attending is allowed")
    scores = (*q.shape[:-1], k.shape[-2])
    fits = zip(reversed(mask.shape), reversed(scores), strict=False)
    if mask.ndim > len(scores) or any(m not in (1, s) for m, s in fits):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be {scores}, or 1 on some axes")
