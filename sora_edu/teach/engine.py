"""The exercise engine: `check`, `hint`, `solution` and `use`.

`check` tries a learner's answer in stages and stops at the first that fails:

    not attempted    the stub still raises NotImplementedError, or it returns None or `...`
    exception        the code stops with an error
    type and shape   the result is not the kind of thing that was asked for
    input mutated    the code changed what it was given
    properties       a law that every right answer obeys does not hold
    oracle           the numbers differ from those of an independent implementation

An answer that fails is then diagnosed: every misconception of the exercise is a wrong implementation, and
where the answer behaves exactly like one of them, and only one, on every case, the check names it.

Checks run on the CPU under fixed seeds, and leave the random generators, the default dtype and the gradient
mode as they found them. `sora_edu.teach.exercise` says how an exercise is written.
"""

import copy
import dis
import html
import inspect
import os
import random
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sora_edu.teach.compare import agree, describe, difference, mismatch, name_of, size
from sora_edu.teach.exercise import Case, Exercise, Misconception, find
from sora_edu.teach.pasted import standalone
from sora_edu.teach.progress import recall, remember

Stage = Literal[
    "not attempted", "exception", "type and shape", "input mutated", "properties", "oracle", "passed"
]

_RUNGS = ("Question", "Place", "Formula")


@dataclass(frozen=True)
class CheckResult:
    """What a check found. A notebook shows it; `bool(result)` is True if the answer passed."""

    exercise: Exercise
    """The exercise that was checked."""
    stage: Stage
    """The stage at which it failed, or "passed"."""
    lines: tuple[str, ...]
    """What happened, in plain words; the first line is the verdict."""
    detail: tuple[str, ...] = ()
    """Code, calls and numbers that show it."""
    misconception: Misconception | None = None
    """The one known mistake that the answer behaves like."""

    @property
    def passed(self) -> bool:
        """True if every stage went well."""
        return self.stage == "passed"

    def __bool__(self) -> bool:
        return self.passed

    @property
    def _next(self) -> str:
        """What the learner can do now."""
        if self.passed or self.stage == "not attempted":
            return ""
        where = f'See "{self.misconception.section}". ' if self.misconception else ""
        return f'{where}For a hint: hint("{self.exercise.id}")'

    def __repr__(self) -> str:
        head, *rest = self.lines
        shown = [x for x in (*rest, *self.detail, self._next) if x]
        return "\n".join([f"{self.exercise.id}: {head}", *(f"  {x}" for x in shown)])

    def _repr_html_(self) -> str:
        head, *rest = map(_marked_up, self.lines)
        body = "".join(f"<div>{line}</div>" for line in rest)
        if self.detail:
            body += f"<pre>{html.escape(chr(10).join(self.detail), quote=False)}</pre>"
        following = _marked_up(self._next)
        if self.misconception:
            section = self.misconception.section
            link = f'<a href="#{html.escape(section.replace(" ", "-"))}">{html.escape(section)}</a>'
            following = following.replace(f'"{_marked_up(section)}"', link, 1)
        colour = {"passed": "#0072B2", "not attempted": "#777777"}.get(self.stage, "#D55E00")
        return (
            f'<div style="border-left: 5px solid {colour}; padding: 4px 12px; margin: 4px 0">'
            f"<b><code>{self.exercise.id}</code>: {head}</b>{body}"
            + (f"<div>{following}</div>" if following else "")
            + "</div>"
        )


@dataclass(frozen=True)
class Text:
    """Text that a notebook shows as it stands."""

    plain: str
    """What is shown where there is no HTML."""
    marked_up: str
    """The same for a notebook."""

    def __repr__(self) -> str:
        return self.plain

    def _repr_html_(self) -> str:
        return self.marked_up


