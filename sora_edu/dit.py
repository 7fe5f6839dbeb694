"""The diffusion transformer: noisy latents in, their noise out, told the time and a condition (chapter 07).

A latent is cut into patches, the patches pass through transformer blocks, and each ends as a patch of the
prediction. What is new is how the time t and the condition y (a class, or the tokens of a text) get in. The
paper tried four ways, and here they stand behind one switch, `conditioning`:

    in_context        t and y are tokens among the patches, and are dropped after the last block
    cross_attention   a layer in every block in which patches attend to the tokens of t and y
    adaln             t + y gives each LayerNorm of every block its shift and scale: 4 d numbers
    adaln_zero        and a gate for each layer, 0 at the start: 6 d numbers

Shapes: b samples, c channels and h, w cells of the latent, n patches, d channels of a token, l text tokens of
e channels. Times are in [0, 1], 0 = data, 1 = noise; step j = 0 .. 999 of a released model is t = j / 1000.

Source: Peebles and Xie 2023 (DiT), section 3; details of initialisation and layout from the released code.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sora_edu.attention import CrossAttention, SelfAttention, attention_macs
from sora_edu.diffusion import guided as guide
from sora_edu.patches import check_divides, patchify, unpatchify
from sora_edu.positions import sinusoidal_2d_dit
from sora_edu.transformer import FeedForward

__all__ = [
    "CONDITIONINGS", "DIT_SIZES", "DiT", "DiTBlock", "DiTConfig", "Modulation", "block_macs", "dit_macs",
    "dit_parameters", "guided", "initialise", "modulate", "time_embedding",
]  # fmt: skip

CONDITIONINGS = ("in_context", "cross_attention", "adaln", "adaln_zero")
"""The four ways in which time and condition can get in, in the order of the paper."""

PARTS = {"adaln": 4, "adaln_zero": 6}
"""Vectors that a block reads off the condition: two shifts and two scales; adaLN-Zero adds two gates."""

TIME_CHANNELS = 256
"""Cosines and sines by which a time is given to the network."""


def _refuse_unknown(conditioning: str) -> None:
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"conditioning={conditioning!r} is unknown; use one of: {', '.join(CONDITIONINGS)}")


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """The size of a diffusion transformer, and its choices."""

    size: tuple[int, int] = (32, 32)
    """Height and width of a latent in cells; multiples of `patch`."""
    channels: int = 4
    """Channels of a latent."""
    patch: int = 2
    """Side of a patch in cells."""
    width: int
    """Channels of a token; a multiple of `heads` and of 4."""
    depth: int
    """Blocks, one after another."""
    heads: int
    """Attention heads side by side in each block."""
    mlp_ratio: int = 4
    """Channels inside a block's feed-forward network, in widths."""
    classes: int | None = 1000
    """How many classes there are; None if the condition is text."""
    text_width: int | None = None
    """Channels of a text token; None if the condition is a class."""
    conditioning: str = "adaln_zero"
    """How time and condition get in: one of `CONDITIONINGS`."""
    learned_variance: bool = True
    """Whether the network also says how much noise a step should add (`diffusion.learned_log_variance`)."""
    label_dropout: float | int = 0.1
    """Share of conditions that training hides, so that the network also learns to do without."""

    def __post_init__(self):
        object.__setattr__(self, "size", tuple(self.size))
        for name in ("channels", "patch", "width", "depth", "heads", "mlp_ratio"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if min(self.size) < 1 or any(side % self.patch for side in self.size):
            near = tuple(max(self.patch, side - side % self.patch) for side in self.size)
            raise ValueError(f"size={self.size}: not multiples of patch={self.patch}; {near} would fit")
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width={self.width} must be a multiple of heads={self.heads}, and of 4 for the positions"
            )
        _refuse_unknown(self.conditioning)
        given = [count for count in (self.classes, self.text_width) if count is not None]
        if len(given) != 1 or given[0] < 1:
            raise ValueError(
                f"classes={self.classes}, text_width={self.text_width}: give the number of classes (and no "
                "text_width), or classes=None and the channels of a text token"
            )
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout={self.label_dropout}: must be at least 0 and below 1")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.size[0] // self.patch, self.size[1] // self.patch)

    @property
    def tokens(self) -> int:
        """Patches of a latent: h w / patch^2."""
        return math.prod(self.grid)

    @property
    def out_channels(self) -> int:
        """Channels of the output: those of the latent, twice as many with learned variance."""
        return (1 + self.learned_variance) * self.channels


