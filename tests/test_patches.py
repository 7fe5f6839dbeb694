"""Patches, against a loop over every cell and against the convolution that they stand for."""

import itertools
from inspect import unwrap

import pytest
import torch
import torch.nn.functional as F

from sora_edu.patches import (
    check_divides,
    convolution_weight,
    patchify,
    patchify_video,
    shuffle_patches,
    unpatchify,
    unpatchify_video,
)

# Height, width and time all differ, and so do the sides of the patch: a swap of any two shows.
VIDEO, PATCH, GRID = (2, 3, 4, 6, 10), (2, 3, 5), (2, 2, 2)
CASES = [
    (VIDEO, PATCH, GRID),
    ((1, 2, 5, 8, 4), (1, 2, 2), (5, 4, 2)),
    ((3, 1, 1, 2, 6), (1, 1, 1), (1, 2, 6)),
]


@pytest.mark.parametrize(("shape", "patch", "grid"), CASES)
def test_every_cell_lands_where_a_plain_loop_puts_it(shape, patch, grid):
    video = torch.arange(torch.tensor(shape).prod().item()).view(shape).float()
    tokens, (pt, ph, pw) = patchify_video(video, patch), patch
    for b in range(shape[0]):
        for n, (t, h, w) in enumerate(itertools.product(*map(range, grid))):
            cells = itertools.product(range(pt), range(ph), range(pw), range(shape[1]))
            wanted = [video[b, c, t * pt + i, h * ph + j, w * pw + k].item() for i, j, k, c in cells]
            assert tokens[b, n].tolist() == wanted


@pytest.mark.parametrize(("shape", "patch", "grid"), CASES)
def test_the_round_trip_is_exact(shape, patch, grid, generator):
    video = torch.randn(shape, generator=generator)
    tokens = patchify_video(video, patch)
    assert torch.equal(unpatchify_video(tokens, patch, grid), video)
    assert check_divides(shape[2:], patch) == grid


def test_a_linear_map_of_patches_is_a_strided_convolution(generator):
    """A convolution keeps its weight as (out, c, t, h, w), a token its values as (t, h, w, c)."""
    video = torch.randn(VIDEO, generator=generator, dtype=torch.float64)
    kernel = torch.randn(7, VIDEO[1], *PATCH, generator=generator, dtype=torch.float64)
    tokens = patchify_video(video, PATCH) @ kernel.permute(2, 3, 4, 1, 0).reshape(-1, 7)
    torch.testing.assert_close(tokens, F.conv3d(video, kernel, stride=PATCH).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("side", [0, 1, 2])
def test_a_patch_that_does_not_divide_is_explained(side):
    shape = [1, 1, 4, 4, 4]
    shape[2 + side] = 5
    message = rf"size \({shape[2]}, {shape[3]}, {shape[4]}\).*patches of \(2, 2, 2\)"
    with pytest.raises(ValueError, match=message):
        patchify_video(torch.zeros(shape), (2, 2, 2))


def test_a_grid_that_does_not_fit_is_explained():
    with pytest.raises(ValueError, match=r"tokens has 8 tokens; the grid \(2, 2, 3\) holds 12"):
        unpatchify_video(torch.zeros(1, 8, 12), (1, 2, 2), (2, 2, 3))


# --- pictures --------------------------------------------------------------------------------------------

PICTURES = [((2, 3, 4, 6), 2, (2, 3)), ((1, 1, 6, 3), 3, (2, 1)), ((2, 4, 2, 5), 1, (2, 5))]


@pytest.mark.parametrize(("shape", "patch", "grid"), PICTURES)
def test_every_pixel_lands_where_a_plain_loop_puts_it(shape, patch, grid):
    x = torch.arange(torch.tensor(shape).prod().item()).view(shape).float()
    tokens = patchify(x, patch)
    for b in range(shape[0]):
        for n, (row, column) in enumerate(itertools.product(*map(range, grid))):
            cells = itertools.product(range(patch), range(patch), range(shape[1]))
            wanted = [x[b, c, row * patch + i, column * patch + j].item() for i, j, c in cells]
            assert tokens[b, n].tolist() == wanted


@pytest.mark.parametrize(("shape", "patch", "grid"), PICTURES)
def test_pictures_come_back_and_are_videos_of_one_frame(shape, patch, grid, generator):
    x = torch.randn(shape, generator=generator)
    assert torch.equal(unpatchify(patchify(x, patch), patch, grid), x)
    assert torch.equal(patchify(x, patch), patchify_video(x[:, :, None], (1, patch, patch)))


def test_a_linear_map_of_square_patches_is_a_strided_convolution(generator):
    x = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    linear = torch.nn.Linear(12, 7, dtype=torch.float64)
    kernel = convolution_weight(linear.weight, 3, 2)
    convolved = F.conv2d(x, kernel, linear.bias, stride=2)
    torch.testing.assert_close(linear(patchify(x, 2)), convolved.flatten(2).transpose(1, 2))


def test_unfold_holds_the_same_patches_in_the_order_of_a_convolution(generator):
    x = torch.randn(2, 3, 4, 6, generator=generator)
    unfolded = F.unfold(x, 2, stride=2).transpose(1, 2)  # b n (c p q)
    assert torch.equal(patchify(x, 2).unflatten(2, (4, 3)).transpose(2, 3).flatten(2), unfolded)


def test_shuffled_patches_stand_where_the_order_says(generator):
    x = torch.randn(1, 2, 4, 6, generator=generator)
    moved = shuffle_patches(x, 2, torch.tensor([5, 1, 2, 3, 4, 0]))
    assert torch.equal(moved[..., :2, :2], x[..., 2:, 4:])
    assert torch.equal(moved[..., 2:, 4:], x[..., :2, :2])
    assert torch.equal(moved[..., :2, 2:], x[..., :2, 2:])


@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (1, 1, 4, 5), (1, 1, 1, 4)])
def test_a_picture_that_does_not_divide_is_told_what_would_fit(shape):
    near = tuple(max(2, side - side % 2) for side in shape[2:])
    message = rf"x has size \({shape[2]}, {shape[3]}\) \(h, w\), which patches of \(2, 2\) do not divide; "
    with pytest.raises(ValueError, match=message + rf"\({near[0]}, {near[1]}\) would fit"):
        patchify(torch.zeros(shape), 2)


# `unwrap` takes off the checks of shapes that only the tests have.
REFUSED = {
    r"x has shape \(3, 4, 4\); give \(b, c, h, w\)": lambda: unwrap(patchify)(torch.zeros(3, 4, 4), 2),
    r"patch=\(0, 0\): every side must be at least 1": lambda: patchify(torch.zeros(1, 1, 4, 4), 0),
    r"tokens has 6 tokens; the grid \(2, 2\) holds 4": lambda: unpatchify(torch.zeros(1, 6, 4), 2, (2, 2)),
    "tokens has 6 channels; patches of 2 take a multiple of 4": lambda: unpatchify(
        torch.zeros(1, 4, 6), 2, (2, 2)
    ),
    r"tokens has shape \(4, 4\); give \(b, n, d\)": lambda: unwrap(unpatchify)(
        torch.zeros(4, 4), 2, (2, 2)
    ),
    "weight takes 10 numbers; a patch of 2 with 3 channels has 12": lambda: convolution_weight(
        torch.zeros(5, 10), 3, 2
    ),
    r"order=\[0, 1, 1, 3\]: it must name each of the patches 0 to 3 once": lambda: shuffle_patches(
        torch.zeros(1, 1, 4, 4), 2, torch.tensor([0, 1, 1, 3])
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_pictures_and_tokens_are_explained(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
