"""Settings of the autoregressive densities; loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hepgen_ml.config import BayesianSection, Section

DensityName = Literal["mixtures", "gaussian", "von_mises", "bins"]
"""See `hepgen_ml.models.jetgpt.densities`; mixtures are von Mises for angles, else Gaussian."""


class JetGPTConfig(BayesianSection):
    """Densities, order of coordinates and Bayesian weights of JetGPT."""

    density: Literal["mixtures", "bins"] = Field("mixtures", description="Of all coordinates.")
    densities: dict[str, DensityName] = Field(
        default_factory=dict, description="By pattern of names; the first that fits counts."
    )
    bins: int = Field(64, ge=4, le=4096, description="Bins per coordinate.")
    order: tuple[str, ...] = Field(
        (), description="Patterns of names; coordinates that fit none come last."
    )


class SplittingConfig(Section):
    """Number of jets as part of the likelihood, in `jetgpt-splitting` (arXiv:2412.12074)."""

    max_jets: int = Field(
        0, ge=0, le=1000, description="Most jets to generate; at least the sample's."
    )
    extrapolation: Literal["naive", "truncated", "override", "bootstrap"] = "naive"
    override_weight: float = Field(0.2, ge=0, description="lambda of equation 5.31.")
    pointers: bool = Field(True, description="Place jets relative to the objects before them too.")
    warm_up: float = Field(
        0.5, ge=0, lt=1, description="Fraction of training before bootstrapped events."
    )
