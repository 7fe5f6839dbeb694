"""Exercises of chapter 08: masks, the encoder's input, the side-interpolator, the passes, losses, cost."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sora_edu.masked_dit import (
    asymmetric_pass,
    block_macs,
    encoder_input,
    mask_from_scores,
    masked_losses,
    side_interpolate,
    step_macs,
)
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "08_masked_diffusion_transformer"


def _random_mask(b: int, n: int, hidden: int, noise: torch.Generator) -> Tensor:
    return torch.stack([torch.randperm(n, generator=noise) < hidden for _ in range(b)])


# --- mask_from_scores ------------------------------------------------------------------------------------


def _score_cases(seed: int) -> list[Case]:
    """Scores all on the low side first, so that a threshold hides too few; no two of them are equal."""
    noise = torch.Generator().manual_seed(seed)

    def scores(b, n):
        return torch.stack([torch.randperm(n, generator=noise) for _ in range(b)]) / (b * n) + torch.arange(
            b
        )[:, None] / (2 * b * n)

    small = torch.tensor([[0.11, 0.42, 0.33, 0.05, 0.24], [0.22, 0.03, 0.14, 0.41, 0.35]])
    drawn = (
        Case(scores(3, 8), 0.25),
        Case(scores(2, 10), 0.7),
        Case(scores(2, 6), 0.0),
        Case(scores(2, 7), 0.4),
    )
    return [Case(small, 0.4), *drawn]


def _score_oracle(scores: Tensor, ratio: float) -> Tensor:
    """torch's own selection of the largest."""
    hidden = round(ratio * scores.shape[1])
    places = scores.topk(hidden, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, places, True)


def _true_means_kept(scores, ratio):
    return ~mask_from_scores(scores, ratio)


def _one_mask_for_all(scores, ratio):
    return mask_from_scores(scores[:1], ratio).repeat(len(scores), 1)


def _sorted_once(scores, ratio):
    return scores.argsort(dim=1) >= scores.shape[1] - round(ratio * scores.shape[1])


def _threshold(scores, ratio):
    return scores >= 1 - ratio


def _ratio_is_kept(scores, ratio):
    ranks = scores.argsort(dim=1).argsort(dim=1)
    return ranks >= round(ratio * scores.shape[1])


def _ranked_over_the_batch(scores, ratio):
    ranks = scores.flatten().argsort().argsort().view(scores.shape)
    return ranks >= scores.numel() - round(ratio * scores.numel())


def _mask_by_sorting(scores, ratio):
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for row, hides in zip(scores, mask, strict=True):
        count = round(ratio * len(row))
        hides[row.argsort(descending=True)[:count]] = True
    return mask


def _rounded_down(scores, ratio):
    ranks = scores.argsort(dim=1).argsort(dim=1)
    return ranks >= scores.shape[1] - int(ratio * scores.shape[1])


def _smallest_hidden(scores, ratio):
    return mask_from_scores(-scores, ratio)


MASK = Exercise(
    id="masked.mask_from_scores",
    chapter=CHAPTER,
    title="A mask for every sample",
    minutes=10,
    difficulty=2,
    reference=mask_from_scores,
    oracle=_score_oracle,
    cases=_score_cases,
    properties=(
        Property(
            "every sample hides equally many",
            lambda f: (
                len(set(f(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9]]), 0.5).sum(1))) >= 1
                and f(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9]]), 0.5).sum(1).tolist()
                == [2, 2]
            ),
        ),
    ),
    hints=Hints(
        "In a row of five scores and with ratio 0.4, which two places should be True?",
        "You need the rank of each score in its own row: sort twice, or take the indices of the largest.",
        "rank = argsort(argsort(scores)); hidden where rank >= n - round(ratio n)",
    ),
    misconceptions=(
        Misconception(
            id="true_means_kept",
            title="the mask is turned round: True stands at the kept places; here True means hidden",
            wrong=_true_means_kept,
            hints=Hints(
                "With ratio 0.25, how many places of eight are True in your mask?",
                "The comparison in the last line.",
                "True = hidden, False = kept",
            ),
            section="A mask for every sample",
            evidence=(
                "facebookresearch/mae issue 157 asks whether mask[:, :len_keep] = 0 is the wrong way round;"
                " earthspecies/avex pull request 26 feeds a mask to a model that expects its inverse."
            ),
        ),
        Misconception(
            id="one_mask_for_all",
            title="all samples of the batch share the first one's mask",
            wrong=_one_mask_for_all,
            hints=Hints(
                "Are the rows of your mask different?",
                "Which axis of the scores do you sort along, and for which rows?",
                "a rank within each row: argsort(dim=1)",
            ),
            section="A mask for every sample",
            evidence=(
                "JiahuiYu/generative_inpainting issue 85: fixed masks for a batch; ecmwf/WeatherGenerator"
                " issue 267: the same mask for seven or eight samples in a row."
            ),
        ),
        Misconception(
            id="sorted_once",
            title="argsort once: it says who stands at each rank, not which rank each has",
            wrong=_sorted_once,
            hints=Hints(
                "Sort (0.3, 0.1, 0.2) with argsort. Is the first number the rank of 0.3?",
                "The line with argsort: what does entry i of its result stand for?",
                "ranks = scores.argsort().argsort()",
            ),
            section="A mask for every sample",
            evidence=(
                "facebookresearch/mae issue 124: a reader cannot see why the noise passes two argsorts;"
                " with one the mask has the right number of places and they are the wrong ones."
            ),
        ),
        Misconception(
            id="threshold",
            title="each token is hidden by chance on its own, so that samples hide different numbers",
            wrong=_threshold,
            hints=Hints(
                "How many tokens does each row of your mask hide? Can the rest be stacked into one tensor?",
                "The comparison: a score against a threshold, or a rank against a number?",
                "exactly round(ratio n) in every row",
            ),
            section="A mask for every sample",
            evidence=(
                "huggingface/transformers pull request 1814: independent draws for each token, where a"
                " constant number was meant; a sequence without any mask is shown."
            ),
        ),
        Misconception(
            id="ratio_is_kept",
            title="the ratio is taken for the share that is kept; it is the share that is hidden",
            wrong=_ratio_is_kept,
            hints=Hints(
                "With ratio 0.25 and eight tokens, how many should be hidden?",
                "The number that the rank is compared with.",
                "rank >= n - round(ratio n)",
            ),
            section="A mask for every sample",
            evidence=(
                "dome272/MaskGIT-pytorch pull request 16: the schedule's number of tokens that stay was used"
                " as the number that is masked."
            ),
        ),
        Misconception(
            id="ranked_over_the_batch",
            title="scores are ranked over the whole batch: one sample hides more than another",
            wrong=_ranked_over_the_batch,
            hints=Hints(
                "Give one row small scores and the other large ones. What is hidden?",
                "Does your sort, top-k or quantile know about rows?",
                "along dim=1",
            ),
            section="A mask for every sample",
            evidence=(
                "Reasoning slip: `torch.quantile` and `flatten` work on the whole tensor; the right number is"
                " hidden in all, as a look at the mean confirms."
            ),
        ),
        Misconception(
            id="rounded_down",
            title="the number of hidden tokens is rounded down: 2.8 of them become 2",
            wrong=_rounded_down,
            hints=Hints(
                "How many of seven tokens does a ratio of 0.4 hide?",
                "What makes a whole number of ratio * n.",
                "round(ratio * n) tokens are hidden",
            ),
            section="A mask for every sample",
            evidence=(
                "Reasoning slip: int() cuts off, and the released code of MAE keeps int(L * (1 -"
                " ratio)), which rounds the other way."
            ),
        ),
        Misconception(
            id="smallest_hidden",
            title="the smallest scores are hidden, where the largest are asked for",
            wrong=_smallest_hidden,
            hints=Hints(
                "In a row of five scores, which two does yours hide?",
                "The direction of the comparison, or of the sort.",
                "hidden where rank >= n - round(ratio n)",
            ),
            section="A mask for every sample",
            evidence=(
                "facebookresearch/mae keeps the smallest of its noise and hides the rest; read the other"
                " way round, the smallest are hidden."
            ),
        ),
    ),
    correct_alternatives=(_score_oracle, _mask_by_sorting),
)


