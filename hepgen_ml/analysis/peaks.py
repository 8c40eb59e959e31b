"""Mass peaks: position and width by a fit, for truth and for generated events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepgen_ml.analysis.final_states import latex_of, name_of
from hepgen_ml.analysis.metrics import Counts
from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, FloatArray

_LEPTONS = (11, 13, 15)
_N_BINS = 80
_DENSEST = (0.4, 0.1)
"""Fractions of the masses whose narrowest range determines the width: the second one where most
particles of a kind are off their mass shell, such as every other Z boson of H -> ZZ*."""

_SAME = 0.75
"""Ratio of the widths by both fractions above which the first is taken, which has more events."""

_LEAST = 500
"""Minimum number of events in the window of a peak for a fit."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Masses around a peak as a histogram, with a Breit-Wigner fitted to it.

    Attributes
    ----------
    fraction, error : (k,) float array
        Fraction of all masses of the sample and its error, in bins of the peak's window.
    position, position_error, width, width_error : float
        In GeV.
    chi2, ndf : float and int
        Quality of the fit. Errors are scaled by the square root of chi2/ndf where it is above one,
        since no spectrum is exactly a Breit-Wigner.
    curve : (k,) float array
        The fitted function.
    """

    fraction: FloatArray
    error: FloatArray
    position: float
    position_error: float
    width: float
    width_error: float
    chi2: float
    ndf: int
    curve: FloatArray


@dataclass(frozen=True, eq=False)
class Peak:
    """One resonance in several samples.

    Attributes
    ----------
    name, label : str
        Plain text and mathtext.
    edges : (k + 1,) float array
        Edges of the bins in the window, in GeV.
    spectra : tuple of Spectrum or None
        Truth first; None where the fit fails.
    """

    name: str
    label: str
    edges: FloatArray
    spectra: tuple[Spectrum | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Window and fits as plain numbers, for JSON."""
        kept = ("position", "position_error", "width", "width_error", "chi2", "ndf")
        fits = [None if s is None else {k: getattr(s, k) for k in kept} for s in self.spectra]
        return {"window": [float(self.edges[0]), float(self.edges[-1])], "fits": fits}


Masses = tuple[FloatArray, FloatArray]
"""Masses in GeV and the weights of their events."""


def peak_masses(sample: EventSample) -> Iterator[tuple[str, str, Masses]]:
    """Masses that may have a peak: resonances of the record, lepton pairs of analyses.

    Yields
    ------
    name, label : str
    masses : (n,) arrays of masses and weights
        Masses of particles with status 2, by PDG number; without statuses, of pairs of leptons of
        one flavour and opposite charge in events with exactly one such pair.
    """
    event = sample.event_index
    if not sample.is_reconstructed:
        numbers = np.unique(sample.pdg_id[sample.status == 2]).tolist()
        for number in sorted(numbers, key=lambda i: (abs(i), i < 0)):
            rows = (sample.status == 2) & (sample.pdg_id == number)
            yield name_of(number), latex_of(number), (_mass(sample.momentum[rows]),
                                                      sample.weight[event[rows]])  # fmt: skip
        return
    for lepton in _LEPTONS:
        rows = np.flatnonzero(np.abs(sample.pdg_id) == lepton)
        n = len(sample)
        counts = [np.bincount(event[rows[sample.pdg_id[rows] == s * lepton]], minlength=n)
                  for s in (1, -1)]  # fmt: skip
        single = (counts[0] == 1) & (counts[1] == 1)
        if not single.any():
            continue
        p = np.stack([np.bincount(event[rows], c, n) for c in sample.momentum[rows].T], axis=1)
        names = [(name_of(s * lepton), latex_of(s * lepton)) for s in (1, -1)]
        yield (
            " ".join(name for name, _ in names),
            "".join(label for _, label in names),
            (_mass(p[single]), sample.weight[single]),
        )


