"""More jets than the training sample has: four ways, against truth.

    python benchmarks/extrapolation.py --sample zjets.root --minutes 8 --figure FILE.png

Trains on the events with at most 4 jets of a random half of the sample, generates up to 6 with
each way of `splitting.extrapolation`, and compares the ratios of rates R(n+1)/n and
the kinematics of 5-jet events with all events of the sample: chi2/ndf of the transverse momentum of
the softest jet, of all objects together and of the separation of the two softest jets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from zjets import OBJECTS, jets

import hepgen_ml
from hepgen_ml.analysis.metrics import marginals
from hepgen_ml.analysis.observables import observables
from hepgen_ml.config import load_config
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample

WAYS = ("naive", "truncated", "override", "bootstrap")
TRAINED, GENERATED = 4, 6
SHOWN = ("pt(j5)", "pt_total", "dr(j4,j5)", "pt(j1)", "mass(mu-,mu+)")


def ratios(n: np.ndarray) -> list[dict[str, float]]:
    """R(n+1)/n with binomial errors, from numbers of jets."""
    counts = np.bincount(n, minlength=GENERATED + 1).astype(float)
    found = []
    for i in range(GENERATED):
        a, b = counts[i], counts[i + 1]
        if a > 0:
            found.append({"n": i, "ratio": b / a, "error": np.sqrt(max(b, 1) * (1 + b / a)) / a})
    return found


def five_jets(truth: EventSample, made: EventSample) -> dict[str, float]:
    """chi2/ndf of some observables of events with one jet more than was trained on."""
    a, b = ({str(k): v for k, v in observables(s[jets(s) == TRAINED + 1]).items()}
            for s in (truth, made))  # fmt: skip
    name = next(iter(a))
    if name not in b or len(b[name]) < 50:
        return {}
    tests = {m.observable.name: m.test.per_ndf for m in marginals(a[name], b[name])}
    return {k: tests[k] for k in SHOWN if k in tests}


def draw(
    result: dict[str, Any], truth: EventSample, made: dict[str, EventSample], path: str
) -> None:
    """Ratios of rates, and the transverse momenta of 5-jet events."""
    import matplotlib.pyplot as plt
    import mplhep

    mplhep.style.use("CMS")
    plt.rcParams.update({"font.size": 15})
    figure, axes = plt.subplots(1, 3, figsize=(19, 6.5), layout="constrained")
    colors = dict(zip(WAYS, ("#5790fc", "#f89c20", "#e42536", "#964a8b"), strict=True))
    for shift, (name, rows) in enumerate([("truth", result["truth"]), *result["ratios"].items()]):
        n = np.array([r["n"] for r in rows]) + 0.09 * (shift - 2)
        axes[0].errorbar(
            n, [r["ratio"] for r in rows], [r["error"] for r in rows], capsize=3,
            fmt="o" if shift else "s", color=colors.get(name, "black"), label=name,
        )  # fmt: skip
    axes[0].axvspan(TRAINED - 0.5, GENERATED - 0.5, color="0.92", zorder=0)
    axes[0].set(xlabel="number of jets n", ylim=(0, 0.5), xlim=(-0.5, GENERATED - 0.5))
    axes[0].set_ylabel(r"$R_{(n+1)/n}$", loc="center", labelpad=14)
    axes[0].legend(title="grey: beyond the training")
    for ax, (observable, label, edges) in zip(
        axes[1:],
        (("pt(j5)", "$p_T$ of the softest of 5 jets [GeV]", np.linspace(20, 60, 11)),
         ("pt_total", r"$|\Sigma\,\vec{p}_T|$ of 5-jet events [GeV]", np.linspace(0, 100, 11))),
        strict=True,
    ):  # fmt: skip
        for name, sample in (("truth", truth), *made.items()):
            some = sample[jets(sample) == TRAINED + 1]
            if len(some) < 50:
                continue
            values = next(iter(observables(some).values()))[observable]
            counts, _ = np.histogram(values, edges)
            density, error = (v / len(values) / np.diff(edges) for v in (counts, np.sqrt(counts)))
            middle = (edges[1:] + edges[:-1]) / 2
            if name == "truth":
                ax.errorbar(middle, density, error, fmt="ks", label="truth", zorder=3)
            else:
                ax.stairs(density, edges, color=colors[name], label=name, lw=2)
        ax.set_xlabel(label)
        ax.set_ylabel("density [1/GeV]", loc="center", labelpad=14)
        ax.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--out", default="extrapolation", metavar="DIR", help="of the models")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, for each way")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("-n", type=int, default=1_000_000, help="events to generate")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    truth = hepgen_ml.read(options.sample, selection=Selection(parse_objects(OBJECTS)))
    order = np.random.default_rng(2024).permutation(len(truth))[: len(truth) // 2]
    train = truth[np.sort(order)]
    train = train[jets(train) <= TRAINED]
    result: dict[str, Any] = {"truth": ratios(jets(truth)), "ratios": {}, "five_jets": {}}
    made: dict[str, EventSample] = {}
    for way in options.ways:
        directory = Path(options.out) / way
        if (directory / "config.json").exists():
            generator = hepgen_ml.Generator.load(directory)
        else:
            config = load_config(
                None,
                ["training.max_epochs=100", f"splitting.max_jets={GENERATED}",
                 f"splitting.extrapolation={way}", *options.set],
            )  # fmt: skip
            generator = hepgen_ml.Generator.train(
                train, model="jetgpt-splitting", out=directory, config=config, force=True,
                max_time=60 * options.minutes,
            )  # fmt: skip
        made[way] = generator.sample(options.n, seed=1)
        result["ratios"][way] = ratios(jets(made[way]))
        result["five_jets"][way] = five_jets(truth, made[way])
    print("R(n+1)/n".ljust(12) + "".join(f"{n:>18}" for n in range(GENERATED)))
    for name, rows in (("truth", result["truth"]), *result["ratios"].items()):
        cells = (f"{r['ratio']:.4f} ± {r['error']:.4f}" for r in rows)
        print(name.ljust(12) + "".join(f"{c:>18}" for c in cells))
    for way, tests in result["five_jets"].items():
        print(f"5 jets, {way}: " + ", ".join(f"{k} {v:.2f}" for k, v in tests.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(result, truth, made, options.figure)


if __name__ == "__main__":
    main()
