"""Exercises of chapter 04: LayerNorm, residuals, shifted targets, sampling, counting parameters."""

import math
import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property
from sora_edu.transformer import gpt_parameters, layer_norm, next_token_probabilities, residual, shift_right

CHAPTER = "04_transformer"


# --- layer_norm ------------------------------------------------------------------------------------------


def _norm_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    tokens = 3 * torch.randn(2, 3, 6, generator=noise) + torch.randn(2, 3, 1, generator=noise)
    weight, bias = 1 + torch.rand(6, generator=noise), torch.randn(6, generator=noise)
    small = torch.tensor([[1.0, 3.0], [0.0, 10.0]])
    return [
        Case(small, torch.ones(2), torch.zeros(2)),
        Case(tokens, weight, bias),
        Case(0.3 * tokens, weight, bias, eps=0.5),
    ]


def _norm_oracle(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _unbiased(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() + bias


def _eps_outside(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + eps) + bias


def _std_plus_eps(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps) + bias


def _no_root(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps) + bias


def _all_tokens(x, weight, bias, eps=1e-5):
    return weight * (x - x.mean()) / (x.var(correction=0) + eps).sqrt() + bias


def _over_the_batch(x, weight, bias, eps=1e-5):
    centred = x - x.mean(0, keepdim=True)
    return weight * centred / (centred.square().mean(0, keepdim=True) + eps).sqrt() + bias


def _mean_left_in(x, weight, bias, eps=1e-5):
    return weight * x / (x.square().mean(-1, keepdim=True) + eps).sqrt() + bias


def _norm_token_by_token(x, weight, bias, eps=1e-5):
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        mean = sum(token) / len(token)
        variance = sum((value - mean) ** 2 for value in token) / len(token)
        rows.append((token - mean) / torch.sqrt(variance + eps) * weight + bias)
    return torch.stack(rows).view_as(x)


def _norm_by_moments(x, weight, bias, eps=1e-5):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return (x - mean) * torch.rsqrt(variance + eps) * weight + bias


LAYER_NORM = Exercise(
    id="transformer.layer_norm",
    chapter=CHAPTER,
    title="LayerNorm by hand",
    minutes=10,
    difficulty=1,
    reference=layer_norm,
    oracle=_norm_oracle,
    cases=_norm_cases,
    properties=(
        Property(
            "what one token looks like does not depend on the others",
            lambda f: torch.allclose(
                f(torch.tensor([[1.0, 3.0], [0.0, 10.0]]), torch.ones(2), torch.zeros(2))[0],
                f(torch.tensor([[1.0, 3.0], [5.0, 6.0]]), torch.ones(2), torch.zeros(2))[0],
            ),
        ),
    ),
    hints=Hints(
        "Take the token (1, 3). What is its mean, how far is each channel from it, and what should come out?",
        "Mean and variance go over the last axis; `keepdim=True` keeps the shapes fitting.",
        "y = weight (x - mean) / sqrt(var + eps) + bias, with var = mean of (x - mean)^2",
    ),
    misconceptions=(
        Misconception(
            id="unbiased",
            title="the variance is divided by d - 1; LayerNorm divides by d",
            wrong=_unbiased,
            hints=Hints(
                "The token (1, 3) is 1 away from its mean on both sides. What is its variance here,"
                " and in yours?",
                "`var` and `std` divide by d - 1 unless told otherwise.",
                "var = (1/d) sum (x - mean)^2; in torch: correction=0",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "harvardnlp/annotated-transformer pull request 119 and issue 122, allenai/allennlp"
                " pull request"
                " 953: torch's `std` is unbiased by default."
            ),
        ),
        Misconception(
            id="std_plus_eps",
            title="torch's `std` divides by d - 1, and eps stands beside it: two slips of a famous tutorial",
            wrong=_std_plus_eps,
            hints=Hints(
                "The token (1, 3) is 1 away from its mean on both sides. What is its spread, and in yours?",
                "`std` divides by d - 1 unless told otherwise; and eps belongs under the root.",
                "sqrt(var + eps) with var = (1/d) sum (x - mean)^2; in torch: correction=0",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "harvardnlp/annotated-transformer issue 122 has the line; codertimo/BERT-pytorch issue 30 and"
                " hyunwoongko/transformer issue 7 find copies of it."
            ),
        ),
        Misconception(
            id="eps_outside",
            title="eps is added to the standard deviation; it belongs under the root",
            wrong=_eps_outside,
            hints=Hints(
                "With eps = 0.5 the difference shows. What does eps stand next to in the formula?",
                "The denominator: first add, then take the root.",
                "sqrt(var + eps), not sqrt(var) + eps",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "hkproj/pytorch-transformer pull request 31: std + eps is not sqrt(var + eps), handed on from"
                " one tutorial to the next."
            ),
        ),
        Misconception(
            id="no_root",
            title="it divides by the variance; the root is missing",
            wrong=_no_root,
            hints=Hints(
                "Make a token ten times as large. Should the result change? Does yours?",
                "The denominator.",
                "Divide by sqrt(var + eps), the standard deviation",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "leviswind/pytorch-transformer issue 2 and pbcquoc/transformer issue 2 ask after the root."
            ),
        ),
        Misconception(
            id="all_tokens",
            title="one mean and one variance for all tokens together; each token has its own",
            wrong=_all_tokens,
            hints=Hints(
                "Change one token. Do the others change in your result?",
                "The axis over which you take the mean.",
                "mean and var over the last axis alone: shape (..., 1)",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "Reasoning slip: the 'layer' of the name is read as the whole layer's output, as it is in "
                "convolutional networks."
            ),
        ),
        Misconception(
            id="over_the_batch",
            title="mean and variance go over the batch: that is BatchNorm",
            wrong=_over_the_batch,
            hints=Hints(
                "What would be left of a single sequence, normalised by itself, in your version?",
                "The axis over which you take the mean: 0 is the batch.",
                "mean and var over the last axis, the channels",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "Reasoning slip: BatchNorm came first and is what most people have met; Ba et al. (2016) "
                "introduce LayerNorm by turning its table on its side."
            ),
        ),
        Misconception(
            id="mean_left_in",
            title="the mean is not taken off: that is RMSNorm",
            wrong=_mean_left_in,
            hints=Hints(
                "Add 100 to every channel of a token. Should the result change?",
                "The numerator.",
                "x - mean above the line, and in the variance below it",
            ),
            section="LayerNorm: keep it in range",
            evidence=(
                "Reasoning slip: RMSNorm (Zhang and Sennrich, 2019) leaves the mean in on purpose,"
                " and code for"
                " newer models is copied from where older ones are meant."
            ),
        ),
    ),
    correct_alternatives=(_norm_token_by_token, _norm_by_moments),
)


# --- residual --------------------------------------------------------------------------------------------


def centred(x: Tensor) -> Tensor:
    """A small stand-in for a norm in the cases."""
    return x - x.mean(-1, keepdim=True)


def tripled(x: Tensor) -> Tensor:
    """A small stand-in for a layer in the cases."""
    return 3 * x + 1


def _residual_cases(seed: int) -> list[Case]:
    tokens = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    small = torch.tensor([1.0, 3.0])
    return [
        Case(small, tripled, centred),
        Case(small, tripled, centred, pre=False),
        Case(tokens, torch.sin, centred, True),
        Case(tokens, torch.sin, centred, False),
    ]


class _AsTorch(nn.TransformerEncoderLayer):
    """torch's layer with its attention silenced and the feed-forward network put in its place."""

    def __init__(self, layer, norm, pre):
        super().__init__(2, 1, 1, dropout=0.0, norm_first=pre)
        self._layer, self.norm1, self.norm2 = layer, nn.Identity(), _Calls(norm)

    def _sa_block(self, x, *args, **kwargs):
        return torch.zeros_like(x)

    def _ff_block(self, x):
        return self._layer(x)


class _Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _residual_oracle(x, layer, norm, pre=True):
    return _AsTorch(layer, norm, pre)(x[None] if x.ndim == 1 else x).view_as(x)


def _no_skip(x, layer, norm, pre=True):
    return layer(norm(x)) if pre else norm(layer(x))


def _norm_on_the_stream(x, layer, norm, pre=True):
    x = norm(x) if pre else x
    return x + layer(x) if pre else norm(x + layer(x))


def _norm_on_the_layer(x, layer, norm, pre=True):
    return x + layer(norm(x)) if pre else x + norm(layer(x))


def _pre_and_post_swapped(x, layer, norm, pre=True):
    return residual(x, layer, norm, not pre)


def _always_post(x, layer, norm, pre=True):
    return norm(x + layer(x))


def _residual_in_steps(x, layer, norm, pre=True):
    y = norm(x) if pre else x
    total = layer(y) + x
    return total if pre else norm(total)


RESIDUAL = Exercise(
    id="transformer.residual",
    chapter=CHAPTER,
    title="Add, do not replace",
    minutes=8,
    difficulty=1,
    reference=residual,
    oracle=_residual_oracle,
    cases=_residual_cases,
    properties=(
        Property(
            "with pre-norm, a layer that says nothing leaves the stream as it was",
            lambda f: torch.equal(
                f(torch.tensor([1.0, 3.0]), torch.zeros_like, centred), torch.tensor([1.0, 3.0])
            ),
        ),
    ),
    hints=Hints(
        "If the layer answers with zeros, what should come out with pre-norm? And with post-norm?",
        "Pre-norm: the norm stands inside the brackets of the layer. Post-norm: around the sum.",
        "pre: x + layer(norm(x));  post: norm(x + layer(x))",
    ),
    misconceptions=(
        Misconception(
            id="no_skip",
            title="the stream itself is missing: the layer's answer replaces x",
            wrong=_no_skip,
            hints=Hints(
                "If the layer answers with zeros, is anything of x left?",
                "The return lines: what is added to what?",
                "x + …",
            ),
            section="Layers that add",
            evidence=(
                "Reasoning slip: layers are usually called one after the other, each with the answer of the"
                " one before."
            ),
        ),
        Misconception(
            id="norm_on_the_stream",
            title="with pre-norm the normalised x goes on in the stream; x itself should",
            wrong=_norm_on_the_stream,
            hints=Hints(
                "With pre-norm and a layer of zeros: does x come out, or norm(x)?",
                "Is x overwritten before it is added?",
                "x + layer(norm(x)): the norm is for the layer's eyes only",
            ),
            section="Layers that add",
            evidence=(
                "Howuhh/faster-trajectory-transformer issue 3 (`norm_x + attn(norm_x)`), found after"
                " models had"
                " been trained with it; shivanandmn/Knowledge-Tracing-SAINT issue 6."
            ),
        ),
        Misconception(
            id="norm_on_the_layer",
            title="post-norm normalises the layer's answer; it should normalise the sum",
            wrong=_norm_on_the_layer,
            hints=Hints(
                "With post-norm, is what comes out normalised?",
                "The brackets in the line for post-norm.",
                "norm(x + layer(x)), not x + norm(layer(x))",
            ),
            section="Layers that add",
            evidence=(
                "mashrurmorshed/Torch-KWT issue 13: a class PostNorm that returns norm(fn(x)), then"
                " x is added."
            ),
        ),
        Misconception(
            id="pre_and_post_swapped",
            title="pre and post have changed places",
            wrong=_pre_and_post_swapped,
            hints=Hints(
                "In your version, which of the two leaves x untouched when the layer answers with zeros?",
                "The condition.",
                "pre: the norm comes before the layer",
            ),
            section="Layers that add",
            evidence=(
                "harvardnlp/annotated-transformer issue 13, karpathy/minGPT pull request 52: the paper has"
                " post-norm, the code before the reader has pre-norm, and either is taken for a bug."
            ),
        ),
        Misconception(
            id="always_post",
            title="only post-norm is written; `pre` is not looked at",
            wrong=_always_post,
            hints=Hints(
                "Call it with pre=True and with pre=False. Do the results differ?",
                "There are two formulas.",
                "pre: x + layer(norm(x));  post: norm(x + layer(x))",
            ),
            section="Layers that add",
            evidence=(
                "codertimo/BERT-pytorch pull request 84: the formula of the 2017 paper is taken for"
                " the only one."
            ),
        ),
    ),
    correct_alternatives=(
        _residual_in_steps,
        lambda x, layer, norm, pre=True: (
            torch.add(x, layer(norm(x))) if pre else norm(torch.add(layer(x), x))
        ),
    ),
)


# --- shift_right -----------------------------------------------------------------------------------------


def _shift_cases(seed: int) -> list[Case]:
    rows = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(seed))
    rows[1, 4:] = torch.tensor([2, 0])  # a shorter text: its end, then padding
    return [Case(torch.tensor([[5, 6, 2], [7, 2, 0]]), 1), Case(rows, 1), Case(rows, begin=50)]


def _shift_oracle(rows: Tensor, begin: int) -> Tensor:
    return F.pad(rows, (1, -1), value=begin)


def _not_shifted(rows, begin):
    return rows.clone()


def _begin_over_the_first(rows, begin):
    rows = rows.clone()
    rows[:, 0] = begin
    return rows


def _shifted_left(rows, begin):
    return torch.cat([rows[:, 1:], torch.full_like(rows[:, :1], begin)], dim=1)


def _shifted_twice(rows, begin):
    return _shift_oracle(_shift_oracle(rows, begin), begin)


def _rolled(rows, begin):
    return rows.roll(1, dims=1)


def _one_longer(rows, begin):
    return F.pad(rows, (1, 0), value=begin)


def _shift_by_lists(rows, begin):
    return torch.tensor([[begin, *row[:-1]] for row in rows.tolist()])


def _shift_into_a_copy(rows, begin):
    shifted = rows.roll(1, dims=1)
    shifted[:, 0] = begin
    return shifted


SHIFT_RIGHT = Exercise(
    id="transformer.shift_right",
    chapter=CHAPTER,
    title="What the decoder may see",
    minutes=8,
    difficulty=1,
    reference=shift_right,
    oracle=_shift_oracle,
    cases=_shift_cases,
    properties=(
        Property(
            "the last token of a row is never seen",
            lambda f: torch.equal(f(torch.tensor([[5, 6, 2]]), 1), f(torch.tensor([[5, 6, 9]]), 1)),
        ),
    ),
    hints=Hints(
        "Before the decoder writes the first word, what has it seen? And before it writes the second?",
        "A column of `begin` in front, the last column away.",
        "given = (begin, y_1, …, y_(n-1)) while wanted = (y_1, …, y_n)",
    ),
    misconceptions=(
        Misconception(
            id="not_shifted",
            title="nothing is shifted: the decoder is shown the very word that it must write",
            wrong=_not_shifted,
            hints=Hints(
                "At place k the decoder must write word k. Is word k in what it has seen by then?",
                "Does anything move?",
                "given = (begin, y_1, …, y_(n-1))",
            ),
            section="The decoder writes",
            evidence=(
                "tloen/alpaca-lora issue 365 and tatsu-lab/stanford_alpaca issue 45: labels equal"
                " inputs in the"
                " data, and readers do not find where the shift happens."
            ),
        ),
        Misconception(
            id="begin_over_the_first",
            title="`begin` overwrites the first word; everything else stays in its place",
            wrong=_begin_over_the_first,
            hints=Hints(
                "Does the decoder ever see the first word in your version? And the second, before it"
                " must write it?",
                "Putting `begin` in front moves all others by one place.",
                "given = (begin, y_1, …, y_(n-1))",
            ),
            section="The decoder writes",
            evidence=(
                "Reasoning slip: 'the input starts with begin' is carried out by assignment to column 0."
            ),
        ),
        Misconception(
            id="shifted_left",
            title="the rows move left: the decoder sees a word too many, not one too few",
            wrong=_shifted_left,
            hints=Hints(
                "What stands at place 0 of your result: something that comes before the first word,"
                " or after it?",
                "The direction: `begin` goes in front.",
                "given = (begin, y_1, …, y_(n-1))",
            ),
            section="The decoder writes",
            evidence=(
                "tensorflow/tensor2tensor issue 1510 asks whether shift_right has it reversed; shifting the"
                " *labels* left is the same thing said from the other side."
            ),
        ),
        Misconception(
            id="shifted_twice",
            title="the rows are shifted twice: the decoder learns to skip a word",
            wrong=_shifted_twice,
            hints=Hints(
                "How many times does `begin` stand in a row?",
                "Is the shift done in two places?",
                "given = (begin, y_1, …, y_(n-1)): one place, once",
            ),
            section="The decoder writes",
            evidence=(
                "huggingface/transformers pull request 44642: users shift labels that the model shifts again,"
                " and train it to predict the token after the next."
            ),
        ),
        Misconception(
            id="rolled",
            title="the last token comes back in at the front, where `begin` should stand",
            wrong=_rolled,
            hints=Hints(
                "What stands at place 0 of your result?",
                "`roll` moves in a circle.",
                "given = (begin, y_1, …, y_(n-1))",
            ),
            section="The decoder writes",
            evidence="Reasoning slip: `torch.roll` shifts, and what it does at the edge is easily forgotten.",
        ),
        Misconception(
            id="one_longer",
            title="the last column is still there: rows have become longer by one",
            wrong=_one_longer,
            hints=Hints(
                "How many words must the decoder write, and how many places do you give it?",
                "The last column of the rows.",
                "n places in, n words out: the last word is written, never read",
            ),
            section="The decoder writes",
            evidence=(
                "huggingface/transformers issue 7112: a tutorial that does not shift and code that cuts leave"
                " readers unsure which side loses a token."
            ),
        ),
    ),
    correct_alternatives=(_shift_by_lists, _shift_into_a_copy),
)


# --- next_token_probabilities ----------------------------------------------------------------------------


def _sampling_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    small = torch.tensor([[6.0, 3.0, 1.0]]).log()
    logits = 2 * torch.randn(3, 8, generator=noise) - 1
    return [
        Case(small),
        Case(small, 0.5),
        Case(small, 1.0, 2),
        Case(logits, temperature=1.7, top_k=3),
        Case(logits, temperature=0.6),
    ]


def _sampling_oracle(logits: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    powers = logits.double().exp() ** (1 / temperature)
    if top_k is not None:
        order = powers.argsort(dim=-1, descending=True).argsort(dim=-1)
        powers = torch.where(order < top_k, powers, 0.0)
    return (powers / powers.sum(-1, keepdim=True)).float()


def _top(logits, top_k, filling):
    if top_k is None:
        return logits
    return logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], filling)


