"""Exercises of chapter 03: attention by number and by matrix, heads, masks, rotary attention, cost."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from sora_edu.attention import (
    attend,
    attention_macs,
    causal_mask,
    rotary_attention,
    scaled_dot_product,
    split_heads,
)
from sora_edu.positions import rotate
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "03_self_attention"


def _noise(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# --- attend ----------------------------------------------------------------------------------------------


def _attend_cases(seed: int) -> list[Case]:
    small = Case(
        torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[10.0], [20.0]])
    )
    query, keys, values = _noise(seed, (4,), (6, 4), (6, 3))
    loud = torch.tensor([300.0, 0.0])  # scores beyond 88, where exp leaves float32, above and below zero
    far = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.99, 0.0]])
    return [small, Case(query, keys, values), Case(loud, far, values[:3])]


def _attend_oracle(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query[None], keys, values)[0]


def _shares(scores: Tensor) -> Tensor:
    return torch.exp(scores - scores.max()) / torch.exp(scores - scores.max()).sum()


def _attend_without_root(query, keys, values):
    return _shares(keys @ query) @ values


def _attend_root_missing_its_root(query, keys, values):
    return _shares(keys @ query / len(query)) @ values


def _attend_naively(query, keys, values):
    powers = torch.exp(keys @ query / math.sqrt(len(query)))
    return powers / powers.sum() @ values


def _attend_undivided(query, keys, values):
    scores = keys @ query / math.sqrt(len(query))
    return torch.exp(scores - scores.max()) @ values


def _attend_by_plain_shares(query, keys, values):
    scores = keys @ query / math.sqrt(len(query))
    return scores / scores.sum() @ values


def _attend_to_the_winner(query, keys, values):
    return values[(keys @ query).argmax()]


def _attend_by_einsum(query, keys, values):
    weights = torch.einsum("d,md->m", query, keys).div(len(query) ** 0.5).softmax(0)
    return torch.einsum("m,me->e", weights, values)


def _attend_in_logarithms(query, keys, values):
    scores = (keys * query).sum(1) / math.sqrt(query.numel())
    return ((scores - scores.logsumexp(0)).exp()[:, None] * values).sum(0)


ATTEND = Exercise(
    id="attention.attend",
    chapter=CHAPTER,
    title="One word asks",
    minutes=12,
    difficulty=2,
    reference=attend,
    oracle=_attend_oracle,
    cases=_attend_cases,
    properties=(
        Property(
            "if all values are equal, that value is the answer",
            lambda f: torch.allclose(
                f(torch.ones(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.full((2, 1), 7.0)),
                torch.tensor([7.0]),
            ),
        ),
    ),
    hints=Hints(
        "Two keys fit equally well. What should the answer be made of?",
        "Three steps: one score for each key, all scores into shares, shares times values.",
        "s_j = q·k_j / sqrt(d);  w_j = exp(s_j - max s) / sum_i exp(s_i - max s);  answer = sum_j w_j v_j",
    ),
    misconceptions=(
        Misconception(
            id="without_root",
            title="the scores are not divided by the square root of d",
            wrong=_attend_without_root,
            hints=Hints(
                "How large do products of 512 random pairs get?",
                "The line that makes the scores.",
                "s_j = q·k_j / sqrt(d)",
            ),
            section="Why the root?",
            evidence=(
                "delzac/cntkx issue 10: a library's scaled_dot_product_attention lacked the root. Shapes and"
                " training give no sign of it."
            ),
        ),
        Misconception(
            id="root_missing_its_root",
            title="the scores are divided by d; it is the square root of d",
            wrong=_attend_root_missing_its_root,
            hints=Hints(
                "The *variance* of a product of d random pairs is d. What is its spread?",
                "The divisor of the scores.",
                "s_j = q·k_j / sqrt(d), not q·k_j / d",
            ),
            section="Why the root?",
            evidence=(
                "brightmart/bert_language_understanding issue 9 and openai/guided-diffusion issue 38: readers"
                " and authors stumble over which number is divided by, and over how many roots."
            ),
        ),
        Misconception(
            id="exp_overflows",
            title="exp is taken of raw scores: beyond 88 it is infinite, and the answer is no number",
            wrong=_attend_naively,
            hints=Hints(
                "What is torch.exp(torch.tensor(100.0))?",
                "The line before exp: what may be taken off every score without changing the shares?",
                "w_j = exp(s_j - max s) / sum_i exp(s_i - max s)",
            ),
            section="One word asks",
            evidence=(
                "pytorch/executorch pull request 18407: scores of 151 in a shipped model, and garbage from"
                " the first layer on; rusty1s/pytorch_geometric issue 53."
            ),
        ),
        Misconception(
            id="undivided",
            title="the powers are not divided by their sum, so the weights do not add up to 1",
            wrong=_attend_undivided,
            hints=Hints(
                "All values are 7. Can the answer be anything else?",
                "The line after exp.",
                "w_j = exp(s_j) / sum_i exp(s_i)",
            ),
            section="One word asks",
            evidence=(
                "Reasoning slip: exp makes the scores positive, and the second half of softmax is forgotten."
            ),
        ),
        Misconception(
            id="plain_shares",
            title="scores are divided by their sum without exp: negative scores make negative weights",
            wrong=_attend_by_plain_shares,
            hints=Hints(
                "Two scores are 1 and -1. What is their sum, and what are your shares?",
                "The line that turns scores into weights.",
                "w_j = exp(s_j) / sum_i exp(s_i)",
            ),
            section="One word asks",
            evidence=(
                "Reasoning slip: 'normalise' read as 'divide by the sum'. Raschka's LLMs-from-scratch,"
                " chapter 3, starts that way on purpose and shows why it fails."
            ),
        ),
        Misconception(
            id="winner_takes_all",
            title="only the best key's value is handed over; attention mixes all of them",
            wrong=_attend_to_the_winner,
            hints=Hints(
                "Two keys fit almost equally well. Should a hair's breadth decide everything?",
                "Where does your code use argmax or an if?",
                "answer = sum_j w_j v_j over *all* j; a choice has no gradient to learn from",
            ),
            section="One word asks",
            evidence=(
                "Reasoning slip: the picture of a dictionary that returns the entry of the matching key."
            ),
        ),
    ),
    correct_alternatives=(_attend_oracle, _attend_by_einsum, _attend_in_logarithms),
    equivalent_mutants={
        "True -> False": "shapes that do not fit are refused before the channels are paired",
        "True -> False #2": "there is one weight for each value, by construction",
    },
)


# --- scaled_dot_product ----------------------------------------------------------------------------------


def _sdp_cases(seed: int) -> list[Case]:
    q, k, v = _noise(seed, (2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 6))
    causal = torch.tensor([[j <= i for j in range(5)] for i in range(4)])
    one_row_hidden = causal.clone()
    one_row_hidden[0] = False
    small = [torch.tensor(x) for x in ([[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [0.0, 1.0]], [[1.0], [3.0]])]
    mask = torch.tensor([[True, False], [True, True]])
    return [
        Case(*small),
        Case(*small, mask=mask),
        Case(q, k, v),
        Case(q, k, v, mask=causal),
        Case(q, k, v, mask=one_row_hidden),
    ]


def _sdp_oracle(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask)


def _sdp(q, k, v, mask=None, *, root=None, dim=-1, keys=None):
    """Attention with one part replaced."""
    scores = q @ (k.transpose(-2, -1) if keys is None else keys) / math.sqrt(root or q.shape[-1])
    if mask is None:
        return scores.softmax(dim) @ v
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim)
    return weights.masked_fill(~mask, 0.0).nan_to_num() @ v


def _over_queries(q, k, v, mask=None):
    return _sdp(q, k, v, mask, dim=-2)


def _scaled_by_tokens(q, k, v, mask=None):
    return _sdp(q, k, v, mask, root=k.shape[-2])


def _turned_by_a_quarter(q, k, v, mask=None):
    return _sdp(q, k, v, mask, keys=torch.rot90(k, 1, (-2, -1)))


def _mask_means_hidden(q, k, v, mask=None):
    return _sdp(q, k, v, None if mask is None else ~mask)


def _hidden_scores_are_zero(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores * mask).softmax(-1) @ v


def _mask_unused(q, k, v, mask=None):
    return _sdp(q, k, v)


def _mask_after_softmax(q, k, v, mask=None):
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return (weights if mask is None else weights * mask) @ v


def _hidden_rows_are_nan(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1) @ v


def _hidden_rows_are_means(q, k, v, mask=None):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1) @ v


def _sdp_by_powers(q, k, v, mask=None):
    scores = torch.einsum("...nd,...md->...nm", q, k) / q.shape[-1] ** 0.5
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    powers = powers if mask is None else powers * mask
    return (powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)) @ v


def _sdp_by_bias(q, k, v, mask=None):
    bias = torch.zeros(()) if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    return ((q / math.sqrt(q.shape[-1])) @ k.mT + bias).softmax(-1).nan_to_num(0.0) @ v


SCALED_DOT_PRODUCT = Exercise(
    id="attention.scaled_dot_product",
    chapter=CHAPTER,
    title="All words ask at once",
    minutes=15,
    difficulty=2,
    reference=scaled_dot_product,
    oracle=_sdp_oracle,
    cases=_sdp_cases,
    hints=Hints(
        "Six words ask six words. What shape has the table of all scores, and what adds up to 1 in it?",
        "Scores by one matrix product, then the mask, then softmax along the keys, then one more product.",
        "softmax(Q K^T / sqrt(d) + M) V, where M is 0 where the mask is True and -inf elsewhere",
    ),
    misconceptions=(
        Misconception(
            id="softmax_over_queries",
            title="softmax runs down the columns: weights add up to 1 over the queries",
            wrong=_over_queries,
            hints=Hints(
                "Who has one unit of attention to give away, a query or a key?",
                "The `dim` of your softmax.",
                "dim=-1: a row belongs to one query and adds up to 1 over the keys",
            ),
            section="All words at once",
            evidence=(
                "labmlai/annotated_deep_learning_paper_implementations issues 146 and 282: first the one"
                " axis, then doubts about the other; the bugged model trained about as well, so nobody"
                " noticed."
            ),
        ),
        Misconception(
            id="scaled_by_tokens",
            title="the root is taken of the number of keys; it is that of the channels",
            wrong=_scaled_by_tokens,
            hints=Hints(
                "A score is a sum over what: over words, or over channels?",
                "The number under your square root. A square case hides this.",
                "sqrt(q.shape[-1])",
            ),
            section="Why the root?",
            evidence=(
                "cneuralnetwork/solving-ml-papers issue 1: the wrong dimension under the root, right only as"
                " long as both are equal."
            ),
        ),
        Misconception(
            id="turned_by_a_quarter",
            title="K is turned by 90 degrees; a transpose swaps its axes",
            wrong=_turned_by_a_quarter,
            hints=Hints(
                "Write down a 2 by 2 matrix, its transpose, and the matrix turned by a quarter.",
                "The line that makes K fit for the product.",
                "(K^T)[i, j] = K[j, i]: k.transpose(-2, -1)",
            ),
            section="All words at once",
            evidence=(
                "The lecture that this course follows says on a slide that the transpose 'rotates' K; both"
                " have the right shape."
            ),
        ),
        Misconception(
            id="mask_means_hidden",
            title="the mask is read the wrong way round: here True means 'may be looked at'",
            wrong=_mask_means_hidden,
            hints=Hints(
                "What does True mean in this mask?",
                "The line with masked_fill: it fills where its argument is True.",
                "scores.masked_fill(~mask, -inf)",
            ),
            section="Masks",
            evidence=(
                "rasbt/LLMs-from-scratch issue 1061 and pytorch/pytorch pull request 170415: torch's function"
                " and torch's module disagree about what True means, and silent bugs follow."
            ),
        ),
        Misconception(
            id="hidden_scores_are_zero",
            title="hidden scores are set to 0, and exp(0) = 1 is a weight like any other",
            wrong=_hidden_scores_are_zero,
            hints=Hints(
                "Which score makes a weight of exactly 0?",
                "What do you put in the place of hidden scores?",
                "exp(-inf) = 0",
            ),
            section="Masks",
            evidence=(
                "georg-wolflein/good-features pull request 1 and awslabs/gluonts pull request 1401: masks"
                " multiplied on or filled with about 0 before softmax."
            ),
        ),
        Misconception(
            id="mask_unused",
            title="right without a mask, but the mask is not used yet: everybody still sees everything",
            wrong=_mask_unused,
            hints=Hints(
                "What should change in the scores when a key is hidden?",
                "Between the scores and softmax, wherever `mask` is not None.",
                "scores = scores.masked_fill(~mask, -inf), then softmax over the keys",
            ),
            section="Masks",
            evidence=(
                "Reasoning slip: the half-way answer, since the exercise begins without a mask. Nothing fails"
                " if it stays at that: shapes fit, and a model that sees the future reports a lower loss."
            ),
        ),
        Misconception(
            id="mask_after_softmax",
            title="the mask comes after softmax, and what is left no longer adds up to 1",
            wrong=_mask_after_softmax,
            hints=Hints(
                "What do the weights of a half-hidden row add up to in your code?",
                "The order of mask and softmax.",
                "softmax(scores + M): hide first, then share out",
            ),
            section="Masks",
            evidence=(
                "huggingface/pytorch-image-models pull request 2236: the mask was applied after softmax."
            ),
        ),
        Misconception(
            id="hidden_rows_are_nan",
            title="a row that is hidden whole becomes 0/0: not a number; zeros are wanted",
            wrong=_hidden_rows_are_nan,
            hints=Hints(
                "What is softmax of a row of -inf?",
                "After softmax: which weights must be 0 whatever came out?",
                "weights.masked_fill(~mask, 0)",
            ),
            section="Masks",
            evidence=(
                "pytorch/pytorch issues 41508 and 103963: NaN from masks that hide a whole row; torch's fused"
                " function now answers with zeros."
            ),
        ),
        Misconception(
            id="hidden_rows_are_means",
            title="with -1e9 in place of -inf a row that is hidden whole becomes the mean of all values",
            wrong=_hidden_rows_are_means,
            hints=Hints(
                "All scores of a row are -1e9. What are their shares?",
                "The number that you fill in, and what follows softmax.",
                "masked_fill with -inf, softmax, then masked_fill with 0",
            ),
            section="Masks",
            evidence=(
                "lsdefine/attention-is-all-you-need-keras issue 16 and YutaroOgawa/pytorch_advanced issue"
                " 175: the row of thirds and fifths that -1e9 leaves behind."
            ),
        ),
    ),
    correct_alternatives=(_sdp_oracle, _sdp_by_powers, _sdp_by_bias),
)


# --- split_heads -----------------------------------------------------------------------------------------


def _heads_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    (x,) = _noise(seed, (2, 5, 4 * rng.randint(2, 4)))
    return [Case(torch.arange(8.0).view(1, 2, 4), 2), Case(x, 4), Case(x, 2), Case(x, 1)]


def _heads_oracle(x: Tensor, heads: int) -> Tensor:
    return torch.stack(x.chunk(heads, dim=-1), dim=1)


def _viewed(x, heads):
    return x.reshape(x.shape[0], heads, x.shape[1], -1)


def _dealt_out(x, heads):
    return torch.stack([x[..., head::heads] for head in range(heads)], dim=1)


def _still_inside(x, heads):
    return x.unflatten(-1, (heads, -1))


def _whole_for_each(x, heads):
    return x[:, None].repeat(1, heads, 1, 1)


def _channels_of_heads(x, heads):
    return x.unflatten(-1, (-1, heads)).transpose(1, 2)


def _heads_by_slices(x, heads):
    size = x.shape[-1] // heads
    out = torch.empty(x.shape[0], heads, x.shape[1], size)
    for head in range(heads):
        out[:, head] = x[:, :, head * size : (head + 1) * size]
    return out


def _heads_by_view(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


SPLIT_HEADS = Exercise(
    id="attention.split_heads",
    chapter=CHAPTER,
    title="Share the channels among heads",
    minutes=10,
    difficulty=2,
    reference=split_heads,
    oracle=_heads_oracle,
    cases=_heads_cases,
    hints=Hints(
        "Word 0 has the channels 0 1 2 3, word 1 has 4 5 6 7. With two heads, what does head 0 hold?",
        "Take the last axis apart into (heads, d); then move the axis of heads forward.",
        "result[b, h, n, i] = x[b, n, h * d + i], with d = width / heads",
    ),
    misconceptions=(
        Misconception(
            id="viewed",
            title="a reshape straight to (b, h, n, d) cuts through the words: a head mixes several",
            wrong=_viewed,
            hints=Hints(
                "Which numbers belong to word 0 in your result, and were they its own?",
                "Memory holds word after word. What does a reshape alone do to that order?",
                "reshape to (b, n, h, d) first, then transpose(1, 2)",
            ),
            section="Heads",
            evidence=(
                "reczoo/FuxiCTR issue 30 and jsbaan/transformer-from-scratch pull request 6: published code"
                " with this bug passed its training test, since a toy task hides it; hyunwoongko/transformer"
                " issue 15 asks why the transpose is needed."
            ),
        ),
        Misconception(
            id="dealt_out",
            title="channels are dealt out like cards; a head gets a block of neighbours",
            wrong=_dealt_out,
            hints=Hints(
                "Which channels of word 0 does your head 0 hold?",
                "When the last axis is taken apart, which factor comes first?",
                "(h d): channel h * d + i belongs to head h",
            ),
            section="Heads",
            evidence=(
                "A network trained from scratch would not mind, but released weights do: checkpoints differ"
                " in whether heads or q, k, v come first (tenstorrent/tt-metal issue 6243)."
            ),
        ),
        Misconception(
            id="still_inside",
            title="the axis of heads stands behind the words: (b, n, h, d), so heads attend to heads",
            wrong=_still_inside,
            hints=Hints(
                "Attention works on the last two axes. Which two should these be?",
                "Something is missing after the reshape.",
                "(b, n, h, d) -> transpose(1, 2) -> (b, h, n, d)",
            ),
            section="Heads",
            evidence=(
                "lucidrains/vit-pytorch issue 90: 'is there a reason to rearrange to b h n d instead of"
                " b n h d?'"
            ),
        ),
        Misconception(
            id="whole_for_each",
            title="every head gets all channels; the heads share them",
            wrong=_whole_for_each,
            hints=Hints(
                "With 512 channels and 8 heads, how many channels has a head?",
                "The size of your last axis.",
                "d = width / heads",
            ),
            section="Heads",
            evidence=(
                "harvardnlp/annotated-transformer issue 17: readers stumble over d_model and d_k. Every head"
                " reads the whole word, but through its own projection to d_model / h channels."
            ),
        ),
    ),
    correct_alternatives=(_heads_oracle, _heads_by_slices, _heads_by_view),
)


# --- causal_mask -----------------------------------------------------------------------------------------


def _mask_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    return [Case(3), Case(2, 2), Case(rng.randint(4, 8)), Case(rng.randint(3, 5), past=rng.randint(3, 5))]


def _mask_oracle(length: int, past: int = 0) -> Tensor:
    return torch.tensor([[j <= past + i for j in range(past + length)] for i in range(length)])


def _future_only(length, past=0):
    return torch.ones(length, past + length).triu(past).bool()


def _not_itself(length, past=0):
    return torch.ones(length, past + length).tril(past - 1).bool()


def _true_is_hidden(length, past=0):
    return ~_mask_oracle(length, past)


def _top_left(length, past=0):
    return torch.ones(length, past + length).tril().bool()


def _past_forgotten(length, past=0):
    return torch.ones(length, length).tril().bool()


def _mask_by_comparison(length, past=0):
    return torch.arange(past + length) <= past + torch.arange(length)[:, None]


def _mask_last_rows(length, past=0):
    return torch.ones(past + length, past + length).tril().bool()[past:]


CAUSAL_MASK = Exercise(
    id="attention.causal_mask",
    chapter=CHAPTER,
    title="Nobody sees the future",
    minutes=10,
    difficulty=2,
    reference=causal_mask,
    oracle=_mask_oracle,
    cases=_mask_cases,
    hints=Hints(
        "Two words are new and two have been read before. What may the first new word look at?",
        "New word i stands at place past + i. Compare that with the place of each column.",
        "mask[i, j] is True where j <= past + i",
    ),
    misconceptions=(
        Misconception(
            id="future_only",
            title="the wrong triangle: every word sees what comes after it",
            wrong=_future_only,
            hints=Hints(
                "What may word 0 look at?",
                "tril keeps what is below the diagonal, triu what is above it.",
                "j <= past + i",
            ),
            section="Masks",
            evidence="karpathy/nanoGPT issue 170: 'shouldn't it be triu?'",
        ),
        Misconception(
            id="not_itself",
            title="a word may not look at itself: the first has nothing to look at",
            wrong=_not_itself,
            hints=Hints(
                "How many True has your first row?",
                "The diagonal: smaller, or smaller or equal?",
                "j <= past + i, with the equal sign",
            ),
            section="Masks",
            evidence=(
                "pytorch/pytorch issue 143287 (such a mask, and what becomes of it) and TransformerLens issue"
                " 284 (whether the diagonal belongs to it)."
            ),
        ),
        Misconception(
            id="true_is_hidden",
            title="True marks what is hidden; here True means 'may be looked at'",
            wrong=_true_is_hidden,
            hints=Hints(
                "What does True mean in this course, and in scaled_dot_product_attention?",
                "Your mask is right for another convention.",
                "True where j <= past + i",
            ),
            section="Masks",
            evidence=(
                "pytorch/pytorch pull request 120668: torch.nn.Transformer's masks mean the opposite of those"
                " of scaled_dot_product_attention."
            ),
        ),
        Misconception(
            id="top_left",
            title="the triangle starts at the top left: new words forget what was read before",
            wrong=_top_left,
            hints=Hints(
                "With past = 2, may the first new word look at all of the past?",
                "The diagonal has to move by `past`.",
                "tril(diagonal=past)",
            ),
            section="Masks",
            evidence=(
                "pytorch/pytorch issues 103082 and 108108, onnx/onnx pull request 8068: is_causal is aligned"
                " to the top left, which is wrong as soon as there is a cache."
            ),
        ),
        Misconception(
            id="past_forgotten",
            title="there are no columns for the past",
            wrong=_past_forgotten,
            hints=Hints(
                "How many words can be looked at, and how many look?",
                "The number of columns.",
                "length rows, past + length columns",
            ),
            section="Masks",
            evidence="Reasoning slip: a mask is taken to be square, as it is in every picture.",
        ),
    ),
    correct_alternatives=(_mask_oracle, _mask_by_comparison, _mask_last_rows),
)


# --- rotary_attention ------------------------------------------------------------------------------------


def _rotary_cases(seed: int) -> list[Case]:
    q, k, v, angles = _noise(seed, (2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8), (5, 4))
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    quarter = torch.tensor([[0.0], [math.pi / 2]])
    return [Case(one, one, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), quarter), Case(q, k, v, angles)]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def _rotary_oracle(q: Tensor, k: Tensor, v: Tensor, angles: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(_turned(q, angles), _turned(k, angles), v)


def _values_too(q, k, v, angles):
    return _rotary_oracle(q, k, _turned(v, angles), angles)


def _queries_only(q, k, v, angles):
    return F.scaled_dot_product_attention(_turned(q, angles), k, v)


def _against_each_other(q, k, v, angles):
    return F.scaled_dot_product_attention(_turned(q, angles), _turned(k, -angles), v)


def _answers_turned(q, k, v, angles):
    return _turned(F.scaled_dot_product_attention(q, k, v), angles)


def _added(q, k, v, angles):
    code = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
    return F.scaled_dot_product_attention(q + code, k + code, v)


def _rotary_by_rotate(q, k, v, angles):
    scores = rotate(q, angles) @ rotate(k, angles).transpose(-2, -1) / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v


def _rotary_by_differences(q, k, v, angles):
    """Turns only the query, by the difference of the two angles: RoPE's own argument."""
    n = q.shape[-2]
    pairs = [(i, j) for i in range(n) for j in range(n)]
    scores = [(rotate(q[..., [i], :], angles[[i]] - angles[[j]])[..., 0, :] * k[..., j, :]).sum(-1)
              for i, j in pairs]  # fmt: skip
    table = torch.stack(scores, dim=-1).unflatten(-1, (n, n))
    return (table / q.shape[-1] ** 0.5).softmax(-1) @ v


