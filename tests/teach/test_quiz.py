"""The quiz files follow their schema, and every way of breaking it is told apart."""

import importlib
import json
import re

import pytest

from sora_edu.assets import data_path
from sora_edu.teach.exercise import find
from sora_edu.teach.quiz import as_html, load_quiz, quiz

# `sora_edu.teach.quiz` as an attribute is the function that notebooks use.
quiz_module = importlib.import_module("sora_edu.teach.quiz")


def _good() -> list:
    wrong = {
        "text": "4.25",
        "answer": "The first frame stands alone.",
        "misconception": "overview.no-first-frame",
    }
    return [
        {"question": "How many?", "choices": [{"text": "5", "right": True, "answer": "Yes: `1 + 4`."}, wrong]}
    ]


def _write(tmp_path, content):
    path = tmp_path / "77.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_good_quiz_is_read(tmp_path):
    (question,) = load_quiz(_write(tmp_path, _good()))
    assert question.question == "How many?"
    right, wrong = sorted(question.choices, key=lambda choice: not choice.right)
    assert (right.right, wrong.right) == (True, False)
    assert wrong.misconception == "overview.no-first-frame"


def test_the_place_of_the_right_choice_gives_nothing_away(tmp_path):
    entries = [{**_good()[0], "question": f"Question number {number}?"} for number in range(60)]
    questions = load_quiz(_write(tmp_path, entries))
    first = sum(question.choices[0].right for question in questions)
    assert 15 <= first <= 45  # in the file the right choice always comes first
    assert load_quiz(_write(tmp_path, entries)) == questions


def _change(*path, value=None, drop=False):
    def apply(quiz):
        place = quiz
        for step in path[:-1]:
            place = place[step]
        if drop:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return quiz

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda quiz: "{", "77.json is not JSON"),
        (lambda quiz: {}, "at least one question"),
        (lambda quiz: [], "at least one question"),
        (lambda quiz: ["?"], "question 1 must be an object"),
        (_change(0, "question", drop=True), "question 1: the field question is missing"),
        (_change(0, "question", value=" "), "question=' '"),
        (_change(0, "hint", value="x"), "unknown field hint"),
        (_change(0, "choices", value=[]), "at least two"),
        (_change(0, "choices", 0, "right", value=False), "choice 1: misconception=None"),
        (_change(0, "choices", 0, "right", value="yes"), "right='yes'"),
        (_change(0, "choices", 0, "misconception", value="a.b"), "the right choice has misconception='a.b'"),
        (_change(0, "choices", 1, "misconception", drop=True), "choice 2: misconception=None"),
        (_change(0, "choices", 1, "misconception", value="Not An Id"), "overview.frame-by-frame"),
        (_change(0, "choices", 1, "answer", drop=True), "the field answer is missing"),
        (_change(0, "choices", 1, "answer", value="Yes: `1 + 4`."), "the same answer"),
        (_change(0, "choices", 1, "text", value="5"), "the same text"),
        (
            _change(0, "choices", 1, value={"text": "5!", "right": True, "answer": "Also."}),
            "2 choices are right",
        ),
    ],
)
def test_each_fault_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_quiz(_write(tmp_path, change(_good())))


def test_every_shipped_quiz_follows_the_schema():
    files = sorted(data_path("quizzes").glob("*.json"))
    assert files
    for path in files:
        questions = load_quiz(path)
        assert 4 <= len(questions) <= 12, path
        for question in questions:
            for choice in question.choices:
                exercise, colon, slip = (choice.misconception or "").partition(":")
                assert not colon or slip in {known.id for known in find(exercise).misconceptions}


def test_html_holds_every_text_and_escapes_it(tmp_path):
    raw = _good()
    raw[0]["question"] = "Is 3 < 4?"
    questions = load_quiz(_write(tmp_path, raw))
    page = as_html(questions)
    assert "Is 3 &lt; 4?" in page
    assert "<code>1 + 4</code>" in page
    assert page.count("<details>") == page.count("</details>") == 2
    assert "<script" not in page
    for choice in questions[0].choices:
        assert choice.text in page


def test_quiz_shows_html_where_no_kernel_runs(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(quiz_module, "data_path", lambda *parts: _write(tmp_path, _good()))
    monkeypatch.setattr(quiz_module, "display", lambda bundle, raw: shown.append(bundle))
    quiz("77")
    assert set(shown[0]) == {"text/html", "text/plain"}
    assert shown[0]["text/plain"] == "Quiz 77: 1 questions"


def test_widget_carries_the_questions_without_the_misconception_ids(tmp_path):
    widget = quiz_module._widget(load_quiz(_write(tmp_path, _good())))
    assert sorted(c["right"] for c in widget.questions[0]["choices"]) == [False, True]
    assert widget.chosen == [[]]
    assert "no-first-frame" not in json.dumps(widget.questions)


def test_unknown_chapter_lists_the_quizzes_there_are():
    with pytest.raises(FileNotFoundError, match=r"00\.json"):
        quiz("99")
