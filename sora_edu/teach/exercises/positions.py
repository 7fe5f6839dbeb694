"""Exercises of chapter 02: frequencies, the sinusoidal code, shifts, grids, shares of channels, RoPE."""

import math
import random
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sora_edu.positions import frequencies, rotate, shift_matrix, sinusoidal, split_channels
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "02_positional_encoding"


def _turns(places: Tensor, dim: int, base: float) -> Tensor:
    """Complex unit numbers e^(i p w): the independent oracle's whole stock of sines and cosines."""
    speeds = torch.tensor([math.exp(-2 * i / dim * math.log(base)) for i in range(dim // 2)]).double()
    return torch.exp(1j * places.double()[:, None] * speeds)


def _interleaved(turns: Tensor) -> Tensor:
    return torch.view_as_real(turns).flip(-1).flatten(-2).float()  # (cos, sin) -> sin, cos, sin, cos, ...


def _random_sizes(seed: int) -> tuple[random.Random, int, float]:
    rng = random.Random(seed)
    return rng, 4 * rng.randint(2, 16), round(rng.uniform(50, 20000), 1)


# --- frequencies -----------------------------------------------------------------------------------------


def _frequency_cases(seed: int) -> list[Case]:
    _, dim, base = _random_sizes(seed)
    return [Case(4, 100.0), Case(6, 1000.0), Case(dim, base), Case(64)]


def _frequency_oracle(dim: int, base: float = 10000.0) -> Tensor:
    return torch.tensor([1.0 / base ** (2 * i / dim) for i in range(dim // 2)]).double()


def _doubled_exponent(dim, base=10000.0):
    return torch.tensor([base ** (-2 * i / dim) for i in range(0, dim, 2)])


def _index_not_doubled(dim, base=10000.0):
    return base ** (-torch.arange(dim // 2) / dim)


def _half_minus_one(dim, base=10000.0):
    half = dim // 2
    return torch.exp(-math.log(base) / (half - 1) * torch.arange(half))


def _no_minus(dim, base=10000.0):
    return base ** (torch.arange(0, dim, 2) / dim)


def _floored(dim, base=10000.0):
    return torch.exp(torch.arange(0, dim, 2) * (-math.log(base) / dim // 2))


def _evenly_spaced(dim, base=10000.0):
    return torch.linspace(1, 1 / base, dim // 2)


FREQUENCIES = Exercise(
    id="positions.frequencies",
    chapter=CHAPTER,
    title="How fast each hand turns",
    minutes=8,
    difficulty=1,
    reference=frequencies,
    oracle=_frequency_oracle,
    cases=_frequency_cases,
    properties=(
        Property("the first hand turns by one radian a step", lambda f: abs(float(f(8)[0]) - 1) < 1e-6),
        Property(
            "each hand is slower than the one before by the same factor",
            lambda f: float(torch.as_tensor(f(16)).log().diff().diff().abs().max()) < 1e-4,
        ),
    ),
    hints=Hints(
        "With dim = 4 there are two hands. Which two powers of the base do you want?",
        "The exponent: what is it for the first hand, and what for the last?",
        "w_i = base^(-2i/dim) for i = 0, 1, …, dim/2 - 1",
    ),
    misconceptions=(
        Misconception(
            id="doubled_exponent",
            title="the index already goes in steps of two, and is doubled once more",
            wrong=_doubled_exponent,
            hints=Hints(
                "Your first hand is right. By how much should the exponent grow from hand to hand?",
                "The range of your index and the factor 2 in the exponent: one of them is enough.",
                "Either i = 0, 1, 2, … with exponent -2i/dim, or e = 0, 2, 4, … with exponent -e/dim",
            ),
            section="Clock hands",
            evidence=(
                "SamLynnEvans/Transformer issue 25 and intro-llm issue 34: `for i in range(0, d, 2)` "
                "together with `10000 ** (2 * i / d)`."
            ),
        ),
        Misconception(
            id="index_not_doubled",
            title="the exponent uses the number of the pair where the number of the channel is meant",
            wrong=_index_not_doubled,
            hints=Hints(
                "With dim = 64 the last exponent should be close to -1. What is yours?",
                "The numerator of the exponent: pair i begins at which channel?",
                "w_i = base^(-2i/dim): pair i begins at channel 2i",
            ),
            section="Clock hands",
            evidence=(
                "tensorflow/models issue 9075 and r9y9/deepvoice3_pytorch issue 19: readers ask whether the"
                " exponent holds i, i // 2 or 2i, since the paper's i counts pairs and the code's counts"
                " channels."
            ),
        ),
        Misconception(
            id="half_minus_one",
            title="the exponents run to exactly -1, dividing by one pair too few",
            wrong=_half_minus_one,
            hints=Hints(
                "Should the last hand reach 1/base exactly, or stop one step before it?",
                "The denominator of the exponent.",
                "w_i = base^(-i/(dim/2)), not base^(-i/(dim/2 - 1))",
            ),
            section="Clock hands",
            evidence=(
                "hojonathanho/diffusion issue 15 asks why half_dim - 1 stands there (it came from"
                " tensor2tensor and fairseq); kohya-ss/sd-scripts pull request 1187 repairs SDXL training"
                " for it."
            ),
        ),
        Misconception(
            id="no_minus",
            title="the minus sign is missing: the hands get faster and faster",
            wrong=_no_minus,
            hints=Hints(
                "Is your last hand the slowest?",
                "The sign of the exponent, or whether you divide or multiply.",
                "w_i = base^(-2i/dim) = 1 / base^(2i/dim)",
            ),
            section="Clock hands",
            evidence=(
                "hkproj/pytorch-transformer issue 2 (a comment that multiplies by 10000^(2i/d)) and "
                "aharley/pips issue 30 (multiplying where dividing was meant)."
            ),
        ),
        Misconception(
            id="floored",
            title="`/ dim // 2` divides first and rounds down afterwards",
            wrong=_floored,
            hints=Hints(
                "Print the factor in front of the index. Is it a round number?",
                "Operators / and // are worked out from left to right: where do the brackets belong?",
                "log w_i = -(2i/dim) log(base)",
            ),
            section="Clock hands",
            evidence="zju3dv/LoFTR issue 41: `-math.log(10000.0) / d_model//2` is -1.0 for every width.",
        ),
        Misconception(
            id="evenly_spaced",
            title="the speeds are evenly spaced; their logarithms should be",
            wrong=_evenly_spaced,
            hints=Hints(
                "Divide each speed by the one before. What should be constant?",
                "Linear spacing: use powers in its place.",
                "w_(i+1) / w_i = base^(-2/dim)",
            ),
            section="Clock hands",
            evidence=(
                "lucidrains/perceiver-pytorch issue 52: linear and logarithmic bands taken for one another."
            ),
        ),
    ),
    correct_alternatives=(
        lambda dim, base=10000.0: torch.exp(-math.log(base) * torch.arange(0, dim, 2) / dim),
        lambda dim, base=10000.0: torch.tensor([base ** (-2 * i / dim) for i in range(dim // 2)]),
        lambda dim, base=10000.0: torch.logspace(0, -1 + 2 / dim, dim // 2, base=base),
    ),
)


# --- sinusoidal ------------------------------------------------------------------------------------------


def _sinusoidal_cases(seed: int) -> list[Case]:
    rng, dim, base = _random_sizes(seed)
    return [Case(4, 4, 100.0), Case(rng.randint(5, 30), dim, base), Case(12, 6)]


def _sinusoidal_oracle(length: int, dim: int, base: float = 10000.0) -> Tensor:
    return _interleaved(_turns(torch.arange(length), dim, base))


def _angles(length, dim, base, first=0):
    places = torch.arange(first, first + length)[:, None]
    return places * base ** (-torch.arange(0, dim, 2).double() / dim)


def _woven(even: Tensor, odd: Tensor) -> Tensor:
    return torch.stack([even, odd], dim=-1).flatten(-2).float()


def _in_halves(length, dim, base=10000.0):
    angles = _angles(length, dim, base)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def _cosine_of_its_own(length, dim, base=10000.0):
    places = torch.arange(length)[:, None]
    sine = (places * base ** (-torch.arange(0, dim, 2).double() / dim)).sin()
    cosine = (places * base ** (-torch.arange(1, dim, 2).double() / dim)).cos()
    return _woven(sine, cosine)


def _every_channel_a_pair(length, dim, base=10000.0):
    angles = torch.arange(length)[:, None] * base ** (-2 * torch.arange(dim).double() / dim)
    return _woven(angles[:, 0::2].sin(), angles[:, 1::2].cos())


def _from_one(length, dim, base=10000.0):
    angles = _angles(length, dim, base, first=1)
    return _woven(angles.sin(), angles.cos())


def _cosine_first(length, dim, base=10000.0):
    angles = _angles(length, dim, base)
    return _woven(angles.cos(), angles.sin())


def _scalar_by_scalar(length, dim, base=10000.0):
    code = np.zeros((length, dim))
    for p in range(length):
        for channel in range(dim):
            angle = p / base ** (2 * (channel // 2) / dim)
            code[p, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return torch.tensor(code, dtype=torch.float32)


SINUSOIDAL = Exercise(
    id="positions.sinusoidal",
    chapter=CHAPTER,
    title="The deck's table",
    minutes=12,
    difficulty=2,
    reference=sinusoidal,
    oracle=_sinusoidal_oracle,
    cases=_sinusoidal_cases,
    properties=(
        Property(
            "every row has the squared length dim / 2",
            lambda f: torch.allclose(
                f(9, 8).double().square().sum(1), torch.full((9,), 4.0).double(), atol=1e-4
            ),
        ),
    ),
    hints=Hints(
        "Row 0 has to be 0, 1, 0, 1. Is it?",
        "First make the table of angles, (length, dim / 2): position times frequency. Then sine and cosine.",
        "P[p, 2i] = sin(p w_i),  P[p, 2i+1] = cos(p w_i),  p = 0 … length - 1",
    ),
    misconceptions=(
        Misconception(
            id="in_halves",
            title="all sines first, then all cosines: the numbers are right, their order is not the deck's",
            wrong=_in_halves,
            hints=Hints(
                "Compare your row 0 with 0, 1, 0, 1. What is where?",
                "The line that joins sines and cosines: `code[:, 0::2]` picks every second channel.",
                "Channels alternate: sin, cos, sin, cos, … Both orders teach a network the same; mixing them"
                " does not",
            ),
            section="Clock hands",
            evidence=(
                "tensorflow/tensor2tensor issue 391, kimiyoung/transformer-xl issue 119, Open-Sora-Plan issue"
                " 315: readers of code that joins the halves find that it differs from the paper."
            ),
        ),
        Misconception(
            id="cosine_of_its_own",
            title="the cosine has a frequency of its own; it shares the sine's",
            wrong=_cosine_of_its_own,
            hints=Hints(
                "Square a sine, square the cosine beside it, add. Do you get 1?",
                "The exponent that the cosines use.",
                "P[p, 2i+1] = cos(p base^(-2i/dim)), with the same 2i as the sine",
            ),
            section="Clock hands",
            evidence=(
                "SamLynnEvans/Transformer issue 25 and maxjcohen/transformer issue 62 (`arange(1, d, 2)`)."
            ),
        ),
        Misconception(
            id="every_channel_a_pair",
            title="the formula's i is taken for the number of the channel; it is the number of the pair",
            wrong=_every_channel_a_pair,
            hints=Hints(
                "How many different frequencies does your table have? How many should it have?",
                "The exponent of the odd channels, and the range of i.",
                "Channel c belongs to pair i = c // 2; both channels of a pair use base^(-2i/dim)",
            ),
            section="Clock hands",
            evidence=(
                "jadore801120/attention-is-all-you-need-pytorch issue 32 and shenweichen/DeepCTR issue 379, "
                "both repaired: `2 * i / d` for i over all channels."
            ),
        ),
        Misconception(
            id="from_one",
            title="positions start at 1; here they start at 0",
            wrong=_from_one,
            hints=Hints(
                "Which row of the deck's table is your first row?",
                "The range of positions.",
                "p = 0, 1, …, length - 1",
            ),
            section="Clock hands",
            evidence=(
                "facebookresearch/fairseq issue 1177: positions begin at padding_idx + 1 there, which keeps "
                "puzzling those who carry tables over."
            ),
        ),
        Misconception(
            id="cosine_first",
            title="cosines stand in the even channels, sines in the odd ones",
            wrong=_cosine_first,
            hints=Hints(
                "Row 0 of the deck is 0, 1, 0, 1. What is yours?",
                "Which of the two slices gets the sine?",
                "P[p, 2i] = sin(p w_i), P[p, 2i+1] = cos(p w_i)",
            ),
            section="Clock hands",
            evidence=(
                "bojone/attention issue 2 (cosine first); in diffusion code both orders live side by side"
                " under a switch, `flip_sin_to_cos` in diffusers."
            ),
        ),
    ),
    correct_alternatives=(
        _scalar_by_scalar,
        lambda length, dim, base=10000.0: _woven(
            _angles(length, dim, base).sin(), (math.pi / 2 - _angles(length, dim, base)).sin()
        ),
        lambda length, dim, base=10000.0: _woven(
            _angles(length, dim, base).sin(), _angles(length, dim, base).cos()
        ),
    ),
    tolerance=1e-4,
)


# --- shift_matrix ----------------------------------------------------------------------------------------


def _shift_cases(seed: int) -> list[Case]:
    rng, dim, base = _random_sizes(seed)
    return [Case(1, 4, 100.0), Case(rng.randint(2, 9), dim, base), Case(-3, 6)]


def _shift_oracle(steps: float | int, dim: int, base: float = 10000.0) -> Tensor:
    """The solution of P' = A P, in which A holds every hand's speed: the matrix exponential of steps A."""
    generator = torch.zeros(dim, dim).double()
    for i in range(dim // 2):
        speed = base ** (-2 * i / dim)
        generator[2 * i, 2 * i + 1], generator[2 * i + 1, 2 * i] = speed, -speed
    return torch.matrix_exp(steps * generator)


def _blocks(angles: Tensor, signs=((1, 1), (-1, 1))) -> Tensor:
    """Block diagonal of [[cos, sin], [-sin, cos]] with the given signs."""
    (a, b), (c, d) = signs
    cos, sin = angles.cos(), angles.sin()
    return torch.block_diag(
        *[torch.stack([a * p, b * q, c * q, d * p]).view(2, 2) for p, q in zip(cos, sin, strict=True)]
    )


def _backwards(steps, dim, base=10000.0):
    return _blocks(-steps * frequencies(dim, base))


def _one_speed(steps, dim, base=10000.0):
    return _blocks(torch.full((dim // 2,), float(steps)).double())


def _sign_lost(steps, dim, base=10000.0):
    return _blocks(steps * frequencies(dim, base), signs=((1, 1), (1, 1)))


def _shift_in_halves(steps, dim, base=10000.0):
    angles = steps * frequencies(dim, base)
    cos, sin = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])


def _shift_entry_by_entry(steps, dim, base=10000.0):
    matrix = torch.zeros(dim, dim)
    for i in range(dim // 2):
        angle = steps / base ** (2 * i / dim)
        matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
        matrix[2 * i, 2 * i + 1] = math.sin(angle)
        matrix[2 * i + 1, 2 * i] = -math.sin(angle)
    return matrix


SHIFT_MATRIX = Exercise(
    id="positions.shift_matrix",
    chapter=CHAPTER,
    title="One matrix moves every position",
    minutes=15,
    difficulty=3,
    reference=shift_matrix,
    oracle=_shift_oracle,
    cases=_shift_cases,
    properties=(
        Property(
            "a shift by 0 steps is the identity",
            lambda f: torch.allclose(f(0, 6).double(), torch.eye(6).double(), atol=1e-5),
        ),
        Property(
            "it turns and does not stretch: R times its transpose is the identity",
            lambda f: torch.allclose(f(2, 6).double() @ f(2, 6).double().T, torch.eye(6).double(), atol=1e-4),
        ),
    ),
    hints=Hints(
        "Take one pair only: which 2 x 2 matrix turns (sin a, cos a) into (sin(a + b), cos(a + b))?",
        "Build one 2 x 2 block for each pair, then put the blocks on the diagonal (`torch.block_diag`).",
        "sin(a+b) = sin a cos b + cos a sin b;  cos(a+b) = cos a cos b - sin a sin b;  b = steps * w_i",
    ),
    misconceptions=(
        Misconception(
            id="backwards",
            title="it turns the wrong way: this moves every position back",
            wrong=_backwards,
            hints=Hints(
                "Apply your matrix to row 2 of the table. Do you get row 3, or row 1?",
                "Which of the two sines has the minus sign?",
                "[[cos b, sin b], [-sin b, cos b]], for our pairs are (sin, cos) and not (cos, sin)",
            ),
            section="A step is a turn",
            evidence=(
                "karpathy/nanochat pull request 489: the code's rotation is the transpose of the textbook's, "
                "and readers stumble over it; the textbook's matrix is for (cos, sin)."
            ),
        ),
        Misconception(
            id="one_speed",
            title="every pair turns by the same angle; each has its own speed",
            wrong=_one_speed,
            hints=Hints(
                "After one step, has the slowest hand moved as far as the fastest?",
                "The angle in your blocks: does it depend on the pair?",
                "b_i = steps * w_i",
            ),
            section="A step is a turn",
            evidence=(
                "Reasoning slip: P[p + k] = R_k P[p] reads as if R_k were one rotation by k, and in two "
                "dimensions it is."
            ),
        ),
        Misconception(
            id="sign_lost",
            title="both sines are positive: this matrix is no rotation",
            wrong=_sign_lost,
            hints=Hints(
                "Multiply your matrix by its transpose. What should come out?",
                "The second row of each block.",
                "cos(a + b) = cos a cos b - sin a sin b",
            ),
            section="A step is a turn",
            evidence=(
                "Reasoning slip: the two addition formulas differ in a sign, and only one is remembered."
            ),
        ),
        Misconception(
            id="in_halves",
            title="the pairs are (i, i + dim/2); our table interleaves them",
            wrong=_shift_in_halves,
            hints=Hints(
                "Which two channels of the table belong to one hand?",
                "Where the sines stand in your matrix: next to the diagonal, or far from it?",
                "Pair i is channels 2i and 2i+1: 2 x 2 blocks along the diagonal",
            ),
            section="A step is a turn",
            evidence="NVIDIA/ngpt issue 10: an interleaved table taken apart in halves.",
        ),
    ),
    correct_alternatives=(
        _shift_entry_by_entry,
        lambda steps, dim, base=10000.0: _blocks(-steps * frequencies(dim, base)).T,
        lambda steps, dim, base=10000.0: torch.block_diag(
            *[
                torch.tensor([[math.cos(b), math.sin(b)], [-math.sin(b), math.cos(b)]])
                for b in (steps * frequencies(dim, base)).tolist()
            ]
        ),
    ),
    equivalent_mutants={"-1 -> 1": "the angles have one axis, so the new last axis and axis 1 are the same"},
)


# --- sinusoidal_2d ---------------------------------------------------------------------------------------


def _grid_cases(seed: int) -> list[Case]:
    rng, dim, base = _random_sizes(seed)
    return [Case(2, 3, 4, 100.0), Case(rng.randint(2, 4), rng.randint(5, 7), dim, base), Case(3, 2, 8)]


def _grid_oracle(height: int, width: int, dim: int, base: float = 10000.0) -> Tensor:
    cells = torch.tensor([(y, x) for y in range(height) for x in range(width)])
    return torch.cat([_interleaved(_turns(cells[:, axis], dim // 2, base)) for axis in (0, 1)], dim=1)


def sinusoidal_2d(height: int, width: int, dim: int, base: float | int = 10000.0) -> Tensor:
    """Codes of all patches in raster order: the row's in the first half of the channels."""
    rows, columns = sinusoidal(height, dim // 2, base), sinusoidal(width, dim // 2, base)
    return torch.cat([rows.repeat_interleave(width, dim=0), columns.repeat(height, 1)], dim=1)


def _axes(height, width, dim, base):
    """Codes of rows and columns for every cell in raster order, each with half of the channels."""
    rows, columns = sinusoidal(height, dim // 2, base), sinusoidal(width, dim // 2, base)
    return rows.repeat_interleave(width, dim=0), columns.repeat(height, 1)


def _column_first(height, width, dim, base=10000.0):
    return torch.cat(_axes(height, width, dim, base)[::-1], dim=1)


def _columns_run_slow(height, width, dim, base=10000.0):
    rows, columns = sinusoidal(height, dim // 2, base), sinusoidal(width, dim // 2, base)
    return torch.cat([rows.repeat(width, 1), columns.repeat_interleave(height, dim=0)], dim=1)


def _speeds_of_the_whole(height, width, dim, base=10000.0):
    # base**0.5 over dim/2 channels has the speeds base**(-2i/dim) of the full width.
    return torch.cat(_axes(height, width, dim, base**0.5), dim=1)


def _added(height, width, dim, base=10000.0):
    rows, columns = _axes(height, width, 2 * dim, base)
    return rows + columns


def _one_long_line(height, width, dim, base=10000.0):
    return sinusoidal(height * width, dim, base)


def _grid_cell_by_cell(height, width, dim, base=10000.0):
    rows, columns = sinusoidal(height, dim // 2, base), sinusoidal(width, dim // 2, base)
    return torch.stack([torch.cat([rows[y], columns[x]]) for y in range(height) for x in range(width)])


def _grid_by_expanding(height, width, dim, base=10000.0):
    rows, columns = sinusoidal(height, dim // 2, base), sinusoidal(width, dim // 2, base)
    both = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(both, dim=-1).reshape(height * width, dim)


SINUSOIDAL_2D = Exercise(
    id="positions.sinusoidal_2d",
    chapter=CHAPTER,
    title="An address for every patch",
    minutes=15,
    difficulty=2,
    reference=sinusoidal_2d,
    oracle=_grid_oracle,
    cases=_grid_cases,
    hints=Hints(
        "Patch number 1 is the right-hand neighbour of patch 0. Which half of its code should change?",
        "Make one table for rows and one for columns, dim / 2 channels each, then repeat each in its own"
        " way.",
        "P[y * width + x] = (code of y, code of x), dim/2 channels each",
    ),
    misconceptions=(
        Misconception(
            id="column_first",
            title="the column's code stands in the first half; here the row comes first",
            wrong=_column_first,
            hints=Hints(
                "Go one patch to the right. Which half of your code changes?",
                "The order in which you join the two codes.",
                "(code of y, code of x)",
            ),
            section="Rows, columns and frames",
            evidence=(
                "facebookresearch/mae issue 18 (the names emb_h and emb_w are swapped, and DiT took the"
                " layout over), huggingface/diffusers pull request 10877."
            ),
        ),
        Misconception(
            id="columns_run_slow",
            title="patches are numbered down the columns; raster order runs along the rows",
            wrong=_columns_run_slow,
            hints=Hints(
                "Which patch is number 1: the one to the right of patch 0, or the one below it?",
                "The order of your two loops, or the `indexing` of meshgrid. A square grid hides this.",
                "patch number = y * width + x",
            ),
            section="Rows, columns and frames",
            evidence=(
                "huggingface/transformers pull request 41380 and lucidrains/deformable-attention pull request"
                " 7: right on square pictures, wrong on all others."
            ),
        ),
        Misconception(
            id="speeds_of_the_whole",
            title="each axis uses the speeds of the full width; it has dim / 2 channels to itself",
            wrong=_speeds_of_the_whole,
            hints=Hints(
                "How slow is the slowest hand of each axis? How slow could it be?",
                "The dim in the exponent: whose width is it?",
                "Each half is sinusoidal(…, dim / 2): w_i = base^(-2i/(dim/2))",
            ),
            section="Rows, columns and frames",
            evidence=(
                "zju3dv/LoFTR issue 41 turns on whether the exponent's divisor is d_model or d_model / 2; the"
                " formula's d is the width of the code, which here is half of the model's."
            ),
        ),
        Misconception(
            id="added",
            title="row and column codes are added: now row 1, column 2 and row 2, column 1 share one address",
            wrong=_added,
            hints=Hints(
                "Compare the codes of (row 0, column 1) and (row 1, column 0).",
                "The line that brings the two codes together.",
                "Side by side: torch.cat, dim/2 channels each",
            ),
            section="Rows, columns and frames",
            evidence=(
                "Reasoning slip: NaViT adds its axes' codes, and may, because its two tables are learned and "
                "different; two copies of one sinusoid cannot be told apart in a sum."
            ),
        ),
        Misconception(
            id="one_long_line",
            title="patches are numbered through like words; rows and columns do not appear",
            wrong=_one_long_line,
            hints=Hints(
                "Are a patch and the one below it neighbours in your code?",
                "You need two numbers for each patch, not one.",
                "P[y * width + x] = (code of y, code of x)",
            ),
            section="Rows, columns and frames",
            evidence=(
                "xplip/pixel issue 7 asks which of the two a model uses; ViT itself numbers its patches"
                " through."
            ),
        ),
    ),
    correct_alternatives=(_grid_cell_by_cell, _grid_by_expanding),
    tolerance=1e-4,
)


# --- split_channels --------------------------------------------------------------------------------------


def _split_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    return [Case(64, 3), Case(128, 3), Case(6 * rng.randint(2, 20) + 4, 3), Case(14, 2), Case(12, 3)]


def _split_oracle(dim: int, axes: int) -> tuple[int, ...]:
    """Deals the pairs out like cards, beginning at the last axis."""
    parts = [0] * axes
    for pair in range(dim // 2):
        parts[axes - 1 - pair % axes] += 2
    return tuple(parts)


def _equal_shares(dim, axes):
    return (dim // axes,) * axes


def _single_channels(dim, axes):
    each, spare = divmod(dim, axes)
    return tuple(each + (axis >= axes - spare) for axis in range(axes))


def _spare_dropped(dim, axes):
    return (2 * (dim // 2 // axes),) * axes


def _spare_to_time(dim, axes):
    return _split_oracle(dim, axes)[::-1]


def _spare_to_one(dim, axes):
    each = 2 * (dim // 2 // axes)
    return (each,) * (axes - 1) + (dim - each * (axes - 1),)


def _split_by_rounding(dim, axes):
    marks = [2 * (dim // 2 * axis // axes) for axis in range(axes + 1)]
    return tuple(sorted(after - before for before, after in pairwise(marks)))


def _split_one_at_a_time(dim, axes):
    parts = [2] * axes
    while sum(parts) < dim:
        smallest = min(parts)
        parts[max(axis for axis in range(axes) if parts[axis] == smallest)] += 2
    return tuple(parts)


SPLIT_CHANNELS = Exercise(
    id="positions.split_channels",
    chapter=CHAPTER,
    title="Three axes share the channels",
    minutes=10,
    difficulty=2,
    reference=split_channels,
    oracle=_split_oracle,
    cases=_split_cases,
    properties=(
        Property("the shares add up to dim", lambda f: all(sum(f(dim, 3)) == dim for dim in (12, 16, 64))),
    ),
    hints=Hints(
        "A hand needs two channels. How many hands do 64 channels make, and what is left when three axes"
        " share them?",
        "Work in pairs, share them with divmod, and double at the end.",
        "pairs = dim/2;  each, spare = divmod(pairs, axes);  the last `spare` axes get one pair more",
    ),
    misconceptions=(
        Misconception(
            id="equal_shares",
            title="dim // axes for everyone: channels are lost, or a share is odd",
            wrong=_equal_shares,
            hints=Hints(
                "What do your shares of 64 add up to?",
                "The division: what happens to its remainder?",
                "divmod(dim / 2, axes)",
            ),
            section="Rows, columns and frames",
            evidence=(
                "caojiezhang/VSR-Transformer issue 5: the paper asks for a width divisible by three, the"
                " model has 64 channels."
            ),
        ),
        Misconception(
            id="single_channels",
            title="channels are handed out singly: a share of 21 splits a pair",
            wrong=_single_channels,
            hints=Hints(
                "Are all your shares even?",
                "What is the smallest thing that can be handed out?",
                "Hand out dim/2 pairs, then double",
            ),
            section="Rows, columns and frames",
            evidence=(
                "tatp22/multidim-positional-encoding issue 3 and codertimo/BERT-pytorch issue 78: an odd"
                " share has a sine without a cosine, and the code stops."
            ),
        ),
        Misconception(
            id="spare_dropped",
            title="the pairs left over are thrown away",
            wrong=_spare_dropped,
            hints=Hints(
                "What do your shares of 64 add up to?",
                "The remainder of the division of pairs.",
                "The last `spare` axes get one pair more",
            ),
            section="Rows, columns and frames",
            evidence=(
                "Reasoning slip: rounding down makes every share even, and the check that they add up is left"
                " out."
            ),
        ),
        Misconception(
            id="spare_to_time",
            title="the pairs left over go to time; here they go to the last axes",
            wrong=_spare_to_time,
            hints=Hints(
                "Which axis of a video has the most places to tell apart?",
                "The condition that says who gets one pair more.",
                "axis >= axes - spare",
            ),
            section="Rows, columns and frames",
            evidence=(
                "Reasoning slip: dealing from the front. Video models favour space: Open-Sora 2.0's shares"
                " are 16, 56 and 56."
            ),
        ),
        Misconception(
            id="spare_to_one",
            title="one axis gets all the pairs that are left over",
            wrong=_spare_to_one,
            hints=Hints(
                "Two pairs are left over for 64 channels and three axes. Who gets them?",
                "The last share: does it take everything that remains?",
                "Shares differ by at most one pair",
            ),
            section="Rows, columns and frames",
            evidence="Reasoning slip: the last one takes the rest, as it does in torch.chunk.",
        ),
    ),
    correct_alternatives=(_split_oracle, _split_by_rounding, _split_one_at_a_time),
)


# --- rotate ----------------------------------------------------------------------------------------------


def _rotate_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    small = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    turns = torch.tensor([[0.0, 0.0], [math.pi / 2, math.pi / 6]])
    tokens = torch.randn(2, 5, 8, generator=noise)
    return [Case(small, turns), Case(tokens, torch.randn(5, 4, generator=noise))]


def _rotate_oracle(x: Tensor, angles: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)


def _half_pairs(x, angles):
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _clockwise(x, angles):
    return rotate(x, -angles)


def _angles_tiled(x, angles):
    cos, sin = torch.cat([angles, angles], dim=-1).cos(), torch.cat([angles, angles], dim=-1).sin()
    quarter_turn = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * cos + quarter_turn * sin


def _overwritten(x, angles):
    x = x.clone()
    x[..., 0::2] = x[..., 0::2] * angles.cos() - x[..., 1::2] * angles.sin()
    x[..., 1::2] = x[..., 0::2] * angles.sin() + x[..., 1::2] * angles.cos()
    return x


def _rotate_by_quarter_turn(x, angles):
    cos, sin = angles.cos().repeat_interleave(2, dim=-1), angles.sin().repeat_interleave(2, dim=-1)
    quarter_turn = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
    return x * cos + quarter_turn * sin


def _rotate_by_matrices(x, angles):
    cos, sin = angles.cos(), angles.sin()
    turns = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)
    return torch.einsum("nipq,...niq->...nip", turns, x.unflatten(-1, (-1, 2))).flatten(-2)


ROTATE = Exercise(
    id="positions.rotate",
    chapter=CHAPTER,
    title="Turn a query",
    minutes=12,
    difficulty=2,
    reference=rotate,
    oracle=_rotate_oracle,
    cases=_rotate_cases,
    properties=(
        Property(
            "turning by nothing changes nothing",
            lambda f: torch.allclose(
                f(torch.arange(8.0).view(2, 4), torch.zeros(2, 2)), torch.arange(8.0).view(2, 4)
            ),
        ),
    ),
    hints=Hints(
        "Turn the point (1, 0) by a right angle. Where should it land?",
        "Take even and odd channels apart (`x[..., 0::2]`), turn each pair, weave them together again.",
        "(a, b) -> (a cos v - b sin v,  a sin v + b cos v)",
    ),
    misconceptions=(
        Misconception(
            id="half_pairs",
            title="the pairs are (i, i + d/2); here they are neighbours (2i, 2i+1)",
            wrong=_half_pairs,
            hints=Hints(
                "Which two channels does your first angle turn?",
                "The line that takes the channels apart.",
                "Pairs are x[..., 0::2] and x[..., 1::2]; both conventions exist, and weights trained with"
                " one need it",
            ),
            section="RoPE: turn the vector itself",
            evidence=(
                "huggingface/transformers issue 25199, EleutherAI/gpt-neox issue 834: two conventions for one"
                " method; converted LLaMA weights are permuted for it."
            ),
        ),
        Misconception(
            id="clockwise",
            title="it turns clockwise; a positive angle turns anticlockwise",
            wrong=_clockwise,
            hints=Hints(
                "Turn (1, 0) by a right angle. Did it land on (0, 1)?",
                "Which of the two sines has the minus sign?",
                "(a, b) -> (a cos v - b sin v,  a sin v + b cos v)",
            ),
            section="RoPE: turn the vector itself",
            evidence=(
                "karpathy/nanochat pull request 489 and trymirai/lalamo pull request 268: the sign of the"
                " sine."
            ),
        ),
        Misconception(
            id="angles_tiled",
            title="the angles are repeated as (v0, v1, v0, v1) while the pairs are neighbours",
            wrong=_angles_tiled,
            hints=Hints(
                "Channels 0 and 1 are one pair. Do both use the same angle in your code?",
                "The line that makes the angles as wide as x: cat, or repeat_interleave?",
                "(v0, v0, v1, v1, …)",
            ),
            section="RoPE: turn the vector itself",
            evidence=(
                "huggingface/transformers issue 40462 and rasbt/LLMs-from-scratch issue 838: whether cat or "
                "repeat_interleave depends on how the pairs are laid out."
            ),
        ),
        Misconception(
            id="overwritten",
            title="the second line uses the channel that the first line has already turned",
            wrong=_overwritten,
            hints=Hints(
                "Does the length of each pair stay as it was?",
                "Which value of the even channels does your second line read?",
                "Both new channels are made from the *old* pair",
            ),
            section="RoPE: turn the vector itself",
            evidence=(
                "DaVikingCode/Citrus-Engine pull request 108: x is overwritten before y is computed from it."
            ),
        ),
    ),
    correct_alternatives=(_rotate_oracle, _rotate_by_quarter_turn, _rotate_by_matrices),
)


EXERCISES = (FREQUENCIES, SINUSOIDAL, SHIFT_MATRIX, SINUSOIDAL_2D, SPLIT_CHANNELS, ROTATE)
