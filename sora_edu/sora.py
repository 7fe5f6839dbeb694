"""Tiny Sora, the whole pipeline: a prompt, noise, a few steps towards data, and a clip.

    prompt -> text encoder -> video DiT, step by step -> decoder -> clip

>>> sora = Sora.from_pretrained("tiny")
>>> sora.generate("a red star bounces").save("star.mp4")
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sora_edu.assets import data_root
from sora_edu.autoencoder import (
    FRAMES_PER_LATENT,
    PIXELS_PER_LATENT,
    AutoencoderConfig,
    CausalVideoAutoencoder,
)
from sora_edu.clips import Clip
from sora_edu.data.captions import parse
from sora_edu.diffusion import guided
from sora_edu.files import write_whole
from sora_edu.precision import autocast
from sora_edu.samplers import euler, start_from, time_grid
from sora_edu.tasks import (
    FROM_TEXT,
    TASKS,
    UNTRAINED,
    encode_given,
    latent_mask,
    place_given,
    put_back,
    task_mask,
)
from sora_edu.text import TextConfig, TextEncoder
from sora_edu.video_dit import VideoDiT, VideoDiTConfig
from sora_edu.weights import CheckpointError, load_weights, save_weights, sha256

EDIT_STRENGTH = 0.7
SIDE = 16  # sizes are multiples of this: eight pixels a latent, two latents a token

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SoraConfig:
    """What a checkpoint is, how it likes to be sampled, and what it has learned."""

    autoencoder: AutoencoderConfig
    """The causal video autoencoder."""
    text: TextConfig
    """The text encoder, with its words in the order of their ids."""
    dit: VideoDiTConfig
    """The video DiT."""
    tasks: tuple[str, ...] = ("text_to_video",)
    """Those of `TASKS` that it was trained for; it also knows those that need no training."""
    sizes: tuple[tuple[int, int, int], ...] = ((17, 64, 64),)
    """The (frames, height, width) that it was trained at."""
    steps: int = 20
    """Euler steps, unless asked otherwise."""
    guidance: float = 3.0
    """Guidance scale, unless asked otherwise; 1 is plain conditional."""
    shift: float = 1.0
    """How far the times of the steps are shifted towards noise; see `samplers.time_grid`."""


def _from_dict(cls, values):
    """A configuration from plain JSON values, refusing fields that it does not know."""
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} needs its fields by name, not {values!r}")
    known = {field.name: field.type for field in fields(cls)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
    made = {name: _with_tuples(value) for name, value in values.items()}
    made |= {name: _from_dict(kind, values[name]) for name, kind in known.items() if is_dataclass(kind)}
    return cls(**made)


def _with_tuples(value):
    """JSON has lists where configurations have tuples."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


