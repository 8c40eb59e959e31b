"""Several peaks in one spectrum of masses: those that are known, and unmistakable spikes.

Spectra have several peaks where the record does not name what decays: J/psi, Upsilon and Z in the
mass of two muons, a Z' on the tail of Drell-Yan pairs, W, Z and H in that of two jets, or the tails
of H -> b b~ beside those of Z -> b b~. Any map of the mass makes a narrow peak that it does not
know a spike in its coordinate; there spikes are looked for, because a right map leaves none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.phase_space import Beside, MassSpec, Peak
from hepgen_ml.phase_space.masses import encode_mass, mass_slope
from hepgen_ml.phase_space.spectrum import Peaks, distribution
from hepgen_ml.phase_space.spectrum import density as spectrum_density
from hepgen_ml.process.peaks import BROAD

FloatArray = npt.NDArray[np.float64]

_MOST = 8
"""Largest number of peaks of a spectrum."""

_EXAMINED = 20_000
"""Largest number of masses that are looked at."""

_FEWEST = 25
"""Number of masses in a spike from which it is unmistakable."""

_HEIGHT, _CLEAR = 3.0, 8.0
"""Density of a spike over that on either side, and its excess in standard deviations."""

_WIDEST = 0.5
"""Largest width of a spike in the coordinate, in which a logistic distribution is flat."""

_ITERATIONS, _ROUNDS = 30, 12
"""Steps of the fits of shares, and of positions and widths."""

_TRIED, _LOOKED_AT = 4, 5000
"""Largest numbers of spikes that are tried at a time, and of masses in the fit of one."""

_NARROWEST = 1e-9
"""Smallest ratio of width and position."""

_RESOLVED = 8.0
"""Gain of the log likelihood from which a known peak takes part in a map."""


def with_spikes(
    spec: MassSpec, mass: FloatArray, known: Sequence[Peak] = ()
) -> MassSpec:
    """Range of a mass with all peaks in it.

    Parameters
    ----------
    spec : MassSpec
        The range with one peak, or none.
    mass : (m,) array
        Masses in GeV that have it.
    known : sequence of Peak
        Further resonances, with the ranges of those masses that are recorded with their row.

    Returns
    -------
    MassSpec
        The same if there is nothing else in it.
    """
    if not isinstance(spec, tuple) or isinstance(spec, Peaks) or len(mass) < _FEWEST:
        return spec
    if not isinstance(spec, Peak | Beside) and len(spec) != 2:
        return spec  # its peak moves with conditions
    mass = np.sort(mass[np.isfinite(mass) & (mass > 0)])[:: max(1, len(mass) // _EXAMINED)]
    own = [(spec.mass, spec.width)] if isinstance(spec, Peak | Beside) else []
    gaps = [(spec.first, spec.last)] if isinstance(spec, Beside) else []
    peaks = list(own)
    for other in known:
        if spec[0] < other.mass < spec[1] and (other.mass, other.width) not in peaks:
            inside = (mass > other.low) & (mass < other.high)
            hidden = spec[0] < other.low and other.high < spec[1] and not inside.any()
            some = _joined([*gaps, (other.low, other.high)] if hidden else gaps)
            peak = other.mass, other.width
            without, within = (
                fitted(spec[0], spec[1], mass, p, some)[1] for p in (peaks, [*peaks, peak])
            )
            if within - without > _RESOLVED:
                peaks, gaps = [*peaks, peak], some
    found: Any = spec
    spikes: list[tuple[float, float]] = []
    if len(peaks) > len(own):
        found, _ = fitted(spec[0], spec[1], mass, peaks, gaps)
    while len(peaks) < _MOST and (spike := _spike(mass, found)) is not None:
        if any(abs(spike[0] - m) < max(spike[1], w) / 2 for m, w in peaks):
            break  # one whose shape is another
        peaks.append(spike)
        spikes.append(spike)
        found, _ = fitted(spec[0], spec[1], mass, peaks, gaps)
    for spike in spikes if len(peaks) > 1 else ():
        # once more, on a map with all the others
        others, _ = fitted(spec[0], spec[1], mass, [p for p in peaks if p != spike], gaps)
        first, last = np.searchsorted(mass, spike[0] + np.array([-2.0, 2.0]) * spike[1]).tolist()
        if (again := _refined(mass, others, first, min(last, len(mass) - 1))) is not None:
            peaks[peaks.index(spike)] = again
    if spikes and len(peaks) > 1:
        found, _ = fitted(spec[0], spec[1], mass, peaks, gaps)
    result: MassSpec = found
    return result


def fitted(
    low: float,
    high: float,
    mass: FloatArray,
    peaks: Sequence[tuple[float, float]],
    gaps: Sequence[tuple[float, float]] = (),
) -> tuple[Peaks, float]:
    """Map with peaks of given positions and widths, and its log likelihood for masses (m,)."""
    n = len(peaks) + 1
    share = np.full(n, 1.0 / n)
    middle, spread = float(np.median(mass)), 0.5
    parts = np.empty((n, len(mass)))
    for k, (m, w) in enumerate(peaks):
        one = Peaks(low, high, (1e-300, m, 1.0), ((1.0, m, w),))
        parts[k] = _density(mass, one, gaps)
    for _ in range(_ITERATIONS):
        continuum = Peaks(low, high, (1.0, middle, spread), ())
        parts[-1] = _density(mass, continuum, gaps)
        belongs = share[:, None] * parts
        total = np.maximum(belongs.sum(axis=0), 1e-300)
        belongs /= total
        share = np.maximum(belongs.mean(axis=1), 1e-9)
        weight = belongs[-1] + 1e-9
        logs = np.log(mass)
        middle = math.exp(float(np.average(logs, weights=weight)))
        deviation = float(np.average((logs - math.log(middle)) ** 2, weights=weight))
        spread = max(math.sqrt(3 * deviation) / math.pi, 0.1)
    likelihood = float(np.log(total).sum())
    # A share of what is left between the ends and outside of gaps, as the map counts it.
    continuum = Peaks(low, high, (1.0, middle, spread), ())
    whole = [_room(Peaks(low, high, (1e-300, m, 1.0), ((1.0, m, w),)), gaps) for m, w in peaks]
    weight = share / np.maximum([*whole, _room(continuum, gaps)], 1e-6)
    weight /= weight.sum()
    found = tuple((float(v), m, w) for v, (m, w) in zip(weight[:-1], peaks, strict=True))
    return Peaks(low, high, (float(weight[-1]), middle, spread), found, tuple(gaps)), likelihood


def _density(mass: FloatArray, spec: Peaks, gaps: Sequence[tuple[float, float]]) -> FloatArray:
    """Normalised density (m,) of one part of a map."""
    found = spectrum_density(torch.from_numpy(mass), spec).numpy()
    return np.asarray(found / max(_room(spec, gaps), 1e-12))


def _room(spec: Peaks, gaps: Sequence[tuple[float, float]]) -> float:
    """Part of a distribution between the ends and outside of gaps."""
    ends = torch.tensor([spec.low, spec.high], dtype=torch.float64)
    first, last = distribution(ends, spec._replace(gaps=tuple(gaps))).tolist()
    return float(last - first)


def _joined(gaps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Rising gaps, those that overlap as one."""
    found: list[tuple[float, float]] = []
    for first, last in sorted(gaps):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _spike(mass: FloatArray, spec: tuple[Any, ...]) -> tuple[float, float] | None:
    """Position and width of the clearest spike in the coordinate of rising masses (m,)."""
    t = encode_mass(torch.from_numpy(mass), spec, spec[0], spec[1]).numpy()
    t = np.maximum.accumulate(t)
    found: list[tuple[float, int, int]] = []
    k = _FEWEST
    while 2 * k < len(t):
        first = np.arange(0, len(t) - k, max(1, k // 8))
        last = first + k - 1
        wide = np.maximum(t[last] - t[first], 1e-12)
        below = first - np.searchsorted(t, t[first] - 3 * wide)
        above = np.searchsorted(t, t[last] + 3 * wide, side="right") - last - 1
        side = np.maximum(below, above) / 3
        excess = (k - side) / np.sqrt(side + 1)
        narrow = (mass[last] - mass[first] < 2 * BROAD * mass[first]) & (wide < _WIDEST)
        good = (excess > _CLEAR) & (k > _HEIGHT * side) & narrow & (below > 0) & (above > 0)
        some = (v[good].tolist() for v in (excess, first, last))
        found += zip(*some, strict=True)
        k = max(k + 1, int(1.5 * k))
    tried: list[tuple[int, int]] = []
    for _, begin, end in sorted(found, reverse=True):
        if len(tried) == _TRIED:
            break
        if any(begin <= last and first <= end for first, last in tried):
            continue
        tried.append((begin, end))
        if (spike := _refined(mass, spec, begin, end)) is not None:
            return spike
    return None


def _refined(
    mass: FloatArray, spec: tuple[Any, ...], first: int, last: int
) -> tuple[float, float] | None:
    """Position and width of the peak of some neighbouring masses, on what the map makes flat."""
    reach = 3 * (last - first + 1)
    span = max(mass[last] - mass[first], _NARROWEST * mass[first])
    begin = max(int(np.searchsorted(mass, mass[first] - 3 * span)), first - 2 * reach)
    end = min(int(np.searchsorted(mass, mass[last] + 3 * span)), last + 2 * reach)
    x = mass[begin:end]
    x = x[:: max(1, len(x) // _LOOKED_AT)]
    flat = np.abs(mass_slope(torch.from_numpy(x), spec).numpy())
    t = encode_mass(torch.from_numpy(x[[0, -1]]), spec, spec[0], spec[1]).numpy()
    flat = np.clip(flat / max(float(t[1] - t[0]), 1e-300), 1e-300, 1e300)
    low, position, high = (float(v) for v in np.quantile(mass[first : last + 1], (0.25, 0.5, 0.75)))
    width = max(high - low, _NARROWEST * position)
    step, factor = width / 2, 2.0
    for _ in range(_ROUNDS):
        trials = [
            (m, w)
            for m in position + step * np.linspace(-1, 1, 5)
            for w in width * factor ** np.linspace(-1, 1, 5)
        ]
        likelihood = [_likelihood(x, flat, *trial) for trial in trials]
        position, width = trials[int(np.argmax(likelihood))]
        step, factor = step / 1.6, max(factor**0.75, 1.01)
    inside = mass[0] < position - width and position + width < mass[-1]
    if not (inside and _NARROWEST * position < width < BROAD * position):
        return None
    return float(f"{position:.12g}"), float(f"{width:.6g}")


def _likelihood(x: FloatArray, flat: FloatArray, position: float, width: float) -> float:
    """Log likelihood of a peak on a density (m,), its share fitted, between the first and last."""
    half = width / 2
    ends = np.arctan((x[[0, -1]] - position) / half)
    peak = half / ((x - position) ** 2 + half**2) / max(float(ends[1] - ends[0]), 1e-9)
    share = 0.5
    for _ in range(8):
        both = share * peak + (1 - share) * flat
        share = float((share * peak / both).mean())
    return float(np.log(share * peak + (1 - share) * flat).sum())
