"""Makes the package print each message of `docs/errors.md`, without the type checks of the tests.

    python tests/shown_errors.py

prints a JSON object: the name in the page's comment `shown by` -> what is printed. `test_errors.py` compares.
"""

import builtins
import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parent.parent
SHOWN: dict[str, Callable[[], object]] = {}
"""By name: something that prints the message, returns it, or raises the error."""


def shown(function: Callable[[], object]) -> Callable[[], object]:
    """Registers a function under its own name."""
    SHOWN[function.__name__] = function
    return function


def words(function: Callable[[], object]) -> str:
    """What a person sees: the output, then the result if it is text, or the last lines of a traceback."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            result = function()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
    return out.getvalue() + ("" if result is None else str(result))


def without(name: str) -> contextlib.AbstractContextManager:
    """A world in which a module cannot be imported."""
    real = builtins.__import__

    def guarded(wanted, *args, **kwargs):
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(wanted, *args, **kwargs)

    return mock.patch.object(builtins, "__import__", guarded)


def command(*arguments: str, **variables: str) -> str:
    """What a command prints."""
    environment = {**os.environ, **variables}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


# ---- Setting up --------------------------------------------------------------------------------------------


def setup_tool():
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@shown
def no_python():
    return command("make", "-s", "setup", "PYTHON=/nowhere/python3")


@shown
def old_python():
    tool = setup_tool()
    with mock.patch.object(tool, "OLDEST_PYTHON", (9, 0)):
        tool.main()


@shown
def no_venv():
    tool = setup_tool()
    with without("ensurepip"), mock.patch.object(tool, "read_stamp", dict):
        try:
            tool.create_environment()
        except tool.SetupError as error:
            return f"The set-up stopped: {error}"


@shown
def disk_too_small():
    tool = setup_tool()
    try:
        tool.check_disk(10**6)
    except tool.SetupError as error:
        return f"The set-up stopped: {error}"


def _advice(said: str) -> str:
    return f"The set-up stopped: {setup_tool().advice(said)}"


@shown
def disk_full():
    return _advice("OSError: [Errno 28] No space left on device")


@shown
def no_permission():
    return _advice("PermissionError: [Errno 13] Permission denied: '/opt/course/.venv'")


@shown
def no_network():
    return _advice("ERROR: Could not find a version that satisfies the requirement torch")


@shown
def torch_from_nowhere():
    tool = setup_tool()
    try:
        tool.torch_source("gpu")
    except tool.SetupError as error:
        return f"The set-up stopped: {error}"


# ---- Kernel and imports ------------------------------------------------------------------------------------


@shown
def wrong_kernel():
    return command(sys.executable, "-I", "-S", "-c", "import sora_edu")


@shown
def cell_not_run():
    return eval("attend")


@shown
def kernel_died():
    """JupyterLab's own words, from the script that it serves."""
    import jupyterlab

    said = "The kernel for %1 appears to have died. It will restart automatically."
    scripts = (Path(jupyterlab.__file__).parent / "static").glob("jlab_core*.js")
    return said.replace("%1", "07.ipynb") if any(said in path.read_text() for path in scripts) else "gone"


@shown
def no_av():
    import numpy as np

    from sora_edu.clips import Clip

    clip = Clip(np.zeros((5, 32, 32, 3), dtype=np.uint8), "a red star bounces", 0)
    with without("av"), tempfile.TemporaryDirectory() as folder:
        clip.save(Path(folder) / "clip.mp4")


@shown
def no_hub():
    from sora_edu.dit import DiT

    with without("huggingface_hub"):
        DiT.from_pretrained("facebook/DiT-XL-2-256")


# ---- Exercises and progress --------------------------------------------------------------------------------


def _check(name: str, mine: object) -> str:
    from sora_edu.teach import check

    return repr(check(name, mine))


@shown
def forgotten_return():
    def causal_mask(length, past=0):
        torch.ones(length, past + length).tril(past).bool()

    return _check("attention.causal_mask", causal_mask)


@shown
def called_too_early():
    return _check("attention.causal_mask", torch.ones(3, 3).tril().bool())


@shown
def wrong_shape():
    return _check("attention.causal_mask", lambda length, past=0: torch.ones(length, length).tril().bool())


@shown
def input_changed():
    def residual(x, layer, norm, pre=True):
        out = x + layer(norm(x)) if pre else norm(x + layer(x))
        x.zero_()
        return out

    return _check("transformer.residual", residual)


@shown
def the_courses_answer():
    from sora_edu.attention import causal_mask

    return _check("attention.causal_mask", causal_mask)


@shown
def unknown_exercise():
    return _check("attention.masks", None)


@shown
def damaged_progress():
    from sora_edu.teach.progress import recall, state_folder

    state_folder().mkdir(parents=True, exist_ok=True)
    (state_folder() / "progress.json").write_text("{")
    recall("attention.attend")


# ---- Prompts, clips, checkpoints ---------------------------------------------------------------------------


