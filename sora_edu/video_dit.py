"""The video diffusion transformer: spacetime patches in, their velocity out, steered by time and text.

A DiT (chapter 07) whose tokens are patches of a whole clip (chapter 10). What is new is who sees whom, and
how a patch knows its frame; `VideoDiTConfig` has the choices:

    attention      joint        every block: each patch sees all patches of its clip
                   factorised   blocks 0, 2, 4, ...: the patches of its own frame; blocks 1, 3, 5, ...: the
                                patches at its own place in all frames
    positions      sinusoidal   fixed codes of frame, row and column, added to the tokens; any grid
                   learned      a table for each axis, added up; grids up to the tables' size
                   rope         nothing is added: queries and keys are turned by frame, row and column
    conditioning   adaln_zero   time and the text's first token shift, scale and gate every block
                   cross_attention   patches attend to the tokens of time and text in every block

Factorised attention is variant 1 of Latte, interleaved: two blocks of it have the weights of two joint ones.
ViViT's model 3 puts both attentions into one block, which has more weights. Shapes:

    x, given   b c t h w   noisy latents, and latents of what is given (zeros where nothing is)
    mask       b 4 t h w   1 = generate, 0 = given; a channel for each frame that a latent frame stands for
    t          b or b n    time of a sample, or of each of its tokens; 0 = data, 1 = noise
    y          b l d       text tokens; the first one stands for the whole prompt

Sources: Peebles and Xie 2023 (DiT); Ma et al. 2024 (Latte), section 3.2; Arnab et al. 2021 (ViViT), section
3.3; Su et al. 2021 (RoFormer).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sora_edu.attention import attention_macs
from sora_edu.autoencoder import Conv, ResidualBlock
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
from sora_edu.positions import LearnedPositions, rope_angles_3d, sinusoidal_3d

MASK_CHANNELS = 4
CHOICES = {
    "conditioning": ("adaln_zero", "cross_attention"),
    "attention": ("joint", "factorised"),
    "positions": ("sinusoidal", "learned", "rope"),
}


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
    """How time and text get in: adaln_zero or cross_attention."""
    attention: str = "joint"
    """Who sees whom: joint or factorised."""
    positions: str = "sinusoidal"
    """How a token knows its place: sinusoidal, learned or rope."""
    qk_norm: bool = True
    """Whether queries and keys are normalised."""
    table: tuple[int, int, int] = (9, 16, 16)
    """Patches along time, height and width that learned positions know; the others know any number."""
    detail: int = 0
    """Channels of the convolutions around the patches (`Detail`); 0 = there are none."""

    def __post_init__(self):
        object.__setattr__(self, "patch", tuple(self.patch))
        object.__setattr__(self, "table", tuple(self.table))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; use one of: {', '.join(known)}")
        if self.detail < 0:
            raise ValueError(f"detail={self.detail} must be a number of channels, or 0 for no convolutions")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}, both at least 1")
        turned, odd = self.width // self.heads, self.width // self.heads % 2
        if self.positions == "rope" and (turned < 6 or odd):
            raise ValueError(
                f"width={self.width}, heads={self.heads}: rope turns the {turned} channels of a head in "
                "pairs, one or more for each of three axes; width / heads must be even and at least 6"
            )


def attend_within(
    tokens: Float[Tensor, "b n d"],
    frames: int,
    sees: str,
    attend: Callable[[Float[Tensor, "g m d"]], Float[Tensor, "g m d"]],
) -> Float[Tensor, "b n d"]:
    """Lets patches look at some of their clip: each group that see each other becomes a sample of its own.

    Args:
        tokens: patches of clips in raster order, frame after frame.
        frames: how many frames they stand for.
        sees: "clip", all; "frame", those of the same frame; "place", those at the same place in all frames.
        attend: attention among all tokens of a sample.
    """
    if sees == "clip":
        return attend(tokens)
    groups = "(b t) s d" if sees == "frame" else "(b s) t d"
    apart = rearrange(tokens, f"b (t s) d -> {groups}", t=frames)
    return rearrange(attend(apart), f"{groups} -> b (t s) d", b=len(tokens))


class VideoDiTBlock(DiTBlock):
    """Attention between the patches of a clip, then an MLP for each, told time and text as in `DiTBlock`."""

    def __init__(self, config: VideoDiTConfig, number: int = 0):
        """`number`: its place among the blocks, from 0; of factorised ones, the odd look along time."""
        super().__init__(
            config.width, config.heads, config.mlp_ratio, config.conditioning, config.condition_width,
            config.qk_norm,
        )  # fmt: skip
        self.sees = "clip" if config.attention == "joint" else ("frame", "place")[number % 2]
        """Whom a patch sees: its "clip", its "frame", or its "place" in all frames."""

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        condition: Float[Tensor, "b m c"],
        mask: Bool[Tensor, "b m"] | None = None,
        *,
        frames: int = 1,
        angles: Float[Tensor, "n pairs"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`condition` and `mask` as in `DiTBlock.forward`.

        `frames` is how many the tokens stand for, needed where not all see each other; `angles` turn the
        queries and keys of the tokens (`positions.rope_angles_3d`).
        """
        return super().forward(tokens, condition, mask, lambda x: self._look(x, frames, angles))

    def _look(self, x, frames: int, angles) -> Float[Tensor, "b n d"]:
        """Attention within each group of patches that see each other."""
        if self.sees == "clip" or angles is None:
            return attend_within(x, frames, self.sees, lambda groups: self.attention(groups, angles=angles))
        # The angles of the first frame, or place, do for all: products know differences of places alone.
        size = x.shape[1] // frames
        own = angles[:size] if self.sees == "frame" else angles[::size]
        return attend_within(x, frames, self.sees, lambda groups: self.attention(groups, angles=own))


