"""Exercises of chapter 13: attention's share, training operations, states, activations, days, a power law."""

import math
from collections.abc import Callable

import torch

from sora_edu.dit import block_macs
from sora_edu.scale import block_activations, fit_power_law, state_bytes, training_days, training_flops
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception

CHAPTER = "13_scaling_up"


def _whole_numbers(seed: int, *highest: int) -> list[int]:
    """A random whole number from 2 to each of the highest ones."""
    rng = torch.Generator().manual_seed(seed)
    return [int(torch.randint(2, high + 1, (1,), generator=rng)) for high in highest]


# --- attention_share -------------------------------------------------------------------------------------


def attention_share(tokens, width):
    """The share of a block's multiply-adds that goes into products of pairs of tokens."""
    pairs = 2 * tokens**2 * width  # each token with every key, then with every value
    matrices = 12 * tokens * width**2  # 4 in attention, 8 in an MLP four times as wide
    return pairs / (pairs + matrices)


def _share_cases(seed: int) -> list[Case]:
    tokens, width = _whole_numbers(seed, 5000, 2000)
    return [Case(6, 1), Case(256, 1152), Case(118_800, 2048), Case(tokens, width)]


def _share_oracle(tokens: int, width: int) -> float:
    """From the course's own count of a block, tested against torch's: what grows with the square."""
    whole, twice = block_macs(tokens, width), block_macs(2 * tokens, width)
    return (twice - 2 * whole) / 2 / whole


def _one_product(tokens, width):
    return tokens / (tokens + 12 * width)


def _matrices_of_attention_alone(tokens, width):
    return tokens / (tokens + 2 * width)


def _ratio(tokens, width):
    return tokens / (6 * width)


def _pairs_without_width(tokens, width):
    return tokens / (tokens + 6 * width**2)


def _share_simplified(tokens, width):
    return 1 / (1 + 6 * width / tokens)


ATTENTION_SHARE = Exercise(
    id="scale.attention_share",
    chapter=CHAPTER,
    title="The share of attention",
    minutes=8,
    difficulty=1,
    reference=attention_share,
    oracle=_share_oracle,
    cases=_share_cases,
    hints=Hints(
        "Which of the products in a block grow with the square of the number of tokens?",
        "Two products for each pair of tokens, of d multiply-adds each; twelve d² for each token.",
        "2 n² d / (2 n² d + 12 n d²)",
    ),
    misconceptions=(
        Misconception(
            id="one_product",
            title="the scores are counted, the weighted sum of values is not",
            wrong=_one_product,
            hints=Hints(
                "What happens to the weights once the softmax has made them?",
                "The 2 in front of n² d.",
                "n² d for Q K^T and n² d for the weights times V",
            ),
            section="Tokens decide",
            evidence=(
                "pytorch/torchtitan pull request 4366: an estimate for Flux whose comment says two products"
                " of pairs and whose formula holds one, so that the log showed too low an MFU."
            ),
        ),
        Misconception(
            id="matrices_of_attention_alone",
            title="the share is taken of the attention layer; the MLP of the block is left out",
            wrong=_matrices_of_attention_alone,
            hints=Hints(
                "Which layers does a block have besides attention?",
                "Your d² term: 4 of it are in attention.",
                "12 n d² = 4 n d² + 8 n d²",
            ),
            section="Tokens decide",
            evidence="Reasoning slip: 'attention is quadratic' is heard as 'a transformer is quadratic'.",
        ),
        Misconception(
            id="ratio",
            title="pairs are divided by the rest and not by the whole: the result passes 1",
            wrong=_ratio,
            hints=Hints(
                "Can a share be larger than 1? Is yours, for 118,800 tokens?",
                "The denominator.",
                "pairs / (pairs + matrices)",
            ),
            section="Tokens decide",
            evidence="Reasoning slip: odds are taken for a share; they agree while both are small.",
        ),
        Misconception(
            id="pairs_without_width",
            title="a pair is counted as one multiply-add; it takes one for each channel",
            wrong=_pairs_without_width,
            hints=Hints(
                "A query has d channels. How many multiplications is its product with one key?",
                "Your n² term.",
                "2 n² d",
            ),
            section="Tokens decide",
            evidence="Reasoning slip: 'attention costs n²' is a statement about growth, not a count.",
        ),
    ),
    correct_alternatives=(_share_oracle, _share_simplified),
)


