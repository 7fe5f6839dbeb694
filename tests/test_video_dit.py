"""The video DiT: its block against torch's own modules, what it must be at the start, and who sees what."""

import dataclasses
import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sora_edu.dit import DiTBlock
from sora_edu.patches import patchify_video, unpatchify_video
from sora_edu.positions import grid, rope_angles_3d, rope_angles_at
from sora_edu.video_dit import (
    CHOICES,
    Modulation,
    VideoDiT,
    VideoDiTBlock,
    VideoDiTConfig,
    modulate,
    time_embedding,
    video_dit_macs,
    video_dit_parameters,
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


# ---- Choices ---------------------------------------------------------------------------------------------


CHOSEN = [dict(zip(CHOICES, chosen, strict=True)) for chosen in itertools.product(*CHOICES.values())]
CHOSEN.append({"detail": 4})


def name_of(choices: dict) -> str:
    return "-".join(name if name == "detail" else value for name, value in choices.items())


def chosen(**choices) -> VideoDiT:
    return awake(VideoDiT(dataclasses.replace(SMALL, **choices)))


def places() -> list[tuple[int, int, int]]:
    """Frame, row and column of each token, counted by hand."""
    return list(itertools.product(*map(range, GRID)))


def by_hand(block: VideoDiTBlock, x, seen, turned: bool):
    """A block's attention with joint attention, a mask and complex numbers: q, k normalised, then turned."""
    attention, heads = block.attention, block.attention.heads
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).unflatten(-1, (3, heads, -1)).unbind(2)
    q, k, v = (part.transpose(1, 2).double() for part in (q, k, v))  # b h n d
    q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.norm_q.weight
    k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * attention.norm_k.weight
    if turned:  # 12 channels a head: two pairs for each of frame, row and column, at speeds 1 and 1 / 100
        turns = torch.polar(
            torch.ones(N, 6, dtype=torch.float64),
            torch.tensor([[p * s for p in place for s in (1, 0.01)] for place in places()]).double(),
        )
        q, k = (torch.view_as_complex(part.unflatten(-1, (-1, 2)).contiguous()) * turns for part in (q, k))
        q, k = (torch.view_as_real(part).flatten(-2) for part in (q, k))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -math.inf)
    answers = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2).float()
    return answers @ attention.out.weight.T + attention.out.bias


@pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
@pytest.mark.parametrize(("number", "axes"), [(0, (0,)), (1, (1, 2)), (2, (0,)), (3, (1, 2))])
def test_factorised_attention_is_joint_attention_with_a_mask(number, axes, positions, generator):
    """Even blocks: the same frame; odd ones: the same row and column. In the mask there are no groups."""
    config = dataclasses.replace(SMALL, attention="factorised", positions=positions)
    block = awake(VideoDiTBlock(config, number))
    same = [[all(a[i] == b[i] for i in axes) for b in places()] for a in places()]
    x, condition = torch.randn(2, N, 24, generator=generator), torch.randn(2, 1, 20, generator=generator)
    angles = rope_angles_3d(*GRID, 12) if positions == "rope" else None

    joint = DiTBlock.forward(
        block, x, condition, None, lambda x: by_hand(block, x, torch.tensor(same), positions == "rope")
    )
    torch.testing.assert_close(block(x, condition, frames=GRID[0], angles=angles), joint)
    everyone = DiTBlock.forward(block, x, condition)
    assert not torch.allclose(everyone, joint, atol=1e-3)


def test_rope_turns_the_queries_and_keys_of_joint_blocks(inputs):
    model = chosen(positions="rope")
    entered = []
    model.blocks[0].attention.register_forward_hook(lambda _, args, out: entered.append((args[0], out)))
    model(**inputs)
    x, out = entered[0]
    seen = torch.ones(N, N, dtype=torch.bool)
    torch.testing.assert_close(out, by_hand(model.blocks[0], x, seen, turned=True))
    assert not torch.allclose(out, by_hand(model.blocks[0], x, seen, turned=False), atol=1e-3)


@pytest.mark.parametrize("attention", CHOICES["attention"])
@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 7, 0), (0, 0, -3), (20, 11, 5)])
def test_rope_knows_only_how_far_apart_patches_are(monkeypatch, inputs, attention, shift):
    """Moved as a whole along time, height and width, a clip is the same clip; stretched it is another."""
    model = chosen(positions="rope", attention=attention)
    before = model(**inputs)

    def elsewhere(change):
        def angles(*sizes_and_dim):
            *sizes, dim = sizes_and_dim
            return rope_angles_at(change(grid(*sizes)), dim)

        monkeypatch.setattr("sora_edu.video_dit.rope_angles_3d", angles)
        return model(**inputs)

    torch.testing.assert_close(elsewhere(lambda at: at + torch.tensor(shift)), before, atol=2e-4, rtol=2e-4)
    assert not torch.allclose(elsewhere(lambda at: 2 * at), before, atol=1e-3)


