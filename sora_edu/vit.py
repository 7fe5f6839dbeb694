"""The vision transformer: a picture is a sequence of patches (chapter 05).

Cut the picture into squares, flatten each and project it to the width of a token; put a *class token* in
front, add positions, pass everything through the encoder blocks of chapter 04, and read the class off the
class token. Nothing in it but the patches and their positions knows that the input was a picture.

Shapes: b pictures, c colour channels, h and w pixels, n tokens, d channels of a token.

Source: Dosovitskiy et al. 2021 (ViT), section 3 and table 1.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from sora_edu.attention import SelfAttention
from sora_edu.patches import check_divides, patchify
from sora_edu.positions import LearnedPositions, sinusoidal_2d
from sora_edu.transformer import Block

__all__ = [
    "VIT_B_16", "VIT_H_14", "VIT_L_16", "CNNWithAttention", "ViT", "ViTConfig", "attention_rollout",
    "embed", "resize_positions", "vit_parameters",
]  # fmt: skip

POSITIONS = ("learned", "sinusoidal", "none")
POOLS = ("class", "mean")


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The size of a vision transformer, and its choices."""

    image: tuple[int, int] = (224, 224)
    """Height and width of a picture in pixels; multiples of `patch`."""
    patch: int = 16
    """Side of a patch in pixels."""
    channels: int = 3
    """Colour channels of a picture."""
    classes: int = 1000
    """How many answers there are."""
    width: int = 768
    """Channels of a token; a multiple of `heads`."""
    depth: int = 12
    """Blocks, one after another."""
    heads: int = 12
    """Attention heads side by side in each block."""
    hidden: int = 3072
    """Channels inside a block's feed-forward network."""
    positions: str = "learned"
    """How a token knows its place: "learned" as in ViT, "sinusoidal" or "none"."""
    position_spread: float = 0.02
    """Standard deviation of learned positions at the start; a small model with few steps wants more."""
    pool: str = "class"
    """What the answer is read from: "class", a token of its own, or "mean", of all patches."""
    dropout: float | int = 0.0
    """Share of values that training sets to zero, on the tokens and on each layer's output."""
    eps: float = 1e-6
    """What LayerNorm adds to the variance."""

    def __post_init__(self):
        object.__setattr__(self, "image", tuple(self.image))
        for name in ("patch", "channels", "classes", "width", "depth", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if min(self.image) < 1 or any(side % self.patch for side in self.image):
            near = tuple(max(self.patch, side - side % self.patch) for side in self.image)
            raise ValueError(f"image={self.image}: not multiples of patch={self.patch}; {near} would fit")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        for name, known in {"positions": POSITIONS, "pool": POOLS}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of: {', '.join(known)}")
        if self.positions == "sinusoidal" and self.width % 4:
            raise ValueError(f"width={self.width}: sinusoids of two axes need a multiple of 4")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.image[0] // self.patch, self.image[1] // self.patch)

    @property
    def tokens(self) -> int:
        """Length of the sequence: h w / patch^2 patches, and the class token if there is one."""
        return math.prod(self.grid) + (self.pool == "class")


VIT_B_16 = ViTConfig()
"""ViT-Base with patches of 16 pixels. Table 1 of the paper."""

VIT_L_16 = replace(VIT_B_16, width=1024, depth=24, heads=16, hidden=4096)
"""ViT-Large with patches of 16 pixels."""

VIT_H_14 = replace(VIT_B_16, width=1280, depth=32, heads=16, hidden=5120, patch=14)
"""ViT-Huge with patches of 14 pixels."""


def embed(
    patches: Float[Tensor, "b n d"], class_token: Float[Tensor, " d"], positions: Float[Tensor, "n+1 d"]
) -> Float[Tensor, "b n+1 d"]:
    """The sequence that enters the first block: the class token, then the patches, each with its position.

    Row 0 of `positions` belongs to the class token, row 1 + i to patch i. Source: ViT, equation 1.
    """
    first = class_token.expand(len(patches), 1, -1)
    return torch.cat([first, patches], dim=1) + positions


class ViT(nn.Module):
    """A picture in, a score for each class out. ViT, equations 1 to 4."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = nn.Linear(c.patch**2 * c.channels, c.width)
        self.class_token = nn.Parameter(torch.zeros(c.width)) if c.pool == "class" else None
        self.positions = (
            LearnedPositions((c.tokens,), c.width, c.position_spread) if c.positions == "learned" else None
        )
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.hidden, dropout=c.dropout) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.classes)
        self.dropout = nn.Dropout(c.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.LayerNorm):
                module.eps = c.eps

    def embedded(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """The sequence that enters the first block. Raises ValueError for pictures of another size."""
        c = self.config
        if x.ndim != 4 or tuple(x.shape[1:]) != (c.channels, *c.image):
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this model takes "
                f"(b, {c.channels}, {c.image[0]}, {c.image[1]})"
            )
        patches = self.patch_embed(patchify(x, c.patch))
        if self.class_token is None:
            return self.dropout(patches + self._places(patches))
        return self.dropout(embed(patches, self.class_token, self._places(patches)))

    def _places(self, patches: Float[Tensor, "b n d"]) -> Float[Tensor, "tokens d"]:
        """A code for each token of the sequence; only learned ones have one for the class token."""
        c = self.config
        if self.positions is not None:
            return self.positions(c.tokens)
        codes = patches.new_zeros(c.tokens, c.width)
        if c.positions == "sinusoidal":
            codes[-math.prod(c.grid) :] = sinusoidal_2d(*c.grid, c.width)
        return codes

    def encode(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Tokens after the last block, normalised; the class token, if any, first."""
        tokens = self.embedded(x)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """One vector for a picture: what the head reads."""
        tokens = self.encode(x)
        return tokens.mean(1) if self.class_token is None else tokens[:, 0]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Scores (logits) of the classes. Raises ValueError for pictures of another size."""
        return self.head(self.features(x))

    @torch.no_grad()
    def attention_maps(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "depth b heads n n"]:
        """How strongly each token attends to each, in every block and head; rows add up to 1."""
        tokens, found = self.embedded(x), []
        for block in self.blocks:
            found.append(block.attention.weights(block.norm1(tokens)))
            tokens = block(tokens)
        return torch.stack(found)

    def replace_head(self, classes: int) -> None:
        """For fine-tuning: a head of zeros for other classes; the rest stays. ViT, section 3.2."""
        self.config = replace(self.config, classes=classes)
        head = nn.Linear(self.config.width, classes).to(self.head.weight)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.head = head

    def resized(self, image: tuple[int, int]) -> "ViT":
        """A copy for pictures of another size: the same weights, the table of positions interpolated.

        Raises ValueError for a size that the patches do not divide.
        """
        other = ViT(replace(self.config, image=image)).to(self.head.weight)
        weights = self.state_dict()
        if self.positions is not None:
            name = "positions.tables.0"
            weights[name] = resize_positions(weights[name], self.config.grid, other.config.grid)
        other.load_state_dict(weights)
        return other.train(self.training)


def resize_positions(
    table: Float[Tensor, "rows d"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "new_rows d"]:
    """A learned table for another grid of patches, (rows, columns).

    The last rows of the table are the `old` grid's patches: they are laid out as a picture, resized with
    cubic interpolation, and flattened again. What stands before them, the class token's row, stays as it is.
    Raises ValueError for a table too short for the grid. Source: ViT, section 3.2.
    """
    cells = math.prod(old)
    if len(table) < cells:
        raise ValueError(f"table has {len(table)} rows; the grid {old} needs at least {cells}")
    first, places = table[: len(table) - cells], table[len(table) - cells :]
    picture = rearrange(places, "(h w) d -> 1 d h w", h=old[0])
    picture = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    return torch.cat([first, rearrange(picture, "1 d h w -> (h w) d")])


def attention_rollout(maps: Float[Tensor, "depth b heads n n"]) -> Float[Tensor, "b n n"]:
    """How much of each token's start is in each token's end, as far as attention alone can tell.

    Heads are averaged, half of each token passes by the attention (the residual), and the layers are
    multiplied. Rows add up to 1. Source: Abnar and Zuidema 2020, section 3.
    """
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    flow = identity.expand(maps.shape[1], -1, -1)
    for layer in maps.mean(dim=2):
        flow = (layer + identity) / 2 @ flow
    return flow


def vit_parameters(
    depth: int, width: int, hidden: int, patch: int, image: int, channels: int = 3, classes: int = 1000
) -> int:
    """Parameters of a ViT for square pictures in closed form, with class token, learned positions and head.

    The number of heads does not appear: they share the width. Raises ValueError where `patch` does not
    divide `image`.
    """
    check_divides((image, image), (patch, patch))
    tokens = (image // patch) ** 2 + 1
    embedding = (patch**2 * channels + 1) * width + width + tokens * width  # projection, class, positions
    attention = 4 * width * (width + 1)  # queries, keys, values, output: weights and biases
    mlp = width * hidden + hidden + hidden * width + width
    norm = 2 * width
    return embedding + depth * (attention + mlp + 2 * norm) + norm + (width + 1) * classes


class CNNWithAttention(nn.Module):
    """A small convolutional network whose feature map is read by attention, as words are.

    Each cell of the map becomes a token, "b d h w -> b (h w) d", and the mean over the cells decides.
    """

    def __init__(self, channels: int, classes: int, width: int = 32):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads=1)
        self.head = nn.Linear(width, classes)

    def cells(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """The feature map as tokens: one for every four pixels a side."""
        return self.norm(rearrange(self.convolutions(x), "b d h w -> b (h w) d"))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Scores (logits) of the classes."""
        return self.head(self.attention(self.cells(x)).mean(dim=1))

    @torch.no_grad()
    def attended(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        """The share of all attention that each cell receives; adds up to 1 for each picture."""
        return self.attention.weights(self.cells(x)).mean(dim=(1, 2))
