"""Make jets of known origin with Pythia: constituents to train taggers on, and to judge them by.

    python benchmarks/pythia_jets.py --out jets --process top qcd -n 30000 --seed 1

Proton collisions at 14 TeV with shower and hadronization, without multi-parton interactions and
without a detector: the visible stable particles, clustered by anti-kT with R = 0.8; jets with
550 < pT < 650 GeV and |eta| < 2. A jet has the origin that it is labelled with if the particle and
all quarks or gluons of its decay are within 0.8 of the jet's axis, and that of the hard process's
quark or gluon where there is no decay. One file is written for each process, with a jet in each
entry and branches named as those of JetClass: part_px, part_py, part_pz, part_energy, part_charge
of the constituents in falling transverse momentum; jet_pt, jet_eta, jet_phi, jet_energy; and
origin, the PDG number of what it comes from (1 to 5, 21, 6, 23, 24, 25). Needs pythia8mc and
fastjet. Runs on one core, and prints its rate.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import awkward as ak
import fastjet
import numpy as np
import pythia8mc
import uproot

COMMON = (
    "Beams:eCM = 14000", "PartonLevel:MPI = off", "PhaseSpace:pTHatMin = 500",
    "PhaseSpace:pTHatMax = 800", "Random:setSeed = on", "Print:quiet = on",
)  # fmt: skip
QUARKS = "1 2 3 4 5"
BOSON_AND_PARTON = ("WeakBosonAndParton:qqbar2{0}g = on", "WeakBosonAndParton:qg2{0}q = on")
HIGGS = ("HiggsSM:ffbar2HZ = on", "23:onMode = off", "23:onIfAny = 12 14 16", "25:onMode = off")
PROCESSES = {
    "top": (6, ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off",
                f"24:onIfAny = {QUARKS}")),
    "w": (24, (*(line.format("W") for line in BOSON_AND_PARTON), "24:onMode = off",
               f"24:onIfAny = {QUARKS}")),
    "z": (23, (*(line.format("gmZ") for line in BOSON_AND_PARTON), "WeakZ0:gmZmode = 2",
               "23:onMode = off", f"23:onIfAny = {QUARKS}")),
    "hbb": (25, (*HIGGS, "25:onIfMatch = 5 -5")),
    "hcc": (25, (*HIGGS, "25:onIfMatch = 4 -4")),
    "hgg": (25, (*HIGGS, "25:onIfMatch = 21 21")),
    "qcd": (0, ("HardQCD:all = on",)),
}  # fmt: skip
"""What decays in the jets (0: nothing), and Pythia's settings."""

RADIUS, PT, ETA = 0.8, (550.0, 650.0), 2.0
BATCH = 1_000
INVISIBLE = (12, 14, 16)


def distance(eta: Any, phi: Any, other_eta: Any, other_phi: Any) -> Any:
    """Distance Delta R of directions."""
    return np.hypot(eta - other_eta, np.mod(phi - other_phi + np.pi, 2 * np.pi) - np.pi)


def directions(particles: Any) -> tuple[Any, Any]:
    """Pseudorapidity and azimuth."""
    p = particles.p
    pt = np.maximum(np.hypot(p.px, p.py), 1e-9)  # that of beams is zero
    return np.arcsinh(p.pz / pt), np.arctan2(p.py, p.px)


def prongs(record: Any, pdg_id: int) -> tuple[Any, Any]:
    """PDG numbers (events, origins) of what makes jets, and rows (events, origins, prongs).

    The latter of what has to be in the jet: the quarks of the decay of the last copy of a
    particle; without a decay the partons of the hard process themselves.
    """
    number = ak.local_index(record.id, axis=1)
    if pdg_id == 0:
        hard = number[abs(record.status) == 23]
        return abs(record.id)[hard], hard[:, :, np.newaxis]
    last = (abs(record.id) == pdg_id) & (abs(record.id[ak.values_astype(
        record.daughter1, np.int64)]) != pdg_id)  # fmt: skip
    one = number[last]
    first, second = record.daughter1[one], record.daughter2[one]
    if pdg_id != 6:
        return abs(record.id)[one], ak.concatenate(
            [first[:, :, np.newaxis], second[:, :, np.newaxis]], axis=2
        )
    w_first = abs(record.id[first]) == 24
    w, b = ak.where(w_first, first, second), ak.where(w_first, second, first)
    for _ in range(60):  # to the last copy of the W boson
        after = record.daughter1[w]
        copied = abs(record.id[after]) == 24
        if not ak.any(copied):
            break
        w = ak.where(copied, after, w)
    inside = [b, record.daughter1[w], record.daughter2[w]]
    return abs(record.id)[one], ak.concatenate([i[:, :, np.newaxis] for i in inside], axis=2)