class Sora(nn.Module):
    """A text encoder, a video DiT and a causal video autoencoder that were trained for each other."""

    PARTS = ("autoencoder", "text", "dit")

    def __init__(self, config: SoraConfig):
        super().__init__()
        self.config = config
        self.sha256: str | None = None
        """Of the checkpoint's config.json, which holds those of its weights; None before there is one."""
        self.autoencoder = CausalVideoAutoencoder(config.autoencoder)
        self.text = TextEncoder(config.text)
        self.dit = VideoDiT(config.dit)

    # ---- Files -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name: str | Path = "tiny") -> "Sora":
        """Loads a checkpoint: one that ships, by name, or any folder that `save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing, damaged or does not fit; the message says what would work.
        """
        folder = _checkpoint_folder(name)
        path = folder / "config.json"
        config, digests = _read_config(path)
        # The weights drawn here are replaced at once: draw them without touching the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            sora = cls(config).eval().requires_grad_(False)
        for part in cls.PARTS:
            file = f"{part}.safetensors"
            load_weights(sora.get_submodule(part), folder / file, digests[file])
        sora.sha256 = sha256(path)
        return sora

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype = torch.float16) -> Path:
        """Writes `autoencoder`, `text` and `dit.safetensors`, and then `config.json` with their SHA-256.

        Args:
            folder: made if it does not exist.
            dtype: number format of the weights in the files.

        Raises:
            WriteError: a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        digests = {}
        for part in self.PARTS:
            file = f"{part}.safetensors"
            digests[file] = save_weights(self.get_submodule(part), folder / file, dtype)
        text = json.dumps({**asdict(self.config), "sha256": digests}, indent=1)
        write_whole(folder / "config.json", text.encode() + b"\n")
        return folder

    # ---- Sampling ----------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str,
        *,
        task: str = "text_to_video",
        frames: int = 17,
        height: int = 64,
        width: int = 64,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        num: int = 1,
        given: Mapping[int, np.ndarray] | None = None,
        region: np.ndarray | None = None,
        strength: float | None = None,
        progress: Progress | None = None,
    ) -> Clip | list[Clip]:
        """Makes a clip of what the prompt says, around the pixels that are given.

        A loop closes with its first frame, which is not kept twice: of 17 frames it plays 16.

        Args:
            prompt: a sentence about the toy world, such as "a red star bounces"; it may be empty where
                pictures are given.
            task: one of `TASKS` that the checkpoint was trained for; see `sora_edu.tasks`.
            frames: total length, 1 + 4k; clips run at 8 frames a second. A picture (`text_to_image`) has one.
            height: in pixels, a multiple of 16.
            width: in pixels, a multiple of 16.
            steps: Euler steps from noise to data; None takes the checkpoint's own number.
            guidance: 1 is plain conditional, more keeps closer to the prompt; None takes the checkpoint's.
            seed: of the noise. Clip i of several has seed + i, and is what that seed gives alone.
            num: how many clips, at most 64.
            given: pictures by frame index, uint8 (h, w, 3), for the tasks that start from some.
            region: for `inpaint`, True where pixels are to be generated: (h, w), or (t, h, w).
            strength: for `edit`, the time at which sampling starts: near 0 little changes, 1 keeps nothing.
                None means 0.7.
            progress: called after each step with the steps done and the steps in all.

        Returns:
            A clip, or a list of clips if `num` is more than 1.

        Raises:
            PromptError: the prompt is empty or outside the toy world; the message names one that works.
            ValueError: another argument is impossible, or is not what this checkpoint was trained for.
        """
        self._check_task(task, given, strength)
        frames = 1 if task == "text_to_image" else frames
        self._check_size(frames, height, width)
        num, seed = _whole("num", num, 1, 64), _whole("seed", seed, 0, 2**32 - 1)
        seeds, given = range(seed, seed + num), dict(given or {})
        mask = task_mask(task, frames, height, width, list(given), region)
        shown = to_float(place_given(task, given, frames, height, width)[None])
        video = self.sample(
            [prompt] * num, seeds, frames=frames, height=height, width=width,
            steps=steps, guidance=guidance, progress=progress,
            given=shown if given else None, mask=mask,
            strength=(EDIT_STRENGTH if strength is None else strength) if task == "edit" else None,
        )  # fmt: skip
        video = put_back(video, shown.to(video), mask.to(video))[:, :, : -1 if task == "loop" else None]
        clips = [Clip(pixels, prompt, s) for pixels, s in zip(to_uint8(video), seeds, strict=True)]
        return clips[0] if num == 1 else clips

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        frames: int = 17,
        height: int = 64,
        width: int = 64,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        given: Float[Tensor, "#b 3 f h w"] | None = None,
        mask: Float[Tensor, "#b f h w"] | Float[Tensor, "f h w"] | None = None,
        strength: float | None = None,
    ) -> Float[Tensor, "b 3 f h w"]:
        """One clip for each prompt and seed, as pixels in [-1, 1]; arguments and errors as in `generate`.

        `given` is a clip for each prompt, or one for all, and `mask` says what of it is given (0) and what is
        to be generated (1). What comes back is the model's own output throughout: given pixels are not put
        back. With `strength`, `given` is the clip to start from.
        """
        self._check_size(frames, height, width)
        if len(prompts) != len(seeds) or not prompts:
            n, m = len(prompts), len(seeds)
            raise ValueError(f"there are {n} prompts and {m} seeds; give one seed for each prompt")
        for prompt in prompts:
            if prompt.strip() or given is None:
                parse(prompt)
        if given is None and strength is not None:
            raise ValueError(f"strength={strength} needs given: the clip to start from")
        if given is not None and mask is None and strength is None:
            raise ValueError("given needs a mask, 0 where its pixels are given, or a strength to start from")
        steps = _whole("steps", self.config.steps if steps is None else steps, 1, 1000)
        guidance = _scale(self.config.guidance if guidance is None else guidance)
        shape = (
            self.config.autoencoder.channels,
            1 + (frames - 1) // FRAMES_PER_LATENT,
            height // PIXELS_PER_LATENT,
            width // PIXELS_PER_LATENT,
        )
        device, times = self.autoencoder.device, time_grid(steps, self.config.shift)
        x = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        x, known = x.to(device), (None, None)
        if strength is not None:
            clean = self.autoencoder.encode(given.to(device)).expand_as(x)
            x, times = start_from(clean, x, strength, times)
        elif given is not None:
            known = self._known(given.to(device), mask.to(device), len(prompts))
        told = None if progress is None else lambda step, _: progress(step + 1, len(times) - 1)
        latents = euler(self.velocity(prompts, guidance, *known), x, times.to(device), told)
        return self.autoencoder.decode(latents).clamp(-1, 1)

    def _known(self, given, mask, count: int):
        """Latents of the masked clips and the masks of latents, one of each for each of `count` prompts."""
        with autocast(device=given.device):
            latents = encode_given(self.autoencoder, given, mask).float()
        mask = latent_mask(mask)
        return latents.expand(count, *latents.shape[1:]), mask.expand(count, *mask.shape[1:])

    def velocity(self, prompts: Sequence[str], scale: float, given=None, mask=None):
        """The velocity as a function of noisy latents and times; with guidance it runs the DiT twice.

        Guidance is away from the empty prompt, with the same pixels given; empty prompts need none.
        """
        y, y_mask = self.text.encode(prompts)
        scale = scale if any(prompts) else 1
        if scale != 1:
            null, null_mask = self.text.encode([""] * len(prompts))
            y, y_mask = torch.cat([y, null]), torch.cat([y_mask, null_mask])
            if given is not None:
                given, mask = torch.cat([given, given]), torch.cat([mask, mask])

        def velocity(x: Float[Tensor, "b c t h w"], t: Float[Tensor, " b"]) -> Float[Tensor, "b c t h w"]:
            if scale == 1:
                return self._run(x, t, y, y_mask, given, mask)
            twice = self._run(torch.cat([x, x]), torch.cat([t, t]), y, y_mask, given, mask)
            return guided(*twice.chunk(2), scale)

        return velocity

    def _run(self, x, t, y, y_mask, given=None, mask=None) -> Float[Tensor, "b c t h w"]:
        """One forward pass of the DiT in the faster number format; the sampler goes on in float32."""
        with autocast(device=x.device):
            return self.dit(x, t, y, y_mask, given, mask).float()

    # ---- Checks ------------------------------------------------------------------------------------------

    def _check_task(self, task, given, strength) -> None:
        if task not in TASKS:
            raise ValueError(f"task={task!r} is unknown; the tasks are: {', '.join(TASKS)}")
        if task not in self.config.tasks + UNTRAINED:
            known = " or ".join(dict.fromkeys(self.config.tasks + UNTRAINED))
            raise ValueError(f"task={task!r}: this checkpoint was not trained for it; use {known}")
        if task in FROM_TEXT and given is not None:
            raise ValueError(f"given is not for task={task!r}, which needs a prompt alone; leave it out")
        if task != "edit" and strength is not None:
            raise ValueError(f"strength is not for task={task!r}, only for 'edit'; leave it out")

    def _check_size(self, frames, height, width) -> None:
        use = " or ".join(f"frames={f}, height={h}, width={w}" for f, h, w in self.config.sizes)
        if _whole("frames", frames, 1) % FRAMES_PER_LATENT != 1:
            raise ValueError(f"frames={frames} is not 1 + 4k, as the autoencoder needs it; use {use}")
        for name, value in {"height": height, "width": width}.items():
            if _whole(name, value, SIDE) % SIDE:
                raise ValueError(f"{name}={value} is not a multiple of {SIDE}; use {use}")
        if (frames, height, width) not in self.config.sizes:
            raise ValueError(
                f"frames={frames}, height={height}, width={width}: this checkpoint was not trained at that "
                f"size, and what it made there would mean nothing; use {use}"
            )


def to_uint8(video: Float[Tensor, "b 3 f h w"]) -> UInt8[np.ndarray, "b f h w 3"]:
    """Pixels from [-1, 1] to 0 .. 255, channels last."""
    return ((video + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def to_float(frames: UInt8[np.ndarray, "b f h w 3"]) -> Float[Tensor, "b 3 f h w"]:
    """Undoes `to_uint8`."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _whole(name: str, value, least: int, most: int | None = None) -> int:
    """The value as an int, or a `ValueError` that names the argument."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name}={value!r} must be a whole number, {bounds}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name}={value} must be {bounds}")
    return int(value)


def _scale(value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ValueError(f"guidance={value!r} must be a number; 1 is plain conditional, 3 a good start")
    if not 0 <= value <= 100:
        raise ValueError(f"guidance={value} must be from 0 to 100; 1 is plain conditional, 3 a good start")
    return float(value)


def _checkpoint_folder(name: str | Path) -> Path:
    """A folder's path as it is; a plain name means one of the checkpoints that ship."""
    if isinstance(name, str) and name and "/" not in name and not Path(name).is_dir():
        try:
            shipped = data_root() / "checkpoints"
        except FileNotFoundError as error:
            raise CheckpointError(name, str(error)) from error
        if not (shipped / name / "config.json").is_file():
            names = ", ".join(sorted(config.parent.name for config in shipped.glob("*/config.json")))
            raise CheckpointError(name, f"there is no such checkpoint; what ships is: {names or 'none'}")
        return shipped / name
    return Path(name)


def _read_config(path: Path) -> tuple[SoraConfig, dict[str, str]]:
    """The configuration and the SHA-256 of the weights."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        digests = {f"{part}.safetensors": values["sha256"][f"{part}.safetensors"] for part in Sora.PARTS}
        del values["sha256"]
        return _from_dict(SoraConfig, values), digests
    except FileNotFoundError:
        problem = "the file is missing" if path.parent.is_dir() else "there is no such checkpoint"
        raise CheckpointError(path, problem) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"this is no configuration of a checkpoint ({type(error).__name__}: {error})"
        raise CheckpointError(path, problem) from error
