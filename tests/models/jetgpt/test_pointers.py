"""What densities of a jet are told about the objects before it."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.models.jetgpt.pointers import Pointers, Surroundings


def surroundings(missing_pt: float, missing_phi: float, phi: list[float]) -> Surroundings:
    """One event: objects at these azimuths, a lepton pair, and what is missing."""
    azimuths = torch.tensor([[*phi, 0.3, missing_phi]])
    log_pt = torch.full_like(azimuths, math.log(30.0))
    log_pt[0, -1] = math.log(missing_pt)
    return Surroundings(
        log_pt, torch.zeros_like(azimuths), azimuths, torch.ones_like(azimuths, dtype=torch.bool),
        torch.tensor([[0.0, 0.0, 0.0, 91.0]]).double(), torch.tensor([20.0]), torch.tensor([50.0]),
        torch.tensor([[91.0, 2.5]]).double(), torch.arange(azimuths.shape[1]),
    )  # fmt: skip


def test_objects_see_where_what_is_missing_points() -> None:
    around = surroundings(25.0, 3.0, [3.0, 3.0 - math.pi, 3.0 - math.pi / 2])
    along, across, part, sideways = (c[0].tolist() for c in Pointers._balancing(around))
    assert along[:3] == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)
    assert across[:3] == pytest.approx([0.0, 0.0, -1.0], abs=1e-6)
    assert part[:3] == pytest.approx([25 / 45, -25 / 45, 0.0], abs=1e-6)
    assert sideways[:3] == pytest.approx([0.0, 0.0, -25 / 45], abs=1e-6)
    # the same event in another frame, across phi = pi
    turned = surroundings(25.0, 3.0 + 1.0 - 2 * math.pi, [-2.28, 4.0 - math.pi, 4.0 - math.pi / 2])
    for a, b in zip(Pointers._balancing(around), Pointers._balancing(turned), strict=True):
        assert torch.allclose(a[0, 1:3], b[0, 1:3], atol=1e-5)
    # nothing missing, nothing to see but a direction
    small = Pointers._balancing(surroundings(1e-3, 1.0, [0.0, 1.0]))
    assert all(float(c.abs().max()) < 1e-3 for c in small[2:])
