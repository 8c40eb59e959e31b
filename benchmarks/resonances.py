"""Mass peaks of generated resonances against held-out truth.

    python benchmarks/resonances.py --sample ttbar_hadronic.lhe.gz --out DIR --minutes 30

Trains on a random three quarters of the sample and compares with the rest: for each resonance the
position and width of a fitted Breit-Wigner and chi2/ndf of its mass, then AUC and marginals of
everything, resonance masses among them, beside truth against truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

import hepgen_ml
from hepgen_ml.config import load_config
from hepgen_ml.events import EventSample
from hepgen_ml.validation.comparison import compare


def fitted(mass: np.ndarray, around: float, width: float) -> tuple[float, float, float, float]:
    """Position and width in GeV with their errors, fitted within four widths of the peak."""
    edges = np.linspace(around - 4 * width, around + 4 * width, 81)
    counts, _ = np.histogram(mass, edges)
    middle = (edges[1:] + edges[:-1]) / 2

    def shape(m: np.ndarray, n: float, m0: float, gamma: float) -> np.ndarray:
        return n * (m0 * gamma) ** 2 / ((m**2 - m0**2) ** 2 + (m0 * gamma) ** 2)

    start = (float(counts.max()), around, width)
    error = np.sqrt(np.maximum(counts, 1))
    values, covariance = curve_fit(shape, middle, counts, start, error, maxfev=20_000)
    errors = np.sqrt(np.diag(covariance))
    return float(values[1]), abs(float(values[2])), float(errors[1]), float(errors[2])


def peaks(truth: EventSample, made: EventSample) -> dict[str, Any]:
    """Fits of every resonance, by PDG number."""
    found = {}
    for number in np.unique(truth.pdg_id[truth.status == 2]):
        masses = [s.mass[(s.status == 2) & (s.pdg_id == number)] for s in (truth, made)]
        around = float(np.median(masses[0]))
        width = 2 * float(np.median(np.abs(masses[0] - around)))
        found[str(number)] = [fitted(m, around, width) for m in masses]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--evaluate", action="store_true", help="the model in DIR, no training")
    parser.add_argument("-n", type=int, default=50_000, help="events to generate")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    sample = hepgen_ml.read(options.sample)
    order = np.random.default_rng(2024).permutation(len(sample))
    middle = 3 * len(sample) // 4
    train, truth = sample[np.sort(order[:middle])], sample[np.sort(order[middle:])]
    if options.evaluate:
        generator = hepgen_ml.Generator.load(options.out)
    else:
        generator = hepgen_ml.Generator.train(
            train, model=options.model, out=options.out, config=load_config(None, options.set),
            force=True, max_time=60 * options.minutes,
        )  # fmt: skip
    made = generator.sample(options.n, seed=1)
    result: dict[str, Any] = {"facts": generator.facts, "peaks": peaks(truth, made)}
    comparison = compare(truth, made)
    print(comparison.summary())
    for number, ((m, w, dm, dw), (m1, w1, dm1, dw1)) in result["peaks"].items():
        print(
            f"{number:>4}: position {m1:.3f} ± {dm1:.3f} GeV, truth {m:.3f} ± {dm:.3f}, ratio "
            f"{m1 / m:.5f}; width {w1:.3f} ± {dw1:.3f}, truth {w:.3f} ± {dw:.3f}, "
            f"ratio {w1 / w:.3f}"
        )
    result["comparison"] = comparison.to_dict()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
