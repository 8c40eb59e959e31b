"""What classifier weights in the loss do to a generator, at equal network and equal training time.

    python benchmarks/refinement.py --sample FILE --minutes 4 --rounds 0 1 2

Trains on a random part of the sample, once for each number of rounds, with the same seed. All
others judge: for each final state the AUC of boosted trees and chi2/ndf of the marginals with
50,000 events, beside truth against truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from reweighting import judge

import hepgen_ml
from hepgen_ml.config import load_config
from hepgen_ml.events.objects import Selection, parse_objects


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--objects", help="as for hepgen-ml train")
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path)
    parser.add_argument("--events", type=int, default=30_000, help="to train on")
    parser.add_argument("--rounds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--minutes", type=float, default=4.0, help="for each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("-n", type=int, default=100_000, help="events to generate and judge by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    selection = Selection(objects=parse_objects(options.objects)) if options.objects else None
    sample = hepgen_ml.read(options.sample, selection=selection)
    order = np.random.default_rng(options.seed).permutation(len(sample))
    train, truth, other = (
        sample[np.sort(order[low:high])]
        for low, high in (
            (0, options.events),
            (options.events, options.events + options.n),
            (options.events + options.n, options.events + 2 * options.n),
        )
    )
    result: dict[str, Any] = {}
    if len(other) >= 2000:
        result["floor"] = judge(truth, other, options.n, "truth against truth")
    for rounds in options.rounds:
        config = load_config(
            None,
            ["training.max_epochs=1000", f"training.classifier_rounds={rounds}",
             f"seed={options.seed}", *options.set],
        )  # fmt: skip
        generator = hepgen_ml.Generator.train(
            train, model=options.model, out=options.out / f"rounds-{rounds}", config=config,
            force=True, max_time=60 * options.minutes,
        )  # fmt: skip
        made = generator.sample(options.n, seed=options.seed + 1)
        facts = {k: generator.facts[k] for k in ("steps", "training_seconds", "validation_loss")}
        found = judge(truth, made, options.n, f"{rounds} rounds, {facts}")
        result[f"{rounds} rounds"] = {"facts": facts, "judged": found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
