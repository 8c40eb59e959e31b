"""Chart of one particle produced by a beam of fixed energy and a particle of varying energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.chart import Chart, other_energy, total_of_beams, two_beams
from hepgen_ml.phase_space.masses import MassSpec, mass_config


class FormationChart(Chart):
    r"""One particle whose mass is all there is to choose, such as a leptoquark in e p collisions.

    The energy of one incoming particle is that of its beam, exactly; the other's follows from the
    mass. Measure: :math:`dm`.

    Parameters
    ----------
    labels, masses
        See `Chart`; one particle, whose mass varies.
    energies : sequence of 2 (float or None)
        Of the incoming particles along +z and -z in GeV, None for the one that varies.
    incoming_masses : sequence of 2 float
        In GeV.
    """

    kind = "formation"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[MassSpec],
        energies: Sequence[float | None],
        incoming_masses: Sequence[float],
    ) -> None:
        super().__init__(labels, masses)
        self.energies, self.incoming_masses = two_beams(energies, incoming_masses)
        if len(self.labels) != 1 or self.fixed_mass(0) is not None:
            raise ValueError("it is one particle that is formed, of a mass that varies")
        if self.energies.count(None) != 1:
            raise ValueError("one of the two incoming particles has a fixed energy")
        self.coordinates = tuple(self._mass_coordinates())

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [mass_config(m) for m in self.masses],
            "energies": list(self.energies),
            "incoming_masses": list(self.incoming_masses),
        }

    def forward(self, p: Tensor) -> Tensor:
        return torch.stack(self._encode_masses(p)[0], dim=-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mass = self._decode_masses(x)[0][..., 0]
        varies = self.energies.index(None)
        own = self.energies[1 - varies]
        assert own is not None
        m1, m2 = self.incoming_masses[1 - varies], self.incoming_masses[varies]
        energies = [torch.full_like(mass, own)] * 2
        energies[varies] = other_energy(mass, own, m1, m2)
        total = total_of_beams(energies, self.incoming_masses)
        return total.unsqueeze(-2), total

    def log_det(self, x: Tensor) -> Tensor:
        return self._decode_masses(x)[1]