# --- encoder_input ---------------------------------------------------------------------------------------


def _input_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def sizes(b, n, d, hidden):
        patches = torch.randn(b, n, d, generator=noise)
        return patches, torch.randn(n, d, generator=noise), _random_mask(b, n, hidden, noise)

    small = (
        torch.tensor([[[1.0], [2.0], [3.0], [4.0], [5.0]], [[6.0], [7.0], [8.0], [9.0], [10.0]]]),
        torch.tensor([[0.1], [0.2], [0.3], [0.4], [0.5]]),
        torch.tensor([[True, False, False, True, False], [False, True, False, False, True]]),
    )
    return [Case(*small), Case(*sizes(3, 6, 2, 4)), Case(*sizes(2, 7, 4, 2))]


def _input_oracle(patches: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    rows = [
        [patches[b, i] + positions[i] for i in range(len(positions)) if not mask[b, i]]
        for b in range(len(patches))
    ]
    return torch.stack([torch.stack(row) for row in rows])


def _places_renumbered(patches, positions, mask):
    kept = patches[~mask].unflatten(0, (len(patches), -1))
    return kept + positions[: kept.shape[1]]


def _hidden_ones_go_in(patches, positions, mask):
    return (patches + positions)[mask].unflatten(0, (len(patches), -1))


def _zeroed(patches, positions, mask):
    return (patches + positions) * ~mask[:, :, None]


def _patches_zeroed(patches, positions, mask):
    return patches * ~mask[:, :, None] + positions


def _first_mask_for_all(patches, positions, mask):
    return (patches + positions)[:, ~mask[0]]


def _scaled_as_dropout(patches, positions, mask):
    return encoder_input(patches, positions, mask) / (~mask).float().mean()


def _without_positions(patches, positions, mask):
    return patches[~mask].unflatten(0, (len(patches), -1))


def _input_by_gather(patches, positions, mask):
    order = mask.int().argsort(dim=1, stable=True)[:, : int((~mask[0]).sum())]
    return torch.gather(patches + positions, 1, order[:, :, None].expand(-1, -1, patches.shape[2]))


INPUT = Exercise(
    id="masked.encoder_input",
    chapter=CHAPTER,
    title="What the encoder sees",
    minutes=10,
    difficulty=2,
    reference=encoder_input,
    oracle=_input_oracle,
    cases=_input_cases,
    hints=Hints(
        "Token 5 is kept, tokens 1 and 4 are hidden. Which row of `positions` belongs to token 5?",
        "Add the positions while all tokens are there; then pick, with a boolean index.",
        "(patches + positions)[~mask], shaped (b, k, d)",
    ),
    misconceptions=(
        Misconception(
            id="places_renumbered",
            title="kept tokens are numbered anew: the third that is left gets the third position",
            wrong=_places_renumbered,
            hints=Hints(
                "Hide token 0. Which position does token 1 get from you?",
                "The order of two steps: adding positions, and dropping.",
                "add first, then drop",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "Reasoning slip: after dropping there is a sequence of k tokens, and the first k rows of the"
                " table fit it without an error; lightly-ai/lightly pull request 799 writes the order of the"
                " steps down for that reason."
            ),
        ),
        Misconception(
            id="hidden_ones_go_in",
            title="the hidden tokens go in and the kept ones stay out",
            wrong=_hidden_ones_go_in,
            hints=Hints(
                "How many tokens does your result have, and how many does the mask hide?",
                "The boolean index.",
                "~mask: True = hidden",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "facebookresearch/mae issues 125 and 173: the kept tokens are called `x_masked` there;"
                " lightly-ai/lightly pull request 1003 passed idx_keep where idx_mask was meant."
            ),
        ),
        Misconception(
            id="zeroed",
            title="hidden tokens become zeros and stay in the sequence, where attention still meets them",
            wrong=_zeroed,
            hints=Hints(
                "How many tokens does the encoder get from you?",
                "Multiply, or pick? Softmax gives a token of zeros its share of attention.",
                "k tokens, not n",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "alibaba-damo-academy/alice issue 5: the encoder sets masked places to 0, and an answer holds"
                " that to be equivalent."
            ),
        ),
        Misconception(
            id="patches_zeroed",
            title="patches are blackened and keep their positions: the encoder learns where the holes are",
            wrong=_patches_zeroed,
            hints=Hints(
                "How many tokens does the encoder get from you?",
                "What is left of a hidden token in your result?",
                "nothing of it: k tokens, not n",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "lhoyer/MIC issue 1: patches are replaced with zeros, which a convolutional network needs and"
                " a transformer does not; microsoft/SimMIM issue 10 discusses the difference."
            ),
        ),
        Misconception(
            id="first_mask_for_all",
            title="the mask of the first sample is used for all",
            wrong=_first_mask_for_all,
            hints=Hints(
                "Which tokens of the second sample are left?",
                "Is there a `mask[0]` in your code?",
                "index with the whole mask, then give the batch axis back",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "Reasoning slip: one index for all keeps the batch axis, where a boolean index of (b, n)"
                " flattens it. pengzhiliang/MAE-pytorch issue 69 stumbles over that reshape."
            ),
        ),
        Misconception(
            id="scaled_as_dropout",
            title="what is left is scaled up, as in dropout; nothing is averaged here, so nothing is missing",
            wrong=_scaled_as_dropout,
            hints=Hints(
                "Should a kept token change because another one was hidden?",
                "The division.",
                "kept tokens stay as they are",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "Reasoning slip: token dropping is introduced beside dropout and augmentation, as in the deck"
                " behind this course."
            ),
        ),
        Misconception(
            id="without_positions",
            title="no positions: the encoder gets a bag of tokens and cannot know which are missing",
            wrong=_without_positions,
            hints=Hints(
                "How does the encoder know which tokens were neighbours?",
                "Is `positions` used?",
                "(patches + positions)[~mask]",
            ),
            section="The encoder sees what is kept",
            evidence=(
                "Reasoning slip: the interpolator adds positions later, so that they seem to be taken care"
                " of; MDT has two tables."
            ),
        ),
    ),
    correct_alternatives=(_input_by_gather, _input_oracle),
)


# --- side_interpolate ------------------------------------------------------------------------------------


def blend(x: Tensor) -> Tensor:
    """A stand-in for the small network: every token hears of all, and of its neighbour."""
    return 0.5 * x.roll(1, dims=1) + x.mean(dim=1, keepdim=True) + 1


def _side_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def sizes(b, n, d, hidden):
        mask = _random_mask(b, n, hidden, noise)
        kept = torch.randn(b, n - hidden, d, generator=noise)
        return kept, mask, torch.randn(d, generator=noise), torch.randn(n, d, generator=noise), blend

    small = (
        torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]),
        torch.tensor([[False, True, False], [True, False, False]]),
        torch.tensor([9.0]),
        torch.tensor([[0.1], [0.2], [0.3]]),
        blend,
    )
    return [Case(*small), Case(*sizes(2, 6, 3, 2)), Case(*sizes(3, 5, 4, 3))]


