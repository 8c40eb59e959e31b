"""Configuration of the documentation site; `make docs` builds it.

The source directory is the root of the repository, so that links between the pages, the
benchmarks and the examples are the same here and in the repository's web view.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "docs" / "_ext")]

project = "hepgen-ml"
author = "The hepgen-ml developers"
copyright = "The hepgen-ml developers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "options_and_settings",
]

root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build", "dist", "demo", "hepgen_ml", "adapters", "tests"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # the changelog repeats its headings in every version
    "ref.python",  # words of types in docstrings that are names of several attributes
]

default_role = "code"
smartquotes = False  # options begin with two hyphens
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # NumPy docstrings state types, shapes and units
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "hepgen-ml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


def _escape_bars(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep |x| in docstrings an absolute value; it would be a substitution."""
    lines[:] = [line if ":math:" in line else line.replace("|", r"\|") for line in lines]


def _one_field_per_name(
    app: object, what: str, where: str, obj: object, options: object, lines: list[str]
) -> None:
    """Separate attributes that a docstring describes together, as ``low, high : float``."""
    separate: list[str] = []
    names: list[str] = []
    for line in lines:
        if field := re.match(r":ivar (\w+(?:, \w+)+):", line):
            names, start = field[1].split(", "), len(separate)
        separate.append(line)
        if names and line.startswith(":vartype "):
            block, both = separate[start:], ", ".join(names)
            separate[start:] = [
                part.replace(f" {both}:", f" {name}:", 1) for name in names for part in block
            ]
            names = []
    lines[:] = separate


def _dashes(app: object, tree: nodes.document, name: str) -> None:
    """Write the separator of parameters and their meaning as a dash, which quotes leave alone."""
    for text in tree.findall(lambda node: isinstance(node, nodes.Text) and node == " -- "):
        text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    """Connect what changes docstrings."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("autodoc-process-docstring", _one_field_per_name, priority=900)
    app.connect("doctree-resolved", _dashes)
