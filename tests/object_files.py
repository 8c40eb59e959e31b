"""Files of reconstructed objects for tests: NanoAOD naming and showered events."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pyhepmc
import uproot
from hepgen_adapters._objects import Objects, object_columns

from hepgen_ml.events.formats import open_sample
from hepgen_ml.events.objects import MASSES, Selection, parse_objects
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate

COLUMNS = ("pdg_id", "px", "py", "pz", "energy", "mass")
MUON = MASSES["Muon"]


def chosen(text: str, **options: float) -> Selection:
    return Selection(parse_objects(text), **options)


def object_sample(n: int = 90, seed: int = 3) -> EventSample:
    """Two muons, up to four jets and now and then a photon, with weights."""
    rng = np.random.default_rng(seed)

    def some(counts: np.ndarray, masses: np.ndarray, charge: np.ndarray | None) -> Objects:
        size = int(counts.sum())
        px, py, pz = rng.normal(0, 50, (3, size))
        return Objects(counts, px, py, pz, masses[:size], charge)

    jets = rng.integers(0, 5, n)
    collections = {
        "Muon": some(np.full(n, 2), np.full(2 * n, MUON), np.tile([-1, 1], n)),
        "Photon": some((np.arange(n) % 30 == 29).astype(int), np.zeros(n), None),
        "Jet": some(jets, rng.exponential(5, int(jets.sum())), None),
    }
    offsets, columns = object_columns(collections, n)
    run = RunInfo(
        beam_energy=(6500.0, 6500.0),
        weight_strategy=-4,
        processes=(Subrun(3, 50.0, 0.5),),
        weight_names={"w 1": "first", "w_1": ""},
        header="some text",
    )
    weights = {name: rng.uniform(0.5, 1.5, n) for name in run.weight_names}
    return EventSample(run, offsets, columns, {"weight": rng.uniform(40, 60, n)}, weights=weights)


def read(path: Path, selection: Selection | None = None, size: int = 17) -> EventSample:
    reader = open_sample(path, selection=selection)
    sample = concatenate(list(reader.chunks(size)), reader.run)
    reader.close()
    return sample


def numbers(sample: EventSample, pdg_id: int) -> np.ndarray:
    return np.bincount(sample.event_index[np.abs(sample.pdg_id) == pdg_id], minlength=len(sample))


def nano(path: Path, tree: str = "Events", **branches: object) -> Path:
    arrays = {k: ak.Array(v) for k, v in branches.items()}
    with uproot.recreate(path) as file:
        file.mktree(tree, {k: v.type.content for k, v in arrays.items()})
        file[tree].extend(arrays)
    return path


def shower(path: Path, events: list[list[tuple[int, int, float, float, float]]]) -> Path:
    """Events of (id, status, pt, eta, phi), all from the beams."""
    with pyhepmc.open(path, "w") as file:
        for i, particles in enumerate(events):
            event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.MM)
            event.event_number = i
            vertex = pyhepmc.GenVertex()
            for pz in (6500.0, -6500.0):
                vertex.add_particle_in(pyhepmc.GenParticle((0, 0, pz, 6500.0), 2212, 4))
            for pdg_id, status, pt, eta, phi in particles:
                p = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
                vertex.add_particle_out(pyhepmc.GenParticle(p, pdg_id, status))
            event.add_vertex(vertex)
            event.weights = [1.0]
            cross_section = pyhepmc.GenCrossSection()
            event.cross_section = cross_section
            cross_section.set_cross_section(5.0 + i, 1.0, -1, -1)
            file.write(event)
    return path