@pytest.mark.parametrize("positions", CHOICES["positions"])
@pytest.mark.parametrize("axis", [2, 3, 4])
def test_no_kind_of_positions_is_blind_to_an_axis(positions, axis, inputs):
    x, t, y, _, _ = inputs.values()
    model = chosen(positions=positions)
    backwards = unpatchify_video(  # whole patches change places
        patchify_video(x, (1, 2, 2)).unflatten(1, GRID).flip(axis - 1).flatten(1, 3), (1, 2, 2), GRID
    )
    tokens = [patchify_video(model(clip, t, y), (1, 2, 2)).unflatten(1, GRID) for clip in (x, backwards)]
    assert not torch.allclose(tokens[1].flip(axis - 1), tokens[0], atol=1e-3)


def test_in_factorised_attention_a_patch_sees_its_frame_then_all_through_it(inputs):
    """One block: the patches of the same frame. Two: everything, since each of those sees all frames."""
    for depth, frames in ((1, [0]), (2, [0, 1, 2])):
        model = chosen(attention="factorised", depth=depth)
        x = inputs["x"].clone().requires_grad_()
        model(**inputs | {"x": x})[0, :, 0, :2, :2].square().sum().backward()
        seen = x.grad[0].abs().amax((0, 2, 3)) > 0
        assert seen.nonzero().flatten().tolist() == frames and not x.grad[1].any()


def test_factorised_attention_has_the_weights_of_joint_attention():
    joint, factorised = VideoDiT(SMALL), VideoDiT(dataclasses.replace(SMALL, attention="factorised"))
    shapes = [{name: w.shape for name, w in model.state_dict().items()} for model in (joint, factorised)]
    assert shapes[0] == shapes[1]


def test_learned_positions_are_a_row_of_each_axis_table_added_to_the_tokens(inputs):
    model = chosen(positions="learned", table=(4, 5, 6))
    entered = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    nn.init.zeros_(model.patch_embed.weight)
    model(**inputs)
    weights = model.state_dict()
    rows = [sum(weights[f"places.tables.{axis}"][p] for axis, p in enumerate(place)) for place in places()]
    torch.testing.assert_close(entered[0][0] - model.patch_embed.bias, torch.stack(rows))


def test_learned_positions_end_where_their_tables_end(inputs):
    model = chosen(positions="learned", table=(2, 2, 3))
    with pytest.raises(ValueError, match=r"sizes=\(3, 2, 3\): must be at most \(2, 2, 3\)"):
        model(**inputs)


def test_in_cross_attention_time_and_every_real_text_token_are_asked(inputs):
    """The context of each block is the time's token and the text's; padding is never looked at."""
    model = chosen(conditioning="cross_attention")
    asked = []
    for block in model.blocks:
        block.cross.register_forward_pre_hook(lambda _, args: asked.append(args[1:]))
    y_mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    out = model(**inputs, y_mask=y_mask)
    time = model.time_embed(time_embedding(inputs["t"]))[:, None]
    context = torch.cat([time, inputs["y"] @ model.text_embed.weight.T + model.text_embed.bias], 1)
    for told, mask in asked:
        torch.testing.assert_close(told, context)
        assert mask[:, 0, 0].tolist() == [[True] * 6, [True] * 3 + [False] * 3]
    assert len(asked) == SMALL.depth
    for token in range(5):
        y = inputs["y"].clone()
        y[:, token] += 1
        changed = (model(**inputs | {"y": y}, y_mask=y_mask) - out).abs().amax((1, 2, 3, 4)) > 1e-6
        assert changed.tolist() == [True, token < 2]
    assert torch.equal(model(**inputs), model(**inputs, y_mask=torch.ones(2, 5, dtype=torch.bool)))


def test_in_cross_attention_the_time_is_one_for_the_clip(inputs, unchecked):
    model = chosen(conditioning="cross_attention")
    with pytest.raises(ValueError, match=r"t is \(2, 18\); for x of \(2, 3, 3, 4, 6\) it must be \(2,\)$"):
        model(**inputs | {"t": torch.zeros(2, N)})


@pytest.mark.parametrize("y_mask", [torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5)])
def test_a_mask_that_does_not_fit_the_text_is_refused(inputs, unchecked, y_mask):
    with pytest.raises(ValueError, match=r"y_mask has shape \(2, [45]\).* it must be \(2, 5\), boolean"):
        chosen()(**inputs, y_mask=y_mask)


@pytest.mark.parametrize("choices", CHOSEN, ids=name_of)
def test_every_choice_starts_silent_takes_other_grids_and_learns_with_all_its_weights(choices, generator):
    model = VideoDiT(dataclasses.replace(SMALL, **choices))
    for size in ((1, 2, 2), (5, 4, 10)):
        assert not model(torch.randn(1, 3, *size), torch.ones(1), torch.zeros(1, 2, 10)).any()
    awake(model)
    x, y = torch.randn(2, 3, 5, 4, 10, generator=generator), torch.randn(2, 3, 10, generator=generator)
    out = model(x, torch.rand(2), y, torch.ones(2, 3, dtype=torch.bool))
    out.square().mean().backward()
    assert out.isfinite().all()
    still = {name for name, weight in model.named_parameters() if not weight.grad.any()}
    assert not still


