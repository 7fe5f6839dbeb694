"""The video DiT: its block against torch's own modules, what it must be at the start, and who sees what."""

import dataclasses
import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from sora_edu.patches import patchify_video, unpatchify_video
from sora_edu.video_dit import (
    Modulation,
    VideoDiT,
    VideoDiTBlock,
    VideoDiTConfig,
    modulate,
    time_embedding,
)

SMALL = VideoDiTConfig(channels=3, width=24, depth=2, heads=2, text_width=10, condition_width=20)
SHAPE, GRID = (2, 3, 3, 4, 6), (3, 2, 3)  # b c t h w, and its patches of (1, 2, 2)
N = math.prod(GRID)


def awake(module: nn.Module) -> nn.Module:
    """With no zeros left, so that everything matters."""
    torch.manual_seed(1)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    return module


@pytest.fixture
def fresh() -> VideoDiT:
    torch.manual_seed(0)
    return VideoDiT(SMALL)


@pytest.fixture
def model(fresh) -> VideoDiT:
    return awake(fresh)


@pytest.fixture
def inputs(generator):
    """x, t, y, given and mask."""

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    t = torch.tensor([0.3, 0.8])
    mask = (torch.rand(2, 4, *SHAPE[2:], generator=generator) < 0.5).float()
    return {"x": normal(*SHAPE), "t": t, "y": normal(2, 5, 10), "given": normal(*SHAPE), "mask": mask}


