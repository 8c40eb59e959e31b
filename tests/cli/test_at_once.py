"""Two runs with one output, in two processes: one wins, whole, and the other says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hepgen_ml.events.formats import read, write
from hepgen_ml.files.directories import is_unfinished
from hepgen_ml.generation.generator import Generator
from tests.kills import TRAINING


def both(*arguments: object) -> list[str]:
    """Errors of the two; one ends with exit code 0, the other with 6."""
    command = [sys.executable, "-m", "hepgen_ml", *map(str, arguments)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate(timeout=600)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 6], errors
    return [text for run, text in zip(runs, errors, strict=True) if run.returncode == 6]


def test_two_of_generate(tmp_path: Path) -> None:
    out = tmp_path / "events.lhe.gz"
    (error,) = both("generate", "--model", "ttbar01j", "-n", 2000, "--out", out)
    assert f"error: {out}: " in error
    assert "Traceback" not in error
    assert len(read(out)) == 2000
    assert not [p for p in tmp_path.iterdir() if is_unfinished(p.name)]


@pytest.mark.slow
def test_two_of_train(tmp_path: Path) -> None:
    sample, model = tmp_path / "sample.lhe.gz", tmp_path / "model"
    write(Generator.load("ttbar01j").sample(1000, seed=1), sample)
    settings = [word for setting in TRAINING for word in ("--set", setting)]
    (error,) = both("train", sample, "--out", model, *settings)
    assert f"error: {model}" in error
    assert "Traceback" not in error
    assert len(Generator.load(model).sample(10)) == 10
    assert not [p for p in model.iterdir() if is_unfinished(p.name)]
