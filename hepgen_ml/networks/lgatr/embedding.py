"""Momenta and directions as tokens of the equivariant networks, and vectors out of them again."""

from __future__ import annotations

import torch
from torch import Tensor

from hepgen_ml.networks.lgatr.algebra import (
    COMPONENTS,
    Multivectors,
    embed_vectors,
    from_components,
)


def reference_components(reference: str, time: bool) -> Tensor:
    """Directions (k, 16) in usual components that break Lorentz symmetry as a collider does.

    Parameters
    ----------
    reference : {"plane", "beams", "none"}
        The plane transverse to the beams, or one light-like vector along each.
    time : bool
        The time direction of the laboratory.
    """
    blades: list[dict[tuple[int, ...], float]] = []
    if reference == "plane":
        blades.append({(1, 2): 1.0})
    elif reference == "beams":
        blades += [{(0,): 1.0, (3,): 1.0}, {(0,): 1.0, (3,): -1.0}]
    if time:
        blades.append({(0,): 1.0})
    rows = torch.zeros(len(blades), 16)
    for row, parts in zip(rows, blades, strict=True):
        for blade, value in parts.items():
            row[COMPONENTS.index(blade)] = value
    return rows


def embed_momenta(p: Tensor, scalars: Tensor, symmetry: str) -> Multivectors:
    """One channel of momenta (m, n, 4) with plain scalars (m, n, S)."""
    x = embed_vectors(p.unsqueeze(-2), scalars)
    return _of_space(x) if symmetry == "rotation" else x


def embed_components(x: Tensor, symmetry: str) -> Multivectors:
    """Multivectors (..., k, 16) in usual components as k channels, with (1, ...) in front."""
    channels = from_components(x.unsqueeze(0))
    return _of_space(channels) if symmetry == "rotation" else channels


def _of_space(x: Multivectors) -> Multivectors:
    """Into the algebra of space: times become scalars, spatial vectors electric parts."""
    c = x.channels
    time, space = x.vectors[0], x.vectors[1:]
    scalars = x.scalars.clone()
    scalars[..., :c] += time[..., :c]
    bivectors = torch.cat([x.bivectors[..., :c] + space[..., :c], x.bivectors[..., c:]], dim=-1)
    return Multivectors(scalars, x.vectors[..., :0], bivectors)


def append_channels(x: Multivectors, more: Multivectors) -> Multivectors:
    """Channels of x (m, n) and further ones, the same for all tokens (1, 1)."""
    a, b = x.bivectors.shape[-1] // 2, more.bivectors.shape[-1] // 2

    def joined(one: Tensor, two: Tensor) -> Tensor:
        if one.shape[-1] == 0:
            return one
        two = two.expand(*one.shape[:-1], -1)
        parts = [one[..., :a], two[..., :b], one[..., a : 2 * a], two[..., b : 2 * b]]
        return torch.cat([*parts, one[..., 2 * a :]], dim=-1)

    return Multivectors(*(joined(one, two) for one, two in zip(x, more, strict=True)))


def append_tokens(x: Multivectors, more: Multivectors, plain: Tensor) -> Multivectors:
    """Tokens of x (m, n) and further ones (1, k), whose plain scalars are `plain` (m, k, S)."""
    m = len(plain)
    scalars = torch.cat([more.scalars.expand(m, -1, -1), plain], dim=-1)
    parts = (scalars, *(rows.expand(-1, m, -1, -1) for rows in more[1:]))
    return Multivectors(*(torch.cat([a, b], dim=-2) for a, b in zip(x, parts, strict=True)))


def vector_part(x: Multivectors, symmetry: str) -> Tensor:
    """Vector (m, n, 4) as (px, py, pz, E) of the only channel."""
    if symmetry == "rotation":
        return torch.cat([x.bivectors[..., :1], x.scalars[..., :1].unsqueeze(0)])[..., 0].movedim(
            0, -1
        )
    return x.vectors[[1, 2, 3, 0]][..., 0].movedim(0, -1)
