"""Coordinates of masses that vary from event to event."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hepgen_ml.phase_space.coordinates import expit_between, logit_between

Bound = Tensor | float


class Peak(NamedTuple):
    """Range of a mass, and the resonance in it.

    The coordinate is the logit of the cumulative Breit-Wigner distribution between the bounds,
    which is a logistic variable if that is what the mass follows.

    Attributes
    ----------
    low, high : float
        In GeV; `high` may be infinite.
    mass, width : float
        Position and full width in GeV; they shape the coordinate and need not be exact.
    """

    low: float
    high: float
    mass: float
    width: float


class Beside(NamedTuple):
    """Range of a mass on both sides of a resonance, whose middle it never has.

    Generators may leave out the row of a resonance that is far off its mass shell: events without
    it have masses below `first` or above `last` only. The coordinate is that of a `Peak` with what
    lies between them cut out.

    Attributes
    ----------
    low, high, mass, width : float
        As of a `Peak`.
    first, last : float
        In GeV, between `low` and `high`.
    """

    low: float
    high: float
    mass: float
    width: float
    first: float
    last: float


MassSpec = float | tuple[float, float] | Peak | Beside
"""Mass of a particle in GeV, or the open interval in which it varies, with a peak if it has one."""


def encode_mass(mass: Tensor, spec: tuple[float, ...], low: Bound, high: Bound) -> Tensor:
    """Coordinate of a mass (...) in GeV between two bounds in GeV."""
    if not isinstance(spec, Peak | Beside):
        return logit_between(mass, low, high)
    return logit_between(_angle(mass, spec), _angle(low, spec), _angle(high, spec))


def decode_mass(
    t: Tensor, spec: tuple[float, ...], low: Bound, high: Bound
) -> tuple[Tensor, Tensor]:
    """Mass in GeV and log |dm/dt| of a coordinate."""
    slope = logsigmoid(t) + logsigmoid(-t)
    if not isinstance(spec, Peak | Beside):
        return expit_between(t, low, high), torch.log(_tensor(high - low, t)) + slope
    first, last = _angle(low, spec), _angle(high, spec)
    angle = _opened(expit_between(t, first, last), spec)
    m2 = spec.mass**2 + spec.mass * spec.width * torch.tan(angle)
    mass = torch.sqrt(m2.clamp_min(_tensor(low, t) ** 2)).minimum(_tensor(high, t))
    # dm^2 = M W dangle / cos^2(angle)
    slope = slope + math.log(spec.mass * spec.width) - 2 * torch.log(torch.cos(angle))
    return mass, slope + torch.log(_tensor(last - first, t)) - torch.log(2 * mass)


def mass_slope(mass: Tensor, spec: tuple[float, ...]) -> Tensor:
    """dt/dm of the coordinate between the specification's own bounds."""
    low, high = spec[0], spec[1]
    if not isinstance(spec, Peak | Beside):
        return (high - low) / ((mass - low) * (high - mass))
    first, last, here = (_angle(m, spec) for m in (low, high, mass))
    scale = spec.mass * spec.width
    each = 2 * mass * scale / ((mass**2 - spec.mass**2) ** 2 + scale**2)
    return each * (last - first) / ((here - first) * (last - here))


def mass_spec(config: Any) -> MassSpec:
    """Specification from plain JSON values: a number, or two, four or six in a list."""
    if not isinstance(config, list | tuple):
        return float(config)
    values = [math.inf if v is None else float(v) for v in config]
    if len(values) == 4:
        return Peak(*values)
    if len(values) == 6:
        return Beside(*values)
    low, high = values
    return low, high


def mass_config(spec: MassSpec) -> Any:
    """Inverse of `mass_spec`."""
    if isinstance(spec, tuple):
        return [None if math.isinf(v) else v for v in spec]
    return spec


def _angle(mass: Bound, spec: Peak | Beside) -> Any:
    """Angle of the Breit-Wigner map; pi/2 for an infinite mass. What is cut out has no extent."""
    if not isinstance(mass, Tensor):
        if isinstance(spec, Peak):
            return math.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))
        return float(_angle(torch.tensor(mass, dtype=torch.float64), spec))
    angle = torch.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))
    if isinstance(spec, Peak):
        return angle
    first, last = _gap(spec)
    return torch.where(angle > first, (angle - (last - first)).clamp_min(first), angle)


def _opened(angle: Tensor, spec: Peak | Beside) -> Tensor:
    """Angle of the mass itself, what is cut out put back."""
    if isinstance(spec, Peak):
        return angle
    first, last = _gap(spec)
    return torch.where(angle > first, angle + (last - first), angle)


def _gap(spec: Beside) -> tuple[float, float]:
    """Angles between which there are no masses."""
    whole = Peak(*spec[:4])
    return _angle(spec.first, whole), _angle(spec.last, whole)


def _tensor(value: Bound, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)
