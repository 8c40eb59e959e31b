"""Cuts that are found in samples, and the events of independent truth that they exclude.

    python benchmarks/zoo.py make --dir zoo            # samples, with Pythia
    python benchmarks/cuts.py --dir zoo                # all that are there
    python benchmarks/cuts.py --dir zoo --events 5000  # cuts of the first events alone

A cut that the generator made excludes no true event; an edge that a sample has by chance or by its
kinematics excludes some. At most one in 100,000 should be.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import zoo

import hepgen_ml
from hepgen_ml.phase_space import Acceptance
from hepgen_ml.process.inside import inside
from hepgen_ml.training.data import SampleSource, learn_process


@dataclass(frozen=True)
class Judged:
    """What the cuts of one process exclude.

    Attributes
    ----------
    cuts : list of (str, int)
        Each bound with its evidence, and the events of the truth that are outside its cut.
    excluded, truth, sample : int
        Events of the truth outside any cut, all of them, and events learned from.
    """

    cuts: list[tuple[str, int]]
    excluded: int
    truth: int
    sample: int


def judge(sample: Path, truth: Path, name: str, n: int | None = None) -> Judged:
    """Find the cuts of a sample, or of its first n events, and count those of another outside."""
    selection = zoo.selection(name)
    if n is None:
        source = SampleSource(str(sample), selection=selection)
    else:
        source = SampleSource(hepgen_ml.read(sample, max_events=n, selection=selection))
    acceptance = learn_process(source, seed=0).acceptance
    parts = [Acceptance([cut]) for cut in acceptance.cuts]
    each, excluded, n = [0] * len(parts), 0, 0
    for chunk in SampleSource(str(truth), selection=selection).chunks():
        n += len(chunk)
        excluded += int((~inside(chunk, acceptance)).sum())
        for k, part in enumerate(parts):
            each[k] += int((~inside(chunk, part)).sum())
    lines = [(line, m) for part, m in zip(parts, each, strict=True) for line in part.described()]
    return Judged(lines, excluded, n, source.n_events)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("processes", nargs="*", help="all with samples if none is named")
    parser.add_argument("--dir", type=Path, default=Path("zoo"))
    parser.add_argument("--events", type=int, help="look for cuts in so many only")
    options = parser.parse_args()
    unknown = set(options.processes) - set(zoo.names())
    if unknown:
        parser.error(f"no process {', '.join(sorted(unknown))}; there are {', '.join(zoo.names())}")
    print("| process | events | cuts found | true events outside, of | in 100,000 |")
    print("|---|---|---|---|---|")
    for name in options.processes or zoo.names():
        files = zoo.files(options.dir, name)
        if not all(path.exists() for path in files):
            continue
        found = judge(*files, name, options.events)
        rate = 1e5 * found.excluded / found.truth
        print(f"| {name} | {found.sample:,} | {len(found.cuts)} | {found.excluded} of "
              f"{found.truth:,} | {rate:.2g} |", flush=True)  # fmt: skip
        for line, m in found.cuts:
            print(f"    {line}" + (f": {m} true events outside" if m else ""), flush=True)


if __name__ == "__main__":
    main()
