"""The causal video autoencoder: nothing looks ahead, and every part against torch's own modules."""

import dataclasses
from inspect import unwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from sora_edu.autoencoder import (
    AutoencoderConfig,
    CausalTimeConv,
    CausalVideoAutoencoder,
    Conv,
    PositionNorm,
    ResidualBlock,
    carry_over,
    fold_frames,
    reconstruction_loss,
    unfold_frames,
)
from sora_edu.data.world import parse, render
from sora_edu.sora import Sora

SMALL = AutoencoderConfig(channels=4, widths=(6, 8, 10), encoder_blocks=(1, 2), decoder_blocks=(1, 1, 2))
FRAMES, LATENTS = 13, 4


@pytest.fixture
def model() -> CausalVideoAutoencoder:
    """A small autoencoder in float64, with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    model = CausalVideoAutoencoder(SMALL).double()
    model.mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    model.std.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    return model


@pytest.fixture
def video(generator):
    return torch.rand(2, 3, FRAMES, 16, 24, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.fixture
def latents(generator):
    return torch.randn(2, 4, LATENTS, 2, 3, generator=generator, dtype=torch.float64)


# ---- Nothing looks ahead ---------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_a_prefix_has_the_prefix_of_the_latents(model, video, frames):
    short = model.encode(video[:, :, :frames])
    torch.testing.assert_close(short, model.encode(video)[:, :, : short.shape[2]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_prefix_of_latents_has_the_prefix_of_the_frames(model, latents, count):
    short = model.decode(latents[:, :, :count])
    assert short.shape[2] == 4 * count - 3
    torch.testing.assert_close(short, model.decode(latents)[:, :, : short.shape[2]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frame", [1, 4, 5, 12])
def test_what_comes_later_changes_not_one_bit_of_the_latents(model, video, frame):
    other = video.clone()
    other[:, :, frame:] = other[:, :, frame:].flip(2, 3, 4) * 0.7 + 0.1
    first, second = model.encode(video), model.encode(other)
    before = (frame + 3) // 4  # latent frames that end before this frame
    assert torch.equal(first[:, :, :before], second[:, :, :before])
    assert not torch.equal(first[:, :, before], second[:, :, before])


@pytest.mark.parametrize("group", range(LATENTS))
def test_a_latent_frame_feels_its_own_frames_and_those_before(model, video, group):
    """Each latent frame reads itself and the two before it, twice: all of this clip's past, no future."""
    video.requires_grad_()
    model.encode(video)[:, :, group].square().sum().backward()
    felt = video.grad.abs().amax((0, 1, 3, 4))
    assert (felt[: 4 * group + 1] > 0).all() and (felt[4 * group + 1 :] == 0).all()


@pytest.mark.parametrize("frame", range(FRAMES))
def test_a_frame_feels_its_own_latent_and_those_before(model, latents, frame):
    latents.requires_grad_()
    model.decode(latents)[:, :, frame].square().sum().backward()
    felt, own = latents.grad.abs().amax((0, 1, 3, 4)), (frame + 3) // 4
    assert (felt[: own + 1] > 0).all() and (felt[own + 1 :] == 0).all()


def test_clips_of_a_batch_do_not_feel_each_other(model, video):
    whole = model.decode(model.encode(video))
    torch.testing.assert_close(model.decode(model.encode(video[1:])), whole[1:], rtol=1e-12, atol=1e-12)


# ---- Frames to groups ------------------------------------------------------------------------------------


def test_folding_puts_every_frame_where_a_plain_loop_does(generator):
    video = torch.randn(2, 3, 9, 2, 4, generator=generator)
    groups = fold_frames(video)
    assert groups.shape == (2, 3, 12, 2, 4)
    for group, frames in enumerate([(0, 0, 0, 0), (1, 2, 3, 4), (5, 6, 7, 8)]):
        for place, frame in enumerate(frames):
            assert torch.equal(groups[:, group, 3 * place : 3 * place + 3], video[:, :, frame])


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_unfolding_undoes_folding(frames, generator):
    video = torch.randn(2, 3, frames, 4, 2, generator=generator)
    assert torch.equal(unfold_frames(fold_frames(video)), video)


