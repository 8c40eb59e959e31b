"""What a classifier's weights mend, judged on truth that neither model nor classifier has seen.

    python benchmarks/reweighting.py --model DIR --truth FILE [--objects Muon:2,Jet:0-10]

One random half of the truth trains the classifiers against as many generated events. The other half
judges new events without and with weights: for each final state the AUC of boosted trees, the
largest chi2/ndf of the marginals with 50,000 events, each beside truth against truth; and the
effective sample size. The mean of 1/w over the truth, which is one for exact weights, is
taken on that half too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import hepgen_ml
from hepgen_ml.objects import Selection, parse_objects
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.application import ClassifierWeights
from hepgen_ml.reweighting.networks import NETWORKS
from hepgen_ml.reweighting.tasks import Options, read_some
from hepgen_ml.reweighting.training import Schedule
from hepgen_ml.validation.classifier import classifier_auc
from hepgen_ml.validation.metrics import effective_size, marginals
from hepgen_ml.validation.observables import ObservableTable, observables


def judge(truth: Any, made: Any, n: int) -> dict[str, Any]:
    """AUC and the largest chi2/ndf of every final state, and truth against truth."""
    a, b = (
        {k: t.kinematics() for k, t in observables(s, at_least=1000).items()} for s in (truth, made)
    )
    rng, found = np.random.default_rng(0), {}
    for signature, true in a.items():
        if signature not in b:
            continue
        order = rng.permutation(len(true))
        halves: list[ObservableTable] = [true.take(order[::2]), true.take(order[1::2])]
        for name, pair in (("generated", [true, b[signature]]), ("floor", halves)):
            auc = classifier_auc(*pair, n_events=n)
            tests = marginals(*pair, n_events=50_000)
            worst = max(tests, key=lambda m: m.test.per_ndf)
            found[f"{signature} {name}"] = {
                "auc": auc.value, "error": auc.error, "worst": worst.observable.name,
                "chi2_per_ndf": worst.test.per_ndf,
                "mean_chi2_per_ndf": float(np.mean([m.test.per_ndf for m in tests])),
            }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--truth", required=True, nargs="+", metavar="FILE", help="held out")
    parser.add_argument("--objects", help="as for hepgen-ml train")
    parser.add_argument("--network", default="mlp", choices=NETWORKS)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=Schedule().epochs)
    parser.add_argument("-n", type=int, default=200_000, help="events of the truth to use at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    selection = Selection(objects=parse_objects(options.objects)) if options.objects else None
    truth = read_some(options.truth, Options(n_events=options.n, selection=selection))
    order = np.random.default_rng(options.seed).permutation(len(truth))
    first, second = truth[np.sort(order[::2])], truth[np.sort(order[1::2])]
    generator = hepgen_ml.Generator.load(options.model)
    made = generator.sample(len(first), seed=options.seed)
    begun = time.process_time()
    fitted = Reweighter.fit(
        first, made, network=options.network, folds=options.folds, seed=options.seed,
        schedule=Schedule(epochs=options.epochs),
    )  # fmt: skip
    seconds = time.process_time() - begun
    fresh = generator.sample(len(second), seed=options.seed + 1)
    weighted = ClassifierWeights(fitted, fresh.run).apply(fresh)
    inverse = 1 / fitted.weights(second)[0]
    scale = fitted.facts["mean_weight_before_normalisation"]
    size = effective_size(weighted.weight) / len(weighted)
    print(f"{seconds:.0f} s of one core for {options.folds} classifiers of each final state")
    print(f"effective sample size {size:.3f}, largest weight "
          f"{weighted.weight.max() / weighted.weight.mean():.2f}")  # fmt: skip
    error = inverse.std() / np.sqrt(len(inverse)) * scale
    print(f"mean of 1/w over independent truth {inverse.mean() * scale:.4f} ± {error:.4f}")
    result: dict[str, Any] = {"facts": fitted.facts, "effective_sample_size": size}
    for name, events in (("without weights", fresh), ("with weights", weighted)):
        result[name] = judge(second, events, 100_000)
        print(name)
        for key, r in result[name].items():
            print(f"  {key:<34} AUC {r['auc']:.4f} ± {r['error']:.4f}, largest chi2/ndf "
                  f"{r['chi2_per_ndf']:.2f} {r['worst']}, mean {r['mean_chi2_per_ndf']:.2f}",
                  flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
