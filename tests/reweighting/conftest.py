"""Samples that several files of this directory use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hepgen_ml
from hepgen_ml.events.sample import EventSample, FloatArray


def top_pt(sample: EventSample) -> FloatArray:
    """(n,) transverse momentum of the top quark."""
    pt = np.hypot(sample.px, sample.py) * (sample.pdg_id == 6)
    return np.bincount(sample.event_index, pt, len(sample))


def kept(sample: EventSample) -> FloatArray:
    """Probability with which the distorted sample keeps an event."""
    return np.clip(1.2 - top_pt(sample) / 200, 0.15, 1.0)


@pytest.fixture(scope="module")
def truth(shipped_sample: Path) -> EventSample:
    """Some of the shipped events."""
    return hepgen_ml.read(shipped_sample)[::4]


@pytest.fixture(scope="module")
def distorted(shipped_sample: Path) -> EventSample:
    """As many others, with events missing as `kept` says."""
    other = hepgen_ml.read(shipped_sample)[1::4]
    return other[np.random.default_rng(0).random(len(other)) < kept(other)]
