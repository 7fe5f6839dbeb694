"""The transformer against independent implementations with the same weights: torch's layers, OpenAI's GPTs.

torch's encoder and decoder layers and transformers' GPT-1 and GPT-2 get the weights of ours, in float64, and
have to give the same numbers. The published sizes are counted on the `meta` device, which holds no numbers.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from sora_edu.attention import CrossAttention, SelfAttention, causal_mask
from sora_edu.transformer import GPT, GPT_1, TRANSFORMER_BASE, Block, EncoderDecoder, GPTConfig

WIDTH, HEADS, HIDDEN = 12, 3, 48
exactly = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def noisy(module: nn.Module) -> nn.Module:
    """All weights random, so that norms of scale 1 and biases of 0 hide nothing."""
    with torch.no_grad():
        for weight in module.parameters():
            nn.init.normal_(weight, std=0.5)
    return module.double().eval()


def load(theirs: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Every weight of theirs has to be given; buffers keep what they are."""
    missing = theirs.double().load_state_dict(weights, strict=False)
    assert (
        not missing.unexpected_keys and not set(missing.missing_keys) & dict(theirs.named_parameters()).keys()
    )
    return theirs.eval()


def in_torchs_names(attention: SelfAttention | CrossAttention, name: str) -> dict[str, torch.Tensor]:
    parts = [attention.qkv] if isinstance(attention, SelfAttention) else [attention.q, attention.kv]
    return {
        f"{name}.in_proj_weight": torch.cat([part.weight for part in parts]),
        f"{name}.in_proj_bias": torch.cat([part.bias for part in parts]),
        f"{name}.out_proj.weight": attention.out.weight,
        f"{name}.out_proj.bias": attention.out.bias,
    }


def torchs_layer(block: Block, norm: str, activation: str) -> nn.Module:
    kind = nn.TransformerEncoderLayer if block.cross is None else nn.TransformerDecoderLayer
    theirs = kind(WIDTH, HEADS, HIDDEN, 0.0, activation, batch_first=True, norm_first=norm == "pre")
    weights = in_torchs_names(block.attention, "self_attn")
    norms = [block.norm1, block.norm2]
    if block.cross is not None:
        weights |= in_torchs_names(block.cross, "multihead_attn")
        norms.insert(1, block.norm_cross)
    for name, linear in (("linear1", block.mlp[0]), ("linear2", block.mlp[2])):
        weights |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
    for number, layer_norm in enumerate(norms, 1):
        weights |= {f"norm{number}.weight": layer_norm.weight, f"norm{number}.bias": layer_norm.bias}
    return load(theirs, weights)


@pytest.fixture
def x():
    return torch.randn(2, 5, WIDTH, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_is_torchs_encoder_layer(norm, activation, x):
    block = noisy(Block(WIDTH, HEADS, HIDDEN, norm=norm, activation=activation))
    theirs = torchs_layer(block, norm, activation)
    torch.testing.assert_close(block(x), theirs(x), **exactly)
    torch.testing.assert_close(block(x, causal_mask(5)), theirs(x, src_mask=~causal_mask(5)), **exactly)
    real = torch.tensor([[True] * 5, [True, True, True, False, False]])
    with_padding = theirs(x, src_key_padding_mask=~real)
    torch.testing.assert_close(block(x, real[:, None, None])[real], with_padding[real], **exactly)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_with_cross_attention_is_torchs_decoder_layer(norm, activation, x):
    block = noisy(Block(WIDTH, HEADS, HIDDEN, norm=norm, activation=activation, cross=True))
    theirs = torchs_layer(block, norm, activation)
    memory = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    real = torch.arange(7) < torch.tensor([[7], [4]])
    mine = block(x, causal_mask(5), memory, real[:, None, None])
    wanted = theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=~real)
    torch.testing.assert_close(mine, wanted, **exactly)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradients_are_those_of_torchs_layer(norm, x):
    """Equal outputs with unequal gradients would mean a detached path."""
    block = noisy(Block(WIDTH, HEADS, HIDDEN, norm=norm, activation="relu"))
    theirs = torchs_layer(block, norm, "relu")
    gradients = []
    for layer in (block, theirs):
        given = x.clone().requires_grad_()
        layer(given).sin().sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, **exactly)


