"""Compare models at equal training time, and their need of training events.

    python benchmarks/models.py --train FILE --truth FILE --minutes 10
    python benchmarks/models.py --train FILE --truth FILE --minutes 3 \\
        --sizes 3000 10000 30000 100000

For every model and number of training events: trains from scratch for so long on this
machine, generates events and prints the AUC of a gradient-boosted classifier against held-out
truth (kinematics of each final state), and the mean log-likelihood of held-out events. Results
are kept in --json; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc
from hepgen_ml.analysis.observables import observables
from hepgen_ml.config import load_config

MODELS = ["jetgpt", "lgatr-cfm", "transformer-cfm", "mlp-cfm"]


def evaluate(
    model: str, sample: Any, truth: Any, seconds: float, options: argparse.Namespace
) -> dict[str, Any]:
    n, seed = options.n, options.seed
    with tempfile.TemporaryDirectory() as temporary:
        name = f"{model}-{len(sample)}"
        directory = options.keep / name if options.keep else Path(temporary) / name
        config = load_config(None, ["training.max_epochs=100000", *options.set])
        generator = hepgen_ml.Generator.train(
            sample, model=model, out=directory, force=True, seed=seed, max_time=seconds,
            config=config,
        )  # fmt: skip
    begun = time.monotonic()
    generated = generator.sample(n, seed=seed + 1)
    rate = n / (time.monotonic() - begun)
    log_p = generator.log_prob(truth[:2000])
    result = {
        "steps": generator.facts["steps"],
        "passes": generator.facts["steps"] * config.training.batch_size / len(sample),
        "parameters": generator.facts["parameters"],
        "events_per_second": rate,
        "log_prob": float(np.mean(log_p[np.isfinite(log_p)])),
        "log_prob_error": float(np.std(log_p[np.isfinite(log_p)]) / np.sqrt(len(log_p))),
        "finite": float(np.mean(np.isfinite(log_p))),
        "auc": {},
    }
    true, made = observables(truth), observables(generated)
    for signature in true:
        if signature in made:
            auc = classifier_auc(true[signature], made[signature], n_events=n, seed=seed)
            result["auc"][str(signature)] = [auc.value, auc.error]
    return result


def draw(done: dict[str, Any], models: list[str], path: Path) -> None:
    """AUC of the largest final state against the number of training events."""
    import matplotlib.pyplot as plt
    import mplhep

    mplhep.style.use("CMS")
    plt.rcParams.update({"font.size": 18})
    figure, ax = plt.subplots(figsize=(9, 7), layout="constrained")
    colors = ("#3f90da", "#ffa90e", "#bd1f01", "#717581", "#832db6")
    for model, color, marker in zip(models, colors, "osD^v", strict=False):
        rows = sorted((int(k.split()[1]), r) for k, r in done.items() if k.split()[0] == model)
        signature = next(iter(rows[-1][1]["auc"]))
        values = np.array([(n, *r["auc"][signature]) for n, r in rows])
        ax.errorbar(*values.T, fmt=marker + "-", color=color, label=model, capsize=4, lw=2)
    ax.axhline(0.5, color="0.5", ls="--")
    ax.set(xscale="log", xlabel="training events", ylabel=f"AUC on {signature} events")
    ax.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", required=True, metavar="FILE")
    parser.add_argument("--truth", required=True, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--sizes", nargs="+", type=int, help="training events; all if not given")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, for each")
    parser.add_argument("-n", type=int, default=50_000, help="events to generate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--figure", metavar="FILE", type=Path, help="AUC against training events")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep the models here")
    options = parser.parse_args()
    whole, truth = hepgen_ml.read(options.train), hepgen_ml.read(options.truth)
    truth = truth[: 2 * options.n]
    order = np.random.default_rng(options.seed).permutation(len(whole))
    done = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for size in options.sizes or [len(whole)]:
        for model in options.models:
            key = f"{model} {size}"
            if key not in done:
                some = whole[np.sort(order[:size])]
                done[key] = evaluate(model, some, truth, 60 * options.minutes, options)
                if options.json:
                    options.json.write_text(json.dumps(done, indent=1) + "\n")
            r = done[key]
            areas = ", ".join(f"{s}: {a:.4f} ± {e:.4f}" for s, (a, e) in r["auc"].items())
            print(
                f"{model:>16} {size:>7} events, {r['passes']:6.1f} passes: AUC {areas}; "
                f"log p {r['log_prob']:.3f} ± {r['log_prob_error']:.3f}, finite {r['finite']:.2%}; "
                f"{r['events_per_second']:.0f} events/s, {torch.get_num_threads()} threads",
                flush=True,
            )
    if options.figure:
        draw(done, options.models, options.figure)


if __name__ == "__main__":
    main()
