"""Importing the package and asking for help load no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hepgen_ml

from .samples import toy_top_pairs

HEAVY = ("torch", "numba", "uproot", "pyhepmc", "pylhe", "awkward", "matplotlib", "particle")


REPORT = f"""
import atexit, sys

def report():
    print(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)

atexit.register(report)
"""
HELP = "sys.argv = ['hepgen-ml', *{}]; from hepgen_ml.cli import main; main()"


def loaded_after(code: str) -> set[str]:
    """Heavy modules that a fresh interpreter has loaded after running `code`."""
    command = [sys.executable, "-c", REPORT + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import hepgen_ml",
        "import hepgen_ml.events.formats, hepgen_ml.events.sample",
        HELP.format(["--help"]),
        HELP.format(["train", "-h"]),
        HELP.format(["validate", "-h"]),
    ],
)
def test_cheap(code: str) -> None:
    assert loaded_after(code) == set()


def test_files_are_described_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "few.lhe"
    hepgen_ml.write(toy_top_pairs(3), path)
    assert "torch" not in loaded_after(HELP.format(["info", str(path)]))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = hepgen_ml.nonsense
