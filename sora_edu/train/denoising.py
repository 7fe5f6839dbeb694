"""The networks and runs of chapter 01: two moons in the plane, and handwritten digits.

python -m sora_edu.train.denoising        writes data/curves/01_diffusion.json, the reference runs
"""

import argparse
import copy
import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from sora_edu.data.digits import CLASSES, digits
from sora_edu.diffusion import (
    Levels,
    alpha_bars,
    flow_levels,
    linear_betas,
    linear_levels,
    logit_normal_times,
    make_target,
    mix,
    q_sample,
)
from sora_edu.files import write_whole
from sora_edu.samplers import Network, ddim, make_grid
from sora_edu.train.loop import LoopConfig, make_optimisers

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""`draw(n, generator)`: n random examples and their labels."""

DrawTimes = Callable[[int, torch.Generator], Tensor]
"""`draw_times(n, generator)`: n times in [0, 1] to train at."""

STEPS_BACK = 50
"""Noise levels of the runs that learn to undo one step."""

DROPPED = 0.1
"""Share of examples whose label is hidden in training, so that the network also learns to do without."""


def moons(n: int, generator: torch.Generator) -> tuple[Float[Tensor, "{n} 2"], Int[Tensor, " {n}"]]:
    """Points on two interlocked half circles, a little blurred, and which half each is on (0 or 1)."""
    labels = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    half = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    blur = 0.05 * torch.randn(n, 2, generator=generator)
    return 1.2 * half * (1 - 2 * labels[:, None]) + blur, labels


def draw_digits(n: int, generator: torch.Generator) -> tuple[Float[Tensor, "{n} 1 8 8"], Int[Tensor, " {n}"]]:
    """Handwritten digits for training, drawn with repetition."""
    pictures, labels = digits("train")
    chosen = torch.randint(len(labels), (n,), generator=generator)
    return pictures[chosen], labels[chosen]


def uniform_times(n: int, generator: torch.Generator) -> Float[Tensor, " {n}"]:
    """Every time is as likely as any other."""
    return torch.rand(n, generator=generator)


def middle_times(n: int, generator: torch.Generator) -> Float[Tensor, " {n}"]:
    """Logit-normal times, mostly from the middle."""
    return logit_normal_times(n, generator=generator)


class Denoiser(nn.Module):
    """A small network for noisy data: x, t and label in, a prediction of x's shape out.

    Label number `classes` is the empty one: "whichever". Time enters as sines and cosines (chapter 02).
    """

    def __init__(self, size: int, classes: int, width: int = 64, depth: int = 3):
        super().__init__()
        self.null = classes
        self.frequencies = nn.Buffer(math.pi * 2.0 ** torch.arange(-1, 3))
        self.data, self.time = nn.Linear(size, width), nn.Linear(8, width)
        self.label = nn.Embedding(classes + 1, width)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
            )
            for _ in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))

    def forward(
        self, x: Float[Tensor, "b ..."], t: Float[Tensor, " b"], y: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b ..."]:
        y = torch.full((len(x),), self.null) if y is None else y
        angles = t[:, None] * self.frequencies
        told = self.label(y) + self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        h = self.data(x.flatten(1))
        for layer in self.layers:
            h = h + layer(h + told)  # every layer is told the time and the label
        return self.out(h).view(x.shape)


def make_denoiser(size: int, classes: int, width: int = 64, depth: int = 3, seed: int = 0) -> Denoiser:
    """A fresh network; the same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(size, classes, width, depth)


