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

    timesteps: int = Field(1000, ge=2, le=100_000, description="Noise levels of the chain, T.")
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="Variances of the noise that each step of the chain adds."
    )
    prediction: Literal["noise", "velocity"] = Field(
        "velocity",
        description="Output of the network: the noise, or the velocity, which is the noise "
        "without the part that is exact for Gaussian events.",
    )
    solver: Sampler = Field(
        "rk4",
        description="How events are drawn: ancestral goes through all noise levels, dpm2m and "
        "ddim through a few; the others integrate the probability flow.",
    )
    steps: int = Field(
        4,
        ge=1,
        le=10_000,
        description="Steps of sampling, except for ancestral; rk4 evaluates the network four "
        "times in each.",
    )
    warp: float = Field(
        1.0,
        gt=0,
        description="Above one, steps are smaller near the events; below one, near the noise.",
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
        "rk4", description="Solver for the likelihood, as ddpm.solver."
    )
    likelihood_steps: int = Field(
        10, ge=1, le=10_000, description="Number of steps for the likelihood."
    )
