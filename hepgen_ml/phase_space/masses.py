"""Coordinates of masses that vary from event to event."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hepgen_ml.phase_space.coordinates import expit_between, logit_between
from hepgen_ml.phase_space.laws import Law
from hepgen_ml.phase_space.spectrum import Peaks, density, distribution, mass_at

Bound = Tensor | float

MASSLESS = 2e-4
"""Masses below this, in GeV, are taken as zero: rounding, regulators of some generators, and jets
of a single photon."""


class Peak(NamedTuple):
    """Range of a mass, and the resonance in it.

    The coordinate is the logit of the cumulative Breit-Wigner distribution between the bounds,
    which is a logistic variable if that is what the mass follows.

    Attributes
    ----------
    low, high : float
        In GeV; `high` may be infinite.
    mass, width : float
        Position and full width in GeV; they determine the coordinate and need not be exact.
    """

    low: float
    high: float
    mass: float
    width: float


class Beside(NamedTuple):
    """Range of a mass on both sides of a resonance, without the region around its peak.

    Generators may leave out the row of a resonance that is far off its mass shell: events without
    it have masses below `first` or above `last` only. The coordinate is that of a `Peak` from which
    the region between them is removed.

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


class MovingPeak(NamedTuple):
    """Range of a mass with a resonance whose position and width follow the user's conditions.

    At given conditions it is a `Peak`. Its ends are given in the angle of the Breit-Wigner map,
    arctan((m^2 - M^2) / (M Gamma)), in which a window of so many widths is the same at any mass.

    Attributes
    ----------
    low, high : float
        Of masses at any condition, in GeV.
    position, width : Law
        In GeV.
    first, last : float
        Angles at the ends.
    """

    low: float
    high: float
    position: Law
    width: Law
    first: float
    last: float


@dataclass(frozen=True)
class MovingMass:
    """A mass in GeV that the user's conditions fix.

    Attributes
    ----------
    law : Law
    largest : float
        Of those seen.
    """

    law: Law
    largest: float


MassSpec = float | tuple[float, float] | Peak | Beside | Peaks | MovingPeak | MovingMass
"""Mass of a particle in GeV, or the open interval in which it varies, with the peaks that it has;
or how these follow the conditions of the user."""


def at_conditions(spec: MassSpec, values: Tensor) -> Any:
    """A specification at conditions (m, K): quantities that depend on them are tensors (m,)."""
    if isinstance(spec, MovingMass):
        return spec.law(values)
    if not isinstance(spec, MovingPeak):
        return spec
    position, width = spec.position(values), spec.width(values)
    scale = position * width
    low, high = (
        torch.sqrt((position**2 + scale * math.tan(angle)).clamp_min(0.0))
        for angle in (spec.first, spec.last)
    )
    # never quite empty, however wide the peak is
    least = torch.full_like(low, spec.low)
    ends: Any = torch.maximum(low, least), high.clamp_max(spec.high)
    peak: Any = Peak
    return peak(*ends, position, width)


def moves(spec: MassSpec) -> bool:
    """Whether a mass follows conditions."""
    return isinstance(spec, MovingPeak | MovingMass)


def smallest(spec: MassSpec) -> float:
    """Smallest mass in GeV."""
    if isinstance(spec, MovingMass):
        return 0.0
    return float(spec[0]) if isinstance(spec, tuple) else spec


def largest(spec: MassSpec) -> float:
    """Largest mass in GeV."""
    if isinstance(spec, MovingMass):
        return spec.largest
    return float(spec[1]) if isinstance(spec, tuple) else spec


def above(spec: MassSpec, least: float) -> MassSpec:
    """The part of a range that leaves room for products of this mass in GeV, if there is any."""
    if not isinstance(spec, tuple) or not spec[0] < least < spec[1]:
        return spec
    if not isinstance(spec, Beside):
        if isinstance(spec, Peak | Peaks | MovingPeak):
            return spec._replace(low=least)
        return least, spec[1]
    if least < spec.first:
        return spec._replace(low=least)
    return Peak(max(least, spec.last), *spec[1:4]) if max(least, spec.last) < spec.high else spec


def encode_mass(mass: Tensor, spec: tuple[Any, ...], low: Bound, high: Bound) -> Tensor:
    """Coordinate of a mass (...) in GeV between two bounds in GeV."""
    if isinstance(spec, Peaks):
        ends = (distribution(_tensor(m, mass), spec) for m in (low, high))
        return logit_between(distribution(mass, spec), *ends)
    if not isinstance(spec, Peak | Beside):
        return logit_between(mass, low, high)
    return logit_between(_angle(mass, spec), _angle(low, spec), _angle(high, spec))


