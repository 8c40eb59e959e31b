r"""Denoising diffusion (DDPM, arXiv:2006.11239; for events arXiv:2305.10475).

A chain of T steps turns events into noise, :math:`z_t = \alpha_t z_0 + \sigma_t \epsilon`, and a
network learns to predict the noise, :math:`\min E|\epsilon_\theta(t, z_t) -
\epsilon|^2`. The noise has the covariance of the events, as in the papers, which whiten events
instead. Then Gaussian events would have the noise :math:`\sigma_t z_t`, and the network learns by
default what differs from that,

.. math:: \epsilon_\theta = \sigma_t z_t + \alpha_t v_\theta(t, z_t) ,

where v is also the velocity dz/d\varphi of the probability flow (arXiv:2011.13456) in the angle of
:math:`\alpha = \cos\varphi, \sigma = \sin\varphi`: a diffusion is a flow along circles
instead of straight lines, and has its likelihood from the same integral.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from hepgen_ml.config import Config
from hepgen_ml.models.base import weighted_mean
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.diffusion import chain
from hepgen_ml.models.diffusion.settings import DiffusionConfig
from hepgen_ml.models.flow.base_distribution import BaseDistribution
from hepgen_ml.models.flow.flow_matching import (
    _EVALUATION_SEED,
    _SAMPLING_BATCH,
    FlowMatching,
)
from hepgen_ml.networks.bayesian import kl_divergence
from hepgen_ml.phase_space.coordinates import wrap
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

_DEFAULT_NETWORK = "mlp"

_FARTHEST = 10.0
"""Bound of clean coordinates from noise prediction, in standard deviations."""

_CHAIN = ("dpm2m", "ddim", "ancestral")
"""Samplers that go from level to level of the noise; others integrate the probability flow."""


class Noise(BaseDistribution):
    """End of the chain: a Gaussian of the events' covariance, and a constant for angles."""

    def noise(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Noise (m, D) float32 of the events' covariance, for angles of one radian."""
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        draw = torch.randn(z.shape, generator=generator, device=z.device)
        channel = self.channel_of[which(subprocess)]
        for c in torch.unique(channel).tolist():
            rows, n = torch.nonzero(channel == c).squeeze(-1), self._size(c)
            z[rows, :n] = (draw[rows] @ self.cholesky[c].to(z.dtype).t())[:, :n]
        return z


class Diffusion(FlowMatching):
    """Density from which a chain of noisy steps leads to a Gaussian, and a network back.

    Parameters
    ----------
    process : Process
    config : Config
        The noise network is that of `config.model` after ``ddpm-``.

    Attributes
    ----------
    levels : (T,) float64 tensor
        Angles of the noise levels.
    """

    settings: DiffusionConfig  # type: ignore[assignment]
    settings_class = DiffusionConfig  # type: ignore[assignment]
    base: Noise

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process, config)
        self.levels = chain.levels(self.settings.schedule, self.settings.timesteps)

    @classmethod
    def network_of(cls, model: str) -> str:
        return model.removeprefix("ddpm").removeprefix("-") or _DEFAULT_NETWORK

    def make_base(self, process: Process) -> Noise:
        return Noise(process, self.layouts, within_cuts=False, uniform_angles=True)

    def fit_scale(self, z: Tensor, encoded: Encoded) -> None:
        """Measure errors of the noise in units of its own size."""
        self.variance.copy_((self.base.cholesky**2).sum(-1))

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Mean over events of the squared error of the noise, or of the velocity.

        Summed over the coordinates, each in units of its noise. In evaluation mode, levels and
        noise are the same at every call, so that losses of different networks can be compared.
        """
        generator = None
        if not self.training:
            generator = torch.Generator(device=z.device).manual_seed(_EVALUATION_SEED)
        m, levels = len(z), self.levels.to(z.device)
        # One level from each of m equal intervals: less noise than independent ones.
        order = torch.randperm(m, generator=generator, device=z.device)
        t = (order + torch.rand(m, generator=generator, device=z.device)) / m
        if self.bayesian:  # equidistant in lambda = log(alpha^2 / sigma^2)
            ratio = -2 * torch.log(torch.tan(levels))
            index = torch.searchsorted(-ratio, (ratio[0] - ratio[-1]) * t - ratio[0])
        else:
            index = (t * len(levels)).long()
        angle = levels[index.clamp_max(len(levels) - 1)].to(z.dtype)
        noise = self.base.noise(subprocess, generator)
        each = z.new_zeros(m)
        for c, rows in self.by_channel(subprocess):
            d, condition = len(self.layouts[c]), Condition(subprocess[rows], c)
            signal, size = chain.scale(angle[rows], self.periodic[c, :d])
            clean, added = z[rows, :d] - self._location(condition), noise[rows, :d]
            noisy = signal * clean + size * added
            target = added
            if self.settings.prediction == "velocity":
                target = torch.where(self.periodic[c, :d], added, signal * added - size * clean)
            found = self._network(angle[rows], noisy + self._location(condition), condition)
            if self.bayesian:
                part = self._bound_at(angle[rows], found - target, condition)
            else:
                part = ((found - target) ** 2 / self.variance[c, :d]).sum(-1)
            each = each.index_put((rows,), part)
        loss = weighted_mean(each, weight, self.sizes[self.channel_of[which(subprocess)]])
        return loss + kl_divergence(self) / self.n_training if self.training else loss

    def _bound_at(self, angle: Tensor, error: Tensor, condition: Condition) -> Tensor:
        """Part (m,) that events have in the bound on -log p, for errors (m, D) of the output.

        Half of the integral of the squared error of the noise over lambda = log(signal^2 /
        noise^2), as in `FlowMatching`; that of circles changes less at the noisiest levels.
        """
        periodic = self.periodic[condition.channel, : error.shape[1]]
        cos, sin = torch.cos(angle).unsqueeze(-1), torch.sin(angle).unsqueeze(-1)
        around = cos / torch.sqrt(cos**2 + (sin / chain.WIDEST) ** 2)
        of_noise = cos if self.settings.prediction == "velocity" else torch.ones_like(cos)
        factor = torch.where(periodic, around, of_noise)
        pulls = self.base.whitened(factor * error, condition.subprocess)
        most, least = (math.log(math.tan(float(self.levels[i]))) for i in (-1, 0))
        return (most - least) * (pulls**2).sum(-1)

    def _location(self, condition: Condition) -> Tensor:
        """Centre (m, D) of the noise, for angles zero."""
        channel = self.channel_of[which(condition.subprocess)]
        d = len(self.layouts[condition.channel])
        return self.base.location[channel, :d].to(torch.float32)

    def _network(self, angle: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Output (m, D) of the network at noise levels (m,); its time goes from noise to events."""
        out: Tensor = self.velocity(1 - angle * (2 / math.pi), z, condition)
        return out

    def clean_of(self, angle: Tensor, z: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Mean clean coordinates (m, D) of noisy ones, relative to the centre, and the noise.

        Parameters
        ----------
        angle : (m,) tensor
            Of the noise levels.
        z : (m, D) tensor
            Noisy coordinates.
        condition : Condition
        """
        channel, d = condition.channel, z.shape[1]
        periodic, y = self.periodic[channel, :d], z - self._location(condition)
        signal, size = chain.scale(angle, periodic)
        found = self._network(angle, z, condition)
        if self.settings.prediction == "velocity":
            clean = torch.where(periodic, y - size * found, signal * y - size * found)
            return clean, torch.where(periodic, found, size * y + signal * found)
        # Without signal, this quotient of small numbers is meaningless.
        most = torch.where(periodic, math.inf, _FARTHEST * torch.sqrt(self.variance[channel, :d]))
        return torch.clamp((y - size * found) / signal, -most, most), found

    def speed(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Velocity (m, D) of the probability flow at times (m,) from zero (noise) to one."""
        last = float(self.levels[-1])
        angle = last * (1 - t)
        cos, sin = torch.cos(angle).unsqueeze(-1), torch.sin(angle).unsqueeze(-1)
        clean, noise = self.clean_of(angle, z, condition)
        around = chain.widening(angle).unsqueeze(-1) * noise
        periodic = self.periodic[condition.channel, : z.shape[1]]
        return -last * torch.where(periodic, around, cos * noise - sin * clean)

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        start = self.base.sample(subprocess, generator)
        if self.settings.solver not in _CHAIN:
            return self.transport(start, subprocess)
        z = torch.zeros_like(start)
        self.evaluations = 0
        for c, rows in self.by_channel(subprocess):
            d = len(self.layouts[c])
            for part in rows.split(_SAMPLING_BATCH[z.device.type == "cpu"]):
                end = self._denoised(start[part, :d], Condition(subprocess[part], c), generator)
                z[part, :d] = torch.where(self.periodic[c, :d], wrap(end), end)
        return z

    def _denoised(
        self, z: Tensor, condition: Condition, generator: torch.Generator | None
    ) -> Tensor:
        """Events (m, D) from noise (m, D), level by level."""
        how, periodic = self.settings, self.periodic[condition.channel, : z.shape[1]]
        if how.solver == "ancestral":
            angles = [*self.levels.flip(0).tolist(), 0.0]
        else:
            angles = chain.few_levels(float(self.levels[-1]), how.steps, how.warp)
        location = self._location(condition)
        y = z - location
        before: tuple[Tensor, float] | None = None
        for now, then in pairwise(angles):
            here, there = (chain.scale(z.new_tensor(a), periodic) for a in (now, then))
            clean, _ = self.clean_of(y.new_full((len(y),), now), y + location, condition)
            if how.solver == "ancestral":
                draw = self.base.noise(condition.subprocess, generator)[:, : y.shape[1]]
                y = chain.random_step(y, clean, here, there, draw)
                continue
            middle = clean
            if how.solver == "dpm2m" and before is not None and then > 0:
                middle = chain.extrapolated(clean, *before, now, then)
            y = chain.deterministic_step(y, middle, here, there)
            before = clean, now
        self.evaluations = max(self.evaluations, len(angles) - 1)
        return y + location