def jets_of(events: Any, pdg_id: int) -> dict[str, Any]:
    """Branches of all labelled jets of some events."""
    record = events.prt
    visible = record.status > 0
    for invisible in INVISIBLE:
        visible = visible & (abs(record.id) != invisible)
    stable = record[visible]
    p = stable.p
    momenta = ak.zip({"px": p.px, "py": p.py, "pz": p.pz, "E": p.e}, with_name="Momentum4D")
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    cluster = fastjet.ClusterSequence(momenta, definition)
    jets = cluster.inclusive_jets(min_pt=PT[0])
    inside = cluster.constituent_index(min_pt=PT[0])
    pt, phi = np.hypot(jets.px, jets.py), np.arctan2(jets.py, jets.px)
    eta = np.arcsinh(jets.pz / pt)
    origin, parts = prongs(record, pdg_id)
    part_eta, part_phi = directions(record)
    # (event, jet, origin): whether all of its prongs are in the jet
    near: Any = True
    for k in range(int(ak.flatten(ak.num(parts, axis=2))[0])):
        at = parts[:, :, k]
        near = near & (distance(
            eta[:, :, np.newaxis], phi[:, :, np.newaxis],
            part_eta[at][:, np.newaxis, :], part_phi[at][:, np.newaxis, :],
        ) < RADIUS)  # fmt: skip
    match = ak.argmax(near, axis=2)
    good = (pt > PT[0]) & (pt < PT[1]) & (abs(eta) < ETA) & ak.any(near, axis=2)
    label = origin[ak.fill_none(match, 0)][good]
    names = {"px": p.px, "py": p.py, "pz": p.pz, "energy": p.e}
    chosen = inside[good]
    flat = ak.flatten(chosen, axis=2)
    n = ak.flatten(ak.num(chosen, axis=2))
    branches = {}
    for name, values in names.items():
        branches[f"part_{name}"] = ak.unflatten(ak.flatten(values[flat]), n)
    charge = ak.unflatten(ak.flatten(charges(stable.id)[flat]), n)
    order = ak.argsort(np.hypot(branches["part_px"], branches["part_py"]), axis=1, ascending=False)
    done = {k: ak.values_astype(v[order], np.float32) for k, v in branches.items()}
    done["part_charge"] = ak.values_astype(charge[order], np.int8)
    for name, values in {"pt": pt, "eta": eta, "phi": phi, "energy": jets.E}.items():
        done[f"jet_{name}"] = ak.to_numpy(ak.flatten(values[good])).astype(np.float32)
    done["origin"] = ak.to_numpy(ak.flatten(label)).astype(np.int32)
    return done


def charges(pdg_id: Any) -> Any:
    """Electric charges of stable particles."""
    size, flat = abs(pdg_id), 0
    for lepton in (11, 13):
        flat = flat - (size == lepton) * 1
    for positive in (211, 321, 2212):
        flat = flat + (size == positive) * 1
    for negative in (3112, 3312, 3334):
        flat = flat - (size == negative) * 1
    flat = flat + (size == 3222) * 1
    return flat * np.sign(pdg_id)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--process", nargs="+", choices=PROCESSES, default=list(PROCESSES))
    parser.add_argument("-n", type=int, default=20_000, help="jets of each process")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for process in options.process:
        make(options.out / f"{process}.root", process, options.n, options.seed)


def make(path: Path, process: str, n: int, seed: int) -> None:
    pdg_id, settings = PROCESSES[process]
    pythia = pythia8mc.Pythia("", False)
    for line in (*COMMON, *settings, f"Random:seed = {seed}"):
        if not pythia.readString(line):
            raise SystemExit(f"Pythia does not know {line}")
    if not pythia.init():
        raise SystemExit("Pythia did not start")
    begun, made = time.perf_counter(), 0
    with uproot.recreate(path) as file:
        tree = None
        while made < n:
            batch = jets_of(pythia.nextBatch(BATCH), pdg_id)
            batch = {name: values[: n - made] for name, values in batch.items()}
            if tree is None:
                tree = file.mktree("tree", {
                    name: values.dtype if isinstance(values, np.ndarray) else values.type
                    for name, values in batch.items()
                })  # fmt: skip
            tree.extend(batch)
            made += len(batch["origin"])
            rate = made / (time.perf_counter() - begun)
            print(f"{process}: {made} jets, {rate:.0f} per second", flush=True)


if __name__ == "__main__":
    main()
