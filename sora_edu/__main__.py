"""The command line: `python -m sora_edu generate | train | evaluate | cost | progress`.

Bad input ends with one clear message and exit code 2, Ctrl-C with 130; nothing half-written stays behind.
Everything heavy is imported by the command that needs it, so that `--help` comes at once.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

PROGRAM = "python -m sora_edu"
EPILOG = "Set SORA_EDU_TRACEBACK=1 to see where an error came from."


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and gives its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except KeyboardInterrupt as stop:
        if _speaks():
            print(f"\n{str(stop) or 'Stopped.'}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("SORA_EDU_TRACEBACK"):
            raise
        if _speaks() or getattr(error, "alone", False):
            print(f"error: {error}", file=sys.stderr)
        return 2


def _speaks() -> bool:
    """Whether this is the first, or only, of the processes that torchrun started: others would repeat it."""
    return os.environ.get("RANK", "0") == "0"


# ---- Commands ----------------------------------------------------------------------------------------------


def generate(options: argparse.Namespace) -> None:
    """Writes one clip, or several, for a prompt."""
    from sora_edu.clips import check_scale, check_suffix
    from sora_edu.files import check_target

    check_target(check_suffix(options.out))  # before any work is done
    check_scale(options.scale)
    given, region = _given(options)
    sora = _load(options.checkpoint)
    with _Bar("generating", "step") as bar:
        clips = sora.generate(
            options.prompt,
            task=options.task,
            frames=options.frames,
            height=options.height,
            width=options.width,
            steps=options.steps,
            guidance=options.guidance,
            seed=options.seed,
            num=options.num,
            given=given,
            region=region,
            strength=options.strength,
            progress=lambda done, total: bar.to(done, total),
        )
    for clip in clips if options.num > 1 else [clips]:
        numbered = options.out.with_stem(f"{options.out.stem}_{clip.seed}")
        print(f"{clip.save(numbered if options.num > 1 else options.out, scale=options.scale)}: {clip!r}")


def _given(options: argparse.Namespace):
    """Pictures by frame index, and the region to be generated, as `generate` wants them."""
    import numpy as np

    from sora_edu.clips import read_frames
    from sora_edu.tasks import frame_indices

    films = [read_frames(path, options.height, options.width) for path in options.given or []]
    region = None
    if options.region is not None:
        top, left, bottom, right = options.region
        if not (0 <= top < bottom <= options.height and 0 <= left < right <= options.width):
            raise ValueError(
                f"region={top} {left} {bottom} {right} is no box of {options.height}x{options.width} pixels; "
                "give TOP LEFT BOTTOM RIGHT within them"
            )
        region = np.zeros((options.height, options.width), bool)
        region[top:bottom, left:right] = True
    if not films:
        return None, region
    indices = frame_indices(options.task, [len(film) for film in films], options.frames)
    return dict(zip(indices, (picture for film in films for picture in film), strict=False)), region


def _load(checkpoint: str):
    """The checkpoint's model, on the fastest device."""
    from sora_edu.precision import best_device
    from sora_edu.sora import Sora

    return Sora.from_pretrained(checkpoint).to(best_device())


def evaluate(options: argparse.Namespace) -> None:
    """Measures a checkpoint and prints a table."""
    from sora_edu.files import check_target

    if options.json is not None:
        check_target(options.json)
    from sora_edu import evaluate as evaluation

    splits = options.splits or evaluation.world.SPLITS
    sora = _load(options.checkpoint)
    with _Bar("evaluating", "clip", evaluation.work(sora, options.n, splits)) as bar:
        report = evaluation.evaluate(
            sora,
            options.n,
            options.seed,
            splits,
            steps=options.steps,
            guidance=options.guidance,
            batch=options.batch,
            advance=lambda what, count: bar.on(count, what),
        )
    print(evaluation.table(report))
    if options.json is not None:
        print(f"\nWritten to {evaluation.save_report(report, options.json)}")


def train(options: argparse.Namespace) -> None:
    """Runs a recipe, or goes on with one that was stopped."""
    from sora_edu.files import check_folder

    if options.resume and options.out:
        raise ValueError("out and resume both name the folder of the run; give one of them")
    folder = options.resume or check_folder(options.out or Path("runs") / options.recipe)
    from sora_edu.train import recipes

    names = ("steps", "batch", "clips", "start", "config", "data", "frames", "side", "encoders", "save_every")
    choices = {name: getattr(options, name) for name in (*names, "accumulate")}
    choices |= {name: getattr(options, name) or None for name in ("checkpointing", "compiled")}
    try:
        recipes.run(options.recipe, out=folder, resume=options.resume, **choices)
    except KeyboardInterrupt as stop:
        again = f"{PROGRAM} train {options.recipe} --resume {shlex.quote(str(folder))}"
        for name, value in choices.items():
            option = f" --{'compile' if name == 'compiled' else name.replace('_', '-')}"
            if value is not None:
                again += option if value is True else f"{option} {shlex.quote(str(value))}"
        raise KeyboardInterrupt(f"{str(stop) or 'Stopped.'}\nTo go on: {again}") from None


