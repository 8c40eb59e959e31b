"""Judge a surrogate of Z + jets against held-out truth.

    python benchmarks/zjets.py --sample zjets.root --out DIR --minutes 30
    python benchmarks/zjets.py --sample zjets.root --out DIR --evaluate

Trains on a random half of the sample and compares with the other half, or on all of it and compares
with the events of --truth, as `pythia_zjets.py` makes them: the Z peak (a
Breit-Wigner on a straight line), rates of jets, the separation of jets
down to its edge, and per number of jets chi2/ndf of every observable and the AUC of a
gradient-boosted classifier, each beside truth against truth. Prints how many events are made per
second, and Pythia's rate for the same events with --pythia.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hepgen_ml
from hepgen_ml.analysis.peaks import peaks
from hepgen_ml.config import load_config
from hepgen_ml.events.objects import JET, Selection, parse_objects
from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.comparison import compare

OBJECTS = "Muon:2,Jet:0-10"


def events(path: str, cross_section: float | None) -> EventSample:
    """All events of a file."""
    selection = Selection(parse_objects(OBJECTS), cross_section=cross_section)
    return hepgen_ml.read(path, selection=selection)


def halves(sample: EventSample) -> tuple[EventSample, EventSample]:
    """Training events and truth: a random division, always the same."""
    order = np.random.default_rng(2024).permutation(len(sample))
    middle = len(sample) // 2
    return sample[np.sort(order[:middle])], sample[np.sort(order[middle:])]


def jets(sample: EventSample) -> np.ndarray:
    """(n,) number of jets of each event."""
    return np.bincount(sample.event_index, sample.pdg_id == JET, len(sample)).astype(int)


def pair_mass(sample: EventSample) -> np.ndarray:
    """(n,) mass of the muons in GeV."""
    muon = np.abs(sample.pdg_id) == 13
    p = [
        np.bincount(sample.event_index, muon * c, len(sample))
        for c in (sample.px, sample.py, sample.pz, sample.energy)
    ]
    size = np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
    return np.sqrt((p[3] - size) * (p[3] + size))


def separations(sample: EventSample) -> np.ndarray:
    """Delta R of the two hardest jets of all events with two or more."""
    some = sample[jets(sample) >= 2]
    rows = some.offsets[:-1] + 2
    pt = np.hypot(some.px, some.py)
    eta, phi = np.arcsinh(some.pz / pt), np.arctan2(some.py, some.px)
    dphi = np.angle(np.exp(1j * (phi[rows] - phi[rows + 1])))
    return np.hypot(eta[rows] - eta[rows + 1], dphi)


def rates(truth: EventSample, made: EventSample) -> list[dict[str, float]]:
    """Fractions of events by number of jets, with their pulls."""
    found = []
    a, b = (np.bincount(jets(s), minlength=12) for s in (truth, made))
    for n in range(12):
        p, q = a[n] / len(truth), b[n] / len(made)
        error = np.sqrt(p * (1 - p) / len(truth) + q * (1 - q) / len(made))
        if a[n] >= 5:
            found.append({"jets": n, "truth": p, "made": q, "pull": (q - p) / error})
    return found


def pythia_rate(n: int, seed: int = 1) -> float:
    """Events per second of one core: Z to muons with shower, hadronization and clustering."""
    from pythia_zjets import batches

    begun = time.perf_counter()
    made = sum(len(batch["genWeight"]) for batch in batches(n, seed))
    return made / (time.perf_counter() - begun)


def evaluate(generator: hepgen_ml.Generator, truth: EventSample, n: int) -> dict[str, Any]:
    """Everything that is printed and kept."""
    begun = time.perf_counter()
    made = generator.sample(n, seed=1)
    seconds = time.perf_counter() - begun
    result: dict[str, Any] = {
        "facts": generator.facts,
        "events_per_second": n / seconds,
        "threads": torch.get_num_threads(),
        "peak": {p.name: p.to_dict() for p in peaks(truth, made)}["mu- mu+"]["fits"],
        "rates": rates(truth, made),
    }
    edges = [0.0, 0.39, 0.4, 0.42, 0.44, 0.48, 0.55, 0.7, 1.0]
    a, b = (np.histogram(separations(s), edges)[0] for s in (truth, made))
    scale = len(truth) / len(made)
    result["separation"] = {"edges": edges, "truth": a.tolist(), "made": (b * scale).tolist()}
    comparison = compare(truth, made, progress=lambda text: print("...", text, flush=True))
    print(comparison.summary())
    result["comparison"] = comparison.to_dict()
    return result


def report(result: dict[str, Any]) -> None:
    """Print what the comparison does not."""
    if all(result["peak"]):
        a, b = result["peak"]
        print(f"Z peak: position {b['position']:.3f} GeV, truth {a['position']:.3f}; width "
              f"{b['width']:.3f} ± {b['width_error']:.3f} GeV, truth {a['width']:.3f} ± "
              f"{a['width_error']:.3f}: ratio {b['width'] / a['width']:.3f}")  # fmt: skip
    for r in result["rates"]:
        print(f"{r['jets']} jets: truth {r['truth']:.6f}, made {r['made']:.6f}, "
              f"pull {r['pull']:+.2f}")  # fmt: skip
    s = result["separation"]
    for low, high, a, b in zip(s["edges"], s["edges"][1:], s["truth"], s["made"], strict=False):
        print(f"Delta R(j1, j2) {low:.2f} to {high:.2f}: truth {a}, made {b:.1f}")
    print(f"{result['events_per_second']:.0f} events/s with {result['threads']} threads")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", required=True, metavar="FILE")
    parser.add_argument("--truth", metavar="FILE", help="judge by these, train on all of --sample")
    parser.add_argument("--cross-section", type=float, metavar="PB")
    parser.add_argument("--model", default="jetgpt", help="jetgpt or jetgpt-splitting")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--evaluate", action="store_true", help="the model in DIR, no training")
    parser.add_argument("-n", type=int, default=500_000, help="events to generate")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--pythia", type=int, default=0, metavar="N", help="time N events")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    train = events(options.sample, options.cross_section)
    if options.truth:
        truth = events(options.truth, options.cross_section)
    else:
        train, truth = halves(train)
    if options.evaluate:
        generator = hepgen_ml.Generator.load(options.out)
    else:
        config = load_config(None, ["training.max_epochs=100", *options.set])
        generator = hepgen_ml.Generator.train(
            train, model=options.model, out=options.out, config=config, force=True,
            max_time=60 * options.minutes,
        )  # fmt: skip
    result = evaluate(generator, truth, options.n)
    report(result)
    if options.pythia:
        result["pythia"] = pythia_rate(options.pythia)
        ratio = result["events_per_second"] / (torch.get_num_threads() * result["pythia"])
        print(f"Pythia: {result['pythia']:.0f} events/s on one core, ratio per core {ratio:.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
