"""Settings of the autoregressive densities; loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hepgen_ml.config import BayesianSection, Section

DensityName = Literal["mixtures", "gaussian", "von_mises", "bins"]
"""See `hepgen_ml.models.jetgpt.densities`; mixtures are von Mises for angles, else Gaussian."""


class JetGPTConfig(BayesianSection):
    """Densities, order of coordinates and Bayesian weights of JetGPT."""

    density: Literal["mixtures", "bins"] = Field(
        "mixtures",
        description="Density of each coordinate: a mixture (von Mises for angles, otherwise "
        "Gaussian) or a histogram.",
    )
    densities: dict[str, DensityName] = Field(
        default_factory=dict,
        description="Densities of single coordinates: a table from patterns of their names, such "
        "as log_pt:*, to mixtures, gaussian, von_mises or bins; the first pattern that fits "
        "counts.",
    )
    bins: int = Field(
        64, ge=4, le=4096, description="Bins of each coordinate whose density is a histogram."
    )
    order: tuple[str, ...] = Field(
        (),
        description="Patterns of the names of coordinates that are generated first, such as "
        "phi:*. The default is the order of the chart; in jetgpt-splitting, directions of jets "
        "before momenta.",
    )


class SplittingConfig(Section):
    """Number of jets as part of the likelihood, in `jetgpt-splitting` (arXiv:2412.12074)."""

    max_jets: int = Field(
        0,
        ge=0,
        le=1000,
        description="Largest number of jets to generate, if it is larger than that of the sample.",
    )
    extrapolation: Literal["naive", "truncated", "override", "bootstrap"] = Field(
        "naive",
        description="How events with the largest number of jets enter the loss, for the "
        "extrapolation to more jets (section 5 of arXiv:2412.12074).",
    )
    override_weight: float = Field(
        0.2,
        ge=0,
        description="Weight lambda of the term of equation 5.31, for extrapolation by override.",
    )
    pointers: bool = Field(
        True,
        description="Describe jets relative to the objects before them too: rings around these, "
        "balance of pT, resonance.",
    )
    warm_up: float = Field(
        0.5, ge=0, lt=1, description="Fraction of the training before bootstrapped events enter."
    )