def check(exercise: str | Exercise, mine: Any) -> CheckResult:
    """Checks an answer, remembers the result, and says what is wrong with it.

    Args:
        exercise: the id of an exercise, such as `"positions.sinusoidal"`.
        mine: the learner's function, class or value.

    Returns:
        The result; a notebook shows it.

    Raises:
        ValueError: no exercise has this id.
    """
    exercise = _resolve(exercise)
    result = _borrowed(exercise) if is_the_courses(exercise, mine) else judge(exercise, mine)
    if result.stage != "not attempted":
        before, named = recall(exercise.id), result.misconception and result.misconception.id
        # A named mistake comes with the first rung of its own ladder; a new one starts at the bottom.
        rung = before.rung if named == before.misconception else int(named is not None)
        remember(
            exercise.id,
            attempts=before.attempts + 1,
            passed=before.passed or result.passed,
            misconception=named,
            rung=rung,
        )
    return result


def hint(exercise: str | Exercise) -> Text:
    """Shows one more rung of the hint ladder: a question, then the place, then the formula.

    The ladder is that of the mistake which the last check named, or else the exercise's own.

    Args:
        exercise: the id of an exercise.

    Returns:
        The rungs so far.

    Raises:
        ValueError: no exercise has this id.
    """
    exercise = _resolve(exercise)
    record = recall(exercise.id)
    rung = min(record.rung + 1, len(_RUNGS))
    remember(exercise.id, rung=rung)
    known = {misconception.id: misconception.hints for misconception in exercise.misconceptions}
    rungs = list(zip(_RUNGS, known.get(record.misconception, exercise.hints), strict=True))[:rung]
    after = f'There is one more: hint("{exercise.id}")' if rung == len(_RUNGS) - 1 else ""
    if rung == len(_RUNGS):
        after = f'That was the last hint; the answer: solution("{exercise.id}")'
    plain = "\n".join([*(f"{name}: {text}" for name, text in rungs), *([after] if after else [])])
    body = "".join(f"<li><b>{name}.</b> {_marked_up(text)}</li>" for name, text in rungs)
    return Text(plain, f"<ol>{body}</ol><p>{_marked_up(after)}</p>")


def solution(exercise: str | Exercise) -> Text:
    """Shows the source of the reference, made to run where it is pasted; there is no other copy of it.

    Args:
        exercise: the id of an exercise.

    Returns:
        The source; see `pasted.standalone`.

    Raises:
        ValueError: no exercise has this id.
    """
    exercise = _resolve(exercise)
    remember(exercise.id, solution_seen=True)
    if exercise.kind == "value":
        source = inspect.getsource(exercise.reference).rstrip() + f"\n\n# {describe(exercise.reference())}"
    else:
        source = standalone(exercise.reference, exercise.called)
    return Text(source, f"<pre><code>{html.escape(source, quote=False)}</code></pre>")


def use(exercise: str | Exercise, mine: Any) -> Any:
    """Hands on the learner's answer if it passes and the course's own if not, so that a chapter goes on.

    Args:
        exercise: the id of an exercise.
        mine: the learner's function, class or value.

    Returns:
        The answer to go on with; one printed line says whose it is.

    Raises:
        ValueError: no exercise has this id.
    """
    exercise = _resolve(exercise)
    if not is_the_courses(exercise, mine) and judge(exercise, mine).passed:
        print(f"{exercise.id}: going on with your own answer.")
        return mine
    print(f"{exercise.id}: going on with the course's answer; yours can take its place at any time.")
    return answer(exercise)


def answer(exercise: str | Exercise) -> Any:
    """The right answer: the reference, or for a value what the reference computes."""
    exercise = _resolve(exercise)
    return subject_of(exercise, exercise.reference)


def subject_of(exercise: Exercise, implementation: Any) -> Any:
    """What a learner with this implementation would hand to `check`."""
    return implementation() if exercise.kind == "value" else implementation


def judge(exercise: Exercise, mine: Any, seed: int = 0) -> CheckResult:
    """Checks an answer without remembering anything.

    Args:
        exercise: the exercise.
        mine: the learner's function, class or value.
        seed: seed of the exercise's cases; learners get 0.

    Returns:
        The result.
    """
    with _sandbox():
        return _judge(exercise, mine, seed)


