"""One-dimensional densities, whose parameters an autoregressive model predicts.

One interface for Gaussian mixtures (real line), von Mises mixtures (circle) and
bins (both), and their choice by the names of coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config
from hepgen_ml.errors import UsageError
from hepgen_ml.models.jetgpt.settings import JetGPTConfig
from hepgen_ml.models.mixtures import (
    gaussian_log_prob,
    sample_gaussian,
    sample_von_mises,
    von_mises_log_prob,
)

_TAIL = 1 / 4096
"""Fraction of a sample beyond each of the outermost edges of bins on the line."""


class Density1D(nn.Module, ABC):
    """Density of one coordinate, given P parameters that a network predicts.

    Attributes
    ----------
    n_parameters : int
        P.
    """

    n_parameters: int

    @abstractmethod
    def bias(self) -> Tensor:
        """Parameters (P,) to start the training with."""

    @abstractmethod
    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Log density (...) at x (...), given parameters (..., P)."""

    @abstractmethod
    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws (m,) for parameters (m, P)."""

    def fit(self, x: Tensor) -> None:
        """Adapt to a sample (n,) of the standardised coordinate; by default nothing."""


class GaussianMixture(Density1D):
    """K Gaussians on the real line.

    Parameters
    ----------
    components : int
        K.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.n_parameters = components, 3 * components

    def bias(self) -> Tensor:
        spread = (torch.arange(self.components) + 0.5) / self.components
        return torch.cat([0 * spread, 4 * spread - 2, 0 * spread - 1.0])

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return gaussian_log_prob(x, parameters)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample_gaussian(parameters, generator)


class VonMisesMixture(Density1D):
    """K von Mises densities on the circle.

    Parameters
    ----------
    components : int
        K.
    """

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.n_parameters = components, 3 * components

    def bias(self) -> Tensor:
        spread = (torch.arange(self.components) + 0.5) / self.components
        return torch.cat([0 * spread, math.pi * (2 * spread - 1), 0 * spread + 1.5])

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return von_mises_log_prob(x, parameters)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return sample_von_mises(parameters, generator)


