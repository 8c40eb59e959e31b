"""A trained classifier as a test of one sample against another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.metrics import equal_numbers, is_uniform, shared_observables
from hepgen_ml.analysis.observables import ObservableTable
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import FloatArray


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve of a classifier between two samples.

    Attributes
    ----------
    value, error : float
        0.5 for the same distribution; statistical error (DeLong), an upper bound.
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


@dataclass(frozen=True, eq=False)
class Judgement:
    """Result of the trees; each event is classified by trees that were trained without it.

    Attributes
    ----------
    auc : AUC
    roc : (2, 201) float array
        Fractions of truth and of generated events above a threshold, the first in equal steps;
        the mean of the two halves.
    log_weight : pair of (n,) float arrays
        For truth and generated events, ln w with w = D/(1 - D) and D the probability of truth: an
        estimate of the ratio of densities, truth over generated (Das et al.,
        arXiv:2305.16774). Tails on the left are events that truth lacks, on the right those
        that the generator lacks.
    weight : pair of (n,) float arrays
        Weights of these events.
    """

    auc: AUC
    roc: FloatArray
    log_weight: tuple[FloatArray, FloatArray]
    weight: tuple[FloatArray, FloatArray]


def classifier_auc(
    truth: ObservableTable,
    generated: ObservableTable,
    *,
    n_events: int | None = 100_000,
    n_bags: int = 2,
    seed: int = 0,
) -> AUC:
    """Area under the ROC curve of `judge`."""
    return judge(truth, generated, n_events=n_events, n_bags=n_bags, seed=seed).auc


def judge(
    truth: ObservableTable,
    generated: ObservableTable,
    *,
    n_events: int | None = 100_000,
    n_bags: int = 2,
    seed: int = 0,
) -> Judgement:
    """Train gradient-boosted trees to separate two samples.

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
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as missing:
        raise UsageError(
            "the classifier test needs scikit-learn",
            remedy="pip install 'hepgen-ml[validation]'",
        ) from missing
    truth, generated = equal_numbers(truth, generated, n_events, seed)
    n = len(truth)
    if n < 200:
        raise SampleError(f"{n} events are too few for a classifier", remedy="use 200 at least")
    shared = [o.name for o in shared_observables(truth, generated)]
    x = np.concatenate([np.stack([t[c] for c in shared], axis=1) for t in (truth, generated)])
    is_generated = np.repeat([False, True], n)
    weight = np.concatenate([truth.weight, generated.weight])
    first_half = np.arange(2 * n) % n < n // 2  # `equal_numbers` has shuffled both

    def scores(train: npt.NDArray[np.bool_]) -> tuple[FloatArray, int]:
        score, n_trees = np.zeros(int(np.sum(~train))), 0
        absolute = None if is_uniform(weight) else np.abs(weight[train])
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
            with threadpool_limits(limits=1, user_api="openmp"):
                trees.fit(x[train], is_generated[train], absolute)
                score += trees.decision_function(x[~train])
            n_trees += int(trees.n_iter_)
        return score / n_bags, n_trees

    # one thread for each half: on a busy machine the trees' own threads wait for each other
    with ThreadPoolExecutor(2) as pool, quiet_threads():
        halves = list(pool.map(scores, (first_half, ~first_half)))
    areas, curves, log_odds = [], [], np.empty(2 * n)
    for train, (score, _) in zip((first_half, ~first_half), halves, strict=True):
        high, w = is_generated[~train], weight[~train]
        sides = score[~high], score[high], w[~high], w[high]
        areas.append(weighted_auc(*sides))
        curves.append(roc_curve(*sides))
        log_odds[~train] = score
    # what chance made alike in the two halves is found twice: for samples of the same
    # distribution the two areas are correlated (0.7 measured), so errors are not independent
    value, error = np.mean(areas, axis=0).tolist()
    auc = AUC(value, error, n, halves[0][1] + halves[1][1])
    return Judgement(
        auc, np.mean(curves, axis=0), (-log_odds[:n], -log_odds[n:]), (weight[:n], weight[n:])
    )


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Without scikit-learn's warnings about its threads, in which it empties the list of filters.

    Those of other threads are then shown whatever the filters were.
    """
    noise = "`sklearn.utils.parallel.delayed` should be"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=noise)
        show = warnings.showwarning

        def show_others(message: Warning | str, *about: Any, **more: Any) -> None:
            if not str(message).startswith(noise):
                show(message, *about, **more)

        warnings.showwarning = show_others
        yield


def roc_curve(
    low: FloatArray, high: FloatArray, low_weight: FloatArray, high_weight: FloatArray
) -> FloatArray:
    """Fractions of both classes above each threshold, the first in 200 equal steps.

    Parameters
    ----------
    low, high : (n,) and (m,) array
        Scores of the two classes.
    low_weight, high_weight : arrays

    Returns
    -------
    (2, 201) float array
    """
    falling = np.argsort(np.concatenate([-low, -high]), kind="stable")
    scores = np.concatenate([-low, -high])[falling]
    steps = []
    for parts in ((low_weight, 0 * high_weight), (0 * low_weight, high_weight)):
        sums = np.cumsum(np.concatenate(parts)[falling])
        steps.append(np.concatenate([[0.0], sums / sums[-1]]))
    ends = np.concatenate([[True], scores[1:] != scores[:-1], [True]])  # ties are one step
    x = np.linspace(0, 1, 201)
    return np.stack([x, np.interp(x, steps[0][ends], steps[1][ends])])


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
