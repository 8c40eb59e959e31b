"""Rest frames of decaying particles, and the way back.

That of a particle made in a collision is reached by a boost along the beam and one along its
transverse momentum, which is the x axis; that of a product by one along its momentum in its
mother's rest frame, which is the z axis (the helicity frame, where spin correlations are
simple), its x axis lying in the plane with the mother's z axis. Momenta are (..., 4) tensors in
GeV, masses (...) tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    azimuth,
    boost,
    boost_along_beam,
    reverse,
    rotate_about_beam,
    transverse_momentum,
)


def to_rest(p: Tensor, q: Tensor, mass: Tensor, *, transverse: bool = True) -> Tensor:
    """Momentum p in the rest frame of q, a particle made in a collision.

    Parameters
    ----------
    p, q : (..., 4) tensors
    mass : (...) tensor
        Of q.
    transverse : bool
        False if q has no transverse momentum: the x axis is then that of the laboratory.
    """
    mt = torch.sqrt(q[..., 0] ** 2 + q[..., 1] ** 2 + mass**2)
    p = boost_along_beam(p, -q[..., 2] / mt)
    if not transverse:
        return p
    return boost(rotate_about_beam(p, -azimuth(q)), reverse(_across(q, mt)), mass)


def from_rest(p: Tensor, q: Tensor, mass: Tensor, *, transverse: bool = True) -> Tensor:
    """Inverse of `to_rest`."""
    mt = torch.sqrt(q[..., 0] ** 2 + q[..., 1] ** 2 + mass**2)
    if transverse:
        p = rotate_about_beam(boost(p, _across(q, mt), mass), azimuth(q))
    return boost_along_beam(p, q[..., 2] / mt)


def _across(q: Tensor, mt: Tensor) -> Tensor:
    zero = torch.zeros_like(mt)
    return torch.stack([transverse_momentum(q), zero, zero, mt], dim=-1)


def to_helicity(p: Tensor, q: Tensor, mass: Tensor) -> Tensor:
    """Momentum in the helicity frame of q, both given in the rest frame of q's mother."""
    size = torch.sqrt((q[..., :3] ** 2).sum(-1))
    turned = rotate_about_beam(p, -azimuth(q))
    cos, sin = q[..., 2] / size, transverse_momentum(q) / size
    x = cos * turned[..., 0] - sin * turned[..., 2]
    z = sin * turned[..., 0] + cos * turned[..., 2]
    turned = torch.stack([x, turned[..., 1], z, turned[..., 3]], dim=-1)
    return boost_along_beam(turned, -size / mass)


def from_helicity(p: Tensor, q: Tensor, mass: Tensor) -> Tensor:
    """Inverse of `to_helicity`."""
    size = torch.sqrt((q[..., :3] ** 2).sum(-1))
    p = boost_along_beam(p, size / mass)
    cos, sin = q[..., 2] / size, transverse_momentum(q) / size
    x = cos * p[..., 0] + sin * p[..., 2]
    z = -sin * p[..., 0] + cos * p[..., 2]
    return rotate_about_beam(torch.stack([x, p[..., 1], z, p[..., 3]], dim=-1), azimuth(q))
