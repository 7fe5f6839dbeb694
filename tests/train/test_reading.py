"""The readers of chapter 02: what each kind can and cannot tell, and that recording them is repeatable."""

import json

import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.data.world import parse
from sora_edu.train.reading import (
    PLACES,
    POSITIONS,
    make_reader,
    prompts,
    share_right,
    tokens,
    train_reader,
)

SWAPPED = ["a red star behind a blue ring", "a blue ring behind a red star"]


def test_the_answers_are_the_colours_in_front():
    for text, colour in prompts(60, seed=0):
        scene = parse(text)  # the parser knows nothing of how the prompt was drawn
        front = scene.things[0] if scene.relation == "in front of" else scene.things[1]
        assert colour == front.colour
        assert len({thing.colour for thing in scene.things}) == 2


def test_tokens_can_be_moved_but_not_off_the_edge():
    here, moved = tokens(SWAPPED), tokens(SWAPPED, shift=3)
    assert here.shape == (2, PLACES)
    assert torch.equal(here[:, : PLACES - 3], moved[:, 3:])
    with pytest.raises(ValueError, match="shift=12"):
        tokens(SWAPPED, shift=12)


def test_unknown_positions_are_refused():
    with pytest.raises(ValueError, match="positions='rope'"):
        make_reader("rope")


def _answers(positions: str) -> torch.Tensor:
    with torch.no_grad():
        reader = make_reader(positions).eval()
        return torch.cat([reader(tokens([text])) for text in SWAPPED])


@pytest.mark.parametrize("positions", POSITIONS)
def test_only_real_positions_tell_two_orders_apart(positions):
    first, second = _answers(positions)
    apart = not torch.allclose(first, second, atol=1e-4)
    assert apart == (positions in ("sinusoidal", "learned"))


def test_the_bug_makes_answers_depend_on_the_place_in_the_batch():
    with torch.no_grad():
        first, second = make_reader("along the batch").eval()(tokens([SWAPPED[0]] * 2))
    assert not torch.allclose(first, second, atol=1e-3)


def test_training_repeats_exactly_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    reader, curve = train_reader("sinusoidal", seed=3, steps=20, examples=300, progress=False)
    again, curve_again = train_reader("sinusoidal", seed=3, steps=20, examples=300, progress=False)
    assert curve == curve_again
    assert all(torch.equal(a, b) for a, b in zip(reader.parameters(), again.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert [step for step, _ in curve] == [0, 20]
    assert share_right(reader, prompts(30, seed=2)) == curve[-1][1]


def test_the_reference_curves_bear_out_what_the_chapter_says():
    reference = json.loads(data_path("curves", "02_reading.json").read_text())
    assert reference.keys() == POSITIONS.keys()
    ends = {name: [run[-1] for run in curves["share_right"]] for name, curves in reference.items()}
    assert all(len(runs) == 5 for runs in ends.values())
    assert min(ends["sinusoidal"] + ends["learned"]) > 0.98
    assert max(ends["none"] + ends["along the batch"]) < 0.56
    assert all(run[0] > 0.98 and run[1] < 0.2 and run[4] < 0.6 for run in reference["learned"]["shifted"])
    assert all(run[0] > 0.98 and run[4] < 0.6 for run in reference["sinusoidal"]["shifted"])