_WIDTHS = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

DIT_SIZES = {
    f"{name}/{patch}": DiTConfig(depth=depth, width=width, heads=heads, patch=patch)
    for name, (depth, width, heads) in _WIDTHS.items()
    for patch in (8, 4, 2)
}
"""The 12 models of the paper, "S/8" to "XL/2", for latents of pictures of 256 pixels. DiT, table 1."""


# --- time, shift and scale -------------------------------------------------------------------------------


def time_embedding(t: Float[Tensor, "..."], dim: int = TIME_CHANNELS) -> Float[Tensor, "... {dim}"]:
    """Cosines then sines of 1000 t at `dim` / 2 frequencies from 1 down to about 1/10000, in float64 inside.

    `dim` is even. Peebles & Xie 2023, released code.
    """
    half = dim // 2
    speeds = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = 1000 * t.double()[..., None] * speeds
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


def modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, " b #n d"], scale: Float[Tensor, " b #n d"]
) -> Float[Tensor, "b n d"]:
    """LayerNorm without weights of its own, then x (1 + scale) + shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Modulation(nn.Module):
    """SiLU and a linear map from the condition to `parts` vectors of `width`; all zero at the start."""

    def __init__(self, condition_width: int, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(condition_width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Float[Tensor, "b n c"]) -> tuple[Float[Tensor, "b n d"], ...]:
        return self.linear(F.silu(condition)).chunk(self.parts, dim=-1)


# --- one block, four ways --------------------------------------------------------------------------------


class DiTBlock(nn.Module):
    """Attention between the tokens, then an MLP for each, both told time and condition in one of four ways.

    Where the condition gives no shift and scale, LayerNorm has learned ones, as in a ViT. DiT, section 3.2.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: int = 4,
        conditioning: str = "adaln_zero",
        condition_width: int | None = None,
        qk_norm: bool = False,
    ):
        """`condition_width`: channels of the condition, None for `width`; `qk_norm` as in `SelfAttention`."""
        super().__init__()
        _refuse_unknown(conditioning)
        self.conditioning = conditioning
        if conditioning in PARTS:
            self.modulation = Modulation(condition_width or width, width, PARTS[conditioning])
        else:
            self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention = SelfAttention(width, heads, qk_norm)
        if conditioning == "cross_attention":
            self.norm_cross = nn.LayerNorm(width, eps=1e-6)
            self.cross = CrossAttention(width, heads, condition_width)
        self.mlp = FeedForward(width, mlp_ratio * width, "gelu_tanh")

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        condition: Float[Tensor, "b m c"] | None = None,
        mask: Bool[Tensor, "b k"] | None = None,
        look: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """What `condition` and `mask` are depends on the conditioning.

        Args:
            tokens: the patches; in_context, time and condition stand among them.
            condition: adaln and adaln_zero: one vector for all tokens, `b 1 c`, or one for each, `b n c`.
                cross_attention: the tokens of time and condition, `b m c`. in_context: None.
            mask: True at real tokens; of `tokens` in_context, of `condition` in cross_attention, else None.
            look: how the tokens look at each other: a way to call `self.attention` on them. None for all at
                all, or in_context at all that `mask` says are real.

        Raises:
            ValueError: a condition in_context, or none otherwise; a mask where it means nothing.
        """
        if (condition is None) != (self.conditioning == "in_context"):
            raise ValueError(
                f"condition is {'missing' if condition is None else 'given'}, with conditioning="
                f"{self.conditioning!r}: in_context takes none, since it stands among the tokens"
            )
        if mask is not None and self.conditioning in PARTS:
            raise ValueError(
                f"mask is given, with conditioning={self.conditioning!r}: one vector has no padding"
            )
        mask = None if mask is None else mask[:, None, None]
        if look is None:
            look = partial(self.attention, mask=mask if self.conditioning == "in_context" else None)
        if self.conditioning == "in_context":
            tokens = tokens + look(self.norm1(tokens))
            return tokens + self.mlp(self.norm2(tokens))
        if self.conditioning == "cross_attention":
            tokens = tokens + look(self.norm1(tokens))
            tokens = tokens + self.cross(self.norm_cross(tokens), condition, mask)
            return tokens + self.mlp(self.norm2(tokens))
        if self.conditioning == "adaln":
            shift1, scale1, shift2, scale2 = self.modulation(condition)
            tokens = tokens + look(modulate(tokens, shift1, scale1))
            return tokens + self.mlp(modulate(tokens, shift2, scale2))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        tokens = tokens + gate1 * look(modulate(tokens, shift1, scale1))
        return tokens + gate2 * self.mlp(modulate(tokens, shift2, scale2))


