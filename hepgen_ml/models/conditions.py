"""Inputs that density models share: coordinates by name, subprocess, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.elementwise import silu
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.process import Process

Layouts = Sequence[Sequence[Coordinate]]
"""Learned coordinates of every channel."""


class Condition(NamedTuple):
    """Condition on which the density of the coordinates of one channel depends.

    Attributes
    ----------
    subprocess : (m,) int64 tensor
        With the user's conditions if there are any: labels, see `hepgen_ml.process.labels`.
    channel : int
        Channel of all these events, which determines their coordinates.
    """

    subprocess: Tensor
    channel: int


_HARMONICS = 4
_LARGEST_TABLE = 1_000_000
"""Subprocesses times flavours up to which vectors of all subprocesses are computed at once."""

N_FEATURES = 1 + 2 * _HARMONICS

_TIME_FREQUENCIES = tuple(0.5 * math.pi * 2**k for k in range(4))
"""Number of the time features. More of them make the field rougher in time, so that solvers need
more steps, without a better fit."""


def coordinate_numbers(layouts: Layouts) -> tuple[dict[str, bool], list[list[int]]]:
    """Names of all coordinates with whether they are angles, and each channel's numbers of them.

    Coordinates of the same name in different channels have the same number, so
    that channels of different multiplicity share their parameters.
    """
    names = {c.name: c.periodic for layout in layouts for c in layout}
    number = {name: i for i, name in enumerate(names)}
    return names, [[number[c.name] for c in layout] for layout in layouts]


def coordinate_features(z: Tensor) -> Tensor:
    """Inputs (..., F) of a coordinate (...): itself and its first harmonics."""
    n = torch.arange(1, _HARMONICS + 1, device=z.device, dtype=z.dtype)
    angle = z.unsqueeze(-1) * n
    return torch.cat([z.unsqueeze(-1), torch.sin(angle), torch.cos(angle)], dim=-1)


class CoordinateEmbedding(nn.Module):
    """Vectors of coordinates, their weights looked up by name.

    Angles enter through their harmonics alone, so that all functions of the vectors are continuous
    and periodic in them.

    Parameters
    ----------
    layouts : sequence of sequences of Coordinate
    width : int
    """

    def __init__(self, layouts: Layouts, width: int) -> None:
        super().__init__()
        names, self.numbers = coordinate_numbers(layouts)
        self.weight = nn.Parameter(torch.randn(len(names), N_FEATURES, width) * 0.2)
        self.bias = nn.Parameter(torch.randn(len(names), width) * 0.2)
        keep = torch.ones(len(names), N_FEATURES, 1)
        keep[list(names.values()), 0] = 0.0
        self.keep: Tensor
        self.register_buffer("keep", keep, persistent=False)

    def weights(self, channel: int) -> Tensor:
        """Matrices (D, F, width) of a channel's coordinates."""
        numbers = self.numbers[channel]
        return self.weight[numbers] * self.keep[numbers]

    def forward(self, z: Tensor, channel: int) -> Tensor:
        """One vector per coordinate, (m, D) -> (m, D, width)."""
        each = torch.einsum("mtf,tfw->mtw", coordinate_features(z), self.weights(channel))
        return each + self.bias[self.numbers[channel]]

    def total(self, z: Tensor, channel: int) -> Tensor:
        """Sum of the vectors over coordinates, (m, D) -> (m, width)."""
        features = coordinate_features(z).flatten(1)
        return features @ self.weights(channel).flatten(0, 1)


