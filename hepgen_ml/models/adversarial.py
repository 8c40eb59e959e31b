r"""Generative adversarial network with MMD (arXiv:1907.03764).

A generator moves noise, a discriminator D tells its events from true ones, and each is trained
against the other, with a penalty on the gradient of the discriminator's logit
(arXiv:1705.09367). A resonance is a structure far smaller than the phase space. The maximum mean
discrepancy (MMD; Gretton et al., JMLR 13 (2012) 723) of an invariant mass,

.. math:: \mathrm{MMD}^2 = \langle k(x, x') \rangle - 2 \langle k(x, y) \rangle
    + \langle k(y, y') \rangle ,

between true x and generated y teaches its position and width by a kernel k that contains neither.
There is no likelihood.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.config import Config, Section
from hepgen_ml.errors import UsageError
from hepgen_ml.models.base import DensityModel, weighted_mean
from hepgen_ml.models.conditions import (
    Condition,
    CoordinateEmbedding,
    Layouts,
    SubprocessEmbedding,
)
from hepgen_ml.models.diffusion.ddpm import Noise
from hepgen_ml.models.flow.velocities import MLPVelocity
from hepgen_ml.models.registry import register
from hepgen_ml.phase_space.coordinates import wrap
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import values_of
from hepgen_ml.process.process import Process

_EVALUATION_SEED = 2
_BATCH = 65536
_LIMIT = 10.0
"""Bound of standardised coordinates for the computation of masses."""

_MOST = 1024
"""Number of events of a batch whose pairs are compared."""

_SCALES = (0.3, 1.0, 3.0)
"""Widths of the Gaussian kernels of standardised coordinates that judge a generator."""


class GANConfig(Section):
    """Generative adversarial network, and the MMD of chosen masses."""

    penalty: float = Field(
        1e-3, ge=0, description="Weight of the discriminator's squared gradient in its loss."
    )
    masses: tuple[str, ...] = Field(
        (), description="Particles whose invariant mass has an MMD term, as in 'Jet1 Jet2'."
    )
    mmd: float = Field(10.0, ge=0, description="Weight of the MMD of each of these masses.")
    kernel: Literal["breit-wigner", "gaussian"] = Field(
        "breit-wigner", description="Kernel of the MMD."
    )
    widths: tuple[float, ...] = Field(
        (1.0, 5.0, 25.0), min_length=1, description="Widths of the kernels in GeV, summed."
    )

    @field_validator("widths")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(width > 0 for width in value):
            raise ValueError("are widths above zero")
        return value


class Discriminator(nn.Module):
    """Logit of an event being true, by a residual network of its coordinates.

    Parameters
    ----------
    process : Process
    layouts : sequence of sequences of Coordinate
    config : Config
    """

    def __init__(self, process: Process, layouts: Layouts, config: Config) -> None:
        super().__init__()
        net = config.network
        hidden = net.width * net.mlp_ratio
        self.inputs = CoordinateEmbedding(layouts, net.width)
        self.subprocess = SubprocessEmbedding(process, net.width)
        self.up = nn.ModuleList(nn.Linear(net.width, hidden) for _ in range(net.blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, net.width) for _ in range(net.blocks))
        self.last = nn.Linear(net.width, 1)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        """Coordinates (m, D) of one channel -> logits (m,)."""
        h = self.inputs.total(z, condition.channel) + self.subprocess.of(condition.subprocess)
        for up, down in zip(self.up, self.down, strict=True):
            h = h + down(F.leaky_relu(up(h), 0.2))
        return self.last(F.leaky_relu(h, 0.2)).squeeze(-1)


@register("gan", settings=GANConfig)
class GAN(DensityModel):
    """Generator trained against a discriminator; without a likelihood.

    Both take their step by the gradient of one loss: the discriminator sees generated events
    without their history, and the generator sees the discriminator with its weights fixed.

    Parameters
    ----------
    process : Process
    config : Config
    """

    has_likelihood = False
    conditional = True
    early_stopping = False

    @classmethod
    def network_settings(cls, config: Config) -> Collection[str] | None:
        return MLPVelocity.settings

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        self.settings = config.section(GANConfig)
        self.channels = process.channels
        self.noise = Noise(process, self.layouts)
        self.generator = MLPVelocity(process, self.layouts, config)
        self.discriminator = Discriminator(process, self.layouts, config)
        self.circles = [torch.tensor([v.periodic for v in layout]) for layout in self.layouts]
        self.masses = _masses(process, self.settings.masses)

    @torch.no_grad()
    def fit_standardization(self, encoded: Encoded) -> None:
        """Take standardisation and the noise, which has the events' covariance, from a sample."""
        super().fit_standardization(encoded)
        z = self.prepare(encoded.x, encoded.labels)
        self.noise.fit(z, encoded.labels, encoded.weight, self.mean, self.std)

    def generated(self, noise: Tensor, condition: Condition) -> Tensor:
        """Events (m, D) of one channel that the generator makes of noise (m, D)."""
        moved = noise + self.generator(noise.new_ones(len(noise)), noise, condition)
        circle = self.circles[condition.channel].to(noise.device)
        return torch.where(circle, wrap(moved), moved)

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Sum of the losses of both networks; in evaluation mode the MMD of coordinates and masses.

        The losses of adversaries do not measure the quality of the generator. The MMD uses the same
        noise at every call.
        """
        if not self.training:
            generator = torch.Generator(device=z.device).manual_seed(_EVALUATION_SEED)
            return self._discrepancy(
                z, subprocess, weight, self.noise.sample(subprocess, generator)
            )
        noise = self.noise.sample(subprocess)
        of_true, of_made, of_masses = z.new_zeros(len(z)), z.new_zeros(len(z)), z.new_zeros(())
        for c, rows in self.by_channel(subprocess):
            condition, d = Condition(subprocess[rows], c), len(self.layouts[c])
            true, made = z[rows, :d], self.generated(noise[rows, :d], condition)
            fixed = {k: p.detach() for k, p in self.discriminator.named_parameters()}
            fooled = F.softplus(
                -torch.func.functional_call(self.discriminator, fixed, (made, condition))
            )
            at_true, at_made = (
                self._judged(x, condition, sign) for x, sign in ((true, 1.0), (made, -1.0))
            )
            # True events have their weights; generated events have the same total weight.
            alone = weight[rows].mean().clamp_min(0.0)
            of_true = of_true.index_put((rows,), at_true)
            of_made = of_made.index_put((rows,), alone * (at_made + fooled))
            share = len(rows) / len(z)
            of_masses = of_masses + share * self._mass_terms(true, made, weight[rows], condition)
        return weighted_mean(of_true, weight) + of_made.mean() + self.settings.mmd * of_masses

    def _judged(self, x: Tensor, condition: Condition, sign: float) -> Tensor:
        """Loss (m,) of the discriminator for true (1) or generated (-1) events, with penalty."""
        place = x.detach().requires_grad_()
        logit = self.discriminator(place, condition)
        loss = F.softplus(-sign * logit)
        if self.settings.penalty:
            (slope,) = torch.autograd.grad(logit.sum(), place, create_graph=True)
            wrong = torch.sigmoid(-sign * logit)
            loss = loss + 0.5 * self.settings.penalty * wrong**2 * (slope**2).sum(-1)
        return loss

    def _mass_terms(
        self, true: Tensor, made: Tensor, weight: Tensor, condition: Condition
    ) -> Tensor:
        """Sum of the MMD of all masses that a channel has."""
        total, c = true.new_zeros(()), condition.channel
        if not self.masses[c] or not self.settings.mmd:
            return total
        labels = condition.subprocess[:_MOST]
        x, y = (self._momenta(z[:_MOST], labels, c) for z in (true, made))
        for particles in self.masses[c]:
            a, b = (_mass(p[:, particles].sum(1)).to(true.dtype) for p in (x, y))
            total = total + _mmd(a, b, weight[:_MOST], self.settings.widths, self.settings.kernel)
        return total

    def _momenta(self, z: Tensor, labels: Tensor, c: int) -> Tensor:
        """Final-state momenta (m, n, 4) in GeV; the azimuth of the event is zero."""
        z = torch.where(self.circles[c].to(z.device), z, z.clamp(-_LIMIT, _LIMIT)).double()
        x = z * self.std[c, : z.shape[1]] + self.mean[c, : z.shape[1]]
        chart = self.channels[c].chart.given(values_of(labels))
        p, _ = chart.inverse(self.channels[c].join(x, x.new_zeros(len(x))))
        return p

    def _discrepancy(self, z: Tensor, subprocess: Tensor, weight: Tensor, noise: Tensor) -> Tensor:
        """Distance of generated from true events, a mean over events."""
        each = z.new_zeros(len(z))
        for c, rows in self.by_channel(subprocess):
            condition, d = Condition(subprocess[rows], c), len(self.layouts[c])
            true, made = z[rows, :d], self.generated(noise[rows, :d], condition)
            value = self._mass_terms(true, made, weight[rows], condition)
            for i in range(d):
                a, b = true[:_MOST, i], made[:_MOST, i]
                value = value + _mmd(a, b, weight[rows][:_MOST], _SCALES, "gaussian")
            each[rows] = value
        return weighted_mean(each, torch.ones_like(each))

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = self.noise.sample(subprocess, generator)
        z = torch.zeros_like(noise)
        for c, rows in self.by_channel(subprocess):
            d = len(self.layouts[c])
            for part in rows.split(_BATCH):
                z[part, :d] = self.generated(noise[part, :d], Condition(subprocess[part], c))
        return z


def _masses(process: Process, wanted: tuple[str, ...]) -> list[list[list[int]]]:
    """Numbers of the particles of each mass, for every channel that has them all."""
    found: list[list[list[int]]] = []
    for channel in process.channels:
        labels = list(channel.chart.labels)
        rows = [text.split() for text in wanted]
        found.append([[labels.index(n) for n in row] for row in rows if set(row) <= set(labels)])
    for text in wanted:
        if not text.split() or not any(
            set(text.split()) <= set(channel.chart.labels) for channel in process.channels
        ):
            known = sorted(
                {label for channel in process.channels for label in channel.chart.labels}
            )
            raise UsageError(
                f"gan.masses: no events have the particles {text[:100]!r}",
                remedy=f"name some of {' '.join(known)}",
            )
    return found


def _mass(p: Tensor) -> Tensor:
    """Masses (m,) of momenta (m, 4), negative where spacelike."""
    m2 = p[:, 3] ** 2 - (p[:, :3] ** 2).sum(-1)
    return torch.sign(m2) * torch.sqrt(m2.abs() + 1e-6)


def _mmd(x: Tensor, y: Tensor, weight: Tensor, widths: tuple[float, ...], kernel: str) -> Tensor:
    """Square of the discrepancy of true values (m,) with weights (m,) and generated ones (m,).

    Diagonals are kept, so that it is never negative but by weights.
    """
    part = weight / weight.sum().clamp_min(1e-3 * len(weight))
    same = torch.full_like(y, 1 / len(y))

    def mean(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> Tensor:
        d2 = (a.unsqueeze(1) - b.unsqueeze(0)) ** 2
        total = torch.zeros_like(d2)
        for width in widths:
            scaled = d2 / width**2
            total = total + (1 / (1 + 4 * scaled) if kernel == "breit-wigner"
                             else torch.exp(-0.5 * scaled))  # fmt: skip
        return of_a @ total @ of_b / len(widths)

    value = mean(x, x, part, part) - 2 * mean(x, y, part, same) + mean(y, y, same, same)
    return value.clamp_min(0.0)
