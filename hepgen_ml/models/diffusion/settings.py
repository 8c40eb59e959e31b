"""Settings of denoising diffusion; loads no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hepgen_ml.config import BayesianSection
from hepgen_ml.models.flow.settings import Solver

Sampler = Literal["dpm2m", "ddim", "ancestral"] | Solver
"""Ways from noise to events; a `Solver` follows the probability flow."""


class DiffusionConfig(BayesianSection):
    """Denoising diffusion: the chain, what the network learns, and how events are drawn."""

    changeable: ClassVar[frozenset[str]] = frozenset({
        "solver", "steps", "warp", "tolerance", "divergence", "likelihood_solver",
        "likelihood_steps",
    })  # fmt: skip

    timesteps: int = Field(1000, ge=2, le=100_000, description="Of the chain, T.")
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="Variances of the noise that each step of the chain adds."
    )
    prediction: Literal["noise", "velocity"] = Field(
        "velocity",
        description="The network gives the noise, or what is left of it without the part that is "
        "exact for Gaussian events.",
    )
    solver: Sampler = Field(
        "rk4",
        description="Of sampling: dpm2m and ddim take a few noise levels, ancestral all of them; "
        "the others integrate the probability flow.",
    )
    steps: int = Field(
        4, ge=1, le=10_000, description="Of sampling; rk4 has four evaluations in each."
    )
    warp: float = Field(1.0, gt=0, description="Above one, smaller steps near the events.")
    tolerance: float = Field(1e-4, gt=0, description="Of bosh3 and dopri5.")
    divergence: Literal["exact", "hutchinson"] = "exact"
    likelihood_solver: Solver = "rk4"
    likelihood_steps: int = Field(10, ge=1, le=10_000)
