"""Prepared tensors of a sample, and the events of each step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Discrete, Encoded


class Order:
    """Order of the events in the steps of a training.

    It is a function of seed and epoch alone, so that a resumed run continues with the batches
    that it would have seen.

    Parameters
    ----------
    n_events : int
    rate : (n,) tensor, optional
        Mean number of times that each event occurs in an epoch; by default once.
    device : torch.device, optional
        Of the rows.
    """

    def __init__(
        self, n_events: int, rate: Tensor | None = None, device: torch.device | None = None
    ) -> None:
        self.n_events, self.device = n_events, device
        self.probability = None if rate is None else (rate / rate.sum()).cpu().numpy()
        self._epoch, self._rows = -1, torch.zeros(0, dtype=torch.int64)

    def rows(self, step: int, size: int, seed: int) -> Tensor:
        """Events (m,) of one step, in batches of a size."""
        epoch, position = divmod(step, max(1, self.n_events // size))
        if self._epoch != epoch:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch)))
            if self.probability is None:
                order = rng.permutation(self.n_events)
            else:
                order = rng.choice(self.n_events, self.n_events, p=self.probability)
            self._epoch, self._rows = epoch, torch.from_numpy(order).to(self.device)
        return self._rows[position * size : (position + 1) * size]


class Batches:
    """Prepared tensors of a sample, on the device of a surrogate.

    Parameters
    ----------
    surrogate : Surrogate
    encoded : Encoded
    device : torch.device
    rate : (m,) tensor, optional
        How often events are drawn. Densities that learn the rates of subprocesses compensate this
        by weights.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        encoded: Encoded,
        device: torch.device,
        rate: Tensor | None = None,
    ) -> None:
        with torch.no_grad():
            z = surrogate.density.prepare(encoded.x.to(device), encoded.labels.to(device))
        self.z = z
        self.subprocess = encoded.labels.to(device)
        self.discrete = Discrete(
            encoded.pattern.to(device), encoded.branch.to(device), encoded.free.float().to(device)
        )
        self.invariants = encoded.invariants.to(device)
        self.weight = encoded.weight.to(device, torch.float32)
        self.drawn_weight = self.weight
        if rate is not None and surrogate.density.learns_rates:
            self.drawn_weight = self.weight / rate.to(self.weight)
        self.factor = torch.ones_like(self.weight)

    def __len__(self) -> int:
        return len(self.z)
