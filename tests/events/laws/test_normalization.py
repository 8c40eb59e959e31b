"""Weights, strategies and cross sections that contradict each other are found."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, Subrun
from tests.events.laws.test_laws import SAMPLE, broken, check


def weighted(weight, **run) -> EventSample:
    n = len(SAMPLE)
    events = {**SAMPLE.events, "weight": np.broadcast_to(weight, n)}
    return EventSample(SAMPLE.run.with_(**run), SAMPLE.offsets, SAMPLE.particles, events)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (weighted(np.linspace(0.5, 1.5, 60)), "only the sign"),
        (weighted(0.0), "all weights are 0"),
        (weighted(1.0, processes=(Subrun(0, -1.0, 0.0), Subrun(7, 0.0, 0.0))), "-1 pb"),
        (weighted(1.0, weight_strategy=-4), "add up to it"),
        (weighted(30.0, weight_strategy=-4), "mean weight 30"),
        (weighted(np.linspace(0, 1, 60), weight_strategy=4), "mean weight"),
    ],
)
def test_normalisation_is_broken(sample: EventSample, text: str) -> None:
    result = check(sample)["normalisation"]
    assert result.n_broken == 1
    assert text in result.text


@pytest.mark.parametrize(
    "sample",
    [
        weighted(1.0),
        weighted(np.where(np.arange(60) % 9, 3.0, 4.0)),  # partially unweighted
        weighted(17.0),  # of a weight only the sign counts
        weighted(np.where(np.arange(60) % 9, 1.0, -1.0), weight_strategy=-3),
        weighted(60.0, weight_strategy=-4),
        weighted(np.random.default_rng(1).exponential(60.0, 60), weight_strategy=-4),
    ],
)
def test_normalisation_holds(sample: EventSample) -> None:
    assert "normalisation" not in broken(sample)


def test_formats_with_weights_of_any_scale() -> None:
    for sample in (
        weighted(np.linspace(0.5, 1.5, 60)),
        weighted(2.0, weight_strategy=-4),
        weighted(1.0, processes=(Subrun(0, 60.0, 0.1),)),
    ):
        results = check_sample([sample], sample.run, free_weights=True)
        assert not any(r.n_broken for r in results)
    nothing = weighted(np.where(np.arange(60) % 2, 1.0, -1.0))
    results = {r.name: r for r in check_sample([nothing], nothing.run, free_weights=True)}
    assert results["normalisation"].n_broken


def test_processes() -> None:
    assert "processes" in broken(weighted(1.0, processes=(Subrun(0, 60.0, 0.1),)))
    skewed = (Subrun(0, 59.0, 0.1), Subrun(7, 1.0, 0.1))
    assert "processes" in broken(weighted(1.0, processes=skewed))
