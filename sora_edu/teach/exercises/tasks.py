"""Exercises of chapter 11: masks of tasks and latents, putting back, what is encoded, where edits start."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.samplers import start_from, time_grid
from sora_edu.tasks import encode_given, grey_out, latent_mask, lay_mask, put_back
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception

CHAPTER = "11_one_model_many_tasks"


# --- lay_mask --------------------------------------------------------------------------------------------


def _mask_cases(seed: int) -> list[Case]:
    """Every task once, in clips whose sides all differ; the region moves in one case and not in the other."""
    rng = np.random.default_rng([seed, 11])
    frames, height, width = 7, 2, 3
    still = rng.random((height, width)) < 0.5
    still[0, 0], still[-1, -1] = True, False
    moving = rng.random((frames, height, width)) < 0.5
    moving[:, 0, 0], moving[0, 0, 1], moving[1, 0, 1] = True, False, True
    size, count = (frames, height, width), int(rng.integers(2, 4))
    return [
        Case("animate", 3, 1, 2, [0]),
        Case("loop", 4, 1, 1, [0]),
        Case("text_to_video", 5, *size[1:], []),
        Case("extend", *size, list(range(count))),
        Case("extend_backwards", *size, list(range(frames - count, frames))),
        Case("connect", *size, [0, 1, frames - 1]),
        Case("loop", *size, list(range(count))),
        Case("inpaint", *size, list(range(frames)), still),
        Case("inpaint", *size, list(range(frames)), moving),
        Case("edit", *size, list(range(frames))),
    ]


def _mask_oracle(task, frames, height, width, given=(), region=None) -> Tensor:
    """Pixel by pixel: is it to be made?"""
    made = torch.zeros(frames, height, width)
    for frame in range(frames):
        for row in range(height):
            for column in range(width):
                if task == "inpaint":
                    where = region if region.ndim == 2 else region[frame]
                    made[frame, row, column] = float(where[row, column])
                else:
                    closed = task == "loop" and frame == frames - 1
                    made[frame, row, column] = float(task == "edit" or not (frame in given or closed))
    return made


def _given_is_one(task, frames, height, width, given=(), region=None):
    return 1 - lay_mask(task, frames, height, width, given, region)


def _loop_stays_open(task, frames, height, width, given=(), region=None):
    return lay_mask("extend" if task == "loop" else task, frames, height, width, given, region)


def _edit_is_given(task, frames, height, width, given=(), region=None):
    return lay_mask("extend" if task == "edit" else task, frames, height, width, given, region)


def _region_is_kept(task, frames, height, width, given=(), region=None):
    return lay_mask(task, frames, height, width, given, None if region is None else ~region)


def _counts_from_the_start(task, frames, height, width, given=(), region=None):
    if task in ("inpaint", "edit"):
        return lay_mask(task, frames, height, width, given, region)
    mask = torch.ones(frames, height, width)
    mask[: len(given)] = 0
    if task == "loop":
        mask[-1] = 0
    return mask


def _first_region_for_all(task, frames, height, width, given=(), region=None):
    region = region[0] if region is not None and region.ndim == 3 else region
    return lay_mask(task, frames, height, width, given, region)


def _region_smeared(task, frames, height, width, given=(), region=None):
    region = region.any(0) if region is not None and region.ndim == 3 else region
    return lay_mask(task, frames, height, width, given, region)


def _mask_by_listing(task, frames, height, width, given=(), region=None):
    if task == "inpaint":
        return torch.from_numpy(np.broadcast_to(region, (frames, height, width)).astype("float32"))
    known = [] if task == "edit" else [*given] + [frames - 1] * (task == "loop")
    rows = [0.0 if frame in known else 1.0 for frame in range(frames)]
    return torch.tensor(rows).view(-1, 1, 1).repeat(1, height, width)


def _mask_by_numpy(task, frames, height, width, given=(), region=None):
    mask = np.ones((frames, height, width), np.float32)
    if region is not None:
        mask *= region
    elif task != "edit":
        for frame in given:
            mask[frame] = 0
        mask[-1] *= task != "loop"
    return torch.from_numpy(mask)


MASK = Exercise(
    id="tasks.lay_mask",
    chapter=CHAPTER,
    title="A mask for every task",
    minutes=12,
    difficulty=2,
    reference=lay_mask,
    oracle=_mask_oracle,
    cases=_mask_cases,
    hints=Hints(
        "Start from a clip that is all to be generated. Which pixels does each task take away from that?",
        "Two tasks are not told by frames: one by a region, and one changes everything.",
        "ones; inpaint: the region; edit: ones; else 0 at the given frames, and for a loop 0 at the last, "
        "too",
    ),
    misconceptions=(
        Misconception(
            id="given_is_one",
            title="1 where given and 0 where to generate: the other convention",
            wrong=_given_is_one,
            hints=Hints(
                "Nothing is given in text_to_video. What does your mask say there?",
                "The value with which you start, and the one that you write.",
                "1 = generate, 0 = given",
            ),
            section="Two conventions",
            evidence=(
                "VDT's equation 3 and its released code have opposite masks; invoke-ai/InvokeAI issue 221 "
                "asks whether black is to be painted over or kept, and gets both answers."
            ),
        ),
        Misconception(
            id="loop_stays_open",
            title="a loop's last frame is left to be made, so that nothing makes the loop close",
            wrong=_loop_stays_open,
            hints=Hints(
                "In what does a loop differ from an extension?",
                "The last frame, after the given ones are set.",
                "for a loop, 0 in frame number frames - 1, which shows the first frame once more",
            ),
            section="A task is a mask",
            evidence=(
                "Reasoning slip: a loop looks like an extension of its first frames, and `given` does not "
                "name the frame that closes it."
            ),
        ),
        Misconception(
            id="edit_is_given",
            title="an edit's clip counts as given: nothing may change",
            wrong=_edit_is_given,
            hints=Hints(
                "Which pixels may an edit change?",
                "An edit gets all frames, but not as something to keep.",
                "edit: ones everywhere",
            ),
            section="A task is a mask",
            evidence=(
                "Reasoning slip: all frames of the clip are handed over, which for every other task means "
                "that they are kept."
            ),
        ),
        Misconception(
            id="region_is_kept",
            title="the region is kept and its surroundings are made",
            wrong=_region_is_kept,
            hints=Hints(
                "`region` is True at a hole. What goes into a hole?",
                "The line for inpaint.",
                "mask = region, as numbers",
            ),
            section="Two conventions",
            evidence=(
                "AUTOMATIC1111/stable-diffusion-webui issue 1188: a mask is uploaded and the picture "
                "changes outside of it; the answer explains which colour means 'replace'."
            ),
        ),
        Misconception(
            id="counts_from_the_start",
            title="as many frames as are given, but always the first ones",
            wrong=_counts_from_the_start,
            hints=Hints(
                "Which frames are given in extend_backwards?",
                "A slice up to len(given) knows how many, not which.",
                "0 at the indices in `given`",
            ),
            section="A task is a mask",
            evidence=(
                "Reasoning slip: code written for extension, mask[:n] = 0, used for the other tasks; VDT's "
                "generator has a slice for each task, and mask[a:-b] of which is empty for b = 0."
            ),
        ),
        Misconception(
            id="first_region_for_all",
            title="a region that moves is read in the first frame alone",
            wrong=_first_region_for_all,
            hints=Hints(
                "The region can have three axes. What does the first of them stand for?",
                "Whatever indexes the region before it is written.",
                "a (t, h, w) region is the mask itself; an (h, w) region is repeated for all frames",
            ),
            section="A task is a mask",
            evidence=(
                "deforum/deforum-stable-diffusion issue 58: of a video mask only the first frame is used, "
                "for the whole film."
            ),
        ),
        Misconception(
            id="region_smeared",
            title="a region that moves is joined over all frames: too much is made anew",
            wrong=_region_smeared,
            hints=Hints(
                "Is every pixel that was ever in the region in it all the time?",
                "Whatever reduces the region's first axis.",
                "a (t, h, w) region is the mask itself",
            ),
            section="A task is a mask",
            evidence="Reasoning slip: a box around all of an object's path, where its outline moves along.",
        ),
    ),
    correct_alternatives=(_mask_by_listing, _mask_by_numpy),
)


# --- put_back --------------------------------------------------------------------------------------------


def _put_cases(seed: int) -> list[Case]:
    """Masks for the whole batch, for each clip, frames and regions; one clip for several made ones."""
    noise = torch.Generator().manual_seed(seed)

    def clip(b, c=3, t=4, h=2, w=5):
        return torch.randn(b, c, t, h, w, generator=noise)

    def mask(*shape):
        hidden = (torch.rand(shape, generator=noise) < 0.5).float()
        hidden.view(-1)[0], hidden.view(-1)[-1] = 0, 1
        return hidden

    frames = torch.ones(4, 2, 5)
    frames[:2] = 0
    small = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1, 1), torch.tensor([5.0, 6.0]).view(1, 1, 2, 1, 1)
    return [
        Case(*small, torch.tensor([0.0, 1.0]).view(2, 1, 1)),
        Case(clip(2), clip(2), frames),
        Case(clip(3), clip(1), mask(4, 2, 5)),
        Case(clip(4), clip(4), mask(4, 4, 2, 5)),
    ]


def _put_oracle(made: Tensor, video: Tensor, mask: Tensor) -> Tensor:
    """Arithmetic in place of a choice; the masks are only 0 and 1."""
    mask = mask if mask.ndim == 4 else mask[None]
    hidden = torch.stack([mask] * made.shape[1], 1)
    return hidden * made + (1 - hidden) * video


def _opposite_choice(made, video, mask):
    return torch.where(mask.unsqueeze(-4) > 0, video, made)


def _added(made, video, mask):
    return made + (1 - mask.unsqueeze(-4)) * video


def _given_left_out(made, video, mask):
    return made * mask.unsqueeze(-4)


def _whole_frames(made, video, mask):
    return put_back(made, video, mask.amax((-1, -2), keepdim=True).expand_as(mask))


def _made_over_frames(made, video, mask):
    return put_back(made, video, mask.amin((-1, -2), keepdim=True).expand_as(mask))


def _one_channel(made, video, mask):
    final = made.clone()
    final[:, :1] = put_back(made, video, mask)[:, :1]
    return final


def _put_by_lerp(made, video, mask):
    return torch.lerp(video.expand_as(made), made, mask.unsqueeze(-4).expand_as(made))


def _put_by_index(made, video, mask):
    final = made.clone()
    keep = (mask if mask.ndim == 4 else mask[None])[:, None].expand_as(made) == 0
    final[keep] = video.expand_as(made)[keep]
    return final


PUT_BACK = Exercise(
    id="tasks.put_back",
    chapter=CHAPTER,
    title="Generated here, given there",
    minutes=6,
    difficulty=1,
    reference=put_back,
    oracle=_put_oracle,
    cases=_put_cases,
    hints=Hints(
        "At a pixel whose mask is 0, which of the two clips do you want?",
        "The mask has no axis of channels. Where does it belong?",
        "m made + (1 - m) video, with m of shape (b, 1, t, h, w)",
    ),
    misconceptions=(
        Misconception(
            id="opposite_choice",
            title="the two clips are swapped: given pixels are replaced and the others kept",
            wrong=_opposite_choice,
            hints=Hints(
                "Take a mask of ones. What should come back?",
                "The order of the two clips after the condition.",
                "made where the mask is 1, video where it is 0",
            ),
            section="Two conventions",
            evidence=(
                "VDT's paper multiplies the clean data by the mask, its code by one minus the mask: whoever "
                "puts one's formula and the other's masks together gets this."
            ),
        ),
        Misconception(
            id="added",
            title="the given clip is added on top of what was made",
            wrong=_added,
            hints=Hints(
                "At a given pixel, is anything of `made` left?",
                "Both clips need a weight, and the weights add up to 1.",
                "m made + (1 - m) video",
            ),
            section="One line, three uses",
            evidence="Reasoning slip: half of the formula for blending, which is right where `made` is zero.",
        ),
        Misconception(
            id="given_left_out",
            title="given pixels are cleared, and nothing is put there",
            wrong=_given_left_out,
            hints=Hints(
                "Does your answer depend on `video` at all?",
                "What stands where the mask is 0?",
                "m made + (1 - m) video",
            ),
            section="One line, three uses",
            evidence="Reasoning slip: the first half of the formula, without the second.",
        ),
        Misconception(
            id="whole_frames",
            title="a frame in which anything is made is made as a whole",
            wrong=_whole_frames,
            hints=Hints(
                "A hole in a frame: are the pixels around it given?",
                "Whatever reduces the mask's rows and columns.",
                "the mask decides pixel by pixel",
            ),
            section="One line, three uses",
            evidence=(
                "Reasoning slip: code for tasks that give whole frames, used for inpainting; "
                "huggingface/diffusers issues 4782 and 9867 report pixels far outside the hole that "
                "changed."
            ),
        ),
        Misconception(
            id="made_over_frames",
            title="a frame in which anything is given is given as a whole: nothing is ever inpainted",
            wrong=_made_over_frames,
            hints=Hints(
                "A hole in a frame: what should be seen in the hole?",
                "Whatever reduces the mask's rows and columns.",
                "the mask decides pixel by pixel",
            ),
            section="One line, three uses",
            evidence="Reasoning slip: a mask of frames, made from one of pixels by asking for 'any given'.",
        ),
        Misconception(
            id="one_channel",
            title="only the first channel is put back",
            wrong=_one_channel,
            hints=Hints(
                "Compare the colours one by one. Which are right?",
                "The axis of channels, where the mask is used.",
                "the same mask for all channels: (b, 1, t, h, w)",
            ),
            section="One line, three uses",
            evidence=(
                "Reasoning slip: a mask of one channel used as an index of channels; the release of DiT "
                "guides three of four channels for a slip of the same kind."
            ),
        ),
    ),
    correct_alternatives=(_put_by_lerp, _put_by_index),
)


# --- latent_mask -----------------------------------------------------------------------------------------


def _latent_cases(seed: int) -> list[Case]:
    """Frames given at one end and at the other, boxes that do not fit the cells, and random pixels."""
    rng = torch.Generator().manual_seed(seed)
    early, late = torch.ones(9, 8, 16), torch.ones(9, 8, 16)
    early[:3], late[-2:] = 0, 0
    box = torch.zeros(5, 24, 16)
    top, left = (int(torch.randint(1, 7, (1,), generator=rng)) for _ in range(2))
    box[:, top : top + 9, left : left + 2] = 1
    corner = torch.zeros(2, 13, 8, 24)
    corner[0, 4, 7, 7], corner[0, 6, 0, 8], corner[1, 0, 0, 9], corner[1, 9:, :, 16:] = 1, 1, 1, 1
    holes = (torch.rand(1, 9, 16, 8, generator=rng) < 0.01).float()
    holes[:, 3, 3, 3] = 1
    return [Case(early), Case(late), Case(box), Case(corner), Case(holes)]


def _latent_oracle(mask: Tensor) -> Tensor:
    """Cell by cell and frame by frame, by the definition."""
    mask = mask if mask.ndim == 4 else mask[None]
    b, frames, height, width = mask.shape
    cells = torch.zeros(b, 4, 1 + frames // 4, height // 8, width // 8)
    for clip, four, t, row, column in np.ndindex(*cells.shape):
        frame = max(0, 4 * t - 3 + four)
        square = mask[clip, frame, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        cells[clip, four, t, row, column] = float(square.sum() > 0)
    return cells


def _cut_cells(mask, reduce):
    mask = mask if mask.ndim == 4 else mask[None]
    mask = torch.cat([mask[:, :1].expand(-1, 3, -1, -1), mask], dim=1)
    return reduce(mask.unflatten(1, (-1, 4)).unflatten(3, (-1, 8)).unflatten(5, (-1, 8)).transpose(1, 2))


def _any_pixel_will_do(mask):
    return _cut_cells(mask, lambda cells: cells.amin((4, 6)))


def _shares(mask):
    return _cut_cells(mask, lambda cells: cells.mean((4, 6)))


def _corner_pixel(mask):
    return _cut_cells(mask, lambda cells: cells[:, :, :, :, 0, :, 0])


def _first_not_repeated(mask):
    mask = mask if mask.ndim == 4 else mask[None]
    mask = torch.cat([mask, mask[:, -1:].expand(-1, 3, -1, -1)], dim=1)
    cells = mask.unflatten(1, (-1, 4)).unflatten(3, (-1, 8)).unflatten(5, (-1, 8)).transpose(1, 2)
    return cells.amax((4, 6))


def _one_for_all_four(mask):
    return latent_mask(mask).amax(1, keepdim=True).expand(-1, 4, -1, -1, -1).clone()


def _given_if_any_frame_is(mask):
    return latent_mask(mask).amin(1, keepdim=True).expand(-1, 4, -1, -1, -1).clone()


def _frames_dealt_out(mask):
    mask = mask if mask.ndim == 4 else mask[None]
    mask = torch.cat([mask[:, :1].expand(-1, 3, -1, -1), mask], dim=1)
    cells = mask.unflatten(1, (4, -1)).unflatten(3, (-1, 8)).unflatten(5, (-1, 8))
    return cells.amax((4, 6))


def _turned_round(mask):
    return 1 - latent_mask(mask)


def _latent_by_pooling(mask):
    mask = mask if mask.ndim == 4 else mask[None]
    cells = F.max_pool2d(mask, 8)
    cells = torch.cat([cells[:, :1].repeat(1, 3, 1, 1), cells], 1)
    return torch.stack([cells[:, k::4] for k in range(4)], 1)


def _latent_by_counting(mask):
    return (_cut_cells(mask, lambda cells: cells.sum((4, 6))) > 0).float()


LATENT_MASK = Exercise(
    id="tasks.latent_mask",
    chapter=CHAPTER,
    title="The mask of latents",
    minutes=14,
    difficulty=3,
    reference=latent_mask,
    oracle=_latent_oracle,
    cases=_latent_cases,
    hints=Hints(
        "A latent cell saw 8 by 8 pixels of four frames. How many numbers are needed to say which of the "
        "frames were given?",
        "The first latent frame has only frame 0. How many channels does it have, nevertheless?",
        "frame 0 four times, then the others: groups of four; per 8 x 8 square the maximum of the mask",
    ),
    misconceptions=(
        Misconception(
            id="any_pixel_will_do",
            title="a cell counts as given if any of its pixels is",
            wrong=_any_pixel_will_do,
            hints=Hints(
                "63 pixels of a cell are hidden and one is given. Does the model know the cell?",
                "Minimum or maximum over the square?",
                "generate (1) if any pixel is to be generated: the maximum",
            ),
            section="The mask of latents",
            evidence=(
                "Reasoning slip: 'any' belongs to 'generate', not to 'given'. invoke-ai/InvokeAI pull "
                "request 2447 finds seams where a mask's edge does not line up with the 8-pixel cells."
            ),
        ),
        Misconception(
            id="shares",
            title="a cell holds the share of its pixels that are to be generated",
            wrong=_shares,
            hints=Hints(
                "Which values does your mask have?",
                "How 64 pixels become one number.",
                "the maximum over the square, which is 0 or 1",
            ),
            section="The mask of latents",
            evidence=(
                "PKU-YuanGroup/Open-Sora-Plan issue 427 shows a pipeline that shrinks its mask bilinearly: "
                "neither given nor not."
            ),
        ),
        Misconception(
            id="corner_pixel",
            title="one pixel speaks for its cell: a hole elsewhere in the cell is overlooked",
            wrong=_corner_pixel,
            hints=Hints(
                "Put a hole of one pixel into the middle of a cell. Does your mask see it?",
                "Slices with a step of 8, or resizing to the nearest.",
                "the maximum over all 64 pixels",
            ),
            section="The mask of latents",
            evidence=(
                "diffusers shrinks inpainting masks by F.interpolate, whose default takes the nearest "
                "pixel; lxa9867/ControlVAR issue 3 describes the same."
            ),
        ),
        Misconception(
            id="first_not_repeated",
            title="groups of four begin at frame 0: every later frame's mask comes three frames early",
            wrong=_first_not_repeated,
            hints=Hints(
                "Which frames does the second latent frame stand for?",
                "What is added to make the frames a multiple of four, and at which end?",
                "frame 0 stands four times; frame f of the others is number f + 3",
            ),
            section="The mask of latents",
            evidence=(
                "Comfy-Org/ComfyUI pull request 16406: mask rows written at f in place of f + 3, seen as a "
                "drift of colours that grows from segment to segment."
            ),
        ),
        Misconception(
            id="one_for_all_four",
            title="the four channels are equal: which frames of a group are given is lost",
            wrong=_one_for_all_four,
            hints=Hints(
                "Frames 0 to 2 are given. What should the channels of the second latent frame say?",
                "Is anything reduced over the group of four?",
                "channel k of latent frame t is frame 4 t - 3 + k",
            ),
            section="The mask of latents",
            evidence=(
                "huggingface/diffusers issue 12241: a reader takes it for an error that Wan's mask is 1 in "
                "the last of four channels only; it is right, for one frame of the four is given."
            ),
        ),
        Misconception(
            id="given_if_any_frame_is",
            title="a group of four counts as given if one of its frames is",
            wrong=_given_if_any_frame_is,
            hints=Hints(
                "Frames 0 to 2 are given. Is frame 4?",
                "Is anything reduced over the group of four?",
                "channel k of latent frame t is frame 4 t - 3 + k",
            ),
            section="The mask of latents",
            evidence=(
                "Wan-Video/Wan2.1 issue 486 asks why the first frame's mask is repeated and how the mask "
                "acts: the repetition makes a whole group of one frame, and is right there alone."
            ),
        ),
        Misconception(
            id="frames_dealt_out",
            title="a group holds frames that lie far apart, like cards dealt in turn",
            wrong=_frames_dealt_out,
            hints=Hints(
                "Which four frames meet in your last latent frame?",
                "The order of (t four) in the pattern that splits the frames.",
                "'b (t four) h w': the four run fastest",
            ),
            section="The mask of latents",
            evidence="Reasoning slip: '(four t)' for '(t four)'; every shape is right.",
        ),
        Misconception(
            id="turned_round",
            title="1 where a cell is given: the other convention",
            wrong=_turned_round,
            hints=Hints(
                "A mask of ones: nothing is given. What do you say of its cells?",
                "The last step.",
                "1 = generate, as in the mask of pixels",
            ),
            section="Two conventions",
            evidence="Wan's mask is 1 where a frame is given (huggingface/diffusers issue 12241).",
        ),
    ),
    correct_alternatives=(_latent_by_pooling, _latent_by_counting),
)


# --- encode_given ----------------------------------------------------------------------------------------


class LittleAutoencoder(CausalVideoAutoencoder):
    """Stands in for the real one in checks: causal, eight by eight pixels a cell, and quick."""

    def __init__(self):
        nn.Module.__init__(self)

    def __repr__(self) -> str:
        return "autoencoder"

    def encode(self, video: Tensor) -> Tensor:
        """Means of cells and groups of frames, mixed with what lies around and before."""
        video = torch.cat([video[:, :, :1].expand(-1, -1, 3, -1, -1), video], dim=2)
        cells = F.avg_pool3d(video, (4, 8, 8)) + 0.2
        cells = cells + 0.3 * cells.roll(1, 3) + 0.2 * cells.roll(1, 4)
        before = torch.cat([torch.zeros_like(cells[:, :, :1]), cells[:, :, :-1]], dim=2).cumsum(2)
        return cells + 0.5 * before


def _encode_cases(seed: int) -> list[Case]:
    """The first frames given; the last ones; all but a box; a mask for each clip."""
    noise = torch.Generator().manual_seed(seed)

    def film(b, frames=9):
        return torch.rand(b, 3, frames, 16, 16, generator=noise) * 2 - 1

    first, last, box = (torch.ones(9, 16, 16) for _ in range(3))
    first[:4], last[-4:] = 0, 0
    box[:] = 0
    box[:, 2:13, 5:11] = 1
    each = torch.stack([first, last])
    model = LittleAutoencoder()
    alone = [Case(model, film(1), first), Case(model, film(1), last), Case(model, film(2), box)]
    return [*alone, Case(model, film(2), each)]


def _encode_oracle(autoencoder, video: Tensor, mask: Tensor) -> Tensor:
    """Grey is 0, so that hiding is a product."""
    kept = 1 - (mask if mask.ndim == 4 else mask[None])
    return autoencoder.encode(torch.einsum("bcfhw,bfhw->bcfhw", video, kept.expand(len(video), -1, -1, -1)))


def _encodes_then_masks(autoencoder, video, mask):
    known = 1 - latent_mask(mask).amax(1, keepdim=True)
    return autoencoder.encode(video) * known


def _hides_nothing(autoencoder, video, mask):
    return autoencoder.encode(video)


def _hides_what_is_given(autoencoder, video, mask):
    return autoencoder.encode(grey_out(video, 1 - mask))


def _black_for_grey(autoencoder, video, mask):
    return autoencoder.encode(put_back(torch.full_like(video, -1), video, mask))


def _first_frame_everywhere(autoencoder, video, mask):
    return autoencoder.encode(put_back(video[:, :, :1].expand_as(video), video, mask))


def _greys_the_latents_too(autoencoder, video, mask):
    known = 1 - latent_mask(mask).amax(1, keepdim=True)
    return encode_given(autoencoder, video, mask) * known


def _encode_by_product(autoencoder, video, mask):
    return autoencoder.encode(video * (1 - mask.unsqueeze(-4)))


def _encode_by_filling(autoencoder, video, mask):
    hidden = (mask if mask.ndim == 4 else mask[None])[:, None].expand_as(video) > 0
    return autoencoder.encode(video.masked_fill(hidden, 0.0))


ENCODE = Exercise(
    id="tasks.encode_given",
    chapter=CHAPTER,
    title="What the network may know",
    minutes=8,
    difficulty=2,
    reference=encode_given,
    oracle=_encode_oracle,
    cases=_encode_cases,
    hints=Hints(
        "Extending a clip, the future does not exist yet. What does the encoder see in its place?",
        "Two steps, hiding and encoding. Which of them can be done when the future is unknown?",
        "encode(grey_out(video, mask))",
    ),
    misconceptions=(
        Misconception(
            id="encodes_then_masks",
            title="the whole clip is encoded and its latents are masked: given latents know what was hidden",
            wrong=_encodes_then_masks,
            hints=Hints(
                "The last frames are given. Do their latents depend on the frames before them?",
                "The order of hiding and encoding.",
                "hide first, in pixels; encode then",
            ),
            section="Grey first, then encode",
            evidence=(
                "VDT and RePaint mask what they denoise, which is right for latents of single frames; with "
                "a causal autoencoder the same line leaks, in training only."
            ),
        ),
        Misconception(
            id="hides_nothing",
            title="nothing is hidden: the answer is in the question",
            wrong=_hides_nothing,
            hints=Hints(
                "Does your answer depend on the mask?",
                "What goes into `encode`?",
                "encode(grey_out(video, mask))",
            ),
            section="Grey first, then encode",
            evidence=(
                "invoke-ai/InvokeAI pull request 2447: the part to be repainted was not blanked in the "
                "picture that the inpainting model is shown, and the model would not change it."
            ),
        ),
        Misconception(
            id="hides_what_is_given",
            title="what is given is hidden, and the rest shown",
            wrong=_hides_what_is_given,
            hints=Hints(
                "Mask 0 means given. Is it visible in what you encode?",
                "The mask on its way into grey_out.",
                "grey where the mask is 1",
            ),
            section="Two conventions",
            evidence="The two conventions once more; VDT's paper and code differ by this.",
        ),
        Misconception(
            id="black_for_grey",
            title="hidden pixels are black (-1), not grey (0)",
            wrong=_black_for_grey,
            hints=Hints(
                "Pixels go from -1 to 1. What is the middle?",
                "The colour of what is hidden.",
                "grey is 0",
            ),
            section="Grey first, then encode",
            evidence=(
                "Reasoning slip: 'cleared' means 0 for pictures of 0 to 255, which is -1 here; a black sky "
                "cannot be told from a hole."
            ),
        ),
        Misconception(
            id="first_frame_everywhere",
            title="hidden pixels show the first frame, as if the film stood still",
            wrong=_first_frame_everywhere,
            hints=Hints(
                "Extending backwards, is the first frame known?",
                "What stands in place of hidden pixels.",
                "grey, wherever the mask is 1",
            ),
            section="Grey first, then encode",
            evidence=(
                "Stable Video Diffusion repeats the given picture along all frames, which works for one "
                "picture at the start and shows what is hidden for all other tasks."
            ),
        ),
        Misconception(
            id="greys_the_latents_too",
            title=(
                "latents of hidden cells are set to zero once more, where grey pixels have latents of their "
                "own"
            ),
            wrong=_greys_the_latents_too,
            hints=Hints(
                "Is the latent of a grey clip zero?",
                "What happens after `encode`?",
                "nothing: the mask goes to the network beside the latents",
            ),
            section="Grey first, then encode",
            evidence=(
                "Reasoning slip: a cell with a hole still says something of its given pixels, which a zero "
                "does not."
            ),
        ),
    ),
    correct_alternatives=(_encode_by_product, _encode_by_filling),
)


# --- start_from ------------------------------------------------------------------------------------------


def _start_cases(seed: int) -> list[Case]:
    """Even and shifted grids, strengths on a time of the grid, between two, and at the very end."""
    noise = torch.Generator().manual_seed(seed)

    def pair(*shape):
        return torch.randn(shape, generator=noise), torch.randn(shape, generator=noise)

    between = 0.41 + 0.08 * float(torch.rand(1, generator=noise))
    return [
        Case(torch.tensor([[10.0]]), torch.tensor([[2.0]]), 0.5, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])),
        Case(*pair(2, 3), between, time_grid(10)),
        Case(*pair(1, 4, 2), 0.9, time_grid(6, 3.0)),
        Case(*pair(2, 2), 1.0, time_grid(3)),
    ]


def _start_oracle(clean, noise, strength, times):
    """By torch's own interpolation, and one time after another."""
    kept = [float(t) for t in times if float(t) < float(torch.tensor(strength))]
    return torch.lerp(clean, noise, strength), torch.tensor([strength, *kept])


