"""Exercises of chapter 10: who sees whom, what that costs, places of any grid, gravity and a bounce."""

import itertools
import math
import random

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from sora_edu.physics import acceleration, restitution_of
from sora_edu.positions import grid, sinusoidal, sinusoidal_3d, sinusoidal_at
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception
from sora_edu.video_dit import attend_within, attention_pairs

CHAPTER = "10_video_diffusion_transformer"


# --- attend_within ---------------------------------------------------------------------------------------


def _look(groups: Tensor) -> Tensor:
    """Attention without weights, for tests: each token gets the scores' average of its group, and itself."""
    return (groups @ groups.transpose(1, 2) / 4).softmax(-1) @ groups + 0.1 * groups


def _first_sees(groups: Tensor) -> Tensor:
    """Each token gets the sum of its group."""
    return groups.sum(1, keepdim=True).expand_as(groups).clone()


def _within_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Case(torch.arange(1.0, 7.0).view(1, 6, 1), 2, "frame", _first_sees),
        Case(torch.arange(1.0, 7.0).view(1, 6, 1), 2, "place", _first_sees),
        Case(torch.arange(1.0, 7.0).view(1, 6, 1), 2, "clip", _first_sees),
        Case(torch.randn(2, 12, 4, generator=noise), 3, "frame", _look),
        Case(torch.randn(2, 12, 4, generator=noise), 3, "place", _look),
        Case(torch.randn(3, 6, 4, generator=noise), 3, "clip", _look),
    ]


def _within_oracle(tokens: Tensor, frames: int, sees: str, attend) -> Tensor:
    """Sample by sample and group by group, with lists of indices."""
    n, made = tokens.shape[1], torch.empty_like(tokens)
    size = n // frames
    groups = {
        "clip": [list(range(n))],
        "frame": [[t * size + s for s in range(size)] for t in range(frames)],
        "place": [[t * size + s for t in range(frames)] for s in range(size)],
    }[sees]
    for k in range(len(tokens)):
        for own in groups:
            made[k, own] = attend(tokens[k, own][None])[0]
    return made


def _cut_not_grouped(tokens, frames, sees, attend):
    """The reshape gives the right shape for places, too, and cuts the row into wrong pieces."""
    if sees == "clip":
        return attend(tokens)
    b, n, d = tokens.shape
    size = frames if sees == "place" else n // frames
    return attend(tokens.reshape(-1, size, d)).reshape(b, n, d)


def _frame_for_place(tokens, frames, sees, attend):
    return attend_within(tokens, frames, {"frame": "place", "place": "frame"}.get(sees, sees), attend)


def _not_put_back(tokens, frames, sees, attend):
    if sees != "place":
        return attend_within(tokens, frames, sees, attend)
    made = attend(rearrange(tokens, "b (t s) d -> (b s) t d", t=frames))
    return rearrange(made, "(b s) t d -> b (s t) d", b=len(tokens))


def _places_first(tokens, frames, sees, attend):
    if sees == "clip":
        return attend(tokens)
    groups = "(b t) s d" if sees == "frame" else "(b s) t d"
    made = attend(rearrange(tokens, f"b (s t) d -> {groups}", t=frames))
    return rearrange(made, f"{groups} -> b (s t) d", b=len(tokens))


def _always_all(tokens, frames, sees, attend):
    return attend(tokens)


def _across_the_batch(tokens, frames, sees, attend):
    if sees == "clip":
        return attend(tokens)
    groups = "t (b s) d" if sees == "frame" else "s (b t) d"
    made = attend(rearrange(tokens, f"b (t s) d -> {groups}", t=frames))
    return rearrange(made, f"{groups} -> b (t s) d", b=len(tokens))


def _both_in_one(tokens, frames, sees, attend):
    if sees == "clip":
        return attend(tokens)
    other = {"frame": "place", "place": "frame"}[sees]
    return attend_within(attend_within(tokens, frames, sees, attend), frames, other, attend)


