"""Densities that end, and those that merely fall."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.edges import ends, lower_edge
from tests.phase_space.test_cut_finder import particles


def falling(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rapidities of products of a particle that moves along the beam."""
    return np.abs(rng.uniform(-3.5, 3.5, n) + rng.logistic(0, 0.5, n))


def test_a_tail_does_not_end() -> None:
    """Although its last values are equally spaced in one of a hundred samples."""
    rng = np.random.default_rng(0)
    straight = 0
    for k in range(400):
        values = np.sort(-(falling(rng, 2500) if k % 2 else rng.exponential(1, 2500)))
        straight += lower_edge(values, 2500) is not None
        assert not ends(values, 2500)
    assert straight > 0


@pytest.mark.parametrize(("n", "at"), [(2500, 2.5), (20_000, 5.0)])
def test_a_cut_ends_a_density(n: int, at: float) -> None:
    rng = np.random.default_rng(n)
    for _ in range(10):
        values = np.abs(rng.normal(0, 2, 2 * n))
        values = values[values < at][:n]
        assert ends(np.sort(-values)[:4097], len(values))


def test_photons_of_a_decay_have_no_cut_in_rapidity() -> None:
    """In any of many small samples; where there is a cut it is found."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        eta, pt = falling(rng, 2500), 20 * np.sqrt(rng.exponential(1, 2500))
        finder = CutFinder()
        finder.add(particles(pt, eta, seed), ["22"], balanced=False)
        assert not [c for c in finder.acceptance().cuts if c.observable == "abs_eta"]
    finder.add(particles(pt[eta < 3], eta[eta < 3]), ["j"], balanced=False)
    (cut,) = finder.acceptance().cuts
    assert cut.high == pytest.approx(3, abs=0.01)


def test_an_angle_that_follows_from_a_momentum_transfer_is_no_cut() -> None:
    """Muons of 200 GeV neutrinos with Q² above 4 GeV²: three of 20 samples had one."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        minus, plus = 0.01 / rng.random(2500), 400 * rng.beta(1.5, 1.0, 2500)
        ok = plus > 4 * minus
        minus, plus = minus[ok], plus[ok]
        finder = CutFinder()
        p = particles(np.sqrt(plus * minus), np.log(plus / minus) / 2, seed)
        finder.add(p, ["13"], balanced=False)
        cuts = finder.acceptance(light_cone=True).cuts
        assert [str(c) for c in cuts if c.observable == "minus"] == ["0.01 <= minus(13)"]
        assert not [c for c in cuts if c.observable == "abs_eta"]


def test_repeated_values_end() -> None:
    assert ends(np.full(100, -2.0), 1000)