def _noise_on_top(clean, noise, strength, times):
    return clean + strength * noise, start_from(clean, noise, strength, times)[1]


def _strength_keeps(clean, noise, strength, times):
    x, _ = start_from(noise, clean, strength, times)
    return x, start_from(clean, noise, strength, times)[1]


def _root_of_the_rest(clean, noise, strength, times):
    x = (1 - strength**2) ** 0.5 * clean + strength * noise
    return x, start_from(clean, noise, strength, times)[1]


def _walks_from_the_top(clean, noise, strength, times):
    return start_from(clean, noise, strength, times)[0], times.clone()


def _squeezes_the_walk(clean, noise, strength, times):
    return start_from(clean, noise, strength, times)[0], strength * times


def _leaves_out_the_start(clean, noise, strength, times):
    return start_from(clean, noise, strength, times)[0], times[times < strength]


def _share_of_the_steps(clean, noise, strength, times):
    steps = len(times) - 1
    return start_from(clean, noise, strength, times)[0], times[steps - int(steps * strength) :]


def _start_by_lerp(clean, noise, strength, times):
    left = times[times < strength]
    return clean + strength * (noise - clean), torch.cat([torch.full((1,), strength), left])


def _start_by_clipping(clean, noise, strength, times):
    first = int((times >= strength).sum()) - 1
    left = times[first:].clone()
    left[0] = strength
    return noise * strength + clean * (1 - strength), left


