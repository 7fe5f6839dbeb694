"""The arithmetic of scaling up against built modules, published figures, and fits by scipy."""

import math
import weakref
from dataclasses import replace
from functools import partial

import pytest
import torch
from scipy import optimize, stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sora_edu import attention
from sora_edu.dit import DIT_SIZES, DiTBlock, block_macs, dit_macs
from sora_edu.scale import (
    CHIPS,
    VIDEO_SIZES,
    activation_bytes,
    block_activations,
    clip_grid,
    clip_tokens,
    fit_power_law,
    fit_with_floor,
    plan,
    saved_bytes,
    sharded_bytes,
    state_bytes,
    training_days,
    training_flops,
    utilisation,
)
from sora_edu.video_dit import VideoDiT, VideoDiTConfig, video_dit_macs, video_dit_parameters

SMALL = VideoDiTConfig(width=48, depth=3, heads=4, text_width=20, condition_width=24)


def counted(config: VideoDiTConfig, latent: tuple[int, int, int]) -> tuple[int, int]:
    """Weights and multiply-adds of a built video DiT, on shapes alone."""
    with torch.device("meta"):
        model = VideoDiT(config)
        x, y = torch.empty(1, config.channels, *latent), torch.empty(1, 7, config.text_width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x, torch.empty(1), y)
    return sum(weight.numel() for weight in model.parameters()), counter.get_total_flops() // 2


@pytest.mark.parametrize("name", VIDEO_SIZES)
def test_video_sizes_are_counted_as_built(name):
    config = VIDEO_SIZES[name]
    assert counted(config, (5, 8, 12)) == (video_dit_parameters(config), video_dit_macs(config, 5 * 4 * 6))


@pytest.mark.parametrize(
    "change", [{}, {"qk_norm": False}, {"mlp_ratio": 3}, {"patch": (1, 1, 2)}, {"channels": 4}, {"heads": 2}]
)
def test_every_choice_of_a_video_dit_is_counted_as_built(change):
    config = replace(SMALL, **change)
    tokens = 3 * (4 // config.patch[1]) * 3
    assert counted(config, (3, 4, 6)) == (video_dit_parameters(config), video_dit_macs(config, tokens))


def test_video_sizes_have_the_widths_of_the_picture_models_and_full_size_is_a_few_times_as_large():
    for name in ("S", "B", "L", "XL"):
        video, picture = VIDEO_SIZES[name], DIT_SIZES[f"{name}/2"]
        assert (video.width, video.depth, video.heads) == (picture.width, picture.depth, picture.heads)
    assert 1e9 < video_dit_parameters(VIDEO_SIZES["full"]) < 3e9


def test_the_full_size_model_has_rotary_positions_and_normalised_queries():
    full = VIDEO_SIZES["full"]
    assert (full.positions, full.qk_norm, full.attention) == ("rope", True, "joint")


def test_no_token_has_no_cost():
    with pytest.raises(ValueError, match="tokens=0"):
        video_dit_macs(SMALL, 0)


# --- tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "tokens"),
    [((129, 720, 1280), 118_800), ((49, 480, 720), 17_550), ((17, 64, 64), 80), ((1, 256, 256), 256)],
)
def test_tokens_of_published_clips_of_tiny_sora_and_of_a_picture(clip, tokens):
    assert clip_tokens(*clip) == tokens


def test_a_patch_along_time_makes_fewer_tokens():
    assert clip_grid(29, 64, 96) == (8, 4, 6)
    assert clip_grid(29, 64, 96, (2, 4, 2)) == (4, 2, 6)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ((16, 64, 64), "frames=16: must be 1 \\+ 4 k, for example 13 or 17"),
        ((0, 64, 64), "frames=0: must be 1 \\+ 4 k, for example 1 or 5"),
        ((17, 1080, 64), "height=1080: must be a multiple of 16, for example 1072 or 1088"),
        ((17, 64, 8), "width=8: must be a multiple of 16, for example 16 or 32"),
    ],
)
def test_clips_that_do_not_come_out_even_are_refused_with_the_nearest(clip, message):
    with pytest.raises(ValueError, match=message):
        clip_tokens(*clip)
    with pytest.raises(ValueError, match="5 latent frames"):
        clip_grid(17, 64, 64, (2, 2, 2))


# --- operations ------------------------------------------------------------------------------------------


def test_a_training_step_is_three_forward_passes_to_torchs_own_counter():
    with torch.device("meta"):  # where attention is counted, too
        block, x = DiTBlock(32, 4), torch.empty(2, 10, 32, requires_grad=True)
        condition = torch.empty(2, 1, 32, requires_grad=True)
        with FlopCounterMode(display=False) as step:
            block(x, condition).sum().backward()
    macs = block_macs(10, 32) + 6 * 32**2
    assert step.get_total_flops() == training_flops(macs, batch=2, steps=1)


