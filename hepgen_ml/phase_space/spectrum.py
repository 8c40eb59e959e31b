"""Coordinate of a mass with several resonances on a continuum."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

_STEPS = 60
"""Largest number of steps to the mass of a coordinate; each is one of Newton's, or halves the range
between knots."""

_KNOTS = 65
_EXTREME = 1e-12


class Peaks(NamedTuple):
    r"""Range of a mass, with several resonances and a continuum in it.

    The coordinate is the logit of the sum of the distribution functions of all of these between the
    bounds: Breit-Wigner distributions in the squared mass, and
    :math:`1 / (1 + (m / m_0)^{-1/s})` for the continuum. Events of each resonance, and those far
    from all of them, then take a share of the coordinate's range that is about their number.

    Attributes
    ----------
    low, high : float
        In GeV; `high` may be infinite.
    continuum : (float, float, float)
        Share, median m_0 in GeV and spread s in the logarithm.
    peaks : tuple of (float, float, float)
        Share, position and full width in GeV of each. None of these need be exact.
    gaps : tuple of (float, float)
        Rising ranges in GeV without masses, which are removed from the distribution: where
        another record has the resonance itself.
    """

    low: float
    high: float
    continuum: tuple[float, float, float]
    peaks: tuple[tuple[float, float, float], ...]
    gaps: tuple[tuple[float, float], ...] = ()


def distribution(mass: Tensor, spec: Peaks) -> Tensor:
    """Sum of the distribution functions at masses (...) in GeV, up to a constant, gaps removed."""
    whole = _whole(mass, spec)
    found = whole
    for first, last in _gap_heights(spec):
        found = found - (whole.clamp(first, last) - first)
    return found


def density(mass: Tensor, spec: Peaks) -> Tensor:
    """Slope of the distribution outside of gaps, per GeV."""
    share, middle, spread = spec.continuum
    part = torch.sigmoid((torch.log(mass.clamp_min(_EXTREME)) - math.log(middle)) / spread)
    found = share * part * (1 - part) / (spread * mass.clamp_min(_EXTREME))
    for weight, position, width in spec.peaks:
        scale = position * width
        around = (mass**2 - position**2) ** 2 + scale**2
        found = found + weight / math.pi * 2 * mass * scale / around
    return found


def mass_at(height: Tensor, spec: Peaks, low: Tensor, high: Tensor) -> Tensor:
    """Mass in GeV at which the distribution has a height, between bounds.

    Its derivative with respect to the height is that of the inverse.
    """
    for first, last in _gap_heights(spec):
        height = torch.where(height > first, height + (last - first), height)
    with torch.no_grad():
        knots, heights = (torch.tensor(v, dtype=height.dtype, device=height.device)
                          for v in _knots(spec))  # fmt: skip
        place = torch.searchsorted(heights, height.detach().contiguous()).clamp(1, len(knots) - 1)
        below, above = knots[place - 1], knots[place]
        under, over = heights[place - 1], heights[place]
        part = ((height - under) / (over - under).clamp_min(1e-300)).clamp(0.0, 1.0)
        mass = below + part * (above - below)
        for _ in range(_STEPS):
            away = _whole(mass, spec) - height
            below, above = torch.where(away < 0, mass, below), torch.where(away < 0, above, mass)
            new = mass - away / density(mass, spec).clamp_min(1e-300)
            new = torch.where((new > below) & (new < above), new, (below + above) / 2)
            done = bool((torch.abs(new - mass) <= 1e-15 * mass).all())
            mass = new
            if done:
                break
        slope = density(mass, spec).clamp_min(1e-300)
    mass = mass - (_whole(mass, spec) - height) / slope
    return mass.maximum(low).minimum(high)


def _whole(mass: Tensor, spec: Peaks) -> Tensor:
    """The distribution without regard to gaps."""
    share, middle, spread = spec.continuum
    logarithm = torch.log(mass.clamp_min(_EXTREME))
    found = share * torch.sigmoid((logarithm - math.log(middle)) / spread)
    for weight, position, width in spec.peaks:
        angle = torch.atan((mass**2 - position**2) / (position * width))
        found = found + weight * (angle / math.pi + 0.5)
    return found


@lru_cache(maxsize=1000)
def _gap_heights(spec: Peaks) -> list[tuple[float, float]]:
    """Values of the distribution, gaps before removed, between which there are no masses."""
    ends = torch.tensor(spec.gaps, dtype=torch.float64).view(-1, 2)
    return [(a, b) for a, b in _whole(ends, spec).tolist()]


@lru_cache(maxsize=1000)
def _knots(spec: Peaks) -> tuple[list[float], list[float]]:
    """Masses, densest where the distribution is steep, and the distribution there."""
    part = torch.linspace(0.0, 1.0, _KNOTS, dtype=torch.float64)[1:-1]
    ends = torch.tensor([_EXTREME, 1e-6, 1e-3], dtype=torch.float64)
    part = torch.cat([ends, part, 1 - ends])
    _, middle, spread = spec.continuum
    masses = [middle * (part / (1 - part)) ** spread]
    for _, position, width in spec.peaks:
        squared = position**2 + position * width * torch.tan(math.pi * (part - 0.5))
        masses.append(torch.sqrt(squared.clamp_min(0.0)))
    last = max(float(torch.cat(masses).max()), 10 * spec.low)
    if math.isfinite(spec.high):
        last = max(last, spec.high)
    knots = torch.unique(torch.cat([*masses, torch.tensor([0.0, last], dtype=torch.float64)]))
    return knots.tolist(), _whole(knots, spec).tolist()
