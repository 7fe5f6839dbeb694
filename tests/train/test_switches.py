"""The switches of a training step change its price and not its answer."""

import pytest
import torch

from sora_edu.train import switches
from sora_edu.train.switches import PLAIN, SWITCHES, Measured, as_rows, measure
from sora_edu.video_dit import VideoDiTConfig

TINY = VideoDiTConfig(width=32, depth=3, heads=2, text_width=8, condition_width=16)
LATENT = (3, 12, 12)
NATIVE = tuple(name for name in SWITCHES if name != "compile")  # compiling takes half a minute


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    return measure(2, TINY, LATENT, names=NATIVE)


def test_gradients_stay_what_they_are(measured):
    assert tuple(measured) == (PLAIN, *NATIVE)
    assert measured[PLAIN].difference == 0
    assert measured["fused attention"].difference < 1e-5
    assert measured["checkpointing"].difference < 1e-5
    assert 1e-5 < measured["bf16"].difference < 0.05


def test_less_is_kept(measured):
    kept = {name: result.kept for name, result in measured.items()}
    assert kept["checkpointing"] < kept["fused attention"] < kept[PLAIN]
    tokens = 3 * 6 * 6
    saved = kept[PLAIN] - kept["fused attention"]
    assert saved > 0.9 * 4 * TINY.depth * TINY.heads * tokens**2 - 4 * TINY.depth * 3 * tokens * TINY.width


def test_rounds_are_compared_one_by_one(measured):
    assert all(len(result.seconds) == 2 for result in measured.values())
    slow, quick = Measured((2.0, 6.0, 3.0), 1, 0.0), Measured((1.0, 2.0, 3.0), 1, 0.0)
    assert quick.times_as_fast(slow) == (1.0, 2.0, 3.0)
    assert slow.times_as_fast(slow) == (1.0, 1.0, 1.0)


def test_the_models_weights_are_the_same_and_the_generator_is_left_alone():
    state = torch.get_rng_state()
    one, two = (measure(1, TINY, LATENT, names=("checkpointing",)) for _ in range(2))
    assert one["checkpointing"].kept == two["checkpointing"].kept
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_compiler_the_rest_goes_on(monkeypatch):
    def broken(self, *args, **kwargs):
        self.forward = lambda *args: (_ for _ in ()).throw(
            RuntimeError("No working C++ compiler found\nin x")
        )

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    result = measure(1, TINY, LATENT, names=("compile", "checkpointing"))
    assert result["compile"].failed == "RuntimeError: No working C++ compiler found"
    assert not result["checkpointing"].failed
    rows = {row[0]: row for row in as_rows(result)}
    assert rows["compile"][1] == "not on this machine" and "compiler" in rows["compile"][-1]
    assert all(len(row) == len(switches.HEADER) for row in rows.values())


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="rounds=0"):
        measure(0)
    with pytest.raises(ValueError, match="name='turbo' is unknown; use one of: plain, fused attention"):
        measure(1, TINY, LATENT, names=("turbo",))
