"""The recipe `full-size`: a video DiT of any size on cached latents, on as many processes as there are.

    python -m sora_edu train full-size --config toy                         one process, the toy world
    torchrun --nproc-per-node 8 -m sora_edu train full-size --data FOLDER   eight GPUs, real video

A step: the clips of one bucket (`sora_edu.data.buckets`), a time and noise for each, and the squared error of
the velocity. All of it follows from (seed, step) and a clip's place in the batch. Larger clips spend more
steps near noise, for there are more cells to average over (Esser et al. 2024, section 5.3.2).
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sora_edu.assets import data_path
from sora_edu.data import world
from sora_edu.data.buckets import Bucket, BucketBatches
from sora_edu.data.latents import LatentFolder, source_of, write_latents
from sora_edu.diffusion import add_noise, logit_normal_times, shift_times, velocity
from sora_edu.files import write_whole
from sora_edu.scale import VIDEO_SIZES, clip_tokens
from sora_edu.sora import Sora
from sora_edu.train.distributed import Ranks, ShardedRun, joined, shares
from sora_edu.train.loop import LoopConfig, step_generator
from sora_edu.train.recipes import PROMPT_DROPOUT, embed, encode_scenes, training_prompt
from sora_edu.video_dit import VideoDiT, VideoDiTConfig
from sora_edu.weights import load_weights, save_tensors, sha256

CONFIGS = {
    "toy": VideoDiTConfig(width=64, depth=2, heads=4, condition_width=64),
    "tiny": VideoDiTConfig(),
} | VIDEO_SIZES
"""Models by name, the smallest first: two for a laptop, and those of `sora_edu.scale`."""

LAPTOP = LoopConfig(steps=200, batch=8, lr=1e-3, warmup=20, decay_from=1.0, ema=0.99, save_every=50)
CLUSTER = LoopConfig(steps=100_000, batch=256, lr=1e-4, warmup=1000, decay_from=1.0, ema=0.9999, save_every=500)
"""How the two for a laptop are trained, and the others: as DiT was, with a warm-up."""

TOY_SIZES = (Bucket(17, 64, 64), Bucket(9, 48, 80), Bucket(17, 80, 48))
TOY_CLIPS = 96
"""What the toy world is encoded to where no data are given."""

BASE_TOKENS = 256
"""Tokens of a clip up to which times are not shifted."""


# --- a step ----------------------------------------------------------------------------------------------


def time_shift(tokens: int) -> float:
    """How far times move towards noise for a clip of so many tokens: by sqrt(tokens / 256), never back."""
    return max(1.0, math.sqrt(tokens / BASE_TOKENS))


def make_loss(
    model: nn.Module, data: LatentFolder, loop: LoopConfig, device: torch.device
) -> Callable[[int, range], Float[Tensor, ""]]:
    """The loss of some places of a step's batch, for `ShardedRun.train`.

    Every place has a generator of its own, so that it meets the same clip, time and noise whichever process
    computes it. A clip whose text is dropped sees zeros in its place.
    """
    batches = BucketBatches(data.buckets, loop.batch, loop.seed)

    def loss_at(step: int, places: range) -> Float[Tensor, ""]:
        chosen = batches.at(step)
        seeds = torch.randint(2**62, (loop.batch,), generator=step_generator(loop.seed, step)).tolist()
        generators = [torch.Generator().manual_seed(seeds[place]) for place in places]
        x0, text, mask = data.batch([chosen[place] for place in places])
        noise = torch.stack([torch.randn(x0.shape[1:], generator=g) for g in generators])
        t = torch.cat([logit_normal_times(1, generator=g) for g in generators])
        tokens = clip_tokens(*data.buckets[chosen[0]], model.config.patch)
        t = shift_times(t, time_shift(tokens))
        dropped = torch.cat([torch.rand(1, generator=g) < PROMPT_DROPOUT for g in generators])
        text = text.masked_fill(dropped[:, None, None], 0)
        x0, noise, t, text, mask = (part.to(device) for part in (x0, noise, t, text, mask))
        predicted = model(add_noise(x0, noise, t), t, text, mask)
        return (predicted.float() - velocity(x0, noise)).square().mean()

    return loss_at


# --- data ------------------------------------------------------------------------------------------------


def open_data(data: Path | None, out: Path, clips: int, ranks: Ranks) -> LatentFolder:
    """The latents to learn from: those in the folder `data`, or the toy world's, encoded once into `out`.

    Raises ValueError for a folder that has none.
    """
    if data is None:
        data = out / "latents"
        ranks.together(lambda: _encode_toy_world(data, clips, ranks))
    return ranks.from_first(lambda: LatentFolder(data))


def _encode_toy_world(folder: Path, clips: int, ranks: Ranks) -> None:
    """Encodes training scenes with the parts of tiny Sora; each process takes some of the sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    digest, sora = sha256(data_path("checkpoints/tiny/config.json")), None
    for number, size in enumerate(TOY_SIZES):
        count = clips // len(TOY_SIZES) + (number < clips % len(TOY_SIZES))
        path = folder / f"toy_{number}.safetensors"
        source = f"{count} scenes of the toy world, {size}, by {digest}"
        if number % ranks.size != ranks.rank or not count or source_of(path) == source:
            continue
        sora = sora or Sora.from_pretrained("tiny")
        generator = step_generator(0, number)
        scenes = list(islice(world.training_scenes(number), count))
        with torch.no_grad():
            text, mask = embed(sora.text, [training_prompt(scene, generator) for scene in scenes])
        latents = encode_scenes(sora.autoencoder, scenes, count, size=size)
        write_latents(path, latents, text, mask, source)


