"""The whole way on a small sample: train, generate, check, compare. Run by `make demo`.

Everything lands in demo/. HEPGEN_DEMO_TIME sets the training time (default 2m).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path("examples/ttbar01j_20k.lhe.gz")
DEMO = Path("demo")
OUTPUTS = [DEMO / name for name in ("events.lhe.gz", "events.hepmc", "events.root")]


def hepgen(*arguments: object) -> None:
    """Run one command as a user would and stop at the first that fails."""
    command = [str(argument) for argument in arguments]
    print(f"\n$ hepgen-ml {shlex.join(command)}", flush=True)
    program = [sys.executable, "-c", "from hepgen_ml.cli import main; main()"]
    done = subprocess.run([*program, *command])  # noqa: S603  fixed arguments
    if done.returncode:
        sys.exit(done.returncode)


def figure(path: Path) -> None:
    """Draw the generated events beside the training sample."""
    from hepgen_ml import read
    from hepgen_ml.validation import figures

    print(f"\ndrawing {path} ...", flush=True)
    drawn = figures.overview(read(SAMPLE), read(OUTPUTS[0]), truth_label="training sample")
    figures.save(drawn, path)


def main() -> None:
    """Go all the way."""
    os.chdir(ROOT)
    DEMO.mkdir(exist_ok=True)
    begun = time.monotonic()
    outputs = [word for path in OUTPUTS for word in ("--out", path)]
    limit = os.environ.get("HEPGEN_DEMO_TIME", "2m")
    hepgen("train", "--from-lhe", SAMPLE, "--out", DEMO / "model", "--max-time", limit, "--force")
    hepgen("generate", "--model", DEMO / "model", "-n", 20_000, "--seed", 1, "--force", *outputs)
    hepgen("check", *OUTPUTS)
    figure(DEMO / "comparison.png")
    print(f"\nDone in {time.monotonic() - begun:.0f} s. In {DEMO}/:")
    for path, text in [
        (DEMO / "model", "the trained model, with its card and training log"),
        (OUTPUTS[0], "20000 new events, Les Houches format"),
        (OUTPUTS[1], "the same events, HepMC3"),
        (OUTPUTS[2], "the same events, ROOT"),
        (DEMO / "comparison.png", "generated events against the training sample"),
    ]:
        print(f"  {path!s:<22}  {text}")


if __name__ == "__main__":
    main()
