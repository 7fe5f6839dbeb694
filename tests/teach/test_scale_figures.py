"""The figures of chapter 13: their words say what is drawn."""

import re

import pytest
import torch

from sora_edu.scale import VIDEO_SIZES, activation_bytes, clip_tokens, state_bytes
from sora_edu.teach import dit_figures
from sora_edu.teach import scale_figures as pictures
from sora_edu.train.conditioning import latents_to_text
from sora_edu.train.switches import PLAIN, Measured


@pytest.fixture
def drawn(monkeypatch) -> list[tuple]:
    """The figures shown and their alt texts."""
    shown: list[tuple] = []

    def note(fig, *, alt):
        fig.canvas.draw()
        pictures.plt.close(fig)
        shown.append((fig, alt))

    for module in (pictures, dit_figures):
        monkeypatch.setattr(module, "show", note)
    return shown


@pytest.fixture
def kept() -> dict:
    """Runs as a recipe might have written them: at every budget the middle width is best."""
    runs = {}
    for k in range(6):
        runs[str(2**k)] = {
            str(width): {
                "parameters": 100 * width**2,
                "loss": [0.4 + 2**-k + off - 0.01, 0.4 + 2**-k + off + 0.01],
                "on_the_way": [{str(2**j): 0.9 + 2**-j for j in range(k)}] * 2,
                "colour": [1.0, 0.5],
                "both": [k / 8, k / 8 + 0.25],
                "samples": latents_to_text(torch.zeros(8, 4, 8, 8)),
            }
            for width, off in ((16, 0.1), (24, 0.0), (32, 0.2))
        }
    return {"runs": runs, "real": {"both": 0.99}}


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", text)]


def test_marked_clips_have_their_tokens(drawn):
    pictures.compute_by_tokens()
    _, alt = drawn[-1]
    for name, clip in pictures.CLIPS.items():
        assert f"{name} {clip_tokens(*clip):,}" in alt


def test_bars_of_states_are_what_is_held(drawn):
    pictures.states_by_stage(2_000_000_000, 64, 80e9)
    fig, alt = drawn[-1]
    tops = [bar.get_y() + bar.get_height() for bar in fig.axes[0].containers[-1]]
    assert tops == pytest.approx([state_bytes(2e9, 64, stage) / 1e9 for stage in range(4)])
    assert [f"stage {k}: {top:.1f} GB" in alt for k, top in enumerate(tops)] == [True] * 4


def test_bars_of_activations_are_what_is_kept(drawn):
    config, clip = VIDEO_SIZES["full"], pictures.CLIPS["2 s of 480p"]
    pictures.activations_three_ways(config, {"a clip": clip}, 80e9)
    fig, _ = drawn[-1]
    heights = [bars[0].get_height() for bars in fig.axes[0].containers]
    n = clip_tokens(*clip)
    expected = [{"fused": False}, {}, {"checkpointing": True}]
    assert heights == pytest.approx([activation_bytes(config, n, **choice) / 1e9 for choice in expected])


def test_switches_are_compared_with_the_plain_step(drawn):
    pictures.switches_compared({
        PLAIN: Measured((1.0, 2.0), 2_000_000, 0.0),
        "bf16": Measured((2.0, 2.0), 1_000_000, 0.01),
        "compile": Measured((), 0, 0.0, "no compiler"),
    })  # fmt: skip
    fig, alt = drawn[-1]
    assert "bf16 0.75 (0.50 to 1.00), 1.0 MB" in alt and "compile" not in alt
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == [PLAIN, "bf16"]


def test_three_budgets_are_shown_with_their_best_networks(drawn, kept):
    pictures.base_4x_32x(kept)
    fig, alt = drawn[-1]
    assert [ax.get_ylabel() for ax in fig.axes[::8]] == ["base", "4x", "32x", "real"]
    assert "1x 12%, 4x 38%, 32x 75%" in alt


def test_the_star_of_each_budget_stands_at_the_smallest_mean(drawn, kept):
    pictures.isoflop(kept)
    fig, alt = drawn[-1]
    stars = [line.get_xydata()[0] for line in fig.axes[0].lines if line.get_marker() == "*"]
    assert [star[0] for star in stars] == [57600] * 6
    assert [star[1] for star in stars] == pytest.approx([0.4 + 2**-k for k in range(6)])
    assert alt.count("best with 57,600 weights") == 6


def test_the_curve_says_points_and_both_fits_and_shows_yours(drawn, kept):
    pictures.scaling_curve(kept, {1: 1.3, 4: 0.7})
    fig, alt = drawn[-1]
    assert "1x 1.400, 2x 0.900" in alt and "0.40 + 1.00 C^-1.00" in alt
    yours = [tuple(line.get_xydata()[0]) for line in fig.axes[0].lines if line.get_marker() == "X"]
    assert yours == [(1.0, 1.3), (4.0, 0.7)]
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()].count("yours") == 1


def test_a_long_run_is_read_beside_the_ends_of_short_ones(drawn, kept):
    pictures.read_on_the_way(kept, 24)
    _, alt = drawn[-1]
    assert "1x: 1.900 on the way, 1.400 at an end" in alt
    assert "32x: 0.431 on the way, 0.431 at an end" in alt
    assert len(numbers(alt)) == 1 + 3 * 6