def test_an_encoder_decoder_is_torchs_stack_of_layers():
    """Ours as a whole against torch's layers between embeddings and head that are worked out here."""
    sizes = dict(width=WIDTH, depth=2, heads=HEADS, hidden=HIDDEN, source_vocabulary=11, target_vocabulary=11)
    model = noisy(EncoderDecoder(replace(TRANSFORMER_BASE, **sizes)))
    source, target = torch.randint(11, (2, 2, 6))
    real = torch.arange(6) < torch.tensor([[6], [4]])

    def embedded(table, ids):
        place, pair = torch.arange(6.0).double()[:, None], torch.arange(0, WIDTH, 2).double()
        angles = place / 10000 ** (pair / WIDTH)
        code = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return table.weight[ids] * WIDTH**0.5 + code

    memory = embedded(model.source, source)
    for block in model.encoder:
        memory = torchs_layer(block, "post", "relu")(memory, src_key_padding_mask=~real)
    y = embedded(model.target, target)
    for block in model.decoder:
        layer = torchs_layer(block, "post", "relu")
        y = layer(y, memory, tgt_mask=~causal_mask(6), memory_key_padding_mask=~real)
    # The code of the places is float32 in ours, hence 1e-5.
    torch.testing.assert_close(model(source, target, real), y @ model.head.weight.T, rtol=1e-5, atol=1e-5)


# --- GPT -------------------------------------------------------------------------------------------------


def in_openais_names(block: Block) -> dict[str, torch.Tensor]:
    """Their linear layers are stored the other way round, as (in, out)."""
    linears = {
        "attn.c_attn": block.attention.qkv,
        "attn.c_proj": block.attention.out,
        "mlp.c_fc": block.mlp[0],
        "mlp.c_proj": block.mlp[2],
    }
    weights = {}
    for name, linear in linears.items():
        weights |= {f"{name}.weight": linear.weight.T, f"{name}.bias": linear.bias}
    for name, layer_norm in (("ln_1", block.norm1), ("ln_2", block.norm2)):
        weights |= {f"{name}.weight": layer_norm.weight, f"{name}.bias": layer_norm.bias}
    return weights


def gpt2_config(**sizes) -> GPT2Config:
    quiet = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    config = GPT2Config(n_embd=WIDTH, n_head=HEADS, n_inner=HIDDEN, **quiet, **sizes)
    config._attn_implementation = "eager"
    return config


def test_a_block_is_gpt_2s_block(x):
    block = noisy(Block(WIDTH, HEADS, HIDDEN, activation="gelu_tanh"))
    theirs = load(GPT2Block(gpt2_config(), layer_idx=0), in_openais_names(block))
    forbidden = torch.zeros(5, 5, dtype=torch.float64).masked_fill(~causal_mask(5), float("-inf"))
    wanted = theirs(x, attention_mask=forbidden[None, None])
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    torch.testing.assert_close(block(x, causal_mask(5)), wanted, **exactly)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt_is_openais(norm):
    """GPT-2 where LayerNorm comes first, GPT-1 where it comes after."""
    model = noisy(GPT(GPTConfig(vocabulary=13, context=9, width=WIDTH, depth=2, heads=HEADS, norm=norm)))
    sizes = dict(vocab_size=13, n_positions=9, n_layer=2)
    if norm == "pre":
        theirs = GPT2LMHeadModel(gpt2_config(**sizes))
        names = {
            "transformer.wte.weight": model.tokens.weight,
            "transformer.wpe.weight": model.positions.tables[0],
        }
        names |= {"transformer.ln_f.weight": model.norm.weight, "transformer.ln_f.bias": model.norm.bias}
    else:
        quiet = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        theirs = OpenAIGPTLMHeadModel(OpenAIGPTConfig(n_embd=WIDTH, n_head=HEADS, **quiet, **sizes))
        names = {
            "transformer.tokens_embed.weight": model.tokens.weight,
            "transformer.positions_embed.weight": model.positions.tables[0],
        }
    names["lm_head.weight"] = model.tokens.weight
    for number, block in enumerate(model.blocks):
        names |= {f"transformer.h.{number}.{name}": w for name, w in in_openais_names(block).items()}
    ids = torch.randint(13, (2, 9))
    torch.testing.assert_close(model(ids), load(theirs, names)(ids).logits, **exactly)


def test_the_published_sizes():
    def count(model: nn.Module) -> int:
        return sum(weight.numel() for weight in set(model.parameters()))

    with torch.device("meta"):
        assert count(GPT(GPT_1)) == count(OpenAIGPTLMHeadModel(OpenAIGPTConfig()))
        gpt_2 = GPTConfig(vocabulary=50257, context=1024)
        assert count(GPT(gpt_2)) == count(GPT2LMHeadModel(GPT2Config()))