# --- the model -------------------------------------------------------------------------------------------


class DiT(nn.Module):
    """The diffusion transformer of Peebles and Xie 2023; `config` decides how it is told what to draw."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = c = config
        self.patch_embed = nn.Linear(c.patch**2 * c.channels, c.width)
        self.time_embed = nn.Sequential(
            nn.Linear(TIME_CHANNELS, c.width), nn.SiLU(), nn.Linear(c.width, c.width)
        )
        if c.classes is not None:
            self.label_embed = nn.Embedding(c.classes + 1, c.width)  # the last one says "no class"
        else:
            self.text_embed = nn.Linear(c.text_width, c.width)
            self.null_text = nn.Parameter(torch.empty(c.text_width))  # the token that says "no text"
            nn.init.normal_(self.null_text, std=0.02)
        self.blocks = nn.ModuleList(
            DiTBlock(c.width, c.heads, c.mlp_ratio, c.conditioning) for _ in range(c.depth)
        )
        if c.conditioning in PARTS:
            self.final_modulation = Modulation(c.width, c.width, 2)
        else:
            self.final_norm = nn.LayerNorm(c.width, eps=1e-6)
        self.final = nn.Linear(c.width, c.patch**2 * c.out_channels)
        initialise(self)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        y: Int[Tensor, " b"] | Float[Tensor, "b l e"],
        y_mask: Bool[Tensor, "b l"] | None = None,
        dropped: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b out_channels h w"]:
        """The prediction at every cell; with learned variance, as many channels again for that.

        Args:
            x: noisy latents. Sides other than the configuration's will do if the patch divides them.
            t: times in [0, 1].
            y: class ids, where the number `classes` itself is no class; or text tokens.
            y_mask: True at real text tokens; None if all are. A text without any is no text.
            dropped: True for samples whose condition is hidden. With None, training hides a random share
                `label_dropout`, drawn as `nn.Dropout` draws, and evaluation hides none.

        Raises:
            ValueError: shapes that do not go together, or a class that there is not.
        """
        self._check(x, t, y, y_mask, dropped)
        grid = check_divides(tuple(x.shape[2:]), (self.config.patch, self.config.patch))
        patches = self.patch_embed(patchify(x, self.config.patch))
        patches = patches + sinusoidal_2d_dit(*grid, self.config.width).to(patches)
        tokens, condition, mask = self._told_how(patches, t, *self._told(y, y_mask, dropped))
        for block in self.blocks:
            tokens = block(tokens, condition, mask)
        tokens = tokens[:, : patches.shape[1]]  # in_context, the others have done their work
        return self._predicted(tokens, condition, grid)

    @classmethod
    def from_release(
        cls,
        state_dict: Mapping[str, Tensor],
        *,
        heads: int | None = None,
        grid: tuple[int, int] | None = None,
    ) -> "DiT":
        """A model with released weights, in the layout of the official release or of diffusers.

        `model(x, t, y)` answers as the release does to the step j = 1000 t, for evaluation, in the number
        format of the weights.

        Args:
            state_dict: weights by name, trained for classes with adaLN-Zero. Its shapes tell the sizes.
            heads: None for the released widths 384, 768, 1024 and 1152, whose heads are known.
            grid: rows and columns of patches; None for a square, with diffusers' layout that of 32 cells a
                side. It sets `config.size`, and where positions are kept with the weights, how they lie.

        Raises:
            ValueError: another layout, weights that do not fit together, or heads that are not known.
        """
        weights = _our_names(state_dict)
        config = _read_config(weights, heads, grid)
        if (table := weights.pop("pos_embed", None)) is not None:
            _refuse_other_positions(table, config)
        weights["patch_embed.weight"] = rearrange(weights["patch_embed.weight"], "d c p q -> d (p q c)")
        with torch.device("meta"):
            model = cls(config)
        _refuse_misfits(model.state_dict(), weights)
        model.load_state_dict(weights, assign=True)
        return model.eval()

    @classmethod
    def from_pretrained(cls, name: str = "facebook/DiT-XL-2-256") -> "DiT":
        """Downloads a DiT in diffusers' layout from the Hugging Face hub, 2.7 GB for an XL/2, and loads it.

        Needs the optional package huggingface_hub, which keeps what it has downloaded.

        Raises:
            ImportError: huggingface_hub is missing.
            ConnectionError: the hub cannot be reached and the files are not on this machine, or it has none.
            ValueError: its weights are not those of a DiT.
        """
        try:
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        except ImportError as error:
            raise ImportError("from_pretrained needs: python -m pip install huggingface_hub") from error
        from safetensors.torch import load_file

        def fetch(file: str) -> str:
            return hf_hub_download(name, f"transformer/{file}")

        try:
            config = json.loads(Path(fetch("config.json")).read_text())
            try:
                weights = load_file(fetch("diffusion_pytorch_model.safetensors"))
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):
                    raise
                weights = torch.load(fetch("diffusion_pytorch_model.bin"), "cpu", weights_only=True)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"{name}: its files could not be fetched from the Hugging Face hub ({type(error).__name__}: "
                f"{error}). Check the name and the connection; or copy its folder 'transformer' from a "
                "machine that has it, and give the weights to DiT.from_release"
            ) from error
        side = config["sample_size"] // config["patch_size"]
        return cls.from_release(weights, heads=config["num_attention_heads"], grid=(side, side))

    def _told(self, y, y_mask, dropped) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """The condition as tokens and which of them are real; what is dropped is one token that says so."""
        if dropped is None:
            dropped = torch.zeros(len(y), dtype=torch.bool, device=y.device)
            if self.training:
                dropped = torch.rand(len(y), device=y.device) < self.config.label_dropout
        if self.config.classes is not None:
            told = self.label_embed(y.masked_fill(dropped, self.config.classes))[:, None]
            return told, torch.ones_like(told[..., 0], dtype=torch.bool)
        mask = torch.ones_like(y[..., 0], dtype=torch.bool) if y_mask is None else y_mask
        dropped = (dropped | ~mask.any(1))[:, None]
        first = torch.arange(y.shape[1], device=y.device) == 0
        told = self.text_embed(torch.where(dropped[..., None], self.null_text.to(y), y))
        return told, torch.where(dropped, first, mask)

    def _told_how(self, patches, t, told, told_mask):
        """What the blocks get: tokens, condition and mask; see `DiTBlock.forward`."""
        time = self.time_embed(time_embedding(t).to(patches))[:, None]
        if self.config.conditioning in PARTS:
            share = told_mask[..., None].to(told)
            return patches, time + (told * share).sum(1, keepdim=True) / share.sum(1, keepdim=True), None
        extra, mask = torch.cat([time, told], dim=1), F.pad(told_mask, (1, 0), value=True)
        if self.config.classes is not None:
            mask = None  # all are real, and attention without a mask is faster
        if self.config.conditioning == "cross_attention":
            return patches, extra, mask
        mask = None if mask is None else F.pad(mask, (patches.shape[1], 0), value=True)
        return torch.cat([patches, extra], dim=1), None, mask

    def _predicted(self, tokens, condition, grid) -> Float[Tensor, "b out_channels h w"]:
        """From the last block's tokens to the prediction at every cell."""
        if self.config.conditioning in PARTS:
            tokens = modulate(tokens, *self.final_modulation(condition))
        else:
            tokens = self.final_norm(tokens)
        return unpatchify(self.final(tokens), self.config.patch, grid)

    def _check(self, x, t, y, y_mask, dropped) -> None:
        c, b = self.config, len(x)
        found = f"y has shape {tuple(y.shape)} and holds {y.dtype}"
        if x.ndim != 4 or x.shape[1] != c.channels:
            raise ValueError(f"x has shape {tuple(x.shape)}; this model takes (b, {c.channels}, h, w)")
        if t.shape != (b,):
            raise ValueError(f"t has shape {tuple(t.shape)}; for x of {tuple(x.shape)} it must be ({b},)")
        if c.classes is None and (y.ndim != 3 or len(y) != b or y.shape[1] < 1 or y.shape[2] != c.text_width):
            raise ValueError(f"{found}; this model takes text tokens ({b}, 1 or more, {c.text_width})")
        if c.classes is not None and (y.shape != (b,) or y.is_floating_point() or y_mask is not None):
            raise ValueError(f"{found}; this model takes {b} class ids, and no y_mask")
        if c.classes is not None and not y.is_meta and not 0 <= int(y.min()) <= int(y.max()) <= c.classes:
            raise ValueError(
                f"y holds classes from {int(y.min())} to {int(y.max())}; there are 0 to {c.classes - 1}, and "
                f"{c.classes} for none"
            )
        for name, mask, shape in (("y_mask", y_mask, y.shape[:2]), ("dropped", dropped, (b,))):
            if mask is not None and (mask.shape != shape or mask.dtype != torch.bool):
                found = f"{name} has shape {tuple(mask.shape)} and holds {mask.dtype}"
                raise ValueError(f"{found}; it must be {tuple(shape)}, boolean")


