"""Printed digits: drawn from typefaces, slanted and turned at random, in the format of handwritten ones.

They share no picture with `sora_edu.data.digits`, so a model may practise on them before it is tested there.
"""

import random
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sora_edu.data.digits import CLASSES, SIDE

TYPEFACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
    "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic",
)  # fmt: skip
"""Typefaces that ship with matplotlib."""

_FINE = 4 * SIDE  # the side at which a digit is drawn before its ink is averaged


def printed_digits(count: int, seed: int) -> tuple[Float[Tensor, "b 1 8 8"], Int[Tensor, " b"]]:
    """Draws digits of random typefaces, slants, angles and widths.

    Args:
        count: how many, at least 1; the ten digits take turns.
        seed: the same seed draws the same digits.

    Returns:
        Pictures in [-1, 1] (-1 is paper, 1 is ink), and the digit that each shows.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count={count}: must be at least 1")
    rng = random.Random(seed)
    labels = [k % CLASSES for k in range(count)]
    ink = np.stack([_draw(str(label), rng) for label in labels])
    return torch.from_numpy(ink).float()[:, None] * 2 - 1, torch.tensor(labels)


def _draw(text: str, rng: random.Random) -> np.ndarray:
    """One digit: ink between 0 and 1 on `SIDE` by `SIDE` pixels."""
    page = Image.new("L", (128, 128))
    ImageDraw.Draw(page).text((64, 64), text, fill=255, font=_font(rng.choice(TYPEFACES)), anchor="mm")
    slant, angle = rng.uniform(-0.35, 0.35), rng.uniform(-12, 12)
    page = page.transform(page.size, Image.Transform.AFFINE, (1, slant, -64 * slant, 0, 1, 0))
    page = page.rotate(angle, Image.Resampling.BILINEAR)
    glyph = page.crop(page.getbbox())
    height = _FINE - rng.randint(0, 2)
    width = round(height * glyph.width / glyph.height * rng.uniform(0.8, 1.15))
    width = min(max(width, 6), _FINE)
    glyph = glyph.resize((width, height), Image.Resampling.BOX)
    square = Image.new("L", (_FINE, _FINE))
    square.paste(glyph, ((_FINE - width) // 2, (_FINE - height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX)) / 255


@lru_cache(maxsize=len(TYPEFACES))
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), 72)