def _judge(exercise: Exercise, mine: Any, seed: int) -> CheckResult:
    if mine is None or _has_hole(mine):
        return _not_attempted(exercise, mine)
    right_kind = {"function": callable(mine), "class": isinstance(mine, type), "value": True}[exercise.kind]
    if not right_kind:
        what = f"That is {name_of(mine)}. Hand over the {exercise.kind} itself, without calling it."
        return CheckResult(exercise, "type and shape", ("not yet.", what))
    key = _answer_key(exercise, seed)
    behaviour = observe(exercise, mine, key.cases)
    if all(_is_stub(outcome) for outcome in behaviour.outcomes):
        return _not_attempted(exercise, mine, returned_none=_returned_none(behaviour.outcomes[0]))
    failure = _first_failure(exercise, behaviour, key)
    if failure is None:
        return CheckResult(exercise, "passed", (f"passed, right on {_count(len(key.cases), 'case')}.",))
    named = [slip for slip, known in _fingerprints(exercise, seed) if _alike(exercise, behaviour, known)]
    if len(named) == 1:
        slip = named[0]
        lines = (f"not yet. This is a known slip: {slip.title}.", slip.hints.question)
        return CheckResult(exercise, failure.stage, lines, misconception=slip)
    if named:
        return replace(failure, lines=(*failure.lines, "It behaves like more than one known slip."))
    if failure.stage in ("properties", "oracle"):
        return replace(failure, lines=(*failure.lines, "It behaves like no slip in the catalogue."))
    return failure


@dataclass(frozen=True)
class Outcome:
    """What one call did."""

    value: Any = None
    """The result."""
    error: Exception | None = None
    """The exception that came instead of a result."""
    changed: tuple[str, ...] = ()
    """Names of the arguments that the call changed."""


@dataclass(frozen=True)
class Behaviour:
    """What an answer does on all cases: its fingerprint."""

    outcomes: tuple[Outcome, ...]
    """One for each case."""
    laws: tuple[bool, ...]
    """For each property, whether it holds."""


def observe(exercise: Exercise, subject: Any, cases: Sequence[Case]) -> Behaviour:
    """Runs an answer on all cases and tries all properties."""
    outcomes = tuple(_outcome(exercise, subject, case) for case in cases)
    if all(_is_stub(outcome) for outcome in outcomes):
        return Behaviour(outcomes, (False,) * len(exercise.properties))
    return Behaviour(outcomes, tuple(_holds(law.holds, subject) for law in exercise.properties))


@dataclass(frozen=True)
class _AnswerKey:
    """The cases of an exercise, the smallest first, and their right results."""

    cases: tuple[Case, ...]
    """The calls to make."""
    expected: tuple[Any, ...]
    """What each should give."""


@lru_cache(maxsize=64)
def _answer_key(exercise: Exercise, seed: int) -> _AnswerKey:
    cases = sorted(exercise.cases(seed), key=lambda case: size([*case.args, *case.kwargs.values()]))
    return _AnswerKey(tuple(cases), tuple(_expected(exercise, case) for case in cases))


@lru_cache(maxsize=64)
def _fingerprints(exercise: Exercise, seed: int) -> tuple[tuple[Misconception, Behaviour], ...]:
    """How each misconception behaves."""
    cases = _answer_key(exercise, seed).cases
    wrong = [(slip, subject_of(exercise, slip.wrong)) for slip in exercise.misconceptions]
    return tuple((slip, observe(exercise, subject, cases)) for slip, subject in wrong)


def _alike(exercise: Exercise, mine: Behaviour, known: Behaviour) -> bool:
    """True if two answers behave the same on every case and property.

    Errors are alike if they are of one type; at least one case must give alike *results*, for a mere typing
    error fails everywhere in the same way too.
    """
    pairs = list(zip(mine.outcomes, known.outcomes, strict=True))
    results = [(a, b) for a, b in pairs if a.error is None and b.error is None]
    return (
        mine.laws == known.laws
        and bool(results)
        and all(type(a.error) is type(b.error) and a.changed == b.changed for a, b in pairs)
        and all(agree(a.value, b.value, exercise.tolerance) for a, b in results)
    )


