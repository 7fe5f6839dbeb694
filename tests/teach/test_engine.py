"""The engine, tried on toy exercises: every stage, the diagnosis, the hints, and what a check leaves."""

import random
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sora_edu.teach.engine import Text, answer, check, hint, judge, solution, use
from sora_edu.teach.exercise import Case, Exercise, Hints, Misconception, Property, build, find
from sora_edu.teach.progress import recall


def centred(x: Tensor, axis: int = -1) -> Tensor:
    """Takes the mean along an axis away."""
    return x - x.mean(axis, keepdim=True)


def _cases(seed: int) -> list[Case]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Case(torch.randn(5, 20, generator=generator)),
        Case(torch.randn(2, 3, generator=generator)),
        Case(torch.randn(4, 3, generator=generator), axis=0),
    ]


def _slip(name: str, wrong) -> Misconception:
    hints = Hints(f"{name}: what should the sum be?", f"{name}: look at the mean.", "y = x - mean(x)")
    return Misconception(name, f"the {name} slip", wrong, hints, "Taking the mean away", "a toy")


CENTRED = Exercise(
    id="toy.centred",
    chapter="99_toy",
    title="Take the mean away",
    minutes=3,
    difficulty=1,
    reference=centred,
    oracle=lambda x, axis=-1: torch.from_numpy(x.numpy() - np.mean(x.numpy(), axis, keepdims=True)),
    cases=_cases,
    properties=(Property("every row sums to zero", lambda f: f(torch.eye(3)).sum(-1).abs().max() < 1e-5),),
    hints=Hints("What is left of a constant row?", "The line that takes the mean.", "y = x - mean(x)"),
    misconceptions=(
        _slip("sum", lambda x, axis=-1: x - x.sum(axis, keepdim=True)),
        _slip("first_axis", lambda x, axis=-1: x - x.mean(0, keepdim=True)),
        _slip("squeezed", lambda x, axis=-1: (x - x.mean(axis, keepdim=True)).sum(axis)),
    ),
    correct_alternatives=(
        lambda x, axis=-1: x + x.mean(axis, keepdim=True).neg(),
        lambda x, axis=-1: x - (x.sum(axis, keepdim=True) / x.shape[axis]),
    ),
)


class Gated(nn.Module):
    """A linear map behind a gate that starts at zero."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.linear(x)


class Ungated(Gated):
    """The same without its gate."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


GATED = replace(
    CENTRED,
    id="toy.gated",
    kind="class",
    reference=Gated,
    oracle=None,
    run=lambda cls, dim, x: build(cls, dim)(x),
    cases=lambda seed: [Case(4, torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)))],
    properties=(Property("a new block changes nothing", lambda cls: (cls(3)(torch.ones(3)) == 1).all()),),
    misconceptions=(_slip("ungated", Ungated),),
)


