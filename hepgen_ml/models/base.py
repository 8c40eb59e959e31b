"""What every density model offers, and the surrogate that is trained and stored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.models.heads import Heads
from hepgen_ml.networks.bayesian import posterior_draw, variational_layers
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process

_BATCH = 4096
"""Events whose densities under many draws are evaluated together."""

_MARGIN = 10.0
"""How far the loss of an event of negative weight counts beyond those of the others."""


class Layout(Protocol):
    """Named coordinates of one channel."""

    @property
    def coordinates(self) -> Sequence[Coordinate]:
        """What a density learns."""


class Space(Protocol):
    """What a density is defined on; a `Process`, or less."""

    @property
    def channels(self) -> Sequence[Layout]:
        """Sets of coordinates; an event has those of one channel."""

    @property
    def n_coordinates(self) -> int:
        """Largest number of coordinates."""

    @property
    def channel_of(self) -> Tensor:
        """(S,) channel of each condition (subprocess)."""


class DensityModel(nn.Module, ABC):
    """Conditional density p(x | subprocess) over the learned coordinates of a process.

    Networks work on standardised coordinates z in single precision; `prepare`
    and `restore` translate. Subclasses implement `loss`, `log_prob_z` and `sample_z`.

    Parameters
    ----------
    process : Process
        Or any other space.

    Attributes
    ----------
    chooses_subprocess : bool
        Whether the model draws the subprocess too, with `sample_events`, and its densities
        contain the subprocess's probability.
    progress : float
        Fraction of the training that is over, set by whoever trains.
    keeps_plan : bool
        Whether it learns something that the loss of held-out events does not show.
    n_training : int
        Independent training events, set by whoever trains; Bayesian models
        weigh them against their prior.
    """

    name: str
    chooses_subprocess = False
    progress = 0.0
    keeps_plan = False

    def __init__(self, process: Space) -> None:
        super().__init__()
        self.n_training = 1
        self.layouts = [channel.coordinates for channel in process.channels]
        # Channels with the same coordinates (other flavours, say) are one to the network.
        first: dict[tuple[str, ...], int] = {}
        self.alike = torch.tensor(
            [first.setdefault(tuple(k.name for k in x), c) for c, x in enumerate(self.layouts)]
        )
        shape = (len(self.layouts), process.n_coordinates)
        self.mean: Tensor
        self.std: Tensor
        self.channel_of: Tensor
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("channel_of", process.channel_of, persistent=False)
        self.sizes: Tensor
        sizes = torch.tensor([float(len(x)) for x in self.layouts])
        self.register_buffer("sizes", sizes, persistent=False)

    def fit_standardization(self, encoded: Encoded) -> None:
        """Prepare for the ranges of a sample."""
        self.fit_coordinates(encoded.x, encoded.subprocess)

    def fit_coordinates(self, x: Tensor, subprocess: Tensor) -> None:
        """Take mean and width of each coordinate from a sample; angles stay as they are."""
        for first, rows in self.by_channel(subprocess):
            layout, c = self.layouts[first], torch.nonzero(self.alike == first).squeeze(-1)
            some = x[rows, : len(layout)]
            if len(some) < 2:
                continue
            real = torch.tensor([not coordinate.periodic for coordinate in layout])
            width = some.std(0)
            self.mean[c, : len(layout)] = torch.where(real, some.mean(0), 0.0)
            self.std[c, : len(layout)] = torch.where(real & (width > 1e-12), width, 1.0)

    def prepare(self, x: Tensor, subprocess: Tensor) -> Tensor:
        """Standardised coordinates (m, D) float32 of coordinates (m, D) float64."""
        c = self.channel_of[subprocess]
        return ((x - self.mean[c]) / self.std[c]).to(torch.float32)

    def restore(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Inverse of `prepare`."""
        c = self.channel_of[subprocess]
        return z.to(torch.float64) * self.std[c] + self.mean[c]

    def log_prob(self, x: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) float64 in the learned coordinates (m, D)."""
        c = self.channel_of[subprocess]
        z = self.prepare(x, subprocess)
        return self.log_prob_z(z, subprocess).to(torch.float64) - torch.log(self.std[c]).sum(-1)

    def sample(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Coordinates (m, D) float64 for these subprocesses (m,)."""
        return self.restore(self.sample_z(subprocess, generator), subprocess)

    @property
    def bayesian(self) -> bool:
        """Whether some weights have a posterior."""
        return bool(variational_layers(self))

    def log_prob_draws(self, z: Tensor, subprocess: Tensor, n_draws: int) -> Tensor:
        """Log densities (K, m) in standardised coordinates under the first K posterior draws."""
        rows = []
        for k in range(n_draws):
            with posterior_draw(self, k):
                parts = [
                    self.log_prob_z(*part)
                    for part in zip(z.split(_BATCH), subprocess.split(_BATCH), strict=True)
                ]
            rows.append(torch.cat(parts))
        return torch.stack(rows)

    @abstractmethod
    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Scalar to minimise, a mean over events (weights average to one, see `weighted_mean`)."""

    @abstractmethod
    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) in standardised coordinates (m, D)."""

    @abstractmethod
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised coordinates (m, D) float32."""

    def by_channel(self, subprocess: Tensor) -> list[tuple[int, Tensor]]:
        """Channels present among these events, each with the rows of its events.

        Channels with the same coordinates count as the first of them.
        """
        channel = self.alike.to(subprocess.device)[self.channel_of[subprocess]]
        present, counts = torch.unique(channel, return_counts=True)
        rows = torch.argsort(channel, stable=True).split(counts.tolist())
        return list(zip(present.tolist(), rows, strict=True))


def weighted_mean(each: Tensor, weight: Tensor, size: Tensor | float = 1.0) -> Tensor:
    """Mean of losses (m,) of events with weights (m,), which may be negative.

    Never divided by the weights of a batch, whose sum may be close to zero: weights average
    to one over the sample, and then this is an unbiased estimate. Where events of
    negative weight are alone, there is no end to what a density gains by avoiding them. So
    their loss counts up to a margin beyond the largest of the other events, which
    is beyond anything that a positive density has to do.

    Parameters
    ----------
    each, weight : (m,) tensors
    size : (m,) tensor or float
        Number of coordinates of each event, in proportion to which losses are compared.
    """
    negative, positive = weight < 0, weight > 0
    if bool(negative.any()) and bool(positive.any()):
        largest = (each.detach() / size)[positive].max() * size + _MARGIN
        each = torch.where(negative, torch.minimum(each, largest), each)
    return (weight * each).mean()


class Surrogate(nn.Module):
    """Density of the kinematics and the heads of what is drawn given them.

    Parameters
    ----------
    process : Process
    config : Config
    """

    def __init__(self, process: Process, config: Config) -> None:
        from hepgen_ml.models import registry

        super().__init__()
        self.density = registry.build(process, config)
        self.heads = Heads(process)

    def fit_standardization(self, encoded: Encoded) -> None:
        """Prepare both parts for a sample's ranges."""
        self.density.fit_standardization(encoded)
        self.heads.fit_standardization(encoded)

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())


def uniform_angle_log_prob() -> float:
    """Log density of the azimuth of a whole event."""
    return -math.log(2 * math.pi)
