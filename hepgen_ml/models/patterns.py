"""Colour flow and helicities: one categorical draw per event, given its kinematics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.process import Encoded, Process

_WIDTH = 128


class PatternHead(nn.Module):
    """p(pattern | kinematics, subprocess) over the patterns that the subprocess has.

    A pattern (colour flow and helicities of all particles) is one entry of a
    vocabulary shared by all subprocesses; every subprocess allows the entries
    seen in the sample. The network sees the standardised coordinates and the
    logarithms of all pair invariants, on which the amplitudes depend.

    Parameters
    ----------
    process : Process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        vocabulary = {row.tobytes(): None for sub in process.subprocesses for row in sub.patterns}
        number = {key: i for i, key in enumerate(vocabulary)}
        shape = (len(process.subprocesses), len(number))
        allowed = torch.full(shape, -torch.inf)
        self.local: Tensor
        self.entries: list[Tensor] = []
        local = torch.full(shape, -1)
        for s, sub in enumerate(process.subprocesses):
            entries = torch.tensor([number[row.tobytes()] for row in sub.patterns])
            frequency = np.maximum(sub.pattern_frequency, 1e-12)
            allowed[s, entries] = torch.log(torch.from_numpy(frequency)).float()
            local[s, entries] = torch.arange(len(entries))
            self.entries.append(entries)
        width = max(len(e) for e in self.entries)
        table = torch.stack([F.pad(e, (0, width - len(e)), value=-1) for e in self.entries])
        self.register_buffer("global_of", table, persistent=False)
        self.register_buffer("local", local, persistent=False)
        self.global_of: Tensor
        # Log frequencies; what the network adds starts at zero and moves with the kinematics.
        self.register_buffer("prior", allowed)
        self.prior: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(process.n_invariants))
        self.register_buffer("std", torch.ones(process.n_invariants))
        self.embedding = nn.Embedding(shape[0], _WIDTH)
        self.first = nn.Linear(3 * process.n_coordinates + process.n_invariants, _WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(2))
        self.last = nn.Linear(_WIDTH, shape[1])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def trivial(self) -> bool:
        """Whether every subprocess has a single pattern, so that nothing is to be learned."""
        return self.global_of.shape[1] == 1

    def fit_standardization(self, encoded: Encoded) -> None:
        """Take ranges of the invariants from a sample."""
        self.mean.copy_(encoded.invariants.mean(0))
        self.std.copy_(encoded.invariants.std(0).clamp_min(1e-3))

    def logits(self, z: Tensor, invariants: Tensor, subprocess: Tensor) -> Tensor:
        """Unnormalised log probabilities (m, vocabulary); -inf where not allowed."""
        standard = (invariants - self.mean) / self.std
        features = torch.cat([z, torch.sin(z), torch.cos(z), standard], dim=-1)
        h = F.silu(self.first(features) + self.embedding(subprocess))
        for layer in self.hidden:
            h = h + F.silu(layer(h))
        return self.last(h) + self.prior[subprocess]

    def loss(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, pattern: Tensor, weight: Tensor
    ) -> Tensor:
        """Mean cross-entropy; `pattern` counts within the subprocess."""
        target = self.global_of[subprocess, pattern]
        logits = self.logits(z, invariants, subprocess)
        return (weight * F.cross_entropy(logits, target, reduction="none")).mean()

    def log_prob(
        self, z: Tensor, invariants: Tensor, subprocess: Tensor, pattern: Tensor
    ) -> Tensor:
        """Log probability (m,) of patterns counted within the subprocess."""
        target = self.global_of[subprocess, pattern]
        logits = self.logits(z, invariants, subprocess)
        return -F.cross_entropy(logits, target, reduction="none")

    def sample(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Patterns (m,), counted within the subprocess."""
        if self.trivial:
            return torch.zeros_like(subprocess)
        cumulative = self.logits(z, invariants, subprocess).softmax(-1).cumsum(-1)
        u = torch.rand(len(z), 1, generator=generator, device=z.device)
        # Strictly below the last value and never on an entry of probability zero.
        entry = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True).squeeze(-1)
        entry = entry.clamp_max(cumulative.shape[-1] - 1)
        chosen = self.local[subprocess, entry]
        return torch.where(chosen >= 0, chosen, 0)

    @torch.no_grad()
    def calibrate(
        self,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
        frequency: list[np.ndarray],
    ) -> None:
        """Shift the log frequencies until the mean prediction equals the sample's fractions."""
        for s, wanted in enumerate(frequency):
            rows = torch.nonzero(subprocess == s).squeeze(-1)
            entries = self.entries[s].to(z.device)
            if len(rows) == 0 or len(entries) == 1:
                continue
            target = torch.from_numpy(np.maximum(wanted, 1e-12)).to(z)
            logits = torch.cat(
                [
                    self.logits(z[part], invariants[part], subprocess[part])[:, entries]
                    for part in rows.split(8192)
                ]
            )
            shift = torch.zeros_like(target)
            for _ in range(5):
                mean = (logits + shift).softmax(-1).mean(0).clamp_min(1e-12)
                shift += torch.log(target / mean)
            self.prior[s, entries] += shift
