"""Quizzes: one JSON file a chapter, shown as a widget where a kernel runs and as plain HTML elsewhere.

A quiz is a list of questions. One choice is right; every wrong choice names the misconception behind it
(one of its own, or one that an exercise catalogues) and has an answer of its own:

    [{"question": "How many latent frames does a clip of 17 frames have?",
      "choices": [
        {"text": "5", "right": true, "answer": "Yes: the first frame alone, then 16 / 4 more."},
        {"text": "4", "answer": "The first …", "misconception": "overview.latent_shape:no_first_frame"}
      ]}]
"""

import html
import json
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from IPython.display import display

from sora_edu.assets import data_path
from sora_edu.teach.figures import live, show_widget

_MISCONCEPTION = re.compile(r"[a-z0-9_]+\.[a-z0-9_-]+(:[a-z0-9_]+)?")


@dataclass(frozen=True)
class Choice:
    """One choice of a question."""

    text: str
    """What the learner can choose."""
    answer: str
    """What is said to a learner who chose it."""
    right: bool
    """True for the one right choice."""
    misconception: str | None
    """The id of the misconception that leads here; None for the right choice."""


@dataclass(frozen=True)
class Question:
    """A question with one right choice."""

    question: str
    """The question, in plain text; `code` may stand in backticks."""
    choices: tuple[Choice, ...]
    """Two or more choices."""


def quiz(chapter: str) -> None:
    """Show the quiz of a chapter, for example `quiz("02")`.

    With a running kernel and anywidget this is a widget: choose with the mouse or with Tab, the arrow keys
    and Enter. Elsewhere (GitHub, HTML, continuous integration, `SORA_EDU_STATIC=1`) every choice folds out
    into its answer, with no script at all.

    Raises:
        FileNotFoundError: there is no quiz for this chapter.
        ValueError: the file does not follow the schema.
    """
    questions = load_quiz(data_path("quizzes", f"{chapter}.json"))
    fallback = {"text/html": as_html(questions), "text/plain": f"Quiz {chapter}: {len(questions)} questions"}
    if live():
        show_widget(_widget(questions), fallback)
    else:
        display(fallback, raw=True)


