"""The trainings of chapter 12: clips and prompts that find each other.

    python -m sora_edu train clip          trains the encoders that ship, on latents that are made first
    python -m sora_edu.train.clip          the same, and it writes data/curves/12_clip.json

- `train_clip`: the recipe; its clips and captions are those that the video model learns from;
- `learn_stills`: the same in seconds, on single frames, for a notebook;
- `retrieval`, `foiled`: what the encoders have learned, and what they have not.
"""

import argparse
import csv
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.clip import TinyClip, fingerprint, recall
from sora_edu.data import world
from sora_edu.data.scene import CANNOT_SPIN, Scene
from sora_edu.files import write_whole
from sora_edu.precision import CPU, best_device
from sora_edu.sora import Sora
from sora_edu.text import LARGEST_LOG_TEMPERATURE, contrastive_loss
from sora_edu.train.denoising import fit
from sora_edu.train.loop import CURVE, LoopConfig, Run
from sora_edu.train.pictures import seeded
from sora_edu.train.recipes import cached_examples, draw_seed, encode_scenes, training_prompt
from sora_edu.weights import save_weights

CLIP_LOOP = LoopConfig(
    steps=1100, batch=128, lr=1e-3, muon_lr=0.02, warmup=50, decay_from=0.4, weight_decay=0.05, ema=0.99
)
CLIPS, SCENES_SEED = 6144, 5
"""Clips to learn from, and the seed of their scenes."""

BLUR = 0.1
"""Noise on the latents in training, so that small flaws of made clips do not matter."""

TEST_SEED, TEST_CLIPS, GROUP = 12, 128, 32
"""Prompts that retrieval is measured on: so many, and once more in groups."""


def pair_loss(
    clip: TinyClip, latents: Float[Tensor, "b c t h w"], prompts: list[str], generator: torch.Generator
) -> Float[Tensor, ""]:
    """The contrastive loss of clips, slightly blurred, and their captions."""
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    temperature = clip.log_temperature.clamp(max=LARGEST_LOG_TEMPERATURE)
    return contrastive_loss(clip.clips(latents + BLUR * noise), clip.texts(prompts), temperature)


# --- the recipe ------------------------------------------------------------------------------------------


def train_clip(out: Path, loop: LoopConfig = CLIP_LOOP, clips: int = CLIPS) -> TinyClip:
    """Trains both encoders on latents of tiny Sora's autoencoder and on captions as it learns from them."""
    autoencoder = Sora.from_pretrained("tiny").autoencoder
    run = Run(seeded(TinyClip, loop.seed).to(best_device()), loop, out)
    run.model.reads.copy_(fingerprint(autoencoder))
    run.resume()
    scenes = list(islice(world.training_scenes(SCENES_SEED), clips))
    known = cached_examples(autoencoder.to(run.device), out / "latents", scenes, given=False)

    def loss_at(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(scenes), (loop.batch,), generator=generator)
        prompts = [training_prompt(scenes[i], generator, dropout=0.0) for i in chosen.tolist()]
        return pair_loss(run.model, known.latents[chosen].to(run.device).float(), prompts, generator)

    # At eighty tokens the plain kernel is faster on a CPU than the fused one, as in `recipes.train_dit`.
    with sdpa_kernel(SDPBackend.MATH) if run.device == CPU else nullcontext():
        clip = run.train(loss_at, "clips and prompts").eval()
    save_weights(clip, out / "clip.safetensors", torch.float16)
    return clip


# --- what it has learned ---------------------------------------------------------------------------------


@torch.no_grad()
def similarities(clip: TinyClip, autoencoder: CausalVideoAutoencoder, split: str, n: int) -> Tensor:
    """The cosine of each clip (row) and each prompt (column) of an evaluation set."""
    entries = world.evaluation_set(split, n, TEST_SEED)
    latents = encode_scenes(autoencoder, [entry.scene for entry in entries], n, split)
    return clip.clips(latents) @ clip.texts([entry.prompt for entry in entries]).T


def retrieval(similarity: Float[Tensor, "n n"], group: int = GROUP) -> dict[str, float]:
    """Recall at 1 both ways, among all and among groups of `group`."""
    parts = [similarity[i : i + group, i : i + group] for i in range(0, len(similarity), group)]
    return {
        "prompt for a clip": round(recall(similarity), 4),
        "clip for a prompt": round(recall(similarity.T), 4),
        f"prompt for a clip, of {group}": round(sum(map(recall, parts)) / len(parts), 4),
        f"clip for a prompt, of {group}": round(sum(recall(x.T) for x in parts) / len(parts), 4),
    }