def _within_by_views(tokens, frames, sees, attend):
    b, n, d = tokens.shape
    if sees == "clip":
        return attend(tokens)
    cells = tokens.view(b, frames, n // frames, d)
    if sees == "place":
        cells = cells.transpose(1, 2)
    made = attend(cells.flatten(0, 1)).view(cells.shape)
    return (made.transpose(1, 2) if sees == "place" else made).reshape(b, n, d)


def _within_by_loop(tokens, frames, sees, attend):
    if sees == "clip":
        return attend(tokens)
    size = tokens.shape[1] // frames
    made = torch.empty_like(tokens)
    for k in range(frames if sees == "frame" else size):
        own = slice(k * size, (k + 1) * size) if sees == "frame" else slice(k, None, size)
        made[:, own] = attend(tokens[:, own])
    return made


WITHIN = Exercise(
    id="video_dit.attend_within",
    chapter=CHAPTER,
    title="Look within a frame, or along time",
    minutes=12,
    difficulty=2,
    reference=attend_within,
    oracle=_within_oracle,
    cases=_within_cases,
    hints=Hints(
        "Attention works on (samples, tokens, channels). What must be a sample, if only a frame may be seen?",
        "First name the two axes that n is made of, t and s; then join one of them to the batch.",
        "frame: b (t s) d -> (b t) s d; place: b (t s) d -> (b s) t d; and the same backwards afterwards",
    ),
    misconceptions=(
        Misconception(
            id="cut_not_grouped",
            title="the row is cut into pieces of t tokens: these are neighbours in a frame, not one place",
            wrong=_cut_not_grouped,
            hints=Hints(
                "Tokens 0 to 5 are two frames of three. Which of them stand at the first place?",
                "A reshape never changes the order of the numbers; here the axes have to change places.",
                "b (t s) d -> (b s) t d: t and s are swapped before b and s are joined",
            ),
            section="Joint, or factorised",
            evidence=(
                "Reasoning slip: the shape (b s, t, d) comes out right from a plain reshape, and nothing"
                " crashes; the same slip with heads is a classic of chapter 03 (view without transpose)."
            ),
        ),
        Misconception(
            id="frame_for_place",
            title="frame and place are exchanged",
            wrong=_frame_for_place,
            hints=Hints(
                "A token that sees its frame: at how many others does it look, t or s?",
                "Which axis stays beside the channels in each of your two cases?",
                "frame: s stays; place: t stays",
            ),
            section="Joint, or factorised",
            evidence="Reasoning slip: `temporal` is read as `the tokens of one time`.",
        ),
        Misconception(
            id="not_put_back",
            title="the tokens come back place after place, not frame after frame",
            wrong=_not_put_back,
            hints=Hints(
                "Is token number 1 of your answer where token number 1 of the input was?",
                "The last line: in which order are t and s joined?",
                "(b s) t d -> b (t s) d",
            ),
            section="Joint, or factorised",
            evidence=(
                "Reasoning slip: (s t) written as the groups were; the next layer reads the tokens in the"
                " wrong order and positions no longer fit. Latte's released code turns the axes back for"
                " each of its pairs of blocks."
            ),
        ),
        Misconception(
            id="places_first",
            title="the row is read as if all times of a place stood together",
            wrong=_places_first,
            hints=Hints(
                "In raster order, what is the neighbour of token 0: the next place, or the next frame?",
                "The left side of your first pattern.",
                "b (t s) d: t is the slow axis",
            ),
            section="Joint, or factorised",
            evidence="Reasoning slip: (s t) for (t s). Each group then mixes places and times.",
        ),
        Misconception(
            id="always_all",
            title="all tokens of the clip see each other, whatever is asked for",
            wrong=_always_all,
            hints=Hints(
                "Does your answer depend on `sees`?",
                "Attention has no notion of a frame: who must tell it?",
                "regroup, attend, put back",
            ),
            section="Joint, or factorised",
            evidence="Reasoning slip: positions are expected to keep frames apart; they stop nobody.",
        ),
        Misconception(
            id="across_the_batch",
            title="clips of a batch are joined into one group and see each other",
            wrong=_across_the_batch,
            hints=Hints(
                "Would your answer for the first clip change with the second?",
                "On which side of the comma does b stand in your groups?",
                "b belongs to the samples: (b t) s d and (b s) t d",
            ),
            section="Joint, or factorised",
            evidence=(
                "Reasoning slip: torch's own attention takes (tokens, batch, channels) by default"
                " (batch_first=False), and code for one layout runs silently on the other."
            ),
        ),
        Misconception(
            id="both_in_one",
            title="looks within the frame and along time in one call: that is two blocks",
            wrong=_both_in_one,
            hints=Hints(
                "How many times does one call let the tokens look?",
                "Which block number does which half of the work?",
                "one regrouping, one attention",
            ),
            section="Joint, or factorised",
            evidence=(
                "Arnab et al. 2021: ViViT's model 3 does both in one block, with weights of their own;"
                " interleaved blocks (Latte, variant 1) do one each."
            ),
        ),
    ),
    correct_alternatives=(_within_by_views, _within_by_loop),
)


# --- attention_pairs -------------------------------------------------------------------------------------


def _pairs_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    some = [(rng.randint(2, 9), rng.randint(2, 9), rng.randint(10, 40)) for _ in range(2)]
    return [
        Case("joint", 2, 2, 3),
        Case("factorised", 2, 2, 3),
        Case("factorised", 3, 2, 5),
        Case("factorised", 1, 3, 4),
        *(Case(attention, *sizes) for sizes in some for attention in ("joint", "factorised")),
    ]


def _pairs_oracle(attention: str, depth: int, frames: int, places: int) -> int:
    """Counts them one by one."""
    tokens = list(itertools.product(range(frames), range(places)))
    count = 0
    for block in range(depth):
        for (t, s), (u, r) in itertools.product(tokens, tokens):
            count += attention == "joint" or (t == u if block % 2 == 0 else s == r)
    return count


def _of_one_group(attention, depth, frames, places):
    if attention == "joint":
        return depth * (frames * places) ** 2
    return (depth - depth // 2) * places**2 + depth // 2 * frames**2


def _both_in_each_block(attention, depth, frames, places):
    n = frames * places
    return depth * n * n if attention == "joint" else depth * n * (places + frames)


def _unordered(attention, depth, frames, places):
    return attention_pairs(attention, depth, frames, places) // 2


def _odd_one_in_time(attention, depth, frames, places):
    return attention_pairs(attention, depth, places, frames)


def _one_block(attention, depth, frames, places):
    n = frames * places
    return n * n if attention == "joint" else n * places + n * frames


def _whole_pairs_of_blocks(attention, depth, frames, places):
    n = frames * places
    return depth * n * n if attention == "joint" else depth // 2 * n * (places + frames)


def _pairs_block_by_block(attention, depth, frames, places):
    total = 0
    for block in range(depth):
        seen = frames * places if attention == "joint" else frames if block % 2 else places
        total += frames * places * seen
    return total


def _pairs_in_halves(attention, depth, frames, places):
    n = frames * places
    if attention == "joint":
        return n * n * depth
    return n * (math.ceil(depth / 2) * places + math.floor(depth / 2) * frames)


PAIRS = Exercise(
    id="video_dit.attention_pairs",
    chapter=CHAPTER,
    title="Count who looks at whom",
    minutes=8,
    difficulty=1,
    reference=attention_pairs,
    oracle=_pairs_oracle,
    cases=_pairs_cases,
    hints=Hints(
        "How many tokens does one token look at in a block, and how many tokens look?",
        "Count the blocks of each kind; of an odd number of blocks, which kind has one more?",
        "joint: depth n^2; factorised: ceil(depth/2) n s + floor(depth/2) n t, n = t s",
    ),
    misconceptions=(
        Misconception(
            id="of_one_group",
            title="the pairs of a single group are counted: there are t frames and s places",
            wrong=_of_one_group,
            hints=Hints(
                "s^2 are the pairs of one frame. How many frames are there?",
                "Each of your two squares is missing a factor.",
                "t s^2 = n s within frames, s t^2 = n t along time",
            ),
            section="What it costs",
            evidence="Reasoning slip: the length of a sequence is squared; how many there are is forgotten.",
        ),
        Misconception(
            id="both_in_each_block",
            title="every block is counted as looking both ways; it does one of the two",
            wrong=_both_in_each_block,
            hints=Hints(
                "Block 0 looks within frames. Does it look along time?",
                "The factor in front of the sum.",
                "ceil(depth/2) blocks of one kind, floor(depth/2) of the other",
            ),
            section="What it costs",
            evidence=(
                "Arnab et al. 2021 and VDT: there a block has both attentions; with Latte's interleaved"
                " blocks the same formula counts twice."
            ),
        ),
        Misconception(
            id="unordered",
            title="each pair is counted once for both directions; to look and to be looked at are two things",
            wrong=_unordered,
            hints=Hints(
                "Is the score of A looking at B the score of B looking at A?",
                "Half of what?",
                "n tokens look, each at n: n^2",
            ),
            section="What it costs",
            evidence="Reasoning slip: handshakes, n (n - 1) / 2, known from school.",
        ),
        Misconception(
            id="odd_one_in_time",
            title="blocks 0, 2, 4 are taken for those that look along time",
            wrong=_odd_one_in_time,
            hints=Hints(
                "With one block alone: at what does a token look?",
                "Which kind of block comes first?",
                "blocks 0, 2, 4, ...: within the frame",
            ),
            section="What it costs",
            evidence="Reasoning slip: an even depth hides it, since both kinds are then equally many.",
        ),
        Misconception(
            id="one_block",
            title="the depth is left out, or one pair of blocks stands for all",
            wrong=_one_block,
            hints=Hints(
                "Does your answer grow with the number of blocks?",
                "Where does `depth` stand in your formula?",
                "sum over all blocks",
            ),
            section="What it costs",
            evidence="Reasoning slip: papers quote the cost of a layer, configurations that of a model.",
        ),
        Misconception(
            id="whole_pairs_of_blocks",
            title="the last block of an odd number is forgotten",
            wrong=_whole_pairs_of_blocks,
            hints=Hints(
                "A model of one block: how many pairs do you count?",
                "depth // 2 is rounded down.",
                "depth - depth // 2 blocks within frames",
            ),
            section="What it costs",
            evidence="Reasoning slip: integer division of an odd depth.",
        ),
    ),
    correct_alternatives=(_pairs_block_by_block, _pairs_in_halves),
)


# --- sinusoidal_3d ---------------------------------------------------------------------------------------


def _places_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    return [
        Case(2, 1, 2, 6),
        Case(3, 2, 4, 18),
        Case(2, 5, 3, 16),
        Case(1, rng.randint(2, 6), rng.randint(7, 9), 12),
        Case(4, 2, 3, 24, 100.0),
    ]


def _places_oracle(frames: int, height: int, width: int, dim: int, base: float = 10000.0) -> Tensor:
    """Token by token, channel by channel, with math.sin."""
    pairs = dim // 2
    parts = [pairs // 3 + (axis >= 3 - pairs % 3) for axis in range(3)]
    rows = []
    for place in itertools.product(range(frames), range(height), range(width)):
        row = []
        for coordinate, count in zip(place, parts, strict=True):
            for i in range(count):
                angle = coordinate * base ** (-i / count)
                row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return torch.tensor(rows)


def _width_first(frames, height, width, dim, base=10000.0):
    return sinusoidal_at(grid(frames, height, width).flip(1), dim, base)


def _one_number(frames, height, width, dim, base=10000.0):
    return sinusoidal(frames * height * width, dim, base)


def _added_up(frames, height, width, dim, base=10000.0):
    places = grid(frames, height, width)
    return sum(sinusoidal(int(places[:, a].max()) + 1, dim, base)[places[:, a]] for a in range(3))


def _stretched_to_one(frames, height, width, dim, base=10000.0):
    sizes = torch.tensor([frames, height, width])
    return sinusoidal_at(grid(frames, height, width) / sizes, dim, base)


def _no_time(frames, height, width, dim, base=10000.0):
    return sinusoidal_at(grid(frames, height, width) * torch.tensor([0, 1, 1]), dim, base)


def _columns_run_slowest(frames, height, width, dim, base=10000.0):
    places = torch.tensor([(t, y, x) for t in range(frames) for x in range(width) for y in range(height)])
    return sinusoidal_at(places, dim, base)


def _frequencies_of_the_whole(frames, height, width, dim, base=10000.0):
    """One row of frequencies for all channels, cut in three: later axes get slow waves only."""
    places, whole = grid(frames, height, width).double(), base ** (-torch.arange(0, dim, 2).double() / dim)
    parts = [pair.numel() for pair in sinusoidal_parts(dim)]
    angles = [places[:, [a]] * w for a, w in enumerate(whole.split(parts))]
    angles = torch.cat(angles, 1)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()


def sinusoidal_parts(dim: int) -> tuple[Tensor, ...]:
    """The pairs of channels of each axis."""
    pairs = dim // 2
    return torch.arange(pairs).split([pairs // 3 + (axis >= 3 - pairs % 3) for axis in range(3)])


def _by_three_codes(frames, height, width, dim, base=10000.0):
    parts = [2 * len(pairs) for pairs in sinusoidal_parts(dim)]
    codes = [sinusoidal(size, part, base) for size, part in zip((frames, height, width), parts, strict=True)]
    places = grid(frames, height, width)
    return torch.cat([code[places[:, axis]] for axis, code in enumerate(codes)], dim=1)


def _by_repeating(frames, height, width, dim, base=10000.0):
    parts = [2 * len(pairs) for pairs in sinusoidal_parts(dim)]
    t, y, x = (sinusoidal(n, part, base) for n, part in zip((frames, height, width), parts, strict=True))
    t = t[:, None, None].expand(-1, height, width, -1)
    y = y[None, :, None].expand(frames, -1, width, -1)
    x = x[None, None].expand(frames, height, -1, -1)
    return torch.cat([t, y, x], dim=-1).flatten(0, 2)


PLACES = Exercise(
    id="video_dit.sinusoidal_3d",
    chapter=CHAPTER,
    title="Frame, row and column, for any grid",
    minutes=10,
    difficulty=2,
    reference=sinusoidal_3d,
    oracle=_places_oracle,
    cases=_places_cases,
    hints=Hints(
        "What are the three numbers of token 0, of token 1, of the first token of frame 1?",
        "`grid(…)` gives three whole numbers for each token; `sinusoidal_at(…)` makes codes of them.",
        "code = [code of frame, code of row, code of column], side by side",
    ),
    misconceptions=(
        Misconception(
            id="width_first",
            title="the axes are coded as column, row, frame",
            wrong=_width_first,
            hints=Hints(
                "Which channels change from one frame to the next?",
                "The order of the coordinates, against the order of c t h w.",
                "frame first, then row, then column",
            ),
            section="Positions for any grid",
            evidence=(
                "The release of DiT codes the column in the half that is called height (chapter 02); weights"
                " that learned one order cannot read the other."
            ),
        ),
        Misconception(
            id="one_number",
            title="the number of the token in the row is coded: another grid, other codes for the same place",
            wrong=_one_number,
            hints=Hints(
                "Token 4 of a grid 2 wide, and of a grid 3 wide: where is it in the picture?",
                "How many coordinates has a place in a clip?",
                "three codes, of t, y and x",
            ),
            section="Positions for any grid",
            evidence=(
                "Reasoning slip: a clip is a sequence, and chapter 02 codes sequences; ViT does it for"
                " pictures of one size."
            ),
        ),
        Misconception(
            id="added_up",
            title="the three codes are added, not put side by side: (1, 0, 0) and (0, 1, 0) are one code",
            wrong=_added_up,
            hints=Hints(
                "Exchange frame and row of a token. Does its code change?",
                "How many channels does each axis get?",
                "[code_t, code_y, code_x] with dim / 3 channels each",
            ),
            section="Positions for any grid",
            evidence=(
                "VDT and Latte add a code of time to one of place; with one table for both axes, as here,"
                " the sum is blind to their exchange."
            ),
        ),
        Misconception(
            id="stretched_to_one",
            title="coordinates are stretched to run from 0 to 1: a longer clip plays in slow motion",
            wrong=_stretched_to_one,
            hints=Hints(
                "Two clips, of 5 and of 9 frames. How far apart are neighbouring frames in your code?",
                "Is there a division by the size?",
                "whole numbers: 0, 1, 2, ...",
            ),
            section="Positions for any grid",
            evidence=(
                "NaViT (Dehghani et al. 2023) tries fractional coordinates for pictures; for time a share of"
                " the clip is no time."
            ),
        ),
        Misconception(
            id="no_time",
            title="time is left out: all frames of a place have one code",
            wrong=_no_time,
            hints=Hints(
                "Can tokens of your first and last frame be told apart?",
                "Which axis has no part in the code?",
                "code of t, too",
            ),
            section="Positions for any grid",
            evidence=(
                "Reasoning slip: an image model's positions, repeated for each frame. Attention along time"
                " then sees a bag of frames (chapter 09)."
            ),
        ),
        Misconception(
            id="columns_run_slowest",
            title="within a frame the tokens are counted column after column",
            wrong=_columns_run_slowest,
            hints=Hints(
                "Which token follows the first one: the one to the right, or the one below?",
                "The order of the loops over rows and columns.",
                "index = (t * height + y) * width + x",
            ),
            section="Positions for any grid",
            evidence="Reasoning slip: x before y, as in coordinates; a single row or column hides it.",
        ),
        Misconception(
            id="frequencies_of_the_whole",
            title="one row of frequencies is cut in three: the column gets slow waves alone",
            wrong=_frequencies_of_the_whole,
            hints=Hints(
                "How fast is the fastest wave of the row's code, and of the column's?",
                "The frequencies of an axis: an exponent over dim, or over the axis' own channels?",
                "each axis has its own frequencies, from 1 down to 1 / base",
            ),
            section="Positions for any grid",
            evidence=(
                "Reasoning slip: a one-dimensional code of all channels, its thirds given away; neighbours in"
                " the last axis are then nearly the same."
            ),
        ),
    ),
    correct_alternatives=(_by_three_codes, _by_repeating),
)


# --- acceleration ----------------------------------------------------------------------------------------


def _track_cases(seed: int) -> list[Case]:
    rng = np.random.default_rng(seed)

    def track(frames, fps, bend, noise):
        t = np.arange(frames) / fps
        return rng.uniform(-1, 1) + rng.uniform(0.2, 0.4) * t + bend * t**2 + noise * rng.normal(size=frames)

    return [
        Case(np.array([0.0, 1.0, 4.0]), 1),
        Case(np.array([0.0, 1.0, 4.0]), 2),
        Case(track(7, 8, 0.5, 0.0)),
        Case(track(9, 8, 0.5, 0.02)),
        Case(track(12, 24, -0.7, 0.01), 24),
    ]


def _track_oracle(places, fps=8) -> float:
    """The normal equations of a + b t + c t^2, solved."""
    t = np.arange(len(places)) / fps
    columns = np.stack([np.ones_like(t), t, t**2], axis=1)
    return float(2 * np.linalg.solve(columns.T @ columns, columns.T @ places)[2])


def _half(places, fps=8):
    return acceleration(places, fps) / 2


def _per_frame(places, fps=8):
    return acceleration(places, 1)


def _seconds_once(places, fps=8):
    return acceleration(places, 1) * fps


def _upwards(places, fps=8):
    return -acceleration(places, fps)


def _from_rest(places, fps=8):
    t = (len(places) - 1) / fps
    return float(2 * (places[-1] - places[0]) / t**2)


def _mean_speed_over_time(places, fps=8):
    t = (len(places) - 1) / fps
    return float((places[-1] - places[0]) / t / t)


def _ends_only(places, fps=8):
    """Change of speed between the first and the last step, over the whole time of the clip."""
    steps = np.diff(places) * fps
    return float((steps[-1] - steps[0]) / ((len(places) - 1) / fps))


def _by_lstsq(places, fps=8):
    t = np.arange(len(places)) / fps
    return float(2 * np.linalg.lstsq(np.vander(t, 3), np.asarray(places), rcond=None)[0][0])


def _by_derivative(places, fps=8):
    k = np.arange(len(places))
    return float(np.poly1d(np.polyfit(k, places, 2)).deriv(2)(0)) * fps**2


TRACK = Exercise(
    id="video_dit.acceleration",
    chapter=CHAPTER,
    title="Gravity, from a track",
    minutes=10,
    difficulty=2,
    reference=acceleration,
    oracle=_track_oracle,
    cases=_track_cases,
    hints=Hints(
        "Which curve has a constant acceleration, and which of its coefficients tells it?",
        "np.polyfit(t, places, 2) fits it; t must be in seconds.",
        "places = a + b t + c t^2; acceleration = 2 c",
    ),
    misconceptions=(
        Misconception(
            id="half",
            title="the coefficient of t^2 is taken for the acceleration; it is half of it",
            wrong=_half,
            hints=Hints(
                "Differentiate c t^2 twice. What is left?",
                "What you do with the first number that polyfit gives.",
                "a fall is g t^2 / 2, so g = 2 c",
            ),
            section="Gravity, from a track",
            evidence="Reasoning slip: g read off as the coefficient; a fall from rest is g t^2 / 2.",
        ),
        Misconception(
            id="per_frame",
            title="time is counted in frames, not in seconds",
            wrong=_per_frame,
            hints=Hints(
                "The same film at twice the frame rate: does gravity change?",
                "The times that go into the fit.",
                "t = k / fps",
            ),
            section="Gravity, from a track",
            evidence="Slip of units: heights per frame squared, at 8 frames a second 64 times less.",
        ),
        Misconception(
            id="seconds_once",
            title="converted from frames to seconds once; an acceleration is per second *squared*",
            wrong=_seconds_once,
            hints=Hints(
                "How often does 'per second' stand in an acceleration?",
                "The power of fps.",
                "per frame squared, times fps^2",
            ),
            section="Gravity, from a track",
            evidence="Reasoning slip of units: a speed is multiplied by fps once, and so was this.",
        ),
        Misconception(
            id="upwards",
            title="the sign is turned: y points down here, so a fall has a positive acceleration",
            wrong=_upwards,
            hints=Hints(
                "In which direction does y grow in a picture?",
                "Is there a minus?",
                "second derivative of the places as they are given",
            ),
            section="Gravity, from a track",
            evidence="Reasoning slip: physics books draw y upwards, pictures count rows downwards.",
        ),
        Misconception(
            id="from_rest",
            title="the way is taken for g t^2 / 2 from rest, but it starts with a speed",
            wrong=_from_rest,
            hints=Hints(
                "What would your formula say of something that moves at constant speed?",
                "Which places do you use, and which not?",
                "fit a + b t + c t^2 with the speed b free",
            ),
            section="Gravity, from a track",
            evidence=(
                "Reasoning slip: the formula of the dropped ball. The world throws its things, up or down, so"
                " that gravity cannot be had so cheaply."
            ),
        ),
        Misconception(
            id="mean_speed_over_time",
            title="mean speed divided by time; acceleration is the change of speed over time",
            wrong=_mean_speed_over_time,
            hints=Hints(
                "Constant speed: what is the acceleration, and what do you get?",
                "Divide a *change* of speed.",
                "second derivative, not way / t^2",
            ),
            section="Gravity, from a track",
            evidence="Reasoning slip: units alone (heights per second squared) do not make an acceleration.",
        ),
        Misconception(
            id="ends_only",
            title="change of speed from first to last step, over the whole clip: they lie a step less apart",
            wrong=_ends_only,
            hints=Hints(
                "When is the speed between frames 0 and 1 that speed? At 0, at 1, or between?",
                "How much time lies between the middle of the first step and the middle of the last?",
                "n - 2 steps, not n - 1; better: fit all places",
            ),
            section="Gravity, from a track",
            evidence="Reasoning slip: fence posts. And two steps alone carry the whole noise of the track.",
        ),
    ),
    correct_alternatives=(_by_lstsq, _by_derivative),
)


# --- restitution_of --------------------------------------------------------------------------------------


def _tops_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    share = rng.uniform(0.5, 0.9)
    return [
        Case([4.0, 1.0]),
        Case([0.5, 0.32, 0.2048]),
        Case([rng.uniform(0.2, 0.9) * share ** (2 * k) for k in range(4)]),
        Case([0.4, 0.3, 0.2]),
    ]


def _tops_oracle(heights) -> float:
    """Speeds at the floor, under some gravity, and the geometric mean of their ratios."""
    speeds = [math.sqrt(2 * 9.81 * height) for height in heights]
    ratios = [after / before for before, after in itertools.pairwise(speeds)]
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _ratio_of_heights(heights):
    return (heights[-1] / heights[0]) ** (1 / (len(heights) - 1))


def _upside_down(heights):
    return 1 / restitution_of(heights)


def _what_is_lost(heights):
    return 1 - restitution_of(heights)


def _as_if_one_bounce(heights):
    return math.sqrt(heights[-1] / heights[0])


def _counts_tops(heights):
    return math.sqrt(heights[-1] / heights[0]) ** (1 / len(heights))


def _tops_by_logarithms(heights):
    rates = [0.5 * (math.log(b) - math.log(a)) for a, b in itertools.pairwise(heights)]
    return math.exp(sum(rates) / len(rates))


def _tops_by_power(heights):
    return (heights[-1] / heights[0]) ** (0.5 / (len(heights) - 1))


TOPS = Exercise(
    id="video_dit.restitution_of",
    chapter=CHAPTER,
    title="How much a bounce keeps",
    minutes=8,
    difficulty=2,
    reference=restitution_of,
    oracle=_tops_oracle,
    cases=_tops_cases,
    hints=Hints(
        "How fast is something that has fallen from height h?",
        "Write down the speed before and after one bounce, and divide; what happens to gravity?",
        "v = sqrt(2 g h); e = v_after / v_before",
    ),
    misconceptions=(
        Misconception(
            id="ratio_of_heights",
            title="the ratio of heights is the share of *energy* that is left; asked for is that of speed",
            wrong=_ratio_of_heights,
            hints=Hints(
                "From four times the height: how many times as fast does it arrive?",
                "Is there a root in your formula?",
                "e = sqrt(h_after / h_before)",
            ),
            section="A bounce, and constant speed",
            evidence="Reasoning slip: height goes with the square of speed.",
        ),
        Misconception(
            id="upside_down",
            title="before over after: more than 1 would be a ball that rises higher each time",
            wrong=_upside_down,
            hints=Hints(
                "Can your share be more than 1?",
                "Which of the two heights stands below the line?",
                "after / before",
            ),
            section="A bounce, and constant speed",
            evidence="Reasoning slip: a fraction upside down.",
        ),
        Misconception(
            id="what_is_lost",
            title="the share that is lost; asked for is the one that is kept",
            wrong=_what_is_lost,
            hints=Hints(
                "What would a ball that bounces for ever have, 0 or 1?",
                "Is there a `1 -`?",
                "kept = after / before",
            ),
            section="A bounce, and constant speed",
            evidence="Reasoning slip: damping and restitution are each told by one number, not by the same.",
        ),
        Misconception(
            id="as_if_one_bounce",
            title="several bounces are counted as one",
            wrong=_as_if_one_bounce,
            hints=Hints(
                "From the first top to the third: how often did it hit the floor?",
                "What you do with the ratio of last and first.",
                "the root of order n - 1 for n tops",
            ),
            section="A bounce, and constant speed",
            evidence="Reasoning slip: right for two tops, the case that is tried first.",
        ),
        Misconception(
            id="counts_tops",
            title="as many bounces as tops are counted; there is one less",
            wrong=_counts_tops,
            hints=Hints(
                "How many bounces lie between two tops?",
                "len(heights), or one less?",
                "n tops, n - 1 bounces",
            ),
            section="A bounce, and constant speed",
            evidence="Reasoning slip: fence posts.",
        ),
    ),
    correct_alternatives=(_tops_by_logarithms, _tops_by_power),
)


EXERCISES = (WITHIN, PAIRS, PLACES, TRACK, TOPS)
