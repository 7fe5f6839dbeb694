"""Pretrained parts behind the course's interfaces: a video autoencoder, text encoders, CLIP, DiT's weights.

Nobody trains a full-size model from nothing. The autoencoder and the text encoder are taken as they are, and
stay as they are. Each class here wraps a model that has been made already, so that it can be tried with small
random weights; its `from_pretrained` downloads released ones, whose licence you then accept:

    part                      weights from                        licence
    VideoAutoencoder          Wan-AI/Wan2.1-T2V-1.3B-Diffusers    Apache 2.0
    TextTokens (T5)           google/t5-v1_1-xxl                  Apache 2.0
    TextTokens (CLIP), Clip   openai/clip-vit-large-patch14       MIT (code); the model card asks for research
    read_release (DiT)        facebookresearch/DiT                CC BY-NC 4.0: no commercial use

Of the released causal autoencoders that make 16 channels of 4x8x8 pixels this is Wan 2.1's: its shapes are
those of `CausalVideoAutoencoder`, it normalises each channel as ours does, it passes a long clip piece by
piece, and its licence is free. (CogVideoX's has the same shapes and weights under terms of its own.)

diffusers and transformers are optional, and imported by `from_pretrained` alone.

    python -m sora_edu.pretrained DiT-XL-2-256x256.pt dit.safetensors     converts a release of DiT
"""

import argparse
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors.torch import save
from torch import Tensor, nn

from sora_edu.autoencoder import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from sora_edu.files import write_whole

WAN, T5, CLIP = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "google/t5-v1_1-xxl", "openai/clip-vit-large-patch14"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Statistics of red, green and blue in [0, 1] with which CLIP normalises pictures. Radford et al. 2021."""


def _frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def _fetched(package: str, name: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; ImportError and ConnectionError say what would do."""
    try:
        return load()
    except ImportError as error:
        raise ImportError(f"{name} needs: python -m pip install {package}") from error
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"{name}: its files could not be fetched from the Hugging Face hub ({type(error).__name__}). "
            "Check the name and the connection; or copy the folder from a machine that has it and give its "
            "path"
        ) from error


# --- video -----------------------------------------------------------------------------------------------


