"""Make Z + jets with Pythia: reconstructed events to train on or to judge by.

    python benchmarks/pythia_zjets.py --out zjets.root -n 1000000 --seed 1

pp -> Z -> mu mu at 13 TeV with shower and hadronization, without multi-parton interactions; the Z's
muons bare, and anti-kT jets (0.4) of all other visible particles, above 20 GeV, |eta| < 5. Needs
pythia8mc and fastjet. Runs on one core, and prints its rate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import awkward as ak
import fastjet
import numpy as np
import pythia8mc
import uproot

SETTINGS = (
    "Beams:eCM = 13000", "WeakSingleBoson:ffbar2gmZ = on", "PhaseSpace:mHatMin = 60",
    "PhaseSpace:mHatMax = 120", "23:onMode = off", "23:onIfAny = 13", "PartonLevel:MPI = off",
    "Random:setSeed = on", "Print:quiet = on",
)  # fmt: skip
BATCH = 5_000
INVISIBLE = (12, 14, 16)


def batches(n: int, seed: int) -> Iterator[Any]:
    """Events, some thousands at a time: branches named as in NanoAOD."""
    pythia = pythia8mc.Pythia("", False)
    for line in (*SETTINGS, f"Random:seed = {seed}"):
        pythia.readString(line)
    if not pythia.init():
        raise SystemExit("Pythia did not start")
    while n > 0:
        events = pythia.nextBatch(min(BATCH, n))
        yield reconstruct(events.prt)
        n -= BATCH


def reconstruct(particles: Any) -> Any:
    """Muons of the Z and jets of everything else that leaves a trace."""
    particles = particles[particles.status > 0]
    pt = np.hypot(particles.p.px, particles.p.py)
    chosen = []
    for pdg_id in (13, -13):
        # Those of decays of hadrons have a status above 90.
        some = (particles.id == pdg_id) & (particles.status < 90)
        hardest = ak.argmax(ak.where(some, pt, -1.0), axis=1, keepdims=True)
        chosen.append(ak.fill_none(hardest, 0))
    rows = ak.from_regular(ak.concatenate(chosen, axis=1))
    muons = particles[rows]
    muons = muons[ak.argsort(pt[rows], axis=1, ascending=False)]
    number = ak.local_index(particles.id, axis=1)
    visible = (number != rows[:, 0]) & (number != rows[:, 1])
    for pdg_id in INVISIBLE:
        visible = visible & (abs(particles.id) != pdg_id)
    momenta = particles.p[visible]
    momenta = ak.zip(
        {"px": momenta.px, "py": momenta.py, "pz": momenta.pz, "E": momenta.e},
        with_name="Momentum4D",
    )
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 0.4)
    jets = fastjet.ClusterSequence(momenta, definition).inclusive_jets(min_pt=20.0)
    jets = coordinates(jets.px, jets.py, jets.pz, jets.E)
    jets = jets[abs(jets.eta) < 5]
    jets = jets[ak.argsort(jets.pt, axis=1, ascending=False)]
    both = {"Muon": coordinates(muons.p.px, muons.p.py, muons.p.pz, muons.p.e), "Jet": jets}
    both["Muon"] = both["Muon"][["pt", "eta", "phi"]]
    both["Muon"]["charge"] = ak.values_astype(ak.where(muons.id > 0, -1, 1), np.int32)
    both["genWeight"] = np.ones(len(jets), np.float32)
    return both


def coordinates(px: Any, py: Any, pz: Any, e: Any) -> Any:
    """Transverse momentum, pseudorapidity, azimuth and mass in single precision."""
    pt = np.hypot(px, py)
    m2 = (e - pz) * (e + pz) - pt**2
    found = {
        "pt": pt, "eta": np.arcsinh(pz / pt), "phi": np.arctan2(py, px),
        "mass": np.sqrt(np.maximum(m2, 0.0)),
    }  # fmt: skip
    return ak.zip({name: ak.values_astype(values, np.float32) for name, values in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, metavar="FILE.root")
    parser.add_argument("-n", type=int, default=100_000, help="events")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun, made = time.perf_counter(), 0
    with uproot.recreate(options.out) as file:
        tree = None
        for batch in batches(options.n, options.seed):
            if tree is None:
                tree = file.mktree("Events", {
                    name: values.dtype if isinstance(values, np.ndarray) else values.type
                    for name, values in batch.items()
                })  # fmt: skip
            tree.extend(batch)
            made += len(batch["genWeight"])
            rate = made / (time.perf_counter() - begun)
            print(f"{made} events, {rate:.0f} per second", flush=True)


if __name__ == "__main__":
    main()