def _multiplied(logits, temperature=1.0, top_k=None):
    return (_top(logits, top_k, -math.inf) * temperature).softmax(-1)


def _temperature_last(logits, temperature=1.0, top_k=None):
    return _top(logits, top_k, -math.inf).softmax(-1) / temperature


def _temperature_twice(logits, temperature=1.0, top_k=None):
    return (_top(logits, top_k, -math.inf) / temperature / temperature).softmax(-1)


def _scores_set_to_zero(logits, temperature=1.0, top_k=None):
    return (_top(logits, top_k, 0.0) / temperature).softmax(-1)


def _not_shared_out_again(logits, temperature=1.0, top_k=None):
    return _top((logits / temperature).softmax(-1), top_k, 0.0)


def _one_too_many(logits, temperature=1.0, top_k=None):
    return _sampling_oracle(logits, temperature, top_k and top_k + 1)


def _sample_by_powers(logits, temperature=1.0, top_k=None):
    powers = torch.exp((logits - logits.max(-1, keepdim=True).values) / temperature)
    if top_k is not None:
        powers[powers < powers.sort(dim=-1, descending=True).values[:, top_k - 1 : top_k]] = 0
    return powers / powers.sum(-1, keepdim=True)


def _sample_by_scattering(logits, temperature=1.0, top_k=None):
    best = logits.topk(top_k or logits.shape[-1])
    return torch.zeros_like(logits).scatter(-1, best.indices, (best.values / temperature).softmax(-1))


