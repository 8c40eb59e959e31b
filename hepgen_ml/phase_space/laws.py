r"""Masses and widths as functions of the conditions of events.

.. math:: f(c) = \exp\Big(\sum_k a_k\, u(c)^{p_k} + r(c)\Big)

is a polynomial in the logarithm, of conditions scaled to about [-1, 1] (those above zero in
their logarithm), plus the residuals at the points of a scan, interpolated between them. A mass that
is proportional to a condition remains exactly proportional at any value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.sample import FloatArray

Kind = Literal["linear", "log", "category"]

_LARGEST_DEGREE = 3
_APART = 1e3
"""Distance of points that differ in a category, in half ranges of the other conditions."""

_LOG_RANGE = (-200.0, 200.0)
"""Logarithms of functions, so that none overflows far from the conditions that were seen."""


@dataclass(frozen=True)
class Law:
    """A positive function of conditions (m, K) -> (m,).

    Attributes
    ----------
    kinds : tuple of str
        Transformation of each condition: linear, logarithm, or category.
    center, scale : tuple of float
        Of each condition, or of its logarithm.
    powers : tuple of tuple of int
        Exponents of the conditions in each term.
    coefficients : tuple of float
        Of the terms.
    nodes : tuple of tuple of float
        Points of a scan, in scaled conditions.
    residuals : tuple of float
        Logarithm of the function over the exponential of the polynomial there.
    """

    kinds: tuple[Kind, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    powers: tuple[tuple[int, ...], ...]
    coefficients: tuple[float, ...]
    nodes: tuple[tuple[float, ...], ...] = ()
    residuals: tuple[float, ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        """The function at conditions (m, K), in their precision."""
        u = self._scaled(values)
        total = u.new_zeros(len(u))
        for power, coefficient in zip(self.powers, self.coefficients, strict=True):
            term = torch.full_like(total, coefficient)
            for k, p in enumerate(power):
                if p:
                    term = term * u[:, k] ** p
            total = total + term
        if self.nodes:
            total = total + self._residual(u)
        return torch.exp(total.clamp(*_LOG_RANGE))

    def _scaled(self, values: Tensor) -> Tensor:
        columns = []
        for k, kind in enumerate(self.kinds):
            value = values[:, k]
            if kind == "log":
                value = torch.log(value.clamp_min(1e-300))
            columns.append((value - self.center[k]) / self.scale[k])
        return torch.stack(columns, dim=-1)

    def _residual(self, u: Tensor) -> Tensor:
        nodes, residuals = u.new_tensor(self.nodes), u.new_tensor(self.residuals)
        if self.kinds in (("linear",), ("log",)):
            order = torch.argsort(nodes[:, 0])
            return _interpolated(u[:, 0].contiguous(), nodes[order, 0], residuals[order])
        parts = [self._by_distance(part, nodes, residuals) for part in u.split(4096)]
        return torch.cat(parts) if parts else u.new_zeros(0)

    def _by_distance(self, u: Tensor, nodes: Tensor, residuals: Tensor) -> Tensor:
        """Mean of the residuals with weights of the inverse fourth power of the distance."""
        difference = u.unsqueeze(1) - nodes
        for k, kind in enumerate(self.kinds):
            if kind == "category":
                difference[..., k] = _APART * (difference[..., k].abs() > 0.25)
        square = (difference**2).sum(-1)
        weight = 1 / (square**2 + 1e-24)
        return (weight * residuals).sum(-1) / weight.sum(-1)

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = {
            "kinds": list(self.kinds), "center": list(self.center), "scale": list(self.scale),
            "powers": [list(p) for p in self.powers], "coefficients": list(self.coefficients),
        }  # fmt: skip
        if self.nodes:
            found |= {"nodes": [list(n) for n in self.nodes], "residuals": list(self.residuals)}
        return found

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Law:
        """Inverse of `to_config`."""
        return cls(
            tuple(config["kinds"]),
            tuple(float(v) for v in config["center"]),
            tuple(float(v) for v in config["scale"]),
            tuple(tuple(int(p) for p in row) for row in config["powers"]),
            tuple(float(v) for v in config["coefficients"]),
            tuple(tuple(float(v) for v in row) for row in config.get("nodes", ())),
            tuple(float(v) for v in config.get("residuals", ())),
        )


def _interpolated(u: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Linear between nodes, constant beyond them."""
    if len(nodes) == 1:
        return values.expand(len(u))
    right = torch.searchsorted(nodes, u).clamp(1, len(nodes) - 1)
    low, high = nodes[right - 1], nodes[right]
    part = ((u - low) / (high - low)).clamp(0.0, 1.0)
    return values[right - 1] * (1 - part) + values[right] * part