# --- training_flops --------------------------------------------------------------------------------------


def _flops_cases(seed: int) -> list[Case]:
    macs, batch, steps = _whole_numbers(seed, 10**9, 512, 10**6)
    return [Case(6, 2, 3), Case(118_642_999_296, 256, 400_000), Case(macs, batch, steps)]


def _flops_oracle(macs: int, batch: int, steps: int) -> float:
    """Product by product: forward, then the gradients of its input and of its weights; 2 FLOPs a MAC."""
    products = {"forward": macs, "gradient of the input": macs, "gradient of the weights": macs}
    return float(sum(products.values()) * batch * steps) * 2


def _times(factor: int) -> Callable:
    def wrong(macs, batch, steps):
        return factor * macs * batch * steps

    return wrong


def _batch_forgotten(macs, batch, steps):
    return 6 * macs * steps


def _six_in_one(macs, batch, steps):
    return 6 * (macs * (batch * steps))


TRAINING_FLOPS = Exercise(
    id="scale.training_flops",
    chapter=CHAPTER,
    title="FLOPs of a training",
    minutes=6,
    difficulty=1,
    reference=training_flops,
    oracle=_flops_oracle,
    cases=_flops_cases,
    hints=Hints(
        "How many matrix products does the backward pass make for each one of the forward pass?",
        "Two factors: from MACs to FLOPs, and from a forward pass to a step.",
        "2 · 3 · macs · batch · steps",
    ),
    misconceptions=(
        Misconception(
            id="macs_as_flops",
            title="multiply-adds are taken for FLOPs: a factor of 2 is missing",
            wrong=_times(3),
            hints=Hints(
                "How many operations is one multiply-add?",
                "What a chip's data sheet counts: multiplications and additions.",
                "1 MAC = 2 FLOPs",
            ),
            section="Three forward passes",
            evidence=(
                "facebookresearch/fvcore issue 69 and NVIDIA/Model-Optimizer issue 387: counters that say"
                " flops and count MACs; facebookresearch/DiT issue 67 stumbles over the same."
            ),
        ),
        Misconception(
            id="forward_alone",
            title="only the forward pass is counted",
            wrong=_times(2),
            hints=Hints(
                "What happens in a training step after the loss is known?",
                "The factor between a forward pass and a step.",
                "a step costs three forward passes",
            ),
            section="Three forward passes",
            evidence="baidu-research/DeepBench issue 48: a benchmark's count without the backward pass.",
        ),
        Misconception(
            id="backward_once",
            title="the backward pass is counted like one forward pass; it costs two",
            wrong=_times(4),
            hints=Hints(
                "A layer gets the gradient of its output. Which two gradients does it make of it?",
                "The factor between a forward pass and a step.",
                "1 forward + 2 backward = 3",
            ),
            section="Three forward passes",
            evidence=(
                "baidu-research/DeepBench issue 48: the answer there is that both passes cost the same, which"
                " is true of each of the two products."
            ),
        ),
        Misconception(
            id="recomputation_counted",
            title="a forward pass that checkpointing repeats is counted as if the model needed it",
            wrong=_times(8),
            hints=Hints(
                "Does the model learn more because a block ran twice?",
                "The factor between a forward pass and a step: 3 or 4?",
                "model FLOPs: 3 forward passes, whatever the hardware repeats",
            ),
            section="Hours, chips and a bill",
            evidence=(
                "deepspeedai/DeepSpeed pull request 3362 multiplies by 4; AI-Hypercomputer/torchprime pull"
                " request 49 argues that this would raise MFU by switching checkpointing on."
            ),
        ),
        Misconception(
            id="batch_forgotten",
            title="a step is taken for one sample",
            wrong=_batch_forgotten,
            hints=Hints(
                "How many clips pass through the model in a step?",
                "What `macs` is for: one sample.",
                "samples = batch · steps",
            ),
            section="Three forward passes",
            evidence="Reasoning slip: counters report one sample, and the batch is not in their answer.",
        ),
    ),
    correct_alternatives=(_flops_oracle, _six_in_one),
)


