"""The transformer: layers that stack (chapter 04).

One block serves three models:

- an *encoder* reads a whole sequence at once: every token may look at every other;
- a *decoder* writes one token after another: a token may look only back, and at what an encoder has read;
- a *GPT* is a decoder with nobody to listen to: it continues a text.

Every layer adds to a running stream of vectors, `x + layer(x)`, and LayerNorm keeps the stream in range:
after the sum in the original ("post"), before the layer in most models since ("pre").

Shapes: b sequences, n (target) or l (source) tokens, d channels. A boolean mask is True where attending is
allowed. Ids are whole numbers; which id pads, begins or ends a text is for the caller to say.

Sources: Vaswani et al. 2017 (Transformer); Xiong et al. 2020 (pre-norm); Radford et al. 2018 (GPT-1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sora_edu.attention import CrossAttention, KeyValueCache, SelfAttention, causal_mask
from sora_edu.positions import LearnedPositions, sinusoidal

__all__ = [
    "GPT", "GPT_1", "TRANSFORMER_BASE", "TRANSFORMER_BIG", "Block", "EncoderDecoder", "GPTConfig",
    "TransformerConfig", "gpt_parameters", "layer_norm", "next_token_probabilities", "residual",
    "shift_right", "transformer_parameters",
]  # fmt: skip

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "gelu_tanh": lambda: nn.GELU(approximate="tanh")}
"""What may stand between the two linear layers of a block, by name."""


# --- one block -------------------------------------------------------------------------------------------


def layer_norm(
    x: Float[Tensor, "... d"], weight: Float[Tensor, " d"], bias: Float[Tensor, " d"], eps: float = 1e-5
) -> Float[Tensor, "... d"]:
    """Each token by itself: its channels get mean 0 and variance 1, then a scale and a shift each.

    The step-by-step form of `nn.LayerNorm`. Source: Ba et al. 2016.
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return weight * centred / (variance + eps).sqrt() + bias


def residual(
    x: Float[Tensor, "... d"],
    layer: Callable[[Tensor], Tensor],
    norm: Callable[[Tensor], Tensor],
    pre: bool = True,
) -> Float[Tensor, "... d"]:
    """Adds what a layer has to say to the stream.

    Pre-norm: x + layer(norm(x)); the stream itself is never normalised. Post-norm: norm(x + layer(x)).
    Sources: Xiong et al. 2020; Vaswani et al. 2017, section 3.1.
    """
    if pre:
        return x + layer(norm(x))
    return norm(x + layer(x))


class FeedForward(nn.Sequential):
    """Two linear layers with something bent between, for each token alone. Vaswani et al., section 3.3."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu"):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: one of {', '.join(ACTIVATIONS)} would do")
        super().__init__(nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width))


class Block(nn.Module):
    """One layer of a transformer: look around, (with `cross`) consult the encoder, then think alone.

    Without `cross` and without a mask it is an encoder's layer, with a causal mask a GPT's; with `cross` and
    a causal mask it is the layer of a translating decoder.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        *,
        norm: str = "pre",
        activation: str = "gelu",
        dropout: float | int = 0.0,
        cross: bool = False,
    ):
        """`hidden`: channels inside the feed-forward network, 4 * width by default."""
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm={norm!r}: 'pre' or 'post' would do")
        self.pre = norm == "pre"
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm_cross = nn.LayerNorm(width) if cross else None
        self.cross = CrossAttention(width, heads) if cross else None
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, hidden or 4 * width, activation)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "..."] | None = None,
        context: Float[Tensor, "b l d"] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        cache: KeyValueCache | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`mask` ("#b #h #n m"): who may look at whom; `context`: what the encoder made of the source."""
        if (self.cross is None) != (context is None):
            raise ValueError(
                f"context is {'missing' if context is None else 'given'} and the block was built with "
                f"cross={self.cross is not None}; a context goes with cross=True"
            )
        x = residual(x, lambda y: self.dropout(self.attention(y, mask, cache)), self.norm1, self.pre)
        if self.cross is not None:
            x = residual(
                x, lambda y: self.dropout(self.cross(y, context, context_mask)), self.norm_cross, self.pre
            )
        return residual(x, lambda y: self.dropout(self.mlp(y)), self.norm2, self.pre)


# --- encoder and decoder ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The size of an encoder-decoder."""

    source_vocabulary: int
    """Tokens of the language that is read."""
    target_vocabulary: int
    """Tokens of the language that is written."""
    width: int = 512
    """Channels of a token; even, and a multiple of `heads`."""
    depth: int = 6
    """Blocks in the encoder, and as many in the decoder."""
    heads: int = 8
    """Attention heads side by side in each layer."""
    hidden: int = 2048
    """Channels inside a feed-forward network."""
    norm: str = "post"
    """Where LayerNorm stands; the original has it after the sum."""
    activation: str = "relu"
    """What is between the two linear layers of a feed-forward network."""
    dropout: float = 0.1
    """Share of values that training sets to zero, on each layer's output and on the embeddings."""
    shared: bool = True
    """One table of vectors for source, target and output; needs vocabularies of one size."""

    def __post_init__(self):
        _check_sizes(self, "source_vocabulary", "target_vocabulary")
        if self.width % 2:
            raise ValueError(f"width={self.width}: must be even, for the sinusoids' sake")
        if self.shared and self.source_vocabulary != self.target_vocabulary:
            raise ValueError(
                f"shared=True with source_vocabulary={self.source_vocabulary} and "
                f"target_vocabulary={self.target_vocabulary}: give both one size, or shared=False"
            )


