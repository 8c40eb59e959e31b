"""The search for the scale of a sample among means of transverse masses.

Robust regressions find means that some events follow exactly, independently of the others; the
formulas are those of `hepgen_ml.process.scales`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.process.scales import MAX_PAIRED, Mean, mass_squared, powered, squared_scale

FloatArray = npt.NDArray[np.float64]

_LIGHT = 6.0
"""Particles lighter than this, in GeV, may be replaced by the boson that they exchange."""


@dataclass(frozen=True)
class FoundMean:
    """Result of `find_mean`.

    Attributes
    ----------
    name : str
    off : (events,) array
        Relative deviation of each event.
    """

    name: str
    off: FloatArray


def stands_out(off: FloatArray, tolerance: FloatArray) -> bool:
    """Whether events that follow a formula are more than chance brings so close to it.

    Parameters
    ----------
    off : (events,) array
        Relative deviations.
    tolerance : (events,) array
        What counts as exact.
    """
    return bool(np.sum(off <= 10 * tolerance) <= _CHANCE * np.sum(off <= tolerance))


_CHANCE = 4.0
"""Ratio of events within ten times the tolerance to those within it; ten for a smooth density."""

_MASSES = np.geomspace(10.0, 1000.0, 48)
_FOR_A_MASS = 1_000
_MOST_EVENTS, _FEWEST_PER_TERM = 4_000, 8
_LEAST_SHARE = 0.2
_DENOMINATORS = (1, 2, 3, 4, 5, 6)


def find_mean(
    final: Tensor,
    value: FloatArray,
    exact: FloatArray | float,
    masses: Sequence[float] | None = None,
) -> FoundMean | None:
    """Mean of transverse masses and the energy of the collision that some events follow exactly.

    A robust regression (iterated least squares with weights 1/|residual|), for
    the geometric mean and for those of scales and of their squares; with the particles' own
    masses, then with an unknown common mass in the place of light particles' (weak bosons that
    quarks exchange).

    Parameters
    ----------
    final : (events, n, 4) tensor
        Of what is made in the collision.
    value : (events,) array
        Scales, positive.
    exact : float or (events,) array
        Relative deviation that counts as exact.
    masses : sequence of float, optional
        In GeV, to be tried in the place of light particles'; searched for if not given.

    Returns
    -------
    FoundMean or None
        None where fewer than a fifth of the events follow one.
    """
    n = final.shape[1]
    if n > MAX_PAIRED + 1 or len(value) < _FEWEST_PER_TERM * (n + 2):
        return None
    some = slice(0, _MOST_EVENTS)
    tolerance = np.broadcast_to(np.asarray(exact, dtype=float), value.shape)
    light = (mass_squared(final).amax(0) < _LIGHT**2).tolist()
    best: FoundMean | None = None
    for power in (0, 2, 1):
        tried: list[float] = [math.nan]
        if any(light) and power != 2:  # of squares, the mass is part of the constant
            tried += (
                [_exchanged_mass(final[some], value[some], power, light)]
                if masses is None else masses
            )  # fmt: skip
        for mass in tried:
            found = _fit_mean(final[some], value[some], power, light, mass, tolerance[some])
            if found is None:
                continue
            off = np.abs(found(final).numpy() / value - 1)
            share = float(np.mean(off <= tolerance))
            enough = share >= _LEAST_SHARE and share * len(value) >= _FEWEST_PER_TERM * (n + 2)
            before = 0.0 if best is None else float(np.mean(best.off <= tolerance)) + 0.01
            if enough and share > before and stands_out(off, tolerance):
                best = FoundMean(str(found), off)
        if best is not None and np.mean(best.off <= tolerance) > 0.99:
            break
    return best


def _columns(
    final: Tensor, power: int, light: Sequence[bool], mass: float
) -> tuple[list[tuple[str, int, float]], FloatArray]:
    terms: list[tuple[str, int, float]] = [
        ("mt2", i, mass if light[i] else math.nan) for i in range(final.shape[1])
    ]
    terms.append(("s", 0, math.nan))
    if power == 2:
        terms.append(("one", 0, math.nan))
    columns = [powered(squared_scale(final, *term), power).numpy() for term in terms]
    return terms, np.stack(columns, axis=1)


def _robust(a: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least absolute deviations of y from a @ c: coefficients and residuals."""
    size = np.abs(a).max(0)
    a = a / np.where(size > 0, size, 1.0)
    spread = max(float(np.abs(y).max()), 1e-12)
    weight = np.ones(len(y))
    for _ in range(30):
        c, *_ = np.linalg.lstsq(a * weight[:, None], y * weight, rcond=1e-12)
        residual = y - a @ c
        weight = 1 / np.sqrt(np.maximum(np.abs(residual), 1e-9 * spread))
        weight /= weight.max()
    return c / np.where(size > 0, size, 1.0), residual


