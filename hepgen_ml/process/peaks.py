"""Finding the peak of a resonance in a sample of masses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BROAD = 0.1
"""Ratio of width and position above which a peak is not a resonance."""

_FITTED = 20_000
"""Largest number of masses in a fit of a peak."""

_NARROWEST = 1e-9
"""Smallest ratio of width and position that files with eleven digits can resolve."""

_ITERATIONS = 80

_FEWEST_APART, _APART, _SAME = 20, 5.0, 1e-5
"""Number of masses from which a process may have its own hypothesis, distance of two medians in
units of their mean interquartile range, and what is added to it relative to the mass."""

_SMOOTH = 0.25
"""Minimum relative width of the background of a peak."""


def find_peak(mass: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Position and full width of a resonance in GeV, None without a resonance.

    Fits a Breit-Wigner distribution beside a log-normal one, by expectation maximisation from
    where the masses are densest and from where they are most above their surroundings.
    """
    values = mass[np.isfinite(mass) & (mass > 0)]
    values = values[:: max(1, len(values) // _FITTED)]
    if len(values) < 50:
        return None
    starts = [(m, w * m) for m in _candidates(values) for w in (0.004, 0.03)]
    fits = [_fit_peak(values, *start) for start in [*starts, _core(values)]]
    good = [
        (score, position, width)
        for score, position, width in fits
        if np.isfinite(score)
        and _NARROWEST * position < width < 0.25 * position
        and _stands_out(values, position, width)
    ]
    if not good:
        return None
    _, position, width = max(good)
    return float(f"{position:.12g}"), float(f"{width:.6g}")


def apart(masses: Mapping[int, npt.NDArray[np.float64]]) -> dict[int, int]:
    """Which processes have masses of a particle in common: a number for each.

    Samples of several hypotheses, such as resonances of 1 and of 2 TeV, have peaks far apart under
    one id. All processes have the number 0 where there is a single hypothesis.

    Parameters
    ----------
    masses : mapping of int to (m,) array
        In GeV, by the number of the process.
    """
    quartiles = {
        process: np.quantile(m, (0.25, 0.5, 0.75)) for process, m in masses.items() if len(m)
    }
    many = [p for p in quartiles if len(masses[p]) >= _FEWEST_APART]
    first: list[npt.NDArray[np.float64]] = []
    found: dict[int, int] = {}
    for process in sorted(many, key=lambda p: float(quartiles[p][1])):
        low, middle, high = quartiles[process]
        width = (high - low + (first[-1][2] - first[-1][0]) if first else 0.0) / 2
        if not first or middle - first[-1][1] > _APART * width + _SAME * middle:
            first.append(quartiles[process])
        found[process] = len(first) - 1
    for process in quartiles.keys() - found.keys():
        middle = float(quartiles[process][1])
        distance = [abs(middle - float(q[1])) for q in first]
        found[process] = int(np.argmin(distance)) if first else 0
    return found


def nearest(mass: npt.NDArray[np.float64], positions: Sequence[float]) -> int:
    """Which of several positions of a peak, in GeV, most masses (m,) are next to, relatively.

    Far fewer masses than those of a peak are beside it, but they may be at any distance.
    """
    mass = mass[mass > 0]
    distance = np.abs(np.log(mass)[:, None] - np.log(np.asarray(positions)))
    return int(np.argmax(np.bincount(distance.argmin(1), minlength=len(positions))))


def _candidates(mass: npt.NDArray[np.float64]) -> list[float]:
    """Candidates for the position of a peak: the half-sample mode, and the largest local excess."""
    ordered = np.sort(mass)
    edges = np.exp(np.arange(math.log(ordered[0]) - 0.2, math.log(ordered[-1]) + 0.24, 0.02))
    while len(ordered) > 50:
        half = (len(ordered) + 1) // 2
        spans = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
        first = int(np.argmin(spans))
        ordered = ordered[first : first + half]
    counts = np.histogram(mass, edges)[0].astype(float)
    around = np.convolve(counts, np.ones(21) / 21, mode="same")
    best = int(np.argmax((counts - around) / np.sqrt(around + 1)))
    return [float(ordered.mean()), float(np.sqrt(edges[best] * edges[best + 1]))]


def _core(mass: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median and half of the interquartile range: of a peak alone, its position and half width.

    The start that reaches peaks which are narrower than the others by orders of magnitude.
    """
    low, position, high = np.quantile(mass, (0.25, 0.5, 0.75))
    return float(position), max(float(high - low) / 2, _NARROWEST * float(position))


def _fit_peak(
    x: npt.NDArray[np.float64], position: float, half_width: float
) -> tuple[float, float, float]:
    """Log likelihood, position and full width."""
    log_x, share = np.log(x), 0.5
    middle, spread = float(log_x.mean()), float(log_x.std()) + 1e-3
    for _ in range(_ITERATIONS):
        pull2 = ((x - position) / half_width) ** 2
        peak = share / (math.pi * half_width * (1 + pull2))
        rest = (1 - share) * np.exp(-0.5 * ((log_x - middle) / spread) ** 2) / x
        rest /= spread * math.sqrt(2 * math.pi)
        belongs = peak / (peak + rest)
        near = belongs / (1 + pull2)  # events far away say little about a Cauchy distribution
        position = float((near * x).sum() / near.sum())
        half_width = math.sqrt(2 * float((near * (x - position) ** 2).sum() / belongs.sum()))
        half_width = max(half_width, _NARROWEST / 4 * position)
        share = min(float(belongs.mean()), 1 - 1e-6)
        others = 1 - belongs
        middle = float((others * log_x).sum() / others.sum())
        spread = math.sqrt(float((others * (log_x - middle) ** 2).sum() / others.sum()))
        spread = max(spread, _SMOOTH)
    return float(np.log(peak + rest).sum()), position, 2 * half_width


def _stands_out(x: npt.NDArray[np.float64], position: float, width: float) -> bool:
    """Whether there are more masses in a peak than on either side of it."""
    edges = position + width * np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    below, _, core, _, above = np.histogram(x, edges)[0]
    return all(
        core > 1.25 * side and core - side > 5 * math.sqrt(core + side) for side in (below, above)
    )
