"""From clips and captions to cached latents, encoded once, by all processes together (chapter 14).

What a model learns from is a folder of latents (`sora_edu.data.latents`). It may be made beforehand, or it is
made here from a folder of videos, or from the toy world. A file that an earlier run made from the same clips
with the same encoders stays.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.data import world
from sora_edu.data.buckets import Bucket, by_bucket
from sora_edu.data.latents import LatentFolder, source_of, write_latents
from sora_edu.data.videos import VideoFolder
from sora_edu.pretrained import T5, WAN, TextTokens, VideoAutoencoder
from sora_edu.sora import Sora
from sora_edu.train.distributed import Ranks
from sora_edu.train.loop import step_generator
from sora_edu.train.recipes import embed, training_prompt
from sora_edu.weights import sha256

TOY_SIZES = (Bucket(17, 64, 64), Bucket(9, 48, 80), Bucket(17, 80, 48))
"""Sizes of the toy world's clips, in turn: square, wide and short, tall."""

CHUNK = 32
"""Clips of a file."""

AT_ONCE = 8
"""Clips that are encoded at a time."""


@dataclass(frozen=True)
class Encoders:
    """What turns a clip and its caption into what a video DiT learns from."""

    video: Callable[[Float[Tensor, "b 3 f h w"]], Float[Tensor, "b c t h8 w8"]]
    """Of pixels in [-1, 1]."""
    text: Callable[[Sequence[str]], tuple[Float[Tensor, "b l e"], Bool[Tensor, "b l"]]]
    """Vectors and a mask, True at real tokens; the first vector stands for the whole caption."""


def tiny_encoders(device: torch.device) -> Encoders:
    """The parts of tiny Sora, which know the toy world's pictures and its words."""
    sora = Sora.from_pretrained("tiny").to(device)
    return Encoders(sora.autoencoder.encode, lambda texts: embed(sora.text, list(texts)))


def released_encoders(device: torch.device) -> Encoders:
    """A released video autoencoder and T5, downloaded; see `sora_edu.pretrained` for their licences."""
    video, text = VideoAutoencoder.from_pretrained().to(device), TextTokens.t5(truncate=True).to(device)
    return Encoders(video.encode, text.encode)


ENCODERS = {"tiny": tiny_encoders, "released": released_encoders}
"""By name, a function that loads them onto a device."""

VERSIONS = {
    "tiny": lambda: sha256(data_path("checkpoints/tiny/config.json")),
    "released": lambda: f"{WAN} and {T5}",
}
"""By name, what tells their latents from those of others, without loading them."""


# --- where clips come from -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyClips:
    """Training scenes of the toy world in several sizes, with captions as tiny Sora learned them."""

    count: int
    """How many clips."""

    @property
    def buckets(self) -> list[Bucket]:
        """The size of each clip."""
        return [TOY_SIZES[number % len(TOY_SIZES)] for number in range(self.count)]

    def batch(self, indices: Sequence[int]) -> tuple[Float[Tensor, "b 3 t h w"], list[str]]:
        """Clips of one size, and their captions."""
        chosen = [self._scenes[index] for index in indices]
        generators = [step_generator(0, index) for index in indices]
        captions = [training_prompt(*pair) for pair in zip(chosen, generators, strict=True)]
        return world.render_batch(chosen, *self.buckets[indices[0]]), captions

    @cached_property
    def _scenes(self) -> list[world.Scene]:
        return list(islice(world.training_scenes(0), self.count))

    def name(self, index: int) -> str:
        """What tells a clip from others."""
        return f"{index} of {self.count}"


def open_clips(
    data: Path | None, count: int, longest: int, pixels: int
) -> ToyClips | VideoFolder | LatentFolder:
    """What is in a folder: latents or videos; without one, so many clips of the toy world.

    `longest` and `pixels` limit clips of videos, as in `VideoFolder`. Raises ValueError for a folder that
    does not exist, or that has nothing in it that can be used.
    """
    if data is None:
        return ToyClips(count)
    if any(data.glob("*.safetensors")):
        return LatentFolder(data)
    return VideoFolder(data, longest=longest, pixels=pixels)


def _name(clips: ToyClips | VideoFolder, index: int) -> str:
    if isinstance(clips, ToyClips):
        return clips.name(index)
    video = clips.videos[index]
    size = (clips.folder / video.name).stat().st_size
    return f"{video.name}, {size} bytes, {video.bucket}: {video.caption}"


# --- encoding --------------------------------------------------------------------------------------------


def as_latents(
    clips: ToyClips | VideoFolder | LatentFolder, folder: Path, encoders: str, ranks: Ranks
) -> LatentFolder:
    """The clips as latents: as they are, or encoded into `folder` by all processes, a file each in turn.

    Raises ValueError on the first process if it fails on any.
    """
    if isinstance(clips, LatentFolder):
        return clips
    ranks.from_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    files, loaded = dict(_files(clips)), []

    def make(path: Path, indices: list[int]) -> None:
        source = f"{VERSIONS[encoders]()}: " + "\n".join(_name(clips, index) for index in indices)
        digest = hashlib.sha256(source.encode()).hexdigest()
        if source_of(path) != digest:
            if not loaded:
                loaded.append(ENCODERS[encoders](ranks.device))
            _encode(clips, indices, loaded[0], path, digest, ranks.device)

    todo = [(folder / name, indices) for name, indices in files.items()]
    for start in range(0, len(todo), ranks.size):
        mine = todo[start : start + ranks.size][ranks.rank : ranks.rank + 1]
        ranks.together(lambda mine=mine: [make(*one) for one in mine])
    ranks.from_first(lambda: _remove_others(folder, files))
    return ranks.from_first(lambda: LatentFolder(folder))


def _files(clips: ToyClips | VideoFolder) -> Iterator[tuple[str, list[int]]]:
    """Names of files, and the numbers of the clips that belong into each: all of one size."""
    for (frames, height, width), indices in by_bucket(clips.buckets).items():
        for start in range(0, len(indices), CHUNK):
            yield f"{frames}x{height}x{width}_{start:07}.safetensors", indices[start : start + CHUNK]


def _remove_others(folder: Path, names: dict) -> None:
    """What an earlier run encoded from clips that are no longer there."""
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            path.unlink()


@torch.no_grad()
def _encode(
    clips: ToyClips | VideoFolder,
    indices: list[int],
    encoders: Encoders,
    path: Path,
    source: str,
    device: torch.device,
) -> None:
    latents, captions = [], []
    for start in range(0, len(indices), AT_ONCE):
        video, told = clips.batch(indices[start : start + AT_ONCE])
        latents.append(encoders.video(video.to(device)).cpu())
        captions += told
    text, mask = encoders.text(captions)
    write_latents(path, torch.cat(latents), text, mask, source)