# --- the recipe ------------------------------------------------------------------------------------------


def train_full_size(
    out: Path,
    *,
    config: str = "full",
    data: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    save_every: int | None = None,
    accumulate: int = 1,
    checkpointing: bool = False,
    compiled: bool = False,
    clips: int = TOY_CLIPS,
) -> None:
    """Trains into a folder, going on where it was; the averaged weights end up in `out`/model.safetensors.

    Args:
        out: the run's folder, which all processes see.
        config: the model, by its name in `CONFIGS`; its text width and channels are those of the data.
        data: a folder of latents; None for the toy world.
        steps, batch, save_every: instead of the configuration's; the batch is that of all processes.
        accumulate: passes in which each process computes its share of a batch.
        checkpointing: blocks keep their input alone, and run again in the backward pass.
        compiled: whether torch.compile compiles the blocks.
        clips: of the toy world.

    Raises:
        ValueError: on the first process, for whatever does not fit; the others end with exit code 2.
    """
    with joined() as ranks:
        ranks.together(lambda: _check_name(config))
        changes = {"steps": steps, "batch": batch, "save_every": save_every}
        loop = LAPTOP if config in ("toy", "tiny") else CLUSTER
        loop = replace(loop, **{name: value for name, value in changes.items() if value is not None})
        ranks.together(lambda: shares(loop.batch, ranks.size, accumulate))
        latents = open_data(data, out, clips, ranks)
        made = replace(CONFIGS[config], channels=latents.channels, text_width=latents.text_width)
        torch.manual_seed(loop.seed)
        with ranks.device:
            model = VideoDiT(made)
        run = ShardedRun(
            model, loop, out, ranks, settings=_settings(made, latents), accumulate=accumulate,
            checkpointing=checkpointing, compiled=compiled,
        )  # fmt: skip
        run.resume()
        average = run.train(make_loss(model, latents, loop, ranks.device), f"full-size, {config}")
        _write_model(average, made, out, ranks)


def _check_name(config: str) -> None:
    if config not in CONFIGS:
        raise ValueError(f"config={config!r} is unknown; use one of: {', '.join(CONFIGS)}")


def _settings(config: VideoDiTConfig, data: LatentFolder) -> dict:
    """What a checkpoint must agree in: the model's sizes, and which clips there are."""
    names = "".join(f"{path.name} {row} {data.buckets[i]}\n" for i, (path, row) in enumerate(data.places))
    return asdict(config) | {"data": hashlib.sha256(names.encode()).hexdigest()[:12]}


def _write_model(average: dict, config: VideoDiTConfig, out: Path, ranks: Ranks) -> None:
    whole = {name: share.full_tensor() for name, share in average.items()}  # all processes give theirs
    if ranks.rank == 0:
        digest = save_tensors(whole, out / "model.safetensors")
        content = json.dumps({"model": asdict(config), "sha256": digest}, indent=1)
        write_whole(out / "config.json", content.encode())


def load_full_size(out: Path | str) -> VideoDiT:
    """The model that a finished run left in its folder. Raises CheckpointError if there is none."""
    out = Path(out)
    kept = json.loads((out / "config.json").read_text())
    model = VideoDiT(VideoDiTConfig(**kept["model"])).eval().requires_grad_(False)
    load_weights(model, out / "model.safetensors", kept["sha256"])
    return model
