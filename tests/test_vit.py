"""The vision transformer: its laws (shuffles, sizes, counts), and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sora_edu.patches import convolution_weight, shuffle_patches
from sora_edu.positions import sinusoidal_2d
from sora_edu.teach.exercise import build
from sora_edu.vit import (
    VIT_B_16,
    VIT_H_14,
    VIT_L_16,
    CNNWithAttention,
    ViT,
    ViTConfig,
    attention_rollout,
    embed,
    resize_positions,
    vit_parameters,
)

SMALL = ViTConfig(image=(4, 6), patch=2, channels=3, classes=5, width=8, depth=2, heads=2, hidden=12)


def pictures(generator, config=SMALL, count=3):
    return torch.randn(count, config.channels, *config.image, generator=generator, dtype=torch.float64)


def model(**changes) -> ViT:
    """A small model in float64 in which no weight is zero."""
    return build(ViT, replace(SMALL, **changes)).double()


# --- sizes -----------------------------------------------------------------------------------------------


# In millions, to two places: facts sheet of the course, and Dosovitskiy et al. 2021, table 1 (86, 307, 632).
@pytest.mark.parametrize(
    ("config", "millions"), [(VIT_B_16, 86.57), (VIT_L_16, 304.33), (VIT_H_14, 632.05)]
)
def test_the_papers_models_have_the_papers_sizes(config, millions):
    with torch.device("meta"):
        built = sum(weight.numel() for weight in ViT(config).parameters())
    side, other = config.image
    assert side == other
    closed = vit_parameters(config.depth, config.width, config.hidden, config.patch, side)
    assert built == closed
    assert round(built / 1e6, 2) == millions


def test_the_closed_form_counts_small_models_too():
    for patch, channels, classes in ((1, 3, 2), (2, 1, 10), (4, 3, 7)):
        config = replace(SMALL, image=(8, 8), patch=patch, channels=channels, classes=classes)
        built = sum(weight.numel() for weight in ViT(config).parameters())
        assert vit_parameters(2, 8, 12, patch, 8, channels, classes) == built


def test_a_224_pixel_picture_has_196_patches_and_a_class_token():
    assert VIT_B_16.grid == (14, 14)
    assert VIT_B_16.tokens == 197
    assert replace(VIT_B_16, pool="mean").tokens == 196


# --- the sequence ----------------------------------------------------------------------------------------


def test_the_first_layer_is_a_strided_convolution(generator):
    vit, x = model(positions="none"), pictures(generator)
    kernel = convolution_weight(vit.patch_embed.weight, SMALL.channels, SMALL.patch)
    convolved = F.conv2d(x, kernel, vit.patch_embed.bias, stride=SMALL.patch)
    torch.testing.assert_close(vit.embedded(x)[:, 1:], convolved.flatten(2).transpose(1, 2))


def test_embedding_puts_the_class_token_first_and_gives_each_its_own_row():
    patches, token = torch.zeros(2, 3, 4), torch.full((4,), 100.0)
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    assert embed(patches, token, rows)[:, :, 0].tolist() == [[100.0, 1.0, 2.0, 3.0]] * 2


def test_sinusoidal_positions_are_the_codes_of_rows_and_columns(generator):
    x = pictures(generator)
    with_places, without = model(positions="sinusoidal"), model(positions="none")
    added = (with_places.embedded(x) - without.embedded(x))[0]
    torch.testing.assert_close(added[1:], sinusoidal_2d(2, 3, 8).double())
    assert added[0].abs().max() == 0


# --- the shuffle theorem ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_without_positions_logits_are_blind_to_the_order_and_tokens_move_along(pool, generator):
    vit, x = model(positions="none", pool=pool), pictures(generator)
    order = torch.randperm(6, generator=generator)
    moved = shuffle_patches(x, 2, order)
    assert not torch.equal(moved, x)
    torch.testing.assert_close(vit(moved), vit(x), rtol=0, atol=1e-12)
    first = int(pool == "class")
    torch.testing.assert_close(vit.encode(moved)[:, first:], vit.encode(x)[:, first:][:, order])


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_break_the_invariance(positions, generator):
    vit, x = model(positions=positions), pictures(generator)
    moved = shuffle_patches(x, 2, torch.arange(6).flip(0))
    assert (vit(moved) - vit(x)).abs().max() > 1e-3


def test_shuffling_patches_and_their_positions_alike_changes_nothing(generator):
    """Why a ViT has no notion of neighbours: any fixed order of patches is as good as any other."""
    vit, x, order = model(), pictures(generator), torch.randperm(6, generator=generator)
    expected = vit(x)
    with torch.no_grad():
        table = vit.positions.tables[0]
        table[1:] = table[1:][order].clone()
    torch.testing.assert_close(vit(shuffle_patches(x, 2, order)), expected)


# --- attention -------------------------------------------------------------------------------------------


def test_attention_maps_are_those_of_torchs_own_attention(generator):
    vit, x = model(), pictures(generator)
    maps, tokens = vit.attention_maps(x), vit.embedded(x)
    assert maps.shape == (2, 3, 2, 7, 7)
    for layer, block in enumerate(vit.blocks):
        oracle = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
        oracle.in_proj_weight.data, oracle.in_proj_bias.data = (
            block.attention.qkv.weight.data,
            block.attention.qkv.bias.data,
        )
        seen = block.norm1(tokens)
        _, weights = oracle(seen, seen, seen, average_attn_weights=False)
        torch.testing.assert_close(maps[layer], weights)
        tokens = block(tokens)


def test_rollout_multiplies_the_layers_from_the_last_to_the_first(generator):
    maps = torch.rand(3, 2, 4, 5, 5, generator=generator, dtype=torch.float64).softmax(-1)
    rolled = attention_rollout(maps).numpy()
    for b in range(2):
        layers = [0.5 * maps[k, b].numpy().mean(0) + 0.5 * np.eye(5) for k in range(3)]
        np.testing.assert_allclose(rolled[b], layers[2] @ layers[1] @ layers[0])
    np.testing.assert_allclose(rolled.sum(-1), 1)


def test_a_feature_map_is_read_as_words_are(generator):
    cnn = build(CNNWithAttention, 1, 10, 8)
    x = torch.randn(2, 1, 12, 20, generator=generator)
    assert cnn.cells(x).shape == (2, 3 * 5, 8)
    features = cnn.norm(cnn.convolutions(x).permute(0, 2, 3, 1))
    torch.testing.assert_close(cnn.cells(x)[:, 7], features[:, 1, 2])  # row 1, column 2 of 3 x 5
    torch.testing.assert_close(cnn.attended(x).sum(1), torch.ones(2))


# --- fine-tuning -----------------------------------------------------------------------------------------


def test_a_new_head_is_zero_and_leaves_the_body_alone(generator):
    vit, x = model(), pictures(generator)
    features = vit.features(x)
    vit.replace_head(7)
    assert torch.equal(vit.features(x), features)
    assert torch.equal(vit(x), torch.zeros(3, 7, dtype=torch.float64))
    assert vit.config.classes == 7


def _keys_cubic(distance, a=-0.75):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def _resized_by_hand(plane, height, width):
    """Cubic convolution (Keys 1981) at the centres of the new cells, edges repeated: a loop over cells."""
    old_h, old_w = plane.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            cy, cx = (y + 0.5) * old_h / height - 0.5, (x + 0.5) * old_w / width - 0.5
            for i in range(math.floor(cy) - 1, math.floor(cy) + 3):
                for j in range(math.floor(cx) - 1, math.floor(cx) + 3):
                    value = plane[min(max(i, 0), old_h - 1), min(max(j, 0), old_w - 1)]
                    out[y, x] += _keys_cubic(cy - i) * _keys_cubic(cx - j) * value
    return out


@pytest.mark.parametrize("special", [0, 1])
def test_positions_are_resized_as_a_picture(special, generator):
    table = torch.randn(special + 12, 3, generator=generator, dtype=torch.float64)
    new = resize_positions(table, (3, 4), (5, 6))
    assert torch.equal(new[:special], table[:special])
    for channel in range(3):
        plane = table[special:, channel].view(3, 4).numpy()
        expected = _resized_by_hand(plane, 5, 6)
        np.testing.assert_allclose(new[special:, channel].view(5, 6).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"pool": "mean"}, {"positions": "sinusoidal"}])
def test_a_model_for_other_pictures_keeps_its_weights(changes, generator):
    vit = model(**changes)
    other = vit.resized((8, 6))
    assert other.config.image == (8, 6)
    assert other(torch.randn(2, 3, 8, 6, generator=generator, dtype=torch.float64)).shape == (2, 5)
    mine, theirs = vit.state_dict(), other.state_dict()
    changed = {name for name in mine if not torch.equal(mine[name], theirs[name][: len(mine[name])])}
    assert changed == ({"positions.tables.0"} if vit.positions is not None else set())


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": (5, 6)}, r"image=\(5, 6\).*patch=2; \(4, 6\) would fit"),
        ({"image": (1, 6)}, r"image=\(1, 6\).*\(2, 6\) would fit"),
        ({"patch": 0}, "patch=0: must be at least 1"),
        ({"classes": 0}, "classes=0: must be at least 1"),
        ({"heads": 3}, "width=8 is not a multiple of heads=3"),
        ({"positions": "rope"}, "positions='rope' is unknown; use one of: learned, sinusoidal, none"),
        ({"pool": "max"}, "pool='max' is unknown; use one of: class, mean"),
        ({"width": 6, "positions": "sinusoidal"}, "width=6: sinusoids of two axes need a multiple of 4"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_an_impossible_model_is_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.parametrize("shape", [(1, 3, 6, 4), (1, 1, 4, 6)])
def test_other_pictures_are_explained(shape):
    with pytest.raises(ValueError, match=r"x has shape .*this model takes \(b, 3, 4, 6\)"):
        ViT(SMALL)(torch.zeros(shape))


def test_other_impossible_requests_are_explained():
    with pytest.raises(ValueError, match=r"table has 5 rows; the grid \(2, 3\) needs at least 6"):
        resize_positions(torch.zeros(5, 4), (2, 3), (4, 6))
    with pytest.raises(ValueError, match=r"size \(225, 225\).*\(224, 224\) would fit"):
        vit_parameters(12, 768, 3072, 16, 225)
    with pytest.raises(ValueError, match=r"image=\(7, 6\)"):
        ViT(SMALL).resized((7, 6))
