"""What is drawn given the kinematics: colour flow and helicities, scale and couplings.

Two categorical variables (the pattern of colours and helicities; which formula
the scale follows) and a one-dimensional density for each scale or coupling that
no formula explains. The networks see the standardised coordinates and the
logarithms of all pair invariants, on which amplitudes and clusterings depend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.models.mixtures import gaussian_log_prob, sample_gaussian
from hepgen_ml.networks.elementwise import silu
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.process.process import Process

TRUNK_WIDTH = 128
_MIXTURES = 16

_LARGEST_TABLE, _LEAST_GAIN = 1_000_000, 4
"""Subprocesses times entries up to which a head treats all entries alike, and how many times the
entries of a subprocess all of them are where it does not."""

_COMPACT_BATCH = 1024
"""Events whose entries' parameters are looked up together."""

_STEP = 3.0
"""Largest change of a log frequency in one step of the calibration."""


class Trunk(nn.Module):
    """Network of coordinates, invariants and subprocess that a head ends in.

    Parameters
    ----------
    process : Process
    n_conditions : int
        Embedded condition: subprocess, or subprocess and branch.
    n_extra : int
        Further inputs.
    """

    def __init__(self, process: Process, n_conditions: int, n_extra: int = 0) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(process.n_invariants))
        self.register_buffer("std", torch.ones(process.n_invariants))
        self.embedding = nn.Embedding(n_conditions, TRUNK_WIDTH)
        n_inputs = 3 * process.n_coordinates + process.n_invariants + n_extra
        self.first = nn.Linear(n_inputs, TRUNK_WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(TRUNK_WIDTH, TRUNK_WIDTH) for _ in range(2))

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take ranges of the invariants from a sample."""
        if encoded.invariants.shape[1] == 0:
            return
        self.mean.copy_(encoded.invariants.mean(0))
        self.std.copy_(encoded.invariants.std(0).clamp_min(1e-3))

    def forward(self, z: Tensor, invariants: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        """Hidden state (m, width) of coordinates (m, D) and invariants (m, P)."""
        standard = (invariants - self.mean) / self.std
        features = torch.cat([z, torch.sin(z), torch.cos(z), standard, *extra], dim=-1)
        h = silu(self.first(features) + self.embedding(condition))
        for layer in self.hidden:
            h = h + silu(layer(h))
        return h


class CategoricalHead(nn.Module):
    """p(entry | kinematics, subprocess) over the entries that the subprocess allows.

    Entries that are equal in different subprocesses share their parameters. The
    logits are the log frequencies within the subprocess plus what the network
    adds, which starts at zero.

    Parameters
    ----------
    process : Process
    rows : sequence of (k, w) int32 array
        Entries of each subprocess.
    frequency : sequence of (k,) float array
        Their fractions.

    Attributes
    ----------
    compact : bool
        Whether there are so many subprocesses and entries that probabilities are computed for the
        entries of each subprocess only, rather than for all with those of others at zero.
    """

    def __init__(
        self,
        process: Process,
        rows: Sequence[npt.NDArray[np.int32]],
        frequency: Sequence[npt.NDArray[np.float64]],
    ) -> None:
        super().__init__()
        number: dict[bytes, int] = {}
        self.entries = [
            torch.tensor([number.setdefault(row.tobytes(), len(number)) for row in some])
            for some in rows
        ]
        width = max(len(e) for e in self.entries)
        self.compact = len(rows) * len(number) > _LARGEST_TABLE
        self.compact &= _LEAST_GAIN * width <= len(number)
        columns = width if self.compact else len(number)
        prior = torch.full((len(rows), columns), -torch.inf)
        local = torch.zeros((len(rows), 0 if self.compact else columns), dtype=torch.int64)
        for s, (entries, f) in enumerate(zip(self.entries, frequency, strict=True)):
            at = torch.arange(len(entries))
            prior[s, at if self.compact else entries] = torch.log(
                torch.from_numpy(np.maximum(f, 1e-6))
            ).float()
            if not self.compact:
                local[s, entries] = at
        shared = torch.stack([F.pad(e, (0, width - len(e))) for e in self.entries])
        self.prior: Tensor
        self.local: Tensor
        self.shared: Tensor
        self.register_buffer("prior", prior)
        self.register_buffer("local", local, persistent=False)
        self.register_buffer("shared", shared, persistent=False)
        self.trunk = Trunk(process, len(rows))
        self.last = nn.Linear(TRUNK_WIDTH, len(number))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def trivial(self) -> bool:
        """Whether every subprocess has a single entry, so that nothing is to be learned."""
        return self.shared.shape[1] == 1

    def logits(self, z: Tensor, invariants: Tensor, subprocess: Tensor) -> Tensor:
        """Unnormalised log probabilities (m, all entries); -inf where not allowed.

        Of a compact head (m, k), for the entries as they are counted within the subprocess.
        """
        if self.compact:
            h, entries = self.trunk(z, invariants, subprocess), self.shared[subprocess]
            product = torch.einsum("mw,mkw->mk", h, F.embedding(entries, self.last.weight))
            return product + self.last.bias[entries] + self.prior[subprocess]
        return self.last(self.trunk(z, invariants, subprocess)) + self.prior[subprocess]

    def log_prob(self, z: Tensor, invariants: Tensor, subprocess: Tensor, entry: Tensor) -> Tensor:
        """Log probability (m,) of entries (m,) counted within the subprocess."""
        if self.trivial:
            return z.new_zeros(len(z))
        logits = self.logits(z, invariants, subprocess)
        entry = entry if self.compact else self.shared[subprocess, entry]
        return -F.cross_entropy(logits, entry, reduction="none")

    def sample(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Entries (m,), counted within the subprocess."""
        if self.trivial:
            return torch.zeros_like(subprocess)
        cumulative = self.logits(z, invariants, subprocess).softmax(-1).cumsum(-1)
        u = torch.rand(len(z), 1, generator=generator, device=z.device) * cumulative[:, -1:]
        # Strictly below the sum: an entry of probability zero is never chosen.
        u = torch.minimum(u, torch.nextafter(cumulative[:, -1:], torch.zeros_like(u)))
        entry = torch.searchsorted(cumulative, u, right=True)
        if self.compact:
            return entry.squeeze(-1)
        return self.local[subprocess].gather(-1, entry).squeeze(-1)

    @torch.no_grad()
    def calibrate(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, entry: Tensor, weight: Tensor
    ) -> None:
        """Shift the log frequencies until mean prediction and observed fractions agree."""
        if self.trivial:
            return
        if self.compact:
            self._calibrate_all(z, invariants, subprocess, entry, weight)
            return
        for s, entries in enumerate(self.entries):
            rows = torch.nonzero(subprocess == s).squeeze(-1)
            if len(rows) == 0 or len(entries) == 1:
                continue
            if float(weight[rows].sum()) <= 0:
                continue  # weights of either sign that cancel tell nothing
            w = weight[rows] / weight[rows].sum()
            observed = torch.bincount(entry[rows], weights=w, minlength=len(entries)).clamp_min(0)
            observed /= observed.sum()
            logits = torch.cat(
                [
                    self.logits(z[part], invariants[part], subprocess[part])[
                        :, entries.to(z.device)
                    ]
                    for part in rows.split(8192)
                ]
            )
            shift = torch.zeros_like(observed)
            for _ in range(5):
                mean = w @ (logits + shift).softmax(-1)
                seen = (observed > 0) & (mean > 0)
                shift[seen] += torch.log(observed / mean)[seen].clamp(-_STEP, _STEP)
            self.prior[s, entries.to(z.device)] += shift

    def _calibrate_all(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, entry: Tensor, weight: Tensor
    ) -> None:
        """As `calibrate`, for all subprocesses together."""
        total = torch.zeros_like(self.prior[:, 0]).index_add(0, subprocess, weight)
        rows = torch.nonzero(total[subprocess] > 0).squeeze(-1)
        subprocess, entry = subprocess[rows], entry[rows]
        w = (weight[rows] / total[subprocess]).unsqueeze(-1)
        observed = torch.zeros_like(self.prior).index_put(
            (subprocess, entry), w.squeeze(-1), accumulate=True
        )
        observed = observed.clamp_min(0)
        observed /= observed.sum(-1, keepdim=True).clamp_min(1e-30)
        parts = zip(rows.split(_COMPACT_BATCH), subprocess.split(_COMPACT_BATCH), strict=True)
        logits = torch.cat([self.logits(z[i], invariants[i], s) for i, s in parts])
        shift = torch.zeros_like(self.prior)
        for _ in range(5):
            predicted = (logits + shift[subprocess]).softmax(-1)
            mean = torch.zeros_like(self.prior).index_add(0, subprocess, w * predicted)
            seen = (observed > 0) & (mean > 0)
            shift[seen] += torch.log(observed / mean)[seen].clamp(-_STEP, _STEP)
        self.prior += shift

    def compacted(self, prior: Tensor) -> Tensor:
        """Log frequencies as this head keeps them, of those for all entries."""
        if not self.compact or prior.shape != (len(self.entries), self.last.out_features):
            return prior
        allowed = self.prior > -torch.inf
        return prior.gather(1, self.shared).where(allowed, -torch.inf)


