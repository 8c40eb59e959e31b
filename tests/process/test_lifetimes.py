"""Lifetimes: learned by species, stored, written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.lifetimes import Lifetime, draw_lifetimes
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure, tables
from hepgen_ml.process.understanding import understood
from tests.generation.test_generator import settings
from tests.parton_events import parton_sample
from tests.samples import toy_top_pairs
from tests.scans import resonance

N = 4000


def long_lived(n: int = N) -> EventSample:
    """Top quarks of which one in four is prompt."""
    sample = toy_top_pairs(n, jets=False)
    rng = np.random.default_rng(5)
    tops = sample.pdg_id == 6
    lifetime = sample.particles["lifetime"]
    lifetime[tops] = rng.exponential(100.0, tops.sum()) * (rng.random(tops.sum()) < 0.75)
    return sample


def process_of(sample: EventSample) -> Process:
    learner = ProcessLearner()
    for chunk in sample.chunks(500):
        learner.add(chunk)
    assert not learner.not_learned
    return learner.process(sample.run.beam_energy)


def test_an_exponential_with_prompt_particles(tmp_path: Path) -> None:
    sample = long_lived()
    sample.particles["lifetime"][sample.pdg_id == -6] = sample.particles["lifetime"][
        sample.pdg_id == 6
    ]
    config = settings("training.max_steps=3")
    Generator.train(sample, out=tmp_path / "m", config=config, device="cpu")
    generator = Generator.load(tmp_path / "m", device="cpu")
    (lifetime,) = generator.process.lifetimes
    assert (lifetime.pdg_id, lifetime.status, lifetime.quantiles) == (6, 1, ())
    assert lifetime.prompt == pytest.approx(0.25, abs=0.02)
    assert lifetime.mean == pytest.approx(100.0, rel=0.05)
    events = generator.sample(3000, seed=1)
    for flavour in (6, -6):
        made = events.particles["lifetime"][events.pdg_id == flavour]
        assert (made == 0).mean() == pytest.approx(0.25, abs=0.03)
        assert made[made > 0].mean() == pytest.approx(100.0, rel=0.08)
        assert made[made > 0].std() == pytest.approx(100.0, rel=0.12)
    assert not events.particles["lifetime"][np.abs(events.pdg_id) != 6].any()
    words = dict(understood(generator.process, generator.run, {}))
    assert words["lifetimes"].startswith("t exponential with c")
    assert "% prompt" in words["lifetimes"]
    for name in ("e.lhe", "e.hepmc"):
        hepgen_ml.write(events, tmp_path / name)
        again = hepgen_ml.read(tmp_path / name)
        assert np.sort(again.particles["lifetime"]) == pytest.approx(
            np.sort(events.particles["lifetime"]), rel=1e-5
        )
    assert (generator.sample(200, seed=3).particles["lifetime"]
            == generator.sample(200, seed=3).particles["lifetime"]).all()  # fmt: skip


def test_other_distributions_are_as_in_the_sample() -> None:
    process = process_of(parton_sample(1000))  # muons of 0.125 mm
    (lifetime,) = process.lifetimes
    assert lifetime.pdg_id == 13
    rng = np.random.default_rng(0)
    assert lifetime.draw(100, rng) == pytest.approx(0.125)
    sample = long_lived()
    tops = np.abs(sample.pdg_id) == 6
    sample.particles["lifetime"][tops] = rng.uniform(10, 20, tops.sum())  # a detector's edges
    (lifetime,) = process_of(sample).lifetimes
    made = lifetime.draw(10_000, rng)
    assert 10 <= made.min() <= made.max() <= 20
    assert np.median(made) == pytest.approx(15.0, abs=0.3)


def test_stored_form() -> None:
    process = process_of(long_lived())
    again = Process.from_config(process.to_config())
    assert again.lifetimes == process.lifetimes
    config = process.to_config()
    config["lifetimes"][0]["quantiles"] = [2.0, 1.0]
    with pytest.raises(ValueError, match="quantiles"):
        Process.from_config(config)
    del config["lifetimes"]
    assert Process.from_config(config).lifetimes == ()


def test_many_events_in_bounded_memory() -> None:
    from hepgen_ml.process.lifetimes import LifetimeLearner

    learner = LifetimeLearner()
    structure: Structure = next(s for s, _, _ in tables(toy_top_pairs(10, jets=False)))
    rng = np.random.default_rng(0)
    for _ in range(60):
        values = rng.exponential(2.0, (2000, len(structure.pdg_id)))
        learner.add([structure], np.array([0, 2000]), values)
    parts = [s for processes in learner._seen.values() for s in processes.values()]
    assert all(s.n_kept <= 42_000 for s in parts)
    for lifetime in learner.lifetimes():
        assert isinstance(lifetime, Lifetime)
        assert lifetime.quantiles == ()
        assert lifetime.mean == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("kind", ["scan", "continuous", "fixed"])
def test_lifetimes_follow_conditions(kind: str) -> None:
    """Mean lifetimes fall with the fourth power of the mass; a fixed one stays as it is."""
    rng = np.random.default_rng(0)
    n = 6000
    mass = rng.choice([600.0, 800.0, 1400.0], n) if kind == "scan" else rng.uniform(600, 1400, n)
    sample = resonance(mass, 3)
    sample.attributes["mass"] = mass.astype(str)
    true = np.full(n, 2.0) if kind == "fixed" else 5.0 * (1000.0 / mass) ** 4
    sample.particles["lifetime"][sample.pdg_id == 32] = rng.exponential(true)
    learner = ProcessLearner(conditions=[Wanted("mass")])
    learner.add(sample)
    process = learner.process(sample.run.beam_energy)
    (lifetime,) = process.lifetimes
    assert (lifetime.law is None) == (kind == "fixed")
    assert Process.from_config(process.to_config()).lifetimes == process.lifetimes
    for m in (650.0, 1300.0):
        made = lifetime.draw(20_000, rng, np.full((20_000, 1), m))
        expected = 2.0 if kind == "fixed" else 5.0 * (1000.0 / m) ** 4
        assert made.mean() == pytest.approx(expected, rel=0.12)
        assert np.median(made) == pytest.approx(np.log(2) * made.mean(), rel=0.05)
    config = process.to_config()
    if lifetime.law is not None:
        config["lifetimes"][0]["law"]["kinds"] = ["linear", "linear"]
        with pytest.raises(ValueError, match="conditions"):
            Process.from_config(config)
        with pytest.raises(ValueError, match="conditions"):
            lifetime.draw(3, rng)


def test_processes_with_lifetimes_of_their_own() -> None:
    """One species, of several hypotheses in one file: prompt, and of two lifetimes."""
    sample = long_lived(3000)
    tops, rng = sample.pdg_id == 6, np.random.default_rng(6)
    process = rng.integers(1, 4, len(sample))
    sample.events["process_id"] = process
    mean = np.array([0.0, 0.0, 1.0, 50.0])[process[sample.event_index]]
    lifetime = rng.exponential(1.0, len(mean)) * mean
    sample.particles["lifetime"][tops] = lifetime[tops]
    sample.particles["lifetime"][sample.pdg_id == -6] = lifetime[sample.pdg_id == -6]
    found = process_of(sample).lifetimes
    assert [v.process for v in found] == [2, 3]
    assert [v.mean for v in found] == pytest.approx([1.0, 50.0], rel=0.1)
    assert all(v.prompt == 0 and not v.quantiles for v in found)
    assert [Lifetime.from_config(v.to_config()) for v in found] == list(found)
    made = sample[np.arange(len(sample))]
    made.particles["lifetime"] = np.zeros(len(mean))
    draw_lifetimes(found, made, rng)
    for number, expected in ((1, 0.0), (2, 1.0), (3, 50.0)):
        own = tops & (process[sample.event_index] == number)
        assert made.lifetime[own].mean() == pytest.approx(expected, rel=0.15)
    # equal lifetimes in all processes are those of the species
    sample.particles["lifetime"][tops] = rng.exponential(7.0, tops.sum())
    sample.particles["lifetime"][sample.pdg_id == -6] = rng.exponential(7.0, tops.sum())
    assert [v.process for v in process_of(sample).lifetimes] == [None]
