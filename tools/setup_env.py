"""Make the course's own environment in `.venv`, or find at once that it is ready.

    python3.11 tools/setup_env.py

Needs Python 3.11 or newer and a package index, nothing else. `make` calls it before every command. What was
installed is remembered in `.venv/sora_edu_setup.json`, so nothing is installed again until `pyproject.toml`,
`constraints.txt` or the folder's own place change.

Environment variables:
    TORCH   where torch comes from. `cpu`: the smaller build without CUDA, from PyTorch's own index.
            `default`: whatever pip's usual index holds. Anything else: the address of an index.
            Unset: what was chosen before, or else `cpu` on Linux without an NVIDIA GPU, `default` elsewhere.
    PYTHON  set by hand, it replaces an environment that another Python version made.
"""

import contextlib
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

# Old Pythons must be able to read this file, to be told that they are too old: hence the plain annotations.

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "sora_edu_setup.json"
LOG = VENV / "sora_edu_setup.log"
INPUTS = ("pyproject.toml", "constraints.txt")

OLDEST_PYTHON = (3, 11)
NEEDED_GIB = 3.0  # the environment takes 2.2 GiB, its downloads come on top
NEEDED_GIB_CUDA = 10.0  # the same with torch's CUDA build
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 5

# What pip says, in lower case, when it fails for a reason that a person can do something about.
DISK_SIGNS = ("no space left on device", "errno 28", "disk quota exceeded", "errno 122")
PERMISSION_SIGNS = ("permission denied", "errno 13", "read-only file system", "errno 30")
NETWORK_SIGNS = (
    "connection broken",
    "connectionerror",
    "could not fetch url",
    "could not find a version",
    "establish a new connection",
    "name resolution",
    "network is unreachable",
    "no matching distribution",
    "proxyerror",
    "sslerror",
    "timed out",
)


class SetupError(Exception):
    """The set-up cannot go on. The message says what to do."""


def main() -> int:
    """Make the environment ready; return the exit code."""
    try:
        check_python()
        previous = read_stamp()
        wanted = fingerprint(previous)
        if previous != wanted or not PYTHON.exists():
            make_ready(previous, wanted)
    except SetupError as error:
        print(f"\nThe set-up stopped: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"\nThe set-up stopped: {advice(str(error)) or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nThe set-up was interrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def check_python() -> None:
    """Refuse a Python that is too old."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"this is Python {sys.version.split()[0]} ({sys.executable}); the course needs 3.11 or newer.\n"
            "  Install it from https://www.python.org/downloads/ and run the command again, or name the one\n"
            "  to use:  make lab PYTHON=/path/to/python3.11"
        )


def read_stamp() -> dict:
    """What the environment was last made from; empty where it is missing or unfinished."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def fingerprint(previous: dict) -> dict:
    """What the environment is to be made from. Choices that are not made now stay as they were."""
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in INPUTS))
    return {
        "inputs": digest.hexdigest(),
        "place": str(ROOT),  # the course is installed by its absolute path, which a move makes stale
        "torch": os.environ.get("TORCH") or previous.get("torch", ""),
        "python": running_version() if os.environ.get("PYTHON") else previous.get("python", ""),
    }


def running_version() -> str:
    """Version of the Python that runs this script, such as 3.11."""
    return "{}.{}".format(*sys.version_info)


def make_ready(previous: dict, wanted: dict) -> None:
    """Create the environment if need be, install into it, and write the stamp last of all."""
    source = torch_source(wanted["torch"])
    began = time.monotonic()
    print(f"Setting up the course in {VENV}", flush=True)
    print("  This takes some minutes the first time. Later it is ready at once.", flush=True)
    for leftover in (STAMP, LOG):
        leftover.unlink(missing_ok=True)
    if not environment_fits():
        check_disk(NEEDED_GIB_CUDA if source == "default" and has_nvidia_gpu() else NEEDED_GIB)
        create_environment()
    install_torch(source, again=previous.get("torch", wanted["torch"]) != wanted["torch"])
    install("the course and its libraries", ["-e", f"{ROOT}[test,site]"])
    STAMP.write_text(json.dumps({**wanted, "python": environment_version()}), encoding="utf-8")
    print(f"  Ready after {time.monotonic() - began:.0f} s.\n", flush=True)


def environment_fits() -> bool:
    """Whether `.venv` can be kept: it runs, and with the Python that was asked for, where one was."""
    version = environment_version()
    if os.environ.get("PYTHON"):
        return version == running_version()
    return version != "" and tuple(map(int, version.split("."))) >= OLDEST_PYTHON


