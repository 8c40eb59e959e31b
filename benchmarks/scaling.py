"""A thousand partitions through Dask and merge, and what 10^9 and 10^12 events take by its figures.

    python benchmarks/scaling.py [--partitions 1000] [--events 100] [--workers 2]

Small partitions (blocks of as many events as each has) are made by a Dask cluster of this machine,
so that what they cost beyond the making of events shows: the scheduler, opening a file and giving
it its name, merging. The rate of events is that of one core with blocks of the usual size,
measured before; rates of a GPU are given, none are measured here.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from hepgen_adapters.dask import Dask

from hepgen_ml import Generator, write
from hepgen_ml.events.joining import merge
from hepgen_ml.generation import blocks
from hepgen_ml.generation.blocks import blocks_of, range_of
from hepgen_ml.generation.partitions import loaded, write_partitions

PARTITION = 1_000_000
"""Events of each file of a large production."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ttbar01j")
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100, help="of each partition")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--suffix", default=".lhe.gz", help="of the files")
    parser.add_argument("--gpu-rate", type=float, help="events per second of a GPU, if known")
    options = parser.parse_args()
    generator = Generator.load(options.model, device="cpu")
    rate, size = of_one_core(generator, options.suffix)
    with tempfile.TemporaryDirectory() as name:
        task, merged = thousand(generator, Path(name), options)
    for n in (10**9, 10**12):
        extrapolate(n, rate, size, task, merged, options)


def of_one_core(generator: Generator, suffix: str) -> tuple[float, float]:
    """Events per second of a core to a file, and bytes per event."""
    generator.sample(2000, seed=0)
    n = 2 * blocks.BLOCK
    with tempfile.TemporaryDirectory() as name:
        path, begun = Path(name) / f"events{suffix}", time.process_time()
        write(generator.sample(n, seed=1), path)
        seconds = time.process_time() - begun
        size = path.stat().st_size / n
    print(f"one core: {n / seconds:,.0f} events/s to {suffix}, {size:.0f} bytes per event")
    return n / seconds, size


def thousand(
    generator: Generator, directory: Path, options: argparse.Namespace
) -> tuple[float, float]:
    """Seconds of each partition beyond its events, and events per second of merging."""
    import distributed

    k, n = options.partitions, options.partitions * options.events
    with distributed.LocalCluster(
        n_workers=options.workers, threads_per_worker=1, dashboard_address=None,
        silence_logs=logging.ERROR,
    ) as some, Dask(some.scheduler_address) as cluster:  # fmt: skip
        assert generator.directory is not None
        some.get_client().run(begin, generator.directory.absolute(), options.events)
        seconds = timed(lambda: list(cluster.map(nothing, ((i,) for i in range(k)))))
        print(f"scheduler: {k} empty tasks in {seconds:.1f} s, {k / seconds:,.0f} tasks/s")
        blocks.BLOCK = options.events
        made = timed(lambda: [None for _ in generator.stream(20 * options.events, seed=2)]) / 20
        paths = [directory / f"part-{{shard}}{options.suffix}"]
        seconds = timed(
            lambda: write_partitions(cluster, generator, paths, n, k, seed=1, force=True)
        )
    files = sorted(directory.glob("part-*"))
    print(
        f"{k} partitions of {options.events} events by {options.workers} workers: {seconds:.1f} s, "
        f"{1000 * seconds * options.workers / k:.0f} ms of a worker each, "
        f"{1000 * made:.0f} ms of them for events; {len(files)} files, "
        f"{sum(f.stat().st_size for f in files) / 1e6:.1f} MB"
    )
    whole = directory / f"all{options.suffix}"
    begun = time.perf_counter()
    done = merge([directory / "part-*"], [whole])
    merging = time.perf_counter() - begun
    if done.n_events != n or len(files) != k:
        raise SystemExit(f"error: {done.n_events} events in {len(files)} files, not {n} in {k}")
    print(
        f"merge: {k} files in {merging:.1f} s, {1000 * merging / k:.1f} ms each, "
        f"{whole.stat().st_size / 1e6:.1f} MB"
    )
    larger = directory / f"large{options.suffix}"
    blocks.BLOCK = 10_000
    many = 50_000
    write(generator.sample(many, seed=3), larger)
    rate = many / timed(lambda: merge([larger], [directory / f"again{options.suffix}"]))
    print(f"merge of large files: {rate:,.0f} events/s")
    begun = time.perf_counter()
    blocks_of(10**12, *range_of(10**12, (999_999, 10**6)))
    print(f"blocks of the last of 10^6 partitions: {1000 * (time.perf_counter() - begun):.1f} ms")
    return max(seconds * options.workers / k - made, 0.0), rate


def begin(directory: Path, block: int) -> None:
    """On a worker: small blocks, and the model in memory."""
    blocks.BLOCK = block
    loaded(directory)


def nothing(number: int) -> int:
    """The smallest task."""
    return number


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def extrapolate(
    n: int, rate: float, size: float, task: float, merged: float, options: argparse.Namespace
) -> None:
    """What a production takes."""
    k = n // PARTITION
    hours = n / rate / 3600
    print(f"\n{n:.0e} events in {k:,} files of {PARTITION:,}")
    print(f"  {hours:,.0f} core hours; {hours / 1000:,.2f} hours of 1,000 cores")
    print(f"  {k * task / 3600:,.2g} core hours of them beyond the making of events")
    print(f"  {n * size / 1e12:,.3g} TB of {options.suffix}")
    print(f"  {n / merged / 3600:,.0f} hours where one writer merges them into one file")
    if options.gpu_rate:
        print(f"  {n / options.gpu_rate / 3600:,.1f} GPU hours")


if __name__ == "__main__":
    main()
