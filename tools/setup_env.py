"""Make the course's own environment in `.venv`, or find at once that it is ready.

    python3.11 tools/setup_env.py

Needs Python 3.11 or newer and a package index, nothing else. `make` calls it before every command. What was
installed is remembered in `.venv/sora_edu_setup.json`, so nothing is installed again until `pyproject.toml`,
`constraints.txt` or the folder's own place change.

Environment variables:
    TORCH   where torch comes from. `cpu`: the smaller build without CUDA, from PyTorch's own index.
            `default`: whatever pip's usual index holds. Anything else: the address of an index.
            Unset: `cpu` on Linux without an NVIDIA GPU, `default` elsewhere.
    PYTHON  set by hand, it also renews an environment that another Python version made.
"""

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

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "sora_edu_setup.json"
LOG = VENV / "sora_edu_setup.log"
EXTRAS = "test"

OLDEST_PYTHON = (3, 11)
NEEDED_GIB = 2.5  # the environment takes 1.7 GiB, its downloads come on top
CUDA_GIB = 10.0  # the same with torch's CUDA build
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 5

# What pip says when it fails, in the order in which to look for it, and what a person can do about it.
NETWORK_SIGNS = (
    "connection broken",
    "connectionerror",
    "failed to establish a new connection",
    "name resolution",
    "timed out",
    "proxyerror",
    "sslerror",
    "could not fetch url",
    "could not find a version",
    "no matching distribution",
    "networkconnectionerror",
    "network is unreachable",
)
DISK_SIGNS = ("no space left on device", "errno 28", "disk quota exceeded", "errno 122")
PERMISSION_SIGNS = ("permission denied", "errno 13", "read-only file system", "errno 30")


class SetupError(Exception):
    """The set-up cannot go on. The message says what to do."""


