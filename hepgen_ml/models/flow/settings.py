"""Settings of flow matching and its equivariant networks; loads no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hepgen_ml.config import BayesianSection, Section

Solver = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "bosh3", "dopri5"]
"""See `hepgen_ml.models.flow.ode`."""


class SolverSection(BayesianSection):
    """Base of the settings of models whose events follow a differential equation."""

    changeable: ClassVar[frozenset[str]] = frozenset({
        "solver", "steps", "warp", "tolerance", "divergence", "likelihood_solver",
        "likelihood_steps",
    })  # fmt: skip

    solver: Solver = Field(
        "rk4",
        description="Solver of the differential equation for sampling; rk4 is the 3/8 rule, bosh3 "
        "and dopri5 choose their own steps.",
    )
    steps: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Number of steps for sampling; rk4 evaluates the network four times in each.",
    )
    warp: float = Field(
        1.0,
        gt=0,
        description="Above one, steps are smaller near the events; below one, near the initial "
        "noise.",
    )
    tolerance: float = Field(
        1e-4, gt=0, description="Absolute and relative tolerance of bosh3 and dopri5."
    )
    divergence: Literal["exact", "hutchinson"] = Field(
        "exact",
        description="Divergence of the velocity, for the likelihood: hutchinson is an unbiased "
        "estimate that takes one derivative instead of one for each coordinate.",
    )
    likelihood_solver: Solver = Field(
        "rk4", description="Solver for the likelihood; the choices are those for sampling."
    )
    likelihood_steps: int = Field(
        10, ge=1, le=10_000, description="Number of steps for the likelihood."
    )

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """As of a section; unequal steps, which explicit_adams once took, become equal."""
        solvers = values.get("solver"), values.get("likelihood_solver")
        return super().of_earlier(values) | ({"warp": 1.0} if "explicit_adams" in solvers else {})

    @model_validator(mode="after")
    def _equal_steps(self) -> Self:
        if self.warp != 1 and "explicit_adams" in (self.solver, self.likelihood_solver):
            raise ValueError("explicit_adams needs equal steps, warp=1")
        return self


class FlowConfig(SolverSection):
    """Flow matching: what the network learns, and how it is integrated."""

    earlier: ClassVar[dict[str, Any]] = {"base": "cuts"}

    base: Literal["auto", "gaussian", "cuts"] = Field(
        "auto",
        description="Density that flows to the events: their covariance everywhere (gaussian), or "
        "within the cuts only (cuts); auto takes cuts for equivariant networks, whose inputs are "
        "momenta.",
    )
    gaussian: bool = Field(
        True,
        description="Add the velocity that is exact between equal Gaussians to that of the "
        "network; it keeps the tails right.",
    )


class LGATrConfig(Section):
    """Equivariant networks of `lgatr-cfm` and `gatr-cfm`.

    Sized for minutes of training on a few cores; the papers have 16 channels, 32 scalars,
    6 blocks and 8 heads (arXiv:2405.14806).
    """

    earlier: ClassVar[dict[str, Any]] = {"coordinates": False}

    channels: int = Field(4, ge=1, le=1024, description="Multivector channels.")
    scalars: int = Field(32, ge=1, le=4096, description="Scalar channels.")
    blocks: int = Field(2, ge=1, le=64, description="Transformer blocks.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads of each block.")
    reference: Literal["plane", "beams", "none"] = Field(
        "plane",
        description="Reference that defines the direction of the beams: the plane transverse "
        "to them, the two beams, or none.",
    )
    time: bool = Field(
        True,
        description="Give the network the time direction of the laboratory as a reference too.",
    )
    reference_tokens: bool = Field(
        False,
        description="References are separate tokens instead of channels of every token.",
    )
    coordinates: bool = Field(
        True,
        description="All coordinates but azimuths are scalars of the network, which moves them by "
        "scalar outputs too, where the references leave no more than rotations about the beam; "
        "otherwise logarithmic coordinates alone.",
    )
