"""Coordinates of the masses of reconstructed objects, zero among them.

Masses below 0.2 MeV are zero. The distribution has an atom there, which a density can describe only
if it is smeared: such a mass has a coordinate that follows a Gaussian far below all others, with
pseudorandom values from the last digits of the transverse momentum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import invariant_mass
from hepgen_ml.phase_space.masses import MASSLESS

_MASS_OFFSET = 0.02
_ATOM = (-0.5, 0.1)


def free_mass(p: Tensor) -> Tensor:
    """Masses (...) in GeV of momenta (..., 4); zero if they count as massless."""
    mass = invariant_mass(p)
    return torch.where(mass < MASSLESS, 0.0, mass)


def encode_free_mass(p: Tensor, pt: Tensor) -> Tensor:
    """Coordinates (...) of the masses of momenta (..., 4) with transverse momenta (...) in GeV."""
    mass = invariant_mass(p)
    digits = torch.remainder(pt * 1e6, 1.0).clamp(1e-3, 1 - 1e-3)
    atom = _ATOM[0] + _ATOM[1] * torch.special.ndtri(digits)
    return math.log(_MASS_OFFSET) + torch.where(
        mass < MASSLESS, atom, torch.log1p(mass / _MASS_OFFSET)
    )


def decode_free_mass(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mass in GeV of a coordinate x and log dm/dx; zero where it is the atom."""
    above = x - math.log(_MASS_OFFSET)
    mass = _MASS_OFFSET * torch.expm1(above.clamp_min(0.0))
    zero = mass < MASSLESS
    return torch.where(zero, 0.0, mass), torch.where(zero, 0.0, x)
