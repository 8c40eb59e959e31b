"""Tries damaged files one after another; a process of its own, which may end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import time
from typing import Any

import torch
from typer.testing import CliRunner

from hepgen_ml.cli import app

MEMORY = 1 << 30
"""Bytes that one input may need beyond what the process has."""


def tried(arguments: list[str], runner: CliRunner) -> dict[str, Any]:
    """Run one command in this process; its exit code, last words and needs."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet):
        result = runner.invoke(app, arguments)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    said = (result.stderr or result.output).strip().splitlines()
    foreign = result.exception is not None and not isinstance(result.exception, SystemExit)
    return {
        "code": 70 if foreign else result.exit_code,
        "said": repr(result.exception) if foreign else (said[-1] if said else "")[:400],
        "seconds": time.monotonic() - start,
        "memory": grown,
    }


def main() -> None:
    """Commands as JSON lines in, results as JSON lines out."""
    torch.set_num_threads(1)
    # libraries print, too
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runner = CliRunner()
    for line in sys.stdin:
        answers.write(json.dumps(tried(json.loads(line), runner)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
