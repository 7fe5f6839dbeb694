"""Settings of Sphinx for the course's site. `tools/build_site.py` gathers the pages and calls it."""

import sys
from pathlib import Path

import sora_edu

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent.parent / "tools")]  # for the extension below

project = "sora_edu"
author = "the authors of sora_edu"
copyright = "the authors of sora_edu. Prose and figures CC BY 4.0, code MIT"
release = version = sora_edu.__version__
language = "en-GB"

extensions = ["myst_nb", "sphinx.ext.autodoc", "course"]
templates_path = ["templates"]
exclude_patterns = ["**/.ipynb_checkpoints"]

# Notebooks come with their outputs, and none holds a widget that would need a script.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_update_mathjax = False

# Docstrings are in Google's style, with single backticks for code and shapes.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "ignore-module-all": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# A reference that nothing answers is an error, but for what other libraries own.
nitpick_ignore_regex = [
    (
        "py:class",
        r"(torch|jaxtyping|ipywidgets|collections|concurrent|pathlib|numpy|nbformat|matplotlib|random)\..*"
        r"|contextlib\..*|Tensor|Module|ndarray|tuple\[int"
        r"|sora_edu\.train\.distributed\.Result",  # a type variable
    ),
    ("py:exc", "[A-Za-z]+Error"),
]

html_theme = "furo"
html_title = "sora_edu"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse to a page opened from disk
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {
        "color-brand-primary": "#00528a",
        "color-brand-content": "#00528a",
        "color-brand-visited": "#6b3f7a",
        "color-foreground-muted": "#54595f",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc4f2",
        "color-brand-content": "#7cc4f2",
        "color-brand-visited": "#d9a5cd",
        "color-foreground-muted": "#b3b8bf",
        "color-background-primary": "#15181c",
        "color-background-secondary": "#1b1f24",
    },
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
