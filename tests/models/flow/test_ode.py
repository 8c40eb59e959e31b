"""Solvers of differential equations: their order, their count of evaluations, their errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hepgen_ml.errors import ModelError
from hepgen_ml.models.flow.ode import ADAPTIVE, EVALUATIONS_PER_STEP, integrate, time_grid


@pytest.mark.parametrize("solver", [*EVALUATIONS_PER_STEP, "explicit_adams", *sorted(ADAPTIVE)])
@pytest.mark.parametrize("backward", [False, True])
def test_solvers_count_their_evaluations(solver: str, backward: bool) -> None:
    calls = []

    def field(t: Tensor, y: Tensor) -> Tensor:
        calls.append(float(t))
        return y * torch.cos(3 * t)

    y = torch.ones(5, 2)
    got = integrate(field, y, solver=solver, steps=12, tolerance=1e-5, backward=backward)
    assert got.evaluations == len(calls)
    if solver in EVALUATIONS_PER_STEP:
        assert got.evaluations == 12 * EVALUATIONS_PER_STEP[solver]
    elif solver == "explicit_adams":
        assert got.evaluations == 2 * 4 + 10
    exact = math.exp((-1 if backward else 1) * math.sin(3) / 3)
    error = {"euler": 0.1, "midpoint": 3e-3, "heun2": 3e-3, "explicit_adams": 1e-2}
    assert torch.allclose(got.state, torch.tensor(exact), atol=error.get(solver, 3e-4))


def test_rk4_has_fourth_order() -> None:
    def distance(steps: int) -> float:
        y = torch.ones(1, dtype=torch.float64)
        got = integrate(lambda t, y: y * torch.cos(3 * t), y, solver="rk4", steps=steps)
        return abs(float(got.state) - math.exp(math.sin(3) / 3))

    assert distance(3) / distance(6) > 2**3.5


def test_time_grid() -> None:
    fine_at_end = time_grid(4, 2.0)
    assert torch.allclose(fine_at_end, torch.tensor([0, 7 / 16, 3 / 4, 15 / 16, 1]))
    assert time_grid(4)[1].item() == 0.25


def test_adaptive_solver_that_fails_says_so() -> None:
    with pytest.raises(ModelError, match="cannot be integrated"):
        integrate(
            lambda t, y: torch.full_like(y, math.nan),
            torch.ones(2, 2),
            solver="dopri5",
            steps=1,
        )
