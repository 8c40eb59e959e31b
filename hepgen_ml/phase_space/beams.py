"""Chart of collisions whose incoming particles have individual energies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.chart import Chart, incoming_momenta, total_of_beams, two_beams
from hepgen_ml.phase_space.charts import FixedEnergyChart
from hepgen_ml.phase_space.coordinates import Coordinate, expit_between, logit_between
from hepgen_ml.phase_space.masses import MassSpec, mass_config

AT_FULL = 1e-8
"""Relative distance from the full energy of a beam that counts as zero."""

SPREAD, EDGE = (24.0, 1.0), 20.5
"""Mean coordinate of events at the full energy, and its edge; energies further from the full one
than `AT_FULL` have coordinates below 18.5."""

MARGIN = 1e-11
"""Relative margin of the largest energy of a varying beam above that of the sample."""


class BeamsChart(FixedEnergyChart):
    r"""Events whose incoming particles have individual energies: leptons that radiate.

    Each incoming particle has a fixed energy (the electron of deep-inelastic scattering), or its
    energy is a coordinate, :math:`\log E - \log(E_{max} - E)`, which resolves both a spike at
    the full energy of the beam and small fractions of it. Given both energies, the other
    coordinates are those of a `FixedEnergyChart` in the rest frame of the collision.

    The largest energy is that of the beam and a little more (`MARGIN`), so that events at the full
    energy, which files round to it, have a finite coordinate. Where a part of all events has the
    full energy exactly (beamstrahlung), the distribution has an atom, which a density can describe
    only if it is smeared: its coordinate follows a Gaussian above all others, with pseudorandom
    values from the last digits of a momentum, and generated energies above an edge become the full
    energy.

    Measure: that of `FixedEnergyChart` for the total momentum at hand, times :math:`dE` for each
    energy that varies, at the full energy times the spread.

    Parameters
    ----------
    labels, masses
        See `Chart`; at least two particles.
    energies : sequence of 2 (float or None)
        Of the incoming particles along +z and -z in GeV, None where it varies.
    largest : sequence of 2 float
        Largest energies in GeV of those that vary.
    incoming_masses : sequence of 2 float
        In GeV.
    at_full : sequence of 2 bool
        Whether a part of the events has the full energy of the beam exactly.
    """

    kind = "beams"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[MassSpec],
        energies: Sequence[float | None],
        largest: Sequence[float],
        incoming_masses: Sequence[float],
        at_full: Sequence[bool] = (False, False),
    ) -> None:
        Chart.__init__(self, labels, masses)
        self.energies, self.incoming_masses = two_beams(energies, incoming_masses)
        self.largest = tuple(float(e) for e in largest)
        if len(self.largest) != 2:
            raise ValueError("there are two incoming particles")
        self._vary = [i for i, e in enumerate(self.energies) if e is None]
        self.n_beams = len(self._vary)
        self.at_full = bool(at_full[0]), bool(at_full[1])
        names = self._names_of_beams()
        self._set_coordinates([Coordinate(name, logarithmic=True) for name in names])

    def _names_of_beams(self) -> Sequence[str]:
        """Names of the coordinates of the energies that vary."""
        return [f"logit_energy:beam{i + 1}" for i in self._vary]

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [mass_config(m) for m in self.masses],
            "energies": list(self.energies),
            "largest": list(self.largest),
            "incoming_masses": list(self.incoming_masses),
            **({"at_full": list(self.at_full)} if any(self.at_full) else {}),
        }

    def _full(self, i: int) -> float:
        """Full energy of a beam that varies."""
        return self.largest[i] / (1 + MARGIN)

    def _is_full(self, energy: Tensor, i: int) -> Tensor:
        """Mask of events at the full energy of a beam, if a fraction of the sample is there."""
        near = energy > (1 - AT_FULL) * self._full(i)
        return near if self.at_full[i] else torch.zeros_like(near)

    def _total(self, energies: Sequence[Tensor]) -> Tensor:
        """Total momentum of incoming particles with these energies."""
        return total_of_beams(energies, self.incoming_masses)

    def _total_of(self, p: Tensor) -> Tensor:
        """Total momentum, energies that are fixed or full put in exactly."""
        total = p.sum(-2)
        incoming = incoming_momenta(total, *self.incoming_masses)
        energies: list[Tensor] = []
        for i, fixed in enumerate(self.energies):
            own = incoming[..., i, 3]
            if fixed is None:
                energies.append(torch.where(self._is_full(own, i), self._full(i), own))
            else:
                energies.append(torch.full_like(own, fixed))
        return self._total(energies)

    def _spread(self, p: Tensor, i: int) -> Tensor:
        """Coordinates (...) of events at the full energy of a beam: a Gaussian above the edge."""
        digits = torch.remainder(p[..., 0, 2 * i] * 1e6, 1.0).clamp(1e-3, 1 - 1e-3)
        return SPREAD[0] + SPREAD[1] * torch.special.ndtri(digits)

    def _least_energy(self, i: int) -> float:
        """Smallest energy in GeV of a beam that varies."""
        return 0.0

    def _columns_of_beams(self, total: Tensor, p: Tensor) -> list[Tensor]:
        energy = incoming_momenta(total, *self.incoming_masses)[..., 3]
        columns = []
        for i in self._vary:
            t = logit_between(energy[..., i], self._least_energy(i), self.largest[i])
            full = self._is_full(energy[..., i], i)
            columns.append(torch.where(full, self._spread(p, i), t))
        return columns

    def _total_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        column, log_det = len(self._mass_names), torch.zeros_like(x[..., 0])
        energies: list[Tensor] = []
        for i, fixed in enumerate(self.energies):
            if fixed is not None:
                energies.append(torch.full_like(x[..., 0], fixed))
                continue
            t, least, most = x[..., column], self._least_energy(i), self.largest[i]
            full = (t > EDGE) & self.at_full[i]
            energies.append(torch.where(full, self._full(i), expit_between(t, least, most)))
            log_sigmoid = torch.nn.functional.logsigmoid
            slope = math.log(most - least) + log_sigmoid(t) + log_sigmoid(-t)
            log_det = log_det + torch.where(full, torch.zeros_like(slope), slope)
            column += 1
        return self._total(energies), log_det
