"""Density models by name."""

from __future__ import annotations

from collections.abc import Callable

from hepgen_ml.config import Config
from hepgen_ml.models.autoregressive import JetGPT
from hepgen_ml.models.base import DensityModel
from hepgen_ml.models.flow_matching import SUFFIX, FlowMatching
from hepgen_ml.models.splitting import SplittingJetGPT
from hepgen_ml.models.velocities import VELOCITIES
from hepgen_ml.process.process import Process

MODELS: dict[str, Callable[[Process, Config], DensityModel]] = {
    JetGPT.name: JetGPT,
    SplittingJetGPT.name: SplittingJetGPT,
    **{name + SUFFIX: FlowMatching for name in VELOCITIES},
}


def build(process: Process, config: Config) -> DensityModel:
    """Make the untrained model that the configuration names; without a choice, JetGPT."""
    return MODELS[JetGPT.name if config.model == "auto" else config.model](process, config)