def environment_version() -> str:
    """Python version of `.venv`, such as 3.11; empty where there is none that runs pip."""
    if not PYTHON.exists():
        return ""
    question = "import sys, pip; print('{}.{}'.format(*sys.version_info))"
    answer = subprocess.run([str(PYTHON), "-c", question], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def check_disk(needed: float) -> None:
    """Refuse to start where the disk cannot hold the environment."""
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < needed:
        raise SetupError(
            f"the disk of {ROOT} has {free:.1f} GiB free, and the set-up needs about {needed:.1f}.\n"
            "  Make room, or move the course to a larger disk, and run the command again."
        )


def create_environment() -> None:
    """Create `.venv` with the Python that runs this script."""
    try:
        import ensurepip  # noqa: F401  (Debian ships venv without it, and venv then fails half-way)
        import venv
    except ImportError:
        raise SetupError(
            f"this Python ({sys.executable}) comes without its venv module.\n"
            f"  On Debian and Ubuntu:  sudo apt install python{running_version()}-venv\n"
            "  Elsewhere: install Python from https://www.python.org/downloads/ , then run the command again."
        ) from None
    print(f"  Making an environment with Python {sys.version.split()[0]} ({sys.executable})", flush=True)
    try:
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(VENV)
    except subprocess.CalledProcessError as error:
        output = (error.output or b"").decode(errors="replace").strip()
        raise SetupError(advice(output) or f"the environment could not be made: {output or error}") from None


def torch_source(chosen: str) -> str:
    """`cpu`, `default` or the address of an index: where torch is to come from."""
    if not chosen:
        return "cpu" if sys.platform == "linux" and not has_nvidia_gpu() else "default"
    if chosen not in ("cpu", "default") and "://" not in chosen:
        raise SetupError(f"TORCH={chosen} is neither cpu, nor default, nor the address of a package index.")
    return chosen


def has_nvidia_gpu() -> bool:
    """Whether the machine shows an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def install_torch(source: str, again: bool) -> None:
    """Install the pinned torch from `source`; from pip's usual index where PyTorch's cannot be reached.

    pip takes one build of a version for another, so a changed choice has to be installed `again`.
    """
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    if source == "cpu" and not reachable(CPU_INDEX):
        print(f"  {CPU_INDEX} cannot be reached: torch comes from pip's usual index,", flush=True)
        print("  which for Linux may hold the CUDA build, a download of several GiB.", flush=True)
        source = "default"
    options = ["--force-reinstall", "--no-deps"] if again else []
    if source != "default":
        # Only torch itself comes from there: its dependencies follow from the usual index, with their pins.
        options = [*options, "--no-deps", "--index-url", CPU_INDEX if source == "cpu" else source]
    install(torch, [*options, torch])


def reachable(address: str) -> bool:
    """Whether an index answers within a few seconds."""
    request = urllib.request.Request(address + "/torch/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def install(what: str, arguments: list) -> None:
    """Run pip in the environment with the course's pins: a status line on the screen, all else in a log."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["-c", str(ROOT / "constraints.txt"), *arguments]
    print(f"  Installing {what}", flush=True)
    code, output = run_with_status(command)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{output}\n")
    if code:
        last_words = "".join(f"\n    {line}" for line in output.splitlines()[-4:])
        reason = advice(output) or f"pip could not install everything. It ended with{last_words}"
        raise SetupError(f"{reason}\n  What pip said is in {LOG}")


def run_with_status(command: list) -> tuple:
    """Run a command; on a terminal, show its latest line and the seconds. Returns exit code and output."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=str(ROOT),
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # so that a line is seen when it is written
    )
    lines = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    began, output, latest = time.monotonic(), [], ""
    while not output or output[-1]:
        with contextlib.suppress(queue.Empty):  # while pip is busy, only the seconds change
            output.append(lines.get(timeout=1))
            latest = output[-1].strip() or latest
        show_status(f"    {time.monotonic() - began:4.0f} s  {latest}")
    show_status("")
    return process.wait(), "".join(output)


def show_status(text: str) -> None:
    """Overwrite the terminal's current line; nothing where the output is no terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width) + "\r", end="", flush=True)


def advice(output: str) -> str:
    """What to do about a failure that printed `output`; empty where its cause is not known."""
    said = output.lower()
    if any(sign in said for sign in DISK_SIGNS):
        return (
            "the disk is full.\n"
            f"  Make room (the set-up needs about {NEEDED_GIB} GiB, some of it in the temporary folder,\n"
            "  which TMPDIR can move) and run the same command again."
        )
    if any(sign in said for sign in PERMISSION_SIGNS):
        return (
            f"no permission to write, in {ROOT} or in pip's own folders.\n"
            "  Move the course to a folder of your own and run the same command there."
        )
    if any(sign in said for sign in NETWORK_SIGNS):
        return (
            "the package index could not be reached, or lacks a package.\n"
            "  Check the network (behind a proxy: set HTTPS_PROXY; with a mirror: set PIP_INDEX_URL)\n"
            "  and run the same command again: it goes on from here."
        )
    return ""


if __name__ == "__main__":
    sys.exit(main())