def cost(options: argparse.Namespace) -> None:
    """Prints what training a video model would take, without building it."""
    from sora_edu.scale import CHIPS, VIDEO_SIZES, plan, training_days, training_flops

    for name, known in (("config", VIDEO_SIZES), ("chip", CHIPS)):
        if getattr(options, name) not in known:
            raise ValueError(f"{name}={getattr(options, name)!r} is unknown; use one of: {', '.join(known)}")
    chip = CHIPS[options.chip]
    made = plan(
        VIDEO_SIZES[options.config], options.frames, options.height, options.width,
        chip=chip, devices=options.devices, stage=options.stage,
        checkpointing=not options.no_checkpointing, batch=options.batch,
    )  # fmt: skip
    flops = training_flops(made.macs, options.batch, 1)
    seconds = 86400 * training_days(flops, chip.peak, 1, options.mfu)
    print(f"weights          {made.parameters / 1e6:,.1f} M")
    print(f"tokens of a clip {made.tokens:,}")
    print(f"one evaluation   {made.macs / 1e9:,.1f} billion MACs")
    print(f"a training step  {flops:.2e} FLOPs on each device, {seconds:.2f} s")
    print(
        f"memory of each   {made.memory / 1e9:.1f} GB of {chip.memory / 1e9:.0f}: states "
        f"{made.states / 1e9:.1f}, activations {made.activations / 1e9:.1f}; buffers come on top"
    )


def progress(options: argparse.Namespace) -> None:
    """Prints which exercises have passed, and the next one."""
    from sora_edu.teach.progress import progress

    table = progress(reset=options.reset)
    print((table.next or table.summary) if options.next else table)


class _Bar:
    """A progress bar that stays away where nobody would see it move, and that learns its length late."""

    def __init__(self, title: str, unit: str, total: int | None = None):
        from tqdm import tqdm

        self.bar = tqdm(desc=title, unit=unit, total=total, disable=None, leave=False)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def to(self, done: int, total: int) -> None:
        """Sets the bar to `done` of `total`."""
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def on(self, count: int, note: str) -> None:
        """Moves the bar on by `count`."""
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(count)


# ---- Options -----------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Make clips from prompts, train the models, measure them; your progress.",
        epilog=EPILOG, allow_abbrev=False,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_generate, _add_train, _add_evaluate, _add_cost, _add_progress):
        add(commands)
    return parser


def _add(commands, name: str, command, description: str, example: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"Example: {PROGRAM} {example}",
        allow_abbrev=False,
    )
    parser.set_defaults(command=command)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    """What `generate` and `evaluate` share."""
    parser.add_argument(
        "--checkpoint", metavar="NAME", default="tiny", help="a name that ships, or a folder (default: tiny)"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps from noise to clip (default: the checkpoint's)"
    )
    parser.add_argument(
        "--guidance", type=float, metavar="S",
        help="how far to lean towards the prompt: 1 is plain, 0 ignores it (default: the checkpoint's)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="picks the random numbers: same seed, same result (default: 0)",
    )  # fmt: skip


def _add_generate(commands) -> None:
    parser = _add(
        commands, "generate", generate, "Write a clip for a prompt.",
        'generate "a red star bounces" --out star.mp4',
    )  # fmt: skip
    parser.add_argument("prompt", metavar="PROMPT", help='what is to be seen, such as "a red star bounces"')
    parser.add_argument(
        "--out", type=Path, default=Path("clip.mp4"), metavar="FILE",
        help="where to: .mp4, .gif, or .png, animated; a file there is replaced (default: clip.mp4)",
    )  # fmt: skip
    parser.add_argument(
        "--num", type=int, default=1, metavar="N",
        help="how many clips, with seeds from --seed on, which are put into the files' names (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--task", default="text_to_video", metavar="TASK",
        help="what to do; an unknown name lists the tasks (default: text_to_video)",
    )  # fmt: skip
    parser.add_argument(
        "--given", nargs="+", metavar="FILE",
        help="a picture or clip to start from, as --task needs it: the first frame to animate, the frames to "
        "extend, two clips to connect, a whole clip to inpaint or edit",
    )  # fmt: skip
    parser.add_argument(
        "--region", nargs=4, type=int, metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"),
        help="for inpaint: the box to generate, in pixels",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=float, metavar="T",
        help="for edit: the time at which sampling starts, from near 0, all stays, to 1, all is new",
    )  # fmt: skip
    for name, value, text in (
        ("frames", 17, "length: 1, 5, 9, ..., always 1 + 4k; 8 frames are a second"),
        ("height", 64, "in pixels, a multiple of 16"),
        ("width", 64, "in pixels, a multiple of 16"),
        ("scale", 4, "screen pixels for each pixel, each way"),
    ):
        text = f"{text} (default: {value})"
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=text)
    _add_model(parser)