def decode_mass(
    t: Tensor, spec: tuple[Any, ...], low: Bound, high: Bound
) -> tuple[Tensor, Tensor]:
    """Mass in GeV and log |dm/dt| of a coordinate."""
    slope = logsigmoid(t) + logsigmoid(-t)
    if not isinstance(spec, Peak | Beside | Peaks):
        return expit_between(t, low, high), torch.log(_tensor(high - low, t)) + slope
    if isinstance(spec, Peaks):
        ends = _tensor(low, t), _tensor(high, t)
        below, above = (distribution(m, spec) for m in ends)
        mass = mass_at(expit_between(t, below, above), spec, *ends)
        return mass, slope + torch.log(above - below) - torch.log(density(mass, spec))
    first, last = _angle(low, spec), _angle(high, spec)
    angle = _opened(expit_between(t, first, last), spec)
    m2 = spec.mass**2 + spec.mass * spec.width * torch.tan(angle)
    mass = torch.sqrt(m2.maximum(_tensor(low, t) ** 2)).minimum(_tensor(high, t))
    # dm^2 = M W dangle / cos^2(angle)
    slope = slope + _log(spec.mass * spec.width) - 2 * torch.log(torch.cos(angle))
    return mass, slope + torch.log(_tensor(last - first, t)) - torch.log(2 * mass)


def mass_slope(mass: Tensor, spec: tuple[Any, ...]) -> Tensor:
    """dt/dm of the coordinate between the specification's own bounds."""
    low, high = spec[0], spec[1]
    if isinstance(spec, Peaks):
        first, last, here = (distribution(_tensor(m, mass), spec) for m in (low, high, mass))
        return density(mass, spec) * (last - first) / ((here - first) * (last - here))
    if not isinstance(spec, Peak | Beside):
        return (high - low) / ((mass - low) * (high - mass))
    first, last, here = (_angle(m, spec) for m in (low, high, mass))
    scale = spec.mass * spec.width
    each = 2 * mass * scale / ((mass**2 - spec.mass**2) ** 2 + scale**2)
    return each * (last - first) / ((here - first) * (last - here))


def mass_spec(config: Any) -> MassSpec:
    """Specification from plain JSON values: a number, two, four or six in a list, or a mapping."""
    if isinstance(config, MovingPeak | MovingMass | Peaks):
        return config
    if isinstance(config, dict):
        if "peaks" in config:
            return _peaks(config)
        if "law" in config:
            return MovingMass(Law.from_config(config["law"]), float(config["largest"]))
        low, first, last = (float(config[name]) for name in ("low", "first", "last"))
        high = math.inf if config["high"] is None else float(config["high"])
        position, width = (Law.from_config(config[name]) for name in ("position", "width"))
        return MovingPeak(low, high, position, width, first, last)
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
    if isinstance(spec, MovingMass):
        return {"law": spec.law.to_config(), "largest": spec.largest}
    if isinstance(spec, MovingPeak):
        found = spec._asdict() | {"high": None if math.isinf(spec.high) else spec.high}
        return found | {name: found[name].to_config() for name in ("position", "width")}
    if isinstance(spec, Peaks):
        lists = {n: [list(v) for v in getattr(spec, n)] for n in ("peaks", "gaps")}
        high = None if math.isinf(spec.high) else spec.high
        return {"low": spec.low, "high": high, "continuum": list(spec.continuum), **lists}
    if isinstance(spec, tuple):
        return [None if math.isinf(v) else v for v in spec]
    return spec


def _peaks(config: dict[str, Any]) -> Peaks:
    share, middle, spread = (float(v) for v in config["continuum"])
    peaks = tuple((float(w), float(m), float(g)) for w, m, g in config["peaks"])
    gaps = tuple((float(a), float(b)) for a, b in config["gaps"])
    high = math.inf if config["high"] is None else float(config["high"])
    return Peaks(float(config["low"]), high, (share, middle, spread), peaks, gaps)


def _angle(mass: Bound, spec: Peak | Beside) -> Any:
    """Angle of the Breit-Wigner map without the excluded region; pi/2 for an infinite mass."""
    if not isinstance(mass, Tensor):
        position: Any = spec.mass
        if isinstance(position, Tensor):  # of a peak at conditions
            return _angle(torch.full_like(position, mass), spec)
        if isinstance(spec, Peak):
            return math.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))
        return float(_angle(torch.tensor(mass, dtype=torch.float64), spec))
    angle = torch.atan((mass**2 - spec.mass**2) / (spec.mass * spec.width))
    if isinstance(spec, Peak):
        return angle
    first, last = _gap(spec)
    return torch.where(angle > first, (angle - (last - first)).clamp_min(first), angle)


def _opened(angle: Tensor, spec: Peak | Beside) -> Tensor:
    """Angle of the mass itself, with the excluded region restored."""
    if isinstance(spec, Peak):
        return angle
    first, last = _gap(spec)
    return torch.where(angle > first, angle + (last - first), angle)


def _gap(spec: Beside) -> tuple[float, float]:
    """Angles between which there are no masses."""
    whole = Peak(*spec[:4])
    return _angle(spec.first, whole), _angle(spec.last, whole)


def _log(value: Bound) -> Any:
    return torch.log(value) if isinstance(value, Tensor) else math.log(value)


def _tensor(value: Bound, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)
