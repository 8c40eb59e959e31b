"""Deep ensemble: several densities of the same kind, trained side by side (arXiv:1612.01474).

Members differ by their first weights and by all random numbers of their training. Their spread is
an uncertainty, as that of the draws of a posterior, and is used in the same way: draw k is member
k, and its density over the mean of all is a weight of events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepgen_ml.models.base import DensityModel, Draws, Inside
from hepgen_ml.networks.bayesian import Members
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process


class Ensemble(DensityModel, Members):
    """Equal mixture of densities, or the one of them that `set_draw` has chosen.

    Parameters
    ----------
    process : Process
    members : sequence of DensityModel
        Two at least, with weights of their own.
    """

    def __init__(self, process: Process, members: Sequence[DensityModel]) -> None:
        super().__init__(process)
        self.members = nn.ModuleList(members)
        first = members[0]
        self.learns_rates, self.has_likelihood = first.learns_rates, first.has_likelihood
        self.early_stopping, self.conditional = first.early_stopping, first.conditional
        self.costly_likelihood = first.costly_likelihood

    def _all(self) -> list[DensityModel]:
        return [member for member in self.members if isinstance(member, DensityModel)]

    def _used(self) -> list[DensityModel]:
        """Members of the mixture, or the chosen one."""
        return self._all() if self.drawn is None else [self._all()[self.drawn]]

    @property
    def n_members(self) -> int:
        return len(self.members)

    @property
    def most_draws(self) -> float:
        """Number of members, more where these have posteriors; none without a likelihood."""
        if not self.has_likelihood:
            return 0
        return math.inf if self.bayesian else self.n_members

    def fit_standardization(self, encoded: Encoded) -> None:
        """Prepare all members for the ranges of a sample."""
        super().fit_standardization(encoded)
        for member in self._all():
            member.fit_standardization(encoded)

    def loss(self, z: Tensor, subprocess: Tensor, weight: Tensor) -> Tensor:
        """Mean of the losses of all members."""
        losses = []
        for member in self._all():
            member.n_training, member.progress = self.n_training, self.progress
            losses.append(member.loss(z, subprocess, weight))
        return torch.stack(losses).mean()

    def log_prob_z(self, z: Tensor, subprocess: Tensor) -> Tensor:
        each = torch.stack([m.log_prob_z(z, subprocess).double() for m in self._used()])
        return each.logsumexp(0) - math.log(len(each))

    @torch.no_grad()
    def sample_z(self, subprocess: Tensor, generator: torch.Generator | None = None) -> Tensor:
        used = self._used()
        if len(used) == 1:
            return used[0].sample_z(subprocess, generator)
        device = subprocess.device
        drawn = torch.randint(
            len(used), subprocess.shape[:1], generator=generator, device=device
        )
        z = torch.zeros(len(subprocess), self.mean.shape[1], device=self.mean.device)
        for k, member in enumerate(used):
            rows = torch.nonzero(drawn == k).squeeze(-1)
            if len(rows):
                z[rows] = member.sample_z(subprocess[rows], generator)
        return z

    def sample_events(
        self,
        n: int,
        generator: torch.Generator | None = None,
        inside: Inside | None = None,
        conditions: Tensor | None = None,
    ) -> Draws:
        """Draw events and their subprocesses, each from one member."""
        used = self._used()
        device = self.mean.device
        drawn = torch.randint(len(used), (n,), generator=generator, device=device)
        x = torch.zeros(n, self.mean.shape[1], device=device, dtype=torch.float64)
        subprocess = torch.zeros(n, dtype=torch.int64, device=device)
        n_drawn = n_inside = 0
        for k, member in enumerate(used):
            rows = torch.nonzero(drawn == k).squeeze(-1)
            if len(rows):
                given = () if conditions is None else (conditions[rows.to(conditions.device)],)
                draws = member.sample_events(len(rows), generator, inside, *given)
                x[rows], subprocess[rows] = draws.x, draws.subprocess
                n_drawn, n_inside = n_drawn + draws.n_drawn, n_inside + draws.n_inside
        return Draws(x, subprocess, n_drawn, n_inside)

    def acceptance(
        self, inside: Inside, n: int, generator: torch.Generator | None = None
    ) -> list[float]:
        """Mean over members."""
        each = [member.acceptance(inside, n, generator) for member in self._all()]
        return torch.tensor(each, dtype=torch.float64).mean(0).tolist()

    def before_training(self, events: Encoded, rate: Tensor | None) -> None:
        for member in self._all():
            member.before_training(events, rate)

    def after_training(
        self, events: Encoded, inside: Inside, generator: torch.Generator, most: int
    ) -> None:
        for member in self._all():
            member.after_training(events, inside, generator, most // self.n_members)
