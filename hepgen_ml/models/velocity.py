"""What every velocity network of flow matching offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.models.conditions import CoordinateEmbedding, Layouts
from hepgen_ml.process.process import Process


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