class GivenEmbedding(nn.Module):
    """Vector of the user's conditions.

    Parameters
    ----------
    conditions : Conditions
    width : int
    """

    def __init__(self, conditions: Conditions, width: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.first = nn.Linear(conditions.n_features, width)
        self.last = nn.Linear(width, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Labels (m, 1 + K) -> vectors (m, width)."""
        values = values_of(labels)
        if values is None:
            raise ValueError("events without the conditions that the density depends on")
        h = self.first(self.conditions.features(values))
        return h + self.last(silu(h))


class SubprocessEmbedding(nn.Module):
    """Condition vector from the flavours of all particles, and the user's conditions.

    Flavours are embedded by position and summed, so that a rare subprocess
    profits from frequent ones with the same partons.

    Parameters
    ----------
    process : Process
    width : int
    """

    def __init__(self, process: Process, width: int) -> None:
        super().__init__()
        known: dict[tuple[int, int, str], int] = {}
        rows = []
        for sub in process.subprocesses:
            keys = [
                (i, sub.structure.pdg_id[r], "in") for i, r in enumerate(sub.structure.incoming)
            ]
            keys += [(i, sub.structure.pdg_id[r], "out") for i, r in enumerate(sub.order)]
            keys += [(sub.chart, 0, "channel"), (sub.structure.process_id, 0, "process")]
            rows.append([known.setdefault(key, len(known)) for key in keys])
        self.many = len(rows) * len(known) > _LARGEST_TABLE
        sizes = torch.tensor(list(map(len, rows)))
        there = torch.arange(int(sizes.max())) < sizes.unsqueeze(-1)
        of, place = torch.nonzero(there).unbind(-1)
        flat = torch.tensor([number for row in rows for number in row])
        counts = torch.zeros(0 if self.many else len(rows), len(known))
        # Numbers from one on; the last rows of shorter events have zeros, which count nothing.
        shape = there.shape if self.many else (0, 0)
        numbers = torch.zeros(shape, dtype=torch.int64)
        if self.many:
            numbers[of, place] = flat + 1
        else:
            counts[of, flat] = 1.0
        self.numbers: Tensor
        self.register_buffer("numbers", numbers, persistent=False)
        self.counts: Tensor
        self.register_buffer("counts", counts, persistent=False)
        self.flavours = nn.Linear(len(known), width)
        self.mix = nn.Linear(width, width)
        self.given: GivenEmbedding | None = None
        if process.conditions is not None:
            self.given = GivenEmbedding(process.conditions, width)

    def forward(self) -> Tensor:
        """Vectors (S, width) of all subprocesses, without conditions."""
        return self.mixed(self.numbers if self.many else self.counts)

    def of(self, subprocess: Tensor) -> Tensor:
        """Vectors (m, width) of labels (m,); of many, the subprocesses that occur are computed."""
        if self.given is not None:
            return self._of(which(subprocess)) + self.given(subprocess)
        return self._of(subprocess)

    def _of(self, subprocess: Tensor) -> Tensor:
        if not self.many:
            return self()[subprocess]
        present, number = torch.unique(subprocess, return_inverse=True)
        return self.mixed(self.numbers[present])[number]

    def mixed(self, flavours: Tensor) -> Tensor:
        """Vectors of subprocesses, by their flavours as numbers or as counts."""
        if self.many:
            table = F.pad(self.flavours.weight.t(), (0, 0, 1, 0))
            h = F.embedding(flavours, table).sum(-2) + self.flavours.bias
        else:
            h = self.flavours(flavours)
        return h + self.mix(F.gelu(h))


class TimeSubprocessEmbedding(nn.Module):
    """Condition vector from flow time and subprocess.

    Parameters
    ----------
    process : Process
    width : int
    """

    def __init__(self, process: Process, width: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.tensor(_TIME_FREQUENCIES), persistent=False)
        self.subprocess = SubprocessEmbedding(process, width)
        self.time = nn.Linear(2 * len(_TIME_FREQUENCIES), width)
        self.mix = nn.Linear(width, width)

    def forward(self, t: Tensor, subprocess: Tensor) -> Tensor:
        """Times (m,) in [0, 1] and subprocesses (m,) -> vectors (m, width)."""
        angle = t.unsqueeze(-1) * self.frequencies
        time = self.time(torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1))
        return silu(self.mix(silu(time + self.subprocess.of(subprocess))))
