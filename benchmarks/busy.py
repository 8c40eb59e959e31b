"""How much slower training is on busy cores than its fair share of them.

    python benchmarks/busy.py --steps 200 --busy 0 1 2 --ways default passive torch one

Trains so many steps on the sample of the examples, with each way of waiting for other threads,
while B processes compute beside it. A way is the environment of a training: ``default``
is that of `hepgen-ml train`, ``torch`` what GNU's OpenMP does by itself, ``passive`` and ``active``
are policies of OpenMP, ``one`` is one thread. The fair share of T threads on C cores beside B
processes is that of T processes among T + B; the time at that share follows from the time of the
same way on idle cores (B = 0, which has to be among those measured). The processor time is that of
a whole command: threads that wait by computing take more of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from workers import busy

CORES = len(os.sched_getaffinity(0))
SAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ttbar01j_20k.lhe.gz"

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "torch": {"GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "active": {"OMP_WAIT_POLICY": "active"},
    "one": {"OMP_NUM_THREADS": "1"},
}


def encoded(folder: Path) -> Path:
    """The sample, so that reading it is no part of any training."""
    place = folder / "sample.safetensors"
    command = [sys.executable, "-m", "hepgen_ml", "encode", str(SAMPLE), "--out", str(place)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place


def train(sample: Path, steps: int, way: str, settings: list[str]) -> tuple[float, float]:
    """Seconds of a training, and processor seconds of its command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        command = [
            sys.executable, "-m", "hepgen_ml", "train", "--from", str(sample), "--out", str(out),
            "--device", "cpu", "--max-time", "100h",
            *(f"--set={text}" for text in [f"training.max_steps={steps}", *settings]),
        ]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | WAYS[way],
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = json.loads((out / "config.json").read_text())["training"]["training_seconds"]
    return seconds, after.ru_utime - before.ru_utime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], metavar="B")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["default", "torch"])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sample = encoded(Path(folder))
        for _ in range(options.repeat):
            for n in options.busy:
                for way in options.ways:
                    with busy(n):
                        taken = train(sample, options.steps, way, options.set)
                    found.setdefault((way, n), []).append(taken)
    for (way, n), times in found.items():
        seconds, processor = (statistics.median(column) for column in zip(*times, strict=True))
        text = f"{way:8} beside {n}: {seconds:.1f} s, {processor:.1f} s of processors"
        idle = found.get((way, 0))
        if n and idle:
            threads = 1 if way == "one" else CORES
            fair = statistics.median(t for t, _ in idle) * max(1.0, (threads + n) / CORES)
            text += f"; {seconds / fair:.2f} times as long as its fair share would take"
        print(text)


if __name__ == "__main__":
    main()