# --- state_bytes -----------------------------------------------------------------------------------------


def _state_cases(seed: int) -> list[Case]:
    parameters, devices = _whole_numbers(seed, 10**10, 512)
    some = [Case(6), Case(6, 2), Case(6, stage=3)]
    return some + [Case(7_500_000_000, 64, stage) for stage in (1, 2, 3)] + [Case(parameters, devices, 2)]


def _state_oracle(parameters: int, devices: int = 1, stage: int = 0) -> float:
    """A ledger: bytes of each thing, and the stage from which on it is shared."""
    ledger = [(2, 3), (2, 2), (4, 1), (4, 1), (4, 1)]  # weight, gradient, float32 copy, two moments
    return sum(parameters * each / (devices if stage >= first else 1) for each, first in ledger)


def _ledger(weight: int, gradient: int, optimiser: int) -> Callable:
    """States with other bytes for each of the three kinds."""

    def wrong(parameters, devices=1, stage=0):
        kinds = ((optimiser, 1), (gradient, 2), (weight, 3))
        return sum(parameters * each / (devices if stage >= first else 1) for each, first in kinds)

    return wrong


def _everything_shared(parameters, devices=1, stage=0):
    return 16 * parameters / devices


def _nothing_shared(parameters, devices=1, stage=0):
    return 16.0 * parameters


def _weights_first(parameters, devices=1, stage=0):
    shared = (0, 2, 4, 16)[stage]
    return parameters * (16 - shared + shared / devices)


def _states_kind_by_kind(parameters, devices=1, stage=0):
    optimiser = 12 / (devices if stage >= 1 else 1)
    gradient = 2 / (devices if stage >= 2 else 1)
    weight = 2 / (devices if stage == 3 else 1)
    return parameters * (optimiser + gradient + weight)


