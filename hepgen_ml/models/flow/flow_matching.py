r"""Conditional flow matching (arXiv:2210.02747; for events arXiv:2305.10475, 2411.00446).

A network learns the velocity that carries a simple density at t = 0 to that of
the events at t = 1, along straight lines between draws of both,

.. math:: z_t = (1-t) z_0 + t z_1, \qquad
    \min_v \; E |v(t, z_t) - (z_1 - z_0)|^2 .

Sampling integrates dz/dt = v forward, the likelihood backward with the
divergence of v (instantaneous change of variables, arXiv:1806.07366).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.config import Config
from hepgen_ml.models.base import DensityModel, weighted_mean
from hepgen_ml.models.conditions import Condition
from hepgen_ml.models.flow.base_distribution import BaseDistribution
from hepgen_ml.models.flow.ode import integrate
from hepgen_ml.models.flow.settings import FlowConfig
from hepgen_ml.models.flow.velocities import VELOCITIES
from hepgen_ml.networks.bayesian import kl_divergence
from hepgen_ml.phase_space.coordinates import wrap
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

SUFFIX = "-cfm"

_SAMPLING_BATCH = {True: 4096, False: 65536}
_LIKELIHOOD_BATCH = {True: 1024, False: 16384}
"""Events followed together, on a CPU or not; the divergence keeps all activations."""

_LOG_RATIO = 5.3
"""Largest logarithm of t / (1 - t), up to 0.995, that Bayesian losses sample."""

_EVALUATION_SEED = 2
_PROBE_SEED = 3


class FlowMatching(DensityModel):
    """Density that flows from a base distribution, along a learned velocity.

    Angles are not standardised: their differences are taken the short way
    round, and velocities are periodic in them.

    Parameters
    ----------
    process : Process
    config : Config
        The velocity network is that of `config.model` without ``-cfm``.

    Attributes
    ----------
    settings : FlowConfig
        Solvers; may be replaced at any time.
    evaluations : int
        Evaluations of the network that the latest `sample_z` or `log_prob_z` took per event
        (the largest number of all batches).
    """

    conditional = True
    costly_likelihood = True
    settings_class = FlowConfig

    @classmethod
    def network_of(cls, model: str) -> str:
        """Name of the velocity network of a model."""
        return model.removesuffix(SUFFIX)

    @classmethod
    def suggested(cls, config: Config) -> Mapping[str, Any]:
        """What suits the velocity network."""
        return VELOCITIES[cls.network_of(config.model)].suggested

    @classmethod
    def network_settings(cls, config: Config) -> Collection[str] | None:
        return VELOCITIES[cls.network_of(config.model)].settings

    def __init__(self, process: Process, config: Config) -> None:
        super().__init__(process)
        self.settings = config.section(self.settings_class)
        self.evaluations = 0
        network = VELOCITIES[self.network_of(config.model)]
        self.velocity = network(process, self.layouts, config)
        self.velocity.make_bayesian(self.settings.bayesian, self.settings.prior_std)
        self.base = self.make_base(process)
        self.variance: Tensor
        self.periodic: Tensor
        self.real: Tensor
        self.register_buffer("variance", torch.ones_like(self.mean, dtype=torch.float32))
        periodic = torch.zeros(self.mean.shape, dtype=torch.bool)
        for c, layout in enumerate(self.layouts):
            periodic[c, : len(layout)] = torch.tensor([v.periodic for v in layout])
        self.register_buffer("periodic", periodic, persistent=False)
        self.register_buffer("real", (~periodic).float(), persistent=False)

    def make_base(self, process: Process) -> BaseDistribution:
        """Base distribution, to be fitted."""
        within = self.velocity.within_cuts
        if self.settings.base != "auto":
            within = self.settings.base == "cuts"
        return BaseDistribution(process, self.layouts, within_cuts=within)

    @torch.no_grad()
    def fit_standardization(self, encoded: Encoded) -> None:
        """Take standardisation, base distribution and the scale of velocities from a sample."""
        super().fit_standardization(encoded)
        self.velocity.fit(self.mean, self.std)
        z, subprocess = self.prepare(encoded.x, encoded.labels), encoded.labels
        self.base.fit(z, subprocess, encoded.weight, self.mean, self.std)
        self.fit_scale(z, encoded)

    def fit_scale(self, z: Tensor, encoded: Encoded) -> None:
        """Take the mean squares of the targets of the loss from events (m, D)."""
        subprocess = encoded.labels
        generator = torch.Generator(device=z.device).manual_seed(_EVALUATION_SEED)
        start = self.base.sample(subprocess, generator)
        # A scale, for which the size of weights is good enough and never negative.
        weight = encoded.weight.abs().to(z.dtype).unsqueeze(-1)
        for c, rows in self.by_channel(subprocess):
            square = self.displacement(start[rows], z[rows], c) ** 2
            mean_square = (weight[rows] * square).sum(0) / weight[rows].sum()
            self.variance[c, : len(mean_square)] = mean_square.clamp_min(1e-6)

    def displacement(self, start: Tensor, end: Tensor, channel: int) -> Tensor:
        """Way (m, D) from one point (m, D or more) to another, for angles in [-pi, pi)."""
        d = len(self.layouts[channel])
        change = end[:, :d] - start[:, :d]
        return torch.where(self.periodic[channel, :d], wrap(change), change)

    def speed(self, t: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Velocity (m, D) at times (m,) and coordinates (m, D).

        That of the network, to which with ``flow.gaussian`` the velocity is added that is exact
        where base and events are the same Gaussian: E[z_1 - z_0 | z_t] = (2t - 1) z_t / (t^2 +
        (1-t)^2) for standardised coordinates. It keeps the tails right, where a network that
        normalises its hidden states saturates.
        """
        v: Tensor = self.velocity(t, z, condition)
        if not self.settings.gaussian:
            return v
        slope = ((2 * t - 1) / (t**2 + (1 - t) ** 2)).unsqueeze(-1)
        return v + slope * self.real[condition.channel, : z.shape[1]] * z

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Mean over events of the squared error of the velocity.

        Summed over the coordinates, each in units of the mean square of its
        target. In evaluation mode, times and base points are the same at every
        call, so that losses of different networks can be compared. Where weights have a posterior,
        it is the bound on the likelihood instead, see `_bound`, and the divergence from the prior.
        """
        generator = None
        if not self.training:
            generator = torch.Generator(device=z.device).manual_seed(_EVALUATION_SEED)
        m = len(z)
        # One time from each of m equal intervals: less noise than independent ones.
        order = torch.randperm(m, generator=generator, device=z.device)
        t = (order + torch.rand(m, generator=generator, device=z.device)) / m
        if self.bayesian:
            t = torch.sigmoid(_LOG_RATIO * (2 * t - 1))
        start = self.base.sample(subprocess, generator)
        each = z.new_zeros(m)
        for c, rows in self.by_channel(subprocess):
            change = self.displacement(start[rows], z[rows], c)
            d = change.shape[1]
            place = start[rows, :d] + t[rows].unsqueeze(-1) * change
            error = self.speed(t[rows], place, Condition(subprocess[rows], c)) - change
            if self.bayesian:
                part = self._bound(t[rows].unsqueeze(-1) * error, subprocess[rows], c)
            else:
                part = (error**2 / self.variance[c, :d]).sum(-1)
            each = each.index_put((rows,), part)
        loss = weighted_mean(each, weight, self.sizes[self.channel_of[which(subprocess)]])
        return loss + kl_divergence(self) / self.n_training if self.training else loss

    def _bound(self, error: Tensor, subprocess: Tensor, channel: int) -> Tensor:
        r"""Part (m,) that events have in the bound on -log p, in nats.

        A straight path between a Gaussian and the events is a diffusion, and has its bound
        (arXiv:2107.00630)

        .. math:: \frac12 \int d\lambda\, E |\epsilon_\theta - \epsilon|^2 + \mathrm{const},
            \qquad \lambda = 2 \log\frac{t}{1-t} ,

        with noise in units of its covariance. Times are equidistant in lambda; beyond its limits
        there is no information. Only the excess over the minimum is meaningful: it measures the
        evidence for a velocity in units of events, to be weighed against the prior.

        Parameters
        ----------
        error : (m, D) tensor
            Of the base point that the velocity stands for.
        subprocess : (m,) tensor
        channel : int
        """
        pulls = self.base.whitened(error, subprocess) / self.base.spread(channel)
        return 2 * _LOG_RATIO * (pulls**2).sum(-1)

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.transport(self.base.sample(subprocess, generator), subprocess)

    @torch.no_grad()
    def transport(self, start: Tensor, subprocess: Tensor, *, backward: bool = False) -> Tensor:
        """Points to which points (m, D) of the base distribution flow, or the way back."""
        options = self.settings
        z = torch.zeros_like(start)
        self.evaluations = 0
        for c, rows in self.by_channel(subprocess):
            d = len(self.layouts[c])
            for part in rows.split(_SAMPLING_BATCH[z.device.type == "cpu"]):
                some = Condition(subprocess[part], c)

                def field(t: Tensor, y: Tensor, some: Condition = some) -> Tensor:
                    return self.speed(t.to(y.dtype).expand(len(y)), y, some)

                solution = integrate(
                    field,
                    start[part, :d],
                    solver=options.solver,
                    steps=options.steps,
                    tolerance=options.tolerance,
                    warp=options.warp,
                    backward=backward,
                )
                end = solution.state
                z[part, :d] = torch.where(self.periodic[c, :d], wrap(end), end)
                self.evaluations = max(self.evaluations, solution.evaluations)
        return z

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) float64 in standardised coordinates (m, D).

        Normalised up to the error of the solver; nan, never left out, where the
        flow is not finite. Not differentiable. With ``flow.divergence =
        "hutchinson"`` an unbiased estimate of the log density.
        """
        # The divergence needs gradients, which tensors of inference mode cannot have.
        with torch.inference_mode(False), torch.no_grad():
            z, subprocess = z.clone(), subprocess.clone()
            result = torch.empty(len(z), dtype=torch.float64, device=z.device)
            generator = torch.Generator(device=z.device).manual_seed(_PROBE_SEED)
            self.evaluations = 0
            for c, rows in self.by_channel(subprocess):
                for part in rows.split(_LIKELIHOOD_BATCH[z.device.type == "cpu"]):
                    result[part] = self._log_prob(z[part], subprocess[part], c, generator)
            return result

    def _log_prob(
        self, z: Tensor, subprocess: Tensor, channel: int, generator: torch.Generator
    ) -> Tensor:
        options, d = self.settings, len(self.layouts[channel])
        probe = None
        if options.divergence == "hutchinson":
            # One probe for the whole trajectory: the integrand must be the same function at
            # every stage, or no solver has its order and no adaptive one can judge its error.
            probe = torch.randint(0, 2, (len(z), d), generator=generator, device=z.device)
            probe = 2.0 * probe.to(z.dtype) - 1.0

        def field(t: Tensor, y: Tensor) -> Tensor:
            time = t.to(y.dtype).expand(len(y))
            with torch.enable_grad():
                place = y[:, :d].detach().requires_grad_()
                v = self.speed(time, place, Condition(subprocess, channel))
                change = divergence(v, place, probe)
            return torch.cat([v.detach(), change.unsqueeze(-1)], dim=-1)

        solution = integrate(
            field,
            torch.nn.functional.pad(z[:, :d], (0, 1)),
            solver=options.likelihood_solver,
            steps=options.likelihood_steps,
            tolerance=options.tolerance,
            warp=options.warp,
            backward=True,
        )
        self.evaluations = max(self.evaluations, solution.evaluations)
        start = torch.nn.functional.pad(solution.state[:, :d], (0, z.shape[1] - d))
        return self.base.log_prob(start, subprocess) + solution.state[:, d].double()


def divergence(v: Tensor, z: Tensor, probe: Tensor | None = None) -> Tensor:
    """Divergence (m,) of a velocity (m, D) at z (m, D), which it was computed from.

    Reverse-mode derivatives of each component, or with a probe e (m, D) of
    independent signs Hutchinson's estimate e . (dv/dz) e, one derivative in all.
    """
    if probe is not None:
        (gradient,) = torch.autograd.grad(v, z, probe)
        return (gradient * probe).sum(-1)
    total = torch.zeros(len(z), device=z.device, dtype=z.dtype)
    for i in range(z.shape[1]):
        (gradient,) = torch.autograd.grad(v[:, i].sum(), z, retain_graph=True)
        total = total + gradient[:, i]
    return total
