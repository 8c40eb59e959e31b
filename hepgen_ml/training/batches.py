"""Prepared tensors of a sample, and which of its events come in which step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Discrete, Encoded


class Batches:
    """Prepared tensors of a sample, and random batches of them.

    The order of events is a function of seed and epoch alone, so that a
    resumed run continues with the batches it would have seen. Events with a rate (m,)
    come so often in an epoch on average, all others once.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        encoded: Encoded,
        device: torch.device,
        rate: Tensor | None = None,
    ) -> None:
        with torch.no_grad():
            z = surrogate.density.prepare(encoded.x.to(device), encoded.subprocess.to(device))
        self.z = z
        self.subprocess = encoded.subprocess.to(device)
        self.discrete = Discrete(
            encoded.pattern.to(device), encoded.branch.to(device), encoded.free.float().to(device)
        )
        self.invariants = encoded.invariants.to(device)
        self.weight = encoded.weight.to(device, torch.float32)
        self.drawn_weight = self.weight
        self.rate = None
        if rate is not None:
            self.rate = (rate / rate.sum()).cpu().numpy()
            # Rates are only to be kept where a density learns them.
            if surrogate.density.learns_rates:
                self.drawn_weight = self.weight / rate.to(self.weight)
        self.factor = torch.ones_like(self.weight)

    def __len__(self) -> int:
        return len(self.z)

    def indices(self, step: int, size: int, seed: int) -> Tensor:
        """Events of one step."""
        per_epoch = max(1, len(self) // size)
        epoch, position = divmod(step, per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch)))
            if self.rate is None:
                order = rng.permutation(len(self))
            else:
                order = rng.choice(len(self), len(self), p=self.rate)
            self._order = torch.from_numpy(order).to(self.z.device)
            self._epoch = epoch
        return self._order[position * size : (position + 1) * size]
