"""The training loop, on a toy model: stopping and going on, and what may go wrong on the way."""

import copy
import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sora_edu import files
from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.train.loop import (
    CHECKPOINT,
    CURVE,
    LoopConfig,
    Run,
    TrainingStopped,
    fixed_memory,
    learning_rate_factor,
    make_optimisers,
    step_generator,
    update_ema,
)

# Neither the points of the curve nor the checkpoints fall on step 7, where the tests stop.
TOY = LoopConfig(steps=20, lr=1e-2, warmup=3, ema=0.9, log_every=4, save_every=5)
WITH_MUON = replace(TOY, muon_lr=0.02, weight_decay=0.01)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setenv("SORA_EDU_DTYPE", "float32")


class Toy(nn.Module):
    """Ends and a hidden matrix, as the real models have them, and a buffer."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(torch.tanh(self.embed(x)))))


def start(folder: Path, config: LoopConfig = TOY) -> Run:
    torch.manual_seed(0)
    return Run(Toy(), config, folder)


def loss_of(run: Run, at_step=lambda step: None):
    """Regression on data from the step's generator; `at_step` is called first, with the step's number."""

    def loss_at(generator):
        at_step(run.step)
        run.model.count += 1
        x = torch.randn(8, 4, generator=generator)
        return (run.model(x) - x.sum(1, keepdim=True)).square().mean()

    return loss_at


def interrupt_at(step: int):
    """What Ctrl-C does: a SIGINT in the middle of a step."""
    return lambda now: os.kill(os.getpid(), signal.SIGINT) if now == step else None


def everything(run: Run) -> dict:
    """All that the next step depends on, and the curve without its clock."""
    return {
        "model": run.model.state_dict(),
        "average": run.average.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in run.optimisers],
        "step": run.step,
        "curve": [(step, loss) for step, _, loss in run.curve],
    }


def assert_bits_equal(one, other):
    """Equal to the last bit, all the way down."""
    torch.testing.assert_close(one, other, rtol=0, atol=0)


# ---- Stopping and going on -------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TOY, WITH_MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("step", [0, 4, 6])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, config, step):
    straight = start(tmp_path / "straight", config)
    straight.train(loss_of(straight))

    first = start(tmp_path / "stopped", config)
    with pytest.raises(TrainingStopped, match=f"stopped at step {step + 1}; .*{CHECKPOINT} holds everything"):
        first.train(loss_of(first, interrupt_at(step)))
    second = Run(Toy(), config, tmp_path / "stopped")
    assert second.resume() and second.step == step + 1
    second.train(loss_of(second))

    assert straight.step == 20 and [row[0] for row in straight.curve] == [4, 8, 12, 16, 20]
    assert_bits_equal(everything(second), everything(straight))


def test_what_is_saved_is_the_state_after_the_step(tmp_path):
    run = start(tmp_path)
    with pytest.raises(TrainingStopped):
        run.train(loss_of(run, interrupt_at(6)))
    loaded = Run(Toy(), TOY, tmp_path)
    loaded.resume()
    assert_bits_equal(everything(loaded), everything(run))
    assert loaded.seconds == run.seconds > 0


def test_a_finished_run_is_not_trained_again(tmp_path):
    run = start(tmp_path)
    average = run.train(loss_of(run))
    again = Run(Toy(), TOY, tmp_path)
    assert again.resume()
    result = again.train(lambda generator: pytest.fail("no step is left"))
    assert_bits_equal(result.state_dict(), average.state_dict())


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    run = start(tmp_path / "a" / "new" / "folder")
    before = copy.deepcopy(everything(run))
    assert not run.resume()
    assert_bits_equal(everything(run), before)


def test_ctrl_c_from_outside_leaves_a_checkpoint(tmp_path):
    """A process of its own, as on the command line, and a signal from outside."""
    script = (
        "import sys, time, torch\n"
        "from torch import nn\n"
        "from sora_edu.train.loop import LoopConfig, Run, TrainingStopped\n"
        "run = Run(nn.Linear(4, 1), LoopConfig(steps=10**6, save_every=10**6), sys.argv[1])\n"
        "def loss_at(generator):\n"
        "    print('step', run.step, flush=True)\n"
        "    time.sleep(0.02)\n"
        "    return run.model(torch.randn(8, 4, generator=generator)).square().mean()\n"
        "try: run.train(loss_at)\n"
        "except TrainingStopped as stop: print(stop); sys.exit(130)\n"
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    while process.stdout.readline() != "step 2\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    stopped = int(out.rsplit("stopped at step ")[1].split(";")[0])
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == stopped >= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, CURVE]


def test_outside_of_training_ctrl_c_is_what_it_was(tmp_path):
    before, run = signal.getsignal(signal.SIGINT), start(tmp_path)
    run.train(loss_of(run))
    assert signal.getsignal(signal.SIGINT) is before
    other = start(tmp_path / "other")
    with pytest.raises(TrainingStopped):
        other.train(loss_of(other, interrupt_at(1)))
    assert signal.getsignal(signal.SIGINT) is before
    assert issubclass(TrainingStopped, KeyboardInterrupt)


# ---- Data and noise --------------------------------------------------------------------------------------


def test_every_step_has_its_own_data_whatever_came_before(tmp_path):
    draws = [torch.randn(3, generator=step_generator(seed, step)) for seed in (0, 1) for step in range(5)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 10
    seen, run = {}, start(tmp_path)

    def loss_at(generator):
        seen[run.step] = torch.randn(3, generator=generator)
        return run.model(torch.ones(1, 4)).sum()

    run.train(loss_at)
    for step, draw in seen.items():
        assert torch.equal(draw, torch.randn(3, generator=step_generator(TOY.seed, step)))


def test_the_global_generator_is_left_alone(tmp_path):
    run = start(tmp_path)
    before = torch.get_rng_state()
    run.train(loss_of(run))
    assert torch.equal(torch.get_rng_state(), before)


# ---- Learning rate, optimisers, clipping -----------------------------------------------------------------


@pytest.mark.parametrize(("steps", "warmup", "decay_from"), [(100, 10, 0.5), (40, 1, 0.0), (30, 0, 0.9)])
def test_the_learning_rate_is_straight_between_its_corners(steps, warmup, decay_from):
    config = LoopConfig(steps=steps, warmup=warmup, decay_from=decay_from)
    mine = [learning_rate_factor(step, config) for step in range(steps + 1)]
    up = np.interp(np.arange(steps + 1), [-1, max(0, warmup - 1)], [0, 1])
    down = np.interp(np.arange(steps + 1), [decay_from * steps, steps], [1, 0])
    np.testing.assert_allclose(mine, up * down, atol=1e-12)
    assert min(mine[:steps]) > 0 and mine[steps] == 0 and max(mine) == 1


def test_every_optimiser_follows_the_learning_rate(tmp_path):
    rates, run = [], start(tmp_path, WITH_MUON)
    step = run.optimisers[0].step

    def spy():
        rates.append([group["lr"] for optimiser in run.optimisers for group in optimiser.param_groups])
        step()

    run.optimisers[0].step = spy
    run.train(loss_of(run))
    wanted = [[peak * learning_rate_factor(k, WITH_MUON) for peak in (1e-2, 0.02)] for k in range(20)]
    np.testing.assert_allclose(rates, wanted)


def test_every_parameter_has_one_optimiser():
    torch.manual_seed(0)
    model = Toy()
    adamw, muon = make_optimisers(model, WITH_MUON)
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    (ends,), (inside,) = adamw.param_groups, muon.param_groups
    assert [id(p) for p in inside["params"]] == [id(model.hidden.weight)]
    rest = {id(p) for p in model.parameters()} - {id(model.hidden.weight)}
    assert {id(p) for p in ends["params"]} == rest and len(ends["params"]) == len(rest)
    assert (ends["lr"], inside["lr"]) == (1e-2, 0.02)
    assert ends["weight_decay"] == inside["weight_decay"] == 0.01


def test_without_muon_and_for_what_is_frozen():
    model = Toy()
    model.embed.requires_grad_(False)
    (adamw,) = make_optimisers(model, TOY)
    assert {id(p) for p in adamw.param_groups[0]["params"]} == {
        id(p) for part in (model.hidden, model.head) for p in part.parameters()
    }


def test_of_the_autoencoder_muon_takes_the_convolutions_inside():
    with torch.device("meta"):
        model = CausalVideoAutoencoder()
    muon = {id(p) for p in make_optimisers(model, WITH_MUON)[1].param_groups[0]["params"]}
    for name, p in model.named_parameters():
        inside = p.ndim == 2 and "stem" not in name and "head" not in name
        assert (id(p) in muon) == inside, name


def test_a_run_is_the_plain_loop_of_torch(tmp_path):
    """Written out with torch's own AdamW and scheduler, every step with the gradients of its batch alone."""
    run = start(tmp_path)
    plain = copy.deepcopy(run.model)
    optimiser = torch.optim.AdamW(plain.parameters(), 1e-2, (0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, TOY))
    run.train(loss_of(run))
    for step in range(20):
        x = torch.randn(8, 4, generator=step_generator(0, step))
        optimiser.zero_grad()
        (plain(x) - x.sum(1, keepdim=True)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    torch.testing.assert_close(dict(run.model.named_parameters()), dict(plain.named_parameters()))


def test_gradients_are_clipped(tmp_path):
    """AdamW's first moment after one step is a tenth of the gradient that it got."""
    for clip in (1e-3, 1e6):
        run = start(tmp_path / str(clip), replace(TOY, steps=1, clip=clip))
        run.train(loss_of(run))
        moments = [state["exp_avg"] for state in run.optimisers[0].state.values()]
        norm = torch.cat([10 * m.flatten() for m in moments]).norm().item()
        assert norm == pytest.approx(1e-3, rel=1e-3) if clip == 1e-3 else 0.1 < norm < 100


# ---- The average -----------------------------------------------------------------------------------------


def test_the_average_starts_as_a_copy(tmp_path):
    run = start(tmp_path)
    assert_bits_equal(run.average.state_dict(), run.model.state_dict())
    shared = {p.data_ptr() for p in run.model.parameters()} & {p.data_ptr() for p in run.average.parameters()}
    assert not shared and not any(p.requires_grad for p in run.average.parameters())


def test_the_average_follows_its_formula(tmp_path):
    """a <- d a + (1 - d) w after every step, with d = min(0.9, (1 + k) / (10 + k)) for the k-th."""
    run, weights = start(tmp_path), []
    wanted = run.model.hidden.weight.detach().numpy().astype(np.float64)
    run.train(loss_of(run, lambda _: weights.append(run.model.hidden.weight.detach().numpy().copy())))
    weights.append(run.model.hidden.weight.detach().numpy())
    for k, after in enumerate(weights[1:], start=1):
        decay = min(0.9, (1 + k) / (10 + k))
        wanted = decay * wanted + (1 - decay) * after
    np.testing.assert_allclose(run.average.hidden.weight.numpy(), wanted, rtol=1e-4, atol=1e-6)
    assert not np.allclose(run.average.hidden.weight.numpy(), weights[-1])


def test_the_average_is_what_training_returns_with_the_buffers_of_the_model(tmp_path):
    run = start(tmp_path)
    average = run.train(loss_of(run))
    assert average is run.average and average.count == run.model.count == 20


def test_late_in_a_run_the_decay_is_the_one_asked_for():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    wanted = 0.999 * one.weight.double() + 0.001 * other.weight.double()
    update_ema(one, other, step=10**6, decay=0.999)
    torch.testing.assert_close(one.weight.double(), wanted)


# ---- Memory ----------------------------------------------------------------------------------------------


def test_the_memory_that_is_told_is_what_there_is(tmp_path, capsys):
    """Counted after a step: weights and average, a gradient as large as the weights, two moments of AdamW."""
    run = start(tmp_path, replace(TOY, steps=1))
    run.train(loss_of(run), title="toy")
    weights, average = list(run.model.parameters()), list(run.average.parameters())
    states = run.optimisers[0].state.values()
    moments = [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
    held = [*weights, *average, *weights, *moments]
    assert fixed_memory(run.model) == sum(t.numel() * t.element_size() for t in held)
    assert "toy: weights, average, gradients and optimiser take 0 MB" in capsys.readouterr().out
    run.model.embed.requires_grad_(False)  # what is frozen has no gradient and no moments
    frozen = sum(p.numel() for p in run.model.embed.parameters())
    assert fixed_memory(run.model) == sum(t.numel() * t.element_size() for t in held) - 3 * 4 * frozen


# ---- What may go wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, value):
    run = start(tmp_path)
    honest = loss_of(run)
    with pytest.raises(FloatingPointError, match=f"the loss is {value} at step 7; .* is good"):
        run.train(lambda generator: honest(generator) * (value if run.step == 7 else 1))
    assert_the_checkpoint_is_good(tmp_path)


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path):
    """The loss is finite, as sqrt(0) is; its gradient is not, and one step would spoil every weight."""
    run = start(tmp_path)
    honest = loss_of(run)

    def loss_at(generator):
        bad = (run.model.head.bias * 0).sum().sqrt() if run.step == 7 else 0
        return honest(generator) + bad

    with pytest.raises(FloatingPointError, match=r"the gradient's norm is nan at step 7; .* is good"):
        run.train(loss_at)
    assert_the_checkpoint_is_good(tmp_path)


def assert_the_checkpoint_is_good(folder):
    """The one of step 5, from which a run can go on."""
    again = Run(Toy(), TOY, folder)
    assert again.resume() and again.step == 5
    again.train(loss_of(again))
    assert all(p.isfinite().all() for p in again.average.parameters())


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run = start(tmp_path, replace(TOY, steps=2))
    run.train(loss_of(run))
    before = (tmp_path / CHECKPOINT).read_bytes()
    changed = r"\(lr: 0.01 there, 0.5 here; seed: 0 there, 3 here\)"
    with pytest.raises(ValueError, match=f"other settings {changed}; .*new folder with --out"):
        start(tmp_path, replace(TOY, steps=2, lr=0.5, seed=3)).resume()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run = start(tmp_path)
    run.save()
    with pytest.raises(ValueError, match=r"(?s)is of another model: .*hidden\.weight.*new folder"):
        Run(nn.Linear(4, 1), TOY, tmp_path).resume()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_damaged_checkpoint_is_explained(tmp_path, damage):
    start(tmp_path).save()
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    flipped = bytes(255 - byte for byte in content[:200]) + content[200:]
    damaged = {"cut": content[:-300], "empty": b"", "text": b"hello " * 50, "flipped": flipped}[damage]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"is damaged .*delete it to start afresh"):
        start(tmp_path).resume()


