"""The instructor's pages: made from the chapters, current, and with the answers kept apart."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from sora_edu import attention, patches, scale
from sora_edu.teach.anatomy import ours
from sora_edu.teach.engine import answer
from sora_edu.teach.exercise import every

ROOT = Path(__file__).resolve().parent.parent
TEACHING = ROOT / "docs" / "teaching"
NUMBERS = [f"{number:02}" for number in range(15)]


@pytest.fixture(scope="module")
def tool():
    """`tools/instructor.py` as a module."""
    spec = importlib.util.spec_from_file_location("instructor", ROOT / "tools" / "instructor.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["instructor"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_chapter_page_is_current(tool):
    written = (ROOT / "docs" / "instructor_chapters.md").read_text(encoding="utf-8")
    assert written == tool.guide(), "run: python tools/instructor.py guide"


@pytest.mark.parametrize("number", NUMBERS)
def test_every_chapter_has_questions_and_answers(tool, number):
    asked = tool.teaching(number)
    assert len(asked.discussion) >= 3 and len(asked.exam) >= 3
    assert all(question.endswith("?") for question in asked.discussion)
    for exam in asked.exam:
        assert exam.points in range(1, 6) and len(exam.question) > 30 and len(exam.answer) > 10


def test_the_page_says_what_goes_wrong_in_every_exercise_and_gives_no_exam_answer(tool):
    page = (ROOT / "docs" / "instructor_chapters.md").read_text(encoding="utf-8")
    for exercise in every():
        assert all(f"    - {slip.title}\n" in page for slip in exercise.misconceptions), exercise.id
    for number, chapter in tool.chapters().items():
        assert chapter.headings[0][1] in page
        for exam in tool.teaching(number).exam:
            assert exam.question in page and exam.answer not in page


def test_a_file_with_other_fields_is_refused(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "TEACHING", tmp_path)
    (tmp_path / "00.toml").write_text('discussion = ["Why?"]\n')
    with pytest.raises(ValueError, match="discussion and exam would do"):
        tool.teaching("00")
    (tmp_path / "00.toml").write_text('discussion = ["Why?"]\n[[exam]]\nquestion = "a"\n')
    with pytest.raises(ValueError, match="question, answer and points"):
        tool.teaching("00")


# ---- The numbers in the answers ----------------------------------------------------------------------------


def the(number: str, place: int, tool) -> str:
    return tool.teaching(number).exam[place - 1].answer


def test_the_numbers_in_the_answers_are_those_of_the_course(tool):
    shape, tokens = answer("overview.latent_shape"), answer("overview.token_count")
    channels, frames, height, width = shape(33, 96, 64)
    assert f"{channels * frames * height * width:,} numbers" in the("00", 1, tool)
    assert f"{tokens(33, 96, 64)} tokens" in the("00", 1, tool)
    assert f"{12 * 768**2 / 1e6:.2f} million" in the("04", 1, tool)
    latent, kl = answer("latents.psnr"), answer("latents.kl")
    assert f"{latent(torch.zeros(4), torch.full((4,), 0.2)):.0f} dB" in the("06", 2, tool)
    assert f"{kl(torch.ones(1, 1), torch.zeros(1, 1)).item():g} nats" in the("06", 1, tool)
    rows = patches.first_fit([80, 50, 40, 30], 100)
    assert f"{len(rows)} rows, 200 of {100 * len(rows)} tokens" in the("09", 2, tool)
    assert f"{scale.training_flops(120e9, 256, 400_000):.1e}".replace("e+", "e") in the("13", 1, tool)
    assert f"{scale.state_bytes(10**9, 8, 3) / 1e9:g} GB" in the("13", 2, tool)
    assert attention.attention_macs(6 * 512, 512) == 4 * 6 * 512 * 512**2 + 2 * (6 * 512) ** 2 * 512


def test_the_worked_answer_on_attention(tool):
    q, k, v = torch.tensor([1.0, 0]), torch.tensor([[2.0, 0], [0, 2]]), torch.tensor([[1.0], [5]])
    found = torch.nn.functional.scaled_dot_product_attention(q[None], k, v).item()
    assert f"about {found:.2f}" in the("03", 1, tool)


# ---- Syllabi -----------------------------------------------------------------------------------------------


def test_the_syllabi_fit_their_hours(tool):
    found = tool.chapters()
    words = ("three hours", "five days", "semester")
    assert all(word in entry["name"] for word, entry in zip(words, tool.syllabi(), strict=True))
    for entry in tool.syllabi():
        taken = [tool.hours(session, found) for session in entry["session"]]
        known = [hours for hours in taken if hours is not None]
        if "hours" in entry:
            assert len(known) == len(taken), "a workshop is made of chapters that are there"
            assert sum(known) <= entry["hours"]
        else:
            assert max(known) <= entry["hours_each"]


def test_the_long_syllabi_hold_every_chapter_once(tool):
    for entry in tool.syllabi()[1:]:
        named = [number for session in entry["session"] for number in session["chapters"]]
        assert named == NUMBERS


def test_a_session_names_exercises_of_its_chapters(tool):
    found = tool.chapters()
    for entry in tool.syllabi():
        for session in entry["session"]:
            known = {name for number in session["chapters"] if number in found
                     for name in found[number].exercise_ids}  # fmt: skip
            assert set(session.get("exercises", [])) <= known


# ---- Solutions ---------------------------------------------------------------------------------------------


def test_solutions_hold_every_answer_and_need_no_network(tool, tmp_path, monkeypatch):
    first = dict(list(tool.chapters().items())[:2])
    monkeypatch.setattr(tool, "chapters", lambda: first)
    *notebooks, page = tool.solutions(tmp_path)
    assert [path.stem for path in notebooks] == [chapter.name for chapter in first.values()]
    text = page.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
    for path, chapter in zip(notebooks, first.values(), strict=True):
        made = tool.read(path)
        for cell in made.cells:
            if cell.cell_type == "code" and "exercise" in ours(cell):
                assert "..." not in cell.source and not cell.outputs
        assert all(exercise.id in text for exercise in chapter.exercises)


def test_a_solved_stub_passes_its_check(tool):
    from sora_edu.teach.engine import judge
    from sora_edu.teach.exercise import find

    for name in ("attention.attend", "overview.claims", "vit.parameters"):
        exercise, namespace = find(name), {}
        exec(tool.answer_source(exercise), namespace)
        assert judge(exercise, namespace[exercise.called]).passed