SAMPLING = Exercise(
    id="transformer.next_token_probabilities",
    chapter=CHAPTER,
    title="Which word next?",
    minutes=12,
    difficulty=2,
    reference=next_token_probabilities,
    oracle=_sampling_oracle,
    cases=_sampling_cases,
    properties=(
        Property(
            "each row adds up to 1",
            lambda f: torch.allclose(
                f(torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.2, 0.3]]), 0.7, 2).sum(-1), torch.ones(2)
            ),
        ),
    ),
    hints=Hints(
        "Probabilities .6, .3, .1 at temperature 1. Which are they at temperature one half: 36 : 9 :"
        " 1, or closer"
        " together?",
        "First silence the scores that are not among the top k, then divide, then softmax.",
        "softmax(logits / temperature), with -inf for every score below the k-th largest",
    ),
    misconceptions=(
        Misconception(
            id="multiplied",
            title="scores are multiplied by the temperature; they are divided by it",
            wrong=_multiplied,
            hints=Hints(
                "Should a low temperature make the likeliest token more likely, or less?",
                "The operator in front of the temperature.",
                "softmax(logits / temperature)",
            ),
            section="GPT: only the decoder",
            evidence=(
                "EricGuo5513/momask-codes pull request 28 mends sampling with a temperature; as a"
                " slip: 'hotter"
                " means more' reads like a product."
            ),
        ),
        Misconception(
            id="temperature_last",
            title="the temperature divides the probabilities; it belongs before the softmax",
            wrong=_temperature_last,
            hints=Hints(
                "Do your rows add up to 1 at temperature 0.5?",
                "The order of softmax and division.",
                "softmax(logits / temperature)",
            ),
            section="GPT: only the decoder",
            evidence=(
                "MoonshotAI/Kimi-Audio pull request 161 moves the temperature in front of the softmax."
            ),
        ),
        Misconception(
            id="temperature_twice",
            title="the temperature is applied twice",
            wrong=_temperature_twice,
            hints=Hints(
                "Which temperature do your numbers belong to if you ask for 0.5?",
                "Count the divisions.",
                "softmax(logits / temperature), once",
            ),
            section="GPT: only the decoder",
            evidence=(
                "RL-Align/RL-Kernel issue 81 and Adibvafa/CodonTransformer pull request 20: divided"
                " once for all"
                " and once more in a branch."
            ),
        ),
        Misconception(
            id="scores_set_to_zero",
            title="scores outside the top k become 0, and a score of 0 is not a probability of 0",
            wrong=_scores_set_to_zero,
            hints=Hints(
                "What is exp(0)?",
                "The value that you give to scores outside the top k.",
                "exp(-inf) = 0",
            ),
            section="GPT: only the decoder",
            evidence=(
                "Reasoning slip: the same as masking attention with 0, which has its own entry in chapter 03."
            ),
        ),
        Misconception(
            id="not_shared_out_again",
            title="probabilities outside the top k are struck out, and the rest does not add up to 1",
            wrong=_not_shared_out_again,
            hints=Hints(
                "What do your rows add up to?",
                "Silence the scores before the softmax, not the probabilities after it.",
                "softmax of (logits, with -inf outside the top k)",
            ),
            section="GPT: only the decoder",
            evidence=(
                "fishaudio/fish-speech pull request 1150 puts filter and temperature in order; as a slip: the"
                " softmax comes to mind first."
            ),
        ),
        Misconception(
            id="one_too_many",
            title="one token too many is kept",
            wrong=_one_too_many,
            hints=Hints(
                "With top_k = 2, how many of your probabilities are above zero?",
                "The comparison with the smallest score that may stay: which index is the k-th?",
                "Keep the scores that are at least the k-th largest, index k - 1",
            ),
            section="GPT: only the decoder",
            evidence="kingoflolz/mesh-transformer-jax issue 164: `>` where `>=` was meant.",
        ),
    ),
    correct_alternatives=(_sample_by_powers, _sample_by_scattering),
    equivalent_mutants={
        "-1 -> 1": "scores are a table of two axes, so the last one is axis 1",
        "-1 -> 1 #3": "scores are a table of two axes, so the last one is axis 1",
    },
)