@pytest.mark.parametrize("frames", [0, 2, 4, 16])
def test_a_number_of_frames_that_does_not_fit_is_explained(model, frames):
    video = torch.zeros(1, 3, frames, 16, 16, dtype=torch.float64)
    for call in (model.encode, model.reconstruct_noisy):
        with pytest.raises(ValueError, match=rf"video has {frames} frames; .* 1 \+ 4k"):
            call(video)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 16, 24), (17, 8, 32)])
def test_sizes(model, shape):
    frames, height, width = shape
    latents = model.encode(torch.zeros(2, 3, *shape, dtype=torch.float64))
    assert latents.shape == (2, 4, 1 + (frames - 1) // 4, height // 8, width // 8)
    assert model.decode(latents).shape == (2, 3, *shape)


@pytest.mark.parametrize("size", [(12, 16), (16, 20), (4, 4)])
def test_a_size_that_does_not_fit_is_explained(model, size):
    video = torch.zeros(1, 3, 5, *size, dtype=torch.float64)
    for call in (model.encode, model.reconstruct_noisy):
        with pytest.raises(ValueError, match=f"video is {size[0]}x{size[1]}; .* multiples of 8"):
            call(video)


# ---- Parts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (2, 2)])
def test_a_convolution_is_torchs_own(kernel, stride, generator):
    x = torch.randn(2, 5, 6, 8, generator=generator)
    mine = Conv(5, 7, kernel, stride)
    nn.init.normal_(mine.bias)
    theirs = nn.Conv2d(5, 7, kernel, stride, padding="same" if stride == 1 else 0)
    theirs.weight.data = mine.weight.data.view(7, 5, kernel, kernel)
    theirs.bias = mine.bias
    torch.testing.assert_close(mine(x), theirs(x))


def test_a_fresh_convolution_keeps_the_variance(generator):
    """Weights of variance 1 / fan-in: unit inputs give outputs of unit variance."""
    torch.manual_seed(0)
    out = Conv(64, 64)(torch.randn(2, 64, 16, 16, generator=generator))[:, :, 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1, rel=0.05)


def test_the_norm_is_torchs_rms_norm_over_channels(generator):
    x = torch.randn(2, 5, 3, 4, generator=generator)
    mine, theirs = PositionNorm(5), nn.RMSNorm(5, eps=1e-6)
    nn.init.normal_(mine.scale)
    theirs.weight = mine.scale
    torch.testing.assert_close(mine(x), theirs(x.movedim(1, -1)).movedim(-1, 1))


def test_a_residual_block_is_its_formula(generator):
    x = torch.randn(2, 6, 4, 5, generator=generator)
    block = ResidualBlock(6)
    y = x
    for norm, conv in ((block.norm1, block.conv1), (block.norm2, block.conv2)):
        y = y / (y.square().mean(1, keepdim=True) + 1e-6).sqrt() * norm.scale[:, None, None]
        y = F.conv2d(y * y.sigmoid(), conv.weight.view(6, 6, 3, 3), conv.bias, padding=1)
    torch.testing.assert_close(block(x), x + y)


def test_reading_back_in_time_is_a_causal_3d_convolution(generator):
    """Taps from the oldest frame to the present one, and zeros, not copies, before the first frame."""
    x = torch.randn(2, 7, 6, 4, 5, generator=generator)  # b t c h w
    layer = CausalTimeConv(6)
    nn.init.normal_(layer.mix.bias)
    kernel = layer.mix.weight.view(6, 3, 6).transpose(1, 2)[..., None, None]
    y = F.silu(layer.norm(x.flatten(0, 1))).unflatten(0, (2, 7)).transpose(1, 2)
    y = F.conv3d(F.pad(y, (0, 0, 0, 0, 2, 0)), kernel, layer.mix.bias).transpose(1, 2)
    torch.testing.assert_close(layer(x.flatten(0, 1), 7), (x + y).flatten(0, 1))


# ---- Statistics and training -----------------------------------------------------------------------------


def test_measured_statistics_make_unit_latents(model, video):
    model.set_statistics(model.encode(video))
    latents = model.encode(video)
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(4).double())
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(4).double())