class EncoderDecoder(nn.Module):
    """The original transformer: an encoder reads the source, a decoder writes the target.

    Source: Vaswani et al. 2017, section 3.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = c = config
        self.source = nn.Embedding(c.source_vocabulary, c.width)
        self.target = self.source if c.shared else nn.Embedding(c.target_vocabulary, c.width)
        kind = dict(norm=c.norm, activation=c.activation, dropout=c.dropout)
        self.encoder = nn.ModuleList(Block(c.width, c.heads, c.hidden, **kind) for _ in range(c.depth))
        self.decoder = nn.ModuleList(
            Block(c.width, c.heads, c.hidden, cross=True, **kind) for _ in range(c.depth)
        )
        # A stream that no LayerNorm has touched needs one at its end.
        self.encoder_norm = nn.LayerNorm(c.width) if c.norm == "pre" else nn.Identity()
        self.decoder_norm = nn.LayerNorm(c.width) if c.norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(c.dropout)
        self.head = nn.Linear(c.width, c.target_vocabulary, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Xavier for the layers; vectors of length about 1 that `_embed` multiplies by sqrt(width)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in [self.source] if self.config.shared else [self.source, self.target]:
            nn.init.normal_(table.weight, std=self.config.width**-0.5)
        if self.config.shared:
            self.head.weight = self.target.weight

    def _embed(self, table: nn.Embedding, ids: Int[Tensor, "b n"], past: int = 0) -> Float[Tensor, "b n d"]:
        """Vectors of tokens plus sinusoids of their places, which begin at `past`. Section 3.4."""
        positions = sinusoidal(past + ids.shape[1], self.config.width)[past:]
        words = table(ids) * math.sqrt(self.config.width)
        return self.dropout(words + positions.to(words))

    def encode(self, source: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """What the encoder makes of the source; `mask` is True at real tokens, False at padding."""
        _check_ids("source", source, self.config.source_vocabulary)
        x = self._embed(self.source, source)
        for block in self.encoder:
            x = block(x, mask[:, None, None])
        return self.encoder_norm(x)

    def decode(
        self,
        target: Int[Tensor, "b n"],
        memory: Float[Tensor, "b l d"],
        mask: Bool[Tensor, "b l"],
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Float[Tensor, "b n vocabulary"]:
        """Scores (logits) of the token that follows each token of the target.

        `memory` and `mask` are what the encoder made and which of it is real. With `caches`, one for each
        block, `target` holds new tokens only.
        """
        _check_ids("target", target, self.config.target_vocabulary)
        past = caches[0].length if caches else 0
        x = self._embed(self.target, target, past)
        look_back = causal_mask(target.shape[1], past).to(x.device)
        for block, cache in zip(self.decoder, caches or [None] * len(self.decoder), strict=True):
            x = block(x, look_back, memory, mask[:, None, None], cache)
        return self.head(self.decoder_norm(x))

    def forward(
        self, source: Int[Tensor, "b l"], target: Int[Tensor, "b n"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b n vocabulary"]:
        """Scores of the token that follows each token of the target, all places at once."""
        return self.decode(target, self.encode(source, mask), mask)

    @torch.no_grad()
    def translate(
        self, source: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], begin: int, end: int, most: int = 64
    ) -> Int[Tensor, "b n"]:
        """Writes the likeliest token at each place (greedy decoding), until every sentence has ended.

        Returns the tokens after `begin`, at most `most` of them; after its `end` a sentence repeats it.
        """
        memory = self.encode(source, mask)
        caches = [KeyValueCache() for _ in self.decoder]
        token = torch.full_like(source[:, :1], begin)
        done, written = torch.zeros_like(token, dtype=torch.bool), []
        while len(written) < most and not done.all():
            token = self.decode(token, memory, mask, caches)[:, -1:].argmax(-1).masked_fill(done, end)
            done |= token == end
            written.append(token)
        return torch.cat(written, dim=1)

    @torch.no_grad()
    def cross_weights(
        self, source: Int[Tensor, "b l"], target: Int[Tensor, "b n"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "depth b h n l"]:
        """How strongly each token of the target attends to each token of the source, in every layer."""
        found = []

        def note(module, arguments):
            found.append(module.weights(*arguments))

        hooks = [block.cross.register_forward_pre_hook(note) for block in self.decoder]
        try:
            self(source, target, mask)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(found)


def shift_right(rows: Int[Tensor, "b n"], begin: int) -> Int[Tensor, "b n"]:
    """What a decoder is given while it learns to write `rows`: each row a place later, behind `begin`.

    At every place the decoder has seen all tokens before the one that it must write, and not that one.
    """
    return torch.cat([torch.full_like(rows[:, :1], begin), rows[:, :-1]], dim=1)


# --- GPT -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """The size of a GPT."""

    vocabulary: int
    """Number of different tokens."""
    context: int
    """Most tokens in a text: the length of its table of positions."""
    width: int = 768
    """Channels of a token; a multiple of `heads`."""
    depth: int = 12
    """Blocks, one after another."""
    heads: int = 12
    """Attention heads side by side in each block."""
    norm: str = "pre"
    """Where LayerNorm stands: "post" in GPT-1, "pre" from GPT-2 on."""
    activation: str = "gelu_tanh"
    """What is between the two linear layers of a feed-forward network."""
    dropout: float = 0.0
    """Share of values that training sets to zero."""

    def __post_init__(self):
        _check_sizes(self, "vocabulary", "context")

    @property
    def hidden(self) -> int:
        """Channels inside a feed-forward network."""
        return 4 * self.width


class GPT(nn.Module):
    """A decoder alone: guesses the next token from those before it. Radford et al. 2018.

    Its output layer is its table of token vectors again.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = c = config
        self.tokens = nn.Embedding(c.vocabulary, c.width)
        self.positions = LearnedPositions((c.context,), c.width)
        kind = dict(norm=c.norm, activation=c.activation, dropout=c.dropout)
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.hidden, **kind) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width) if c.norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(c.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self, ids: Int[Tensor, "b n"], caches: Sequence[KeyValueCache] | None = None
    ) -> Float[Tensor, "b n vocabulary"]:
        """Scores of the token after each token. With `caches`, ids holds new tokens only."""
        _check_ids("ids", ids, self.config.vocabulary)
        past, n = caches[0].length if caches else 0, ids.shape[1]
        if past + n > self.config.context:
            room = self.config.context
            raise ValueError(f"ids: {past + n} tokens, {past} of them cached; {room} fit")
        x = self.dropout(self.tokens(ids) + self.positions(past + n)[past:])
        mask = causal_mask(n, past).to(x.device)
        for block, kept in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x = block(x, mask, cache=kept)
        return self.norm(x) @ self.tokens.weight.T

    @torch.no_grad()
    def generate(
        self,
        ids: Int[Tensor, "b n"],
        count: int,
        *,
        temperature: float | int = 1.0,
        top_k: int | None = None,
        cached: bool = True,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "b m"]:
        """Continues each text by `count` tokens, drawn one after another.

        Args:
            ids: the beginnings, at least one token each.
            count: how many tokens to add.
            temperature, top_k: see `next_token_probabilities`.
            cached: keep the keys and values of earlier tokens. False works them all out at every step:
                the same tokens, more slowly.
            generator: source of chance; None takes the global one.

        Returns:
            Beginnings and continuations in one.
        """
        if ids.shape[1] + count > self.config.context:
            raise ValueError(
                f"count={count} after {ids.shape[1]} tokens: at most {self.config.context} fit in all"
            )
        caches = [KeyValueCache() for _ in self.blocks] if cached else None
        new = ids
        for _ in range(count):
            logits = self(new if cached else ids, caches)[:, -1]
            probabilities = next_token_probabilities(logits, temperature, top_k)
            new = torch.multinomial(probabilities, 1, generator=generator)
            ids = torch.cat([ids, new], dim=1)
        return ids


