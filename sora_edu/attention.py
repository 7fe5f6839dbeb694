"""Self-attention as the models use it: several heads, one fused call."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


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
        self.norm_q = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, " b #h #q n"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """`mask` is True where a query may attend to a key."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k = self.norm_q(q.float()).to(v.dtype), self.norm_k(k.float()).to(v.dtype)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b h n d -> b n (h d)"))
