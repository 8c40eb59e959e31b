"""Fits of mass peaks."""

import numpy as np
import pytest

from hepgen_ml.analysis import peaks
from hepgen_ml.events.sample import EventSample, RunInfo
from tests.samples import toy_z_jets

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


def peak_sample(mass: np.ndarray) -> EventSample:
    n = len(mass)
    columns = {
        "pdg_id": np.tile([2, -2, 23, 13, -13], n),
        "status": np.tile([-1, -1, 2, 1, 1], n),
        "px": np.outer(mass, [0, 0, 0, 0.5, -0.5]).ravel(),
        "py": np.zeros(5 * n),
        "pz": np.outer(mass, [0.5, -0.5, 0, 0, 0]).ravel(),
        "energy": np.outer(mass, [0.5, 0.5, 1, 0.5, 0.5]).ravel(),
    }
    return EventSample(RunInfo(), np.arange(0, 5 * n + 1, 5), columns)


def test_fits_of_a_peak_find_it_within_errors() -> None:
    rng = np.random.default_rng(2)
    m = np.linspace(66, 116, 20_001)
    cumulative = np.cumsum(peaks.breit_wigner(m, 1.0, 91.2, 2.5, 0.0))
    masses = [np.interp(rng.random(20_000), cumulative / cumulative[-1], m) for _ in range(2)]
    (peak,) = peaks.peaks(*map(peak_sample, masses))
    assert peak.name == "Z0"
    for s in peak.spectra:
        assert s is not None
        assert abs(s.position - 91.2) < 4 * s.position_error < 0.3
        assert abs(s.width - 2.5) < 4 * s.width_error < 0.6
        assert s.chi2 / s.ndf < 1.6
    fixed = peak_sample(np.full(1000, 80.4))
    assert peaks.peaks(fixed, fixed) == []
    (gone,) = peaks.peaks(peak_sample(masses[0]), fixed)
    assert gone.spectra[1] is None or gone.spectra[1].ndf > 0


def test_lepton_pairs_of_reconstructed_events() -> None:
    samples = [toy_z_jets(2500, seed=s, rate=0.1, most=1) for s in (1, 2)]
    (peak,) = peaks.peaks(*samples)
    assert peak.name == "mu- mu+"
    assert peak.spectra[0] is not None
    assert peak.spectra[0].position == pytest.approx(91.2, abs=0.3)
