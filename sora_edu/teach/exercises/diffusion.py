"""Exercises of chapter 01: what is left of the data, noising, guesses of x_0, a DDIM step, guidance."""

import math
import random

import torch
from torch import Tensor

from sora_edu.diffusion import alpha_bars, clean_from, guided, q_sample
from sora_edu.samplers import ddim_step
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "01_diffusion"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _level(angle: float | int) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) on the unit circle: shares whose squares add up to one."""
    return torch.tensor(math.cos(angle)), torch.tensor(math.sin(angle))


def _straight(t: float | int) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) on the straight line."""
    return torch.tensor(1.0 - t), torch.tensor(float(t))


# --- alpha_bars ------------------------------------------------------------------------------------------


def _bars_cases(seed: int) -> list[Case]:
    betas = 0.02 + 0.5 * torch.rand(12, generator=_generator(seed))
    return [Case(torch.tensor([0.1, 0.2, 0.5])), Case(betas), Case(torch.linspace(1e-4, 0.02, 1000))]


def _bars_oracle(betas: Tensor) -> Tensor:
    left, found = 1.0, []
    for beta in betas.tolist():
        left -= beta * left  # each step takes its share of what is left
        found.append(left)
    return torch.tensor(found)


def _sum_of_betas(betas):
    return 1 - betas.cumsum(0)


def _betas_multiplied(betas):
    return betas.cumprod(0)


def _one_step_late(betas):
    return torch.cat([torch.ones(1), (1 - betas).cumprod(0)[:-1]])


def _root_taken(betas):
    return (1 - betas).cumprod(0).sqrt()


ALPHA_BARS = Exercise(
    id="diffusion.alpha_bars",
    chapter=CHAPTER,
    title="What is left of the data",
    minutes=6,
    difficulty=1,
    reference=alpha_bars,
    oracle=_bars_oracle,
    cases=_bars_cases,
    hints=Hints(
        "One step keeps 0.9 of the variance, the next keeps 0.8 of that. How much do both keep?",
        "Is your list as long as `betas`, and is its first entry what is left after the first step?",
        "alpha_bar_k = (1 - beta_1)(1 - beta_2) … (1 - beta_k)",
    ),
    misconceptions=(
        Misconception(
            id="sum_of_betas",
            title="the betas are added up; each step takes its share of what is left, not of the whole",
            wrong=_sum_of_betas,
            hints=Hints(
                "What does your function say after three steps of 0.5?",
                "The operation that runs along the steps.",
                "Shares multiply: (1 - beta_1)(1 - beta_2), not 1 - beta_1 - beta_2",
            ),
            section="Ruining a picture on purpose",
            evidence="Reasoning slip: variances of independent noise add up, so one adds the betas; but every"
            " step also shrinks what was there. For small betas both nearly agree, which hides it.",
        ),
        Misconception(
            id="betas_multiplied",
            title="the betas are multiplied; what remains after a step is 1 - beta",
            wrong=_betas_multiplied,
            hints=Hints(
                "A step with beta = 0.1: does it keep a tenth or take a tenth?",
                "What stands inside your product.",
                "alpha_bar_k = prod (1 - beta_i)",
            ),
            section="Ruining a picture on purpose",
            evidence="Slip of notation: DDPM's a_t = 1 - beta_t is lost between beta_t and the product of the"
            " a_t; varun-ml/diffusion-models-tutorial pull request 1 repairs formulas of this family.",
        ),
        Misconception(
            id="one_step_late",
            title="the list begins at 1, before the first step: every entry is one step late",
            wrong=_one_step_late,
            hints=Hints(
                "Your first entry: is it what is left before or after the first step?",
                "Where you put a 1 in front, or where the slice starts.",
                "alpha_bar_1 = 1 - beta_1",
            ),
            section="Ruining a picture on purpose",
            evidence="lucidrains/denoising-diffusion-pytorch issue 81 and Kitsunetic/SDF-Diffusion issue 5: "
            "the table of the step before (alphas_cumprod_prev) is used where this step's is meant.",
        ),
        Misconception(
            id="root_taken",
            title="the square root is taken already; alpha_bar is a share of variance",
            wrong=_root_taken,
            hints=Hints(
                "After one step with beta = 0.19, is your entry 0.81 or 0.9?",
                "The last thing that your function does.",
                "alpha_bar is a product; its root is alpha",
            ),
            section="Ruining a picture on purpose",
            evidence="Reasoning slip: code keeps a table of the products and one of their roots, under names "
            "that differ by one word. DDIM's paper calls alpha_t what DDPM's calls alpha_bar_t.",
        ),
    ),
    correct_alternatives=(
        lambda betas: (1 - betas).log().cumsum(0).exp(),
        lambda betas: torch.stack([(1 - betas[: k + 1]).prod() for k in range(len(betas))]),
    ),
)


