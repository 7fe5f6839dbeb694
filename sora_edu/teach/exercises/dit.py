"""Exercises of chapter 07: time, adaptive norms, the adaLN-Zero block, its cost, dropped labels, guidance."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sora_edu.diffusion import guided
from sora_edu.dit import modulate, time_embedding
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

CHAPTER = "07_diffusion_transformer"


# --- time_embedding --------------------------------------------------------------------------------------


def _time_cases(seed: int) -> list[Case]:
    times = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    return [Case(torch.tensor([0.0, 0.001]), 4), Case(times, 6), Case(torch.tensor([0.25, 1.0]), 256)]


def _time_oracle(t: Tensor, dim: int = 256) -> Tensor:
    """Powers of one complex number for each frequency: real parts are cosines, imaginary parts sines."""
    half = dim // 2
    turned = [
        [math.e ** (1000j * moment * 10000 ** (-i / half)) for i in range(half)] for moment in t.tolist()
    ]
    return torch.tensor([[z.real for z in row] + [z.imag for z in row] for row in turned])


def _angles(t, dim, *, scale=1000.0, divisor=None):
    half = dim // 2
    speeds = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / (divisor or half))
    return scale * t.double()[:, None] * speeds


def _both(angles, order=("cos", "sin")):
    return torch.cat([getattr(angles, name)() for name in order], dim=-1).float()


def _sines_first(t, dim=256):
    return _both(_angles(t, dim), ("sin", "cos"))


def _half_less_one(t, dim=256):
    return _both(_angles(t, dim, divisor=dim // 2 - 1))


def _not_thousandfold(t, dim=256):
    return _both(_angles(t, dim, scale=1.0))


def _thousandfold_twice(t, dim=256):
    return _both(_angles(t, dim, scale=1e6))


def _divided_by_dim(t, dim=256):
    return _both(_angles(t, dim, divisor=dim))


def _interleaved(t, dim=256):
    angles = _angles(t, dim)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1).float()


def _time_column_by_column(t, dim=256):
    columns = []
    for wave in (torch.cos, torch.sin):
        for i in range(dim // 2):
            columns.append(wave(1000 * t.double() / 10000 ** (2 * i / dim)))
    return torch.stack(columns, dim=-1).float()


def _speeding_up(t, dim=256):
    half = dim // 2
    speeds = 10000.0 ** (torch.arange(half, dtype=torch.float64) / half)
    return _both(1000 * t.double()[:, None] * speeds)


def _single_precision_out(embed) -> bool:
    return embed(torch.tensor([0.5]), 4).dtype == torch.float32


TIME_EMBEDDING = Exercise(
    id="dit.time_embedding",
    chapter=CHAPTER,
    title="Tell it how noisy",
    minutes=10,
    difficulty=2,
    reference=time_embedding,
    oracle=_time_oracle,
    cases=_time_cases,
    tolerance=1e-4,
    properties=(Property("what comes out is float32, as the network's weights are", _single_precision_out),),
    hints=Hints(
        "How many frequencies are there, and what are the first and the last?",
        "The exponent: i runs from 0 to dim/2 - 1 and is divided by dim/2.",
        "cos(1000 t w_i), then sin(1000 t w_i), with w_i = 10000^(-i / (dim/2))",
    ),
    misconceptions=(
        Misconception(
            id="sines_first",
            title="sines first, then cosines; a DiT has the cosines in front",
            wrong=_sines_first,
            hints=Hints(
                "What is your embedding of t = 0? Which half of it should be ones?",
                "The order inside torch.cat.",
                "[cos(1000 t w), sin(1000 t w)]",
            ),
            section="Tell it how noisy",
            evidence=(
                "flashinfer-ai/flashinfer pull request 3819: the halves were swapped; released weights still"
                " ran, 37 per cent off, and the prompt's composition was lost."
            ),
        ),
        Misconception(
            id="half_less_one",
            title="the frequencies are spread over half - 1 steps, so that the last is exactly 1/10000",
            wrong=_half_less_one,
            hints=Hints(
                "With dim = 4 there are two frequencies. What should the second one be?",
                "The divisor in the exponent.",
                "w_i = 10000^(-i / half), for i = 0 .. half - 1",
            ),
            section="Tell it how noisy",
            evidence=(
                "hojonathanho/diffusion issue 15 asks why DDPM's code divides by half - 1;"
                " kohya-ss/sd-scripts pull request 1187 takes out that shift, which had been set by accident"
                " where the weights expect none."
            ),
        ),
        Misconception(
            id="not_thousandfold",
            title="t in [0, 1] is used as it is: all embeddings come out nearly alike",
            wrong=_not_thousandfold,
            hints=Hints(
                "How far does the fastest cosine turn between t = 0 and t = 1?",
                "The frequencies were chosen for steps 0 to 999.",
                "the angle is 1000 t w_i",
            ),
            section="Tell it how noisy",
            evidence=(
                "willisma/SiT issue 24 and sihyun-yu/REPA issue 40: released models that feed t in [0, 1] to"
                " frequencies made for whole steps, unintended."
            ),
        ),
        Misconception(
            id="thousandfold_twice",
            title="t is multiplied by 1000 twice",
            wrong=_thousandfold_twice,
            hints=Hints(
                "What number does your fastest cosine see for t = 1?",
                "Every place in your code that multiplies by 1000.",
                "the angle is 1000 t w_i, and 1000 at most",
            ),
            section="Tell it how noisy",
            evidence=(
                "stepfun-ai/Step1X-Edit issue 91: one caller multiplied by 1000 and the layer did it again,"
                " up to a million."
            ),
        ),
        Misconception(
            id="divided_by_dim",
            title="the exponent is divided by dim and not by dim/2: the slow half of the clocks is missing",
            wrong=_divided_by_dim,
            hints=Hints(
                "What is your slowest frequency? What should it be, nearly?",
                "i counts pairs here, not channels.",
                "w_i = 10000^(-i / (dim/2)), the same as 10000^(-2i / dim)",
            ),
            section="Tell it how noisy",
            evidence=(
                "Reasoning slip: chapter 02's formula has 2i/d, and the 2 is lost where i counts the"
                " frequencies."
            ),
        ),
        Misconception(
            id="interleaved",
            title="cosines and sines alternate, as in chapter 02; here they stand in two halves",
            wrong=_interleaved,
            hints=Hints(
                "What is your embedding of t = 0? Where are its ones?",
                "stack and flatten, or cat?",
                "all cosines, then all sines",
            ),
            section="Tell it how noisy",
            evidence=(
                "facebookresearch/DiT issue 78 and huggingface/diffusers issue 3981: readers expect the"
                " interleaved order of the transformer's paper."
            ),
        ),
        Misconception(
            id="speeding_up",
            title="the exponent has lost its minus: the clocks get faster and faster",
            wrong=_speeding_up,
            hints=Hints(
                "Which of your frequencies is the slowest, and how slow should it be?",
                "The sign in the exponent.",
                "w_i = 10000^(-i / half), from 1 down to nearly 1/10000",
            ),
            section="Tell it how noisy",
            evidence=(
                "Reasoning slip: 1 / 10000^(i / half) written as a power, without turning the sign of"
                " the exponent."
            ),
        ),
    ),
    correct_alternatives=(_time_oracle, _time_column_by_column),
    equivalent_mutants={"-1 -> 1": "for times of shape (b,) the last of two axes is axis 1"},
)


# --- modulate --------------------------------------------------------------------------------------------


def _modulate_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)

    def case(b, n, d, size=1.0):
        x = size * torch.randn(b, n, d, generator=noise)
        return Case(x, torch.randn(b, 1, d, generator=noise), torch.randn(b, 1, d, generator=noise))

    small = Case(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 2.0]]]))
    return [small, case(2, 3, 4), case(2, 2, 5, size=1e-3)]


def _modulate_oracle(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """torch's LayerNorm with weights, a sample at a time: weight 1 + scale, bias shift."""
    samples = zip(x, shift, scale, strict=True)
    return torch.stack([F.layer_norm(s, s.shape[-1:], 1 + c[0], b[0], 1e-6) for s, b, c in samples])


