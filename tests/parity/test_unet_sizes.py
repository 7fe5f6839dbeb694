"""The U-Nets that chapter 07 sets beside a DiT, counted again on the implementation in diffusers."""

import diffusers
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sora_edu.teach.dit_figures import UNETS


def ddpm():
    """The configuration of google/ddpm-celebahq-256, and what its network is asked."""
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    model = diffusers.UNet2DModel(
        sample_size=256,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    return model, ()


def stable_diffusion():
    """The configuration of Stable Diffusion 1.5, whose U-Net is also given 77 text tokens."""
    return diffusers.UNet2DConditionModel(cross_attention_dim=768), (torch.empty(1, 77, 768),)


@pytest.mark.parametrize(
    ("name", "make"), [("DDPM, CelebA-HQ", ddpm), ("Stable Diffusion 1.5", stable_diffusion)]
)
def test_the_u_nets_are_as_large_as_the_chapter_says(name, make):
    kept = UNETS[name]
    with torch.device("meta"), torch.no_grad():
        model, told = make()
        with FlopCounterMode(display=False) as counter:
            out = model(torch.empty(1, *kept.shape), torch.empty(1), *told).sample
    assert tuple(out.shape[1:]) == kept.shape
    assert sum(weight.numel() for weight in model.parameters()) == kept.parameters
    assert counter.get_total_flops() == 2 * kept.macs
