"""Exercises of chapter 14: shares, a sharded step, accumulation, clipping, data order, Frechet distance."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import linalg
from torch.utils.data import DistributedSampler

from sora_edu.measures import frechet
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "14_full_size"


def _drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- shard -----------------------------------------------------------------------------------------------


def shard(weights, devices):
    """Weights "n" to equal shares "devices k", in order; zeros fill the end of the last ones."""
    each = math.ceil(len(weights) / devices)
    padded = F.pad(weights, (0, devices * each - len(weights)))
    return padded.view(devices, each)


def _shard_cases(seed: int) -> list[Case]:
    few = torch.arange(1.0, 7.0)
    return [Case(few, 2), Case(few, 4), Case(few[:5], 3), Case(_drawn(seed, 37), 8), Case(few[:1], 2)]


def _shard_oracle(weights: torch.Tensor, devices: int) -> torch.Tensor:
    """Number by number: the i-th weight belongs to device i // k, at place i % k."""
    each = -(-len(weights) // devices)
    shares = torch.zeros(devices, each)
    for i, weight in enumerate(weights.tolist()):
        shares[i // each, i % each] = weight
    return shares


def _remainder_dropped(weights, devices):
    each = len(weights) // devices
    return weights[: devices * each].view(devices, each)


def _dealt_like_cards(weights, devices):
    each = -(-len(weights) // devices)
    return F.pad(weights, (0, devices * each - len(weights))).view(each, devices).T.contiguous()


def _zeros_in_front(weights, devices):
    each = -(-len(weights) // devices)
    return F.pad(weights, (devices * each - len(weights), 0)).view(devices, each)


def _copies(weights, devices):
    return weights.expand(devices, -1).clone()


def _shard_by_chunks(weights, devices):
    each = -(-len(weights) // devices)
    parts = [weights[r * each : (r + 1) * each] for r in range(devices)]
    return torch.stack([F.pad(part, (0, each - len(part))) for part in parts])


SHARD = Exercise(
    id="full_size.shard",
    chapter=CHAPTER,
    title="Cut into shares",
    minutes=8,
    difficulty=1,
    reference=shard,
    oracle=_shard_oracle,
    cases=_shard_cases,
    properties=(
        Property(
            "the shares, put together in order, begin with the weights",
            lambda f: torch.equal(f(torch.arange(1.0, 8.0), 3).reshape(-1)[:7], torch.arange(1.0, 8.0)),
        ),
    ),
    hints=Hints(
        "Six weights on four devices: how long is a share, so that all are equally long and none is lost?",
        "How many zeros come behind the last weight.",
        "k = ceil(n / R); pad to R k at the end; cut into R rows of k",
    ),
    misconceptions=(
        Misconception(
            id="remainder_dropped",
            title="the weights that do not come out even are dropped",
            wrong=_remainder_dropped,
            hints=Hints(
                "Which of six weights does your fourth device hold?",
                "The division: down or up?",
                "k = ceil(n / R)",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "Lightning-AI/lightning-thunder pull request 415: sharding that could not cope with a first"
                " axis that the number of devices does not divide, until it padded."
            ),
        ),
        Misconception(
            id="dealt_like_cards",
            title="weights are dealt in turn, so that no share is a piece of the whole",
            wrong=_dealt_like_cards,
            hints=Hints(
                "Put your shares one behind the other. Do you get the weights back?",
                "Whether a row of your result is a run of neighbours.",
                "device r holds weights r k to (r + 1) k - 1",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "Slip of reasoning: data are dealt like this (`indices[rank::size]` in torch's"
                " DistributedSampler), weights are not: all-gather puts shares one behind the other."
            ),
        ),
        Misconception(
            id="zeros_in_front",
            title="the zeros come first, and shift every weight",
            wrong=_zeros_in_front,
            hints=Hints(
                "Where does the first weight end up once the shares are gathered?",
                "The order of the two numbers that F.pad takes for an axis.",
                "F.pad(weights, (0, missing))",
            ),
            section="Shares, gathered and scattered",
            evidence="Slip of notation: F.pad takes (left, right), and its first number is the left.",
        ),
        Misconception(
            id="copies",
            title="every device keeps all weights: data parallelism without shares",
            wrong=_copies,
            hints=Hints(
                "How much memory does a second device save here?",
                "What stage 3 cuts and stage 0 copies (chapter 13).",
                "each device holds n / R weights, rounded up",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "facebookresearch/fairscale issue 789: a question about averages that takes the assembled"
                " weights for what every device holds."
            ),
        ),
    ),
    correct_alternatives=(_shard_by_chunks, _shard_oracle),
)


# --- sharded_step ----------------------------------------------------------------------------------------


def sharded_step(shares, gradients, rate):
    """One step of gradient descent on shares "r k".

    `gradients` "r n" has a row for each device: of *all* weights, for its own examples alone, padded as the
    weights are. Every device has as many examples.
    """
    mean = gradients.mean(0)  # reduce: what the whole batch says
    own = mean.view(shares.shape)  # scatter: each device gets the piece that belongs to its share
    return shares - rate * own


def _step_cases(seed: int) -> list[Case]:
    small = Case(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1, 1, 1], [3.0, 5, 7, 9]]), 0.1)
    return [small, Case(_drawn(seed, 4, 3), _drawn(seed + 50, 4, 12), 0.5)]


def _step_oracle(shares: torch.Tensor, gradients: torch.Tensor, rate: float) -> torch.Tensor:
    """torch's own optimiser on the gathered weights, with the mean gradient."""
    whole = torch.nn.Parameter(shares.reshape(-1).clone())
    whole.grad = sum(gradients) / len(gradients)
    torch.optim.SGD([whole], rate).step()
    return whole.detach().view(shares.shape)


def _step_with(direction: Callable) -> Callable:
    def wrong(shares, gradients, rate):
        return shares - rate * direction(shares, gradients)

    return wrong


def _own_gradients(shares, gradients):
    return torch.stack([row.view(shares.shape)[r] for r, row in enumerate(gradients)])


def _first_piece(shares, gradients):
    return gradients.mean(0)[: shares.shape[1]].expand_as(shares)


def _step_piece_by_piece(shares, gradients, rate):
    pieces = gradients.view(len(shares), len(shares), -1)  # device that computed, device that owns, place
    return torch.stack([share - rate * pieces[:, r].mean(0) for r, share in enumerate(shares)])


def _step_in_one(shares, gradients, rate):
    return (shares.reshape(-1) - rate * gradients.sum(0) / gradients.shape[0]).reshape(shares.shape)


SHARDED_STEP = Exercise(
    id="full_size.sharded_step",
    chapter=CHAPTER,
    title="Reduce and scatter",
    minutes=12,
    difficulty=2,
    reference=sharded_step,
    oracle=_step_oracle,
    cases=_step_cases,
    hints=Hints(
        "Device 0 knows a gradient of all weights, but from its own examples alone. What does it need, and"
        " which part of what it has do the others need?",
        "First across devices, then across weights.",
        "share_r - rate * (mean over devices of the gradient)[r k : (r + 1) k]",
    ),
    misconceptions=(
        Misconception(
            id="summed",
            title="gradients are added up and not averaged: the step grows with the number of devices",
            wrong=_step_with(lambda shares, gradients: gradients.sum(0).view(shares.shape)),
            hints=Hints(
                "Two devices with the same examples: should the step be twice as long as on one?",
                "The operation over the first axis.",
                "mean over devices, since each loss is a mean already",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "pytorch/pytorch pull request 167178: a divisor that was ignored for one device, so that"
                " gradients came out too large."
            ),
        ),
        Misconception(
            id="divided_twice",
            title="the mean is divided by the number of devices once more",
            wrong=_step_with(lambda shares, gradients: (gradients.mean(0) / len(shares)).view(shares.shape)),
            hints=Hints(
                "If all devices have the same gradient, is yours that one?",
                "How often you divide.",
                "sum over devices / R, once",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "ByteDance-Seed/VeOmni pull request 1079 discusses it: the reduction divides a second time by"
                " a size that the loss was divided by already, and training silently goes on more slowly."
            ),
        ),
        Misconception(
            id="not_reduced",
            title="every device follows its own examples; nothing was exchanged",
            wrong=_step_with(_own_gradients),
            hints=Hints(
                "Does your result for share 0 depend on the examples of device 1?",
                "The first axis of `gradients`.",
                "average over devices before you cut",
            ),
            section="Shares, gathered and scattered",
            evidence=(
                "Slip of reasoning: scatter without reduce. The piece is the right one, and the batch has"
                " shrunk to one device's."
            ),
        ),
        Misconception(
            id="first_piece",
            title="every device gets the first piece of the gradient",
            wrong=_step_with(_first_piece),
            hints=Hints(
                "Which weights does device 1 hold, and which gradient did you give it?",
                "The slice: does it depend on the device?",
                "device r gets [r k : (r + 1) k]",
            ),
            section="Shares, gathered and scattered",
            evidence="Slip of reasoning: the rank is forgotten, and the shapes agree all the same.",
        ),
    ),
    correct_alternatives=(_step_piece_by_piece, _step_in_one),
)


# --- accumulated -----------------------------------------------------------------------------------------


def accumulated(gradients, counts):
    """The gradient of the mean loss of a whole batch, from those of its parts.

    `gradients` "p d" has the gradient of each part's own mean loss; `counts` "p" says how many examples (or
    tokens) the part had.
    """
    share = counts / counts.sum()
    return (share[:, None] * gradients).sum(0)


def _accumulated_cases(seed: int) -> list[Case]:
    small = Case(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 1.0]))
    counts = torch.randint(1, 9, (5,), generator=torch.Generator().manual_seed(seed)).float()
    equal = Case(_drawn(seed + 1, 4, 3), torch.full((4,), 2.0))
    return [small, equal, Case(_drawn(seed, 5, 4), counts + torch.tensor([0.0, 9, 0, 0, 0]))]


