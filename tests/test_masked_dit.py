"""The masked diffusion transformer: two passes, nothing that leaks, counts, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sora_edu.dit import DiT, DiTConfig
from sora_edu.masked_dit import (
    MaskedDiT,
    MaskedDiTConfig,
    asymmetric_pass,
    block_macs,
    draw_mask,
    draw_ratio,
    encoder_input,
    hidden_count,
    mask_from_scores,
    masked_losses,
    masked_macs,
    side_interpolate,
    step_macs,
)
from sora_edu.positions import sinusoidal_2d_dit
from sora_edu.teach.exercise import build

# Height and width differ, so that no square can hide a swapped axis.
SMALL = MaskedDiTConfig(
    size=(4, 6), channels=3, patch=1, width=16, depth=5, decoder=1, heads=2, classes=7, learned_variance=False
)


@pytest.fixture
def inputs(generator):
    x = torch.randn(3, 3, 4, 6, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 3, 7])


def model(**changes) -> MaskedDiT:
    """A small model in float64, for evaluation, in which no weight is zero."""
    return build(MaskedDiT, replace(SMALL, **changes)).double()


# --- masks -----------------------------------------------------------------------------------------------


def test_every_sample_hides_the_same_number_and_other_places(generator):
    mask = draw_mask(50, 24, 0.4, generator)
    assert mask.sum(1).tolist() == [10] * 50  # round(9.6)
    assert len({tuple(row) for row in mask.tolist()}) == 50
    assert 0.3 < mask.float().mean(0).min() + 0.1 < mask.float().mean(0).max() + 0.2 < 0.9


def test_masks_hide_the_largest_scores(generator):
    scores = torch.rand(4, 9, generator=generator)
    mask = mask_from_scores(scores, 0.33)
    for row, hides in zip(scores, mask, strict=True):
        assert hides.sum() == 3
        assert row[hides].min() > row[~hides].max()


def test_ratios_fill_the_range_and_repeat(generator):
    ratios = [draw_ratio((0.3, 0.5), generator) for _ in range(400)]
    assert 0.3 <= min(ratios) < 0.31 and 0.49 < max(ratios) <= 0.5
    assert draw_ratio((0.3, 0.5), torch.Generator().manual_seed(0)) == ratios[0]


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5])
def test_impossible_ratios_are_explained(ratio):
    with pytest.raises(ValueError, match=f"ratio={ratio}: must be at least 0 and below 1"):
        hidden_count(10, ratio)


def test_a_mask_that_hides_everything_is_explained():
    with pytest.raises(ValueError, match=r"ratio=0\.9 hides all of 4 tokens"):
        draw_mask(2, 4, 0.9)


def test_masks_that_do_not_fit_are_explained():
    tokens, places = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    uneven = torch.tensor([[True, False, False], [True, True, False]])
    with pytest.raises(
        ValueError, match=r"mask keeps \[2, 1\] tokens of the samples; each must keep equally"
    ):
        encoder_input(tokens, places, uneven)
    with pytest.raises(ValueError, match="at least one"):
        encoder_input(tokens, places, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 4\); for these tokens it must be \(2, 3\)"):
        encoder_input(tokens, places, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask keeps \[2, 2\].*: 1, the tokens that are there"):
        even = torch.tensor([[True, False, False]] * 2)
        side_interpolate(tokens[:, :1], even, torch.zeros(4), places, lambda q: q)


# --- nothing leaks ---------------------------------------------------------------------------------------


def test_what_is_hidden_cannot_change_the_masked_pass(inputs, generator):
    mdt, (x, t, y) = model(), inputs
    mask = draw_mask(3, 24, 0.4, generator)
    expected = mdt(x, t, y, mask=mask)
    cells = mask.view(3, 1, 4, 6)
    other = torch.where(cells, 100 * torch.randn(x.shape, generator=generator).double(), x)
    torch.testing.assert_close(mdt(other, t, y, mask=mask), expected, rtol=0, atol=0)
    assert (mdt(other, t, y) - mdt(x, t, y)).abs().max() > 1  # without a mask it does


def test_no_gradient_reaches_what_is_hidden(inputs, generator):
    mdt, (x, t, y) = model(), inputs
    mask = draw_mask(3, 24, 0.4, generator)
    x = x.requires_grad_()
    mdt(x, t, y, mask=mask).square().sum().backward()
    cells = mask.view(3, 1, 4, 6).expand_as(x)
    assert x.grad[cells].abs().max() == 0
    assert (x.grad[~cells] != 0).all()


def test_samples_do_not_meet(inputs, generator):
    mdt, (x, t, y) = model(), inputs
    mask = draw_mask(3, 24, 0.4, generator)
    together = mdt(x, t, y, mask=mask)
    for b in range(3):
        alone = mdt(x[b : b + 1], t[b : b + 1], y[b : b + 1], mask=mask[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone)


def test_training_reaches_every_weight(inputs, generator):
    mdt, (x, t, y) = model(skips=True), inputs
    mask = draw_mask(3, 24, 0.4, generator)
    (mdt(x, t, y).square().sum() + mdt(x, t, y, mask=mask).square().sum()).backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in mdt.parameters())


def test_the_side_interpolator_learns_from_the_masked_pass_alone(inputs):
    mdt, (x, t, y) = model(), inputs
    mdt(x, t, y).square().sum().backward()
    idle = {name for name, weight in mdt.named_parameters() if weight.grad is None}
    assert idle == {name for name in mdt.state_dict() if name.startswith("side.")} | {"mask_token"}


# --- the same as something known -------------------------------------------------------------------------


@pytest.mark.parametrize("skips", [False, True])
def test_with_nothing_hidden_the_masked_pass_is_the_full_pass(skips, inputs):
    mdt, (x, t, y) = model(skips=skips), inputs
    nothing = torch.zeros(3, 24, dtype=torch.bool)
    torch.testing.assert_close(mdt(x, t, y, mask=nothing), mdt(x, t, y), rtol=0, atol=0)


@pytest.mark.parametrize("conditioning", ["adaln", "adaln_zero"])
def test_without_masks_it_is_a_plain_dit(conditioning, inputs):
    """With the positions that a DiT has, and none in the decoder: the DiT of all its blocks."""
    mdt, (x, t, y) = model(conditioning=conditioning, patch=2, size=(4, 6)), inputs
    fields = {name: getattr(mdt.config, name) for name in DiTConfig.__dataclass_fields__}
    dit = DiT(DiTConfig(**fields)).double().eval()
    weights = mdt.state_dict()
    dit.load_state_dict({name: weights[name] for name in dit.state_dict()})
    with torch.no_grad():
        mdt.positions.copy_(sinusoidal_2d_dit(2, 3, 16))
        mdt.decoder_positions.zero_()
    torch.testing.assert_close(mdt(x, t, y), dit(x, t, y), rtol=0, atol=1e-12)


def test_the_decoders_positions_are_added_behind_the_encoder(inputs):
    """A DiT whose block 4 is preceded by an addition is what is left at inference."""
    mdt, (x, t, y) = model(), inputs
    expected = mdt(x, t, y)
    places = mdt.decoder_positions.detach().clone()
    mdt.decoder_positions.data.zero_()
    mdt.blocks[4].register_forward_pre_hook(lambda block, given: (given[0] + places, *given[1:]))
    torch.testing.assert_close(mdt(x, t, y), expected)


def test_a_fresh_model_answers_zero_and_starts_from_the_dits_positions(inputs):
    mdt, (x, t, y) = MaskedDiT(SMALL).double().eval(), inputs
    assert mdt(x, t, y, mask=draw_mask(3, 24, 0.4)).abs().max() == 0
    for table in (mdt.positions, mdt.decoder_positions):
        torch.testing.assert_close(
            table, sinusoidal_2d_dit(4, 6, 16).double(), check_dtype=False, atol=1e-6, rtol=0
        )
    assert mdt.positions is not mdt.decoder_positions


def test_mask_tokens_without_positions_are_all_filled_alike(inputs, generator):
    """The bug that the chapter puts in on purpose, and its symptom."""
    mdt, (x, t, y) = model(), inputs
    found = {}
    mdt.side[0].register_forward_hook(lambda block, given, out: found.update(out=out))
    mask = draw_mask(3, 24, 0.4, generator)
    mdt(x, t, y, mask=mask)
    assert (found["out"][0, mask[0]] - found["out"][0, mask[0]][:1]).abs().max() > 0.1
    mdt.decoder_positions.data.zero_()
    mdt(x, t, y, mask=mask)
    filled = found["out"][0, mask[0]]
    torch.testing.assert_close(filled, filled[:1].expand_as(filled))


def test_losses_add_up(generator):
    full, masked, target = torch.randn(3, 2, 10, 4, generator=generator, dtype=torch.float64)
    mask = draw_mask(2, 10, 0.3, generator)
    total, kept, hidden = masked_losses(full, masked, target, mask)
    torch.testing.assert_close(total, (full - target).square().mean() + 0.7 * kept + 0.3 * hidden)


def test_the_pass_works_with_any_parts(generator):
    patches, places, others = torch.randn(3, 1, 4, 2, generator=generator)
    found = asymmetric_pass(
        patches, None, places[0], others[0], lambda x: 2 * x, lambda kept, mask: kept, lambda x: x + 1
    )
    torch.testing.assert_close(found, 2 * (patches + places) + others + 1)


# --- counts ----------------------------------------------------------------------------------------------


def _counted(mdt, hidden):
    """Multiply-adds as torch counts them, from the operators that ran: half its flops."""
    b, n = 2, mdt.config.tokens
    mask = None if hidden is None else (torch.arange(n) < hidden).expand(b, n)
    x, t, y = torch.zeros(b, 3, 4, 6), torch.zeros(b), torch.zeros(b, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        mdt(x, t, y, mask=mask)
    return counter.get_total_flops() / 2 / b


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("hidden", [None, 0, 10])
def test_counted_operations_are_those_of_the_closed_form(skips, hidden):
    config = replace(SMALL, skips=skips)
    mdt = MaskedDiT(config).eval()
    assert _counted(mdt, hidden) == masked_macs(config, hidden)


def test_a_step_costs_more_than_a_plain_one_and_less_than_two_and_a_side():
    plain = 5 * block_macs(64, 32)
    for hidden in (0, 19, 32):
        cost = step_macs(64, hidden, 32, 4, 1)
        assert plain < cost <= 2 * plain + block_macs(64, 32)
    assert step_macs(64, 0, 32, 4, 1) == 2 * plain + block_macs(64, 32)
    difference = step_macs(64, 0, 32, 4, 1) - step_macs(64, 26, 32, 4, 1)
    config = MaskedDiTConfig(size=(8, 8), patch=1, width=32, depth=5, decoder=1, heads=4)
    assert difference == masked_macs(config, 0) - masked_macs(config, 26)


# --- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": 0}, "decoder=0: of depth=5 blocks"),
        ({"decoder": 5}, "decoder=5: of depth=5 blocks"),
        ({"side": 0}, "side=0: the side-interpolator needs at least 1 block"),
        ({"ratio": (0.5, 0.3)}, r"ratio=\(0.5, 0.3\): the first must not be above"),
        ({"ratio": (0.3, 1.0)}, "ratio=1.0: must be at least 0 and below 1"),
        ({"ratio": (-0.1, 0.3)}, "ratio=-0.1"),
        ({"skips": True, "decoder": 2}, "skips=True joins the encoder's halves, and it has 3 blocks"),
        ({"conditioning": "in_context"}, "conditioning='in_context'.*use one of: adaln, adaln_zero"),
        ({"size": (5, 6), "patch": 2}, r"size=\(5, 6\): not multiples of patch=2"),
    ],
)
def test_impossible_models_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_other_inputs_are_explained(inputs):
    mdt, (x, t, y) = model(), inputs
    with pytest.raises(
        ValueError, match=r"x has size \(6, 4\) \(h, w\); the tables of positions fit \(4, 6\)"
    ):
        mdt(x.transpose(2, 3), t, y)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 12\)"):
        mdt(x, t, y, mask=torch.zeros(3, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="hidden=24: must be at least 0 and below tokens=24"):
        masked_macs(SMALL, 24)
    with pytest.raises(ValueError, match="hidden=9: must be at least 0 and below tokens=9"):
        step_macs(9, 9, 4, 1, 1)