class CircleBins(Density1D):
    """Equal bins on [-pi, pi); the parameters are the logits of their probabilities.

    Parameters
    ----------
    bins : int
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.n_parameters = bins

    def bias(self) -> Tensor:
        return torch.zeros(self.n_parameters)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        n = self.n_parameters
        turn = torch.remainder(x / (2 * math.pi) + 0.5, 1.0)
        index = (turn * n).long().clamp_max(n - 1)
        return _pick(F.log_softmax(parameters, -1), index) - math.log(2 * math.pi / n)

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        index = _choose(parameters, generator)
        u = _uniform(parameters, generator)
        return ((index + u) / self.n_parameters).mul(2 * math.pi).sub(math.pi)


class LineBins(Density1D):
    """Bins between edges, with an exponential tail beyond each end.

    The parameters are the logits of the probabilities: of the left tail, the
    bins between the edges, the right tail. Half of the edges are spread as the
    sample is, half uniformly: dense regions have more of them, yet no bin is
    wider than two equal ones.
    The tails start at the 1/4096 quantiles of the sample, and fall with the mean excess of the
    sample. The density is normalised and positive everywhere.

    Parameters
    ----------
    bins : int
        Number of probabilities, both tails included.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.n_parameters = bins
        self.edges: Tensor
        self.tails: Tensor
        self.start: Tensor
        self.register_buffer("edges", torch.linspace(-3.0, 3.0, bins - 1))
        self.register_buffer("tails", torch.full((2,), 0.5))
        self.register_buffer("start", torch.zeros(bins))

    def fit(self, x: Tensor) -> None:
        values = np.sort(x.detach().to("cpu", torch.float64).numpy())
        if len(values) < 2 or values[-1] - values[0] < 1e-6:
            return
        low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
        if high - low < 1e-6:
            low, high = values[0], values[-1]
        inside = values[(values >= low) & (values <= high)]
        u = np.linspace(0.0, 1.0, self.n_parameters - 1)
        # The density of edges is half that of the sample and half uniform; the last tenth keeps
        # edges apart where many events have the same value.
        share = 0.5 * (np.linspace(0.0, 1.0, len(inside)) + (inside - low) / (high - low))
        edges = 0.9 * np.interp(u, share, inside) + 0.1 * (low + (high - low) * u)
        edges[[0, -1]] = low, high
        smallest = (edges[1] - edges[0]) / 20
        below, above = values[values < edges[0]], values[values > edges[-1]]
        excess = [
            max(float(np.mean(e)) if len(e) else 0.0, smallest)
            for e in (edges[0] - below, above - edges[-1])
        ]
        counts = np.bincount(np.searchsorted(edges, values, "right"), minlength=len(self.start))
        with torch.no_grad():
            self.edges.copy_(torch.from_numpy(edges))
            self.tails.copy_(torch.tensor(excess))
            self.start.copy_(torch.from_numpy(np.log((counts + 0.5) / (len(values) + 0.5))))

    def bias(self) -> Tensor:
        return self.start

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        index = torch.searchsorted(self.edges, x.contiguous(), right=True)
        width = torch.cat([self.tails[:1], self.edges.diff(), self.tails[1:]])
        beyond = torch.relu(self.edges[0] - x) / self.tails[0]
        beyond = beyond + torch.relu(x - self.edges[-1]) / self.tails[1]
        log_p = _pick(F.log_softmax(parameters, -1), index)
        return log_p - torch.log(width)[index] - beyond

    def sample(self, parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
        index, u = _choose(parameters, generator), _uniform(parameters, generator)
        last = self.n_parameters - 2
        low = self.edges[(index - 1).clamp(0, last - 1)]
        x = low + u * (self.edges[index.clamp(1, last)] - low)
        excess = -torch.log1p(-u)
        x = torch.where(index == 0, self.edges[0] - self.tails[0] * excess, x)
        return torch.where(index > last, self.edges[-1] + self.tails[1] * excess, x)


def _pick(log_p: Tensor, index: Tensor) -> Tensor:
    return log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def _uniform(parameters: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(len(parameters), generator=generator, device=parameters.device)


def _choose(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Bin (m,) for logits (m, B)."""
    cumulative = logits.softmax(-1).cumsum(-1)
    u = _uniform(logits, generator).unsqueeze(-1) * cumulative[:, -1:]
    return (cumulative <= u).sum(-1).clamp_max_(logits.shape[-1] - 1)


def choose_densities(names: Mapping[str, bool], config: Config) -> list[Density1D]:
    """Density of every coordinate, as the configuration says.

    Mixtures of the same kind are one object, bins have edges of their own.

    Parameters
    ----------
    names : mapping of str to bool
        Coordinates, and whether they are angles.
    config : Config

    Raises
    ------
    UsageError
        A density on the wrong space, or a pattern that fits no coordinate.
    """
    chosen: list[Density1D] = []
    settings = config.section(JetGPTConfig)
    shared = {
        "gaussian": GaussianMixture(config.network.mixtures),
        "von_mises": VonMisesMixture(config.network.mixtures),
    }
    _check_patterns(settings.densities, list(names), "jetgpt.densities")
    for name, periodic in names.items():
        kind = next(
            (kind for pattern, kind in settings.densities.items() if fnmatchcase(name, pattern)),
            settings.density,
        )
        if kind == "mixtures":
            kind = "von_mises" if periodic else "gaussian"
        if (kind == "von_mises" and not periodic) or (kind == "gaussian" and periodic):
            where = "an angle" if periodic else "no angle"
            raise UsageError(
                f"jetgpt.densities: {kind} does not suit {name!r}, which is {where}",
                remedy="choose 'mixtures' or 'bins'",
            )
        if kind == "bins":
            chosen.append(CircleBins(settings.bins) if periodic else LineBins(settings.bins))
        else:
            chosen.append(shared[kind])
    return chosen


def order_of(names: Sequence[str], patterns: Sequence[str]) -> list[int]:
    """Columns in the order of the first pattern that each name fits; the others come last."""

    def place(i: int) -> int:
        fits = (k for k, pattern in enumerate(patterns) if fnmatchcase(names[i], pattern))
        return next(fits, len(patterns))

    return sorted(range(len(names)), key=place)


def check_order(names: Sequence[str], patterns: Sequence[str]) -> None:
    """Refuse an order that names coordinates which do not exist.

    Raises
    ------
    UsageError
        A pattern fits no coordinate.
    """
    _check_patterns(patterns, names, "jetgpt.order")


def _check_patterns(
    patterns: Mapping[str, str] | Sequence[str], names: Sequence[str], setting: str
) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(
                f"{setting}: no coordinate fits {pattern!r}", remedy=f"there are {', '.join(names)}"
            )
