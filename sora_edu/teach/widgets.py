"""Things to move: the clip maker of chapter 00.

A widget needs a running kernel. Where none runs, its place is taken by a picture of what its controls do.
"""

import base64
import html
import time

import ipywidgets

from sora_edu.clips import Clip, animated_png, enlarge
from sora_edu.data.captions import PromptError
from sora_edu.sora import Sora
from sora_edu.teach.figures import clip_grid, live, send, show_widget

PROMPT = "a red star bounces"
_SCREEN = 4  # screen pixels for each pixel of a clip


def clip_maker(sora: Sora, prompt: str = PROMPT) -> None:
    """Show a form that makes clips: prompt, guidance, steps and seed, and a button.

    A prompt with unknown words is answered with the nearest prompt that works, as a button. Without a kernel
    the output is a picture: one prompt and one noise with the model's own settings, without guidance, and
    in two steps.

    Args:
        sora: the model that makes the clips.
        prompt: what stands in the form at first.
    """
    if live():
        maker = ClipMaker(sora, prompt)
        maker.make()
        picture = {"image/png": maker.png} if maker.png else {}
        show_widget(maker.box, picture | {"text/plain": maker.alt or "A form that makes clips"}, maker.alt)
        return
    steps, guidance = sora.config.steps, sora.config.guidance
    settings = [(guidance, steps), (1.0, steps), (guidance, 2)]
    made = [sora.generate(prompt, guidance=g, steps=s) for g, s in settings]
    captions = [f"guidance {g:g}, {s} steps" for g, s in settings]
    alt = f"Three clips of “{prompt}” from the same noise: {'; '.join(captions)}."
    send(clip_grid(made, captions, scale=3), alt)


class ClipMaker:
    """The form behind `clip_maker`; `box` is the widget."""

    def __init__(self, sora: Sora, prompt: str):
        self.sora = sora
        wide = {"description_width": "6em"}
        self.prompt = ipywidgets.Text(
            prompt, description="prompt", continuous_update=False, style=wide, layout={"width": "36em"}
        )
        self.guidance = ipywidgets.FloatSlider(
            sora.config.guidance, min=0, max=8, step=0.5, description="guidance", style=wide
        )
        self.steps = ipywidgets.IntSlider(sora.config.steps, min=1, max=50, description="steps", style=wide)
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=10**6, description="seed", style=wide)
        self._controls = (self.prompt, self.guidance, self.steps, self.seed)
        self.button = ipywidgets.Button(description="Make the clip", button_style="primary")
        self.suggestion = ipywidgets.Button(
            layout={"width": "auto", "display": "none", "align_self": "flex-start"}
        )
        self.bar = ipywidgets.IntProgress(layout={"width": "12em", "visibility": "hidden"})
        self.message = ipywidgets.HTML()
        self.picture = ipywidgets.HTML()
        self.png = self.alt = ""
        self._asked: dict | None = None
        self.button.on_click(lambda _: self.make())
        self.prompt.observe(lambda _: self.make(), "value")
        self.suggestion.on_click(lambda _: self._take_suggestion())
        row = ipywidgets.HBox([self.button, self.bar])
        form = ipywidgets.VBox(
            [*self._controls, row, self.message, self.suggestion],
            layout={"width": "38em", "margin": "0 1em 0 0"},  # long messages wrap beside the picture
        )
        # Beside each other where there is room, so that the clip is in sight while the sliders move.
        self.box = ipywidgets.HBox([form, self.picture], layout={"flex_flow": "row wrap"})

    def make(self) -> None:
        """Make the clip that the form asks for and show it, or say why that is not possible."""
        asked = {control.description: control.value for control in self._controls}
        if asked == self._asked:
            return  # the same settings give the same clip; leaving the prompt for the button asks twice
        self._asked = asked
        self._say("")
        self.button.disabled, self.bar.layout.visibility = True, "visible"
        start = time.perf_counter()
        try:
            clip = self.sora.generate(**asked, progress=self._tick)
        except PromptError as error:
            self._refuse(error)
        except ValueError as error:
            self._say(str(error))
        else:
            self._show(clip)
            self._say(f"“{clip.prompt}”, seed {clip.seed}, made in {time.perf_counter() - start:.1f} s")
        finally:
            self.button.disabled, self.bar.layout.visibility = False, "hidden"

    def _tick(self, done: int, total: int) -> None:
        self.bar.max, self.bar.value = total, done

    def _show(self, clip: Clip) -> None:
        self.png = base64.b64encode(animated_png(enlarge(clip.frames, _SCREEN))).decode()
        settings = f"guidance {self.guidance.value:g}, {self.steps.value} steps, seed {clip.seed}"
        self.alt = f"A clip of “{clip.prompt}”: {settings}."
        self.picture.value = f'<img src="data:image/png;base64,{self.png}" alt="{html.escape(self.alt)}">'

    def _refuse(self, error: PromptError) -> None:
        self.picture.value = ""  # what was asked for before
        unknown = ", ".join(f"“{word}”" for word in error.unknown)
        why = f"The toy world does not know {unknown}." if unknown else str(error).splitlines()[0]
        self._say(f"{why} The nearest prompt that works:")
        self.suggestion.description = error.suggestion
        self.suggestion.layout.display = ""

    def _take_suggestion(self) -> None:
        self.prompt.value = self.suggestion.description  # the change makes the clip

    def _say(self, text: str) -> None:
        self.message.value = f'<p role="status">{html.escape(text)}</p>'
        self.suggestion.layout.display = "none"
