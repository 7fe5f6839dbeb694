"""The clip maker, moved without a browser: every control reaches the model, every refusal the learner."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from sora_edu.clips import Clip
from sora_edu.data.world import parse, render
from sora_edu.sora import Sora
from sora_edu.teach import figures, widgets
from sora_edu.teach.figures import frames_of
from sora_edu.teach.widgets import ClipMaker, clip_maker


class RendererInItsPlace(Sora):
    """Answers every prompt with a perfect clip, and keeps what it was asked."""

    def __init__(self):
        nn.Module.__init__(self)
        self.config = SimpleNamespace(steps=20, guidance=3.0)
        self.asked = []

    def generate(self, prompt, *, guidance, steps, seed=0, progress=None):
        scene = parse(prompt)
        self.asked.append((prompt, guidance, steps, seed))
        if seed == 13:
            raise ValueError("seed=13 brings bad luck; use 12 or 14")
        if progress:
            progress(steps, steps)
        return Clip(frames_of(render(scene.complete(seed))), prompt, seed)


@pytest.fixture
def sora():
    return RendererInItsPlace()


@pytest.fixture
def maker(sora):
    return ClipMaker(sora, "a red star bounces")


def _shown_png(maker) -> Image.Image:
    data = re.search(r"base64,([^\"]+)\"", maker.picture.value)[1]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_button_makes_the_clip_that_the_controls_ask_for(maker, sora):
    maker.guidance.value, maker.steps.value, maker.seed.value = 1.5, 7, 4
    assert sora.asked == []
    maker.button.click()
    assert sora.asked == [("a red star bounces", 1.5, 7, 4)]
    picture = _shown_png(maker)
    assert picture.is_animated
    expected = (
        frames_of(render(parse("a red star bounces").complete(4)))[0].repeat(4, axis=0).repeat(4, axis=1)
    )
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), expected)
    assert 'alt="A clip of “a red star bounces”: guidance 1.5, 7 steps, seed 4."' in maker.picture.value
    assert (maker.bar.value, maker.bar.max) == (7, 7)


def test_enter_in_the_prompt_makes_a_clip_and_asking_again_for_the_same_does_not(maker, sora):
    maker.prompt.value = "a blue ring falls"
    maker.button.click()
    maker.make()
    assert [asked[0] for asked in sora.asked] == ["a blue ring falls"]


def test_controls_start_at_the_models_own_settings(maker):
    assert (maker.guidance.value, maker.steps.value, maker.seed.value) == (3.0, 20, 0)


def test_unknown_words_are_answered_with_a_prompt_that_works_on_a_button(maker, sora):
    maker.prompt.value = "a cute cat"
    assert sora.asked == []
    assert "“cute”, “cat”" in maker.message.value
    assert maker.suggestion.layout.display == ""
    suggestion = maker.suggestion.description
    assert parse(suggestion).things
    maker.suggestion.click()
    assert maker.prompt.value == suggestion
    assert sora.asked[0][0] == suggestion
    assert maker.suggestion.layout.display == "none"
    assert "cute" not in maker.message.value


def test_a_prompt_that_cannot_be_shown_says_why(maker):
    maker.prompt.value = "a spinning circle"
    assert "no viewer could tell" in maker.message.value
    assert maker.suggestion.layout.display == ""


def test_other_refusals_are_shown_and_the_button_comes_back(maker):
    maker.seed.value = 13
    maker.make()
    assert "use 12 or 14" in maker.message.value
    assert maker.suggestion.layout.display == "none"
    assert not maker.button.disabled
    assert maker.bar.layout.visibility == "hidden"


def test_what_the_learner_types_is_not_run_as_html(maker):
    maker.prompt.value = "<img src=x onerror=alert(1)>"
    assert "<img" not in maker.message.value


def test_without_a_kernel_three_clips_stand_for_the_controls(monkeypatch, sora):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata)))
    clip_maker(sora)
    ((bundle, metadata),) = shown
    assert set(bundle) == {"image/png", "text/plain"}
    assert "guidance 1, 20 steps" in metadata["image/png"]["alt"]
    assert [asked[1:3] for asked in sora.asked] == [(3.0, 20), (1.0, 20), (3.0, 2)]


def test_with_a_kernel_the_widget_comes_with_the_clip_as_its_fallback(monkeypatch, sora):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw, metadata: shown.append((bundle, metadata)))
    monkeypatch.setattr(widgets, "live", lambda: True)
    clip_maker(sora, "a pink cross orbits")
    ((bundle, metadata),) = shown
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).is_animated
    assert "a pink cross orbits" in metadata["image/png"]["alt"]
