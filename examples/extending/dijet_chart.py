"""A chart of its own: two massless jets by the variables in which dijet events are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space import Chart, Coordinate
from hepgen_ml.phase_space.coordinates import (
    azimuth,
    from_pt_rapidity_phi,
    log_above,
    rapidity,
    transverse_momentum,
)


class DijetChart(Chart):
    r"""Two massless particles back to back in the transverse plane.

    Coordinates: :math:`\log(p_T - p_T^{min})`, the boost :math:`(y_1 + y_2) / 2`, the
    scattering angle :math:`y^* = (y_1 - y_2) / 2`, and the azimuth of the event.

    Measure: :math:`d^3p_1 \; dp_{z,2}`.
    """

    kind = "dijet"

    def __init__(self, labels: Sequence[str], pt_min: float) -> None:
        super().__init__(labels, [0.0, 0.0])
        self.pt_min = float(pt_min)
        first, second = self.labels
        self.coordinates = (
            Coordinate(f"log_pt:{first}", particle=0, logarithmic=True),
            Coordinate(f"boost:{second}", particle=1),
            Coordinate(f"y_star:{first}", particle=0),
            Coordinate(f"phi:{first}", periodic=True, cyclic=True, particle=0),
        )

    def forward(self, p: Tensor) -> Tensor:
        """Coordinates (..., 4) of momenta (..., 2, 4)."""
        massless = torch.zeros_like(p[..., 0, 0])
        y1, y2 = (rapidity(p[..., i, :], massless) for i in (0, 1))
        log_pt = log_above(transverse_momentum(p[..., 0, :]), self.pt_min)
        return torch.stack([log_pt, (y1 + y2) / 2, (y1 - y2) / 2, azimuth(p[..., 0, :])], -1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (..., 2, 4) and total momentum (..., 4) of coordinates (..., 4)."""
        log_pt, boost, y_star, phi = x.unbind(-1)
        pt, massless = self.pt_min + torch.exp(log_pt), torch.zeros_like(phi)
        first = from_pt_rapidity_phi(pt, boost + y_star, phi, massless)
        second = from_pt_rapidity_phi(pt, boost - y_star, phi + math.pi, massless)
        p = torch.stack([first, second], -2)
        return p, p.sum(-2)

    def log_det(self, x: Tensor) -> Tensor:
        """Log |d(p1, pz2) / d(coordinates)|: pT dpT dphi E1 dy1 E2 dy2, and dy1 dy2 = 2 db dy*."""
        p, _ = self.inverse(x)
        pt = self.pt_min + torch.exp(x[..., 0])
        energies = torch.log(p[..., 0, 3]) + torch.log(p[..., 1, 3])
        return math.log(2.0) + x[..., 0] + torch.log(pt) + energies

    def to_config(self) -> dict[str, Any]:
        """Arguments that make this chart again."""
        return {"kind": self.kind, "labels": list(self.labels), "pt_min": self.pt_min}