def _accumulated_oracle(gradients: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Example by example: each part's gradient stands for so many equal ones."""
    return gradients.repeat_interleave(counts.long(), dim=0).mean(0)


def _mean_of_means(gradients, counts):
    return gradients.mean(0)


def _sum_of_means(gradients, counts):
    return gradients.sum(0)


def _sum_of_examples(gradients, counts):
    return (counts[:, None] * gradients).sum(0)


def _last_part(gradients, counts):
    return gradients[-1].clone()


def _weighted_and_averaged(gradients, counts):
    return (counts[:, None] * gradients).mean(0)


def _accumulated_by_loop(gradients, counts):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, counts, strict=True):
        total = total + gradient * count
    return total / sum(counts)


def _accumulated_by_product(gradients, counts):
    return counts @ gradients / counts.sum()


ACCUMULATED = Exercise(
    id="full_size.accumulated",
    chapter=CHAPTER,
    title="Many passes, one step",
    minutes=10,
    difficulty=2,
    reference=accumulated,
    oracle=_accumulated_oracle,
    cases=_accumulated_cases,
    hints=Hints(
        "A part of ten clips and a part of one: should both pull equally hard?",
        "What each part's gradient is multiplied with, and what the sum is divided by.",
        "sum over parts of n_i g_i, divided by the sum of the n_i",
    ),
    misconceptions=(
        Misconception(
            id="mean_of_means",
            title="the mean of means: a small part counts as much as a large one",
            wrong=_mean_of_means,
            hints=Hints(
                "Try parts of 2 and of 1 examples. How much does each example count?",
                "Where `counts` comes in.",
                "weights n_i / sum of n",
            ),
            section="One step, many passes",
            evidence=(
                "huggingface/transformers pull request 34191 and karpathy/nanochat pull request 59: gradients"
                " were averaged over passes whose numbers of tokens differed."
            ),
        ),
        Misconception(
            id="sum_of_means",
            title="the loss of a pass is not divided: gradients grow with the number of passes",
            wrong=_sum_of_means,
            hints=Hints(
                "Cut the same batch into twice as many parts. Should the step change?",
                "`backward` adds to what is there already.",
                "weights that sum to 1",
            ),
            section="One step, many passes",
            evidence=(
                "huggingface/transformers issues 37197 and 37766: the loss grew with the number of"
                " accumulation steps, without an error."
            ),
        ),
        Misconception(
            id="sum_of_examples",
            title="weighted by the number of examples, and never divided by their sum",
            wrong=_sum_of_examples,
            hints=Hints(
                "If all parts have the same gradient, is yours that one?",
                "The division at the end.",
                "divide by the sum of the n_i",
            ),
            section="One step, many passes",
            evidence=(
                "Slip of reasoning: reduction='sum' is half of the cure (karpathy/nanochat pull request 59"
                " switches to it); the other half is to divide once, at the end."
            ),
        ),
        Misconception(
            id="last_part",
            title="only the last pass counts: gradients were set to zero inside the loop",
            wrong=_last_part,
            hints=Hints(
                "Change the first part. Does your answer change?",
                "Where zero_grad stands.",
                "zero once a step, add up over its passes",
            ),
            section="One step, many passes",
            evidence="Slip of reasoning: zero_grad in front of every backward, as in a loop without passes.",
        ),
        Misconception(
            id="weighted_and_averaged",
            title="weighted by examples, then divided by the number of parts",
            wrong=_weighted_and_averaged,
            hints=Hints(
                "If all parts have the same gradient, is yours that one?",
                "What you divide by: parts, or examples?",
                "divide by the sum of the n_i",
            ),
            section="One step, many passes",
            evidence=(
                "OpenNMT/OpenNMT-py issue 2209: two normalisations, one by tokens and one by passes, that did"
                " not go together."
            ),
        ),
    ),
    correct_alternatives=(_accumulated_by_loop, _accumulated_by_product),
)


