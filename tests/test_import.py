"""Importing the package and asking for help load no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hepgen_ml

from .samples import toy_top_pairs

HEAVY = ("torch", "numba", "uproot", "pyhepmc", "pylhe", "awkward", "matplotlib", "particle")

REPORT = """
import atexit, sys

def report():
    print("loaded:", *[name for name in {} if name in sys.modules], file=sys.stderr)

atexit.register(report)
"""
HELP = "sys.argv = ['hepgen-ml', *{}]; from hepgen_ml.cli import main; main()"


def loaded_after(code: str, names: tuple[str, ...] = HEAVY) -> set[str]:
    """Those of some modules that a fresh interpreter has loaded after running `code`."""
    command = [sys.executable, "-c", REPORT.format(names) + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("loaded:")[2].split())


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
    assert "torch" not in loaded_after(HELP.format(["models"]))


# Of the libraries that are installed, some take longer to load than a thousand events to make.
NOT_TO_GENERATE = (
    "sympy", "awkward", "vector", "pandas", "sklearn", "torch._dynamo", "torch._inductor",
    "matplotlib", "uproot", "pyhepmc", "pylhe", "scipy.stats",
)  # fmt: skip


def test_events_in_text_need_few_libraries(tmp_path: Path) -> None:
    words = ["generate", "--model", "ttbar01j", "-n", "100", "--workers", "1", "--out"]
    code = HELP.format([*words, str(tmp_path / "events.lhe")])
    assert loaded_after(code, NOT_TO_GENERATE) == set()
    assert (tmp_path / "events.lhe").is_file()


WRITE = "import hepgen_ml; from tests.samples import toy_top_pairs; hepgen_ml.write({}, {!r}); "
LOOP = (
    "import awkward, numba; assert numba.njit(lambda x: x[1])(awkward.Array([[1], [2, 3]]))[1] == 3"
)


def test_numba_still_finds_the_extensions_of_others(tmp_path: Path) -> None:
    """Our compiled functions put them off, nothing else."""
    write = WRITE.format("toy_top_pairs(3)", str(tmp_path / "few.lhe"))
    assert loaded_after(write, ("numba", "awkward")) == {"numba"}
    write = WRITE.format("toy_top_pairs(3)", str(tmp_path / "more.lhe"))
    assert loaded_after(write + LOOP, ("numba", "awkward")) == {"numba", "awkward"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = hepgen_ml.nonsense
