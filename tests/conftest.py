"""Shared fixtures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

# One thread, here and in the programs that tests start: the networks of the tests are too small
# to share, and on busy cores threads that wait for each other are several times slower. Libraries
# read this when they are loaded, hence at the top.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what the command line, called by a test in this process, does to loggers."""
    loggers = [logging.getLogger(name) for name in ("hepgen_ml", "hepgen_adapters")]
    before = [(logger.level, logger.handlers) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Directory with the large real samples; tests that need it are skipped without it."""
    place = os.environ.get("HEPGEN_ML_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("HEPGEN_ML_DATA does not name a directory with the large samples")
    return Path(place)


@pytest.fixture(scope="session")
def shipped_sample() -> Path:
    """20k events of pp -> t t~ + 0, 1 jets, shipped with the repository."""
    return Path(__file__).parents[1] / "examples" / "ttbar01j_20k.lhe.gz"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of flows that are not about acceptances, which take longer than the training."""
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 200)
