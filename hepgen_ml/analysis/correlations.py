"""Correlations of observables, with errors that hold for any distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hepgen_ml.analysis.metrics import bin_edges, histogram_chi2
from hepgen_ml.analysis.observables import Observable, ObservableTable
from hepgen_ml.events.sample import FloatArray


@dataclass(frozen=True, eq=False)
class Correlations:
    """Rank correlations of two samples.

    Attributes
    ----------
    observables : tuple of Observable
    truth, generated : (k, k) float array
    pulls : (k, k) float array
        Difference over its statistical error; 0 on the diagonal and if the error is zero.
    """

    observables: tuple[Observable, ...]
    truth: FloatArray
    generated: FloatArray
    pulls: FloatArray

    @property
    def worst(self) -> tuple[int, int]:
        """Pair with the largest pull."""
        i, j = np.unravel_index(np.argmax(np.abs(self.pulls)), self.pulls.shape)
        return int(i), int(j)

    @property
    def rms_pull(self) -> float:
        """Root mean square over all pairs; they are not independent."""
        upper = np.triu_indices(len(self.pulls), 1)
        return float(np.sqrt(np.mean(self.pulls[upper] ** 2))) if len(upper[0]) else 0.0


def correlations(
    truth: ObservableTable, generated: ObservableTable, chosen: Sequence[Observable]
) -> Correlations:
    r"""Compare the correlations of two samples.

    Every observable is replaced by its rank in the pooled cumulative distribution, with the same
    map for both samples, so that tails do not dominate. With standardised u and v the error follows
    from the influence function of the coefficient r,

    .. math:: \sigma_r^2 = \frac{\sum w^2 [u v - r (u^2 + v^2)/2]^2}{(\sum w)^2},

    which holds for any distribution, not only for Gaussians.

    Parameters
    ----------
    truth, generated : ObservableTable
    chosen : sequence of Observable
        Events in which one of them is not finite are left out.
    """
    columns = [np.column_stack([t[o.name] for o in chosen]) for t in (truth, generated)]
    finite = [np.isfinite(c).all(axis=1) for c in columns]
    columns = [c[f] for c, f in zip(columns, finite, strict=True)]
    weights = [t.weight[f] for t, f in zip((truth, generated), finite, strict=True)]
    pooled = np.sort(np.concatenate(columns), axis=0)
    found = []
    for x, w in zip(columns, weights, strict=True):
        u = np.empty(x.shape)
        for k in range(x.shape[1]):
            sides = [np.searchsorted(pooled[:, k], x[:, k], side) for side in ("left", "right")]
            u[:, k] = (sides[0] + sides[1]) / (2 * max(len(pooled), 1))
        found.append(_coefficients(u, w))
    (r_truth, v_truth), (r_generated, v_generated) = found
    variance = v_truth + v_generated
    pulls = np.zeros_like(r_truth)
    used = variance > 1e-14
    np.divide(r_generated - r_truth, np.sqrt(variance), out=pulls, where=used)
    return Correlations(tuple(chosen), r_truth, r_generated, pulls)


def _coefficients(u: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(k, k) coefficients and their variances of (n, k) values."""
    total = w.sum()
    u = u - w @ u / total
    width = np.sqrt(w @ u**2 / total)
    u = np.divide(u, width, out=np.zeros_like(u), where=width > 1e-9)
    r = (u.T * w) @ u / total
    # the square of the influence function, summed as products of matrices
    w2, square = w**2, u**2
    a = (square.T * w2) @ square
    b = ((u**3).T * w2) @ u
    fourth = w2 @ square**2
    variance = a - r * (b + b.T) + r**2 / 4 * (fourth[:, None] + fourth[None, :] + 2 * a)
    return r, np.maximum(variance, 0) / total**2


def correlated_pairs(found: Correlations, most: int = 3) -> list[tuple[Observable, Observable]]:
    """Pairs of observables that are most correlated in truth, but not one and the same.

    No observable is in two pairs.
    """
    size = np.abs(np.triu(found.truth, 1))
    size[size > 0.98] = 0
    pairs = []
    for _ in range(most):
        i, j = np.unravel_index(np.argmax(size), size.shape)
        if size[i, j] == 0:
            break
        pairs.append((found.observables[int(i)], found.observables[int(j)]))
        for k in (int(i), int(j)):
            size[k, :] = size[:, k] = 0
    return pairs


@dataclass(frozen=True, eq=False)
class PlaneRatio:
    """Ratio of two samples in a plane of two observables.

    Attributes
    ----------
    observables : pair of Observable
    edges : pair of float arrays
    ratio : (m, m) float array
        Generated over truth; nan in bins with fewer than 25 truth events.
    chi2_per_ndf : float
        Over all bins, small ones merged.
    """

    observables: tuple[Observable, Observable]
    edges: tuple[FloatArray, FloatArray]
    ratio: FloatArray
    chi2_per_ndf: float


def plane_ratio(
    truth: ObservableTable,
    generated: ObservableTable,
    pair: tuple[Observable, Observable],
) -> PlaneRatio:
    """Ratio of two samples, generated over truth, in the plane of two observables."""
    n_bins = int(np.clip(np.sqrt(min(len(truth), len(generated)) / 150), 8, 20))
    edges = tuple(bin_edges([t[o.name] for t in (truth, generated)], o, n_bins) for o in pair)
    tables, counts, cells = [], [], []
    for t in (truth, generated):
        x, y = (t[o.name] for o in pair)
        tables.append(np.histogram2d(x, y, edges, weights=t.weight)[0] / t.weight.sum())
        counts.append(np.histogram2d(x, y, edges)[0])
        i, j = (np.searchsorted(e, v, side="right") for e, v in zip(edges, (x, y), strict=True))
        cells.append((i * (len(edges[1]) + 1) + j).astype(float))
    enough = counts[0] >= 25
    ratio = np.divide(tables[1], tables[0], out=np.full_like(tables[0], np.nan), where=enough)
    borders = np.arange(-0.5, (len(edges[0]) + 1) * (len(edges[1]) + 1))
    test = histogram_chi2(cells[0], cells[1], borders, truth.weight, generated.weight)
    return PlaneRatio(pair, (edges[0], edges[1]), ratio, test.per_ndf)
