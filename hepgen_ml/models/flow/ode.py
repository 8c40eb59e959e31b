"""Ordinary differential equations with few or with controlled evaluations (torchdiffeq)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hepgen_ml.errors import ModelError

EVALUATIONS_PER_STEP = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
"""Fixed-step Runge-Kutta solvers; `rk4` is Kutta's 3/8 rule in torchdiffeq."""

ADAPTIVE = frozenset(["bosh3", "dopri5"])
"""Solvers that choose their steps by the tolerance."""

Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """End of a trajectory.

    Attributes
    ----------
    state : tensor
    evaluations : int
        How often the field was evaluated.
    """

    state: Tensor
    evaluations: int


def time_grid(steps: int, warp: float = 1.0) -> Tensor:
    """Times (steps + 1,) float32 from 0 to 1: t = 1 - (1 - u)^warp of a uniform u.

    Steps become smaller towards t = 1 for a warp above one, towards t = 0 below.
    """
    u = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    return (1 - (1 - u) ** warp).to(torch.float32)


def integrate(
    field: Field,
    state: Tensor,
    *,
    solver: str,
    steps: int,
    tolerance: float = 1e-5,
    warp: float = 1.0,
    backward: bool = False,
) -> Solution:
    """Follow a field from t = 0 to 1, or back.

    Parameters
    ----------
    field : callable
        Time derivative of the state at a scalar time.
    state : tensor
    solver : str
        A name of `EVALUATIONS_PER_STEP` or `ADAPTIVE`, or ``explicit_adams``:
        Adams-Bashforth of third order, started by two steps of rk4; it needs equal steps.
    steps : int
        Of solvers with a fixed number of them.
    tolerance : float
        Absolute and relative, of adaptive solvers.
    warp : float
        See `time_grid`.
    backward : bool
        From t = 1 to 0.

    Raises
    ------
    ModelError
        An adaptive solver cannot follow the field.
    """
    count = 0

    # it imports an integrator of scipy, which takes longer than sampling a thousand events
    from torchdiffeq import odeint

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return field(t, y)

    adaptive = solver in ADAPTIVE
    grid = time_grid(1 if adaptive else steps, warp).to(state.device)
    if backward:
        grid = grid.flip(0)
    options = {"max_order": 4} if solver == "explicit_adams" else None
    try:
        path = odeint(
            counted, state, grid, method=solver, rtol=tolerance, atol=tolerance, options=options
        )
    except AssertionError as error:
        raise ModelError(
            f"the flow cannot be integrated: {error}",
            remedy="use a solver with fixed steps, or train longer",
        ) from None
    return Solution(path[-1], count)