def exchanged_masses(names: Iterable[str]) -> list[float]:
    """Masses that stand for those of light particles in some means, by their names."""
    means = [Mean.parse(name) for name in names if name.startswith("mean:")]
    return sorted({t[3] for mean in means for t in mean.terms if not math.isnan(t[3])})


def directions(final: Tensor, value: FloatArray, masses: Sequence[float]) -> list[str]:
    """Geometric means for which a quantity is approximately linear in the logarithm.

    This holds for the inverse of a coupling; these means are possible scales of the coupling.

    Parameters
    ----------
    final : (events, n, 4) tensor
        Of what is made in the collision.
    value : (events,) array
        The quantity.
    masses : sequence of float
        In GeV, to be tried in the place of light particles'.
    """
    n = final.shape[1]
    if n > MAX_PAIRED + 1 or len(value) < _FEWEST_PER_TERM * (n + 2):
        return []
    final, value = final[:_MOST_EVENTS], value[:_MOST_EVENTS]
    light = (mass_squared(final).amax(0) < _LIGHT**2).tolist()
    found: list[str] = []
    for mass in (math.nan, *masses):
        terms, a = _columns(final, 0, light, mass)
        c, _ = _robust(np.column_stack([a, np.ones(len(a))]), value)
        if not abs(c[:-1].sum()) > 0:
            continue
        tidy = [_rational(x, 2e-2) for x in c[:-1] / c[:-1].sum()]
        kept = tuple((x, *term) for x, term in zip(tidy, terms, strict=True) if x != 0)
        if kept:
            found.append(str(Mean(0, kept)))
    return found


def _exchanged_mass(final: Tensor, value: FloatArray, power: int, light: Sequence[bool]) -> float:
    """Mass that replaces those of light particles in the best mean, to a few tenths of a percent.

    The mean itself follows from all events, see `_fit_mean`; here a thousand are enough.
    """
    squares = _squares(final[:_FOR_A_MASS], light)
    y = powered(torch.from_numpy(value[:_FOR_A_MASS] ** 2), power).numpy()
    masses = _MASSES
    for _ in range(4):
        misfit = _misfits(squares, power, masses, y)
        k = int(np.argmin(misfit))
        best = float(masses[k])
        masses = np.linspace(masses[max(k - 1, 0)], masses[min(k + 1, len(masses) - 1)], 17)
    return best


Squares = tuple[FloatArray, FloatArray, FloatArray]


def _squares(final: Tensor, light: Sequence[bool]) -> Squares:
    """Squared transverse momenta (events, n), masses (n,) of 1 where one is exchanged, and s."""
    terms = [squared_scale(final, "mt2", i, 0.0 if light[i] else math.nan).numpy()
             for i in range(final.shape[1])]  # fmt: skip
    s = squared_scale(final, "s", 0, math.nan).numpy()
    return np.stack(terms, axis=1), np.array(light, dtype=float), s


def _with_masses(squares: Squares, power: int, masses: FloatArray) -> FloatArray:
    """Columns (masses, events, terms) of `_columns` for many masses; not for power 2."""
    own, light, s = squares
    every = own + (masses**2)[:, None, None] * light
    every = np.concatenate([every, np.broadcast_to(s[:, None], (len(masses), len(s), 1))], axis=2)
    return np.log(every) if power == 0 else every ** (power / 2)


