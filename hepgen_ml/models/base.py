"""Interface of density models, with the steps to add one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from hepgen_ml.config import Config
from hepgen_ml.networks.bayesian import posterior_draw, variational_layers
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

_BATCH = 4096
"""Number of events whose densities under many draws are evaluated together."""

_MARGIN = 10.0
"""Margin up to which the loss of an event of negative weight may exceed those of the others."""


class Layout(Protocol):
    """Named coordinates of one channel."""

    @property
    def coordinates(self) -> Sequence[Coordinate]:
        """Quantities that a density learns."""


class Space(Protocol):
    """Channels and subprocesses on which a density is defined: a `Process`, or a part of it."""

    @property
    def channels(self) -> Sequence[Layout]:
        """Sets of coordinates; an event has those of one channel."""

    @property
    def n_coordinates(self) -> int:
        """Largest number of coordinates."""

    @property
    def channel_of(self) -> Tensor:
        """(S,) channel of each condition (subprocess)."""


Inside = Callable[[Tensor, Tensor], Tensor]
"""Mask (m,) of events inside the cuts, from coordinates (m, D) float64 and subprocesses (m,)."""


class Draws(NamedTuple):
    """Events whose subprocesses were drawn by a density.

    Attributes
    ----------
    x : (n, D) float64 tensor
        Learned coordinates.
    subprocess : (n,) int64 tensor
    n_drawn, n_inside : int
        Number of draws for these events, and number of draws inside the cuts.
    """

    x: Tensor
    subprocess: Tensor
    n_drawn: int
    n_inside: int


class DensityModel(nn.Module, ABC):
    """Conditional density p(x | subprocess) over the learned coordinates of a process.

    **To add a model**, write one file with a subclass and, if it has any, its settings::

        class ToyConfig(Section):
            width: int = Field(64, ge=1, description="Size of the hidden state.")

        @register("toy", settings=ToyConfig)
        class Toy(DensityModel):
            def __init__(self, process, config):
                super().__init__(process)
                settings = config.section(ToyConfig)
                ...

    and name it in the entry-point group ``hepgen_ml.models`` of your package, as
    `hepgen_ml.models.registry` shows; docs/models.md has a whole example. Nothing else has to
    be touched: ``hepgen-ml train --model toy --set toy.width=32`` trains it, and all other
    commands work with what that has written.

    *What a model sees.* Events have a subprocess s, an integer, and the subprocess a channel,
    ``self.channel_of[s]``. The channel has named coordinates, ``self.layouts[channel]``: D of them
    for the longest, and events of a shorter channel have zeros at the end. `by_channel` gives the
    rows of each channel. Models work on standardised coordinates z (m, D) in single precision,
    of zero mean and unit variance but for angles (``coordinate.periodic``), which stay in
    [-pi, pi); `prepare` and `restore` translate. Cuts, masses, momentum conservation, colours,
    helicities and scales are handled elsewhere.

    With conditions of the user a model gets labels in place of subprocesses: the number and the
    values together, see `hepgen_ml.process.labels`. It passes them on as they are, takes the number
    with `which`, lets its network see the values (the embeddings of `hepgen_ml.models.conditions`
    do), and says so by ``conditional = True``; others are not trained on such samples.

    *What a model must have*: `loss` and `sample_z`, and `log_prob_z` or ``has_likelihood = False``.
    Parameters are trained by gradient descent of `loss`, on batches and with averaged weights; what
    is stored is the ``state_dict``, so that whatever is taken from a sample (`fit_coordinates`) has
    to be in buffers.

    *What a model may have*, with defaults that suit most: the class attributes below, and
    `suggested`, `adapt`, `fit_standardization`, `before_training`, `after_training`. A model that
    draws the subprocess itself sets ``learns_rates`` and has `sample_events` and `acceptance` too.

    Networks to build it from: `hepgen_ml.models.flow.velocities` has them as
    ``net(t, z, condition)``, `hepgen_ml.networks` without any notion of events. Those with the
    class attribute ``compiles = True`` are compiled where ``training.compile`` asks for it.

    Parameters
    ----------
    process : Process
        Or any other space.

    Attributes
    ----------
    learns_rates : bool
        Whether the model also draws the subprocess, with `sample_events`, and its densities include
        the probability of the subprocess. For other models rates are those of the sample.
    early_stopping : bool
        Whether training may end when the loss of held-out events no longer decreases; False if the
        model learns something that this loss does not measure.
    has_likelihood : bool
        Whether `log_prob_z` gives the density of what `sample_z` draws.
    costly_likelihood : bool
        Whether densities take far longer than drawing the events; reports then have a posterior
        band only if it is asked for.
    conditional : bool
        Whether the density may depend on conditions of the user.
    principal_axes : bool
        Whether a posterior of last layers only is found anew after the training, in the principal
        axes of the information of the events; see `hepgen_ml.models.last_layers`.
    progress : float
        Completed fraction of the training, set by the trainer.
    n_training : int
        Number of independent training events, set by the trainer; Bayesian models weigh them
        against their prior.
    """

    learns_rates = False
    early_stopping = True
    has_likelihood = True
    costly_likelihood = False
    conditional = False
    principal_axes = False
    progress = 0.0

    @classmethod
    def adapt(cls, process: Process, config: Config) -> Process:
        """Process that the model is built with, such as one with more multiplicities.

        Subprocesses and coordinates may be added to those of the given process, at the end.

        Parameters
        ----------
        process : Process
            Of the sample.
        config : Config

        Raises
        ------
        UsageError
            The model cannot learn such a process.
        """
        return process

    @classmethod
    def suggested(cls, config: Config) -> Mapping[str, Any]:
        """Settings of the training that suit the model, for samples of many events.

        They are taken where the user gives none.
        """
        return {}

    @classmethod
    def network_settings(cls, config: Config) -> Collection[str] | None:
        """Settings of the section ``network`` that the model uses; None: not told, or all."""
        return None

    def __init__(self, process: Space) -> None:
        super().__init__()
        self.n_training = 1
        self.layouts = [channel.coordinates for channel in process.channels]
        # The network treats channels with the same coordinates (e.g. other flavours) as one.
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
        self.fit_coordinates(encoded.x, encoded.labels)

    def fit_coordinates(self, x: Tensor, subprocess: Tensor) -> None:
        """Take mean and width of each coordinate from a sample; angles are not changed."""
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
        c = self.channel_of[which(subprocess)]
        return ((x - self.mean[c]) / self.std[c]).to(torch.float32)

    def restore(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Inverse of `prepare`."""
        c = self.channel_of[which(subprocess)]
        return z.to(torch.float64) * self.std[c] + self.mean[c]

    def log_prob(self, x: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) float64 in the learned coordinates (m, D)."""
        c = self.channel_of[which(subprocess)]
        z = self.prepare(x, subprocess)
        return self.log_prob_z(z, subprocess).to(torch.float64) - torch.log(self.std[c]).sum(-1)

    def sample(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Coordinates (m, D) float64 for these subprocesses (m,)."""
        return self.restore(self.sample_z(subprocess, generator), subprocess)

    @property
    def bayesian(self) -> bool:
        """Whether some weights have a posterior."""
        return bool(variational_layers(self))

    @property
    def most_draws(self) -> float:
        """Largest number of posterior draws; unlimited for a posterior, else zero."""
        return math.inf if self.bayesian else 0

    def posterior_draw(self, k: int | None) -> AbstractContextManager[None]:
        """Use posterior draw k meanwhile, see `hepgen_ml.networks.bayesian.posterior_draw`."""
        return posterior_draw(self, k)

    def log_prob_draws(self, z: Tensor, subprocess: Tensor, n_draws: int) -> Tensor:
        """Log densities (K, m) in standardised coordinates under the first K posterior draws."""
        rows = []
        for k in range(n_draws):
            with self.posterior_draw(k):
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
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised coordinates (m, D) float32 of these subprocesses (m,)."""

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) in standardised coordinates (m, D)."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def before_training(self, events: Encoded, rate: Tensor | None) -> None:
        """Prepare for the events of a training, after `fit_standardization`.

        Parameters
        ----------
        events : Encoded
            Training events, with mirror images if there are any.
        rate : (m,) tensor or None
            Frequency with which each of them is drawn; None: all the same.
        """

    def after_training(
        self, events: Encoded, inside: Inside, generator: torch.Generator, most: int
    ) -> None:
        """Adjust the trained model, whose best weights are in place, to the training events.

        Parameters
        ----------
        events : Encoded
            Training events.
        inside : callable
            Mask of coordinates inside the cuts.
        generator : torch.Generator
            On the device of the model.
        most : int
            Largest number of events to generate, a limit on time.
        """

    def sample_events(
        self,
        n: int,
        generator: torch.Generator | None = None,
        inside: Inside | None = None,
        conditions: Tensor | None = None,
    ) -> Draws:
        """Draw n events and their subprocesses, for a model that learns rates.

        Parameters
        ----------
        n : int
        generator : torch.Generator, optional
        inside : callable, optional
            Which coordinates are inside the cuts; all events that are returned are.
        conditions : (n, K) float64 tensor, optional
            Of the user; given to conditional models only.
        """
        raise NotImplementedError(f"{type(self).__name__} learns no rates")

    def acceptance(
        self, inside: Inside, n: int, generator: torch.Generator | None = None
    ) -> list[float]:
        """Fraction of the draws of each channel that are inside the cuts, from n events.

        Called only for a model that learns rates; for others the acceptance is measured while
        sampling.
        """
        raise NotImplementedError(f"{type(self).__name__} learns no rates")

    def by_channel(self, subprocess: Tensor) -> list[tuple[int, Tensor]]:
        """Channels present among these events, each with the rows of its events.

        Channels with the same coordinates count as the first of them.
        """
        channel = self.alike.to(subprocess.device)[self.channel_of[which(subprocess)]]
        present, counts = torch.unique(channel, return_counts=True)
        rows = torch.argsort(channel, stable=True).split(counts.tolist())
        return list(zip(present.tolist(), rows, strict=True))

    def drawn_by_channel(
        self, subprocess: Tensor, draw: Callable[[Tensor, int], Tensor], batch: int | None = None
    ) -> Tensor:
        """Standardised coordinates (m, D) float32, for a `sample_z` that draws each channel alone.

        Parameters
        ----------
        subprocess : (m,) tensor
        draw : callable
            Gives the coordinates (k, d) of some events (k,), by their rows and their channel.
        batch : int, optional
            Largest k.
        """
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        for channel, rows in self.by_channel(subprocess):
            for part in rows.split(batch or len(rows)):
                z[part, : len(self.layouts[channel])] = draw(part, channel)
        return z


def weighted_mean(each: Tensor, weight: Tensor, size: Tensor | float = 1.0) -> Tensor:
    """Mean of losses (m,) of events with weights (m,), which may be negative.

    Not divided by the sum of weights of a batch, which may be close to zero: weights average to one
    over the sample, so that this is an unbiased estimate. In regions with events of negative weight
    only, the loss could decrease without bound. Therefore the loss of such an event counts only up
    to a margin beyond the largest loss of the other events, which no positive density has to
    exceed.

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


def uniform_angle_log_prob() -> float:
    """Log density of the azimuth of a whole event."""
    return -math.log(2 * math.pi)