def count() -> int:
    return (32 // 2) ** 2


COUNT = replace(
    CENTRED,
    id="toy.count",
    kind="value",
    reference=count,
    oracle=lambda: 256,
    cases=lambda seed: [Case()],
    properties=(),
    misconceptions=(_slip("side", lambda: 32 // 2), _slip("pixels", lambda: 32 * 32)),
)


PARTS = replace(
    COUNT,
    id="toy.parts",
    reference=lambda: {"frames": 17, "height": 64, "width": 64},
    oracle=lambda: {"frames": 17, "height": 64, "width": 64},
    misconceptions=(),
)


def stub(x, axis=-1):
    raise NotImplementedError("write me")


def test_the_right_answers_pass():
    for right in (centred, *CENTRED.correct_alternatives):
        assert judge(CENTRED, right).passed
    assert judge(GATED, Gated).passed
    assert judge(COUNT, 256).passed and judge(COUNT, np.int64(256)).passed


@pytest.mark.parametrize(
    "mine", [None, ..., stub, lambda x, axis=-1: None, lambda x, axis=-1: ..., lambda x, axis=-1: ... @ x]
)
def test_a_stub_is_not_attempted(mine):
    result = judge(CENTRED, mine)
    assert result.stage == "not attempted" and not result
    assert "not attempted yet (about 3 minutes)" in repr(result)


def test_a_forgotten_return_is_asked_after():
    def forgotten(x, axis=-1):
        x - x.mean(axis, keepdim=True)

    def untouched(x, axis=-1):
        """Subtracts the mean."""
        ...

    said = "is the `return` missing?"
    assert said in repr(judge(CENTRED, forgotten))
    assert "is the <code>return</code> missing?" in judge(CENTRED, forgotten)._repr_html_()
    for nothing in (stub, untouched, lambda x, axis=-1: None, None):
        assert said not in repr(judge(CENTRED, nothing))


def test_a_stub_class_is_not_attempted():
    class Mine(nn.Module):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x):
            raise NotImplementedError

    assert judge(GATED, Mine).stage == "not attempted"
    for mine in (None, ..., {"a": 1, "b": ...}, (1, [2, ...])):
        assert judge(COUNT, mine).stage == "not attempted"


def test_a_dictionary_says_what_is_missing_and_how_much_is_right():
    half = judge(PARTS, {"frames": 17, "height": ..., "width": 64})
    assert half.stage == "not attempted" and "still to be filled in: 'height'" in repr(half)
    assert "about 3 minutes" in repr(judge(PARTS, dict.fromkeys(("frames", "height", "width"), ...)))
    wrong = judge(PARTS, {"frames": 17, "height": 32, "width": 64})
    assert "2 of the 3 entries are right" in repr(wrong) and "64" not in repr(wrong)
    assert "'height': 64" in solution(PARTS).plain


def test_an_error_that_torch_calls_not_implemented_is_an_exception():
    def mine(x, axis=-1):
        return torch.ops.aten.mean.dim(x.to_sparse(), [axis], True)

    assert judge(CENTRED, mine).stage == "exception"


def test_an_exception_points_at_the_learners_line():
    def helper(x):
        return x @ x

    def mine(x, axis=-1):
        y = x + 1
        return helper(y)

    result = judge(CENTRED, mine)
    text = repr(result)
    assert result.stage == "exception"
    assert "line 2 of helper: return x @ x" in text
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)" in text
    assert "called with x = [[" in text
    assert "engine" not in text and "Traceback" not in text and ".py" not in text


def test_a_wrong_signature_is_told_with_the_right_one():
    text = repr(judge(CENTRED, lambda x: x))
    assert "unexpected keyword argument 'axis'" in text
    assert "it is called as centred(x, axis=-1)" in text


def test_code_without_source_lines_still_gets_a_message():
    scope: dict = {}
    exec("def mine(x, axis=-1):\n    return x / missing", scope)
    text = repr(judge(CENTRED, scope["mine"]))
    assert "NameError: name 'missing' is not defined" in text and "line 2 of mine" in text


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (lambda x, axis=-1: centred(x, axis).numpy(), "a numpy array; a torch tensor is asked for"),
        (lambda x, axis=-1: centred(x, axis).T, "has shape (3, 2); (2, 3) is asked for"),
        (lambda x, axis=-1: centred(x, axis).long(), "holds whole numbers; real numbers are asked for"),
        (lambda x, axis=-1: 3.0, "is 3; a torch tensor is asked for"),
        (torch.ones(2), "Hand over the function itself, without calling it"),
    ],
)
def test_type_and_shape(mine, said):
    result = judge(CENTRED, mine)
    assert result.stage == "type and shape" and said in repr(result)


def test_the_result_of_a_class_is_not_the_class():
    result = judge(GATED, Gated(3))
    assert result.stage == "type and shape" and "Hand over the class itself" in repr(result)


def test_a_changed_input_is_named():
    def mine(x, axis=-1):
        x -= x.mean(axis, keepdim=True)
        return x

    result = judge(CENTRED, mine)
    assert result.stage == "input mutated" and "changes its input x" in repr(result)