ROTARY_ATTENTION = Exercise(
    id="attention.rotary_attention",
    chapter=CHAPTER,
    title="Finish RoPE",
    minutes=8,
    difficulty=1,
    reference=rotary_attention,
    oracle=_rotary_oracle,
    cases=_rotary_cases,
    hints=Hints(
        "Scores should know how far apart two words are. Which of q, k and v make the scores?",
        "Two calls of `rotate`, one of `scaled_dot_product`.",
        "softmax(R(q) R(k)^T / sqrt(d)) v",
    ),
    misconceptions=(
        Misconception(
            id="values_too",
            title="the values are turned as well: what is handed over now depends on where it stood",
            wrong=_values_too,
            hints=Hints(
                "The same word stands at places 3 and 103. Should it hand over the same thing?",
                "Your calls of rotate: how many are there?",
                "Only q and k make scores; v stays as it is",
            ),
            section="RoPE, finished",
            evidence=(
                "mistralai/mistral-inference issue 147 asks why not the values; Su et al. 2021, section 2.3,"
                " leaves them alone."
            ),
        ),
        Misconception(
            id="queries_only",
            title="only the queries are turned: scores depend on the query's place, not on the distance",
            wrong=_queries_only,
            hints=Hints(
                "Both words move on by 10 places. Do your scores stay the same?",
                "What happens to k?",
                "R(q)·R(k) depends on the difference of the places; R(q)·k does not",
            ),
            section="RoPE, finished",
            evidence=(
                "Reasoning slip: 'the query is turned by the distance', which only holds once both are"
                " turned."
            ),
        ),
        Misconception(
            id="against_each_other",
            title="the keys are turned backwards: scores depend on the sum of the places",
            wrong=_against_each_other,
            hints=Hints(
                "Turn both by the same angle. Does their product change?",
                "The sign of the key's angle.",
                "Both forwards: the angle between them is then the difference",
            ),
            section="RoPE, finished",
            evidence=(
                "Reasoning slip: the minus of 'm - n' is put into the key's turn. It appears by itself, in"
                " the dot product."
            ),
        ),
        Misconception(
            id="answers_turned",
            title="the answers are turned; the scores never hear about the places",
            wrong=_answers_turned,
            hints=Hints(
                "Shuffle the words. Do the weights notice?",
                "Where in your code does rotate stand: before the scores, or after them?",
                "Turn q and k, then attend",
            ),
            section="RoPE, finished",
            evidence=(
                "facebookresearch/blt issue 71 asks whether turning may come at another place in the layer:"
                " it may not, since turning and projecting do not commute."
            ),
        ),
        Misconception(
            id="added",
            title="sine and cosine are added to q and k; RoPE turns them",
            wrong=_added,
            hints=Hints(
                "Does the length of a query stay the same in your code?",
                "A plus sign where there should be a turn.",
                "(a, b) -> (a cos v - b sin v,  a sin v + b cos v): `rotate`",
            ),
            section="RoPE, finished",
            evidence="Reasoning slip: chapter 02's sinusoidal code is added, so this one is added as well.",
        ),
    ),
    correct_alternatives=(_rotary_oracle, _rotary_by_rotate, _rotary_by_differences),
    tolerance=1e-4,
)


