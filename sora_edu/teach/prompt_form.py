"""The lecture's form for a small latent diffusion transformer, with tiny Sora behind it (chapter 12).

The form belongs to apapiu's transformer_latent_diffusion (TLD), which draws pictures of 256x256 pixels from
latents of 32x32. Its knobs keep their names and their meaning here; where tiny Sora differs, `KNOBS` says so.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace

import ipywidgets
import torch
from jaxtyping import Float
from torch import Tensor

from sora_edu.autoencoder import FRAMES_PER_LATENT, PIXELS_PER_LATENT
from sora_edu.data.captions import parse
from sora_edu.samplers import euler, power_times
from sora_edu.sora import Sora
from sora_edu.teach import figures
from sora_edu.teach.figures import clip_grid, live, send
from sora_edu.teach.widgets import WIDE, Form

TRAINED_SCALE = 8.0
"""The scale_factor at which latents are decoded as they were trained."""

SHARP, BRIGHT = 3, 0
"""Channels of Stable Diffusion's latents that TLD adds sharp_f and bright_f to."""


@dataclass(frozen=True)
class Knobs:
    """The fields of the form, with the slide's values where tiny Sora can take them."""

    prompt: str = "a cute cat"
    """What is to be seen."""
    class_guidance: float = 6.0
    """Guidance scale s: 1 is plain conditional, 0 ignores the prompt."""
    n_iter: int = 20
    """Network evaluations, from noise to a picture; a guided one counts twice."""
    num_imgs: int = 9
    """How many pictures; picture i has seed + i."""
    img_size: int = 8
    """Side of the latent, an eighth of the picture's."""
    seed: int = 11
    """Of the noise."""
    nrow: int = 3
    """Pictures in a row of the sheet."""
    exponent: float = 1.0
    """How the noise levels are spaced: 1 - (k / n_iter)^exponent."""
    scale_factor: float = 8.0
    """What the network's latents are multiplied by before they are decoded."""
    sharp_f: float = 0.0
    """Added to one channel of the latents."""


ON_THE_SLIDE = asdict(Knobs(img_size=32))
"""The values that the lecture shows."""

KNOBS = {
    "prompt": ("one vector from CLIP's text encoder", "a text encoder for the toy world's words alone"),
    "class_guidance": ("s, applied to the guess of the clean latent", "s, applied to the velocity: the same"),
    "n_iter": ("19 updates and a last prediction make 20", "20 Euler steps: the same"),
    "num_imgs": ("drawn in one batch", "the same; picture i alone has seed + i"),
    "img_size": ("side of the latent: 32 is a picture of 256", "8 is a picture of 64, as it was trained"),
    "seed": ("of the first noise, of the whole batch", "of each picture's noise"),
    "nrow": ("pictures in a row of the sheet: no effect on them", "the same"),
    "exponent": ("spacing of the noise levels; 1 is even", "the same"),
    "scale_factor": ("about the latents' deviation, not the stride", "8 stands for our own, which is 1"),
    "sharp_f": ("added to channel 3 of the latents", "the same; but it is another autoencoder's channel"),
}
"""For each knob, what it does in TLD, and what it does here."""


def explain() -> None:
    """Shows the knobs as a table: the slide's value, what it is there, and what it is here."""
    rows = [(name, f"{ON_THE_SLIDE[name]}", *said) for name, said in KNOBS.items()]
    figures.table(rows, ("knob", "on the slide", "in TLD", "with tiny Sora"))


def sides(sora: Sora) -> dict[int, int]:
    """Sides of square latents that a checkpoint was trained at, and the fewest frames for each."""
    found: dict[int, int] = {}
    for frames, height, width in sora.config.sizes:
        if height == width:
            side = height // PIXELS_PER_LATENT
            found[side] = min(frames, found.get(side, frames))
    return found