def _side_oracle(kept: Tensor, mask: Tensor, mask_token: Tensor, positions: Tensor, predict) -> Tensor:
    q = torch.empty(*mask.shape, kept.shape[2])
    for b in range(len(mask)):
        left = iter(kept[b])
        for place in range(mask.shape[1]):
            q[b, place] = (mask_token if mask[b, place] else next(left)) + positions[place]
    guess, out = predict(q), q.clone()
    for b, place in mask.nonzero().tolist():
        out[b, place] = guess[b, place]
    return out


def _filled(kept, mask, mask_token):
    return mask_token.expand(*mask.shape, -1).masked_scatter(~mask[:, :, None], kept)


def _merged(q, guess, mask):
    return torch.where(mask[:, :, None], guess, q)


def _token_without_position(kept, mask, mask_token, positions, predict):
    q = _filled(kept, mask, mask_token) + positions * ~mask[:, :, None]
    return _merged(q, predict(q), mask)


def _kept_without_position(kept, mask, mask_token, positions, predict):
    q = _filled(kept, mask, mask_token) + positions * mask[:, :, None]
    return _merged(q, predict(q), mask)


def _not_put_back(kept, mask, mask_token, positions, predict):
    tokens = mask_token.expand(len(mask), mask.shape[1] - kept.shape[1], -1)
    q = torch.cat([kept, tokens], dim=1) + positions
    return _merged(q, predict(q), mask)


def _mask_reversed(kept, mask, mask_token, positions, predict):
    q = _filled(kept, mask, mask_token) + positions
    return _merged(q, predict(q), ~mask)


def _all_replaced(kept, mask, mask_token, positions, predict):
    return predict(_filled(kept, mask, mask_token) + positions)


def _guess_added(kept, mask, mask_token, positions, predict):
    q = _filled(kept, mask, mask_token) + positions
    return q + mask[:, :, None] * predict(q)