def possible(split: str, n: int) -> float:
    """How often the right clip is found for a prompt by somebody who sees everything.

    Some prompts of an evaluation set fit several of its clips, and then even that somebody must guess.
    """
    entries = world.evaluation_set(split, n, TEST_SEED)
    fitting = [sum(_fits(entry.asked, other.scene) for other in entries) for entry in entries]
    return round(sum(1 / count for count in fitting) / n, 4)


def _fits(asked: Scene, scene: Scene) -> bool:
    """Whether all that was asked for is so in the scene."""
    same = len(asked.things) == len(scene.things) and all(
        getattr(asked, name) in (None, getattr(scene, name)) for name in ("background", "camera", "relation")
    )
    return same and all(
        getattr(one, name) in (None, getattr(other, name))
        for one, other in zip(asked.things, scene.things, strict=False)
        for name in ("shape", "colour", "size", "motion")
    )


OPPOSITE = {
    "moves left": "moves right", "moves right": "moves left", "moves up": "moves down",
    "moves down": "moves up", "grows": "shrinks", "shrinks": "grows",
}  # fmt: skip


def _another(value: str, values) -> str:
    """The next of some values, so that each is as often wrong as right."""
    values = list(values)
    return values[(values.index(value) + 1) % len(values)]


def _with_first(scene: Scene, **changes) -> Scene:
    return replace(scene, things=(replace(scene.things[0], **changes), *scene.things[1:]))


def _other_shape(scene: Scene) -> Scene:
    shapes = [s for s in world.SHAPES if not (scene.things[0].motion == "spins" and s in CANNOT_SPIN)]
    return _with_first(scene, shape=_another(scene.things[0].shape, shapes))


def _colours_swapped(scene: Scene) -> Scene:
    one, two = scene.things
    return replace(scene, things=(replace(one, colour=two.colour), replace(two, colour=one.colour)))


def _order_swapped(scene: Scene) -> Scene:
    return replace(scene, things=scene.things[::-1])


FOILS: dict[str, tuple[str, Callable[[Scene], Scene], Callable[[Scene], bool]]] = {
    "another colour": (
        "seen",
        lambda s: _with_first(s, colour=_another(s.things[0].colour, world.COLOURS)),
        lambda s: True,
    ),
    "another shape": ("seen", _other_shape, lambda s: True),
    "another size": (
        "seen",
        lambda s: _with_first(s, size=_another(s.things[0].size, world.SIZES)),
        lambda s: True,
    ),
    "the opposite motion": (
        "seen",
        lambda s: _with_first(s, motion=OPPOSITE[s.things[0].motion]),
        lambda s: s.things[0].motion in OPPOSITE,
    ),
    "colours of two things swapped": (
        "two_objects", _colours_swapped, lambda s: s.things[0].shape != s.things[1].shape,
    ),
    "who is in front swapped": ("two_objects", _order_swapped, lambda s: s.relation != "apart"),
}  # fmt: skip
"""Captions that are wrong in one thing: from which scenes, how they are changed, which scenes allow it."""


@torch.no_grad()
def foiled(
    clip: TinyClip, autoencoder: CausalVideoAutoencoder, n: int = TEST_CLIPS
) -> dict[str, dict[str, float | int]]:
    """For each of `FOILS`, how often the right caption scores higher than the wrong one; a coin gets half.

    Both captions have the same wording but for what is wrong, and name shape, colour, size, motion and how
    two things stand. Neither shows a combination that training never met.
    """
    found = {}
    for name, (split, change, allowed) in FOILS.items():
        scenes = [entry.scene for entry in world.evaluation_set(split, 4 * n, TEST_SEED)]
        scenes = [scene for scene in scenes if allowed(scene) and not change(scene).held_out][:n]
        naming = ("shape", "colour", "size", "motion", "relation")
        right, wrong = (
            clip.texts([world.caption(scene, scene.seed, naming) for scene in shown])
            for shown in (scenes, [change(scene) for scene in scenes])
        )
        seen = clip.clips(encode_scenes(autoencoder, scenes, len(scenes), name))
        higher = (seen * right).sum(1) > (seen * wrong).sum(1)
        found[name] = {"share": round(higher.float().mean().item(), 4), "n": len(scenes)}
    return found


# --- in seconds, on stills -------------------------------------------------------------------------------