# --- attention_macs --------------------------------------------------------------------------------------


def _macs_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    n, width, m = rng.randint(3, 400), 8 * rng.randint(2, 100), rng.randint(401, 900)
    return [Case(2, 3), Case(4, 2, 3), Case(n, width), Case(n, width, context=m), Case(n + m, width)]


def _macs_oracle(tokens: int, width: int, context: int | None = None) -> int:
    """Adds up the products one by one: rows x inner x columns of every matrix product."""
    asked = context or tokens
    q = out = (tokens, width, width)
    k = v = (asked, width, width)
    scores, mixing = (tokens, width, asked), (tokens, asked, width)
    return sum(math.prod(product) for product in (q, k, v, out, scores, mixing))


def _table_only(tokens, width, context=None):
    return 2 * tokens * (context or tokens) * width


def _scores_only(tokens, width, context=None):
    asked = context or tokens
    return 2 * tokens * width**2 + 2 * asked * width**2 + tokens * asked * width


def _no_output_projection(tokens, width, context=None):
    asked = context or tokens
    return tokens * width**2 + 2 * asked * width**2 + 2 * tokens * asked * width


def _flops(tokens, width, context=None):
    return 2 * _macs_oracle(tokens, width, context)


def _context_ignored(tokens, width, context=None):
    return _macs_oracle(tokens, width)


