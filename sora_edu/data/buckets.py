"""Buckets: clips of the same length, height and width, so that they can be stacked into a batch (chapter 14).

A folder of real videos has every size. Cutting all of them to one square loses pictures' sides (chapter 09),
and packing sequences is one way out. Buckets are the other: each clip is made to fit the nearest grid of the
model, and a batch draws from one bucket alone. After the buckets of Open-Sora 1.1 (Zheng et al. 2024).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

import torch

STEP = 16
"""Sides are multiples of it: 8 pixels of a latent cell, and 2 cells of a patch."""


class Bucket(NamedTuple):
    """The size that all clips of a bucket have."""

    frames: int
    """1 + 4 k."""
    height: int
    """Pixels, a multiple of `STEP`."""
    width: int
    """Pixels, a multiple of `STEP`."""


def bucket_for(frames: int, height: int, width: int, *, longest: int, pixels: int) -> Bucket:
    """The bucket of a video, which is never enlarged.

    Args:
        frames, height, width: of the video; at least 1 frame of `STEP` x `STEP`.
        longest: most frames of a clip.
        pixels: most pixels of a frame, at least one square of `STEP`.

    Returns:
        The most frames 1 + 4 k that the video and `longest` allow. Sides next to those that the video has,
        scaled down to `pixels` where it has more: of these the ones whose ratio is nearest to the video's.

    Raises:
        ValueError: a video or a limit that is too small.
    """
    for name, value, least in (
        ("frames", frames, 1), ("height", height, STEP), ("width", width, STEP), ("longest", longest, 1),
        ("pixels", pixels, STEP**2),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    scale = min(1.0, math.sqrt(pixels / (height * width)))
    # Below and above the wanted side, in steps; a very long side may have to give way to the limit.
    most = pixels // STEP**2
    rows, columns = (
        {min(max(1, int(scale * side / STEP) + up), side // STEP, most) for up in (0, 1)}
        for side in (height, width)
    )
    fitting = [(r, c) for r, c in product(rows, columns) if r * c <= most]
    bent = [abs(math.log(r / c * width / height)) for r, c in fitting]
    best = min(zip(bent, fitting, strict=True), key=lambda pair: (pair[0], -math.prod(pair[1])))[1]
    return Bucket(1 + (min(frames, longest) - 1) // 4 * 4, *(STEP * side for side in best))


def share_kept(height: int, width: int, bucket: Bucket) -> float:
    """Share of a frame's area that stays when it is scaled to cover the bucket and what overhangs is cut."""
    scale = max(bucket.height / height, bucket.width / width)
    return bucket.height * bucket.width / (scale**2 * height * width)


def by_bucket(buckets: Sequence[Bucket]) -> dict[Bucket, list[int]]:
    """The numbers of the clips of each bucket, given the bucket of each clip."""
    members: dict[Bucket, list[int]] = {}
    for index, bucket in enumerate(buckets):
        members.setdefault(bucket, []).append(index)
    return members


def check_one_bucket(indices: Sequence[int], buckets: Iterable[Bucket]) -> None:
    """Raises ValueError if the clips with these numbers, whose buckets these are, are not of one bucket."""
    if len(set(buckets)) != 1:
        raise ValueError(f"indices={list(indices)} are not of one bucket; BucketBatches gives such")


class BucketBatches:
    """Which clips each step of a training sees: always a full batch, always of one bucket.

    A round is `batch` passes over all clips. In it a bucket of n clips gives n batches, and every clip is
    seen equally often, however small its bucket. Step k's batch depends on (seed, k) alone, so that a run
    that was stopped goes on with the clips that it would have seen, on however many processes.
    """

    def __init__(self, buckets: Sequence[Bucket], batch: int, seed: int = 0):
        """`buckets`: that of each clip, by its number. Raises ValueError for none, or a batch below 1."""
        if not buckets or batch < 1:
            raise ValueError(f"{len(buckets)} clips in batches of {batch}: both must be at least 1")
        self.batch, self.seed, self.members = batch, seed, by_bucket(buckets)
        self.round = -1

    def __len__(self) -> int:
        """Steps of a round."""
        return sum(map(len, self.members.values()))

    def at(self, step: int) -> list[int]:
        """The numbers of the clips of a step, from 0 on. Raises ValueError for a negative step."""
        if step < 0:
            raise ValueError(f"step={step}: must be at least 0")
        number, place = divmod(step, len(self))
        if number != self.round:
            self.round, self.batches = number, self._draw(number)
        return self.batches[place]

    def _draw(self, number: int) -> list[list[int]]:
        """All batches of a round, shuffled."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)

        def shuffled(items: list) -> list:
            return [items[i] for i in torch.randperm(len(items), generator=generator)]

        batches = []
        for members in self.members.values():
            stream = [index for _ in range(self.batch) for index in shuffled(members)]
            batches += [stream[i : i + self.batch] for i in range(0, len(stream), self.batch)]
        return shuffled(batches)
