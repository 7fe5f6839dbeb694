"""Exercises of chapter 06: sampling a posterior, its KL, PSNR, the scale factor, counting the cost."""

import math
import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from sora_edu.attention import attention_macs
from sora_edu.autoencoder import kl_to_standard_normal, psnr, reparameterise, scale_factor
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property
from sora_edu.train.latents import denoiser_macs
from sora_edu.transformer import Block

CHAPTER = "06_latents"


# --- reparameterise --------------------------------------------------------------------------------------


def _sample_cases(seed: int) -> list[Case]:
    dice = torch.Generator().manual_seed(seed)
    small = (torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.5, -1.0]))
    return [Case(*small), Case(*torch.randn(3, 2, 4, 3, generator=dice))]


def _sample_oracle(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """The same quantile of the other normal distribution."""
    share = Normal(0.0, 1.0).cdf(noise.double())
    return Normal(mean.double(), log_variance.double().exp().sqrt()).icdf(share).to(mean.dtype)


def _variance_for_std(mean, log_variance, noise):
    return mean + torch.exp(log_variance) * noise


def _log_variance_as_std(mean, log_variance, noise):
    return mean + log_variance * noise


def _log_variance_as_variance(mean, log_variance, noise):
    return mean + log_variance.abs().sqrt() * noise


def _mean_alone(mean, log_variance, noise):
    return mean.clone()


def _noise_inside(mean, log_variance, noise):
    return (mean + noise) * torch.exp(0.5 * log_variance)


def _dice_of_its_own(mean, log_variance, noise):
    return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)


