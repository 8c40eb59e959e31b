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
    scores = np.concatenate([signal, background])
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[inverse]  # mean of the ranks of equal scores
    n, m = len(signal), len(background)
    return float((rank[:n].sum() - n * (n + 1) / 2) / (n * m))


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
    accuracy : float
        Accuracy of the most probable class, averaged over classes, as for equal numbers of jets.
    auc : float
        Area under the ROC curve for the ratio of two probabilities, averaged over pairs of classes.
    background : str
        Background class of the rejections.
    rejections : dict of str to tuple of Rejection
        By signal class, at the efficiencies of `EFFICIENCIES`.
    """

    n_jets: int
    accuracy: float
    auc: float
    background: str
    rejections: dict[str, tuple[Rejection, ...]]

    def plain(self) -> dict[str, Any]:
        """Plain values, None for infinite errors."""
        return {
            "jets": self.n_jets, "accuracy": self.accuracy, "auc": self.auc,
            "background": self.background,
            "rejections": {
                name: [
                    {"signal_efficiency": r.efficiency, "value": r.value,
                     "error": r.error if math.isfinite(r.error) else None}
                    for r in found
                ]
                for name, found in self.rejections.items()
            },
        }  # fmt: skip

    def lines(self) -> list[str]:
        """Text that the command line prints."""
        rows = [f"{self.n_jets:,} jets: accuracy {self.accuracy:.4f}, AUC {self.auc:.4f}"]
        for name, found in self.rejections.items():
            parts = [f"{r} at ε_S = {r.efficiency:g}" for r in found]
            rows.append(f"  {name} against {self.background}: 1/ε_B {', '.join(parts)}")
        return rows


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
    accuracy = float(np.mean([(best[label == c] == c).mean() for c in present]))
    # log ratios: differences of probabilities near one are lost to rounding
    log_p = np.log(np.maximum(probability, 1e-300))

    def scores(signal: int, other: int) -> tuple[FloatArray, FloatArray]:
        ratio = log_p[:, signal] - log_p[:, other]
        return ratio[label == signal], ratio[label == other]

    pairs = [(a, b) for i, a in enumerate(present) for b in present[i + 1 :]]
    areas = [auc(*scores(a, b)) for a, b in pairs]
    rejections: dict[str, tuple[Rejection, ...]] = {}
    for c in present:
        if c != background and background in present:
            some = scores(c, background)
            rejections[classes[c]] = tuple(rejection(*some, e) for e in EFFICIENCIES)
    mean = float(np.mean(areas)) if areas else math.nan
    return Merit(len(label), accuracy, mean, classes[background], rejections)
