"""The pictures of chapter 12 that take more lines than a notebook's cell should have."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from sora_edu.assets import data_path
from sora_edu.clip import tiny_clip
from sora_edu.data import world
from sora_edu.data.captions import VOCABULARY
from sora_edu.pretrained import TextTokens
from sora_edu.sora import Sora
from sora_edu.teach.figures import PALETTE, bare, pixels, show
from sora_edu.text import BEGIN, END, PAD, Tokenizer, pad
from sora_edu.train.conditioning import latents_from_text
from sora_edu.train.pictures import picture_autoencoder

Curve = Sequence[tuple[int, float]]
"""Pairs (step, loss)."""

SHOWN_PROMPTS = (
    "a red star bounces",
    "a red star moves left",
    "a blue ring moves left",
    "a large green square spins",
    "a small green square spins",
    "a pink cross grows",
)
"""What the table of the chapter is made of."""

SCENE_SEED = 4


def reference(name: str) -> dict:
    """What was recorded for the chapter: "clip", "captions" or "guidance"."""
    return json.loads(data_path("curves", f"12_{name}.json").read_text())


# --- words -----------------------------------------------------------------------------------------------


def token_table(
    ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], tokens: Sequence[str], prompts: Sequence[str]
) -> None:
    """Each prompt a row of cells with the id and the word; padding is pale."""
    rows, columns = ids.shape
    fig, ax = plt.subplots(figsize=(1.3 * columns, 1.0 * rows))
    for (row, column), token in np.ndenumerate(ids.numpy()):
        real = bool(mask[row, column])
        face = PALETTE["sky"] if real and token > 2 else PALETTE["yellow"] if real else PALETTE["pale"]
        ax.add_patch(plt.Rectangle((column, row), 0.94, 0.88, facecolor=face, edgecolor="none"))
        ax.text(column + 0.47, row + 0.36, str(int(token)), ha="center", va="center", fontsize=17)
        ax.text(column + 0.47, row + 0.7, tokens[int(token)], ha="center", va="center")
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    bare(ax)
    counts = mask.sum(1).tolist()
    said = "; ".join(f"“{p}” {n} real tokens of {columns}" for p, n in zip(prompts, counts, strict=True))
    show(fig, alt=f"A table of token ids, one row for each prompt, padding pale at the end: {said}.")


# --- one space -------------------------------------------------------------------------------------------


def directions(clips: Mapping[str, float], captions: Mapping[str, float]) -> None:
    """Unit vectors in a plane, by their angle in degrees: clips as solid arrows, captions as dashed ones."""
    fig, ax = plt.subplots(figsize=(9.6, 3.2))
    for vectors, line, colour in ((clips, "-", "blue"), (captions, "--", "orange")):
        for name, degrees in vectors.items():
            x, y = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            ax.plot((0, x), (0, y), line, color=PALETTE[colour])
            ax.plot(x, y, "o", color=PALETTE[colour])
            side = "left" if x > 0 else "right"
            ax.text(1.06 * x, 1.08 * y, name, ha=side, va="center", color=PALETTE["ink"], fontsize=16)
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color=PALETTE["grey"], lw=1))
    ax.set(xlim=(-1.8, 2.1), ylim=(-0.05, 1.2), aspect="equal")
    bare(ax)
    said = ", ".join(f"{name} at {degrees:g}°" for name, degrees in {**clips, **captions}.items())
    show(fig, alt=f"Arrows of length 1 in a plane: {said}.")


def similarity_table(
    clips: Sequence[Float[Tensor, "3 t h w"]], prompts: Sequence[str], table: Float[Tensor, "n m"]
) -> None:
    """Cosines of clips (rows, by three frames) and prompts (columns); the best of each row is framed."""
    rows, columns = table.shape
    fig, ax = plt.subplots(figsize=(13, 0.65 * rows + 1.25))
    ax.imshow(table.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    for (row, column), cosine in np.ndenumerate(table.numpy()):
        colour = "white" if abs(cosine) > 0.6 else "black"
        ax.text(column, row, f"{cosine:.2f}", ha="center", va="center", color=colour, fontsize=19)
    for row, best in enumerate(table.argmax(1).tolist()):
        ax.add_patch(
            plt.Rectangle((best - 0.48, row - 0.46), 0.96, 0.92, fill=False, ec=PALETTE["yellow"], lw=4)
        )
    for row, clip in enumerate(clips):
        frames = [clip[:, k] for k in (0, clip.shape[1] // 2, clip.shape[1] - 1)]
        strip = torch.cat([torch.nn.functional.pad(frame, (1, 1), value=1.0) for frame in frames], dim=2)
        picture = AnnotationBbox(
            OffsetImage(pixels(strip), zoom=0.68), (-0.5, row), xybox=(-8, 0), xycoords="data",
            boxcoords="offset points", box_alignment=(1, 0.5), frameon=False, pad=0,
        )  # fmt: skip
        ax.add_artist(picture)
    ax.set_xticks(range(columns), ["\n".join(textwrap.wrap(p, 14)) for p in prompts], fontsize=16)
    ax.xaxis.tick_top()
    ax.set(yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    right = int((table.argmax(1) == torch.arange(rows)).sum())
    diagonal = ", ".join(f"{prompts[k]} {table[k, k]:.2f}" for k in range(min(rows, columns)))
    show(
        fig,
        alt=(
            f"A table of cosines of {rows} clips and {columns} prompts. Each clip with its own prompt:"
            f" {diagonal}. {right} of {rows} clips fit their own prompt best."
        ),
    )


@lru_cache(maxsize=1)
def shown_clips() -> Float[Tensor, "n 3 t h w"]:
    """Rendered clips of `SHOWN_PROMPTS`, on dark ground."""
    scenes = [replace(world.parse(prompt), background="dark") for prompt in SHOWN_PROMPTS]
    return world.render_batch([scene.complete(SCENE_SEED) for scene in scenes])


def promise() -> None:
    """The picture that the chapter ends with: which clip belongs to which sentence."""
    clip, clips = tiny_clip(), shown_clips()
    with torch.no_grad():
        latents = Sora.from_pretrained("tiny").autoencoder.encode(clips)
        table = clip.clips(latents) @ clip.texts(SHOWN_PROMPTS).T
    similarity_table(list(clips), SHOWN_PROMPTS, table)


# --- training --------------------------------------------------------------------------------------------


def learning_curves(kept: Mapping, mine: Curve = (), batch: int = 64) -> None:
    """Losses on stills of the reference runs, with the learner's in front; and of the whole run on clips."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.5))
    steps, runs = kept["stills"]["steps"], np.array(kept["stills"]["loss"])
    left.fill_between(steps, runs.min(0), runs.max(0), color=PALETTE["grey"], alpha=0.35, lw=0)
    left.plot(steps, runs.mean(0), "--", color=PALETTE["ink"], lw=1.8, label=f"{len(runs)} reference runs")
    if mine:
        left.plot(*zip(*mine, strict=True), color=PALETTE["blue"], label="yours")
    right.plot(kept["steps"], kept["loss"], color=PALETTE["blue"], label="the run that ships")
    asked = kept["settings"]["batch"]
    for ax, count, title in ((left, batch, "stills, in seconds"), (right, asked, "clips, in minutes")):
        ax.axhline(np.log(count), color=PALETTE["vermilion"], ls=":", lw=2, label=f"a guess among {count}")
        ax.set(title=title, xlabel="training step", ylim=(0, np.log(count) + 0.4))
        ax.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    left.set_ylabel("contrastive loss (nats)")
    last = f"; yours from {mine[0][1]:.2f} to {mine[-1][1]:.2f}" if mine else ""
    show(
        fig,
        alt=(
            f"Contrastive loss while training. On stills, reference runs fall from {runs[:, 0].mean():.2f} to"
            f" {runs[:, -1].mean():.2f}{last}. On clips the run that ships falls from"
            f" {kept['loss'][0]:.2f} to {kept['loss'][-1]:.2f}. Guesses cost {np.log(batch):.2f} and"
            f" {np.log(asked):.2f}."
        ),
    )