def _misfits(
    squares: tuple[FloatArray, FloatArray, FloatArray],
    power: int,
    masses: FloatArray,
    y: FloatArray,
) -> FloatArray:
    """Median residuals (masses,) of fits by least absolute deviations, as those of `_robust`.

    By the normal equations, all masses at once: that is less accurate, and accurate enough to
    compare masses by.
    """
    a = _with_masses(squares, power, masses)
    a = a / np.abs(a).max(1, keepdims=True)
    spread, weight = max(float(np.abs(y).max()), 1e-12), np.ones(a.shape[:2])
    ridge = 1e-12 * np.eye(a.shape[2])
    for _ in range(20):
        weighted = (a * weight[:, :, None]).transpose(0, 2, 1)
        gram = weighted @ a
        gram = gram + ridge * np.trace(gram, axis1=1, axis2=2)[:, None, None]
        c = np.linalg.solve(gram, weighted @ y[:, None])
        residual = np.abs(y - (a @ c)[:, :, 0])
        weight = 1 / np.maximum(residual, 1e-9 * spread)
        weight /= weight.max(1, keepdims=True)
    return np.asarray(np.median(residual, axis=1))


def _fit_mean(
    final: Tensor,
    value: FloatArray,
    power: int,
    light: Sequence[bool],
    mass: float,
    tolerance: FloatArray,
) -> Mean | None:
    """Mean by a fit whose coefficients are tidied where that costs no event."""
    y = powered(torch.from_numpy(value**2), power).numpy()
    terms, a = _columns(final, power, light, mass)
    c, _ = _robust(a, y)

    def mean(coefficients: FloatArray, exchanged: float = mass) -> Mean:
        return Mean(
            power,
            tuple(
                (float(x), kind, i, math.nan if math.isnan(m) else exchanged)
                for x, (kind, i, m) in zip(coefficients, terms, strict=True)
                if x != 0
            ),
        )

    def off(candidate: Mean) -> FloatArray:
        if not candidate.terms:
            return np.full(len(value), np.inf)
        return np.asarray(np.abs(candidate(final).numpy() / value - 1))

    def simplest(*candidates: Mean) -> Mean:
        """The simplest one that describes almost as many events as the best."""
        close = [int(np.sum(off(m) <= tolerance / 4)) for m in candidates]
        return next(m for m, k in zip(candidates, close, strict=True) if k >= 0.97 * max(close))

    follow = off(mean(c)) <= 100 * tolerance
    if follow.sum() < len(terms):
        return None
    size = np.abs(a).max(0)
    c = np.linalg.lstsq(a[follow] / size, y[follow], rcond=1e-12)[0] / size
    tidy = np.array([_rational(x) if t[0] != "one" else x for x, t in zip(c, terms, strict=True)])
    if math.isnan(mass):
        return simplest(mean(tidy), mean(c))
    some = np.flatnonzero(follow)[:_FOR_A_MASS]
    squares = _squares(final[torch.from_numpy(some)], light)
    best, width = mass, 3e-3 * mass
    while width > 1e-9 * mass:
        around = np.linspace(best - width, best + width, 41)
        made = _with_masses(squares, power, around) @ tidy
        made = np.exp(made / 2) if power == 0 else made.clip(0.0) ** (1 / power)
        best = float(around[np.argmin(np.median(np.abs(made / value[some] - 1), axis=1))])
        width /= 15
    rounded = [mean(tidy, float(f"{best:.{digits}g}")) for digits in (5, 6, 7)]
    return simplest(*rounded, mean(tidy, best), mean(c))


def _rational(x: float, margin: float = 2e-3) -> float:
    """Fraction of small numbers close by, else the number itself."""
    for denominator in _DENOMINATORS:
        near = round(x * denominator) / denominator
        if abs(x - near) < margin:
            return near
    return x
