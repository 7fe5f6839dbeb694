"""The form of chapter 12: its knobs mean what the lecture's do, and move without a browser."""

import base64
import io
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sora_edu.data.captions import PromptError, parse
from sora_edu.samplers import power_times
from sora_edu.sora import Sora
from sora_edu.teach import figures, prompt_form, widgets
from sora_edu.teach.prompt_form import COMPARED, KNOBS, ON_THE_SLIDE, Knobs, PromptForm, draw

ASKED = Knobs("a red star bounces", num_imgs=2, n_iter=4)


class Stand(Sora):
    """A flow towards one latent, decoded by taking three of its channels; it keeps what it was told."""

    def __init__(self, sizes=((17, 64, 64),)):
        nn.Module.__init__(self)
        autoencoder = SimpleNamespace(channels=4)
        self.config = SimpleNamespace(autoencoder=autoencoder, sizes=sizes)
        self.autoencoder = SimpleNamespace(device=torch.device("cpu"), decode=self.decode)
        self.times, self.told, self.latents, self.noise = [], [], None, None

    def velocity(self, prompts, scale):
        self.told.append((list(prompts), scale))

        def velocity(x, t):
            self.noise = x if not self.times else self.noise
            self.times.append(t[0].item())
            return (x - 0.1) / t[:, None, None, None, None]  # straight to 0.1 everywhere

        return velocity

    def decode(self, latents):
        self.latents = latents
        frames = 1 + 4 * (latents.shape[2] - 1)
        return latents[:, :3, :1].repeat(1, 1, frames, 8, 8)


def test_the_slide_has_these_ten_knobs_and_values():
    assert ON_THE_SLIDE == {
        "prompt": "a cute cat", "class_guidance": 6, "n_iter": 20, "num_imgs": 9, "img_size": 32, "seed": 11,
        "nrow": 3, "exponent": 1, "scale_factor": 8, "sharp_f": 0,
    }  # fmt: skip
    assert list(KNOBS) == [field.name for field in fields(Knobs)] == list(ON_THE_SLIDE)


def test_pictures_come_of_the_times_and_the_scale_that_were_asked_for():
    sora, steps = Stand(), []
    pictures = draw(sora, replace(ASKED, class_guidance=2.5, exponent=2.0), lambda *at: steps.append(at))
    assert pictures.shape == (2, 3, 64, 64)
    assert sora.told == [(["a red star bounces"] * 2, 2.5)]
    assert sora.times == pytest.approx(power_times(4, 2.0)[:-1].tolist())
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    torch.testing.assert_close(pictures, torch.full_like(pictures, 0.1))


def test_a_picture_is_that_of_its_seed_alone():
    both, one = Stand(), Stand()
    draw(both, ASKED)
    draw(one, replace(ASKED, num_imgs=1, seed=ASKED.seed + 1))
    assert torch.equal(both.noise[1:], one.noise)


def test_scale_factor_multiplies_latents_and_sharp_f_is_added_to_channel_three():
    sora = Stand()
    draw(sora, replace(ASKED, scale_factor=12.0, sharp_f=0.5))
    expected = torch.full((4,), 0.15)
    expected[3] += 0.5
    torch.testing.assert_close(sora.latents[0, :, 0, 0, 0], expected)


def test_pictures_are_single_frames_where_the_model_makes_such():
    sora = Stand(sizes=((17, 64, 64), (1, 64, 64)))
    draw(sora, ASKED)
    assert sora.latents.shape == (2, 4, 1, 8, 8)
    draw(film := Stand(), ASKED)
    assert film.latents.shape == (2, 4, 5, 8, 8)


def test_a_cute_cat_is_answered_with_a_prompt_that_works():
    with pytest.raises(PromptError, match="cat") as caught:
        draw(Stand(), Knobs())
    assert parse(caught.value.suggestion).things


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"img_size": 32}, "img_size=32.*trained at 8"),
        ({"num_imgs": 0}, "num_imgs=0"),
        ({"n_iter": 0}, "steps=0"),
    ],
)
def test_impossible_knobs_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        draw(Stand(), replace(ASKED, **changed))


def test_the_form_draws_what_its_knobs_say():
    sora = Stand()
    form = PromptForm(sora, ASKED)
    form.knobs["class_guidance"].value, form.knobs["n_iter"].value = 1.0, 2
    form.button.click()
    assert sora.told == [(["a red star bounces"] * 2, 1.0)] and len(sora.times) == 2
    assert "class_guidance 1.0, n_iter 2" in form.picture.value and "2 pictures" in form.message.value
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(form.png))).convert("RGB"))
    assert abs(int(picture[picture.shape[0] // 2, 40, 0]) - 140) < 4  # 0.1 of [-1, 1] in 8 bits


def test_unknown_words_become_a_button_with_the_nearest_prompt():
    form = PromptForm(Stand(), ASKED)
    form.prompt.value = "a cute cat"
    assert "“cute”, “cat”" in form.message.value and form.suggestion.layout.display == ""
    form.suggestion.click()
    assert form.prompt.value == form.suggestion.description and form.png


def test_without_a_kernel_columns_of_pictures_stand_for_the_form(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata)))
    sora = Stand()
    prompt_form.prompt_form(sora, ASKED)
    ((bundle, metadata),) = shown
    assert set(bundle) == {"image/png", "text/plain"}
    assert len(sora.told) == len(COMPARED) and [scale for _, scale in sora.told][:2] == [1.0, 6.0]
    assert all(name in metadata["image/png"]["alt"] for row in COMPARED for name in row)


def test_with_a_kernel_the_form_comes_with_its_sheet_as_the_fallback(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata)))
    monkeypatch.setattr(prompt_form, "live", lambda: True)
    assert widgets.show_widget is figures.show_widget
    prompt_form.prompt_form(Stand(), ASKED)
    ((bundle, metadata),) = shown
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert "a red star bounces" in metadata["image/png"]["alt"]


def test_the_table_says_all_knobs(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: shown.append(bundle["text/plain"]))
    prompt_form.explain()
    assert all(f"{name} | {value}" in shown[0] for name, value in ON_THE_SLIDE.items())
