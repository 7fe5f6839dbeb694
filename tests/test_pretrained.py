"""Adapters to released parts, on small models of random weights: nothing is downloaded.

The oracles are diffusers and transformers themselves, called by hand as their documentation says.
"""

import argparse
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from sora_edu import pretrained
from sora_edu.autoencoder import CausalVideoAutoencoder
from sora_edu.dit import DiT
from sora_edu.measures import clip_score
from sora_edu.positions import sinusoidal_2d_dit
from sora_edu.pretrained import Clip, TextTokens, VideoAutoencoder, convert_release, read_release
from sora_edu.video_dit import VideoDiT, VideoDiTConfig

WORDS = ["<pad>", "<end>", "a", "red", "star", "bounces", "cat"]


# --- video -----------------------------------------------------------------------------------------------


def wan(**changes):
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(0)
    sizes = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1}
    statistics = {"latents_mean": [0.1, 0.2, -0.3, 0.4], "latents_std": [1.0, 2.0, 0.5, 0.7]}
    return AutoencoderKLWan(**{**sizes, **statistics, **changes}).eval()


def test_the_video_autoencoder_is_diffusers_with_normalised_latents(generator):
    model = wan()
    adapter, x = VideoAutoencoder(model), torch.rand(2, 3, 9, 16, 24, generator=generator) * 2 - 1
    with torch.no_grad():
        raw = model.encode(x).latent_dist.mode()
        pixels = model.decode(raw).sample
    z = adapter.encode(x)
    statistics = (model.config.latents_mean, model.config.latents_std)
    mean, std = (torch.tensor(values).view(1, 4, 1, 1, 1) for values in statistics)
    assert z.shape == (2, 4, 3, 2, 3) and pixels.shape == x.shape
    torch.testing.assert_close(z * std + mean, raw, rtol=0, atol=1e-5)
    torch.testing.assert_close(adapter.decode(z), pixels, rtol=0, atol=1e-4)


def test_it_is_causal_and_has_the_shapes_of_ours(generator):
    adapter, ours = VideoAutoencoder(wan()), CausalVideoAutoencoder()
    x = torch.rand(1, 3, 9, 16, 24, generator=generator) * 2 - 1
    z = adapter.encode(x)
    torch.testing.assert_close(adapter.encode(x[:, :, :5]), z[:, :, :2], rtol=0, atol=1e-5)
    with torch.no_grad():
        assert z.shape[2:] == ours.encode(x).shape[2:]
    assert adapter.channels == 4 and adapter.device == torch.device("cpu")
    assert not any(weight.requires_grad for weight in adapter.parameters()) and not adapter.model.training


@pytest.mark.parametrize("size", [(8, 16, 16), (9, 12, 16), (9, 16, 20)])
def test_sizes_that_it_cannot_encode_are_refused(size):
    with pytest.raises(ValueError, match=r"1 \+ 4k"):
        VideoAutoencoder(wan()).encode(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperal_downsample": [False, False, True]}, "cells of 2 frames and 8 pixels"),
        ({"dim_mult": [1, 1, 2], "temperal_downsample": [True, True]}, "cells of 4 frames and 4 pixels"),
        ({"latents_mean": [0.0, 0.0]}, "latents_mean has 2 numbers for 4 channels"),
    ],
)
def test_other_autoencoders_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VideoAutoencoder(wan(**changes))


