"""Heads that are drawn given the kinematics: colour flow and helicities, scale and couplings.

Two categorical variables (the pattern of colours and helicities; which formula
the scale follows) and a one-dimensional density for each scale or coupling that
no formula explains. The networks see the standardised coordinates and the
logarithms of all pair invariants, on which amplitudes and clusterings depend.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from hepgen_ml.models.categorical import TRUNK_WIDTH, CategoricalHead, Trunk
from hepgen_ml.models.mixtures import gaussian_log_prob, sample_gaussian
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.process.labels import relabelled, which
from hepgen_ml.process.process import Process

_MIXTURES = 16


class FreeHead(nn.Module):
    """Densities of the scales and couplings that no formula explains.

    Parameters
    ----------
    process : Process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        tables = {id(c.auxiliaries): c.auxiliaries for c in process.channels}
        n_branches = max(len(a.branches) for a in tables.values())
        free = torch.zeros(len(tables), n_branches, len(AUXILIARY), dtype=torch.bool)
        for own, rules in zip(free, tables.values(), strict=True):
            own[: len(rules.branches)] = torch.from_numpy(rules.is_free(rules.branches))
        number = {key: i for i, key in enumerate(tables)}
        of_channel = torch.tensor([number[id(c.auxiliaries)] for c in process.channels])
        mask = free[of_channel[process.channel_of]]
        self.mask: Tensor
        self.shift: Tensor
        self.stretch: Tensor
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("shift", torch.zeros(len(AUXILIARY)))
        self.register_buffer("stretch", torch.ones(len(AUXILIARY)))
        self.n_branches = n_branches
        n_conditions = len(process.subprocesses) * n_branches
        self.trunk = Trunk(process, n_conditions, len(AUXILIARY))
        self.last = nn.ModuleList(nn.Linear(TRUNK_WIDTH, 3 * _MIXTURES) for _ in AUXILIARY)

    @property
    def trivial(self) -> bool:
        """Whether no scale or coupling is free."""
        return not bool(self.mask.any())

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take the ranges of the free values from a sample."""
        self.trunk.fit_standardization(encoded)
        mask = self.mask[encoded.subprocess, encoded.branch]
        for k in range(len(AUXILIARY)):
            values = encoded.free[mask[:, k], k]
            if len(values) > 1 and float(values.std()) > 1e-9:
                self.shift[k], self.stretch[k] = values.mean().float(), values.std().float()

    def _condition_of(self, labels: Tensor, branch: Tensor) -> Tensor:
        """Labels with subprocess and branch (m,) as one number."""
        return relabelled(labels, which(labels) * self.n_branches + branch)

    def _parameters_of(
        self, k: int, z: Tensor, invariants: Tensor, condition: Tensor, known: Tensor
    ) -> Tensor:
        """Mixture parameters of value k, given the standardised earlier ones (m, 3)."""
        return self.last[k](self.trunk(z, invariants, condition, known))

    def log_prob(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, branch: Tensor, free: Tensor
    ) -> Tensor:
        """Log density (m,) of the free logarithms among `free` (m, 3)."""
        total = z.new_zeros(len(z))
        mask = self.mask[which(subprocess), branch]
        u = ((free.to(z.dtype) - self.shift) / self.stretch) * mask
        for k in range(len(AUXILIARY)):
            rows = torch.nonzero(mask[:, k]).squeeze(-1)
            if len(rows) == 0:
                continue
            known = u[rows] * (torch.arange(len(AUXILIARY), device=z.device) < k)
            condition = self._condition_of(subprocess[rows], branch[rows])
            parameters = self._parameters_of(k, z[rows], invariants[rows], condition, known)
            log_p = gaussian_log_prob(u[rows, k], parameters) - torch.log(self.stretch[k])
            total = total.index_add(0, rows, log_p)
        return total

    def sample(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        branch: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logarithms over the reference (m, 3), zero where they are exact."""
        mask = self.mask[which(subprocess), branch]
        u = torch.zeros(len(z), len(AUXILIARY), device=z.device)
        for k in range(len(AUXILIARY)):
            rows = torch.nonzero(mask[:, k]).squeeze(-1)
            if len(rows) == 0:
                continue
            condition = self._condition_of(subprocess[rows], branch[rows])
            parameters = self._parameters_of(k, z[rows], invariants[rows], condition, u[rows])
            u[rows, k] = sample_gaussian(parameters, generator)
        return (u * self.stretch + self.shift) * mask


class Heads(nn.Module):
    """All heads: the properties that are drawn given the kinematics.

    Parameters
    ----------
    process : Process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        subprocesses = process.subprocesses
        self.patterns = CategoricalHead(
            process,
            [s.patterns for s in subprocesses],
            [s.pattern_frequency for s in subprocesses],
        )
        branches = [channel.auxiliaries.branches for channel in process.channels]
        # Branches of different channels are unrelated and have separate numbers.
        marked = [
            np.concatenate([np.full((len(b), 1), c, dtype=np.int32), b], axis=1)
            for c, b in enumerate(branches)
        ]
        flat = [np.full(len(b), 1.0 / len(b)) for b in branches]
        self.branches = CategoricalHead(
            process, [marked[s.chart] for s in subprocesses], [flat[s.chart] for s in subprocesses]
        )
        self.free = FreeHead(process)

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take all ranges from a sample."""
        self.patterns.trunk.fit_standardization(encoded)
        self.branches.trunk.fit_standardization(encoded)
        self.free.fit_standardization(encoded)

    def compacted(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Stored tensors with the log frequencies as these heads keep them."""
        found = dict(tensors)
        for name, head in (("patterns", self.patterns), ("branches", self.branches)):
            key = f"{prefix}{name}.prior"
            if key in found:
                found[key] = head.compacted(found[key])
        return found

    def log_prob(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, discrete: Discrete
    ) -> Tensor:
        """Sum of all log probabilities and log densities (m,)."""
        total = self.patterns.log_prob(z, invariants, subprocess, discrete.pattern)
        total = total + self.branches.log_prob(z, invariants, subprocess, discrete.branch)
        if self.free.trivial:
            return total
        return total + self.free.log_prob(z, invariants, subprocess, discrete.branch, discrete.free)

    def sample(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        generator: torch.Generator | None = None,
    ) -> Discrete:
        """Draw patterns, branches and free values for events (m,)."""
        pattern = self.patterns.sample(z, invariants, subprocess, generator)
        branch = self.branches.sample(z, invariants, subprocess, generator)
        free = self.free.sample(z, invariants, subprocess, branch, generator)
        return Discrete(pattern, branch, free.double())

    def calibrate(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        discrete: Discrete,
        weight: Tensor,
    ) -> None:
        """Make mean predictions of both categorical variables equal the observed fractions."""
        self.patterns.calibrate(z, invariants, subprocess, discrete.pattern, weight)
        self.branches.calibrate(z, invariants, subprocess, discrete.branch, weight)