def load_quiz(path: Path) -> tuple[Question, ...]:
    """Read a quiz file, check it, and mix the choices, so that their order in the file says nothing.

    Raises:
        ValueError: with the file, the question and what would do.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{path} must hold a list of at least one question")
    questions = [_question(entry, f"{Path(path).name}, question {i}") for i, entry in enumerate(raw, 1)]
    return tuple(map(_mixed, questions))


def _mixed(question: Question) -> Question:
    """The question with its choices in an order that looks like chance and is the same every time."""

    def lot(choice: Choice) -> int:
        return zlib.crc32(f"{choice.text} {question.question}".encode())

    return replace(question, choices=tuple(sorted(question.choices, key=lot)))


def _question(entry, where: str) -> Question:
    _fields(entry, {"question", "choices"}, {"question", "choices"}, where)
    if not isinstance(entry["choices"], list) or len(entry["choices"]) < 2:
        raise ValueError(f"{where}: choices must be a list of at least two")
    choices = tuple(_choice(c, f"{where}, choice {i}") for i, c in enumerate(entry["choices"], 1))
    if sum(c.right for c in choices) != 1:
        raise ValueError(f"{where}: {sum(c.right for c in choices)} choices are right; exactly one must be")
    for what in ("text", "answer"):
        if len({getattr(c, what) for c in choices}) < len(choices):
            raise ValueError(f"{where}: two choices have the same {what}; give each its own")
    return Question(_text(entry["question"], "question", where), choices)


def _choice(entry, where: str) -> Choice:
    _fields(entry, {"text", "answer"}, {"text", "answer", "right", "misconception"}, where)
    right, misconception = entry.get("right", False), entry.get("misconception")
    if not isinstance(right, bool):
        raise ValueError(f"{where}: right={right!r}; give true or false")
    if right and misconception is not None:
        raise ValueError(f"{where}: the right choice has misconception={misconception!r}; leave it out")
    if not right and not _MISCONCEPTION.fullmatch(str(misconception)):
        raise ValueError(
            f"{where}: misconception={misconception!r}; a wrong choice names one in small letters, such as "
            "overview.frame-by-frame, or one of an exercise, such as overview.frames_for:gaps_counted"
        )
    text, answer = _text(entry["text"], "text", where), _text(entry["answer"], "answer", where)
    return Choice(text, answer, right, misconception)


def _fields(entry, needed: set, known: set, where: str) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object with the fields {', '.join(sorted(needed))}")
    for name in sorted(needed - entry.keys()):
        raise ValueError(f"{where}: the field {name} is missing")
    for name in sorted(entry.keys() - known):
        raise ValueError(f"{where}: unknown field {name}; known are {', '.join(sorted(known))}")


def _text(value, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {name}={value!r}; give a text")
    return value


def as_html(questions: tuple[Question, ...]) -> str:
    """The quiz as HTML without script: each choice is a fold that opens on its answer."""
    parts = []
    for number, question in enumerate(questions, 1):
        parts.append(f"<p><b>Question {number}.</b> {_inline(question.question)}</p>")
        for letter, choice in zip("ABCDEFGHIJ", question.choices, strict=False):
            verdict = "✓" if choice.right else "✗ Not quite."
            parts.append(
                f"<details><summary>{letter}. {_inline(choice.text)}</summary>"
                f"<blockquote><b>{verdict}</b> {_inline(choice.answer)}</blockquote></details>"
            )
    return "\n".join(parts)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _widget(questions: tuple[Question, ...]):
    import anywidget
    import traitlets

    class QuizWidget(anywidget.AnyWidget):
        _esm = _SCRIPT
        _css = _STYLE
        questions = traitlets.List().tag(sync=True)
        chosen = traitlets.List().tag(sync=True)
        """For each question the indices chosen so far, in order."""

    def shown(choice: Choice) -> dict:
        return {"text": _inline(choice.text), "answer": _inline(choice.answer), "right": choice.right}

    page = [{"question": _inline(q.question), "choices": [shown(c) for c in q.choices]} for q in questions]
    return QuizWidget(questions=page, chosen=[[] for _ in page])


_SCRIPT = """
function render({ model, el }) {
  el.classList.add("sora-quiz");
  const uid = Math.random().toString(36).slice(2);
  const score = document.createElement("p");
  score.setAttribute("role", "status");
  const tell = () => {
    const chosen = model.get("chosen"), questions = model.get("questions");
    const done = chosen.filter((c) => c.length).length;
    const first = chosen.filter((c, i) => c.length && questions[i].choices[c[0]].right).length;
    const left = questions.length - done;
    score.textContent = done ? `${first} of ${done} right at the first try, ${left} to go` : "";
  };
  model.get("questions").forEach((question, q) => {
    const box = document.createElement("fieldset");
    box.innerHTML = `<legend>Question ${q + 1}. ${question.question}</legend>`;
    const reply = document.createElement("p");
    reply.className = "reply";
    reply.setAttribute("role", "status");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Check";
    question.choices.forEach((choice, c) => {
      const label = document.createElement("label");
      label.innerHTML = `<input type="radio" name="${uid}-${q}" value="${c}"> <span>${choice.text}</span>`;
      box.append(label);
    });
    button.addEventListener("click", () => {
      const picked = box.querySelector("input:checked");
      if (!picked) { reply.textContent = "Choose an answer first."; return; }
      const choice = question.choices[+picked.value];
      reply.className = choice.right ? "reply right" : "reply wrong";
      reply.innerHTML = `<b>${choice.right ? "\\u2713" : "\\u2717 Not quite."}</b> ${choice.answer}`;
      model.set("chosen", model.get("chosen").map((old, i) => (i === q ? [...old, +picked.value] : old)));
      model.save_changes();
      tell();
    });
    // Enter checks from anywhere in the question; JupyterLab must not take the arrow keys for its cells.
    box.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") { event.preventDefault(); button.click(); }
    });
    box.append(button, reply);
    el.append(box);
  });
  el.append(score);
  tell();
}
export default { render };
"""

_STYLE = """
.sora-quiz { font-size: 1.05em; line-height: 1.5; max-width: 46em; }
.sora-quiz fieldset { border: 1px solid #8A8A8A; border-radius: 6px; margin: 0 0 1em; padding: .6em 1em; }
.sora-quiz legend { font-weight: 600; padding: 0 .4em; }
.sora-quiz label { display: flex; gap: .5em; align-items: baseline; padding: .2em 0; cursor: pointer; }
.sora-quiz button { margin-top: .4em; padding: .3em 1.2em; font-size: 1em; }
.sora-quiz .reply { border-left: 5px solid transparent; padding-left: .8em; min-height: 1.5em; }
.sora-quiz .reply { margin: .6em 0 0; }
.sora-quiz .right { border-color: #009E73; }
.sora-quiz .wrong { border-color: #D55E00; }
"""
