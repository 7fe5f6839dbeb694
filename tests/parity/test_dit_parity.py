"""Released DiT weights: against diffusers, and against a forward pass written out; nothing is downloaded.

diffusers' own model differs from the release in three ways, which are put right before it is the oracle: its
frequencies run over `half - 1`, each of its blocks owns an embedder, and the norm before its MLP adds 1e-5.
"""

import json
import math

import huggingface_hub
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiTTransformer2DModel
from torch.distributions import Normal, kl_divergence

from sora_edu.diffusion import (
    alpha_bars,
    learned_log_variance,
    linear_betas,
    variance_range,
    variational_term,
)
from sora_edu.dit import DiT, DiTConfig

STEPS = torch.tensor([0, 1, 500, 999])


def diffusers_model(width, heads, patch, *, depth=2, side=8, channels=4, classes=10, learned=True):
    """Their model with random weights everywhere, made to be what the release is."""
    torch.manual_seed(width + patch)
    theirs = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width // heads, in_channels=channels,
        out_channels=(1 + learned) * channels, num_layers=depth, sample_size=side, patch_size=patch,
        num_embeds_ada_norm=classes, norm_eps=1e-6,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(torch.randn_like(weight) / math.sqrt(weight[0].numel() if weight.ndim > 1 else 25))
    first = theirs.transformer_blocks[0].norm1.emb.state_dict()
    for block in theirs.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    return theirs


@pytest.mark.parametrize(
    ("width", "heads", "patch", "given"),
    [
        (384, 6, 2, None),
        (384, 6, 4, None),
        (768, 12, 8, None),
        (1152, 16, 2, None),
        (24, 3, 2, 3),
        (24, 2, 1, 2),
    ],
)
@pytest.mark.parametrize("learned", [True, False])
def test_weights_of_diffusers_give_the_outputs_of_diffusers(width, heads, patch, given, learned, generator):
    theirs = diffusers_model(width, heads, patch, learned=learned)
    ours = DiT.from_release(theirs.state_dict(), heads=given, grid=(8 // patch, 8 // patch))
    x, y = torch.randn(4, 4, 8, 8, generator=generator), torch.tensor([0, 3, 9, 10])
    with torch.no_grad():
        expected = theirs(x, STEPS, y).sample
        found = ours(x, STEPS / 1000, y)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert ours.config == DiTConfig(
        size=(8, 8), patch=patch, width=width, depth=2, heads=heads, classes=10, learned_variance=learned
    )


# --- the layout of the release, and H different from W -----------------------------------------------------

WIDTH, HEADS, PATCH, CHANNELS = 24, 3, 2, 3


def naive_positions(rows, columns):
    """For each patch, row by row: sines and cosines of its column, then of its row."""
    table = torch.empty(rows * columns, WIDTH, dtype=torch.float64)
    quarter = WIDTH // 4
    for row in range(rows):
        for column in range(columns):
            for i in range(quarter):
                for half, place in enumerate((column, row)):
                    angle = place / 10000 ** (i / quarter)
                    table[row * columns + column, half * 2 * quarter + i] = math.sin(angle)
                    table[row * columns + column, half * 2 * quarter + quarter + i] = math.cos(angle)
    return table


def release_weights(rows, columns, depth=2, classes=5, out=2 * CHANNELS):
    """Random weights under the names and in the shapes of the release."""
    shapes = {
        "x_embedder.proj": (WIDTH, CHANNELS, PATCH, PATCH), "t_embedder.mlp.0": (WIDTH, 256),
        "t_embedder.mlp.2": (WIDTH, WIDTH), "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
        "final_layer.linear": (PATCH * PATCH * out, WIDTH),
    }  # fmt: skip
    for k in range(depth):
        shapes |= {
            f"blocks.{k}.attn.qkv": (3 * WIDTH, WIDTH), f"blocks.{k}.attn.proj": (WIDTH, WIDTH),
            f"blocks.{k}.mlp.fc1": (4 * WIDTH, WIDTH), f"blocks.{k}.mlp.fc2": (WIDTH, 4 * WIDTH),
            f"blocks.{k}.adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    weights = {"y_embedder.embedding_table.weight": torch.randn(classes + 1, WIDTH, generator=generator)}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:])
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        weights[f"{name}.bias"] = 0.2 * torch.randn(shape[0], generator=generator)
    return weights | {"pos_embed": naive_positions(rows, columns)[None].float()}


def naive_forward(weights, x, step, label, rows, columns):
    """One sample through the release, patch by patch, head by head, from the paper's equations alone."""
    w = {name: value.double() for name, value in weights.items()}

    def linear(name, v):
        return w[f"{name}.weight"] @ v + w[f"{name}.bias"]

    def norm(v):
        return (v - v.mean()) / (v.var(unbiased=False) + 1e-6).sqrt()

    angles = [step / 10000 ** (i / 128) for i in range(128)]
    code = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)], dtype=torch.float64)
    time = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", code)))
    condition = F.silu(time + w["y_embedder.embedding_table.weight"][label])
    kernel, places, tokens = w["x_embedder.proj.weight"], naive_positions(rows, columns), []
    for r in range(rows):
        for c in range(columns):
            piece = x[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
            token = (kernel * piece).sum((1, 2, 3)) + w["x_embedder.proj.bias"]
            tokens.append(token + places[r * columns + c])
    for k in range(sum(name.endswith("attn.proj.bias") for name in w)):
        name, d = f"blocks.{k}", WIDTH // HEADS
        s1, c1, g1, s2, c2, g2 = linear(f"{name}.adaLN_modulation.1", condition).split(WIDTH)
        qkv = [linear(f"{name}.attn.qkv", norm(token) * (1 + c1) + s1) for token in tokens]
        answers = []
        for mine in qkv:
            answer = []
            for h in range(HEADS):
                q = mine[h * d : (h + 1) * d]
                keys = [other[WIDTH + h * d : WIDTH + (h + 1) * d] for other in qkv]
                values = [other[2 * WIDTH + h * d : 2 * WIDTH + (h + 1) * d] for other in qkv]
                powers = [math.exp(float(q @ key) / math.sqrt(d)) for key in keys]
                answer.append(sum(p / sum(powers) * value for p, value in zip(powers, values, strict=True)))
            answers.append(linear(f"{name}.attn.proj", torch.cat(answer)))
        tokens = [token + g1 * answer for token, answer in zip(tokens, answers, strict=True)]
        for i, token in enumerate(tokens):
            inner = F.gelu(linear(f"{name}.mlp.fc1", norm(token) * (1 + c2) + s2), approximate="tanh")
            tokens[i] = token + g2 * linear(f"{name}.mlp.fc2", inner)
    shift, scale = linear("final_layer.adaLN_modulation.1", condition).split(WIDTH)
    out = torch.zeros(2 * CHANNELS, rows * PATCH, columns * PATCH, dtype=torch.float64)
    for i, token in enumerate(tokens):
        numbers = linear("final_layer.linear", norm(token) * (1 + scale) + shift)
        for p in range(PATCH):
            for q in range(PATCH):
                for channel in range(2 * CHANNELS):
                    at = (channel, i // columns * PATCH + p, i % columns * PATCH + q)
                    out[at] = numbers[(p * PATCH + q) * 2 * CHANNELS + channel]
    return out


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (3, 2), (2, 2)])
def test_weights_of_the_release_are_what_a_naive_loop_makes_of_them(rows, columns, generator):
    weights = release_weights(rows, columns)
    ours = DiT.from_release(weights, heads=HEADS, grid=None if rows == columns else (rows, columns))
    assert ours.config.size == (rows * PATCH, columns * PATCH)
    x = torch.randn(2, CHANNELS, *ours.config.size, generator=generator)
    with torch.no_grad():
        found = ours(x, torch.tensor([0.007, 0.999]), torch.tensor([4, 5]))
    for i, (step, label) in enumerate(((7, 4), (999, 5))):
        expected = naive_forward(weights, x[i].double(), step, label, rows, columns)
        assert expected.std() > 0.1
        torch.testing.assert_close(found[i].double(), expected, rtol=0, atol=1e-4)


