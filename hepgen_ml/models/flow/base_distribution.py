"""Base distribution of flow matching: fitted to the events, and to their acceptance on demand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hepgen_ml.errors import ModelError
from hepgen_ml.events.weights import effective_size
from hepgen_ml.models.conditions import Layouts
from hepgen_ml.models.mixtures import LOG_KAPPA, sample_von_mises, von_mises_log_prob
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process

UNREJECTED = 0.01
"""Fraction of draws without rejection, so that no event has density zero: an event that the flow
maps to a point just outside the acceptance would make every mean likelihood infinite."""

_PROPOSALS = 200_000
"""Draws per channel from which the acceptance is estimated; its error is 0.1 % at most."""

_MAX_ROUNDS = 1000
"""Largest number of redraws before the acceptance counts as unreachable."""

_MAX_KAPPA = 10.0
"""Largest concentration of an angle; a base narrower than the events would have no tails."""


class BaseDistribution(nn.Module):
    r"""Gaussian times von Mises density of each channel, which may be restricted to the acceptance.

    The Gaussian has the mean and covariance of the events' real coordinates, and angles have
    independent von Mises densities. Their product N is the density; within the cuts it is

    .. math:: p_0(z) = (1 - \epsilon) N(z) 1[z \in \mathcal{A}] / A + \epsilon N(z)

    with the acceptance A of N. It integrates to one. Its edges are a structure that the velocity
    has to follow at early times, at the price of a less precise density.

    Parameters
    ----------
    process : Process
    layouts : sequence of sequences of Coordinate
        Learned coordinates of every channel.
    within_cuts : bool
        Whether draws are rejected to the acceptance.
    uniform_angles : bool
        Whether angles have a constant density instead of one that is fitted.

    Attributes
    ----------
    acceptance, acceptance_error : (channels,) float64 tensors
        A and its standard error, averaged over the channel's subprocesses.
    """

    mean: Tensor
    std: Tensor
    location: Tensor
    cholesky: Tensor
    log_kappa: Tensor
    acceptance: Tensor
    acceptance_error: Tensor
    channel_of: Tensor

    def __init__(
        self,
        process: Process,
        layouts: Layouts,
        *,
        within_cuts: bool = True,
        uniform_angles: bool = False,
    ) -> None:
        super().__init__()
        self.process, self.within_cuts = process, within_cuts
        self.uniform_angles = uniform_angles
        self.angles = [[i for i, c in enumerate(layout) if c.periodic] for layout in layouts]
        self.reals = [[i for i, c in enumerate(layout) if not c.periodic] for layout in layouts]
        n, d = len(layouts), process.n_coordinates
        start = {
            "mean": torch.zeros(n, d),
            "std": torch.ones(n, d),
            "location": torch.zeros(n, d),
            "cholesky": torch.eye(d).repeat(n, 1, 1),
            "log_kappa": torch.full((n, d), LOG_KAPPA[0]),
            "acceptance": torch.ones(n),
            "acceptance_error": torch.zeros(n),
        }
        for name, value in start.items():
            self.register_buffer(name, value.to(torch.float64))
        self.register_buffer("channel_of", process.channel_of, persistent=False)

    @torch.no_grad()
    def fit(self, z: Tensor, subprocess: Tensor, weight: Tensor, mean: Tensor, std: Tensor) -> None:
        """Take location and shape from events, and estimate the acceptance.

        Parameters
        ----------
        z : (m, D) tensor
            Standardised coordinates.
        subprocess : (m,) int64 tensor
        weight : (m,) tensor
        mean, std : (channels, D) tensors
            Of the standardisation: x = mean + std z, the coordinates that cuts act on.
        """
        self.mean.copy_(mean)
        self.std.copy_(std)
        generator = torch.Generator(device=z.device).manual_seed(1)
        channel = self.channel_of[which(subprocess)]
        for c in range(len(self.angles)):
            rows = torch.nonzero(channel == c).squeeze(-1)
            if len(rows) == 0:
                continue
            self._fit_channel(c, z[rows].double(), weight[rows].double())
            if not self.within_cuts:
                continue
            some = torch.randint(len(rows), (_PROPOSALS,), generator=generator, device=z.device)
            proposed = subprocess[rows[some]]
            accepted = self._inside(self._propose(proposed, generator), proposed).double()
            a = accepted.mean().clamp_min(1 / _PROPOSALS)
            self.acceptance[c] = a
            self.acceptance_error[c] = torch.sqrt(a * (1 - a) / _PROPOSALS)

    def _fit_channel(self, c: int, z: Tensor, weight: Tensor) -> None:
        # The base need not be exact, but a covariance has to be positive: signs are left out.
        w = weight.abs() / weight.abs().sum()
        effective = effective_size(w)
        real, angles = z[:, self.reals[c]], self.angles[c]
        location = w @ real
        covariance = (w * (real - location).t()) @ (real - location)
        # Few events determine no covariance: shrink towards that of standardised coordinates.
        prior = real.shape[1] / (effective + real.shape[1])
        unit = torch.eye(real.shape[1], dtype=torch.float64, device=z.device)
        factor = torch.linalg.cholesky((1 - prior) * covariance + prior * unit)
        columns = torch.tensor(self.reals[c], device=z.device)
        self.location[c, columns] = location
        self.cholesky[c, columns.unsqueeze(1), columns] = factor
        for i in () if self.uniform_angles else angles:
            x, y = w @ torch.cos(z[:, i]), w @ torch.sin(z[:, i])
            self.location[c, i] = torch.atan2(y, x)
            length = float(torch.hypot(x, y))
            # Shorter mean directions occur in uniform samples of this size.
            uniform = length < max(0.02, 2 / math.sqrt(effective))
            self.log_kappa[c, i] = LOG_KAPPA[0] if uniform else math.log(concentration(length))

    def sample(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standardised coordinates (m, D) float32 for these subprocesses (m,).

        Raises
        ------
        ModelError
            The acceptance is never reached.
        """
        z = self._propose(subprocess, generator)
        if not self.within_cuts:
            return z
        u = torch.rand(len(z), generator=generator, device=z.device)
        todo = torch.nonzero(u >= UNREJECTED).squeeze(-1)
        for _ in range(_MAX_ROUNDS):
            todo = todo[~self._inside(z[todo], subprocess[todo])]
            if len(todo) == 0:
                return z
            z[todo] = self._propose(subprocess[todo], generator)
        raise ModelError(
            f"the base distribution of {len(todo)} of {len(z)} events does not reach the cuts",
            remedy="train with --set flow.base=gaussian",
        )

    def log_prob(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Log density (m,) float64 of standardised coordinates (m, D); angles may be unwrapped."""
        log_p = torch.empty(len(z), dtype=torch.float64, device=z.device)
        channel = self.channel_of[which(subprocess)]
        for c in torch.unique(channel).tolist():
            rows = channel == c
            log_p[rows] = self._log_proposal(z[rows].double(), c)
        if not self.within_cuts:
            return log_p
        inside = self._inside(z, subprocess).double()
        restricted = (1 - UNREJECTED) / self.acceptance[channel] * inside
        return log_p + torch.log(restricted + UNREJECTED)

    def _log_proposal(self, z: Tensor, c: int) -> Tensor:
        columns = torch.tensor(self.reals[c], device=z.device)
        factor = self.cholesky[c, columns.unsqueeze(1), columns]
        centred = (z[:, columns] - self.location[c, columns]).t()
        pull = torch.linalg.solve_triangular(factor, centred, upper=False)
        norm = factor.diagonal().log().sum() + 0.5 * len(columns) * math.log(2 * math.pi)
        total = -0.5 * (pull**2).sum(0) - norm
        for i in self.angles[c]:
            total = total + von_mises_log_prob(z[:, i], self._von_mises(c, i))
        return total

    def whitened(self, change: Tensor, subprocess: Tensor) -> Tensor:
        """Changes (m, D) of points in units of the Gaussian's covariance; angles as they are."""
        channel, result = self.channel_of[which(subprocess)], torch.zeros_like(change)
        for c in torch.unique(channel).tolist():
            rows, d = torch.nonzero(channel == c).squeeze(-1), change.shape[1]
            factor = self.cholesky[c, :d, :d].to(change.dtype)
            solved = torch.linalg.solve_triangular(factor, change[rows].t(), upper=False)
            result = result.index_put((rows,), solved.t())
        return result

    def spread(self, channel: int) -> Tensor:
        """Standard deviations (D,) of whitened coordinates: one, and that of a uniform angle."""
        d = self._size(channel)
        spread = torch.ones(d, device=self.mean.device)
        spread[self.angles[channel]] = math.pi / math.sqrt(3)
        return spread

    def _propose(self, subprocess: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws (m, D) float32 of the unrestricted density."""
        device, d = self.mean.device, self.mean.shape[1]
        z = torch.zeros(len(subprocess), d, device=device, dtype=torch.float64)
        noise = torch.randn(z.shape, generator=generator, device=device, dtype=torch.float64)
        channel = self.channel_of[which(subprocess)]
        for c in torch.unique(channel).tolist():
            rows, n = torch.nonzero(channel == c).squeeze(-1), self._size(c)
            z[rows, :n] = (self.location[c] + noise[rows] @ self.cholesky[c].t())[:, :n]
            for i in self.angles[c]:
                z[rows, i] = sample_von_mises(self._von_mises(c, i).expand(len(rows), 3), generator)
        # Rounded here, so that the cuts apply to the number that is used.
        return z.to(torch.float32)

    def _von_mises(self, c: int, i: int) -> Tensor:
        """Parameters (3,) of an angle as a mixture of one component."""
        location, log_kappa = self.location[c, i], self.log_kappa[c, i]
        return torch.stack([torch.zeros_like(location), location, log_kappa])

    def _size(self, c: int) -> int:
        return len(self.angles[c]) + len(self.reals[c])

    def _inside(self, z: Tensor, subprocess: Tensor) -> Tensor:
        """Mask (m,) of coordinates whose events pass all cuts."""
        c = self.channel_of[which(subprocess)]
        x = z.double() * self.std[c] + self.mean[c]
        phi = torch.zeros(len(z))
        return self.process.kinematics(x, subprocess.cpu(), phi).passes.to(z.device)


def concentration(length: float) -> float:
    """Concentration of a von Mises density from the length of the mean direction.

    Approximation of N. I. Fisher, Statistical Analysis of Circular Data
    (1993), section 4.5.5; at most `_MAX_KAPPA`.
    """
    r = length
    if r < 0.53:
        kappa = 2 * r + r**3 + 5 * r**5 / 6
    elif r < 0.85:
        kappa = -0.4 + 1.39 * r + 0.43 / (1 - r)
    else:
        kappa = 1 / max(r**3 - 4 * r**2 + 3 * r, 1 / _MAX_KAPPA)
    return min(kappa, _MAX_KAPPA)