class VideoAutoencoder(nn.Module):
    """A released causal autoencoder of 4x8x8 pixels, with the interface of `CausalVideoAutoencoder`."""

    def __init__(self, model: nn.Module):
        """`model` is diffusers' `AutoencoderKLWan`. Raises ValueError unless its cells are 4x8x8 pixels."""
        super().__init__()
        config = model.config
        cell = (
            2 ** sum(config.temperal_downsample),
            2 ** (len(config.dim_mult) - 1) * (config.patch_size or 1),
        )
        if cell != (FRAMES_PER_LATENT, PIXELS_PER_LATENT):
            raise ValueError(
                f"model has cells of {cell[0]} frames and {cell[1]} pixels; "
                f"{FRAMES_PER_LATENT} and {PIXELS_PER_LATENT} are needed, as Wan 2.1 has"
            )
        self.model, self.channels = _frozen(model), config.z_dim
        for name, values in (("mean", config.latents_mean), ("std", config.latents_std)):
            if len(values) != config.z_dim:
                raise ValueError(f"latents_{name} has {len(values)} numbers for {config.z_dim} channels")
            self.register_buffer(name, torch.tensor(values))

    @classmethod
    def from_pretrained(cls, name: str = WAN) -> "VideoAutoencoder":
        """Downloads the 127 million weights, half a GB. Errors as in `DiT.from_pretrained`."""

        def load() -> nn.Module:
            from diffusers import AutoencoderKLWan

            return AutoencoderKLWan.from_pretrained(name, subfolder="vae")

        return cls(_fetched("diffusers", name, load))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.mean.device

    @torch.no_grad()
    def encode(self, video: Float[Tensor, "b 3 f h w"]) -> Float[Tensor, "b c t h8 w8"]:
        """1 + 4k frames in [-1, 1] to 1 + k latent frames of about unit variance: the posterior's means.

        Raises ValueError for other numbers of frames and sides that are no multiples of 8.
        """
        f, h, w = video.shape[2:]
        if f % FRAMES_PER_LATENT != 1 or h % PIXELS_PER_LATENT or w % PIXELS_PER_LATENT:
            raise ValueError(f"video is {f} frames of {h}x{w}; use 1 + 4k frames and multiples of 8 pixels")
        means = self.model.encode(video.to(self.model.dtype)).latent_dist.mode().float()
        return (means - self._wide(self.mean)) / self._wide(self.std)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t h8 w8"]) -> Float[Tensor, "b 3 f h w"]:
        """1 + k latent frames to 1 + 4k frames, clamped to [-1, 1] by the released decoder itself."""
        raw = latents * self._wide(self.std) + self._wide(self.mean)
        return self.model.decode(raw.to(self.model.dtype)).sample.float()

    @staticmethod
    def _wide(values: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
        return values[:, None, None, None]


# --- text ------------------------------------------------------------------------------------------------


class TextTokens(nn.Module):
    """A released text encoder, T5 or CLIP's: `encode` and `pool` as `sora_edu.text.TextEncoder` has.

    The first vector of a prompt stands for the whole of it, since `VideoDiT` modulates by that one. For CLIP
    it is the state of the end token, the only one that has read everything; for T5, which has no such token,
    the mean of the others.
    """

    def __init__(self, tokenizer: Callable[..., Any], model: nn.Module, length: int, truncate: bool = False):
        """
        Args:
            tokenizer, model: of transformers; `T5EncoderModel` or `CLIPTextModel`.
            length: tokens of a prompt, padding included.
            truncate: whether the end of a longer prompt is dropped silently, instead of an error.

        Raises:
            ValueError: a length for which the model has no positions.
        """
        super().__init__()
        most = getattr(model.config, "max_position_embeddings", None)
        if length < 2 or (most is not None and length > most):
            raise ValueError(f"length={length}: must be 2 to {most or 'any number'}")
        self.tokenizer, self.model = tokenizer, _frozen(model)
        self.length, self.truncate = length, truncate

    @classmethod
    def t5(cls, name: str = T5, length: int = 226, truncate: bool = False) -> "TextTokens":
        """T5's encoder; the XXL has 4.8 billion weights. Errors as in `DiT.from_pretrained`."""

        def load() -> tuple:
            from transformers import AutoTokenizer, T5EncoderModel

            return AutoTokenizer.from_pretrained(name), T5EncoderModel.from_pretrained(name)

        return cls(*_fetched("transformers sentencepiece", name, load), length, truncate)

    @classmethod
    def clip(cls, name: str = CLIP, truncate: bool = False) -> "TextTokens":
        """CLIP's text encoder, which reads 77 tokens. Errors as in `DiT.from_pretrained`."""

        def load() -> tuple:
            from transformers import AutoTokenizer, CLIPTextModel

            return AutoTokenizer.from_pretrained(name), CLIPTextModel.from_pretrained(name)

        return cls(*_fetched("transformers", name, load), 77, truncate)

    @property
    def width(self) -> int:
        """Channels of a token: `text_width` of the video model."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
        """Vectors and a mask that is True at real tokens; l is `length` + 1, and "" is the null condition.

        Raises ValueError for a prompt that is too long, unless `truncate` allows it.
        """
        ids, mask = _tokens(self.tokenizer, prompts, self.length, self.truncate, self.model.device)
        found = self.model(input_ids=ids, attention_mask=mask)
        states, real = found.last_hidden_state, mask.bool()
        whole = found.get("pooler_output")
        if whole is None:
            share = mask[..., None].to(states)
            whole = (share * states).sum(1) / share.sum(1)
        return torch.cat([whole[:, None], states], dim=1).float(), F.pad(real, (1, 0), value=True)

    @staticmethod
    def pool(tokens: Float[Tensor, "b l d"]) -> Float[Tensor, "b d"]:
        """The vector of a whole prompt."""
        return tokens[:, 0]


def _tokens(tokenizer, prompts: Sequence[str], length: int, truncate: bool, device) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded to `length`; too long prompts are refused, or cut."""
    if isinstance(prompts, str):
        raise ValueError(f"prompts={prompts!r} is one text; give a list, such as [{prompts!r}]")
    longest = max((len(ids) for ids in tokenizer(list(prompts))["input_ids"]), default=0)
    if longest > length and not truncate:
        raise ValueError(f"prompts has one of {longest} tokens and {length} fit; shorten it, or set truncate")
    found = tokenizer(
        list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return found["input_ids"].to(device), found["attention_mask"].to(device)


class Clip(nn.Module):
    """CLIP, which puts pictures and texts into one space: vectors of unit length, for `clip_score`."""

    def __init__(self, tokenizer: Callable[..., Any], model: nn.Module):
        """`tokenizer` and `model`, a `CLIPModel`, are of transformers."""
        super().__init__()
        self.tokenizer, self.model = tokenizer, _frozen(model)
        for name, values in (("mean", CLIP_MEAN), ("std", CLIP_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    @classmethod
    def from_pretrained(cls, name: str = CLIP) -> "Clip":
        """Downloads both encoders, 1.7 GB. Errors as in `DiT.from_pretrained`."""

        def load() -> tuple:
            from transformers import AutoTokenizer, CLIPModel

            return AutoTokenizer.from_pretrained(name), CLIPModel.from_pretrained(name)

        return cls(*_fetched("transformers", name, load))

    @torch.no_grad()
    def pictures(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Vectors of pictures in [-1, 1]: the shorter side is scaled to CLIP's, and the middle is taken."""
        side = self.model.config.vision_config.image_size
        scale = side / min(images.shape[2:])
        size = [max(side, int(scale * length)) for length in images.shape[2:]]
        scaled = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        top, left = ((length - side) // 2 for length in size)
        middle = scaled[..., top : top + side, left : left + side]
        pixels = ((middle + 1) / 2 - self.mean) / self.std
        found = self.model.get_image_features(pixel_values=pixels.to(self.model.dtype)).pooler_output
        return F.normalize(found.float(), dim=-1)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Vectors of texts; what does not fit CLIP's 77 tokens is dropped."""
        length = self.model.config.text_config.max_position_embeddings
        ids, mask = _tokens(self.tokenizer, prompts, length, True, self.model.device)
        found = self.model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return F.normalize(found.float(), dim=-1)


# --- DiT -------------------------------------------------------------------------------------------------


def read_release(path: Path | str) -> dict[str, Tensor]:
    """Weights of a released DiT, for `DiT.from_release`; of a training checkpoint, its averaged ones.

    A `.pt` file is a pickle, a program that runs while it is read. `weights_only` refuses all but tensors and
    plain containers; options of a training (`argparse.Namespace`) are let through, since they run nothing.

    Raises:
        ValueError: no such file, a damaged one, one that would run something, or one without weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is not a file; the README of facebookresearch/DiT links to it")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged, or holds more than weights and would run it: {error}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    weights = found.get("ema", found) if isinstance(found, dict) else found
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds {type(weights).__name__} and not weights by name")
    return dict(weights)


def convert_release(path: Path | str, out: Path | str) -> Path:
    """Writes the weights of a release as safetensors, which is data and nothing else, whole or not at all.

    Raises ValueError as `read_release`, and WriteError where the file cannot be written.
    """
    weights = {name: value.contiguous().clone() for name, value in read_release(path).items()}
    return write_whole(out, save(weights))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Convert a release of DiT to safetensors.")
    parser.add_argument("release", type=Path, help="a .pt file of facebookresearch/DiT")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    options = parser.parse_args()
    try:
        convert_release(options.release, options.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))
