"""Install the course as a wheel in a fresh environment, far from the repository, and use it there.

    python tools/try_wheel.py [FOLDER]

It is what the install cell of a Colab notebook does, and a Docker image of a hub: build the wheel, install it
with the course's pins, and run the first lines of chapter 00 and an exercise in an empty folder. Exit code 1:
something did not work. Takes some minutes and 2 GiB, in FOLDER (default: `_build/wheel`).
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USE = """
from pathlib import Path
import sora_edu
from sora_edu.sora import Sora
from sora_edu.teach import check, progress

assert "site-packages" in sora_edu.__file__, sora_edu.__file__
clip = Sora.from_pretrained("tiny").generate("a red star bounces")
print(clip, clip.save("clip.mp4"))
verdict = check("attention.causal_mask", lambda length, past=0: None)
assert verdict.stage == "not attempted"
print(progress().next)
"""


def run(*command: object, cwd: Path) -> None:
    """Runs a command and stops with its exit code if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean())
    if done.returncode:
        sys.exit(done.returncode)


def clean() -> dict[str, str]:
    """The environment without what would lead back to the repository."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "wheel").resolve()
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    run(sys.executable, "-m", "venv", "--clear", folder / "env", cwd=folder)
    python = folder / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=elsewhere)
    run(python, "-c", USE, cwd=elsewhere)
    run(python, "-m", "sora_edu", "generate", "a blue ring falls", "--out", "ring.gif", cwd=elsewhere)
    made = [elsewhere / name for name in ("clip.mp4", "ring.gif")]
    print("\n".join(f"{path}: {path.stat().st_size} bytes" for path in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
