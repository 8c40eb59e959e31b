"""What the networks of flow matching offer, which other densities may use as well."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.models.conditions import Condition, CoordinateEmbedding, Layouts
from hepgen_ml.process.process import Process


class Velocity(nn.Module, ABC):
    """One number for each coordinate of an event, given time, coordinates and condition.

    A velocity, or the noise of a diffusion: nothing here knows what the numbers are trained to be.
    They start as zero or close to it.

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
    def forward(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Numbers (m, D) float32 of events of one channel.

        Parameters
        ----------
        t : (m,) float32 tensor
            From 0 to 1; in flow matching from the base distribution to the events.
        z : (m, D) float32 tensor
            The channel's coordinates, standardised; angles may have any number of turns.
        condition : Condition
        """


class NamedHead(nn.Module):
    """Linear maps of hidden states to one number per coordinate, looked up by name.

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

    def forward(self, hidden: Tensor, channel: int) -> Tensor:
        """Numbers (m, D) from hidden states (m, width) of events or (m, D, width) of tokens."""
        numbers = self.numbers[channel]
        weight, bias = self.weight[numbers], self.bias[numbers]
        if hidden.ndim == 2:
            return torch.addmm(bias, hidden, weight.t())
        return (hidden * weight).sum(-1) + bias
