"""Split a sample at random into events to train on and held-out events to judge by.

    python benchmarks/split.py FILE --train OUT --truth OUT --fraction 0.667

Any readable and writable format; both parts keep the cross section of the sample.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import hepgen_ml
from hepgen_ml.errors import HepgenError


def divide(n: int, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the events to train on and of the held-out ones, of n in all; each in order."""
    order = np.random.default_rng(seed).permutation(n)
    middle = round(fraction * n)
    return np.sort(order[:middle]), np.sort(order[middle:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sample", metavar="FILE")
    parser.add_argument("--train", required=True, metavar="OUT")
    parser.add_argument("--truth", required=True, metavar="OUT")
    parser.add_argument("--fraction", type=float, default=0.5, help="of events to train on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0 < options.fraction < 1:
        parser.error("--fraction is between 0 and 1")
    try:
        sample = hepgen_ml.read(options.sample)
        learned, truth = divide(len(sample), options.fraction, options.seed)
        for path, rows in ((options.train, learned), (options.truth, truth)):
            hepgen_ml.write(sample[rows], path)
            print(f"{path}: {len(rows):,} events")
    except HepgenError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
