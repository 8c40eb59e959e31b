"""Surrogate: the density of the kinematics and the heads, trained and stored together."""

from __future__ import annotations

from torch import nn

from hepgen_ml.config import Config
from hepgen_ml.models import registry
from hepgen_ml.models.event_weights import EventWeights
from hepgen_ml.models.heads import Heads
from hepgen_ml.models.rates import rates_of
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process


class Surrogate(nn.Module):
    """Density of the kinematics, and the heads of further properties.

    Parameters
    ----------
    process : Process
    config : Config

    Attributes
    ----------
    event_weights : EventWeights or None
        Where the density is that of a biased sample.
    rates : Rates or None
        Of the subprocesses, where they depend on conditions of the user.
    """

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__()
        self.density = registry.build(process, config)
        self.heads = Heads(process)
        self.rates = rates_of(process, self.density.learns_rates)
        self.event_weights = EventWeights(process) if config.training.weights == "sample" else None

    def fit_standardization(self, encoded: Encoded) -> None:
        """Prepare both parts for a sample's ranges."""
        self.density.fit_standardization(encoded)
        self.heads.fit_standardization(encoded)

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())
