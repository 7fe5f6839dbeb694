"""The diffusion transformer: its blocks against torch's own, sizes and costs, its start, its refusals."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sora_edu.attention import CrossAttention
from sora_edu.dit import (
    CONDITIONINGS,
    DIT_SIZES,
    DiT,
    DiTBlock,
    DiTConfig,
    dit_macs,
    dit_parameters,
    guided,
)
from sora_edu.teach.exercise import build
from sora_edu.transformer import Block

SMALL = DiTConfig(size=(4, 6), channels=3, patch=2, width=16, depth=2, heads=2, classes=5)
TEXT = replace(SMALL, classes=None, text_width=7)
T = torch.tensor([0.25, 0.75], dtype=torch.float64)
XL = DIT_SIZES["XL/2"]


def latents(generator, config=SMALL):
    return torch.randn(2, config.channels, *config.size, generator=generator, dtype=torch.float64)


def text(generator, length=4):
    return torch.randn(2, length, 7, generator=generator, dtype=torch.float64)


def model(config=SMALL, **changes) -> DiT:
    """A small model in float64 in which no weight is zero."""
    return build(DiT, replace(config, **changes)).double()


# --- sizes and costs: facts sheet of the course, Peebles and Xie 2023, tables 1 to 4 -----------------------

GIGA = {
    "S/8": 0.36, "S/4": 1.41, "S/2": 6.06, "B/8": 1.42, "B/4": 5.56, "B/2": 23.01,
    "L/8": 5.01, "L/4": 19.70, "L/2": 80.71, "XL/8": 7.39, "XL/4": 29.05, "XL/2": 118.64,
}  # fmt: skip
MILLIONS = {"S": 33, "B": 130, "L": 458, "XL": 675}
VARIANTS = {
    "in_context": (119.37, 449), "cross_attention": (137.62, 598),
    "adaln": (118.56, 600), "adaln_zero": (118.64, 675),
}  # fmt: skip


def built(config: DiTConfig, length: int | None = None) -> tuple[int, int]:
    """Parameters and multiply-adds of the module itself, with no memory for its weights."""
    with torch.device("meta"):
        dit, x, t = DiT(config).eval(), torch.empty(1, config.channels, *config.size), torch.empty(1)
        y = torch.empty(1, dtype=torch.long) if length is None else torch.empty(1, length, config.text_width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        dit(x, t, y)
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return sum(weight.numel() for weight in dit.parameters()), flops // 2


def near(value: float, printed: float, unit: float) -> bool:
    return abs(value - printed) <= max(0.003 * printed, unit)


@pytest.mark.parametrize("name", DIT_SIZES)
def test_the_twelve_models_have_the_papers_sizes_and_costs(name):
    parameters, macs = built(DIT_SIZES[name])
    assert (parameters, macs) == (dit_parameters(DIT_SIZES[name]), dit_macs(DIT_SIZES[name]))
    assert near(macs / 1e9, GIGA[name], 0.01)
    assert near(parameters / 1e6, MILLIONS[name.split("/")[0]], 1)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_four_conditionings_have_the_papers_sizes_and_costs(conditioning):
    config = replace(XL, conditioning=conditioning)
    parameters, macs = built(config)
    assert (parameters, macs) == (dit_parameters(config), dit_macs(config))
    assert near(macs / 1e9, VARIANTS[conditioning][0], 0.01)
    assert near(parameters / 1e6, VARIANTS[conditioning][1], 1)


def test_xl_2_has_the_exact_size_and_at_512_pixels_the_papers_cost():
    large = replace(XL, size=(64, 64))
    assert round(dit_parameters(XL) / 1e6, 2) == 674.83
    assert large.tokens == 1024
    assert built(large) == (dit_parameters(XL), dit_macs(large))
    assert near(dit_macs(large) / 1e9, 524.60, 0.01)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("learned", [True, False])
def test_the_closed_forms_hold_for_text_and_other_sizes(conditioning, learned):
    for changes, length in (({}, 1), ({"size": (8, 4), "mlp_ratio": 3, "depth": 3}, 9)):
        config = replace(TEXT, conditioning=conditioning, learned_variance=learned, **changes)
        assert built(config, length) == (dit_parameters(config), dit_macs(config, length))


def test_the_cost_of_text_needs_its_length():
    for config, length in ((TEXT, None), (TEXT, 0), (SMALL, 3)):
        with pytest.raises(ValueError, match=f"text_tokens={length}"):
            dit_macs(config, length)


# --- blocks, against torch's own ---------------------------------------------------------------------------


@pytest.mark.parametrize(("conditioning", "cross"), [("in_context", False), ("cross_attention", True)])
def test_blocks_that_are_told_by_tokens_are_the_blocks_of_chapter_04(conditioning, cross, generator):
    block = build(DiTBlock, 16, 2, conditioning=conditioning).double()
    plain = Block(16, 2, activation="gelu_tanh", cross=cross).double()
    plain.load_state_dict(block.state_dict())
    for norm in plain.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-6
    x, context = (torch.randn(2, n, 16, generator=generator, dtype=torch.float64) for n in (5, 3))
    told = (context,) if cross else ()
    expected = plain(x, context=context) if cross else plain(x)
    torch.testing.assert_close(block(x, *told), expected, rtol=0, atol=1e-12)


def torch_attention(layer, x):
    oracle = nn.MultiheadAttention(16, 2, batch_first=True, dtype=torch.float64)
    oracle.in_proj_weight.data, oracle.in_proj_bias.data = layer.qkv.weight.data, layer.qkv.bias.data
    oracle.out_proj.weight.data, oracle.out_proj.bias.data = layer.out.weight.data, layer.out.bias.data
    return oracle(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("conditioning", ["adaln", "adaln_zero"])
@pytest.mark.parametrize("places", [1, 5])
def test_modulated_blocks_are_the_papers_equations(conditioning, places, generator):
    block = build(DiTBlock, 16, 2, conditioning=conditioning).double()
    x = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    condition = torch.randn(2, places, 16, generator=generator, dtype=torch.float64)
    numbers = F.linear(F.silu(condition), block.modulation.linear.weight, block.modulation.linear.bias)
    ones = torch.ones(2, places, 16, dtype=torch.float64)
    parts = list(numbers.split(16, dim=-1))
    if conditioning == "adaln":
        parts = [*parts[:2], ones, *parts[2:], ones]
    norm = nn.LayerNorm(16, eps=1e-6, elementwise_affine=False)
    out = x + parts[2] * torch_attention(block.attention, norm(x) * (1 + parts[1]) + parts[0])
    inner = F.gelu(block.mlp[0](norm(out) * (1 + parts[4]) + parts[3]), approximate="tanh")
    out = out + parts[5] * block.mlp[2](inner)
    torch.testing.assert_close(block(x, condition), out, rtol=0, atol=1e-12)


def test_a_context_of_one_token_says_the_same_to_every_query(generator):
    """The softmax over one key is 1: the answer is that token's value, whoever asks.

    The paper's cross-attention has two tokens, time and class, and then it does depend on who asks.
    """
    cross = build(CrossAttention, 16, 2).double()
    x = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 2, 16, generator=generator, dtype=torch.float64)
    alone = cross(x, context[:, :1])
    value = F.linear(context[:, 0], cross.kv.weight[16:], cross.kv.bias[16:])
    expected = cross.out(value)[:, None].expand(-1, 5, -1)
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-12)
    assert (cross(x, context) - cross(x, context)[:, :1]).abs().max() > 1e-2


# --- what reaches what -------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("kind", ["class", "text"])
def test_time_and_condition_matter_and_gradients_reach_everything(conditioning, kind, generator):
    config = SMALL if kind == "class" else TEXT
    dit, x = model(config, conditioning=conditioning), latents(generator)
    y = torch.tensor([1, 4]) if kind == "class" else text(generator)
    other = torch.tensor([1, 3]) if kind == "class" else torch.cat([y[:1], -y[1:]])
    out = dit(x, T, y)
    assert out.shape == (2, 6, 4, 6)
    assert (dit(x, T.flip(0), y) - out).abs().amax((1, 2, 3)).min() > 1e-3
    moved = (dit(x, T, other) - out).abs().amax((1, 2, 3))
    assert moved[0] < 1e-12 and moved[1] > 1e-3
    dit(x, T, y, dropped=torch.tensor([False, True])).square().sum().backward()
    still = [name for name, p in dit.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_padding_is_not_seen(conditioning, generator):
    dit, x, y = model(TEXT, conditioning=conditioning), latents(generator), text(generator)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    out = dit(x, T, y, mask)
    torch.testing.assert_close(out[:1], dit(x[:1], T[:1], y[:1, :2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(out[1:], dit(x[1:], T[1:], y[1:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_no_text_is_one_token_of_its_own_however_it_is_said(conditioning, generator):
    dit, x, y = model(TEXT, conditioning=conditioning), latents(generator), text(generator)
    dropped = dit(x, T, y, dropped=torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(dropped, dit(x, T, y, torch.zeros(2, 4, dtype=torch.bool)), rtol=0, atol=0)
    null = dit.null_text.expand(2, 1, -1)
    torch.testing.assert_close(dropped, dit(x, T, null), rtol=0, atol=1e-12)


def test_labels_are_dropped_in_training_only(generator):
    dit, x = model(label_dropout=0.5), latents(generator)
    x, t = x[:1].expand(400, -1, -1, -1), T[:1].expand(400)
    y = torch.full((400,), 2)
    told, untold = dit(x[:1], t[:1], y[:1]), dit(x[:1], t[:1], torch.tensor([5]))
    before = torch.get_rng_state()
    assert (dit(x, t, y) - told).abs().max() < 1e-9
    assert torch.equal(torch.get_rng_state(), before)  # evaluation throws no dice
    torch.manual_seed(0)
    out = dit.train()(x, t, y)
    as_told, as_untold = ((out - one).abs().amax((1, 2, 3)) < 1e-9 for one in (told, untold))
    assert (as_told ^ as_untold).all()
    assert 150 < as_untold.sum() < 250


def test_other_sizes_of_latents_run_and_keep_their_shape(generator):
    x = torch.randn(2, 3, 8, 2, generator=generator, dtype=torch.float64)
    assert model()(x, T, torch.tensor([0, 1])).shape == (2, 6, 8, 2)


# --- at the start ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("config", [SMALL, TEXT])
def test_a_fresh_model_says_nothing_and_starts_as_the_release_does(conditioning, config, generator):
    torch.manual_seed(0)
    config = replace(config, width=64, conditioning=conditioning)
    dit = DiT(config).eval()
    y = torch.tensor([0, 5]) if config.classes else text(generator).float()
    assert not dit(latents(generator).float(), T.float(), y).any()
    for name, weight in dit.named_parameters():
        if name.endswith("bias") or name.startswith("final.") or "modulation" in name:
            assert not weight.any(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        elif name.startswith("time_embed") or name in ("label_embed.weight", "null_text"):
            assert weight.std().item() == pytest.approx(0.02, rel=0.5), name
        else:
            bound = math.sqrt(6 / sum(weight.shape))
            assert weight.abs().max().item() == pytest.approx(bound, rel=0.1), name
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name


def test_only_the_gate_makes_a_fresh_block_the_identity(generator):
    x, condition = torch.randn(2, 6, 16, generator=generator), torch.randn(2, 1, 16, generator=generator)
    torch.manual_seed(0)
    assert torch.equal(DiTBlock(16, 2)(x, condition), x)
    assert (DiTBlock(16, 2, conditioning="adaln")(x, condition) - x).abs().max() > 0.1


# --- guidance ----------------------------------------------------------------------------------------------


def test_guidance_is_of_all_channels_or_of_the_releases_three(generator):
    dit = model(channels=4)
    x, y = torch.randn(2, 4, 4, 6, generator=generator, dtype=torch.float64), torch.tensor([1, 3])
    told, untold = dit(x, T, y), dit(x, T, torch.full_like(y, 5))
    for channels, count in ((None, 4), (3, 3), (1, 1)):
        out = guided(dit, x, T, y, 2.5, channels=channels)
        mixed = 2.5 * told[:, :count] - 1.5 * untold[:, :count]
        torch.testing.assert_close(out[:, :count], mixed, rtol=0, atol=1e-12)
        torch.testing.assert_close(out[:, count:], told[:, count:], rtol=0, atol=1e-12)
    torch.testing.assert_close(guided(dit.train(), x, T, y, 1), told, rtol=0, atol=1e-12)
    for channels in (0, 5):
        with pytest.raises(ValueError, match=f"channels={channels}: must be 1 to 4, or None"):
            guided(dit, x, T, y, 2.0, channels=channels)


def test_guidance_by_text_hides_the_text(generator):
    dit, x, y = model(TEXT), latents(generator), text(generator)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    told, untold = dit(x, T, y, mask), dit(x, T, dit.null_text.expand(2, 1, -1))
    expected = torch.cat([(4 * told - 3 * untold)[:, :3], told[:, 3:]], dim=1)
    torch.testing.assert_close(guided(dit, x, T, y, 4, mask), expected, rtol=0, atol=1e-12)


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (5, 6)}, r"size=\(5, 6\): not multiples of patch=2; \(4, 6\) would fit"),
        ({"depth": 0}, "depth=0: must be at least 1"),
        ({"heads": 3}, "width=16 must be a multiple of heads=3"),
        ({"width": 6}, "width=6 must be .* of 4"),
        ({"conditioning": "film"}, "conditioning='film' is unknown; use one of: in_context, cross_attention"),
        ({"text_width": 7}, "classes=5, text_width=7: give the number of classes"),
        ({"classes": None}, "classes=None, text_width=None"),
        ({"classes": 0}, "classes=0"),
        ({"label_dropout": 1.0}, "label_dropout=1.0"),
    ],
)
def test_an_impossible_model_is_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_other_inputs_are_explained(generator):
    dit, x, y = model(), latents(generator), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"x has shape .*takes \(b, 3, h, w\)"):
        dit(x[:, :2], T, y)
    with pytest.raises(ValueError, match=r"size \(4, 5\).*\(4, 4\) would fit"):
        dit(x[..., :5], T, y)
    with pytest.raises(ValueError, match=r"y holds classes from 0 to 6; there are 0 to 4, and 5 for none"):
        dit(x, T, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match=r"y has shape \(2, 4, 7\).*takes 2 class ids"):
        dit(x, T, text(generator))
    with pytest.raises(ValueError, match=r"y has shape \(2,\).*takes text tokens \(2, 1 or more, 7\)"):
        model(TEXT)(x, T, y)
    with pytest.raises(ValueError, match=r"conditioning='film' is unknown"):
        DiTBlock(16, 2, conditioning="film")
    with pytest.raises(ValueError, match="condition is missing, with conditioning='adaln_zero'"):
        DiTBlock(16, 2)(torch.zeros(1, 2, 16))
    with pytest.raises(ValueError, match="condition is given, with conditioning='in_context'"):
        DiTBlock(16, 2, conditioning="in_context")(torch.zeros(1, 2, 16), torch.zeros(1, 1, 16))
    with pytest.raises(
        ValueError, match="mask is given, with conditioning='adaln': one vector has no padding"
    ):
        mask = torch.ones(1, 1, dtype=torch.bool)
        DiTBlock(16, 2, conditioning="adaln")(torch.zeros(1, 2, 16), torch.zeros(1, 1, 16), mask)
