"""What events with fewer jets teach about those with more.

    python benchmarks/transfer.py --few ttbar01j.lhe.gz --more ttbar2j.lhe.gz --minutes 6

Trains JetGPT on 1000, 3000 and 10000 events of the expensive sample, alone and together with the
cheap one, and prints the AUC of a gradient-boosted classifier on events of the expensive final
state against the rest of that sample, and that of the two halves of this rest. With --figure the
result is drawn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc
from hepgen_ml.analysis.observables import observables
from hepgen_ml.config import load_config
from hepgen_ml.events.sample import EventSample


def with_final(sample: EventSample, n_final: int) -> EventSample:
    """Events with so many final-state particles."""
    return sample[np.bincount(sample.event_index, sample.status == 1, len(sample)) == n_final]


def judge(generator: hepgen_ml.Generator, truth: EventSample, seed: int) -> tuple[float, float]:
    """AUC and its error on the final state of the truth."""
    n_final = int((truth.status[: truth.offsets[1]] == 1).sum())
    made: list[EventSample] = []
    while sum(map(len, made)) < len(truth):
        made.append(with_final(generator.sample(20_000, seed=seed + len(made)), n_final))
    events = hepgen_ml.events.sample.concatenate(made)[: len(truth)]
    return separation(truth, events, seed)


def separation(truth: EventSample, events: EventSample, seed: int) -> tuple[float, float]:
    """AUC between events of one final state, and its error."""
    true, fake = observables(truth), observables(events)
    signature = next(iter(true))
    auc = classifier_auc(true[signature], fake[signature], n_events=len(truth), seed=seed)
    return auc.value, auc.error


def draw(done: dict[str, Any], path: str) -> None:
    """AUC against the number of expensive events, beside that of truth against truth."""
    import matplotlib.pyplot as plt
    import mplhep

    mplhep.style.use("CMS")
    plt.rcParams.update({"font.size": 18})
    figure, ax = plt.subplots(figsize=(9, 7), layout="constrained")
    for way, label, color, marker in (
        ("alone", "trained on the expensive sample alone", "#f89c20", "o"),
        ("together", "trained on it and the cheap sample", "#5790fc", "s"),
    ):
        rows = sorted((int(k.split()[1]), *v) for k, v in done.items() if k.split()[0] == way)
        n, auc, error = np.array(rows).T
        ax.errorbar(n, auc, error, fmt=marker + "-", color=color, label=label, capsize=4, lw=2)
    ax.axhline(done["truth against truth"][0], color="0.4", ls="--", label="truth against truth")
    ax.set(xscale="log", xlabel="training events of the expensive sample")
    ax.set_ylabel("AUC, generated against true events", loc="center")
    values = sorted({int(k.split()[1]) for k in done if k.split()[0] == "alone"})
    ax.set_xticks(values, [f"{v:,}" for v in values], minor=False)
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", required=True, metavar="FILE", help="the cheap sample")
    parser.add_argument("--more", required=True, metavar="FILE", help="the expensive one")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1000, 3000, 10_000])
    parser.add_argument("--minutes", type=float, default=6.0, help="of training, for each")
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="transfer", metavar="DIR", help="samples and models")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args()
    directory = Path(options.out)
    directory.mkdir(parents=True, exist_ok=True)
    more = hepgen_ml.read(options.more)
    order = np.random.default_rng(options.seed).permutation(len(more))
    truth = more[np.sort(order[max(options.sizes) :])]
    done = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    if "truth against truth" not in done:
        done["truth against truth"] = separation(truth[::2], truth[1::2], options.seed)
    print("truth against truth: AUC {:.4f} ± {:.4f}".format(*done["truth against truth"]))
    config = load_config(None, ["training.max_epochs=1000", *options.set])
    for size in options.sizes:
        some = directory / f"more-{size}.lhe.gz"
        hepgen_ml.write(more[np.sort(order[:size])], some, force=True)
        for way, files in (("alone", [some]), ("together", [Path(options.few), some])):
            key = f"{way} {size}"
            if key not in done:
                generator = hepgen_ml.Generator.train(
                    files, model=options.model, out=directory / key.replace(" ", "-"),
                    config=config, seed=options.seed, force=True, max_time=60 * options.minutes,
                )  # fmt: skip
                done[key] = judge(generator, truth, options.seed)
                if options.json:
                    options.json.write_text(json.dumps(done, indent=1) + "\n")
            print(
                f"{size:>6} events {way:>8}: AUC {done[key][0]:.4f} ± {done[key][1]:.4f}",
                flush=True,
            )
    if options.figure:
        draw(done, options.figure)


if __name__ == "__main__":
    main()
