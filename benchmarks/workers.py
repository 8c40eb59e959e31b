"""What workers of `generate` gain: rate, efficiency, memory, and the time to the first event.

    python benchmarks/workers.py --model ttbar01j -n 400000 --workers 1 2
    python benchmarks/workers.py --model ttbar01j -n 400000 --workers 2 --busy 2

Each run is a command of its own, alternating the number K of workers, and the median of --repeat
runs is told. Efficiency is the rate over K times that of one worker, with start-up and without (by
the time that the last half of the events takes). `--busy B` lets B processes compute beside it, as
any other work would; the fair share of K workers on C cores is then that of K processes among K +
B, to be compared with the rate of one worker on an idle machine. The first event is timed at the
reading end of a pipe, on a machine that nothing else uses; the processor time is that of the whole
command for 2,000 events.

Processor times of the commands, and of their first process, which loads the model and writes, tell
on a machine that others use what is possible: the efficiency cannot be better than the time of one
worker over that of K. Memory is the largest resident one of each process; copies of a process share
a part of it.
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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CORES = len(os.sched_getaffinity(0))
COMMAND = [sys.executable, "-m", "hepgen_ml", "generate", "--seed", "1", "--workers"]


def peak(process: int) -> dict[int, float]:
    """Largest resident memory in MB of a process and of those that it started."""
    found = {}
    try:
        text = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return found
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            found[process] = int(line.split()[1]) / 1e3
    for child in children:
        found |= peak(int(child))
    return found


class Run(NamedTuple):
    """What one command took."""

    seconds: float
    processor: float
    """Seconds of processors, of all processes."""
    first: float
    """Those of the first process alone."""
    memory: list[float]
    """Of each process in MB, largest first."""


def own_time(process: int) -> float:
    """Processor seconds of a process so far, without those that it started."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(model: str, n: int, workers: int) -> Run:
    """Make n events with so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--model", model, "-n", str(n), "--out", str(Path(folder) / "events.lhe")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        first, begun = 0.0, time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, str(workers), *out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        memory: dict[int, float] = {}
        while process.poll() is None:
            memory |= peak(process.pid)
            first = max(first, own_time(process.pid))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"hepgen-ml generate ended with {process.returncode}")
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Run(seconds, processor, first, sorted(memory.values(), reverse=True))


def first_event(model: str) -> tuple[float, float]:
    """Seconds to the first of 2,000 events, and processor seconds of the whole command."""
    out = ["--model", model, "-n", "2000", "--out", "-", "--format", "lhe"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "1", *out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"<event"):
                break
        seconds = time.perf_counter() - begun
        process.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime


@contextmanager
def busy(n: int) -> Iterator[None]:
    """So many other processes that compute meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(model: str, n: int, counts: list[int], repeat: int, n_busy: int) -> dict[str, Any]:
    """Medians of all runs."""
    first = [first_event(model) for _ in range(repeat)]
    runs: dict[tuple[int, int], list[Run]] = {}
    with busy(n_busy):
        for _ in range(repeat):
            for k in counts:
                for size in (n // 2, n):
                    runs.setdefault((k, size), []).append(run(model, size, k))
    rows = {}
    for k in counts:
        half, whole = (
            statistics.median(r.seconds for r in runs[k, size]) for size in (n // 2, n)
        )
        rows[k] = {
            "events_per_second": n / whole,
            "without_start": (n - n // 2) / max(whole - half, 1e-9),
            "processor_seconds": statistics.median(r.processor for r in runs[k, n]),
            "first_process_seconds": statistics.median(r.first for r in runs[k, n]),
            "memory_mb": runs[k, n][-1].memory,
        }
    return {
        "model": model, "events": n, "cores": CORES, "busy": n_busy, "workers": rows,
        "first_event_seconds": statistics.median(s for s, _ in first),
        "processor_seconds": statistics.median(s for _, s in first),
    }  # fmt: skip


def report(found: dict[str, Any]) -> None:
    """Print what was measured."""
    print(
        f"first of 2,000 events after {found['first_event_seconds']:.2f} s; the command takes "
        f"{found['processor_seconds']:.2f} s of a processor"
    )
    one = found["workers"].get(1)
    for k, row in found["workers"].items():
        text = (
            f"{k} workers: {row['events_per_second']:,.0f} events/s, without start "
            f"{row['without_start']:,.0f}; memory "
            + ", ".join(f"{m:.0f}" for m in row["memory_mb"]) + " MB"
            f"; processors {row['processor_seconds']:.1f} s"
        )  # fmt: skip
        if k > 1:
            text += f", of them {row['first_process_seconds']:.1f} s of the process that writes"
        if one and k > 1:
            text += f" (at best {one['processor_seconds'] / row['processor_seconds']:.0%})"
        if one and not found["busy"]:
            a, b = (row[key] / (k * one[key]) for key in ("events_per_second", "without_start"))
            text += f"; efficiency {a:.0%}, without start {b:.0%}"
        print(text)
    if found["busy"]:
        share = {k: min(1.0, found["cores"] / (k + found["busy"])) * k for k in found["workers"]}
        print("fair shares, in cores: " + ", ".join(f"{k}: {s:.2f}" for k, s in share.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ttbar01j")
    parser.add_argument("-n", type=int, default=400_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0, metavar="B", help="processes beside it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = measure(options.model, options.n, options.workers, options.repeat, options.busy)
    report(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
