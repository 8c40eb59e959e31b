"""Events as tensors, on their way between samples and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.process.labels import labelled


@dataclass
class Encoded:
    """Events as tensors.

    Attributes
    ----------
    x : (m, D) float64 tensor
        Learned coordinates, zero beyond those of the event's channel.
    subprocess, pattern : (m,) int64 tensors
        A negative pattern, see `without_pattern`, teaches nothing of colours and helicities.
    branch : (m,) int64 tensor
        Options of scale and couplings, see `hepgen_ml.process.auxiliary`.
    free : (m, 3) float64 tensor
        Logarithms of scale and couplings over their reference, zero where they are exact.
    weight : (m,) float64 tensor
    invariants : (m, P) float32 tensor
        Logarithms of 2 p_i.p_j over GeV^2 for all pairs of incoming and final particles.
    event : (m,) int64 tensor
        Event number in the sample; events of unknown structure are left out.
    conditions : (m, K) float64 tensor
        Values of the user's conditions, see `hepgen_ml.process.conditions`.
    """

    x: Tensor
    subprocess: Tensor
    pattern: Tensor
    branch: Tensor
    free: Tensor
    weight: Tensor
    invariants: Tensor
    event: Tensor
    conditions: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def __post_init__(self) -> None:
        if len(self.conditions) != len(self.x):
            if self.conditions.shape[1]:
                raise ValueError("conditions of another number of events")
            self.conditions = torch.zeros(len(self.x), 0, dtype=torch.float64)

    @property
    def labels(self) -> Tensor:
        """Subprocesses and conditions together, see `hepgen_ml.process.labels`."""
        return labelled(self.subprocess, self.conditions)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> Encoded:
        return Encoded(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """One after another."""
        return Encoded(
            *(torch.cat([getattr(p, n) for p in parts]) for n in Encoded.__dataclass_fields__)
        )


def without_pattern(pattern: Tensor) -> Tensor:
    """Patterns (m,) of events whose kinematics alone are known; applied again, what they were of.

    So are reflected events, which keep the pattern of the event that they are the image of, but
    have other helicities.
    """
    return -1 - pattern


@dataclass
class Kinematics:
    """Momenta of generated events, before flavour patterns are attached.

    Attributes
    ----------
    final : (m, n, 4) float64 tensor
        In the order of the chart, zero beyond the event's particles.
    incoming : (m, 2, 4) float64 tensor
    passes : (m,) bool tensor
        Finite, inside all cuts and below the beam energy.
    """

    final: Tensor
    incoming: Tensor
    passes: Tensor


@dataclass
class Discrete:
    """Discrete and auxiliary quantities that are drawn given the kinematics.

    Attributes
    ----------
    pattern, branch : (m,) int64 tensors
    free : (m, 3) float64 tensor
        As in `Encoded`.
    """

    pattern: Tensor
    branch: Tensor
    free: Tensor


def final_momenta(table: dict[str, npt.NDArray[Any]], rows: Sequence[int]) -> Tensor:
    """Momenta (m, k, 4) of some rows of a table of events."""
    chosen = list(rows)
    columns = [table[name][:, chosen] for name in ("px", "py", "pz", "energy")]
    return torch.from_numpy(np.stack(columns, axis=-1))


def pair_invariants(incoming: Tensor, final: Tensor) -> Tensor:
    """Logarithms of 2 p_i.p_j over GeV^2, (m, 2, 4) and (m, n, 4) -> (m, pairs) float32."""
    p = torch.cat([incoming, final], dim=1)
    metric = p.new_tensor([-2.0, -2.0, -2.0, 2.0])
    gram = torch.einsum("mic,mjc->mij", p * metric, p)
    i, j = torch.triu_indices(p.shape[1], p.shape[1], offset=1)
    return torch.log(gram[:, i, j].clamp_min(1e-3)).to(torch.float32)