class FreeHead(nn.Module):
    """Densities of the scales and couplings that no formula explains.

    Parameters
    ----------
    process : Process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        tables = [c.auxiliaries for c in process.channels]
        n_branches = max(len(a.branches) for a in tables)
        mask = torch.zeros(len(process.subprocesses), n_branches, len(AUXILIARY), dtype=torch.bool)
        for s, sub in enumerate(process.subprocesses):
            rules = tables[sub.chart]
            mask[s, : len(rules.branches)] = torch.from_numpy(rules.is_free(rules.branches))
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
        """Whether nothing is free."""
        return not bool(self.mask.any())

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take the ranges of the free values from a sample."""
        self.trunk.fit_standardization(encoded)
        mask = self.mask[encoded.subprocess, encoded.branch]
        for k in range(len(AUXILIARY)):
            values = encoded.free[mask[:, k], k]
            if len(values) > 1 and float(values.std()) > 1e-9:
                self.shift[k], self.stretch[k] = values.mean().float(), values.std().float()

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
        mask = self.mask[subprocess, branch]
        u = ((free.to(z.dtype) - self.shift) / self.stretch) * mask
        for k in range(len(AUXILIARY)):
            rows = torch.nonzero(mask[:, k]).squeeze(-1)
            if len(rows) == 0:
                continue
            known = u[rows] * (torch.arange(len(AUXILIARY), device=z.device) < k)
            condition = subprocess[rows] * self.n_branches + branch[rows]
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
        mask = self.mask[subprocess, branch]
        u = torch.zeros(len(z), len(AUXILIARY), device=z.device)
        for k in range(len(AUXILIARY)):
            rows = torch.nonzero(mask[:, k]).squeeze(-1)
            if len(rows) == 0:
                continue
            condition = subprocess[rows] * self.n_branches + branch[rows]
            parameters = self._parameters_of(k, z[rows], invariants[rows], condition, u[rows])
            u[rows, k] = sample_gaussian(parameters, generator)
        return (u * self.stretch + self.shift) * mask


class Heads(nn.Module):
    """All that is drawn given the kinematics.

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
        branches = [process.channels[s.chart].auxiliaries.branches for s in subprocesses]
        flat = [np.full(len(b), 1.0 / len(b)) for b in branches]
        # Branches of different channels are different things: keep them apart.
        marked = [
            np.concatenate([np.full((len(b), 1), s.chart, dtype=np.int32), b], axis=1)
            for s, b in zip(subprocesses, branches, strict=True)
        ]
        self.branches = CategoricalHead(process, marked, flat)
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
        """Log probability and density (m,) of everything together."""
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
