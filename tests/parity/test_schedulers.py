"""Our schedules and samplers against the schedulers of diffusers, step by step on the same model."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from diffusers.training_utils import compute_snr
from torch.nn.functional import pad

from sora_edu.diffusion import (
    alpha_bars,
    cosine_betas,
    flow_levels,
    linear_betas,
    make_target,
    q_sample,
    shift_times,
    snr,
    zero_terminal_snr,
)
from sora_edu.samplers import (
    Grid,
    ddim,
    ddpm,
    dpm_solver_pp_2m,
    euler,
    heun,
    make_grid,
    released_grid,
    time_grid,
)

TOTAL = 1000
OURS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
PLAIN = {"num_train_timesteps": TOTAL, "clip_sample": False, "timestep_spacing": "trailing"}


def model(x, index):
    """A smooth nonlinear network of x and the step's index, in whatever precision x has."""
    return torch.tanh(1.3 * x) * (0.4 + index / 900) + 0.3 * torch.roll(x, 1, dims=-1)


def ours(x, t):
    """The same network, told our times."""
    return model(x, (TOTAL * t.double()).round()[0].item())


@pytest.fixture
def start(generator):
    return torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)


def walk(scheduler, steps, x, **kwargs):
    """What diffusers does with the model, after each step."""
    scheduler.set_timesteps(steps)
    passed = []
    for index in scheduler.timesteps:
        x = scheduler.step(model(x, index.item()), index, x, **kwargs).prev_sample
        passed.append(x)
    return passed


def recorded(sampler, *args, **kwargs):
    passed = []
    sampler(*args, progress=lambda step, x: passed.append(x), **kwargs)
    return passed


def compare(mine, theirs, tolerance):
    assert len(mine) == len(theirs) > 0
    for got, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, expected.to(got.dtype), rtol=tolerance, atol=tolerance)