def _no_guess(kept, mask, mask_token, positions, predict):
    return _filled(kept, mask, mask_token) + positions


def _zeros_for_the_token(kept, mask, mask_token, positions, predict):
    return side_interpolate(kept, mask, torch.zeros_like(mask_token), positions, predict)


def _guessed_from_tokens_alone(kept, mask, mask_token, positions, predict):
    q = _filled(kept, mask, mask_token) + positions
    return _merged(q, predict(q * mask[:, :, None]), mask)


def _side_by_indexing(kept, mask, mask_token, positions, predict):
    q = mask_token.repeat(*mask.shape, 1)
    q[~mask] = kept.flatten(0, 1)
    q = q + positions
    weight = mask.float().unsqueeze(2)
    return (1 - weight) * q + weight * predict(q)


def _side_by_restoring(kept, mask, mask_token, positions, predict):
    order = mask.int().argsort(dim=1, stable=True)  # kept places first, as they came
    tokens = mask_token.expand(len(mask), mask.shape[1] - kept.shape[1], -1)
    shuffled = torch.cat([kept, tokens], dim=1)
    restore = order.argsort(dim=1)[:, :, None].expand_as(shuffled)
    q = shuffled.gather(1, restore) + positions
    return _merged(q, predict(q), mask)


SIDE = Exercise(
    id="masked.side_interpolate",
    chapter=CHAPTER,
    title="The side-interpolator",
    minutes=18,
    difficulty=3,
    reference=side_interpolate,
    oracle=_side_oracle,
    cases=_side_cases,
    properties=(
        Property(
            "kept tokens pass unchanged but for their position",
            lambda f: torch.equal(
                f(
                    torch.tensor([[[1.0], [2.0]]]),
                    torch.tensor([[False, True, False]]),
                    torch.zeros(1),
                    torch.zeros(3, 1),
                    blend,
                )[0, [0, 2]],
                torch.tensor([[1.0], [2.0]]),
            ),
        ),
    ),
    hints=Hints(
        "What does q hold at a kept place, and what at a hidden one, before `predict` is called?",
        "Three steps: fill all n places, add positions to all, call `predict` on all; then choose.",
        "q = fill + positions; (1 - M) q + M predict(q)",
    ),
    misconceptions=(
        Misconception(
            id="token_without_position",
            title="the mask tokens get no position: all hidden places look the same to `predict`",
            wrong=_token_without_position,
            hints=Hints(
                "Two hidden places of one picture: how do they differ before `predict`?",
                "Which tokens have positions added?",
                "q = fill + positions, at all n places",
            ),
            section="The side-interpolator",
            evidence=(
                "lucidrains/vit-pytorch issues 175 and 189 argue over which decoder tokens need a position;"
                " without one at the mask tokens all hidden places get one and the same answer."
            ),
        ),
        Misconception(
            id="kept_without_position",
            title="only the mask tokens get positions: `predict` does not know where its evidence stands",
            wrong=_kept_without_position,
            hints=Hints(
                "Is a token that was kept different at two different places?",
                "Which tokens have positions added?",
                "q = fill + positions, at all n places",
            ),
            section="The side-interpolator",
            evidence=(
                "lucidrains/vit-pytorch issue 175 proposes it: positions are thought to be in the kept tokens"
                " already."
            ),
        ),
        Misconception(
            id="not_put_back",
            title="mask tokens are hung on at the end: tokens are not back at their own places",
            wrong=_not_put_back,
            hints=Hints(
                "The first place is hidden. What stands there in your q?",
                "After `cat`: in which order are the tokens, and in which the positions?",
                "place i gets its own token back (MAE's `ids_restore`)",
            ),
            section="The side-interpolator",
            evidence=(
                "ariG23498/mae-scalable-vision-learners issue 14, where the shuffle is not undone;"
                " lucidrains/vit-pytorch issues 171 and 241: patches lose their places in the decoder."
            ),
        ),
        Misconception(
            id="mask_reversed",
            title="the choice is reversed: predictions at the kept places, mask tokens at the hidden ones",
            wrong=_mask_reversed,
            hints=Hints(
                "What comes out at a kept place?",
                "The last line: where M = 1, which of the two should count?",
                "(1 - M) q + M k_hat",
            ),
            section="The side-interpolator",
            evidence=(
                "VDT's paper and its released code use opposite masks; dome272/MaskGIT-pytorch pull request"
                " 16 swaps mask and ~mask in one such line."
            ),
        ),
        Misconception(
            id="all_replaced",
            title="the network's answer replaces the kept tokens too",
            wrong=_all_replaced,
            hints=Hints(
                "Should a token that was never hidden change on its way to the decoder?",
                "The last line: what is returned at kept places?",
                "(1 - M) q + M k_hat",
            ),
            section="The side-interpolator",
            evidence=(
                "Reasoning slip: a block's output usually replaces its input. The released MDT has a line of"
                " its own for the shortcut, named as such."
            ),
        ),
        Misconception(
            id="guess_added",
            title="the prediction is added to the mask token, as in a residual connection",
            wrong=_guess_added,
            hints=Hints(
                "What stands at a hidden place if `predict` answers 5?",
                "The sum in the last line.",
                "(1 - M) q + M k_hat: one or the other",
            ),
            section="The side-interpolator",
            evidence=(
                "Reasoning slip: the paper calls (1 - M) q a masked shortcut connection, and shortcuts are"
                " elsewhere added."
            ),
        ),
        Misconception(
            id="no_guess",
            title="the decoder gets bare mask tokens; nothing has been predicted",
            wrong=_no_guess,
            hints=Hints(
                "Is `predict` called?",
                "What stands at the hidden places in your result?",
                "k_hat = predict(q) at the hidden places",
            ),
            section="The side-interpolator",
            evidence=(
                "Reasoning slip: this is the masked autoencoder's decoder input (MAE), and MDT is often"
                " described as MAE plus diffusion; MaskDiT's decoder works so."
            ),
        ),
        Misconception(
            id="zeros_for_the_token",
            title="hidden places start from zeros instead of the learned mask token",
            wrong=_zeros_for_the_token,
            hints=Hints(
                "Is `mask_token` used?",
                "What do you fill the hidden places with?",
                "the same learned vector at each hidden place",
            ),
            section="The side-interpolator",
            evidence=(
                "microsoft/SimMIM issue 10: why a learned token and no blackened place, which cannot be told"
                " from a black one."
            ),
        ),
        Misconception(
            id="guessed_from_tokens_alone",
            title="`predict` sees the mask tokens alone, so that it has nothing to predict from",
            wrong=_guessed_from_tokens_alone,
            hints=Hints(
                "From what should a hidden token be guessed?",
                "What do you hand to `predict`?",
                "predict(q), the whole of q",
            ),
            section="The side-interpolator",
            evidence="Reasoning slip: the mask that chooses the answers is applied to the questions, too.",
        ),
    ),
    correct_alternatives=(_side_by_indexing, _side_by_restoring),
)


