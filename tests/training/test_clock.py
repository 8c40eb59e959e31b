"""The time of a training bounds the whole of it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.config import TrainingConfig, load_config
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training.clock import CLOSING, Clock, Stopwatch
from hepgen_ml.training.closing import _affordable
from tests.samples import toy_top_pairs, toy_z_jets

QUARKS = (6, 7, 8, *(k * 1_000_000 + i for k in (1, 2) for i in range(1, 7)))
"""Of which there are pairs, in as many channels."""

STARTS = 8.0
"""Seconds for what is done once, on a machine that has other things to do."""


def test_reading_does_not_count() -> None:
    clock = Clock(100.0)
    training = TrainingConfig(max_time=100.0)
    assert clock.for_network(training).max_time == pytest.approx(100 * (1 - CLOSING), abs=0.5)
    clock._begun -= 50
    clock.reading = 30.0
    assert clock.used == pytest.approx(20, abs=0.5)
    assert clock.for_network(training).max_time == pytest.approx(72, abs=0.5)
    assert clock.for_closing() == pytest.approx(80, abs=0.5)
    clock._begun -= 500  # something is trained and measured whatever happened before
    assert clock.for_network(training).max_time == pytest.approx(20)
    assert clock.for_closing() == pytest.approx(2)


def test_only_reading_is_timed() -> None:
    watch = Stopwatch()
    for _ in watch.timed(time.sleep(0.05) or i for i in range(2)):
        time.sleep(0.2)
    assert 0.1 <= watch.seconds < 0.3


def test_calibrations_are_as_long_as_there_is_time() -> None:
    done: list[int] = []

    def work(n: int) -> None:
        done.append(n)
        time.sleep(n * 1e-5)

    assert _affordable(work, 1000, 0.0) == 1000
    assert not done
    assert 20_000 < _affordable(work, 1_000_000, 1.0) <= 100_000
    assert _affordable(work, 1_000_000, 0.0) == max(done)
    assert _affordable(work, 10_000, 100.0) == 10_000


@pytest.mark.slow
def test_many_channels_end_in_time(tmp_path: Path) -> None:
    sample = toy_top_pairs(12_000)
    rng = np.random.default_rng(4)
    chosen = rng.choice(QUARKS, len(sample))[sample.event_index]
    top = np.abs(sample.pdg_id) == 6
    sample.particles["pdg_id"][top] = np.sign(sample.pdg_id[top]) * chosen[top]
    limit, begun = 6.0, time.monotonic()
    generator = Generator.train(sample, out=tmp_path / "m", device="cpu", max_time=limit)
    assert len(generator.process.channels) == 2 * len(QUARKS)
    assert time.monotonic() - begun < 1.25 * limit + STARTS
    assert generator.facts["training_seconds"] < limit


@pytest.mark.slow
def test_jets_end_in_time(tmp_path: Path) -> None:
    """Calibration by generated events is cut short, with the default network."""
    sample = toy_z_jets(30_000)
    limit, begun = 15.0, time.monotonic()
    config = load_config(None, ["network.width=64"])
    Generator.train(sample, out=tmp_path / "m", device="cpu", max_time=limit, config=config)
    assert time.monotonic() - begun < 1.25 * limit + STARTS
