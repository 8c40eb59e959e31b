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


def test_surrogates_without_a_definite_sign_give_the_exact_distribution() -> None:
    """Zero outside of cuts or by error, and negative near a zero of an interference."""
    rng = np.random.default_rng(3)
    x = rng.random(100_000)
    exact = np.where(x < 0.1, 0.0, np.sin(6 * x))
    surrogate = np.where((x < 0.1) | (abs(x - 0.9) < 0.005), 0.0, np.sin(6 * x) + 0.1)
    done = unweight_twice(surrogate, lambda i: exact[i])
    edges = np.linspace(0, 1, 11)
    found = np.histogram(x[done.index], edges, weights=done.weight)[0]
    square = np.histogram(x[done.index], edges, weights=done.weight**2)[0]
    truth = np.histogram(x, edges, weights=exact)[0]
    scale = np.abs(exact).sum() / np.abs(done.weight).sum()
    assert np.abs((found - truth / scale) / np.sqrt(square + 1)).max() < 4.5
    assert (exact[done.index] != 0).all()
    one = unweight_twice(np.array([2.0]), lambda i: np.array([-3.0]))
    assert (one.weight.tolist(), one.mean) == ([-1.0], -3.0)


def test_what_cannot_be_unweighted_is_refused() -> None:
    for some in ([1.0, np.nan, 2.0], [0.0, 0.0], []):
        with pytest.raises(SampleError, match="surrogate weights"):
            unweight_twice(np.array(some), lambda i: np.ones(len(i)))
    for value in (0.0, np.nan):
        with pytest.raises(SampleError, match="exact weights"):
            unweight_twice(np.ones(10), lambda i, value=value: np.full(len(i), value))