STATE_BYTES = Exercise(
    id="scale.state_bytes",
    chapter=CHAPTER,
    title="Sixteen bytes a weight",
    minutes=12,
    difficulty=2,
    reference=state_bytes,
    oracle=_state_oracle,
    cases=_state_cases,
    hints=Hints(
        "Which five numbers are there for each weight, and in which format is each?",
        "Stage 1 cuts the 12 bytes of the optimiser, stage 2 also the gradient, stage 3 also the weight.",
        "2 + 2 + (4 + 4 + 4) bytes; what is cut is divided by the devices, the rest is not",
    ),
    misconceptions=(
        Misconception(
            id="weights_alone",
            title="only the weights themselves are counted",
            wrong=_ledger(2, 0, 0),
            hints=Hints(
                "That is what inference takes. What else does Adam look at?",
                "Gradient, float32 copy, first and second moment.",
                "16 bytes a weight, of which the weight is 2",
            ),
            section="What is there once per weight",
            evidence=(
                "datawhalechina/llm-algo-leetcode issue 149 warns of it: 14 GB of weights in bf16, and over"
                " 100 GB to train them."
            ),
        ),
        Misconception(
            id="no_master_copy",
            title="the float32 copy of the weights is forgotten",
            wrong=_ledger(2, 2, 8),
            hints=Hints(
                "What is 1 + 0.001 in bf16, which has eight bits of precision?",
                "The optimiser's part: two moments, and?",
                "4 (copy) + 4 + 4 (moments)",
            ),
            section="What is there once per weight",
            evidence="flagos-ai/FlagScale pull request 408: an estimator with 2 + 8 + 2 bytes, under review.",
        ),
        Misconception(
            id="float32_everywhere_and_a_copy",
            title="weights and gradients are counted in float32, and the float32 copy once more",
            wrong=_ledger(4, 4, 12),
            hints=Hints(
                "In which format do the matrix products run?",
                "The bytes of weight and gradient.",
                "2 + 2 + 12",
            ),
            section="What is there once per weight",
            evidence="deepspeedai/DeepSpeed pull request 5099 mends an estimator with 4 bytes for each.",
        ),
        Misconception(
            id="float32_gradients",
            title="gradients are counted in float32; in this recipe they are in bf16",
            wrong=_ledger(2, 4, 12),
            hints=Hints(
                "Which format has the gradient of a bf16 weight?",
                "The bytes of the gradient.",
                "2 + 2 + 12; some frameworks add up gradients in float32 and hold 18",
            ),
            section="What is there once per weight",
            evidence="NVIDIA/Megatron-LM issue 654: why 18 and not 16? Because that framework does.",
        ),
        Misconception(
            id="everything_shared",
            title="all sixteen bytes are divided, whatever the stage",
            wrong=_everything_shared,
            hints=Hints(
                "What does each device keep a copy of in stage 1?",
                "The part of the bytes that `stage` decides on.",
                "16 - shared + shared / devices",
            ),
            section="What is there once per weight",
            evidence="Reasoning slip: 'sharded' is read as 'all of it'; the stages are there to choose.",
        ),
        Misconception(
            id="nothing_shared",
            title="each device keeps a copy of everything, whatever the stage",
            wrong=_nothing_shared,
            hints=Hints(
                "What do 64 devices do with 64 copies of the same moments?",
                "Your formula: where are `devices` and `stage`?",
                "16 - shared + shared / devices",
            ),
            section="What is there once per weight",
            evidence=(
                "Reasoning slip: more devices are expected to help with memory by themselves; plain data"
                " parallelism copies."
            ),
        ),
        Misconception(
            id="weights_first",
            title="stage 1 cuts the weights; it cuts the optimiser, which is six times as large",
            wrong=_weights_first,
            hints=Hints(
                "Which of the three is the largest, and needed only once a step?",
                "The order of the stages.",
                "1: optimiser (12), 2: and gradients (14), 3: and weights (16)",
            ),
            section="What is there once per weight",
            evidence=(
                "InternLM/xtuner issue 161: users look for the stage that frees memory; the maintainers"
                " quote the order."
            ),
        ),
    ),
    correct_alternatives=(_state_oracle, _states_kind_by_kind),
)


# --- kept_numbers ----------------------------------------------------------------------------------------


def kept_numbers(tokens, width, depth, checkpointing):
    """Numbers that the blocks keep for the backward pass of one sample."""
    block = (12 + 2 * 4) * tokens * width
    if checkpointing:
        return depth * tokens * width + block  # every input, and the one block that is running again
    return depth * block


def _kept_cases(seed: int) -> list[Case]:
    tokens, width, depth = _whole_numbers(seed, 2000, 1000, 40)
    some = [Case(1, 1, 3, True), Case(1, 1, 3, False), Case(17_550, 2048, 28, True)]
    return some + [Case(tokens, width, depth, choice) for choice in (True, False)]


def _kept_oracle(tokens: int, width: int, depth: int, checkpointing: bool) -> int:
    """From the course's exact count, which is tested against autograd, less statistics and logarithms."""
    block = block_activations(tokens, width, heads=1) - 5 * tokens
    return sum([tokens * width] * depth) + block if checkpointing else sum([block] * depth)


