"""Records with beams, remnants, propagators and rows that are no particles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml import Generator
from hepgen_ml.events.conversion import convert, convert_events
from hepgen_ml.events.formats import open_sample
from hepgen_ml.events.hard_process import HardProcess, hard_process
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.events.source import EventSource
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.training.data import SampleSource
from tests.parton_events import BEAM, assert_same, parton_sample

SAMPLE = parton_sample(20)


def with_rows(
    front: list[dict[str, float]], back: list[dict[str, float]], sample: EventSample = SAMPLE
) -> EventSample:
    """A sample with further rows in front of and behind each event; mothers count on."""
    particles: dict[str, list[float]] = {name: [] for name in sample.particles}
    counts = []
    for i in range(len(sample)):
        rows = slice(*sample.offsets[i : i + 2])
        own = [
            dict(zip(sample.particles, values, strict=True))
            for values in zip(*(v[rows] for v in sample.particles.values()), strict=True)
        ]
        for row in own:
            for name in ("mother1", "mother2"):
                row[name] += len(front) if row[name] else 0
        incoming = iter((1, 2))
        if front:
            for row in own:
                row["mother1"] = next(incoming) if row["status"] == -1 else row["mother1"]
        for row in [*front, *own, *back]:
            for name, values in particles.items():
                values.append(row.get(name, 9 if name == "spin" else 0))
        counts.append(len(front) + len(own) + len(back))
    return EventSample(
        sample.run, np.concatenate([[0], np.cumsum(counts)]), particles, sample.events,
        weights=sample.weights, scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip


def read(path: Path) -> EventSample:
    reader = open_sample(path)
    return concatenate(list(reader.chunks()))


def beam(side: int) -> dict[str, float]:
    return {"pdg_id": 2212, "status": -9, "pz": side * BEAM, "energy": BEAM}


def remnant(mother: int, status: int, pdg_id: int = 92) -> dict[str, float]:
    return {"pdg_id": pdg_id, "status": status, "mother1": mother, "pz": 1.0, "energy": 1.0}


BEAMS = [beam(1), beam(-1)]
RECORDS = {
    "beams": with_rows(BEAMS, []),
    "remnants": with_rows([*BEAMS, remnant(1, 3), remnant(2, 3)], []),
    "final remnants": with_rows([*BEAMS, remnant(1, 1), remnant(2, 1, 22)], []),
    "broken remnants": with_rows([*BEAMS, remnant(1, 2), remnant(3, 1)], []),
    "no particle": with_rows([], [{"pdg_id": 0, "status": 3}]),
    "a string": with_rows([], [{"pdg_id": 92, "status": 2, "mother1": 1, "mother2": 2}]),
    "a propagator": with_rows([], [{"pdg_id": 22, "status": -2, "mother1": 1, "mass": -3.0}]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_collision_is_what_it_was(name: str) -> None:
    sample = RECORDS[name]
    hard = HardProcess()
    assert_same(hard(sample), SAMPLE)
    (text,) = hard.left_out
    assert ("of them are final" in text) == ("final" in name or "broken" in name)
    results = check_sample([sample], sample.run)
    assert not any(r.n_broken for r in results)
    assert results[-1].text == text
    (learned,) = SampleSource(sample).chunks()
    assert_same(learned, SAMPLE)
    ProcessLearner().add(learned)


def test_the_density_is_that_of_the_collision() -> None:
    generator = Generator.load("ttbar01j", device="cpu")
    sample = generator.sample(20, seed=1)
    density = generator.log_prob(with_rows(BEAMS, [], sample))
    np.testing.assert_array_equal(density, generator.log_prob(sample))
    assert np.isfinite(density).all()


def test_daughters_become_those_of_their_mothers() -> None:
    """A Z boson that decays by way of a row that is none, and what a propagator makes."""
    columns = {
        "pdg_id": [2, -2, 94, 23, 90, 13, -13], "status": [-1, -1, -2, 2, 3, 1, 1],
        "mother1": [0, 0, 1, 2, 4, 5, 5], "mother2": [0, 0, 0, 3, 4, 5, 0],
    }  # fmt: skip
    momenta = dict.fromkeys(("px", "py", "pz", "energy"), np.zeros(7))
    hard = hard_process(EventSample(SAMPLE.run, [0, 7], columns | momenta))
    np.testing.assert_array_equal(hard.pdg_id, [2, -2, 23, 13, -13])
    np.testing.assert_array_equal(hard.mother1, [0, 0, 1, 3, 3])
    np.testing.assert_array_equal(hard.mother2, [0, 0, 2, 3, 3])


def test_mothers_that_no_particle_states() -> None:
    """Pythia refuses such events; what is learned, and generated, states them."""
    made = (SAMPLE.mother1 == 1) & (SAMPLE.mother2 == 2)
    none = {name: np.where(made, 0, SAMPLE.particles[name]) for name in ("mother1", "mother2")}
    lacking = SAMPLE[:]
    lacking.particles |= none
    assert {r.name for r in check_sample([lacking], SAMPLE.run) if r.n_broken} == {"mothers"}
    assert_same(hard_process(lacking), SAMPLE)
    source = SampleSource(concatenate([SAMPLE, lacking]))
    (learned,) = source.chunks()
    assert_same(learned, concatenate([SAMPLE, SAMPLE]))
    assert source.hard_process is not None
    (text,) = source.hard_process.left_out
    assert text.startswith(f"{len(SAMPLE)} events state no mothers")


def test_a_single_particle_without_mothers_is_an_error() -> None:
    none = {name: SAMPLE.particles[name].copy() for name in ("mother1", "mother2")}
    row = np.flatnonzero(SAMPLE.mother2 == 2)[0]
    for column in none.values():
        column[row] = 0
    odd = EventSample(SAMPLE.run, SAMPLE.offsets, SAMPLE.particles | none, SAMPLE.events)
    assert hard_process(odd) is odd


def test_final_particles_without_meaning_are_refused() -> None:
    sample = with_rows([], [{"pdg_id": 91, "status": 1, "mother1": 1, "mother2": 2}])
    assert hard_process(sample) is sample
    broken = {r.name for r in check_sample([sample], sample.run) if r.n_broken}
    assert "particle ids" in broken


def test_circles_of_mothers_end() -> None:
    columns = {"pdg_id": [90, 91, 13], "status": [3, 3, 1]}
    columns |= {"mother1": [2, 1, 1], "mother2": [0, 0, 0]}
    momenta = dict.fromkeys(("px", "py", "pz", "energy"), np.zeros(3))
    hard = hard_process(EventSample(SAMPLE.run, [0, 3], columns | momenta))
    np.testing.assert_array_equal(hard.mother1, [0])


def test_files_keep_their_records(tmp_path: Path) -> None:
    sample = RECORDS["remnants"]
    path = tmp_path / "beams.lhe"
    convert_events(EventSource(sample), path)
    for suffix in (".root", ".h5"):
        convert(path, tmp_path / f"a{suffix}")
        convert(tmp_path / f"a{suffix}", tmp_path / f"a{suffix}.lhe")
        back = read(tmp_path / f"a{suffix}.lhe")
        np.testing.assert_array_equal(back.pdg_id, sample.pdg_id)
        np.testing.assert_array_equal(back.mother1, sample.mother1)
    done = convert(path, tmp_path / "a.hepmc")  # has its own beams and remnants
    assert "beams and remnants" in " ".join(done.lost[tmp_path / "a.hepmc"])
    convert(tmp_path / "a.hepmc", tmp_path / "b.lhe")
    np.testing.assert_array_equal(read(tmp_path / "b.lhe").pdg_id, SAMPLE.pdg_id)

