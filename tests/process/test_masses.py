"""Masses that vary from event to event, over the subprocesses of a sample."""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.phase_space import Peak
from hepgen_ml.process.symmetry import looks_symmetric
from tests.samples import learned

M_Z, WIDTH = 91.19, 2.5
FLAVOURS = [(21, 2, 2), (2, 21, 2), (21, 1, 1), (1, 21, 1), (2, -2, 21), (-2, 2, 21)]
"""Incoming partons along +z and -z, and the outgoing one."""


def z_with_a_parton(n: int, seed: int = 0, position: float = M_Z) -> EventSample:
    """Off-shell Z bosons left undecayed; quarks carry more energy than gluons.

    The last event is the only one of its subprocess.
    """
    rng = np.random.default_rng(seed)
    flavours = np.array(FLAVOURS)[rng.integers(len(FLAVOURS), size=n)]
    flavours[-1] = 21, 3, 3
    mass = position + WIDTH / 2 * np.tan(rng.uniform(-1.5, 1.5, n))
    pt, phi = 20 + rng.exponential(30.0, n), rng.uniform(-np.pi, np.pi, n)
    boost = np.abs(flavours[:, 0]) % 21 / 10 - np.abs(flavours[:, 1]) % 21 / 10
    y = rng.normal(boost[:, None], 0.8, (n, 2))
    mt = np.stack([np.hypot(pt, mass), pt], 1)
    final = np.stack([
        np.stack([pt * np.cos(phi), -pt * np.cos(phi)], 1),
        np.stack([pt * np.sin(phi), -pt * np.sin(phi)], 1),
        mt * np.sinh(y),
        mt * np.cosh(y),
    ], 2)  # fmt: skip
    plus, minus = ((final[..., 3] + s * final[..., 2]).sum(1) / 2 for s in (1, -1))
    incoming = np.zeros((n, 2, 4))
    incoming[:, 0, 2:], incoming[:, 1, 2], incoming[:, 1, 3] = plus[:, None], -minus, minus
    momenta = np.concatenate([incoming, final], 1).reshape(-1, 4)
    ids = np.stack([flavours[:, 0], flavours[:, 1], np.full(n, 23), flavours[:, 2]], 1)
    masses = np.zeros((n, 4))
    masses[:, 2] = mass
    columns = {
        "pdg_id": ids.ravel(), "status": np.tile([-1, -1, 1, 1], n),
        "mother1": np.tile([0, 0, 1, 1], n), "mother2": np.tile([0, 0, 2, 2], n),
        "color1": np.zeros(4 * n, int), "color2": np.zeros(4 * n, int),
        "mass": masses.ravel(), "lifetime": np.zeros(4 * n), "spin": np.full(4 * n, 9.0),
        **{name: momenta[:, i] for i, name in enumerate(("px", "py", "pz", "energy"))},
    }  # fmt: skip
    run = RunInfo((2212, 2212), (6500.0, 6500.0), processes=(Subrun(1, 1.0, 0.1, 1.0),))
    events = {"process_id": np.ones(n, int), "weight": np.ones(n)}
    return EventSample(run, 4 * np.arange(n + 1), columns, events)


def test_subprocesses_share_the_range_and_the_peak_of_a_mass() -> None:
    sample = z_with_a_parton(3000)
    process = learned(sample)
    assert len(process.subprocesses) == len(FLAVOURS) + 1
    (channel,) = process.channels
    (peak,) = (m for m in channel.chart.masses if m != 0.0)
    assert isinstance(peak, Peak)
    assert abs(peak.mass - M_Z) < 0.2
    assert abs(peak.width - WIDTH) < 0.4
    masses = sample.mass[sample.mass > 0]
    assert peak.low < masses.min()
    assert masses.max() < peak.high
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    assert looks_symmetric(process, encoded)


def test_particles_of_several_masses_under_one_id() -> None:
    parts = [z_with_a_parton(1000), z_with_a_parton(1000, position=300.0)]
    parts[1].events["process_id"][:] = 2
    process = learned(concatenate(parts, parts[0].run))
    peaks = [next(m for m in c.chart.masses if m != 0.0) for c in process.channels]
    assert sorted(round(m.mass) for m in peaks if isinstance(m, Peak)) == [91, 300]


def test_masses_of_one_value_stay_fixed() -> None:
    """Of a flavour that is massless in one subprocess and has a mass in another, too."""
    sample = z_with_a_parton(400)
    z = sample.pdg_id == 23
    up = np.repeat(sample.pdg_id.reshape(-1, 4)[:, 3] == 2, 4)
    sample.particles["pdg_id"][z] = 25
    for flavour, mass in ((up, 125.0), (~up, 0.0)):
        rows = z & flavour
        p2 = sample.px[rows] ** 2 + sample.py[rows] ** 2 + sample.pz[rows] ** 2
        sample.particles["mass"][rows] = mass
        sample.particles["energy"][rows] = np.sqrt(p2 + mass**2)
    process = learned(sample)
    assert {m for c in process.channels for m in c.chart.masses} == {0.0, 125.0}
