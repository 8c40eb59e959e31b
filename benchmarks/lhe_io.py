"""Speed of LHE reading and writing against pylhe, decompression alone, and LHEH5.

    python benchmarks/lhe_io.py events.lhe.gz [--events N] [--repeat R]

Prints medians of wall time and the ratios; `--events` limits what pylhe has to do.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pylhe
from hepgen_adapters.lhe.stream import BLOCK, open_text

from hepgen_ml.events.formats import format_of, read


def timed(action, repeat):
    """Median wall time in seconds of `repeat` calls after one that warms up."""
    action()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def paired(one, other, repeat):
    """Median of the ratios of wall times, one over the other, and of the other's times."""
    ratios, times = [], []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        one()
        middle = time.perf_counter()
        other()
        times.append(time.perf_counter() - middle)
        ratios.append((middle - start) / times[-1])
    return statistics.median(ratios[1:]), statistics.median(times[1:])


def drain(stream):
    """Read a stream to its end in large pieces, as the reader does."""
    place = memoryview(bytearray(BLOCK))
    with stream:
        while stream.readinto(place):
            pass


def read_all(path):
    for _ in format_of(path).open(path).chunks():
        pass


def write_all(sample, path):
    writer = format_of(path).create(path, sample.run, len(sample))
    for chunk in sample.chunks(20_000):
        writer.write(chunk)
    writer.close()


def pylhe_read(path, n_events):
    file = pylhe.LHEFile.fromfile(str(path))
    return file.init, list(itertools.islice(file.events, n_events))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--events", type=int, default=20_000, help="events for pylhe")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    with tempfile.TemporaryDirectory() as place:
        code = (
            "import sys, time; from hepgen_adapters.lhe import LHE; from pathlib import Path;"
            "t = time.perf_counter(); r = LHE().open(Path(sys.argv[1])); next(iter(r.chunks()));"
            "print(f'{time.perf_counter() - t:.2f} s')"
        )
        command = [sys.executable, "-c", code, str(options.file)]
        cold = {**os.environ, "NUMBA_CACHE_DIR": place}
        for what in ("compiling", "from the cache"):
            result = subprocess.run(command, env=cold, capture_output=True, text=True, check=True)
            print(f"first chunk of a new process, {what:15s} {result.stdout.strip()}")

        packed, plain = Path(place, "packed.lhe.gz"), Path(place, "plain.lhe")
        with open_text(options.file) as stream:
            data = stream.read()
        plain.write_bytes(data)
        if options.file.read_bytes()[:2] == b"\x1f\x8b":
            packed = options.file
        else:
            packed.write_bytes(gzip.compress(data, 6))
        del data
        sample = read(plain)
        n, size = len(sample), plain.stat().st_size / 1e6
        print(f"{n} events, {size:.0f} MB of text\n")

        repeat = options.repeat
        isal = timed(lambda: drain(open_text(packed)), repeat)
        zlib = timed(lambda: drain(gzip.GzipFile(packed)), repeat)
        ours = timed(lambda: read_all(plain), repeat)
        ours_gz = timed(lambda: read_all(packed), repeat)
        some = min(n, options.events)
        init, events = pylhe_read(plain, some)
        theirs = timed(lambda: pylhe_read(plain, some), 1) / some
        print(f"read plain     {n / ours:12.0f} events/s {size / ours:8.0f} MB/s")
        print(f"read gzipped   {n / ours_gz:12.0f} events/s {size / ours_gz:8.0f} MB/s")
        print(f"pylhe read     {1 / theirs:12.0f} events/s")
        print(f"decompression  {isal:.3f} s with isal, {zlib:.3f} s with zlib")
        print(f"reading / pylhe                    {theirs / (ours / n):8.1f} x")
        print(f"gzipped / decompression by isal    {ours_gz / isal:8.2f} x")
        print(f"gzipped / decompression by zlib    {ours_gz / zlib:8.2f} x\n")

        out, out_gz = Path(place, "out.lhe"), Path(place, "out.lhe.gz")
        ours = timed(lambda: write_all(sample, out), repeat)
        ours_gz = timed(lambda: write_all(sample, out_gz), repeat)
        own = timed(lambda: read_all(out), repeat)
        lhe = pylhe.LHEFile(init=init, events=events)
        other = Path(place, "pylhe.lhe")
        theirs = timed(lambda: lhe.tofile(str(other)), 1) / some
        other = Path(place, "pylhe.lhe.gz")
        theirs_gz = timed(lambda: lhe.tofile(str(other)), 1) / some
        print(
            f"write plain    {n / ours:12.0f} events/s {out.stat().st_size / 1e6 / ours:8.0f} MB/s"
        )
        print(f"write gzipped  {n / ours_gz:12.0f} events/s")
        print(f"pylhe write    {1 / theirs:12.0f} events/s, gzipped {1 / theirs_gz:.0f}")
        print(f"read back own  {n / own:12.0f} events/s (17 digits)")
        print(f"writing / pylhe                    {theirs / (ours / n):8.1f} x")
        print(f"writing gzipped / pylhe gzipped    {theirs_gz / (ours_gz / n):8.1f} x\n")

        hdf5 = Path(place, "out.hdf5")
        for name, action, lhe_action in (
            ("write", lambda: write_all(sample, hdf5), lambda: write_all(sample, out_gz)),
            ("read", lambda: read_all(hdf5), lambda: read_all(out_gz)),
        ):
            ratio, seconds = paired(lhe_action, action, repeat)
            print(f"LHEH5 {name:5s}    {n / seconds:12.0f} events/s, {ratio:.2f} x gzipped LHE")
        sizes = hdf5.stat().st_size / n, out_gz.stat().st_size / n
        print(f"LHEH5 size     {sizes[0]:12.0f} bytes an event, gzipped LHE {sizes[1]:.0f}")


if __name__ == "__main__":
    main()