def test_training_flops_are_those_of_the_paper_in_its_own_unit():
    """DiT counts Gflops (our MACs) x batch x steps x 3; ours are two for each."""
    macs = dit_macs(DIT_SIZES["XL/2"])
    assert training_flops(macs, 256, 400_000) == 2 * (macs * 256 * 400_000 * 3)
    for bad in ({"macs": 0, "batch": 1, "steps": 1}, {"macs": 1, "batch": 1, "steps": 0}):
        with pytest.raises(ValueError, match="=0: must be at least 1"):
            training_flops(**bad)


# --- memory ----------------------------------------------------------------------------------------------


def test_states_are_what_a_mixed_precision_step_holds():
    """Weights and gradients in bf16, a copy and two moments in float32, counted on real tensors."""
    model = torch.nn.Linear(30, 20).bfloat16()
    copies = [weight.detach().float().requires_grad_() for weight in model.parameters()]
    optimiser = torch.optim.Adam(copies)
    model(torch.randn(4, 30).bfloat16()).sum().backward()
    for copy, weight in zip(copies, model.parameters(), strict=True):
        copy.grad = weight.grad.float()
    optimiser.step()
    held = [*model.parameters(), *(weight.grad for weight in model.parameters()), *copies]
    held += [value for state in optimiser.state.values() for name, value in state.items() if name != "step"]
    count = sum(weight.numel() for weight in model.parameters())
    assert state_bytes(count) == sum(tensor.nbytes for tensor in held) == 16 * count


def test_sharding_leaves_what_the_paper_says():
    """Rajbhandari et al. 2020, figure 1: 7.5 billion weights on 64 devices."""
    gigabytes = [round(state_bytes(7.5e9, 64, stage) / 1e9, 1) for stage in range(4)]
    assert gigabytes == [120.0, 31.4, 16.6, 1.9]
    with pytest.raises(ValueError, match="stage=4: use 0"):
        state_bytes(10, 2, 4)
    with pytest.raises(ValueError, match="devices=0"):
        state_bytes(10, 0, 1)


def written_out(q, k, v, mask):
    return attention.merge_heads(attention.scaled_dot_product(q, k, v, mask))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("qk_norm", "heads", "ratio"), [(False, 4, 4), (True, 4, 4), (True, 2, 3)])
def test_a_block_keeps_as_many_numbers_as_autograd_says(monkeypatch, fused, qk_norm, heads, ratio):
    if not fused:
        monkeypatch.setattr(attention, "_fused", written_out)
    tokens, width = 96, 64
    block = DiTBlock(width, heads, ratio, "adaln_zero", width, qk_norm)
    x = torch.randn(1, tokens, width, requires_grad=True)
    condition = torch.randn(1, 1, width, requires_grad=True)
    measured = saved_bytes(lambda: block(x, condition), block.parameters()) / 4 - 10 * width
    closed = block_activations(tokens, width, heads, ratio, qk_norm, fused)
    assert measured == pytest.approx(closed, rel=0.005)


CHOSEN = ({}, {"positions": "rope"}, {"positions": "learned"}, {"attention": "factorised"})


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("choices", CHOSEN)
def test_a_whole_model_keeps_what_the_estimate_says(choices, checkpointing):
    config = VideoDiTConfig(width=64, depth=6, heads=4, text_width=16, condition_width=64, **choices)
    model, x = VideoDiT(config), torch.randn(1, 16, 5, 16, 16)
    y, deepest = torch.randn(1, 3, 16), [0]
    if checkpointing:
        for block in model.blocks:
            block.forward = _run_again(block, deepest)
    kept = saved_bytes(lambda: model(x, torch.tensor([0.5]), y), model.parameters())
    closed = activation_bytes(config, 320, checkpointing=checkpointing, bytes_each=4)
    assert kept + deepest[0] == pytest.approx(closed, rel=0.05)
    if checkpointing:
        assert closed < 0.4 * activation_bytes(config, 320, bytes_each=4)


def _run_again(block, deepest):
    """A block's forward pass with its activations thrown away; what one keeps when it runs again is noted."""
    whole = type(block).forward

    def forward(tokens, condition, **beside):
        with torch.enable_grad():
            lone = tokens.detach().requires_grad_()
            again = saved_bytes(lambda: whole(block, lone, condition, **beside), block.parameters())
        deepest[0] = max(deepest[0], again)
        return checkpoint(lambda x, c: whole(block, x, c, **beside), tokens, condition, use_reentrant=False)

    return forward


