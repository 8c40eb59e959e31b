"""Samples of Z bosons with jets, and their process."""

from __future__ import annotations

import pytest

from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.multiplicity import with_more_jets
from hepgen_ml.process.process import Process
from tests.samples import learned, toy_z_jets


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_z_jets(3000, most=3)


@pytest.fixture(scope="module")
def process(sample: EventSample) -> Process:
    return with_more_jets(learned(sample), 5)