def _sora_edu(*arguments: str) -> None:
    from sora_edu.__main__ import main

    main(list(arguments))


def _generate(*arguments: str) -> None:
    with contextlib.chdir(tempfile.gettempdir()):
        _sora_edu("generate", *arguments)


@shown
def unknown_word():
    from sora_edu.data.world import parse

    parse("a purpel cat falls")


@shown
def wrong_length():
    return _generate("a red star bounces", "--frames", "16")


@shown
def untrained_size():
    return _generate("a red star bounces", "--frames", "401")


@shown
def unknown_task():
    return _generate("a red star bounces", "--task", "sing")


@shown
def unknown_ending():
    return _generate("a red star bounces", "--out", "clip.avi")


@shown
def no_folder():
    return _generate("a red star bounces", "--out", "films/clip.mp4")


@shown
def unknown_checkpoint():
    from sora_edu.sora import Sora

    Sora.from_pretrained("huge")


def _broken_checkpoint(content: bytes):
    from sora_edu.assets import data_path
    from sora_edu.sora import Sora

    with tempfile.TemporaryDirectory() as folder:
        for path in data_path("checkpoints", "tiny").iterdir():
            (Path(folder) / path.name).write_bytes(path.read_bytes() if path.suffix == ".json" else content)
        Sora.from_pretrained(folder)


@shown
def lfs_pointer():
    _broken_checkpoint(b"version https://git-lfs.github.com/spec/v1\n")


@shown
def stale_checkpoint():
    _broken_checkpoint(b"weights of another day")


@shown
def other_settings():
    from sora_edu.train.loop import LoopConfig, Run

    with tempfile.TemporaryDirectory() as folder:
        Run(torch.nn.Linear(2, 2), LoopConfig(steps=3), Path(folder)).save()
        Run(torch.nn.Linear(2, 2), LoopConfig(steps=5), Path(folder)).resume()


@shown
def loss_is_nan():
    from sora_edu.train.loop import LoopConfig, Run

    with tempfile.TemporaryDirectory() as folder:
        model = torch.nn.Linear(2, 2)
        run = Run(model, LoopConfig(steps=3), Path(folder))
        run.train(lambda *_: model(torch.ones(1, 2)).sum() * float("nan"))


# ---- Shapes, chapter by chapter ----------------------------------------------------------------------------


@shown
def time_out_of_range():
    from sora_edu.diffusion import flow_levels

    flow_levels(torch.tensor([250.0]))


@shown
def eps_at_pure_noise():
    from sora_edu.diffusion import clean_from

    clean_from(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1), torch.ones(1), "eps")


@shown
def odd_width():
    from sora_edu.positions import sinusoidal

    sinusoidal(10, 5)


@shown
def beyond_the_table():
    from sora_edu.positions import LearnedPositions

    LearnedPositions((16,), 8)(20)


@shown
def heads_do_not_divide():
    from sora_edu.attention import SelfAttention

    SelfAttention(100, 8)


@shown
def mask_of_numbers():
    from sora_edu.attention import scaled_dot_product

    x = torch.zeros(1, 3, 4)
    scaled_dot_product(x, x, x, torch.zeros(3, 3))


@shown
def too_many_tokens():
    from sora_edu.transformer import GPT, GPTConfig

    model = GPT(GPTConfig(vocabulary=10, context=8, width=8, heads=2, depth=1))
    model(torch.zeros(1, 9, dtype=torch.long))


@shown
def torch_shapes():
    return torch.zeros(2, 3) @ torch.zeros(4, 2)


@shown
def patches_do_not_divide():
    from sora_edu.patches import patchify

    patchify(torch.zeros(1, 3, 28, 30), 8)


@shown
def class_out_of_range():
    from sora_edu.dit import DiT, DiTConfig

    model = DiT(DiTConfig(size=(8, 8), patch=2, channels=4, width=32, depth=1, heads=2, classes=10))
    model(torch.zeros(1, 4, 8, 8), torch.zeros(1), torch.tensor([12]))


@shown
def frames_of_the_autoencoder():
    from sora_edu.autoencoder import fold_frames

    fold_frames(torch.zeros(1, 3, 16, 32, 32))


@shown
def clip_longer_than_a_row():
    from sora_edu.patches import first_fit

    first_fit([80, 130], 100)


@shown
def latents_of_another_model():
    from sora_edu.video_dit import VideoDiT, VideoDiTConfig

    model = VideoDiT(VideoDiTConfig(width=48, depth=1, heads=2))
    model(torch.zeros(1, 4, 5, 8, 8), torch.zeros(1), torch.zeros(1, 3, 192))


@shown
def mfu_in_per_cent():
    _sora_edu("cost", "S", "--mfu", "40")


@shown
def does_not_fit():
    _sora_edu("cost", "full", "--frames", "1001", "--height", "720", "--width", "1280")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["SORA_EDU_HOME"] = home
        print(json.dumps({name: words(function) for name, function in SHOWN.items()}, indent=1))
