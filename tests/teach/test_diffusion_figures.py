"""The pictures of chapter 01 that are moved, and the two that could go wrong without a warning."""

import io

import ipywidgets
import pytest
import torch
from PIL import Image

from sora_edu.teach import diffusion_figures as pictures
from sora_edu.teach import figures


@pytest.fixture
def sent(monkeypatch) -> list[tuple[bytes, str]]:
    """What would have been displayed: PNGs with their alt texts."""
    shown = []
    monkeypatch.setattr(figures, "send", lambda png, alt: shown.append((png, alt)))
    return shown


class Writer:
    """Keeps what it was asked for, and writes blank digits."""

    def __init__(self):
        self.asked = []

    def __call__(self, scale, seed):
        self.asked.append((scale, seed))
        return torch.zeros(10, 1, 8, 8)


def test_without_a_kernel_guidance_shows_every_setting(sent):
    writer = Writer()
    pictures.guidance_explorer(writer)
    assert writer.asked == [(scale, 0) for scale in pictures.GUIDANCE]
    assert len(sent) == 1 and "0, 1, 2, 4 and 8" in sent[0][1]


def test_the_sliders_reach_the_sampler(sent, monkeypatch):
    writer, made = Writer(), []
    monkeypatch.setattr(pictures, "live", lambda: True)
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **sliders: made.append((draw, sliders)))
    pictures.guidance_explorer(writer)
    ((draw, sliders),) = made
    draw(**{name: slider.value for name, slider in sliders.items()})
    sliders["guidance"].value, sliders["seed"].value = 4.5, 3
    draw(**{name: slider.value for name, slider in sliders.items()})
    assert writer.asked == [(1.0, 0), (4.5, 3)] and len(sent) == 2


def test_ink_is_dark_and_every_row_is_drawn(sent):
    rows = {"ink": torch.ones(3, 1, 8, 8), "paper": -torch.ones(3, 1, 8, 8)}
    pictures.digit_rows(rows, alt="Three black squares above three white ones.")
    picture = Image.open(io.BytesIO(sent[0][0])).convert("L")
    right = [
        picture.getpixel((picture.width - 20, row)) for row in (picture.height // 4, 3 * picture.height // 4)
    ]
    assert right == [0, 255]


def test_a_distance_below_zero_can_be_drawn(sent):
    """By chance two equal clouds can be less far apart than nothing."""
    pictures.seeds_compared({"a": [-0.001, 0.005], "b": [0.1, 0.7]}, -0.001, title="t")
    assert "a 0.002, b 0.400" in sent[0][1]