@pytest.fixture
def unchecked():
    """Turns the checks of the annotations off, to see what a user sees, who has none."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# ---- At the start ----------------------------------------------------------------------------------------


def test_a_fresh_model_says_exactly_nothing(fresh, inputs):
    out = fresh(**inputs)
    assert out.shape == SHAPE and not out.any()


def test_a_fresh_block_is_the_identity(fresh, generator):
    x, condition = torch.randn(2, N, 24, generator=generator), torch.randn(2, 1, 20, generator=generator)
    assert torch.equal(fresh.blocks[0](x, condition), x)


def test_every_weight_starts_as_in_the_release(fresh):
    """Xavier everywhere, zero where the output must start at 0, 0.02 for the time MLP, all biases zero."""
    silent = {"final.weight", "final_modulation.linear.weight"}
    silent |= {f"blocks.{i}.modulation.linear.weight" for i in range(SMALL.depth)}
    for name, p in fresh.named_parameters():
        if name.endswith("bias") or name in silent:
            assert not p.any(), name
        elif "norm" in name:
            assert (p == 1).all(), name
        elif name in ("time_embed.0.weight", "time_embed.2.weight"):
            assert p.std().item() == pytest.approx(0.02, rel=0.1) and p.abs().max() > 0.04, name
        else:  # uniform within sqrt(6 / (in + out)): its deviation is that over sqrt(3)
            bound = math.sqrt(6 / sum(p.shape))
            assert p.abs().max().item() == pytest.approx(bound, rel=0.05) and p.abs().max() <= bound, name
            assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name


def test_gradients_reach_every_parameter_and_every_input(model, inputs):
    model(**inputs).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    assert model.patch_embed.weight.grad.any(0).all()  # each channel of x, given and mask in each cell


def test_a_fresh_model_wakes_up_within_three_steps(fresh, inputs):
    """The zeros are no dead end: the last layer moves first, then the gates, then all that they let in."""
    before = {name: p.clone() for name, p in fresh.named_parameters()}
    optimiser = torch.optim.SGD(fresh.parameters(), lr=1.0)
    for _ in range(3):
        optimiser.zero_grad()
        (fresh(**inputs) - inputs["given"]).square().mean().backward()
        optimiser.step()
    assert not [name for name, p in fresh.named_parameters() if torch.equal(p, before[name])]


# ---- Parts, against torch and numpy ----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [8, 256])
def test_the_time_embedding_is_diffusers_formula(dim):
    """Its `get_timestep_embedding` of 1000 t, with flip_sin_to_cos and downscale_freq_shift=0, by hand."""
    times = [0.0, 0.0004, 0.5, 0.999, 1.0]
    half = dim // 2
    wanted = []
    for t in times:
        angles = [1000 * t * math.exp(-math.log(10000) * i / half) for i in range(half)]
        wanted.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    mine = time_embedding(torch.tensor(times, dtype=torch.float64), dim)
    assert mine.dtype == torch.float32
    np.testing.assert_allclose(mine.numpy(), wanted, rtol=0, atol=1e-7)


def test_times_of_tokens_are_embedded_one_by_one(generator):
    t = torch.rand(2, 7, generator=generator)
    torch.testing.assert_close(time_embedding(t)[1, 4], time_embedding(t[1, 4]))


def test_the_modulation_is_torchs_layer_norm_scaled_and_shifted(generator):
    x, shift, scale = torch.randn(3, 2, 5, 24, generator=generator)
    norm = nn.LayerNorm(24, elementwise_affine=False, eps=1e-6)
    torch.testing.assert_close(modulate(x, shift, scale), norm(x) * (1 + scale) + shift)
    tiny = 1e-3 * x  # where another eps would show
    torch.testing.assert_close(modulate(tiny, shift, scale), norm(tiny) * (1 + scale) + shift)


def test_the_block_is_its_formula_with_torchs_modules(generator):
    """Attention first; for each half shift, scale, gate in this order; SiLU before; the tanh form of GELU."""
    block = awake(VideoDiTBlock(dataclasses.replace(SMALL, qk_norm=False)))
    x = torch.randn(2, 7, 24, generator=generator)
    condition = torch.randn(2, 7, 20, generator=generator)
    attention = nn.MultiheadAttention(24, 2, batch_first=True)
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    attention.load_state_dict(dict(zip(names, block.attention.state_dict().values(), strict=True)))
    norm = nn.LayerNorm(24, elementwise_affine=False, eps=1e-6)
    first, second = block.mlp[0], block.mlp[2]
    read = block.modulation.linear
    parts = (condition * condition.sigmoid()) @ read.weight.T + read.bias
    b1, s1, g1, b2, s2, g2 = parts.unflatten(-1, (6, 24)).unbind(-2)

    y = norm(x) * (1 + s1) + b1
    y = x + g1 * attention(y, y, y, need_weights=False)[0]
    hidden = (norm(y) * (1 + s2) + b2) @ first.weight.T + first.bias
    hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    torch.testing.assert_close(block(x, condition), y + g2 * (hidden @ second.weight.T + second.bias))


def test_the_whole_model_is_its_parts_in_order(model, inputs):
    """x, given, mask in this order; the condition is time plus the first text token; no gate at the end."""
    x, t, y, given, mask = inputs.values()
    tokens = patchify_video(torch.cat([x, given, mask], 1), (1, 2, 2))
    tokens = tokens @ model.patch_embed.weight.T + model.patch_embed.bias + positions()
    time = time_embedding(t) @ model.time_embed[0].weight.T + model.time_embed[0].bias
    time = (time * time.sigmoid()) @ model.time_embed[2].weight.T + model.time_embed[2].bias
    condition = (time + y[:, 0] @ model.text_embed.weight.T + model.text_embed.bias)[:, None]
    for block in model.blocks:
        tokens = block(tokens, condition)
    last = model.final_modulation.linear
    shift, scale = ((condition * condition.sigmoid()) @ last.weight.T + last.bias).split(24, dim=-1)
    tokens = nn.LayerNorm(24, elementwise_affine=False, eps=1e-6)(tokens) * (1 + scale) + shift
    tokens = tokens @ model.final.weight.T + model.final.bias
    torch.testing.assert_close(model(**inputs), unpatchify_video(tokens, (1, 2, 2), GRID))


# ---- Positions -------------------------------------------------------------------------------------------


def positions() -> torch.Tensor:
    """Of all tokens in raster order: the codes of frame, row and column side by side, 8 channels each."""
    rows = []
    for place in itertools.product(*map(range, GRID)):
        angles = [(p * 10000 ** (-2 * i / 8)) for p in place for i in range(4)]
        rows.append([f(angle) for angle in angles for f in (math.sin, math.cos)])
    return torch.tensor(rows, dtype=torch.float32)


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 1, 2), (2, 0, 1), (2, 3, 5)])
def test_a_cell_enters_at_the_token_that_knows_its_place(model, place):
    """One cell is 1, all others 0: only the token of that frame, row and column differs from its position."""
    entered = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    nn.init.zeros_(model.patch_embed.bias)
    x, mask = torch.zeros(1, *SHAPE[1:]), torch.zeros(1, 4, *SHAPE[2:])
    x[0, 0, *place] = 1
    model(x, torch.zeros(1), torch.zeros(1, 1, 10), mask=mask)
    t, h, w = place
    tokens, own = entered[0][0], (t * GRID[1] + h // 2) * GRID[2] + w // 2
    differs = ~torch.isclose(tokens, positions()).all(-1)
    assert differs.nonzero().tolist() == [[own]]


def test_it_is_not_blind_to_places(model, inputs):
    moved = model(inputs["x"].flip(3), inputs["t"], inputs["y"]).flip(3)
    assert not torch.allclose(moved, model(inputs["x"], inputs["t"], inputs["y"]))


@pytest.mark.parametrize("size", [(1, 2, 2), (1, 8, 4), (5, 2, 10), (7, 6, 4)])
def test_any_grid_will_do(model, size, generator):
    x = torch.randn(1, 3, *size, generator=generator)
    out = model(x, torch.ones(1), torch.zeros(1, 2, 10))
    assert out.shape == x.shape and out.isfinite().all()


def test_other_patches_will_do(generator):
    model = awake(VideoDiT(dataclasses.replace(SMALL, patch=(2, 1, 3))))
    x = torch.randn(2, 3, 4, 5, 6, generator=generator)
    assert model(x, torch.ones(2), torch.zeros(2, 2, 10)).shape == x.shape


# ---- Who sees what ---------------------------------------------------------------------------------------


def test_everything_sees_everything_in_its_clip_and_nothing_in_another(model, inputs):
    x = inputs["x"].requires_grad_()
    model(**inputs)[0, :, 0, :2, :2].square().sum().backward()
    assert x.grad[0].all() and not x.grad[1].any()


def test_one_time_for_a_clip_is_that_time_for_each_token(model, inputs):
    each = inputs["t"][:, None].expand(2, N)
    torch.testing.assert_close(model(**inputs | {"t": each}), model(**inputs))


@pytest.mark.parametrize("token", [0, 7, N - 1])
def test_a_token_is_modulated_by_its_own_time(token, inputs):
    """Without blocks the tokens do not mix, so what changes shows whose time it was."""
    model = awake(VideoDiT(dataclasses.replace(SMALL, depth=0)))
    each = inputs["t"][:, None].expand(2, N).clone()
    before = model(**inputs | {"t": each})
    each[1, token] = 0.0
    changed = patchify_video(model(**inputs | {"t": each}) - before, (1, 2, 2)).abs().amax(-1) > 1e-9
    assert changed.nonzero().tolist() == [[1, token]]


def test_in_a_block_too_a_token_is_modulated_by_its_own_condition(generator):
    block = awake(VideoDiTBlock(SMALL))
    nn.init.zeros_(block.attention.out.weight)  # nothing passes between tokens
    x, condition = torch.randn(2, N, 24, generator=generator), torch.randn(2, N, 20, generator=generator)
    other = condition.clone()
    other[0, 5] += 1
    changed = ~torch.isclose(block(x, other), block(x, condition)).all(-1)
    assert changed.nonzero().tolist() == [[0, 5]]


def test_without_given_and_mask_everything_is_to_be_generated(model, inputs):
    x, t, y, given, mask = inputs.values()
    plain = model(x, t, y)
    zeros, ones = torch.zeros_like(given), torch.ones_like(mask)
    assert torch.equal(model(x, t, y, None, zeros, ones), plain)
    assert torch.equal(model(x, t, y, given=zeros), plain) and torch.equal(model(x, t, y, mask=ones), plain)
    assert not torch.allclose(model(x, t, y, mask=1 - ones), plain)
    assert not torch.allclose(model(x, t, y, given=given), plain)


def test_of_the_text_the_first_token_is_read(model, inputs):
    """It stands for the whole prompt; how many tokens follow, and what padding holds, must not matter."""
    x, t, y, _, _ = inputs.values()
    real = torch.tensor([[True, False, False, False, False]] * 2)
    assert torch.equal(model(x, t, y, real), model(x, t, y[:, :1]))
    assert not torch.allclose(model(x, t, y.flip(1)), model(x, t, y))


def test_bfloat16_says_nearly_the_same(fresh, inputs):
    torch.manual_seed(2)
    for p in fresh.parameters():
        nn.init.normal_(p, std=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        quick = fresh(**inputs).float()
    exact = fresh(**inputs)
    assert (quick - exact).norm() < 0.05 * exact.norm()


# ---- Bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 5, 3, 4, 6), r"x has 5 channels; .* have 3"),
        ("x", (2, 3, 3, 4, 5), r"x has size \(3, 4, 5\) .* patches of \(1, 2, 2\)"),
        ("t", (3,), r"t is \(3,\); for x of \(2, 3, 3, 4, 6\) it must be \(2,\) or \(2, 18\)"),
        ("t", (2, 17), r"t is \(2, 17\); .* \(2, 18\)"),
        ("t", (), r"t is \(\); .* \(2,\)"),
        ("y", (1, 5, 10), r"y is \(1, 5, 10\); .* \(2, length, 10\)"),
        ("y", (2, 5, 11), r"y is \(2, 5, 11\); .* \(2, length, 10\)"),
        ("y", (2, 0, 10), r"y is \(2, 0, 10\); .* a length of at least 1"),
        ("y", (2, 10), r"y is \(2, 10\); .* \(2, length, 10\)"),
        ("given", (2, 3, 1, 4, 6), r"given is \(2, 3, 1, 4, 6\) .* \(2, 3, 3, 4, 6\)"),
        ("mask", (2, 1, 3, 4, 6), r"mask \(2, 1, 3, 4, 6\); .* \(2, 4, 3, 4, 6\)"),
    ],
)
def test_shapes_that_do_not_go_together_are_explained(model, inputs, unchecked, name, shape, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs | {name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"conditioning": "film"}, "conditioning='film' is unknown; use one of: adaln_zero"),
        ({"attention": "local"}, "attention='local' is unknown; use one of: joint"),
        ({"positions": "none"}, "positions='none' is unknown; use one of: sinusoidal"),
    ],
)
def test_an_unknown_choice_is_explained(choice, message):
    with pytest.raises(ValueError, match=message):
        VideoDiTConfig(**choice)


def test_a_patch_from_json_is_a_tuple_again(unchecked):
    assert VideoDiTConfig(patch=[1, 2, 2]) == VideoDiTConfig()


# ---- Weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_block_has_the_parameters_of_its_formula(qk_norm):
    config = dataclasses.replace(SMALL, qk_norm=qk_norm)
    d, c, r = config.width, config.condition_width, config.mlp_ratio
    modulation, attention, mlp = 6 * d * (c + 1), 4 * d * d + 4 * d, 2 * r * d * d + (r + 1) * d
    block = VideoDiTBlock(config)
    for part, wanted in ((block.modulation, modulation), (block.mlp, mlp)):
        assert sum(p.numel() for p in part.parameters()) == wanted
    whole = modulation + attention + mlp + qk_norm * 2 * d // config.heads
    assert sum(p.numel() for p in block.parameters()) == whole


def test_the_names_and_shapes_of_the_weights_are_those_of_the_checkpoints():
    """Whoever changes one has to train again, or to convert what ships."""
    d, c, cells = 256, 192, 4
    linears = {
        "patch_embed": (cells * (16 + 16 + 4), d), "time_embed.0": (256, c), "time_embed.2": (c, c),
        "text_embed": (192, c), "final_modulation.linear": (c, 2 * d), "final": (d, cells * 16),
    }  # fmt: skip
    wanted = {}
    for i in range(8):
        block = f"blocks.{i}"
        linears |= {
            f"{block}.modulation.linear": (c, 6 * d), f"{block}.attention.qkv": (d, 3 * d),
            f"{block}.attention.out": (d, d), f"{block}.mlp.0": (d, 4 * d), f"{block}.mlp.2": (4 * d, d),
        }  # fmt: skip
        wanted |= {f"{block}.attention.norm_{x}.weight": (64,) for x in "qk"}
    for name, (inputs, outputs) in linears.items():
        wanted |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    with torch.device("meta"):
        model = VideoDiT(VideoDiTConfig())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == wanted


def test_a_modulation_has_as_many_parts_as_it_is_asked_for(generator):
    modulation = awake(Modulation(20, 24, 3))
    condition = torch.randn(2, 1, 20, generator=generator)
    parts = modulation(condition)
    assert len(parts) == 3
    torch.testing.assert_close(torch.cat(parts, -1), modulation.linear(nn.SiLU()(condition)))
