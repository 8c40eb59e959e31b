"""Configuration of the documentation site; `make docs` builds it.

The source directory is the root of the repository, so that links between the pages, the
benchmarks and the examples are the same here and in the repository's web view.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

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
html_static_path: list[str] = []
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


def setup(app: Sphinx) -> None:
    """Connect what changes docstrings."""
    app.connect("autodoc-process-docstring", _escape_bars)
