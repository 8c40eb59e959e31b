"""Observables of events, where rounding errors are all that differs."""

from __future__ import annotations

import numpy as np

from hepgen_ml.analysis.observables import observables
from hepgen_ml.events.sample import EventSample, RunInfo


def muon_pairs(noise: float) -> EventSample:
    """e+ e- -> mu+ mu- at 240 GeV, momenta with rounding errors of a given size."""
    rng = np.random.default_rng(0)
    n = 500
    cos, phi = rng.uniform(-0.9, 0.9, n), rng.uniform(-np.pi, np.pi, n)
    sin = np.sqrt(1 - cos**2)
    p = 120 * np.stack([sin * np.cos(phi), sin * np.sin(phi), cos], axis=1)
    columns = {
        name: np.stack([0 * cos, 0 * cos, p[:, k], -p[:, k]], axis=1)
        for k, name in enumerate(("px", "py", "pz"))
    }
    columns["pz"][:, :2] = 120.0, -120.0
    columns["energy"] = np.full((n, 4), 120.0)
    columns = {name: c + noise * rng.normal(size=c.shape) for name, c in columns.items()}
    columns |= {
        "pdg_id": np.tile([-11, 11, 13, -13], (n, 1)),
        "status": np.tile([-1, -1, 1, 1], (n, 1)),
        "mother1": np.tile([0, 0, 1, 1], (n, 1)),
        "mother2": np.tile([0, 0, 2, 2], (n, 1)),
        "mass": np.zeros((n, 4)),
    }
    flat = {name: c.ravel() for name, c in columns.items()}
    return EventSample(RunInfo(), 4 * np.arange(n + 1), flat)


def test_rounding_errors_are_no_observable() -> None:
    (table,) = observables(muon_pairs(noise=1e-11)).values()
    for name in ("y_total", "mass(mu-,mu+)"):
        assert np.ptp(table[name]) == 0, name
    assert np.ptp(table["eta(mu-)"]) > 1


def test_a_boost_of_a_permille_is_one() -> None:
    (table,) = observables(muon_pairs(noise=0.1)).values()
    assert np.std(table["y_total"]) > 1e-4