def _inputs_alone(tokens, width, depth, checkpointing):
    return (1 if checkpointing else 20) * depth * tokens * width


def _one_block_alone(tokens, width, depth, checkpointing):
    return 20 * (1 if checkpointing else depth) * tokens * width


def _never_checkpointed(tokens, width, depth, checkpointing):
    return 20 * depth * tokens * width


def _outputs_alone(tokens, width, depth, checkpointing):
    return tokens * width * depth


def _narrow_mlp(tokens, width, depth, checkpointing):
    return tokens * width * (depth + 14 if checkpointing else 14 * depth)


def _scores_kept(tokens, width, depth, checkpointing):
    running = 1 if checkpointing else depth
    return kept_numbers(tokens, width, depth, checkpointing) + running * tokens**2


def _kept_factored(tokens, width, depth, checkpointing):
    return tokens * width * ((20 + depth) if checkpointing else 20 * depth)


KEPT_NUMBERS = Exercise(
    id="scale.kept_numbers",
    chapter=CHAPTER,
    title="What is kept for the way back",
    minutes=10,
    difficulty=2,
    reference=kept_numbers,
    oracle=_kept_oracle,
    cases=_kept_cases,
    hints=Hints(
        "Which numbers does a block need in the backward pass? With checkpointing, when does it have them?",
        "20 widths for each token of a block; with checkpointing one width, and the 20 of one block on top.",
        "20 n d L without, n d L + 20 n d with",
    ),
    misconceptions=(
        Misconception(
            id="inputs_alone",
            title="checkpointing is thought to keep the blocks' inputs and nothing else",
            wrong=_inputs_alone,
            hints=Hints(
                "What is in memory at the moment when a block has just run again?",
                "The case `checkpointing`: something is missing that does not depend on the depth.",
                "n d L + 20 n d",
            ),
            section="What a forward pass leaves behind",
            evidence=(
                "Reasoning slip: the block that runs again is forgotten. Chen et al. 2016 state the cost as a"
                " sum of both parts."
            ),
        ),
        Misconception(
            id="one_block_alone",
            title="with checkpointing only the running block is counted; the kept inputs are missing",
            wrong=_one_block_alone,
            hints=Hints(
                "From what does a block run again?",
                "The case `checkpointing`: one input for each block.",
                "n d L + 20 n d",
            ),
            section="What a forward pass leaves behind",
            evidence="Reasoning slip: 'recompute' is taken to mean that nothing has to be kept.",
        ),
        Misconception(
            id="never_checkpointed",
            title="checkpointing changes nothing",
            wrong=_never_checkpointed,
            hints=Hints(
                "What does a checkpointed block throw away at the end of its forward pass?",
                "The argument `checkpointing`: where do you read it?",
                "20 n d L without, n d L + 20 n d with",
            ),
            section="What a forward pass leaves behind",
            evidence=(
                "Reasoning slip: checkpointing is taken for saving the model to a file, which the same word"
                " names."
            ),
        ),
        Misconception(
            id="outputs_alone",
            title="a block is thought to keep its output and nothing else",
            wrong=_outputs_alone,
            hints=Hints(
                "What is the gradient of the weights of the MLP's second matrix made of?",
                "The case without checkpointing: every matrix product keeps its input.",
                "20 n d for each block",
            ),
            section="What a forward pass leaves behind",
            evidence="Reasoning slip: what is true of inference, where each layer's input can go at once.",
        ),
        Misconception(
            id="narrow_mlp",
            title="the inside of the MLP is counted as one width; it has four",
            wrong=_narrow_mlp,
            hints=Hints(
                "How wide is the MLP inside, before and after its GELU?",
                "The 2 widths that should be 2 times 4.",
                "12 + 2 · 4 = 20",
            ),
            section="What a forward pass leaves behind",
            evidence=(
                "Reasoning slip: Korthikanti et al. 2022 count 19 of 34 bytes a token in the MLP, most of"
                " them for its wide middle."
            ),
        ),
        Misconception(
            id="scores_kept",
            title="a table of all pairs is counted; fused attention does not keep it",
            wrong=_scores_kept,
            hints=Hints(
                "With fused attention, are the weights ever in memory as a whole?",
                "Your term with n².",
                "20 n d: nothing in it grows with n²",
            ),
            section="What a forward pass leaves behind",
            evidence=(
                "Korthikanti et al. 2022 have this term (5 a s / h), rightly, for attention written out;"
                " fused attention (Dao et al. 2022) is there to be rid of it."
            ),
        ),
    ),
    correct_alternatives=(_kept_oracle, _kept_factored),
)


