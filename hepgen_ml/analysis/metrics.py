r"""Statistics that compare one sample with another, and the test of histograms.

All tests are symmetric, count the statistical errors of both samples, and have
a known expectation for two samples of the same distribution, so that a floor
need not be guessed: it is 1 for chi2/ndf, 0.5 for the AUC, and unit width for
the pulls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.observables import Observable, ObservableTable
from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import FloatArray, IntArray

MIN_ENTRIES = 25
"""Bins and categories with fewer events a sample, on average of the two, are merged."""

N_BINS = 50


@dataclass(frozen=True)
class ChiSquare:
    """Result of a chi-squared test.

    Attributes
    ----------
    chi2 : float
    ndf : int
    """

    chi2: float
    ndf: int

    @property
    def per_ndf(self) -> float:
        """chi2/ndf; nan where nothing could be compared."""
        return self.chi2 / self.ndf if self.ndf else float("nan")

    @property
    def p_value(self) -> float:
        """Probability of a larger chi2 for samples of the same distribution."""
        return survival(self.chi2, self.ndf)


@dataclass(frozen=True)
class Marginal:
    """Chi-squared test of one observable."""

    observable: Observable
    test: ChiSquare


def survival(chi2: float, ndf: int) -> float:
    """Probability that a chi-squared variable with `ndf` degrees of freedom exceeds `chi2`."""
    import torch

    if ndf < 1:
        return float("nan")
    half = torch.tensor([ndf, chi2], dtype=torch.float64) / 2
    return float(torch.special.gammaincc(half[0], half[1]))


@dataclass(frozen=True)
class Counts:
    """Weighted events by category.

    Attributes
    ----------
    table : (k, 3) float array
        Number of events, sum of weights and of squared weights of each category.
    uniform : bool
        All events of the sample have the same weight.
    """

    table: FloatArray
    uniform: bool

    @classmethod
    def of(cls, category: IntArray, weight: FloatArray, k: int) -> Counts:
        """Count (n,) category numbers 0 ... k - 1 with their weights."""
        table = np.zeros((k, 3))
        for power in range(3):
            table[:, power] = np.bincount(category, weight**power, minlength=k)
        return cls(table, is_uniform(weight))

    def merged(self, target: IntArray) -> Counts:
        """Add categories that have the same number in `target`."""
        table = np.zeros((int(target.max()) + 1, 3))
        np.add.at(table, target, self.table)
        return Counts(table, self.uniform)


def is_uniform(weight: FloatArray) -> bool:
    """Whether all weights are the same."""
    return len(weight) > 0 and bool(np.ptp(weight) <= 1e-9 * np.abs(weight).max())


def homogeneity(a: Counts, b: Counts) -> tuple[FloatArray, FloatArray, FloatArray, ChiSquare]:
    r"""Test whether two lists of weighted counts are drawn from the same fractions.

    With fractions :math:`p_a = w_a/W_a`, pooled fraction :math:`\bar p` and
    :math:`s_a` the expected squared weight of category i per event,

    .. math:: \chi^2 = \sum_i \frac{(p_{a,i} - p_{b,i})^2}{s_{a,i}/N_a + s_{b,i}/N_b},
       \qquad ndf = k - 1,

    where :math:`s = \bar p` for equal weights, which makes it Pearson's test of
    homogeneity, and :math:`s_a = N_a \sum w^2/W_a^2` for others. The pull of one
    category has the variance :math:`s_i (1 - 2 \bar p_i) + \bar p_i^2 \sum_j s_j`
    over N for each sample, which is the binomial :math:`\bar p (1 - \bar p)/N` for
    equal weights.

    Returns
    -------
    p_a, p_b, pulls : (k,) float array
    test : ChiSquare
    """
    total_a, total_b = a.table.sum(axis=0), b.table.sum(axis=0)
    if min(total_a[1], total_b[1]) <= 0:
        raise SampleError(
            "the weights of the events do not have a positive sum", remedy="compare more events"
        )
    p_a, p_b = a.table[:, 1] / total_a[1], b.table[:, 1] / total_b[1]
    # effective numbers of events weigh the two estimates of the common fraction
    size_a, size_b = (t[1] ** 2 / t[2] for t in (total_a, total_b))
    pooled = (size_a * p_a + size_b * p_b) / (size_a + size_b)
    variance, binomial = np.zeros_like(pooled), np.zeros_like(pooled)
    for c, (n, weight, _) in ((a, total_a), (b, total_b)):
        s = pooled if c.uniform else n * c.table[:, 2] / weight**2
        variance += s / n
        binomial += (s * (1 - 2 * pooled) + pooled**2 * s.sum()) / n
    difference = p_b - p_a
    used = variance > 0
    chi2 = float(np.sum(difference[used] ** 2 / variance[used]))
    pulls = np.divide(
        difference, np.sqrt(np.maximum(binomial, 0)), out=np.zeros_like(pooled), where=binomial > 0
    )
    return p_a, p_b, pulls, ChiSquare(chi2, max(int(used.sum()) - 1, 0))


def bin_edges(
    values: Sequence[npt.NDArray[Any]],
    observable: Observable,
    n_bins: int = N_BINS,
    *,
    uniform: bool = False,
) -> FloatArray:
    """Edges of bins that resolve both peaks and tails.

    Equal steps of the mean of two cumulative distributions: that of the values
    and the uniform one (in the logarithm where the observable asks for it).

    Parameters
    ----------
    values : sequence of arrays
        The samples to be compared, pooled; the range holds 99.8 % of them.
    observable : Observable
    n_bins : int
    uniform : bool
        Uniform bins, for figures; a narrow peak then cuts the tails off the range.

    Returns
    -------
    (n_bins + 1,) float array
        A single bin around a constant.
    """
    pooled = np.concatenate(values).astype(float)
    pooled = np.sort(pooled[np.isfinite(pooled)])
    if not len(pooled):
        return np.array([0.0, 1.0])
    low, lower, middle, upper, high = np.quantile(pooled, [0.001, 0.25, 0.5, 0.75, 0.999])
    if observable.limits is not None:
        # natural limits are exact where the distribution reaches them
        first, last = observable.limits
        near = 0.02 * (last - first)
        low, high = (first if low < first + near else low), (last if high > last - near else high)
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):
        margin = max(1e-5 * abs(middle), 1e-12)
        return np.array([middle - margin, middle + margin])
    # half of the values may be the same, such as energies of beams that rarely radiate
    core = upper - lower if upper - lower > 1e-9 * max(abs(middle), high - low) else high - low
    if uniform and high - low > 16 * core and not observable.log:
        low, high = max(low, middle - 6 * core), min(high, middle + 6 * core)
    scale = np.geomspace if observable.log and low > 0 else np.linspace
    if uniform:
        return scale(low, high, n_bins + 1)
    fine = scale(low, high, 4000)
    cumulative = np.searchsorted(pooled, fine) / len(pooled)
    mixed = cumulative - cumulative[0]
    mixed = mixed / max(mixed[-1], 1e-12) + np.linspace(0, 1, len(fine))
    return np.interp(np.linspace(0, 2, n_bins + 1), mixed, fine)


def histogram_chi2(
    truth: npt.NDArray[Any],
    generated: npt.NDArray[Any],
    edges: FloatArray,
    truth_weight: FloatArray | None = None,
    generated_weight: FloatArray | None = None,
) -> ChiSquare:
    """Chi-squared test of the shapes of two histograms, see `homogeneity`.

    Underflow, overflow and non-finite values are bins of their own; neighbouring
    bins are merged until both samples together have `MIN_ENTRIES` x 2 entries.

    Parameters
    ----------
    truth, generated : (n,) and (m,) array
    edges : (k + 1,) float array
    truth_weight, generated_weight : arrays, optional
        1 if left out.
    """
    k = len(edges) + 2
    counts = []
    for values, weight in ((truth, truth_weight), (generated, generated_weight)):
        number = np.searchsorted(edges, values, side="right").astype(np.int64)
        number[values == edges[-1]] -= 1
        number[~np.isfinite(values)] = k - 1
        counts.append(Counts.of(number, np.ones(len(values)) if weight is None else weight, k))
    entries = counts[0].table[:, 0] + counts[1].table[:, 0]
    target = _merge_neighbours(entries, 2 * MIN_ENTRIES)
    return homogeneity(counts[0].merged(target), counts[1].merged(target))[3]


def _merge_neighbours(entries: FloatArray, least: int) -> IntArray:
    """Return the new number of each bin; a last bin that is too small joins the one before."""
    target = np.zeros(len(entries), dtype=np.int64)
    number, held = 0, 0.0
    for i, n in enumerate(entries):
        target[i] = number
        held += n
        if held >= least:
            number, held = number + 1, 0.0
    if held < least and number > 0:
        target[target == number] = number - 1
    return target


def marginals(
    truth: ObservableTable,
    generated: ObservableTable,
    *,
    n_events: int | None = 50_000,
    n_bins: int = N_BINS,
) -> list[Marginal]:
    """Chi-squared test of every observable that two tables share.

    Parameters
    ----------
    truth, generated : ObservableTable
        The same number of events is used of both, drawn at random.
    n_events : int, optional
        At most so many of each.
    n_bins : int
        Before merging.

    Returns
    -------
    list of Marginal
        Without constant observables.
    """
    truth, generated = equal_numbers(truth, generated, n_events)
    results = []
    for o in shared_observables(truth, generated):
        a, b = truth[o.name], generated[o.name]
        edges = bin_edges([a, b], o, n_bins)
        test = histogram_chi2(a, b, edges, truth.weight, generated.weight)
        # a constant cannot be binned; that both agree on it shows up as no second bin
        if test.ndf > 0:
            results.append(Marginal(o, test))
    return results


def shared_observables(a: ObservableTable, b: ObservableTable) -> list[Observable]:
    """Observables that both tables have, in the order of the first."""
    names = {o.name for o in b.observables}
    return [o for o in a.observables if o.name in names]


def equal_numbers(
    a: ObservableTable, b: ObservableTable, most: int | None, seed: int = 0
) -> tuple[ObservableTable, ObservableTable]:
    """Draw the same number of events of both at random, at most `most`."""
    n = min(len(a), len(b), most or len(a))
    rng = np.random.default_rng(seed)  # files are not always shuffled
    return a.take(rng.permutation(len(a))[:n]), b.take(rng.permutation(len(b))[:n])
