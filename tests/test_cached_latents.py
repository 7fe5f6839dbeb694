"""Folders of cached latents: what is written is read, in the right buckets, and what is broken is named."""

import pytest
import torch
from safetensors.torch import save_file

from sora_edu.data.latents import LatentFolder, source_of, write_latents


def write(path, n=3, size=(2, 4, 6), length=5, channels=4, width=8, source="") -> dict:
    """A file of noise, and what is in it."""
    made = {
        "latents": torch.randn(n, channels, *size).half(),
        "text": torch.randn(n, length, width).half(),
        "text_mask": torch.rand(n, length) < 0.7,
    }
    write_latents(path, *made.values(), source)
    return made


def test_clips_come_back_in_the_order_of_the_files_and_texts_are_padded(tmp_path):
    second, first = write(tmp_path / "b.safetensors", n=2, length=7), write(tmp_path / "a.safetensors")
    write(tmp_path / "c.safetensors", size=(1, 2, 2))
    folder = LatentFolder(tmp_path)
    assert len(folder) == 8 and (folder.channels, folder.text_width) == (4, 8)
    assert folder.buckets == [(5, 32, 48)] * 5 + [(1, 16, 16)] * 3
    latents, text, mask = folder.batch([2, 3])
    assert latents.dtype == text.dtype == torch.float32
    torch.testing.assert_close(latents, torch.stack([first["latents"][2], second["latents"][0]]).float())
    torch.testing.assert_close(text[0, :5], first["text"][2].float())
    torch.testing.assert_close(text[1], second["text"][0].float())
    assert not text[0, 5:].any() and not mask[0, 5:].any()
    assert mask[0, :5].equal(first["text_mask"][2]) and mask[1].equal(second["text_mask"][0])


def test_a_batch_is_of_one_size(tmp_path):
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", size=(1, 2, 2))
    for indices in ([0, 3], []):
        with pytest.raises(ValueError, match="are not of one bucket"):
            LatentFolder(tmp_path).batch(indices)


def test_what_latents_were_made_from_is_kept_and_a_damaged_file_says_nothing(tmp_path):
    write(tmp_path / "a.safetensors", source="three films")
    assert source_of(tmp_path / "a.safetensors") == "three films"
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:200])
    assert source_of(tmp_path / "a.safetensors") is None
    assert source_of(tmp_path / "b.safetensors") is None


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"latents": torch.zeros(1, 4, 1, 2, 2)}, "has no text, text_mask"),
        ({"latents": torch.zeros(2, 4, 1, 2, 2)}, "holds .* they must be"),
        ({"latents": torch.zeros(1, 4, 2, 2)}, "holds .* they must be"),
        ({"text_mask": torch.zeros(1, 2)}, "holds .* they must be"),
    ],
)
def test_other_files_are_left_out_with_the_reason(tmp_path, tensors, words):
    whole = {
        "latents": torch.zeros(1, 4, 1, 2, 2),
        "text": torch.zeros(1, 3, 8),
        "text_mask": torch.ones(1, 3),
    }
    save_file(tensors if "has no" in words else whole | tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=f"none of its 1 can be used: bad.safetensors: {words}"):
        LatentFolder(tmp_path)
    write(tmp_path / "good.safetensors")
    with pytest.warns(UserWarning, match="skipped 1 files: bad.safetensors"):
        assert len(LatentFolder(tmp_path)) == 3


def test_latents_of_different_autoencoders_do_not_go_together(tmp_path):
    write(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", channels=16)
    with pytest.raises(ValueError, match=r"differ from file to file: \[\(4, 8\), \(16, 8\)\]"):
        LatentFolder(tmp_path)


def test_a_file_without_clips_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 latents, 0 texts, 0 masks"):
        write(tmp_path / "a.safetensors", n=0)
    assert not list(tmp_path.iterdir())