def next_token_probabilities(
    logits: Float[Tensor, "b v"], temperature: float | int = 1.0, top_k: int | None = None
) -> Float[Tensor, "b v"]:
    """Probabilities from scores: the `top_k` likeliest tokens keep theirs, and those as likely as the last
    of them; all others get 0.

    A temperature below 1 sharpens, above 1 flattens; it divides the scores. Raises ValueError for a
    temperature that is not positive and for a top_k that is not between 1 and the number of tokens.
    """
    count = logits.shape[-1]
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be positive; for the likeliest token take top_k=1")
    if top_k is not None and not 1 <= top_k <= count:
        raise ValueError(f"top_k={top_k}: must be between 1 and {count}, or None for all tokens")
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return (logits / temperature).softmax(-1)


# --- sizes -----------------------------------------------------------------------------------------------


def gpt_parameters(depth: int, width: int, vocabulary: int, context: int) -> int:
    """Parameters of a post-norm GPT with a feed-forward network of 4 * width, in closed form.

    The number of heads does not appear: h heads share the width, d/h channels each. The output layer is the
    token table again and is not counted twice.
    """
    attention = 4 * width * width + 4 * width  # queries, keys, values, output: weights and biases
    mlp = 8 * width * width + 5 * width  # width -> 4 width -> width
    norms = 4 * width  # two of them, a scale and a shift each
    return depth * (attention + mlp + norms) + (vocabulary + context) * width


