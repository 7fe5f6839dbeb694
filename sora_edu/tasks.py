"""One model, many tasks: which pixels are given and which are to be made (chapter 11).

Every task is a mask over the pixels of a clip, 1 = generate and 0 = given, and the model is told of it in one
way: unknown pixels are greyed, the masked clip is encoded, and its latents and the mask go into the network
beside the noisy latents.

    text_to_video, text_to_image    nothing is given
    animate                         the first frame
    extend, extend_backwards        the first frames, or the last ones
    connect                         some at the start and some at the end
    loop                            the first frames, and the first one once more at the end
    inpaint                         every frame outside of a region
    edit                            nothing by mask: the clip, with noise on it, is where sampling starts

Shapes: pixels b c t h w in [-1, 1]; masks of pixels t h w or b t h w; masks of latents b 4 t h w, a channel
for each frame that a latent frame stands for.

Sources: Brooks et al. 2024 (Sora's report) for the tasks; Lu et al. 2023 (VDT) for one mask for all of them;
Meng et al. 2022 (SDEdit).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sora_edu.autoencoder import FRAMES_PER_LATENT, PIXELS_PER_LATENT, CausalVideoAutoencoder

TASKS = (
    "text_to_video", "text_to_image", "animate", "extend", "extend_backwards",
    "connect", "loop", "inpaint", "edit",
)  # fmt: skip
FROM_TEXT = ("text_to_video", "text_to_image")
"""Tasks that need a prompt and nothing else."""
UNTRAINED = ("edit",)
"""Tasks that every model from text to video can do without having been trained for them."""
GREY = 0.0
"""What stands where a pixel is unknown: the middle of [-1, 1]."""

PixelMask = Float[Tensor, "t h w"]


# ---- Which pixels ------------------------------------------------------------------------------------------


def task_mask(
    task: str,
    frames: int,
    height: int,
    width: int,
    given: list[int] | None = None,
    region: np.ndarray | None = None,
) -> PixelMask:
    """The mask of a task, 1 = generate, 0 = given.

    Args:
        task: one of `TASKS`.
        frames: frames of the clip.
        height: in pixels.
        width: in pixels.
        given: indices of the frames that are given, for the tasks that start from some.
        region: for `inpaint`, True where pixels are to be generated: (h, w) for all frames, or (t, h, w).

    Raises:
        ValueError: the frames or the region are not what the task needs; the message says what would do.
    """
    given = sorted(given or [])
    _check_given(task, given, frames)
    if (region is not None) != (task == "inpaint"):
        needs = "needs a region: True where pixels are to be generated"
        raise ValueError(f"task={task!r} {needs if region is None else 'takes no region'}")
    if region is not None:
        region = _checked_region(region, frames, height, width)
    return lay_mask(task, frames, height, width, given, region)


def lay_mask(
    task: str,
    frames: int,
    height: int,
    width: int,
    given: Sequence[int] = (),
    region: Bool[np.ndarray, "h w"] | Bool[np.ndarray, "t h w"] | None = None,
) -> PixelMask:
    """As `task_mask`, of arguments that are known to fit."""
    mask = torch.ones(frames, height, width)
    if task == "inpaint":
        mask[:] = torch.from_numpy(region)
    elif task != "edit":  # it changes every pixel: what it is given tells where to start
        mask[list(given)] = 0
    if task == "loop":
        mask[-1] = 0
    return mask


def _check_given(task: str, given: list[int], frames: int) -> None:
    """Raises ValueError if these frames are not what a task starts from."""
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown; the tasks are: {', '.join(TASKS)}")
    outside = [index for index in given if not 0 <= index < frames]
    if outside:
        raise ValueError(f"given has frame {outside[0]}; a clip of {frames} frames has 0 to {frames - 1}")
    start = given == list(range(len(given)))  # without a gap from the first frame on
    end = given == list(range(frames - len(given), frames))
    whole = len(given) == frames
    gaps = sum(after > before + 1 for before, after in pairwise(given))
    right = {
        "animate": (given == [0], "the first frame, {0: picture}"),
        "extend": (bool(given) and start and not whole, "the first frames: 0, 1, ... without a gap"),
        "extend_backwards": (
            bool(given) and end and not whole,
            f"the last frames, without a gap up to {frames - 1}",
        ),
        "connect": (
            len(given) > 1 and given[0] == 0 and given[-1] == frames - 1 and gaps == 1,
            f"some frames from 0 on and some up to {frames - 1}, with one gap between",
        ),
        "loop": (
            bool(given) and start and len(given) < frames - 1,
            "the first frames, without a gap, and not the last one, which is the first once more",
        ),
        "inpaint": (whole, f"every frame, 0 to {frames - 1}"),
        "edit": (whole, f"every frame, 0 to {frames - 1}"),
    }
    fits, wanted = right.get(task, (not given, "none: it starts from a prompt alone"))
    if not fits:
        said = "no frames" if not given else f"frames {', '.join(map(str, given))}"
        raise ValueError(f"task={task!r} was given {said}; it needs {wanted}")


def _checked_region(region, frames: int, height: int, width: int) -> np.ndarray:
    """Raises ValueError if this is no mask of a clip, or one that leaves nothing to do."""
    region = np.asarray(region)
    if region.dtype != bool or region.shape not in ((height, width), (frames, height, width)):
        raise ValueError(
            f"region is {region.shape} of {region.dtype}; it must be bool of {(height, width)}, the same in "
            f"every frame, or of {(frames, height, width)}"
        )
    if not region.any():
        raise ValueError("region is False everywhere: there is nothing to generate; set True where there is")
    return np.ascontiguousarray(region)  # torch takes no view that runs backwards, as np.flipud gives one


# ---- What the network sees ---------------------------------------------------------------------------------


def put_back(
    made: Float[Tensor, "b c t h w"],
    video: Float[Tensor, "#b c t h w"],
    mask: Float[Tensor, "#b t h w"] | PixelMask,
) -> Float[Tensor, "b c t h w"]:
    """The made clip with the given pixels as they were."""
    return torch.where(mask.unsqueeze(-4) > 0, made, video)


def grey_out(
    video: Float[Tensor, "b c t h w"], mask: Float[Tensor, "#b t h w"] | PixelMask
) -> Float[Tensor, "b c t h w"]:
    """The clip with grey where the mask says generate: nothing of what is to be made shines through."""
    return put_back(torch.full_like(video, GREY), video, mask)


def latent_mask(mask: Float[Tensor, "b f h w"] | Float[Tensor, "f h w"]) -> Float[Tensor, "b 4 t h8 w8"]:
    """The mask of latents: a cell counts as given in a frame only if all of its pixels there are given.

    A latent frame stands for four frames and has a channel for each. The first stands for frame 0 alone,
    which the autoencoder repeats four times; so does the mask. Raises ValueError for a size without latents.
    """
    mask = mask if mask.ndim == 4 else mask[None]
    _, frames, height, width = mask.shape
    if frames % FRAMES_PER_LATENT != 1 or height % PIXELS_PER_LATENT or width % PIXELS_PER_LATENT:
        raise ValueError(
            f"mask is {frames} frames of {height}x{width}; it must be 1 + {FRAMES_PER_LATENT}k frames with "
            f"sides that are multiples of {PIXELS_PER_LATENT}"
        )
    mask = torch.cat([mask[:, :1].expand(-1, FRAMES_PER_LATENT - 1, -1, -1), mask], dim=1)
    return rearrange(
        mask, "b (t four) (h p) (w q) -> b four t h w (p q)",
        four=FRAMES_PER_LATENT, p=PIXELS_PER_LATENT, q=PIXELS_PER_LATENT,
    ).amax(-1)  # fmt: skip


def encode_given(
    autoencoder: CausalVideoAutoencoder,
    video: Float[Tensor, "b 3 f h w"],
    mask: Float[Tensor, "#b f h w"] | Float[Tensor, "f h w"],
) -> Float[Tensor, "b c t h8 w8"]:
    """Latents of the masked clip: what a network knows of the given pixels."""
    return autoencoder.encode(grey_out(video, mask))


def place_given(
    task: str, given: Mapping[int, np.ndarray], frames: int, height: int, width: int
) -> UInt8[np.ndarray, "t h w 3"]:
    """A clip with the given pictures at their frames, and the first one once more at a loop's end.

    Pictures are uint8 (h, w, 3). The other frames are black; the mask hides them. Raises ValueError for a
    picture of another size or kind.
    """
    clip = np.zeros((frames, height, width, 3), np.uint8)
    for index, picture in given.items():
        picture = np.asarray(picture)
        if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
            raise ValueError(
                f"given[{index}] is {picture.shape} of {picture.dtype}; for this clip a picture must be "
                f"{(height, width, 3)} of uint8"
            )
        clip[index] = picture
    if task == "loop":
        clip[-1] = clip[0]
    return clip


def frame_indices(task: str, counts: list[int], frames: int) -> list[int]:
    """Where the frames of given films go in a clip: at its start or its end, or one film at each.

    Args:
        task: one of `TASKS`.
        counts: frames of each film: two films for `connect`, else one. `animate` takes a film's first frame.
        frames: frames of the clip.

    Raises:
        ValueError: another number of films, or more frames than the clip has.
    """
    wanted = {"connect": 2}.get(task, 0 if task in FROM_TEXT else 1)
    if len(counts) != wanted:
        raise ValueError(f"task={task!r} starts from {wanted} films or pictures, not {len(counts)}")
    counts = [1] if task == "animate" else counts
    if sum(counts) > frames:
        raise ValueError(f"what is given has {sum(counts)} frames; the clip has {frames} in all")
    start = counts[0] if counts and task != "extend_backwards" else 0
    end = sum(counts) - start
    return [*range(start), *range(frames - end, frames)]


# ---- Training ----------------------------------------------------------------------------------------------


TRAINED_WITH = ("animate", "extend", "extend_backwards", "connect", "loop", "inpaint")
"""Tasks that a model learns by their masks; the others need none."""


def training_mask(frames: int, height: int, width: int, generator: torch.Generator) -> PixelMask:
    """The mask of a random task, with a random number of given frames or a random box to fill."""
    pick, first, last = torch.rand(3, generator=generator).tolist()
    task = TRAINED_WITH[int(pick * len(TRAINED_WITH))]
    if task == "inpaint":
        return _random_box(frames, height, width, generator)
    given = {
        "animate": [0],
        "extend": range(1 + int(first * (frames - 1))),
        "extend_backwards": range(frames - 1 - int(last * (frames - 1)), frames),
        "connect": [
            *range(1 + int(first * (frames - 2) / 2)),
            *range(frames - 1 - int(last * (frames - 2) / 3), frames),
        ],
        "loop": range(1 + int(first * (frames - 2))),
    }[task]
    return task_mask(task, frames, height, width, list(given))


def _random_box(frames: int, height: int, width: int, generator: torch.Generator) -> PixelMask:
    """1 inside a box of a third to all of each side, the same in every frame."""
    shares = torch.rand(4, generator=generator).tolist()
    mask = torch.zeros(frames, height, width)
    tall, wide = round(height * (1 + 2 * shares[0]) / 3), round(width * (1 + 2 * shares[1]) / 3)
    top, left = round(shares[2] * (height - tall)), round(shares[3] * (width - wide))
    mask[:, top : top + tall, left : left + wide] = 1
    return mask
