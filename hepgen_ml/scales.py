"""Scale choices of generators as functions of the momenta, and the search for the one at hand.

A choice has a name, which models store:

===================  =========================================================================
``constant``         1 GeV
``ht``               sum of transverse masses
``sqrt_shat``        energy of the collision
``geometric_mean_mt``  geometric mean of transverse masses
``min_mt``           smallest transverse mass (Pythia's factorisation scale of two particles)
``max_pt, min_pt``   largest and smallest transverse momentum
``pair_mt``          transverse mass of the two heaviest particles together
``massless_pt``      transverse momentum that two particles would have without their masses, at
                     equal angle and energy of the collision (Pythia, where matrix elements are
                     massless)
``mass:i,j,...``     mass of some particles together
``mt:i,j,...``       their transverse mass
``kt:i,j``           transverse momentum of the softer of two particles to the other, in the rest
                     frame of the collision (POWHEG, emissions off the final state)
``core_mt:i,...``    geometric mean of the transverse masses of the two heaviest particles in
                     their rest frame, to the axis of the first incoming parton less particles
                     i, ...: the scale after clustering all others into the beams, where these
                     went to the first (MadGraph)
``mean:p:terms``     ``(sum c T^(p/2))^(1/p)``, for p = 0 ``prod T^(c/2)``; see `Mean`
===================  =========================================================================

Particles are counted from 0 among those made in the collision, resonances rather than what
they decay to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    boost,
    invariant_mass_squared,
    reverse,
    transverse_momentum,
)

FloatArray = npt.NDArray[np.float64]

_MAX_EMISSIONS = 4
_MAX_PAIRED = 5
"""Most particles of which pairs are tried."""

_LIGHT = 6.0
"""Particles lighter than this, in GeV, may be stood for by the boson that they exchange."""


@dataclass(frozen=True)
class Mean:
    """A mean of squared scales: arithmetic of any power, or geometric.

    Attributes
    ----------
    power : int
        Of the scales that are added: 1 or 2; 0 for the geometric mean.
    terms : tuple of (float, str, int, float)
        Coefficient c, and the squared scale T in GeV²: ``mt2``, the squared transverse mass of
        particle i, with its own mass or (where it is not nan) with the mass given; ``s``, the
        squared energy of the collision; ``one``, 1 GeV².
    """

    power: int
    terms: tuple[tuple[float, str, int, float], ...]

    def __str__(self) -> str:
        parts = []
        for c, kind, i, mass in self.terms:
            at = "" if kind != "mt2" else f".{i}" + ("" if math.isnan(mass) else f"@{mass:.12g}")
            parts.append(f"{c:.12g}*{kind}{at}")
        return f"mean:{self.power}:{' '.join(parts)}"

    @classmethod
    def parse(cls, name: str) -> Mean:
        """Inverse of `str`; raises ValueError for anything else."""
        _, power, text = name.split(":")
        if power not in ("0", "1", "2"):
            raise ValueError(f"unknown scale {name!r}")
        terms = []
        for part in text.split(" "):
            match = _TERM.fullmatch(part)
            if match is None:
                raise ValueError(f"unknown scale {name!r}")
            mass = float(match[4]) if match[4] else math.nan
            terms.append((float(match[1]), match[2], int(match[3] or 0), mass))
        return cls(int(power), tuple(terms))

    def __call__(self, final: Tensor) -> Tensor:
        """Scale (events,) of momenta (events, n, 4), in GeV."""
        total = torch.zeros_like(final[:, 0, 0])
        for c, kind, i, mass in self.terms:
            total = total + c * _powered(_term(final, kind, i, mass), self.power)
        if self.power == 0:
            return torch.exp(total / 2)
        return total.clamp_min(0.0) ** (1 / self.power)


_TERM = re.compile(r"([-+.0-9e]{1,30})\*(mt2|s|one)(?:\.(\d{1,3})(?:@([-+.0-9e]{1,30}))?)?")


def _term(final: Tensor, kind: str, i: int, mass: float) -> Tensor:
    if kind == "one":
        return torch.ones_like(final[:, 0, 0])
    if kind == "s":
        return invariant_mass_squared(final.sum(1)).clamp_min(1e-12)
    p = final[:, i]
    own = invariant_mass_squared(p).clamp_min(0.0) if math.isnan(mass) else mass**2
    return (transverse_momentum(p) ** 2 + own).clamp_min(1e-12)


def _powered(squared: Tensor, power: int) -> Tensor:
    return torch.log(squared) if power == 0 else squared ** (power / 2)


def formula(name: str, incoming: Tensor, final: Tensor) -> Tensor:
    """A scale choice by its name, see the module.

    Parameters
    ----------
    name : str
    incoming : (events, 2, 4) tensor
    final : (events, n, 4) tensor
        Momenta in GeV of what is made in the collision.

    Returns
    -------
    (events,) tensor, GeV

    Raises
    ------
    ValueError
        An unknown name.
    """
    kind, _, argument = name.partition(":")
    if kind == "mean":
        return Mean.parse(name)(final)
    if kind in _WITHOUT_ARGUMENT:
        return _WITHOUT_ARGUMENT[kind](final)
    if kind not in ("mass", "mt", "kt", "core_mt"):
        raise ValueError(f"unknown scale {name!r}")
    rows = [int(text) for text in argument.split(",") if text]
    if kind == "core_mt":
        return _core_mt(rows, incoming, final)
    if kind == "kt":
        return _relative_pt(rows, final)
    p = final[:, rows].sum(1)
    squared = invariant_mass_squared(p)
    if kind == "mt":
        squared = squared + transverse_momentum(p) ** 2
    return torch.sqrt(squared.clamp_min(1e-12))


def _mass2(final: Tensor) -> Tensor:
    return invariant_mass_squared(final).clamp_min(0.0)


def _mt(final: Tensor) -> Tensor:
    return torch.sqrt(transverse_momentum(final) ** 2 + _mass2(final))


def _pair_mt(final: Tensor) -> Tensor:
    pair = final[:, _heaviest(_mass2(final))].sum(1)
    return torch.sqrt(
        invariant_mass_squared(pair).clamp_min(1e-12) + transverse_momentum(pair) ** 2
    )


def _massless_pt(final: Tensor) -> Tensor:
    total = final.sum(1)
    mass = torch.sqrt(invariant_mass_squared(total).clamp_min(1e-12))
    inside = boost(final[:, 0], reverse(total), mass)
    size = torch.sqrt((inside[:, :3] ** 2).sum(1).clamp_min(1e-12))
    return transverse_momentum(final[:, 0]) * mass / (2 * size)


def _relative_pt(rows: Sequence[int], final: Tensor) -> Tensor:
    total = final.sum(1)
    mass = torch.sqrt(invariant_mass_squared(total).clamp_min(1e-12))
    i, j = (boost(final[:, r], reverse(total), mass) for r in rows)
    sizes = [torch.sqrt((p[:, :3] ** 2).sum(1)).clamp_min(1e-9) for p in (i, j)]
    cos = (i[:, :3] * j[:, :3]).sum(1) / (sizes[0] * sizes[1])
    softer = torch.minimum(i[:, 3], j[:, 3])
    return torch.sqrt((2 * softer**2 * (1 - cos)).clamp_min(1e-12))


def _core_mt(emitted: Sequence[int], incoming: Tensor, final: Tensor) -> Tensor:
    mass2 = _mass2(final)
    heavy = _heaviest(mass2)
    pair = final[:, heavy].sum(1)
    axis = incoming[:, 0]
    for i in emitted:
        axis = axis - final[:, i]
    pair_mass = torch.sqrt(invariant_mass_squared(pair).clamp_min(1e-12))
    inside = boost(final[:, heavy[0]], reverse(pair), pair_mass)[:, :3]
    axis = boost(axis, reverse(pair), pair_mass)[:, :3]
    along = (inside * axis).sum(1) ** 2 / (axis**2).sum(1).clamp_min(1e-12)
    pt2 = ((inside**2).sum(1) - along).clamp_min(0.0)
    return torch.exp(0.25 * torch.log((pt2.unsqueeze(1) + mass2[:, heavy]).clamp_min(1e-12)).sum(1))


def _heaviest(mass2: Tensor) -> list[int]:
    """Columns of the two heaviest particles, in the order of the event."""
    order = mass2.mean(0).argsort(descending=True, stable=True)[:2]
    return sorted(order.tolist())


_WITHOUT_ARGUMENT: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda p: torch.ones_like(p[:, 0, 0]),
    "ht": lambda p: _mt(p).sum(1),
    "sqrt_shat": lambda p: torch.sqrt(invariant_mass_squared(p.sum(1)).clamp_min(1e-12)),
    "geometric_mean_mt": lambda p: torch.exp(torch.log(_mt(p).clamp_min(1e-6)).mean(1)),
    "min_mt": lambda p: _mt(p).amin(1),
    "max_pt": lambda p: transverse_momentum(p).amax(1),
    "min_pt": lambda p: transverse_momentum(p).amin(1),
    "pair_mt": _pair_mt,
    "massless_pt": _massless_pt,
}


def formula_names(final: Tensor) -> list[str]:
    """Scale choices to be tried for momenta (events, n, 4), simple ones first."""
    n = final.shape[1]
    names = ["constant", "ht", "sqrt_shat", "geometric_mean_mt", "min_mt"]
    if n == 1:
        return names
    mass2 = _mass2(final)
    heavy = _heaviest(mass2)
    others = [i for i in range(n) if i not in heavy]
    names += ["pair_mt", "max_pt", "min_pt"]
    if n == 2:
        names.append("massless_pt")
    if len(others) <= _MAX_EMISSIONS:
        for size in range(len(others) + 1):
            names += [f"core_mt:{','.join(map(str, s))}" for s in combinations(others, size)]
    if 2 < n <= _MAX_PAIRED:
        pairs = [",".join(map(str, pair)) for pair in combinations(range(n), 2)]
        names += [f"{kind}:{pair}" for kind in ("mass", "mt", "kt") for pair in pairs]
        names += [f"mt:{i}" for i in range(n)]
    return names


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

    A regression that forgives outliers (iterated least squares with weights 1/|residual|), for
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
    if n > _MAX_PAIRED + 1 or len(value) < _FEWEST_PER_TERM * (n + 2):
        return None
    some = slice(0, _MOST_EVENTS)
    tolerance = np.broadcast_to(np.asarray(exact, dtype=float), value.shape)
    light = (_mass2(final).amax(0) < _LIGHT**2).tolist()
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
    columns = [_powered(_term(final, *term), power).numpy() for term in terms]
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
    """Geometric means of which some quantity is about a linear function of the logarithm.

    The inverse of a coupling is: these are the scales that it may be taken at.

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
    if n > _MAX_PAIRED + 1 or len(value) < _FEWEST_PER_TERM * (n + 2):
        return []
    final, value = final[:_MOST_EVENTS], value[:_MOST_EVENTS]
    light = (_mass2(final).amax(0) < _LIGHT**2).tolist()
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
    """Mass in the place of light particles' that a mean fits best."""
    final, value = final[:1000], value[:1000]
    y = _powered(torch.from_numpy(value**2), power).numpy()

    def misfit(mass: float) -> float:
        _, residual = _robust(_columns(final, power, light, mass)[1], y)
        return float(np.median(np.abs(residual)))

    tried = [misfit(m) for m in _MASSES]
    k = int(np.argmin(tried))
    low, high = _MASSES[max(k - 1, 0)], _MASSES[min(k + 1, len(_MASSES) - 1)]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - golden * (high - low), low + golden * (high - low)
        if misfit(a) < misfit(b):
            high = b
        else:
            low = a
    return float(low + high) / 2


def _fit_mean(
    final: Tensor,
    value: FloatArray,
    power: int,
    light: Sequence[bool],
    mass: float,
    tolerance: FloatArray,
) -> Mean | None:
    """Mean by a fit whose coefficients are tidied where that costs no event."""
    y = _powered(torch.from_numpy(value**2), power).numpy()
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
        """The first, simple ones first, that next to as many events follow closely as any."""
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
    near = partial(np.linspace, num=41)
    best, width = mass, 3e-3 * mass
    while width > 1e-9 * mass:
        around = near(best - width, best + width)
        best = float(min(around, key=lambda m: float(np.median(off(mean(tidy, m))[follow]))))
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
