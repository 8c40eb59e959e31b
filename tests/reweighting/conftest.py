"""Samples that several files of this directory use."""

from __future__ import annotations

from pathlib import Path

import pytest

import hepgen_ml
from hepgen_ml.events.sample import EventSample


@pytest.fixture(scope="module")
def truth(shipped_sample: Path) -> EventSample:
    """Some of the shipped events."""
    return hepgen_ml.read(shipped_sample)[::4]
