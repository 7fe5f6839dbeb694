"""What an exercise is: its right answer, its known wrong answers, and the inputs that tell them apart.

One file per chapter under `sora_edu/teach/exercises/` holds a module-level tuple `EXERCISES`; the part of an
exercise's id before the dot is the name of that file, so `"positions.sinusoidal"` lives in `positions.py`.
Importing the file is all the registration there is. A whole exercise file, small but complete:

    import torch
    from torch import Tensor

    from sora_edu.positions import doubled                    # the reference: the course's own code
    from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property

    def _cases(seed: int) -> list[Case]:
        noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
        return [Case(torch.tensor([1.0, 3.0])), Case(noise), Case(noise, scale=3.0)]

    def _oracle(x: Tensor, scale: float = 2.0) -> Tensor:      # independent of the reference where one exists
        return torch.mul(x, scale)

    def _squares(x: Tensor, scale: float = 2.0) -> Tensor:
        return x**scale

    EXERCISES = (
        Exercise(
            id="positions.doubled",
            chapter="02_positional_encoding",
            title="Double it",
            minutes=5,
            difficulty=1,
            reference=doubled,
            oracle=_oracle,
            cases=_cases,
            properties=(Property("zero stays zero", lambda f: bool((f(torch.zeros(2)) == 0).all())),),
            hints=Hints("What happens to 3?", "The line after the shape check.", "y = s x"),
            misconceptions=(
                Misconception(
                    id="squares",
                    title="a power where a product is meant",
                    wrong=_squares,
                    hints=Hints("What should 3 become?", "The operator in line 2.", "y = s x, not x^s"),
                    section="Doubling",
                    evidence="`**` read as `*`: a slip of notation, seen in ...",
                ),
            ),
            correct_alternatives=(lambda x, scale=2.0: x + (scale - 1) * x, lambda x, scale=2.0: scale * x),
            equivalent_mutants={"a + 0.0 -> a - 0.0": "adding or taking away nothing is the same"},
        ),
    )

What the learner hands to `check` is the *subject*. There are three kinds:

- `kind="function"`: the subject is a function; each case's arguments go straight to it.
- `kind="class"`: the subject is a class, most often an `nn.Module`. `run(subject, *args)` says how a case
  uses it; `sora_edu.teach.exercise.build` makes an instance with known weights:
  `run=lambda cls, dim, x: build(cls, dim)(x)`, with cases such as `Case(8, torch.randn(2, 8))`.
- `kind="value"`: the subject is an answer (a number, a string, a tuple). `reference`, every `wrong` and every
  correct alternative are functions of no argument that compute it, and there is one case, `Case()`.

`cases(seed)` must depend on nothing but its seed: a learner's check uses seed 0, the tests use twenty. Two
misconceptions must differ from the truth and from each other on those cases; a property counts as one too.
`tests/teach/test_exercises.py` holds every exercise to all this.
"""

import difflib
import importlib
import math
import pkgutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from sora_edu.teach import exercises


class Hints(NamedTuple):
    """A ladder of three hints. Each says more than the one before; none is the answer's code."""

    question: str
    """Rung 1: a question that makes the learner look at the right thing."""
    place: str
    """Rung 2: where in the learner's code, or in the chapter, to look."""
    formula: str
    """Rung 3: the formula that the code should carry out, in plain text or LaTeX."""


@dataclass(frozen=True, init=False)
class Case:
    """One call on which answers are compared."""

    args: tuple[Any, ...]
    """Positional arguments of the call."""
    kwargs: Mapping[str, Any]
    """Keyword arguments of the call."""

    def __init__(self, *args: Any, **kwargs: Any):
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "kwargs", kwargs)


@dataclass(frozen=True)
class Property:
    """Something that every right answer satisfies, whatever the input."""

    statement: str
    """What holds, as a sentence without a full stop: "every row sums to one"."""
    holds: Callable[[Any], bool]
    """Takes the subject and says whether it holds; raising counts as not holding."""


