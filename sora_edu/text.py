"""From a prompt to vectors: a word tokenizer, a small transformer encoder, and CLIP's contrastive loss.

The encoder reads a whole prompt at once and gives one vector for each word, which the video model can attend
to, and one for the whole sentence: the state of the begin token, which has seen all the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sora_edu.data.captions import PromptError, nearest, words
from sora_edu.positions import sinusoidal
from sora_edu.transformer import Block

PAD, BEGIN, END = 0, 1, 2
SPECIAL = ("<pad>", "<begin>", "<end>")


@dataclass(frozen=True)
class TextConfig:
    """The size of a text encoder, and the words it knows."""

    vocabulary: tuple[str, ...]
    """Known words, in the order of their ids; `sora_edu.data.captions.VOCABULARY` for the toy world."""
    width: int = 256
    """Channels of a token; a multiple of `heads`, and even."""
    depth: int = 3
    """Number of transformer blocks."""
    heads: int = 4
    """Attention heads in each block."""
    length: int = 40
    """Most tokens in a prompt, begin and end included."""

    def __post_init__(self):
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        if self.heads < 1 or self.width % self.heads or self.width % 2:
            raise ValueError(f"width={self.width} must be even and a multiple of heads={self.heads}")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary lists a word twice; every word needs one id")


def pad(rows: Sequence[Sequence[int]], length: int) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
    """Rows of ids as one table, filled up with `PAD` at their ends, and a mask that is True at real tokens.

    Raises ValueError for a row that is longer than `length`.
    """
    counts = [len(row) for row in rows]
    if max(counts, default=0) > length:
        raise ValueError(f"rows has one of {max(counts)} tokens; at most length={length} fit")
    ids = torch.full((len(rows), length), PAD)
    mask = torch.arange(length) < torch.tensor(counts, dtype=torch.long)[:, None]
    ids[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return ids, mask


class Tokenizer:
    """Words to ids: 0 pads, 1 begins, 2 ends, and the words of the vocabulary follow in order."""

    def __init__(self, vocabulary: Sequence[str]):
        self.tokens = (*SPECIAL, *vocabulary)
        self.ids = {token: index for index, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(
        self, prompts: Sequence[str], length: int | None = 40
    ) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Ids of a batch of prompts, padded to `length`, and a mask that is True at real tokens.

        With length None the longest prompt of the batch decides. An empty prompt becomes begin and end alone:
        the null condition of guidance. Raises `PromptError` for unknown words and for too long prompts.
        """
        if isinstance(prompts, str):
            raise ValueError(f"prompts={prompts!r} is one text; encode takes a list, such as [{prompts!r}]")
        rows = [self._encode_one(prompt) for prompt in prompts]
        longest = max(map(len, rows), default=2)
        length = longest if length is None else length
        if longest > length:
            prompt = next(prompt for prompt, row in zip(prompts, rows, strict=True) if len(row) > length)
            count = len(words(prompt))
            raise PromptError(
                f"The prompt {prompt!r} has {count} words; at most {length - 2} fit.", nearest(prompt)
            )
        return pad(rows, length)

    def _encode_one(self, prompt: str) -> list[int]:
        known = words(prompt)
        unknown = tuple(word for word in known if word not in self.ids)
        if unknown:
            message = f"This text encoder was trained without the words {', '.join(unknown)}."
            raise PromptError(message, nearest(""), unknown)
        return [BEGIN, *(self.ids[word] for word in known), END]

    def decode(self, ids: Int[Tensor, "b l"]) -> list[str]:
        """The words behind ids, without padding, begin and end."""
        return [" ".join(self.tokens[i] for i in row if i >= len(SPECIAL)) for row in ids.tolist()]


class TextEncoder(nn.Module):
    """A transformer encoder over words: bidirectional, pre-norm, with sinusoidal positions.

    Source: Vaswani et al. 2017 (the encoder); Xiong et al. 2020 (norm before each sub-layer).
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(config.vocabulary)
        self.embedding = nn.Embedding(len(self.tokenizer), config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        # Worked out again at every start, so no part of the checkpoint.
        self.register_buffer("positions", sinusoidal(config.length, config.width), persistent=False)

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """A vector for each token. What stands at padding (mask False) has no meaning and is not seen."""
        if ids.shape[1] > self.config.length:
            raise ValueError(f"ids has {ids.shape[1]} tokens in a row; at most {self.config.length} fit")
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask[:, None, None])
        return self.norm(x)

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """Token vectors and mask of prompts, on the encoder's device; "" is the null condition."""
        ids, mask = (x.to(self.positions.device) for x in self.tokenizer.encode(prompts, self.config.length))
        return self(ids, mask), mask

    @staticmethod
    def pool(tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b d"]:
        """One vector for a whole prompt: the state of its begin token, which has seen all the others."""
        return tokens[:, 0]


INITIAL_LOG_TEMPERATURE = math.log(1 / 0.07)
"""Where CLIP's learned temperature starts."""
LARGEST_LOG_TEMPERATURE = math.log(100)
"""Beyond it CLIP does not let the temperature go."""


def contrastive_loss(
    a: Float[Tensor, "b d"], b: Float[Tensor, "b d"], log_temperature: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """CLIP's loss: row i of `a` belongs to row i of `b` and to no other.

    Both are scaled to unit length and S = exp(log_temperature) a b^T. The result is the mean of the
    cross-entropies of the rows and of the columns of S to its diagonal, in nats. Raises `ValueError` for
    unequal shapes.
    Source: Radford et al. 2021, figure 3.
    """
    if a.shape != b.shape:
        raise ValueError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}; they must come in pairs")
    scale = torch.as_tensor(log_temperature, dtype=a.dtype, device=a.device).exp()
    similarity = scale * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    pairs = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(similarity, pairs) + F.cross_entropy(similarity.T, pairs)) / 2