# --- q_sample --------------------------------------------------------------------------------------------


def _sample_cases(seed: int) -> list[Case]:
    """As many samples as columns, so that shares along the wrong axis give a wrong result and no error."""
    g = _generator(seed)
    small = Case(torch.tensor([[1.0, -1.0], [1.0, -1.0]]), torch.tensor([[0.5, 0.5], [2.0, 0.0]]),
                 torch.tensor([0.64, 0.25]))  # fmt: skip
    shares = 0.05 + 0.9 * torch.rand(4, generator=g)
    return [small, Case(_normal(g, 4, 1, 3, 4), _normal(g, 4, 1, 3, 4), shares)]


def _sample_oracle(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    mixed = [
        math.sqrt(share) * data + math.sqrt(1 - share) * grain
        for data, grain, share in zip(x0, noise, alpha_bar.tolist(), strict=True)
    ]
    return torch.stack(mixed)


def _column(share: Tensor, x: Tensor) -> Tensor:
    return share.reshape(-1, *[1] * (x.ndim - 1))


def _no_roots(x0, noise, alpha_bar):
    share = _column(alpha_bar, x0)
    return share * x0 + (1 - share) * noise


def _variance_for_deviation(x0, noise, alpha_bar):
    share = _column(alpha_bar, x0)
    return share.sqrt() * x0 + (1 - share) * noise


def _one_minus_root(x0, noise, alpha_bar):
    share = _column(alpha_bar, x0).sqrt()
    return share * x0 + (1 - share) * noise


def _along_the_columns(x0, noise, alpha_bar):
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def _noise_for_data(x0, noise, alpha_bar):
    return _sample_oracle(noise, x0, alpha_bar)


Q_SAMPLE = Exercise(
    id="diffusion.q_sample",
    chapter=CHAPTER,
    title="Jump to any step at once",
    minutes=10,
    difficulty=2,
    reference=q_sample,
    oracle=_sample_oracle,
    cases=_sample_cases,
    properties=(
        Property(
            "alpha_bar = 1 leaves the data alone",
            lambda f: torch.allclose(
                f(torch.ones(2, 2), torch.full((2, 2), 3.0), torch.ones(2)), torch.ones(2, 2)
            ),
        ),
    ),
    hints=Hints(
        "alpha_bar is a share of variance. By what do you multiply a thing to multiply its variance by 0.64?",
        "Each sample has a share of its own: does your product run along the first axis?",
        "x_k = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps",
    ),
    misconceptions=(
        Misconception(
            id="no_roots",
            title="both square roots are missing: variances where standard deviations are meant",
            wrong=_no_roots,
            hints=Hints(
                "Take data and noise of variance 1 each. What is the variance of your mixture?",
                "The two factors.",
                "sqrt(alpha_bar)^2 + sqrt(1 - alpha_bar)^2 = 1",
            ),
            section="Ruining a picture on purpose",
            evidence="huggingface/diffusion-models-class issue 18 and ermongroup/CSDI issue 9: printed "
            "formulas and code disagree about the roots.",
        ),
        Misconception(
            id="variance_for_deviation",
            title="the noise is multiplied by its variance; it needs the root of it",
            wrong=_variance_for_deviation,
            hints=Hints(
                "Half of the variance is to be noise. By what do you multiply it?",
                "The factor of the noise.",
                "sqrt(1 - alpha_bar) eps",
            ),
            section="Ruining a picture on purpose",
            evidence="huggingface/diffusion-models-class issue 63 (“noise scaled by beta”) and "
            "acids-ircam/diffusion_models issue 1 (code that multiplies by beta).",
        ),
        Misconception(
            id="one_minus_root",
            title="the shares add up to one; their squares should",
            wrong=_one_minus_root,
            hints=Hints(
                "With alpha_bar = 0.64 the data get 0.8. What does the noise get: 0.2 or 0.6?",
                "The order of `1 - …` and the root in the noise's factor.",
                "sqrt(1 - alpha_bar), which is not 1 - sqrt(alpha_bar)",
            ),
            section="Ruining a picture on purpose",
            evidence="Janspiry/Image-Super-Resolution-via-Iterative-Refinement issue 135: readers ask why "
            "the share is squared before it is taken from 1.",
        ),
        Misconception(
            id="along_the_columns",
            title="the shares run along the last axis: every column has its own, the samples do not",
            wrong=_along_the_columns,
            hints=Hints(
                "Give the first sample alpha_bar = 1. Does it stay clean?",
                "`alpha_bar` has shape (b,): against which axis of x0 does PyTorch line it up?",
                "alpha_bar.view(-1, 1, 1, 1) for pictures, one 1 for each axis after the first",
            ),
            section="Ruining a picture on purpose",
            evidence="XLabs-AI/x-flux issue 102, jolibrain/joliGEN pull request 527 and HCP-Diffusion pull "
            "request 82: right for one sample, an error or worse for more.",
        ),
        Misconception(
            id="noise_for_data",
            title="data and noise have changed places",
            wrong=_noise_for_data,
            hints=Hints(
                "alpha_bar = 1 means that nothing was added yet. What does your function return then?",
                "Which of the two factors stands before x0?",
                "alpha_bar belongs to the data, 1 - alpha_bar to the noise",
            ),
            section="Ruining a picture on purpose",
            evidence="hpcaitech/Open-Sora issue 628 asks why data are multiplied by the time there: half of "
            "the field counts from noise to data.",
        ),
    ),
    correct_alternatives=(
        _sample_oracle,
        lambda x0, noise, alpha_bar: (
            torch.einsum("b,b...->b...", alpha_bar.sqrt(), x0)
            + torch.einsum("b,b...->b...", (1 - alpha_bar).sqrt(), noise)
        ),
    ),
)


# --- clean_from ------------------------------------------------------------------------------------------


def _clean_cases(seed: int) -> list[Case]:
    """The levels of each target's usual schedule: v on the circle, flow on the straight line."""
    g, rng = _generator(seed), random.Random(seed)
    cases = [Case(torch.tensor([[1.0, 0.4]]), torch.tensor([[0.5, -0.5]]), *_level(math.asin(0.6)), "eps")]
    for target in ("eps", "x0", "v", "flow"):
        level = _straight if target == "flow" else _level
        cases.append(Case(_normal(g, 2, 3), _normal(g, 2, 3), *level(rng.uniform(0.2, 0.7)), target))
    return cases


def _clean_oracle(x: Tensor, prediction: Tensor, alpha: Tensor, sigma: Tensor, target: str) -> Tensor:
    """Solves two equations, what x is made of and what the target is made of, for x_0 and eps."""
    a, s = float(alpha), float(sigma)
    made_of = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-s, a), "flow": (-1.0, 1.0)}[target]
    equations = torch.tensor([[a, s], made_of])
    known = torch.stack([x.flatten(), prediction.flatten()])
    return torch.linalg.solve(equations, known)[0].view(x.shape)


