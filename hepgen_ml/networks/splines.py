"""Monotonic rational-quadratic splines (Durkan et al., arXiv:1906.04032) on lines and circles."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_SMALLEST_BIN, _SMALLEST_SLOPE = 1e-3, 1e-3
"""Smallest width or height of a bin relative to the whole, and slope: inverses stay accurate."""


class Knots(NamedTuple):
    """A spline: knots (..., K + 1), their images, and the slopes there.

    Beyond the first and last knot it continues linearly with the slope there.
    """

    x: Tensor
    y: Tensor
    slope: Tensor


def n_parameters(bins: int) -> int:
    """Number of parameters of a spline of `knots_of`."""
    return 3 * bins


def knots_of(raw: Tensor, bound: float, periodic: bool) -> Knots:
    """Spline from [-bound, bound] onto itself; zeros give the identity.

    Parameters
    ----------
    raw : (..., 3 K) tensor
        Logits of widths and heights, and what slopes grow with.
    bound : float
    periodic : bool
        Slopes at both ends are the same; else they are one, and so is the map beyond them.
    """
    bins = raw.shape[-1] // 3
    widths, heights, slopes = raw.split(bins, -1)
    x, y = (_places(part, bound) for part in (widths, heights))
    # one where the parameter is zero
    slope = _SMALLEST_SLOPE + torch.log1p(torch.exp(slopes + _ONE))
    if periodic:
        slope = torch.cat([slope, slope[..., :1]], -1)
    else:
        one = torch.ones_like(slope[..., :1])
        slope = torch.cat([one, slope[..., 1:], one], -1)
    return Knots(x, y, slope)


_ONE = math.log(math.expm1(1.0 - _SMALLEST_SLOPE))


def _places(logits: Tensor, bound: float) -> Tensor:
    """Knots (..., K + 1) with distances in proportion to the exponentials of logits (..., K)."""
    bins = logits.shape[-1]
    part = torch.exp(logits - logits.amax(-1, keepdim=True))
    part = part / part.sum(-1, keepdim=True)
    part = _SMALLEST_BIN + (1 - _SMALLEST_BIN * bins) * part
    inner = 2 * bound * part[..., :-1].cumsum(-1) - bound
    ends = torch.full_like(logits[..., :1], bound)
    return torch.cat([-ends, inner, ends], -1)


def _bin(value: Tensor, places: Tensor, knots: Knots) -> tuple[Tensor, ...]:
    """Ends of the bins of values (...): x, y, width, height, and both slopes."""
    k = (value.unsqueeze(-1) >= places[..., 1:-1]).sum(-1, keepdim=True)
    x0, y0, d0 = (t.gather(-1, k).squeeze(-1) for t in knots)
    x1, y1, d1 = (t.gather(-1, k + 1).squeeze(-1) for t in knots)
    return x0, y0, x1 - x0, y1 - y0, d0, d1


def forward(value: Tensor, knots: Knots) -> tuple[Tensor, Tensor]:
    """Values (...) of the spline, and the logarithms of its slope there."""
    inside = value.clamp(knots.x[..., 0], knots.x[..., -1])
    x0, y0, width, height, d0, d1 = _bin(inside, knots.x, knots)
    mean = height / width
    t = (inside - x0) / width
    between = t * (1 - t)
    bottom = mean + (d0 + d1 - 2 * mean) * between
    y = y0 + height * (mean * t * t + d0 * between) / bottom
    top = d1 * t * t + 2 * mean * between + d0 * (1 - t) ** 2
    log_slope = torch.log(top) + 2 * torch.log(mean / bottom)
    # beyond the ends a straight line, with the slope of the end
    end = torch.where(value < inside, knots.slope[..., 0], knots.slope[..., -1])
    return y + end * (value - inside), log_slope


def inverse(value: Tensor, knots: Knots) -> Tensor:
    """Arguments at which the spline has these values (...)."""
    inside = value.clamp(knots.y[..., 0], knots.y[..., -1])
    x0, y0, width, height, d0, d1 = _bin(inside, knots.y, knots)
    mean = height / width
    rise = inside - y0
    bend = rise * (d0 + d1 - 2 * mean)
    a, b, c = height * (mean - d0) + bend, height * d0 - bend, -mean * rise
    root = torch.sqrt((b * b - 4 * a * c).clamp_min(0.0))
    t = (2 * c / (-b - root)).clamp(0.0, 1.0)
    end = torch.where(value < inside, knots.slope[..., 0], knots.slope[..., -1])
    return x0 + t * width + (value - inside) / end


def through(x: Tensor, y: Tensor, periodic: bool = False) -> Knots:
    """Spline through points (..., K + 1) that rise in both coordinates.

    Slopes are the harmonic means of those of the bins beside, weighted as Fritsch and Butland do,
    so that it overshoots nowhere.
    """
    width, height = x.diff(dim=-1), y.diff(dim=-1)
    secant = height / width
    if periodic:
        width = torch.cat([width[..., -1:], width, width[..., :1]], -1)
        secant = torch.cat([secant[..., -1:], secant, secant[..., :1]], -1)
    left, right = width[..., :-1], width[..., 1:]
    total = 3 * (left + right)
    slope = total / (
        (2 * right + left) / secant[..., :-1] + (right + 2 * left) / secant[..., 1:]
    )
    if not periodic:
        slope = torch.cat([secant[..., :1], slope, secant[..., -1:]], -1)
    return Knots(x, y, slope)
