"""What every exercise owes its learners: right answers pass, known slips are named, nothing else passes."""

import inspect
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from mutate import mutants

from sora_edu.teach.catalogue import confusion, page
from sora_edu.teach.engine import judge, solution, subject_of
from sora_edu.teach.exercise import Exercise, every, find

EXERCISES = every()
SEEDS = range(20)
ROOT = Path(__file__).parents[2]

each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)


@each_exercise
def test_right_answers_pass_on_every_seed(exercise: Exercise):
    assert len(exercise.correct_alternatives) >= 2, "two other right answers are needed"
    for right in (exercise.reference, *exercise.correct_alternatives):
        for seed in SEEDS:
            result = judge(exercise, subject_of(exercise, right), seed)
            assert result.passed, f"{inspect.getsource(right)}\nseed {seed}: {result!r}"


@each_exercise
def test_every_slip_fails_under_its_own_name_on_every_seed(exercise: Exercise):
    count = len(exercise.misconceptions)
    diagonal = [[int(row == column) for column in range(count + 2)] for row in range(count)]
    for seed in SEEDS:
        assert confusion(exercise, seed) == diagonal, f"seed {seed}"


@each_exercise
def test_the_stub_is_not_attempted(exercise: Exercise):
    def stub(*args, **kwargs):
        raise NotImplementedError

    class Stub(torch.nn.Module):
        def __init__(self, *args, **kwargs):
            raise NotImplementedError

    stubs = {"function": [stub, lambda *a, **k: None, lambda *a, **k: ...], "class": [Stub], "value": []}
    for mine in (None, ..., *stubs[exercise.kind]):
        assert judge(exercise, mine).stage == "not attempted"


@each_exercise
def test_checks_are_quick_and_leave_the_generators_alone(exercise: Exercise):
    answers = [exercise.reference, *(slip.wrong for slip in exercise.misconceptions)]
    for candidate in answers:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        started = time.process_time()
        judge(exercise, subject_of(exercise, candidate))
        assert time.process_time() - started < 1
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_default_dtype() is torch.float32


@each_exercise
def test_the_cases_depend_on_the_seed_alone(exercise: Exercise):
    slip = exercise.misconceptions[0].wrong
    first = repr(judge(exercise, subject_of(exercise, slip), 5))
    torch.manual_seed(99)
    assert repr(judge(exercise, subject_of(exercise, slip), 5)) == first


@each_exercise
def test_mutants_of_the_reference_are_caught(exercise: Exercise):
    survivors, total = set(), 0
    for name, mutant in mutants(exercise.reference):
        total += 1
        if _passes(exercise, mutant):
            survivors.add(name)
    listed = set(exercise.equivalent_mutants)
    assert survivors == listed, (
        f"{total} mutants; not caught and not listed: {sorted(survivors - listed)}; "
        f"listed and caught, or gone: {sorted(listed - survivors)}"
    )
    assert all(reason.strip() for reason in exercise.equivalent_mutants.values())


@each_exercise
def test_the_exercise_is_complete(exercise: Exercise):
    assert find(exercise.id) is exercise
    assert 1 <= exercise.minutes <= 60 and exercise.difficulty in (1, 2, 3)
    ids = Counter(slip.id for slip in exercise.misconceptions)
    assert ids and max(ids.values()) == 1
    for slip in exercise.misconceptions:
        assert slip.title and slip.section and slip.evidence
        assert slip.id == slip.id.lower() and slip.id.replace("_", "").isalnum()
        assert len(set(slip.hints)) == 3 and all(slip.hints)
    assert len(set(exercise.hints)) == 3 and all(exercise.hints)
    assert "def " in repr(solution(exercise)) or "class " in repr(solution(exercise))


def test_ids_are_unique_and_every_chapter_has_enough():
    assert max(Counter(exercise.id for exercise in EXERCISES).values(), default=1) == 1
    by_chapter: dict[str, list[Exercise]] = {}
    for exercise in EXERCISES:
        by_chapter.setdefault(exercise.chapter, []).append(exercise)
    for chapter, exercises in by_chapter.items():
        assert 4 <= len(exercises) <= 6, chapter
        assert sum(len(exercise.misconceptions) for exercise in exercises) >= 8, chapter


def test_the_catalogue_in_the_docs_is_current():
    written = (ROOT / "docs" / "misconceptions.md").read_text(encoding="utf-8")
    assert written == page(EXERCISES), "run: python -m sora_edu.teach.catalogue docs/misconceptions.md"


class _RunsOn(BaseException):
    """A mutant has no end. No `Exception`: the check would note that, and go on to its next case."""


def test_a_mutant_without_end_does_not_pass():
    def endless(length: int, past: int = 0) -> torch.Tensor:
        while True:
            past += length

    assert not _passes(find("attention.causal_mask"), endless, seconds=0.2)


def _passes(exercise: Exercise, mutant: object, seconds: float = 5.0) -> bool:
    """Whether a mutant passes; one that does not come to an end does not.

    The seconds are the processor's own, so that a busy machine stops no mutant that would have passed.
    """
    subject = subject_of(exercise, mutant) if exercise.kind == "value" else mutant
    if not hasattr(signal, "setitimer"):
        return judge(exercise, subject).passed

    def stop(*_: object) -> None:
        raise _RunsOn

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return judge(exercise, subject).passed
    except _RunsOn:
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
