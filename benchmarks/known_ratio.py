"""Classifiers between samples whose ratio is known: how well do weights find it?

    python benchmarks/known_ratio.py SAMPLE --network mlp trees+mlp transformer --seeds 3

Top pairs at large transverse momentum are taken out of a part of a sample with a known probability.
Classifiers between that part and another one are judged on further events: their AUC on held-out
events, the correlation of the logarithms of weights with the known ones, the deviation from them,
and the AUC that is left between weighted events and truth.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc
from hepgen_ml.analysis.observables import observables
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.classifiers import NETWORKS
from hepgen_ml.reweighting.training import Schedule


def kept(sample: EventSample) -> FloatArray:
    """Probability (n,) with which an event is kept, by the transverse momentum of the top quark."""
    pt = np.hypot(sample.px, sample.py) * (sample.pdg_id == 6)
    top_pt = np.bincount(sample.event_index, pt, len(sample))
    return np.clip(1.2 - top_pt / 200, 0.15, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sample", help="events with top quarks")
    parser.add_argument("-n", type=int, default=10_000, help="events to train on, of each part")
    parser.add_argument("--network", nargs="+", default=["trees+mlp"], choices=NETWORKS)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=Schedule().epochs)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    events, n, rng = hepgen_ml.read(options.sample), options.n, np.random.default_rng(0)
    truth, distorted, judge, other = (events[i * n : (i + 1) * n] for i in range(4))
    distorted, other = (s[rng.random(len(s)) < kept(s)] for s in (distorted, other))
    known = -np.log(kept(other))
    for network in options.network:
        for seed in range(options.seeds):
            begun = time.process_time()
            fitted = Reweighter.fit(
                truth, distorted, network=network, folds=options.folds, seed=seed,
                schedule=Schedule(epochs=options.epochs),
            )  # fmt: skip
            seconds = time.process_time() - begun
            weight, _ = fitted.weights(other)
            found = np.log(weight)
            print(f"{network}, seed {seed}: {seconds:.0f} s, correlation with the known weights "
                  f"{np.corrcoef(found, known)[0, 1]:.4f}, deviation "
                  f"{np.std(found - known):.4f}")  # fmt: skip
            weighted = other[:]
            weighted.events["weight"] = weight
            a, b = (observables(s, at_least=1000) for s in (judge, weighted))
            for name in a.keys() & b.keys():
                left = classifier_auc(
                    a[name].kinematics(), b[name].kinematics(), n_events=n, seed=1000
                )
                facts = fitted.facts["groups"][str(name)]
                print(f"  {name!s:<12} AUC held out {facts['auc_held_out']:.4f}, weighted against "
                      f"truth {left.value:.4f} ± {left.error:.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