def _first_failure(exercise: Exercise, behaviour: Behaviour, key: _AnswerKey) -> CheckResult | None:
    """The stage at which an answer fails, and what shows it; None if it is right."""
    observed = list(zip(key.cases, behaviour.outcomes, strict=True))
    for case, outcome in observed:
        if outcome.error is not None:
            detail = (*_error_lines(exercise, outcome.error), *_call_line(exercise, case))
            return CheckResult(exercise, "exception", ("not yet: the code stops with an error.",), detail)
    results = (outcome.value for outcome in behaviour.outcomes)
    triples = list(zip(key.cases, results, key.expected, strict=True))
    for case, got, expected in triples:
        if (text := mismatch(got, expected)) is not None:
            lines = (f"not yet: {text}.",)
            return CheckResult(exercise, "type and shape", lines, _call_line(exercise, case))
    for case, outcome in observed:
        if outcome.changed:
            lines = (f"not yet: it changes its input {', '.join(outcome.changed)}. Work on a copy.",)
            return CheckResult(exercise, "input mutated", lines, _call_line(exercise, case))
    wrong = [triple for triple in triples if not agree(*triple[1:], exercise.tolerance)]
    detail = _difference_lines(exercise, *wrong[0]) if wrong else ()
    for law, holds in zip(exercise.properties, behaviour.laws, strict=True):
        if not holds:
            lines = ("not yet: something that always holds does not hold here:", f"{law.statement}.")
            return CheckResult(exercise, "properties", lines, detail)
    if wrong:
        said = _said_of_value(exercise, *wrong[0][1:]) if exercise.kind == "value" else "the result is wrong"
        return CheckResult(exercise, "oracle", (f"not yet: {said}.",), detail)
    return None


def _said_of_value(exercise: Exercise, got: Any, expected: Any) -> str:
    """What is wrong with a value: of a dictionary, how much of it; the entries are the learner's to find."""
    if not isinstance(expected, Mapping):
        return f"{describe(got)} is not right"
    right = sum(agree(got[key], expected[key], exercise.tolerance) for key in expected)
    return f"{right} of the {len(expected)} entries are right"


def _difference_lines(exercise: Exercise, case: Case, got: Any, expected: Any) -> tuple[str, ...]:
    """A failing case: its call, its result and the right one. Of a value this would give the answer away."""
    if exercise.kind == "value":
        return ()
    lines = difference(got, expected, exercise.tolerance)
    return ("The smallest case that fails:", *_call_line(exercise, case), *lines)


def _outcome(exercise: Exercise, subject: Any, case: Case) -> Outcome:
    if exercise.kind == "value":
        return Outcome(subject)
    given = copy.deepcopy(case)
    try:
        with _sandbox():
            value = exercise.run(subject, *given.args, **given.kwargs)
    except Exception as error:
        return Outcome(error=error)
    before, after = _arguments(exercise, case), _arguments(exercise, given)
    return Outcome(value, changed=tuple(name for name in before if _changed(before[name], after[name])))


def _changed(before: Any, after: Any) -> bool:
    """True if an argument is no longer what it was; things equal only to themselves cannot tell."""
    if type(before).__eq__ is object.__eq__:
        return False
    return not agree(after, before, 0.0)


def _expected(exercise: Exercise, case: Case) -> Any:
    case = copy.deepcopy(case)
    with _sandbox():
        if exercise.oracle is not None:
            return exercise.oracle(*case.args, **case.kwargs)
        if exercise.kind == "value":
            return exercise.reference()
        return exercise.run(exercise.reference, *case.args, **case.kwargs)


def _holds(law: Any, subject: Any) -> bool:
    try:
        with _sandbox():
            return bool(law(subject))
    except Exception:
        return False


@contextmanager
def _sandbox() -> Iterator[None]:
    """Fixed seeds, float32 and gradients inside; everything as it was afterwards."""
    python, legacy, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype = torch.get_default_dtype()
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.enable_grad(), np.errstate():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
        np.random.set_state(legacy)
        random.setstate(python)


def _is_stub(outcome: Outcome) -> bool:
    """True for what an untouched or half-filled stub does."""
    if outcome.error is None:
        return _returned_none(outcome) or _has_hole(outcome.value)
    if isinstance(outcome.error, NotImplementedError):
        # torch raises this error too, for operations that it lacks; a stub says `raise`.
        last = traceback.extract_tb(outcome.error.__traceback__)[-1]
        return not _is_library(last.filename) and (not last.line or last.line.startswith("raise"))
    return isinstance(outcome.error, TypeError) and "ellipsis" in str(outcome.error)