@torch.no_grad()
def draw(
    sora: Sora, knobs: Knobs, progress: Callable[[int, int], None] | None = None
) -> Float[Tensor, "n 3 h w"]:
    """The pictures that the form asks for; of a model that makes clips alone, their middle frames.

    Args:
        sora: the model.
        knobs: what the form says.
        progress: called after each step with the steps done and the steps in all.

    Raises:
        PromptError: a prompt outside the toy world; the message names one that works.
        ValueError: a size that the model was not trained at, no step, or no picture.
    """
    k = knobs
    parse(k.prompt)
    if k.num_imgs < 1 or k.nrow < 1:
        raise ValueError(f"num_imgs={k.num_imgs}, nrow={k.nrow}: at least one of each is needed")
    if k.img_size not in sides(sora):
        known = " or ".join(map(str, sorted(sides(sora))))
        raise ValueError(f"img_size={k.img_size}: this checkpoint was trained at {known}")
    frames = sides(sora)[k.img_size]
    shape = (sora.config.autoencoder.channels, 1 + (frames - 1) // FRAMES_PER_LATENT, k.img_size, k.img_size)
    seeds = range(k.seed, k.seed + k.num_imgs)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    device, told = sora.autoencoder.device, None
    if progress is not None:
        told = lambda step, _: progress(step + 1, k.n_iter)  # noqa: E731
    velocity = sora.velocity([k.prompt] * k.num_imgs, k.class_guidance)
    latents = euler(velocity, noise.to(device), power_times(k.n_iter, k.exponent).to(device), told)
    latents = latents * (k.scale_factor / TRAINED_SCALE)
    latents[:, SHARP] += k.sharp_f
    return sora.autoencoder.decode(latents).clamp(-1, 1)[:, :, frames // 2].cpu()


def sheet(pictures: Float[Tensor, "n 3 h w"], nrow: int, captions=None) -> bytes:
    """Pictures in rows, as a PNG; those of few columns are larger."""
    scale = max(1, (192 if nrow <= 5 else 128) // pictures.shape[2])
    return clip_grid([picture[:, None].numpy() for picture in pictures], captions, columns=nrow, scale=scale)


class PromptForm(Form):
    """The form behind `prompt_form`."""

    def __init__(self, sora: Sora, knobs: Knobs):
        self.sora = sora
        limits = {
            "class_guidance": (0, 12, 0.5), "n_iter": (1, 50, 1), "num_imgs": (1, 16, 1), "nrow": (1, 8, 1),
            "seed": (0, 10**6, 1), "exponent": (0.2, 3, 0.1), "scale_factor": (0, 20, 0.5),
            "sharp_f": (-4, 4, 0.25),
        }  # fmt: skip
        self.knobs: dict[str, ipywidgets.Widget] = {}
        for field in fields(Knobs)[1:]:
            value, options = getattr(knobs, field.name), {"description": field.name, "style": WIDE}
            if field.name == "img_size":
                self.knobs[field.name] = ipywidgets.Dropdown(options=sorted(sides(sora)), **options)
                continue
            low, high, step = limits[field.name]
            if field.name == "seed":
                kind = ipywidgets.BoundedIntText
            else:
                kind = ipywidgets.IntSlider if isinstance(value, int) else ipywidgets.FloatSlider
            self.knobs[field.name] = kind(value, min=low, max=high, step=step, **options)
        super().__init__(knobs.prompt, tuple(self.knobs.values()), "Draw")

    def draw(self, **asked) -> tuple[bytes, str, str]:
        """The sheet of pictures."""
        knobs = Knobs(**asked)
        pictures = draw(self.sora, knobs, self.tick)
        return sheet(pictures, knobs.nrow), _alt(knobs), f"“{knobs.prompt}”, {len(pictures)} pictures"


def _alt(knobs: Knobs) -> str:
    said = ", ".join(f"{name} {value}" for name, value in asdict(knobs).items() if name != "prompt")
    return f"{knobs.num_imgs} pictures of “{knobs.prompt}”: {said}."


COMPARED = (
    {"class_guidance": 1.0}, {}, {"exponent": 2.5}, {"scale_factor": 14.0}, {"sharp_f": 2.0},
)  # fmt: skip
"""What the picture shows that stands for the form where no kernel runs: one knob moved in each column."""


def prompt_form(sora: Sora, knobs: Knobs = Knobs()) -> None:
    """Shows the form. Without a kernel: columns of pictures from the same noises, one knob moved in each.

    A prompt outside the toy world is answered, and the nearest one that works is drawn.
    """
    if live():
        PromptForm(sora, knobs).display("A form that draws pictures")
        return
    few = replace(knobs, num_imgs=3, nrow=3)
    columns = torch.stack([draw(sora, replace(few, **changed)) for changed in COMPARED], dim=1)
    names = [
        ", ".join(f"{name} {value:g}" for name, value in changed.items()) or "as the form says"
        for changed in COMPARED
    ]
    alt = (
        f"Columns of three pictures of “{knobs.prompt}” from the same noises: {'; '.join(names)}. "
        f"The form says: {_alt(few)}"
    )
    send(sheet(columns.flatten(0, 1), len(names), [*names, *[""] * (2 * len(names))]), alt)
