"""Exercises of chapter 09: what a stream remembers, tubelets, packing and its mask, what a crop shows."""

import random

import torch
from torch import Tensor

from sora_edu.autoencoder import carry_over
from sora_edu.patches import PADDING, first_fit, packing_mask, share_inside, tubelet_weight
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "09_video_tokens"


# --- carry_over ------------------------------------------------------------------------------------------


def _carry_cases(seed: int) -> list[Case]:
    """Pieces longer than the memory, as long, and shorter: the last is what a slow stream sends."""
    noise = torch.Generator().manual_seed(seed)

    def frames(t, b=2, c=3):
        return torch.randn(b, t, c, 2, 1, generator=noise)

    small = torch.arange(3.0, 6.0).view(1, 3, 1, 1, 1), torch.tensor([1.0, 2.0]).view(1, 2, 1, 1, 1)
    return [
        Case(*small),
        Case(frames(1), frames(2)),
        Case(frames(4), frames(2)),
        Case(frames(3), frames(3)),
        Case(frames(2), frames(1)),
    ]


def _carry_oracle(x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Frame by frame, through a queue of fixed length."""
    queue = [past[:, k] for k in range(past.shape[1])]
    seen = list(queue)
    for k in range(x.shape[1]):
        seen.append(x[:, k])
        queue = [*queue[1:], x[:, k]]
    return torch.stack(seen, 1), torch.stack(queue, 1)


def _keeps_of_the_piece(x, past):
    kept = x[:, -past.shape[1] :]
    return torch.cat([past, x], 1), kept


def _keeps_the_first(x, past):
    return torch.cat([past, x], 1), x[:, : past.shape[1]]


def _keeps_the_old_past(x, past):
    return torch.cat([past, x], 1), past.clone()


def _zeros_every_time(x, past):
    seen = torch.cat([torch.zeros_like(past), x], 1)
    return seen, seen[:, x.shape[1] :]


def _past_behind(x, past):
    seen = torch.cat([x, past], 1)
    return seen, torch.cat([past, x], 1)[:, x.shape[1] :]


def _first_frame_repeated(x, past):
    seen = torch.cat([x[:, :1].expand_as(past), x], 1)
    return seen, torch.cat([past, x], 1)[:, x.shape[1] :]


def _keeps_everything(x, past):
    seen = torch.cat([past, x], 1)
    return seen, seen.clone()


def _carry_by_counting_back(x, past):
    seen = torch.cat((past, x), dim=1)
    return seen, seen.narrow(1, seen.shape[1] - past.shape[1], past.shape[1])


def _carry_into_a_buffer(x, past):
    p, t = past.shape[1], x.shape[1]
    seen = x.new_empty(x.shape[0], p + t, *x.shape[2:])
    seen[:, :p], seen[:, p:] = past, x
    return seen, seen[:, t:].clone()


CARRY = Exercise(
    id="video_tokens.carry_over",
    chapter=CHAPTER,
    title="What a stream must remember",
    minutes=8,
    difficulty=1,
    reference=carry_over,
    oracle=_carry_oracle,
    cases=_carry_cases,
    hints=Hints(
        "With three taps, which frames does the first output of the next piece read?",
        "First put the past and the piece together in the order of time; then look at the end of that.",
        "seen = [past, x]; kept = the last p frames of seen, p = frames of past",
    ),
    misconceptions=(
        Misconception(
            id="keeps_of_the_piece",
            title="only frames of the piece are kept: a piece shorter than the memory leaves too few",
            wrong=_keeps_of_the_piece,
            hints=Hints(
                "The memory holds two frames and the piece has one. What is kept?",
                "Cut the memory from the past and the piece together, not from the piece.",
                "kept = the last p frames of [past, x]",
            ),
            section="A clip in pieces",
            evidence=(
                "Wan-Video/Wan2.2 issue 230: pieces of a single latent frame need a patch of their own to"
                " fill up the cache, and a reader asks whether what it is filled with is a bug."
            ),
        ),
        Misconception(
            id="keeps_the_first",
            title="the first frames of the piece are kept; what comes next reads the last",
            wrong=_keeps_the_first,
            hints=Hints(
                "After frames 1 to 5, with a memory of two: which are nearest to frame 6?",
                "The slice with which you cut the memory.",
                "kept = the last p frames of [past, x]",
            ),
            section="A clip in pieces",
            evidence="Reasoning slip: a slice that counts from the wrong end; every shape is right.",
        ),
        Misconception(
            id="keeps_the_old_past",
            title="the memory is never brought up to date",
            wrong=_keeps_the_old_past,
            hints=Hints(
                "Does what you keep depend on the piece at all?",
                "The second thing that you return.",
                "kept = the last p frames of [past, x]",
            ),
            section="A clip in pieces",
            evidence=(
                "Comfy-Org/ComfyUI pull request 13402, review: a shortcut for pieces of one frame hands"
                " back no new cache, and the next piece starts as if nothing had been before it."
            ),
        ),
        Misconception(
            id="zeros_every_time",
            title="each piece starts from zeros, as if it were a clip of its own: a seam at every border",
            wrong=_zeros_every_time,
            hints=Hints(
                "Does what the convolution reads depend on `past`?",
                "Zeros belong before the first piece only, and the caller sees to that.",
                "seen = [past, x]",
            ),
            section="A clip in pieces",
            evidence=(
                "utensils/mold issue 744 names it for Wan's autoencoder: a wrong cache gives seams in time at"
                " every chunk; pull request 755 tests plans of chunks against each other for that reason."
            ),
        ),
        Misconception(
            id="past_behind",
            title="the past stands behind the piece: the convolution would look ahead",
            wrong=_past_behind,
            hints=Hints(
                "In what order do the frames of `seen` come in time?",
                "The order of the two things in `torch.cat`.",
                "[past, x]: first what was first",
            ),
            section="A clip in pieces",
            evidence=(
                "Reasoning slip: F.pad's pairs are (before, after); padding on the wrong side makes an"
                " anti-causal convolution with the right shapes."
            ),
        ),
        Misconception(
            id="first_frame_repeated",
            title="the piece's first frame is repeated in place of the past",
            wrong=_first_frame_repeated,
            hints=Hints(
                "Does what the convolution reads depend on `past`?",
                "Repeating the first frame is how some models begin; is this the beginning?",
                "seen = [past, x]",
            ),
            section="A clip in pieces",
            evidence=(
                "Comfy-Org/ComfyUI pull request 13402: CogVideoX pads in time with copies of the first frame,"
                " which is right for a first piece and wrong for a later one."
            ),
        ),
        Misconception(
            id="keeps_everything",
            title="all that was seen is kept: the memory grows with the clip",
            wrong=_keeps_everything,
            hints=Hints(
                "How large is your memory after an hour of video?",
                "How many frames back does the convolution look?",
                "kept has as many frames as past had",
            ),
            section="A clip in pieces",
            evidence="Reasoning slip: right for a key-value cache (chapter 04), which must keep all.",
        ),
    ),
    correct_alternatives=(_carry_by_counting_back, _carry_into_a_buffer),
)


# --- tubelet_weight --------------------------------------------------------------------------------------


def _tubelet_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 12, generator=noise)
    return [
        Case(torch.tensor([[1.0, 2.0]]), 3),
        Case(torch.tensor([[1.0, 2.0]]), 2, "inflated"),
        Case(weight, 4),
        Case(weight, 3, "inflated"),
        Case(weight, 1),
    ]


def _tubelet_oracle(weight: Tensor, frames: int, start: str = "central") -> Tensor:
    """Column by column: what the projection should answer to one lit number of a tubelet."""
    d = weight.shape[1]
    columns = []
    for place in range(frames * d):
        frame, number = divmod(place, d)
        if start == "central":
            columns.append(weight[:, number] * float(frame == frames // 2))
        else:
            columns.append(weight[:, number] / frames)
    return torch.stack(columns, 1)


def _first_frame(weight, frames, start="central"):
    if start == "inflated":
        return tubelet_weight(weight, frames, start)
    return torch.cat([weight, torch.zeros(len(weight), (frames - 1) * weight.shape[1])], 1)


def _last_frame(weight, frames, start="central"):
    if start == "inflated":
        return tubelet_weight(weight, frames, start)
    return torch.cat([torch.zeros(len(weight), (frames - 1) * weight.shape[1]), weight], 1)


def _rounded_down(weight, frames, start="central"):
    if start == "inflated":
        return tubelet_weight(weight, frames, start)
    whole = torch.zeros(len(weight), frames, weight.shape[1])
    whole[:, (frames - 1) // 2] = weight
    return whole.flatten(1)


def _not_divided(weight, frames, start="central"):
    return tubelet_weight(weight, frames) if start == "central" else weight.repeat(1, frames)


def _frames_run_fastest(weight, frames, start="central"):
    whole = tubelet_weight(weight, frames, start).unflatten(1, (frames, -1))
    return whole.transpose(1, 2).flatten(1)


def _always_inflated(weight, frames, start="central"):
    return tubelet_weight(weight, frames, "inflated")


def _square_root(weight, frames, start="central"):
    return tubelet_weight(weight, frames) if start == "central" else weight.repeat(1, frames) / frames**0.5


def _tubelet_by_kronecker(weight, frames, start="central"):
    shares = torch.full((1, frames), 1 / frames)
    if start == "central":
        shares = torch.zeros(1, frames)
        shares[0, frames // 2] = 1
    return torch.kron(shares, weight)


def _tubelet_by_filling(weight, frames, start="central"):
    whole = torch.zeros(len(weight), frames, weight.shape[1])
    if start == "central":
        whole[:, frames // 2] = weight
    else:
        whole[:] = weight[:, None] / frames
    return whole.flatten(1)


TUBELET = Exercise(
    id="video_tokens.tubelet_weight",
    chapter=CHAPTER,
    title="From a picture's projection to a tubelet's",
    minutes=12,
    difficulty=2,
    reference=tubelet_weight,
    oracle=_tubelet_oracle,
    cases=_tubelet_cases,
    hints=Hints(
        "A tubelet of three frames is three patches in a row. Which of them should the new map look at?",
        "Put `frames` copies of the weight side by side, each times a share of its own.",
        "central: shares 0 … 1 … 0 with the 1 at frames // 2; inflated: 1 / frames everywhere",
    ),
    misconceptions=(
        Misconception(
            id="first_frame",
            title="the weight stands at the first frame; uniform sampling takes the middle one",
            wrong=_first_frame,
            hints=Hints(
                "Which frame of each tubelet would `sample_frames` take?",
                "Where does the block of the weight begin?",
                "frame number frames // 2, counted from 0",
            ),
            section="Two ways to cut time",
            evidence=(
                "Reasoning slip: the first of a group is its usual representative; x[:, :, ::step] takes it,"
                " too."
            ),
        ),
        Misconception(
            id="last_frame",
            title="the weight stands at the last frame, as causal convolutions have it",
            wrong=_last_frame,
            hints=Hints(
                "Which frame of each tubelet would `sample_frames` take?",
                "Where does the block of the weight begin?",
                "frame number frames // 2, counted from 0",
            ),
            section="Two ways to cut time",
            evidence=(
                "PKU-YuanGroup/Open-Sora-Plan issue 168: 'tail initialisation', right for a causal"
                " convolution, whose last tap is the present frame; a tubelet has no such frame."
            ),
        ),
        Misconception(
            id="rounded_down",
            title="of an even number of frames the earlier middle one is taken; frames // 2 is the later",
            wrong=_rounded_down,
            hints=Hints(
                "Frames 0, 1, 2, 3: which one does `sample_frames` take?",
                "The number at which the block of the weight begins.",
                "frame number frames // 2, counted from 0",
            ),
            section="Two ways to cut time",
            evidence=(
                "Reasoning slip: an even number of frames has two middle ones, and floor(t / 2) is the later"
                " only for those who count from 0."
            ),
        ),
        Misconception(
            id="not_divided",
            title=(
                "inflated, but not divided by the number of frames: tokens come out that many times too large"
            ),
            wrong=_not_divided,
            hints=Hints(
                "Feed a video that stands still. Is its token that of the picture?",
                "The copies add up. What must each be, for the sum to be the weight?",
                "inflated: weight / frames at every frame",
            ),
            section="Two ways to cut time",
            evidence=(
                "Reasoning slip: 'copy the filter along time' is half of the recipe; QwenLM/Qwen3-VL issue"
                " 2087 has to spell out the division for a reader."
            ),
        ),
        Misconception(
            id="frames_run_fastest",
            title="within the columns the frame runs fastest; tokens hold one whole frame after another",
            wrong=_frames_run_fastest,
            hints=Hints(
                "Numbers 0 to d - 1 of a token: one frame, or one pixel in all frames?",
                "Copies side by side, or each column repeated?",
                "columns = (frame, row, column, channel): cat, not repeat_interleave",
            ),
            section="Two ways to cut time",
            evidence=(
                "lucidrains/vit-pytorch issue 352: a pattern with the frames last, (p1 p2 pf c), where"
                " checkpoints have them elsewhere; weights load and mean something else."
            ),
        ),
        Misconception(
            id="always_inflated",
            title="the start is not looked at: every start inflates",
            wrong=_always_inflated,
            hints=Hints(
                "Does your answer change with `start`?",
                "What is different about the central start?",
                "central: the weight at one frame, zeros at all others",
            ),
            section="Two ways to cut time",
            evidence=(
                "deepinv/deepinv pull request 958 puts the weight at the middle for odd kernels and falls"
                " back to the mean for even ones."
            ),
        ),
        Misconception(
            id="square_root",
            title=(
                "divided by the root of the number of frames, which keeps the size of noise, not of a picture"
            ),
            wrong=_square_root,
            hints=Hints(
                "Feed a video that stands still. Is its token that of the picture?",
                "Are the frames of a video independent of each other?",
                "inflated: weight / frames at every frame",
            ),
            section="Two ways to cut time",
            evidence=(
                "Reasoning slip: the variance argument of weight initialisation, 1 / sqrt(fan-in), holds for"
                " independent inputs; neighbouring frames are nearly equal."
            ),
        ),
    ),
    correct_alternatives=(_tubelet_by_kronecker, _tubelet_by_filling),
)


# --- first_fit -------------------------------------------------------------------------------------------


def _fit_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    size = rng.randint(9, 14)
    return [
        Case([3, 6, 1, 2], 6),
        Case([4, 6, 3, 2, 5, 7], 9),
        Case([3, 5, 2, 3], 8),
        Case([rng.randint(1, size) for _ in range(14)], size),
    ]


def _fit_oracle(lengths: list[int], size: int) -> list[list[int]]:
    """Adds up, for every sample, what each row holds already; no row keeps an account."""
    places: list[int] = []
    for number, length in enumerate(lengths):
        row = 0
        while length + sum(lengths[k] for k in range(number) if places[k] == row) > size:
            row += 1
        places.append(row)
    return [[k for k, place in enumerate(places) if place == row] for row in range(max(places) + 1)]


def _next_fit(lengths, size):
    rows, room = [], 0
    for number, length in enumerate(lengths):
        if length > room:
            rows.append([])
            room = size
        rows[-1].append(number)
        room -= length
    return rows


def _never_full(lengths, size):
    rows, room = [], []
    for number, length in enumerate(lengths):
        row = next((k for k, left in enumerate(room) if length < left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(size)
        rows[row].append(number)
        room[row] -= length
    return rows


def _best_fit(lengths, size):
    rows, room = [], []
    for number, length in enumerate(lengths):
        fits = [k for k, left in enumerate(room) if length <= left]
        row = min(fits, key=lambda k: room[k]) if fits else len(rows)
        if row == len(rows):
            rows.append([])
            room.append(size)
        rows[row].append(number)
        room[row] -= length
    return rows


def _lengths_for_numbers(lengths, size):
    return [[lengths[number] for number in row] for row in first_fit(lengths, size)]


def _one_a_row(lengths, size):
    return [[number] for number in range(len(lengths))]


def _cut_where_full(lengths, size):
    rows, begin = {}, 0
    for number, length in enumerate(lengths):
        for row in range(begin // size, (begin + length - 1) // size + 1):
            rows.setdefault(row, []).append(number)
        begin += length
    return list(rows.values())


def _sorted_first(lengths, size):
    order = sorted(range(len(lengths)), key=lambda k: -lengths[k])
    return [[order[k] for k in row] for row in first_fit([lengths[k] for k in order], size)]


def _fit_with_a_for(lengths, size):
    rows = []
    for number, length in enumerate(lengths):
        for row in rows:
            if sum(lengths[k] for k in row) + length <= size:
                row.append(number)
                break
        else:
            rows.append([number])
    return rows


def _fit_with_pairs(lengths, size):
    rows: list[list] = []  # [what is used, numbers]
    for number, length in enumerate(lengths):
        fitting = [row for row in rows if row[0] + length <= size]
        if not fitting:
            fitting = [[0, []]]
            rows += fitting
        fitting[0][0] += length
        fitting[0][1].append(number)
    return [numbers for _, numbers in rows]


FIRST_FIT = Exercise(
    id="video_tokens.first_fit",
    chapter=CHAPTER,
    title="Pack the rows",
    minutes=12,
    difficulty=2,
    reference=first_fit,
    oracle=_fit_oracle,
    cases=_fit_cases,
    hints=Hints(
        "Rows of 6 and samples of 3, 6, 1, 2: the third has one token. Where is there room for it?",
        "Keep an account of the room left in each row; for each sample go through the rows from the first.",
        "row = first k with length <= room[k], or a new row",
    ),
    misconceptions=(
        Misconception(
            id="next_fit",
            title="only the last row is tried; room in earlier rows is never used",
            wrong=_next_fit,
            hints=Hints(
                "Is there room left in a row before the last?",
                "How many rows does your search look at?",
                "go through all rows, from the first",
            ),
            section="Many sizes in one row",
            evidence=(
                "snowflakedb/ArcticTraining issue 155: packed rows that stop far below the length asked for,"
                " made of what was left over when the others were full."
            ),
        ),
        Misconception(
            id="never_full",
            title="a sample that fits exactly is turned away: < where <= is meant",
            wrong=_never_full,
            hints=Hints(
                "A row with 3 places left and a sample of 3. Does it fit?",
                "The comparison of length and room.",
                "length <= room",
            ),
            section="Many sizes in one row",
            evidence=(
                "Reasoning slip: off by one at the border; shapes are right and a few places stay empty."
            ),
        ),
        Misconception(
            id="best_fit",
            title="the fullest row that fits is taken; asked for is the first",
            wrong=_best_fit,
            hints=Hints(
                "If two rows have room, which does your code choose?",
                "The rule of choice, not the test for room.",
                "first fit: the lowest row number with room",
            ),
            section="Many sizes in one row",
            evidence=(
                "Reasoning slip: best fit is a sound rule of its own, known to be as good in the worst case;"
                " it gives another packing."
            ),
        ),
        Misconception(
            id="lengths_for_numbers",
            title="rows hold the lengths of the samples; which samples they were is lost",
            wrong=_lengths_for_numbers,
            hints=Hints(
                "What is in your rows: which samples, or how long they are?",
                "`enumerate` gives both.",
                "append the sample's number",
            ),
            section="Many sizes in one row",
            evidence="Reasoning slip: textbook bin packing packs sizes; a loader must know whose they are.",
        ),
        Misconception(
            id="one_a_row",
            title="every sample gets a row of its own: that is padding, not packing",
            wrong=_one_a_row,
            hints=Hints(
                "How many rows are there, and how many samples?",
                "Where is an old row used again?",
                "row = first k with length <= room[k], or a new row",
            ),
            section="Many sizes in one row",
            evidence=(
                "lucidrains/vit-pytorch issue 246: pictures of several sizes, each padded to the largest, and"
                " the question how to mask what was added."
            ),
        ),
        Misconception(
            id="cut_where_full",
            title=(
                "samples are laid end to end and cut where a row is full: halves of a clip cannot see"
                " each other"
            ),
            wrong=_cut_where_full,
            hints=Hints(
                "Does any sample stand in two rows?",
                "What happens when a sample is longer than the room that is left?",
                "a sample goes into one row, whole",
            ),
            section="Many sizes in one row",
            evidence=(
                "Reasoning slip: how corpora of text are often packed for language models, end to end in"
                " blocks; a picture that is cut in two is no picture."
            ),
        ),
        Misconception(
            id="sorted_first",
            title="the longest are packed first; asked for is the order in which they come",
            wrong=_sorted_first,
            hints=Hints(
                "Which sample stands first in your first row?",
                "Is there a `sorted` in your code?",
                "for number, length in enumerate(lengths)",
            ),
            section="Many sizes in one row",
            evidence=(
                "Reasoning slip: first fit *decreasing*, the better known variant; it must see all samples"
                " before it packs one, and a stream has no end."
            ),
        ),
    ),
    correct_alternatives=(_fit_with_a_for, _fit_with_pairs),
)


# --- packing_mask ----------------------------------------------------------------------------------------


def _mask_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)

    def row(size):
        lengths = [rng.randint(1, 3) for _ in range(3)]
        ids = [
            number
            for number, length in zip(rng.sample(range(9), 3), lengths, strict=True)
            for _ in range(length)
        ]
        return (ids + [PADDING] * size)[:size]

    return [
        Case(torch.tensor([[0, 0, 1, PADDING]])),
        Case(torch.tensor([[1, 1, 0, 0, 0, PADDING, PADDING], [2, 3, 3, 3, 3, 4, PADDING]])),
        Case(torch.tensor([row(11), row(11), row(11)])),
    ]


def _mask_oracle(samples: Tensor) -> Tensor:
    b, n = samples.shape
    mask = torch.zeros(b, 1, n, n, dtype=torch.bool)
    for k in range(b):
        for asks in range(n):
            for asked in range(n):
                own, other = int(samples[k, asks]), int(samples[k, asked])
                mask[k, 0, asks, asked] = own != -1 and own == other
    return mask


def _padding_as_a_sample(samples):
    return (samples[:, :, None] == samples[:, None, :])[:, None]


def _everything_real(samples):
    real = samples != PADDING
    return (real[:, :, None] & real[:, None, :])[:, None]


def _upside_down(samples):
    return ~packing_mask(samples)


def _only_the_past(samples):
    return packing_mask(samples).tril()


def _keys_only(samples):
    real = (samples != PADDING)[:, None, None, :]
    return real.expand(-1, 1, samples.shape[1], -1).clone()


def _not_itself(samples):
    return packing_mask(samples) & ~torch.eye(samples.shape[1], dtype=torch.bool)


def _one_row_for_all(samples):
    return packing_mask(samples[:1]).expand(len(samples), -1, -1, -1).clone()


def _mask_by_one_hot(samples):
    hot = torch.nn.functional.one_hot(samples + 1)[..., 1:].float()
    return ((hot @ hot.transpose(1, 2)) > 0)[:, None]


def _mask_by_difference(samples):
    apart = samples.unsqueeze(2) - samples.unsqueeze(1)
    return ((apart == 0) & (samples >= 0).unsqueeze(2)).unsqueeze(1)


def _keeps_samples_apart(mask_of) -> bool:
    """With the mask, torch's attention answers one sample as if it were alone."""
    q, k, v = torch.randn(3, 1, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = mask_of(torch.tensor([[0, 0, 1, 1, 1]]))
    packed = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    alone = torch.nn.functional.scaled_dot_product_attention(q[:, :, 2:], k[:, :, 2:], v[:, :, 2:])
    return torch.allclose(packed[:, :, 2:], alone, atol=1e-5)


MASK = Exercise(
    id="video_tokens.packing_mask",
    chapter=CHAPTER,
    title="Keep them apart",
    minutes=10,
    difficulty=2,
    reference=packing_mask,
    oracle=_mask_oracle,
    cases=_mask_cases,
    properties=(
        Property(
            "with your mask, attention answers a packed sample as if it were alone", _keeps_samples_apart
        ),
    ),
    hints=Hints(
        "Places 0 and 1 belong to clip 0, place 2 to clip 1. Which of the nine pairs may look at each other?",
        "Compare `samples[:, :, None]` with `samples[:, None, :]`; then take padding out.",
        "mask[b, 0, i, j] = samples[b, i] == samples[b, j] and samples[b, j] is not PADDING",
    ),
    misconceptions=(
        Misconception(
            id="padding_as_a_sample",
            title="padding counts as one more sample, whose places look at each other",
            wrong=_padding_as_a_sample,
            hints=Hints(
                "Two places of padding: is -1 equal to -1?",
                "The comparison is right; what is missing stands beside it.",
                "… and samples != PADDING",
            ),
            section="Who may look at whom",
            evidence=(
                "Reasoning slip: equality is the whole idea, and padding is equal to itself. Harmless to the"
                " answers, wasteful, and a leak once someone averages over all places."
            ),
        ),
        Misconception(
            id="everything_real",
            title="only padding is shut out: every clip in a row sees every other",
            wrong=_everything_real,
            hints=Hints(
                "May a token of clip 0 look at clip 1?",
                "Which two things do you compare: a token with padding, or a token with a token?",
                "samples[:, :, None] == samples[:, None, :]",
            ),
            section="Who may look at whom",
            evidence=(
                "unslothai/unsloth issue 1207: packed samples attend to each other, with worse answers;"
                " DeepOpt-com/WrinkleFree-Monorepo issue 53 measures what it does to the logits."
            ),
        ),
        Misconception(
            id="upside_down",
            title=(
                "True where looking is forbidden; in torch's scaled_dot_product_attention True means allowed"
            ),
            wrong=_upside_down,
            hints=Hints(
                "May a token look at itself, by your mask?",
                "The sign of the whole thing.",
                "True = may be looked at",
            ),
            section="Who may look at whom",
            evidence=(
                "Known trap of torch: nn.MultiheadAttention's boolean mask means the opposite of"
                " scaled_dot_product_attention's (chapter 03)."
            ),
        ),
        Misconception(
            id="only_the_past",
            title="within a clip, tokens see only those before them: that is a language model's mask",
            wrong=_only_the_past,
            hints=Hints(
                "May the first token of a clip look at its last?",
                "Is there a `tril` in your code? Who asked for order?",
                "a full block for each clip",
            ),
            section="Who may look at whom",
            evidence=(
                "Reasoning slip: most code for packing is written for language models and makes blocks"
                " that are causal, as in DeepOpt-com/WrinkleFree-Monorepo issue 53."
            ),
        ),
        Misconception(
            id="keys_only",
            title="a padding mask for keys, the same for every query",
            wrong=_keys_only,
            hints=Hints(
                "Are two rows of your mask ever different?",
                "Does the asking token play any part in your formula?",
                "mask[i, j] depends on i and on j",
            ),
            section="Who may look at whom",
            evidence=(
                "huggingface/transformers pull request 46634: a plain attention mask of ones silently"
                " takes the place of the mask of packed sequences."
            ),
        ),
        Misconception(
            id="not_itself",
            title="a token may not look at itself",
            wrong=_not_itself,
            hints=Hints(
                "What does a clip of one token look at?",
                "The diagonal.",
                "samples[i] == samples[i], so the diagonal is True where a token is real",
            ),
            section="Who may look at whom",
            evidence="Reasoning slip: 'look at the others'; a clip of a single token is left with nothing.",
        ),
        Misconception(
            id="one_row_for_all",
            title="the first row's mask is used for all rows; each row is packed in its own way",
            wrong=_one_row_for_all,
            hints=Hints(
                "Do two rows of different packing get different masks?",
                "The batch axis of your result.",
                "mask has shape (b, 1, n, n)",
            ),
            section="Who may look at whom",
            evidence=(
                "Reasoning slip: causal masks are the same for the whole batch and are made once; this one is"
                " not."
            ),
        ),
    ),
    correct_alternatives=(_mask_by_one_hot, _mask_by_difference),
)


# --- share_inside ----------------------------------------------------------------------------------------


def _box(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(top, bottom), slice(left, right)


def _share_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)

    def any_box():
        (a, b), (c, d) = (sorted(rng.sample(range(20), 2)) for _ in range(2))
        return _box(a, b, c, d)

    return [
        Case(_box(0, 4, 2, 6), _box(0, 8, 4, 12)),
        Case(_box(0, 2, 0, 3), _box(4, 8, 5, 9)),  # apart along both sides
        Case(_box(1, 5, 14, 20), _box(0, 6, 2, 8)),  # apart along one
        Case(_box(2, 4, 3, 6), _box(0, 8, 0, 8)),  # inside
        Case(_box(0, 8, 1, 9), _box(2, 6, 3, 5)),  # around
        *(Case(any_box(), any_box()) for _ in range(6)),
    ]


def _share_oracle(box: tuple[slice, slice], window: tuple[slice, slice]) -> float:
    """Counts cells, one at a time."""
    cells = [(y, x) for y in range(box[0].start, box[0].stop) for x in range(box[1].start, box[1].stop)]
    rows, columns = (range(side.start, side.stop) for side in window)
    return sum(y in rows and x in columns for y, x in cells) / len(cells)


def _sides(box, window):
    return [
        (min(side.stop, opening.stop) - max(side.start, opening.start), side.stop - side.start)
        for side, opening in zip(box, window, strict=True)
    ]


def _not_clamped(box, window):
    (h, height), (w, width) = _sides(box, window)
    return h * w / (height * width)


def _clamped_at_the_end(box, window):
    (h, height), (w, width) = _sides(box, window)
    return max(0, h * w) / (height * width)


def _share_of_the_window(box, window):
    (h, _), (w, _) = _sides(box, window)
    rows, columns = window
    return max(0, h) * max(0, w) / ((rows.stop - rows.start) * (columns.stop - columns.start))


def _over_the_union(box, window):
    (h, height), (w, width) = _sides(box, window)
    rows, columns = window
    seen = max(0, h) * max(0, w)
    other = (rows.stop - rows.start) * (columns.stop - columns.start)
    return seen / (height * width + other - seen)


def _all_or_nothing(box, window):
    inside = all(
        opening.start <= side.start and side.stop <= opening.stop
        for side, opening in zip(box, window, strict=True)
    )
    return float(inside)


def _widths_alone(box, window):
    _, (w, width) = _sides(box, window)
    return max(0, w) / width


def _stops_included(box, window):
    (h, height), (w, width) = _sides(box, window)
    return max(0, h + 1) * max(0, w + 1) / ((height + 1) * (width + 1))


def _centre_inside(box, window):
    middle = [(side.start + side.stop) / 2 for side in box]
    return float(all(opening.start <= m < opening.stop for m, opening in zip(middle, window, strict=True)))


def _share_by_ranges(box, window):
    share = 1.0
    for side, opening in zip(box, window, strict=True):
        cells = set(range(side.start, side.stop))
        share *= len(cells & set(range(opening.start, opening.stop))) / len(cells)
    return share


def _share_by_painting(box, window):
    canvas = torch.zeros(64, 64)
    canvas[box] = 1
    return (canvas[window].sum() / canvas.sum()).item()


SHARE = Exercise(
    id="video_tokens.share_inside",
    chapter=CHAPTER,
    title="How much is still in the picture?",
    minutes=8,
    difficulty=1,
    reference=share_inside,
    oracle=_share_oracle,
    cases=_share_cases,
    hints=Hints(
        "Along one side: where does what is seen begin, and where does it end?",
        "Do it for rows and for columns; neither can be seen for less than nothing.",
        "seen = max(0, min(stops) - max(starts)) on each side; share = product of seen / product of sides",
    ),
    misconceptions=(
        Misconception(
            id="not_clamped",
            title="a negative overlap is kept: a box beside the window has a share below zero, or above",
            wrong=_not_clamped,
            hints=Hints(
                "The box ends before the window begins. What does min(stops) - max(starts) say?",
                "Each side's overlap, before they are multiplied.",
                "max(0, …) for each side",
            ),
            section="Native sizes and square crops",
            evidence=(
                "experiencor/keras-yolo2 issue 277 and AccumulateMore/CV issue 17: overlaps that come out"
                " negative for boxes that do not meet."
            ),
        ),
        Misconception(
            id="clamped_at_the_end",
            title="the product is clamped, not its sides: two negative sides make a positive area",
            wrong=_clamped_at_the_end,
            hints=Hints(
                "The box lies above and left of the window. Minus two times minus three is?",
                "Where does your max(0, …) stand?",
                "max(0, …) for each side, then the product",
            ),
            section="Native sizes and square crops",
            evidence=(
                "yhenon/keras-frcnn pull request 45: width and height both negative gave a positive"
                " overlap, and boxes were deleted for it."
            ),
        ),
        Misconception(
            id="share_of_the_window",
            title="divided by the window's area: how much of the picture the object fills",
            wrong=_share_of_the_window,
            hints=Hints(
                "A small object in full view: should that be 1, or nearly 0?",
                "The denominator.",
                "seen area / area of the box",
            ),
            section="Native sizes and square crops",
            evidence="Reasoning slip: a share of what? Both questions are asked of crops.",
        ),
        Misconception(
            id="over_the_union",
            title="intersection over union, as detectors are scored",
            wrong=_over_the_union,
            hints=Hints(
                "A small object in full view: should that be 1?",
                "The denominator.",
                "seen area / area of the box",
            ),
            section="Native sizes and square crops",
            evidence="Reasoning slip: the formula that is known by heart, for another question.",
        ),
        Misconception(
            id="all_or_nothing",
            title="whole or not at all: a box that is cut counts as unseen",
            wrong=_all_or_nothing,
            hints=Hints(
                "Half of the box lies in the window. What should come out?",
                "Is there anything between 0 and 1 in your answers?",
                "seen area / area of the box",
            ),
            section="Native sizes and square crops",
            evidence="Reasoning slip: asks whether, where the question is how much.",
        ),
        Misconception(
            id="widths_alone",
            title="only columns are counted: right for wide films, wrong for tall ones",
            wrong=_widths_alone,
            hints=Hints(
                "What does your function say of a crop that cuts off the top?",
                "How many sides has a box?",
                "rows and columns",
            ),
            section="Native sizes and square crops",
            evidence="Reasoning slip: the example on every slide is a wide one.",
        ),
        Misconception(
            id="stops_included",
            title="sides are one too long: a slice stops before its stop",
            wrong=_stops_included,
            hints=Hints(
                "How many rows has slice(2, 4)?",
                "Is there a + 1 in your code?",
                "stop - start",
            ),
            section="Native sizes and square crops",
            evidence=(
                "NVIDIA/caffe pull request 343 and xg-chu/CrowdDet issue 47: corners included in one place"
                " and excluded in another."
            ),
        ),
        Misconception(
            id="centre_inside",
            title="only the middle of the box is looked at",
            wrong=_centre_inside,
            hints=Hints(
                "The middle is in view and half of the object is not. What should come out?",
                "Is there anything between 0 and 1 in your answers?",
                "seen area / area of the box",
            ),
            section="Native sizes and square crops",
            evidence="Reasoning slip: a trajectory gives centres, and an object is taken for its centre.",
        ),
    ),
    correct_alternatives=(_share_by_ranges, _share_by_painting),
    equivalent_mutants={"True -> False": "a box and a window have two sides each, and zip stops with both"},
)


EXERCISES = (CARRY, TUBELET, FIRST_FIT, MASK, SHARE)
