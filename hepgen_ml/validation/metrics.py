r"""Tests of one sample against another: histograms and a trained classifier.

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

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events import FloatArray, IntArray
from hepgen_ml.validation.observables import Observable, ObservableTable

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


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve of a classifier between two samples.

    Attributes
    ----------
    value, error : float
        0.5 for the same distribution; statistical error (DeLong).
    n_events : int
        Events of each sample.
    n_trees : int
        In all sets together; early stopping ends at once where nothing is found.
    """

    value: float
    error: float
    n_events: int
    n_trees: int

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


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
        """Add up categories that get the same number in `target`."""
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
    values: Sequence[npt.NDArray[Any]], observable: Observable, n_bins: int = N_BINS
) -> FloatArray:
    """Edges of uniform bins (in the logarithm where the observable asks for it).

    Parameters
    ----------
    values : sequence of arrays
        The samples to be compared, pooled; the range holds 99.8 % of them.
    observable : Observable
    n_bins : int
        Fewer come back if the values do not resolve them.

    Returns
    -------
    (n_bins + 1,) float array
    """
    pooled = np.concatenate(values).astype(float)
    pooled = pooled[np.isfinite(pooled)]
    low, high = np.quantile(pooled, [0.001, 0.999]) if len(pooled) else (0.0, 1.0)
    if observable.limits is not None:
        # natural limits are exact where the distribution reaches them
        span = observable.limits[1] - observable.limits[0]
        low = observable.limits[0] if low - observable.limits[0] < 0.02 * span else low
        high = observable.limits[1] if observable.limits[1] - high < 0.02 * span else high
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-30):
        return np.array([low, np.nextafter(high, np.inf)])
    if observable.log and low > 0:
        return np.geomspace(low, high, n_bins + 1)
    return np.linspace(low, high, n_bins + 1)


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
    """Give each bin its new number; a last one that stays too small joins the one before."""
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
    truth, generated = _equal(truth, generated, n_events)
    results = []
    for o in _shared(truth, generated):
        a, b = truth[o.name], generated[o.name]
        edges = bin_edges([a, b], o, n_bins)
        test = histogram_chi2(a, b, edges, truth.weight, generated.weight)
        # a constant cannot be binned; that both agree on it shows up as no second bin
        if test.ndf > 0:
            results.append(Marginal(o, test))
    return results


def classifier_auc(
    truth: ObservableTable,
    generated: ObservableTable,
    *,
    n_events: int | None = 100_000,
    n_bags: int = 2,
    seed: int = 0,
) -> AUC:
    """Let gradient-boosted trees try to tell two samples apart.

    Equal numbers of both are shuffled and halved. Trees trained on one half are
    judged on the other, then the halves change places; the area is the mean of
    the two. Each half trains a few sets of trees whose scores are added: they
    differ in the tenth held out for early stopping and in the features offered.

    Parameters
    ----------
    truth, generated : ObservableTable
        Compared on the observables that both have. Weights count: signed ones by
        their absolute value in training and as they are in the judgement.
    n_events : int, optional
        At most so many of each.
    n_bags : int
        Sets of trees.
    seed : int

    Raises
    ------
    UsageError
        scikit-learn is not installed.
    SampleError
        Fewer than 200 events of one sample.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as missing:
        raise UsageError(
            "the classifier test needs scikit-learn", remedy="pip install scikit-learn"
        ) from missing
    truth, generated = _equal(truth, generated, n_events, seed)
    n = len(truth)
    if n < 200:
        raise SampleError(f"{n} events are too few for a classifier", remedy="use 200 at least")
    shared = [o.name for o in _shared(truth, generated)]
    x = np.concatenate([np.stack([t[c] for c in shared], axis=1) for t in (truth, generated)])
    is_generated = np.repeat([False, True], n)
    weight = np.concatenate([truth.weight, generated.weight])
    first_half = np.arange(2 * n) % n < n // 2  # `_equal` has shuffled both
    areas, n_trees = [], 0
    for train in (first_half, ~first_half):
        score = np.zeros(int(np.sum(~train)))
        for bag in range(n_bags):
            trees = HistGradientBoostingClassifier(
                learning_rate=0.05,
                max_iter=400,
                max_leaf_nodes=63,
                min_samples_leaf=min(100, n // 20),
                l2_regularization=1.0,
                max_features=0.7,
                early_stopping=True,
                validation_fraction=0.1,
                n_iter_no_change=40,
                random_state=n_bags * seed + bag,
            )
            absolute = None if is_uniform(weight) else np.abs(weight[train])
            trees.fit(x[train], is_generated[train], absolute)
            score += trees.decision_function(x[~train])
            n_trees += int(trees.n_iter_)
        judged, w = is_generated[~train], weight[~train]
        areas.append(weighted_auc(score[~judged], score[judged], w[~judged], w[judged]))
    error = np.sqrt(sum(e**2 for _, e in areas)) / 2
    return AUC(float(np.mean([a for a, _ in areas])), float(error), n, n_trees)


def weighted_auc(
    low: npt.NDArray[Any],
    high: npt.NDArray[Any],
    low_weight: FloatArray | None = None,
    high_weight: FloatArray | None = None,
) -> tuple[float, float]:
    """Area under the ROC curve and its standard error (DeLong et al., Biometrics 44, 837).

    Parameters
    ----------
    low, high : (n,) and (m,) array
        Scores of the two classes; the area is P(low < high) + P(low = high)/2.
    low_weight, high_weight : arrays, optional

    Returns
    -------
    value, error : float
    """
    w = [
        np.ones(len(s)) if given is None else np.asarray(given, dtype=float)
        for s, given in ((low, low_weight), (high, high_weight))
    ]
    placement_high = _fraction_below(high, low, w[0])
    placement_low = 1 - _fraction_below(low, high, w[1])
    value = float(np.sum(w[1] * placement_high) / w[1].sum())
    variance = 0.0
    for weight, placement in ((w[0], placement_low), (w[1], placement_high)):
        variance += float(np.sum((weight * (placement - value)) ** 2) / weight.sum() ** 2)
    return value, float(np.sqrt(variance))


def _fraction_below(x: npt.NDArray[Any], y: npt.NDArray[Any], y_weight: FloatArray) -> FloatArray:
    """Weighted fraction of y below each x, ties counted half."""
    order = np.argsort(y)
    cumulative = np.concatenate([[0.0], np.cumsum(y_weight[order])])
    left, right = (np.searchsorted(y[order], x, side=s) for s in ("left", "right"))
    fraction: FloatArray = (cumulative[left] + cumulative[right]) / (2 * cumulative[-1])
    return fraction


def _shared(a: ObservableTable, b: ObservableTable) -> list[Observable]:
    names = {o.name for o in b.observables}
    return [o for o in a.observables if o.name in names]


def _equal(
    a: ObservableTable, b: ObservableTable, most: int | None, seed: int = 0
) -> tuple[ObservableTable, ObservableTable]:
    n = min(len(a), len(b), most or len(a))
    rng = np.random.default_rng(seed)  # files are not always shuffled
    return a.take(rng.permutation(len(a))[:n]), b.take(rng.permutation(len(b))[:n])
