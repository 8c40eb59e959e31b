"""Velocity networks of flow matching, by name."""

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
from hepgen_ml.models.flow.geometric import GeometricVelocity, RotationVelocity
from hepgen_ml.models.flow.velocity import NamedHead, Velocity
from hepgen_ml.networks.elementwise import silu
from hepgen_ml.networks.transformer import Transformer
from hepgen_ml.process.process import Process


class MLPVelocity(Velocity):
    """Residual network with adaptive norms.

    Parameters
    ----------
    process, layouts, config
        See `Velocity`.
    """

    compiles = True
    settings = ("width", "blocks", "mlp_ratio")
    linear = ("modulation", "up", "down")

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__(process, layouts, config)
        net = config.network
        width, hidden = net.width, net.width * net.mlp_ratio
        self.inputs = CoordinateEmbedding(layouts, width)
        self.condition = TimeSubprocessEmbedding(process, width)
        self.modulation = nn.Linear(width, 2 * width * net.blocks)
        self.up = nn.ModuleList(nn.Linear(width, hidden) for _ in range(net.blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(net.blocks))
        self.head = NamedHead(layouts, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        shown = self.condition(t, condition.subprocess)
        parts = self.modulation(shown).chunk(2 * len(self.up), dim=-1)
        h = self.inputs.total(z, condition.channel) + shown
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            norm = F.layer_norm(h, h.shape[-1:])
            h = h + down(silu(up(torch.addcmul(parts[2 * i], norm, 1 + parts[2 * i + 1]))))
        return self.head(F.layer_norm(h, h.shape[-1:]), condition.channel)


class TransformerVelocity(Velocity):
    """Transformer of one token per coordinate, each seeing all others; adaptive norms.

    Parameters
    ----------
    process, layouts, config
        See `Velocity`.
    """

    settings = ("width", "blocks", "heads", "mlp_ratio", "dropout")
    linear = ("modulation", "transformer")

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__(process, layouts, config)
        net = config.network
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.inputs = CoordinateEmbedding(layouts, net.width)
        self.condition = TimeSubprocessEmbedding(process, net.width)
        self.modulation = nn.Linear(net.width, 4 * net.width * net.blocks)
        self.transformer = Transformer(
            net.width, net.blocks, net.heads, net.mlp_ratio, dropout=net.dropout
        )
        self.head = NamedHead(layouts, net.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        shown = self.condition(t, condition.subprocess)
        tokens = self.inputs(z, condition.channel) + shown.unsqueeze(1)
        bfloat16 = self.bfloat16_blocks and self.training
        with torch.autocast(z.device.type, torch.bfloat16, enabled=bfloat16):
            hidden = self.transformer(tokens, self.modulation(shown))
        return self.head(hidden.float(), condition.channel)


VELOCITIES: dict[str, type[Velocity]] = {
    "mlp": MLPVelocity,
    "transformer": TransformerVelocity,
    "gatr": RotationVelocity,
    "lgatr": GeometricVelocity,
}
"""The model `NAME-cfm` is flow matching with the network of that name."""
