"""Mass peaks of generated resonances against held-out truth.

    python benchmarks/resonances.py --sample ttbar_hadronic.lhe.gz --out DIR --minutes 30

Trains on a random three quarters of the sample and compares with the rest, or on all of it and
compares with --truth, as `pythia_hard.py ttbar_hadronic` makes it: for each resonance the position
and width of a fitted Breit-Wigner on a straight line, then AUC and marginals of all observables,
resonance masses among them, beside truth against truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import hepgen_ml
from hepgen_ml.analysis.peaks import Peak, peaks
from hepgen_ml.config import load_config
from hepgen_ml.validation.comparison import compare


def compared(peak: Peak) -> str:
    """Position and width of generated events beside those of truth."""
    truth, made = peak.spectra
    if truth is None or made is None:
        return "no fit"
    return (
        f"position {made.position:.3f} ± {made.position_error:.3f} GeV, truth "
        f"{truth.position:.3f} ± {truth.position_error:.3f}, ratio "
        f"{made.position / truth.position:.5f}; width {made.width:.3f} ± {made.width_error:.3f}, "
        f"truth {truth.width:.3f} ± {truth.width_error:.3f}, ratio {made.width / truth.width:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--truth", metavar="FILE", help="judge by these, train on all of --sample")
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--evaluate", action="store_true", help="the model in DIR, no training")
    parser.add_argument("-n", type=int, default=50_000, help="events to generate")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    train = hepgen_ml.read(options.sample)
    if options.truth:
        truth = hepgen_ml.read(options.truth)
    else:
        order = np.random.default_rng(2024).permutation(len(train))
        middle = 3 * len(train) // 4
        train, truth = train[np.sort(order[:middle])], train[np.sort(order[middle:])]
    if options.evaluate:
        generator = hepgen_ml.Generator.load(options.out)
    else:
        generator = hepgen_ml.Generator.train(
            train, model=options.model, out=options.out, config=load_config(None, options.set),
            force=True, max_time=60 * options.minutes,
        )  # fmt: skip
    made = generator.sample(options.n, seed=1)
    found = peaks(truth, made)
    result: dict[str, Any] = {
        "facts": generator.facts, "peaks": {p.name: p.to_dict() for p in found},
    }  # fmt: skip
    comparison = compare(truth, made, n_classifier=50_000)
    print(comparison.summary())
    for peak in found:
        print(f"{peak.name:>4}: {compared(peak)}")
    result["comparison"] = comparison.to_dict()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