class Detail(nn.Module):
    """A way around the patches: convolutions over the cells of each latent frame.

    A patch is blind to its neighbours until attention tells it, in a few numbers, of them; an edge that runs
    through several patches asks for more. So 3x3 convolutions read the cells across the borders of patches,
    the tokens get their share of what was read, and after the blocks the cells get theirs of what the tokens
    hold, for a last convolution to draw. The end that adds to the tokens and the one that adds to the output
    start at 0, so that a model which gets this way later is at first what it was.

    Sources: a 3x3 convolution before the output is from U-ViT (Bao et al. 2023); convolutions at a finer grid
    around a transformer at a coarser one, from simple diffusion (Hoogeboom et al. 2023).
    """

    def __init__(self, config: VideoDiTConfig):
        super().__init__()
        c, cells = config.detail, math.prod(config.patch)
        self.patch = config.patch
        self.read = nn.Sequential(Conv(2 * config.channels + MASK_CHANNELS, c), ResidualBlock(c))
        self.to_tokens = nn.Linear(cells * c, config.width)
        self.from_tokens = nn.Linear(config.width, cells * c)
        self.draw = nn.Sequential(ResidualBlock(c), Conv(c, config.channels))

    def start(self) -> None:
        """Silences both ends."""
        for end in (self.to_tokens, self.draw[-1]):
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)

    def before(
        self, cells: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b d t h w"], Float[Tensor, "b n e"]]:
        """What was read of all cells, and what of it goes to the tokens."""
        seen = _by_frame(self.read, cells)
        return seen, self.to_tokens(patchify_video(seen, self.patch))

    def after(
        self, seen: Float[Tensor, "b d t h w"], tokens: Float[Tensor, "b n e"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "b c t h w"]:
        """What to add to the output."""
        return _by_frame(self.draw, seen + unpatchify_video(self.from_tokens(tokens), self.patch, grid))


def _by_frame(layers: nn.Module, cells: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
    frames = rearrange(cells, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
    return rearrange(layers(frames), "(b t) c h w -> b c t h w", b=len(cells))


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
        if config.positions == "learned":
            self.places = LearnedPositions(config.table, config.width)
        self.blocks = nn.ModuleList(VideoDiTBlock(config, number) for number in range(config.depth))
        if config.conditioning == "adaln_zero":
            self.final_modulation = Modulation(condition, config.width, 2)
        else:
            self.final_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.final = nn.Linear(config.width, cells * config.channels)
        self.detail = Detail(config) if config.detail else None
        initialise(self)
        if self.detail:
            self.detail.start()

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

        `y_mask` is True at real text tokens; adaln_zero reads only the first, which is always real. With
        cross_attention the time is one token of its own, so t is `b`. Raises ValueError for shapes that do
        not go together, and for a grid that learned positions do not reach.
        """
        c = self.config
        grid = check_divides(tuple(x.shape[2:]), c.patch)
        self._check_shapes(x, t, y, y_mask, math.prod(grid))
        cells = self._with_given(x, given, mask)
        tokens = self.patch_embed(patchify_video(cells, c.patch))
        if self.detail:
            seen, share = self.detail.before(cells)
            tokens = tokens + share
        tokens, beside = self._placed(tokens, grid)
        condition = self._condition(t, y)
        if c.conditioning == "cross_attention" and y_mask is not None:
            beside["mask"] = F.pad(y_mask, (1, 0), value=True)  # the time stands before the text
        for block in self.blocks:
            tokens = block(tokens, condition, **beside)
        if c.conditioning == "adaln_zero":
            tokens = modulate(tokens, *self.final_modulation(condition))
        else:
            tokens = self.final_norm(tokens)
        out = unpatchify_video(self.final(tokens), c.patch, grid)
        return out + self.detail.after(seen, tokens, grid) if self.detail else out

    def repeated(self) -> list[nn.Module]:
        """The parts that do nearly all of the work, for torch.compile: blocks, and stacks of convolutions."""
        return [*self.blocks, *((self.detail.read, self.detail.draw) if self.detail else ())]

    def _placed(self, tokens, grid: tuple[int, int, int]) -> tuple[Float[Tensor, "b n d"], dict]:
        """The tokens with their places added, and what the blocks must be told of the grid beside them."""
        c = self.config
        beside = {} if c.attention == "joint" else {"frames": grid[0]}
        if c.positions == "rope":
            return tokens, beside | {"angles": rope_angles_3d(*grid, c.width // c.heads).to(tokens.device)}
        places = self.places(*grid) if c.positions == "learned" else sinusoidal_3d(*grid, c.width)
        return tokens + places.to(tokens), beside

    def _check_shapes(self, x, t, y, y_mask, n: int) -> None:
        b, channels = x.shape[:2]
        if channels != self.config.channels:
            raise ValueError(f"x has {channels} channels; this model's latents have {self.config.channels}")
        times = ((b,), (b, n)) if self.config.conditioning == "adaln_zero" else ((b,),)
        if t.shape not in times:
            raise ValueError(
                f"t is {tuple(t.shape)}; for x of {tuple(x.shape)} it must be {' or '.join(map(str, times))}"
            )
        if y.ndim != 3 or y.shape[0] != b or y.shape[1] < 1 or y.shape[2] != self.config.text_width:
            raise ValueError(
                f"y is {tuple(y.shape)}; for x of {tuple(x.shape)} it must be "
                f"({b}, length, {self.config.text_width}) with a length of at least 1"
            )
        if y_mask is not None and (y_mask.shape != y.shape[:2] or y_mask.dtype != torch.bool):
            raise ValueError(
                f"y_mask has shape {tuple(y_mask.shape)} and holds {y_mask.dtype}; for y of "
                f"{tuple(y.shape)} it must be {tuple(y.shape[:2])}, boolean"
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

    def _condition(self, t, y) -> Float[Tensor, "b m c"]:
        """adaln_zero: the sum of time and prompt, one for all tokens or one for each; else their tokens."""
        time = self.time_embed(time_embedding(t if t.ndim == 2 else t[:, None]))
        if self.config.conditioning == "adaln_zero":
            return time + self.text_embed(y[:, 0])[:, None]
        return torch.cat([time, self.text_embed(y)], dim=1)


# --- sizes -----------------------------------------------------------------------------------------------


def video_dit_parameters(config: VideoDiTConfig) -> int:
    """Trained parameters of a video DiT in closed form.

    Joint and factorised attention have the same; of the positions only the learned ones have any.
    """
    c, d, told = config, config.width, config.condition_width
    block = 4 * d * (d + 1) + 2 * c.mlp_ratio * d**2 + c.mlp_ratio * d + d  # attention and MLP
    block += 2 * (d // c.heads) if c.qk_norm else 0
    if c.conditioning == "adaln_zero":
        block += PARTS[c.conditioning] * d * (told + 1)
        last = 2 * d * (told + 1)
    else:
        block += 2 * d * (d + 1) + 2 * d * (told + 1) + 6 * d  # queries and output, keys and values, 3 norms
        last = 2 * d
    cells = math.prod(c.patch)
    ends = (cells * (2 * c.channels + MASK_CHANNELS) + 1) * d + (d + 1) * cells * c.channels + last
    ends += sum(c.table) * d if c.positions == "learned" else 0
    ends += _detail_parameters(config) if c.detail else 0
    return c.depth * block + ends + (TIME_CHANNELS + 1) * told + (told + 1) * told + (c.text_width + 1) * told


def _detail_parameters(config: VideoDiTConfig) -> int:
    c, e, cells = config, config.detail, math.prod(config.patch)
    convolutions = (9 * (2 * c.channels + MASK_CHANNELS) + 1) * e + (9 * e + 1) * c.channels
    residual = 2 * (9 * e + 1) * e + 2 * e  # two convolutions, two norms; there are two such blocks
    return convolutions + 2 * residual + (cells * e + 1) * c.width + (c.width + 1) * cells * e


def video_dit_macs(
    config: VideoDiTConfig, tokens: int, *, frames: int | None = None, text_tokens: int | None = None
) -> int:
    """Multiply-adds (MACs) of one evaluation for one clip of so many patches, all at one time t.

    Counted as in `dit_macs`: products alone, so that turning queries and keys costs nothing.

    Args:
        config: the model.
        tokens: patches of the clip.
        frames: how many of them along time; asked for with factorised attention only.
        text_tokens: length of the text, padding included; asked for with cross-attention only.

    Raises:
        ValueError: less than one token, `frames` or `text_tokens` missing where they matter, or frames that
            do not divide the tokens.
    """
    c, d, told = config, config.width, config.condition_width
    pairs = 2 * d * _pairs(config, tokens, frames)  # products with keys and sums of values, of all blocks
    block = block_macs(tokens, d, c.mlp_ratio) - 2 * d * tokens**2
    cells = tokens * math.prod(c.patch)
    ends = cells * (3 * c.channels + MASK_CHANNELS) * d
    ends += cells * c.detail * (9 * (3 * c.channels + MASK_CHANNELS + 4 * c.detail) + 2 * d)
    if c.conditioning == "adaln_zero":
        block += PARTS[c.conditioning] * d * told
        return c.depth * block + pairs + ends + 2 * d * told + told * (TIME_CHANNELS + told + c.text_width)
    if text_tokens is None or text_tokens < 1:
        raise ValueError(f"text_tokens={text_tokens}: with cross_attention give the length of the text")
    context = 1 + text_tokens  # the time is a token, too
    block += attention_macs(tokens, d, context) + 2 * context * d * (told - d)  # keys, values: from `told`
    return c.depth * block + pairs + ends + told * (TIME_CHANNELS + told + text_tokens * c.text_width)


def _pairs(config: VideoDiTConfig, tokens: int, frames: int | None) -> int:
    """Pairs of tokens that see each other, over all blocks."""
    if tokens < 1:
        raise ValueError(f"tokens={tokens}: must be at least 1")
    if config.attention == "joint":
        return attention_pairs("joint", config.depth, 1, tokens)
    if frames is None or frames < 1 or tokens % frames:
        raise ValueError(f"frames={frames}: with factorised attention give a divisor of tokens={tokens}")
    return attention_pairs("factorised", config.depth, frames, tokens // frames)


def attention_pairs(attention: str, depth: int, frames: int, places: int) -> int:
    """Pairs (who looks, who is looked at) over all blocks, for a clip of `frames` times `places` patches.

    Joint: everybody looks at everybody in each block. Factorised: in blocks 0, 2, 4, ... at its frame, in
    blocks 1, 3, 5, ... at its place in all frames.
    """
    tokens = frames * places
    if attention == "joint":
        return depth * tokens * tokens
    in_time = depth // 2
    return (depth - in_time) * tokens * places + in_time * tokens * frames
