"""Scaling up on paper: parameters, multiply-adds, memory, time and cost, before anything is built (ch. 13).

Everything here is a closed form, exact where the course's own modules are concerned (the tests count on the
built modules), and an estimate where a machine is: `plan` puts them together for a video model. Units: MACs
are multiply-adds, a FLOP is one multiplication or addition, so a MAC is two of them; bytes are bytes, and a
GB is 10^9 of them.

Sources: Kaplan et al. 2020 (backward costs twice the forward pass), Hoffmann et al. 2022 (best size for a
budget), Chen et al. 2016 and Korthikanti et al. 2022 (activations and their recomputation), Rajbhandari et
al. 2020 (sharding), Chowdhery et al. 2022 (MFU), Micikevicius et al. 2018 (mixed precision).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sora_edu.dit import DIT_SIZES
from sora_edu.video_dit import MASK_CHANNELS, VideoDiTConfig, video_dit_macs, video_dit_parameters

T5_WIDTH = 4096
"""Channels of a text token of T5-XXL."""

CELL = (4, 8, 8)
"""Frames, rows and columns of pixels behind a latent cell of a causal 4x8x8 autoencoder."""

VIDEO_SIZES = {
    name: VideoDiTConfig(
        width=size.width, depth=size.depth, heads=size.heads, text_width=T5_WIDTH, condition_width=size.width
    )
    for name, size in ((name, DIT_SIZES[f"{name}/2"]) for name in ("S", "B", "L", "XL"))
} | {
    "full": VideoDiTConfig(
        width=2048, depth=28, heads=16, text_width=T5_WIDTH, condition_width=2048, positions="rope"
    ),
}
"""Video DiTs with the widths and depths of DiT-S to XL, and a full-size one of about two billion
weights: 16-channel latents, patches of 1x2x2, joint attention, adaLN-Zero, normalised queries and keys. The
full-size one has rotary positions, the others fixed sinusoids."""


# --- tokens and operations -------------------------------------------------------------------------------


def clip_grid(
    frames: int, height: int, width: int, patch: tuple[int, int, int] = (1, 2, 2)
) -> tuple[int, int, int]:
    """Patches of a clip along time, height and width, behind a causal 4x8x8 autoencoder.

    Args:
        frames: 1 + 4 k of them: the first alone, then a latent frame for every four.
        height, width: in pixels; multiples of 8 times the patch.
        patch: latent cells of a token along time, height and width.

    Raises:
        ValueError: a size that does not come out even, with the nearest ones that do.
    """
    if frames < 1 or (frames - 1) % CELL[0]:
        near = 1 + CELL[0] * max(0, (frames - 1) // CELL[0])
        raise ValueError(f"frames={frames}: must be 1 + 4 k, for example {near} or {near + CELL[0]}")
    for name, size, cell, side in zip(("height", "width"), (height, width), CELL[1:], patch[1:], strict=True):
        step = cell * side
        if size < step or size % step:
            near = max(step, size - size % step)
            raise ValueError(
                f"{name}={size}: must be a multiple of {step}, for example {near} or {near + step}"
            )
    latent = 1 + (frames - 1) // CELL[0]
    if latent % patch[0]:
        raise ValueError(f"frames={frames} are {latent} latent frames, which patch={patch} does not divide")
    return (latent // patch[0], height // (CELL[1] * patch[1]), width // (CELL[2] * patch[2]))


def clip_tokens(frames: int, height: int, width: int, patch: tuple[int, int, int] = (1, 2, 2)) -> int:
    """Tokens of a clip; arguments and errors as in `clip_grid`."""
    return math.prod(clip_grid(frames, height, width, patch))


def training_flops(macs: int | float, batch: int, steps: int) -> int | float:
    """FLOPs of a training run: 2 for each MAC, and three times the forward pass.

    The backward pass makes two matrix products for each one of the forward pass: the gradient of its input
    and that of its weights. The optimiser is left out, for its work does not grow with the batch.

    Args:
        macs: multiply-adds of one evaluation for one sample.
        batch: samples of a step.
        steps: optimiser steps.

    Raises:
        ValueError: a number below 1.
    """
    _refuse_small(macs=macs, batch=batch, steps=steps)
    return 2 * 3 * macs * batch * steps


# --- memory ----------------------------------------------------------------------------------------------


def state_bytes(parameters: int | float, devices: int = 1, stage: int = 0) -> float:
    """Bytes on each device for what there is once per weight, in mixed precision with Adam.

    2 for the weight in bf16, 2 for its gradient, and 12 for the optimiser: a float32 copy of the weight
    (small updates are lost in bf16) and two moments. Rajbhandari et al. 2020, section 3.

    Args:
        parameters: trained weights.
        devices: how many share the work.
        stage: what is cut into equal shares instead of copied: 0 nothing, 1 the optimiser's 12 bytes,
            2 the gradients as well, 3 the weights as well (FSDP's full sharding).

    Raises:
        ValueError: no weight, no device, or a stage that is none of 0 to 3.
    """
    _refuse_small(parameters=parameters, devices=devices)
    if stage not in (0, 1, 2, 3):
        raise ValueError(
            f"stage={stage}: use 0 (copies), 1 (optimiser), 2 (and gradients) or 3 (and weights)"
        )
    shared = (0, 12, 14, 16)[stage]
    return parameters * (16 - shared + shared / devices)


def block_activations(
    tokens: int, width: int, heads: int, mlp_ratio: int = 4, qk_norm: bool = False, fused: bool = True
) -> int:
    """Numbers that an adaLN-Zero block keeps for its backward pass, for one sample.

    Each matrix product keeps its input; so do each norm, each gate, and the activation function. With
    `fused`, attention keeps a number for each query and head; written out, it keeps all weights. Exact for
    `DiTBlock`, up to what the condition leaves behind once a sample: 10 widths.
    """
    of_a_token = (12 + 2 * mlp_ratio) * width + 4
    of_a_token += 4 * width + 2 * heads if qk_norm else 0
    of_a_token += width if qk_norm and fused else 0  # its answers lie head by head, and merging copies them
    of_a_token += heads if fused else heads * tokens
    return tokens * of_a_token


def activation_bytes(
    config: VideoDiTConfig,
    tokens: int,
    *,
    checkpointing: bool = False,
    fused: bool = True,
    bytes_each: int = 2,
) -> int:
    """Bytes that a forward pass keeps for the backward pass, for one clip.

    With `checkpointing` each block keeps its input alone; in the backward pass it runs again, one block at a
    time, so that what *one* block keeps comes on top. `bytes_each` is 2 in bf16 and 4 in float32. The few
    numbers that are kept in float32 all the same, among them the cosines and sines of rotary positions (about
    1 % at full size), and the condition's, are left out.

    Raises:
        ValueError: less than one token, `bytes_each` not 2 or 4, cross-attention or `detail`, for which there
            is no estimate here, or factorised attention that is not fused.
    """
    _refuse_small(tokens=tokens)
    if config.detail:
        raise ValueError(f"detail={config.detail}: memory is worked out for models without; use detail=0")
    if config.conditioning != "adaln_zero" or (config.attention != "joint" and not fused):
        raise ValueError(
            f"conditioning={config.conditioning!r}, attention={config.attention!r}, fused={fused}: memory is "
            "worked out for adaln_zero alone, and for attention that is joint or fused"
        )
    if bytes_each not in (2, 4):
        raise ValueError(f"bytes_each={bytes_each}: use 2 (bf16) or 4 (float32)")
    c = config
    block = block_activations(tokens, c.width, c.heads, c.mlp_ratio, c.qk_norm, fused)
    blocks = c.depth * tokens * c.width + block if checkpointing else c.depth * block
    ends = tokens * (math.prod(c.patch) * (2 * c.channels + MASK_CHANNELS) + 3 * c.width)
    return bytes_each * (blocks + ends)


def sharded_bytes(
    config: VideoDiTConfig,
    tokens: int,
    batch: int = 1,
    *,
    devices: int = 1,
    checkpointing: bool = False,
    bytes_each: int = 2,
    copied: bool = False,
) -> float:
    """Bytes on each device at the worst moment of a step of the course's own engine, `train.distributed`.

    In equal shares, in float32: weights, their average, gradients, and Adam's two moments, 20 bytes for each
    weight. (In the first of several passes the gradients come as the activations go, and it is less.) For
    the moment, in `bytes_each`: two blocks put together and the gradient of one, the layers outside of the
    blocks, what the forward pass keeps, and on the way back the gradients at both ends of an activation
    function. That is the sum of all tensors; what a framework and its allocator take on top is theirs, and
    is measured (`benchmarks/training_memory.py`).

    Args:
        config: the model.
        tokens: patches of a clip.
        batch: clips on each device at a time.
        devices: how many share the weights.
        checkpointing, bytes_each: see `activation_bytes`.
        copied: whether a checkpoint that is being written is a copy in the same memory, as on a processor:
            16 bytes more for each weight, of all but the gradients.

    Raises:
        ValueError: as `activation_bytes`, or less than one clip or device.
    """
    _refuse_small(batch=batch, devices=devices)
    weights = video_dit_parameters(config)
    ends = video_dit_parameters(replace(config, depth=0))
    block = (weights - ends) / config.depth
    shares = (20 + 16 * copied) * weights / devices
    together = bytes_each * (ends + 3 * block)
    back = bytes_each * 2 * tokens * config.mlp_ratio * config.width
    kept = activation_bytes(config, tokens, checkpointing=checkpointing, bytes_each=bytes_each)
    return shares + together + batch * (kept + back)


def saved_bytes(run: Callable[[], Tensor], weights: Iterable[Tensor] = ()) -> int:
    """Measures what `run` keeps for a backward pass: bytes of all storages saved by autograd, each once.

    Args:
        run: a forward pass.
        weights: tensors that are there anyway and are not counted.
    """
    known, kept = {weight.untyped_storage().data_ptr() for weight in weights}, {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage  # held, so that its address is not given away again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


# --- chips and time --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chip:
    """What a maker says of an accelerator."""

    peak: int | float
    """FLOPs in a second for products of dense bf16 matrices."""
    memory: int | float
    """Bytes of its fast memory."""
    source: str
    """Where both are published."""


CHIPS = {
    "A100": Chip(312e12, 80e9, "NVIDIA, A100 80GB SXM data sheet"),
    "H100": Chip(989.4e12, 80e9, "NVIDIA, H100 SXM data sheet: 1,979 with sparsity, half of it without"),
    "H200": Chip(989.4e12, 141e9, "NVIDIA, H200 SXM data sheet: 1,979 with sparsity, half of it without"),
    "TPU v3": Chip(123e12, 32e9, "Google Cloud, TPU v3: a chip of two cores"),
}
"""Published peaks. The large number of a data sheet is for sparse matrices, of which no training is made."""


def utilisation(flops: int | float, seconds: int | float, chip: Chip, devices: int = 1) -> int | float:
    """Model FLOPs utilisation (MFU): the share of the peak that went into FLOPs that the model needs.

    Recomputed activations do not count as needed. Chowdhery et al. 2022 (PaLM), appendix B. Raises
    ValueError for numbers that are not positive.
    """
    _refuse_small(devices=devices)
    _refuse_nothing(flops=flops, seconds=seconds)
    return flops / (seconds * chip.peak * devices)


def training_days(flops: int | float, peak: int | float, devices: int, mfu: int | float) -> int | float:
    """Days that a training takes.

    Args:
        flops: of the whole training, all devices together.
        peak: FLOPs that one device could do in a second, dense.
        devices: how many there are.
        mfu: share of the peak that is reached, 0 to 1.

    Raises:
        ValueError: numbers that are not positive, or an `mfu` above 1.
    """
    _refuse_nothing(flops=flops, peak=peak, devices=devices)
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu}: a share above 0 and at most 1, such as 0.4 for 40 per cent")
    return flops / (peak * devices * mfu) / 86400


@dataclass(frozen=True)
class Plan:
    """What a training step of a video model will take on each device."""

    tokens: int
    """Tokens of a clip."""
    parameters: int
    """Weights of the model."""
    macs: int
    """Multiply-adds of one evaluation of one clip."""
    states: int | float
    """Bytes for weights, gradients and optimiser."""
    activations: int | float
    """Bytes that the forward pass keeps."""

    @property
    def memory(self) -> int | float:
        """Bytes in all, without what the framework itself, buffers and fragmentation take."""
        return self.states + self.activations


def plan(
    config: VideoDiTConfig,
    frames: int,
    height: int,
    width: int,
    *,
    chip: Chip = CHIPS["H100"],
    devices: int = 1,
    stage: int = 3,
    checkpointing: bool = True,
    batch: int = 1,
) -> Plan:
    """Plans the training of a video model in mixed precision, without building anything.

    Args:
        config: the model.
        frames, height, width: of the clips, in pixels; see `clip_grid`.
        chip: one device of those that it trains on.
        devices, stage: how the states are shared; see `state_bytes`.
        checkpointing: whether blocks run again in the backward pass.
        batch: clips on each device at a time.

    Raises:
        ValueError: it does not fit, with the estimate and the nearest plan that does; bad sizes; or a model
            whose memory `activation_bytes` does not know.
    """
    _refuse_small(batch=batch)
    grid = clip_grid(frames, height, width, config.patch)
    tokens = math.prod(grid)
    parameters = video_dit_parameters(config)
    states = state_bytes(parameters, devices, stage)
    made = Plan(
        tokens,
        parameters,
        video_dit_macs(config, tokens, frames=grid[0]),
        states,
        batch * activation_bytes(config, tokens, checkpointing=checkpointing),
    )
    if made.memory > chip.memory:
        shortest = clip_tokens(1 + CELL[0] * (config.patch[0] - 1), height, width, config.patch)
        least = batch * activation_bytes(config, shortest, checkpointing=checkpointing)
        raise ValueError(
            f"{made.memory / 1e9:.1f} GB are needed (states {states / 1e9:.1f}, activations "
            f"{made.activations / 1e9:.1f}) and a device has {chip.memory / 1e9:.0f}; "
            + _what_would_fit(made, least, config.patch[0], stage, chip.memory)
        )
    return made


def _what_would_fit(made: Plan, least: int | float, latent: int, stage: int, memory: int | float) -> str:
    """The longest clip for which there is room, or failing that, devices enough for the shortest.

    Activations grow in proportion to the latent frames, as fused attention keeps no weights; `least` is what
    the shortest clip takes, of `latent` latent frames.
    """
    if (times := int((memory - made.states) // least)) > 0:
        return f"frames={1 + CELL[0] * (latent * times - 1)} would fit"
    for devices in (2**k for k in range(1, 15)):
        if state_bytes(made.parameters, devices, stage) + least <= memory:
            return f"frames={1 + CELL[0] * (latent - 1)} would fit with devices={devices}"
    return "not even the shortest clip would fit; take a smaller batch or frames, checkpointing, or stage=3"


# --- the law of a scaling curve --------------------------------------------------------------------------


def fit_power_law(compute: Sequence[int | float], loss: Sequence[int | float]) -> tuple[float, float]:
    """Fits loss = a compute^-b, a straight line in logarithms, by least squares.

    Args:
        compute: budgets, in any unit; at least two different ones.
        loss: the loss that each buys, above whatever floor it is measured from.

    Returns:
        a and b. Ten times the compute multiply the loss by 10^-b.

    Raises:
        ValueError: lengths that differ, fewer than two budgets, or numbers that are not positive.
    """
    if len(compute) != len(loss) or len(set(compute)) < 2:
        raise ValueError(f"{len(compute)} budgets and {len(loss)} losses: give as many, two or more of them")
    if min(*compute, *loss) <= 0:
        raise ValueError("compute and loss must be positive: their logarithms are taken")
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (compute, loss))
    line = torch.stack([torch.ones_like(x), -x], dim=1)  # log loss = log a - b log compute
    log_a, b = torch.linalg.lstsq(line, y).solution
    return log_a.exp().item(), b.item()


def fit_with_floor(compute: Sequence[int | float], loss: Sequence[int | float]) -> tuple[float, float, float]:
    """Fits loss = floor + a compute^-b, trying floors from 0 up to just below the smallest loss.

    For each floor the rest is `fit_power_law`; the floor with the smallest squared errors of the loss wins.

    Returns:
        floor, a and b.

    Raises:
        ValueError: fewer than four points, which three numbers would fit whatever they were; and what
            `fit_power_law` refuses.
    """
    if len(set(compute)) < 4:
        raise ValueError(
            f"{len(set(compute))} budgets: a floor takes four or more, else the fit says nothing"
        )
    fits = []
    for share in torch.linspace(0, 0.999, 1000, dtype=torch.float64).tolist():
        floor = share * min(loss)
        a, b = fit_power_law(compute, [value - floor for value in loss])
        fits.append((floor, a, b))
    return min(fits, key=lambda fit: _squared_errors(compute, loss, fit))


def _squared_errors(
    compute: Sequence[int | float], loss: Sequence[int | float], fit: tuple[float, float, float]
) -> int | float:
    floor, a, b = fit
    return sum((floor + a * c**-b - value) ** 2 for c, value in zip(compute, loss, strict=True))


# --- bad input -------------------------------------------------------------------------------------------


def _refuse_small(**counts: int | float) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count}: must be at least 1")


def _refuse_nothing(**values: int | float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: must be above 0")
