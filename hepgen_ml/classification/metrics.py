"""Figures of merit of taggers: accuracy, area under the ROC curve, rejection of background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepgen_ml.events.sample import FloatArray, IntArray

EFFICIENCIES = (0.5, 0.3)
"""Signal efficiencies at which rejections are stated, as the literature does."""


@dataclass(frozen=True)
class Rejection:
    """Background rejection 1/ε_B at a signal efficiency.

    Attributes
    ----------
    efficiency : float
        Of the signal.
    value : float
        1/ε_B; if no background jet passes, the number of background jets as a lower bound.
    error : float
        Statistical (counting) error; infinite if no background jet passes.
    """

    efficiency: float
    value: float
    error: float

    def __str__(self) -> str:
        if math.isinf(self.error):
            return f"> {self.value:.0f}"
        digits = 0 if self.error >= 2 else 1
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


def auc(signal: FloatArray, background: FloatArray) -> float:
    """Probability that a signal jet has a larger score than a background jet; ties count half."""
    return float(_below(signal, background).mean())


def _below(some: FloatArray, others: FloatArray) -> FloatArray:
    """Fraction of other scores below each of some (n,); equal ones count half."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, some, "left") + np.searchsorted(ordered, some, "right")
    return np.asarray(places / (2 * len(others)))


def rejection(signal: FloatArray, background: FloatArray, efficiency: float) -> Rejection:
    """Background rejection at the threshold with this signal efficiency."""
    threshold = np.quantile(signal, 1 - efficiency)
    n, passed = len(background), int((background >= threshold).sum())
    if passed == 0:
        return Rejection(efficiency, float(n), math.inf)
    return Rejection(efficiency, n / passed, n / passed / math.sqrt(passed))


@dataclass(frozen=True)
class Merit:
    """Figures of merit of a tagger for jets of known classes.

    Attributes
    ----------
    n_jets : int
    accuracy, accuracy_error : float
        Accuracy of the most probable class, averaged over classes, as for equal numbers of jets.
    auc, auc_error : float
        Area under the ROC curve for the ratio of two probabilities, averaged over pairs of classes,
        and its statistical error (DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837);
        the error is infinite for a class with one jet.
    background : str
        Background class of the rejections.
    rejections : dict of str to tuple of Rejection
        By signal class, at the efficiencies of `EFFICIENCIES`.
    """

    n_jets: int
    accuracy: float
    accuracy_error: float
    auc: float
    auc_error: float
    background: str
    rejections: dict[str, tuple[Rejection, ...]]

    def plain(self) -> dict[str, Any]:
        """Plain values, None for infinite errors."""
        return {
            "jets": self.n_jets,
            "accuracy": self.accuracy, "accuracy_error": _known(self.accuracy_error),
            "auc": self.auc, "auc_error": _known(self.auc_error), "background": self.background,
            "rejections": {
                name: [
                    {"signal_efficiency": r.efficiency, "value": r.value,
                     "error": _known(r.error)}
                    for r in found
                ]
                for name, found in self.rejections.items()
            },
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Text that the command line prints."""
        of_accuracy, of_auc = (
            f" ± {error:.4f}" if math.isfinite(error) else " (no error: a class has one jet)"
            for error in (self.accuracy_error, self.auc_error)
        )
        rows = [
            f"{self.n_jets:,} jets: accuracy {self.accuracy:.4f}{of_accuracy}, "
            f"AUC {self.auc:.4f}{of_auc}"
        ]
        for name, found in self.rejections.items():
            parts = [f"{r} at ε_S = {r.efficiency:g}" for r in found]
            rows.append(f"  {name} against {self.background}: 1/ε_B {', '.join(parts)}")
        return rows


def _known(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _error_of_sum(parts: list[FloatArray]) -> float:
    """Statistical error of a sum of means, each over independent numbers (n,)."""
    if min(map(len, parts)) < 2:
        return math.inf
    return math.sqrt(sum(float(x.var(ddof=1)) / len(x) for x in parts))


def merit(
    probability: FloatArray, label: IntArray, classes: tuple[str, ...], background: int
) -> Merit:
    """Figures of merit of probabilities.

    Parameters
    ----------
    probability : (n, C) array
    label : (n,) int array
        True classes; there are jets of every class that is judged.
    classes : tuple of C str
    background : int
        Class that the others are separated from.
    """
    present = [c for c in range(len(classes)) if (label == c).any()]
    best = probability.argmax(1)
    right = [(best[label == c] == c) / len(present) for c in present]
    # log ratios: differences of probabilities near one are lost to rounding
    log_p = np.log(np.maximum(probability, 1e-300))

    def scores(signal: int, other: int) -> tuple[FloatArray, FloatArray]:
        ratio = log_p[:, signal] - log_p[:, other]
        return ratio[label == signal], ratio[label == other]

    pairs = [(a, b) for i, a in enumerate(present) for b in present[i + 1 :]]
    # what each jet adds to the area, averaged over pairs, of which it is in some
    placed = {c: np.zeros(int((label == c).sum())) for c in present}
    areas = []
    for a, b in pairs:
        of_a, of_b = scores(a, b)
        above, below = _below(of_a, of_b), 1 - _below(of_b, of_a)
        placed[a] += above / len(pairs)
        placed[b] += below / len(pairs)
        areas.append(float(above.mean()))
    rejections: dict[str, tuple[Rejection, ...]] = {}
    for c in present:
        if c != background and background in present:
            some = scores(c, background)
            rejections[classes[c]] = tuple(rejection(*some, e) for e in EFFICIENCIES)
    mean = float(np.mean(areas)) if areas else math.nan
    return Merit(
        len(label), float(sum(x.mean() for x in right)), _error_of_sum(right), mean,
        _error_of_sum(list(placed.values())) if pairs else math.inf,
        classes[background], rejections,
    )  # fmt: skip