# --- clipped ---------------------------------------------------------------------------------------------


def clipped(shares, most):
    """Shares "r k" of a gradient, all scaled alike, so that the norm of the whole is at most `most`."""
    norm = shares.square().sum(1).sum().sqrt()  # each device adds up its own squares; all add up theirs
    return shares * torch.clamp(most / norm, max=1.0)


def _clipped_cases(seed: int) -> list[Case]:
    small = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    return [Case(small, 1.0), Case(small, 4.5), Case(small, 10.0), Case(_drawn(seed, 4, 3), 0.5)]


def _clipped_oracle(shares: torch.Tensor, most: float) -> torch.Tensor:
    """torch's own clipping of the gathered gradient."""
    whole = torch.nn.Parameter(torch.zeros(shares.numel(), dtype=torch.float64))
    whole.grad = shares.reshape(-1).double()
    torch.nn.utils.clip_grad_norm_([whole], most)
    return whole.grad.view(shares.shape).float()


def _local_norms(shares, most):
    return shares * torch.clamp(most / shares.norm(dim=1, keepdim=True), max=1.0)


def _norms_added(shares, most):
    return shares * torch.clamp(most / shares.norm(dim=1).sum(), max=1.0)


def _values_clipped(shares, most):
    return shares.clamp(-most, most)