# --- gpt_parameters --------------------------------------------------------------------------------------


def _count_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    width = 12 * rng.randint(1, 20)
    return [Case(1, 2, 3, 5), Case(2, 12, 7, 5), Case(rng.randint(2, 9), width, rng.randint(50, 900), 64)]


def _count_oracle(depth: int, width: int, vocabulary: int, context: int) -> int:
    """Counted on torch's own layers, which hold no numbers on the `meta` device."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(width, 1, 4 * width)
        tables = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
    return depth * _numbers(layer) + sum(map(_numbers, tables))


def _numbers(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _output_counted_again(depth, width, vocabulary, context):
    return _count_oracle(depth, width, vocabulary, context) + vocabulary * width


def _twelve_squares(depth, width, vocabulary, context):
    return depth * 12 * width**2 + (vocabulary + context) * width


def _norms_forgotten(depth, width, vocabulary, context):
    return depth * (12 * width**2 + 9 * width) + (vocabulary + context) * width


def _no_output_projection(depth, width, vocabulary, context):
    return depth * (11 * width**2 + 12 * width) + (vocabulary + context) * width


def _blocks_only(depth, width, vocabulary, context):
    return depth * (12 * width**2 + 13 * width)


def _positions_forgotten(depth, width, vocabulary, context):
    return depth * (12 * width**2 + 13 * width) + vocabulary * width


def _count_in_one_line(depth, width, vocabulary, context):
    return width * (depth * (12 * width + 13) + vocabulary + context)


def _count_matrix_by_matrix(depth, width, vocabulary, context):
    shapes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    block = sum(rows * columns + columns for rows, columns in shapes) + 2 * (width + width)
    return sum(block for _ in range(depth)) + vocabulary * width + context * width


GPT_PARAMETERS = Exercise(
    id="transformer.gpt_parameters",
    chapter=CHAPTER,
    title="How large is GPT-1?",
    minutes=15,
    difficulty=2,
    reference=gpt_parameters,
    oracle=_count_oracle,
    cases=_count_cases,
    hints=Hints(
        "How many d x d matrices are there in attention, and how many in a feed-forward network d ->"
        " 4d -> d?",
        "For each block: matrices, their biases, two norms. Then the tables of tokens and of"
        " positions, once.",
        "block = 12 d^2 + 13 d;  all = depth * block + (vocabulary + context) * d",
    ),
    misconceptions=(
        Misconception(
            id="output_counted_again",
            title="the output layer is counted beside the token table; it is the token table",
            wrong=_output_counted_again,
            hints=Hints(
                "By how much are you over? Is it vocabulary times width?",
                "The line that turns the stream into scores: which matrix does it use?",
                "(vocabulary + context) * d, and nothing for the output",
            ),
            section="Count the parameters",
            evidence=(
                "karpathy/llama2.c issue 378 (a model that seemed larger than announced by exactly vocabulary"
                " times width), huggingface/transformers issues 6291 and 14960."
            ),
        ),
        Misconception(
            id="twelve_squares",
            title="only the matrices are counted; biases and norms are parameters too",
            wrong=_twelve_squares,
            hints=Hints(
                "By how much are you under, in multiples of the width?",
                "Every linear layer has a bias, every norm a scale and a shift.",
                "block = 12 d^2 + 13 d",
            ),
            section="Count the parameters",
            evidence=(
                "12 d^2 a block is the rule of thumb of Kaplan et al. (2020), who leave biases out"
                " on purpose;"
                " it is quoted as the size."
            ),
        ),
        Misconception(
            id="norms_forgotten",
            title="the norms are forgotten: two a block, a scale and a shift each",
            wrong=_norms_forgotten,
            hints=Hints(
                "By how much are you under, in multiples of depth times width?",
                "What else in a block has parameters, beside linear layers?",
                "4 d a block for two norms",
            ),
            section="Count the parameters",
            evidence=(
                "Reasoning slip: a norm looks like arithmetic, and its scale and shift are not in the figure."
            ),
        ),
        Misconception(
            id="no_output_projection",
            title="attention has four matrices; the output's is missing",
            wrong=_no_output_projection,
            hints=Hints(
                "What happens to the heads' answers after they are put side by side?",
                "The four matrices of attention: queries, keys, values, and …",
                "4 d^2 + 4 d for attention",
            ),
            section="Count the parameters",
            evidence=(
                "Reasoning slip: 'Q, K, V' names three. Some models do leave the fourth out (apapiu's small"
                " latent diffusion transformer), which does not help."
            ),
        ),
        Misconception(
            id="blocks_only",
            title="the tables of tokens and positions are not counted",
            wrong=_blocks_only,
            hints=Hints(
                "Does your number change when the vocabulary grows?",
                "What turns ids into vectors?",
                "+ (vocabulary + context) * d",
            ),
            section="Count the parameters",
            evidence=(
                "karpathy/nanoGPT pull request 209: its count leaves embeddings out, and a reader objects."
            ),
        ),
        Misconception(
            id="positions_forgotten",
            title="the table of positions is forgotten; GPT learns its positions",
            wrong=_positions_forgotten,
            hints=Hints(
                "Does your number change when the context grows?",
                "Sinusoids are free. Are GPT's positions sinusoids?",
                "context * d for the positions",
            ),
            section="Count the parameters",
            evidence=(
                "karpathy/nanoGPT reports its size without the positions by default, so two sizes of"
                " one GPT-2"
                " are in circulation."
            ),
        ),
    ),
    correct_alternatives=(_count_in_one_line, _count_matrix_by_matrix),
)


EXERCISES = (RESIDUAL, LAYER_NORM, SHIFT_RIGHT, SAMPLING, GPT_PARAMETERS)
