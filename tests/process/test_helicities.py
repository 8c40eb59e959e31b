"""Helicities beyond one and signs of sextets survive learning; what is no helicity is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.analysis.frequencies import categories
from hepgen_ml.events.helicities import helicities, helicity_codes
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.process.structure import color_flow
from hepgen_ml.training.data import SampleSource, learn_process
from tests.colored_events import colored
from tests.events.laws.test_color_lines import ALL, SEXTET
from tests.generation.test_generator import settings
from tests.samples import toy_top_pairs

N = 1500


def test_codes() -> None:
    spins = [0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 1.5, -1.5, 4, 9]
    assert helicities(helicity_codes(spins)).tolist() == spins
    assert (helicity_codes([0.43, -0.999, 5, -9, np.nan, np.inf, 4.5, 90]) == 9).all()


def test_sextets_keep_their_sign() -> None:
    flow = color_flow(np.array([[77, 12, 77, 0]]), np.array([[0, 0, -12, 0]]))
    assert flow.tolist() == [[501, 0, 502, 0, 501, -502, 0, 0]]
    flow = color_flow(np.array([[0, 0, -12]]), np.array([[77, 12, 77]]))
    assert flow.tolist() == [[0, 501, 0, 502, -502, 501]]


@pytest.mark.parametrize("name", ["sextet", "antisextet", "pair of sextets",
                                  "squarks with opposite baryon numbers"])  # fmt: skip
def test_generated_colour_lines(name: str, tmp_path: Path) -> None:
    sample = colored(ALL[name], N, header=SEXTET)
    config = settings("training.max_steps=3")
    Generator.train(sample, out=tmp_path / "m", config=config, device="cpu")
    events = Generator.load(tmp_path / "m", device="cpu").sample(1000, seed=1)
    broken = {r.name: r.text for r in check_sample(events.chunks(400), events.run) if r.n_broken}
    assert not broken
    negative = (events.color1 < 0) | (events.color2 < 0)
    assert set(np.abs(events.pdg_id[negative])) == ({9000006} if "sextet" in name else set())


@pytest.mark.parametrize("values", [(-2.0, 2.0), (-3.0, -1.0, 1.0, 3.0), (-1.5, 0.5), (2.0, 9.0)])
def test_helicities_are_as_frequent_as_in_the_sample(
    values: tuple[float, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample = toy_top_pairs(N, jets=False)
    rng = np.random.default_rng(3)
    weights = np.arange(1, len(values) + 1) / sum(range(1, len(values) + 1))
    sample.particles["spin"][:] = 9.0
    rows = sample.offsets[:-1] + 2
    sample.particles["spin"][rows] = rng.choice(values, N, p=weights)
    config = settings("training.max_steps=3")
    with caplog.at_level(logging.WARNING):
        generator = Generator.train(sample, out=tmp_path / "m", config=config, device="cpu")
    assert "spins" not in caplog.text
    events = Generator.load(tmp_path / "m", device="cpu").sample(4000, seed=1)
    made = events.spin[events.offsets[:-1] + 2]
    for value, weight in zip(values, weights, strict=True):
        error = np.sqrt(weight * (1 - weight) * (1 / N + 1 / 4000))
        assert abs((made == value).mean() - weight) < 4 * error
    assert set(made) == set(values)
    assert set(categories(sample, "helicity")) == set(categories(events, "helicity"))
    assert generator.process.subprocesses


def test_spins_that_are_no_helicities_are_named(caplog: pytest.LogCaptureFixture) -> None:
    sample = toy_top_pairs(N, jets=False)
    rows = sample.offsets[:-1] + 3
    sample.particles["spin"][rows] = np.random.default_rng(1).uniform(-1, 1, N)
    with caplog.at_level(logging.WARNING):
        process = learn_process(SampleSource(sample), seed=0)
    assert "spins that are not helicities (t) are not learned" in caplog.text
    for s in process.subprocesses:
        assert set(s.patterns[:, 2 * 4 + 3].tolist()) == {9}


def test_frequencies_of_halves() -> None:
    sample = toy_top_pairs(200, jets=False)
    sample.particles["spin"][:] = 1.5
    other = EventSample(
        sample.run, sample.offsets, {**sample.particles, "spin": np.full(len(sample.spin), 2.0)},
        sample.events,
    )  # fmt: skip
    assert all("[+1.5]" in name for name in categories(sample, "helicity"))
    assert all("[+2]" in name for name in categories(other, "helicity"))
