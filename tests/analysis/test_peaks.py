"""Fits of mass peaks."""

import numpy as np
import pytest

from hepgen_ml.analysis import peaks

pytest.importorskip("scipy")


def _pairs(off_shell: float, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Masses of a Z boson, a fraction of which is spread from 12 to 60 GeV, and unit weights."""
    rng = np.random.default_rng(3)
    mass = 91.19 + 1.25 * rng.standard_cauchy(n)
    mass = np.where((mass > 60) & (mass < 120), mass, 91.19)
    return np.where(rng.random(n) < off_shell, rng.uniform(12, 60, n), mass), np.ones(n)


@pytest.mark.parametrize("off_shell", [0.0, 0.5, 0.75])
def test_window_is_that_of_the_peak(off_shell: float) -> None:
    """Bosons off their mass shell do not widen the window, as in H -> ZZ*."""
    mass, _ = _pairs(off_shell)
    position, width = peaks._place(mass)
    assert abs(position - 91.19) < 0.3
    assert 2.0 < width < 12.0


def test_a_fit_of_the_background_is_none() -> None:
    """A minimum outside of the window states no position."""
    mass, weight = _pairs(0.5)
    edges = np.linspace(80, 102, 81)
    fit = peaks._fitted((mass, weight), edges, (91.0, 2.5))
    assert fit is not None
    assert abs(fit.position - 91.19) < 0.1
    falling = 80 + np.random.default_rng(1).exponential(3.0, 40_000)
    assert peaks._fitted((falling, weight), edges, (91.0, 2.5)) is None
