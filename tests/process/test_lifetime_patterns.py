"""Particles of an event that have lifetimes together, or not."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.process.lifetime_patterns import PatternTable, copied, draw_patterns, stored_tables
from hepgen_ml.process.lifetimes import Lifetime, LifetimeLearner, draw_lifetimes
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure, tables
from hepgen_ml.process.understanding import understood
from tests.samples import learned as process_of
from tests.samples import toy_top_pairs


@cache
def top_pairs() -> EventSample:
    return toy_top_pairs(1500)


def with_lifetimes(lifetime: np.ndarray, n: int = 1500) -> EventSample:
    """Pairs of top quarks with lifetimes (n, 2)."""
    sample = top_pairs()[np.arange(n)]
    sample.particles["lifetime"][np.abs(sample.pdg_id) == 6] = lifetime.ravel()
    return sample


class Learned(NamedTuple):
    """What a process knows of lifetimes."""

    structures: list[Structure]
    frequencies: np.ndarray
    lifetimes: tuple[Lifetime, ...]
    tables: tuple[PatternTable, ...]


def learned(sample: EventSample) -> Learned:
    learner, counts = LifetimeLearner(), Counter[Structure]()
    for chunk in sample.chunks(700):
        for structure, events, table in tables(chunk):
            learner.add([structure], np.array([0, len(events)]), table["lifetime"])
            counts[structure] += len(events)
    structures = list(counts)
    lifetimes = learner.lifetimes()
    found = learner.patterns(structures, lifetimes)
    species = {(v.pdg_id, v.status) for v in lifetimes}
    assert stored_tables([t.to_config() for t in found], structures, species) == found
    frequencies = np.array([counts[s] for s in structures]) / len(sample)
    return Learned(structures, frequencies, lifetimes, found)


def generated(what: Learned, n: int = 6000, seed: int = 1) -> EventSample:
    """Events without kinematics."""
    rng = np.random.default_rng(seed)
    number = rng.choice(len(what.structures), n, p=what.frequencies)
    structures = [what.structures[i] for i in number]
    offsets = np.concatenate([[0], np.cumsum([len(s.pdg_id) for s in structures])])
    columns = {
        name: np.concatenate([getattr(s, name) for s in structures])
        for name in ("pdg_id", "status", "mother1", "mother2")
    }
    columns["lifetime"] = np.zeros(offsets[-1])
    events = {"process_id": np.array([s.process_id for s in structures])}
    sample = EventSample(RunInfo(), offsets, columns, events)
    species = {(v.pdg_id, v.status) for v in what.lifetimes}
    drawn = draw_patterns(what.tables, species, what.structures, sample, number, rng)
    draw_lifetimes(what.lifetimes, sample, rng, drawn=drawn)
    return sample


def pairs(sample: EventSample) -> np.ndarray:
    """Lifetimes (events, 2) of the top quarks."""
    return sample.particles["lifetime"][np.abs(sample.pdg_id) == 6].reshape(-1, 2)


@pytest.mark.parametrize("kind", ["all or none", "one of two", "alone", "by subprocess"])
def test_patterns_are_those_of_the_sample(kind: str) -> None:
    rng, n = np.random.default_rng(3), 1500
    some = np.ones((n, 2), dtype=bool)
    if kind == "all or none":
        some[rng.random(n) < 0.3] = False
    elif kind == "one of two":
        some = rng.permuted(np.tile([True, False], (n, 1)), axis=1)
    elif kind == "alone":
        some = rng.random((n, 2)) < 0.7
    else:
        some[top_pairs().pdg_id[top_pairs().offsets[:-1]] != 21] = False
    sample = with_lifetimes(np.where(some, rng.exponential(2.0, (n, 2)), 0))
    found = learned(sample)
    assert bool(found.tables) == (kind != "alone")
    made = generated(found)
    lifetimes = pairs(made)
    here, there = (Counter(map(tuple, s.tolist())) for s in (some, lifetimes > 0))
    assert set(there) == set(here)
    for pattern, count in here.items():
        assert there[pattern] / 6000 == pytest.approx(count / n, abs=0.03)
    assert lifetimes[lifetimes > 0].mean() == pytest.approx(2.0, rel=0.08)
    assert not made.particles["lifetime"][np.abs(made.pdg_id) != 6].any()
    if kind == "by subprocess":
        assert ((lifetimes > 0).all(1) == (made.pdg_id[made.offsets[:-1]] == 21)).all()


def test_rare_subprocesses_are_like_the_others() -> None:
    rng = np.random.default_rng(4)
    sample = with_lifetimes(np.repeat((rng.random(1500) < 0.5) * 1.0, 2))
    quarks = np.flatnonzero(sample.pdg_id[sample.offsets[:-1]] == 2)
    rare = quarks[sample.counts[quarks] == 4][:7]
    for k in (0, 1):
        sample.particles["pdg_id"][sample.offsets[rare] + k] *= 2  # a charm quark
    sample.particles["pdg_id"][sample.offsets[rare[:3]] + 2] = -6  # with particles of its own
    found = learned(sample)
    assert sum(len(t.subprocesses) for t in found.tables) == len(found.structures) >= 6
    lifetimes = pairs(generated(found))
    assert ((lifetimes == 0).all(1) | (lifetimes == 1.0).all(1)).all()
    assert (lifetimes == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_patterns_that_no_pair_of_particles_shows() -> None:
    """Three particles of which one or all have a lifetime."""
    mothers = (0, 0, 1, 1, 1), (0, 0, 2, 2, 2)
    structure = Structure(0, (1, -1, 15, -15, 13), (-1, -1, 1, 1, 1), *mothers)
    rng, n = np.random.default_rng(6), 2000
    some = rng.random((n, 3)) < 0.5
    some[:, 2] = some[:, 0] == some[:, 1]
    learner = LifetimeLearner()
    lifetime = np.concatenate([np.zeros((n, 2)), some * 1.0], axis=1)
    learner.add([structure], np.array([0, n]), lifetime)
    (table,) = learner.patterns([structure], learner.lifetimes())
    assert set(table.patterns) == {(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)}


def test_copies_have_the_lifetime_of_the_original() -> None:
    """A muon that is listed three times."""
    mothers = (0, 0, 1, 3, 4, 1), (0, 0, 2, 3, 4, 2)
    structure = Structure(1, (11, -11, 13, 13, 13, -13), (-1, -1, 2, 2, 1, 1), *mothers)
    n, rng = 500, np.random.default_rng(5)
    own = rng.exponential(1.0, (n, 2)) * (rng.random((n, 2)) < 0.6)
    lifetime = np.zeros((n, 6))
    lifetime[:, 2:5], lifetime[:, 5] = own[:, :1], own[:, 1]
    learner = LifetimeLearner()
    learner.add([structure], np.array([0, n]), lifetime)
    lifetimes = learner.lifetimes()
    found = learner.patterns([structure], lifetimes)
    sample = generated(Learned([structure], np.ones(1), lifetimes, found))
    made = sample.particles["lifetime"].reshape(-1, 6)
    assert (made[:, 2] == made[:, 3]).all()
    assert (made[:, 2] == made[:, 4]).all()
    assert (made[:, 2] == made[:, 5]).mean() < 0.3
    for column in (2, 5):
        assert (made[:, column] > 0).mean() == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize("together", [True, False])
def test_structures_of_one_event_each(together: bool) -> None:
    """None can be judged by itself, but no event of any has lifetimes of some particles only."""
    rng = np.random.default_rng(5)
    learner, structures = LifetimeLearner(), []
    for _ in range(300):
        ids = (21, 21, *rng.choice([511, 521, -511, -521, 15, -15, 13, -13], 6).tolist())
        structure = Structure(0, ids, (-1, -1, *[1] * 6), (0, 0, *[1] * 6), (0, 0, *[2] * 6))
        has = np.full(8, rng.random() < 0.5) if together else rng.random(8) < 0.5
        lifetime = np.where(has, rng.exponential(1.0, 8), 0.0)
        lifetime[:2] = 0
        learner.add([structure], np.array([0, 1]), lifetime[None])
        structures.append(structure)
    found = learner.patterns(structures, learner.lifetimes())
    assert bool(found) == together
    assert len(found) <= 1
    assert {len(set(p)) for table in found for p in table.patterns} <= {1}
    assert sum(len(table.subprocesses) for table in found) == (300 if together else 0)


def test_damaged_tables_are_refused() -> None:
    sample = with_lifetimes(np.repeat(np.arange(300) % 2, 2), 300)
    process = process_of(sample)
    assert "together" in dict(understood(process, sample.run, {}))["lifetimes"]
    config = process.to_config()
    table = config["lifetime_patterns"][0]
    for name, values, words in (
        ("patterns", [[0, 0], [1, 2]], "copy"), ("patterns", [[0], [1]], "every particle"),
        ("frequency", [1.0], "every pattern"), ("subprocesses", [99], "does not exist"),
        ("subprocesses", [0, 0], "several tables"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Process.from_config(config | {"lifetime_patterns": [table | {name: values}]})
    del config["lifetime_patterns"]
    assert Process.from_config(config).lifetime_patterns == ()


def test_a_ring_of_mothers_ends() -> None:
    ring = Structure(0, (13, 13, 13), (2, 2, 1), (2, 1, 2), (2, 1, 2))
    found = copied(ring)
    for row in found:
        at = row
        for _ in range(3):
            at = found.get(at, at)
        assert at not in found