# --- asymmetric_pass -------------------------------------------------------------------------------------


def encode(x: Tensor) -> Tensor:
    """A stand-in for the encoder: each token hears of all that are there."""
    return 0.7 * x + 0.2 * x.mean(dim=1, keepdim=True).cos()


def decode(x: Tensor) -> Tensor:
    """A stand-in for the decoder."""
    return x.sin() + 0.1 * x.sum(dim=1, keepdim=True)


def fill(positions: Tensor):
    """A stand-in for the interpolator with its weights: it knows the decoder's positions."""

    def interpolate(kept: Tensor, mask: Tensor) -> Tensor:
        return side_interpolate(kept, mask, torch.full_like(positions[0], 0.4), positions, blend)

    return interpolate


def _pass_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def sizes(b, n, d, hidden):
        patches = torch.randn(b, n, d, generator=noise)
        places, others = torch.randn(2, n, d, generator=noise)
        mask = _random_mask(b, n, hidden, noise) if hidden else None
        return patches, mask, places, others, encode, fill(others), decode

    return [Case(*sizes(1, 4, 1, 0)), Case(*sizes(2, 6, 2, 2)), Case(*sizes(3, 5, 4, 3))]


def _pass_oracle(patches, mask, positions, decoder_positions, encoder, interpolate, decoder) -> Tensor:
    """Sample by sample, token by token."""
    out = []
    for b in range(len(patches)):
        hides = [] if mask is None else mask[b].nonzero().flatten().tolist()
        left = [i for i in range(len(positions)) if i not in hides]
        kept = encoder(torch.stack([patches[b, i] + positions[i] for i in left])[None])
        if mask is None:
            places = torch.stack([kept[0, i] + decoder_positions[i] for i in left])[None]
        else:
            places = interpolate(kept, mask[b : b + 1])
        out.append(decoder(places)[0])
    return torch.stack(out)


def _every_second_hidden(patches):
    return (torch.arange(patches.shape[1]) % 2 == 1).expand(len(patches), -1)


