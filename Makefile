# The course's commands. Each sets up its own environment in .venv first, which is quick once that is there.
# Every path is relative and quoted, so that the course may live in a folder with spaces in its name.

.DEFAULT_GOAL := help
.PHONY: help setup lab test nbgrader solutions video site slides

LAB_ARGS ?=
PROMPT ?=
OUT ?= clip.mp4
export PROMPT OUT

PY := .venv/bin/python

help:  ## List these commands
	@echo "make COMMAND, where COMMAND is one of"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-9s %s\n", $$1, $$2 }'
	@echo "Options: PYTHON=python3.11 (which Python makes the environment), TORCH=cpu|default|URL (where torch"
	@echo "comes from), OUT=clip.mp4 (for make video), LAB_ARGS=\"--no-browser --port 9999\" (for make lab)"

setup:  ## Make the environment in .venv, and nothing else
	@python="$(PYTHON)"; \
	for candidate in python3.11 python3.12 python3.13 python3 python; do \
	    [ -n "$$python" ] && break; \
	    "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python="$$candidate"; \
	done; \
	python="$${python:-python3}"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null || { \
	    echo "There is no working Python called $$python. The course needs 3.11 or newer: install it from" >&2; \
	    echo "https://www.python.org/downloads/ , or name yours:  make lab PYTHON=/path/to/python3.11" >&2; \
	    exit 2; }; \
	"$$python" tools/setup_env.py

lab: setup  ## Open JupyterLab at chapter 00
	@root=; [ "$$(id -u)" != 0 ] || root=--allow-root; \
	exec $(PY) -m jupyterlab $$root --ServerApp.root_dir=. \
	    --LabApp.default_url=/lab/tree/notebooks/00_from_prompt_to_video.ipynb $(LAB_ARGS)

# One run for everything, so that two notebooks or a notebook and the unit tests share the cores. A notebook's cells
# depend on each other: with loadscope they stay on one worker.
test: setup  ## Run every test: style, unit tests, notebooks as they ship, notebooks solved
	@$(PY) -m ruff check .
	@$(PY) -m pytest --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
	    --nbval-cell-timeout=600 -n 2 --dist loadscope tests notebooks

nbgrader: setup  ## Make the graded assignments, and take one through nbgrader and back
	@$(PY) -m sora_edu.teach.grading _build/nbgrader/assignments
	@$(PY) tools/nbgrader_round_trip.py

solutions: setup  ## Write all answers, for the instructor, to _build/solutions
	@$(PY) tools/instructor.py solutions

video:  ## Write a clip:  make video PROMPT="a red star bounces"
	@[ -n "$$PROMPT" ] || { echo 'Which clip? For example:  make video PROMPT="a red star bounces"' >&2; exit 2; }
	@$(MAKE) -s setup
	@$(PY) -m sora_edu generate "$$PROMPT" --out "$$OUT"

site: setup  ## Build the site of the course in _build/site
	@$(PY) tools/build_site.py

slides: setup  ## Build a deck of slides from each chapter in _build/slides
	@$(PY) tools/build_slides.py
