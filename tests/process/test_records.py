"""Events of many subprocesses are handled together as they would be one by one."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.process import lifetimes
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.lifetimes import LifetimeLearner
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import PATTERN, batches, tables
from tests.phase_space.test_decays import hadronic_tops
from tests.samples import toy_top_pairs


@pytest.fixture(scope="module")
def sample() -> EventSample:
    """Top pairs with all quarks of two generations, which are many subprocesses."""
    tops = hadronic_tops(400)
    rng, ids = np.random.default_rng(0), tops.pdg_id.copy()
    light = (np.abs(ids) <= 4) & (tops.status == 1)
    ids[light] = np.sign(ids[light]) * rng.integers(1, 5, light.sum())
    return EventSample(
        tops.run, tops.offsets, {**tops.particles, "pdg_id": ids}, dict(tops.events)
    )


@pytest.fixture(scope="module")
def process(sample: EventSample) -> Process:
    learner = ProcessLearner(find_cuts=False)
    learner.add(sample)
    return learner.process(sample.run.beam_energy)


def test_subprocesses_and_patterns_are_recognised(sample: EventSample, process: Process) -> None:
    assert len(process.subprocesses) > 100
    swapped = {**sample.particles, "color1": sample.color2, "color2": sample.color1}
    other = EventSample(sample.run, sample.offsets, swapped, dict(sample.events))
    for one, known in ((sample, True), (other, False), (toy_top_pairs(50), False)):
        for batch in batches(one, discrete=True):
            number, pattern = process.records.recognised(batch)
            assert ((pattern >= 0) == known).all()
            for k in np.flatnonzero(pattern >= 0):
                sub = process.subprocesses[number[k]]
                assert sub.structure.pdg_id == tuple(batch.columns["pdg_id"][k])
                assert (sub.patterns[pattern[k]] == batch.columns[PATTERN][k]).all()
    both = concatenate([sample, other])
    assert process.knows(both).tolist() == [True] * 400 + [False] * 400


def test_lifetimes_are_kept_as_one_after_another(
    sample: EventSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of every structure in turn, with a memory that is cut on the way."""
    monkeypatch.setattr(lifetimes, "_KEPT", 60)
    rng = np.random.default_rng(1)
    values = rng.exponential(1.0, len(sample.pdg_id)) * (rng.random(len(sample.pdg_id)) < 0.7)
    columns = {**sample.particles, "lifetime": values}
    events = EventSample(sample.run, sample.offsets, columns, dict(sample.events))
    together, apart = LifetimeLearner(3), LifetimeLearner(3)
    for batch in batches(events):
        together.add(batch.structures, batch.first, batch.columns["lifetime"])
    for structure, own, table in tables(events):
        apart.add([structure], np.array([0, len(own)]), table["lifetime"])
    assert together.lifetimes() == apart.lifetimes()
    assert max(v.mean for v in together.lifetimes()) > 0
