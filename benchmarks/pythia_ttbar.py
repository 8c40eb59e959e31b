"""Make hadronic top pairs with Pythia: hard processes with resonances, to train on or to judge by.

    python benchmarks/pythia_ttbar.py --out ttbar.lhe.gz -n 400000 --seed 1

pp -> t t~ -> six quarks at 13 TeV, the hard process alone. Needs pythia8mc. Runs on one core.
"""

from __future__ import annotations

import argparse

import numpy as np
import pythia8mc

import hepgen_ml
from hepgen_ml.events import EventSample, RunInfo, Subrun

SETTINGS = (
    "Beams:eCM = 13000", "Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off",
    "24:onIfAny = 1 2 3 4 5", "PartonLevel:all = off", "HadronLevel:all = off",
    "Random:setSeed = on", "Print:quiet = on",
)  # fmt: skip
PARTICLE = ("pdg_id", "status", "mother1", "mother2", "color1", "color2", "px", "py", "pz",
            "energy", "mass", "lifetime", "spin")  # fmt: skip
EVENT = ("process_id", "weight", "scale", "alpha_qed", "alpha_qcd")
STATUS = {-21: -1, -22: 2, 23: 1}
"""Pythia's incoming, intermediate and final particles of a hard process in LHE terms."""
N_BEFORE = 3  # the whole system and the beams


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, metavar="FILE.lhe.gz")
    parser.add_argument("-n", type=int, default=100_000, help="events")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    pythia = pythia8mc.Pythia("", False)
    for line in (*SETTINGS, f"Random:seed = {options.seed}"):
        pythia.readString(line)
    if not pythia.init():
        raise SystemExit("Pythia did not start")
    offsets, rows, events = [0], [], []
    while len(events) < options.n:
        if not pythia.next():
            continue
        process, info = pythia.process, pythia.infoPython()
        rows.append(np.array([row(process[i]) for i in range(N_BEFORE, process.size())]))
        offsets.append(offsets[-1] + len(rows[-1]))
        events.append((info.code(), 1.0, info.QFac(), info.alphaEM(), info.alphaS()))
    info = pythia.infoPython()
    subruns = tuple(
        Subrun(code, 1e9 * info.sigmaGen(code), 1e9 * info.sigmaErr(code), 1.0)
        for code in info.codesHard()
    )
    run = RunInfo(
        (2212, 2212), (6500.0, 6500.0), weight_strategy=3, processes=subruns,
        generators=(("Pythia", "8", "hard process"),),
    )  # fmt: skip
    sample = EventSample(
        run,
        offsets,
        dict(zip(PARTICLE, np.concatenate(rows).T, strict=True)),
        dict(zip(EVENT, np.array(events).T, strict=True)),
    )
    hepgen_ml.write(sample, options.out)


def row(p: pythia8mc.Particle) -> tuple[float, ...]:
    """One particle."""
    mothers = (0, 0)
    if p.status() != -21:
        first, last = p.mother1(), p.mother2() or p.mother1()
        mothers = (first - N_BEFORE + 1, last - N_BEFORE + 1)
    return (p.id(), STATUS[p.status()], *mothers, p.col(), p.acol(), p.px(), p.py(), p.pz(),
            p.e(), p.m(), 0.0, 9.0)  # fmt: skip


if __name__ == "__main__":
    main()
