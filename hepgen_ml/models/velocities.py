"""Velocity networks of flow matching, by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.models.conditions import CoordinateEmbedding, Layouts, TimeSubprocessEmbedding
from hepgen_ml.networks.transformer import Transformer
from hepgen_ml.process import Process


class Velocity(nn.Module, ABC):
    """Velocity field of standardised coordinates, for every channel of a process.

    Parameters
    ----------
    process : Process
    layouts : sequence of sequences of Coordinate
        Learned coordinates of every channel.
    config : Config
    """

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__()

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Take over the standardisation: mean and width (channels, D) of the coordinates.

        For networks that need the coordinates themselves; they keep it in buffers of their own.
        """

    @abstractmethod
    def forward(self, t: Tensor, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        """Velocity (m, D) float32 of events of one channel.

        Parameters
        ----------
        t : (m,) float32 tensor
            From 0 (base distribution) to 1 (events).
        z : (m, D) float32 tensor
            The channel's coordinates; angles may have any number of turns.
        subprocess : (m,) int64 tensor
        channel : int
        """


class NamedHead(nn.Module):
    """Linear maps of hidden states to one velocity per coordinate, looked up by name.

    To the network's output the velocity is added that is exact where base and
    events are the same Gaussian: E[z_1 - z_0 | z_t] = (2t - 1) z_t / (t^2 + (1-t)^2)
    for standardised coordinates. It keeps the tails right, where a network that
    normalises its hidden states saturates.

    Parameters
    ----------
    layouts : sequence of sequences of Coordinate
    width : int
    """

    def __init__(self, layouts: Layouts, width: int) -> None:
        super().__init__()
        embedding = CoordinateEmbedding(layouts, 1)
        self.numbers = embedding.numbers
        self.weight = nn.Parameter(torch.zeros(len(embedding.keep), width))
        self.bias = nn.Parameter(torch.zeros(len(embedding.keep)))
        self.real: Tensor
        self.register_buffer("real", embedding.keep[:, 0, 0].clone(), persistent=False)

    def forward(self, hidden: Tensor, t: Tensor, z: Tensor, channel: int) -> Tensor:
        """Velocity (m, D) from hidden states (m, width) of events or (m, D, width) of tokens."""
        numbers = self.numbers[channel]
        weight, bias = self.weight[numbers], self.bias[numbers]
        slope = ((2 * t - 1) / (t**2 + (1 - t) ** 2)).unsqueeze(-1) * self.real[numbers]
        if hidden.ndim == 2:
            return torch.addmm(bias, hidden, weight.t()) + slope * z
        return (hidden * weight).sum(-1) + bias + slope * z


class MLPVelocity(Velocity):
    """Residual network with adaptive norms.

    Parameters
    ----------
    process, layouts, config
        See `Velocity`.
    """

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

    def forward(self, t: Tensor, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        condition = self.condition(t, subprocess)
        parts = self.modulation(condition).chunk(2 * len(self.up), dim=-1)
        h = self.inputs.total(z, channel) + condition
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            norm = F.layer_norm(h, h.shape[-1:])
            h = h + down(F.silu(up(torch.addcmul(parts[2 * i], norm, 1 + parts[2 * i + 1]))))
        return self.head(F.layer_norm(h, h.shape[-1:]), t, z, channel)


class TransformerVelocity(Velocity):
    """Transformer of one token per coordinate, each seeing all others; adaptive norms.

    Parameters
    ----------
    process, layouts, config
        See `Velocity`.
    """

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__(process, layouts, config)
        net = config.network
        self.bfloat16_blocks = config.training.precision == "bfloat16"
        self.inputs = CoordinateEmbedding(layouts, net.width)
        self.condition = TimeSubprocessEmbedding(process, net.width)
        self.modulation = nn.Linear(net.width, 4 * net.width * net.blocks)
        self.transformer = Transformer(net.width, net.blocks, net.heads, net.mlp_ratio)
        self.head = NamedHead(layouts, net.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, t: Tensor, z: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        condition = self.condition(t, subprocess)
        tokens = self.inputs(z, channel) + condition.unsqueeze(1)
        bfloat16 = self.bfloat16_blocks and self.training
        with torch.autocast(z.device.type, torch.bfloat16, enabled=bfloat16):
            hidden = self.transformer(tokens, self.modulation(condition))
        return self.head(hidden.float(), t, z, channel)


VELOCITIES: dict[str, type[Velocity]] = {"mlp": MLPVelocity, "transformer": TransformerVelocity}
"""The model `NAME-cfm` is flow matching with the network of that name."""