def _always_scaled(shares, most):
    return shares * (most / shares.norm())


def _clipped_by_maximum(shares, most):
    return shares / max(1.0, (shares.norm() / most).item())


def _clipped_by_branch(shares, most):
    norm = math.sqrt(sum(float(row @ row) for row in shares))
    return shares.clone() if norm <= most else shares * (most / norm)


CLIPPED = Exercise(
    id="full_size.clipped",
    chapter=CHAPTER,
    title="One norm for all shares",
    minutes=8,
    difficulty=2,
    reference=clipped,
    oracle=_clipped_oracle,
    cases=_clipped_cases,
    hints=Hints(
        "Shares (3, 0) and (0, 4): how long is the whole gradient?",
        "What a device can compute alone, and what must be added up over all of them.",
        "norm = sqrt(sum over devices of the sum of squares); factor = min(1, most / norm)",
    ),
    misconceptions=(
        Misconception(
            id="local_norms",
            title="every device clips by the norm of its own share, which turns the gradient",
            wrong=_local_norms,
            hints=Hints(
                "Are (3, 0) and (0, 4) multiplied by the same factor?",
                "The axis of the norm.",
                "one norm over all shares",
            ),
            section="One norm for all shares",
            evidence=(
                "pytorch/pytorch issue 72548, pytorch/torchtitan issue 766 and areal-project/AReaL issue 312:"
                " norms of local shares, different on every device."
            ),
        ),
        Misconception(
            id="norms_added",
            title="norms of the shares are added; squares should be",
            wrong=_norms_added,
            hints=Hints(
                "How long is the vector (3, 4): 7, or 5?",
                "What is summed over the devices.",
                "sqrt(3² + 4²)",
            ),
            section="One norm for all shares",
            evidence=(
                "Slip of reasoning: all_reduce with its usual sum, of a number that is no sum; the code in"
                " pytorch/pytorch pull request 73405 raises to the power first."
            ),
        ),
        Misconception(
            id="values_clipped",
            title="every number is clipped by itself",
            wrong=_values_clipped,
            hints=Hints(
                "Does your result still point where the gradient pointed?",
                "clip_grad_value_ or clip_grad_norm_.",
                "one factor for all numbers",
            ),
            section="One norm for all shares",
            evidence=(
                "meta-pytorch/torchrec pull request 4388 keeps both kinds apart: clipping by value needs no"
                " other device, clipping by norm does."
            ),
        ),
        Misconception(
            id="always_scaled",
            title="short gradients are stretched to the largest norm",
            wrong=_always_scaled,
            hints=Hints(
                "What should happen to a gradient of norm 5 if 10 is allowed?",
                "The factor: can it be larger than 1?",
                "min(1, most / norm)",
            ),
            section="One norm for all shares",
            evidence=(
                "The review of pytorch/pytorch pull request 73405 asks what happens for a factor above 1: the"
                " gradient stays as it is."
            ),
        ),
    ),
    correct_alternatives=(_clipped_by_maximum, _clipped_by_branch),
)


