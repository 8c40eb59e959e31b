"""Categorical variables given the kinematics: the patterns of colours and helicities, branches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.elementwise import silu
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.process import Process

TRUNK_WIDTH = 128

_LARGEST_TABLE, _LEAST_GAIN = 1_000_000, 4
"""Number of subprocesses times entries up to which a head computes all entries, and ratio of all
entries to those of a subprocess above which it is compact."""

_COMPACT_BATCH = 1024
"""Events whose entries' parameters are looked up together."""

_STEP = 3.0
"""Largest change of a log frequency in one step of the calibration."""


class Trunk(nn.Module):
    """Network of coordinates, invariants and subprocess within a head.

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
        self.conditions = process.conditions
        n_given = 0 if self.conditions is None else self.conditions.n_features
        n_inputs = 3 * process.n_coordinates + process.n_invariants + n_extra + n_given
        self.first = nn.Linear(n_inputs, TRUNK_WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(TRUNK_WIDTH, TRUNK_WIDTH) for _ in range(2))

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take ranges of the invariants from a sample."""
        if encoded.invariants.shape[1] == 0:
            return
        self.mean.copy_(encoded.invariants.mean(0))
        self.std.copy_(encoded.invariants.std(0).clamp_min(1e-3))

    def forward(self, z: Tensor, invariants: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        """Hidden state (m, width) of coordinates (m, D) and invariants (m, P).

        The embedded condition (m,) has the user's conditions with it: a label, see
        `hepgen_ml.process.labels`.
        """
        if self.conditions is not None:
            values = values_of(condition)
            if values is None:
                raise ValueError("events without the conditions that the heads depend on")
            extra = (*extra, self.conditions.features(values))
        standard = (invariants - self.mean) / self.std
        features = torch.cat([z, torch.sin(z), torch.cos(z), standard, *extra], dim=-1)
        h = silu(self.first(features) + self.embedding(which(condition)))
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
        counts = [len(some) for some in rows]
        flat = torch.tensor([number.setdefault(row.tobytes(), len(number))
                             for some in rows for row in some])  # fmt: skip
        self.entries = flat.split(counts)
        width = max(counts)
        self.compact = len(rows) * len(number) > _LARGEST_TABLE
        self.compact &= _LEAST_GAIN * width <= len(number)
        columns = width if self.compact else len(number)
        # All entries at once, as there may be very many subprocesses: of which, at which place.
        there = torch.arange(width) < torch.tensor(counts).unsqueeze(-1)
        of, place = torch.nonzero(there).unbind(-1)
        at = place if self.compact else flat
        prior = torch.full((len(rows), columns), -torch.inf)
        log_f = torch.log(torch.from_numpy(np.maximum(np.concatenate(frequency), 1e-6)))
        prior[of, at] = log_f.float()
        local = torch.zeros((len(rows), 0 if self.compact else columns), dtype=torch.int64)
        if not self.compact:
            local[of, at] = place
        shared = torch.zeros((len(rows), width), dtype=torch.int64)
        shared[of, place] = flat
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
        """Whether every subprocess has a single entry, so that there is nothing to learn."""
        return self.shared.shape[1] == 1

    def logits(self, z: Tensor, invariants: Tensor, subprocess: Tensor) -> Tensor:
        """Unnormalised log probabilities (m, all entries); -inf where not allowed.

        Of a compact head (m, k), for the entries as they are counted within the subprocess.
        """
        if self.compact:
            h, entries = self.trunk(z, invariants, subprocess), self.shared[which(subprocess)]
            product = torch.einsum("mw,mkw->mk", h, F.embedding(entries, self.last.weight))
            return product + self.last.bias[entries] + self.prior[which(subprocess)]
        return self.last(self.trunk(z, invariants, subprocess)) + self.prior[which(subprocess)]

    def log_prob(self, z: Tensor, invariants: Tensor, subprocess: Tensor, entry: Tensor) -> Tensor:
        """Log probability (m,) of entries (m,) counted within the subprocess."""
        if self.trivial:
            return z.new_zeros(len(z))
        logits = self.logits(z, invariants, subprocess)
        entry = entry if self.compact else self.shared[which(subprocess), entry]
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
            return torch.zeros_like(which(subprocess))
        cumulative = self.logits(z, invariants, subprocess).softmax(-1).cumsum(-1)
        u = torch.rand(len(z), 1, generator=generator, device=z.device) * cumulative[:, -1:]
        # Strictly below the sum: an entry of probability zero is never chosen.
        u = torch.minimum(u, torch.nextafter(cumulative[:, -1:], torch.zeros_like(u)))
        entry = torch.searchsorted(cumulative, u, right=True)
        if self.compact:
            return entry.squeeze(-1)
        return self.local[which(subprocess)].gather(-1, entry).squeeze(-1)

    @torch.no_grad()
    def calibrate(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, entry: Tensor, weight: Tensor
    ) -> None:
        """Shift the log frequencies until mean predictions and observed fractions agree."""
        if self.trivial:
            return
        if self.compact:
            self._calibrate_all(z, invariants, subprocess, entry, weight)
            return
        for s, entries in enumerate(self.entries):
            rows = torch.nonzero(which(subprocess) == s).squeeze(-1)
            if len(rows) == 0 or len(entries) == 1:
                continue
            if float(weight[rows].sum()) <= 0:
                continue  # weights of either sign that cancel carry no information
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
        labels, subprocess = subprocess, which(subprocess)
        total = torch.zeros_like(self.prior[:, 0]).index_add(0, subprocess, weight)
        rows = torch.nonzero(total[subprocess] > 0).squeeze(-1)
        labels, subprocess, entry = labels[rows], subprocess[rows], entry[rows]
        w = (weight[rows] / total[subprocess]).unsqueeze(-1)
        observed = torch.zeros_like(self.prior).index_put(
            (subprocess, entry), w.squeeze(-1), accumulate=True
        )
        observed = observed.clamp_min(0)
        observed /= observed.sum(-1, keepdim=True).clamp_min(1e-30)
        parts = zip(rows.split(_COMPACT_BATCH), labels.split(_COMPACT_BATCH), strict=True)
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
