"""A resonance at a mass that the training never saw, from a model of a mass scan.

    python benchmarks/condition.py --model jetgpt --minutes 5 --out results/condition.json

Pythia makes Z' bosons that decay to muons (or to top quarks with --process tt) at seven masses.
The model learns six of them with the mass as condition and generates the seventh, which a
two-sample test compares with Pythia's own events: the classifiers of `hepgen-ml validate`. Beside
it: the peak, the shares of the incoming quarks and the cross section. Needs pythia8mc.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pythia_hard
from pythia_hard import HardProcess, _masses, _only

from hepgen_ml import Generator
from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.comparison import compare

MASSES = (600, 800, 1000, 1250, 1500, 1750, 2000)
LEFT_OUT = 1250
NAME = "mass:32"

DECAYS = {"mumu": ("13", ()), "tt": ("6", _only(24, "13"))}
"""What the Z' decays to, and what these decay to."""


def scan_point(mass: float, n: int, seed: int, process: str) -> EventSample:
    """Events of Pythia at one mass in GeV, which the header of their file states."""
    products, further = DECAYS[process]
    settings = (
        "Beams:eCM = 13000", "NewGaugeBoson:ffbar2gmZZprime = on", "Zprime:gmZmode = 3",
        f"32:m0 = {mass}", f"PhaseSpace:mHatMin = {0.5 * mass}", "32:mMin = 50",
        *_only(32, products), *further,
    )  # fmt: skip
    pythia_hard.PROCESSES["scan"] = HardProcess(f"pp → Z′({mass} GeV)", settings)
    sample = pythia_hard.make("scan", n, seed)
    text = f"<slha>\n{_masses(_32=float(mass))}</slha>"
    return EventSample(
        replace(sample.run, header=text), sample.offsets, sample.particles, sample.events
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--process", choices=DECAYS, default="mumu")
    parser.add_argument("--model", default="jetgpt")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training")
    parser.add_argument("-n", type=int, default=20_000, help="events at each mass")
    parser.add_argument("--samples", type=Path, help="directory to keep Pythia's events in")
    parser.add_argument("--out", type=Path, help="file of the numbers, .json")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = options.samples or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        files = [point_file(place, options.process, m, options.n) for m in MASSES]
        found = measured(options, files, Path(scratch))
    text = json.dumps(found, indent=1)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


def point_file(place: Path, process: str, mass: int, n: int) -> Path:
    """File of the events at one mass, made if it is not there."""
    import hepgen_ml

    path = place / f"zprime_{process}_{mass}_{n}.lhe.gz"
    if not path.exists():
        hepgen_ml.write(scan_point(mass, n, mass, process), path)
    return path


def measured(options: argparse.Namespace, files: list[Path], scratch: Path) -> dict[str, Any]:
    """Train on all masses but one, and compare at that one."""
    import hepgen_ml

    known = [f for f, m in zip(files, MASSES, strict=True) if m != LEFT_OUT]
    truth = hepgen_ml.read(files[MASSES.index(LEFT_OUT)])
    config = Config().with_(conditions=(NAME,))
    begun = time.monotonic()
    generator = Generator.train(
        known, model=options.model, out=scratch / "model", config=config, seed=options.seed,
        max_time=60 * options.minutes,
    )  # fmt: skip
    seconds = time.monotonic() - begun
    made = generator.sample(len(truth), seed=options.seed + 1, condition={NAME: LEFT_OUT})
    result = compare(truth, made, seed=options.seed)
    areas = {
        str(g.signature): {
            name: [round(area.value, 4), round(area.error, 4)]
            for name, area in (
                ("auc", g.judged.auc), ("auc_floor", g.judged_floor.auc),
                ("auc_full", g.judged_full.auc), ("auc_full_floor", g.judged_full_floor.auc),
            )
        }
        for g in result.groups
    }
    return {
        "model": options.model, "process": options.process, "events_per_mass": options.n,
        "left_out": LEFT_OUT, "seconds": round(seconds), "classifier": areas,
        "mass_quantiles": {"truth": quantiles(truth), "generated": quantiles(made)},
        "quarks": {"truth": shares(truth), "generated": shares(made)},
        "steps": generator.facts["steps"],
        "cross_section_pb": {"truth": truth.run.cross_section, "generated": made.run.cross_section},
    }  # fmt: skip


def quantiles(sample: EventSample) -> list[float]:
    """Mass of the final state in GeV below which 5, 25, 50, 75 and 95 % of the events are."""
    final = sample.status == 1
    total = np.zeros((len(sample), 4))
    np.add.at(total, sample.event_index[final], sample.momentum[final])
    mass = np.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1))
    return [round(float(q), 2) for q in np.quantile(mass, (0.05, 0.25, 0.5, 0.75, 0.95))]


def shares(sample: EventSample) -> dict[str, float]:
    """Part of the events from each flavour of incoming quarks."""
    incoming = np.abs(sample.pdg_id[sample.status == -1]).reshape(-1, 2)[:, 0]
    flavours, counts = np.unique(incoming, return_counts=True)
    return {str(f): round(float(n) / len(sample), 4) for f, n in zip(flavours, counts, strict=True)}


if __name__ == "__main__":
    main()