# --- released weights ------------------------------------------------------------------------------------

RELEASED_HEADS = {width: heads for _, width, heads in _WIDTHS.values()}
"""Heads of the released sizes by their width: the shapes of weights do not tell them."""

_RELEASE = {
    "x_embedder.proj": "patch_embed",
    "t_embedder.mlp.0": "time_embed.0",
    "t_embedder.mlp.2": "time_embed.2",
    "y_embedder.embedding_table": "label_embed",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "final_layer.adaLN_modulation.1": "final_modulation.linear",
    "final_layer.linear": "final",
    "adaLN_modulation.1": "modulation.linear",
}
_DIFFUSERS = {
    "pos_embed.proj": "patch_embed",
    "norm1.emb.timestep_embedder.linear_1": "time_embed.0",
    "norm1.emb.timestep_embedder.linear_2": "time_embed.2",
    "norm1.emb.class_embedder.embedding_table": "label_embed",
    "transformer_blocks": "blocks",
    "attn1.to_out.0": "attention.out",
    "ff.net.0.proj": "mlp.0",
    "ff.net.2": "mlp.2",
    "norm1.linear": "modulation.linear",
    "proj_out_1": "final_modulation.linear",
    "proj_out_2": "final",
}


def _our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released weights under our names, from either layout; names that belong to neither stay as they are."""
    if "x_embedder.proj.weight" in weights:
        renamed = {_renamed(name, _RELEASE): value for name, value in weights.items()}
    elif "pos_embed.proj.weight" in weights:
        renamed = {_renamed(name, _DIFFUSERS): value for name, value in _untied(weights).items()}
        for name in [name for name in renamed if ".attn1.to_q." in name]:
            parts = [renamed.pop(name.replace("to_q", part)) for part in ("to_q", "to_k", "to_v")]
            renamed[name.replace("attn1.to_q", "attention.qkv")] = torch.cat(parts)
    else:
        raise ValueError(
            f"state_dict begins with {', '.join(list(weights)[:3]) or 'nothing'}: neither the layout of the "
            "DiT release (x_embedder.proj.weight, …) nor that of diffusers (pos_embed.proj.weight, …); of a "
            "training checkpoint, give the 'ema' in it"
        )
    return renamed


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for theirs, ours in table.items():
        name = name.replace(theirs, ours)
    return name


def _untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In diffusers each block owns a copy of the embedder of time and class; here there is one."""
    shared, rest = {}, {}
    for name, value in weights.items():
        if ".norm1.emb." not in name:
            rest[name] = value
            continue
        first = shared.setdefault(name[name.index("norm1.emb.") :], value)
        if not torch.equal(first, value):
            raise ValueError(f"{name} differs from that of the first block; a DiT has one embedder for all")
    return rest | shared


