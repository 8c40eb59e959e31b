"""Runs that are killed at random moments, see `tests.kills`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def killed(verb: str, runs: int, seed: int) -> str:
    """What the campaign of one verb says, in a process of its own that has no threads."""
    arguments = ["--verb", verb, "--runs", str(runs), "--seed", str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("verb", ["generate", "train", "regress", "tag"])
def test_killed(verb: str) -> None:
    assert "2 runs, all in order" in killed(verb, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["generate", "train", "regress", "tag"])
def test_killed_often(verb: str) -> None:
    assert "12 runs, all in order" in killed(verb, 12, 2)
