"""The tokenizer, the text encoder and CLIP's loss, against torch's own encoder and closed forms."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.special import logsumexp
from torch import nn

from sora_edu.data.captions import VOCABULARY, PromptError
from sora_edu.text import (
    BEGIN,
    END,
    INITIAL_LOG_TEMPERATURE,
    PAD,
    TextConfig,
    TextEncoder,
    Tokenizer,
    contrastive_loss,
    pad,
)

PROMPTS = [
    "a red star bounces",
    "",
    "a small blue 7 falls in front of a large green ring on a dark background",
]
SMALL = TextConfig(VOCABULARY, width=32, depth=2, heads=4, length=24)


@pytest.fixture
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(SMALL).double()


def test_ids_follow_the_vocabulary():
    tokenizer = Tokenizer(("red", "star"))
    ids, mask = tokenizer.encode(["Red star!", "star", ""], length=5)
    assert ids.tolist() == [[BEGIN, 3, 4, END, PAD], [BEGIN, 4, END, PAD, PAD], [BEGIN, END, PAD, PAD, PAD]]
    assert mask.tolist() == [[True] * 4 + [False], [True] * 3 + [False] * 2, [True] * 2 + [False] * 3]
    assert len(tokenizer) == 5 and ids.dtype == torch.long and mask.dtype == torch.bool


def test_the_longest_prompt_can_decide():
    ids, mask = Tokenizer(VOCABULARY).encode(PROMPTS, length=None)
    assert ids.shape == (3, 18) and mask.sum(1).tolist() == [6, 2, 18]


def test_decoding_gives_the_words_back():
    tokenizer = Tokenizer(VOCABULARY)
    assert tokenizer.decode(tokenizer.encode(PROMPTS)[0]) == PROMPTS


def test_an_empty_batch_is_no_error():
    ids, mask = Tokenizer(VOCABULARY).encode([], length=7)
    assert ids.shape == mask.shape == (0, 7)


def test_what_cannot_be_encoded_is_explained():
    tokenizer = Tokenizer(VOCABULARY)
    with pytest.raises(PromptError, match="'cat'"):
        tokenizer.encode(["a red star", "a cat"])
    with pytest.raises(PromptError, match="has 60 words; at most 38 fit"):
        tokenizer.encode(["a star " * 30])
    with pytest.raises(PromptError, match="without the words blue") as caught:
        Tokenizer(("red", "star")).encode(["blue star"])
    assert caught.value.unknown == ("blue",)
    with pytest.raises(ValueError, match="takes a list"):
        tokenizer.encode("a red star")


def test_configurations_that_cannot_be_built_are_refused():
    with pytest.raises(ValueError, match="width=30"):
        TextConfig(VOCABULARY, width=30, heads=4)
    with pytest.raises(ValueError, match="multiple of heads=0"):
        TextConfig(VOCABULARY, heads=0)
    with pytest.raises(ValueError, match="twice"):
        TextConfig(("red", "red"))


def test_padding_is_torchs_own():
    rows = [[1, 9, 4, 2], [1, 2], [1, 5, 2]]
    ids, mask = pad(rows, 6)
    own = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    assert torch.equal(ids[:, :4], own) and not ids[:, 4:].any()
    assert mask.sum(1).tolist() == [4, 2, 3] and torch.equal(mask, ids != 0)
    assert [tuple(part.shape) for part in pad([], 3)] == [(0, 3), (0, 3)]
    with pytest.raises(ValueError, match="one of 4 tokens; at most length=3"):
        pad(rows, 3)


def torch_encoder(ours: TextEncoder) -> nn.TransformerEncoder:
    """PyTorch's own encoder with our weights."""
    config = ours.config
    layer = nn.TransformerEncoderLayer(
        config.width,
        config.heads,
        4 * config.width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    theirs = nn.TransformerEncoder(
        layer, config.depth, nn.LayerNorm(config.width), enable_nested_tensor=False
    )
    theirs.norm.load_state_dict(ours.norm.state_dict())
    for block, layer in zip(ours.blocks, theirs.layers, strict=True):
        pairs = {
            layer.norm1: block.norm1, layer.norm2: block.norm2, layer.self_attn.out_proj: block.attention.out,
            layer.linear1: block.mlp[0], layer.linear2: block.mlp[2],
        }  # fmt: skip
        for target, source in pairs.items():
            target.load_state_dict(source.state_dict())
        layer.self_attn.in_proj_weight.data = block.attention.qkv.weight.data
        layer.self_attn.in_proj_bias.data = block.attention.qkv.bias.data
    return theirs.double()


def test_the_encoder_is_torchs_encoder(encoder):
    ids, mask = encoder.tokenizer.encode(PROMPTS, SMALL.length)
    x = encoder.embedding(ids) + encoder.positions
    expected = torch_encoder(encoder)(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(encoder(ids, mask)[mask], expected[mask], rtol=0, atol=1e-10)


def test_positions_are_the_sinusoids_of_the_paper(encoder):
    place, channel = 5, 6
    angle = place / 10000 ** (channel / SMALL.width)
    expected = torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)
    torch.testing.assert_close(encoder.positions[place, channel : channel + 2], expected, rtol=0, atol=1e-6)
    assert not any("positions" in key for key in encoder.state_dict())


def test_padding_changes_nothing(encoder):
    short, short_mask = encoder.tokenizer.encode(PROMPTS, None)
    long, long_mask = encoder.tokenizer.encode(PROMPTS, SMALL.length)
    expected = encoder(short, short_mask)[short_mask]
    torch.testing.assert_close(encoder(long, long_mask)[long_mask], expected)
    with torch.no_grad():
        encoder.embedding.weight[PAD] += 100
    torch.testing.assert_close(encoder(long, long_mask)[long_mask], expected)


def test_prompts_of_a_batch_do_not_meet(encoder):
    tokens, mask = encoder.encode(PROMPTS)
    turned, turned_mask = encoder.encode(PROMPTS[::-1])
    torch.testing.assert_close(turned, tokens.flip(0))
    assert torch.equal(turned_mask, mask.flip(0))
    torch.testing.assert_close(encoder.encode(PROMPTS[:1])[0], tokens[:1])


def test_the_order_of_words_counts(encoder):
    one, _ = encoder.encode(["a red star and a blue ring"])
    other, _ = encoder.encode(["a blue star and a red ring"])
    assert (encoder.pool(one) - encoder.pool(other)).abs().max() > 1e-3


def test_the_whole_prompt_reaches_its_begin_token(encoder):
    ids, mask = encoder.tokenizer.encode(PROMPTS[2:], SMALL.length)
    x = encoder.embedding(ids).detach().requires_grad_()
    hidden = x + encoder.positions
    for block in encoder.blocks:
        hidden = block(hidden, mask)
    encoder.pool(encoder.norm(hidden))[0, 0].backward()
    reached = x.grad[0].abs().sum(-1) > 0
    assert torch.equal(reached, mask[0])


def test_too_many_tokens_are_refused(encoder):
    ids = torch.full((1, SMALL.length + 1), BEGIN)
    with pytest.raises(ValueError, match="at most 24 fit"):
        encoder(ids, ids == BEGIN)


def test_the_same_seed_gives_the_same_encoder():
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(TextEncoder(SMALL).encode(PROMPTS)[0])
    assert torch.equal(*outputs)


@pytest.mark.parametrize("log_temperature", [0.0, 1.3, INITIAL_LOG_TEMPERATURE])
def test_contrastive_loss_of_orthogonal_pairs(log_temperature):
    n, scale = 5, math.exp(log_temperature)
    unit = torch.eye(n, dtype=torch.float64)
    expected = math.log(math.exp(scale) + n - 1) - scale
    assert contrastive_loss(unit, 3 * unit, log_temperature).item() == pytest.approx(expected, abs=1e-12)


def test_contrastive_loss_sums_rows_and_columns(generator):
    a, b = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
    x, y = a.numpy(), b.numpy()
    cosine = x @ y.T / ((x**2).sum(1) ** 0.5)[:, None] / ((y**2).sum(1) ** 0.5)
    scores = cosine / 0.07
    expected = (logsumexp(scores, axis=0) + logsumexp(scores, axis=1)).mean() / 2 - scores.diagonal().mean()
    for ours in (
        contrastive_loss(a, b, INITIAL_LOG_TEMPERATURE),
        contrastive_loss(b, a, INITIAL_LOG_TEMPERATURE),
    ):
        assert ours.item() == pytest.approx(expected, abs=1e-10)


def test_contrastive_loss_teaches_its_temperature(generator):
    a, b = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    a.requires_grad_()
    log_temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, t: contrastive_loss(a, b, t), (a, log_temperature))


def test_contrastive_loss_needs_pairs():
    # The shapes in the signature already say so; in a test they are checked first.
    with pytest.raises((ValueError, TypeCheckError), match=r"in pairs|parameter 'b'"):
        contrastive_loss(torch.randn(3, 4), torch.randn(2, 4), 0.0)