def _read_config(weights: Mapping[str, Tensor], heads: int | None, grid: tuple[int, int] | None) -> DiTConfig:
    """The configuration behind weights of our names; only heads and grid are not in their shapes."""
    missing = [
        name
        for name in ("blocks.0.mlp.0.weight", "label_embed.weight", "final.weight")
        if name not in weights
    ]
    if missing:
        raise ValueError(f"state_dict has nothing for {', '.join(missing)}; a DiT for classes is needed")
    width, channels, patch, _ = weights["patch_embed.weight"].shape
    heads = RELEASED_HEADS.get(width) if heads is None else heads
    if heads is None:
        known = ", ".join(map(str, RELEASED_HEADS))
        raise ValueError(
            f"heads=None: weights of width {width} do not tell; only those of {known} have known heads"
        )
    out = len(weights["final.weight"]) // patch**2
    if out not in (channels, 2 * channels):
        raise ValueError(
            f"state_dict predicts {out} channels; from {channels} it must be as many or twice that"
        )
    if grid is None:
        side = math.isqrt(weights["pos_embed"].shape[1]) if "pos_embed" in weights else 32 // patch
        grid = (side, side)
    return DiTConfig(
        size=(grid[0] * patch, grid[1] * patch),
        channels=channels,
        patch=patch,
        width=width,
        depth=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        heads=heads,
        mlp_ratio=len(weights["blocks.0.mlp.0.weight"]) // width,
        classes=len(weights["label_embed.weight"]) - 1,
        learned_variance=out == 2 * channels,
    )