def _clean_with(**rules):
    """The right answers, some of them replaced."""
    right = {
        "eps": lambda x, p, a, s: (x - s * p) / a,
        "x0": lambda x, p, a, s: p,
        "v": lambda x, p, a, s: a * x - s * p,
        "flow": lambda x, p, a, s: x - s * p,
    } | rules

    def clean_from(x, prediction, alpha, sigma, target):
        return right[target](x, prediction, alpha, sigma)

    return clean_from


CLEAN_FROM = Exercise(
    id="diffusion.clean_from",
    chapter=CHAPTER,
    title="Back to the data from any prediction",
    minutes=15,
    difficulty=2,
    reference=clean_from,
    oracle=_clean_oracle,
    cases=_clean_cases,
    hints=Hints(
        "x is alpha x_0 + sigma eps. If you knew eps, how would you get x_0 out of it?",
        "Take the targets one by one; for v put in the definition of x and use alpha^2 + sigma^2 = 1.",
        "eps: (x - sigma eps)/alpha;  v: alpha x - sigma v;  flow: x - sigma u",
    ),
    misconceptions=(
        Misconception(
            id="undivided",
            title="the noise is taken away, but the data stay as small as alpha made them",
            wrong=_clean_with(eps=lambda x, p, a, s: x - s * p),
            hints=Hints(
                "x - sigma eps is alpha x_0. Is that the data?",
                "The line for eps.",
                "x_0 = (x - sigma eps) / alpha",
            ),
            section="Four things to predict",
            evidence="The line x - sqrt(1 - alpha_bar) · prediction stands alone in the code quoted in "
            "farzad-bz/DeCo-Diff issue 4. Reasoning slip: undoing the addition feels like undoing all.",
        ),
        Misconception(
            id="variance_subtracted",
            title="sigma is squared where the noise is taken away",
            wrong=_clean_with(eps=lambda x, p, a, s: (x - s**2 * p) / a),
            hints=Hints(
                "How was the noise put in: times sigma, or times its variance?",
                "The factor of the prediction in the line for eps.",
                "(x - sigma eps)/alpha, with sigma = sqrt(1 - alpha_bar)",
            ),
            section="Four things to predict",
            evidence="jcwang-gh/classifier-free-diffusion-guidance-Pytorch issue 12: the coefficient holds "
            "1 - alpha_bar where its root is meant.",
        ),
        Misconception(
            id="v_sign",
            title="the sign before v is wrong",
            wrong=_clean_with(v=lambda x, p, a, s: a * x + s * p),
            hints=Hints(
                "v = alpha eps - sigma x_0. Put it and x into your line. Does eps cancel?",
                "The sign in the line for v.",
                "alpha x - sigma v = (alpha^2 + sigma^2) x_0",
            ),
            section="Four things to predict",
            evidence="huggingface/diffusers pull request 1421: a reviewer finds "
            "`alpha_t * sample + sigma_t * model_output` in a first version.",
        ),
        Misconception(
            id="v_gives_noise",
            title="the line for v gives the noise; the two formulas are easily mixed up",
            wrong=_clean_with(v=lambda x, p, a, s: s * x + a * p),
            hints=Hints(
                "When there is hardly any noise, sigma = 0, x is the data. What does your line give then?",
                "Which share belongs to x in the line for v?",
                "x_0 = alpha x - sigma v;  eps = sigma x + alpha v",
            ),
            section="Four things to predict",
            evidence="claudiom4sir/StableVSR issue 17 (two functions with the shares changed about are taken "
            "for the same) and threestudio issue 126.",
        ),
        Misconception(
            id="flow_sign",
            title="the flow is followed the wrong way, away from the data",
            wrong=_clean_with(flow=lambda x, p, a, s: x + s * p),
            hints=Hints(
                "u = eps - x_0 points towards noise. Where do you want to go?",
                "The sign in the line for the flow.",
                "x_0 = x - t u",
            ),
            section="Four things to predict",
            evidence="lucidrains/rectified-flow-pytorch issue 14 (“i inverted the direction from noise to "
            "data”) and hpcaitech/Open-Sora issue 628 (x_start - noise).",
        ),
    ),
    correct_alternatives=(
        _clean_with(),
        _clean_oracle,
        _clean_with(
            v=lambda x, p, a, s: (x - s * (s * x + a * p)) / a,
            flow=lambda x, p, a, s: (x - s * p) / (a + s),
        ),
    ),
    equivalent_mutants={
        "(alpha * x - sigma * prediction) / (alpha ** 2 + sigma ** 2) -> "
        "(alpha * x - sigma * prediction) * (alpha ** 2 + sigma ** 2)": "the sum is 1 on v's own schedules, "
        "the only ones asked about, so that the short formula passes",
        "(x - sigma * prediction) / (alpha + sigma) -> (x - sigma * prediction) * (alpha + sigma)": "the sum "
        "is 1 on the straight line, the only schedule asked about, so that the short formula passes",
    },
)


