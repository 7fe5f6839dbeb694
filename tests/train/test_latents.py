"""The trainings of chapter 06: costs, denoisers, and that the shipped runs bear out what the chapter says."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sora_edu.assets import data_path
from sora_edu.data.digits import digits
from sora_edu.train import latents
from sora_edu.train.latents import (
    CHAPTER_AUTOENCODER,
    SPACES,
    PatchDenoiser,
    denoiser_macs,
    describe,
    digits_from_noise,
    generate,
    into,
    out_of,
    record,
    sampling_macs,
    train_denoiser,
    train_plane,
    training_macs,
)
from sora_edu.train.pictures import draw_pictures, picture_autoencoder, train_autoencoder

FEW = draw_pictures(24, 9)


@pytest.mark.parametrize("name", list(SPACES)[:3])
def test_the_closed_form_counts_what_torch_counts(name):
    space = SPACES[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        y = torch.zeros(1, dtype=torch.long)
        PatchDenoiser(space)(torch.zeros(1, *space.size), torch.zeros(1), y, y)
    told = 8 * latents.WIDTH  # of the time, counted by torch and left out by the closed form
    assert 2 * (denoiser_macs(space.tokens, space.numbers, latents.WIDTH, latents.DEPTH) + told) == (
        counter.get_total_flops()
    )


def test_the_bill_has_the_autoencoder_on_it():
    with FlopCounterMode(display=False) as decoding:
        picture_autoencoder().decode(torch.zeros(1, 4, 8, 8))
    space, pixels = SPACES["latents"], SPACES["pixels, patches of 8"]
    step = denoiser_macs(space.tokens, space.numbers, latents.WIDTH, latents.DEPTH)
    assert sampling_macs(space, 10) == 10 * step + decoding.get_total_flops() // 2
    assert sampling_macs(pixels, 10) == 10 * denoiser_macs(pixels.tokens, pixels.numbers)
    longer = training_macs(space, 7) - training_macs(space, 4)
    assert longer == 3 * 3 * latents.BATCH * step
    assert training_macs(space, 0) > 0 == training_macs(pixels, 0)  # encoding the training pictures


@pytest.mark.parametrize("name", list(SPACES))
def test_into_a_space_and_out_of_it(name):
    space = SPACES[name]
    x = into(space, FEW.images)
    assert tuple(x.shape[1:]) == space.size
    back, model = out_of(space, x), picture_autoencoder()
    expected = model.decode(model.encode(FEW.images)) if space.latent else FEW.images
    torch.testing.assert_close(back, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(SPACES)[:3])
def test_a_denoiser_is_told_time_colour_and_shape(name):
    torch.manual_seed(0)
    space, model = SPACES[name], PatchDenoiser(SPACES[name])
    torch.nn.init.normal_(model.head[1].weight)
    x, t = torch.randn(1, *space.size), torch.tensor([0.5])
    zero, one = torch.tensor([0]), torch.tensor([1])
    first = model(x, t, zero, zero)
    assert first.shape == x.shape
    others = (model(x, t / 2, zero, zero), model(x, t, one, zero), model(x, t, zero, one))
    assert all((first - other).abs().max() > 1e-3 for other in others)


def test_training_a_denoiser_repeats_exactly(monkeypatch):
    monkeypatch.setattr(latents, "BATCH", 4)
    runs = [train_denoiser(SPACES["latents"], FEW, 3, seed=1) for _ in range(2)]
    assert runs[0][1] == runs[1][1]
    made = [generate(model, FEW.colours[:2], FEW.shapes[:2]) for model, _ in runs]
    assert torch.equal(*made) and made[0].shape == (2, 3, 32, 32)


def test_a_description_is_what_its_parts_say():
    model, _ = train_autoencoder(0.01, 2, 4, config=CHAPTER_AUTOENCODER, images=FEW.images)
    found = describe(model, FEW.images)
    assert found["rate"] == pytest.approx(model.posterior(FEW.images).kl().mean().item())
    assert found["psnr"] == found["disturbed"][0] > found["disturbed"][-1]
    assert found["std"] == pytest.approx(1 / model.scale.item(), rel=1e-3)
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
        model.encoder[-1].bias.zero_()  # a standard normal, whatever the picture
    assert describe(model, FEW.images)["active"] == 0
    assert describe(model, FEW.images)["rate"] == 0


def test_digits_from_noise_are_counted_by_how_evenly_they_come(monkeypatch):
    monkeypatch.setattr(latents, "PLANE_RUN", {"steps": 2, "lr": 1e-3})
    model, (pictures, labels) = train_plane(0.1), digits("train")
    shown = torch.stack([pictures[labels == digit][0] for digit in (0, 1, 4, 6)])
    model.decoder = torch.nn.Module()
    for count in (1, 2, 4):
        model.decoder.forward = lambda z, n=count: shown[torch.arange(len(z)) % n]
        assert digits_from_noise(model, 400) == pytest.approx(count, rel=1e-4)


def test_a_short_recording_has_every_part(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "PLANE_RUN", {"steps": 1, "lr": 1e-3})
    monkeypatch.setattr(latents, "AUTOENCODER_RUN", latents.AUTOENCODER_RUN | {"steps": 2})
    monkeypatch.setattr(latents, "BETAS", (0.0, latents.CHAPTER_BETA))
    monkeypatch.setattr(latents, "LENGTHS", {"latents": (1,)})
    monkeypatch.setattr(latents, "KNOWN", 80)
    monkeypatch.setattr("sora_edu.train.pictures.TRAINING_PICTURES", 80)
    path = tmp_path / "curves.json"
    record(path, seeds=1)
    kept, shipped = json.loads(path.read_text()), _shipped()
    assert kept.keys() == shipped.keys()
    assert all(kept[part].keys() == shipped[part].keys() for part in kept)
    before = path.read_text()
    record(path, ["plane"], seeds=1)
    assert json.loads(path.read_text()).keys() == json.loads(before).keys()


def test_the_shipped_rates_bear_out_what_the_chapter_says():
    kept = _shipped()["rate"]
    runs = {float(beta): group for beta, group in kept["runs"].items()}
    rate = {beta: np.mean([run["rate"] for run in group]) for beta, group in runs.items() if beta}
    psnr = {beta: np.mean([run["psnr"] for run in group]) for beta, group in runs.items()}
    assert 0.4 < rate[0.01] / rate[0.001] < 0.6 and psnr[0.001] - psnr[0.01] < 0.2
    assert 0.2 < rate[0.1] / rate[0.01] < 0.3 and 0.8 < psnr[0.01] - psnr[0.1] < 1.5
    assert 24 < rate[1.0] < 60 and rate[10.0] < 10 and psnr[0.0] - psnr[0.001] < 0.2
    active = {beta: [run["active"] for run in group] for beta, group in runs.items() if beta}
    assert min(active[0.1]) == 1 and max(active[1.0]) < 0.7 and max(active[10.0]) < 0.5
    lost = {
        beta: np.mean([run["psnr"] - run["disturbed"][-1] for run in group]) for beta, group in runs.items()
    }
    assert lost[0.0] > 10 and lost[0.1] < 2.1
    assert all(a["disturbed"][-1] > b["disturbed"][-1] + 5 for a in runs[0.1] for b in runs[0.0])


def test_the_shipped_samples_bear_out_what_the_chapter_says():
    kept = _shipped()["diffusion"]["runs"]
    assert all(len(group) == 3 for lengths in kept.values() for group in lengths.values())
    worst = {
        (n, k): max(run["frechet"] for run in group) for n, runs in kept.items() for k, group in runs.items()
    }
    best = {
        (n, k): min(run["frechet"] for run in group) for n, runs in kept.items() for k, group in runs.items()
    }
    eight, four = "pixels, patches of 8", "pixels, patches of 4"
    assert worst["latents", "1200"] < best[eight, "3600"]  # three times the steps, and still behind
    assert worst["latents", "300"] < best[eight, "300"] / 5
    assert training_macs(SPACES[four], 1600) > 1.5 * training_macs(SPACES[eight], 3600)
    assert best[four, "1600"] > worst[eight, "3600"]
    assert worst["latents, 8 times too large", "1200"] < 1.05 * best["latents", "1200"]
    assert worst["latents, 8 times too small", "1200"] < 1.05 * worst["latents", "1200"]
    assert best["latents, 64 times too small", "1200"] > worst["latents", "1200"]
    read = {n: [run["read"] for run in runs["1200"]] for n, runs in kept.items() if n.startswith("latents")}
    assert max(read.pop("latents, 64 times too large")) < 0.2 and all(
        min(share) == 1 for share in read.values()
    )


def test_noise_decodes_to_more_kinds_of_digits_with_kl():
    kept = _shipped()["plane"]
    assert min(kept["with KL"]) > 8 > 6 > max(kept["plain"])


def _shipped() -> dict:
    return json.loads(data_path("curves", "06_latents.json").read_text())
