"""Unweighting in two stages gives the exact distribution, whatever the surrogate."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import FloatArray, IntArray
from hepgen_ml.regression.unweighting import unweight_twice


def candidates(n: int = 200_000) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points, exact weights, and a surrogate that is wrong by a fifth and by a slope."""
    rng = np.random.default_rng(1)
    x = rng.random(n)
    exact = np.exp(3 * x)
    return x, exact, exact * np.exp(0.2 * rng.normal(size=n) - 0.5 * x)


def test_events_have_the_exact_distribution() -> None:
    x, exact, surrogate = candidates()
    asked: list[IntArray] = []

    def ask(index: IntArray) -> FloatArray:
        asked.append(index)
        return exact[index]

    done = unweight_twice(surrogate, ask, seed=2)
    assert len(done.exact) == len(asked[0]) < 0.5 * len(x)
    edges = np.linspace(0, 1, 11)
    found, truth = (
        np.histogram(x[i], edges, weights=w)[0] / w.sum()
        for i, w in ((done.index, done.weight), (np.arange(len(x)), exact))
    )
    errors = np.sqrt(found / len(done.index))
    assert np.abs((found - truth) / errors).max() < 4
    assert done.effective > 0.99
    error = np.hypot(done.mean_error, exact.std() / len(x) ** 0.5)
    assert abs(done.mean - exact.mean()) < 4 * error
    assert done.quantiles[0] < done.quantiles[-1] <= done.largest


def test_a_good_surrogate_is_accepted_always_and_gains_what_it_saves() -> None:
    _, exact, _ = candidates(20_000)
    done = unweight_twice(0.5 * exact, lambda i: exact[i])
    assert done.second > 0.99
    efficiency = exact.mean() / exact.max()
    assert done.first == pytest.approx(efficiency, rel=0.1)
    free, dear = done.gain(1.0, 0.0, efficiency), done.gain(1.0, 1.0, efficiency)
    assert free == pytest.approx(1 / efficiency, rel=0.1)
    assert dear < 1


def test_signs_of_exact_weights_stay() -> None:
    x, exact, surrogate = candidates(50_000)
    signed = np.where(x < 0.2, -exact, exact)
    done = unweight_twice(surrogate, lambda i: signed[i])
    np.testing.assert_array_equal(np.sign(done.weight), np.sign(signed[done.index]))
    assert abs(done.mean - signed.mean()) < 5 * done.mean_error


def test_what_cannot_be_unweighted_is_refused() -> None:
    with pytest.raises(SampleError, match="1 surrogate weights of 3"):
        unweight_twice(np.array([1.0, -1.0, 2.0]), lambda i: np.ones(len(i)))
    for value in (0.0, np.nan):
        with pytest.raises(SampleError, match="exact weights"):
            unweight_twice(np.ones(10), lambda i, value=value: np.full(len(i), value))
