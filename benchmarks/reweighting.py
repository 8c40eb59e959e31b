"""What a classifier's weights mend, judged on truth that neither model nor classifier has seen.

    python benchmarks/reweighting.py --model DIR --truth FILE [--objects Muon:2,Jet:0-10]

One random half of the truth trains the classifiers against generated events; all of it where the
files of --judge judge, else the other half does. It judges new events without and with weights, and
the truth that trained, which is the floor: for each final state the AUC of boosted trees and the
largest chi2/ndf of the marginals with 50,000 events; and the effective sample size. The mean of 1/w
over the truth that judges is one for exact weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from zjets import events, halves

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc
from hepgen_ml.analysis.metrics import marginals
from hepgen_ml.analysis.observables import observables
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.weights import effective_size
from hepgen_ml.generation.reweighting import GENERATED, Options, read_some
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.application import ClassifierWeights
from hepgen_ml.reweighting.classifiers import NETWORKS
from hepgen_ml.reweighting.training import Schedule


def judge(truth: Any, other: Any, n: int, name: str, divisions: int = 1) -> dict[str, Any]:
    """AUC, mean over divisions of the events in halves, and chi2/ndf of every final state."""
    a, b = (
        {k: t.kinematics() for k, t in observables(s, at_least=1000).items()}
        for s in (truth, other)
    )
    found = {}
    print(name)
    for signature in a.keys() & b.keys():
        pair = a[signature], b[signature]
        aucs = [classifier_auc(*pair, n_events=n, seed=1000 + k) for k in range(divisions)]
        tests = marginals(*pair, n_events=50_000)
        worst = max(tests, key=lambda m: m.test.per_ndf)
        found[str(signature)] = r = {
            "auc": float(np.mean([a.value for a in aucs])),
            "error": float(np.mean([a.error for a in aucs])), "worst": worst.observable.name,
            "chi2_per_ndf": worst.test.per_ndf,
            "mean_chi2_per_ndf": float(np.mean([m.test.per_ndf for m in tests])),
        }  # fmt: skip
        print(f"  {signature!s:<20} AUC {r['auc']:.4f} ± {r['error']:.4f}, largest chi2/ndf "
              f"{r['chi2_per_ndf']:.2f} {r['worst']}, mean {r['mean_chi2_per_ndf']:.2f}",
              flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--truth", required=True, nargs="+", metavar="FILE", help="held out")
    parser.add_argument("--judge", nargs="+", metavar="FILE", help="truth to judge by")
    parser.add_argument("--objects", help="as for hepgen-ml train")
    parser.add_argument(
        "--half",
        action="store_true",
        help="of a Z + jets sample, the half that zjets.py does not train on",
    )
    parser.add_argument("--network", nargs="+", default=["trees+mlp"], choices=NETWORKS)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=Schedule().epochs)
    parser.add_argument("-n", type=int, default=200_000, help="events of the truth to use at most")
    parser.add_argument(
        "--generated",
        type=int,
        default=GENERATED,
        help="events to train classifiers on, for each of the truth",
    )
    parser.add_argument("--judged", type=int, default=250_000, help="of each at most")
    parser.add_argument(
        "--divisions",
        type=int,
        default=4,
        help="of the judging events in halves; areas of single ones scatter by 0.003",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    selection = Selection(objects=parse_objects(options.objects)) if options.objects else None

    def by(truth: Any, other: Any, name: str) -> dict[str, Any]:
        return judge(truth, other, options.judged, name, options.divisions)

    if options.half:
        truth = halves(events(options.truth[0], None))[1]
        truth = truth[np.random.default_rng(7).permutation(len(truth))[: options.n]]
    else:
        truth = read_some(options.truth, Options(n_events=options.n, selection=selection))
    if options.judge:
        first = truth
        second = read_some(options.judge, Options(n_events=options.n, selection=selection))
    else:
        order = np.random.default_rng(options.seed).permutation(len(truth))
        first, second = truth[np.sort(order[::2])], truth[np.sort(order[1::2])]
    generator = hepgen_ml.Generator.load(options.model)
    made = generator.sample(len(first) * options.generated, seed=options.seed)
    fresh = generator.sample(len(second), seed=options.seed + 1)
    result: dict[str, Any] = {
        "floor": by(second, first, "truth against truth"),
        "generated": by(second, fresh, "without weights"),
    }
    for network in options.network:
        begun = time.process_time()
        fitted = Reweighter.fit(
            first, made, network=network, folds=options.folds, seed=options.seed,
            schedule=Schedule(epochs=options.epochs),
        )  # fmt: skip
        seconds = time.process_time() - begun
        weighted = ClassifierWeights(fitted, fresh.run).apply(fresh)
        inverse = 1 / fitted.weights(second)[0]
        scale = fitted.facts["mean_weight_before_normalisation"]
        size = effective_size(weighted.weight) / len(weighted)
        error = inverse.std() / np.sqrt(len(inverse)) * scale
        print(f"{network}: {seconds:.0f} s of processor for {options.folds} classifiers of each "
              f"final state; effective sample size {size:.3f}, largest weight "
              f"{weighted.weight.max() / weighted.weight.mean():.2f}; mean of 1/w over "
              f"independent truth {inverse.mean() * scale:.4f} ± {error:.4f}")  # fmt: skip
        judged = by(second, weighted, f"with weights of {network}")
        result[network] = {
            "facts": fitted.facts, "effective_sample_size": size,
            "mean_inverse_weight": [inverse.mean() * scale, error], "judged": judged,
        }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
