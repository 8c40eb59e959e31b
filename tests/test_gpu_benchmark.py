"""The benchmark for GPUs, on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hepgen_ml import Generator
from hepgen_ml.training.encoded import encode_sample
from tests.samples import toy_top_pairs
from tests.test_examples import EXAMPLES, example

BENCHMARK = EXAMPLES.parent / "benchmarks" / "gpu.py"


def run(sample: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(BENCHMARK), str(sample), "--out", str(out), "--device", "cpu",
         "--quick", *options],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_all_figures_and_a_model(tmp_path: Path) -> None:
    sample, out = tmp_path / "sample.safetensors", tmp_path / "out"
    encode_sample(toy_top_pairs(2000)).save(sample)
    done = run(sample, out)
    assert done.returncode == 0, done.stdout
    results = json.loads((out / "results.json").read_text())
    assert {name: part["ended"] for name, part in results["parts"].items()} == dict.fromkeys(
        ("equality", "lgatr", "jetgpt", "flow", "train"), "well"
    )
    figures = {f["name"]: f["value"] for p in results["parts"].values() for f in p["figures"]}
    assert figures["lgatr-cfm: deviation of gradients from the CPU"] < 1e-6
    assert all(value > 0 for name, value in figures.items() if "deviation" not in name)
    table = (out / "results.md").read_text()
    assert all(f"| {name} |" in table for name in figures)
    assert len(Generator.load(out / "lgatr-cfm", device="cpu").sample(50, seed=1)) == 50


@pytest.mark.slow
def test_a_part_that_fails_costs_its_own_figures(tmp_path: Path) -> None:
    sample, out = tmp_path / "sample.safetensors", tmp_path / "out"
    sample.write_bytes(b"no sample")
    done = run(sample, out, "--parts", "jetgpt,lgatr")
    assert done.returncode == 1
    parts = json.loads((out / "results.json").read_text())["parts"]
    assert parts["jetgpt"]["ended"] == "with exit code 1"
    assert parts["lgatr"]["ended"] == "well"
    assert parts["lgatr"]["figures"]
    assert "part `jetgpt`" in (out / "results.md").read_text()
    assert run(sample, out, "--parts", "nothing").returncode == 2


def test_limits_of_a_quick_run_are_processor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting, as for a busy machine, costs nothing."""
    gpu = example("../benchmarks/gpu.py")
    monkeypatch.setattr(gpu, "QUICK", 1)
    with (tmp_path / "log").open("w") as log:
        waits = [sys.executable, "-S", "-c", "import time; time.sleep(1.5)"]
        assert gpu._ended(waits, log, None) == "well"
        works = [sys.executable, "-S", "-c", "while True: pass"]
        assert gpu._ended(works, log, None) == "not within 1 s of processor time"
        assert gpu._ended(waits, log, 0.1) == "not within 0 s"


def test_times_of_the_parts() -> None:
    """Together at most eight minutes, with the start of each process."""
    gpu = example("../benchmarks/gpu.py")
    assert set(gpu.BUDGETS) == set(gpu.PARTS)
    assert sum(gpu.BUDGETS.values()) <= 480
