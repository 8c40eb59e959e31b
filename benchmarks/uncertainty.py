"""Does the uncertainty of a Bayesian surrogate of Z + jets cover its deviation from truth?

    python benchmarks/uncertainty.py --sample zjets.root --out DIR --minutes 15 --figure FILE.png

Trains with a posterior of the last layer (of any model that has this setting; `--set
network.ensemble=5` for several networks) on a random half of the sample, generates events with
posterior weights, and compares histograms with the other half: per bin the pull (generated minus
truth over posterior spread and the statistical errors of generated and held-out events in
quadrature), and the posterior spread over the statistical error of the training events.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from zjets import events, halves, jets, pair_mass

import hepgen_ml
from hepgen_ml.config import load_config, sections
from hepgen_ml.events.objects import JET
from hepgen_ml.events.sample import EventSample


def pair_pt(sample: EventSample) -> np.ndarray:
    """(n,) transverse momentum of the muon pair in GeV."""
    muon = np.abs(sample.pdg_id) == 13
    return np.hypot(
        *(np.bincount(sample.event_index, muon * c, len(sample)) for c in (sample.px, sample.py))
    )


def leading_pt(sample: EventSample) -> np.ndarray:
    """(n,) transverse momentum of the first jet in GeV, 0 without one."""
    pt = np.hypot(sample.px, sample.py) * (sample.pdg_id == JET)
    found = np.zeros(len(sample))
    np.maximum.at(found, sample.event_index, pt)
    return found


OBSERVABLES = {
    "mass": (pair_mass, r"$m_{\mu\mu}$ [GeV]", np.linspace(70, 110, 41)),
    "pt_z": (pair_pt, r"$p_T(\mu\mu)$ [GeV]", np.geomspace(1, 200, 31)),
    "pt_j1": (leading_pt, r"$p_T(j_1)$ [GeV]", np.geomspace(20.01, 200, 26)),
    "jets": (jets, "number of jets", np.arange(-0.5, 6)),
}


def judge(made: EventSample, truth: EventSample, n_train: int) -> dict[str, Any]:
    """Histograms with their errors, pulls and spreads for every observable."""
    names = [name for name in made.weights if name.startswith("posterior_")]
    result = {}
    for key, (observable, _, edges) in OBSERVABLES.items():
        values, true = observable(made), observable(truth)
        p = np.histogram(true, edges)[0] / len(truth)
        q = np.histogram(values, edges)[0] / len(made)
        nominal = made.weight
        draws = np.array(
            [np.histogram(values, edges, weights=made.weights[n] / nominal)[0] for n in names]
        )
        spread = (draws / len(made)).std(0, ddof=1)
        statistics = np.sqrt(p / len(truth) + q / len(made))
        floor = np.sqrt(np.maximum(p, 1e-12) / n_train)
        used = p * len(truth) >= 25
        pull = (q - p) / np.sqrt(spread**2 + statistics**2)
        result[key] = {
            "edges": edges.tolist(), "truth": p.tolist(), "made": q.tolist(),
            "spread": spread.tolist(), "statistics": statistics.tolist(),
            "rms_pull": float(np.sqrt(np.mean(pull[used] ** 2))),
            "rms_pull_without_band": float(np.sqrt(np.mean(((q - p) / statistics)[used] ** 2))),
            "largest_pull": float(np.abs(pull[used]).max()),
            "spread_over_floor": float(np.median((spread / floor)[used])),
        }  # fmt: skip
    return result


def posterior_of(model: str) -> list[str]:
    """Setting that gives the last layers of a model a posterior, if it has such a setting."""
    return [
        f"{key}.bayesian=last" for key, kind in sections(model).items()
        if "bayesian" in kind.model_fields
    ]  # fmt: skip


def draw(result: dict[str, Any], path: str) -> None:
    """Ratio to truth with the posterior band, observable by observable."""
    import matplotlib.pyplot as plt
    import mplhep

    from hepgen_ml.validation.figures.style import plain_log_ticks

    mplhep.style.use("CMS")
    plt.rcParams.update({"font.size": 15})
    figure, axes = plt.subplots(2, 2, figsize=(16, 9), layout="constrained")
    for ax, (key, r) in zip(axes.flat, result.items(), strict=True):
        edges, truth = np.array(r["edges"]), np.array(r["truth"])
        safe = np.where(truth > 0, truth, np.nan)
        ratio, band = np.array(r["made"]) / safe, np.array(r["spread"]) / safe
        low, high = (np.append(v, v[-1]) for v in (ratio - band, ratio + band))
        ax.fill_between(edges, low, high, step="post", color="#5790fc", alpha=0.4,
                        label="posterior of the surrogate")  # fmt: skip
        ax.stairs(ratio, edges, color="#5790fc", lw=2, label="generated")
        middle = (edges[1:] + edges[:-1]) / 2
        ax.errorbar(middle, np.ones(len(middle)), np.array(r["statistics"]) / safe, fmt="k.",
                    label="truth, statistics of both samples")  # fmt: skip
        reach = 2 * max(float(np.nanquantile(np.abs(ratio - 1) + band, 0.9)), 0.02)
        ax.set(xlabel=OBSERVABLES[key][1], ylim=(max(1 - reach, 0), 1 + reach))
        ax.set_ylabel("ratio to truth", loc="center", labelpad=14)
        if key.startswith("pt"):
            ax.set_xscale("log")
            plain_log_ticks(ax.xaxis, edges)
    axes.flat[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--model", default="jetgpt-splitting")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--events", type=int, metavar="N", help="train on N events; else half")
    parser.add_argument("--evaluate", action="store_true", help="the model in DIR, no training")
    parser.add_argument("-n", type=int, default=400_000, help="events to generate")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--figure", metavar="FILE")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    train, truth = halves(events(options.sample, None))
    train = train[: options.events]
    if options.evaluate:
        generator = hepgen_ml.Generator.load(options.out)
    else:
        config = load_config(
            None, ["training.max_epochs=1000", *posterior_of(options.model), *options.set]
        )
        if not config.network.ensemble > 1 and not posterior_of(options.model):
            parser.error(f"{options.model} has no posterior: add --set network.ensemble=5")
        generator = hepgen_ml.Generator.train(
            train, model=options.model, out=options.out, config=config, force=True,
            max_time=60 * options.minutes,
        )  # fmt: skip
    draws = int(min(options.draws, generator.surrogate.density.most_draws))
    made = generator.sample(options.n, seed=1, posterior=draws)
    result = judge(made, truth, len(train))
    for key, r in result.items():
        print(
            f"{key:>6}: rms pull {r['rms_pull']:.2f} (without the posterior "
            f"{r['rms_pull_without_band']:.2f}), largest {r['largest_pull']:.1f}; posterior "
            f"{r['spread_over_floor']:.2f} of the training sample's statistical error"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(result, options.figure)


if __name__ == "__main__":
    main()
