"""The image autoencoder's posterior against diffusers', which Stable Diffusion's autoencoder has."""

import pytest
import torch
from torch import nn

from sora_edu.autoencoder import ImageAutoencoder, ImageAutoencoderConfig

vae = pytest.importorskip("diffusers.models.autoencoders.vae")


class Said(nn.Module):
    """An encoder that always says the same."""

    def __init__(self, moments):
        super().__init__()
        self.moments = moments

    def forward(self, images):
        return self.moments


@pytest.fixture
def moments(generator):
    """Means, then log variances; some of these lie beyond where both cut them off."""
    moments = torch.randn(3, 8, 5, 4, generator=generator)
    moments[0, 4:] *= 40
    return moments


@pytest.fixture
def posterior(moments):
    model = ImageAutoencoder(ImageAutoencoderConfig(widths=(4,)))
    model.encoder = Said(moments)
    return model.posterior(torch.zeros(3, 3, 10, 8))


def test_the_same_numbers_are_read_as_the_same_distribution(moments, posterior):
    theirs = vae.DiagonalGaussianDistribution(moments)
    assert torch.equal(posterior.mean, theirs.mode())
    torch.testing.assert_close((posterior.log_variance / 2).exp(), theirs.std)
    torch.testing.assert_close(posterior.kl(), theirs.kl())


def test_the_same_dice_give_the_same_sample(moments, posterior):
    theirs = vae.DiagonalGaussianDistribution(moments).sample(torch.Generator().manual_seed(3))
    torch.testing.assert_close(posterior.sample(torch.Generator().manual_seed(3)), theirs)
