"""Positions against closed forms, complex numbers and the properties that define them."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from sora_edu import positions
from sora_edu.positions import (
    LearnedPositions,
    frequencies,
    grid,
    rope_angles,
    rope_angles_3d,
    rope_angles_at,
    rotate,
    shift_matrix,
    sinusoidal,
    sinusoidal_2d,
    sinusoidal_2d_dit,
    sinusoidal_3d,
    sinusoidal_at,
    split_channels,
)  # fmt: skip


def by_the_formula(position, dim, base=10000.0):
    """One row, scalar by scalar, from Vaswani et al. with Python's own floats."""
    row = []
    for i in range(dim // 2):
        angle = position / base ** (2 * i / dim)
        row += [math.sin(angle), math.cos(angle)]
    return row


# --- sinusoids -------------------------------------------------------------------------------------------


def test_the_decks_table():
    table = torch.tensor([
        [0.0, 1.0, 0.0, 1.0],
        [0.84147, 0.54030, 0.09983, 0.99500],
        [0.90930, -0.41615, 0.19867, 0.98007],
        [0.14112, -0.98999, 0.29552, 0.95534],
    ])  # fmt: skip
    assert_close(sinusoidal(4, 4, 100.0), table, atol=6e-6, rtol=0)


@pytest.mark.parametrize(
    ("length", "dim", "base"), [(1, 2, 10000.0), (7, 6, 100.0), (50, 64, 10000.0), (9, 10, 2.5)]
)
def test_sinusoidal_is_the_formula(length, dim, base):
    expected = torch.tensor([by_the_formula(p, dim, base) for p in range(length)])
    code = sinusoidal(length, dim, base)
    assert code.dtype == torch.float32
    assert_close(code, expected)


def test_far_positions_keep_their_digits():
    """In float32 the angle 123456 * w would already be off by some hundredths."""
    row = sinusoidal_at(torch.tensor([[123456]]), 32)[0]
    assert_close(row, torch.tensor(by_the_formula(123456, 32)), atol=1e-6, rtol=0)


def test_every_position_has_the_same_length_and_its_own_code():
    code = sinusoidal(500, 64)
    assert_close(code.square().sum(1), torch.full((500,), 32.0))
    assert torch.cdist(code, code).fill_diagonal_(1).min() > 0.1


def test_dot_products_depend_on_distance_only():
    code, w = sinusoidal(40, 16).double(), frequencies(16)
    distance = torch.arange(40.0).double()[:, None] - torch.arange(40.0).double()
    assert_close(code @ code.T, torch.cos(w * distance[..., None]).sum(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [0.0, 1.0, -3.0, 17.0, 0.5])
def test_one_rotation_shifts_every_position(steps):
    here = torch.arange(30.0)[:, None]
    turned = sinusoidal_at(here, 12).double() @ shift_matrix(steps, 12).T
    assert_close(turned, sinusoidal_at(here + steps, 12).double(), atol=1e-6, rtol=0)


def test_shift_matrices_are_rotations_and_add_up():
    turn = shift_matrix(5.0, 8)
    assert_close(turn @ turn.T, torch.eye(8).double())
    assert_close(torch.linalg.det(turn), torch.tensor(1.0).double())
    assert_close(shift_matrix(2.0, 8) @ shift_matrix(3.0, 8), turn)


def test_frequencies_fall_geometrically_from_one():
    w = frequencies(8, 10000.0)
    assert_close(w, torch.tensor([1.0, 0.1, 0.01, 0.001]).double())
    assert_close(2 * math.pi / w[0], torch.tensor(2 * math.pi).double())


# --- grids -----------------------------------------------------------------------------------------------


def test_grid_is_raster_order():
    assert grid(2, 3).tolist() == [list(index) for index in np.ndindex(2, 3)]
    assert grid(2, 3, 4).tolist() == [list(index) for index in np.ndindex(2, 3, 4)]
    assert grid(3).tolist() == [[0], [1], [2]]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_split_channels_shares_all_channels_in_pairs(axes):
    for dim in range(2 * axes, 80, 2):
        parts = split_channels(dim, axes)
        assert sum(parts) == dim and all(part >= 2 and part % 2 == 0 for part in parts)
        assert max(parts) - min(parts) <= 2 and list(parts) == sorted(parts)


def test_2d_and_3d_codes_are_axis_codes_side_by_side():
    image = sinusoidal_2d(3, 5, 12).view(3, 5, 12)
    video = sinusoidal_3d(4, 3, 5, 20).view(4, 3, 5, 20)  # 10 pairs: 3, 3 and 4
    for y in range(3):
        for x in range(5):
            row = torch.tensor(by_the_formula(y, 6) + by_the_formula(x, 6))
            assert_close(image[y, x], row)
            for t in range(4):
                cell = by_the_formula(t, 6) + by_the_formula(y, 6) + by_the_formula(x, 8)
                assert_close(video[t, y, x], torch.tensor(cell))


def test_codes_of_larger_grids_begin_with_those_of_smaller_ones():
    small, large = sinusoidal_3d(2, 3, 4, 18), sinusoidal_3d(5, 6, 7, 18)
    assert_close(small.view(2, 3, 4, 18), large.view(5, 6, 7, 18)[:2, :3, :4])


def test_coordinates_may_be_fractions_and_parts_uneven():
    place = torch.tensor([[0.5, 2.25]])
    expected = torch.tensor([by_the_formula(0.5, 4) + by_the_formula(2.25, 8)])
    assert_close(sinusoidal_at(place, 12, parts=(4, 8)), expected)


def test_dit_layout_codes_the_column_first_and_sines_before_cosines():
    """From the description of the released layout, cell by cell."""
    code = sinusoidal_2d_dit(3, 5, 8).view(3, 5, 8)
    for y in range(3):
        for x in range(5):
            expected = []
            for place in (x, y):
                angles = [place, place / 100.0]  # 4 channels an axis: w = 1 and 10000^(-2/4)
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert_close(code[y, x], torch.tensor(expected))


# --- learned ---------------------------------------------------------------------------------------------


def test_learned_positions_add_one_row_of_each_table():
    learned = LearnedPositions((4, 3, 5), 6)
    code = learned(2, 3, 4)
    time, height, width = learned.tables
    for row, (t, y, x) in zip(code, np.ndindex(2, 3, 4), strict=True):
        assert_close(row, time[t] + height[y] + width[x])


def test_learned_positions_get_gradients_only_where_they_were_used():
    learned = LearnedPositions((6,), 4)
    learned(3).sum().backward()
    assert_close(learned.tables[0].grad, torch.tensor([1.0, 1, 1, 0, 0, 0])[:, None].expand(6, 4))


def test_learned_positions_refuse_a_longer_clip():
    with pytest.raises(ValueError, match=r"sizes=\(7,\).*at most \(6,\)"):
        LearnedPositions((6,), 4)(7)


# --- rotary ----------------------------------------------------------------------------------------------


def as_complex(x):
    return torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))