# --- weights that do not fit -------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_explained():
    weights = release_weights(2, 3)
    read = DiT.from_release
    with pytest.raises(
        ValueError, match=r"heads=None: weights of width 24 do not tell; only those of 384, 768"
    ):
        read(weights, grid=(2, 3))
    with pytest.raises(ValueError, match=r"grid=\(2, 2\) has 4 patches and state_dict positions for 6"):
        read(weights, heads=3)
    with pytest.raises(ValueError, match=r"other positions than the sinusoids of the grid \(3, 2\)"):
        read(weights, heads=3, grid=(3, 2))
    with pytest.raises(ValueError, match=r"state_dict begins with model, ema: neither the layout.*the 'ema'"):
        read({"model": torch.zeros(1), "ema": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"blocks.1.mlp.2.bias is missing"):
        read({k: v for k, v in weights.items() if k != "blocks.1.mlp.fc2.bias"}, heads=3, grid=(2, 3))
    with pytest.raises(ValueError, match=r"blocks.0.extra is unknown"):
        read(weights | {"blocks.0.extra": torch.zeros(1)}, heads=3, grid=(2, 3))
    with pytest.raises(ValueError, match=r"time_embed.2.bias is \(5,\) instead of \(24,\)"):
        read(weights | {"t_embedder.mlp.2.bias": torch.zeros(5)}, heads=3, grid=(2, 3))
    with pytest.raises(ValueError, match=r"nothing for label_embed.weight; a DiT for classes"):
        read({k: v for k, v in weights.items() if "y_embedder" not in k}, heads=3, grid=(2, 3))
    with pytest.raises(ValueError, match=r"predicts 5 channels; from 3"):
        read(release_weights(2, 3, out=5), heads=3, grid=(2, 3))


def test_blocks_of_diffusers_with_embedders_of_their_own_are_refused():
    weights = dict(diffusers_model(24, 3, 2).state_dict())
    name = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"
    weights[name] = weights[name] + 1
    with pytest.raises(ValueError, match=f"{name} differs from that of the first block"):
        DiT.from_release(weights, heads=3)


# --- the hub -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False])
def test_a_model_of_the_hub_is_read_as_diffusers_saves_it(safe, tmp_path, monkeypatch, generator):
    theirs = diffusers_model(24, 3, 2, side=12)
    theirs.save_pretrained(tmp_path / "transformer", safe_serialization=safe)

    def fetch(name, file):
        assert name == "somebody/DiT"
        if not (tmp_path / file).exists():
            raise huggingface_hub.errors.EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    ours = DiT.from_pretrained("somebody/DiT")
    assert ours.config.size == (12, 12) and ours.config.heads == 3
    assert json.loads((tmp_path / "transformer/config.json").read_text())["sample_size"] == 12
    x, y = torch.randn(4, 4, 12, 12, generator=generator), torch.tensor([0, 3, 9, 10])
    with torch.no_grad():
        torch.testing.assert_close(ours(x, STEPS / 1000, y), theirs(x, STEPS, y).sample, rtol=0, atol=1e-4)


def test_without_the_hub_the_message_says_what_would_work(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"facebook/DiT-XL-2-256.*could not be fetched.*from_release"):
        DiT.from_pretrained("facebook/DiT-XL-2-256")


# --- learned variance --------------------------------------------------------------------------------------


@pytest.fixture
def schedule():
    return alpha_bars(linear_betas())


@pytest.mark.parametrize("index", [1, 2, 500, 999])
def test_the_learned_variance_is_that_of_diffusers(index, schedule, generator):
    theirs = DDPMScheduler(variance_type="learned_range")
    theirs.alphas_cumprod = schedule
    output = 2 * torch.rand(3, 4, 2, 2, generator=generator, dtype=torch.float64) - 1
    least, largest = (values[index] for values in variance_range(schedule))
    found = learned_log_variance(output, least, largest)
    expected = theirs._get_variance(index, predicted_variance=output)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert least < found.min() and found.max() < largest


def test_respacing_changes_the_range(schedule):
    """Of every tenth level: a step back from it takes ten steps at once, so its beta is that of ten."""
    least, largest = variance_range(schedule[9::10])
    kept = torch.stack([1 - linear_betas()[10 * k : 10 * k + 10] for k in range(100)]).prod(1)
    torch.testing.assert_close(largest.exp(), 1 - kept)
    before = torch.cat([torch.ones(1), schedule[9::10][:-1]])
    torch.testing.assert_close(least.exp()[1:], ((1 - before) / (1 - schedule[9::10]) * (1 - kept))[1:])
    assert least[0] == least[1]


def test_the_variational_term_is_the_divergence_of_torchs_normals(schedule, generator):
    k = torch.tensor([0, 1, 7, 400, 999])
    x0, eps, noise = torch.randn(3, 5, 2, 3, generator=generator, dtype=torch.float64)
    output = (2 * torch.rand(5, 2, 3, generator=generator, dtype=torch.float64) - 1).requires_grad_()
    noise.requires_grad_()
    share = schedule[k][:, None, None]
    x = share.sqrt() * x0 + (1 - share).sqrt() * eps
    found = variational_term(x0, x, noise, output, k, schedule)
    betas = linear_betas()
    for i, step in enumerate(k.tolist()):
        beta, bar = betas[step], schedule[step]
        before = schedule[step - 1] if step else torch.ones((), dtype=torch.float64)
        tilde = (1 - before) / (1 - bar) * beta
        floor = tilde if step else (1 - schedule[0]) / (1 - schedule[1]) * betas[1]
        log_variance = (output[i] + 1) / 2 * beta.log() + (1 - output[i]) / 2 * floor.log()
        mean = (x[i] - beta / (1 - bar).sqrt() * noise[i]) / (1 - beta).sqrt()  # DDPM, equation 11
        p = Normal(mean, (log_variance / 2).exp())
        truth = before.sqrt() * beta / (1 - bar) * x0[i] + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x[i]
        cost = kl_divergence(Normal(truth, tilde.sqrt()), p) if step else -p.log_prob(x0[i])
        torch.testing.assert_close(found[i], cost.mean() / math.log(2), rtol=1e-7, atol=1e-7)
    found.sum().backward()
    assert noise.grad is None  # the mean is detached
    assert output.grad.abs().min() > 0


def test_steps_that_there_are_not_are_refused(schedule):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"k runs from 1000 to 1000; alpha_bar has 1000 steps"):
        variational_term(x, x, x, x, torch.tensor([1000]), schedule)
    with pytest.raises(ValueError, match="alpha_bar has 1 levels; at least 2"):
        variance_range(schedule[:1])
