"""The masked diffusion transformer (MDT): a DiT that also learns with part of its input hidden (chapter 08).

In training every noisy latent passes twice. Once whole, as in DiT. And once with a random share of its
tokens hidden: the *encoder* gets only the tokens that are kept, the *side-interpolator* guesses what stands
at the hidden places, and the *decoder* gets all places again. Both passes answer for all tokens, and their
losses are added. To draw samples, masks and interpolator go: a plain DiT is left, with a second table of
positions in it.

Shapes: b samples, n tokens of a picture, k of them kept, d channels of a token. A mask "b n" is boolean and
True where a token is hidden, in keeping with the course's "1 = generate, 0 = given".

Source: Gao et al. 2023 (MDT; MDTv2 in the later versions of the paper), section 3, and the released code for
what the text leaves open.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sora_edu.dit import PARTS, DiT, DiTBlock, DiTConfig, block_macs, dit_macs, initialise
from sora_edu.patches import patchify
from sora_edu.positions import sinusoidal_2d_dit

__all__ = [
    "MaskedDiT", "MaskedDiTConfig", "asymmetric_pass", "draw_mask", "draw_ratio", "encoder_input",
    "hidden_count", "mask_from_scores", "masked_losses", "masked_macs", "side_interpolate", "step_macs",
]  # fmt: skip

Tokens = Callable[[Tensor], Tensor]
"""A part of the network: tokens "b n d" to tokens of the same shape."""


# --- masks -----------------------------------------------------------------------------------------------


def hidden_count(tokens: int, ratio: float) -> int:
    """How many of `tokens` a mask of this ratio hides: the nearest whole number.

    Raises ValueError for a ratio outside [0, 1), and for one so large that nothing is kept.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio={ratio}: must be at least 0 and below 1; MDT hides 0.3 to 0.5")
    hidden = round(ratio * tokens)
    if hidden >= tokens:
        raise ValueError(f"ratio={ratio} hides all of {tokens} tokens; at least one must be kept")
    return hidden


def mask_from_scores(scores: Float[Tensor, "b n"], ratio: float) -> Bool[Tensor, "b n"]:
    """True where a token is hidden: in each sample the `ratio` n tokens with the largest scores.

    Sorting twice gives ranks: the first argsort says who stands at each rank, the second at which rank each
    stands. Every sample hides equally many, so that the kept tokens still make one tensor. Raises ValueError
    for an impossible ratio.
    """
    kept = scores.shape[1] - hidden_count(scores.shape[1], ratio)
    ranks = scores.argsort(dim=1).argsort(dim=1)
    return ranks >= kept


def draw_mask(
    samples: int, tokens: int, ratio: float, generator: torch.Generator | None = None
) -> Bool[Tensor, "{samples} {tokens}"]:
    """A random mask, another one for each sample. Raises ValueError for an impossible ratio."""
    return mask_from_scores(torch.rand(samples, tokens, generator=generator), ratio)


def draw_ratio(ratio: tuple[float, float], generator: torch.Generator | None = None) -> float:
    """A share to hide, uniform between two: one for a whole batch, as MDTv2 draws 0.3 + U(0, 0.2)."""
    low, high = ratio
    return low + (high - low) * torch.rand((), generator=generator).item()


# --- the two passes --------------------------------------------------------------------------------------


def encoder_input(
    patches: Float[Tensor, "b n d"], positions: Float[Tensor, "n d"], mask: Bool[Tensor, "samples places"]
) -> Float[Tensor, "b k d"]:
    """What the encoder gets: the kept tokens in raster order, each with the position of its own place.

    Raises ValueError for a mask of another shape, or one that hides more in one sample than in another.
    """
    _refuse_mask(mask, *patches.shape[:2])
    return (patches + positions)[~mask].unflatten(0, (len(patches), -1))


def side_interpolate(
    kept: Float[Tensor, "b k d"],
    mask: Bool[Tensor, "samples n"],
    mask_token: Float[Tensor, " d"],
    positions: Float[Tensor, "n d"],
    predict: Tokens,
) -> Float[Tensor, "b n d"]:
    """What the decoder gets: all places again, the hidden ones filled with a prediction.

    Every kept token goes back to its own place, every hidden place gets the one shared `mask_token`, and all
    get their positions: that is q. `predict`, a small network with attention, sees all of q and answers
    k_hat; its answer counts at the hidden places alone: (1 - M) q + M k_hat. MDT, section 3.

    Raises ValueError where the mask does not leave as many places as there are kept tokens.
    """
    _refuse_mask(mask, len(kept), mask.shape[1], kept.shape[1])
    hidden = mask[:, :, None]
    q = mask_token.expand(*mask.shape, -1).masked_scatter(~hidden, kept) + positions
    return torch.where(hidden, predict(q), q)


