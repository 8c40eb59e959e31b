"""Chart of two particles whose mass, transverse or light-cone momenta are cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.beams import BeamsChart
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import (
    expit_between,
    logit_between,
    two_body_momentum,
)
from hepgen_ml.phase_space.masses import MassSpec

_CLOSEST = 1e-12
"""Distance from an edge to which coordinates move values on or below it."""


class PairChart(BeamsChart):
    r"""Two particles of a collision, with edges that are ends of coordinates.

    A cut on the mass of the pair bounds the energy of the collision from below: the coordinate
    of an energy that varies begins there. Where both vary, the coordinates are
    :math:`m = 2\sqrt{E_1 E_2}` and the rapidity :math:`\log(E_1/E_2)/2` between their bounds,
    as logits. Cuts in the transverse momentum and in the light-cone momenta :math:`E \pm p_z`
    (the momentum transfer from a beam of fixed energy) bound the cosine of the polar angle in the
    rest frame, whose place between these bounds :math:`c_1` and :math:`c_2` is the coordinate
    :math:`\frac12 \log\frac{\cos\theta - c_1}{c_2 - \cos\theta}`.

    Measure: that of a `BeamsChart`.

    Parameters
    ----------
    labels, masses, energies, largest, incoming_masses, at_full
        See `BeamsChart`; two particles. Where both energies vary, no part of the events is at the
        full energy; where none does, the angle is all there is, and has a cut.
    least_mass : float
        Smallest mass of the pair in GeV, 0 for any.
    pt_min : float
        Smallest transverse momentum of both in GeV.
    light_cone : sequence of 2 (float, float)
        Smallest E + pz and E - pz in GeV of each particle.
    """

    kind = "pair"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[MassSpec],
        energies: Sequence[float | None],
        largest: Sequence[float],
        incoming_masses: Sequence[float],
        least_mass: float,
        pt_min: float,
        light_cone: Sequence[Sequence[float]],
        at_full: Sequence[bool] = (False, False),
    ) -> None:
        super().__init__(labels, masses, energies, largest, incoming_masses, at_full)
        self.least_mass, self.pt_min = float(least_mass), float(pt_min)
        self.light_cone = tuple((float(plus), float(minus)) for plus, minus in light_cone)
        if len(self.labels) != 2 or len(self.light_cone) != 2:
            raise ValueError("there are two particles")
        if not self.n_beams:
            if not self.pt_min > 0:
                raise ValueError("an energy that varies, or a cut on transverse momenta")
            energy = [torch.tensor(e, dtype=torch.float64) for e in self.energies]
            self.total = tuple(self._total(energy).tolist())
        if self.n_beams == 2 and any(self.at_full):
            raise ValueError("no events at the full energy where both energies vary")
        # s = m1^2 + m2^2 + 2 (E1 E2 + p1 p2) is at most m1^2 + m2^2 + 4 E1 E2
        self._least = max(self.least_mass**2 - sum(m**2 for m in self.incoming_masses), 0.0)
        most = 4 * math.prod(
            m if e is None else e for e, m in zip(self.energies, self.largest, strict=True)
        )
        if not self._least < most:
            raise ValueError("a smallest mass above the full energy")

    def _names_of_beams(self) -> Sequence[str]:
        if self.n_beams == 2:
            return ["logit_mass:beams", "logit_rapidity:beams"]
        return super()._names_of_beams()

    def to_config(self) -> dict[str, Any]:
        return {
            **super().to_config(),
            "least_mass": self.least_mass,
            "pt_min": self.pt_min,
            "light_cone": [list(pair) for pair in self.light_cone],
        }

    @property
    def has_equal_beams(self) -> bool:
        """Whether both beams vary within the same bounds."""
        return self.n_beams == 2 and self.largest[0] == self.largest[1]

    @property
    def _range(self) -> tuple[float, float]:
        """Ends of the coordinate of the collision: an energy where the other is fixed, or m."""
        if self.n_beams == 2:
            return math.sqrt(self._least), 2 * math.sqrt(self.largest[0] * self.largest[1])
        fixed = next(e for e in self.energies if e is not None)
        return self._least / (4 * fixed), self.largest[self._vary[0]]

    def _columns_of_beams(self, total: Tensor, p: Tensor) -> list[Tensor]:
        if self.n_beams < 2:
            return super()._columns_of_beams(total, p)
        energy = incoming_momenta(total, *self.incoming_masses)[..., 3]
        m = 2 * torch.sqrt(energy[..., 0] * energy[..., 1])
        y = torch.log(energy[..., 0] / energy[..., 1]) / 2
        return [logit_between(m, *self._range), logit_between(y, *self._rapidities(m))]

    def _least_energy(self, i: int) -> float:
        return self._range[0] if self.n_beams == 1 else 0.0

    def _rapidities(self, m: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log(m / (2 * self.largest[1])), torch.log(2 * self.largest[0] / m)

    def _total_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.n_beams < 2:
            return super()._total_at(x)
        column, log_sigmoid = len(self._mass_names), torch.nn.functional.logsigmoid
        t, (low, high) = x[..., column], self._range
        value = expit_between(t, low, high)
        log_det = math.log(high - low) + log_sigmoid(t) + log_sigmoid(-t)
        u, (least, most) = x[..., column + 1], self._rapidities(value)
        y = expit_between(u, least, most)
        # dE1 dE2 = m/2 dm dy
        log_det = log_det + torch.log(most - least) + log_sigmoid(u) + log_sigmoid(-u)
        first, second = value / 2 * torch.exp(y), value / 2 * torch.exp(-y)
        return self._total([first, second]), log_det + torch.log(value / 2)

    def _limits(self, total: Tensor, mass: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest 1 + cos(theta) and 1 - cos(theta) of the first particle in the rest frame."""
        q = two_body_momentum(mass, masses[..., 0], masses[..., 1], self.margin).clamp_min(1e-9)
        ratio = (self.pt_min / q).clamp_max(1.0 - self.margin)
        least = ratio**2 / (1 + torch.sqrt((1 - ratio) * (1 + ratio)))
        below, above = least, least
        stretch = (total[..., 3] + total[..., 2]) / mass
        for i, (plus, minus) in enumerate(self.light_cone):
            m = masses[..., i]
            rest = m**2 / (torch.sqrt(q**2 + m**2) + q)  # E - |p|
            ahead, behind = (plus / stretch - rest) / q, (minus * stretch - rest) / q
            if i == 1:  # the second goes where the first does not
                ahead, behind = behind, ahead
            below = torch.maximum(below, ahead) if max(plus, minus) else below
            above = torch.maximum(above, behind) if max(plus, minus) else above
        return below, above

    def _angle_of(self, angle: Tensor, total: Tensor, mass: Tensor, masses: Tensor) -> Tensor:
        below, above = self._limits(total, mass, masses)
        up = (2 * torch.sigmoid(2 * angle) - below).clamp_min(_CLOSEST)
        down = (2 * torch.sigmoid(-2 * angle) - above).clamp_min(_CLOSEST)
        return (torch.log(up) - torch.log(down)) / 2

    def _angle_at(
        self, t: Tensor, total: Tensor, mass: Tensor, masses: Tensor
    ) -> tuple[Tensor, Tensor]:
        below, above = self._limits(total, mass, masses)
        width = 2 - below - above
        if self.margin:
            width = width.clamp_min(self.margin)
        else:  # nan if the cuts allow no angle
            width = torch.where(below + above < 2, width, torch.nan)
        up = below + width * torch.sigmoid(2 * t)
        down = above + width * torch.sigmoid(-2 * t)
        log_sigmoid = torch.nn.functional.logsigmoid
        slope = torch.log(2 * width) + log_sigmoid(2 * t) + log_sigmoid(-2 * t)
        return (torch.log(up) - torch.log(down)) / 2, slope - torch.log(up) - torch.log(down)
