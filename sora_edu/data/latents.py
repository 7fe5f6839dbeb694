"""Cached latents: clips that an autoencoder has encoded once, and their texts, ready for a training (ch. 14).

A folder holds safetensors files. In each, all clips have one size:

    latents     n c t h w   of n clips
    text        n l e       their text tokens, padded to l
    text_mask   n l         True at real tokens; the first always is one

The text of a file is encoded, too, since the encoder of a full-size model is larger than a laptop's memory.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sora_edu.data.buckets import Bucket, check_one_bucket
from sora_edu.files import write_whole

TENSORS = ("latents", "text", "text_mask")
"""What a file holds."""


def write_latents(
    path: Path | str,
    latents: Float[Tensor, "n c t h w"],
    text: Float[Tensor, "n l e"],
    text_mask: Bool[Tensor, "n l"],
    source: str = "",
) -> None:
    """Writes a file of clips of one size, in half precision, whole or not at all.

    `source` says what they were made from, for `source_of`. Raises WriteError, and ValueError for numbers
    of clips that differ.
    """
    if not len(latents) == len(text) == len(text_mask) > 0:
        raise ValueError(f"{len(latents)} latents, {len(text)} texts, {len(text_mask)} masks: one for each")
    tensors = {"latents": latents.half(), "text": text.half(), "text_mask": text_mask}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(tensors, {"source": source}))


def source_of(path: Path | str) -> str | None:
    """What a file's latents were made from; None if there is no such file, or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("source")
    except (SafetensorError, OSError):
        return None


class LatentFolder:
    """The clips in the files of a folder, in the order of their names; read when they are asked for."""

    def __init__(self, folder: Path | str):
        """Reads the files' headers.

        Raises:
            ValueError: no such folder; nothing in it that can be used (with the reasons); or files whose
                channels differ.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(folder)!r} is not a folder")
        self.places: list[tuple[Path, int]] = []
        self.buckets: list[Bucket] = []
        """The size of each clip in pixels behind a causal 4x8x8 autoencoder, for `BucketBatches`."""
        self.skipped: dict[str, str] = {}
        channels = set()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                n, size, found = _shapes(path)
            except (SafetensorError, OSError, ValueError) as error:
                self.skipped[path.name] = str(error)
                continue
            channels.add(found)
            self.places += [(path, row) for row in range(n)]
            self.buckets += [Bucket(1 + 4 * (size[0] - 1), 8 * size[1], 8 * size[2])] * n
        why = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
        if self.places and self.skipped:
            warnings.warn(f"{self.folder}: skipped {len(self.skipped)} files: {why}", stacklevel=2)
        if not self.places:
            raise ValueError(
                f"folder={str(folder)!r} needs at least one file of latents (*.safetensors); "
                + (f"none of its {len(self.skipped)} can be used: {why}" if why else "there is none")
            )
        if len(channels) > 1:
            raise ValueError(
                f"folder={str(folder)!r}: (channels, text_width) differ from file to file: "
                f"{sorted(channels)}; latents of one autoencoder and text encoder belong together"
            )
        self.channels, self.text_width = channels.pop()

    def __len__(self) -> int:
        return len(self.places)

    def batch(
        self, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "b c t h w"], Float[Tensor, "b l e"], Bool[Tensor, "b l"]]:
        """Latents, text tokens and their mask of clips of one bucket, padded to the longest text.

        Raises ValueError for clips of several sizes, or none.
        """
        check_one_bucket(indices, (self.buckets[index] for index in indices))
        clips = [self._clip(*self.places[index]) for index in indices]
        longest = max(len(text) for _, text, _ in clips)
        latents, texts, masks = zip(*clips, strict=True)
        texts = [F.pad(text, (0, 0, 0, longest - len(text))) for text in texts]
        masks = [F.pad(mask, (0, longest - len(mask))) for mask in masks]
        return torch.stack(latents), torch.stack(texts), torch.stack(masks)

    def _clip(self, path: Path, row: int) -> tuple[Tensor, ...]:
        try:
            with safe_open(path, "pt") as file:
                latents, text, mask = (file.get_slice(name)[row] for name in TENSORS)
                return latents.float(), text.float(), mask  # before anything is done: autocast refuses half
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} has changed since its folder was opened ({error})") from error


def _shapes(path: Path) -> tuple[int, tuple[int, ...], tuple[int, int]]:
    """Clips of a file, their size, and (channels, text_width). Raises ValueError for other contents."""
    with safe_open(path, "pt") as file:
        if missing := [name for name in TENSORS if name not in file.keys()]:  # noqa: SIM118
            raise ValueError(f"has no {', '.join(missing)}")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in TENSORS}
    latents, text, mask = (shapes[name] for name in TENSORS)
    fitting = len(latents) == 5 and len(text) == 3 and mask == text[:2] and latents[0] == text[0]
    if not fitting or not all((*latents, *text)):
        raise ValueError(f"holds {shapes}; they must be (n, c, t, h, w), (n, l, e) and (n, l), none empty")
    return latents[0], latents[2:], (latents[1], text[2])