def asymmetric_pass(
    patches: Float[Tensor, "b n d"],
    mask: Bool[Tensor, "samples places"] | None,
    positions: Float[Tensor, "n d"],
    decoder_positions: Float[Tensor, "n d"],
    encoder: Tokens,
    interpolate: Callable[[Tensor, Tensor], Tensor],
    decoder: Tokens,
) -> Float[Tensor, "b n d"]:
    """From embedded patches to the decoder's last tokens, with a mask (training) or without (always).

    `interpolate(kept, mask)` is `side_interpolate` with its weights; it adds the decoder's positions itself.
    Without a mask nothing is missing, and they are added here: they belong to the decoder, not to the mask.
    """
    if mask is None:
        return decoder(encoder(patches + positions) + decoder_positions)
    kept = encoder(encoder_input(patches, positions, mask))
    return decoder(interpolate(kept, mask))


def masked_losses(
    full: Float[Tensor, "b n d"],
    masked: Float[Tensor, "b n d"],
    target: Float[Tensor, "b n d"],
    mask: Bool[Tensor, "b n"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """What is trained, and two numbers to watch: (total, kept, hidden).

    The total is the mean squared error of the full pass plus that of the masked pass, both over *all* tokens.
    The other two are the masked pass's error at the kept places and at the hidden ones; the mask serves them
    alone. MDT, section 3.
    """
    error = (masked - target).square()
    return F.mse_loss(full, target) + error.mean(), error[~mask].mean(), error[mask].mean()


# --- cost ------------------------------------------------------------------------------------------------


def step_macs(tokens: int, hidden: int, width: int, encoder: int, decoder: int, side: int = 1) -> int:
    """Multiply-adds of the blocks for one sample of a training step, forward, both passes together.

    `encoder`, `decoder` and `side` count blocks. Only the encoder works on fewer tokens, and only in the
    masked pass. Raises ValueError unless 0 <= hidden < tokens.
    """
    if not 0 <= hidden < tokens:
        raise ValueError(f"hidden={hidden}: must be at least 0 and below tokens={tokens}")
    whole, rest = block_macs(tokens, width), block_macs(tokens - hidden, width)
    full_pass = (encoder + decoder) * whole
    masked_pass = encoder * rest + (side + decoder) * whole
    return full_pass + masked_pass


# --- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MaskedDiTConfig(DiTConfig):
    """The size of a masked diffusion transformer: a DiT's, `depth` being encoder and decoder together."""

    decoder: int = 2
    """How many of the blocks, the last ones, are the decoder."""
    side: int = 1
    """Blocks of the side-interpolator; they come on top of `depth`, and in training only."""
    ratio: tuple[float, float] = (0.3, 0.5)
    """Smallest and largest share of the tokens that training hides."""
    skips: bool = False
    """MDTv2's encoder: its second half gets what left the first, last out first in."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "ratio", tuple(self.ratio))
        if self.conditioning not in PARTS:
            known = ", ".join(PARTS)
            raise ValueError(
                f"conditioning={self.conditioning!r}: masked training hides places of the picture, and other "
                f"tokens have none; use one of: {known}"
            )
        if not 1 <= self.decoder < self.depth:
            raise ValueError(
                f"decoder={self.decoder}: of depth={self.depth} blocks, at least one must be the decoder's "
                "and one the encoder's"
            )
        if self.side < 1:
            raise ValueError(f"side={self.side}: the side-interpolator needs at least 1 block")
        low, high = self.ratio
        if not low <= high:
            raise ValueError(
                f"ratio={self.ratio}: the first must not be above the second; MDT has (0.3, 0.5)"
            )
        for bound in self.ratio:
            hidden_count(self.tokens, bound)
        if self.skips and self.encoder % 2:
            raise ValueError(
                f"skips=True joins the encoder's halves, and it has {self.encoder} blocks: an odd number"
            )

    @property
    def encoder(self) -> int:
        """Blocks of the encoder."""
        return self.depth - self.decoder


class MaskedDiT(DiT):
    """A DiT whose training can hide tokens. Without a mask it is a DiT with two learned tables of positions.

    `blocks` are the encoder's, then the decoder's; `side`, `mask_token` and the tables come on top.
    """

    def __init__(self, config: MaskedDiTConfig):
        super().__init__(config)
        c = config
        codes = sinusoidal_2d_dit(*c.grid, c.width).float()
        self.positions = nn.Parameter(codes.clone())
        self.decoder_positions = nn.Parameter(codes.clone())
        self.mask_token = nn.Parameter(0.02 * torch.randn(c.width))
        self.side = nn.ModuleList(
            DiTBlock(c.width, c.heads, c.mlp_ratio, c.conditioning) for _ in range(c.side)
        )
        joins = c.encoder // 2 if c.skips else 0
        self.joins = nn.ModuleList(nn.Linear(2 * c.width, c.width) for _ in range(joins))
        initialise(self)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        y: Int[Tensor, " b"] | Float[Tensor, "b l e"],
        y_mask: Bool[Tensor, "b l"] | None = None,
        dropped: Bool[Tensor, " b"] | None = None,
        mask: Bool[Tensor, "samples places"] | None = None,
    ) -> Float[Tensor, "b out_channels h w"]:
        """The prediction at every cell; `mask` is True at tokens that are hidden from this pass.

        The other arguments as in `DiT.forward`. The two passes of one training step should be told the same
        `dropped`. Raises ValueError for latents of another size than the tables', for masks that do not fit,
        and for what `DiT.forward` refuses.
        """
        c = self.config
        self._check(x, t, y, y_mask, dropped)
        if tuple(x.shape[2:]) != c.size:
            raise ValueError(
                f"x has size {tuple(x.shape[2:])} (h, w); the tables of positions fit {c.size} alone"
            )
        patches = self.patch_embed(patchify(x, c.patch))
        _, condition, _ = self._told_how(patches, t, *self._told(y, y_mask, dropped))
        tokens = asymmetric_pass(
            patches, mask, self.positions, self.decoder_positions,
            encoder=lambda tokens: self._encode(tokens, condition),
            interpolate=lambda kept, mask: side_interpolate(
                kept, mask, self.mask_token, self.decoder_positions,
                predict=lambda q: _through(self.side, q, condition),
            ),
            decoder=lambda tokens: _through(self.blocks[c.encoder :], tokens, condition),
        )  # fmt: skip
        return self._predicted(tokens, condition, c.grid)

    def _encode(self, tokens: Float[Tensor, "b k d"], condition: Float[Tensor, "b 1 d"]) -> Tensor:
        """The encoder's blocks; with skips, those of the second half first join what left their partners."""
        blocks, count = self.blocks[: self.config.encoder], len(self.joins)
        if not count:
            return _through(blocks, tokens, condition)
        left = []
        for block in blocks[:count]:
            tokens = block(tokens, condition)
            left.append(tokens)
        for block, join in zip(blocks[count:], self.joins, strict=True):
            tokens = block(join(torch.cat([tokens, left.pop()], dim=-1)), condition)
        return tokens


def _through(blocks: Iterable[nn.Module], tokens: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:
        tokens = block(tokens, condition)
    return tokens


def masked_macs(config: MaskedDiTConfig, hidden: int | None = None) -> int:
    """Multiply-adds of a `MaskedDiT` for one latent, forward: of the full pass, or of one that hides tokens.

    Counted as `dit_macs` counts. A training step takes both: `masked_macs(c) + masked_macs(c, hidden)`.
    Raises ValueError unless `hidden` is None or 0 <= hidden < tokens.
    """
    c, d, n = config, config.width, config.tokens
    if hidden is not None and not 0 <= hidden < n:
        raise ValueError(f"hidden={hidden}: must be at least 0 and below tokens={n}")
    joins = c.encoder // 2 if c.skips else 0
    seen = n - (hidden or 0)
    total = dit_macs(c) - c.encoder * (block_macs(n, d, c.mlp_ratio) - block_macs(seen, d, c.mlp_ratio))
    total += joins * 2 * seen * d**2
    if hidden is not None:
        total += c.side * (block_macs(n, d, c.mlp_ratio) + PARTS[c.conditioning] * d**2)
    return total


def _refuse_mask(mask: Tensor, samples: int, tokens: int, kept: int | None = None) -> None:
    """A mask must fit the tokens, and keep equally many of them (`kept`, if that is known) in each sample."""
    if tuple(mask.shape) != (samples, tokens):
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; for these tokens it must be {(samples, tokens)}"
        )
    counts = (~mask).sum(1)
    wanted = int(counts[0]) if kept is None else kept
    if not (counts == wanted).all() or wanted < 1:
        raise ValueError(
            f"mask keeps {counts.tolist()} tokens of the samples; each must keep equally many, at least one"
            + (f": {kept}, the tokens that are there" if kept is not None else "")
        )