# --- examples_at -----------------------------------------------------------------------------------------


def examples_at(step, rank, devices, batch, count, seed=0):
    """Numbers of the examples that device `rank` computes in a step, counted from 0.

    `batch` examples a step for all devices together, `count` in the data set, a multiple of it. Every epoch
    has an order of its own; in a step the devices take turns through the batch.
    """
    epoch, place = divmod(step, count // batch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    return order[place * batch : (place + 1) * batch][rank::devices]


def _examples_cases(seed: int) -> list[Case]:
    whole = [Case(step, rank, 2, 4, 12, seed) for step in (0, 2, 3, 7) for rank in range(2)]
    return [*whole, Case(5, 3, 4, 8, 40, seed + 1), Case(1, 0, 1, 4, 12)]


def _examples_oracle(step, rank, devices, batch, count, seed=0) -> list[int]:
    """torch's DistributedSampler, told the epoch, as a loader of batch / devices would read it."""
    steps, each = count // batch, batch // devices
    sampler = DistributedSampler(range(count), devices, rank, shuffle=True, seed=seed)
    sampler.set_epoch(step // steps)
    return list(sampler)[step % steps * each : (step % steps + 1) * each]


def _examples_with(
    epoch: Callable = lambda step, steps: step // steps,
    place: Callable = lambda step, steps: step % steps,
    salt: Callable = lambda rank: 0,
    turn: Callable = lambda rank: rank,
) -> Callable:
    """Orders with one part exchanged."""

    def wrong(step, rank, devices, batch, count, seed=0):
        steps = count // batch
        generator = torch.Generator().manual_seed(seed + epoch(step, steps) + salt(rank))
        order = torch.randperm(count, generator=generator).tolist()
        start = place(step, steps) * batch
        return order[start : start + batch][turn(rank) :: devices]

    return wrong


def _examples_by_index(step, rank, devices, batch, count, seed=0):
    steps = count // batch
    generator = torch.Generator()
    generator.manual_seed(seed + step // steps)
    order = torch.randperm(count, generator=generator)
    return [int(order[step % steps * batch + rank + devices * j]) for j in range(batch // devices)]


EXAMPLES_AT = Exercise(
    id="full_size.examples_at",
    chapter=CHAPTER,
    title="Which examples, after a restart",
    minutes=12,
    difficulty=3,
    reference=examples_at,
    oracle=_examples_oracle,
    cases=_examples_cases,
    hints=Hints(
        "A run was killed after step 7. What must it know to read the right examples at step 8?",
        "How many steps an epoch has, which epoch the step is in, and which place in it.",
        "epoch = step // (count // batch); randperm seeded by seed + epoch; the batch at place"
        " step % (count // batch); of it [rank :: devices]",
    ),
    misconceptions=(
        Misconception(
            id="one_order",
            title="all epochs have the same order",
            wrong=_examples_with(epoch=lambda step, steps: 0),
            hints=Hints(
                "Compare the first batch of the first two epochs.",
                "What seeds the order.",
                "seed + epoch",
            ),
            section="Every process its own dice",
            evidence=(
                "pytorch/pytorch issues 31771 and 11324: DistributedSampler repeats its order unless"
                " set_epoch is called, which many loops forget."
            ),
        ),
        Misconception(
            id="from_the_start",
            title="whatever the step, an epoch is read from its beginning: a restart repeats examples",
            wrong=_examples_with(place=lambda step, steps: 0),
            hints=Hints(
                "Which examples do steps 0 and 1 of an epoch share?",
                "The place of a step in its epoch.",
                "place = step % (count // batch)",
            ),
            section="Every process its own dice",
            evidence=(
                "KempnerInstitute/KempnerForge issue 51 and huggingface/accelerate issue 2823: after a"
                " restart the loader begins anew, or in the wrong epoch."
            ),
        ),
        Misconception(
            id="all_the_same",
            title="all devices compute the same examples",
            wrong=_examples_with(turn=lambda rank: 0),
            hints=Hints(
                "Two devices, batch 4: how many different examples do they see in your step?",
                "Where `rank` comes in.",
                "[rank :: devices]",
            ),
            section="Every process its own dice",
            evidence=(
                "Robbyant/lingbot-vla-v2 issue 41 finds noise and times of flow matching identical on all"
                " ranks; here it is the data."
            ),
        ),
        Misconception(
            id="orders_of_their_own",
            title="every device shuffles by itself: some examples come twice, others never",
            wrong=_examples_with(salt=lambda rank: 1000 * rank),
            hints=Hints(
                "In one epoch, is every example seen once?",
                "Whether the seed of the order depends on the rank.",
                "one order for all devices, cut afterwards",
            ),
            section="Every process its own dice",
            evidence=(
                "yangkky/distributed_tutorial issue 5: with different epochs on the workers some data are"
                " visited several times and others not at all."
            ),
        ),
    ),
    correct_alternatives=(_examples_by_index, _examples_oracle),
)


# --- frechet ---------------------------------------------------------------------------------------------


def _frechet_cases(seed: int) -> list[Case]:
    mixed = _drawn(seed + 2, 3, 3)
    line = torch.tensor([[0.0], [2.0]])
    return [
        Case(line, 3 + 2 * line),
        Case(_drawn(seed, 60, 3) @ mixed, 1 + _drawn(seed + 1, 60, 3) @ mixed.T),
        Case(_drawn(seed + 3, 40, 2), 2 * _drawn(seed + 4, 50, 2)),
    ]


def _moments(features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    array = features.double().numpy()
    return array.mean(0), np.atleast_2d(np.cov(array.T))


def _frechet_oracle(features: torch.Tensor, others: torch.Tensor) -> float:
    """By scipy's matrix root."""
    (m1, c1), (m2, c2) = _moments(features), _moments(others)
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real))


def _frechet_with(root: Callable, gap: Callable = lambda d: (d**2).sum(), times: int = 2) -> Callable:
    """The distance with one part exchanged: the root of the covariances, the means, the factor."""

    def wrong(features, others):
        (m1, c1), (m2, c2) = _moments(features), _moments(others)
        return float(gap(m1 - m2) + np.trace(c1 + c2 - times * root(c1, c2)))

    return wrong


def _matrix_root(c1, c2):
    return linalg.sqrtm(c1 @ c2).real


def _root_of_numbers(c1, c2):
    return np.sqrt(np.abs(c1 * c2))


def _frechet_by_singular_values(features, others):
    """The trace of the root is the sum of the singular values of the two factors' product."""
    a, b = ((x - x.mean(0)).double() / math.sqrt(len(x) - 1) for x in (features, others))
    gap = (features.double().mean(0) - others.double().mean(0)).square().sum()
    spread = a.square().sum() + b.square().sum()
    return (gap + spread - 2 * torch.linalg.svdvals(a @ b.T).sum()).item()


FRECHET = Exercise(
    id="full_size.frechet",
    chapter=CHAPTER,
    title="The distance of two sets",
    minutes=12,
    difficulty=3,
    reference=frechet,
    oracle=_frechet_oracle,
    cases=_frechet_cases,
    tolerance=1e-4,
    properties=(
        Property(
            "a set is at distance 0 from itself", lambda f: abs(f(_drawn(0, 9, 2), _drawn(0, 9, 2))) < 1e-4
        ),
    ),
    hints=Hints(
        "Two sets with the same mean but different spread: is their distance 0?",
        "torch.cov wants a row for each of the d numbers and a column for each clip, so give it the"
        " transpose (it divides by n - 1); the trace of a matrix's root is the sum of the roots of its"
        " eigenvalues.",
        "|m1 - m2|² + tr(C1) + tr(C2) - 2 sum of sqrt(eigenvalues of C1 C2)",
    ),
    misconceptions=(
        Misconception(
            id="root_of_numbers",
            title="the root of every number of the matrix is taken, not the root of the matrix",
            wrong=_frechet_with(_root_of_numbers),
            hints=Hints(
                "Is your root, multiplied by itself as a matrix, the matrix again?",
                "The root: of numbers, or of a matrix?",
                "tr((C1 C2)^(1/2)) = sum of sqrt(eigenvalues)",
            ),
            section="Is it any good?",
            evidence=(
                "Slip of notation: (C1 C2)^(1/2) read as `** 0.5`, which works on numbers. For features that"
                " do not hang together both agree, so that a test on such data passes."
            ),
        ),
        Misconception(
            id="means_alone",
            title="only the means are compared: sets that are all alike look perfect",
            wrong=lambda features, others: (features.mean(0) - others.mean(0)).square().sum().item(),
            hints=Hints(
                "A model that makes one average clip over and over: what distance do you give it?",
                "Where the covariances come in.",
                "the trace term",
            ),
            section="Is it any good?",
            evidence="Slip of reasoning: 'the distance of two clouds' heard as that of their centres.",
        ),
        Misconception(
            id="not_squared",
            title="the distance of the means is not squared",
            wrong=_frechet_with(_matrix_root, gap=lambda d: math.sqrt((d**2).sum())),
            hints=Hints(
                "Which unit does the trace of a covariance have?",
                "The first term.",
                "|m1 - m2|²",
            ),
            section="Is it any good?",
            evidence="Slip of notation: the bars of a norm, with the small 2 overlooked.",
        ),
        Misconception(
            id="once",
            title="the root is taken away once, not twice",
            wrong=_frechet_with(_matrix_root, times=1),
            hints=Hints(
                "What does your function give for a set and itself?",
                "The factor of the last term.",
                "(a - b)² has 2 a b in the middle",
            ),
            section="Is it any good?",
            evidence="Slip of algebra: (s1 - s2)² without its middle term's 2, which one dimension shows.",
        ),
    ),
    correct_alternatives=(_frechet_oracle, _frechet_by_singular_values),
)


EXERCISES = (SHARD, SHARDED_STEP, ACCUMULATED, CLIPPED, EXAMPLES_AT, FRECHET)
"""In the order of the chapter."""
