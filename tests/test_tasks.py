"""The tasks: which pixels are given, what the network sees of them, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sora_edu import tasks
from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder

FRAMES, HEIGHT, WIDTH = 9, 16, 24
SIZE = (FRAMES, HEIGHT, WIDTH)
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[4:12, 8:16] = True


def given_frames(mask) -> list[int]:
    """Frames of which every pixel is given; the others must have none."""
    shares = mask.mean((1, 2))
    assert set(shares.tolist()) <= {0.0, 1.0}
    return [index for index, share in enumerate(shares) if share == 0]


# ---- Which pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        ("text_to_video", [], []),
        ("text_to_image", [], []),
        ("animate", [0], [0]),
        ("extend", [0, 1, 2], [0, 1, 2]),
        ("extend_backwards", [7, 8], [7, 8]),
        ("connect", [8, 1, 0], [0, 1, 8]),
        ("loop", [0, 1], [0, 1, 8]),
        ("edit", range(9), []),
    ],
)
def test_a_task_gives_these_frames(task, given, expected):
    assert given_frames(tasks.task_mask(task, *SIZE, list(given))) == expected


def test_an_inpainted_region_is_generated_and_nothing_else():
    mask = tasks.task_mask("inpaint", *SIZE, list(range(9)), BOX)
    assert (mask.numpy().astype(bool) == BOX).all()
    flipped = np.flipud(BOX)  # a view that runs backwards
    upside_down = tasks.task_mask("inpaint", *SIZE, list(range(9)), flipped)
    assert (upside_down.numpy().astype(bool) == BOX[::-1]).all()
    moving = np.stack([np.roll(BOX, frame, axis=1) for frame in range(9)])
    assert (tasks.task_mask("inpaint", *SIZE, list(range(9)), moving).numpy().astype(bool) == moving).all()


@pytest.mark.parametrize(
    ("task", "given", "region", "message"),
    [
        ("sing", [], None, "unknown; the tasks are: text_to_video, .*, edit"),
        ("text_to_video", [0], None, "given frames 0; it needs none"),
        ("animate", [], None, r"given no frames; it needs the first frame, \{0: picture\}"),
        ("animate", [1], None, "given frames 1; it needs the first frame"),
        ("extend", [1, 2], None, "it needs the first frames"),
        ("extend", [0, 2], None, "without a gap"),
        ("extend", list(range(9)), None, "it needs the first frames"),
        ("extend_backwards", [0], None, "up to 8"),
        ("extend_backwards", [6, 8], None, "without a gap up to 8"),
        ("connect", [0, 1], None, "one gap between"),
        ("connect", [0, 4, 8], None, "one gap between"),
        ("connect", [0, 9], None, "given has frame 9; a clip of 9 frames has 0 to 8"),
        ("loop", [], None, "given no frames"),
        ("loop", list(range(8)), None, "not the last one"),
        ("inpaint", [0], BOX, "every frame, 0 to 8"),
        ("inpaint", list(range(9)), None, "needs a region: True where pixels are to be generated"),
        ("inpaint", list(range(9)), BOX[:-1], r"region is \(15, 24\) of bool; it must be bool of \(16, 24\)"),
        ("inpaint", list(range(9)), 1.0 * BOX, r"of float64; it must be bool"),
        ("inpaint", list(range(9)), BOX & False, "nothing to generate"),
        ("animate", [0], BOX, "takes no region"),
        ("edit", [0], None, "every frame"),
    ],
)
def test_what_a_task_cannot_use_is_explained(task, given, region, message):
    with pytest.raises(ValueError, match=message):
        tasks.task_mask(task, *SIZE, given, region)


# ---- What the network sees ------------------------------------------------------------------------------


def test_what_is_to_be_made_does_not_shine_through():
    mask = tasks.task_mask("connect", *SIZE, [0, 8])
    one, other = torch.rand(2, 1, 3, *SIZE).unbind()
    other[:, :, [0, 8]] = one[:, :, [0, 8]]
    assert torch.equal(tasks.grey_out(one, mask), tasks.grey_out(other, mask))
    assert torch.equal(tasks.grey_out(one, mask)[:, :, 0], one[:, :, 0])
    assert (tasks.grey_out(one, mask)[:, :, 1:8] == 0).all()


def test_the_mask_of_latents_is_what_pooling_gives():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, *SIZE, generator=generator) < 0.01).float()
    pooled = F.max_pool2d(mask, 8)  # b t h w
    frames = [[max(0, 4 * cell - 3 + channel) for cell in range(3)] for channel in range(4)]
    expected = torch.stack([pooled[:, three] for three in frames], 1)
    assert torch.equal(tasks.latent_mask(mask), expected)
    assert 0 < expected.mean() < 1


def test_a_cell_is_given_only_if_all_of_its_pixels_are():
    mask = torch.zeros(*SIZE)
    mask[3, 7, 8] = 1
    seen = tasks.latent_mask(mask)
    assert seen.shape == (1, 4, 3, 2, 3)
    assert seen.sum() == 1
    assert seen[0, 2, 1, 0, 1] == 1  # frame 3 is the third of frames 1 to 4; row 7 and column 8 are in (0, 1)


@pytest.mark.parametrize("size", [(8, 16, 16), (9, 12, 16), (9, 16, 20)])
def test_sizes_without_latents_are_explained(size):
    with pytest.raises(ValueError, match=r"1 \+ 4k frames with sides that are multiples of 8"):
        tasks.latent_mask(torch.zeros(size))


def test_given_first_frames_have_the_latents_of_the_whole_clip():
    """The autoencoder is causal: what is grey later changes nothing earlier. The other way round it does."""
    torch.manual_seed(0)
    model = CausalVideoAutoencoder(
        AutoencoderConfig(widths=(8, 8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    ).eval()
    video = torch.rand(1, 3, *SIZE) * 2 - 1
    with torch.no_grad():
        whole = model.encode(video)
        first = tasks.encode_given(model, video, tasks.task_mask("extend", *SIZE, list(range(5))))
        last = tasks.encode_given(model, video, tasks.task_mask("extend_backwards", *SIZE, list(range(5, 9))))
    torch.testing.assert_close(first[:, :, :2], whole[:, :, :2], rtol=0, atol=1e-5)
    assert (last[:, :, 2] - whole[:, :, 2]).abs().max() > 1e-3  # the frames before are missing in it


def test_given_pixels_come_back_as_they_were():
    mask = tasks.task_mask("inpaint", *SIZE, list(range(9)), BOX)
    made, video = torch.rand(2, 2, 3, *SIZE).unbind()
    whole = tasks.put_back(made, video, mask)
    inside = torch.from_numpy(BOX)
    assert torch.equal(whole[..., inside], made[..., inside])
    assert torch.equal(whole[..., ~inside], video[..., ~inside])


def test_pictures_are_placed_at_their_frames():
    picture = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    clip = tasks.place_given("connect", {0: picture, 8: 2 * picture}, *SIZE)
    assert clip[:, 0, 0, 0].tolist() == [7, *[0] * 7, 14]
    assert tasks.place_given("loop", {0: picture}, *SIZE)[:, 0, 0, 0].tolist() == [7, *[0] * 7, 7]
    for wrong in (picture[:-1], picture / 255, picture[..., :1]):
        with pytest.raises(ValueError, match=r"given\[2\] is .* must be \(16, 24, 3\) of uint8"):
            tasks.place_given("extend", {2: wrong}, *SIZE)


@pytest.mark.parametrize(
    ("task", "counts", "expected"),
    [
        ("text_to_video", [], []),
        ("animate", [1], [0]),
        ("animate", [9], [0]),
        ("extend", [3], [0, 1, 2]),
        ("extend_backwards", [3], [6, 7, 8]),
        ("connect", [3, 2], [0, 1, 2, 7, 8]),
        ("loop", [2], [0, 1]),
        ("edit", [9], list(range(9))),
    ],
)
def test_films_go_where_their_task_needs_them(task, counts, expected):
    assert tasks.frame_indices(task, counts, 9) == expected
    tasks.task_mask(task, *SIZE, expected)  # and the task agrees


def test_films_that_do_not_fit_are_explained():
    for task, counts in (("connect", [3]), ("extend", [2, 2]), ("text_to_video", [1]), ("extend", [])):
        with pytest.raises(ValueError, match=f"task='{task}' starts from . films or pictures"):
            tasks.frame_indices(task, counts, 9)
    with pytest.raises(ValueError, match="has 10 frames; the clip has 9"):
        tasks.frame_indices("extend", [10], 9)


# ---- Training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [5, 17])
def test_training_meets_every_way_to_give_pixels(frames):
    generator, kinds = torch.Generator().manual_seed(0), set()
    for _ in range(300):
        mask = tasks.training_mask(frames, 32, 32, generator)
        assert mask.shape == (frames, 32, 32)
        assert mask.mean() > 0
        shares = mask.mean((1, 2))
        if 0 < shares[0] < 1 or shares.min() == 1:
            kinds.add("inpaint")
            continue
        given = given_frames(mask)
        kinds.add((0 in given, frames - 1 in given, len(given) > 2))
    assert kinds == {
        "inpaint", (True, False, False), (True, False, True), (False, True, False), (False, True, True),
        (True, True, False), (True, True, True),
    }  # fmt: skip


def test_the_same_generator_gives_the_same_mask():
    masks = [tasks.training_mask(17, 32, 32, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*masks)
