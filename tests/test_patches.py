"""Patches, against a loop over every cell and against the convolution that they stand for."""

import itertools
import math
import random
from inspect import unwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.linalg import block_diag

from sora_edu.patches import (
    PADDING,
    central_square,
    check_divides,
    convolution_weight,
    first_fit,
    kept_tokens,
    pack,
    packing_mask,
    patchify,
    patchify_video,
    sample_frames,
    share_inside,
    shuffle_patches,
    tubelet_kernel,
    tubelet_weight,
    unpatchify,
    unpatchify_video,
)
from sora_edu.positions import sinusoidal_3d, sinusoidal_at
from sora_edu.transformer import Block

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


def test_a_picture_where_a_video_is_needed_is_told_so():
    with pytest.raises(ValueError, match=r"x has 2 sides, \(8, 8\), and patches of \(1, 2, 2\) have 3"):
        check_divides((8, 8), (1, 2, 2))


# `unwrap` takes off the checks of shapes that only the tests have.
REFUSED = {
    r"x has shape \(3, 4, 4\); give \(b, c, h, w\)": lambda: unwrap(patchify)(torch.zeros(3, 4, 4), 2),
    r"patch=\(0, 0\): every side must be at least 1": lambda: patchify(torch.zeros(1, 1, 4, 4), 0),
    r"tokens has 6 tokens; the grid \(2, 2\) holds 4": lambda: unpatchify(torch.zeros(1, 6, 4), 2, (2, 2)),
    "tokens has 6 channels; patches of 2 take a multiple of 4": lambda: unpatchify(
        torch.zeros(1, 4, 6), 2, (2, 2)
    ),
    r"tokens has shape \(4, 4\); give \(b, n, d\)": lambda: unwrap(unpatchify)(torch.zeros(4, 4), 2, (2, 2)),
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


# --- tubelets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [(2, 3, 5), (1, 2, 2), (4, 6, 1)])
def test_a_linear_map_of_tubelets_is_torchs_3d_convolution(patch, generator):
    video = torch.randn(VIDEO, generator=generator, dtype=torch.float64)
    linear = torch.nn.Linear(3 * math.prod(patch), 7, dtype=torch.float64)
    conv = torch.nn.Conv3d(3, 7, patch, stride=patch, dtype=torch.float64)
    conv.weight.data, conv.bias = tubelet_kernel(linear.weight.data, 3, patch), linear.bias
    torch.testing.assert_close(
        linear(patchify_video(video, patch)), rearrange(conv(video), "b d t h w -> b (t h w) d")
    )


def test_the_kernel_of_one_frame_is_that_of_a_picture(generator):
    weight = torch.randn(5, 12, generator=generator)
    assert torch.equal(tubelet_kernel(weight, 3, (1, 2, 2))[:, :, 0], convolution_weight(weight, 3, 2))


@pytest.mark.parametrize(("step", "wanted"), [(1, range(6)), (2, [1, 3, 5]), (3, [1, 4]), (6, [3])])
def test_sampled_frames_are_the_middle_ones(step, wanted):
    video = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(2, 3, 6, 2, 2)
    assert sample_frames(video, step)[1, 2, :, 0, 1].tolist() == list(wanted)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_central_frame_start_is_frame_sampling(frames, generator):
    """The tokens of tubelets are, to the last bit but rounding, those of the sampled frames."""
    video = torch.randn(2, 3, 12, 4, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    tubelets = patchify_video(video, (frames, 2, 2)) @ tubelet_weight(weight, frames).T
    sampled = patchify_video(sample_frames(video, frames), (1, 2, 2)) @ weight.T
    torch.testing.assert_close(tubelets, sampled, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_inflated_start_sees_the_mean_of_the_frames(frames, generator):
    video = torch.randn(2, 3, 12, 4, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    tubelets = patchify_video(video, (frames, 2, 2)) @ tubelet_weight(weight, frames, "inflated").T
    means = F.avg_pool3d(video, (frames, 1, 1))
    torch.testing.assert_close(tubelets, patchify_video(means, (1, 2, 2)) @ weight.T)


# --- packing ---------------------------------------------------------------------------------------------


def test_first_fit_is_what_a_slow_loop_finds():
    rng = random.Random(0)
    for _ in range(50):
        size = rng.randint(5, 12)
        lengths = [rng.randint(1, size) for _ in range(rng.randint(1, 20))]
        places = []
        for number, length in enumerate(lengths):
            for row in itertools.count():
                if sum(lengths[k] for k in range(number) if places[k] == row) + length <= size:
                    places.append(row)
                    break
        wanted = [[k for k, row in enumerate(places) if row == r] for r in range(max(places) + 1)]
        assert first_fit(lengths, size) == wanted


def test_the_mask_is_scipys_block_diagonal():
    samples = torch.tensor([[3, 3, 0, 0, 0, PADDING], [1, 2, 2, 2, PADDING, PADDING]])
    for row, sizes in zip(packing_mask(samples), ((2, 3), (1, 3)), strict=True):
        wanted = np.zeros((6, 6), bool)
        blocks = block_diag(*(np.ones((size, size)) for size in sizes))
        wanted[: len(blocks), : len(blocks)] = blocks
        assert np.array_equal(row[0].numpy(), wanted)


SIZES = [(1, 4, 4), (3, 4, 2), (2, 2, 6), (5, 2, 2), (1, 2, 2), (3, 4, 4)]  # cells: t h w
PACK_PATCH = (1, 2, 2)


@pytest.fixture
def clips(generator):
    return [torch.randn(3, *size, generator=generator, dtype=torch.float64) for size in SIZES]


def test_every_token_is_packed_once_with_its_own_place(clips):
    packed = pack(clips, PACK_PATCH, 14)
    assert packed.tokens.shape[1:] == (14, 12)
    for clip, own, places in zip(
        clips, packed.split(packed.tokens), packed.split(packed.coordinates), strict=True
    ):
        assert torch.equal(own, patchify_video(clip[None], PACK_PATCH)[0])
        t, h, w = clip.shape[1:]
        wanted = itertools.product(range(t), range(h // 2), range(w // 2))
        assert [tuple(place) for place in places.tolist()] == list(wanted)
    empty = packed.samples == PADDING
    assert not packed.tokens[empty].any()
    tokens = sum(t * h * w // 4 for t, h, w in SIZES)
    assert packed.padding == pytest.approx(1 - tokens / empty.numel())


@pytest.mark.parametrize("size", [14, 20, 60])
def test_packed_is_unpacked(clips, size):
    """Two blocks of a transformer, positions and a mean over each sample: as if each clip had run alone."""
    torch.manual_seed(0)
    embed = torch.nn.Linear(12, 24).double()
    blocks = torch.nn.ModuleList(Block(24, 2) for _ in range(2)).double()
    packed = pack(clips, PACK_PATCH, size)
    assert packed.padding > 0
    codes = sinusoidal_at(packed.coordinates.flatten(0, 1), 24).unflatten(0, packed.samples.shape)
    x = embed(packed.tokens) + codes
    for block in blocks:
        x = block(x, packed.mask)
    assert x.isfinite().all()
    for clip, own, mean in zip(clips, packed.split(x), packed.means(x), strict=True):
        grid = tuple(side // cell for side, cell in zip(clip.shape[1:], PACK_PATCH, strict=True))
        y = embed(patchify_video(clip[None], PACK_PATCH)) + sinusoidal_3d(*grid, 24)
        for block in blocks:
            y = block(y)
        torch.testing.assert_close(own, y[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mean, y[0].mean(0), rtol=1e-12, atol=1e-12)


def test_packed_attention_is_torchs_own_on_each_sample(generator):
    samples = torch.tensor([[0, 0, 0, 1, 1, PADDING]])
    q, k, v = torch.randn(3, 1, 2, 6, 4, generator=generator, dtype=torch.float64)
    out = F.scaled_dot_product_attention(q, k, v, packing_mask(samples))
    for span in (slice(0, 3), slice(3, 5)):
        alone = F.scaled_dot_product_attention(q[:, :, span], k[:, :, span], v[:, :, span])
        torch.testing.assert_close(out[:, :, span], alone, rtol=1e-12, atol=1e-12)
    assert out.isfinite().all()


def test_padding_makes_no_nan_in_the_gradient(clips):
    torch.manual_seed(0)
    block, packed = Block(12, 2).double(), pack(clips, PACK_PATCH, 20)
    packed.means(block(packed.tokens, packed.mask)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


def test_dropped_tokens_leave_the_others_in_place(clips):
    drop = [0.0, 0.5, 0.25, 0.2, 0.0, 0.75]
    packed = pack(clips, PACK_PATCH, 14, drop, torch.Generator().manual_seed(0))
    counts = [t * h * w // 4 for t, h, w in SIZES]
    assert [len(own) for own in packed.split(packed.tokens)] == [
        n - round(d * n) for n, d in zip(counts, drop, strict=True)
    ]
    for clip, own, places in zip(
        clips, packed.split(packed.tokens), packed.split(packed.coordinates), strict=True
    ):
        grid = [side // cell for side, cell in zip(clip.shape[1:], PACK_PATCH, strict=True)]
        whole = patchify_video(clip[None], PACK_PATCH)[0].view(*grid, -1)
        assert torch.equal(own, whole[tuple(places.T)])


def test_dropping_is_even_sorted_and_repeats():
    kept = kept_tokens(10, 0.3, torch.Generator().manual_seed(0))
    assert kept.tolist() == sorted(kept.tolist()) and len(set(kept.tolist())) == 7
    assert torch.equal(kept, kept_tokens(10, 0.3, torch.Generator().manual_seed(0)))
    assert kept_tokens(4, 0).tolist() == [0, 1, 2, 3]
    generator = torch.Generator().manual_seed(1)
    counts = torch.stack([kept_tokens(10, 0.5, generator).bincount(minlength=10) for _ in range(2000)])
    assert (counts.double().mean(0) - 0.5).abs().max() < 0.05  # five standard errors


# --- crops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "wanted"), [((4, 8), (0, 4, 2, 6)), ((9, 4), (2, 6, 0, 4)), ((3, 3), (0, 3, 0, 3))]
)
def test_the_central_square(size, wanted):
    rows, columns = central_square(*size)
    assert (rows.start, rows.stop, columns.start, columns.stop) == wanted


def test_the_share_inside_is_a_count_of_pixels(generator):
    for _ in range(100):
        a, b, c, d = torch.randint(0, 12, (4, 2), generator=generator).sort(1).values.tolist()
        box, window = (slice(a[0], a[1] + 1), slice(b[0], b[1] + 1)), (slice(*c), slice(*d))
        canvas = torch.zeros(14, 14)
        canvas[box] = 1
        assert share_inside(box, window) == pytest.approx((canvas[window].sum() / canvas.sum()).item())


REFUSED_BY_PACKING = {
    "frames=0: a tubelet has at least 1": lambda: tubelet_weight(torch.zeros(2, 3), 0),
    "start='first' is unknown; use one of: central, inflated": lambda: tubelet_weight(
        torch.zeros(2, 3), 2, "first"
    ),
    r"weight takes 10 numbers; a tubelet of \(2, 2, 2\) with 3 channels has 24": lambda: tubelet_kernel(
        torch.zeros(5, 10), 3, (2, 2, 2)
    ),
    r"x has size \(5, 2, 2\).*; \(4, 2, 2\) would fit": lambda: sample_frames(torch.zeros(1, 3, 5, 2, 2), 2),
    "sample 1 has 9 tokens; a row holds 1 to size=8": lambda: first_fit([3, 9], 8),
    "sample 0 has 0 tokens": lambda: first_fit([0], 8),
    "drop=1.0: must be at least 0 and below 1": lambda: kept_tokens(4, 1.0),
    "drop=0.9 leaves none of 4 tokens": lambda: kept_tokens(4, 0.9),
    r"0 videos with channels \[\] and 0 drops": lambda: pack([], PACK_PATCH, 8),
    r"2 videos with channels \[1, 3\]": lambda: pack(
        [torch.zeros(1, 1, 2, 2), torch.zeros(3, 1, 2, 2)], PACK_PATCH, 8
    ),
    r"1 videos with channels \[3\] and 2 drops": lambda: pack(
        [torch.zeros(3, 1, 2, 2)], PACK_PATCH, 8, [0.0, 0.5]
    ),
    "sample 0 has 9 tokens; a row holds 1 to size=8": lambda: pack([torch.zeros(3, 1, 6, 6)], PACK_PATCH, 8),
    r"x has size \(1, 3, 2\)": lambda: pack([torch.zeros(3, 1, 3, 2)], PACK_PATCH, 8),
    "has no area": lambda: share_inside((slice(2, 2), slice(0, 1)), (slice(0, 3), slice(0, 3))),
    r"box=.* has no area": lambda: share_inside((slice(2, 1), slice(2, 1)), (slice(0, 3), slice(0, 3))),
    "height=0, width=4: both must be at least 1": lambda: central_square(0, 4),
    "step=0: must be at least 1": lambda: sample_frames(torch.zeros(1, 3, 4, 2, 2), 0),
    r"video has shape \(3, 4, 4\); give \(c, t, h, w\)": lambda: unwrap(pack)(
        [torch.zeros(3, 4, 4)], PACK_PATCH, 8
    ),
}


@pytest.mark.parametrize("message", REFUSED_BY_PACKING)
def test_what_cannot_be_packed_is_explained(message):
    with pytest.raises(ValueError, match=message):
        REFUSED_BY_PACKING[message]()
