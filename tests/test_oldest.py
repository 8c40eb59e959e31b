"""The oldest dependencies that are allowed, see `tests/oldest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("oldest.py")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    # the environment that is made has its own packages
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_every_dependency_has_a_lower_bound() -> None:
    done = run("--environment", "none", "--list")
    names = [line.partition("==")[0] for line in done.stdout.splitlines()]
    assert {"numpy", "uproot", "pydantic", "typer", "pyhepmc"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_oldest_dependencies(tmp_path: Path) -> None:
    """Takes ten minutes and the package index."""
    done = run("--environment", tmp_path / "oldest")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
