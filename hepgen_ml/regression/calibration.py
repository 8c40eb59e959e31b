r"""Calibration of uncertainties with held-out events.

The standard deviation that networks state is multiplied by a function of it and of the
prediction m itself,

.. math:: \log\sigma' = a + b \log\sigma + c\, m + d\, m^2 ,

whose coefficients maximise the likelihood of Gaussian residuals of held-out events. At the maximum
the squared pulls average to one, for all events and weighted with each of these functions, so
that small and large amplitudes have pulls of width one alike. The problem is convex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hepgen_ml.events.sample import FloatArray

_LIMIT = 3.0
_STRENGTH = 10.0
"""Weight of the prior of the coefficients, in events."""


@dataclass(frozen=True)
class Calibration:
    """Coefficients (a, b, c, d)."""

    coefficients: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)

    @classmethod
    def of(cls, mean: FloatArray, sigma: FloatArray, truth: FloatArray) -> Calibration:
        """Fit to predictions, their uncertainties and the true numbers of held-out events."""
        x = _columns(mean, sigma)
        log_square = 2 * np.log(np.maximum(np.abs(truth - mean), 1e-9))
        start = np.array(cls().coefficients)
        theta, best = start.copy(), np.inf
        prior = _STRENGTH * np.eye(len(theta))

        def loss(t: FloatArray) -> float:
            h = x @ t
            likelihood = np.sum(0.5 * np.exp(np.minimum(log_square - 2 * h, 60.0)) + h)
            return float(likelihood + 0.5 * (t - start) @ prior @ (t - start))

        best = loss(theta)
        for _ in range(50):
            pull2 = np.exp(np.minimum(log_square - 2 * (x @ theta), 60.0))
            gradient = x.T @ (1 - pull2) + prior @ (theta - start)
            curvature = (x.T * (2 * pull2)) @ x + prior
            step = np.linalg.solve(curvature, gradient)
            size = 1.0
            while size > 1e-6 and not loss(theta - size * step) < best:
                size /= 2
            if size <= 1e-6:
                break
            theta = theta - size * step
            best = loss(theta)
        return cls(tuple(float(t) for t in theta))  # type: ignore[arg-type]

    def __call__(self, mean: FloatArray, sigma: FloatArray) -> FloatArray:
        """Calibrated uncertainties."""
        return np.exp(np.clip(_columns(mean, sigma) @ np.array(self.coefficients), -40.0, 40.0))


def _columns(mean: FloatArray, sigma: FloatArray) -> FloatArray:
    m = np.clip(mean, -_LIMIT, _LIMIT)
    return np.stack([np.ones_like(m), np.log(np.maximum(sigma, 1e-9)), m, m * m], axis=1)


def pull_widths(
    mean: FloatArray, sigma: FloatArray, truth: FloatArray, n_bins: int = 5
) -> tuple[float, list[float]]:
    """Standard deviation about zero of (truth - mean) / sigma, and those in quantiles of truth."""
    pull = (truth - mean) / sigma
    order = np.argsort(truth, kind="stable")
    parts = [p for p in np.array_split(pull[order], n_bins) if len(p)]
    return float(np.sqrt(np.mean(pull**2))), [float(np.sqrt(np.mean(p**2))) for p in parts]
