"""Samples in slices of what the particles made in the collision have together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.process.inside import inside
from hepgen_ml.process.process import Process
from tests.phase_space.test_decays import hadronic_tops
from tests.samples import learned, toy_top_pairs


def tops_of(sample: EventSample) -> np.ndarray:
    """Momenta (events, 2, 4) of top quark and antiquark."""
    rows = np.abs(sample.pdg_id) == 6
    columns = [sample.particles[name][rows] for name in ("px", "py", "pz", "energy")]
    return np.stack(columns, axis=1).reshape(len(sample), 2, 4)


def mass_of_both(sample: EventSample) -> np.ndarray:
    total = tops_of(sample).sum(1)
    return np.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1))


def transverse(sample: EventSample) -> np.ndarray:
    return np.hypot(*tops_of(sample)[:, 0, :2].T)


def sliced(sample: EventSample, values: np.ndarray, low: float, high: float) -> EventSample:
    return sample[np.flatnonzero((values > low) & (values < high))]


@pytest.mark.parametrize(
    ("observable", "low", "high", "name"),
    [(mass_of_both, 450.0, 900.0, "mass(6, 6)"), (transverse, 40.0, 100.0, "pt(6)")],
)
def test_particles_that_decay_have_cuts(observable, low, high, name) -> None:  # type: ignore[no-untyped-def]
    """Both ends are found, events stay inside, and none of an independent sample is excluded."""
    sample, truth = hadronic_tops(16_000, seed=1), hadronic_tops(8_000, seed=2)
    assert not learned(truth).acceptance.cuts
    part = sliced(sample, observable(sample), low, high)
    process = learned(part)
    (cut,) = process.acceptance.cuts
    assert str(cut).split(" <= ")[1] == name
    assert cut.low == pytest.approx(low, rel=2e-3)
    assert cut.high == pytest.approx(high, rel=5e-3)
    assert inside(sliced(truth, observable(truth), low, high), process.acceptance).all()
    encoded = process.encode(sample)
    accepted = observable(sample)[encoded.event]
    assert accepted.min() >= cut.low
    assert accepted.max() <= cut.high
    # events whose coordinates are mixed are outside where their tops are
    x = encoded.x.clone()
    for k in range(x.shape[1]):
        x[:, k] = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(k)), k]
    for some in (process, Process.from_config(process.to_config())):
        made = some.kinematics(x, encoded.subprocess, torch.zeros(len(x)))
        p = made.final[made.passes].numpy()
        labels = process.channels[0].chart.labels
        own = np.stack([p[:, [i for i, v in enumerate(labels) if v.startswith(top)]].sum(1)
                        for top in _PRODUCTS], axis=1)  # fmt: skip
        values = _of(own, name)
        assert low * 0.998 < values.min() < low * 1.05
        assert values.max() <= cut.high
        # masses that are bounded are coordinates, which no density can smear
        assert float(made.passes.double().mean()) > (0.2 if name.startswith("pt") else 0.999)


def test_masses_in_slices_are_coordinates_beside_jets() -> None:
    """Of the pair of top quarks, while jets keep charts that begin at their cut."""
    sample = toy_top_pairs(8000)
    final = sample.status == 1
    tops = final & (np.abs(sample.pdg_id) == 6)
    p = sample.momentum[tops].reshape(len(sample), 2, 4).sum(1)
    mass = np.sqrt(p[:, 3] ** 2 - (p[:, :3] ** 2).sum(1))
    part = sliced(sample, mass, 400.0, 600.0)
    process = learned(part)
    assert "mass" in {c.observable for c in process.acceptance.cuts}
    encoded = process.encode(part)
    x = encoded.x.clone()
    for c in range(len(process.channels)):
        rows = torch.nonzero(process.channel_of[encoded.subprocess] == c).squeeze(-1)
        for k in range(x.shape[1]):
            x[rows, k] = x[rows[torch.randperm(len(rows))], k]
    made = process.kinematics(x, encoded.subprocess, torch.zeros(len(x)))
    assert float(made.passes.double().mean()) > 0.98
    assert len(process.channels) == 2


_PRODUCTS = (("6>", "24>"), ("-6>", "-24>"))


def _of(p: np.ndarray, name: str) -> np.ndarray:
    if name.startswith("pt"):
        return np.asarray(np.hypot(p[:, 0, 0], p[:, 0, 1]))
    total = p.sum(1)
    return np.asarray(np.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1)))


def test_stated_cuts_on_particles_that_decay() -> None:
    sample = hadronic_tops(500)
    good = inside(sample, Acceptance([parse_cut("pt(6) > 60")]))
    assert (good == (transverse(sample) >= 60)).all()
    good = inside(sample, Acceptance([parse_cut("mass(6, 6) < 600")]))
    assert (good == (mass_of_both(sample) <= 600)).all()
    assert inside(sample, Acceptance([parse_cut("pt(24) > 60")])).all()  # of the tops' decays