def test_rotate_is_multiplication_by_unit_complex_numbers():
    x = torch.randn(2, 3, 7, 10)
    angles = rope_angles(torch.arange(7), 10)
    expected = as_complex(x) * torch.polar(torch.ones(()).double(), angles.double())
    assert_close(as_complex(rotate(x, angles)), expected, atol=1e-6, rtol=1e-6)


def test_rotate_keeps_lengths_and_dtype():
    angles = rope_angles(torch.arange(5), 8)
    x = torch.randn(5, 8, dtype=torch.float64)
    assert_close(rotate(x, angles).norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert rotate(x, angles).dtype == torch.float64
    assert rotate(x.bfloat16(), angles).dtype == torch.bfloat16


@pytest.mark.parametrize("shift", [1, 40, 0.5])
def test_rotated_dot_products_depend_on_distance_only(shift):
    q, k = torch.randn(2, 9, 16, dtype=torch.float64)
    here = torch.arange(9.0)
    turned = [rotate(q, rope_angles(p, 16)) @ rotate(k, rope_angles(p, 16)).T for p in (here, here + shift)]
    assert_close(turned[0], turned[1], atol=1e-4, rtol=0)
    assert (turned[0] - q @ k.T).abs().max() > 0.1  # and they do depend on it


def test_sinusoidal_code_is_the_vector_up_turned_by_rope():
    """P_p is (0, 1, 0, 1, ...) turned by p, clockwise: the chapter's bridge from one to the other."""
    up = torch.tensor([0.0, 1.0]).repeat(6).expand(20, 12)
    assert_close(rotate(up, -rope_angles(torch.arange(20), 12)), sinusoidal(20, 12))


def test_3d_rope_turns_each_part_by_its_own_axis():
    angles = rope_angles_3d(2, 3, 4, 20, parts=(4, 6, 10))
    t, y, x = grid(2, 3, 4).double().T
    expected = [rope_angles(t, 4), rope_angles(y, 6), rope_angles(x, 10)]
    assert_close(angles, torch.cat(expected, dim=1))
    assert_close(angles, rope_angles_at(grid(2, 3, 4), 20, parts=(4, 6, 10)))


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinusoidal(4, 5), "dim=5.*even"),
        (lambda: sinusoidal(4, 0), "dim=0"),
        (lambda: sinusoidal(0, 4), "length=0"),
        (lambda: sinusoidal(4, 4, 1.0), "base=1.0"),
        (lambda: sinusoidal(4, 4, math.nan), "base=nan"),
        (lambda: sinusoidal_2d(0, 4, 8), r"sizes=\(0, 4\)"),
        (lambda: sinusoidal_2d(4, 4, 2), "dim=2.*at least 4"),
        (lambda: sinusoidal_3d(2, 4, 4, 9), "dim=9"),
        (lambda: sinusoidal_2d_dit(4, 4, 6), "dim=6.*multiple of 4"),
        (lambda: split_channels(8, 0), "axes=0"),
        (lambda: grid(), "one size"),
        (lambda: sinusoidal_at(grid(2, 2), 8, parts=(4, 2)), r"parts=\(4, 2\)"),
        (lambda: sinusoidal_at(grid(2, 2), 8, parts=(3, 5)), "dim=3"),
        (lambda: LearnedPositions((0,), 4), r"sizes=\(0,\)"),
        (lambda: LearnedPositions((3, 3), 4)(3), "at most"),
    ],
)
def test_bad_input_is_refused_with_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinusoidal_at(torch.arange(4), 8), "coordinates"),
        (lambda: rotate(torch.zeros(4, 8), rope_angles(torch.arange(3), 8)), "angles"),
        (lambda: rotate(torch.zeros(3, 6), rope_angles(torch.arange(3), 8)), "angles"),
    ],
)
def test_wrong_shapes_are_refused(call, message):
    """By the function itself, or before it by the shape checker where tests run under one."""
    with pytest.raises((ValueError, TypeCheckError), match=message):
        call()


def test_everything_public_is_listed_and_documented():
    for name in positions.__all__:
        assert getattr(positions, name).__doc__
