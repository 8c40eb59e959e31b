r"""Normalizing flow of coupling splines, the INN of arXiv:2110.13632 and 2305.10475.

An invertible map u(x) carries the density of the events to a simple one,

.. math:: \log p(x) = \log p_u(u(x)) + \log |\partial u / \partial x| ,

with a Gaussian for coordinates on the line and a constant on the circle. The first map takes each
coordinate by itself to this density, through quantiles of the sample. Each of the couplings after
it maps one half of the coordinates with rational-quadratic splines (arXiv:1906.04032) whose
parameters a network finds from the other half; on circles splines are periodic (2002.02428). Both
directions take one evaluation of each network, so that density and sampling are exact and fast.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import BayesianSection, Config
from hepgen_ml.models.base import DensityModel, weighted_mean
from hepgen_ml.models.conditions import (
    CoordinateEmbedding,
    Layouts,
    SubprocessEmbedding,
    coordinate_features,
    coordinate_numbers,
)
from hepgen_ml.models.registry import register
from hepgen_ml.networks import splines
from hepgen_ml.networks.bayesian import (
    Variational,
    kl_divergence,
    make_bayesian,
    perturbed,
    without_noise,
)
from hepgen_ml.networks.elementwise import silu
from hepgen_ml.phase_space.coordinates import wrap
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

_CLOSEST = 1e-4
"""Smallest distance between two knots of a marginal spline, in widths of the coordinate."""


class SplineFlowConfig(BayesianSection):
    """Normalizing flow: number and size of the couplings and their splines."""

    couplings: int = Field(
        8,
        ge=2,
        le=256,
        description="Number of couplings, each of which maps half of the coordinates.",
    )
    width: int = Field(
        128, ge=8, le=8192, description="Size of the hidden state of each coupling's network."
    )
    blocks: int = Field(1, ge=1, le=64, description="Residual blocks of each network.")
    bins: int = Field(10, ge=2, le=256, description="Bins of the splines of a coupling.")
    bound: float = Field(
        5.0,
        gt=0,
        description="Standard deviations from the mean within which the splines differ from the "
        "identity.",
    )
    marginal_bins: int = Field(
        32,
        ge=2,
        le=1024,
        description="Bins of the first map of each coordinate, by quantiles of the sample.",
    )


class Coupling(nn.Module):
    """Splines of some coordinates, with parameters that depend on the others.

    Parameters
    ----------
    layouts : sequence of sequences of Coordinate
    number : int
        Number of the coupling: odd ones map the half that the previous one leaves unchanged.
    settings : SplineFlowConfig
    """

    def __init__(self, layouts: Layouts, number: int, settings: SplineFlowConfig) -> None:
        super().__init__()
        width, self.bound = settings.width, settings.bound
        self.inputs = CoordinateEmbedding(layouts, width)
        self.condition = nn.Linear(width, width)
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(settings.blocks))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(settings.blocks))
        n_names = len(self.inputs.bias)
        self.n_spline = splines.n_parameters(settings.bins)
        # one more turns circles; zeros make the map the identity
        weight = torch.zeros(n_names, width, self.n_spline + 1)
        bias = torch.zeros(n_names, self.n_spline + 1)
        self.weight: nn.Parameter | Variational
        self.bias: nn.Parameter | Variational
        if settings.bayesian == "off":
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        else:
            used = torch.ones(n_names, self.n_spline + 1, dtype=torch.bool)
            angles = torch.tensor(list(coordinate_numbers(layouts)[0].values()))
            used[~angles, -1] = False  # what turns circles
            self.weight = Variational(weight, settings.prior_std, used.unsqueeze(1))
            self.bias = Variational(bias, settings.prior_std, used, self.weight)
        if settings.bayesian == "all":
            make_bayesian(self, settings.prior_std)
        self.parts = [_halves(len(layout), number) for layout in layouts]
        self.circles = [[c.periodic for c in layout] for layout in layouts]

    def parameters_of(self, z: Tensor, shown: Tensor, channel: int) -> Tensor:
        """Raw parameters (m, d, P) of the coordinates to map, from the others."""
        mapped, others = self.parts[channel]
        h = self.condition(shown)
        if others:
            features = coordinate_features(z[:, others]).flatten(1)
            h = h + features @ self.inputs.weights(channel)[others].flatten(0, 1)
        for up, down in zip(self.up, self.down, strict=True):
            h = h + down(silu(up(F.layer_norm(h, h.shape[-1:]))))
        h = F.layer_norm(h, h.shape[-1:]) / math.sqrt(h.shape[-1])
        numbers = [self.inputs.numbers[channel][i] for i in mapped]
        raw = _products(h, without_noise(self.weight)[numbers]) + without_noise(self.bias)[numbers]

        def variance() -> Tensor:
            assert isinstance(self.weight, Variational)
            assert isinstance(self.bias, Variational)
            return _products(h * h, self.weight.variance[numbers]) + self.bias.variance[numbers]

        return perturbed(self.weight, h, raw, numbers, variance)

    def forward(
        self, z: Tensor, shown: Tensor, channel: int, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Coordinates (m, D) mapped, and the logarithm (m,) of the Jacobian (zero for inverses)."""
        raw = self.parameters_of(z, shown, channel)
        result, log_jacobian = z.clone(), z.new_zeros(len(z))
        for circle in (False, True):
            k = [i for i, j in enumerate(self.parts[channel][0])
                 if self.circles[channel][j] == circle]  # fmt: skip
            if not k:
                continue
            columns = [self.parts[channel][0][i] for i in k]
            bound = math.pi if circle else self.bound
            knots = splines.knots_of(raw[:, k, :-1], bound, circle)
            turn = raw[:, k, -1] if circle else 0.0
            values = z[:, columns]
            if inverse:
                found = splines.inverse(values, knots) - turn
            else:
                moved = wrap(values + turn) if circle else values
                found, log_slope = splines.forward(moved, knots)
                log_jacobian = log_jacobian + log_slope.sum(-1)
            result[:, columns] = wrap(found) if circle else found
        return result, log_jacobian