def _norm(x, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def _scale_alone(x, shift, scale):
    return _norm(x) * scale + shift


def _shift_and_scale_swapped(x, shift, scale):
    return modulate(x, scale, shift)


def _not_normalised(x, shift, scale):
    return x * (1 + scale) + shift


def _shift_scaled_too(x, shift, scale):
    return (_norm(x) + shift) * (1 + scale)


def _normalised_last(x, shift, scale):
    return _norm(x * (1 + scale) + shift)


def _normalised_again(x, shift, scale):
    return _norm(modulate(x, shift, scale))


def _default_eps(x, shift, scale):
    return _norm(x, eps=1e-5) * (1 + scale) + shift


def _modulate_by_moments(x, shift, scale):
    centred = x - x.mean(-1, keepdim=True)
    unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return unit + scale * unit + shift


def _sample_std(x, shift, scale):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (x.var(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift


def _brackets_forgotten(x, shift, scale):
    return 1 + scale * _norm(x) + shift


MODULATE = Exercise(
    id="dit.modulate",
    chapter=CHAPTER,
    title="Turn the knobs of the norm",
    minutes=8,
    difficulty=1,
    reference=modulate,
    oracle=_modulate_oracle,
    cases=_modulate_cases,
    tolerance=1e-4,
    properties=(
        Property(
            "with shift and scale 0 it is the plain norm",
            lambda f: torch.allclose(
                f(torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)),
                torch.tensor([[[-1.0, 1.0]]]),
                atol=1e-4,
            ),
        ),
    ),
    hints=Hints(
        "What should come out if shift and scale are both zero?",
        "Normalise first (F.layer_norm, eps=1e-6, no weights), then scale, then shift.",
        "(1 + scale) LN(x) + shift",
    ),
    misconceptions=(
        Misconception(
            id="scale_alone",
            title="the norm is multiplied by scale and not by 1 + scale: with scale 0 nothing is left of x",
            wrong=_scale_alone,
            hints=Hints(
                "What is left of x if scale is zero, as it is at the start of training?",
                "The factor in front of the norm.",
                "1 + scale: zero means 'leave it as it is'",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "XPixelGroup/BasicSR issue 225 asks why (scale + 1) and not scale; NVIDIA/TransformerEngine"
                " issue 789 has to warn which of the two is meant."
            ),
        ),
        Misconception(
            id="shift_and_scale_swapped",
            title="shift and scale have changed places",
            wrong=_shift_and_scale_swapped,
            hints=Hints(
                "Which of your two vectors is added, and which multiplies?",
                "The order of the arguments: shift comes first.",
                "(1 + scale) LN(x) + shift",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "huggingface/diffusers issue 10198 and invoke-ai/InvokeAI pull request 7708: FLUX stores"
                " shift, scale where the library stores scale, shift; weights must be swapped when converted."
            ),
        ),
        Misconception(
            id="not_normalised",
            title="the tokens are modulated without being normalised",
            wrong=_not_normalised,
            hints=Hints(
                "Multiply x by 1000. Should the result change much?",
                "Where does LN stand in your code?",
                "(1 + scale) LN(x) + shift",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "Reasoning slip: the release's `modulate` holds no norm, its callers normalise; the line"
                " copied alone loses it. That is FiLM, for which ParamThakkar123/torchwm issue 134 mistakes"
                " adaLN."
            ),
        ),
        Misconception(
            id="shift_scaled_too",
            title="the shift is added before the scaling, and scaled with it",
            wrong=_shift_scaled_too,
            hints=Hints(
                "With LN(x) = 0, scale 1 and shift 1, what should come out?",
                "The brackets.",
                "(1 + scale) LN(x) + shift: scale first",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "Reasoning slip: 'shift, scale' is the order in which the numbers are stored, and is taken"
                " for the order in which they act."
            ),
        ),
        Misconception(
            id="normalised_last",
            title="tokens are scaled before they are normalised, so the norm changes what was asked for",
            wrong=_normalised_last,
            hints=Hints(
                "What are mean and variance of your result? Did the condition leave a trace in them?",
                "The order of norm and modulation.",
                "(1 + scale) LN(x) + shift",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "Reasoning slip: a norm undoes a shift and a scale that are common to all channels; the deck"
                " lists the condition's 'mean, std' as if they were put in before it."
            ),
        ),
        Misconception(
            id="normalised_again",
            title="it is normalised once more after the modulation",
            wrong=_normalised_again,
            hints=Hints(
                "How many norms are there in your code, or in the layers that you call?",
                "What comes after the shift?",
                "(1 + scale) LN(x) + shift, and nothing more",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "lucas-maes/le-wm issues 18 and 46: a second LayerNorm opens the attention and the MLP, right"
                " behind the modulation."
            ),
        ),
        Misconception(
            id="default_eps",
            title="the norm has torch's default eps of 1e-5; a DiT has 1e-6",
            wrong=_default_eps,
            hints=Hints(
                "On which case are you wrong: the one with very small numbers?",
                "The arguments of the norm.",
                "LN(x) = (x - mean) / sqrt(var + 1e-6)",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "ml-explore/mlx-examples issue 1435: a default of 1e-5 where the weights were trained with"
                " 1e-6, small and in every block; karpathy/makemore issue 1 asks about the same two."
            ),
        ),
        Misconception(
            id="sample_std",
            title="the variance is divided by d - 1, as torch does by default; a norm divides by d",
            wrong=_sample_std,
            hints=Hints(
                "What is the variance of (1, 3), once divided by 2 and once by 1?",
                "The arguments of std or var.",
                "v = 1/d sum (x_i - mean)^2: var(correction=0)",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence=(
                "Reasoning slip: hand-written norms meet the default of d - 1; chapter 04 names the same"
                " slip."
            ),
        ),
        Misconception(
            id="brackets_forgotten",
            title="1 + scale * norm: the 1 is added to the result and not to the scale",
            wrong=_brackets_forgotten,
            hints=Hints(
                "With shift and scale 0, what comes out of yours?",
                "The brackets around 1 + scale.",
                "(1 + scale) LN(x) + shift",
            ),
            section="adaLN: turn the knobs of the norm",
            evidence="Reasoning slip: precedence; the product binds closer than the sum.",
        ),
    ),
    correct_alternatives=(_modulate_oracle, _modulate_by_moments),
)


# --- adaln_zero_block ------------------------------------------------------------------------------------


def six(condition: Tensor) -> tuple[Tensor, ...]:
    """A stand-in for the modulation in the cases: the condition holds the six parts already."""
    return condition.chunk(6, dim=-1)


def with_mean(x: Tensor) -> Tensor:
    """A stand-in for attention in the cases: every token gets the mean of all."""
    return x + x.mean(dim=1, keepdim=True)


def bent(x: Tensor) -> Tensor:
    """A stand-in for the MLP in the cases."""
    return 2 * torch.sin(x) + 1


def adaln_zero_block(x, condition, modulation, attention, mlp):
    """One block: tokens (b, n, d) and a condition (b, 1, c) in, tokens out."""
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = x + gate1 * attention(modulate(x, shift1, scale1))
    return x + gate2 * mlp(modulate(x, shift2, scale2))


def _block_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    small = Case(
        torch.tensor([[[1.0, 3.0]]]), torch.linspace(-1, 1.2, 12).view(1, 1, 12), six, with_mean, bent
    )
    x, condition = torch.randn(2, 3, 4, generator=noise), torch.randn(2, 1, 24, generator=noise)
    return [small, Case(x, condition, six, with_mean, bent), Case(x, condition, six, bent, with_mean)]


def _block_oracle(x, condition, modulation, attention, mlp):
    """torch's LayerNorm with weights of its own, made anew for each sample."""
    parts = torch.stack(modulation(condition))[:, :, 0]  # six b d
    for layer, (shift, scale, gate) in ((attention, parts[:3]), (mlp, parts[3:])):
        ready = torch.stack(
            [
                F.layer_norm(sample, sample.shape[-1:], 1 + c, b, 1e-6)
                for sample, b, c in zip(x, shift, scale, strict=True)
            ]
        )
        x = torch.addcmul(x, gate[:, None], layer(ready))
    return x


def _gates_forgotten(x, condition, modulation, attention, mlp):
    shift1, scale1, _, shift2, scale2, _ = modulation(condition)
    x = x + attention(modulate(x, shift1, scale1))
    return x + mlp(modulate(x, shift2, scale2))


def _gate_on_the_sum(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = gate1 * (x + attention(modulate(x, shift1, scale1)))
    return gate2 * (x + mlp(modulate(x, shift2, scale2)))


def _gate_before_the_layer(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = x + attention(gate1 * modulate(x, shift1, scale1))
    return x + mlp(gate2 * modulate(x, shift2, scale2))


def _one_plus_gate(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = x + (1 + gate1) * attention(modulate(x, shift1, scale1))
    return x + (1 + gate2) * mlp(modulate(x, shift2, scale2))


def _gate_through_sigmoid(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = x + gate1.sigmoid() * attention(modulate(x, shift1, scale1))
    return x + gate2.sigmoid() * mlp(modulate(x, shift2, scale2))


def _stream_replaced(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = modulate(x, shift1, scale1)
    x = x + gate1 * attention(x)
    x = modulate(x, shift2, scale2)
    return x + gate2 * mlp(x)


def _no_residual(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    x = gate1 * attention(modulate(x, shift1, scale1))
    return gate2 * mlp(modulate(x, shift2, scale2))


def _three_for_both(x, condition, modulation, attention, mlp):
    shift, scale, gate, *_ = modulation(condition)
    x = x + gate * attention(modulate(x, shift, scale))
    return x + gate * mlp(modulate(x, shift, scale))


def _by_kind(x, condition, modulation, attention, mlp):
    shift1, shift2, scale1, scale2, gate1, gate2 = modulation(condition)
    x = x + gate1 * attention(modulate(x, shift1, scale1))
    return x + gate2 * mlp(modulate(x, shift2, scale2))


def _side_by_side(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation(condition)
    looked = gate1 * attention(modulate(x, shift1, scale1))
    return x + looked + gate2 * mlp(modulate(x, shift2, scale2))


def _attention_twice(x, condition, modulation, attention, mlp):
    return adaln_zero_block(x, condition, modulation, attention, attention)


def _block_in_a_loop(x, condition, modulation, attention, mlp):
    parts = modulation(condition)
    for layer, start in ((attention, 0), (mlp, 3)):
        added = layer(modulate(x, parts[start], parts[start + 1]))
        x = x + parts[start + 2] * added
    return x


def _untouched_by_zeros(block) -> bool:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return torch.equal(block(x, torch.zeros(2, 1, 24), six, with_mean, bent), x)


def _shift_and_scale_traded(x, condition, modulation, attention, mlp):
    scale1, shift1, gate1, scale2, shift2, gate2 = modulation(condition)
    x = x + gate1 * attention(modulate(x, shift1, scale1))
    return x + gate2 * mlp(modulate(x, shift2, scale2))


def _mlp_not_told(x, condition, modulation, attention, mlp):
    shift1, scale1, gate1, _, _, gate2 = modulation(condition)
    x = x + gate1 * attention(modulate(x, shift1, scale1))
    return x + gate2 * mlp(_norm(x))


BLOCK = Exercise(
    id="dit.adaln_zero_block",
    chapter=CHAPTER,
    title="The adaLN-Zero block",
    minutes=15,
    difficulty=2,
    reference=adaln_zero_block,
    oracle=_block_oracle,
    cases=_block_cases,
    tolerance=1e-4,
    properties=(Property("a modulation of zeros leaves the tokens as they are", _untouched_by_zeros),),
    hints=Hints(
        "What should come out if all six parts are zero?",
        "Three parts are for attention, three for the MLP; each time shift, scale, gate.",
        "x += g1 Attn((1 + s1) LN(x) + b1); x += g2 MLP((1 + s2) LN(x) + b2)",
    ),
    misconceptions=(
        Misconception(
            id="gates_forgotten",
            title="there are no gates: that is adaLN, without the Zero",
            wrong=_gates_forgotten,
            hints=Hints(
                "What do you do with the third and the sixth part?",
                "What a layer returns, before it is added.",
                "x + gate * layer(…)",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "The deck behind this course says that adaLN-Zero differs from adaLN only in its"
                " initialisation; TencentQQGYLab/ELLA issue 51 asks which of the two a code is."
            ),
        ),
        Misconception(
            id="gate_on_the_sum",
            title="the gate multiplies the sum: at the start it wipes the tokens out",
            wrong=_gate_on_the_sum,
            hints=Hints(
                "What comes out of your block if the gate is zero? What should?",
                "The brackets around the residual.",
                "x + gate * layer(…), not gate * (x + layer(…))",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: 'gate before the skip' is read as a gate on the way that all tokens take."
            ),
        ),
        Misconception(
            id="gate_before_the_layer",
            title="the gate multiplies what goes into the layer; its biases still come out",
            wrong=_gate_before_the_layer,
            hints=Hints(
                "With gate 0, what does your layer return for an input of zeros?",
                "Move the gate outside the layer's brackets.",
                "gate * layer(modulated)",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: the gate is taken for one more factor of the modulation, like the scale;"
                " with a layer without biases it would pass unseen at the start."
            ),
        ),
        Misconception(
            id="one_plus_gate",
            title="1 + gate, as for the scale: the block starts with everything open",
            wrong=_one_plus_gate,
            hints=Hints(
                "What should a gate of zero let through?",
                "The factor of the layer's answer.",
                "x + gate * layer(…): a zero gate is closed",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: the 1 + of the scale is carried over. SWivid/F5-TTS issue 793 and"
                " MCG-NJU/DDT issue 14: codes that say Zero and start with open gates."
            ),
        ),
        Misconception(
            id="gate_through_sigmoid",
            title="the gate passes a sigmoid: it starts half open and can never close",
            wrong=_gate_through_sigmoid,
            hints=Hints(
                "What is sigmoid(0)?",
                "What happens to the gate before it multiplies?",
                "the gate is used as it is; it may be negative, too",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "lucidrains/transfusion-pytorch issue 43 asks why a sigmoid; facebookresearch/DiT issue 113"
                " proposes one."
            ),
        ),
        Misconception(
            id="stream_replaced",
            title="the modulated tokens replace the stream: the residual adds to the wrong thing",
            wrong=_stream_replaced,
            hints=Hints(
                "Does the x in `x + …` still hold what came into the block?",
                "The line that assigns the modulated tokens to x.",
                "x + gate * layer(modulate(x, …)), with one and the same x",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Josh00-Lu/DiffusionVeteran issue 3: x = modulate(norm(x)), then x = x + gate * attn(x);"
                " its author agrees that it is a slip."
            ),
        ),
        Misconception(
            id="no_residual",
            title="what the layer says replaces the tokens and is not added to them",
            wrong=_no_residual,
            hints=Hints(
                "What comes out of your block if all gates are zero?",
                "Where is the old x in your sums?",
                "x = x + gate * layer(…)",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "explainingai-code/DiT-PyTorch issue 4: a reader cannot find the residual in a DiT's layer."
            ),
        ),
        Misconception(
            id="three_for_both",
            title="attention and MLP share one shift, scale and gate; each has three of its own",
            wrong=_three_for_both,
            hints=Hints(
                "How many parts does the modulation return, and how many do you use?",
                "The second line: which parts does the MLP get?",
                "shift1, scale1, gate1, shift2, scale2, gate2",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence="The deck lists three numbers ('mean, std, scale') where a block has six.",
        ),
        Misconception(
            id="by_kind",
            title="the six parts are taken two by two; they come three by three, attention first",
            wrong=_by_kind,
            hints=Hints(
                "Which part is number 2: a scale or a second shift?",
                "The line that unpacks the modulation.",
                "shift1, scale1, gate1, shift2, scale2, gate2",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: γ1, β1, α1 and γ2, β2, α2 are drawn at both sides of the paper's figure 3,"
                " which does not say how they lie in memory."
            ),
        ),
        Misconception(
            id="side_by_side",
            title="the MLP reads the tokens from before attention: the layers work in parallel",
            wrong=_side_by_side,
            hints=Hints(
                "Does your MLP know what attention has found out?",
                "Which x does the second modulation get?",
                "first x = x + …, then the MLP on the new x",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: parallel layers exist (GPT-J; the single blocks of FLUX), and are copied"
                " into a block that runs one after the other."
            ),
        ),
        Misconception(
            id="attention_twice",
            title="attention stands in both lines; the second layer is the MLP",
            wrong=_attention_twice,
            hints=Hints(
                "Which layer does your second line call?",
                "The second line.",
                "x + gate2 * mlp(…)",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "explainingai-code/DiT-PyTorch issue 1: attn_block in the MLP's line; it ran and trained."
            ),
        ),
        Misconception(
            id="shift_and_scale_traded",
            title="the six are unpacked as scale, shift, gate; they come as shift, scale, gate",
            wrong=_shift_and_scale_traded,
            hints=Hints(
                "In which order do the six arrive?",
                "The line that unpacks them.",
                "shift, scale, gate; shift, scale, gate",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence="huggingface/diffusers issue 10198: shift and scale change places between codes.",
        ),
        Misconception(
            id="mlp_not_told",
            title="the second norm is not modulated: the MLP is told nothing",
            wrong=_mlp_not_told,
            hints=Hints(
                "What do you do with the fourth and the fifth part?",
                "The norm in front of the MLP.",
                "x + g2 MLP((1 + s2) LN(x) + b2)",
            ),
            section="adaLN-Zero: start by doing nothing",
            evidence=(
                "Reasoning slip: one norm is modulated as in the sketch, and the other left as the plain"
                " block has it."
            ),
        ),
    ),
    correct_alternatives=(_block_in_a_loop, _block_oracle),
)


# --- block_macs ------------------------------------------------------------------------------------------


def block_macs(side, patch, width):
    """Multiply-adds of one adaLN-Zero block for a square latent of `side` cells, in patches of `patch`."""
    tokens = (side // patch) ** 2
    matrices = 4 * width**2 + 8 * width**2  # of attention and of the MLP, once for each token
    products = 2 * tokens * width  # each token with all keys, then with all values
    return tokens * (matrices + products) + 6 * width**2  # the modulation: once for the whole picture


def _macs_cases(seed: int) -> list[Case]:
    rng = torch.Generator().manual_seed(seed)
    width = 12 * int(torch.randint(3, 20, (1,), generator=rng))
    return [Case(4, 1, 2), Case(8, 2, width), Case(32, 2, 1152), Case(32, 8, 384)]


def _macs_oracle(side: int, patch: int, width: int) -> int:
    """Every matrix product by its three sizes."""
    n = len([0 for _ in range(0, side, patch) for _ in range(0, side, patch)])
    projections = [(n, width, 3 * width), (n, width, width)]
    attention = [(n, width, n), (n, n, width)]
    mlp = [(n, width, 4 * width), (n, 4 * width, width)]
    modulation = [(1, width, 6 * width)]
    return sum(math.prod(sizes) for sizes in (*projections, *attention, *mlp, *modulation))


def _two_flops(side, patch, width):
    return 2 * block_macs(side, patch, width)


def _tokens_p_squared(side, patch, width):
    n = patch**2
    return n * (12 * width**2 + 2 * n * width) + 6 * width**2


def _tokens_of_pixels(side, patch, width):
    return block_macs(8 * side, patch, width)


def _modulation_for_every_token(side, patch, width):
    n = (side // patch) ** 2
    return n * (18 * width**2 + 2 * n * width)


def _modulation_forgotten(side, patch, width):
    return block_macs(side, patch, width) - 6 * width**2


def _products_forgotten(side, patch, width):
    return (side // patch) ** 2 * 12 * width**2 + 6 * width**2


def _scores_only(side, patch, width):
    return block_macs(side, patch, width) - (side // patch) ** 4 * width


def _mlp_one_way(side, patch, width):
    return block_macs(side, patch, width) - (side // patch) ** 2 * 4 * width**2


def _macs_factored(side, patch, width):
    n = side * side // (patch * patch)
    return 2 * width * (6 * n * width + n * n + 3 * width)


def _side_by_patch(side, patch, width):
    n = side // patch
    return n * (12 * width**2 + 2 * n * width) + 6 * width**2


def _mlp_wide_to_wide(side, patch, width):
    n = (side // patch) ** 2
    return block_macs(side, patch, width) + 24 * n * width**2


MACS = Exercise(
    id="dit.block_macs",
    chapter=CHAPTER,
    title="What does a block cost?",
    minutes=12,
    difficulty=3,
    reference=block_macs,
    oracle=_macs_oracle,
    cases=_macs_cases,
    hints=Hints(
        "How many tokens are there, and which matrices does each of them pass?",
        "Attention has four matrices of d x d and two products with other tokens; the MLP two of d x 4d.",
        "n (12 d² + 2 n d) + 6 d², with n = (side / p)²",
    ),
    misconceptions=(
        Misconception(
            id="two_flops",
            title="a multiply-add is counted as two; this course, like the paper, counts it as one",
            wrong=_two_flops,
            hints=Hints(
                "By which factor are you off?",
                "Every 2 in your formula: which of them counts the addition?",
                "one MAC is one multiplication and its addition",
            ),
            section="What it costs",
            evidence=(
                "facebookresearch/DiT issue 67: '228 GFlops instead of 119'; its authors explain in issue 14"
                " that their Gflops are multiply-adds."
            ),
        ),
        Misconception(
            id="tokens_p_squared",
            title="the number of tokens is taken to be p x p",
            wrong=_tokens_p_squared,
            hints=Hints(
                "A latent of 32 by 32 in patches of 2: how many patches?",
                "Your number of tokens. Does it grow or shrink with the patch?",
                "n = (side / p)²",
            ),
            section="Cut the latent",
            evidence="The deck behind this course writes N = P x P tokens.",
        ),
        Misconception(
            id="tokens_of_pixels",
            title="tokens are counted in pixels; a DiT cuts the latent, which is eight times smaller",
            wrong=_tokens_of_pixels,
            hints=Hints(
                "What is `side`: cells of a latent, or pixels?",
                "Your number of tokens.",
                "n = (side / p)², with the latent's side: 32 for a picture of 256 pixels",
            ),
            section="Cut the latent",
            evidence=(
                "Reasoning slip: 'patch 2' of a model of 256-pixel pictures is read as 2 pixels; it is 16 of"
                " them."
            ),
        ),
        Misconception(
            id="modulation_for_every_token",
            title="the modulation is counted for every token; it is computed once for the picture",
            wrong=_modulation_for_every_token,
            hints=Hints(
                "How many rows go into the modulation's matrix, for one picture?",
                "The term with 6 d².",
                "6 d², not 6 n d²",
            ),
            section="What it costs",
            evidence=(
                "facebookresearch/DiT issue 14: parameters times tokens gives too much, because adaLN-Zero"
                " has many parameters and few flops."
            ),
        ),
        Misconception(
            id="modulation_forgotten",
            title="the modulation is left out",
            wrong=_modulation_forgotten,
            hints=Hints(
                "By how much are you off? Is it a multiple of d²?",
                "Where do shift, scale and gate come from?",
                "+ 6 d²",
            ),
            section="What it costs",
            evidence="Reasoning slip: 12 n d² + 2 n² d is the block of chapter 04, which has no condition.",
        ),
        Misconception(
            id="products_forgotten",
            title="tokens times weights: the products of tokens with tokens are missing",
            wrong=_products_forgotten,
            hints=Hints(
                "Which part of attention has no weights, and still multiplies?",
                "Queries with keys, and weights with values.",
                "2 n² d",
            ),
            section="What it costs",
            evidence=(
                "facebookresearch/DiT issues 14 and 67 reckon with 'parameters x tokens', and are a few per"
                " cent short."
            ),
        ),
        Misconception(
            id="scores_only",
            title="queries times keys are counted, the weighted sum of values is not",
            wrong=_scores_only,
            hints=Hints(
                "What happens to the table of weights once softmax has made it?",
                "The terms with n².",
                "n² d for the scores, and n² d again for the values",
            ),
            section="What it costs",
            evidence="Reasoning slip: 'attention is n² d' names one of its two products of that size.",
        ),
        Misconception(
            id="mlp_one_way",
            title="the MLP is counted one way, up to 4 d; it also comes back",
            wrong=_mlp_one_way,
            hints=Hints(
                "How many matrices has the MLP, and what are their shapes?",
                "The term of the MLP.",
                "d x 4d and 4d x d: 8 d² together",
            ),
            section="What it costs",
            evidence="Reasoning slip: 'ratio 4' is read as 4 d² weights.",
        ),
        Misconception(
            id="side_by_patch",
            title="side / patch tokens: that is one row of the grid",
            wrong=_side_by_patch,
            hints=Hints(
                "How many patches does a latent of 4 by 4 have, with patches of 2?",
                "The number of tokens.",
                "n = (side / patch)^2",
            ),
            section="What it costs",
            evidence="Reasoning slip: the grid is counted along one side.",
        ),
        Misconception(
            id="mlp_wide_to_wide",
            title="the MLP is counted with matrices of 4 d x 4 d",
            wrong=_mlp_wide_to_wide,
            hints=Hints(
                "How many numbers enter the first layer of the MLP, and how many leave it?",
                "The two terms of the MLP.",
                "d x 4 d there, 4 d x d back: 8 d^2 a token",
            ),
            section="What it costs",
            evidence="Reasoning slip: the hidden width is taken for both sides of both matrices.",
        ),
    ),
    correct_alternatives=(_macs_oracle, _macs_factored),
)


# --- drop_labels -----------------------------------------------------------------------------------------


def drop_labels(y, draws, classes, rate):
    """Labels (b,) for a training step: those whose draw from [0, 1) is below `rate` become the null class."""
    return torch.where(draws < rate, classes, y)


def _drop_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    y, draws = torch.randint(7, (12,), generator=noise), torch.rand(12, generator=noise)
    draws[:2] = torch.tensor([0.9, 0.01])  # a kept one first, and one that is dropped, whatever the seed
    small = Case(torch.tensor([2, 0, 1]), torch.tensor([0.5, 0.05, 0.1]), 3, 0.1)
    return [small, Case(y, draws, 7, 0.3), Case(y, draws.flip(0), 7, 0.3)]


def _drop_oracle(y, draws, classes, rate):
    pairs = zip(y.tolist(), draws.tolist(), strict=True)
    rate = torch.tensor(rate).item()  # as float32 has it, for draws are float32
    return torch.tensor([classes if draw < rate else label for label, draw in pairs])


def _null_is_zero(y, draws, classes, rate):
    return torch.where(draws < rate, 0, y)


def _null_is_the_last_class(y, draws, classes, rate):
    return torch.where(draws < rate, classes - 1, y)


def _null_is_a_thousand(y, draws, classes, rate):
    return torch.where(draws < rate, 1000, y)


def _kept_for_dropped(y, draws, classes, rate):
    return torch.where(draws < rate, y, classes)


def _whole_batch(y, draws, classes, rate):
    return torch.full_like(y, classes) if draws[0] < rate else y


def _first_of_the_batch(y, draws, classes, rate):
    dropped = torch.arange(len(y)) < round(rate * len(y))
    return torch.where(dropped, classes, y)


def _drop_by_filling(y, draws, classes, rate):
    return y.masked_fill(draws < rate, classes)


def _drop_by_counting(y, draws, classes, rate):
    dropped = (draws < rate).long()
    return y * (1 - dropped) + classes * dropped


def _nothing_at_rate_zero(drop) -> bool:
    y = torch.tensor([1, 2, 0])
    return torch.equal(drop(y, torch.tensor([0.0, 0.5, 0.9]), 3, 0.0), y)


def _null_is_minus_one(y, draws, classes, rate):
    return torch.where(draws < rate, -1, y)


DROP_LABELS = Exercise(
    id="dit.drop_labels",
    chapter=CHAPTER,
    title="Forget a label now and then",
    minutes=7,
    difficulty=1,
    reference=drop_labels,
    oracle=_drop_oracle,
    cases=_drop_cases,
    properties=(Property("with rate 0 nothing is dropped", _nothing_at_rate_zero),),
    hints=Hints(
        "There are `classes` classes, 0 to classes - 1. Which number is still free?",
        "torch.where(condition, new, old) decides for each picture by itself.",
        "y_k becomes `classes` where draw_k < rate",
    ),
    misconceptions=(
        Misconception(
            id="null_is_zero",
            title="dropped labels become 0, which is a class of its own",
            wrong=_null_is_zero,
            hints=Hints(
                "What picture belongs to label 0?",
                "The number that you put in.",
                "the null class is number `classes`, one past the last",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "zoubohao/DenoisingDiffusionProbabilityModel-ddpm- issue 30: there 0 is the empty label and"
                " the classes count from 1; mixed with labels that count from 0, one class becomes the null."
            ),
        ),
        Misconception(
            id="null_is_the_last_class",
            title="dropped labels become classes - 1, which is the last class",
            wrong=_null_is_the_last_class,
            hints=Hints(
                "With 3 classes, which labels exist?",
                "The number that you put in.",
                "the null class is number `classes`",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "FoundationVision/VAR issue 31: a reader takes label 1000 for the last class of a thousand;"
                " it is the empty one, and 999 is the last."
            ),
        ),
        Misconception(
            id="null_is_a_thousand",
            title="the null class is written as 1000, whatever the number of classes",
            wrong=_null_is_a_thousand,
            hints=Hints(
                "What does a table for 3 classes and a null class answer for label 1000?",
                "The number that you put in.",
                "the null class is number `classes`",
            ),
            section="Guidance: lean on the difference",
            evidence="huggingface/diffusers issue 13616: DiTPipeline hard-codes 1000 for every checkpoint.",
        ),
        Misconception(
            id="kept_for_dropped",
            title="the wrong ones are dropped: with rate 0.1, nine labels of ten",
            wrong=_kept_for_dropped,
            hints=Hints(
                "With rate 0, how many labels do you drop?",
                "The order of the last two arguments of torch.where, or the direction of `<`.",
                "dropped where draw < rate",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "runwayml/stable-diffusion issue 8: a recommended line draws 0 or 1 and keeps the prompt if"
                " it is above 0.1, and so drops half; what is kept and what is dropped is easily turned"
                " round."
            ),
        ),
        Misconception(
            id="whole_batch",
            title="one draw decides for the whole batch; each picture has a draw of its own",
            wrong=_whole_batch,
            hints=Hints(
                "In your batch, can one label be dropped and another kept?",
                "Which of the draws do you use?",
                "y_k is dropped where draw_k < rate",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "runwayml/stable-diffusion issue 8 and lucidrains/DALLE2-pytorch issue 47 ask at which level"
                " it is: token, example or batch."
            ),
        ),
        Misconception(
            id="first_of_the_batch",
            title="the first tenth of the batch is dropped every time, and the draws are not looked at",
            wrong=_first_of_the_batch,
            hints=Hints(
                "Do your results depend on the draws?",
                "What decides: the place in the batch or the draw?",
                "dropped where draw < rate",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "Reasoning slip: a share of the batch is taken for a chance of each example; with sorted data"
                " the same classes would go every time."
            ),
        ),
        Misconception(
            id="null_is_minus_one",
            title="the null class is -1: a table of vectors has no such row",
            wrong=_null_is_minus_one,
            hints=Hints(
                "Which row of an embedding table is number -1?",
                "The number that a dropped label becomes.",
                "the null class is number `classes`, the row after the last class",
            ),
            section="Guidance: lean on the difference",
            evidence="Reasoning slip: -1 for 'none', a habit from masks and ignored labels.",
        ),
    ),
    correct_alternatives=(_drop_by_filling, _drop_by_counting),
)


# --- guide -----------------------------------------------------------------------------------------------


def guide(output, scale, channels):
    """Guides a doubled batch (2b, k, h, w), conditional half first: its first `channels` are noise."""
    conditional, unconditional = output.chunk(2)
    noise = guided(conditional[:, :channels], unconditional[:, :channels], scale)
    return torch.cat([noise, conditional[:, channels:]], dim=1)


def _guide_cases(seed: int) -> list[Case]:
    noise = torch.Generator().manual_seed(seed)
    small = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0, 9.0]]).view(2, 5, 1, 1)
    output = torch.randn(6, 8, 2, 3, generator=noise)
    return [Case(small, 3.0, 4), Case(output, 1.5, 4), Case(output[:, :4], 2.5, 4), Case(output, 2.0, 1)]


def _guide_oracle(output: Tensor, scale: float, channels: int) -> Tensor:
    b = len(output) // 2
    result = output[:b].clone()
    for picture in range(b):
        for channel in range(channels):
            with_label, without = output[picture, channel], output[picture + b, channel]
            result[picture, channel] = torch.lerp(without, with_label, scale)
    return result


def _three_channels(output, scale, channels):
    return guide(output, scale, 3)


def _variance_too(output, scale, channels):
    return guide(output, scale, output.shape[1])


def _unconditional_first(output, scale, channels):
    return guide(output.roll(len(output) // 2, dims=0), scale, channels)


def _every_other(output, scale, channels):
    return guide(torch.cat([output[::2], output[1::2]]), scale, channels)


def _unconditional_variance(output, scale, channels):
    _, unconditional = output.chunk(2)
    return torch.cat([guide(output, scale, channels)[:, :channels], unconditional[:, channels:]], dim=1)


def _variance_left_out(output, scale, channels):
    return guide(output, scale, channels)[:, :channels]


def _guide_scale_of_the_paper(output, scale, channels):
    return guide(output, scale + 1, channels)


def _guide_by_weights(output, scale, channels):
    b = len(output) // 2
    weight = torch.ones(output.shape[1])
    weight[:channels] = scale
    weight = weight[:, None, None]
    return weight * output[:b] + (1 - weight) * output[b:]


GUIDE = Exercise(
    id="dit.guide",
    chapter=CHAPTER,
    title="Guide all channels",
    minutes=10,
    difficulty=2,
    reference=guide,
    oracle=_guide_oracle,
    cases=_guide_cases,
    hints=Hints(
        "What does each half of the batch hold, and what does each half of the channels hold?",
        "Split along axis 0 into conditional and unconditional, along axis 1 into noise and the rest.",
        "noise: e_null + s (e_y - e_null); the rest: as the conditional half has it",
    ),
    misconceptions=(
        Misconception(
            id="three_channels",
            title="only three channels are guided; a latent has four",
            wrong=_three_channels,
            hints=Hints(
                "Which channels of your result equal the conditional ones?",
                "The number in your slice.",
                "the first `channels`, all of them",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "facebookresearch/DiT pull request 12 and issue 41: unintended, kept for reproducibility;"
                " inherited by SiT, MDT, PixArt, Open-Sora (issue 188) and LightningDiT (issue 21)."
            ),
        ),
        Misconception(
            id="variance_too",
            title=(
                "the variance channels are guided as well; they say how unsure the model is, not what is"
                " there"
            ),
            wrong=_variance_too,
            hints=Hints(
                "What do channels 4 to 7 of a DiT mean?",
                "How many channels do you treat alike?",
                "guide the first `channels`, hand on the rest",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "Reasoning slip: the model's output looks like one tensor. PixArt-alpha/PixArt-sigma issue 81"
                " and hpcaitech/Open-Sora issue 542 ask what the other four channels are."
            ),
        ),
        Misconception(
            id="unconditional_first",
            title="the halves are taken the other way round: this leans away from the label",
            wrong=_unconditional_first,
            hints=Hints(
                "With scale 1, which half comes out? Which should?",
                "The line that splits the batch.",
                "conditional first, then unconditional",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "CompVis/stable-diffusion issue 796 quotes code that stacks the unconditional half first;"
                " DiT's stacks it last (facebookresearch/DiT issue 54)."
            ),
        ),
        Misconception(
            id="every_other",
            title="conditional and unconditional are taken to alternate; they are two halves",
            wrong=_every_other,
            hints=Hints(
                "In a batch of 4, which two belong to the first picture?",
                "The slices along axis 0.",
                "picture k: rows k and k + b",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "threestudio-project/threestudio pull request 161: the wrong rows of a doubled batch were"
                " paired, and so was a first try to mend it."
            ),
        ),
        Misconception(
            id="unconditional_variance",
            title="the variance comes from the unconditional half",
            wrong=_unconditional_variance,
            hints=Hints(
                "Which picture are you drawing: with the label or without?",
                "Where does the rest of the channels come from?",
                "the rest: as the conditional half has it",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "Reasoning slip: guidance starts from the unconditional answer, and its variance is taken"
                " along."
            ),
        ),
        Misconception(
            id="variance_left_out",
            title="the variance channels are dropped; a sampler that adds noise needs them",
            wrong=_variance_left_out,
            hints=Hints(
                "How many channels came in, and how many go out?",
                "The last line.",
                "torch.cat([guided noise, the rest], dim=1)",
            ),
            section="Guidance: lean on the difference",
            evidence=(
                "willisma/SiT issue 20: its forward throws the second half away, rightly there, since nothing"
                " learned it; a DDPM with learned variance is left without one."
            ),
        ),
        Misconception(
            id="scale_of_the_paper",
            title="the scale is read as the paper's w = s - 1: your scale is one more than asked for",
            wrong=_guide_scale_of_the_paper,
            hints=Hints(
                "What should scale 1 give? What does yours give?",
                "Which half do you start from?",
                "e_null + s (e_y - e_null)",
            ),
            section="Guidance: lean on the difference",
            evidence="lucidrains/denoising-diffusion-pytorch issues 155 and 207, and many more like them.",
        ),
    ),
    correct_alternatives=(_guide_oracle, _guide_by_weights),
)


EXERCISES = (TIME_EMBEDDING, MODULATE, BLOCK, MACS, DROP_LABELS, GUIDE)
