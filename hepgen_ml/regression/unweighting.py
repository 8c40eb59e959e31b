r"""Unweighting in two stages: accept by a surrogate, correct by the exact weight (2109.11964).

A candidate with surrogate weight s is accepted with probability :math:`s / s_{max}`; only then is
its exact weight w computed, and it is accepted again with probability :math:`x / x_{max}`, where
:math:`x = w / s`. What is left beyond either maximum stays as a weight, so that the events have
exactly the distribution of w, however wrong the surrogate is; a bad one costs efficiency.
A surrogate that is zero or negative somewhere counts with its size, and a small one in its place
where that is less, because its exact weight need not be zero there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import FloatArray, IntArray
from hepgen_ml.events.weights import effective_size, unweighting_limit

_LEAST = 1e-3
"""Smallest size of a surrogate that is not positive everywhere, over its mean size."""

LEVELS = (0.5, 0.9, 0.99, 0.999)
"""Quantiles of x that are reported."""


@dataclass(frozen=True)
class Unweighted:
    """Events that both stages have accepted.

    Attributes
    ----------
    index : (m,) int array
        Numbers of the candidates.
    weight : (m,) array
        Their remaining weights, of mean near one; negative for negative exact weights.
    exact : (k,) array
        Exact weights of the k candidates that the first stage has accepted.
    first, second : float
        Efficiencies of the first stage, and of the second stage for the accepted candidates.
    effective : float
        Effective sample size (sum w)^2 / sum w^2 over the number of events.
    quantiles : tuple of float
        Of x = |w| / s over its mean, at `LEVELS`.
    largest : float
        Largest x over its mean.
    mean : float
        Mean exact weight of all candidates, the integral over the volume that they fill.
    mean_error : float
        Its statistical error.
    """

    index: IntArray
    weight: FloatArray
    exact: FloatArray
    first: float
    second: float
    effective: float
    quantiles: tuple[float, ...]
    largest: float
    mean: float
    mean_error: float

    def gain(self, exact_time: float, surrogate_time: float, efficiency: float) -> float:
        """Time per effective event with exact weights alone over that with the surrogate.

        Parameters
        ----------
        exact_time, surrogate_time : float
            Times for one candidate, in the same unit, without the time to generate it.
        efficiency : float
            Of unweighting with exact weights alone, in effective events.
        """
        events = self.first * self.second * self.effective
        if not events:
            return 0.0
        return (exact_time / efficiency) / (
            (surrogate_time + self.first * exact_time) / events
        )


def unweight_twice(
    surrogate: FloatArray,
    exact: Callable[[IntArray], FloatArray],
    *,
    seed: int = 0,
    loss: float = 1e-3,
) -> Unweighted:
    """Unweight with a surrogate, so that the exact weight is computed for few candidates.

    Parameters
    ----------
    surrogate : (n,) array
        Weights of all candidates by a surrogate: a predicted amplitude times the phase-space
        weight; their sizes count, of amplitudes of either sign or outside of cuts.
    exact : callable
        Gives the exact weights (k,) of some candidates, by their numbers (k,).
    seed : int
    loss : float
        Fraction of the weight that may lie above either maximum, in events that keep a weight.

    Raises
    ------
    SampleError
        A weight is not finite, or all of the surrogate or all exact ones are zero.
    """
    surrogate = _proposal(np.asarray(surrogate, dtype=np.float64))
    rng = np.random.default_rng(seed)
    s_max = unweighting_limit(surrogate, loss)
    asked = np.flatnonzero(rng.random(len(surrogate)) * s_max < surrogate)
    weight = np.asarray(exact(asked), dtype=np.float64)
    if weight.shape != asked.shape or not np.isfinite(weight).all() or not weight.any():
        raise SampleError(
            "the exact weights are not one finite number for each candidate, or all zero",
            remedy="check the function that gives them",
        )
    above = np.maximum(surrogate[asked] / s_max, 1.0)
    x = weight / surrogate[asked]
    # exact weights count with the weight that the first stage leaves
    left = np.abs(x) * above
    x_max = unweighting_limit(left, loss)
    kept = np.flatnonzero(rng.random(len(asked)) * x_max < left)
    final = np.sign(x[kept]) * np.maximum(left[kept] / x_max, 1.0)
    terms = x * above * s_max
    n, size = len(surrogate), float(np.abs(x).mean())
    mean = float(terms.sum() / n)
    return Unweighted(
        index=asked[kept],
        weight=final,
        exact=weight,
        first=len(asked) / n,
        second=len(kept) / len(asked),
        effective=effective_size(final) / len(kept) if len(kept) else 0.0,
        quantiles=tuple(float(q) for q in np.quantile(np.abs(x) / size, LEVELS)),
        largest=float(np.abs(x).max() / size),
        mean=mean,
        mean_error=float(np.sqrt(max(np.sum(terms**2) - n * mean**2, 0.0)) / n),
    )


def _proposal(surrogate: FloatArray) -> FloatArray:
    """Positive weights (n,) for the first stage, from those of a surrogate."""
    bad = ~np.isfinite(surrogate)
    if bad.any() or not surrogate.any():
        raise SampleError(
            f"{int(bad.sum())} surrogate weights of {len(surrogate)} are not finite, or all are "
            "zero",
            remedy="check the predictions, or learn the logarithm of the target",
        )
    if (surrogate > 0).all():
        return surrogate
    size = np.abs(surrogate)
    return np.asarray(np.maximum(size, _LEAST * size.mean()))
