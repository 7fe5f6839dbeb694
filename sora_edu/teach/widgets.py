"""Things to move: forms that make something, and the clip maker of chapter 00.

A widget needs a running kernel. Where none runs, its place is taken by a picture of what its controls do.
"""

import base64
import html
import time
from collections.abc import Sequence

import ipywidgets

from sora_edu.clips import animated_png, enlarge
from sora_edu.data.captions import PromptError
from sora_edu.sora import Sora
from sora_edu.teach.figures import clip_grid, live, send, show_widget

PROMPT = "a red star bounces"
WIDE = {"description_width": "7em"}
"""Room for the name of a control."""
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
        ClipMaker(sora, prompt).display("A form that makes clips")
        return
    steps, guidance = sora.config.steps, sora.config.guidance
    settings = [(guidance, steps), (1.0, steps), (guidance, 2)]
    made = [sora.generate(prompt, guidance=g, steps=s) for g, s in settings]
    captions = [f"guidance {g:g}, {s} steps" for g, s in settings]
    alt = f"Three clips of “{prompt}” from the same noise: {'; '.join(captions)}."
    send(clip_grid(made, captions, scale=3), alt)


class Form:
    """A prompt, other controls, a button, and the picture that they make; `box` is the widget.

    A subclass says in `draw` what is made. Unknown words are answered with the nearest prompt that works, as
    a button.
    """

    def __init__(self, prompt: str, controls: Sequence[ipywidgets.Widget], button: str):
        """`controls` come below the prompt; what they are called is what `draw` gets them as."""
        self.prompt = ipywidgets.Text(
            prompt, description="prompt", continuous_update=False, style=WIDE, layout={"width": "36em"}
        )
        self._controls = (self.prompt, *controls)
        self.button = ipywidgets.Button(description=button, button_style="primary")
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

    def draw(self, **asked) -> tuple[bytes, str, str]:
        """A PNG of what the controls ask for, its alt text, and what it is. Errors are shown as messages."""
        raise NotImplementedError

    def make(self) -> None:
        """Make what the form asks for and show it, or say why that is not possible."""
        asked = {control.description: control.value for control in self._controls}
        if asked == self._asked:
            return  # the same settings give the same clip; leaving the prompt for the button asks twice
        self._asked = asked
        self._say("")
        self.button.disabled, self.bar.layout.visibility = True, "visible"
        start = time.perf_counter()
        try:
            png, alt, what = self.draw(**asked)
        except PromptError as error:
            self._refuse(error)
        except ValueError as error:
            self._say(str(error))
        else:
            self._show(png, alt)
            self._say(f"{what}, made in {time.perf_counter() - start:.1f} s")
        finally:
            self.button.disabled, self.bar.layout.visibility = False, "hidden"

    def tick(self, done: int, total: int) -> None:
        """Moves the progress bar."""
        self.bar.max, self.bar.value = total, done

    def display(self, otherwise: str) -> None:
        """Makes what the form asks for and shows the form, with the picture as its fallback."""
        self.make()
        picture = {"image/png": self.png} if self.png else {}
        show_widget(self.box, picture | {"text/plain": self.alt or otherwise}, self.alt)

    def _show(self, png: bytes, alt: str) -> None:
        self.png, self.alt = base64.b64encode(png).decode(), alt
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


class ClipMaker(Form):
    """The form behind `clip_maker`."""

    def __init__(self, sora: Sora, prompt: str):
        self.sora = sora
        self.guidance = ipywidgets.FloatSlider(
            sora.config.guidance, min=0, max=8, step=0.5, description="guidance", style=WIDE
        )
        self.steps = ipywidgets.IntSlider(sora.config.steps, min=1, max=50, description="steps", style=WIDE)
        self.seed = ipywidgets.BoundedIntText(0, min=0, max=10**6, description="seed", style=WIDE)
        super().__init__(prompt, (self.guidance, self.steps, self.seed), "Make the clip")

    def draw(self, **asked) -> tuple[bytes, str, str]:
        """A clip, moving."""
        clip = self.sora.generate(**asked, progress=self.tick)
        settings = f"guidance {asked['guidance']:g}, {asked['steps']} steps, seed {clip.seed}"
        alt = f"A clip of “{clip.prompt}”: {settings}."
        return animated_png(enlarge(clip.frames, _SCREEN)), alt, f"“{clip.prompt}”, seed {clip.seed}"