# --- what it has learned ---------------------------------------------------------------------------------


def foils(kept: Mapping[str, Mapping]) -> None:
    """How often the right caption beats one that is wrong in one thing; a coin gets half."""
    names, shares = list(kept), [100 * kept[name]["share"] for name in kept]
    fig, ax = plt.subplots(figsize=(11.5, 0.55 * len(names) + 1.2))
    colours = [PALETTE["blue"] if share > 90 else PALETTE["orange"] for share in shares]
    ax.barh(range(len(names)), shares, color=colours)
    for place, (name, share) in enumerate(zip(names, shares, strict=True)):
        ax.text(share + 1, place, f"{share:.0f} % of {kept[name]['n']}", va="center")
    ax.axvline(50, color=PALETTE["ink"], ls=":", lw=2)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 126), xticks=range(0, 101, 25), xlabel="right caption scores higher (%); a coin: 50")
    ax.invert_yaxis()
    said = "; ".join(f"{name} {share:.0f} %" for name, share in zip(names, shares, strict=True))
    show(fig, alt=f"Share of clips whose right caption scores higher than a wrong one: {said}.")


def ranked(kept: Mapping) -> None:
    """Best of several clips as the encoders choose and as they could; and scores of right and wrong clips."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.3))
    rows = kept["best_of"]
    counts = [row["n"] for row in rows]
    for name, look, colour in (("possible", "o--", "grey"), ("chosen", "o-", "blue")):
        label = {"possible": "at least one is right", "chosen": "the highest score is right"}[name]
        left.plot(counts, [100 * row[name] for row in rows], look, color=PALETTE[colour], label=label)
    left.set(xlabel="clips to choose from", ylabel="prompts (%)", xticks=counts, ylim=(0, 104))
    left.legend(loc="upper left")
    scores, good = np.array(kept["scores"]), np.array(kept["right"], bool)
    bins = np.linspace(min(0, scores.min()), 1, 26)
    for chosen, name, colour in ((~good, "read wrong", "orange"), (good, "read right", "blue")):
        label = f"{name}: {chosen.sum()}"
        right.hist(scores[chosen], bins, alpha=0.65, color=PALETTE[colour], label=label)
    right.set(xlabel="score (cosine of clip and prompt)", ylabel="clips")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    said = ", ".join(
        f"of {r['n']} {100 * r['chosen']:.0f} % (possible {100 * r['possible']:.0f} %)" for r in rows
    )
    means = [scores[which].mean() if which.any() else float("nan") for which in (good, ~good)]
    show(
        fig,
        alt=(
            f"Left: share of prompts whose chosen clip is right, best {said}. Right: scores of clips that the"
            f" judge reads right (mean {means[0]:.2f}) and wrong (mean {means[1]:.2f})."
        ),
    )


# --- captions --------------------------------------------------------------------------------------------

ASKED = {
    "short": "short prompts,\nas they are",
    "expanded": "short prompts,\nwritten out",
    "long": "long prompts",
}
"""How models are asked, by the name of the figure."""

LEARNED = {"short": "orange", "long": "blue", "mixed": "green"}
"""Colours of what was learned from."""


def captions_compared(kept: Mapping, chance: Mapping[str, float]) -> None:
    """Shares read right: bars for what was learned from, in groups for how it is asked; dots are seeds."""
    fig, ax = plt.subplots(figsize=(13.4, 4.5))
    spoken = []
    for k, (kind, colour) in enumerate(LEARNED.items()):
        for place, asked in enumerate(ASKED):
            shares = 100 * np.array(kept["runs"][kind][asked])
            x = place + 0.27 * (k - 1)
            label = f"learned from {kind} captions" if place == 0 else None
            ax.bar(x, shares.mean(), 0.25, color=PALETTE[colour], alpha=0.75, label=label)
            ax.plot([x] * len(shares), shares, "o", color=PALETTE["ink"], ms=5)
            spoken.append(f"{kind} captions, {' '.join(ASKED[asked].split())}: {shares.mean():.0f} %")
    for place, asked in enumerate(ASKED):
        level = 100 * chance[asked]
        label = "by chance" if place == 0 else None
        ax.plot(
            (place - 0.42, place + 0.42), (level, level), ":", color=PALETTE["vermilion"], lw=3, label=label
        )
    ax.set_xticks(range(len(ASKED)), list(ASKED.values()))
    ax.set(ylabel="read right (%)", ylim=(0, 104), xlim=(-0.5, len(ASKED) - 0.5))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    show(fig, alt=f"Share of pictures read right, means over the seeds. {'; '.join(spoken)}.")


def caption_samples(kept: Mapping) -> None:
    """What each model drew for the same long prompts."""
    prompts = kept["prompts"]["long"]
    fig, axes = plt.subplots(len(LEARNED), len(prompts), figsize=(13.2, 5.6))
    for line, kind in zip(axes, LEARNED, strict=True):
        with torch.no_grad():
            pictures = picture_autoencoder().decode(latents_from_text(kept["samples"][kind]))
        for ax, picture in zip(line, pictures, strict=True):
            ax.imshow(pixels(picture))
            bare(ax)
        line[0].set_ylabel(f"{kind} captions", fontsize=14)
    for ax, prompt in zip(axes[0], prompts, strict=True):
        ax.set_title("\n".join(textwrap.wrap(prompt, 17)), fontsize=15)
    show(
        fig,
        alt=(
            f"Pictures for the prompts {'; '.join(prompts)}. A row each for models that learned from"
            f" {', '.join(LEARNED)} captions."
        ),
    )


# --- guidance --------------------------------------------------------------------------------------------


def guidance_sweep(kept: Mapping) -> None:
    """Adherence, spread within a prompt and contrast against the guidance scale; real clips as a line."""
    rows, real = kept["scales"], kept["real"]
    scales = [row["scale"] for row in rows]
    fig, axes = plt.subplots(1, 3, figsize=(13.5, 4.4))
    shares = [100 * row["adherence"]["value"] for row in rows]
    ends = np.array([row["adherence"]["ci95"] for row in rows]).T * 100
    axes[0].fill_between(scales, *ends, color=PALETTE["blue"], alpha=0.2, lw=0)
    axes[0].plot(scales, shares, "o-", color=PALETTE["blue"])
    axes[0].axhline(100 * real["adherence"]["value"], color=PALETTE["ink"], ls=":")
    axes[0].set(title="all that was asked for", ylabel="clips (%)", ylim=(0, 104))
    for ax, name, title in (
        (axes[1], "spread", "how much clips\nof one prompt differ"), (axes[2], "contrast", "contrast"),
    ):  # fmt: skip
        values = [row[name] for row in rows]
        ax.plot(scales, values, "o-", color=PALETTE["orange" if name == "spread" else "green"])
        ax.axhline(1, color=PALETTE["ink"], ls=":")
        ax.set(title=title, ylabel="real clips = 1", ylim=(0, max(1.3, 1.1 * max(values))))
    for ax in axes:
        ax.set(xlabel="guidance scale s", xticks=scales)
        ax.set_xticklabels([f"{scale:g}" for scale in scales])
    said = "; ".join(
        f"s {row['scale']:g}: {share:.0f} % right, spread {row['spread']:.2f}, contrast {row['contrast']:.2f}"
        for row, share in zip(rows, shares, strict=True)
    )
    show(fig, alt=f"Guidance turned up, against real clips (dotted). {said}.")


# --- released encoders, small ----------------------------------------------------------------------------


def small_text_encoders() -> dict[str, TextTokens]:
    """T5 and CLIP's text encoder as transformers has them, tiny and with random weights: no download.

    Both read the toy world's words. Empty where transformers is not installed.
    """
    if find_spec("transformers") is None:
        return {}
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    own = Tokenizer(VOCABULARY)
    end = len(own)  # CLIP's end token is the one with the highest id

    def tokenise(prompts: Sequence[str], max_length: int | None = None, **_) -> dict:
        ids, mask = own.encode(prompts, None)
        ids = torch.where(ids == END, end, ids)
        rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        if max_length is None:
            return {"input_ids": rows}
        table, known = pad(rows, max_length)
        return {"input_ids": table, "attention_mask": known.long()}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = T5Config(vocab_size=end + 1, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
        t5 = T5EncoderModel(sizes)
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=end + 1, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=77, eos_token_id=end, bos_token_id=BEGIN,
                pad_token_id=PAD,
            )
        )  # fmt: skip
    return {"T5": TextTokens(tokenise, t5, 226), "CLIP's text encoder": TextTokens(tokenise, clip, 77)}
