"""Rational-quadratic splines: inverses, slopes, ends and circles."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.networks.splines import Knots, forward, inverse, knots_of, n_parameters, through


def some_knots(periodic: bool, n: int = 400) -> Knots:
    torch.manual_seed(0)
    raw = 2 * torch.randn(n, n_parameters(8), dtype=torch.float64)
    return knots_of(raw, math.pi, periodic)


@pytest.mark.parametrize("periodic", [False, True])
def test_inverse(periodic: bool) -> None:
    knots = some_knots(periodic)
    x = torch.linspace(-5, 5, 400, dtype=torch.float64)
    y, _ = forward(x, knots)
    torch.testing.assert_close(inverse(y, knots), x, rtol=1e-9, atol=1e-9)


def test_slope_is_the_derivative() -> None:
    x = torch.linspace(-3.9, 3.9, 400, dtype=torch.float64).requires_grad_()
    y, log_slope = forward(x, some_knots(False))
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.exp(), slope)


def test_zeros_are_the_identity() -> None:
    x = torch.linspace(-9, 9, 50)
    for periodic in (False, True):
        y, log_slope = forward(x, knots_of(torch.zeros(50, n_parameters(5)), 4.0, periodic))
        torch.testing.assert_close(y, x, atol=1e-5, rtol=0)
        assert log_slope.abs().max() < 1e-5


def test_circles_have_one_slope_at_their_seam() -> None:
    knots = some_knots(True)
    low, high = (forward(torch.full((400,), v, dtype=torch.float64), knots) for v in
                 (-math.pi, math.pi))  # fmt: skip
    torch.testing.assert_close(low[1], high[1])
    torch.testing.assert_close(high[0] - low[0], torch.full((400,), 2 * math.pi).double())


@pytest.mark.parametrize("periodic", [False, True])
def test_through_points(periodic: bool) -> None:
    x = torch.tensor([-3.0, -1.0, -0.9, 0.5, 3.0], dtype=torch.float64)
    y = torch.tensor([-3.0, -2.5, 0.0, 0.1, 3.0], dtype=torch.float64)
    knots = through(x, y, periodic)
    assert (knots.slope > 0).all()
    grid = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    many = Knots(*(t.expand(1001, 5) for t in knots))
    values, _ = forward(grid, many)
    assert (values.diff() > 0).all()
    at, _ = forward(x, Knots(*(t.expand(5, 5) for t in knots)))
    torch.testing.assert_close(at, y)
