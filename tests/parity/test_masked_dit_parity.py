"""The masked diffusion transformer against a naive loop: one sample, one token at a time."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sora_edu.dit import time_embedding
from sora_edu.masked_dit import MaskedDiT, MaskedDiTConfig, draw_mask
from sora_edu.teach.exercise import build

CONFIG = MaskedDiTConfig(
    size=(4, 6), channels=3, patch=2, width=16, depth=4, decoder=2, heads=2, side=2, classes=5,
    learned_variance=False,
)  # fmt: skip


def _linear(layer, vector):
    return layer.weight @ vector + layer.bias


def _normal(vector, shift, scale):
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt() * (1 + scale) + shift


def _block(block, tokens, condition):
    """adaLN-Zero on a list of vectors, attention head by head and pair by pair."""
    d, heads = len(condition), block.attention.heads
    parts = _linear(block.modulation.linear, F.silu(condition)).split(d)
    shift1, scale1, gate1, shift2, scale2, gate2 = parts
    qkv = [_linear(block.attention.qkv, _normal(z, shift1, scale1)).split(d) for z in tokens]
    out = []
    for i, z in enumerate(tokens):
        answers = []
        for head in range(heads):
            part = slice(head * d // heads, (head + 1) * d // heads)
            scores = torch.stack([qkv[i][0][part] @ other[1][part] for other in qkv]) / (d / heads) ** 0.5
            weights = scores.exp() / scores.exp().sum()
            answers.append(sum(w * other[2][part] for w, other in zip(weights, qkv, strict=True)))
        out.append(z + gate1 * _linear(block.attention.out, torch.cat(answers)))
    first, last = block.mlp[0], block.mlp[-1]
    return [
        z + gate2 * _linear(last, F.gelu(_linear(first, _normal(z, shift2, scale2)), approximate="tanh"))
        for z in out
    ]


def _naive(mdt: MaskedDiT, x, t, y, mask):
    """One sample: x "c h w", t and y numbers, mask a list of truth values or None."""
    c, p = mdt.config, mdt.config.patch
    rows, columns = c.grid
    condition = mdt.time_embed(time_embedding(t).double()) + mdt.label_embed.weight[y]
    patches = []
    for row in range(rows):
        for column in range(columns):
            cells = [x[:, row * p + i, column * p + j] for i in range(p) for j in range(p)]
            patches.append(_linear(mdt.patch_embed, torch.cat(cells)))
    hides = [False] * len(patches) if mask is None else mask
    tokens = [patches[i] + mdt.positions[i] for i in range(len(patches)) if not hides[i]]
    halves, left = len(mdt.joins), []
    for number in range(c.encoder):
        if halves and number >= halves:
            tokens = [
                _linear(mdt.joins[number - halves], torch.cat([z, s]))
                for z, s in zip(tokens, left.pop(), strict=True)
            ]
        tokens = _block(mdt.blocks[number], tokens, condition)
        if number < halves:
            left.append(tokens)
    remaining = iter(tokens)
    q = [
        (mdt.mask_token if hides[i] else next(remaining)) + mdt.decoder_positions[i]
        for i in range(len(patches))
    ]
    guess = q
    for block in mdt.side if mask is not None else ():
        guess = _block(block, guess, condition)
    tokens = [guess[i] if hides[i] else q[i] for i in range(len(patches))]
    for number in range(c.encoder, c.depth):
        tokens = _block(mdt.blocks[number], tokens, condition)
    shift, scale = _linear(mdt.final_modulation.linear, F.silu(condition)).split(c.width)
    out = torch.empty(c.channels, *c.size, dtype=x.dtype)
    for i, z in enumerate(tokens):
        cells = _linear(mdt.final, _normal(z, shift, scale)).view(p, p, c.channels)
        top, side = i // columns * p, i % columns * p
        out[:, top : top + p, side : side + p] = cells.permute(2, 0, 1)
    return out


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_both_passes_are_those_of_a_loop_over_samples_and_tokens(skips, masked, generator):
    mdt = build(MaskedDiT, replace(CONFIG, skips=skips)).double()
    x = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    t, y = torch.tensor([0.2, 0.7]), torch.tensor([4, 1])
    mask = draw_mask(2, 6, 0.4, generator) if masked else None
    found = mdt(x, t, y, mask=mask)
    for b in range(2):
        expected = _naive(mdt, x[b], t[b], int(y[b]), None if mask is None else mask[b].tolist())
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-10)
