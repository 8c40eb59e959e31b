"""Elementary invertible maps and kinematics in float64 torch tensors.

Momenta are (..., 4) tensors (px, py, pz, E) in GeV. Every map is written so
that neither direction cancels large numbers against each other: the on-shell
energy is always recomputed from momentum and mass, never read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-12


@dataclass(frozen=True)
class Coordinate:
    """One coordinate of a chart.

    Attributes
    ----------
    name : str
        Name such as ``log_pt:j1``, by which charts share network parameters.
    periodic : bool
        Angle in [-pi, pi).
    cyclic : bool
        The density does not depend on it (the azimuth of the whole event), so it
        is drawn uniformly and never shown to a network.
    particle : int
        Which of the chart's particles it belongs to.
    logarithmic : bool
        Logarithm or logit of a distance to a bound: it changes without limit while the momentum
        hardly changes.
    """

    name: str
    periodic: bool = False
    cyclic: bool = False
    particle: int = 0
    logarithmic: bool = False


def wrap(phi: Tensor) -> Tensor:
    """Angle moved into [-pi, pi)."""
    return torch.remainder(phi + math.pi, 2 * math.pi) - math.pi


def transverse_momentum(p: Tensor) -> Tensor:
    """Transverse momentum in GeV, (..., 4) -> (...)."""
    return torch.hypot(p[..., 0], p[..., 1])


def azimuth(p: Tensor) -> Tensor:
    """Azimuthal angle, (..., 4) -> (...)."""
    return torch.atan2(p[..., 1], p[..., 0])


def pseudorapidity(p: Tensor) -> Tensor:
    """Pseudorapidity, (..., 4) -> (...); infinite along the beam."""
    return torch.asinh(p[..., 2] / transverse_momentum(p))


def rapidity(p: Tensor, mass: Tensor) -> Tensor:
    """Rapidity asinh(pz / mT) from momentum and mass, (..., 4) -> (...)."""
    mt = torch.sqrt(p[..., 0] ** 2 + p[..., 1] ** 2 + mass**2)
    return torch.asinh(p[..., 2] / mt)


def from_pt_rapidity_phi(pt: Tensor, y: Tensor, phi: Tensor, mass: Tensor) -> Tensor:
    """On-shell momentum (..., 4) from transverse momentum, rapidity, azimuth and mass."""
    mt = torch.sqrt(pt**2 + mass**2)
    return torch.stack(
        [pt * torch.cos(phi), pt * torch.sin(phi), mt * torch.sinh(y), mt * torch.cosh(y)], dim=-1
    )


def on_shell(p3: Tensor, mass: Tensor) -> Tensor:
    """Momentum (..., 4) from its spatial part (..., 3) and mass (...)."""
    energy = torch.sqrt((p3**2).sum(-1) + mass**2)
    return torch.cat([p3, energy.unsqueeze(-1)], dim=-1)


def invariant_mass_squared(p: Tensor) -> Tensor:
    """Square of the invariant mass, (..., 4) -> (...), as (E - |p|)(E + |p|)."""
    size = torch.sqrt((p[..., :3] ** 2).sum(-1))
    return (p[..., 3] - size) * (p[..., 3] + size)


def invariant_mass(p: Tensor) -> Tensor:
    """Invariant mass, (..., 4) -> (...), zero where the momentum is spacelike.

    Its derivative is zero there as well, not infinite as that of a square root at zero, which
    would make the gradient of a whole batch of events not a number.
    """
    squared = invariant_mass_squared(p)
    spacelike = squared <= 0
    return torch.where(spacelike, 0.0, torch.sqrt(torch.where(spacelike, 1.0, squared)))


def two_body_momentum(m: Tensor, m1: Tensor, m2: Tensor, least: float = 0.0) -> Tensor:
    """Momentum of the decay m -> m1 m2 in its rest frame (Kallen function, factorised).

    Zero where the decay is not possible; never below a part `least` of m / 2.
    """
    product = (m - m1 - m2) * (m + m1 + m2) * (m - m1 + m2) * (m + m1 - m2)
    lowest: Tensor | float = (least * m * m) ** 2 if least else 0.0
    return torch.sqrt(product.clamp_min(lowest)) / (2 * m)


def boost(p: Tensor, frame: Tensor, mass: Tensor) -> Tensor:
    """Momentum p of the rest frame of `frame`, seen in the frame where `frame` is given.

    The inverse boost is the same with the spatial part of `frame` reversed.

    Parameters
    ----------
    p, frame : (..., 4) tensors
    mass : (...) tensor
        Mass of `frame`.
    """
    k, energy = frame[..., :3], frame[..., 3]
    along = (k * p[..., :3]).sum(-1)
    new_energy = (energy * p[..., 3] + along) / mass
    shift = (p[..., 3] + new_energy) / (energy + mass)
    return torch.cat([p[..., :3] + k * shift.unsqueeze(-1), new_energy.unsqueeze(-1)], dim=-1)


def massless_pt(p: Tensor, q: Tensor) -> Tensor:
    """Transverse momentum that two particles (..., 4) would have without their masses.

    At the same angle and total energy in their rest frame, relative to which that of the first is
    measured. Generators cut on it (``PhaseSpace:pTHatMin`` of Pythia).
    """
    total = p + q
    mass = torch.sqrt(invariant_mass_squared(total).clamp_min(1e-12))
    inside = boost(p, reverse(total), mass)
    size = torch.sqrt((inside[..., :3] ** 2).sum(-1).clamp_min(1e-12))
    return transverse_momentum(p) * mass / (2 * size)


def reverse(p: Tensor) -> Tensor:
    """Momentum with its spatial part reversed."""
    return p * p.new_tensor([-1.0, -1.0, -1.0, 1.0])


def rotate_about_beam(p: Tensor, angle: Tensor) -> Tensor:
    """Momenta (..., 4) rotated by an angle (...) about the z axis."""
    c, s = torch.cos(angle), torch.sin(angle)
    x, y = p[..., 0], p[..., 1]
    return torch.stack([c * x - s * y, s * x + c * y, p[..., 2], p[..., 3]], dim=-1)


def boost_along_beam(p: Tensor, sinh_y: Tensor) -> Tensor:
    """Momenta (..., 4) boosted along the z axis by a rapidity y, given as sinh y (...)."""
    cosh_y = torch.sqrt(1 + sinh_y**2)
    pz = p[..., 2] * cosh_y + p[..., 3] * sinh_y
    energy = p[..., 3] * cosh_y + p[..., 2] * sinh_y
    return torch.stack([p[..., 0], p[..., 1], pz, energy], dim=-1)


def log_above(value: Tensor, low: Tensor | float) -> Tensor:
    """log(value - low), with values on or below the edge held at a distance of 1e-6."""
    return torch.log((value - low).clamp_min(1e-6))


def logit_between(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Logit of the position of a value in an interval, kept off its ends by 1e-12, or rounding."""
    u = (value - low) / (high - low)
    u = u.clamp(TINY, 1 - max(TINY, torch.finfo(u.dtype).eps))
    return torch.log(u) - torch.log1p(-u)


def expit_between(t: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Inverse of `logit_between`."""
    return low + (high - low) * torch.sigmoid(t)
