"""The model card of tiny Sora, written from what was measured: nothing in it is typed in.

    python -m sora_edu.train.card docs/model_card.md
"""

import csv
import json
import sys
from pathlib import Path

from sora_edu.assets import data_path
from sora_edu.evaluate import table
from sora_edu.files import write_whole
from sora_edu.train import recipes

STAGES = {
    "autoencoder": ("the causal video autoencoder", recipes.AUTOENCODER_LOOP),
    "decoder": ("its decoder once more, the encoder frozen", recipes.DECODER_LOOP),
    "text": ("the text encoder", recipes.TEXT_LOOP),
    "dit": ("the video DiT, and the text encoder with it", recipes.DIT_LOOP),
}

HEAD = """# Model card: tiny Sora, first version

Written by `python -m sora_edu.train.card docs/model_card.md` from the files in `data/checkpoints/tiny/` and
`data/curves/`; a test asks that it is current.

**What it is.** A text-to-video model in miniature: a prompt about the toy world becomes a clip of 17 frames
of 64x64 pixels, 8 frames a second. Text encoder, video diffusion transformer (adaLN-Zero, joint attention
over all spacetime patches, rectified flow) and causal video autoencoder are the classes of this package.

**What it was trained on.** Clips of `sora_edu.data.world`, rendered on the fly: coloured shapes and
handwritten digits (the UCI set of scikit-learn), no other picture and no other text. A tenth of the
colour-shape pairs and a tenth of the shape-motion pairs were kept out of every stage; `held_out` below is
measured on those.

**What it is for.** Learning how such models work, and measuring whether they do what they are asked. It
knows nothing outside its toy world, and says so when asked.

**Limits.** One size and length; text to video alone: the channels for given frames and regions exist but
are not trained yet. Two things at once, digits and camera moves are learned from a small share of the data.
"""

HISTORY = """
The weights that ship were not made in one go with the recipe as it now stands. The autoencoder and the DiT
saw all four backdrops equally often; `BACKDROPS`, which makes textures rare behind a still camera, came in
afterwards. The first 716 steps of the DiT drew times from a standard logit-normal, the others from one of
mean 1; `TIME_MEAN` was raised to 1.8 afterwards, when the exact denoiser of small sets of clips was seen to
settle which clip it shows between t = 0.97 and t = 0.85. Until step 3018 the DiT drew from all clips alike,
then mostly from the core of the world (`CORE_FIRST`), and in its last 950 steps mostly from core clips with a
plain backdrop. The decoder's first 146 steps ran under the learning rate of a schedule of 1,500 steps.

In all of that, and in `two_objects` below, two things could still overlap when they were said to be apart, or
one could hide behind the other throughout, in about one scene in twenty; such scenes are now drawn again.

The column "as run" is the clock of those runs, for much of the time on one core that other work shared. The
column beside it is `python benchmarks/recipe_seconds.py`: a few steps of each stage timed on two quiet
cores, times its steps.

To go on from these weights, with fresh optimisers: `python -m sora_edu train tiny --start
data/checkpoints/tiny`.
"""


def _last_row(stage: str) -> dict[str, str]:
    with data_path("curves", f"tiny_{stage}.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def _stages() -> str:
    timed = json.loads(data_path("checkpoints", "tiny", "seconds.json").read_text())
    rows = [
        f"| stage | what learns | steps | last loss | as run | {timed['threads']} cores |",
        "|---|---|---|---|---|---|",
    ]
    for stage, (what, loop) in STAGES.items():
        last = _last_row(stage)
        minutes = f"{float(last['seconds']) / 60:.0f} min"
        quiet = f"{timed['seconds'][stage] / 60:.0f} min"
        loss = f"{float(last['loss']):.3f}"
        rows.append(f"| `{stage}` | {what} | {loop.steps} | {loss} | {minutes} | {quiet} |")
    cache = f"{timed['seconds']['cache'] / 60:.0f} min"
    rows.append(f"| | rendering and encoding {recipes.CLIPS:,} clips for the DiT | | | | {cache} |")
    return "\n".join(rows) + f"\n\n({timed['machine']}, {timed['dtype']}.)"


def _sizes() -> str:
    folder = data_path("checkpoints", "tiny")
    files = sorted(folder.glob("*.safetensors"))
    rows = "\n".join(f"| `{file.name}` | {file.stat().st_size / 1e6:.1f} MB |" for file in files)
    total = sum(file.stat().st_size for file in files) / 1e6
    return f"| file (float16) | size |\n|---|---|\n{rows}\n| together | {total:.1f} MB |"


def model_card() -> str:
    """The card as Markdown. Raises FileNotFoundError when a measurement is missing."""
    report = json.loads(data_path("checkpoints", "tiny", "evaluation.json").read_text())
    command = f"python -m sora_edu evaluate --n {report['n']} --seed {report['seed']} --json FILE"
    parts = [
        HEAD,
        f"## Files\n\n{_sizes()}\n",
        "## Training\n\n`python -m sora_edu train tiny` trains it from scratch, stage by stage:\n",
        _stages(),
        HISTORY,
        f"## How good it is\n\n`{command}` prints:\n\n```text\n{table(report)}\n```\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    write_whole(Path(sys.argv[1]), model_card().encode())
