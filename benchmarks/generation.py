"""Generation from a trained model to file: rate, processor time, memory, share of the writer.

    python benchmarks/generation.py MODEL_DIR [-n 1000000] [--out events.lhe.gz] [--rival 710]

Prints events per second and per core-second (processor time of all threads),
what sampling costs without any file, what the writer alone costs on the same
events, and how the resident memory grows between the first tenth and the end.
`--rival` is the rate per core-second of the event generator whose sample the
model was trained on (MadGraph on top pairs with up to one jet: about 710 on
the reference machine); the ratio to it is printed.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from hepgen_ml import Generator
from hepgen_ml.events.formats import AtomicWriter


def resident() -> float:
    """Resident memory now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Clock:
    """Wall and processor time since its making."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def rates(self, n: int) -> str:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self.per_core_second = n / cpu
        return f"{n / wall:10.0f} events/s   {n / cpu:10.0f} events per core-second"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=1_000_000)
    parser.add_argument("--out", default="events.lhe.gz", help="name whose suffix sets the format")
    parser.add_argument("--rival", type=float, default=710.0)
    arguments = parser.parse_args()
    generator = Generator.load(arguments.model)
    n = arguments.n
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / arguments.out
        warm = generator.sample(20_000, seed=1)
        with AtomicWriter([path], generator.run, len(warm), force=True) as writer:
            writer.write(warm)
        few = max(20_000, n // 10)
        clock = Clock()
        for _ in generator.stream(few, seed=2):
            pass
        print(f"sampling alone ({few} events)      {clock.rates(few)}")
        sampling = clock.per_core_second
        clock = Clock()
        with AtomicWriter([path], generator.run, 10 * len(warm), force=True) as writer:
            for _ in range(10):
                writer.write(warm)
        print(f"writing alone ({10 * len(warm)} events)       {clock.rates(10 * len(warm))}")
        clock, done, early = Clock(), 0, 0.0
        with AtomicWriter([path], generator.run, n, force=True) as writer:
            for chunk in generator.stream(n, seed=3):
                writer.write(chunk)
                done += len(chunk)
                if not early and done >= n // 10:
                    early = resident()
        late = resident()
        print(f"to {path.name} ({n} events) {clock.rates(n)}")
        print(f"file size {path.stat().st_size / 1e6:.1f} MB")
    print(f"resident memory after a tenth {early:.0f} MB, at the end {late:.0f} MB")
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    print(f"sampling / rival per core-second  {sampling / arguments.rival:.1f}")
    print(f"to file / rival per core-second   {clock.per_core_second / arguments.rival:.1f}")


if __name__ == "__main__":
    main()