def in_double(scheduler):
    """The scheduler with its float32 table in float64, so that its steps are computed in float64."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


# --- schedules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10, 1000])
@pytest.mark.parametrize(("name", "betas"), [("linear", linear_betas), ("squaredcos_cap_v2", cosine_betas)])
def test_betas_and_their_products(name, betas, total):
    theirs = DDPMScheduler(num_train_timesteps=total, beta_schedule=name)
    torch.testing.assert_close(betas(total).float(), theirs.betas, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(alpha_bars(betas(total)).float(), theirs.alphas_cumprod, rtol=1e-4, atol=1e-7)


def test_zero_terminal_snr():
    theirs = DDPMScheduler(beta_schedule="linear", rescale_betas_zero_snr=True)
    mine = zero_terminal_snr(alpha_bars(linear_betas()))
    assert mine[-1] == 0
    torch.testing.assert_close(mine.float(), theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)


def test_noise_and_velocity_and_snr(start, generator):
    scheduler = in_double(DDPMScheduler())
    noise, index = torch.randn(start.shape, generator=generator).double(), torch.tensor([3, 500, 998])
    share = scheduler.alphas_cumprod[index]
    theirs = scheduler.add_noise(start, noise, index)
    torch.testing.assert_close(q_sample(start, noise, share), theirs, rtol=1e-10, atol=1e-10)
    alpha, sigma = share.sqrt(), (1 - share).sqrt()
    theirs = scheduler.get_velocity(start, noise, index)
    mine = make_target(start, noise, alpha, sigma, "v")
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    theirs = compute_snr(scheduler, index).double()  # worked out in float32
    torch.testing.assert_close(snr(alpha, sigma), theirs, rtol=1e-5, atol=1e-5)


# --- samplers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", OURS)
@pytest.mark.parametrize("steps", [1, 8, 50])
def test_ddim(prediction, steps, start):
    """Their step is always total / steps wide, rounded down, so only numbers that divide the total agree."""
    scheduler = in_double(DDIMScheduler(**PLAIN, prediction_type=prediction))
    grid = released_grid(scheduler.alphas_cumprod, steps)
    compare(recorded(ddim, ours, start, grid, OURS[prediction]), walk(scheduler, steps, start), 1e-10)


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction", OURS)
@pytest.mark.parametrize("steps", [5, 40])
def test_ddpm(schedule, prediction, steps, start):
    """Both draw their fresh noise from generators of one seed: ours none for the last step."""
    # From level 0 (with "leading" spacing) their last step is exact; elsewhere it adds noise of 1e-10.
    settings = PLAIN | {"timestep_spacing": "leading"}
    scheduler = in_double(DDPMScheduler(**settings, prediction_type=prediction, beta_schedule=schedule))
    scheduler.set_timesteps(steps)
    share = pad(scheduler.alphas_cumprod[scheduler.timesteps], (0, 1), value=1.0)
    grid = Grid(pad(scheduler.timesteps / TOTAL, (0, 1)), share.sqrt(), (1 - share).sqrt())
    theirs = walk(scheduler, steps, start, generator=torch.Generator().manual_seed(5))
    mine = recorded(ddpm, ours, start, grid, OURS[prediction], generator=torch.Generator().manual_seed(5))
    compare(mine, theirs, 1e-10)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_ddim_from_pure_noise_of_a_rescaled_schedule(prediction, start):
    scheduler = DDIMScheduler(**PLAIN, prediction_type=prediction, rescale_betas_zero_snr=True)
    grid = released_grid(in_double(scheduler).alphas_cumprod, 20)
    assert grid.alpha[0] == 0
    compare(recorded(ddim, ours, start, grid, OURS[prediction]), walk(scheduler, 20, start), 1e-10)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # numpy's, at diffusers
@pytest.mark.parametrize("prediction", OURS)
@pytest.mark.parametrize("steps", [2, 9, 25])
def test_dpm_solver(prediction, steps, start):
    """diffusers keeps this scheduler's levels in float32, so the levels are taken from there."""
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TOTAL, prediction_type=prediction, solver_order=2, timestep_spacing="trailing"
    )
    theirs = walk(scheduler, steps, start)
    ratio = scheduler.sigmas.double()  # sigma / alpha
    alpha = (1 + ratio**2).rsqrt()
    times = pad(scheduler.timesteps.double() / TOTAL, (0, 1))
    grid = Grid(times, alpha, ratio * alpha)
    compare(recorded(dpm_solver_pp_2m, ours, start, grid, OURS[prediction]), theirs, 1e-5)
    # And they are our levels, as far as float32 goes. (Its last time is not always a whole number.)
    mine = released_grid(alpha_bars(linear_betas()), steps)
    torch.testing.assert_close(mine.sigma, grid.sigma, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 6, 28])
def test_euler_of_a_flow(shift, steps, start):
    times = time_grid(steps, shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    torch.testing.assert_close(scheduler.sigmas, times)
    x, theirs = start.float(), []
    for index in scheduler.timesteps:
        x = scheduler.step(model(x, index.item()), index, x).prev_sample
        theirs.append(x)

    def told(x, t):
        return model(x, 1000 * t[0].item())

    compare(recorded(euler, told, start.float(), times), theirs, 1e-5)
    # The same walk by levels is DDIM's.
    compare(recorded(ddim, told, start.float(), make_grid(times), "flow"), theirs, 1e-5)


@pytest.mark.parametrize("steps", [2, 10])
def test_heun_of_a_flow(steps, start):
    scheduler = FlowMatchHeunDiscreteScheduler(shift=2.0)
    theirs = walk_heun(scheduler, steps, start.float())
    times = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    assert len(times) == steps + 1

    def told(x, t):
        return model(x, 1000 * t[0].item())

    compare(recorded(heun, told, start.float(), times), theirs, 1e-5)


def walk_heun(scheduler, steps, x):
    """diffusers takes a Heun step as two; what counts is where the second leads."""
    scheduler.set_timesteps(steps)
    passed = []
    for number, index in enumerate(scheduler.timesteps):
        x = scheduler.step(model(x, index.item()), index, x).prev_sample
        if number % 2 == 1 or number == len(scheduler.timesteps) - 1:
            passed.append(x)
    return passed


def test_shift_is_theirs():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    even = torch.linspace(0.001, 1, 1000).flip(0)
    torch.testing.assert_close(shift_times(even, 3.0), scheduler.sigmas)
    assert torch.equal(flow_levels(even)[1], even)
