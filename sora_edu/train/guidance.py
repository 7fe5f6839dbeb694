"""The measurements of chapter 12 on tiny Sora itself: guidance turned up, and the best of several clips.

Nothing is trained here. The sweep makes clips of a few prompts at several guidance scales, from the same
noise each time. The ranking makes four clips of each prompt and lets chapter 12's encoders choose; the judge,
who knows nothing of them, says whether the choice was good.

    python -m sora_edu.train.guidance      writes data/curves/12_guidance.json; again after new weights
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sora_edu.clip import TinyClip, tiny_clip
from sora_edu.data import world
from sora_edu.data.judge import judge
from sora_edu.files import write_whole
from sora_edu.measures import proportion
from sora_edu.precision import autocast
from sora_edu.sora import Sora

SCALES = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Guidance scales; 1 is plain conditional."""

PROMPTS, RANKED, SEEDS, PROMPT_SEED = 12, 40, 4, 12
"""Prompts of the sweep and of the ranking, clips for each of them, and what the prompts are drawn with."""

AT_ONCE = 16
"""Clips made at a time."""

Made = tuple[Tensor, Tensor]
"""Clips "b 3 t h w" in [-1, 1] and their latents "b c t h w"."""


@dataclass(frozen=True)
class Measured:
    """Clips of some prompts, several of each, and what they are like."""

    right: Bool[Tensor, "p k"]
    """In which the judge reads all that was asked for."""
    scores: Float[Tensor, "p k"]
    """The cosine of clip and prompt."""
    features: Float[Tensor, "p k d"]
    """What the encoder of clips sees in each."""
    contrast: float
    """Mean over the clips of the standard deviation of their pixels."""


@torch.no_grad()
def measure(
    make: Callable[[Sequence[str], Sequence[int]], Float[Tensor, "b 3 t h w"]],
    entries: Sequence[world.Prompted], sora: Sora, clip: TinyClip, seeds: int = SEEDS,
) -> Measured:  # fmt: skip
    """Makes `seeds` clips of each prompt with `make(prompts, seeds)`, and looks at them."""
    pairs = [(entry, seed) for entry in entries for seed in range(seeds)]
    right, scores, features, contrast = [], [], [], []
    for start in range(0, len(pairs), AT_ONCE):
        some, numbers = zip(*pairs[start : start + AT_ONCE], strict=True)
        prompts = [entry.prompt for entry in some]
        clips = make(prompts, numbers)
        with autocast(device=sora.autoencoder.device):
            latents = sora.autoencoder.encode(clips.to(sora.autoencoder.device)).float().cpu()
        right += [judge(made).matches(entry.asked) for made, entry in zip(clips.cpu(), some, strict=True)]
        scores.append((clip.clips(latents) * clip.texts(prompts)).sum(1))
        features.append(clip.features(latents))
        contrast.append(clips.cpu().flatten(1).std(1))
    shape = (len(entries), seeds)
    return Measured(
        torch.tensor(right).view(shape), torch.cat(scores).view(shape),
        torch.cat(features).view(*shape, -1), torch.cat(contrast).mean().item(),
    )  # fmt: skip


def spread(features: Float[Tensor, "p k d"]) -> float:
    """How far clips of one prompt lie apart: the root of the variance about the prompt's mean, in all."""
    return features.var(1).sum(1).mean().sqrt().item()


def best_of(found: Measured, n: int) -> Bool[Tensor, "p m"]:
    """Whether the clip with the highest score among each `n` in a row is right; n divides the clips."""
    groups = found.scores.unflatten(1, (-1, n))
    chosen = groups.argmax(2, keepdim=True)
    return found.right.unflatten(1, (-1, n)).gather(2, chosen).squeeze(2)


def real_clips(prompts: Sequence[str], seeds: Sequence[int]) -> Float[Tensor, "b 3 t h w"]:
    """Rendered clips of the prompts, which leave start, speed and phase open."""
    scenes = [world.parse(p).complete(1 + 977 * seed) for p, seed in zip(prompts, seeds, strict=True)]
    return world.render_batch(scenes)


def sweep(sora: Sora, clip: TinyClip, scales: Sequence[float] = SCALES, prompts: int = PROMPTS) -> dict:
    """Clips at each scale against rendered ones: share right, spread within a prompt, contrast, score."""
    entries = world.evaluation_set("seen", prompts, PROMPT_SEED)
    real = measure(real_clips, entries, sora, clip)
    rows = []
    for scale in scales:
        found = measure(lambda p, s, scale=scale: sora.sample(p, s, guidance=scale), entries, sora, clip)
        rows.append({"scale": scale, **_described(found, real)})
    return {"real": _described(real, real), "scales": rows}


def _described(found: Measured, real: Measured) -> dict:
    return {
        "adherence": proportion(found.right.flatten().tolist()),
        "spread": round(spread(found.features) / spread(real.features), 4),
        "contrast": round(found.contrast / real.contrast, 4),
        "score": round(found.scores.mean().item(), 4),
    }


def ranking(sora: Sora, clip: TinyClip, prompts: int = RANKED) -> dict:
    """Best of 1, 2 and 4 by score, beside what anybody could have chosen, and scores of right and wrong."""
    entries = world.evaluation_set("seen", prompts, PROMPT_SEED + 1)
    found = measure(sora.sample, entries, sora, clip)
    rows = []
    for n in (n for n in (1, 2, 4) if n <= found.right.shape[1]):
        any_right = found.right.unflatten(1, (-1, n)).any(2)
        rows.append({
            "n": n,
            "chosen": round(best_of(found, n).float().mean().item(), 4),
            "possible": round(any_right.float().mean().item(), 4),
        })  # fmt: skip
    return {
        "best_of": rows,
        "prompts": prompts,
        "scores": [round(score, 3) for score in found.scores.flatten().tolist()],
        "right": found.right.flatten().tolist(),
    }


def record(
    path: Path, prompts: int = PROMPTS, ranked: int = RANKED, scales: Sequence[float] = SCALES
) -> None:
    """Measures the shipped tiny Sora and writes the file; it names the checkpoint."""
    sora, clip = Sora.from_pretrained("tiny"), tiny_clip()
    found = {
        "checkpoint_sha256": sora.sha256,
        "settings": {
            "steps": sora.config.steps, "guidance": sora.config.guidance, "prompts": prompts, "seeds": SEEDS,
        },
        "sweep": sweep(sora, clip, scales, prompts),
        "ranking": ranking(sora, clip, ranked),
    }  # fmt: skip
    write_whole(path, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure guidance and ranking, for chapter 12.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/12_guidance.json"))
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--ranked", type=int, default=RANKED)
    options = parser.parse_args()
    record(options.out, options.prompts, options.ranked)