def proportional(kinds: Sequence[Kind], k: int, factor: float) -> Law:
    """The law factor times condition k."""
    n = len(kinds)
    zero, one = (0,) * n, tuple(int(i == k) for i in range(n))
    used: list[Kind] = ["log" if i == k else kind for i, kind in enumerate(kinds)]
    return Law(tuple(used), (0.0,) * n, (1.0,) * n, (zero, one), (math.log(factor), 1.0))


def constant(kinds: Sequence[Kind], value: float) -> Law:
    """The law of one value."""
    n = len(kinds)
    return Law(tuple(kinds), (0.0,) * n, (1.0,) * n, ((0,) * n,), (math.log(value),))


def fit_law(
    values: FloatArray, target: FloatArray, error: FloatArray, kinds: Sequence[Kind]
) -> Law:
    """The law of values at some points.

    Parameters
    ----------
    values : (N, K) array
        Conditions, all different.
    target, error : (N,) arrays
        Values there, above zero, and their relative errors.
    kinds : sequence of str

    Returns
    -------
    Law
        Law of the lowest degree that describes the points; residuals of the highest degree are
        kept.
    """
    for k, kind in enumerate(kinds):
        ratio = target / values[:, k] if kind != "category" and (values[:, k] > 0).all() else None
        if ratio is not None and np.ptp(values[:, k]) > 0:
            mean = float(np.exp(np.average(np.log(ratio), weights=error**-2.0)))
            if (np.abs(np.log(ratio / mean)) < 3 * error).all():
                return proportional(kinds, k, 1.0 if abs(math.log(mean)) < error.min() else mean)
    free = [k for k, kind in enumerate(kinds) if kind != "category"]
    center, scale = np.zeros(len(kinds)), np.ones(len(kinds))
    u = values.copy()
    for k in free:
        u[:, k] = np.log(values[:, k]) if kinds[k] == "log" else values[:, k]
        center[k], scale[k] = (u[:, k].max() + u[:, k].min()) / 2, np.ptp(u[:, k]) / 2 or 1.0
        u[:, k] = (u[:, k] - center[k]) / scale[k]
    log_target, weight = np.log(target), 1 / error
    for degree in range(_LARGEST_DEGREE + 1):
        powers = [
            p for p in product(range(degree + 1), repeat=len(kinds))
            if sum(p) <= degree and all(not n or k in free for k, n in enumerate(p))
        ]  # fmt: skip
        if degree and len(powers) >= len(values):
            break
        terms = np.stack([np.prod(u ** np.array(p), axis=1) for p in powers], axis=1)
        found, *_ = np.linalg.lstsq(terms * weight[:, None], log_target * weight, rcond=None)
        residual, used = log_target - terms @ found, powers
        if (np.abs(residual) < 3 * error).all():
            break
    exact = bool((np.abs(residual) < 3 * error).all())
    return Law(
        tuple(kinds), tuple(center.tolist()), tuple(scale.tolist()), tuple(used),
        tuple(found.tolist()),
        () if exact else tuple(map(tuple, u.tolist())),
        () if exact else tuple(residual.tolist()),
    )  # fmt: skip