def test_the_released_one_is_what_the_full_size_model_was_planned_with():
    """Its sizes are diffusers' defaults; on the device that has no memory they can be counted."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"):
        model = AutoencoderKLWan()
    assert model.config.z_dim == CausalVideoAutoencoder().config.channels == VideoDiTConfig().channels
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == 127


# --- text ------------------------------------------------------------------------------------------------


def words(length: int = 8) -> PreTrainedTokenizerFast:
    """A tokenizer of seven words that ends every text with <end>."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def t5():
    torch.manual_seed(0)
    return T5EncoderModel(
        T5Config(vocab_size=len(WORDS), d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    )


def clip():
    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 8, "eos_token_id": 1, "bos_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()


PROMPTS = ["a red star bounces", "cat", ""]


def test_t5_gives_its_states_behind_their_mean():
    model = t5().eval()
    encoder = TextTokens(words(), model, length=8)
    tokens, mask = encoder.encode(PROMPTS)
    assert tokens.shape == (3, 9, 16) and encoder.width == 16
    assert mask.sum(1).tolist() == [1 + 5, 1 + 2, 1 + 1]
    for row, prompt in enumerate(PROMPTS):  # each prompt alone, without any padding
        ids = torch.tensor([[WORDS.index(word) for word in prompt.split()] + [1]])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(tokens[row, 1 : 1 + ids.shape[1]], states, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.pool(tokens)[row], states.mean(0), rtol=0, atol=1e-5)


def test_clips_first_vector_is_the_state_of_the_end():
    model = clip().text_model
    wrapped = CLIPTextModel(model.config)
    wrapped.load_state_dict(model.state_dict())
    tokens, mask = TextTokens(words(), wrapped.eval(), length=8).encode(PROMPTS)
    assert tokens.shape == (3, 9, 16)
    for row, end in enumerate((4, 1, 0)):
        torch.testing.assert_close(tokens[row, 0], tokens[row, 1 + end])
        assert mask[row].sum() == end + 2


def test_the_video_model_takes_what_the_encoders_give():
    tokens, mask = TextTokens(words(), t5(), length=6).encode(["a cat", "a red star"])
    config = VideoDiTConfig(channels=4, width=24, depth=1, heads=2, text_width=16, condition_width=24)
    out = VideoDiT(config)(torch.randn(2, 4, 2, 4, 4), torch.rand(2), tokens, mask)
    assert out.shape == (2, 4, 2, 4, 4)


def test_long_prompts_are_refused_or_cut():
    with pytest.raises(ValueError, match="one of 5 tokens and 4 fit"):
        TextTokens(words(), t5(), length=4).encode(PROMPTS)
    tokens, mask = TextTokens(words(), t5(), length=4, truncate=True).encode(PROMPTS)
    assert tokens.shape == (3, 5, 16) and mask[0].all()
    with pytest.raises(ValueError, match=r"\['cat'\]"):
        TextTokens(words(), t5(), length=4).encode("cat")
    with pytest.raises(ValueError, match="length=9: must be 2 to 8"):
        TextTokens(words(), clip().text_model, length=9)


# --- CLIP ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (48, 100), (90, 40)])
def test_pictures_are_prepared_as_transformers_prepares_them(height, width, generator):
    model = clip()
    smooth = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    pixels = (F.interpolate(smooth, (height, width), mode="bilinear") * 255).round().to(torch.uint8)[0]
    side = {"shortest_edge": 32}
    prepare = CLIPImageProcessor(size=side, crop_size={"height": 32, "width": 32}, use_fast=False)
    prepared = prepare(Image.fromarray(pixels.permute(1, 2, 0).numpy()), return_tensors="pt")
    with torch.no_grad():
        theirs = F.normalize(model.get_image_features(**prepared).pooler_output, dim=-1)
    ours = Clip(words(), model).pictures(pixels[None].float() / 127.5 - 1)
    assert ours.norm(dim=-1).item() == pytest.approx(1, abs=1e-5)
    assert (ours * theirs).sum().item() > 0.999


def test_the_score_is_the_cosine_that_clip_itself_reports(generator):
    model, x = clip(), torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    adapter = Clip(words(), model)
    pictures, texts = adapter.pictures(x), adapter.texts(["a red star", "a cat"])
    mean, std = (torch.tensor(v)[:, None, None] for v in (pretrained.CLIP_MEAN, pretrained.CLIP_STD))
    ids = words()(["a red star", "a cat"], padding="max_length", max_length=8, return_tensors="pt")
    with torch.no_grad():
        logits = model(ids["input_ids"], ((x + 1) / 2 - mean) / std, ids["attention_mask"]).logits_per_image
    cosines = logits.diagonal() / model.logit_scale.exp().item()
    expected = 100 * cosines.clamp(min=0).mean().item()
    assert clip_score(pictures[:, None], texts)["value"] == pytest.approx(expected, abs=1e-3)


# --- where a package, a file or a connection is missing ----------------------------------------------------


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("diffusers", VideoAutoencoder.from_pretrained),
        ("transformers", TextTokens.t5),
        ("transformers", TextTokens.clip),
        ("transformers", Clip.from_pretrained),
    ],
)
def test_a_missing_package_or_connection_is_named(package, make, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="could not be fetched"):
        make(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        make()


# --- the release of DiT -----------------------------------------------------------------------------------


def release(width: int = 24, depth: int = 2, side: int = 4, classes: int = 5) -> dict[str, torch.Tensor]:
    """Weights by the names and in the shapes of the released checkpoints, but small."""
    torch.manual_seed(1)

    def linear(name: str, out: int, into: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 0.2 * torch.randn(out, into), f"{name}.bias": 0.2 * torch.randn(out)}

    weights = {"pos_embed": sinusoidal_2d_dit(side, side, width)[None].float()}
    weights |= linear("x_embedder.proj", width, 4 * 2 * 2)
    weights["x_embedder.proj.weight"] = weights["x_embedder.proj.weight"].view(width, 4, 2, 2)
    weights |= linear("t_embedder.mlp.0", width, 256) | linear("t_embedder.mlp.2", width, width)
    weights["y_embedder.embedding_table.weight"] = torch.randn(classes + 1, width)
    for k in range(depth):
        for name, out, into in (
            ("attn.qkv", 3 * width, width), ("attn.proj", width, width), ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width), ("adaLN_modulation.1", 6 * width, width),
        ):  # fmt: skip
            weights |= linear(f"blocks.{k}.{name}", out, into)
    weights |= linear("final_layer.linear", 2 * 2 * 8, width)
    return weights | linear("final_layer.adaLN_modulation.1", 2 * width, width)


