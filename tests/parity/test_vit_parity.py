"""The vision transformer against that of transformers: copied random weights, nothing downloaded."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import ViTConfig as TheirConfig
from transformers import ViTForImageClassification, ViTModel

from sora_edu.patches import convolution_weight
from sora_edu.teach.exercise import build
from sora_edu.vit import ViT, ViTConfig

OURS = ViTConfig(image=(12, 20), patch=4, channels=3, classes=7, width=24, depth=3, heads=4, hidden=40)
THEIRS = dict(
    image_size=OURS.image, patch_size=4, num_channels=3, hidden_size=24, num_hidden_layers=3,
    num_attention_heads=4, intermediate_size=40, layer_norm_eps=OURS.eps, num_labels=7,
)  # fmt: skip


def _put(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


@torch.no_grad()
def copied(ours: ViT, theirs: nn.Module) -> nn.Module:
    """Their model with our weights; every one of its parameters is written."""
    for weight in theirs.parameters():
        weight.fill_(torch.nan)
    body = getattr(theirs, "vit", theirs)
    body.embeddings.cls_token.copy_(ours.class_token[None, None])
    body.embeddings.position_embeddings.copy_(ours.positions.tables[0][None])
    kernel = convolution_weight(ours.patch_embed.weight, OURS.channels, OURS.patch)
    _put(body.embeddings.patch_embeddings.projection, kernel, ours.patch_embed.bias)
    for block, layer in zip(ours.blocks, body.layers, strict=True):
        parts = (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
        qkv = block.attention.qkv
        for part, weight, bias in zip(parts, qkv.weight.chunk(3), qkv.bias.chunk(3), strict=True):
            _put(part, weight, bias)
        _put(layer.attention.o_proj, block.attention.out.weight, block.attention.out.bias)
        _put(layer.layernorm_before, block.norm1.weight, block.norm1.bias)
        _put(layer.layernorm_after, block.norm2.weight, block.norm2.bias)
        _put(layer.mlp.fc1, block.mlp[0].weight, block.mlp[0].bias)
        _put(layer.mlp.fc2, block.mlp[2].weight, block.mlp[2].bias)
    _put(body.layernorm, ours.norm.weight, ours.norm.bias)
    if hasattr(theirs, "classifier"):
        _put(theirs.classifier, ours.head.weight, ours.head.bias)
    assert not any(weight.isnan().any() for weight in theirs.parameters())
    return theirs.eval()


@pytest.fixture
def ours() -> ViT:
    return build(ViT, OURS).double()


@pytest.fixture
def x(generator) -> torch.Tensor:
    return torch.randn(3, 3, *OURS.image, generator=generator, dtype=torch.float64)


def test_the_logits_are_those_of_transformers(ours, x):
    theirs = copied(ours, ViTForImageClassification(TheirConfig(**THEIRS)).double())
    torch.testing.assert_close(ours(x), theirs(x).logits, rtol=0, atol=1e-10)


def test_every_token_is_that_of_transformers(ours, x):
    theirs = copied(ours, ViTModel(TheirConfig(**THEIRS), add_pooling_layer=False).double())
    torch.testing.assert_close(ours.encode(x), theirs(x).last_hidden_state, rtol=0, atol=1e-10)


def test_every_attention_weight_is_that_of_transformers(ours, x):
    """To float32, in which their eager attention takes its softmax."""
    config = TheirConfig(**THEIRS, attn_implementation="eager")
    theirs = copied(ours, ViTModel(config, add_pooling_layer=False).double())
    attentions = theirs(x, output_attentions=True).attentions
    assert len(attentions) == OURS.depth
    torch.testing.assert_close(ours.attention_maps(x), torch.stack(attentions), rtol=0, atol=1e-6)


def test_a_larger_picture_is_handled_as_transformers_does(generator):
    """From a square, for their table is taken to be one."""
    ours = build(ViT, replace(OURS, image=(12, 12))).double()
    theirs = ViTForImageClassification(TheirConfig(**THEIRS | {"image_size": (12, 12)})).double()
    larger = torch.randn(2, 3, 20, 32, generator=generator, dtype=torch.float64)
    expected = copied(ours, theirs)(larger, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(ours.resized((20, 32))(larger), expected, rtol=0, atol=1e-10)


def test_gradients_agree_too(ours, x):
    theirs = copied(ours, ViTForImageClassification(TheirConfig(**THEIRS)).double())
    ours(x).square().sum().backward()
    theirs(x).logits.square().sum().backward()
    kernel = convolution_weight(ours.patch_embed.weight.grad, OURS.channels, OURS.patch)
    their_kernel = theirs.vit.embeddings.patch_embeddings.projection.weight.grad
    torch.testing.assert_close(kernel, their_kernel, rtol=1e-10, atol=1e-10)
    table = theirs.vit.embeddings.position_embeddings.grad[0]
    torch.testing.assert_close(ours.positions.tables[0].grad, table, rtol=1e-10, atol=1e-10)