def fit(
    network: nn.Module,
    loss_of: Callable[[torch.Generator], Tensor],
    steps: int,
    lr: float,
    seed: int = 0,
    progress: str = "",
    muon_lr: float | None = None,
) -> tuple[nn.Module, list[tuple[int, float]]]:
    """Trains a network with Adam and a falling learning rate.

    Args:
        network: trained in place.
        loss_of: makes the loss of a fresh batch, all its randomness from the generator.
        steps: optimiser steps.
        lr: the largest learning rate, after a twentieth of the steps.
        seed: of the batches.
        progress: what to call the run in a progress bar; without a name there is none.
        muon_lr: the largest learning rate of Muon, if it is to train the hidden matrices; see `train.loop`.

    Returns:
        An average of the weights over the last steps, which is steadier than the last weights; and (step,
        mean loss since the entry before) ten times or more.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: at least one step is needed; moons take some 800")
    generator, average = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    optimisers = [torch.optim.Adam(network.parameters(), lr=lr, foreach=True)]
    if muon_lr is not None:
        optimisers = make_optimisers(network, LoopConfig(steps, lr=lr, muon_lr=muon_lr))
    rates = [
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: min(1, 20 * (k + 1) / steps) * (1 - k / steps))
        for optimiser in optimisers
    ]
    curve, recent, every = [], [], max(1, steps // 30)
    bar = tqdm(range(1, steps + 1), desc=progress, disable=not progress, mininterval=0.5)
    for step in bar:
        loss = loss_of(generator)
        network.zero_grad()
        loss.backward()
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.step()
            rate.step()
        recent.append(loss.detach())
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(
                    new, min(1, 10 / step)
                )  # a window that grows: the poor first weights are forgotten
        if step % every == 0:
            curve.append((step, torch.stack(recent).mean().item()))
            bar.set_postfix_str(f"loss {curve[-1][1]:.3f}")
            recent = []
    return average.requires_grad_(False), curve


def denoising_loss(
    network: nn.Module,
    draw: Draw,
    target: str,
    levels: Levels,
    batch: int = 256,
    draw_times: DrawTimes = uniform_times,
    dropped: float = DROPPED,
) -> Callable[[torch.Generator], Tensor]:
    """The loss of diffusion: noise examples to random times, ask the network, compare with `target`.

    Labels are hidden for a share `dropped` of the examples; 1 trains a network without labels.
    """

    def loss_of(generator: torch.Generator) -> Tensor:
        x0, y = draw(batch, generator)
        y = y.masked_fill(torch.rand(batch, generator=generator) < dropped, network.null)
        noise, t = torch.randn(x0.shape, generator=generator), draw_times(batch, generator)
        alpha, sigma = levels(t)
        x = mix(x0, noise, alpha, sigma)
        return F.mse_loss(network(x, t, y), make_target(x0, noise, alpha, sigma, target))

    return loss_of


# --- the tempting plan: learn to undo one step -----------------------------------------------------------


def step_schedule() -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """betas and alpha_bar of a DDPM schedule with `STEPS_BACK` steps, each as coarse as several of DDPM's."""
    coarse = 1000 / STEPS_BACK
    betas = linear_betas(STEPS_BACK, 1e-4 * coarse, 0.02 * coarse)
    return betas, alpha_bars(betas)


def step_back_loss(
    network: nn.Module, same_noise: bool, batch: int = 256
) -> Callable[[torch.Generator], Tensor]:
    """The loss of the tempting plan: a noisy point goes in, the point of one step before must come out.

    With `same_noise` both points are mixed from one noise; otherwise the step between them adds fresh noise,
    as the chain of DDPM does.
    """
    betas, after = (values.float() for values in step_schedule())
    before = torch.cat([torch.ones(1), after[:-1]])

    def loss_of(generator: torch.Generator) -> Tensor:
        x0, y = moons(batch, generator)
        k = torch.randint(STEPS_BACK, (batch,), generator=generator)
        noise, fresh = torch.randn(2, *x0.shape, generator=generator)
        previous = q_sample(x0, noise, before[k])
        x = q_sample(x0, noise, after[k]) if same_noise else q_sample(previous, fresh, 1 - betas[k])
        return F.mse_loss(network(x, (k + 1) / STEPS_BACK, torch.full_like(y, network.null)), previous)

    return loss_of


@torch.no_grad()
def walk_back(
    network: Network, noise: Float[Tensor, "b 2"], fresh: torch.Generator | None = None
) -> Float[Tensor, "b 2"]:
    """Applies a network that undoes one step again and again, from pure noise.

    With a generator `fresh` it also adds, after every step but the last, as much noise as DDPM does.
    """
    betas, after = (values.float() for values in step_schedule())
    before = torch.cat([torch.ones(1), after[:-1]])
    spread = (betas * (1 - before) / (1 - after)).sqrt()
    x = noise
    for k in reversed(range(STEPS_BACK)):
        x = network(x, torch.full((len(x),), (k + 1) / STEPS_BACK))
        if fresh is not None:
            x = x + spread[k] * torch.randn(x.shape, generator=fresh)
    return x


def perfect_network(known: Float[Tensor, "n ..."], levels: Levels = flow_levels) -> Network:
    """The best guess of x_0 there is when the data are exactly the `known` ones, each as likely: no training.

    An average of all of them, each weighed by how likely it is to have become x: what a network that is
    trained on `known` for ever, with room for everything, would answer.
    """
    flat = known.flatten(1)

    def guess(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level[:, None] for level in levels(t.double()))
        distance = torch.cdist(x.flatten(1).double() / alpha.clamp(min=1e-9), flat.double()) ** 2
        weights = (-distance * alpha**2 / (2 * sigma**2)).softmax(dim=1)
        return (weights @ flat.double()).view(x.shape).to(x.dtype)

    return guess


# --- how good are samples? -------------------------------------------------------------------------------


