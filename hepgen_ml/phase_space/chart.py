"""Interface of all charts, and the incoming partons that follow from the final state."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    invariant_mass,
    on_shell,
    two_body_momentum,
)
from hepgen_ml.phase_space.masses import (
    MassSpec,
    at_conditions,
    decode_mass,
    encode_mass,
    mass_spec,
    moves,
)

NEAR = 1e-3
"""Relative distance from a threshold within which momenta are those at this distance, see
`Chart.continued`."""


class Chart(ABC):
    """Common part of the charts of parton-level events.

    Parameters
    ----------
    labels : sequence of str
        One per final-state particle, in the order of the chart; they name the coordinates.
    masses : sequence of float, (low, high) or Peak
        Fixed masses in GeV, or the interval of a mass that varies from event to event.

    Attributes
    ----------
    coordinates : tuple of Coordinate
        The D coordinates, in the order in which they depend on each other.
    """

    kind: str
    coordinates: tuple[Coordinate, ...]
    margin = 0.0
    """Relative distance from the ends of phase space from which on momenta are `continued`."""

    def __init__(self, labels: Sequence[str], masses: Sequence[MassSpec]) -> None:
        if len(labels) != len(masses) or not labels:
            raise ValueError("a chart needs one label and one mass per particle")
        self.labels = tuple(labels)
        self.masses: tuple[MassSpec, ...] = tuple(mass_spec(m) for m in masses)

    @abstractmethod
    def forward(self, p: Tensor) -> Tensor:
        """Coordinates (..., D) of final-state momenta (..., n, 4), both float64."""

    @abstractmethod
    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Final-state momenta (..., n, 4) and total momentum (..., 4) of coordinates (..., D)."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """Log |d(momenta) / d(coordinates)| (...), to the measure stated by the chart."""

    def allows(self, p: Tensor) -> Tensor:
        """Mask (...) of momenta (..., n, 4) that `inverse` makes and that are events of this chart.

        All, unless some coordinates of the chart have no momenta.
        """
        return torch.ones_like(p[..., 0, 0], dtype=torch.bool)

    def continued(self) -> Chart:
        """The chart with momenta for coordinates which are those of no event, too.

        Where a collision or a decay has too little mass, these are the momenta at, or a relative
        `NEAR` above, the threshold. So they are continuous functions of all coordinates, with
        bounded slopes, which networks and likelihoods need on the way from noise to events. They
        are no events there: `inverse` of the chart itself says so by nan.
        """
        chart = copy.copy(self)
        chart.margin = NEAR
        return chart

    @property
    def follows_conditions(self) -> bool:
        """Whether its masses are functions of the user's conditions, so that it needs `given`."""
        return any(moves(mass) for mass in self.masses)

    def given(self, values: Tensor | None) -> Chart:
        """The chart of m events with conditions (m, K); all its calls are then for these events."""
        if not self.follows_conditions:
            return self
        if values is None:
            raise ValueError("masses of this chart follow conditions, and there are none")
        chart = copy.copy(self)
        chart._take(values)
        return chart

    def with_masses(self, masses: Sequence[Any]) -> Chart:
        """The chart with other masses, whose numbers may be tensors (m,): one of each event."""
        chart = copy.copy(self)
        chart.masses = tuple(masses)
        return chart

    def _take(self, values: Tensor) -> None:
        """Let the masses be those at conditions (m, K)."""
        self.masses = tuple(at_conditions(mass, values) for mass in self.masses)

    def fixed_mass(self, i: int) -> Any:
        """Mass of a particle in GeV, None where it varies; a tensor (m,) of a chart `given` them.

        That of a mass which follows conditions, before these are given, is not known.
        """
        mass = self.masses[i]
        return mass if isinstance(mass, float | Tensor) else None

    def made(self, p: Tensor) -> Tensor:
        """Momenta (..., k, 4) of the particles produced in the collision, from (..., n, 4)."""
        return p

    @property
    def made_labels(self) -> tuple[str, ...]:
        """Labels of the particles produced in the collision."""
        return self.labels

    def push_forward(self, p: Tensor, v: Tensor) -> Tensor:
        """Change (..., D) of the coordinates when the momenta (..., n, 4) change by v.

        Along directions that leave the mass shells or the balance it is that of `forward`,
        which reads only what it needs; logarithmic coordinates are better moved directly.
        """
        return torch.func.jvp(self.forward, (p,), (v,))[1]

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Arguments with which the chart can be rebuilt, as plain JSON values."""

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates D."""
        return len(self.coordinates)

    def _mass_coordinates(self) -> list[Coordinate]:
        return [
            Coordinate(f"logit_mass:{label}", particle=i, logarithmic=True)
            for i, (label, mass) in enumerate(zip(self.labels, self.masses, strict=True))
            if isinstance(mass, tuple)
        ]

    def _encode_masses(self, p: Tensor) -> tuple[list[Tensor], Tensor]:
        """Coordinates of the varying masses, and the masses (..., n) themselves."""
        columns, masses = [], []
        for i, mass in enumerate(self.masses):
            if isinstance(mass, tuple):
                value = invariant_mass(p[..., i, :])
                columns.append(encode_mass(value, mass, mass[0], mass[1]))
                masses.append(value)
            else:
                masses.append(filled(p[..., i, 0], mass))
        return columns, torch.stack(masses, dim=-1)

    def _decode_masses(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Masses (..., n) and log |dm/dt| (...) from the first coordinates."""
        masses, log_det, column = [], torch.zeros_like(x[..., 0]), 0
        for mass in self.masses:
            if isinstance(mass, tuple):
                t = x[..., column]
                value, slope = decode_mass(t, mass, mass[0], mass[1])
                masses.append(value)
                log_det = log_det + slope
                column += 1
            else:
                masses.append(filled(x[..., 0], mass))
        return torch.stack(masses, dim=-1), log_det


def filled(like: Tensor, mass: Any) -> Tensor:
    """A fixed mass, or the masses of m events, broadcast to the shape of a tensor (m, ...)."""
    if not isinstance(mass, Tensor):
        return torch.full_like(like, mass)
    return mass.to(like.dtype).view(-1, *[1] * (like.ndim - 1)).expand_as(like)


def two_beams(
    energies: Sequence[float | None], masses: Sequence[float]
) -> tuple[tuple[float | None, ...], tuple[float, ...]]:
    """Energies and masses of two incoming particles, as a chart keeps them.

    Parameters
    ----------
    energies : sequence of 2 (float or None)
        Of the particles along +z and -z in GeV, None where it varies.
    masses : sequence of 2 float
        In GeV.

    Raises
    ------
    ValueError
        There are more or fewer than two.
    """
    if not len(energies) == len(masses) == 2:
        raise ValueError("there are two incoming particles")
    return tuple(None if e is None else float(e) for e in energies), tuple(map(float, masses))


def total_of_beams(energies: Sequence[Tensor], masses: Sequence[float]) -> Tensor:
    """Total momentum (..., 4) of incoming particles along +z and -z with these energies (...)."""
    first, second = (
        torch.sqrt(((e - m) * (e + m)).clamp_min(0.0))
        for e, m in zip(energies, masses, strict=True)
    )
    zero = torch.zeros_like(first)
    return torch.stack([zero, zero, first - second, energies[0] + energies[1]], dim=-1)


def incoming_momenta(total: Tensor, mass1: float, mass2: float) -> Tensor:
    """Momenta of the two incoming partons along the beam.

    Parameters
    ----------
    total : (..., 4) tensor
        Total momentum of the final state; its transverse part is zero to rounding.
    mass1, mass2 : float
        Masses of the incoming partons in GeV, the one moving along +z first.

    Returns
    -------
    (..., 2, 4) tensor
        nan where the total is too light for these masses.
    """
    energy, pz = total[..., 3], total[..., 2]
    if mass1 == 0.0 and mass2 == 0.0:
        plus, minus = (energy + pz) / 2, (energy - pz) / 2
        zero = torch.zeros_like(pz)
        first = torch.stack([zero, zero, plus, plus], dim=-1)
        second = torch.stack([zero, zero, -minus, minus], dim=-1)
        return torch.stack([first, second], dim=-2)
    s = (energy - pz) * (energy + pz)
    m = torch.sqrt(s)
    m1, m2 = torch.full_like(m, mass1), torch.full_like(m, mass2)
    q = two_body_momentum(m, m1, m2)
    q = torch.where(m > m1 + m2, q, torch.nan)
    e1 = torch.sqrt(q**2 + m1**2)
    p1 = (energy * q + pz * e1) / m
    zero = torch.zeros_like(pz)
    first = on_shell(torch.stack([zero, zero, p1], dim=-1), m1)
    second = on_shell(torch.stack([zero, zero, pz - p1], dim=-1), m2)
    return torch.stack([first, second], dim=-2)


def other_energy(mass: Tensor, own: Tensor | float, m1: float, m2: float) -> Tensor:
    """Energy of an incoming particle of mass m2 for a total mass with one of mass m1.

    Solves :math:`s = m_1^2 + m_2^2 + 2 (E_1 E_2 + p_1 p_2)` for the second energy, without
    differences of large numbers.

    Parameters
    ----------
    mass : (...) tensor
        Of both together, in GeV.
    own : (...) tensor or float
        Energy of the particle of mass m1 in GeV.
    m1, m2 : float
        In GeV.
    """
    energy = own if isinstance(own, Tensor) else torch.full_like(mass, own)
    p1 = torch.sqrt(((energy - m1) * (energy + m1)).clamp_min(0.0))
    half = ((mass**2 - m1**2 - m2**2) / 2).clamp_min(m1 * m2)
    root = torch.sqrt((half - m1 * m2) * (half + m1 * m2))
    return (half**2 + (m2 * p1) ** 2) / (energy * half + p1 * root)
