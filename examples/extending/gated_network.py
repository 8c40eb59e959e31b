"""A network of its own for flow matching, trained with ``--model gated-cfm``.

Installed with the entry point ``gated-cfm = "gated_network"`` in the group ``hepgen_ml.models``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.models.conditions import (
    Condition,
    CoordinateEmbedding,
    Layouts,
    TimeSubprocessEmbedding,
)
from hepgen_ml.models.flow.settings import FlowConfig
from hepgen_ml.models.flow.velocities import VELOCITIES
from hepgen_ml.models.flow.velocity import NamedHead, Velocity
from hepgen_ml.models.registry import register_lazily
from hepgen_ml.process.process import Process


class GatedVelocity(Velocity):
    """Residual layers whose gates depend on time and subprocess."""

    compiles = True

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__(process, layouts, config)
        width = config.network.width
        self.inputs = CoordinateEmbedding(layouts, width)  # weights by the names of coordinates
        self.condition = TimeSubprocessEmbedding(process, width)
        self.layers = nn.ModuleList(
            nn.Linear(width, 2 * width) for _ in range(config.network.blocks)
        )
        self.head = NamedHead(layouts, width)  # starts at zero

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """One number (m, D) for each coordinate z (m, D) at times t (m,)."""
        shown = self.condition(t, condition.subprocess)
        hidden = self.inputs.total(z, condition.channel) + shown
        for layer in self.layers:
            value, gate = layer(F.layer_norm(hidden, hidden.shape[-1:])).chunk(2, dim=-1)
            hidden = hidden + value * torch.sigmoid(gate + shown)
        return self.head(F.layer_norm(hidden, hidden.shape[-1:]), condition.channel)


VELOCITIES["gated"] = GatedVelocity
register_lazily(
    "gated-cfm", "hepgen_ml.models.flow.flow_matching:FlowMatching", {"flow": FlowConfig}
)