def _everyone_projects_all(tokens, width, context=None):
    return 4 * tokens * width**2 + 2 * tokens * (context or tokens) * width


def _macs_factored(tokens, width, context=None):
    asked = context or tokens
    return 2 * width * ((tokens + asked) * width + tokens * asked)


ATTENTION_MACS = Exercise(
    id="attention.attention_macs",
    chapter=CHAPTER,
    title="Count the cost",
    minutes=12,
    difficulty=2,
    reference=attention_macs,
    oracle=_macs_oracle,
    cases=_macs_cases,
    hints=Hints(
        "How many multiply-adds does an (a, b) matrix times a (b, c) matrix take?",
        "Six products: queries, keys, values, scores, the weighted sum, and the output's projection.",
        "2 n w^2 + 2 m w^2 + 2 n m w, for n tokens that ask, m that are asked, width w",
    ),
    misconceptions=(
        Misconception(
            id="table_only",
            title="the four projections are left out",
            wrong=_table_only,
            hints=Hints(
                "A single token attends to itself alone. Is that free?",
                "What happens to x before there are queries and keys, and after the weighted sum?",
                "Add n w^2 for queries and output each, m w^2 for keys and values each",
            ),
            section="What it costs",
            evidence="Reasoning slip: 'attention is quadratic' taken to mean that nothing else counts.",
        ),
        Misconception(
            id="scores_only",
            title="weights times values is left out: it costs as much as the scores",
            wrong=_scores_only,
            hints=Hints(
                "How many products have a side for every pair of words?",
                "What is done with the table once it is there?",
                "n m w for Q K^T and n m w for weights times V",
            ),
            section="What it costs",
            evidence=(
                "pytorch/torchtitan pull request 4366: an estimate whose comment says two products of pairs"
                " and whose formula holds one."
            ),
        ),
        Misconception(
            id="no_output_projection",
            title="the projection after the heads is left out",
            wrong=_no_output_projection,
            hints=Hints(
                "What puts the heads' answers together?",
                "Count the linear layers of SelfAttention: qkv makes three, and then?",
                "W_O costs n w^2",
            ),
            section="What it costs",
            evidence="Reasoning slip: three letters, Q, K and V, hence three projections.",
        ),
        Misconception(
            id="flops",
            title="this counts flops, two for each multiply-add; MACs are asked for",
            wrong=_flops,
            hints=Hints(
                "Is a multiplication followed by an addition one or two in your count?",
                "A factor for everything.",
                "One MAC is one multiplication and one addition",
            ),
            section="What it costs",
            evidence=(
                "facebookresearch/DiT issues 14 and 67, Visual-Attention-Network/SegNeXt issue 49: papers"
                " write flops and mean MACs."
            ),
        ),
        Misconception(
            id="context_ignored",
            title="cross-attention is counted like self-attention",
            wrong=_context_ignored,
            hints=Hints(
                "256 patches ask 12 words. What shape has the table?",
                "The argument `context`.",
                "m = context: keys and values are made of m tokens, and the table is n by m",
            ),
            section="What it costs",
            evidence="Reasoning slip: n^2 is remembered, and where the two n come from is not.",
        ),
        Misconception(
            id="everyone_projects_all",
            title=(
                "keys and values are counted for the tokens that ask; they are made of those that are asked"
            ),
            wrong=_everyone_projects_all,
            hints=Hints(
                "Whose words become keys?",
                "The 4 in front of your projections.",
                "2 n w^2 + 2 m w^2",
            ),
            section="What it costs",
            evidence=(
                "Reasoning slip: the 4 n w^2 of self-attention carried over. With a short prompt and many"
                " patches it makes cross-attention look nearly twice as dear as it is."
            ),
        ),
    ),
    correct_alternatives=(_macs_oracle, _macs_factored),
)


EXERCISES = (ATTEND, SCALED_DOT_PRODUCT, SPLIT_HEADS, CAUSAL_MASK, ROTARY_ATTENTION, ATTENTION_MACS)