@pytest.mark.parametrize("kind", ["download", "training"])
def test_a_release_is_read_and_converted_to_safetensors(tmp_path, kind, generator):
    weights = release()
    content = weights
    if kind == "training":  # what the release's own train.py saves
        raw = {name: torch.zeros_like(value) for name, value in weights.items()}
        content = {
            "model": raw,
            "ema": weights,
            "opt": {"state": {}},
            "args": argparse.Namespace(model="DiT-XL/2"),
        }
    torch.save(content, tmp_path / "dit.pt")
    convert_release(tmp_path / "dit.pt", tmp_path / "dit.safetensors")
    again = load_file(tmp_path / "dit.safetensors")
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    one, two = (DiT.from_release(some, heads=3) for some in (read_release(tmp_path / "dit.pt"), again))
    x, t, y = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([0.1, 0.9]), torch.tensor([0, 5])
    with torch.no_grad():
        assert torch.equal(one(x, t, y), two(x, t, y)) and one(x, t, y).std() > 0.01


class Trap:
    """A pickle that would write a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(tmp_path):
    torch.save({"x": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="more than weights"):
        read_release(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_no_release_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a file"):
        read_release(tmp_path / "missing.pt")
    torch.save(release(), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("cut", "text"):
        with pytest.raises(ValueError, match="damaged"):
            read_release(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="not weights by name"):
        read_release(tmp_path / "list.pt")


def test_the_command_converts(tmp_path, monkeypatch):
    import runpy

    torch.save(release(), tmp_path / "dit.pt")
    monkeypatch.setattr(
        sys, "argv", ["pretrained", str(tmp_path / "dit.pt"), str(tmp_path / "dit.safetensors")]
    )
    runpy.run_module("sora_edu.pretrained", run_name="__main__")
    assert np.isfinite(load_file(tmp_path / "dit.safetensors")["pos_embed"].numpy()).all()
