"""Everything that is to be measured on a GPU, in one command of at most eight minutes.

    hepgen-ml encode --from-lhe ttbar01j.lhe.gz --out sample.safetensors    # where the files are
    python benchmarks/gpu.py sample.safetensors --out gpu-results           # where the GPU is

The second machine needs torch, numpy, pydantic, safetensors and, for flows, torchdiffeq, and the
folders of this repository; for the comparison of L-GATr also the package lgatr (2.0). Parts run
one after the other, each in a process of its own with a time of its own, so that a part that
fails or hangs costs its own figures only:

- ``equality``: densities, velocities and gradients are those of the CPU;
- ``jetgpt``, ``flow``: rates of training and of sampling, plain, compiled, and with CUDA graphs;
- ``lgatr``: forward pass and training step of L-GATr and of the public package, plain and compiled;
- ``train``: an L-GATr flow of the papers' size for five minutes; its model is in the results.

Figures are printed and written to results.json and results.md as soon as they are there, and each
part's output to PART.log. ``--quick`` runs everything with small networks, on a CPU within about a
minute; its limits are processor time, so that a busy machine ends no part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT)]
# This directory has a file with the name of the package that L-GATr is compared with.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != HERE]

from benchmarks.gpu_parts import PARTS  # noqa: E402

BUDGETS = {"equality": 25.0, "jetgpt": 30.0, "flow": 35.0, "lgatr": 70.0, "train": 315.0}
"""Seconds of the parts, in their order; together less than eight minutes. What one does not need,
the next ones may have."""

QUICK = 180
"""Processor time in seconds of a part with ``--quick``, several times what any needs."""

QUICK_TRAINING = 30.0
"""Seconds that part ``train`` plans with, with ``--quick``; it ends whenever it does."""


def run_part(options: argparse.Namespace) -> int:
    """One part, in a process of its own; every figure is written when it is there."""
    figures: list[dict[str, Any]] = []
    place = options.out / f"{options.part}.json"

    def add(name: str, value: float, unit: str) -> None:
        figures.append({"name": name, "value": float(value), "unit": unit})
        place.with_suffix(".new").write_text(json.dumps(figures))
        place.with_suffix(".new").replace(place)

    PARTS[options.part](options, add)
    return 0


def machine(device: str) -> dict[str, str]:
    """What the figures depend on."""
    import torch

    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "none"
    return {"torch": torch.__version__, "python": platform.python_version(), "device": device,
            "card": card, "cuda": str(torch.version.cuda), "cpus": str(os.cpu_count())}  # fmt: skip


def write_results(out: Path, about: dict[str, str], parts: dict[str, dict[str, Any]]) -> None:
    """Everything so far, as JSON and as a table."""
    (out / "results.json").write_text(json.dumps({"machine": about, "parts": parts}, indent=1))
    lines = ["# Figures of benchmarks/gpu.py", "", ", ".join(f"{k} {v}" for k, v in about.items()),
             "", "| figure | value | |", "|---|---|---|"]  # fmt: skip
    for name, part in parts.items():
        lines += [f"| {f['name']} | {_number(f['value'])} | {f['unit']} |" for f in part["figures"]]
        if part["ended"] != "well":
            lines.append(f"| part `{name}` | {part['ended']}, see {name}.log | |")
    lines += ["", *_ratios([f for part in parts.values() for f in part["figures"]])]
    (out / "results.md").write_text("\n".join(lines) + "\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ratios(figures: list[dict[str, Any]]) -> list[str]:
    """Ours over the public package at its fastest, plain and compiled."""
    lines = []
    for kind in ("plain", "compiled"):
        for what in ("forward", "training step"):
            rate: dict[bool, float] = {}
            for figure in figures:
                name = figure["name"]
                if name.startswith("L-GATr") and name.endswith(f"{kind}: {what}"):
                    ours = name.startswith("L-GATr ours")
                    rate[ours] = max(rate.get(ours, 0.0), figure["value"])
            if len(rate) == 2:
                lines.append(
                    f"L-GATr, {what}, both {kind}: {rate[True] / rate[False]:.2f} times as fast "
                    "as the public package."
                )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sample", type=Path, help="made by `hepgen-ml encode`")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--quick", action="store_true", help="small networks, few events")
    parser.add_argument("--batch", type=int, help="events in a batch of L-GATr")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, by comma")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out, options.sample = options.out.resolve(), options.sample.resolve()
    if options.part:
        return run_part(options)
    if not options.sample.is_file():
        parser.error(f"{options.sample}: no such file; make it with `hepgen-ml encode`")
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.device == "auto":
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    """All parts, each within its time."""
    about, parts, saved = machine(options.device), {}, 0.0
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    for name in options.parts.split(","):
        seconds = QUICK_TRAINING if options.quick else BUDGETS[name] + saved
        place = options.out / f"{name}.json"
        place.unlink(missing_ok=True)
        command = [
            sys.executable, __file__, str(options.sample), "--out", str(options.out),
            "--device", options.device, "--part", name, "--seconds", str(seconds),
            *(["--quick"] if options.quick else []),
            *([f"--batch={options.batch}"] if options.batch else []),
        ]  # fmt: skip
        begun = time.monotonic()
        with (options.out / f"{name}.log").open("w") as log:
            ended = _ended(command, log, None if options.quick else seconds)
        saved = max(seconds - (time.monotonic() - begun), 0.0)
        figures = json.loads(place.read_text()) if place.exists() else []
        place.unlink(missing_ok=True)
        parts[name] = {"ended": ended, "seconds": time.monotonic() - begun, "figures": figures}
        for figure in figures:
            print(f"{figure['name']:58} {_number(figure['value']):>12} {figure['unit']}")
        print(f"  {name}: {ended}, {parts[name]['seconds']:.0f} s", flush=True)
        write_results(options.out, about, parts)
    return 0 if all(part["ended"] == "well" for part in parts.values()) else 1


def _ended(command: list[str], log: Any, seconds: float | None) -> str:
    """How a command ended that gets so many seconds, or processor time; with it its children."""
    limit = None if seconds is not None else _limit_processor_time
    process = subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True, preexec_fn=limit
    )
    try:
        code = process.wait(seconds)
        if code == -signal.SIGXCPU:
            return f"not within {QUICK} s of processor time"
        return "well" if code == 0 else f"with exit code {code}"
    except subprocess.TimeoutExpired:
        return f"not within {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def _limit_processor_time() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (QUICK, QUICK + 5))


if __name__ == "__main__":
    sys.exit(main())
