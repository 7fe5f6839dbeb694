"""CLIP in miniature: clips and prompts as vectors in one space, where what belongs together lies together.

Two encoders that share nothing but the space. One reads words (`sora_edu.text`), the other the latents of a
clip, cut into spacetime patches. Each ends in one vector, and `contrastive_loss` draws the vectors of a clip
and of its caption together, those of other pairs in the batch apart. The cosine of two vectors is then a
score of how well a prompt fits a clip: for ranking clips of a prompt, for finding a clip by a sentence.

Shapes: latents b c t h w of the frozen video autoencoder; vectors b e of unit length; features b d.

Source: Radford et al. 2021 (CLIP), for pictures; here the pictures are clips.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sora_edu.assets import data_path
from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.data.captions import VOCABULARY
from sora_edu.patches import check_divides, patchify_video
from sora_edu.positions import sinusoidal_3d
from sora_edu.text import INITIAL_LOG_TEMPERATURE, TextConfig, TextEncoder
from sora_edu.transformer import Block
from sora_edu.weights import load_weights


@dataclass(frozen=True)
class TinyClipConfig:
    """The sizes of both encoders."""

    text: TextConfig = field(default_factory=lambda: TextConfig(VOCABULARY, width=96, depth=2, heads=4))
    """The encoder of prompts."""
    channels: int = 16
    """Channels of the latents."""
    patch: tuple[int, int, int] = (1, 2, 2)
    """Latent cells of a token along time, height and width."""
    width: int = 96
    """Channels of a clip's token; a multiple of `heads`, and even."""
    depth: int = 2
    """Transformer blocks of the encoder of clips."""
    heads: int = 4
    """Attention heads in each of them."""
    shared: int = 64
    """Dimensions of the space in which clips and prompts meet."""


class TinyClip(nn.Module):
    """An encoder of clips, an encoder of prompts, and the temperature of their contrastive loss."""

    def __init__(self, config: TinyClipConfig = TinyClipConfig()):
        super().__init__()
        self.config = c = config
        self.text = TextEncoder(c.text)
        self.patch_embed = nn.Linear(c.channels * c.patch[0] * c.patch[1] * c.patch[2], c.width)
        self.blocks = nn.ModuleList(Block(c.width, c.heads) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width)
        self.clip_head = nn.Linear(c.width, c.shared, bias=False)
        self.text_head = nn.Linear(c.text.width, c.shared, bias=False)
        self.log_temperature = nn.Parameter(torch.tensor(INITIAL_LOG_TEMPERATURE))
        # Which autoencoder's latents it has learned to read; zeros until then.
        self.register_buffer("reads", torch.zeros(32, dtype=torch.uint8))

    def features(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """What it sees in a clip as a whole: the mean of its tokens, before the way into the shared space.

        Raises ValueError for latents that the patches do not divide.
        """
        grid = check_divides(tuple(latents.shape[2:]), self.config.patch)
        tokens = self.patch_embed(patchify_video(latents, self.config.patch))
        tokens = tokens + sinusoidal_3d(*grid, self.config.width).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).mean(1)

    def clips(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b e"]:
        """Vectors of clips, of unit length."""
        return F.normalize(self.clip_head(self.features(latents)).float(), dim=-1)

    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "b e"]:
        """Vectors of prompts, of unit length. Raises `PromptError` for words that it does not know."""
        ids, mask = self.text.tokenizer.encode(prompts, length=None)
        device = self.text.positions.device
        pooled = self.text.pool(self.text(ids.to(device), mask.to(device)))
        return F.normalize(self.text_head(pooled).float(), dim=-1)

    def fits(self, autoencoder: nn.Module) -> bool:
        """Whether it was trained on the latents of this autoencoder: those of another mean nothing to it."""
        known = isinstance(autoencoder, CausalVideoAutoencoder)
        return known and torch.equal(self.reads.cpu(), fingerprint(autoencoder))


def fingerprint(autoencoder: CausalVideoAutoencoder) -> UInt8[Tensor, "32"]:
    """SHA-256 of all that latents follow from: the encoder's weights and the statistics, as files keep them.

    The decoder may change; what has learned to read the latents does not notice.
    """
    digest = hashlib.sha256()
    for tensor in (*autoencoder.encoder.state_dict().values(), autoencoder.mean, autoencoder.std):
        digest.update(tensor.detach().cpu().half().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def recall(similarity: Float[Tensor, "n m"], best: int = 1) -> float:
    """The share of rows whose own column is among the `best` largest; row i belongs to column i.

    Rows are what is asked with and columns what is searched, so that a transposed table is another question.
    Of two equal columns the first one counts as larger. By chance it is best / m. Raises ValueError for fewer
    columns than rows, and for `best` outside 1 to m.
    """
    rows, columns = similarity.shape
    if columns < rows:
        raise ValueError(f"similarity is {rows} by {columns}; each row needs a column of its own")
    if not 1 <= best <= columns:
        raise ValueError(f"best={best}: must be 1 to {columns}")
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :best]
    own = torch.arange(rows, device=similarity.device)[:, None]
    return (order == own).any(1).float().mean().item()


@lru_cache(maxsize=1)
def tiny_clip() -> TinyClip:
    """The encoders that ship, for evaluation.

    Raises FileNotFoundError if they are not there, `CheckpointError` if they are damaged.
    """
    with torch.random.fork_rng(devices=[]):
        clip = TinyClip()
    load_weights(clip, data_path("checkpoints", "clip", "clip.safetensors"))
    return clip.eval().requires_grad_(False)