# --- ddim_step -------------------------------------------------------------------------------------------


def _step_cases(seed: int) -> list[Case]:
    g, rng = _generator(seed), random.Random(seed)
    far, near = rng.uniform(0.8, 1.4), rng.uniform(0.1, 0.6)
    simple = (torch.tensor(0.6), torch.tensor(0.8)), (torch.tensor(0.8), torch.tensor(0.6))
    return [
        Case(torch.tensor([[1.0, -0.4]]), torch.tensor([[1.0, -2.0]]), *simple),
        Case(_normal(g, 3, 2, 4), _normal(g, 3, 2, 4), _level(far), _level(near)),
        Case(_normal(g, 3, 4), _normal(g, 3, 4), _straight(0.7), _straight(0.3)),
    ]


def _step_oracle(x: Tensor, x0: Tensor, here: tuple, there: tuple) -> Tensor:
    """DDIM in its rescaled form: x / alpha moves along eps by the change of sigma / alpha."""
    (a, s), (a_next, s_next) = ((float(p), float(q)) for p, q in (here, there))
    slope = (x / a - x0) * a / s
    return a_next * (x / a + (s_next / a_next - s / a) * slope)


def _noise_of(x, x0, here):
    return (x - here[0] * x0) / here[1]


def _only_subtracted(x, x0, here, there):
    return x - (here[1] - there[1]) * _noise_of(x, x0, here)