@pytest.mark.parametrize("other", [{"weights": torch.ones(2)}, torch.ones(2)], ids=["dictionary", "tensor"])
def test_a_file_of_something_else_is_explained(tmp_path, other):
    torch.save(other, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=r"is of something else \(no config, .*delete it to start afresh"):
        start(tmp_path).resume()


def test_a_run_goes_on_in_its_own_number_format(tmp_path, monkeypatch):
    """Bit for bit, even if a probe of the machine would now choose another one."""
    run = start(tmp_path, WITH_MUON)
    run.save()
    monkeypatch.setenv("SORA_EDU_DTYPE", "bfloat16")
    fresh, again = start(tmp_path / "other", WITH_MUON), start(tmp_path, WITH_MUON)
    again.resume()
    formats = []
    for one in (fresh, again):
        told = loss_of(one, lambda _, one=one: formats.append(one.model.hidden(torch.ones(16)).dtype))
        one.train(told)
    assert formats == [torch.bfloat16] * 20 + [torch.float32] * 20


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return print, ("caught",)

    torch.save(Trap(), tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="is damaged"):
        start(tmp_path).resume()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    """The disk fills up between two checkpoints: a clear error, the old one intact, nothing half-written."""
    run = start(tmp_path)
    with pytest.raises(TrainingStopped):
        run.train(loss_of(run, interrupt_at(6)))
    kept = (tmp_path / CHECKPOINT).read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.WriteError, match="the disk is full"):
        run.train(loss_of(run))
    assert (tmp_path / CHECKPOINT).read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, CURVE]


