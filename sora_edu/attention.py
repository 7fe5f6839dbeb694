"""Self-attention as the models use it: several heads, one fused call."""

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
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, " b #h #q n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """`mask` is True where a query may attend to a key."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        seen = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, mask)
        return self.out(rearrange(seen, "b h n d -> b n (h d)"))
