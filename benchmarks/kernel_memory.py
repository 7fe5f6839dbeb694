"""What one student needs: the peak memory and the processor's time of a kernel that runs each chapter.

    python benchmarks/kernel_memory.py                      all chapters, into benchmarks/kernel_memory.json
    python benchmarks/kernel_memory.py 03 07                two chapters; the others' figures stay
    python benchmarks/kernel_memory.py --page               measures nothing; writes them into the page

The figures go into the table of `docs/where_it_runs.md` as well.

Each chapter runs in a fresh kernel in two ways: as it ships, which is what a student does who runs every
cell, and with its exercises solved and its trainings skipped, which is what grading one submission takes.
The kernel itself says at the end how much resident memory it had at most and how many seconds of processor
time it used; that time depends little on what else the machine does. An idle kernel and the notebook server
are measured as well, since a student keeps both. Needs Linux, which counts such things in `/proc`.
"""

import argparse
import copy
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from sora_edu.files import write_whole
from sora_edu.teach.anatomy import ours
from sora_edu.teach.notebooks import execute, read, solved

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "kernel_memory.json"
PAGE = ROOT / "docs" / "where_it_runs.md"
MARKS = re.compile("<!-- measured -->.*<!-- /measured -->", re.DOTALL)

LAST_WORDS = """
import json as _json, os as _os, re as _re
_status = open("/proc/self/status").read()
_mib = round(int(_re.search(r"VmHWM:\\s+(\\d+)", _status)[1]) / 2**10)
print(_json.dumps({"mib": _mib, "cpu_s": round(sum(_os.times()[:2]), 1)}))
"""
"""A last cell, in which the kernel says what it took. (`ru_maxrss` counts what its parent held as well.)"""


def measured(notebook: nbformat.NotebookNode, folder: Path) -> dict[str, float]:
    """Runs a copy of a notebook and gives its kernel's `mib` and `cpu_s`."""
    asked = copy.deepcopy(notebook)
    asked.cells.append(nbformat.v4.new_code_cell(LAST_WORDS))
    execute(asked, folder, seconds=3600)
    (said,) = [output.text for output in asked.cells[-1].outputs if output.output_type == "stream"]
    return json.loads(said)


def server_mib() -> int:
    """Resident memory of a JupyterLab server that nobody has opened yet; needs Linux."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--ServerApp.token=x"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        next(line for line in server.stderr if "is running at" in line)
        status = Path(f"/proc/{server.pid}/status").read_text()
    finally:
        server.terminate()
        server.wait()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 2**10)


def table(report: dict) -> str:
    """The figures as a table, chapter by chapter; a dash where something is not measured yet."""
    lines = ["| chapter | peak memory | learning | share of a core | grading |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        taken = report["chapters"].get(path.stem, {})
        learning, grading = taken.get("learning"), taken.get("grading")
        times = ours(read(path))["times"]
        share = learning and learning["cpu_s"] / (60 * (times["reading"] + times["exercises"]))
        cells = (
            f"{max(way['mib'] for way in taken.values())} MiB" if taken else "–",
            f"{learning['cpu_s']:.0f} s" if learning else "–",
            f"{share:.1%}".replace("%", " %") if learning else "–",
            f"{grading['cpu_s']:.0f} s" if grading else "–",
        )
        lines.append(f"| {path.stem} | {' | '.join(cells)} |")
    idle = (
        f"An idle kernel holds {report['idle_kernel']['mib']} MiB, and the server {report['server_mib']} MiB."
    )
    missing = ["A dash: not measured yet."] if any("–" in line for line in lines) else []
    return "\n".join([*lines, "", idle, *missing])


def write_page(report: dict) -> None:
    """Puts the table between the marks of the page."""
    text = PAGE.read_text(encoding="utf-8")
    marked = re.sub(MARKS, lambda _: f"<!-- measured -->\n{table(report)}\n<!-- /measured -->", text)
    write_whole(PAGE, marked.encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)")
    parser.add_argument("--page", action="store_true", help="write what is measured into the page, and stop")
    options = parser.parse_args()
    if options.page:
        write_page(json.loads(OUT.read_text()))
        return 0
    found = {path.stem[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if unknown := set(options.chapters) - set(found):
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there is {', '.join(found)}")
    report = json.loads(OUT.read_text()) if OUT.exists() else {"chapters": {}}
    report["machine"] = f"{platform.system()}, Python {platform.python_version()}, threads " + os.environ.get(
        "OMP_NUM_THREADS", str(os.cpu_count())
    )
    empty = nbformat.v4.new_notebook()
    report["idle_kernel"] = measured(empty, ROOT)
    report["server_mib"] = server_mib()
    ways = {"learning": lambda notebook: notebook, "grading": solved}
    for way, made in ways.items():
        for path in (found[number] for number in options.chapters or found):
            taken = measured(made(read(path)), path.parent)
            report["chapters"].setdefault(path.stem, {})[way] = taken
            print(path.stem, way, taken, flush=True)
            write_whole(OUT, (json.dumps(report, indent=1, sort_keys=True) + "\n").encode())
            write_page(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
