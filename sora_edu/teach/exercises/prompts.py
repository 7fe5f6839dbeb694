"""Exercises of chapter 12: padding and its mask, CLIP's loss, finding a pair, guidance by weight, times."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sora_edu.clip import recall
from sora_edu.diffusion import guided_by_weight
from sora_edu.samplers import power_times
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property
from sora_edu.text import BEGIN, END, PAD, contrastive_loss, pad

CHAPTER = "12_prompts"


# --- pad -------------------------------------------------------------------------------------------------


def _pad_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)

    def row(count: int) -> list[int]:
        return [BEGIN, *(rng.randint(3, 40) for _ in range(count)), END]

    return [
        Case([[1, 7, 2], [1, 2]], 4),
        Case([row(3), row(0), row(6)], 8),
        Case([row(rng.randint(0, 5)) for _ in range(4)], 10),
    ]


def _pad_oracle(rows: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
    """Through numpy, cell by cell."""
    ids, mask = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        for j, token in enumerate(row):
            ids[i, j], mask[i, j] = token, True
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _mask_upside_down(rows, length):
    ids, mask = pad(rows, length)
    return ids, ~mask


def _padded_in_front(rows, length):
    ids = torch.tensor([[PAD] * (length - len(row)) + list(row) for row in rows])
    return ids, ids != PAD


def _filled_with_the_end(rows, length):
    ids, mask = pad(rows, length)
    return torch.where(mask, ids, END), mask


def _everything_counts(rows, length):
    ids, mask = pad(rows, length)
    return ids, torch.ones_like(mask)


def _end_does_not_count(rows, length):
    ids, mask = pad(rows, length)
    return ids, mask & (ids != END)


def _pad_with_functional(rows, length):
    ids = torch.stack([F.pad(torch.tensor(row), (0, length - len(row))) for row in rows])
    return ids, ids != PAD


def _pad_with_sequences(rows, length):
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    ids = F.pad(ids, (0, length - ids.shape[1]))
    return ids, ids.bool()


PAD_ROWS = Exercise(
    id="prompts.pad",
    chapter=CHAPTER,
    title="One table for all prompts",
    minutes=8,
    difficulty=1,
    reference=pad,
    oracle=_pad_oracle,
    cases=_pad_cases,
    hints=Hints(
        "A row of 3 tokens in a table of 4 columns: which column is left over, and what belongs there?",
        "Fill each row up at its end with 0; the mask follows from how long the row was.",
        "ids[i, j] = rows[i][j] and mask[i, j] = True for j < len(rows[i]); else 0 and False",
    ),
    misconceptions=(
        Misconception(
            id="mask_upside_down",
            title=(
                "the mask is True at padding; in this course, as in torch's attention, True may be"
                " looked at"
            ),
            wrong=_mask_upside_down,
            hints=Hints(
                "For a row with no padding at all: is your mask True or False everywhere?",
                "The comparison that makes the mask.",
                "mask = (ids is a real token)",
            ),
            section="Words become numbers",
            evidence=(
                "torch itself has both: `key_padding_mask` of nn.MultiheadAttention is True where a key is"
                " ignored, `attn_mask` of scaled_dot_product_attention is True where it takes part."
            ),
        ),
        Misconception(
            id="padded_in_front",
            title="the padding stands in front, so the begin token is no longer at place 0",
            wrong=_padded_in_front,
            hints=Hints(
                "At which place does the encoder look for the vector of the whole sentence?",
                "The order in which a row and its padding are joined.",
                "row first, then padding",
            ),
            section="Words become numbers",
            evidence=(
                "Right for a GPT that goes on writing: transformers warns there of right-padding and asks for"
                " padding_side='left'. An encoder that pools its first token needs the other side."
            ),
        ),
        Misconception(
            id="filled_with_the_end",
            title="rows are filled up with the end token instead of 0",
            wrong=_filled_with_the_end,
            hints=Hints(
                "Which number stands for padding here?",
                "The value with which the table is filled.",
                "PAD = 0, END = 2",
            ),
            section="Words become numbers",
            evidence=(
                "CLIP's tokenizer in transformers has its end token as padding token; there the first of"
                " them is"
                " looked for, so that it is harmless. Habit carried over."
            ),
        ),
        Misconception(
            id="everything_counts",
            title="the mask is True everywhere: the encoder reads padding as words",
            wrong=_everything_counts,
            hints=Hints(
                "How many real tokens does a row of 2 have in a table of 4 columns?",
                "Does your mask depend on the lengths of the rows?",
                "mask[i, j] = j < len(rows[i])",
            ),
            section="Words become numbers",
            evidence=(
                "Reasoning slip, and common enough for transformers to warn that the attention mask is"
                " not set:"
                " shapes and types are right, and a prompt changes with the longest one of its batch."
            ),
        ),
        Misconception(
            id="end_does_not_count",
            title="the end token is taken for padding: the mask is one place short",
            wrong=_end_does_not_count,
            hints=Hints(
                "Is the end token padding?",
                "Count the True values of one row against its length.",
                "mask[i].sum() = len(rows[i])",
            ),
            section="Words become numbers",
            evidence="Reasoning slip: words counted, and the two tokens around them forgotten.",
        ),
    ),
    correct_alternatives=(_pad_with_functional, _pad_with_sequences),
)


# --- contrastive_loss ------------------------------------------------------------------------------------


def _loss_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def vectors(n: int, d: int) -> Tensor:
        return torch.randn(n, d, generator=noise)

    a = vectors(4, 6)
    return [
        Case(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]), 0.5),
        Case(a, a + 0.7 * vectors(4, 6), 1.3),
        Case(vectors(5, 3), vectors(5, 3), torch.tensor(0.4)),
    ]


def _loss_oracle(a: Tensor, b: Tensor, log_temperature) -> Tensor:
    """Cosines and sums of exponentials in float64, one pair at a time."""
    a, b, scale = a.double(), b.double(), float(np.exp(float(log_temperature)))
    n, total = len(a), 0.0
    table = [[scale * float(torch.cosine_similarity(x, y, dim=0)) for y in b] for x in a]
    for i in range(n):
        row = np.log(sum(np.exp(table[i][j]) for j in range(n))) - table[i][i]
        column = np.log(sum(np.exp(table[j][i]) for j in range(n))) - table[i][i]
        total += row + column
    return torch.tensor(total / (2 * n), dtype=torch.float32)


def _table(a, b, log_temperature):
    scale = torch.as_tensor(log_temperature, dtype=a.dtype).exp()
    return scale * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def _both_ways(table):
    pairs = torch.arange(len(table))
    return (F.cross_entropy(table, pairs) + F.cross_entropy(table.T, pairs)) / 2


def _one_direction(a, b, log_temperature):
    return F.cross_entropy(_table(a, b, log_temperature), torch.arange(len(a)))


def _not_normalised(a, b, log_temperature):
    return _both_ways(torch.as_tensor(log_temperature, dtype=a.dtype).exp() * a @ b.T)


def _temperature_divides(a, b, log_temperature):
    return _both_ways(_table(a, b, -torch.as_tensor(log_temperature)))


def _logarithm_as_it_is(a, b, log_temperature):
    return _both_ways(log_temperature * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T)


def _no_temperature(a, b, log_temperature):
    return _both_ways(_table(a, b, 0.0))


def _first_is_right(a, b, log_temperature):
    table, first = _table(a, b, log_temperature), torch.zeros(len(a), dtype=torch.long)
    return (F.cross_entropy(table, first) + F.cross_entropy(table.T, first)) / 2


def _one_softmax_for_all(a, b, log_temperature):
    table = _table(a, b, log_temperature)
    return table.flatten().logsumexp(0) - table.diagonal().mean()


def _summed(a, b, log_temperature):
    return 2 * contrastive_loss(a, b, log_temperature)


def _loss_by_log_softmax(a, b, log_temperature):
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    table = torch.exp(torch.as_tensor(log_temperature)) * torch.einsum("id,jd->ij", a, b)
    return -(table.log_softmax(1).diagonal() + table.log_softmax(0).diagonal()).mean() / 2


def _loss_by_one_hot(a, b, log_temperature):
    table, one_hot = _table(a, b, log_temperature), torch.eye(len(a))
    return (F.cross_entropy(table, one_hot) + F.cross_entropy(table.T, one_hot)) / 2


LOSS = Exercise(
    id="prompts.contrastive_loss",
    chapter=CHAPTER,
    title="Pairs together, others apart",
    minutes=15,
    difficulty=3,
    reference=contrastive_loss,
    oracle=_loss_oracle,
    cases=_loss_cases,
    properties=(
        Property(
            "a vector's length does not matter",
            lambda f: torch.allclose(
                f(torch.eye(3), torch.eye(3) + 0.2, 1.0), f(5 * torch.eye(3), torch.eye(3) + 0.2, 1.0)
            ),
        ),
    ),
    hints=Hints(
        "Three clips and three captions make a table of nine cosines. Which three should be large?",
        "Make the table first: unit vectors, one product, times e to the log_temperature. Then ask each"
        " row, and"
        " each column, for its own place.",
        "S = e^τ â b̂ᵀ; loss = (CE(S, 0…n-1) + CE(Sᵀ, 0…n-1)) / 2",
    ),
    misconceptions=(
        Misconception(
            id="one_direction",
            title="only the rows are asked: each clip finds its caption, and no caption its clip",
            wrong=_one_direction,
            hints=Hints(
                "Swap a and b. Does your loss stay the same?",
                "How many cross-entropies do you add up?",
                "CE over rows and CE over columns, and their mean",
            ),
            section="Two encoders, one space",
            evidence=(
                "Reasoning slip: the loss of contrastive predictive coding (van den Oord et al. 2018) has one"
                " direction; figure 3 of CLIP's paper has loss_i and loss_t."
            ),
        ),
        Misconception(
            id="not_normalised",
            title="the vectors keep their lengths: a long vector is similar to everything",
            wrong=_not_normalised,
            hints=Hints(
                "Make one vector five times as long. Should it fit better?",
                "What stands before the matrix product?",
                "â = a / |a|, so that products are cosines",
            ),
            section="Two encoders, one space",
            evidence=(
                "Reasoning slip: with dot products the loss can fall by growing vectors;"
                " mlfoundations/open_clip"
                " normalises in its encode functions only when asked to, and readers forget to ask."
            ),
        ),
        Misconception(
            id="temperature_divides",
            title="the table is divided by e to the log_temperature; here it is multiplied",
            wrong=_temperature_divides,
            hints=Hints(
                "As log_temperature grows, should the softmax get sharper or flatter?",
                "The operator between the scale and the cosines.",
                "S = e^τ · cosines, with τ starting at log(1 / 0.07)",
            ),
            section="Two encoders, one space",
            evidence=(
                "MoCo divides by a temperature of 0.07; CLIP learns the logarithm of its"
                " inverse"
                " and multiplies. Mixing the two is easy."
            ),
        ),
        Misconception(
            id="logarithm_as_it_is",
            title="the learned number multiplies the table as it is; it is a logarithm",
            wrong=_logarithm_as_it_is,
            hints=Hints(
                "What should the scale be when log_temperature is 0?",
                "The line that makes the scale.",
                "scale = exp(log_temperature)",
            ),
            section="Two encoders, one space",
            evidence=(
                "openai/CLIP stores `logit_scale` as a logarithm and says so only by the call of exp() in its"
                " forward pass."
            ),
        ),
        Misconception(
            id="no_temperature",
            title="there is no temperature: cosines from -1 to 1 can hardly tell one pair from the others",
            wrong=_no_temperature,
            hints=Hints(
                "Does your loss depend on log_temperature?",
                "With cosines alone and 128 captions, how sure can the softmax ever be?",
                "S = e^τ · cosines",
            ),
            section="Two encoders, one space",
            evidence=(
                "Reasoning slip: a softmax of numbers within -1 and 1 gives the best of 128 at most e² /"
                " (e² +"
                " 127), 6 %; so the loss can never get small."
            ),
        ),
        Misconception(
            id="first_is_right",
            title="the first caption is called right for every clip; right is the one with the same number",
            wrong=_first_is_right,
            hints=Hints(
                "Which column belongs to row 2?",
                "The targets of the cross-entropy.",
                "targets 0, 1, …, n - 1: the diagonal",
            ),
            section="Two encoders, one space",
            evidence=(
                "MoCo puts the right answer into column 0 and its labels are zeros (facebookresearch/moco,"
                " builder.py); there that is right."
            ),
        ),
        Misconception(
            id="one_softmax_for_all",
            title="one softmax over the whole table: the rows compete with each other",
            wrong=_one_softmax_for_all,
            hints=Hints(
                "How many questions does the table answer: one, or one for each row and each column?",
                "Over which axis is the sum of exponentials taken?",
                "each row sums to 1 by itself; then each column",
            ),
            section="Two encoders, one space",
            evidence="Reasoning slip: n² cells, one softmax; even perfect pairs then share the probability.",
        ),
        Misconception(
            id="summed",
            title="the two directions are added and not averaged: twice the loss, twice the gradient",
            wrong=_summed,
            hints=Hints(
                "For n pairs that nobody can tell apart, the loss should be log n. What is yours?",
                "The last line.",
                "(rows + columns) / 2",
            ),
            section="Two encoders, one space",
            evidence="Reasoning slip: a constant factor hides behind any optimiser that rescales gradients.",
        ),
    ),
    correct_alternatives=(_loss_by_log_softmax, _loss_by_one_hot),
    equivalent_mutants={
        "-1 -> 1": "of a table's two axes, axis 1 is the last",
        "-1 -> 1 #2": "of a table's two axes, axis 1 is the last",
    },
)


# --- recall ----------------------------------------------------------------------------------------------


def _recall_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    table = torch.randn(12, 15, generator=noise)
    table[:, :12] += 1.2 * torch.eye(12)
    return [
        Case(torch.tensor([[0.9, 0.2, 0.6], [0.8, 0.7, 0.1], [0.95, 0.85, 0.3]])),
        Case(table),
        Case(table, 3),
        Case(table, 15),
    ]


def _recall_oracle(similarity: Tensor, best: int = 1) -> float:
    """Counts for each row how many columns are larger than its own."""
    rank = (similarity > similarity.diagonal()[:, None]).sum(1)
    return (rank < best).double().mean().item()


def _asked_by_column(similarity, best=1):
    n = len(similarity)
    order = similarity[:, :n].argsort(dim=0, descending=True)[:best]
    return (order == torch.arange(n)).any(0).float().mean().item()


def _smallest_first(similarity, best=1):
    return recall(-similarity, best)


def _one_less(similarity, best=1):
    rank = (similarity > similarity.diagonal()[:, None]).sum(1)
    return (rank < best - 1).float().mean().item()


def _share_of_all_hits(similarity, best=1):
    return recall(similarity, best) / best


def _above_a_half(similarity, best=1):
    return (similarity.diagonal() > 0.5).float().mean().item()


def _recall_by_topk(similarity, best=1):
    found = similarity.topk(best, dim=1).indices
    return float(np.mean([i in row for i, row in enumerate(found.tolist())]))


def _recall_by_sorting(similarity, best=1):
    last = similarity.sort(dim=1, descending=True).values[:, best - 1]
    return (similarity.diagonal() >= last).double().mean().item()


RECALL = Exercise(
    id="prompts.recall",
    chapter=CHAPTER,
    title="Found among the best",
    minutes=8,
    difficulty=2,
    reference=recall,
    oracle=_recall_oracle,
    cases=_recall_cases,
    hints=Hints(
        "Row 0 of the table: which column should win, and which does?",
        "For each row, find the columns of the `best` largest numbers, and see whether the row's own"
        " number is"
        " among them.",
        "share of rows i with fewer than `best` columns larger than similarity[i, i]",
    ),
    misconceptions=(
        Misconception(
            id="asked_by_column",
            title="columns ask and rows are searched: captions find clips, not clips captions",
            wrong=_asked_by_column,
            hints=Hints(
                "In your sort, do the numbers of one row compete, or those of one column?",
                "The `dim` of your sort.",
                "dim = 1: along the columns, for each row",
            ),
            section="Find the clip",
            evidence=(
                "Papers report both directions (image to text, text to image) with different figures;"
                " which axis"
                " is which is the usual mix-up when a table is transposed."
            ),
        ),
        Misconception(
            id="smallest_first",
            title="the smallest numbers win, as with distances; these are similarities",
            wrong=_smallest_first,
            hints=Hints(
                "Is a large number in the table a good or a bad match?",
                "The order of your sort: torch sorts upwards.",
                "descending",
            ),
            section="Find the clip",
            evidence="Reasoning slip: argsort sorts upwards, and nearest neighbours are sorted by distance.",
        ),
        Misconception(
            id="one_less",
            title="the own column must be among the best - 1: off by one, and never right for best = 1",
            wrong=_one_less,
            hints=Hints(
                "With best = 1 and a perfect table, what does yours say?",
                "The comparison of rank and best; the rank counts from 0.",
                "rank < best",
            ),
            section="Find the clip",
            evidence="Reasoning slip: ranks that count from 0 compared with a number that counts from 1.",
        ),
        Misconception(
            id="share_of_all_hits",
            title="hits are divided by all places that were looked at: that is precision, not recall",
            wrong=_share_of_all_hits,
            hints=Hints(
                "With best = 15 of 15 columns every row must be a hit. What does yours say?",
                "What you divide by.",
                "hits / rows",
            ),
            section="Find the clip",
            evidence="Reasoning slip: precision and recall at k count the same hits and divide differently.",
        ),
        Misconception(
            id="above_a_half",
            title="a pair counts when its similarity is above a threshold; what matters is its rank",
            wrong=_above_a_half,
            hints=Hints(
                "Add 10 to the whole table. Does your answer change? Should it?",
                "Does your code compare a row's own number with the row's others?",
                "rank of similarity[i, i] in row i",
            ),
            section="Find the clip",
            evidence=(
                "Reasoning slip: CLIP's cosines of right pairs are often as low as 0.3, so that a threshold"
                " says more about the encoder than about the pair."
            ),
        ),
    ),
    correct_alternatives=(_recall_by_topk, _recall_by_sorting),
    equivalent_mutants={"True -> False #2": "stable or not, no two numbers of the cases are equal"},
)


# --- guided_by_weight ------------------------------------------------------------------------------------


def _weight_cases(seed: int) -> list[Case]:
    noise, rng = torch.Generator().manual_seed(seed), random.Random(seed)

    def answer() -> Tensor:
        return torch.randn(2, 3, generator=noise)

    return [
        Case(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0]), 2.0),
        Case(answer(), answer(), round(rng.uniform(1.5, 8), 2)),
        Case(answer(), answer(), -0.5),
    ]


def _weight_oracle(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    return torch.lerp(unconditional, conditional, weight + 1)


def _weight_taken_for_scale(conditional, unconditional, weight):
    return unconditional + weight * (conditional - unconditional)


def _one_taken_off(conditional, unconditional, weight):
    return unconditional + (weight - 1) * (conditional - unconditional)


def _null_and_prompt_swapped(conditional, unconditional, weight):
    return (1 + weight) * unconditional - weight * conditional


def _null_added(conditional, unconditional, weight):
    return (1 + weight) * conditional + weight * unconditional


def _averaged(conditional, unconditional, weight):
    return (conditional + weight * unconditional) / (1 + weight)


WEIGHT = Exercise(
    id="prompts.guided_by_weight",
    chapter=CHAPTER,
    title="The same guidance in another letter",
    minutes=6,
    difficulty=1,
    reference=guided_by_weight,
    oracle=_weight_oracle,
    cases=_weight_cases,
    properties=(
        Property(
            "weight 0 is the plain conditional answer",
            lambda f: torch.allclose(f(torch.ones(2), torch.full((2,), 5.0), 0.0), torch.ones(2)),
        ),
    ),
    hints=Hints(
        "With which w should nothing at all be changed about the conditional answer?",
        "Write f = f_null + s (f_y - f_null), put s = 1 + w, and collect f_y and f_null.",
        "f = (1 + w) f_y - w f_null",
    ),
    misconceptions=(
        Misconception(
            id="weight_taken_for_scale",
            title=(
                "w is used as the scale s: guidance is one weaker than asked for, and w = 0"
                " ignores the prompt"
            ),
            wrong=_weight_taken_for_scale,
            hints=Hints(
                "What does your function return for w = 0? What should it?",
                "The factor of the difference.",
                "s = w + 1",
            ),
            section="Turn the guidance up",
            evidence=(
                "huggingface/diffusers issue 5882: the paper's w against the library's guidance_scale, asked"
                " about again and again."
            ),
        ),
        Misconception(
            id="one_taken_off",
            title="one is taken off instead of added: s = w - 1",
            wrong=_one_taken_off,
            hints=Hints(
                "What does your function return for w = 0? What should it?",
                "The sign of the 1.",
                "s = w + 1",
            ),
            section="Turn the guidance up",
            evidence="Reasoning slip: w = s - 1, solved for the wrong letter.",
        ),
        Misconception(
            id="null_and_prompt_swapped",
            title="prompt and empty prompt have changed places: this leans away from what was asked",
            wrong=_null_and_prompt_swapped,
            hints=Hints(
                "With w = 0, which of the two comes out?",
                "The order of your arguments.",
                "(1 + w) f_y - w f_null",
            ),
            section="Turn the guidance up",
            evidence=(
                "Released samplers stack the halves both ways: [null, prompt] in diffusers' Stable Diffusion,"
                " [prompt, null] in facebookresearch/DiT."
            ),
        ),
        Misconception(
            id="null_added",
            title="the empty prompt's answer is added; it has to be taken away",
            wrong=_null_added,
            hints=Hints(
                "If both answers are 1, what must come out? What does yours give?",
                "The sign before w f_null.",
                "the factors (1 + w) and -w sum to 1",
            ),
            section="Turn the guidance up",
            evidence="Reasoning slip: a weighted sum whose weights nobody has added up.",
        ),
        Misconception(
            id="averaged",
            title="the two answers are averaged; guidance goes beyond the conditional one, not between",
            wrong=_averaged,
            hints=Hints(
                "On the line through both answers, where does yours lie? Where should it?",
                "Is there a division in your formula?",
                "f_y + w (f_y - f_null)",
            ),
            section="Turn the guidance up",
            evidence="Reasoning slip: “mix conditional and unconditional” read as a mean.",
        ),
    ),
    correct_alternatives=(
        lambda conditional, unconditional, weight: conditional + weight * (conditional - unconditional),
        lambda conditional, unconditional, weight: (
            unconditional + (1 + weight) * (conditional - unconditional)
        ),
    ),
)


# --- power_times -----------------------------------------------------------------------------------------


def _times_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    return [
        Case(4),
        Case(4, 2.0),
        Case(rng.randint(5, 9), round(rng.uniform(0.4, 0.8), 2)),
        Case(rng.randint(5, 9), round(rng.uniform(1.5, 3.0), 2), 0.95),
    ]


def _times_oracle(steps: int, exponent: float = 1.0, first: float = 0.99) -> Tensor:
    return torch.tensor([min(first, 1 - (k / steps) ** exponent) for k in range(steps + 1)])


def _exponent_outside(steps, exponent=1.0, first=0.99):
    return ((1 - torch.linspace(0, 1, steps + 1)) ** exponent).clamp(max=first)


def _ends_before_data(steps, exponent=1.0, first=0.99):
    return power_times(steps, exponent, first)[:-1]


def _starts_at_one(steps, exponent=1.0, first=0.99):
    return power_times(steps, exponent, 1.0)


def _one_step_too_few(steps, exponent=1.0, first=0.99):
    return (1 - torch.linspace(0, 1, steps) ** exponent).clamp(max=first)


def _data_first(steps, exponent=1.0, first=0.99):
    return power_times(steps, exponent, first).flip(0)


def _times_by_arange(steps, exponent=1.0, first=0.99):
    times = 1 - (torch.arange(steps + 1) / steps).pow(exponent)
    return torch.minimum(times, torch.tensor(first))


def _times_by_numpy(steps, exponent=1.0, first=0.99):
    return torch.from_numpy(np.minimum(first, 1 - (np.arange(steps + 1) / steps) ** exponent)).float()


TIMES = Exercise(
    id="prompts.power_times",
    chapter=CHAPTER,
    title="n_iter and exponent",
    minutes=8,
    difficulty=2,
    reference=power_times,
    oracle=_times_oracle,
    cases=_times_cases,
    hints=Hints(
        "With 4 steps and exponent 1, which five times does the sampler stand at?",
        "k runs from 0 to steps, both included; what lies above `first` is brought down to it afterwards.",
        "t_k = min(first, 1 - (k / steps)^exponent) for k = 0 … steps",
    ),
    misconceptions=(
        Misconception(
            id="exponent_outside",
            title="the power is taken of the whole, (1 - k/n)^exponent: the steps crowd at the other end",
            wrong=_exponent_outside,
            hints=Hints(
                "For exponent 2 and k/n = 1/2: 3/4 or 1/4?",
                "Where the brackets of the power close.",
                "1 - (k/n)^exponent",
            ),
            section="The form, knob by knob",
            evidence="Reasoning slip: for exponent 1 both are the same, and exponent 1 is the default.",
        ),
        Misconception(
            id="ends_before_data",
            title="the last time is 1/n and not 0: the clip keeps its last bit of noise",
            wrong=_ends_before_data,
            hints=Hints(
                "How much noise is left at your last time?",
                "n steps need n + 1 times.",
                "t_n = 0",
            ),
            section="The form, knob by knob",
            evidence=(
                "apapiu/transformer_latent_diffusion keeps n levels down to 1/n and makes one more prediction"
                " after its loop, which is easily overlooked: 19 updates and 1 prediction for n_iter = 20."
            ),
        ),
        Misconception(
            id="starts_at_one",
            title="the first time is 1; none may lie above `first`",
            wrong=_starts_at_one,
            hints=Hints(
                "What is your first time, and does it depend on `first`?",
                "What becomes of a time that is larger than `first`?",
                "t_k = min(first, …)",
            ),
            section="The form, knob by knob",
            evidence="Reasoning slip: right for a flow that has learned t = 1, as tiny Sora has.",
        ),
        Misconception(
            id="one_step_too_few",
            title="n points make n - 1 steps: one evaluation is missing",
            wrong=_one_step_too_few,
            hints=Hints(
                "How many gaps are there between your times?",
                "The number of points of your linspace.",
                "steps + 1 times",
            ),
            section="The form, knob by knob",
            evidence="Reasoning slip: fence posts and gaps; torch.linspace counts posts.",
        ),
        Misconception(
            id="data_first",
            title="the times run from data to noise; a sampler starts at noise",
            wrong=_data_first,
            hints=Hints(
                "At which time does sampling begin?",
                "Is your first time larger or smaller than your last?",
                "from first down to 0",
            ),
            section="The form, knob by knob",
            evidence=(
                "Flow-matching papers count time from noise (0) to data (1), diffusion papers the other way;"
                " here 1 is noise."
            ),
        ),
    ),
    correct_alternatives=(_times_by_arange, _times_by_numpy),
)

EXERCISES = (PAD_ROWS, LOSS, RECALL, WEIGHT, TIMES)
