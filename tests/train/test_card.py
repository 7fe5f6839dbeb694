"""The model card says what the files that ship say."""

import json
from pathlib import Path

from sora_edu.assets import data_path
from sora_edu.train.card import model_card
from sora_edu.weights import sha256

CARD = Path(__file__).resolve().parents[2] / "docs" / "model_card.md"


def test_the_card_is_current():
    """Write it anew with: python -m sora_edu.train.card docs/model_card.md"""
    assert CARD.read_text() == model_card()


def test_what_was_measured_are_the_weights_that_ship():
    report = json.loads(data_path("checkpoints", "tiny", "evaluation.json").read_text())
    assert report["checkpoint_sha256"] == sha256(data_path("checkpoints", "tiny", "config.json"))