def test_numbers_are_half_as_large_in_bf16():
    assert 2 * activation_bytes(SMALL, 50) == activation_bytes(SMALL, 50, bytes_each=4)
    with pytest.raises(ValueError, match="bytes_each=8: use 2"):
        activation_bytes(SMALL, 50, bytes_each=8)


def test_attention_written_out_keeps_its_weights():
    config = replace(SMALL, qk_norm=False)
    kept = {fused: activation_bytes(config, 500, fused=fused, bytes_each=4) for fused in (True, False)}
    assert kept[False] - kept[True] == 4 * SMALL.depth * SMALL.heads * (500**2 - 500)


@pytest.mark.parametrize(
    ("choices", "fused"), [({"conditioning": "cross_attention"}, True), ({"attention": "factorised"}, False)]
)
def test_memory_that_is_not_worked_out_is_refused(choices, fused):
    with pytest.raises(ValueError, match="memory is worked out for adaln_zero alone"):
        activation_bytes(replace(SMALL, **choices), 50, fused=fused)
    with pytest.raises(ValueError, match="detail=8: memory is worked out for models without"):
        activation_bytes(replace(SMALL, detail=8), 50)


def test_saved_bytes_counts_each_storage_once():
    x = torch.randn(100, requires_grad=True)
    assert saved_bytes(lambda: (x * x).sum()) == 400
    assert saved_bytes(lambda: (x * x).sum(), [x]) == 0
    assert saved_bytes(lambda: (x[:50] * x[50:]).sum()) == 400


# --- time ------------------------------------------------------------------------------------------------


def test_time_and_utilisation_are_inverse():
    chip = CHIPS["H100"]
    days = training_days(1e21, chip.peak, 64, 0.4)
    assert days * 86400 * 64 * chip.peak * 0.4 == pytest.approx(1e21)
    assert utilisation(1e21, 86400 * days, chip, 64) == pytest.approx(0.4)


def test_dense_peaks_are_half_of_the_sparse_ones_and_the_memories_those_of_the_data_sheets():
    assert 2 * CHIPS["H100"].peak == pytest.approx(1979e12, rel=1e-3)
    assert 2 * CHIPS["H200"].peak == pytest.approx(1979e12, rel=1e-3)
    assert 2 * CHIPS["A100"].peak == pytest.approx(624e12)


@pytest.mark.parametrize("mfu", [0, -0.1, 40, math.nan])
def test_a_share_is_no_percentage(mfu):
    with pytest.raises(ValueError, match=r"such as 0\.4 for 40 per cent"):
        training_days(1e21, 1e15, 8, mfu)


def test_nothing_takes_no_time():
    with pytest.raises(ValueError, match="flops=0: must be above 0"):
        training_days(0, 1e15, 8, 0.4)
    with pytest.raises(ValueError, match="seconds=0"):
        utilisation(1e15, 0, CHIPS["A100"])


# --- plans -----------------------------------------------------------------------------------------------


def test_a_plan_adds_up():
    config = VIDEO_SIZES["full"]
    made = plan(config, 49, 480, 720, devices=64, batch=2)
    assert made.tokens == 17_550
    assert made.states == state_bytes(video_dit_parameters(config), 64, 3)
    assert made.activations == 2 * activation_bytes(config, made.tokens, checkpointing=True)
    assert made.memory == made.states + made.activations < 80e9
    assert made.macs == video_dit_macs(config, made.tokens)


def test_what_does_not_fit_is_refused_with_the_longest_clip_that_does():
    config = VIDEO_SIZES["full"]
    with pytest.raises(
        ValueError, match=r"GB are needed.*a device has 80; frames=(\d+) would fit"
    ) as refusal:
        plan(config, 129, 720, 1280, devices=64, checkpointing=False)
    frames = int(str(refusal.value).split("frames=")[1].split()[0])
    plan(config, frames, 720, 1280, devices=64, checkpointing=False)
    with pytest.raises(ValueError, match=f"frames={frames} would fit"):
        plan(config, frames + 4, 720, 1280, devices=64, checkpointing=False)


