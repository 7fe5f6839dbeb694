"""The transformer: its parts, its causality, its caches, its sizes, and what it refuses."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sora_edu.attention import KeyValueCache, causal_mask
from sora_edu.transformer import (
    GPT,
    GPT_1,
    TRANSFORMER_BASE,
    TRANSFORMER_BIG,
    Block,
    EncoderDecoder,
    FeedForward,
    GPTConfig,
    TransformerConfig,
    gpt_parameters,
    layer_norm,
    next_token_probabilities,
    residual,
    shift_right,
    transformer_parameters,
)

WIDTH, HEADS, HIDDEN = 12, 3, 20


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(norm: str = "pre", shared: bool = False) -> EncoderDecoder:
    torch.manual_seed(0)
    config = TransformerConfig(
        source_vocabulary=11, target_vocabulary=11 if shared else 9, width=WIDTH, depth=2, heads=HEADS,
        hidden=HIDDEN, norm=norm, shared=shared,
    )  # fmt: skip
    return EncoderDecoder(config).double().eval()


def small_gpt(norm: str = "pre") -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(vocabulary=13, context=10, width=WIDTH, depth=3, heads=HEADS, norm=norm)
    model = GPT(config).double().eval()
    for weight in model.parameters():  # the small start would hide what is added to the stream
        nn.init.normal_(weight, std=0.4)
    return model


# --- one block -------------------------------------------------------------------------------------------


def test_layer_norm_is_torchs(generator):
    x = 3 * torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64) + 7
    weight, bias = torch.randn(2, WIDTH, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(layer_norm(x, weight, bias), F.layer_norm(x, (WIDTH,), weight, bias))
    torch.testing.assert_close(
        layer_norm(x, weight, bias, eps=0.5), F.layer_norm(x, (WIDTH,), weight, bias, eps=0.5)
    )


def test_pre_norm_leaves_the_stream_alone_and_post_norm_does_not():
    x = torch.tensor([1.0, 3.0])
    assert residual(x, lambda y: 10 * y, lambda y: y - 1, pre=True).tolist() == [1.0, 23.0]
    assert residual(x, lambda y: 10 * y, lambda y: y - 1, pre=False).tolist() == [10.0, 32.0]


def test_the_feed_forward_network_works_on_each_token_alone(generator):
    mlp = FeedForward(WIDTH, HIDDEN, "relu").double()
    x = torch.randn(1, 4, WIDTH, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(mlp(x)[0, 2], mlp(x[0, 2]))
    inside = (x @ mlp[0].weight.T + mlp[0].bias).clamp(min=0)
    torch.testing.assert_close(mlp(x), inside @ mlp[2].weight.T + mlp[2].bias)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_acts_on_what_each_layer_adds_and_in_training_only(norm, generator):
    block = Block(WIDTH, HEADS, HIDDEN, norm=norm, dropout=0.999999, cross=True).double()
    x, context = torch.randn(2, 1, 4, WIDTH, generator=generator, dtype=torch.float64)
    quiet = x if norm == "pre" else block.norm2(block.norm_cross(block.norm1(x)))
    torch.testing.assert_close(block(x, context=context), quiet)
    assert not torch.allclose(block.eval()(x, context=context), quiet)


def test_a_block_needs_a_context_exactly_when_it_was_built_for_one(generator):
    x = torch.randn(1, 4, WIDTH, generator=generator)
    with pytest.raises(ValueError, match="context is missing"):
        Block(WIDTH, HEADS, cross=True)(x)
    with pytest.raises(ValueError, match="context is given"):
        Block(WIDTH, HEADS)(x, context=x)


# --- causality -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt_does_not_see_the_future(norm, generator):
    """Changing token k changes no score before k, bit for bit, and every one from k on."""
    model, ids = small_gpt(norm), torch.randint(13, (1, 8), generator=generator)
    with torch.no_grad():
        before = model(ids)
        for k in range(8):
            changed = ids.clone()
            changed[0, k] = (ids[0, k] + 5) % 13
            after = model(changed)
            assert torch.equal(after[:, :k], before[:, :k])
            assert (after[:, k:] != before[:, k:]).any(-1).all()


def test_no_gradient_flows_from_the_past_to_the_future():
    model = small_gpt()
    x = torch.randn(1, 6, WIDTH, dtype=torch.float64, requires_grad=True)
    y = x
    for block in model.blocks:
        y = block(y, causal_mask(6))
    y[0, 3].sum().backward()
    assert x.grad[0, :4].abs().min() > 0 and not x.grad[0, 4:].any()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_looks_back_and_at_all_of_the_source_but_its_padding(norm, generator):
    model = small(norm)
    source, target = torch.randint(9, (2, 1, 6), generator=generator)
    mask = torch.tensor([[True] * 5 + [False]])
    with torch.no_grad():
        before = model(source, target, mask)
        later = target.clone()
        later[0, 4] = (target[0, 4] + 1) % 9
        assert torch.equal(model(source, later, mask)[:, :4], before[:, :4])
        assert (model(source, later, mask)[:, 4:] != before[:, 4:]).any(-1).all()
        for place in range(6):
            other = source.clone()
            other[0, place] = (source[0, place] + 1) % 9
            differs = (model(other, target, mask) != before).any(-1)
            assert differs.all() if place < 5 else not differs.any()


def test_padding_changes_nothing(generator):
    model = small()
    source, target = torch.randint(3, 9, (2, 1, 5), generator=generator)
    padded = F.pad(source, (0, 3))
    alone = model(source, target, torch.ones(1, 5, dtype=torch.bool))
    torch.testing.assert_close(model(padded, target, padded != 0), alone)


# --- caches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("pieces", [(8,), (1,) * 8, (3, 1, 4)])
def test_a_gpt_with_caches_gives_the_same_scores(norm, pieces, generator):
    model, ids = small_gpt(norm), torch.randint(13, (2, 8), generator=generator)
    caches = [KeyValueCache() for _ in model.blocks]
    with torch.no_grad():
        parts = [model(piece, caches) for piece in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_with_caches_gives_the_same_scores(norm, generator):
    model = small(norm)
    source, target = torch.randint(9, (2, 2, 6), generator=generator)
    mask = torch.ones(2, 6, dtype=torch.bool)
    caches = [KeyValueCache() for _ in model.decoder]
    with torch.no_grad():
        memory = model.encode(source, mask)
        parts = [model.decode(target[:, k : k + 1], memory, mask, caches) for k in range(6)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(source, target, mask))


def test_generating_with_and_without_caches_draws_the_same_tokens():
    model, start = small_gpt(), torch.tensor([[1, 2], [3, 4]])
    texts = [
        model.generate(start, 8, cached=cached, generator=torch.Generator().manual_seed(5))
        for cached in (True, False)
    ]
    assert torch.equal(*texts) and texts[0].shape == (2, 10) and torch.equal(texts[0][:, :2], start)


def test_translating_is_taking_the_likeliest_token_again_and_again(generator):
    """Against a loop that has no caches and works everything out anew."""
    model, begin, end = small(), 1, 2
    source = torch.randint(3, 11, (12, 6), generator=generator)
    mask = torch.rand(12, 6, generator=generator) < 0.8
    mask[:, 0] = True
    written = model.translate(source, mask, begin, end, most=7)
    for row in range(12):
        target, expected = torch.tensor([[begin]]), []
        for _ in range(7):
            with torch.no_grad():
                best = model(source[row : row + 1], target, mask[row : row + 1])[0, -1].argmax()
            expected.append(int(best))
            target = torch.cat([target, best.view(1, 1)], dim=1)
            if best == end:
                break
        expected += [end] * (written.shape[1] - len(expected))
        assert written[row].tolist() == expected


def test_translating_stops_when_all_have_ended():
    model = small()
    with torch.no_grad():
        model.head.weight.zero_()  # all scores are equal, so the first token wins
    mask = torch.ones(2, 3, dtype=torch.bool)
    source = torch.tensor([[3, 4, 5], [6, 7, 8]])
    assert model.translate(source, mask, begin=1, end=0, most=7).tolist() == [[0], [0]]
    assert model.translate(source, mask, begin=1, end=2, most=7).tolist() == [[0] * 7] * 2


# --- the map of the cross-attention ----------------------------------------------------------------------


def test_the_map_holds_the_weights_that_make_the_output(generator):
    """Weights times values, put together by hand, are what the cross-attention of each layer returned."""
    model = small()
    source, target = torch.randint(9, (2, 2, 5), generator=generator)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    seen = []
    for block in model.decoder:
        block.cross.register_forward_hook(lambda module, args, result: seen.append((module, args[1], result)))
    weights = model.cross_weights(source, target, mask)
    assert weights.shape == (2, 2, HEADS, 5, 5) and not weights[:, 1, :, :, 3:].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    for layer, (module, memory, result) in enumerate(seen):
        values = (memory @ module.kv.weight[WIDTH:].T + module.kv.bias[WIDTH:]).chunk(HEADS, dim=-1)
        heads = [weights[layer, :, head] @ values[head] for head in range(HEADS)]
        torch.testing.assert_close(module.out(torch.cat(heads, dim=-1)), result)
    for block in model.decoder:
        assert not block.cross._forward_pre_hooks


# --- small helpers ---------------------------------------------------------------------------------------


def test_rows_shift_by_one_place():
    rows = torch.tensor([[5, 6, 2], [7, 2, 0]])
    assert shift_right(rows, begin=1).tolist() == [[1, 5, 6], [1, 7, 2]]
    assert rows.tolist() == [[5, 6, 2], [7, 2, 0]]


def test_probabilities_by_hand():
    logits = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]])
    torch.testing.assert_close(next_token_probabilities(logits), torch.tensor([[0.6, 0.3, 0.1]]))
    torch.testing.assert_close(
        next_token_probabilities(logits, temperature=0.5), torch.tensor([[36.0, 9.0, 1.0]]) / 46
    )
    torch.testing.assert_close(
        next_token_probabilities(logits, 0.5, top_k=2), torch.tensor([[36.0, 9.0, 0.0]]) / 45
    )
    assert next_token_probabilities(logits, top_k=1).tolist() == [[1.0, 0.0, 0.0]]


def test_what_is_drawn_has_these_probabilities():
    model = small_gpt()
    start = torch.full((20000, 1), 4)
    drawn = model.generate(start, 1, temperature=2, top_k=4, generator=torch.Generator().manual_seed(0))[:, 1]
    with torch.no_grad():
        scores = model(start[:1])[0, -1]
    kept = scores.topk(4)
    wanted = torch.zeros(13, dtype=torch.float64)
    wanted[kept.indices] = (kept.values / 2).exp() / (kept.values / 2).exp().sum()
    found = drawn.bincount(minlength=13) / 20000
    assert (found - wanted).abs().max() < 4 * math.sqrt(0.25 / 20000)  # four standard errors


# --- sizes -----------------------------------------------------------------------------------------------


def test_the_original_sizes_are_those_of_the_formula():
    """Layer by layer from torch's own modules; the papers print 65 and 213 million, see the chapter."""
    for config in (TRANSFORMER_BASE, TRANSFORMER_BIG):
        with torch.device("meta"):
            built = count(EncoderDecoder(config))
            layers = [
                kind(config.width, config.heads, config.hidden)
                for kind in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
            ]
        tables = config.source_vocabulary * config.width
        assert built == 6 * sum(map(count, layers)) + tables == transformer_parameters(config)
    assert (TRANSFORMER_BASE.width, TRANSFORMER_BASE.heads, TRANSFORMER_BASE.hidden) == (512, 8, 2048)
    assert (TRANSFORMER_BIG.width, TRANSFORMER_BIG.heads, TRANSFORMER_BIG.hidden) == (1024, 16, 4096)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_formula_holds_for_every_kind(norm, shared):
    model = small(norm, shared)
    assert count(model) == transformer_parameters(model.config)