def _noise_kept(x, x0, here, there):
    return there[0] * x0 + here[1] * _noise_of(x, x0, here)


def _noisy_picture_as_noise(x, x0, here, there):
    return there[0] * x0 + there[1] * x


def _straight_line(x, x0, here, there):
    return x + (here[1] - there[1]) / here[1] * (x0 - x)


DDIM_STEP = Exercise(
    id="diffusion.ddim_step",
    chapter=CHAPTER,
    title="The sampler takes the step",
    minutes=12,
    difficulty=2,
    reference=ddim_step,
    oracle=_step_oracle,
    cases=_step_cases,
    properties=(
        Property(
            "a step that goes nowhere changes nothing",
            lambda f: torch.allclose(
                f(torch.ones(1, 2), torch.full((1, 2), 3.0), _level(0.7), _level(0.7)), torch.ones(1, 2)
            ),
        ),
        Property(
            "a step to clean data ends at the guess",
            lambda f: torch.allclose(
                f(torch.ones(1, 2), torch.full((1, 2), 3.0), _level(0.7), _level(0.0)),
                torch.full((1, 2), 3.0),
            ),
        ),
    ),
    hints=Hints(
        "You have x and a guess of x_0. What does that make the noise in x?",
        "First the noise at the level `here`; then mix data and noise again at the level `there`.",
        "eps = (x - alpha_t x_0)/sigma_t;  x_s = alpha_s x_0 + sigma_s eps",
    ),
    misconceptions=(
        Misconception(
            id="only_subtracted",
            title="noise is taken away, but the data do not grow to their new share",
            wrong=_only_subtracted,
            hints=Hints(
                "At the new level the data have a larger share. Where do they get it in your step?",
                "You change the share of noise only.",
                "x_s = alpha_s x_0 + sigma_s eps: both shares are those of the new level",
            ),
            section="The sampler takes the step",
            evidence="Reasoning slip: “a slightly less noisy picture” sounds like subtracting noise, which is"
            " right only where alpha is always 1. Related: Stability-AI/stablediffusion pull request 345 (the"
            " last step's alpha is not 1, so no clean picture comes out).",
        ),
        Misconception(
            id="noise_kept",
            title="the noise keeps its old share",
            wrong=_noise_kept,
            hints=Hints(
                "How noisy should the result be: as x was, or as the next level is?",
                "The factor of the noise in your mixture.",
                "sigma_s, of `there`",
            ),
            section="The sampler takes the step",
            evidence="jychoi118/ilvr_adm issue 13, confirmed: pictures are mixed at level t where t - 1 is "
            "meant; CompVis/latent-diffusion issue 136 (levels that are off by one).",
        ),
        Misconception(
            id="noisy_picture_as_noise",
            title="the noisy picture is mixed in where its noise is meant",
            wrong=_noisy_picture_as_noise,
            hints=Hints(
                "x still holds data. What is left of x when you take alpha x_0 away?",
                "The second part of your mixture: it should be pure noise.",
                "eps = (x - alpha_t x_0)/sigma_t",
            ),
            section="The sampler takes the step",
            evidence="Reasoning slip: at the start x *is* noise, and the mixture is right for that one step.",
        ),
        Misconception(
            id="straight_line",
            title="a straight walk from x to the guess: right for a flow, wrong for other schedules",
            wrong=_straight_line,
            hints=Hints(
                "Put alpha_s x_0 + sigma_s eps into your formula. For which alphas does it hold?",
                "Your step uses sigma only. Where do the alphas come in?",
                "x_s = alpha_s x_0 + sigma_s eps",
            ),
            section="The sampler takes the step",
            evidence="The step ((t - s) x_0 + s x)/t of apapiu/transformer_latent_diffusion, right there for "
            "alpha = 1 - t; lucidrains/rectified-flow-pytorch issue 14 shows how easily such lines travel.",
        ),
    ),
    correct_alternatives=(
        _step_oracle,
        lambda x, x0, here, there: there[1] / here[1] * x + (there[0] - here[0] * there[1] / here[1]) * x0,
    ),
)