# --- training_days ---------------------------------------------------------------------------------------


def _days_cases(seed: int) -> list[Case]:
    exponent, devices, share = _whole_numbers(seed, 12, 1000, 9)
    return [
        Case(86400 * 6.0, 2.0, 3, 0.5),
        Case(1.28e21, 989.4e12, 64, 0.4),
        Case(10.0 ** (12 + exponent), 312e12, devices, share / 10),
    ]


def _days_oracle(flops: float, peak: float, devices: int, mfu: float) -> float:
    """How much is done in a day, and how many of those it takes."""
    a_day = sum(mfu * peak * devices * 3600 for _ in range(24))
    return flops / a_day


def _days(speed: Callable, seconds: int = 86400) -> Callable:
    """Days at a speed that is made of peak, devices and mfu in another way."""

    def wrong(flops, peak, devices, mfu):
        return flops / speed(peak, devices, mfu) / seconds

    return wrong


def _days_by_hours(flops, peak, devices, mfu):
    hours = flops / 3600 / peak / devices / mfu
    return hours / 24


TRAINING_DAYS = Exercise(
    id="scale.training_days",
    chapter=CHAPTER,
    title="How many days?",
    minutes=6,
    difficulty=1,
    reference=training_days,
    oracle=_days_oracle,
    cases=_days_cases,
    hints=Hints(
        "How many FLOPs do all devices together really do in a second?",
        "peak, devices and mfu make the speed; 86,400 seconds make a day.",
        "flops / (peak · devices · mfu) / 86400",
    ),
    misconceptions=(
        Misconception(
            id="peak_reached",
            title="the chip is taken to reach its peak",
            wrong=_days(lambda peak, devices, mfu: peak * devices),
            hints=Hints(
                "What is `mfu` for?",
                "The speed of a device.",
                "peak · mfu",
            ),
            section="Hours, chips and a bill",
            evidence=(
                "stas00/ml-engineering issue 100 and its table of what matrix products really reach: a peak"
                " on paper is not a speed."
            ),
        ),
        Misconception(
            id="share_on_the_wrong_side",
            title="a lower utilisation makes the training shorter",
            wrong=_days(lambda peak, devices, mfu: peak * devices / mfu),
            hints=Hints(
                "Halve `mfu`. Should the training take longer or shorter? And yours?",
                "On which side of the division mfu stands.",
                "flops / (peak · devices · mfu)",
            ),
            section="Hours, chips and a bill",
            evidence="Reasoning slip: the share is applied to the time and not to the speed.",
        ),
        Misconception(
            id="one_device",
            title="the work of all devices is given to one",
            wrong=_days(lambda peak, devices, mfu: peak * mfu),
            hints=Hints(
                "What do the other devices do meanwhile?",
                "The speed: of one device, or of all?",
                "peak · devices · mfu",
            ),
            section="Hours, chips and a bill",
            evidence="Reasoning slip: device-days, which a bill is made of, are given as days.",
        ),
        Misconception(
            id="hours",
            title="these are hours",
            wrong=_days(lambda peak, devices, mfu: peak * devices * mfu, 3600),
            hints=Hints(
                "How many seconds has a day?",
                "The last division.",
                "60 · 60 · 24 = 86400",
            ),
            section="Hours, chips and a bill",
            evidence="Reasoning slip: GPU-hours are the usual unit of bills, days that of calendars.",
        ),
        Misconception(
            id="sparse_peak",
            title="the peak is doubled, as data sheets do with sparsity; training is dense",
            wrong=_days(lambda peak, devices, mfu: 2 * peak * devices * mfu),
            hints=Hints(
                "The peak that you are given is for dense products. Is it used as it is?",
                "A factor of 2.",
                "peak · devices · mfu, with the dense peak",
            ),
            section="Hours, chips and a bill",
            evidence=(
                "NVIDIA/Megatron-LM issues 1276 and 1565, foundation-model-stack/fms-fsdp issue 89: 1,979"
                " where 989 belongs, and an MFU half as high as it is."
            ),
        ),
        Misconception(
            id="percent",
            title="a share is divided by a hundred, as if it were per cent",
            wrong=_days(lambda peak, devices, mfu: peak * devices * mfu / 100),
            hints=Hints(
                "Is `mfu` 0.4 or 40?",
                "A factor of 100.",
                "0.4 is already a share",
            ),
            section="Hours, chips and a bill",
            evidence="Reasoning slip: papers print MFU in per cent, functions take shares.",
        ),
    ),
    correct_alternatives=(_days_oracle, _days_by_hours),
)


