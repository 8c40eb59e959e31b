"""Damage files at random and see that every one is read or refused with a named error.

    python -m tests.fuzz.campaign -n 10000
    python -m tests.fuzz.campaign --only 1234 --keep broken     # one of them, which stays

No foreign exception, no crash, no hang (20 s), less than 1 GB of memory for an input, and every
refusal names the file. The number of an input and the seed make it again. Ctrl-C and SIGTERM end
it with the results so far.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.fuzz.inputs import KINDS, Kind, make
from tests.fuzz.worker import MEMORY

TIME = 20.0
FINE = frozenset(range(7))
"""Exit codes of success and of named errors; 1 is a broken law."""


@dataclass
class Tally:
    """Results of a campaign.

    Attributes
    ----------
    n : int
        Inputs tried.
    codes : Counter of (kind, exit code)
    defects : list of str
        One line each.
    """

    n: int = 0
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    def table(self) -> str:
        """How often each kind was read or refused, by exit code."""
        codes = sorted({code for _, code in self.codes})
        rows = [f"{'':<14}" + "".join(f"{code:>8}" for code in codes)]
        for kind in dict.fromkeys(k for k, _ in self.codes):
            rows.append(f"{kind:<14}" + "".join(f"{self.codes[kind, c]:>8}" for c in codes))
        return "\n".join(rows)


class Worker:
    """The process that tries the files, begun anew where it ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, arguments: list[str]) -> dict[str, Any]:
        """Result of one command; of a crash or a hang too."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            self.ask(["--version"])
            return self.ask(arguments)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(arguments).encode() + b"\n")
        stdin.flush()
        line = _line(stdout, TIME if arguments != ["--version"] else 300.0)
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self.close()
        hung = line is None
        return {"code": 70, "said": "hangs" if hung else f"ends the process ({code})", "memory": 0}

    def close(self) -> int:
        """End the process; how it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return process.wait()


def _line(stream: IO[bytes], seconds: float) -> bytes | None:
    """Next line; None if it takes longer."""
    ready, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if ready else None


def run(n: int, seed: int = 0, only: int | None = None, keep: Path | None = None) -> Tally:
    """Try n damaged files.

    Parameters
    ----------
    n, seed : int
    only : int, optional
        Number of the one input to try.
    keep : Path, optional
        Directory for the inputs that show a defect.
    """
    tally, worker = Tally(), Worker()
    with tempfile.TemporaryDirectory() as name:
        good, place = Path(name) / "good", Path(name) / "bad"
        good.mkdir()
        make(good)
        try:
            for number in range(n) if only is None else [only]:
                rng = random.Random(f"{seed} {number}")
                kind = rng.choices(KINDS, [k.share for k in KINDS])[0]
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                _try(kind, good, place, rng, number, worker, tally)
                tally.n += 1
                if keep is not None and any(d.startswith(f"{number} ") for d in tally.defects[-1:]):
                    shutil.copytree(place, keep / str(number), dirs_exist_ok=True)
        except KeyboardInterrupt:
            print(f"ended after {tally.n} of {n} inputs")
        finally:
            worker.close()
    return tally


def _try(
    kind: Kind, good: Path, place: Path, rng: random.Random, number: int, worker: Worker,
    tally: Tally,
) -> None:  # fmt: skip
    target = place / kind.file
    if kind.is_directory:
        shutil.copytree((good / kind.file).parent, target.parent)
    target.write_bytes(kind.mutation((good / kind.file).read_bytes(), rng))
    subject = str(target.parent if kind.is_directory else target)
    out = str(place / rng.choice(["out.lhe", "out.hepmc", "out.root"]))
    for command in kind.commands:
        words = [
            w.format(subject, out=out, outdir=place / "trained", sample=good / "sample.safetensors")
            for w in command
        ]
        answer = worker.ask(words)
        code, said = int(answer["code"]), str(answer["said"])
        tally.codes[kind.name, code] += 1
        problem = ""
        if code not in FINE:
            problem = said
        elif answer["memory"] > MEMORY:
            problem = f"needs {answer['memory'] >> 20} MB"
        elif code in (3, 5) and str(place) not in said.replace("\n", ""):
            problem = f"does not name the file: {said}"
        if problem:
            tally.defects.append(f"{number} {kind.name}: {command[0]}: {problem}"[:300])
            return


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=1000, help="inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this one alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep inputs that show defects")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tally = run(options.n, options.seed, options.only, options.keep)
    print(tally.table())
    print("\n".join(tally.defects))
    print(f"{len(tally.defects)} defects in {tally.n} inputs")
    return 1 if tally.defects else 0


if __name__ == "__main__":
    raise SystemExit(main())
