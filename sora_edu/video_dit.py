"""The video diffusion transformer: spacetime patches in, their velocity out, steered by time and text.

After DiT with adaLN-Zero (Peebles & Xie 2023), with joint attention over all patches of a clip. Shapes:

    x, given   b c t h w   noisy latents, and latents of what is given (zeros where nothing is)
    mask       b 4 t h w   1 = generate, 0 = given; a channel for each frame that a latent frame stands for
    t          b or b n    time of a sample, or of each of its tokens; 0 = data, 1 = noise
    y          b l d       text tokens; the first one stands for the whole prompt
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sora_edu.dit import (
    PARTS,
    TIME_CHANNELS,
    DiTBlock,
    Modulation,
    block_macs,
    initialise,
    modulate,
    time_embedding,
)
from sora_edu.patches import check_divides, patchify_video, unpatchify_video
from sora_edu.positions import sinusoidal_3d

MASK_CHANNELS = 4
CHOICES = {"conditioning": ("adaln_zero",), "attention": ("joint",), "positions": ("sinusoidal",)}


@dataclass(frozen=True)
class VideoDiTConfig:
    """Sizes and choices of a video DiT."""

    channels: int = 16
    """Channels of the latents."""
    patch: tuple[int, int, int] = (1, 2, 2)
    """Latent cells of a token along time, height and width."""
    width: int = 256
    """Channels of a token."""
    depth: int = 8
    """Number of blocks."""
    heads: int = 4
    """Attention heads."""
    mlp_ratio: int = 4
    """Hidden channels of the MLP, in widths."""
    text_width: int = 192
    """Channels of the text tokens."""
    condition_width: int = 192
    """Channels of the vector of time and text from which every block's modulation is read."""
    conditioning: str = "adaln_zero"
    """How time and text get in: adaln_zero."""
    attention: str = "joint"
    """Who sees whom: joint."""
    positions: str = "sinusoidal"
    """How a token knows its place: sinusoidal."""
    qk_norm: bool = True
    """Whether queries and keys are normalised."""

    def __post_init__(self):
        object.__setattr__(self, "patch", tuple(self.patch))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of: {', '.join(known)}")


class VideoDiTBlock(DiTBlock):
    """Attention, then an MLP, each shifted, scaled and gated by the condition; a fresh one does nothing."""

    def __init__(self, config: VideoDiTConfig):
        super().__init__(
            config.width, config.heads, config.mlp_ratio, config.conditioning, config.condition_width,
            config.qk_norm,
        )  # fmt: skip


class VideoDiT(nn.Module):
    """The network of tiny Sora, and of the full-size one: `config` decides."""

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        self.config = config
        cells, condition = math.prod(config.patch), config.condition_width
        self.patch_embed = nn.Linear(cells * (2 * config.channels + MASK_CHANNELS), config.width)
        self.time_embed = nn.Sequential(
            nn.Linear(TIME_CHANNELS, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.text_embed = nn.Linear(config.text_width, condition)
        self.blocks = nn.ModuleList(VideoDiTBlock(config) for _ in range(config.depth))
        self.final_modulation = Modulation(condition, config.width, 2)
        self.final = nn.Linear(config.width, cells * config.channels)
        initialise(self)

    def forward(
        self,
        x: Float[Tensor, "b c t h w"],
        t: Float[Tensor, " b"] | Float[Tensor, "b n"],
        y: Float[Tensor, "b l d"],
        y_mask: Bool[Tensor, "b l"] | None = None,
        given: Float[Tensor, "b c t h w"] | None = None,
        mask: Float[Tensor, "b 4 t h w"] | None = None,
    ) -> Float[Tensor, "b c t h w"]:
        """The velocity eps - x_0 at every latent cell. Without `given` and `mask`, everything is generated.

        `y_mask` is True at real text tokens; this conditioning reads only the first, which is always real.
        Raises ValueError for shapes that do not go together.
        """
        grid = check_divides(tuple(x.shape[2:]), self.config.patch)
        self._check_shapes(x, t, y, math.prod(grid))
        tokens = self.patch_embed(patchify_video(self._with_given(x, given, mask), self.config.patch))
        tokens = tokens + self._positions(grid).to(tokens)
        condition = self._condition(t, y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.final_modulation(condition)
        return unpatchify_video(self.final(modulate(tokens, shift, scale)), self.config.patch, grid)

    def _check_shapes(self, x, t, y, n: int) -> None:
        b, channels = x.shape[:2]
        if channels != self.config.channels:
            raise ValueError(f"x has {channels} channels; this model's latents have {self.config.channels}")
        if t.shape not in ((b,), (b, n)):
            raise ValueError(
                f"t is {tuple(t.shape)}; for x of {tuple(x.shape)} it must be {(b,)} or {(b, n)}"
            )
        if y.ndim != 3 or y.shape[0] != b or y.shape[1] < 1 or y.shape[2] != self.config.text_width:
            raise ValueError(
                f"y is {tuple(y.shape)}; for x of {tuple(x.shape)} it must be "
                f"({b}, length, {self.config.text_width}) with a length of at least 1"
            )

    def _with_given(self, x, given, mask) -> Float[Tensor, "b c2 t h w"]:
        mask_shape = (len(x), MASK_CHANNELS, *x.shape[2:])
        given = torch.zeros_like(x) if given is None else given
        mask = x.new_ones(mask_shape) if mask is None else mask
        if given.shape != x.shape or mask.shape != mask_shape:
            raise ValueError(
                f"given is {tuple(given.shape)} and mask {tuple(mask.shape)}; "
                f"for x of {tuple(x.shape)} they must be {tuple(x.shape)} and {mask_shape}"
            )
        return torch.cat([x, given, mask], dim=1)

    def _condition(self, t, y) -> Float[Tensor, "b n c"]:
        text = self.text_embed(y[:, 0])
        return self.time_embed(time_embedding(t if t.ndim == 2 else t[:, None])) + text[:, None]

    def _positions(self, grid: tuple[int, int, int]) -> Float[Tensor, "n d"]:
        return sinusoidal_3d(*grid, self.config.width)


# --- sizes -----------------------------------------------------------------------------------------------


def video_dit_parameters(config: VideoDiTConfig) -> int:
    """Trained parameters of a video DiT in closed form; the positions are fixed and have none."""
    c, d, told = config, config.width, config.condition_width
    block = 4 * d * (d + 1) + 2 * c.mlp_ratio * d**2 + c.mlp_ratio * d + d  # attention and MLP
    block += PARTS[c.conditioning] * d * (told + 1)
    block += 2 * (d // c.heads) if c.qk_norm else 0
    cells = math.prod(c.patch)
    ends = (cells * (2 * c.channels + MASK_CHANNELS) + 1) * d + (d + 1) * cells * c.channels
    ends += 2 * d * (told + 1)
    return c.depth * block + ends + (TIME_CHANNELS + 1) * told + (told + 1) * told + (c.text_width + 1) * told


def video_dit_macs(config: VideoDiTConfig, tokens: int) -> int:
    """Multiply-adds (MACs) of one evaluation for one clip of so many patches, all at one time t.

    Counted as in `dit_macs`: matrix products alone. Raises ValueError for less than one token.
    """
    c, d, told = config, config.width, config.condition_width
    block = block_macs(tokens, d, c.mlp_ratio) + PARTS[c.conditioning] * d * told
    ends = tokens * math.prod(c.patch) * (3 * c.channels + MASK_CHANNELS) * d + 2 * d * told
    return c.depth * block + ends + told * (TIME_CHANNELS + told + c.text_width)
