"""Patches, against a loop over every cell and against the convolution that they stand for."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from sora_edu.patches import check_divides, patchify_video, unpatchify_video

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