def _has_hole(value: Any) -> bool:
    """True if a `...` is still to be filled in, in the value or in one of its parts."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return value is ... or any(_has_hole(part) for part in parts)


_NOTHING = {"RESUME", "NOP", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
"""What the body of a function is compiled to that does nothing."""


def _is_untouched(mine: Any) -> bool:
    """True for a function without a body, as the notebook gives it."""
    code = getattr(mine, "__code__", None)
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= _NOTHING


def _returned_none(outcome: Outcome) -> bool:
    return outcome.error is None and outcome.value is None


def _not_attempted(exercise: Exercise, mine: Any, returned_none: bool = False) -> CheckResult:
    lines = [f"not attempted yet (about {_count(exercise.minutes, 'minute')})."]
    holes = [name for name, part in mine.items() if _has_hole(part)] if isinstance(mine, Mapping) else []
    if 0 < len(holes) < len(mine):
        lines = [f"still to be filled in: {', '.join(map(describe, holes))}."]
    if returned_none and not _is_untouched(mine):
        lines.append("It returns None. If you have written it: is the `return` missing?")
    return CheckResult(exercise, "not attempted", tuple(lines))


def is_the_courses(exercise: Exercise, mine: Any) -> bool:
    """True for the very function or class that `use` hands out in place of a learner's."""
    return exercise.kind != "value" and mine is exercise.reference


def _borrowed(exercise: Exercise) -> CheckResult:
    lines = (
        "not attempted yet: this is the course's answer.",
        "`use` has put it in the place of yours. Run the cell with your own `def` again, and then the check.",
    )
    return CheckResult(exercise, "not attempted", lines)


def _error_lines(exercise: Exercise, error: Exception) -> tuple[str, ...]:
    """The line of the learner's code that an error came from, and the error, without the engine's frames."""
    said = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
    summaries = traceback.extract_tb(error.__traceback__)
    frames = zip(traceback.walk_tb(error.__traceback__), summaries, strict=True)
    theirs = [(frame.f_code, at) for (frame, _), at in frames if not _is_library(at.filename)]
    if not theirs:
        return text, f"it is called as {_signature(exercise)}"
    code, at = theirs[-1]
    name = code.co_qualname.rpartition("<locals>.")[2]
    return f"line {at.lineno - code.co_firstlineno + 1} of {name}: {at.line}", text


def _is_library(filename: str) -> bool:
    if filename.startswith(("<frozen", "<__array_function__")):
        return True
    return os.path.abspath(filename).startswith(_LIBRARIES)


_LIBRARIES = tuple(
    os.path.join(os.path.abspath(folder), "")
    for folder in {
        str(Path(__file__).parents[1]),
        str(Path(torch.__file__).parent),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))),
    }
)
"""Folders whose frames no learner wrote."""


def _parameters(exercise: Exercise) -> inspect.Signature:
    """The signature of a call: the reference's own, or that of `run` after the subject."""
    if exercise.kind == "function":
        return inspect.signature(exercise.reference)
    signature = inspect.signature(exercise.run)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _arguments(exercise: Exercise, case: Case) -> dict[str, Any]:
    return dict(_parameters(exercise).bind(*case.args, **case.kwargs).arguments)


def _call_line(exercise: Exercise, case: Case) -> tuple[str, ...]:
    """The arguments of a call, as a line; nothing for a value, which is not called."""
    if exercise.kind == "value":
        return ()
    given = ", ".join(f"{name} = {describe(value)}" for name, value in _arguments(exercise, case).items())
    return (f"called with {given}",) if given else ()


def _signature(exercise: Exercise) -> str:
    parameters = _parameters(exercise).parameters.values()
    named = ", ".join(
        p.name if p.default is p.empty else f"{p.name}={describe(p.default)}" for p in parameters
    )
    return f"{getattr(exercise.reference, '__name__', 'it')}({named})"


def _marked_up(text: str) -> str:
    """A line of text as HTML; what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _resolve(exercise: str | Exercise) -> Exercise:
    return exercise if isinstance(exercise, Exercise) else find(exercise)