def test_a_law_that_does_not_hold_is_stated():
    result = judge(CENTRED, lambda x, axis=-1: x + 0.5)
    assert result.stage == "properties" and "every row sums to zero." in repr(result)
    assert "got  " in repr(result) and "expected  " in repr(result)


def test_the_smallest_failing_case_is_shown_with_both_results():
    def mine(x, axis=-1):
        return 2 * centred(x, axis)

    text = repr(judge(CENTRED, mine))
    (x,) = (case.args[0] for case in _cases(0) if case.args[0].numel() == 6)
    assert f"called with x = [[{x[0, 0]:.5g}, " in text
    got, expected = (re.search(rf"{word} +([-.\d]+)", text)[1] for word in ("got", "expected"))
    assert float(got) == pytest.approx(2 * float(expected), rel=1e-3)
    assert "It behaves like no slip in the catalogue." in text


def test_a_wrong_value_does_not_give_the_right_one_away():
    result = judge(COUNT, 255)
    assert result.stage == "oracle" and "255 is not right" in repr(result) and "256" not in repr(result)
    assert "256" not in result._repr_html_() and "<pre>" not in result._repr_html_()
    assert "256" not in repr(judge(COUNT, "255"))


def test_of_a_large_result_the_first_wrong_number_is_shown():
    def mine(x, axis=-1):
        y = centred(x, axis)
        if x.shape[-1] == 20:
            y = y + torch.zeros_like(y).index_put((torch.tensor(4), torch.tensor(7)), torch.tensor(1.0))
        return y

    text = repr(judge(CENTRED, mine))
    assert "1 of 100 numbers are wrong, the first at [4, 7]:" in text
    assert "called with x = a real tensor of shape (5, 20)" in text


@pytest.mark.parametrize("exercise", [CENTRED, GATED, COUNT], ids=lambda e: e.id)
def test_every_slip_is_named_and_shows_its_first_hint(exercise):
    for slip in exercise.misconceptions:
        mine = slip.wrong() if exercise.kind == "value" else slip.wrong
        result = judge(exercise, mine)
        assert result.misconception is slip and not result.passed
        assert slip.title in repr(result) and slip.hints.question in repr(result)
        assert slip.hints.place not in repr(result)


def test_a_slip_written_differently_is_named_too():
    result = judge(CENTRED, lambda x, axis=-1: (x.double() - x.double().sum(axis, keepdim=True)).float())
    assert result.misconception is CENTRED.misconceptions[0]


def test_two_slips_that_behave_alike_are_not_named():
    twins = replace(CENTRED, misconceptions=(*CENTRED.misconceptions, _slip("twin", _sum_again)))
    result = judge(twins, CENTRED.misconceptions[0].wrong)
    assert result.misconception is None
    assert "more than one known slip" in repr(result)


def _sum_again(x, axis=-1):
    return x - x.sum(axis, keepdim=True)


def test_a_typing_error_is_not_taken_for_a_slip_that_always_fails():
    def always_fails(x, axis=-1):
        raise TypeError("wrong")

    exercise = replace(CENTRED, misconceptions=(_slip("fails", always_fails),))
    result = judge(exercise, lambda x, axis=-1: len(3))
    assert result.stage == "exception" and result.misconception is None


def test_a_check_leaves_no_trace_in_generators_dtype_or_gradient_mode():
    def mine(x, axis=-1):
        torch.manual_seed(7), np.random.seed(7), random.seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return centred(x, axis)

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    judge(CENTRED, mine)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert torch.get_default_dtype() is torch.float32 and torch.is_grad_enabled()


def test_a_check_is_the_same_under_another_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert judge(GATED, Gated).passed
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_check_says_the_same_every_time_and_is_quick():
    mine = CENTRED.correct_alternatives[0]
    started = time.process_time()
    texts = {repr(judge(CENTRED, f)) for f in (mine, mine)}
    assert len(texts) == 1 and time.process_time() - started < 1
    assert len({repr(judge(CENTRED, lambda x, axis=-1: x + 0.5)) for _ in range(3)}) == 1