@dataclass(frozen=True)
class Misconception:
    """A known way to get it wrong, as code that gets it wrong."""

    id: str
    """Name within the exercise, in lower case with underscores; the full name is `<exercise id>:<id>`."""
    title: str
    """The mistake in one line, as it is named to the learner: lower case, without a full stop."""
    wrong: Callable[..., Any]
    """The mistake as a running implementation, of the same kind and signature as the reference."""
    hints: Hints
    """The ladder for a learner who made this mistake."""
    section: str
    """Heading in the chapter's notebook that puts it right."""
    evidence: str
    """Why this mistake is in the catalogue: a thread, an erratum, a known bug, or the slip of reasoning."""


def _call(subject: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return subject(*args, **kwargs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Exercise:
    """One exercise: what is asked, how it is judged and what people get wrong. See the module's example."""

    id: str
    """`<file>.<name>`, the name that `check` is given."""
    chapter: str
    """Name of the chapter's notebook without `.ipynb`."""
    title: str
    """A few words, as in the notebook's heading."""
    name: str = ""
    """What the notebook calls the answer, if not by the part of the id after the dot; see `called`."""
    minutes: int
    """Time that a learner should plan for."""
    difficulty: Literal[1, 2, 3]
    """1: one line; 2: a few lines and a thought; 3: several ideas at once."""
    reference: Callable[..., Any]
    """The right answer, and the text that `solution` shows: preferably the course's own function or class."""
    cases: Callable[[int], Sequence[Case]]
    """Seed -> the calls to compare, at least one of them small enough to print."""
    hints: Hints
    """The ladder for a learner whose mistake is not in the catalogue."""
    misconceptions: tuple[Misconception, ...]
    """The catalogue: known wrong answers."""
    correct_alternatives: tuple[Callable[..., Any], ...]
    """At least two other right answers, written differently; they must pass."""
    kind: Literal["function", "class", "value"] = "function"
    """What the learner hands over."""
    oracle: Callable[..., Any] | None = None
    """Case arguments -> expected result, independent of the reference; None: the reference judges."""
    properties: tuple[Property, ...] = ()
    """Laws that a right answer obeys, tried before single numbers are compared."""
    run: Callable[..., Any] = _call
    """`run(subject, *args, **kwargs)`: how a case uses the subject."""
    tolerance: float = 1e-5
    """Largest error allowed in a number, as a fraction of 1 + its size."""
    equivalent_mutants: Mapping[str, str] = field(default_factory=dict)
    """Mutants of the reference that no check can tell from it -> the reason why."""

    @property
    def called(self) -> str:
        """The name that the notebook's stub has."""
        return self.name or self.id.partition(".")[2]


def build(cls: type[nn.Module], *args: Any, seed: int = 0, **kwargs: Any) -> nn.Module:
    """Makes a module whose weights depend only on their names, shapes and the seed.

    Two classes with the same parameter names get the same weights, in whatever order they create them, and no
    weight is zero, so that a gate initialised to zero cannot hide what stands behind it.

    Args:
        cls: the module's class.
        *args, **kwargs: what its constructor takes.
        seed: seed of the weights.

    Returns:
        The module, in evaluation mode.
    """
    module = cls(*args, **kwargs)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
            scale = 1 / math.sqrt(weight.shape[-1]) if weight.ndim > 1 else 1.0
            weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return module.eval()


def find(exercise_id: str) -> Exercise:
    """Finds an exercise by its id, importing no more than its own chapter's file.

    Args:
        exercise_id: such as `"positions.sinusoidal"`.

    Raises:
        ValueError: no exercise has this id; names the nearest ones.
    """
    topic = exercise_id.partition(".")[0]
    if topic in _topics():
        for exercise in _exercises_of(topic):
            if exercise.id == exercise_id:
                return exercise
    known = [exercise.id for exercise in every()]
    near = difflib.get_close_matches(exercise_id, known, n=3, cutoff=0.4) or known
    raise ValueError(f"exercise_id: no exercise is called {exercise_id!r}; there is {', '.join(near)}")


def every() -> list[Exercise]:
    """All exercises of the course, in the order of the chapters and of their files."""
    found = [exercise for topic in _topics() for exercise in _exercises_of(topic)]
    return sorted(found, key=lambda exercise: exercise.chapter)


def _topics() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))


def _exercises_of(topic: str) -> tuple[Exercise, ...]:
    return importlib.import_module(f"{exercises.__name__}.{topic}").EXERCISES