STILLS, STILL_STEPS, STILL_BATCH, STILL_RATE = 2000, 240, 64, 2e-3
STILL_NAMES = frozenset({"size", "colour", "shape", "background"})
"""What can be seen in a still."""


@dataclass(frozen=True)
class Stills:
    """Single frames of the core of the world, as latents, with what they show."""

    scenes: list[Scene]
    """What they show."""
    latents: Float[Tensor, "n c 1 h w"]
    """Of frames of 64x64."""

    def captions(self, indices: list[int], generator: torch.Generator) -> list[str]:
        """A sentence about each, worded anew each time."""
        return [world.caption(self.scenes[i], draw_seed(generator), STILL_NAMES) for i in indices]


@lru_cache(maxsize=2)
def stills(count: int, seed: int) -> Stills:
    """Frames as latents of the shipped autoencoder: the same each time."""
    scenes = list(islice(world.training_scenes(seed, {"core": 1.0}), count))
    autoencoder = Sora.from_pretrained("tiny").autoencoder
    return Stills(scenes, encode_scenes(autoencoder, scenes, count, "stills", frames=1))


def learn_stills(
    known: Stills, seed: int = 0, steps: int = STILL_STEPS, progress: str = "",
    loss_of: Callable[[Tensor, Tensor, Tensor], Tensor] = contrastive_loss,
) -> tuple[TinyClip, list[tuple[int, float]]]:  # fmt: skip
    """Trains both encoders on stills and their captions; (step, mean loss since the entry before).

    `loss_of(a, b, log_temperature)` is the loss of the pairs' vectors.
    """
    clip = seeded(TinyClip, seed)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(known.scenes), (STILL_BATCH,), generator=generator)
        texts = clip.texts(known.captions(chosen.tolist(), generator))
        temperature = clip.log_temperature.clamp(max=LARGEST_LOG_TEMPERATURE)
        return loss_of(clip.clips(known.latents[chosen]), texts, temperature)

    average, curve = fit(clip, loss, steps, STILL_RATE, seed, progress)
    return average.eval(), curve


@torch.no_grad()
def still_recall(clip: TinyClip, fresh: Stills, group: int = GROUP) -> float:
    """How often the right one of `group` captions is found for a still, over all whole groups."""
    captions = fresh.captions(list(range(len(fresh.scenes))), torch.Generator().manual_seed(0))
    similarity = clip.clips(fresh.latents) @ clip.texts(captions).T
    return retrieval(similarity, group)[f"prompt for a clip, of {group}"]


# --- the reference run -----------------------------------------------------------------------------------


def record(path: Path, run: Path, seeds: int = 3, n: int = TEST_CLIPS) -> None:
    """Writes what the encoders of a finished run have learned, and short runs on stills, into one file."""
    autoencoder = Sora.from_pretrained("tiny").autoencoder
    clip = train_clip(run)
    with (run / CURVE).open(newline="") as stream:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream)]
    splits = ("seen", "held_out")
    tables = {split: similarities(clip, autoencoder, split, n) for split in splits}
    found = {
        "settings": {"steps": CLIP_LOOP.steps, "batch": CLIP_LOOP.batch, "clips": CLIPS, "asked": n},
        "steps": [step for step, _ in rows],
        "loss": [loss for _, loss in rows],
        "temperature": round(clip.log_temperature.clamp(max=LARGEST_LOG_TEMPERATURE).exp().item(), 2),
        "retrieval": {split: retrieval(table) for split, table in tables.items()},
        "possible": {split: possible(split, n) for split in splits},
        "foiled": foiled(clip, autoencoder, n),
        "stills": {"steps": [], "loss": [], "recall": []},
    }
    known, fresh = stills(STILLS, 0), stills(8 * GROUP, 1)
    for seed in range(seeds):
        small, curve = learn_stills(known, seed, progress=f"stills, seed {seed}")
        found["stills"]["steps"] = [step for step, _ in curve]
        found["stills"]["loss"].append([round(loss, 4) for _, loss in curve])
        found["stills"]["recall"].append(still_recall(small, fresh))
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the encoders of chapter 12, and write what came out.")
    parser.add_argument("--run", type=Path, default=Path("runs/clip"))
    parser.add_argument("--out", type=Path, default=Path("data/curves/12_clip.json"))
    parser.add_argument("--weights", type=Path, default=Path("data/checkpoints/clip/clip.safetensors"))
    options = parser.parse_args()
    record(options.out, options.run)
    options.weights.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.weights, (options.run / "clip.safetensors").read_bytes())
