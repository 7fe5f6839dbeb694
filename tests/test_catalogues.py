"""The shipped tables: the deck's counts, sources for everything, and corrections beside what was printed."""

import re
from collections import Counter

import pytest

from sora_edu.data import catalogues
from sora_edu.data.catalogues import STATUSES, load_claims, load_timeline, load_video_models


def test_table_has_the_decks_counts():
    models = load_video_models()
    assert len(models) == 45
    assert Counter(model.year for model in models) == {2022: 9, 2023: 33, 2024: 3}
    families = Counter(model.printed.family for model in models)
    assert families == {"Diffusion": 34, "Masked Vision Models": 4, "Auto-regressive": 3, "": 4}
    assert len({model.printed.name for model in models}) == 45
    assert models[-1].printed.name == "Sora"


def test_every_row_names_task_and_group():
    for model in load_video_models():
        for entry in (model.printed, model.corrected):
            assert entry.name and entry.task and entry.group


@pytest.mark.parametrize(
    ("name", "field", "printed", "corrected"),
    [
        ("Video Fusion", "group", "USAC, Alibaba", "UCAS, Alibaba"),
        ("PYoCo", "group", "Nvidia", "University of Maryland, Nvidia"),
        ("Zeroscope", "family", "", "Diffusion"),
        ("Zeroscope", "group", "EasyWithAI", "cerspense"),
        ("ModelScope", "family", "", "Diffusion"),
        ("DiffAct", "task", "Action Detection", "Temporal action segmentation"),
        ("LGV", "name", "LGV", "LGVI"),
    ],
)
def test_corrections_stand_beside_what_was_printed(name, field, printed, corrected):
    (model,) = (m for m in load_video_models() if m.printed.name == name)
    assert getattr(model.printed, field) == printed
    assert getattr(model.corrected, field) == corrected
    assert model.note


def test_university_of_maryland_moves_from_video_ldm_to_pyoco():
    at_maryland = {m.corrected.name for m in load_video_models() if "Maryland" in m.corrected.group}
    assert at_maryland == {"TATS", "PYoCo"}


def test_every_change_has_a_note_and_every_note_a_basis():
    for model in load_video_models():
        assert model.note or model.printed == model.corrected
        assert bool(model.note) == (model.basis in ("verified", "recalled"))


def test_timeline_is_sourced_and_in_order():
    events = load_timeline()
    assert len(events) >= 20
    assert [event.when for event in events] == sorted(event.when for event in events)
    for event in events:
        assert 1 <= event.month <= 12
        assert event.kind in ("method", "video", "other")
        assert event.confidence in ("high", "medium")
        assert event.why
    names = {event.event: event for event in events}
    assert (names["Sora report"].year, names["Sora report"].month) == (2024, 2)
    assert (names["Sora for the public"].year, names["Sora for the public"].month) == (2024, 12)
    assert (names["Sora 2"].year, names["Sora 2"].month) == (2025, 9)


def test_an_arxiv_number_is_of_its_events_month_or_shortly_after_an_announcement():
    numbers = [(e, re.search(r"arXiv:(\d\d)(\d\d)\.\d{4,5}$", e.citation)) for e in load_timeline()]
    numbered = [(event, match) for event, match in numbers if match]
    assert len(numbered) >= 20
    later = [(2000 + int(m[1]) - e.year) * 12 + int(m[2]) - e.month for e, m in numbered]
    assert set(later) <= {0, 2}
    assert [e.event for (e, _), months in zip(numbered, later, strict=True) if months] == ["CLIP"]


def test_when_lies_in_the_middle_of_the_month():
    events = {event.event: event for event in load_timeline()}
    assert events["Transformer"].when == pytest.approx(2017 + 5.5 / 12)


def test_ledger_uses_every_status_and_sources_every_claim():
    claims = load_claims()
    assert {claim.status for claim in claims} == set(STATUSES)
    assert len({claim.claim for claim in claims}) == len(claims)
    for claim in claims:
        assert claim.claim and claim.said_by and claim.evidence
        assert (claim.said_by == "nobody") == (claim.status == "unknown")
        assert (claim.said_by == "OpenAI report") == (claim.status == "disclosed")
        assert bool(claim.correction) == (claim.status == "wrong")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "maybe"}, "status='maybe'"),
        ({"correction": "x"}, "only there"),
        ({"status": "wrong"}, "only there"),
    ],
)
def test_a_bad_ledger_row_is_named(monkeypatch, change, message):
    row = {"claim": "C", "said_by": "Deck", "status": "inferred", "evidence": "E", "correction": ""}
    monkeypatch.setattr(catalogues, "_rows", lambda name: [row | change])
    with pytest.raises(ValueError, match=message):
        load_claims()
