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

AGAIN = {
    "decoder_again": "the decoder with one block less, which makes room in 32 MB",
    "dit_again": "the video DiT and the text encoder, now with all tasks, 9 frames and pictures",
    "dit_detail": "the same two, the DiT with a way around its patches (`video_dit.Detail`)",
    "dit_longer": "the same two, with more of the times at which detail is settled (`TIME_MEANS`)",
    "dit_motions": "the same two, with more of what spins, orbits, bounces and falls (`MOTION_WEIGHTS`)",
}
"""What later versions trained on top of the first one's weights, by the name of the curve, in order."""

HEAD = """# Model card: tiny Sora, fifth version

Written by `python -m sora_edu.train.card docs/model_card.md` from the files in `data/checkpoints/tiny/` and
`data/curves/`; a test asks that it is current.

**What it is.** A text-to-video model in miniature: a prompt about the toy world becomes a clip of 17 or 9
frames of 64x64 pixels, 8 frames a second, or a picture. Frames or a region can be given: it animates, extends
either way, connects, closes loops, fills in and edits. Text encoder, video diffusion transformer
(adaLN-Zero, joint attention over all spacetime patches, rectified flow) and causal video autoencoder are the
classes of this package.

**What it was trained on.** Clips of `sora_edu.data.world`, rendered on the fly: coloured shapes and
handwritten digits (the UCI set of scikit-learn), no other picture and no other text. A tenth of the
colour-shape pairs and a tenth of the shape-motion pairs were kept out of every stage; `held_out` below is
measured on those.

**What it is for.** Learning how such models work, and measuring whether they do what they are asked. It
knows nothing outside its toy world, and says so when asked.

**Limits.** One picture size, three lengths. The tasks that start from pixels were learned from the second
version on: what is given is followed roughly, and copied less well than the autoencoder could. Two things at
once, digits and camera moves are learned from a small share of the data.
"""

HISTORY = """
The weights that ship were not made in one go with the recipe as it now stands. In the first version the
autoencoder and the DiT saw all four backdrops equally often; `BACKDROPS`, which makes textures rare behind a
still camera, came in afterwards. The first 716 steps of the DiT drew times from a standard logit-normal, the
others from one of mean 1, later 1.8. Until step 3018 the DiT drew from all clips alike, then mostly from the
core of the world (`CORE_FIRST`), and in its last 950 steps mostly from core clips with a plain backdrop. The
decoder's first 146 steps ran under the learning rate of a schedule of 1,500 steps. In all of that, two
things could still overlap when they were said to be apart, or one could hide behind the other throughout, in
about one scene in twenty.

The second version went on from the first: `python -m sora_edu train tiny --start data/checkpoints/tiny` with
12,288 clips, two pictures a clip and a learning rate of 8e-4, which fell from about step 450 on. Until step
731 it drew two thirds of the times from the first of `TIME_MEANS`, and fewer whole clips. Its decoder lost
the middle one of its three blocks at an eighth of the resolution and learned to do without.

The third version went on from the second, by the same command with `--steps 3400 --clips 12288`. Its DiT got
`video_dit.Detail`, which is silent at first, and a quarter of its steps were pictures.

The fourth version went on from the third, by the same command with `--steps 5600 --clips 16384 --compile`.
Up to then the second of `TIME_MEANS` was 1.8; whole clips got a larger share of the steps (`LENGTHS`). Its
clips follow prompts better than the third version's, and their starts spread less.

The fifth version went on from the fourth, by the same command with `--steps 3800 --clips 16384 --compile`:
until then all motions were drawn alike.

The column "as run" is the clock of those runs, for much of the time on one core that other work shared. The
column beside it is `python benchmarks/recipe_seconds.py`: a few steps of each stage timed on two quiet
cores, times its steps.

To go on from these weights, with fresh optimisers, the same command does.
"""


def _last_row(curve: str) -> dict[str, str]:
    with data_path("curves", f"tiny_{curve}.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def _as_run(curve: str) -> str:
    last = _last_row(curve)
    return f"{float(last['loss']):.3f} | {float(last['seconds']) / 60:.0f} min"


def _stages() -> str:
    timed = json.loads(data_path("checkpoints", "tiny", "seconds.json").read_text())
    rows = [
        f"| stage | what learns | steps | last loss | as run | {timed['threads']} cores |",
        "|---|---|---|---|---|---|",
    ]
    for stage, (what, loop) in STAGES.items():
        quiet = f"{timed['seconds'][stage] / 60:.0f} min"
        rows.append(f"| `{stage}` | {what} | {loop.steps} | {_as_run(stage)} | {quiet} |")
    for curve, what in AGAIN.items():
        stage = curve.partition("_")[0]
        rows.append(f"| `{stage}`, again | {what} | {_last_row(curve)['step']} | {_as_run(curve)} | |")
    cache = f"{timed['seconds']['cache'] / 60:.0f} min"
    rows.append(f"| | rendering and encoding {recipes.CLIPS:,} clips for the DiT | | | | {cache} |")
    compiled = f"{timed['seconds']['dit_compiled'] / 60:.0f} min"
    beside = f"({timed['machine']}, {timed['dtype']}.) With `--compile`, `dit` takes {compiled} on them."
    return "\n".join(rows) + f"\n\n{beside}"


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