def main() -> int:
    """Make the environment ready; return the exit code."""
    try:
        check_python()
        wanted = fingerprint()
        if read_stamp() == wanted:
            return 0
        make_ready(wanted)
    except SetupError as error:
        print(f"\nThe set-up stopped: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"\nThe set-up stopped: {advice(str(error)) or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nThe set-up was interrupted. Run the same command again: it goes on from here.", file=sys.stderr)
        return 130
    return 0


def check_python():
    """Refuse a Python that is too old."""
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"this is Python {sys.version.split()[0]} ({sys.executable}), and the course needs 3.11 or newer.\n"
            "  Install it from https://www.python.org/downloads/ and run the command again, or name the one\n"
            "  to use:  make lab PYTHON=/path/to/python3.11"
        )


def fingerprint():
    """What the environment is made from. Where any of it changes, the environment is out of date."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    # An environment holds absolute paths, so one that was moved or copied elsewhere is out of date as well.
    return {"inputs": digest.hexdigest(), "place": str(ROOT), "torch": os.environ.get("TORCH", "")}


def read_stamp():
    """What the environment was last made from, or None where it is missing, unfinished or the wrong one."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        version = stamp.pop("python")
    except (OSError, ValueError, KeyError):
        return None
    other_python = os.environ.get("PYTHON") and version != list(sys.version_info[:2])
    return None if other_python or not PYTHON.exists() else stamp


def make_ready(wanted):
    """Create the environment if need be, install into it, and write the stamp last of all."""
    began = time.monotonic()
    print(f"Setting up the course in {VENV}", flush=True)
    print("  This takes some minutes the first time, and is then ready at once.", flush=True)
    STAMP.unlink(missing_ok=True)
    source = torch_source()
    check_disk(CUDA_GIB if source == "default" and has_nvidia_gpu() else NEEDED_GIB)
    create_environment()
    install_torch(source)
    install("the course and its libraries", ["-e", f"{ROOT}[{EXTRAS}]"])
    STAMP.write_text(json.dumps({**wanted, "python": list(sys.version_info[:2])}), encoding="utf-8")
    print(f"  Ready after {time.monotonic() - began:.0f} s.\n", flush=True)


def check_disk(needed):
    """Refuse to start where the disk cannot hold the environment."""
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < needed and not PYTHON.exists():
        raise SetupError(
            f"the disk of {ROOT} has {free:.1f} GiB free, and the set-up needs about {needed:.1f}.\n"
            "  Make room, or move the course to a larger disk, and run the command again."
        )


def create_environment():
    """Create `.venv` with the Python that runs this script, unless a usable one is there."""
    if environment_is_usable():
        return
    try:
        import ensurepip
        import venv
    except ImportError:
        version = "{}.{}".format(*sys.version_info)
        raise SetupError(
            f"this Python ({sys.executable}) comes without its venv module.\n"
            f"  On Debian and Ubuntu:  sudo apt install python{version}-venv\n"
            "  Elsewhere: install Python from https://www.python.org/downloads/ , then run the command again."
        ) from None
    del ensurepip
    print(f"  Making an environment with Python {sys.version.split()[0]} ({sys.executable})", flush=True)
    try:
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(VENV)
    except subprocess.CalledProcessError as error:
        output = (error.output or b"").decode(errors="replace")
        reason = advice(output) or f"making the environment failed: {output.strip() or error}"
        raise SetupError(f"{reason}\n  Remove {VENV} before the next try.") from None


def environment_is_usable():
    """Whether `.venv` was made here, by this Python version, and still runs pip."""
    if not PYTHON.exists():
        return False
    question = "import sys, pip; print(sys.prefix, *sys.version_info[:2], sep='|')"
    answer = subprocess.run([str(PYTHON), "-c", question], capture_output=True, text=True, check=False)
    here = "|".join(map(str, (VENV, *sys.version_info[:2])))
    return answer.returncode == 0 and os.path.normcase(answer.stdout.strip()) == os.path.normcase(here)


def torch_source():
    """`cpu`, `default` or the address of an index: where torch is to come from."""
    chosen = os.environ.get("TORCH", "")
    if chosen:
        if chosen not in ("cpu", "default") and "://" not in chosen:
            raise SetupError(f"TORCH={chosen} is neither cpu, nor default, nor the address of a package index.")
        return chosen
    return "cpu" if sys.platform == "linux" and not has_nvidia_gpu() else "default"


def has_nvidia_gpu():
    """Whether the machine shows an NVIDIA driver."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def install_torch(source):
    """Install the pinned torch from the chosen index; from the usual one where that cannot be reached."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    if source == "cpu" and not reachable(CPU_INDEX):
        print(f"  {CPU_INDEX} cannot be reached: torch comes from the usual index,", flush=True)
        print("  which on Linux may hold the CUDA build, a download of several GiB.", flush=True)
        source = "default"
    address = {"cpu": CPU_INDEX, "default": ""}.get(source, source)
    if address:
        # Only torch itself comes from there, its dependencies have their pins and come from the usual index.
        install(f"{torch} from {address}", ["--no-deps", "--index-url", address, torch])
    else:
        install(torch, [torch])


def reachable(address):
    """Whether an index answers within a few seconds."""
    request = urllib.request.Request(address + "/torch/", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def install(what, arguments):
    """Run pip in the environment with the course's pins, one status line on the screen and all else in a log."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["-c", str(ROOT / "constraints.txt"), *arguments]
    print(f"  Installing {what}", flush=True)
    code, output = run_with_status(command)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{output}\n")
    if code:
        errors = [line for line in output.splitlines() if "error" in line.lower()]
        tail = "\n".join(f"    {line}" for line in (errors or output.splitlines())[-4:])
        reason = advice(output) or "pip could not install everything."
        raise SetupError(f"{reason}\n  pip said:\n{tail}\n  Its whole output is in {LOG}")


def run_with_status(command):
    """Run a command; show its latest line and the seconds on a terminal. Returns exit code and output."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=str(ROOT)
    )
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    began, output, latest, line = time.monotonic(), [], "", ""
    while line is not None:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            line = ""
        if line:
            output.append(line)
            latest = line.strip() or latest
        show_status(f"    {time.monotonic() - began:4.0f} s  {latest}")
    show_status("")
    return process.wait(), "".join(output)


def show_status(text):
    """Overwrite the terminal's current line; nothing where the output is no terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width) + "\r", end="", flush=True)


def advice(output):
    """What to do about a failure that printed `output`, or None where its cause is not known."""
    said = output.lower()
    if any(sign in said for sign in DISK_SIGNS):
        return "the disk is full.\n  Make room (the set-up needs about 2.5 GiB) and run the same command again."
    if any(sign in said for sign in PERMISSION_SIGNS):
        return f"no permission to write.\n  Move the course to a folder of your own ({ROOT} is not) and try again."
    if any(sign in said for sign in NETWORK_SIGNS):
        return (
            "the package index could not be reached, or lacks a package.\n"
            "  Check the network (behind a proxy: set HTTPS_PROXY; with a mirror: set PIP_INDEX_URL)\n"
            "  and run the same command again: it goes on from here."
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
