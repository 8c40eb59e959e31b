"""Chart of lepton collisions that radiate down to a resonance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.beams import EDGE, SPREAD, BeamsChart
from hepgen_ml.phase_space.chart import incoming_momenta, other_energy
from hepgen_ml.phase_space.coordinates import invariant_mass_squared, logit_between
from hepgen_ml.phase_space.masses import MassSpec

_BISECTIONS = 64
"""A bracket of a hundred becomes smaller than the rounding of a double."""

_APART = 0.5
"""Minimum distance of energies below the full one from the edge of those at the full energy."""


class RadiativeReturnChart(BeamsChart):
    r"""Events of beams that vary, with a peak of the collision's mass m below the full energy.

    The energies of a `BeamsChart` do not resolve such a peak: it is a narrow ridge of constant
    product. Here one coordinate is

    .. math:: \log m - \log(m_{max} - m) + \mathrm{arsinh}\frac{m^2 - M^2}{M \Gamma} ,

    in which a Breit-Wigner distribution is a hyperbolic secant and events at the full energy are
    as far out as in a `BeamsChart`. The other is the logit of the place of
    :math:`\log E_1` between its bounds at this mass, where one of the beams has its full energy.
    If the energy of one beam is fixed, the mass determines the other, and the first coordinate is
    the only one.

    Where a part of the events has the full energy of a beam, these are at :math:`\pm` `SPREAD` in
    the second coordinate, spread as in a `BeamsChart`, and those in which both beams have it are
    beyond all others in the first one as well, where the second says nothing.

    Measure: that of a `BeamsChart`.

    Parameters
    ----------
    labels, masses, energies, largest, incoming_masses, at_full
        See `BeamsChart`; at most one energy is fixed.
    peak : sequence of 2 float
        Mass M and full width of the resonance in GeV; they need not be exact.
    """

    kind = "radiative_return"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[MassSpec],
        energies: Sequence[float | None],
        largest: Sequence[float],
        incoming_masses: Sequence[float],
        peak: Sequence[float],
        at_full: Sequence[bool] = (False, False),
    ) -> None:
        super().__init__(labels, masses, energies, largest, incoming_masses, at_full)
        self.peak = float(peak[0]), float(peak[1])
        if not self.n_beams:
            raise ValueError("an incoming particle has an energy that varies")
        most = [m if e is None else e for e, m in zip(self.energies, self.largest, strict=True)]
        total = self._total([torch.tensor(e, dtype=torch.float64) for e in most])
        self.most = float(torch.sqrt(invariant_mass_squared(total)))
        if not 0.0 < self.peak[0] < self.most or not self.peak[1] > 0.0:
            raise ValueError("the peak is below the full energy, and has a width")

    def _names_of_beams(self) -> Sequence[str]:
        return ("peak_mass:beams", "logit_share:beams")[: self.n_beams]

    def to_config(self) -> dict[str, Any]:
        return {**super().to_config(), "peak": list(self.peak)}

    def _distance(self, mass: Tensor) -> Tensor:
        position, width = self.peak
        return (mass - position) * (mass + position) / (position * width)

    def _mass_at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mass in GeV of a coordinate, and log |dm/dt|."""
        position, width = self.peak
        low = t - math.asinh((self.most**2 - position**2) / (position * width))
        high = t + math.asinh(position / width)
        with torch.no_grad():
            for _ in range(_BISECTIONS):
                v = (low + high) / 2
                above = self._peak_coordinate(v)[0] > t
                low, high = torch.where(above, low, v), torch.where(above, v, high)
            v = (low + high) / 2
        found, growth, slope = self._peak_coordinate(v)
        # one step of Newton's method, by which derivatives are right too
        v = v - (found - t) / (1 + growth * slope).detach()
        _, growth, slope = self._peak_coordinate(v)
        return self.most * torch.sigmoid(v), torch.log(growth) - torch.log1p(growth * slope)

    def _peak_coordinate(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinate at v = log m - log(m_max - m), dm/dv, and the derivative of arsinh by m."""
        position, width = self.peak
        mass = self.most * torch.sigmoid(v)
        distance = self._distance(mass)
        slope = 2 * mass / (position * width) / torch.sqrt(1 + distance**2)
        return v + torch.asinh(distance), mass * torch.sigmoid(-v), slope

    def _bounds(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Least energy of the first particle, and the logarithm of the largest one over it."""
        m1, m2 = self.incoming_masses
        least = other_energy(mass, self.largest[1], m2, m1).clamp_max(self.largest[0])
        return least, torch.log(self.largest[0] / least).clamp_min(1e-15)

    @property
    def _beyond(self) -> float:
        """Contribution of the peak to the first coordinate of events at the full energy."""
        position, width = self.peak
        return math.asinh((self.most**2 - position**2) / (position * width))

    def _columns_of_beams(self, total: Tensor, p: Tensor) -> list[Tensor]:
        mass = torch.sqrt(invariant_mass_squared(total))
        t = logit_between(mass, 0.0, self.most) + torch.asinh(self._distance(mass))
        if self.n_beams == 1:
            return [t]
        energies = incoming_momenta(total, *self.incoming_masses)[..., 3]
        energy = energies[..., 0]
        least, room = self._bounds(mass)
        # each distance to a bound by itself, so that neither loses its digits
        below = torch.log1p((energy - least) / least).clamp_min(1e-12 * room)
        above = -torch.log1p((energy - self.largest[0]) / self.largest[0])
        u = torch.log(below) - torch.log(above.clamp_min(1e-12 * room))
        if not any(self.at_full):
            return [t, u]
        first, second = (self._is_full(energies[..., i], i) for i in range(2))
        spreads = self._spread(p, 0), self._spread(p, 1)
        # energies below the full one stay on their side of the edges
        lowest, highest = (EDGE - _APART if self.at_full[i] else math.inf for i in (1, 0))
        u = u.clamp(-lowest, highest)
        u = torch.where(first, spreads[0], torch.where(second, -spreads[1], u))
        both = first & second
        t = torch.where(both, self._beyond + spreads[0], t)
        return [t, torch.where(both, spreads[1] - SPREAD[0], u)]

    def _total_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        column = len(self._mass_names)
        t = x[..., column]
        mass, log_det = self._mass_at(t)
        if self.n_beams == 1:
            return self._total_beside_fixed(mass, log_det)
        u = x[..., column + 1]
        least, room = self._bounds(mass)
        first = torch.where(
            u < 0,
            least * torch.exp(room * torch.sigmoid(u)),
            self.largest[0] * torch.exp(-room * torch.sigmoid(-u)),
        )
        full = (u > EDGE) & self.at_full[0], (u < -EDGE) & self.at_full[1]
        first = torch.where(full[0], self._full(0), first)
        second = other_energy(mass, first, *self.incoming_masses)
        # the energy that the other beam has at most may be exceeded by rounding
        second = second.clamp_max(self.largest[1])
        second = torch.where(full[1], self._full(1), second)
        first = torch.where(full[1], other_energy(mass, second, *self.incoming_masses[::-1]), first)
        p1, p2 = (
            torch.sqrt(((e - m) * (e + m)).clamp_min(0.0))
            for e, m in zip((first, second), self.incoming_masses, strict=True)
        )
        log_sigmoid = torch.nn.functional.logsigmoid
        share = torch.log(first * room) + log_sigmoid(u) + log_sigmoid(-u)
        # dE2/dm at fixed E1, from s = m1^2 + m2^2 + 2 (E1 E2 + p1 p2), or dE1/dm at fixed E2
        of_mass = torch.where(
            full[1], mass / (second + p2 * first / p1), mass / (first + p1 * second / p2)
        )
        one = full[0] | full[1]
        log_det = log_det + torch.where(one, 0.0, share) + torch.log(of_mass)
        both = (t > self._beyond + EDGE) & (self.at_full[0] and self.at_full[1])
        first = torch.where(both, self._full(0), first)
        second = torch.where(both, self._full(1), second)
        return self._total([first, second]), torch.where(both, 0.0, log_det)

    def _total_beside_fixed(self, mass: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        """Total momentum of these masses where one energy is fixed, and log |dE/dx| of the other.

        `log_det` is log |dm/dx|.
        """
        varies = self._vary[0]
        own = self.energies[1 - varies]
        assert own is not None
        m1, m2 = self.incoming_masses[1 - varies], self.incoming_masses[varies]
        other = other_energy(mass, own, m1, m2).clamp_max(self.largest[varies])
        p1 = math.sqrt(max((own - m1) * (own + m1), 0.0))
        p2 = torch.sqrt(((other - m2) * (other + m2)).clamp_min(0.0))
        energies = [torch.full_like(mass, own)] * 2
        energies[varies] = other
        return self._total(energies), log_det + torch.log(mass / (own + p1 * other / p2))
