"""The runs of chapter 01, small: data, network, perfect answers, and the measures of samples."""

import math

import pytest
import torch
from scipy.stats import energy_distance as one_dimensional

from sora_edu.data.digits import digits
from sora_edu.diffusion import add_noise, cosine_levels, flow_levels
from sora_edu.train import denoising as lab


def test_digits_are_split_without_overlap_and_in_range():
    (train, train_labels), (test, test_labels) = digits("train"), digits("test")
    assert len(train) + len(test) == 1797 and len(test) == 359
    assert train.min() == -1 and train.max() == 1
    for labels in (train_labels, test_labels):
        assert set(labels.tolist()) == set(range(10))
    # No picture of one is at the same place in the other; two scanned digits are never the same.
    assert torch.cdist(test.flatten(1), train.flatten(1)).min() > 0


def test_an_unknown_split_is_explained():
    with pytest.raises(ValueError, match="split='all' is unknown; use one of: train, test"):
        digits("all")


def test_moons_lie_on_two_half_circles(generator):
    points, labels = lab.moons(4000, generator)
    centre = torch.tensor([-0.6, -0.3]) * (1 - 2 * labels[:, None])
    radius = (points - centre).norm(dim=1)
    assert radius.mean().item() == pytest.approx(1.2, abs=0.01) and radius.std() < 0.06
    assert labels.float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("levels", [flow_levels, cosine_levels])
def test_the_perfect_network_is_bayes_rule(levels, generator):
    known = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x = add_noise(known[:2], torch.randn(2, 3, generator=generator).double(), t, levels)
    guess = lab.perfect_network(known, levels)(x, t)
    for row in range(2):
        alpha, sigma = (float(level) for level in levels(t[row : row + 1]))
        density = torch.distributions.Normal(alpha * known, sigma).log_prob(x[row]).sum(1).exp()
        torch.testing.assert_close(guess[row], (density[:, None] * known).sum(0) / density.sum())


def test_the_perfect_network_of_pure_noise_answers_with_the_mean(generator):
    known = torch.randn(5, 3, generator=generator)
    guess = lab.perfect_network(known)(torch.randn(2, 3, generator=generator), torch.ones(2))
    torch.testing.assert_close(guess, known.mean(0).expand(2, 3))


def test_the_network_listens_to_every_input(generator):
    network = lab.make_denoiser(64, 10, seed=1)
    x, t = torch.randn(4, 1, 8, 8, generator=generator), torch.rand(4, generator=generator)
    y = torch.arange(4)
    plain = network(x, t, y)
    assert plain.shape == x.shape
    assert torch.equal(network(x, t), network(x, t, torch.full((4,), 10)))
    for other in (network(x + 0.1, t, y), network(x, 1 - t, y), network(x, t, y + 1), network(x, t)):
        assert not torch.allclose(other, plain, atol=1e-3)
    assert torch.equal(lab.make_denoiser(64, 10, seed=1)(x, t, y), plain)


def test_fitting_learns_and_repeats_itself():
    def run():
        network = lab.make_denoiser(2, 2)
        loss = lab.denoising_loss(network, lab.moons, "flow", flow_levels, batch=64)
        return lab.fit(network, loss, steps=120, lr=1e-2, seed=3)

    (first, curve), (second, _) = run(), run()
    assert curve[-1][0] == 120 and curve[-1][1] < 0.7 * curve[0][1]
    for mine, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, other) and not mine.requires_grad
    with pytest.raises(ValueError, match="steps=0: at least one step"):
        lab.fit(first, lambda generator: torch.zeros(1), steps=0, lr=1e-2)


def test_walking_back_adds_the_noise_of_the_posterior():
    """A network that returns x unchanged: what is left is the noise that was added."""
    start = torch.zeros(40000, 2)
    assert torch.equal(lab.walk_back(lambda x, t: x, start), start)
    moved = lab.walk_back(lambda x, t: x, start, torch.Generator().manual_seed(0))
    betas, after = lab.step_schedule()
    before = [1.0, *after[:-1].tolist()]
    variance = sum(
        beta * (1 - b) / (1 - a) for beta, a, b in zip(betas.tolist(), after.tolist(), before, strict=True)
    )
    assert moved.var().item() == pytest.approx(variance, rel=0.03)
    assert after[-1] < 1e-4


def test_energy_distance_is_scipys_on_a_line(generator):
    """scipy gives the root, and counts a point's distance from itself, which makes it biased upwards."""
    first, second = torch.randn(300, generator=generator), 0.5 + torch.randn(400, generator=generator)
    biased = one_dimensional(first.numpy(), second.numpy()) ** 2
    within = [torch.cdist(p[:, None], p[:, None]).mean().item() / (len(p) - 1) for p in (first, second)]
    assert lab.energy_distance(first[:, None], second[:, None]) == pytest.approx(
        biased - sum(within), abs=1e-5
    )


def test_the_reader_reads_unseen_digits():
    pictures, labels = digits("test")
    assert (lab.read_digits(pictures) == labels).float().mean() > 0.98
    assert (lab.read_digits(torch.randn_like(pictures)) == labels).float().mean() < 0.3


def test_spread_and_nearest():
    labels = torch.arange(10).repeat(3)
    pictures = torch.zeros(30, 1, 8, 8)
    pictures[:10, 0, 0, 0], pictures[20:, 0, 0, 0] = 2, -2
    torch.testing.assert_close(lab.spread(pictures, labels), torch.full((10,), 2.0))
    assert lab.nearest(torch.full((1, 1, 8, 8), 0.1), torch.stack([pictures[0], pictures[15]])).item() == 1


def test_all_plans_make_points():
    lengths = {"steps": 3, "lr": 1e-3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "MOONS", lengths)
        made = lab.plan_samples(0, n=7)
        assert tuple(made) == lab.PLANS
        assert lab.target_samples("v", 0, n=7).shape == (7, 2)
    assert all(points.shape == (7, 2) and points.isfinite().all() for points in made.values())


def test_training_times_of_digits_come_from_the_middle(generator):
    t = lab.middle_times(4000, generator)
    inside = ((t > 0.27) & (t < 0.73)).double().mean().item()
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.03)  # sigmoid(1) = 0.73