def peaks(*samples: EventSample) -> list[Peak]:
    """Fit every peak of the first sample in all samples.

    Parameters
    ----------
    *samples : EventSample
        Truth first. The window is four widths of the truth's peak to each side, as the densest
        four tenths of its masses determine them, or the densest tenth where that is narrower.

    Raises
    ------
    UsageError
        SciPy is not installed.
    """
    found = []
    others = [{name: m for name, _, m in peak_masses(s)} for s in samples[1:]]
    for name, label, masses in peak_masses(samples[0]):
        around, width = _place(masses[0])
        if width < 1e-4 * around:  # a fixed mass
            continue
        low, high = max(around - 4 * width, 0.0), around + 4 * width
        edges = np.linspace(low, high, _N_BINS + 1)
        start = (around, width)
        spectra = [_fitted(m, edges, start) for m in (masses, *(o.get(name) for o in others))]
        found.append(Peak(name, label, edges, tuple(spectra)))
    return found


def _place(mass: FloatArray) -> tuple[float, float]:
    """Centre and full width at half maximum of a peak, insensitive to tails and radiation."""
    ordered = np.sort(mass)
    found = []
    for fraction in _DENSEST:
        n = max(int(fraction * len(ordered)), 1)
        span = ordered[n:] - ordered[:-n] if n < len(ordered) else np.zeros(1)
        first = int(np.argmin(span))
        # of a Breit-Wigner, a fraction f lies within +- Gamma/2 tan(pi f/2)
        width = float(span[first]) / np.tan(np.pi * fraction / 2)
        found.append((float(ordered[first] + span[first] / 2), float(width)))
    most, core = found
    return core if core[1] < _SAME * most[1] else most


def breit_wigner(
    m: FloatArray, height: float, position: float, width: float, flat: float, slope: float = 0.0
) -> FloatArray:
    r"""Relativistic Breit-Wigner on a straight line.

    .. math:: h \frac{m_0^2 \Gamma^2}{(m^2 - m_0^2)^2 + m_0^2 \Gamma^2} + f + s (m - m_0)
    """
    scale = (position * width) ** 2
    result: FloatArray = height * scale / ((m**2 - position**2) ** 2 + scale)
    result += flat + slope * (m - position)
    return result


def _fitted(
    masses: Masses | None, edges: FloatArray, start: tuple[float, float]
) -> Spectrum | None:
    try:
        from scipy.optimize import curve_fit
    except ImportError as missing:
        raise UsageError(
            "fits of mass peaks need scipy", remedy="pip install 'hepgen-ml[validation]'"
        ) from missing
    if masses is None:
        return None
    mass, weight = masses
    place = np.searchsorted(edges, mass, side="right")
    table = Counts.of(place, weight, len(edges) + 1).table[1:-1]
    if table[:, 0].sum() < _LEAST:
        return None
    middle = (edges[1:] + edges[:-1]) / 2
    # squared weight of an event over its weight turns expected contents into variances
    per_event = table[:, 2].sum() / table[:, 1].sum()
    height = float(table[:, 1].max())
    values = np.array([height, *start, 0.01 * height, 0.0])
    expected = table[:, 1]
    try:
        for _ in range(3):  # errors are those of the fitted function, not of the fluctuation
            sigma = np.sqrt(np.maximum(expected, per_event) * per_event)
            values, covariance = curve_fit(
                breit_wigner, middle, table[:, 1], values, sigma,
                absolute_sigma=True, maxfev=20_000,
            )  # fmt: skip
            expected = breit_wigner(middle, *values)
    except RuntimeError:  # no minimum is found
        return None
    chi2, ndf = float(np.sum(((table[:, 1] - expected) / sigma) ** 2)), len(middle) - len(values)
    errors = np.sqrt(np.diag(covariance) * max(1.0, chi2 / ndf))
    if not np.isfinite(errors).all():
        return None
    if not edges[0] < values[1] < edges[-1] or abs(values[2]) > edges[-1] - edges[0]:
        return None  # what was fitted is the background
    total = weight.sum()
    return Spectrum(
        table[:, 1] / total, np.sqrt(table[:, 2]) / total,
        float(values[1]), float(errors[1]), abs(float(values[2])), float(errors[2]),
        chi2, ndf, expected / total,
    )  # fmt: skip


def _mass(p: FloatArray) -> FloatArray:
    size = np.sqrt((p[:, :3] ** 2).sum(axis=1))
    mass: FloatArray = np.sqrt(np.maximum((p[:, 3] - size) * (p[:, 3] + size), 0))
    return mass
