"""Training from events of either sign: known weights, split into signed copies.

Each event of the sample gets the weight w = 1 + 0.8 tanh((pT - 100 GeV) / 80 GeV) of its first
final-state particle, and is given twice, with weights (1 + part) w and -part w.
The truth has the weights w.

    python benchmarks/signed.py --train train.lhe.gz --truth truth.lhe.gz --max-time 180
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from hepgen_ml import Generator
from hepgen_ml.config import Config
from hepgen_ml.events.formats import open_sample
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.validation.comparison import compare


def events(path: Path, n: int) -> EventSample:
    """The first n events of a file."""
    reader, chunks, found = open_sample(path), [], 0
    for chunk in reader.chunks():
        chunks.append(chunk)
        found += len(chunk)
        if found >= n:
            break
    reader.close()
    return concatenate(chunks)[:n]


def weigh(sample: EventSample, part: float) -> EventSample:
    """Events with their weight, in signed copies if part is not zero."""
    first = sample.offsets[:-1] + 2  # after the two incoming partons
    pt = np.hypot(sample.px[first], sample.py[first])
    weight = sample.weight * (1 + 0.8 * np.tanh((pt - 100) / 80))
    copies = []
    for factor in [1 + part] + ([-part] if part else []):
        copy = concatenate([sample], run=sample.run)[np.arange(len(sample))]
        copy.events = {**copy.events, "weight": weight * factor}
        copies.append(copy)
    both = concatenate(copies)
    mean = both.weight.mean()
    both.events = {**both.events, "weight": both.weight * sample.run.cross_section / mean}
    return both.__class__(both.run.with_(weight_strategy=-4), both.offsets, both.particles,
                          both.events)  # fmt: skip


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--part", type=float, default=0.25)
    parser.add_argument("--max-time", type=float, default=180.0)
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--out", type=Path, default=Path("signed-model"))
    options = parser.parse_args()
    sample = weigh(events(options.train, options.events), options.part)
    cpu = time.process_time()
    generator = Generator.train(
        sample, out=options.out, max_time=options.max_time, model=options.model, config=Config(),
        force=True,
    )  # fmt: skip
    cpu = time.process_time() - cpu
    truth = weigh(events(options.truth, options.events), 0.0)
    made = generator.sample(len(truth), seed=1)
    result = compare(truth, made, n_classifier=40_000)
    print(result.summary())
    facts = {**generator.facts, "cpu_seconds": round(cpu, 1),
             "cross_section": [sample.run.cross_section, float(made.weight.mean())]}  # fmt: skip
    print(json.dumps(facts, default=str))


if __name__ == "__main__":
    main()
