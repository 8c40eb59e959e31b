"""Settings of flow matching and its equivariant networks; loads no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hepgen_ml.config import BayesianSection, Section

Solver = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "bosh3", "dopri5"]
"""See `hepgen_ml.models.flow.ode`."""


class FlowConfig(BayesianSection):
    """Flow matching: what the network learns, and how it is integrated."""

    changeable: ClassVar[frozenset[str]] = frozenset({
        "solver", "steps", "warp", "tolerance", "divergence", "likelihood_solver",
        "likelihood_steps",
    })  # fmt: skip

    solver: Solver = "rk4"
    steps: int = Field(4, ge=1, le=10_000, description="Of solvers with fixed steps.")
    warp: float = Field(1.0, gt=0, description="Above one, smaller steps near the events.")
    tolerance: float = Field(1e-4, gt=0, description="Of bosh3 and dopri5.")
    divergence: Literal["exact", "hutchinson"] = "exact"
    likelihood_solver: Solver = "rk4"
    likelihood_steps: int = Field(10, ge=1, le=10_000)
    gaussian: bool = Field(
        True, description="Add the velocity that is exact between equal Gaussians to the network's."
    )


class LGATrConfig(Section):
    """Equivariant networks of `lgatr-cfm` and `gatr-cfm`.

    Sized for minutes of training on a few cores; the papers have 16 channels, 32 scalars,
    6 blocks and 8 heads (arXiv:2405.14806).
    """

    channels: int = Field(8, ge=1, le=1024, description="Multivector channels.")
    scalars: int = Field(32, ge=1, le=4096, description="Scalar channels.")
    blocks: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    reference: Literal["plane", "beams", "none"] = Field(
        "plane", description="What breaks the symmetry to that of the beams."
    )
    time: bool = Field(True, description="Give the time direction as a reference too.")
    reference_tokens: bool = Field(
        False, description="References as tokens of their own instead of channels."
    )