# --- guided ----------------------------------------------------------------------------------------------


def _guided_cases(seed: int) -> list[Case]:
    g, rng = _generator(seed), random.Random(seed)
    return [
        Case(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0]), 3.0),
        Case(_normal(g, 2, 3), _normal(g, 2, 3), round(rng.uniform(1.5, 8), 2)),
        Case(_normal(g, 2, 3), _normal(g, 2, 3), 0.5),
    ]


def _guided_oracle(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    return torch.lerp(unconditional, conditional, scale)


def _from_the_conditional(conditional, unconditional, scale):
    return conditional + scale * (conditional - unconditional)


def _guided_swapped(conditional, unconditional, scale):
    return conditional + scale * (unconditional - conditional)


def _difference_only(conditional, unconditional, scale):
    return scale * (conditional - unconditional)


def _less_one(conditional, unconditional, scale):
    return unconditional + (scale - 1) * (conditional - unconditional)


GUIDED = Exercise(
    id="diffusion.guided",
    chapter=CHAPTER,
    title="Lean towards the label",
    minutes=7,
    difficulty=1,
    reference=guided,
    oracle=_guided_oracle,
    cases=_guided_cases,
    properties=(
        Property(
            "scale 1 is the plain conditional answer",
            lambda f: torch.allclose(f(torch.ones(2), torch.full((2,), 5.0), 1.0), torch.ones(2)),
        ),
    ),
    hints=Hints(
        "Draw the two answers as points. Where are scale 0, scale 1 and scale 2?",
        "Which of the two do you start from?",
        "f = f_null + s (f_y - f_null)",
    ),
    misconceptions=(
        Misconception(
            id="from_the_conditional",
            title="it starts at the conditional answer: your scale is one more than asked for",
            wrong=_from_the_conditional,
            hints=Hints(
                "What does your function return for scale 1? What should it?",
                "The first summand.",
                "s = w + 1: f_y + w (f_y - f_null) = f_null + s (f_y - f_null)",
            ),
            section="Say which one",
            evidence="huggingface/diffusers issue 5882, lucidrains/denoising-diffusion-pytorch issues 155 "
            "and 207: the paper's w is our s - 1, and readers take it for a bug, again and again.",
        ),
        Misconception(
            id="swapped",
            title="conditional and unconditional have changed places: this leans away from the label",
            wrong=_guided_swapped,
            hints=Hints(
                "With scale 1, which of the two comes out?",
                "The order of your arguments, and the sign of the difference.",
                "f_null + s (f_y - f_null)",
            ),
            section="Say which one",
            evidence="Reasoning slip: both answers come out of one doubled batch, and nothing but their "
            "order tells the halves apart.",
        ),
        Misconception(
            id="difference_only",
            title="only the difference is returned; it has to be added to something",
            wrong=_difference_only,
            hints=Hints(
                "If both answers agree, what should come out? What does yours give?",
                "The result is a point, the difference only an arrow. Where does the arrow start?",
                "f_null + s (f_y - f_null)",
            ),
            section="Say which one",
            evidence="Reasoning slip: “amplify the difference” is taken for the whole recipe.",
        ),
        Misconception(
            id="less_one",
            title="one is taken off the scale where nothing should be: scale 1 ignores the label",
            wrong=_less_one,
            hints=Hints(
                "What does your function return for scale 1? What should it?",
                "The factor of the difference.",
                "From f_null the factor is s; from f_y it is s - 1",
            ),
            section="Say which one",
            evidence="lucidrains/classifier-free-guidance-pytorch issue 15 proposes null + update · (s - 1).",
        ),
    ),
    correct_alternatives=(
        lambda conditional, unconditional, scale: scale * conditional + (1 - scale) * unconditional,
        lambda conditional, unconditional, scale: conditional + (scale - 1) * (conditional - unconditional),
    ),
)

EXERCISES = (ALPHA_BARS, Q_SAMPLE, CLEAN_FROM, DDIM_STEP, GUIDED)