def test_statistics_change_the_latents_but_not_the_reconstruction(model, video):
    """Decoding undoes them; and they are weights, which a checkpoint keeps."""
    before, latents = model.decode(model.encode(video)), model.encode(video)
    model.set_statistics(latents)
    assert not torch.allclose(model.encode(video), latents)
    torch.testing.assert_close(model.decode(model.encode(video)), before)
    assert {"mean", "std"} <= model.state_dict().keys()


def test_training_adds_the_noise_of_the_posterior(model, video):
    """Noise of the configured deviation, on latents not yet normalised, from the generator alone."""
    model.mean.zero_()
    model.std.fill_(1)
    reconstruction, raw = model.reconstruct_noisy(video, torch.Generator().manual_seed(5))
    torch.testing.assert_close(raw.transpose(1, 2), model.encode(video))
    noise = torch.randn(raw.shape, generator=torch.Generator().manual_seed(5)).double()
    torch.testing.assert_close(reconstruction, model.decode((raw + 0.1 * noise).transpose(1, 2)))


def test_without_noise_training_sees_what_use_gives(model, video):
    model.config = dataclasses.replace(SMALL, noise=0.0)
    torch.testing.assert_close(model.reconstruct_noisy(video)[0], model.decode(model.encode(video)))


def test_every_weight_learns(model, video):
    reconstruction, _ = model.reconstruct_noisy(video, torch.Generator().manual_seed(0))
    reconstruction_loss(reconstruction, video).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_a_few_steps_fit_a_clip(model, video):
    target = video[:1, :, :5] * 0 + torch.tensor([0.5, -0.3, 0.2])[:, None, None, None]
    optimiser, losses = torch.optim.Adam(model.parameters(), 1e-2), []
    for step in range(10):
        made, _ = model.reconstruct_noisy(target, torch.Generator().manual_seed(step))
        loss = reconstruction_loss(made, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# ---- Loss ------------------------------------------------------------------------------------------------


def test_the_loss_of_a_grey_clip_is_its_closed_form():
    target = torch.full((2, 3, 5, 8, 8), 0.2)
    assert reconstruction_loss(target, target) == 0
    assert reconstruction_loss(target - 0.4, target).item() == pytest.approx(0.5 * 0.4 + 5 * 0.16)


@pytest.mark.parametrize("emphasis", [0.0, 6.0])
def test_colour_and_its_surroundings_count_more(emphasis, generator):
    """In numpy: the brightest channel 0.3 above the darkest, and two pixels around, in each frame."""
    target = torch.zeros(2, 3, 5, 12, 16)
    target[0, 0, 2, 5, 7] = 0.31  # saturated
    target[1, 2, 4, 0, 15] = -1.0  # saturated, in a corner
    target[1, :, 1, 6, 6] = 0.9  # white is not
    target[1, 1, 3, 6, 6] = 0.29  # nor is this
    video = target + 0.1 * torch.randn(target.shape, generator=generator)
    saturated = np.ptp(target.numpy(), axis=1) > 0.3
    near = ndimage.binary_dilation(saturated, np.ones((1, 1, 5, 5)))
    assert near.sum() == 25 + 9
    weight = np.broadcast_to((1 + emphasis * near)[:, None], target.shape)
    error = np.abs((video - target).numpy().astype(np.float64))
    wanted = np.average(0.5 * error + 5 * error**2, weights=weight)
    assert reconstruction_loss(video, target, emphasis).item() == pytest.approx(wanted, rel=1e-5)


# ---- Weights ---------------------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int) -> int:
    return (inputs * kernel**2 + 1) * outputs


def block(channels: int) -> int:
    return 2 * (conv(channels, channels, 3) + channels)


def over_time(channels: int) -> int:
    return channels + conv(3 * channels, channels, 1)


def test_each_part_has_the_parameters_of_its_formula():
    config = AutoencoderConfig()
    half, quarter, eighth = config.widths
    (e1, e2), (d1, d2, d3) = config.encoder_blocks, config.decoder_blocks
    encoder = (
        conv(12, half, 2) + conv(half, quarter, 2) + e1 * block(quarter) + conv(quarter, eighth, 2)
        + e2 * (block(eighth) + over_time(eighth)) + eighth + conv(eighth, config.channels, 1)
    )  # fmt: skip
    decoder = (
        conv(config.channels, eighth, 3) + d3 * (block(eighth) + over_time(eighth))
        + conv(eighth, 4 * quarter, 1) + d2 * block(quarter)
        + conv(quarter, 4 * half, 1) + d1 * block(half) + half + conv(half, 4 * 12, 3)
    )  # fmt: skip
    with torch.device("meta"):
        model = CausalVideoAutoencoder(config)
    for part, wanted in ((model.encoder, encoder), (model.decoder, decoder)):
        assert sum(p.numel() for p in part.parameters()) == wanted


def test_the_names_of_the_weights_are_those_of_the_checkpoints():
    """Whoever changes one has to train again, or to convert what ships."""
    of_conv = ["weight", "bias"]
    of_block = [f"{part}{n}" for n in "12" for part in ("norm", "conv")]
    of_block = [f"{part}.{name}" for part in of_block for name in (["scale"] if "norm" in part else of_conv)]
    of_time = ["norm.scale", "mix.weight", "mix.bias"]
    layers = {
        "encoder.stem": of_conv, "encoder.to_quarter": of_conv, "encoder.to_eighth": of_conv,
        "encoder.at_quarter.0": of_block, "encoder.at_quarter.1": of_block,
        "encoder.at_eighth.0": of_block, "encoder.at_eighth.1": of_block,
        "encoder.time.0": of_time, "encoder.time.1": of_time,
        "encoder.head.0": ["scale"], "encoder.head.2": of_conv,
        "decoder.stem": of_conv, "decoder.to_quarter": of_conv, "decoder.to_half": of_conv,
        "decoder.at_half.0": of_block, "decoder.at_half.1": of_block,
        **{f"decoder.at_quarter.{i}": of_block for i in range(3)},
        "decoder.at_eighth.0": of_block, "decoder.at_eighth.1": of_block,
        "decoder.time.0": of_time, "decoder.time.1": of_time,
        "decoder.head.0": ["scale"], "decoder.head.2": of_conv,
    }  # fmt: skip
    wanted = {"mean", "std"} | {f"{layer}.{name}" for layer, names in layers.items() for name in names}
    with torch.device("meta"):
        assert CausalVideoAutoencoder().state_dict().keys() == wanted


# ---- A clip in pieces ------------------------------------------------------------------------------------

PLANS = [(13,), (1, 4, 4, 4), (5, 8), (1, 12), (9, 4), (1, 8, 4)]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_encoding_in_pieces_is_encoding_whole(model, video, plan):
    pieces = list(model.encode_stream(video.split(plan, dim=2)))
    assert [piece.shape[2] for piece in pieces] == [1 + plan[0] // 4, *(frames // 4 for frames in plan[1:])]
    torch.testing.assert_close(torch.cat(pieces, 2), model.encode(video), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("plan", [(4,), (1, 1, 1, 1), (1, 3), (2, 2), (3, 1)], ids=str)
def test_decoding_in_pieces_is_decoding_whole(model, latents, plan):
    pieces = list(model.decode_stream(latents.split(plan, dim=2)))
    assert [piece.shape[2] for piece in pieces] == [4 * plan[0] - 3, *(4 * count for count in plan[1:])]
    torch.testing.assert_close(torch.cat(pieces, 2), model.decode(latents), rtol=1e-12, atol=1e-12)


def test_the_shipped_autoencoder_streams_to_1e_5():
    autoencoder = Sora.from_pretrained("tiny").autoencoder
    scene = parse("a red star bounces on a dark background").complete(seed=0)
    clip = render(scene, 33, 64, 64)[None]
    whole = autoencoder.encode(clip)
    pieces = list(autoencoder.encode_stream(clip.split((9, 4, 12, 8), dim=2)))
    torch.testing.assert_close(torch.cat(pieces, 2), whole, rtol=0, atol=1e-5)
    frames = list(autoencoder.decode_stream(whole.split((1, 5, 3), dim=2)))
    torch.testing.assert_close(torch.cat(frames, 2), autoencoder.decode(whole), rtol=0, atol=1e-5)


def test_a_stream_is_lazy_and_remembers_two_frames(model, video):
    """It asks for a piece when it is asked for one, and its memory does not grow with the stream."""
    asked = []

    def without_end():
        yield video[:, :, :1]
        while True:
            asked.append(len(asked))
            yield video[:, :, 1:9]

    stream, memory = model.encode_stream(without_end()), {}
    assert next(stream).shape[2] == 1 and asked == []
    assert next(stream).shape[2] == 2 and asked == [0]
    model.encoder(fold_frames(video), memory)
    assert {tuple(kept.shape) for kept in memory.values()} == {(2, 2, 10, 2, 3)}
    assert len(memory) == 2
    assert all(kept.untyped_storage().nbytes() == kept.nbytes for kept in memory.values())


def test_two_streams_do_not_mix(model, video):
    one, other = (model.encode_stream(v.split((5, 4, 4), dim=2)) for v in (video, video.flip(0)))
    pairs = [(a, b) for a, b in zip(one, other, strict=True)]
    for k, whole in enumerate((model.encode(video), model.encode(video.flip(0)))):
        torch.testing.assert_close(torch.cat([pair[k] for pair in pairs], 2), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((4, 8), r"video has 4 frames; .* 1 \+ 4k"),
        ((5, 3), "piece 1 has 3 frames; after the first, 4k: 4, 8, 12"),
        ((1, 4, 0), "piece 2 has 0 frames"),
    ],
)
def test_pieces_that_do_not_fit_are_explained(model, video, plan, message):
    pieces = [video[:, :, :frames] for frames in plan]
    with pytest.raises(ValueError, match=message):
        list(model.encode_stream(pieces))


def test_pieces_of_other_sizes_are_explained(model, video, latents):
    message = r"piece 1 has \(b, c, h, w\) = \(2, 3, 8, 24\); the first of this stream had \(2, 3, 16, 24\)"
    with pytest.raises(ValueError, match=message):
        list(model.encode_stream([video[:, :, :1], video[:, :, 1:5, :8]]))
    with pytest.raises(ValueError, match=r"piece 1 has .* the first of this stream had"):
        list(model.decode_stream([latents, latents[:1]]))
    with pytest.raises(ValueError, match=r"piece 0 has shape \(3, 1, 16, 24\); give \(b, c, t, h, w\)"):
        list(model.encode_stream(iter([video[0, :, :1]])))
    with pytest.raises(ValueError, match="piece 0 has no latent frame"):
        list(model.decode_stream([latents[:, :, :0]]))
    with pytest.raises(ValueError, match=r"past has shape \(1, 2, 3, 2, 2\) and x \(1, 4, 3, 2, 1\)"):
        unwrap(carry_over)(torch.zeros(1, 4, 3, 2, 1), torch.zeros(1, 2, 3, 2, 2))


@pytest.mark.parametrize("given", [0, 1])
def test_a_fresh_model_can_learn_from_greyed_clips(given):
    """Of the size that ships, at the first step: nothing given, and one frame of five."""
    torch.manual_seed(0)
    model = CausalVideoAutoencoder(AutoencoderConfig())
    video = torch.zeros(1, 3, 5, 32, 32)
    video[:, :, :given] = torch.rand(1, 3, given, 32, 32)
    reconstruction, _ = model.reconstruct_noisy(video, torch.Generator().manual_seed(0))
    reconstruction_loss(reconstruction, torch.rand_like(video)).backward()
    assert torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]) < 1e3