@pytest.mark.parametrize("choices", CHOSEN, ids=name_of)
@pytest.mark.parametrize("change", [{}, {"qk_norm": False, "depth": 3, "mlp_ratio": 3, "patch": (1, 1, 2)}])
def test_closed_forms_count_what_torch_counts(choices, change):
    """Weights on shapes alone; multiply-adds of a real evaluation, in which attention is matrix products."""
    config = dataclasses.replace(SMALL, **choices, **change)
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in VideoDiT(config).parameters())
    assert weights == video_dit_parameters(config)
    x, y = torch.zeros(1, 3, 5, 4, 6), torch.zeros(1, 7, 10)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        VideoDiT(config)(x, torch.zeros(1), y)
    tokens = 5 * (4 // config.patch[1]) * 3
    assert counter.get_total_flops() == 2 * video_dit_macs(config, tokens, frames=5, text_tokens=7)


def test_costs_that_need_more_than_a_number_of_tokens_ask_for_it():
    factorised = dataclasses.replace(SMALL, attention="factorised")
    for frames in (None, 0, 5):
        with pytest.raises(ValueError, match=f"frames={frames}: .* a divisor of tokens=18"):
            video_dit_macs(factorised, 18, frames=frames)
    for length in (None, 0):
        with pytest.raises(ValueError, match=f"text_tokens={length}: with cross_attention"):
            video_dit_macs(dataclasses.replace(SMALL, conditioning="cross_attention"), 18, text_tokens=length)


# ---- Detail ----------------------------------------------------------------------------------------------


def test_the_way_around_the_patches_changes_nothing_of_a_model_that_gets_it(model, inputs):
    """Its ends are silent, so that a trained model can be given one."""
    longer = VideoDiT(dataclasses.replace(SMALL, detail=6))
    longer.load_state_dict(longer.state_dict() | model.state_dict())
    assert torch.equal(longer(**inputs), model(**inputs))


def test_detail_is_drawn_across_the_borders_of_patches_and_not_across_frames():
    """Which columns of the output a cell in column 10 moves, in a model without blocks.

    Its patch: 10 and 11. With detail, three convolutions carry it to columns 7 to 13, so to the patches of 6
    to 13, and three more to 3 to 16.
    """
    for detail, moves in ((0, range(10, 12)), (6, range(3, 17))):
        model = awake(VideoDiT(dataclasses.replace(SMALL, depth=0, detail=detail)))
        x, y = torch.zeros(1, 3, 2, 4, 20), torch.zeros(1, 1, 10)
        changed = x.clone()
        changed[0, :, 1, 0, 10] = 1
        moved = (model(changed, torch.ones(1), y) - model(x, torch.ones(1), y)).abs().amax((0, 1)) > 1e-6
        assert not moved[0].any()
        assert moved[1].any(0).nonzero().flatten().tolist() == list(moves)


def test_what_is_read_goes_to_the_tokens_and_what_they_say_is_drawn(inputs):
    """Cutting either end off changes the output."""
    model = chosen(detail=6)
    out = model(**inputs)
    for end in (model.detail.to_tokens, model.detail.from_tokens):
        kept = end.weight.data.clone()
        end.weight.data.zero_()
        assert not torch.allclose(model(**inputs), out)
        end.weight.data.copy_(kept)
    assert torch.equal(model(**inputs), out)


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
        ({"conditioning": "film"}, "conditioning='film' is unknown; use one of: adaln_zero, cross_attention"),
        ({"attention": "local"}, "attention='local' is unknown; use one of: joint, factorised"),
        ({"positions": "none"}, "positions='none' is unknown; use one of: sinusoidal, learned, rope"),
        ({"positions": "rope", "width": 32, "heads": 8}, "width=32, heads=8: rope turns the 4 channels"),
        ({"positions": "rope", "width": 36, "heads": 4}, "must be even and at least 6"),
        ({"heads": 0}, "width=256 must be a multiple of heads=0, both at least 1"),
        ({"width": 30, "heads": 4}, "width=30 must be a multiple of heads=4"),
        ({"detail": -1}, "detail=-1 must be a number of channels, or 0"),
    ],
)
def test_an_unknown_choice_is_explained(choice, message):
    with pytest.raises(ValueError, match=message):
        VideoDiTConfig(**choice)


def test_tuples_from_json_are_tuples_again(unchecked):
    assert VideoDiTConfig(patch=[1, 2, 2], table=[9, 16, 16]) == VideoDiTConfig()


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
