"""Self-attention as the models use it: several heads, one fused call."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


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
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_q = _WideRMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.norm_k = _WideRMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "#b #h #n m"] | None = None,
        cache: "KeyValueCache | None" = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` is True where a query may attend to a key.

        With a `cache`, x holds new tokens only: they attend to what the cache has seen and to each other, and
        are added to it. The mask then has a column for each of these m tokens.
        """
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        if cache is not None:
            k, v = cache.extend(k, v)
        seen = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, mask)
        return self.out(rearrange(seen, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Attention from one sequence to another: queries from x, keys and values from the context.

    The encoder-decoder attention of Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(self, width: int, heads: int, context_width: int | None = None):
        """`context_width`: channels of the context; None for the same as `width`."""
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}")
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context_width or width, 2 * width)
        self.out = nn.Linear(width, width)

    def _project(self, x, context):
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(context), "b m (two h d) -> two b h m d", two=2, h=self.heads)
        return q, k, v

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "#b #h #n m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` is True where a token of x may attend to a token of the context."""
        q, k, v = self._project(x, context)
        seen = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out(rearrange(seen, "b h n d -> b n (h d)"))

    def weights(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "#b #h #n m"] | None = None,
    ) -> Float[Tensor, "b h n m"]:
        """How strongly each token of x attends to each token of the context; rows sum to 1."""
        q, k, _ = self._project(x, context)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)


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
        """Adds the keys and values of new tokens, and returns those of all tokens so far."""
        if self.keys is not None:
            keys, values = torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)
        self.keys, self.values = keys, values
        return keys, values


def causal_mask(length: int, past: int = 0) -> Bool[Tensor, "n m"]:
    """True where token `past + i` may look at token j: at itself and at what came before.

    Rows are the `length` new tokens, columns the `past` tokens that a cache holds followed by the new ones.
    Raises ValueError for a length below 1 or a negative past.
    """
    if length < 1 or past < 0:
        raise ValueError(f"length={length}, past={past}: length must be at least 1, past at least 0")
    return torch.ones(length, past + length, dtype=torch.bool).tril(diagonal=past)