def transformer_parameters(config: TransformerConfig) -> int:
    """Parameters of an encoder-decoder in closed form; sinusoids have none."""
    c = config
    attention, norm = 4 * c.width * (c.width + 1), 2 * c.width
    mlp = 2 * c.width * c.hidden + c.hidden + c.width
    encoder, decoder = attention + mlp + 2 * norm, 2 * attention + mlp + 3 * norm
    last_norms = 2 * norm if c.norm == "pre" else 0
    tokens = c.source_vocabulary if c.shared else c.source_vocabulary + 2 * c.target_vocabulary
    return c.depth * (encoder + decoder) + last_norms + tokens * c.width


def _check_sizes(config, *names: str) -> None:
    for name in (*names, "width", "depth", "heads", "hidden"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}: must be at least 1")
    if config.width % config.heads:
        raise ValueError(f"width={config.width} is not a multiple of heads={config.heads}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout={config.dropout}: must be at least 0 and below 1")
    if config.norm not in ("pre", "post"):
        raise ValueError(f"norm={config.norm!r}: 'pre' or 'post' would do")
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"activation={config.activation!r}: one of {', '.join(ACTIVATIONS)} would do")


def _check_ids(name: str, ids: Tensor, vocabulary: int) -> None:
    if ids.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; at least one token is needed")
    if not ids.is_meta and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        found = f"ids from {int(ids.min())} to {int(ids.max())}"
        raise ValueError(f"{name} holds {found}; the vocabulary has 0 to {vocabulary - 1}")


TRANSFORMER_BASE = TransformerConfig(source_vocabulary=37000, target_vocabulary=37000)
"""The base model of Vaswani et al. 2017, table 3, with about 37000 shared tokens (section 5.1)."""

TRANSFORMER_BIG = replace(TRANSFORMER_BASE, width=1024, heads=16, hidden=4096, dropout=0.3)
"""The big model of the same table."""

GPT_1 = GPTConfig(vocabulary=40478, context=512, norm="post", dropout=0.1)
"""The first GPT, as released."""
