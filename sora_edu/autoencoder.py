"""Autoencoders: pixels to latents and back, for pictures (chapter 06) and for videos (chapter 09).

The image autoencoder is variational. Each number of a latent is a normal distribution, whose mean and
variance the encoder says; the KL divergence to a standard normal, times beta, is what the latents pay:

    b 3 h w  ->  b 4 h/4 w/4        sizes of the course's; Stable Diffusion's divides by 8

The causal video autoencoder makes 1 + k latent frames of 1 + 4k frames, eight times smaller each way:

    b 3 1+4k h w  ->  b 16 1+k h/8 w/8

Each of its latent frames stands for four frames, and the first one for the first frame alone, so that a
picture is a video of one frame. Nothing looks ahead: encoding the beginning of a clip gives the beginning
of its latents, exactly. That rules out every normalisation over time or space-time; here each position is
normalised by itself. And it lets a long clip pass piece by piece (`encode_stream`, `decode_stream`), with two
frames of features remembered for each convolution over time. After the causal convolutions of MAGVIT-v2 (Yu
et al., 2023, section 3.2), with frames folded into channels instead of strided 3-D convolutions, which two
CPU cores prefer.

Sources: Kingma and Welling 2014 (VAE), Higgins et al. 2017 (beta), Rombach et al. 2022 (latent diffusion).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8

Memory = dict[nn.Module, Tensor]
"""What each convolution over time has to remember of a stream: its last inputs, "b p c h w"."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the causal video autoencoder."""

    channels: int = 16
    """Channels of the latents."""
    widths: tuple[int, int, int] = (48, 128, 192)
    """Channels of the feature maps at half, a quarter and an eighth of the resolution."""
    encoder_blocks: tuple[int, int] = (2, 2)
    """Residual blocks of the encoder at a quarter and an eighth."""
    decoder_blocks: tuple[int, int, int] = (2, 3, 2)
    """Residual blocks of the decoder at half, a quarter and an eighth."""
    noise: float = 0.1
    """Standard deviation of the noise on the latents in training: the posterior's fixed width."""


class Conv(nn.Module):
    """A 2-D convolution over every frame by itself, "same" padding unless it strides.

    The weight is kept as a matrix (out, in * k * k), as the optimiser wants it (see `train.loop`).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.shape, self.stride = (outputs, inputs, kernel, kernel), stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs * kernel * kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=(inputs * kernel * kernel) ** -0.5)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c2 h2 w2"]:
        padding = self.shape[-1] // 2 if self.stride == 1 else 0
        weight = self.weight.view(self.shape).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, self.bias, self.stride, padding)


class PositionNorm(nn.Module):
    """RMSNorm over the channels of each position: it sees neither its neighbours nor other frames."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        scale = self.scale.to(x.dtype)
        return F.rms_norm(x.permute(0, 2, 3, 1), scale.shape, scale, 1e-6).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), in space only."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = PositionNorm(channels), Conv(channels, channels)
        self.norm2, self.conv2 = PositionNorm(channels), Conv(channels, channels)
        nn.init.normal_(self.conv2.weight, std=0.1 * (9 * channels) ** -0.5)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        x = x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return x


def carry_over(
    x: Float[Tensor, "b t c h w"], past: Float[Tensor, "b p c h w"]
) -> tuple[Float[Tensor, "b p+t c h w"], Float[Tensor, "b p c h w"]]:
    """For a causal convolution over time that gets a video in pieces: what it reads, and what it keeps.

    It reads the remembered frames `past` and then the piece, and keeps the last p of what it has read, for
    the piece after this one. p is the number of taps less one; before the first piece the past is zeros.
    Raises ValueError for a past that belongs to other videos.
    """
    if x.shape[:1] + x.shape[2:] != past.shape[:1] + past.shape[2:]:
        raise ValueError(
            f"past has shape {tuple(past.shape)} and x {tuple(x.shape)}; all axes but time, the second, must "
            "be the same"
        )
    seen = torch.cat([past, x], dim=1)
    return seen, seen[:, x.shape[1] :]


