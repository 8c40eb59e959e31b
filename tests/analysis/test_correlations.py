"""Rank correlations of observables and their errors."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.analysis.correlations import correlations
from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.analysis.observables import Observable, ObservableTable


def test_correlations_have_the_right_errors() -> None:
    """Of skewed and heavy-tailed observables too, with weights on one side."""
    rng = np.random.default_rng(4)
    chosen = tuple(Observable(name, name) for name in "abcd")

    def table(weighted: bool) -> ObservableTable:
        x, y, z = rng.normal(size=(3, 1000))
        values = np.stack([x, np.exp(x + y), x**2 + z, np.tan(1.5 * np.tanh(y + z))], axis=1)
        weight = rng.exponential(size=1000) if weighted else np.ones(1000)
        return ObservableTable(Signature((1,)), np.arange(1000), chosen, values, weight)

    found = [correlations(table(False), table(True), chosen) for _ in range(300)]
    pulls = np.array([c.pulls[np.triu_indices(4, 1)] for c in found])
    assert pulls.std(axis=0) == pytest.approx(np.ones(6), abs=0.15)
    assert pulls.mean(axis=0) == pytest.approx(np.zeros(6), abs=0.25)
    assert np.mean([c.truth[0, 1] for c in found]) == pytest.approx(6 / np.pi * np.arcsin(
        np.sqrt(0.5) / 2), abs=0.01)  # the rank correlation of Gaussians  # fmt: skip
