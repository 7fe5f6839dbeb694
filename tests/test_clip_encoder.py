"""Clips and prompts in one space: the encoder is its formula, and retrieval is counted by hand."""

import math

import pytest
import torch
from torch import nn

from sora_edu.autoencoder import AutoencoderConfig, CausalVideoAutoencoder
from sora_edu.clip import TinyClip, TinyClipConfig, fingerprint, recall, tiny_clip
from sora_edu.data.captions import VOCABULARY, PromptError
from sora_edu.patches import patchify_video
from sora_edu.positions import sinusoidal_3d
from sora_edu.sora import Sora
from sora_edu.text import TextConfig

WORDS = TextConfig(VOCABULARY, width=16, depth=1, heads=2)
SMALL = TinyClipConfig(WORDS, width=24, depth=2, heads=2, shared=8)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return TinyClip(SMALL).double().eval()


def latents(n=3, size=(3, 4, 6)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 16, *size, generator=generator, dtype=torch.float64)


def test_features_are_the_mean_of_an_encoders_tokens(clip):
    tokens = clip.patch_embed(patchify_video(latents(), (1, 2, 2))) + sinusoidal_3d(3, 2, 3, 24)
    for block in clip.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(clip.features(latents()), clip.norm(tokens).mean(1))


def test_both_kinds_of_vectors_have_unit_length_and_one_width(clip):
    seen, told = clip.clips(latents()), clip.texts(["a red star", "a small blue ring falls"])
    assert seen.shape == (3, 8) and told.shape == (2, 8)
    for vectors in (seen, told):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)).to(vectors))


def test_a_clips_vector_does_not_depend_on_its_batch(clip):
    torch.testing.assert_close(clip.clips(latents())[1:2], clip.clips(latents()[1:2]))


def test_a_prompts_vector_does_not_depend_on_the_longest_one_beside_it(clip):
    alone = clip.texts(["a red star"])
    beside = clip.texts(["a red star", "a small red star moves to the left on a dark background"])[:1]
    torch.testing.assert_close(alone, beside)


def test_time_and_order_of_words_are_seen(clip):
    assert not torch.allclose(clip.clips(latents()), clip.clips(latents().flip(2)), atol=1e-3)
    one, other = clip.texts(["a red ring and a blue star", "a blue ring and a red star"])
    assert not torch.allclose(one, other, atol=1e-3)


def test_unknown_words_and_odd_sizes_are_explained(clip):
    with pytest.raises(PromptError, match="cat"):
        clip.texts(["a cute cat"])
    with pytest.raises(ValueError, match="3, 5, 6"):
        clip.features(latents(size=(3, 5, 6)))


def test_it_knows_whose_latents_it_reads():
    torch.manual_seed(0)
    small = AutoencoderConfig(channels=4, widths=(8, 8, 8), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    autoencoder, clip = CausalVideoAutoencoder(small), TinyClip(SMALL)
    assert not clip.fits(autoencoder) and not clip.fits(nn.Identity())
    clip.reads.copy_(fingerprint(autoencoder))
    assert clip.fits(autoencoder)
    with torch.no_grad():
        next(autoencoder.decoder.parameters()).add_(1)
        assert clip.fits(autoencoder)  # the latents are the same
        next(autoencoder.encoder.parameters()).add_(1)
    assert not clip.fits(autoencoder)


# --- retrieval -------------------------------------------------------------------------------------------


def test_recall_counts_rows_whose_own_column_is_among_the_best():
    table = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.7, 0.6, 0.5]])
    assert [recall(table, best) for best in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert [recall(table.T, best) for best in (1, 2, 3)] == pytest.approx([2 / 3, 1, 1])


def test_recall_of_noise_is_chance():
    table = torch.randn(400, 20, generator=torch.Generator().manual_seed(0))
    found = [recall(part, 3) for part in table.split(20)]
    assert sum(found) / len(found) == pytest.approx(3 / 20, abs=4 * math.sqrt(0.15 * 0.85 / 400))


@pytest.mark.parametrize(("shape", "best", "message"), [((3, 2), 1, "3 by 2"), ((2, 2), 3, "best=3")])
def test_impossible_questions_are_refused(shape, best, message):
    with pytest.raises(ValueError, match=message):
        recall(torch.zeros(shape), best)


# --- what ships ------------------------------------------------------------------------------------------


def test_the_shipped_encoders_read_the_shipped_latents_and_know_a_clip_by_its_prompt():
    from sora_edu.data.world import evaluation_set, render_batch

    clip, autoencoder = tiny_clip(), Sora.from_pretrained("tiny").autoencoder
    assert clip.fits(autoencoder)
    entries = evaluation_set("held_out", 16, seed=77)
    with torch.no_grad():
        seen = clip.clips(autoencoder.encode(render_batch([entry.scene for entry in entries])))
        told = clip.texts([entry.prompt for entry in entries])
    assert recall(seen @ told.T) > 0.7  # chance is 1/16