class CausalTimeConv(nn.Module):
    """Adds to each latent frame a linear reading of itself and the two before it, zeros before the first.

    With a `memory`, the frames before the first are those of the piece before, and it is brought up to date.
    """

    def __init__(self, channels: int, taps: int = 3):
        super().__init__()
        self.taps = taps
        self.norm = PositionNorm(channels)
        self.mix = Conv(taps * channels, channels, kernel=1)
        nn.init.normal_(self.mix.weight, std=0.1 * (taps * channels) ** -0.5)

    def forward(
        self, x: Float[Tensor, "n c h w"], frames: int, memory: Memory | None = None
    ) -> Float[Tensor, "n c h w"]:
        y = rearrange(F.silu(self.norm(x)), "(b t) c h w -> b t c h w", t=frames)
        past = None if memory is None else memory.get(self)
        if past is None:
            past = y.new_zeros(y.shape[0], self.taps - 1, *y.shape[2:])
        seen, kept = carry_over(y, past)
        if memory is not None:
            memory[self] = kept.clone()  # a view would keep the whole piece in memory
        stacked = torch.cat([seen[:, i : i + frames] for i in range(self.taps)], dim=2)
        return x + self.mix(rearrange(stacked, "b t c h w -> (b t) c h w"))


def fold_frames(video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b t c4 h w"]:
    """Groups frames by fours into channels, the first frame standing four times: 1 + 4k -> 1 + k.

    Raises ValueError for any other number of frames.
    """
    if video.shape[2] % FRAMES_PER_LATENT != 1:
        frames = video.shape[2]
        raise ValueError(f"video has {frames} frames; the causal autoencoder takes 1 + 4k: 1, 5, 9, 13, …")
    first = video[:, :, :1].expand(-1, -1, FRAMES_PER_LATENT - 1, -1, -1)
    return _group(torch.cat([first, video], 2))


def _group(video: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b t c4 h w"]:
    """Every four frames as one, in its channels."""
    return rearrange(video, "b c (t f) h w -> b t (f c) h w", f=FRAMES_PER_LATENT)


def _ungroup(groups: Float[Tensor, "b t c4 h w"]) -> Float[Tensor, "b c f h w"]:
    """Undoes `_group`."""
    return rearrange(groups, "b t (f c) h w -> b c (t f) h w", f=FRAMES_PER_LATENT)


def unfold_frames(groups: Float[Tensor, "b t c4 h w"]) -> Float[Tensor, "b c f h w"]:
    """Undoes `fold_frames`; of the first group only the last frame is kept."""
    return _ungroup(groups)[:, :, FRAMES_PER_LATENT - 1 :]


class Encoder(nn.Module):
    """Folded frames to latents."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        half, quarter, eighth = config.widths
        self.stem = Conv(3 * FRAMES_PER_LATENT, half, kernel=2, stride=2)
        # Grey is 0. Without a bias a greyed clip would be 0 in every layer of a fresh encoder, and at 0 each
        # norm multiplies the gradient by a thousand: it would overflow before the first step.
        nn.init.constant_(self.stem.bias, 0.1)
        self.to_quarter = Conv(half, quarter, kernel=2, stride=2)
        self.at_quarter = nn.Sequential(*[ResidualBlock(quarter) for _ in range(config.encoder_blocks[0])])
        self.to_eighth = Conv(quarter, eighth, kernel=2, stride=2)
        self.at_eighth = nn.ModuleList([ResidualBlock(eighth) for _ in range(config.encoder_blocks[1])])
        self.time = nn.ModuleList([CausalTimeConv(eighth) for _ in range(config.encoder_blocks[1])])
        self.head = nn.Sequential(PositionNorm(eighth), nn.SiLU(), Conv(eighth, config.channels, kernel=1))

    def forward(
        self, groups: Float[Tensor, "b t c4 h w"], memory: Memory | None = None
    ) -> Float[Tensor, "b t c h8 w8"]:
        b, t = groups.shape[:2]
        x = groups.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.at_quarter(self.to_quarter(F.silu(self.stem(x))))
        x = self.to_eighth(x)
        for block, time in zip(self.at_eighth, self.time, strict=True):
            x = time(block(x), t, memory)
        return self.head(x).unflatten(0, (b, t))


class Decoder(nn.Module):
    """Latents to folded frames."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        half, quarter, eighth = config.widths
        self.stem = Conv(config.channels, eighth)
        self.at_eighth = nn.ModuleList([ResidualBlock(eighth) for _ in range(config.decoder_blocks[2])])
        self.time = nn.ModuleList([CausalTimeConv(eighth) for _ in range(config.decoder_blocks[2])])
        self.to_quarter = Conv(eighth, 4 * quarter, kernel=1)
        self.at_quarter = nn.Sequential(*[ResidualBlock(quarter) for _ in range(config.decoder_blocks[1])])
        self.to_half = Conv(quarter, 4 * half, kernel=1)
        self.at_half = nn.Sequential(*[ResidualBlock(half) for _ in range(config.decoder_blocks[0])])
        self.head = nn.Sequential(PositionNorm(half), nn.SiLU(), Conv(half, 4 * 3 * FRAMES_PER_LATENT))

    def forward(
        self, latents: Float[Tensor, "b t c h8 w8"], memory: Memory | None = None
    ) -> Float[Tensor, "b t c4 h w"]:
        b, t = latents.shape[:2]
        x = self.stem(latents.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        for block, time in zip(self.at_eighth, self.time, strict=True):
            x = time(block(x), t, memory)
        x = self.at_quarter(F.pixel_shuffle(self.to_quarter(x), 2))
        x = self.at_half(F.pixel_shuffle(self.to_half(x), 2))
        return F.pixel_shuffle(self.head(x), 2).unflatten(0, (b, t))


class CausalVideoAutoencoder(nn.Module):
    """Pixels to normalised latents and back.

    `encode` gives latents of about zero mean and unit variance per channel: the statistics of the training
    set are measured once (`set_statistics`) and kept with the weights.
    """

    def __init__(self, config: AutoencoderConfig = AutoencoderConfig()):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.mean.device

    def encode(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b c t h8 w8"]:
        """Encodes 1 + 4k frames in [-1, 1], height and width multiples of 8, to 1 + k latent frames.

        Raises ValueError for other numbers and sizes.
        """
        _check_size("video is", video, PIXELS_PER_LATENT)
        return self._normalised(self.encoder(fold_frames(video)))

    def decode(self, latents: Float[Tensor, "b c t h8 w8"]) -> Float[Tensor, "b 3 f h w"]:
        """Decodes 1 + k latent frames to 1 + 4k frames, not clamped."""
        return unfold_frames(self.decoder(self._raw(latents)))

    def encode_stream(
        self, pieces: Iterable[Float[Tensor, "_ 3 _ _ _"]]
    ) -> Iterator[Float[Tensor, "_ c _ _ _"]]:
        """Encodes a clip that comes in pieces, "b 3 f h w" each: the latents of each piece, as it comes.

        The first piece has 1 + 4k frames, each later one 4k, k at least 1: 1 + k latent frames, then k. Put
        together they are the latents of the whole clip. Only the last frames of features are remembered, so
        the memory that it takes does not grow with the clip. Raises ValueError for other numbers of frames,
        for sizes that are no multiples of 8, and for a piece of another size than the one before.
        """
        memory: Memory = {}
        for number, piece in enumerate(_alike(pieces)):
            _check_size("piece is", piece, PIXELS_PER_LATENT)
            frames = piece.shape[2]
            if number and (frames % FRAMES_PER_LATENT or not frames):
                raise ValueError(f"piece {number} has {frames} frames; after the first, 4k: 4, 8, 12, …")
            groups = _group(piece) if number else fold_frames(piece)
            yield self._normalised(self.encoder(groups, memory))

    def decode_stream(
        self, pieces: Iterable[Float[Tensor, "_ c _ _ _"]]
    ) -> Iterator[Float[Tensor, "_ 3 _ _ _"]]:
        """Decodes latents that come in pieces, "b c t h8 w8" each: the frames of each piece, as it comes.

        t latent frames make 4t frames, three fewer in the first piece. Raises ValueError for an empty piece,
        and for one of another size than the one before.
        """
        memory: Memory = {}
        for number, piece in enumerate(_alike(pieces)):
            if not piece.shape[2]:
                raise ValueError(f"piece {number} has no latent frame; give at least 1")
            groups = self.decoder(self._raw(piece), memory)
            yield _ungroup(groups) if number else unfold_frames(groups)

    def _normalised(self, raw: Float[Tensor, "b t c h8 w8"]) -> Float[Tensor, "b c t h8 w8"]:
        return rearrange((raw - self.mean[:, None, None]) / self.std[:, None, None], "b t c h w -> b c t h w")

    def _raw(self, latents: Float[Tensor, "b c t h8 w8"]) -> Float[Tensor, "b t c h8 w8"]:
        latents = rearrange(latents, "b c t h w -> b t c h w")
        return latents * self.std[:, None, None] + self.mean[:, None, None]

    def reconstruct_noisy(
        self, video: Float[Tensor, "b 3 f h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b 3 f h w"], Float[Tensor, "b t c h8 w8"]]:
        """The training pass: decodes latents with the posterior's noise added; also gives the raw means."""
        _check_size("video is", video, PIXELS_PER_LATENT)
        raw = self.encoder(fold_frames(video))
        noise = torch.randn(raw.shape, generator=generator, dtype=torch.float32)
        return unfold_frames(self.decoder(raw + self.config.noise * noise.to(raw))), raw

    def set_statistics(self, latents: Float[Tensor, "b c t h8 w8"]) -> None:
        """Makes `encode` give zero mean and unit variance per channel on `latents`, as encoded before."""
        latents = latents.to(self.mean)
        mean = latents.mean((0, 2, 3, 4)) * self.std + self.mean
        self.std.mul_(latents.std((0, 2, 3, 4)))
        self.mean.copy_(mean)


def _alike(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """The pieces of one stream; a ValueError for one that is unlike the first in more than its length."""
    first = None
    for number, piece in enumerate(pieces):
        if piece.ndim != 5:
            raise ValueError(f"piece {number} has shape {tuple(piece.shape)}; give (b, c, t, h, w)")
        shape = (*piece.shape[:2], *piece.shape[3:])
        first = first or shape
        if shape != first:
            raise ValueError(
                f"piece {number} has (b, c, h, w) = {shape}; the first of this stream had {first}"
            )
        yield piece


def _check_size(what: str, x: Tensor, factor: int) -> None:
    height, width = x.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"{what} {height}x{width}; height and width must be multiples of {factor}")


def reconstruction_loss(
    video: Float[Tensor, "b 3 f h w"], target: Float[Tensor, "b 3 f h w"], emphasis: float = 6.0
) -> Float[Tensor, ""]:
    """Half the absolute and five times the squared error, averaged; colour counts `emphasis` + 1 times.

    Objects, their saturated pixels and what is near, cover about a tenth of a clip: an even mean would spend
    the model on the backdrop.
    """
    saturation = (target.amax(1) - target.amin(1)).flatten(0, 1)
    near = F.max_pool2d((saturation > 0.3).float()[:, None], 5, stride=1, padding=2)
    weight = rearrange(1 + emphasis * near, "(b f) 1 h w -> b 1 f h w", b=len(target))
    error = video.float() - target
    return (weight * (0.5 * error.abs() + 5 * error.square())).mean() / weight.mean()


# ---- Pictures --------------------------------------------------------------------------------------------

LOG_VARIANCES = (-30.0, 20.0)
"""Where log variances are cut off, as in the code of latent diffusion: exp stays finite."""


@dataclass(frozen=True, kw_only=True)
class ImageAutoencoderConfig:
    """Sizes of the image autoencoder."""

    channels: int = 4
    """Channels of the latents."""
    widths: tuple[int, ...] = (32, 64)
    """Channels of the feature maps at half the resolution, at a quarter, and so on; one for each halving."""
    blocks: int = 1
    """Residual blocks at each resolution, in the encoder as in the decoder."""

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        if min((self.channels, self.blocks, *self.widths), default=0) < 1 or not self.widths:
            raise ValueError(
                f"channels={self.channels}, widths={self.widths}, blocks={self.blocks}: "
                "all must be at least 1, and there must be a width for at least one halving"
            )

    @property
    def factor(self) -> int:
        """Pixels along the side of the square that one latent position stands for."""
        return 2 ** len(self.widths)


def reparameterise(
    mean: Float[Tensor, "..."], log_variance: Float[Tensor, "..."], noise: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """A sample of the normal distribution: mean + std noise, with std = exp(log_variance / 2).

    The dice are thrown outside, in `noise` (standard normal), so gradients reach the mean and the variance.
    Source: Kingma and Welling 2014, section 2.4.
    """
    return mean + torch.exp(log_variance / 2) * noise


def kl_to_standard_normal(
    mean: Float[Tensor, "b ..."], log_variance: Float[Tensor, "b ..."]
) -> Float[Tensor, " b"]:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over all numbers of each sample.

    1/2 sum (mean^2 + variance - log variance - 1). Source: Kingma and Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).flatten(1).sum(1)


@dataclass(frozen=True)
class Posterior:
    """What the encoder says of pictures: a normal distribution for each number of the latents, unscaled."""

    mean: Float[Tensor, "b c h w"]
    """The middle of each."""
    log_variance: Float[Tensor, "b c h w"]
    """Natural logarithm of the square of its width."""

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "b c h w"]:
        """One draw of each. The noise comes from a CPU generator, whatever the device."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32)
        return reparameterise(self.mean, self.log_variance, noise.to(self.mean))

    def kl(self) -> Float[Tensor, " b"]:
        """Divergence from the standard normal for each picture, in nats."""
        return kl_to_standard_normal(self.mean, self.log_variance)


def _image_encoder(config: ImageAutoencoderConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in pairwise((3, *config.widths)):
        layers += [Conv(before, width, kernel=2, stride=2)]
        layers += [ResidualBlock(width) for _ in range(config.blocks)]
    head = Conv(config.widths[-1], 2 * config.channels, kernel=1)
    # Narrow at first: from nothing but noise a decoder learns nothing.
    nn.init.constant_(head.bias[config.channels :], -3.0)
    return nn.Sequential(*layers, PositionNorm(config.widths[-1]), nn.SiLU(), head)


def _image_decoder(config: ImageAutoencoderConfig) -> nn.Sequential:
    upwards = config.widths[::-1]
    layers: list[nn.Module] = [Conv(config.channels, upwards[0])]
    layers += [ResidualBlock(upwards[0]) for _ in range(config.blocks)]
    for before, width in pairwise(upwards):
        layers += [Conv(before, 4 * width, kernel=1), nn.PixelShuffle(2)]
        layers += [ResidualBlock(width) for _ in range(config.blocks)]
    last = upwards[-1]
    return nn.Sequential(*layers, PositionNorm(last), nn.SiLU(), Conv(last, 4 * 3), nn.PixelShuffle(2))


class ImageAutoencoder(nn.Module):
    """Pictures to latents and back: a variational autoencoder with a learned posterior variance.

    `encode` gives latents times a scale factor, `decode` divides by it. The factor is one over the standard
    deviation of the training set's latents (`set_scale`), and is kept with the weights; Stable Diffusion's is
    0.18215. A fresh model's is 1.
    """

    def __init__(self, config: ImageAutoencoderConfig = ImageAutoencoderConfig()):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _image_encoder(config), _image_decoder(config)
        self.register_buffer("scale", torch.ones(()))

    def posterior(self, images: Float[Tensor, "b 3 h w"]) -> Posterior:
        """What the encoder says of pictures in [-1, 1], unscaled.

        Raises ValueError where height or width is no multiple of `config.factor`.
        """
        _check_size("images are", images, self.config.factor)
        said = self.encoder(images.contiguous(memory_format=torch.channels_last))
        mean, log_variance = said.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCES))

    def encode(
        self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c h2 w2"]:
        """Scaled latents: the posterior's mean, or with a generator a sample of it. Errors as above."""
        posterior = self.posterior(images)
        return self.scale * (posterior.mean if generator is None else posterior.sample(generator))

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of scaled latents, not clamped."""
        return self.decoder((latents / self.scale).contiguous(memory_format=torch.channels_last))

    def forward(
        self, images: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b 3 h w"], Posterior]:
        """The training pass: decodes a sample of the posterior, and gives the posterior for its KL."""
        posterior = self.posterior(images)
        return self.decoder(posterior.sample(generator)), posterior

    @torch.no_grad()
    def set_scale(self, latents: Float[Tensor, "b c h w"]) -> None:
        """Makes latents like these, scaled as before, come out of `encode` with a standard deviation of 1."""
        self.scale.mul_(scale_factor(latents.to(self.scale)))


def scale_factor(latents: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """One over the standard deviation of all numbers of the latents, whatever their channel and place.

    Source: Rombach et al. 2022, appendix G; Stable Diffusion's autoencoder ships with 0.18215.
    """
    return 1 / latents.std()


def autoencoder_loss(
    reconstruction: Float[Tensor, "b 3 h w"],
    images: Float[Tensor, "b 3 h w"],
    posterior: Posterior,
    beta: float | int,
) -> Float[Tensor, ""]:
    """Half the squared error plus beta times the KL, summed over each picture, then per number of a picture.

    It is minus the evidence lower bound, up to a constant and a factor, of a decoder that adds normal noise
    of variance beta to each colour value. Raises ValueError for a negative beta. Source: Higgins et al. 2017.
    """
    if beta < 0:
        raise ValueError(f"beta={beta}: must not be negative; 0 pays nothing for the latents, 0.01 a little")
    error = 0.5 * (reconstruction - images).square().flatten(1).sum(1)
    return (error + beta * posterior.kl()).mean() / images[0].numel()


def psnr(x: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of values in [-1, 1], over all: 10 log10(4 / mean squared error)."""
    return 10 * torch.log10(4 / (x - target).square().mean())


def image_autoencoder_macs(config: ImageAutoencoderConfig, height: int, width: int) -> tuple[int, int]:
    """Multiply-adds of encoding and of decoding one picture of height x width pixels, in closed form.

    Convolutions alone: kernel area x channels in x channels out for each position. Norms and biases are not
    counted.
    """
    areas = [height * width // 4**level for level in range(1, len(config.widths) + 1)]
    blocks = sum(18 * config.blocks * w**2 * area for w, area in zip(config.widths, areas, strict=True))
    inputs = (3, *config.widths)
    down = sum(4 * a * b * area for (a, b), area in zip(pairwise(inputs), areas, strict=True))
    head = config.widths[-1] * 2 * config.channels * areas[-1]
    stem = 9 * config.channels * config.widths[-1] * areas[-1]
    up = sum(4 * a * b * area for (a, b), area in zip(pairwise(config.widths), areas[1:], strict=True))
    return down + blocks + head, stem + blocks + up + 9 * config.widths[0] * 12 * areas[0]