def test_gpt_1_has_its_published_size():
    with torch.device("meta"):
        model = GPT(GPT_1)
    assert count(model) == gpt_parameters(12, 768, 40478, 512) == 116_534_784  # 117 million, as published
    assert round(count(model) / 1e6) == 117


def test_pre_norm_adds_one_norm_at_the_end():
    assert count(small_gpt("pre")) == count(small_gpt("post")) + 2 * WIDTH


# --- what is refused -------------------------------------------------------------------------------------

TRANSLATOR = dict(source_vocabulary=5, target_vocabulary=5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TransformerConfig(**TRANSLATOR, heads=5), "width=512 is not a multiple of heads=5"),
        (lambda: TransformerConfig(**TRANSLATOR, width=15, heads=5), "width=15: must be even"),
        (
            lambda: TransformerConfig(source_vocabulary=5, target_vocabulary=6),
            "shared=True with .*=5 and .*=6",
        ),
        (lambda: TransformerConfig(**TRANSLATOR, depth=0), "depth=0: must be at least 1"),
        (lambda: TransformerConfig(**TRANSLATOR, dropout=1.0), "dropout=1.0"),
        (lambda: TransformerConfig(**TRANSLATOR, norm="middle"), "norm='middle': 'pre' or 'post' would do"),
        (lambda: TransformerConfig(**TRANSLATOR, activation="tanh"), "activation='tanh': one of relu, gelu"),
        (lambda: GPTConfig(vocabulary=0, context=4), "vocabulary=0: must be at least 1"),
        (lambda: Block(8, 2, activation="tanh"), "activation='tanh': one of relu, gelu"),
        (lambda: Block(8, 2, norm="middle"), "norm='middle': 'pre' or 'post' would do"),
        (lambda: next_token_probabilities(torch.zeros(1, 3), 0), "temperature=0: must be positive"),
        (lambda: next_token_probabilities(torch.zeros(1, 3), top_k=4), "top_k=4: must be between 1 and 3"),
        (lambda: small_gpt()(torch.zeros(1, 11, dtype=torch.long)), "11 tokens.* 10 fit"),
        (
            lambda: small_gpt()(torch.tensor([[13]])),
            "ids holds ids from 13 to 13; the vocabulary has 0 to 12",
        ),
        (lambda: small_gpt()(torch.zeros(1, 0, dtype=torch.long)), r"ids has shape \(1, 0\); at least one"),
        (lambda: small_gpt().generate(torch.zeros(1, 2, dtype=torch.long), 9), "count=9 after 2 tokens"),
        (
            lambda: small().encode(torch.tensor([[11]]), torch.tensor([[True]])),
            "source holds ids from 11 to 11; the vocabulary has 0 to 10",
        ),
    ],
)
def test_bad_input_is_explained(make, said):
    with pytest.raises(ValueError, match=said):
        make()