START = Exercise(
    id="tasks.start_from",
    chapter=CHAPTER,
    title="Where an edit starts",
    minutes=8,
    difficulty=2,
    reference=start_from,
    oracle=_start_oracle,
    cases=_start_cases,
    hints=Hints(
        "At which time is the clip as noisy as you make it?",
        "Two things come back: the noisy clip, and the times of the steps that remain.",
        "x = (1 - s) clean + s noise; times: s, then all of the grid's that are smaller",
    ),
    misconceptions=(
        Misconception(
            id="noise_on_top",
            title="noise is added, but the clip is not made smaller: such data do not occur at any time",
            wrong=_noise_on_top,
            hints=Hints(
                "At strength 1, is anything of the clip left?",
                "Both parts have a weight.",
                "x = (1 - s) clean + s noise",
            ),
            section="Edit: start halfway",
            evidence=(
                "SDEdit's paper has this very formula for its variance-exploding process, x + sigma z; on "
                "the straight line, alpha is not 1."
            ),
        ),
        Misconception(
            id="strength_keeps",
            title="the strength says how much of the clip is kept",
            wrong=_strength_keeps,
            hints=Hints(
                "Should a strength near 0 change little or much?",
                "Which of the two has the weight s?",
                "the noise has the weight s, the clip 1 - s",
            ),
            section="Edit: start halfway",
            evidence=(
                "mflux-community/mflux issue 86: there a higher strength means more of the first picture, "
                "elsewhere less, and readers have to ask."
            ),
        ),
        Misconception(
            id="root_of_the_rest",
            title=(
                "the clip has the weight sqrt(1 - s^2): right for DDPM's schedules, not for the straight line"
            ),
            wrong=_root_of_the_rest,
            hints=Hints(
                "What are alpha and sigma at time t for a flow?",
                "The weight of the clip.",
                "alpha = 1 - t, sigma = t",
            ),
            section="Edit: start halfway",
            evidence="Reasoning slip: the rule of DDPM, alpha^2 + sigma^2 = 1, carried over to a flow.",
        ),
        Misconception(
            id="walks_from_the_top",
            title="all steps are walked from t = 1: the network is told that all is noise, and little is",
            wrong=_walks_from_the_top,
            hints=Hints(
                "What is the network told at the first step, and what does it see?",
                "The times that come back.",
                "the first time is s, for x is as noisy as that",
            ),
            section="Edit: start halfway",
            evidence=(
                "Reasoning slip: apple/ml-stable-diffusion issue 207 and others take it for an error that "
                "an edit has fewer steps than were asked for, and want them all."
            ),
        ),
        Misconception(
            id="squeezes_the_walk",
            title="all steps are squeezed below s: a right walk, but a finer one than was asked for",
            wrong=_squeezes_the_walk,
            hints=Hints(
                "How many steps of a walk of 10 lie below s = 0.45?",
                "Are the times that come back those of the grid?",
                "s, then the grid's own times below it",
            ),
            section="Edit: start halfway",
            evidence=(
                "stable-diffusion-webui has an option for it (issue 8668 asks why it stops early without): "
                "every edit then costs a whole walk."
            ),
        ),
        Misconception(
            id="leaves_out_the_start",
            title="s itself is left out: the first step begins at a time when there would be less noise",
            wrong=_leaves_out_the_start,
            hints=Hints(
                "At which time is x as noisy as it is?",
                "The first of the times that come back.",
                "s first, then the smaller ones",
            ),
            section="Edit: start halfway",
            evidence="Reasoning slip: 'the steps that remain' as a filter on the grid alone.",
        ),
        Misconception(
            id="share_of_the_steps",
            title="the last steps are taken, a share s of their number; their times are not looked at",
            wrong=_share_of_the_steps,
            hints=Hints(
                "Strength 0.45 and ten steps: at which time do you start, and how noisy is x?",
                "`int(steps * strength)` rounds.",
                "s first, then the grid's times below it",
            ),
            section="Edit: start halfway",
            evidence=(
                "invoke-ai/InvokeAI issue 252: strengths of 0.834 to 0.843 give one and the same picture, "
                "for a number of steps has no decimals."
            ),
        ),
    ),
    correct_alternatives=(_start_by_lerp, _start_by_clipping),
)

EXERCISES = (MASK, PUT_BACK, LATENT_MASK, ENCODE, START)
