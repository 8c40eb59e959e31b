"""Generation and training as jobs of a real Slurm, where its Debian packages are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_jobs_of_slurm() -> None:
    pytest.importorskip("dask_jobqueue")
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "slurm.py"), "-n", "20000", "--seconds", "15"],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": path},
        check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same events, byte for byte" in done.stdout
    assert "learned 20,000 events" in done.stdout