def _products(h: Tensor, weight: Tensor) -> Tensor:
    """Products (m, d, P) of hidden states (m, width) with the weights (d, width, P)."""
    return (h @ weight.transpose(0, 1).flatten(1)).view(len(h), len(weight), -1)


def _halves(n: int, number: int) -> tuple[list[int], list[int]]:
    """Coordinates of n that a coupling maps, and the others; two couplings map all of them."""
    order = np.random.default_rng(number // 2).permutation(n).tolist()
    half = (n + 1) // 2
    mapped = order[:half] if number % 2 == 0 else order[half:]
    mapped = mapped or order  # a single coordinate is mapped every time
    return sorted(mapped), sorted(set(range(n)) - set(mapped))


@register("spline-flow", settings=SplineFlowConfig)
class SplineFlow(DensityModel):
    """Coupling splines between the events and a Gaussian, for angles a constant.

    Parameters
    ----------
    process : Process
    config : Config
    """

    conditional = True
    principal_axes = True

    @classmethod
    def network_settings(cls, config: Config) -> Collection[str] | None:
        return ()

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        self.settings = config.section(SplineFlowConfig)
        self.subprocess = SubprocessEmbedding(process, self.settings.width)
        self.couplings = nn.ModuleList(
            Coupling(self.layouts, i, self.settings) for i in range(self.settings.couplings)
        )
        shape = (*self.mean.shape, self.settings.marginal_bins + 1)
        line = torch.linspace(-1.0, 1.0, shape[-1]).expand(shape).clone()
        self.knots_x: Tensor
        self.knots_y: Tensor
        self.register_buffer("knots_x", line)
        self.register_buffer("knots_y", line.clone())

    @torch.no_grad()
    def fit_standardization(self, encoded: Encoded) -> None:
        """Take standardisation and the map of each coordinate from a sample."""
        super().fit_standardization(encoded)
        z = self.prepare(encoded.x, encoded.labels)
        bins = self.settings.marginal_bins
        for first, rows in self.by_channel(encoded.labels):
            weight = encoded.weight[rows].double().clamp_min(0.0)
            n = len(rows)
            if n < 2 or not weight.sum() > 0:
                continue
            same = torch.nonzero(self.alike == first).squeeze(-1)
            top = float(torch.special.ndtri(torch.tensor(1 - 0.5 / n, dtype=torch.float64)))
            for i, coordinate in enumerate(self.layouts[first]):
                if coordinate.periodic:
                    y = torch.linspace(-math.pi, math.pi, bins + 1, dtype=torch.float64)
                    part = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
                else:
                    y = torch.linspace(-top, top, bins + 1, dtype=torch.float64)
                    part = torch.special.ndtr(y)
                x = _quantiles(z[rows, i].double(), weight, part)
                if coordinate.periodic:
                    x[0], x[-1] = -math.pi, math.pi
                self.knots_x[same, i] = _apart(x).float()
                self.knots_y[same, i] = y.float()

    def _marginals(self, channel: int, circle: bool) -> tuple[list[int], splines.Knots]:
        """Coordinates of one kind, and the spline of each."""
        chosen = [i for i, c in enumerate(self.layouts[channel]) if c.periodic == circle]
        x, y = self.knots_x[channel, chosen], self.knots_y[channel, chosen]
        return chosen, splines.through(x, y, circle)

    def _to_base(self, z: Tensor, shown: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """Coordinates (m, D) where the density is simple, and the log Jacobian (m,)."""
        u, log_jacobian = z.clone(), z.new_zeros(len(z))
        for circle in (False, True):
            columns, knots = self._marginals(channel, circle)
            if columns:
                values = wrap(z[:, columns]) if circle else z[:, columns]
                u[:, columns], log_slope = splines.forward(values, _for_all(knots, len(z)))
                log_jacobian = log_jacobian + log_slope.sum(-1)
        for coupling in self.couplings:
            u, more = coupling(u, shown, channel)
            log_jacobian = log_jacobian + more
        return u, log_jacobian

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        result = z.new_zeros(len(z))
        shown = self.subprocess.of(subprocess)
        for channel, rows in self.by_channel(subprocess):
            layout = self.layouts[channel]
            u, log_jacobian = self._to_base(z[rows, : len(layout)], shown[rows], channel)
            line = [i for i, c in enumerate(layout) if not c.periodic]
            n_circles = len(layout) - len(line)
            log_p = -0.5 * (u[:, line] ** 2 + math.log(2 * math.pi)).sum(-1)
            log_p = log_p - n_circles * math.log(2 * math.pi) + log_jacobian
            result = result.index_put((rows,), log_p)
        return result

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        sizes = self.sizes[self.channel_of[which(subprocess)]]
        loss = weighted_mean(-self.log_prob_z(z, subprocess), weight, sizes)
        return loss + kl_divergence(self) / self.n_training if self.training else loss

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shown = self.subprocess.of(subprocess)
        return self.drawn_by_channel(
            subprocess, lambda rows, channel: self._drawn(channel, shown[rows], generator)
        )

    def _drawn(
        self, channel: int, shown: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Draws (m, D) of one channel."""
        layout, device = self.layouts[channel], shown.device
        u = torch.randn(len(shown), len(layout), generator=generator, device=device)
        circles = [i for i, c in enumerate(layout) if c.periodic]
        angles = torch.rand(len(shown), len(circles), generator=generator, device=device)
        u[:, circles] = math.pi * (2 * angles - 1)
        for coupling in reversed(self.couplings):
            u, _ = coupling(u, shown, channel, inverse=True)
        for circle in (False, True):
            columns, knots = self._marginals(channel, circle)
            if columns:
                found = splines.inverse(u[:, columns], _for_all(knots, len(u)))
                u[:, columns] = wrap(found) if circle else found
        return u


def _quantiles(values: Tensor, weight: Tensor, part: Tensor) -> Tensor:
    """Values below which these parts (k,) of the weights (n,) lie."""
    order = torch.argsort(values)
    below = weight[order].cumsum(0) / weight.sum()
    index = torch.searchsorted(below, part).clamp_max(len(values) - 1)
    return values[order][index]


def _apart(x: Tensor) -> Tensor:
    """Rising numbers (k,), moved apart where they are closer than bins may be."""
    step = _CLOSEST * torch.arange(len(x), dtype=x.dtype)
    return torch.cummax(x - step, 0).values + step


def _for_all(knots: splines.Knots, n: int) -> splines.Knots:
    """The same splines (d, K + 1) for n events."""
    return splines.Knots(*(t.expand(n, *t.shape) for t in knots))