def test_a_file_that_may_not_grow_is_explained(tmp_path):
    """A real limit of the system, hit in the middle of the file, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    run = start(tmp_path)
    run.save()
    kept, limits = (tmp_path / CHECKPOINT).read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limits[1]))
    try:
        with pytest.raises(files.WriteError, match="the file is larger than is allowed here"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / CHECKPOINT).read_bytes() == kept


# ---- The curve -------------------------------------------------------------------------------------------


def test_the_curve_holds_the_mean_loss_since_its_last_point(tmp_path):
    run, losses = start(tmp_path, replace(TOY, steps=10)), []
    honest = loss_of(run)

    def loss_at(generator):
        loss = honest(generator)
        losses.append(loss.item())
        return loss

    run.train(loss_at)
    wanted = [np.mean(losses[:4]), np.mean(losses[4:8]), np.mean(losses[8:])]
    np.testing.assert_allclose([loss for _, _, loss in run.curve], wanted)
    rows = (tmp_path / CURVE).read_text().splitlines()
    assert rows[0] == "step,seconds,loss"
    table = np.array([row.split(",") for row in rows[1:]], float)
    assert table[:, 0].tolist() == [4, 8, 10] and (np.diff(table[:, 1]) >= 0).all()
    np.testing.assert_allclose(table[:, 2], wanted, atol=1e-5)


def test_it_learns(tmp_path):
    run = start(tmp_path, replace(TOY, steps=150, lr=3e-2))
    run.train(loss_of(run))
    assert run.curve[-1][2] < 0.3 * run.curve[0][2]