def test_where_states_fill_a_device_the_number_of_devices_is_named():
    config = replace(VIDEO_SIZES["full"], width=6144, condition_width=6144)
    with pytest.raises(ValueError, match=r"frames=1 would fit with devices=(\d+)") as refusal:
        plan(config, 17, 256, 256)
    devices = int(str(refusal.value).split("devices=")[1])
    plan(config, 1, 256, 256, devices=devices)
    with pytest.raises(ValueError, match="GB are needed"):
        plan(config, 1, 256, 256, devices=devices // 2)
    with pytest.raises(ValueError, match="not even the shortest clip"):
        plan(config, 17, 256, 256, stage=0)


def test_patches_along_time_are_thought_of():
    config = replace(VIDEO_SIZES["full"], patch=(2, 2, 2))
    with pytest.raises(ValueError, match=r"frames=(\d+) would fit") as refusal:
        plan(config, 261, 720, 1280, devices=64, checkpointing=False)
    frames = int(str(refusal.value).split("frames=")[1].split()[0])
    plan(config, frames, 720, 1280, devices=64, checkpointing=False)


def test_a_batch_has_at_least_a_clip():
    with pytest.raises(ValueError, match="batch=0"):
        plan(SMALL, 17, 64, 64, batch=0)


# --- fits ------------------------------------------------------------------------------------------------


def test_a_power_law_is_a_line_in_logarithms_to_scipy_too():
    compute = [1.0, 2.0, 4.0, 9.0, 33.0]
    loss = [3.1, 2.4, 1.8, 1.5, 0.7]
    line = stats.linregress([math.log(c) for c in compute], [math.log(value) for value in loss])
    assert fit_power_law(compute, loss) == pytest.approx((math.exp(line.intercept), -line.slope))


def test_a_floor_is_found_as_scipy_finds_it():
    compute = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    loss = [0.5 + 2 * c**-0.4 * (1 + 0.01 * (-1) ** k) for k, c in enumerate(compute)]
    (floor, a, b), _ = optimize.curve_fit(
        lambda c, floor, a, b: floor + a * c**-b, compute, loss, p0=(0.3, 1, 0.3)
    )
    assert fit_with_floor(compute, loss) == pytest.approx((floor, a, b), rel=0.15)
    clean = [0.5 + 2 * c**-0.4 for c in compute]
    assert fit_with_floor(compute, clean) == pytest.approx((0.5, 2, 0.4), rel=0.01)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="3 budgets: a floor takes four or more"):
        fit_with_floor([1, 2, 3], [3, 2, 1])
    with pytest.raises(ValueError, match="2 budgets and 1 losses"):
        fit_power_law([1, 2], [3])
    with pytest.raises(ValueError, match="must be positive"):
        fit_power_law([1, 2], [3, 0])


def test_the_quoted_speed_of_the_paper_is_a_small_share_of_the_peak():
    """DiT, section 4: 5.7 steps of 256 pictures a second on 256 cores of TPU v3, which are 128 chips."""
    flops = training_flops(dit_macs(DIT_SIZES["XL/2"]), 256, 1)
    assert utilisation(5.7 * flops, 1, CHIPS["TPU v3"], 128) == pytest.approx(0.066, abs=0.001)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made and not yet forgotten, and remembers the most."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.most = {}, 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._forget, storage._cdata)
        self.most = max(self.most, self.now)
        return made

    def _forget(self, storage: int) -> None:
        self.now -= self.known.pop(storage)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_bytes_of_a_step_are_those_of_all_its_tensors(checkpointing):
    """A plain step holds what a step of the engine does, but for what that puts together for a while."""
    config = VideoDiTConfig(width=64, depth=6, heads=4, text_width=20, condition_width=24)
    model = VideoDiT(config)
    if checkpointing:
        for block in model.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    optimiser = torch.optim.AdamW(model.parameters())
    x, t, y = torch.randn(4, 16, 3, 16, 16), torch.rand(4), torch.randn(4, 1, 20)
    with LiveBytes() as live:
        for _ in range(2):
            model(x, t, y).square().mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=False)  # as in the second of several passes
    weights = video_dit_parameters(config)
    there_before = 2 * 4 * weights  # the weights, and their average, which this step does not have
    estimate = sharded_bytes(config, 192, 4, checkpointing=checkpointing, bytes_each=4)
    block = (weights - video_dit_parameters(replace(config, depth=0))) / config.depth
    together = 4 * (weights - config.depth * block + 3 * block)
    assert live.most + there_before == pytest.approx(estimate - together, rel=0.03)


def test_processes_share_what_there_is_once_a_weight_and_a_copy_costs_all_but_the_gradients():
    weights = video_dit_parameters(SMALL)
    alone, shared = (sharded_bytes(SMALL, 8, devices=devices) for devices in (1, 4))
    assert alone - shared == pytest.approx(20 * weights * 3 / 4)
    assert sharded_bytes(SMALL, 8, devices=4, copied=True) - shared == pytest.approx(4 * weights)
    with pytest.raises(ValueError, match="devices=0"):
        sharded_bytes(SMALL, 8, devices=0)