def test_notebooks_get_safe_html_with_a_link_to_the_section():
    page = judge(CENTRED, CENTRED.misconceptions[0].wrong)._repr_html_()
    assert '<a href="#Taking-the-mean-away">Taking the mean away</a>' in page
    page = judge(CENTRED, lambda x, axis=-1: x < "<script>")._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_hints_go_up_one_rung_at_a_time():
    rungs = CENTRED.hints
    texts = [repr(hint(CENTRED)) for _ in range(4)]
    assert rungs.question in texts[0] and rungs.place not in texts[0]
    assert rungs.place in texts[1] and rungs.formula not in texts[1]
    assert rungs.formula in texts[2] and 'solution("toy.centred")' in texts[2]
    assert texts[3] == texts[2]


def test_a_named_slip_has_a_ladder_of_its_own():
    hint(CENTRED)
    slip = CENTRED.misconceptions[1]
    check(CENTRED, slip.wrong)
    second = repr(hint(CENTRED))  # the check showed the first
    assert slip.hints.question in second and slip.hints.place in second and CENTRED.hints.place not in second
    check(CENTRED, slip.wrong)  # the same slip again does not start the ladder again
    assert slip.hints.formula in repr(hint(CENTRED))
    check(CENTRED, lambda x, axis=-1: x + 0.5)
    assert repr(hint(CENTRED)).startswith(f"Question: {CENTRED.hints.question}")


def test_the_solution_is_the_references_own_source():
    text = solution(CENTRED)
    assert isinstance(text, Text) and "return x - x.mean(axis, keepdim=True)" in repr(text)
    assert recall("toy.centred").solution_seen
    assert "# 256" in repr(solution(COUNT))


def test_use_never_blocks(capsys):
    mine = CENTRED.correct_alternatives[0]
    assert use(CENTRED, mine) is mine
    assert use(CENTRED, stub) is centred
    assert use(CENTRED, lambda x, axis=-1: 1 / 0) is centred
    assert use(COUNT, 3) == 256 == answer(COUNT)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and "your own answer" in said[0]
    assert all("the course's answer" in line for line in said[1:])


def test_checks_are_remembered():
    check(CENTRED, stub)
    assert recall("toy.centred").attempts == 0
    check(CENTRED, CENTRED.misconceptions[0].wrong)
    assert recall("toy.centred").misconception == "sum"
    check(CENTRED, CENTRED.correct_alternatives[0])
    check(CENTRED, lambda x, axis=-1: x)
    record = recall("toy.centred")
    assert record.attempts == 3 and record.passed and record.misconception is None


def test_the_courses_answer_under_a_learners_name_is_not_a_solution(capsys):
    mine = use(CENTRED, stub)
    result = check(CENTRED, mine)
    assert result.stage == "not attempted" and "the course's answer" in repr(result)
    assert recall("toy.centred").attempts == 0 and not recall("toy.centred").passed
    assert use(CENTRED, mine) is mine
    assert capsys.readouterr().out.count("going on with the course's answer") == 2


def test_an_unknown_exercise_is_refused_by_name():
    for call in (find, hint, solution, lambda name: check(name, None), lambda name: use(name, None)):
        with pytest.raises(ValueError, match=r"'nowhere\.at_all'"):
            call("nowhere.at_all")


def test_built_modules_share_weights_by_name_and_hide_no_zero():
    class Reordered(Gated):
        def __init__(self, dim: int):
            nn.Module.__init__(self)
            self.gate = nn.Parameter(torch.zeros(dim))
            self.linear = nn.Linear(dim, dim)

    one, other = build(Gated, 4), build(Reordered, 4)
    assert all(torch.equal(one.state_dict()[k], other.state_dict()[k]) for k in one.state_dict())
    assert one.gate.abs().min() > 0 and not one.training
    assert not torch.equal(build(Gated, 4, seed=1).gate, one.gate)
