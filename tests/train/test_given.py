"""The trainings of chapter 11: films whose truth is known, ways to complete them, and the shipped runs."""

import json

import numpy as np
import pytest
import torch

from sora_edu.assets import data_path
from sora_edu.samplers import time_grid
from sora_edu.train import given
from sora_edu.train.given import (
    FRAMES,
    PLACES,
    WAYS,
    all_films,
    ask,
    complete,
    complete_perfectly,
    draw_films,
    film_of,
    judge_films,
    loss_of_way,
    make_network,
    mask_pool,
    masks_asked,
    missed,
    overwrite,
    perfect,
    right,
)
from sora_edu.video_dit import VideoDiT

MASKS = masks_asked()


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def woken(network, seed=0):
    """A fresh network says 0 everywhere; with random weights it says something."""
    generator = dice(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def test_a_light_runs_round_the_ring():
    films = film_of(torch.tensor([0.0, 6.0]), torch.tensor([1.0, -0.5]))
    assert films.shape == (2, 1, FRAMES, 1, PLACES)
    assert films.argmax(-1)[0].flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert films.argmax(-1)[1].flatten()[::2].tolist() == [6, 5, 4, 3, 2]
    assert films.abs().max() <= 1 and films.sum(-1).abs().max() < 1e-5
    assert len(all_films(4, 3)) == 12 == len(all_films(4, 3).unique(dim=0))


def test_how_far_a_light_is_off():
    true = film_of(torch.tensor([1.0, 7.5, 0.0]), torch.zeros(3))
    made = 0.3 * film_of(torch.tensor([2.5, 0.6, 4.0]), torch.zeros(3))
    assert missed(made, true).mean(1).tolist() == pytest.approx([1.5, 1.1, 4.0], abs=1e-4)
    assert right(film_of(torch.tensor([1.9, 6.6, 0.8]), torch.zeros(3)), true).all()
    assert not right(made, true).any()


@pytest.mark.parametrize("task", MASKS)
def test_films_are_judged_by_what_was_made(task):
    true, mask = draw_films(6, dice()), MASKS[task]
    perfect_figures = judge_films(true, true, mask)
    assert perfect_figures == {"right": 1, "missed": 0, "seam": 1, "given": 0}
    dark = judge_films(true * mask, true, mask)  # wrong only where it was given the truth
    assert dark["right"] == 1 and dark["given"] == pytest.approx(0.7, abs=0.1)
    other = judge_films(-true, true, mask)
    assert other["right"] == 0 or task == "inpaint"  # half of the ring still shows the way
    assert other["given"] == pytest.approx(2 * dark["given"], abs=1e-3)


def masks_asked_to_train_with_have_something_to_do():
    pool = mask_pool()
    assert pool.shape == (given.MASKS, FRAMES, 1, PLACES) and pool.flatten(1).any(1).all()
    assert (pool[::7] == 1).all() and not (pool == 1).flatten(1).all(1)[1:7].any()
    assert not any((pool == MASKS["every third"]).flatten(1).all(1))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_hidden_cannot_shine_through(way):
    """The answer depends on given places, except where a network is told of none, and on no hidden one."""
    network, known = woken(make_network(0)), draw_films(3, dice(1))
    mask = MASKS["connect"].expand(3, -1, -1, -1)
    x, t = torch.randn(known.shape, generator=dice(2)), torch.tensor([0.2, 0.5, 0.9])
    said = ask(network, way, x, t, known, mask)
    hidden = ask(network, way, x, t, known + mask[:, None], mask)
    shown = ask(network, way, x, t, known + (1 - mask[:, None]), mask)
    assert torch.equal(said, hidden)
    assert torch.equal(said, shown) == (way == "replaced")
    noisy = ask(network, way, x + (1 - mask[:, None]), t, known, mask)
    assert torch.equal(said, noisy) == (way == "clean in place")


def test_in_place_only_what_is_generated_counts(monkeypatch):
    """A network that is wrong where things are given, and right elsewhere, has no loss."""

    class Oracle(VideoDiT):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def forward(self, x, t, y):
            return self.answer

    network = Oracle()
    mask = MASKS["extend"][None]
    monkeypatch.setattr(given, "mask_pool", lambda: mask)
    generator = dice(5)
    films = draw_films(given.BATCH, generator)
    noise = torch.randn(films.shape, generator=generator)
    network.answer = noise - films + 7 * (1 - mask)
    assert loss_of_way(network, "clean in place", dice(5)) < 1e-10
    assert loss_of_way(network, "replaced", dice(5)) > 10


def test_overwriting_feeds_the_given_places_at_their_noise():
    known, mask, seen = draw_films(2, dice(1)), MASKS["extend"], []

    def said(x, t):
        seen.append((x.clone(), float(t[0])))
        return torch.zeros_like(x)

    overwrite(said, known, mask, dice(3))
    noise = torch.randn(known.shape, generator=dice(3))
    assert [t for _, t in seen] == pytest.approx(time_grid(given.SAMPLER_STEPS)[:-1].tolist())
    for x, t in seen:
        torch.testing.assert_close(x[:, :, :3], torch.lerp(known, noise, t)[:, :, :3])
        torch.testing.assert_close(x[:, :, 3:], noise[:, :, 3:])


def test_a_step_that_is_taken_again_starts_at_its_own_noise():
    """Of data that are zero, what is left at time t is noise of size t, however often the step was taken."""
    known, sizes = torch.zeros(4000, 1, FRAMES, 1, PLACES), []
    mask = torch.ones(FRAMES, 1, PLACES)

    def said(x, t):
        sizes.append((float(t[0]), x.std().item()))
        return x / t.view(-1, 1, 1, 1, 1)  # of a network that knows that all data are zero

    overwrite(said, known, mask, dice(), repeats=3)
    assert len(sizes) == 3 * given.SAMPLER_STEPS
    for t, size in sizes:
        assert size == pytest.approx(t, rel=0.02)


def test_a_perfect_network_that_is_told_is_always_right():
    films = all_films()
    known = films[torch.randperm(len(films), generator=dice())[:12]]
    for mask in MASKS.values():
        made = complete_perfectly(films, known, mask)
        torch.testing.assert_close(made, known, atol=1e-4, rtol=0)


def test_a_perfect_network_makes_films_of_its_world():
    films = all_films(6, 5)
    made = overwrite(perfect(films), films[:8], torch.ones(FRAMES, 1, PLACES), dice())
    nearest = (made[:, None] - films[None]).abs().flatten(2).amax(2).amin(1)
    assert (nearest < 0.05).all()


def test_a_short_recording_can_be_read(tmp_path, monkeypatch):
    few = draw_films(4, dice())
    monkeypatch.setattr(given, "test_films", lambda: few)
    record(tmp_path / "a.json")
    record(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    found = json.loads((tmp_path / "a.json").read_text())
    assert set(found["curves"]) == set(WAYS) and set(found["tasks"]) == set(MASKS)
    assert all(np.array(run["loss"]).shape == (1, len(run["steps"])) for run in found["curves"].values())


def record(path):
    given.record(path, seeds=1, steps=3)


def test_what_is_made_repeats():
    network, known = woken(make_network(0)), draw_films(2, dice())
    for way in WAYS:
        one, two = (complete(network, way, known, MASKS["extend"], seed=4) for _ in range(2))
        assert torch.equal(one, two)


@pytest.mark.parametrize("way", WAYS)
def test_the_shipped_runs_are_whole(way):
    runs = json.loads(data_path("curves", "11_given.json").read_text())
    losses = np.array(runs["curves"][way]["loss"])
    assert losses.shape == (3, len(runs["curves"][way]["steps"]))
    assert (losses[:, -1] < 0.5 * losses[:, 0]).all()
    for task in MASKS:
        assert [set(run) for run in runs["tasks"][task][way]] == 3 * [{"right", "missed", "seam", "given"}]


def test_the_shipped_runs_say_what_the_chapter_says():
    tasks = json.loads(data_path("curves", "11_given.json").read_text())["tasks"]
    for task in ("extend", "connect"):
        ends = {way: [run["missed"] for run in tasks[task][way]] for way in WAYS}
        assert max(ends["channels"]) < min(ends["replaced"])
    for task in MASKS:
        own = {way: [run["given"] for run in tasks[task][way]] for way in WAYS}
        assert max(own["channels"]) < 0.2 < min(own["clean in place"])
