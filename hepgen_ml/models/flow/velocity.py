"""Interface of the networks of flow matching, which other densities may use as well."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.errors import UsageError
from hepgen_ml.models.conditions import Condition, CoordinateEmbedding, Layouts
from hepgen_ml.networks.bayesian import (
    BayesianLinear,
    Variational,
    make_bayesian,
    perturbed,
    without_noise,
)
from hepgen_ml.process.process import Process


class Velocity(nn.Module, ABC):
    """One number for each coordinate of an event, given time, coordinates and condition.

    A velocity, or the noise of a diffusion: the network does not depend on the training target.
    They start as zero or close to it.

    Parameters
    ----------
    process : Process
    layouts : sequence of sequences of Coordinate
        Learned coordinates of every channel.
    config : Config

    Attributes
    ----------
    settings : tuple of str or None
        Settings of the section ``network`` that it uses; None: not told, or all.
    linear : tuple of str
        Modules whose linear maps may have a posterior, beside `head`, which gives all of the
        output. Networks without any have no posterior.
    within_cuts : bool
        Whether a flow starts within the cuts by default.
    suggested : dict
        Settings of the training of many events, where none are given.
    """

    settings: ClassVar[tuple[str, ...] | None] = None
    linear: ClassVar[tuple[str, ...]] = ()
    within_cuts: ClassVar[bool] = False
    suggested: ClassVar[Mapping[str, Any]] = {}
    head: NamedHead

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__()

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Take over the standardisation: mean and width (channels, D) of the coordinates.

        For networks that need the coordinates themselves; they keep it in buffers of their own.
        """

    def make_bayesian(self, how: str, prior_std: float) -> None:
        """Give weights a posterior: those of the output ("last"), or of all linear maps ("all").

        Raises
        ------
        UsageError
            The output of this network is not linear in weights of its own.
        """
        if how == "off":
            return
        if not self.linear:
            raise UsageError(
                "equivariant networks have no Bayesian weights",
                remedy="take a model with an mlp or a transformer, or bayesian=off",
            )
        self.head.make_bayesian(prior_std)
        for name in self.linear if how == "all" else ():
            child = getattr(self, name)
            if isinstance(child, nn.Linear):
                setattr(self, name, BayesianLinear(child, prior_std))
            else:
                make_bayesian(child, prior_std)

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
        self.weight: nn.Parameter | Variational
        self.bias: nn.Parameter | Variational
        self.weight = nn.Parameter(torch.zeros(len(embedding.keep), width))
        self.bias = nn.Parameter(torch.zeros(len(embedding.keep)))

    def make_bayesian(self, prior_std: float) -> None:
        """Give all weights a posterior."""
        mean, bias = without_noise(self.weight), without_noise(self.bias)
        del self.weight, self.bias
        self.weight = weight = Variational(mean, prior_std)
        self.bias = Variational(bias, prior_std, weight=weight)

    def forward(self, hidden: Tensor, channel: int) -> Tensor:
        """Numbers (m, D) from hidden states (m, width) of events or (m, D, width) of tokens."""
        numbers = self.numbers[channel]
        weight, bias = without_noise(self.weight)[numbers], without_noise(self.bias)[numbers]
        out = self._product(hidden, weight, bias)

        def variance() -> Tensor:
            assert isinstance(self.weight, Variational)
            assert isinstance(self.bias, Variational)
            spread = self.weight.variance[numbers], self.bias.variance[numbers]
            return self._product(hidden * hidden, *spread)

        return perturbed(self.weight, hidden, out, numbers, variance)

    @staticmethod
    def _product(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if hidden.ndim == 2:
            return torch.addmm(bias, hidden, weight.t())
        return (hidden * weight).sum(-1) + bias
