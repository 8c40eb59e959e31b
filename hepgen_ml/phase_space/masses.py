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


MassSpec = float | tuple[float, float] | Peak
"""Mass of a particle in GeV, or the open interval in which it varies, with a peak if it has one."""


def encode_mass(mass: Tensor, spec: tuple[float, ...], low: Bound, high: Bound) -> Tensor:
    """Coordinate of a mass (...) in GeV between two bounds in GeV."""
    if not isinstance(spec, Peak):
        return logit_between(mass, low, high)
    return logit_between(_angle(mass, spec), _angle(low, spec), _angle(high, spec))


def decode_mass(
    t: Tensor, spec: tuple[float, ...], low: Bound, high: Bound
) -> tuple[Tensor, Tensor]:
    """Mass in GeV and log |dm/dt| of a coordinate."""
    slope = logsigmoid(t) + logsigmoid(-t)
    if not isinstance(spec, Peak):
        return expit_between(t, low, high), torch.log(_tensor(high - low, t)) + slope
    first, last = _angle(low, spec), _angle(high, spec)
    angle = expit_between(t, first, last)
    m2 = spec.mass**2 + spec.mass * spec.width * torch.tan(angle)
    mass = torch.sqrt(m2.clamp_min(_tensor(low, t) ** 2)).minimum(_tensor(high, t))
    # dm^2 = M W dangle / cos^2(angle)
    slope = slope + math.log(spec.mass * spec.width) - 2 * torch.log(torch.cos(angle))
    return mass, slope + torch.log(_tensor(last - first, t)) - torch.log(2 * mass)


def mass_slope(mass: Tensor, spec: tuple[float, ...]) -> Tensor:
    """dt/dm of the coordinate between the specification's own bounds."""
    low, high = spec[0], spec[1]
    if not isinstance(spec, Peak):
        return (high - low) / ((mass - low) * (high - mass))
    first, last, here = (_angle(m, spec) for m in (low, high, mass))
    scale = spec.mass * spec.width
    each = 2 * mass * scale / ((mass**2 - spec.mass**2) ** 2 + scale**2)
    return each * (last - first) / ((here - first) * (last - here))


def mass_spec(config: Any) -> MassSpec:
    """Specification from plain JSON values: a number, or two or four in a list."""
    if not isinstance(config, list | tuple):
        return float(config)
    values = [math.inf if v is None else float(v) for v in config]
    if len(values) == 4:
        return Peak(*values)
    low, high = values
    return low, high


def mass_config(spec: MassSpec) -> Any:
    """Inverse of `mass_spec`."""
    if isinstance(spec, tuple):
        return [None if math.isinf(v) else v for v in spec]
    return spec


def _angle(mass: Bound, spec: Peak) -> Any:
    """Angle of the Breit-Wigner map; pi/2 for an infinite mass."""
    if isinstance(mass, Tensor):
        return torch.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))
    return math.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))


def _tensor(value: Bound, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)