def _lets_gradients_through(sample) -> bool:
    with torch.enable_grad():
        mean, log_variance = torch.ones(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        found = torch.autograd.grad(sample(mean, log_variance, torch.ones(2)).sum(), (mean, log_variance))
    return all(bool((gradient != 0).all()) for gradient in found)


SAMPLE = Exercise(
    id="latents.reparameterise",
    chapter=CHAPTER,
    title="A sample that lets gradients through",
    minutes=6,
    difficulty=1,
    reference=reparameterise,
    oracle=_sample_oracle,
    cases=_sample_cases,
    tolerance=1e-4,
    properties=(
        Property(
            "without noise it is the mean",
            lambda f: torch.equal(f(torch.ones(2), torch.ones(2), torch.zeros(2)), torch.ones(2)),
        ),
        Property("gradients reach the mean and the log variance", _lets_gradients_through),
    ),
    hints=Hints(
        "The encoder says log s^2. What is s?",
        "What multiplies the noise.",
        "z = mean + s noise, with s = exp(log_variance / 2)",
    ),
    misconceptions=(
        Misconception(
            id="variance_for_std",
            title="the noise is multiplied by the variance, and not by its root",
            wrong=_variance_for_std,
            hints=Hints(
                "Noise of variance 1, multiplied by 4: what is its variance then?",
                "The exponent.",
                "s = exp(log_variance / 2)",
            ),
            section="An encoder that admits doubt",
            evidence=(
                "rachtsingh/ibp_vae issue 3 and rishikksh20/vae_tacotron2 issue 3: exp(logvar), the variance,"
                " multiplies the noise."
            ),
        ),
        Misconception(
            id="log_variance_as_std",
            title="the log variance itself multiplies the noise",
            wrong=_log_variance_as_std,
            hints=Hints(
                "The encoder may say -3. Can a width be negative?",
                "What happens to log_variance before it meets the noise.",
                "undo the logarithm, then take the root",
            ),
            section="An encoder that admits doubt",
            evidence="Reasoning slip: drawings say sigma where the code has log sigma^2.",
        ),
        Misconception(
            id="log_variance_as_variance",
            title="the root of the log variance: the logarithm is still in it",
            wrong=_log_variance_as_variance,
            hints=Hints(
                "If log s^2 = 0, how wide is the distribution? And yours?",
                "The logarithm is not undone.",
                "s = sqrt(exp(log_variance)) = exp(log_variance / 2)",
            ),
            section="An encoder that admits doubt",
            evidence="Reasoning slip: a column named logvar read as var, with abs() to keep the root real.",
        ),
        Misconception(
            id="mean_alone",
            title="the mean alone: nothing is drawn",
            wrong=_mean_alone,
            hints=Hints(
                "Do two calls with other noise differ?",
                "Is `noise` in your code at all?",
                "z = mean + s noise",
            ),
            section="An encoder that admits doubt",
            evidence=(
                "Reasoning slip: at test time one often takes the mean (`mode()` in latent diffusion);"
                " in training that would make a plain autoencoder with a free KL."
            ),
        ),
        Misconception(
            id="noise_inside",
            title="the mean is stretched along with the noise",
            wrong=_noise_inside,
            hints=Hints(
                "With noise 0, what should come out?",
                "The brackets.",
                "mean + (s noise), not s (mean + noise)",
            ),
            section="An encoder that admits doubt",
            evidence="Reasoning slip: scale and shift applied in the wrong order.",
        ),
        Misconception(
            id="dice_of_its_own",
            title="noise of its own is drawn, and the noise that was handed over is not used",
            wrong=_dice_of_its_own,
            hints=Hints(
                "Call yours twice with the same noise. Do you get the same sample?",
                "Is there a randn in your code?",
                "z = mean + s noise",
            ),
            section="An encoder that admits doubt",
            evidence="Reasoning slip: most published code draws inside the function, with randn_like.",
        ),
    ),
    correct_alternatives=(
        lambda mean, log_variance, noise: mean + log_variance.exp().sqrt() * noise,
        lambda mean, log_variance, noise: torch.addcmul(mean, torch.exp(0.5 * log_variance), noise),
    ),
)


# --- KL --------------------------------------------------------------------------------------------------


def _kl_cases(seed: int) -> list[Case]:
    dice = torch.Generator().manual_seed(seed)
    small = (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    return [Case(*small), Case(*torch.randn(2, 3, 2, 2, generator=dice))]


def _kl_oracle(mean: Tensor, log_variance: Tensor) -> Tensor:
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    return theirs.flatten(1).sum(1)


def _each(mean, log_variance):
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).flatten(1)


def _kl_averaged(mean, log_variance):
    return _each(mean, log_variance).mean(1)


def _kl_over_the_batch(mean, log_variance):
    return _each(mean, log_variance).sum()


def _kl_reversed(mean, log_variance):
    variance = log_variance.exp()
    return 0.5 * ((1 + mean**2) / variance + log_variance - 1).flatten(1).sum(1)


def _kl_in_bits(mean, log_variance):
    return _each(mean, log_variance).sum(1) / math.log(2)


def _kl_without_the_log(mean, log_variance):
    return 0.5 * (mean**2 + log_variance.exp() - 1).flatten(1).sum(1)


def _kl_twice(mean, log_variance):
    return 2 * _each(mean, log_variance).sum(1)


def _kl_negative(mean, log_variance):
    return -_each(mean, log_variance).sum(1)


KL = Exercise(
    id="latents.kl",
    chapter=CHAPTER,
    title="What a latent costs",
    minutes=10,
    difficulty=2,
    reference=kl_to_standard_normal,
    oracle=_kl_oracle,
    cases=_kl_cases,
    hints=Hints(
        "What is the KL of a standard normal from a standard normal? Is yours 0 there?",
        "Write the four terms for one number first; then ask over which axes to add.",
        "1/2 sum (mean^2 + s^2 - log s^2 - 1), for each sample",
    ),
    misconceptions=(
        Misconception(
            id="averaged",
            title="a mean over the latent's numbers where a sum is meant: beta changes with the size",
            wrong=_kl_averaged,
            hints=Hints(
                "Two independent numbers cost 1 nat each. What do they cost together?",
                "The last reduction.",
                "independent costs add up",
            ),
            section="What the latents cost",
            evidence=(
                "keras-team/keras-io issue 270, podgorskiy/VAE issue 1 and maxhodak/keras-molecules issue 59:"
                " a mean over the latent's numbers, and questions whether it should be a sum."
            ),
        ),
        Misconception(
            id="over_the_batch",
            title="one sum over everything: the samples of the batch are added up, too",
            wrong=_kl_over_the_batch,
            hints=Hints(
                "How many numbers should come out for three samples?",
                "flatten(1), or the axes of your sum.",
                "one sum for each sample",
            ),
            section="What the latents cost",
            evidence=(
                "wiseodd/generative-models issue 40: one sum over everything, or one for each sample?"
                " torch.sum without an axis adds the batch as well."
            ),
        ),
        Misconception(
            id="reversed",
            title="the other direction: KL of the standard normal from the posterior",
            wrong=_kl_reversed,
            hints=Hints(
                "Which of the two distributions are the samples drawn from in training?",
                "Is there a division by the variance in your formula?",
                "KL(q || N(0, 1)) has mean^2 + s^2; the other direction has (1 + mean^2) / s^2",
            ),
            section="What the latents cost",
            evidence=(
                "Reasoning slip: KL is not symmetric; `torch.nn.functional.kl_div` takes its arguments in the"
                " order (input, target) and computes KL(target || input), which its page warns about."
            ),
        ),
        Misconception(
            id="in_bits",
            title="bits, where nats are asked for: the logarithm has another base",
            wrong=_kl_in_bits,
            hints=Hints(
                "By what factor is your answer too large?",
                "Look for a 0.693 or a log2.",
                "natural logarithms give nats; 1 nat = 1.443 bits",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: rates are reported in bits per dimension and losses in nats.",
        ),
        Misconception(
            id="without_the_log",
            title="the log variance is missing: a narrow posterior would cost nothing",
            wrong=_kl_without_the_log,
            hints=Hints(
                "What should a posterior of almost no width cost?",
                "Count your terms: there are four.",
                "mean^2 + s^2 - log s^2 - 1",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: only the squared length of the code is paid for, as in weight decay.",
        ),
        Misconception(
            id="twice",
            title="the factor one half is missing",
            wrong=_kl_twice,
            hints=Hints(
                "For mean 1 and width 1 the KL is 0.5. What is yours?",
                "The factor in front.",
                "1/2 sum (...)",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: the half belongs to both the square and the logarithm and gets lost.",
        ),
        Misconception(
            id="negative",
            title="the sign: this is what is added to the evidence lower bound, and a KL is never negative",
            wrong=_kl_negative,
            hints=Hints(
                "Can a KL divergence be below zero?",
                "All four signs.",
                "mean^2 + s^2 - log s^2 - 1 is never negative",
            ),
            section="What the latents cost",
            evidence=(
                "Kingma and Welling 2014, appendix B, print -KL = 1/2 sum (1 + log s^2 - mean^2 - s^2), which"
                " is often copied without its minus."
            ),
        ),
    ),
    correct_alternatives=(
        lambda mean, log_variance: _kl_oracle(mean, log_variance),
        lambda mean, log_variance: (
            -0.5 * (1 + log_variance - mean**2 - torch.exp(log_variance)).reshape(len(mean), -1).sum(-1)
        ),
    ),
)


# --- PSNR ------------------------------------------------------------------------------------------------


def _psnr_cases(seed: int) -> list[Case]:
    dice = torch.Generator().manual_seed(seed)
    small = (torch.tensor([[0.5, -0.5]]), torch.tensor([[0.4, -0.2]]))
    x = torch.rand(2, 3, 4, 4, generator=dice) * 2 - 1
    strength = torch.tensor([0.02, 0.3]).view(2, 1, 1, 1)  # one picture good, one poor
    return [Case(*small), Case(x, x + strength * torch.randn(x.shape, generator=dice))]


def _psnr_oracle(x: Tensor, target: Tensor) -> Tensor:
    """By 8-bit values, whose peak is 255."""
    error = torch.nn.functional.mse_loss(127.5 * x.double(), 127.5 * target.double())
    return torch.tensor(20 * math.log10(255) - 10 * math.log10(error.item()))


def _psnr_peak_one(x, target):
    return 10 * torch.log10(1 / (x - target).square().mean())


def _psnr_peak_255(x, target):
    return 10 * torch.log10(255**2 / (x - target).square().mean())


def _psnr_natural(x, target):
    return 10 * torch.log(4 / (x - target).square().mean())


def _psnr_root(x, target):
    return 10 * torch.log10(4 / (x - target).square().mean().sqrt())


def _psnr_of_each(x, target):
    return (10 * torch.log10(4 / (x - target).square().flatten(1).mean(1))).mean()


def _psnr_peak_not_squared(x, target):
    return 10 * torch.log10(2 / (x - target).square().mean())


def _psnr_of_the_sum(x, target):
    return 10 * torch.log10(4 / (x - target).square().sum())


def _psnr_upside_down(x, target):
    return 10 * torch.log10((x - target).square().mean() / 4)


PSNR = Exercise(
    id="latents.psnr",
    chapter=CHAPTER,
    title="Decibels of a reconstruction",
    minutes=8,
    difficulty=1,
    reference=psnr,
    oracle=_psnr_oracle,
    cases=_psnr_cases,
    properties=(
        Property(
            "a tenth of the error is worth 20 dB",
            lambda f: (
                abs(
                    float(f(torch.full((1, 4), 0.01), torch.zeros(1, 4)))
                    - float(f(torch.full((1, 4), 0.1), torch.zeros(1, 4)))
                    - 20
                )
                < 1e-3
            ),
        ),
    ),
    hints=Hints(
        "Values run from -1 to 1. How far apart can two of them be?",
        "The number that is divided by the mean squared error.",
        "10 log10(peak^2 / MSE), the peak being the whole range: 2",
    ),
    misconceptions=(
        Misconception(
            id="peak_one",
            title="the peak is taken as 1, as for values in [0, 1]: 6 dB too low",
            wrong=_psnr_peak_one,
            hints=Hints(
                "What is the largest possible difference of two pixels here?",
                "The numerator.",
                "the range of [-1, 1] is 2, its square 4",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: libraries' default is a range of 1, or of the data's type.",
        ),
        Misconception(
            id="peak_255",
            title="the peak of 8-bit values with pixels in [-1, 1]: 42 dB too high",
            wrong=_psnr_peak_255,
            hints=Hints(
                "Are your pixels between 0 and 255?",
                "The numerator.",
                "the peak is in the units of the pixels",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: the formula of image compression, where pixels are bytes.",
        ),
        Misconception(
            id="natural",
            title="a natural logarithm: decibels are tenths of powers of ten",
            wrong=_psnr_natural,
            hints=Hints(
                "How many dB is a factor of 100 in the squared error?",
                "The logarithm: `torch.log` is natural.",
                "10 log10(...)",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: `log` is natural in torch and numpy, and decimal on paper.",
        ),
        Misconception(
            id="root",
            title="the root of the squared error with the square of the peak",
            wrong=_psnr_root,
            hints=Hints(
                "Ten times less error: by how much does your answer rise?",
                "Numerator and denominator: both squared, or neither.",
                "10 log10(peak^2 / MSE) = 20 log10(peak / RMSE)",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: the two forms of the formula mixed.",
        ),
        Misconception(
            id="of_each",
            title="a mean of the pictures' decibels, where the error is to be averaged first",
            wrong=_psnr_of_each,
            hints=Hints(
                "One perfect picture has infinitely many dB. What is your mean then?",
                "What is averaged: errors or logarithms?",
                "average the squared error over everything, then take the logarithm once",
            ),
            section="What the latents cost",
            evidence=(
                "Both conventions are in use and differ: so a number needs to say which it is."
                " Ours is fixed in `sora_edu.autoencoder.psnr`."
            ),
        ),
        Misconception(
            id="peak_not_squared",
            title="the range is not squared: 2 over the squared error",
            wrong=_psnr_peak_not_squared,
            hints=Hints(
                "The error is squared. What has to be its companion?",
                "What is divided by the mean squared error.",
                "10 log10(range^2 / mean squared error), with range^2 = 4",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: 20 log10(range / root) rewritten with 10, and the square forgotten.",
        ),
        Misconception(
            id="of_the_sum",
            title="the squared errors are summed and not averaged: larger pictures look worse",
            wrong=_psnr_of_the_sum,
            hints=Hints(
                "Should a picture of twice the size with the same error per pixel score less?",
                "The reduction.",
                "the mean squared error, over all values",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: the chapter's loss sums over a picture, and PSNR averages.",
        ),
        Misconception(
            id="upside_down",
            title="the fraction is upside down: better pictures get lower numbers",
            wrong=_psnr_upside_down,
            hints=Hints(
                "Should a smaller error give more decibels, or fewer?",
                "What stands above the fraction's line.",
                "signal over noise: 4 / mean squared error",
            ),
            section="What the latents cost",
            evidence="Reasoning slip: a logarithm of the error itself, without turning the sign.",
        ),
    ),
    correct_alternatives=(
        lambda x, target: 20 * torch.log10(2 / (x - target).square().mean().sqrt()),
        lambda x, target: -10 * torch.log10(((x - target) / 2).square().mean()),
    ),
)


# --- scale factor ----------------------------------------------------------------------------------------


def _scale_cases(seed: int) -> list[Case]:
    dice = torch.Generator().manual_seed(seed)
    small = torch.tensor([[[[1.0, 3.0]], [[10.0, 14.0]]]])
    channels = torch.tensor([0.5, 2.0, 6.0]).view(1, 3, 1, 1)
    noise = torch.randn(4, 3, 3, 2, generator=dice)
    return [Case(small), Case(channels * noise + 1.5), Case(0.1 * noise)]


def _scale_oracle(latents: Tensor) -> Tensor:
    return torch.tensor(1 / np.std(latents.numpy().astype(float), ddof=1))


def _std_itself(latents):
    return latents.std()


def _one_over_variance(latents):
    return 1 / latents.var()


def _about_zero(latents):
    return 1 / latents.square().mean().sqrt()


def _mean_of_channel_factors(latents):
    return (1 / latents.std(dim=(0, 2, 3))).mean()


def _largest(latents):
    return 1 / latents.abs().max()


SCALE = Exercise(
    id="latents.scale_factor",
    chapter=CHAPTER,
    title="The number 0.18215",
    minutes=6,
    difficulty=1,
    reference=scale_factor,
    oracle=_scale_oracle,
    cases=_scale_cases,
    properties=(
        Property(
            "latents times the factor have a standard deviation of 1",
            lambda f: (
                abs(float((f(torch.arange(8.0).view(1, 2, 2, 2)) * torch.arange(8.0)).std()) - 1) < 1e-4
            ),
        ),
    ),
    hints=Hints(
        "Latents are MULTIPLIED by the factor. If they are 5.5 wide, what should it be?",
        "One number for all channels.",
        "1 / std, over every number of the latents",
    ),
    misconceptions=(
        Misconception(
            id="std_itself",
            title="the standard deviation itself: multiplied by it, wide latents become wider",
            wrong=_std_itself,
            hints=Hints(
                "Latents of width 5, times your factor: how wide are they?",
                "Multiply or divide?",
                "encode: times the factor; decode: divided by it; so the factor is 1 / std",
            ),
            section="The number 0.18215",
            evidence=(
                "apapiu/transformer_latent_diffusion divides by its scale_factor of 8 and Stable Diffusion"
                " multiplies by 0.18215; Project-MONAI/GenerativeModels pull request 214 mends a missing"
                " division before decoding."
            ),
        ),
        Misconception(
            id="one_over_variance",
            title="one over the variance",
            wrong=_one_over_variance,
            hints=Hints(
                "Latents of width 5, times 1/25: how wide?",
                "`var` or `std`?",
                "a factor c changes the variance by c^2",
            ),
            section="The number 0.18215",
            evidence="Reasoning slip: to divide by the variance makes unit width only where it was 1.",
        ),
        Misconception(
            id="about_zero",
            title="the root mean square: the distance from zero, and not from the mean",
            wrong=_about_zero,
            hints=Hints(
                "Latents that are all 7 have which standard deviation?",
                "Is the mean taken off before you square?",
                "std^2 = mean of (z - mean z)^2",
            ),
            section="The number 0.18215",
            evidence="Reasoning slip: the mean is small for most autoencoders, so the two nearly agree.",
        ),
        Misconception(
            id="mean_of_channel_factors",
            title="one factor for each channel, and then their mean",
            wrong=_mean_of_channel_factors,
            hints=Hints(
                "Channels of width 1 and 100: what is the mean of your two factors good for?",
                "The axes of the standard deviation.",
                "one standard deviation over all numbers, whatever their channel",
            ),
            section="The number 0.18215",
            evidence=(
                "Video autoencoders do keep a mean and a deviation for each channel (ours of chapter 09 too);"
                " a single factor is no mean of those."
            ),
        ),
        Misconception(
            id="largest",
            title="one over the largest value, as pixels are normalised",
            wrong=_largest,
            hints=Hints(
                "What does one outlier do to your factor?",
                "max or std?",
                "noise has unit standard deviation, not a largest value",
            ),
            section="The number 0.18215",
            evidence="Reasoning slip: min-max scaling carried over from pixels.",
        ),
    ),
    correct_alternatives=(
        lambda latents: (latents - latents.mean()).square().sum().div(latents.numel() - 1).rsqrt(),
        lambda latents: latents.flatten().var() ** -0.5,
    ),
)


# --- MACs ------------------------------------------------------------------------------------------------


def _macs_cases(seed: int) -> list[Case]:
    rng = random.Random(seed)
    drawn = [
        Case(rng.randint(5, 300), rng.choice([16, 48, 192]), rng.choice([32, 96]), rng.randint(2, 9))
        for _ in range(3)
    ]
    return [Case(4, 3, 2, 1), *drawn]


def _macs_oracle(tokens: int, numbers: int, width: int, depth: int) -> int:
    """Off a real network of that size: every matrix once for each token, and attention's two products."""
    with torch.device("meta"):
        ends = nn.Linear(numbers, width), nn.Linear(width, numbers)
        block = Block(width, 1)
    matrices = [
        weight.numel()
        for part in (*ends, *[block] * depth)
        for weight in part.parameters()
        if weight.ndim == 2
    ]
    scores, values = tokens * tokens * width, tokens * tokens * width
    return tokens * sum(matrices) + depth * (scores + values)


def _macs_as_flops(tokens, numbers, width, depth):
    return 2 * denoiser_macs(tokens, numbers, width, depth)


def _without_attention_products(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) - 2 * depth * tokens**2 * width


def _attention_once(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) - depth * tokens**2 * width


def _parameters(tokens, numbers, width, depth):
    return 2 * numbers * width + 12 * depth * width**2


def _one_way_in(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) - tokens * numbers * width


def _mlp_half(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) - 4 * depth * tokens * width**2


def _one_block(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, 1)


def _mlp_wide_to_wide(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) + 24 * depth * tokens * width**2


def _without_ends(tokens, numbers, width, depth):
    return denoiser_macs(tokens, numbers, width, depth) - 2 * tokens * numbers * width


MACS = Exercise(
    id="latents.denoiser_macs",
    chapter=CHAPTER,
    title="What a token costs",
    minutes=12,
    difficulty=2,
    reference=denoiser_macs,
    oracle=_macs_oracle,
    cases=_macs_cases,
    hints=Hints(
        "A linear layer from a to b channels on n tokens: how many multiplications?",
        "Per block: four projections, two products with tokens^2, an MLP that widens four times.",
        "2 n p d + L (12 n d^2 + 2 n^2 d), with p numbers in a token",
    ),
    misconceptions=(
        Misconception(
            id="as_flops",
            title="a multiplication and an addition counted as two: that is FLOPs, and MACs are asked for",
            wrong=_macs_as_flops,
            hints=Hints(
                "By what factor are you off?",
                "A multiply-add is one MAC.",
                "MACs = FLOPs / 2",
            ),
            section="Where the computing goes",
            evidence="facebookresearch/DiT issues 14 and 67: Gflops in the paper are multiply-adds.",
        ),
        Misconception(
            id="without_attention_products",
            title="only the layers with weights are counted; attention also multiplies tokens with tokens",
            wrong=_without_attention_products,
            hints=Hints(
                "Which products in attention have no weights?",
                "Q K^T and the weighted sum of V.",
                "2 n^2 d for each block",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: counting parameters times tokens, as the rule 6 N D does.",
        ),
        Misconception(
            id="attention_once",
            title="the scores are counted, the weighted sum of the values is not",
            wrong=_attention_once,
            hints=Hints(
                "After the softmax: what is still to be multiplied?",
                "The terms with tokens^2: there are two.",
                "n^2 d for Q K^T and n^2 d for the sum over V",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: attention is remembered as its n by n matrix of scores.",
        ),
        Misconception(
            id="parameters",
            title="these are the weights: each of them is used once for every token",
            wrong=_parameters,
            hints=Hints(
                "Does your answer change with the number of tokens?",
                "Where does `tokens` appear?",
                "weights x tokens, and the products of attention",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: a model is known by its size, so that is given for its work.",
        ),
        Misconception(
            id="one_way_in",
            title="tokens are embedded and never turned back: the last layer is missing",
            wrong=_one_way_in,
            hints=Hints(
                "What does the network give back, and how wide is that?",
                "The two ends.",
                "2 n p d: n p d in and n p d out",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: a classifier's count, whose last layer sees a single vector.",
        ),
        Misconception(
            id="mlp_half",
            title="one layer of the MLP is missing: it widens and narrows again",
            wrong=_mlp_half,
            hints=Hints(
                "How many matrices does an MLP have?",
                "The factor of n d^2 in a block.",
                "4 for attention's projections, 4 + 4 for the MLP: 12",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: 4 d^2 for the MLP, counted once for both its layers.",
        ),
        Misconception(
            id="one_block",
            title="one block is counted, and not `depth` of them",
            wrong=_one_block,
            hints=Hints(
                "Does your count change with the depth?",
                "What multiplies a block's cost.",
                "the ends once, a block `depth` times",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: a block is worked out on paper and put in as it is.",
        ),
        Misconception(
            id="mlp_wide_to_wide",
            title="the MLP is counted with matrices of 4 width x 4 width",
            wrong=_mlp_wide_to_wide,
            hints=Hints(
                "How many numbers enter the first layer of the MLP, and how many leave it?",
                "The two terms of the MLP.",
                "width x 4 width there, 4 width x width back: 8 width^2 a token",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: the hidden width is taken for both sides of both matrices.",
        ),
        Misconception(
            id="without_ends",
            title="the two ends are left out: numbers to the width, and back",
            wrong=_without_ends,
            hints=Hints(
                "Does your count change with `numbers`?",
                "What comes before the first block, and after the last.",
                "2 tokens x numbers x width for the ends",
            ),
            section="Where the computing goes",
            evidence="Reasoning slip: tables of transformer costs list blocks alone.",
        ),
    ),
    correct_alternatives=(
        lambda tokens, numbers, width, depth: (
            2 * tokens * numbers * width + depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
        ),
        lambda tokens, numbers, width, depth: (
            tokens * (2 * numbers * width + depth * (8 * width**2)) + depth * attention_macs(tokens, width)
        ),
    ),
)


EXERCISES = (SAMPLE, KL, PSNR, SCALE, MACS)
