"""Entries and weighted spectrum in the leading transverse momentum, generated beside true.

    python benchmarks/pythia_hard.py dijets_biased --out sample.lhe.gz -n 60000 --seed 1
    python benchmarks/pythia_hard.py dijets_biased --out truth.lhe.gz -n 60000 --seed 2
    hepgen-ml train --from-lhe sample.lhe.gz --max-time 4m --out biased
    hepgen-ml generate --model biased -n 60000 --out generated.lhe.gz
    python benchmarks/biased.py --truth truth.lhe.gz --generated generated.lhe.gz

A sample that is biased towards large transverse momenta has many entries of small weight in the
tail. The model of such a sample should have as many entries there, and the right cross section.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml import EventSample, read

EDGES = np.array([50, 60, 80, 120, 200, 400, 800, 1500, np.inf])


def spectrum(sample: EventSample) -> tuple[npt.NDArray, npt.NDArray, npt.NDArray]:
    """Entries, fraction of the sum of weights and its statistical error, in each bin of EDGES."""
    final = sample.status == 1
    leading = np.zeros(len(sample))
    np.maximum.at(leading, sample.event_index[final], np.hypot(sample.px, sample.py)[final])
    entries, _ = np.histogram(leading, EDGES)
    total = sample.weight.sum()
    fraction = np.histogram(leading, EDGES, weights=sample.weight)[0] / total
    error = np.sqrt(np.histogram(leading, EDGES, weights=sample.weight**2)[0]) / total
    return entries, fraction, error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truth", required=True, type=Path, metavar="FILE")
    parser.add_argument("--generated", required=True, type=Path, metavar="FILE")
    options = parser.parse_args()
    n_true, true, true_error = spectrum(read(options.truth))
    n_generated, generated, generated_error = spectrum(read(options.generated))
    print("| leading pT [GeV] | true entries | generated entries | ratio of weighted spectra |")
    print("|---|---|---|---|")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = generated / true
        error = ratio * np.hypot(generated_error / generated, true_error / true)
    for k, (low, high) in enumerate(pairwise(EDGES)):
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        print(f"| {name} | {n_true[k]} | {n_generated[k]} | {ratio[k]:.3f} ± {error[k]:.3f} |")


if __name__ == "__main__":
    main()