def _masks_at_inference(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    mask = _every_second_hidden(patches) if mask is None else mask
    return decoder(interpolate(encoder(encoder_input(patches, positions, mask)), mask))


def _decoder_positions_dropped(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    if mask is None:
        return decoder(encoder(patches + positions))
    return decoder(interpolate(encoder(encoder_input(patches, positions, mask)), mask))


def _encoder_sees_all(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    encoded = encoder(patches + positions)
    if mask is None:
        return decoder(encoded + decoder_positions)
    return decoder(interpolate(encoded[~mask].unflatten(0, (len(patches), -1)), mask))


def _decoder_sees_kept(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    if mask is None:
        return decoder(encoder(patches + positions) + decoder_positions)
    kept = encoder(encoder_input(patches, positions, mask))
    return decoder(kept + encoder_input(torch.zeros_like(patches), decoder_positions, mask))


def _positions_twice(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    if mask is None:
        tokens = encoder(patches + positions)
    else:
        tokens = interpolate(encoder(encoder_input(patches, positions, mask)), mask)
    return decoder(tokens + decoder_positions)


def _tables_swapped(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    if mask is None:
        return decoder(encoder(patches + decoder_positions) + positions)
    return decoder(interpolate(encoder(encoder_input(patches, decoder_positions, mask)), mask))


def _pass_with_an_empty_mask(patches, mask, positions, decoder_positions, encoder, interpolate, decoder):
    hides = torch.zeros(patches.shape[:2], dtype=torch.bool) if mask is None else mask
    tokens = patches + positions
    kept = torch.stack([row[~hide] for row, hide in zip(tokens, hides, strict=True)])
    return decoder(interpolate(encoder(kept), hides))


def _blind_to_hidden(f) -> bool:
    noise = torch.Generator().manual_seed(0)
    patches, other = torch.randn(2, 2, 5, 3, generator=noise)
    places, others = torch.randn(2, 5, 3, generator=noise)
    mask = _random_mask(2, 5, 2, noise)
    changed = torch.where(mask[:, :, None], other, patches)
    first, second = (f(x, mask, places, others, encode, fill(others), decode) for x in (patches, changed))
    return torch.allclose(first, second)


PASS = Exercise(
    id="masked.asymmetric_pass",
    chapter=CHAPTER,
    title="Two passes, one network",
    minutes=15,
    difficulty=3,
    reference=asymmetric_pass,
    oracle=_pass_oracle,
    cases=_pass_cases,
    properties=(Property("what stands at hidden places does not change the masked pass", _blind_to_hidden),),
    hints=Hints(
        "Without a mask, which of the three parts has nothing to do?",
        "Two branches. Which positions has `interpolate` added already, and which branch does not call it?",
        "no mask: D(E(x + p) + p'); mask: D(I(E((x + p)[kept])))",
    ),
    misconceptions=(
        Misconception(
            id="masks_at_inference",
            title="tokens are hidden even where no mask was given, as when samples are drawn",
            wrong=_masks_at_inference,
            hints=Hints(
                "With mask=None, how many tokens does your encoder get?",
                "The branch for mask is None.",
                "no mask: decoder(encoder(patches + positions) + decoder_positions)",
            ),
            section="Two passes, one network",
            evidence=(
                "sail-sg/MDT issue 8: samples drawn with the mask on are noise; facebookresearch/mae issue"
                " 203 and ecmwf/WeatherGenerator issue 393: masking left on after training."
            ),
        ),
        Misconception(
            id="decoder_positions_dropped",
            title="without a mask the decoder gets no positions; they are taken for a part of the masking",
            wrong=_decoder_positions_dropped,
            hints=Hints(
                "The decoder was trained with positions in its input. Are they there when you sample?",
                "The branch for mask is None.",
                "encoder(…) + decoder_positions",
            ),
            section="Two passes, one network",
            evidence=(
                "Correction 23 of this course: masking goes at inference, both tables of positions stay, as"
                " the paper and the released code have it."
            ),
        ),
        Misconception(
            id="encoder_sees_all",
            title="the encoder gets all tokens and the mask picks afterwards: what is hidden has leaked",
            wrong=_encoder_sees_all,
            hints=Hints(
                "Change a hidden token. Does your result change?",
                "Is the mask applied before the encoder or after it?",
                "encoder(encoder_input(patches, positions, mask))",
            ),
            section="Two passes, one network",
            evidence=(
                "ewrfcas/MAE-FAR issue 14: a reader finds masked patches in the encoder's attention; they"
                " must be gone before it."
            ),
        ),
        Misconception(
            id="decoder_sees_kept",
            title="the decoder gets the kept tokens alone: nothing is said about the hidden ones",
            wrong=_decoder_sees_kept,
            hints=Hints(
                "How many tokens does your result have with a mask?",
                "Is `interpolate` called?",
                "decoder(interpolate(kept, mask))",
            ),
            section="Two passes, one network",
            evidence=(
                "Reasoning slip: token dropping for speed works so, with a loss on the kept tokens alone"
                " (kungfuai/nano-diffusion pull request 30)."
            ),
        ),
        Misconception(
            id="positions_twice",
            title="with a mask the decoder's positions are added twice, by the interpolator and after it",
            wrong=_positions_twice,
            hints=Hints(
                "What does `interpolate` do to every place before it predicts?",
                "Is the addition in both branches?",
                "decoder(interpolate(kept, mask)): they are in it",
            ),
            section="Two passes, one network",
            evidence="Reasoning slip: the two branches look as if they shared their last line.",
        ),
        Misconception(
            id="tables_swapped",
            title="the tables of positions are swapped",
            wrong=_tables_swapped,
            hints=Hints(
                "Which table is for the encoder's input?",
                "The order of the two arguments.",
                "positions before the encoder, decoder_positions behind it",
            ),
            section="Two passes, one network",
            evidence=(
                "Reasoning slip: both have the same shape and, in MDT, the same values at the start, so that"
                " nothing fails."
            ),
        ),
    ),
    correct_alternatives=(_pass_with_an_empty_mask, _pass_oracle),
)


# --- masked_losses ---------------------------------------------------------------------------------------


def _loss_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def sizes(b, n, d, hidden):
        full, masked, target = torch.randn(3, b, n, d, generator=noise)
        return full, masked, target, _random_mask(b, n, hidden, noise)

    small = (
        torch.tensor([[[1.0], [2.0], [3.0]]]),
        torch.tensor([[[2.0], [2.0], [6.0]]]),
        torch.tensor([[[1.0], [1.0], [2.0]]]),
        torch.tensor([[False, True, False]]),
    )
    return [Case(*small), Case(*sizes(2, 5, 3, 2)), Case(*sizes(3, 8, 2, 3))]


def _loss_oracle(full: Tensor, masked: Tensor, target: Tensor, mask: Tensor) -> tuple:
    sums, counts, whole = {True: 0.0, False: 0.0}, {True: 0, False: 0}, 0.0
    for place in torch.cartesian_prod(*map(torch.arange, target.shape)).tolist():
        b, i, c = place
        hides = bool(mask[b, i])
        sums[hides] += (masked[b, i, c] - target[b, i, c]) ** 2
        counts[hides] += 1
        whole += (full[b, i, c] - target[b, i, c]) ** 2
    total = (whole + sums[True] + sums[False]) / target.numel()
    return total, sums[False] / counts[False], sums[True] / counts[True]


def _watched(masked, target, mask):
    error = (masked - target).square()
    return error[~mask].mean(), error[mask].mean()


def _hidden_only(full, masked, target, mask):
    kept, hidden = _watched(masked, target, mask)
    return F.mse_loss(full, target) + hidden, kept, hidden


def _mean_of_two(full, masked, target, mask):
    total, kept, hidden = masked_losses(full, masked, target, mask)
    return total / 2, kept, hidden


def _masked_pass_only(full, masked, target, mask):
    return F.mse_loss(masked, target), *_watched(masked, target, mask)


def _each_its_own(full, masked, target, mask):
    kept, hidden = _watched(masked, target, mask)
    return (full - target).square()[~mask].mean() + hidden, kept, hidden


def _watched_swapped(full, masked, target, mask):
    total, kept, hidden = masked_losses(full, masked, target, mask)
    return total, hidden, kept


def _divided_by_all(full, masked, target, mask):
    error, hides = (masked - target).square(), mask[:, :, None]
    return F.mse_loss(full, target) + error.mean(), (error * ~hides).mean(), (error * hides).mean()


def _summed_errors(full, masked, target, mask):
    total = (full - target).square().sum() + (masked - target).square().sum()
    return total, *_watched(masked, target, mask)


def _losses_by_weights(full, masked, target, mask):
    error = (masked - target).square().mean(dim=2)
    hides = mask.float()
    kept = (error * (1 - hides)).sum() / (1 - hides).sum()
    hidden = (error * hides).sum() / hides.sum()
    share = hides.mean()
    return ((full - target) ** 2).mean() + (1 - share) * kept + share * hidden, kept, hidden


LOSSES = Exercise(
    id="masked.losses",
    name="masked_losses",
    chapter=CHAPTER,
    title="Two losses, added",
    minutes=10,
    difficulty=2,
    reference=masked_losses,
    oracle=_loss_oracle,
    cases=_loss_cases,
    hints=Hints(
        "Which tokens does the decoder answer for in the masked pass? Which of its answers can be judged?",
        "The total needs no mask at all; the other two numbers do.",
        "mse(full) + mse(masked), both over all tokens; then mse(masked) at kept and at hidden places",
    ),
    misconceptions=(
        Misconception(
            id="hidden_only",
            title="the masked pass is judged at the hidden places alone",
            wrong=_hidden_only,
            hints=Hints(
                "Does the masked pass say nothing about the kept places?",
                "The second term of the total.",
                "mean of the squared error over all n tokens",
            ),
            section="Two losses, added",
            evidence=(
                "The masked autoencoder's habit (facebookresearch/mae issue 176 quotes it). In MDT's ablation"
                " a loss on the masked tokens alone has FID 58.35 against about 50."
            ),
        ),
        Misconception(
            id="mean_of_two",
            title="the mean of the two losses; MDT adds them",
            wrong=_mean_of_two,
            hints=Hints(
                "With a perfect masked pass, should the loss of the full pass count less than in DiT?",
                "The factor of one half.",
                "L = L_full + L_masked",
            ),
            section="Two losses, added",
            evidence=(
                "Reasoning slip: losses are usually averaged. With Adam it hardly matters, with clipping or"
                " weight decay it does, and reported losses cannot be compared."
            ),
        ),
        Misconception(
            id="masked_pass_only",
            title="the full pass is not trained: the network never sees a whole picture, as it will later",
            wrong=_masked_pass_only,
            hints=Hints(
                "What does the network get when samples are drawn? Was it trained on that?",
                "Is `full` used?",
                "L_full + L_masked",
            ),
            section="Two losses, added",
            evidence=(
                "sail-sg/MDT issues 35 and 37: readers ask whether the loss is computed twice, and where the"
                " full input is fed; the answer points at the two calls."
            ),
        ),
        Misconception(
            id="each_its_own",
            title="the full pass is judged at kept places, the masked pass at hidden ones",
            wrong=_each_its_own,
            hints=Hints(
                "Nothing is hidden from the full pass. Why should some of its answers not count?",
                "Where does the mask enter your total?",
                "both over all tokens",
            ),
            section="Two losses, added",
            evidence="Reasoning slip: the two passes are thought to share the tokens between them.",
        ),
        Misconception(
            id="watched_swapped",
            title="the two numbers to watch are swapped",
            wrong=_watched_swapped,
            hints=Hints(
                "At which places is guessing harder? Which of your numbers is larger?",
                "The boolean indices.",
                "kept: error[~mask]; hidden: error[mask]",
            ),
            section="Two losses, added",
            evidence=(
                "facebookresearch/mae issues 125 and 173: a variable called `x_masked` holds what is not"
                " masked."
            ),
        ),
        Misconception(
            id="divided_by_all",
            title="errors at the hidden places are divided by the number of all places",
            wrong=_divided_by_all,
            hints=Hints(
                "Every hidden place has an error of 4, half the places are hidden. What is the mean there?",
                "What does `.mean()` divide by?",
                "sum(error M) / sum(M)",
            ),
            section="Two losses, added",
            evidence=(
                "Reasoning slip: multiplying by the mask leaves its zeros in the mean; MAE's code divides by"
                " mask.sum() (facebookresearch/mae issue 176)."
            ),
        ),
        Misconception(
            id="summed_errors",
            title="squared errors are summed over all numbers; the size of the batch enters the loss",
            wrong=_summed_errors,
            hints=Hints(
                "Twice the batch: should the loss double?",
                "The reduction in the total.",
                "mean, not sum, within each term",
            ),
            section="Two losses, added",
            evidence=(
                "Reasoning slip: the equation has a squared norm, which is a sum; the sum that is meant is"
                " the one of the two terms."
            ),
        ),
    ),
    correct_alternatives=(_losses_by_weights, _loss_oracle),
)


# --- step_macs -------------------------------------------------------------------------------------------


def _cost_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    draw = [int(torch.randint(low, high, (), generator=noise)) for low, high in ((8, 40), (2, 8), (2, 9))]
    tokens, encoder, decoder = draw
    return [
        Case(4, 1, 2, 1, 1),
        Case(64, 26, 64, 4, 2, 1),
        Case(tokens, tokens // 3, 16, encoder, decoder, side=2),
        Case(256, 0, 384, 8, 4),
    ]


def _cost_oracle(tokens, hidden, width, encoder, decoder, side=1) -> int:
    """Block by block, product by product."""

    def block(n: int) -> int:
        shapes = [(n, width, width)] * 4 + [(n, width, 4 * width), (n, 4 * width, width)]
        shapes += [(n, width, n), (n, n, width)]  # all pairs; their weighted sums
        return sum(rows * inner * columns for rows, inner, columns in shapes)

    lengths = [tokens] * (encoder + decoder) + [tokens - hidden] * encoder + [tokens] * (side + decoder)
    return sum(map(block, lengths))


def _masked_pass_alone(tokens, hidden, width, encoder, decoder, side=1):
    return step_macs(tokens, hidden, width, encoder, decoder, side) - (encoder + decoder) * block_macs(
        tokens, width
    )


def _decoder_on_kept(tokens, hidden, width, encoder, decoder, side=1):
    whole, rest = block_macs(tokens, width), block_macs(tokens - hidden, width)
    return (encoder + decoder) * whole + side * whole + (encoder + decoder) * rest


def _side_forgotten(tokens, hidden, width, encoder, decoder, side=1):
    return step_macs(tokens, hidden, width, encoder, decoder, 0)


def _in_proportion(tokens, hidden, width, encoder, decoder, side=1):
    whole = block_macs(tokens, width)
    rest = whole * (tokens - hidden) / tokens
    return round((encoder + decoder) * whole + encoder * rest + (side + decoder) * whole)


def _hidden_for_kept(tokens, hidden, width, encoder, decoder, side=1):
    whole, rest = block_macs(tokens, width), block_macs(hidden, width)
    return (encoder + decoder) * whole + encoder * rest + (side + decoder) * whole


def _both_passes_masked(tokens, hidden, width, encoder, decoder, side=1):
    whole, rest = block_macs(tokens, width), block_macs(tokens - hidden, width)
    return 2 * (encoder * rest + decoder * whole) + side * whole


def _cost_by_sums(tokens, hidden, width, encoder, decoder, side=1):
    lengths = [tokens] * (encoder + 2 * decoder + side) + [tokens - hidden] * encoder
    return sum(12 * n * width * width + 2 * n * n * width for n in lengths)


COST = Exercise(
    id="masked.step_macs",
    chapter=CHAPTER,
    title="What a step costs",
    minutes=12,
    difficulty=2,
    reference=step_macs,
    oracle=_cost_oracle,
    cases=_cost_cases,
    hints=Hints(
        "How many passes does one training step make, and which blocks work in each?",
        "`block_macs(tokens, width)` counts one block. Which blocks see fewer tokens?",
        "(E + D) c(n) + E c(n - hidden) + (S + D) c(n)",
    ),
    misconceptions=(
        Misconception(
            id="masked_pass_alone",
            title="only the masked pass is counted; the full pass is still there",
            wrong=_masked_pass_alone,
            hints=Hints(
                "How many passes does one step make?",
                "The first term of your sum.",
                "(E + D) c(n) for the full pass, and the masked pass on top",
            ),
            section="What a step costs",
            evidence=(
                "Masked training is widely read as cheaper steps, which is MaskDiT's promise"
                " (huggingface/diffusers issue 4688); PKU-YuanGroup/Open-Sora-Plan issue 135 discusses both"
                " in one breath."
            ),
        ),
        Misconception(
            id="decoder_on_kept",
            title="the decoder is counted on the kept tokens; it works on all",
            wrong=_decoder_on_kept,
            hints=Hints(
                "How many tokens leave the interpolator?",
                "The decoder's term of the masked pass.",
                "D c(n)",
            ),
            section="What a step costs",
            evidence="Reasoning slip: masked once, masked to the end. The encoder alone works on fewer.",
        ),
        Misconception(
            id="side_forgotten",
            title="the side-interpolator's blocks are forgotten",
            wrong=_side_forgotten,
            hints=Hints(
                "Which block is there in training and not in sampling?",
                "The masked pass: E blocks, then … blocks, then D blocks.",
                "+ S c(n)",
            ),
            section="What a step costs",
            evidence=(
                "Reasoning slip: it is gone when samples are drawn, so that a count of the finished model"
                " does not have it."
            ),
        ),
        Misconception(
            id="in_proportion",
            title="cost is taken to be in proportion to the tokens; attention grows with their square",
            wrong=_in_proportion,
            hints=Hints(
                "Half the tokens: what happens to n² d?",
                "How do you get from all tokens to the kept ones?",
                "c(n - hidden), worked out anew",
            ),
            section="What a step costs",
            evidence=(
                "Reasoning slip: a rule of three. Anima-Lab/MaskDiT issue 18 wonders about measured ratios of"
                " speed that fit no single proportion."
            ),
        ),
        Misconception(
            id="hidden_for_kept",
            title="the encoder is counted on the hidden tokens",
            wrong=_hidden_for_kept,
            hints=Hints(
                "Nothing is hidden. What does your encoder cost in the masked pass?",
                "The argument of `block_macs` for the encoder.",
                "c(n - hidden)",
            ),
            section="What a step costs",
            evidence=(
                "facebookresearch/mae issues 125 and 173: `x_masked` holds the kept tokens; here the slip"
                " costs a factor."
            ),
        ),
        Misconception(
            id="both_passes_masked",
            title="both passes are counted with hidden tokens; one of them sees everything",
            wrong=_both_passes_masked,
            hints=Hints(
                "Which of the two passes is DiT's own?",
                "The first term: on how many tokens?",
                "(E + D) c(n)",
            ),
            section="What a step costs",
            evidence=(
                "Reasoning slip: sail-sg/MDT issue 37 asks for the sentence that both the full and the"
                " remaining tokens are fed, and cannot find it in the code."
            ),
        ),
    ),
    correct_alternatives=(_cost_by_sums, _cost_oracle),
)


EXERCISES = (MASK, INPUT, SIDE, PASS, LOSSES, COST)