def energy_distance(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"]) -> float:
    """How different two clouds of points are: 0 for two samples of one distribution, up to chance.

    2 E|a - b| - E|a - a'| - E|b - b'|, over pairs. Szekely and Rizzo 2013.
    """

    def within(points: Tensor) -> Tensor:
        n = len(points)
        return torch.cdist(points, points).sum() / (n * (n - 1))

    return (2 * torch.cdist(first, second).mean() - within(first) - within(second)).item()


@lru_cache(maxsize=1)
def _reader():
    from sklearn.svm import SVC

    pictures, labels = digits("train")
    return SVC(gamma=0.016, C=10).fit(pictures.flatten(1).numpy(), labels.numpy())


def read_digits(pictures: Float[Tensor, "b 1 8 8"]) -> Int[Tensor, " b"]:
    """Which digit each picture shows, to a classifier (a support vector machine) trained on real digits."""
    return torch.from_numpy(_reader().predict(pictures.flatten(1).numpy()))


def spread(pictures: Float[Tensor, "b 1 8 8"], labels: Int[Tensor, " b"]) -> Float[Tensor, " classes"]:
    """How much the pictures of each class differ: root of the summed variance of their pixels."""
    flat = pictures.flatten(1)
    return torch.stack([flat[labels == k].var(dim=0).sum().sqrt() for k in range(CLASSES)])


def nearest(pictures: Float[Tensor, "b 1 8 8"], known: Float[Tensor, "n 1 8 8"]) -> Int[Tensor, " b"]:
    """For each picture the index of the known one that is nearest to it."""
    return torch.cdist(pictures.flatten(1), known.flatten(1)).argmin(dim=1)


# --- reference runs --------------------------------------------------------------------------------------

MOONS = {"steps": 800, "lr": 1e-2}
"""How long networks learn moons."""

DIGITS = {"steps": 3000, "lr": 2e-3}
"""How long a network learns digits."""

PLANS = ("one step back", "one step back, noise added", "one step back, same noise", "guess the whole way")
"""What the chapter compares on moons."""


def plan_samples(seed: int, n: int = 1000) -> dict[str, Float[Tensor, "n 2"]]:
    """Trains the plans in `PLANS` with equal networks and budgets, and draws n points with each."""
    start = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed + 100))
    networks = [make_denoiser(2, 2, seed=seed) for _ in range(3)]
    losses = [
        step_back_loss(networks[0], same_noise=False),
        step_back_loss(networks[1], same_noise=True),
        denoising_loss(networks[2], moons, "flow", flow_levels, dropped=1.0),
    ]
    chain, same, whole = (
        fit(network, loss, **MOONS, seed=seed)[0] for network, loss in zip(networks, losses, strict=True)
    )
    fresh = torch.Generator().manual_seed(seed + 200)
    made = [
        walk_back(chain, start),
        walk_back(chain, start, fresh),
        walk_back(same, start),
        ddim(whole, start, make_grid(STEPS_BACK), "flow"),
    ]
    return dict(zip(PLANS, made, strict=True))


def target_samples(target: str, seed: int, n: int = 1000) -> Float[Tensor, "{n} 2"]:
    """Trains a network to predict one target on moons and draws n points from it, in 50 DDIM steps."""
    network = make_denoiser(2, 2, seed=seed)
    loss = denoising_loss(network, moons, target, linear_levels, dropped=1.0)
    network, _ = fit(network, loss, **MOONS, seed=seed)
    start = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed + 100))
    return ddim(network, start, make_grid(50, linear_levels), target)


def train_digits(
    seed: int = 0, steps: int = DIGITS["steps"], progress: str = ""
) -> tuple[Denoiser, list[tuple[int, float]]]:
    """Trains a class-conditional network on digits to predict the flow; see `fit`."""
    network = make_denoiser(64, CLASSES, width=192, seed=seed)
    loss = denoising_loss(network, draw_digits, "flow", flow_levels, 128, middle_times)
    return fit(network, loss, steps, DIGITS["lr"], seed, progress)


def record(path: Path, seeds: int = 5) -> None:
    """Repeats every comparison of the chapter with several seeds and writes what came out."""
    real, _ = moons(2000, torch.Generator().manual_seed(1))
    again, _ = moons(1000, torch.Generator().manual_seed(2))
    plans = [plan_samples(seed) for seed in range(seeds)]
    curves = [train_digits(seed)[1] for seed in range(3)]
    found = {
        "floor": energy_distance(again, real),
        "plans": {name: [energy_distance(run[name], real) for run in plans] for name in PLANS},
        "targets": {
            target: [energy_distance(target_samples(target, seed), real) for seed in range(seeds)]
            for target in ("eps", "x0", "v", "flow")
        },
        "digits": {
            "steps": [step for step, _ in curves[0]],
            "loss": [[round(loss, 4) for _, loss in curve] for curve in curves],
        },
    }
    write_whole(path, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference runs of chapter 01.")
    parser.add_argument("--out", type=Path, default=Path("data/curves/01_diffusion.json"))
    record(parser.parse_args().out)
