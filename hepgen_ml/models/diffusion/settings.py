"""Settings of denoising diffusion; loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hepgen_ml.models.flow.settings import Solver, SolverSection

Sampler = Literal["dpm2m", "ddim", "ancestral"] | Solver
"""Ways from noise to events; a `Solver` follows the probability flow."""


class DiffusionConfig(SolverSection):
    """Denoising diffusion: the chain, what the network learns, and how events are drawn."""

    timesteps: int = Field(1000, ge=2, le=100_000, description="Noise levels of the chain, T.")
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="Variances of the noise that each step of the chain adds."
    )
    prediction: Literal["noise", "velocity"] = Field(
        "velocity",
        description="Output of the network: the noise, or the velocity, which is the noise "
        "minus its exact form for Gaussian events.",
    )
    solver: Sampler = Field(  # type: ignore[assignment]
        "rk4",
        description="Method of sampling: ancestral uses all noise levels, dpm2m and ddim use "
        "ddpm.steps of them (24 unless given); the others integrate the probability flow.",
    )

    @model_validator(mode="before")
    @classmethod
    def _levels(cls, data: Any) -> Any:
        """Four steps are for solvers that evaluate the network several times in each."""
        if isinstance(data, dict) and data.get("solver") in ("dpm2m", "ddim"):
            return {"steps": 24, **data}
        return data