# --- fit_power_law ---------------------------------------------------------------------------------------


def _law_cases(seed: int) -> list[Case]:
    noise = torch.rand(5, generator=torch.Generator().manual_seed(seed)).tolist()
    bent = [2.5 * c**-0.3 * (1 + 0.2 * value) for c, value in zip((1, 2, 4, 9, 32), noise, strict=True)]
    return [Case([1.0, 4.0], [8.0, 4.0]), Case([1.0, 2.0, 4.0, 9.0, 32.0], bent)]


def _law_oracle(compute: list[float], loss: list[float]) -> tuple[float, float]:
    from scipy import stats

    line = stats.linregress([math.log(c) for c in compute], [math.log(value) for value in loss])
    return math.exp(line.intercept), -line.slope


def _log10_by_sums(compute, loss):
    x, y = [math.log10(c) for c in compute], [math.log10(value) for value in loss]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((p - mean_x) * (q - mean_y) for p, q in zip(x, y, strict=True))
    slope /= sum((p - mean_x) ** 2 for p in x)
    return 10 ** (mean_y - slope * mean_x), -slope


def _straight(x: list[float], y: list[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((p - mean_x) * (q - mean_y) for p, q in zip(x, y, strict=True))
    slope /= sum((p - mean_x) ** 2 for p in x)
    return mean_y - slope * mean_x, slope


def _without_logarithms(compute, loss):
    intercept, slope = _straight(compute, loss)
    return intercept, -slope


def _intercept_as_it_is(compute, loss):
    a, b = fit_power_law(compute, loss)
    return math.log(a), b


def _slope_as_it_is(compute, loss):
    a, b = fit_power_law(compute, loss)
    return a, -b


def _two_bases(compute, loss):
    a, b = fit_power_law(compute, loss)
    return math.exp(math.log10(a)), b


def _as_they_come(compute, loss):
    a, b = fit_power_law(compute, loss)
    return -b, math.log(a)


def _exponential(compute, loss):
    intercept, slope = _straight(compute, [math.log(value) for value in loss])
    return math.exp(intercept), -slope


def _first_and_last(compute, loss):
    b = math.log(loss[0] / loss[-1]) / math.log(compute[-1] / compute[0])
    return loss[0] * compute[0] ** b, b


FIT = Exercise(
    id="scale.fit_power_law",
    chapter=CHAPTER,
    title="Read a scaling curve",
    minutes=12,
    difficulty=2,
    reference=fit_power_law,
    oracle=_law_oracle,
    cases=_law_cases,
    tolerance=1e-4,
    hints=Hints(
        "What does loss = a C^-b become when you take the logarithm of both sides?",
        "A straight line: its height at log C = 0, and its slope.",
        "log loss = log a - b log C; fit the line, then a = exp(height), b = -slope",
    ),
    misconceptions=(
        Misconception(
            id="without_logarithms",
            title="a line is fitted to the numbers themselves and not to their logarithms",
            wrong=_without_logarithms,
            hints=Hints(
                "On which paper is a power law straight?",
                "What goes into the fit.",
                "log loss against log C",
            ),
            section="A scaling curve of our own",
            evidence="bigcode-project/bigcode-analysis pull request 35: a scaling plot on a linear axis.",
        ),
        Misconception(
            id="intercept_as_it_is",
            title="the height of the line is returned as a; it is the logarithm of a",
            wrong=_intercept_as_it_is,
            hints=Hints(
                "What is the loss at C = 1? And what is your a?",
                "The last line: what undoes a logarithm?",
                "a = exp(height)",
            ),
            section="A scaling curve of our own",
            evidence=(
                "merely-useful/py-rse issue 367: its author doubts the constant of a power law in a plot,"
                " works it out by logarithms and finds the code right: the line's height is the logarithm."
            ),
        ),
        Misconception(
            id="slope_as_it_is",
            title="the slope of the line is returned as b, with its minus",
            wrong=_slope_as_it_is,
            hints=Hints(
                "The loss falls with C. What sign has the slope, and what sign has b in C^-b?",
                "The sign of the second number.",
                "b = -slope",
            ),
            section="A scaling curve of our own",
            evidence="Reasoning slip: the fit gives the slope, and the minus stands in the law already.",
        ),
        Misconception(
            id="two_bases",
            title="the logarithm is to base 10, its inverse to base e",
            wrong=_two_bases,
            hints=Hints(
                "Which base have your logarithms, and which has your inverse?",
                "log, log10, exp, 10 **: two of them belong together.",
                "exp undoes log, 10** undoes log10",
            ),
            section="A scaling curve of our own",
            evidence=(
                "Reasoning slip: `log` is natural in numpy and torch, and to base 10 on plots; slopes do not"
                " show it, intercepts do."
            ),
        ),
        Misconception(
            id="as_they_come",
            title="slope and height of the line are returned as a fit gives them: slope first, in logarithms",
            wrong=_as_they_come,
            hints=Hints(
                "Which of your two numbers has the unit of a loss?",
                "What your fit returns: the order of its coefficients, and what each of them is.",
                "a = exp(height), b = -slope, in this order",
            ),
            section="A scaling curve of our own",
            evidence="Reasoning slip: `numpy.polyfit` gives the highest power first, so the slope.",
        ),
        Misconception(
            id="exponential",
            title="only the loss is put in logarithms: that is an exponential law, not a power law",
            wrong=_exponential,
            hints=Hints(
                "How much does your law promise for each doubling of C, at the start and at the end?",
                "The x of your line.",
                "log loss against log C, both",
            ),
            section="A scaling curve of our own",
            evidence="Reasoning slip: `semilogy` straightens exponentials, `loglog` straightens powers.",
        ),
        Misconception(
            id="first_and_last",
            title="the line is drawn through the first and the last point; the others are not heard",
            wrong=_first_and_last,
            hints=Hints(
                "Move a point in the middle. Does your answer change?",
                "How many of the points your slope is made of.",
                "least squares over all points",
            ),
            section="A scaling curve of our own",
            evidence="Reasoning slip: reading a slope off two ends makes their noise its own.",
        ),
    ),
    correct_alternatives=(_law_oracle, _log10_by_sums),
)

EXERCISES = (ATTENTION_SHARE, TRAINING_FLOPS, STATE_BYTES, KEPT_NUMBERS, TRAINING_DAYS, FIT)
