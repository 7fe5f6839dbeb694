"""The image autoencoder: its posterior against torch's own distributions, its parts against formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Independent, Normal, kl_divergence

from sora_edu import measures
from sora_edu.autoencoder import (
    ImageAutoencoder,
    ImageAutoencoderConfig,
    Posterior,
    autoencoder_loss,
    image_autoencoder_macs,
    kl_to_standard_normal,
    psnr,
    reparameterise,
    scale_factor,
)

SMALL = ImageAutoencoderConfig(channels=3, widths=(5, 7), blocks=1)


@pytest.fixture
def model() -> ImageAutoencoder:
    torch.manual_seed(0)
    return ImageAutoencoder(SMALL).double()


@pytest.fixture
def images(generator):
    return torch.rand(2, 3, 12, 20, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.fixture
def posterior(generator):
    mean, log_variance = torch.randn(2, 4, 3, 2, 5, generator=generator, dtype=torch.float64)
    return Posterior(mean, log_variance)


# ---- The posterior ---------------------------------------------------------------------------------------


def test_the_kl_is_torchs(posterior):
    normal = Normal(posterior.mean, (posterior.log_variance / 2).exp())
    standard = Normal(torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean))
    theirs = kl_divergence(Independent(normal, 3), Independent(standard, 3))
    torch.testing.assert_close(posterior.kl(), theirs)
    torch.testing.assert_close(kl_to_standard_normal(posterior.mean, posterior.log_variance), theirs)


def test_a_sample_is_torchs_with_the_same_dice(posterior):
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(3)).double()
    normal = Normal(posterior.mean, (posterior.log_variance / 2).exp())
    theirs = normal.icdf(Normal(0.0, 1.0).cdf(noise))  # the same quantile of another normal
    drawn = posterior.sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, theirs, atol=1e-6, rtol=1e-6)


def test_samples_have_the_mean_and_the_variance(generator):
    mean, log_variance = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    noise = torch.randn(200_000, 2, generator=generator)
    drawn = reparameterise(mean.expand_as(noise), log_variance.expand_as(noise), noise)
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0), log_variance.exp()[0], atol=0, rtol=0.02)


def test_gradients_reach_mean_and_variance():
    mean = torch.zeros(1, 3, requires_grad=True)
    log_variance = torch.zeros(1, 3, requires_grad=True)
    noise = torch.tensor([[1.0, -2.0, 3.0]])
    reparameterise(mean, log_variance, noise).sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 3))
    torch.testing.assert_close(log_variance.grad, noise / 2)


def test_the_same_generator_gives_the_same_latents(model, images):
    one, two = (model.encode(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, model.encode(images))


# ---- The model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("widths", "factor"), [((4,), 2), ((4, 6), 4), ((4, 6, 8), 8)])
def test_each_width_halves_once(widths, factor):
    model = ImageAutoencoder(ImageAutoencoderConfig(channels=2, widths=widths))
    latents = model.encode(torch.zeros(1, 3, 16, 24))
    assert latents.shape == (1, 2, 16 // factor, 24 // factor)
    assert model.decode(latents).shape == (1, 3, 16, 24)
    assert model.config.factor == factor


def test_pictures_of_a_batch_do_not_feel_each_other(model, images):
    whole = model.decode(model.encode(images))
    torch.testing.assert_close(model.decode(model.encode(images[1:])), whole[1:], rtol=1e-12, atol=1e-12)


def test_the_scale_makes_unit_latents_and_leaves_the_pictures_alone(model, images):
    before = model.decode(model.encode(images))
    for _ in range(2):  # the second time latents are measured as they are scaled already
        model.set_scale(model.encode(images))
        assert model.encode(images).std().item() == pytest.approx(1)
    torch.testing.assert_close(model.decode(model.encode(images)), before)
    assert model.state_dict()["scale"].item() == pytest.approx(1 / model.posterior(images).mean.std().item())
    assert model.encode(images).mean().abs() > 1e-3  # a factor alone: the mean is not taken off


def test_a_sample_is_scaled_as_the_mean_is(model, images):
    model.scale.fill_(3.0)
    drawn = model.encode(images, torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn / 3, model.posterior(images).sample(torch.Generator().manual_seed(1)))


def test_stable_diffusions_factor_is_one_over_a_standard_deviation():
    latents = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0)) / 0.18215 + 2
    assert scale_factor(latents).item() == pytest.approx(0.18215, rel=0.01)


def test_log_variances_are_cut_off(model, images):
    model.encoder[-1].bias.data[SMALL.channels :] = 1e4
    assert model.posterior(images).log_variance.max() == 20
    assert torch.isfinite(model.posterior(images).kl()).all()


@pytest.mark.parametrize("size", [(10, 12), (12, 18)])
def test_a_size_that_does_not_fit_is_explained(model, size):
    with pytest.raises(ValueError, match=f"images are {size[0]}x{size[1]}; .* multiples of 4"):
        model.encode(torch.zeros(1, 3, *size, dtype=torch.float64))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"widths": ()}, {"widths": (4, 0)}, {"blocks": 0}])
def test_sizes_that_make_no_model_are_explained(wrong):
    with pytest.raises(ValueError, match="must be at least 1"):
        ImageAutoencoderConfig(**wrong)


# ---- Loss, PSNR, cost ------------------------------------------------------------------------------------


def test_the_loss_is_minus_the_evidence_lower_bound(images, posterior):
    """Of a decoder that adds noise of variance beta: beta times -(log p(x|z) - KL), up to a constant."""
    beta, shifts = 0.3, (0.1, 0.4)
    bounds, losses = [], []
    for shift in shifts:
        made = images + shift
        log_p = Normal(made, math.sqrt(beta)).log_prob(images).flatten(1).sum(1)
        normal = Normal(posterior.mean[:2], (posterior.log_variance[:2] / 2).exp())
        kl = kl_divergence(normal, Normal(0.0, 1.0)).flatten(1).sum(1)
        bounds.append((log_p - kl).mean())
        two = Posterior(posterior.mean[:2], posterior.log_variance[:2])
        losses.append(autoencoder_loss(made, images, two, beta))
    count = images[0].numel()
    torch.testing.assert_close(losses[1] - losses[0], -beta * (bounds[1] - bounds[0]) / count)
    torch.testing.assert_close(losses[0], 0.5 * torch.tensor(0.01).double() + beta * kl.mean() / count)
    with pytest.raises(ValueError, match="beta=-1"):
        autoencoder_loss(images, images, posterior, -1)


def test_psnr_is_its_textbook_formula(generator):
    """By 8-bit values: peak 255."""
    x, y = torch.randint(256, (2, 3, 5, 4), generator=generator).double()
    mse = F.mse_loss(x, y).item()
    ours = psnr(x / 127.5 - 1, y / 127.5 - 1).item()
    assert ours == pytest.approx(20 * math.log10(255) - 10 * math.log10(mse))
    assert psnr(x, x).item() == math.inf


def test_a_clips_psnr_is_the_same(generator):
    video, target = torch.rand(2, 3, 4, 6, 5, generator=generator) * 2 - 1
    assert measures.psnr(video, target) == pytest.approx(psnr(video, target).item())


@pytest.mark.parametrize("config", [SMALL, ImageAutoencoderConfig(widths=(4, 6, 8), blocks=2)])
def test_the_closed_form_counts_what_torch_counts(config):
    from torch.utils.flop_counter import FlopCounterMode

    model = ImageAutoencoder(config)
    for part, index in (("encode", 0), ("decode", 1)):
        x = torch.zeros(1, 3, 32, 48)
        if part == "decode":
            x = torch.zeros(1, config.channels, 32 // config.factor, 48 // config.factor)
        with FlopCounterMode(display=False) as counter:
            getattr(model, part)(x)
        assert 2 * image_autoencoder_macs(config, 32, 48)[index] == counter.get_total_flops()