def _refuse_other_positions(table: Float[Tensor, "1 n d"], config: DiTConfig) -> None:
    """A release keeps its positions with its weights; they must be those that this code computes."""
    expected = sinusoidal_2d_dit(*config.grid, config.width)
    if table.shape[1:] != expected.shape:
        raise ValueError(
            f"grid={config.grid} has {config.tokens} patches and state_dict positions for {table.shape[1]}; "
            "give the (rows, columns) that they are for"
        )
    if not torch.allclose(table[0].float(), expected.to(table.device), atol=1e-4):
        raise ValueError(
            f"state_dict holds other positions than the sinusoids of the grid {config.grid}; give the (rows, "
            "columns) that they are for. Learned positions are no part of a DiT"
        )


def _refuse_misfits(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        raise ValueError(f"state_dict does not fit a DiT, in our names: {'; '.join(problems[:4])}")


def initialise(model: nn.Module) -> None:
    """Starts a model as the released code does: the output is exactly 0, and each gated block does nothing.

    Xavier for every linear layer (for queries, keys and values as one), with biases of zero; spread 0.02 for
    tables of labels and for both layers of `model.time_embed`; zeros for every `Modulation` and for
    `model.final`. The paper does not say how its plain adaLN starts; here its shifts and scales are 0, too.
    """
    silent = {id(module.linear) for module in model.modules() if isinstance(module, Modulation)}
    silent.add(id(model.final))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
            if id(module) in silent:
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for layer in (model.time_embed[0], model.time_embed[2]):
        nn.init.normal_(layer.weight, std=0.02)


def guided(
    model: nn.Module,
    x: Float[Tensor, "b c h w"],
    t: Float[Tensor, " b"],
    y: Int[Tensor, " b"] | Float[Tensor, "b l e"],
    scale: float | int,
    y_mask: Bool[Tensor, "b l"] | None = None,
    channels: int | None = None,
) -> Float[Tensor, "b out_channels h w"]:
    """Classifier-free guidance of a DiT: f = f_null + s (f_y - f_null), from one pass of twice the batch.

    Args:
        model: a `DiT`, or one that is called as it is; told y and, beside it, nothing.
        x, t, y, y_mask: as in `DiT.forward`.
        scale: s; 1 is plain conditional, and then one evaluation is enough.
        channels: how many channels of the prediction are guided; None for all. The released code guides the
            first 3 of 4, which its authors call a mistake that they keep to reproduce their numbers.

    Returns:
        The guided prediction. Channels that are not guided, the variance's among them, are those of f_y.

    Raises:
        ValueError: `channels` outside 1 .. c, and what `DiT.forward` refuses.
    """
    b, count = x.shape[:2]
    channels = count if channels is None else channels
    if not 1 <= channels <= count:
        raise ValueError(f"channels={channels}: must be 1 to {count}, or None for all {count}")
    if scale == 1:
        return model(x, t, y, y_mask, torch.zeros(b, dtype=torch.bool, device=x.device))
    x, t, y = (torch.cat([value, value]) for value in (x, t, y))
    y_mask = None if y_mask is None else torch.cat([y_mask, y_mask])
    told, untold = model(x, t, y, y_mask, torch.arange(2 * b, device=x.device) >= b).chunk(2)
    return torch.cat(
        [guide(told[:, :channels], untold[:, :channels], float(scale)), told[:, channels:]], dim=1
    )


# --- sizes -----------------------------------------------------------------------------------------------


def dit_parameters(config: DiTConfig) -> int:
    """Trained parameters of a DiT in closed form; the positions are fixed and have none.

    The number of heads does not appear: they share the width.
    """
    c, d = config, config.width
    modulated = c.conditioning in PARTS
    block = 4 * d * (d + 1) + 2 * c.mlp_ratio * d**2 + c.mlp_ratio * d + d  # attention and MLP
    block += PARTS[c.conditioning] * d * (d + 1) if modulated else 4 * d  # modulation, or two LayerNorms
    if c.conditioning == "cross_attention":
        block += 4 * d * (d + 1) + 2 * d
    time = (TIME_CHANNELS + 1) * d + (d + 1) * d
    told = (c.classes + 1) * d if c.classes is not None else (c.text_width + 1) * d + c.text_width
    cells = c.patch**2
    ends = (cells * c.channels + 1) * d + (d + 1) * cells * c.out_channels
    ends += 2 * d * (d + 1) if modulated else 2 * d
    return c.depth * block + time + told + ends


def block_macs(tokens: int, width: int, mlp_ratio: int = 4) -> int:
    """Multiply-adds of one transformer block for a sequence; without the modulation, which has no tokens.

    (4 + 2 mlp_ratio) tokens width^2 for the linear layers, and 2 tokens^2 width for the products of all pairs
    and their weighted sums.
    """
    return attention_macs(tokens, width) + 2 * mlp_ratio * tokens * width**2


def dit_macs(config: DiTConfig, text_tokens: int | None = None) -> int:
    """Multiply-adds (MACs) of one evaluation for one latent, in closed form: what the paper calls flops.

    Matrix products alone, those with the scores of attention among them; no LayerNorm, softmax or bias.
    `text_tokens` is the length of the text, padding included, where the condition is text. Raises ValueError
    where it is missing, or given for classes.
    """
    c, d, n = config, config.width, config.tokens
    if (c.classes is None) != (text_tokens is not None) or (text_tokens is not None and text_tokens < 1):
        raise ValueError(
            f"text_tokens={text_tokens} with classes={c.classes}: give the length of the text if and only if "
            "the condition is text"
        )
    told = 1 + (1 if text_tokens is None else text_tokens)  # tokens of time and condition
    seen = n + told if c.conditioning == "in_context" else n
    block = block_macs(seen, d, c.mlp_ratio)
    block += PARTS.get(c.conditioning, 0) * d**2
    if c.conditioning == "cross_attention":
        block += attention_macs(n, d, told)
    ends = n * c.patch**2 * (c.channels + c.out_channels) * d
    ends += 2 * d**2 if c.conditioning in PARTS else 0
    condition = TIME_CHANNELS * d + d**2 + (text_tokens * c.text_width * d if text_tokens else 0)
    return c.depth * block + ends + condition