def _add_train(commands) -> None:
    parser = _add(
        commands, "train", train,
        "Train a model by a recipe. Ctrl-C stops it and says how to go on.", "train text --out runs/text",
    )  # fmt: skip
    parser.add_argument(
        "recipe", metavar="RECIPE",
        help="autoencoder, text, or tiny: all stages in order, which takes hours; clip, which learns to "
        "match clips and prompts; or full-size, which also runs on many processes: torchrun "
        "--nproc-per-node N -m sora_edu train full-size ...",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/RECIPE)")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in this folder")
    parser.add_argument(
        "--start", type=Path, metavar="DIR",
        help="for tiny: a checkpoint to go on from, with fresh optimisers",
    )  # fmt: skip
    for name, text in (
        ("steps", "steps of the last stage"),
        ("batch", "examples in each of them, on all processes together"),
        (
            "clips",
            "for tiny, clip, and full-size without --data: clips of the toy world, encoded beforehand",
        ),
        ("frames", "for full-size: most frames of a clip of a video"),
        ("side", "for full-size: side in pixels of the largest square frame; others have no more pixels"),
        ("save-every", "for full-size: steps between checkpoints"),
        (
            "accumulate",
            "for full-size: passes in which a process takes its share of a batch, to save memory",
        ),
    ):
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text} (default: the recipe's)")
    parser.add_argument(
        "--config", metavar="NAME", help="for full-size: toy, tiny, S, B, L, XL or full (default: full)"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="for full-size: a folder of videos or of latents (default: clips of the toy world)",
    )  # fmt: skip
    parser.add_argument(
        "--encoders", metavar="NAME",
        help="for full-size: what encodes videos: tiny, which knows the toy world's words alone, or "
        "released, which is downloaded (default: tiny)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpointing", action="store_true",
        help="for full-size: blocks keep their input alone, and run again in the backward pass",
    )  # fmt: skip
    parser.add_argument(
        "--compile", action="store_true", dest="compiled",
        help="for tiny and full-size: compile the DiT's blocks, which then run faster",
    )  # fmt: skip


def _add_evaluate(commands) -> None:
    parser = _add(
        commands, "evaluate", evaluate, "Measure a checkpoint and print a table.",
        "evaluate --n 256 --json report.json",
    )  # fmt: skip
    parser.add_argument("--n", type=int, default=256, metavar="N", help="clips for each split (default: 256)")
    parser.add_argument(
        "--splits", nargs="+", metavar="SPLIT",
        help="some of seen, held_out, digits, cameras, two_objects (default: all)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="clips made at once (default: 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure to this file")
    _add_model(parser)


def _add_cost(commands) -> None:
    parser = _add(
        commands, "cost", cost, "Print what training a video model would take: weights, work, memory.",
        "cost full --frames 49 --height 480 --width 720 --devices 64",
    )  # fmt: skip
    parser.add_argument("config", metavar="CONFIG", help="S, B, L, XL or full")
    parser.add_argument("--chip", default="H100", metavar="NAME", help="what it runs on (default: H100)")
    parser.add_argument(
        "--mfu", type=float, default=0.4, metavar="SHARE",
        help="share of the chip's peak that is reached: an assumption (default: 0.4)",
    )  # fmt: skip
    for name, value, text in (
        ("frames", 17, "length: 1, 5, 9, ..., always 1 + 4k"),
        ("height", 64, "in pixels, a multiple of 16"),
        ("width", 64, "in pixels, a multiple of 16"),
        ("batch", 1, "clips on each device"),
        ("devices", 1, "how many share the states"),
        ("stage", 3, "what they share: 0 nothing, 1 the optimiser, 2 gradients as well, 3 weights as well"),
    ):
        text = f"{text} (default: {value})"
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=text)
    parser.add_argument(
        "--no-checkpointing", action="store_true", help="keep all activations instead of a block's input"
    )


def _add_progress(commands) -> None:
    parser = _add(
        commands, "progress", progress, "Print how far you have come in the exercises, and what is next.",
        "progress --next",
    )  # fmt: skip
    parser.add_argument("--next", action="store_true", help="one line: where to go on")
    parser.add_argument("--reset", action="store_true", help="start again; the old file is kept")


if __name__ == "__main__":
    sys.exit(main())
