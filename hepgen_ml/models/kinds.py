"""Kinds of objects: what an event is made of, one object after another, and what each shares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hepgen_ml.phase_space import Coordinate, ReconstructedChart
from hepgen_ml.process import Channel


@dataclass(frozen=True)
class Kind:
    """A kind of object, the objects of a channel's list that share their density.

    Attributes
    ----------
    coordinates : tuple of Coordinate
        Without the number of the object in their names.
    """

    coordinates: tuple[Coordinate, ...]


@dataclass
class Kinds:
    """Kinds of objects as the space that the density of components is defined on."""

    channels: list[Kind]

    @property
    def n_coordinates(self) -> int:
        return max(len(k.coordinates) for k in self.channels)

    @property
    def channel_of(self) -> Tensor:
        return torch.arange(len(self.channels))


def objects_of(layout: Sequence[Coordinate]) -> list[tuple[Kind, list[int]]]:
    """Kinds of a channel's objects in order, each with its columns."""
    found: dict[int, list[int]] = {}
    for column, coordinate in enumerate(layout):
        found.setdefault(coordinate.particle, []).append(column)
    return [
        (Kind(tuple(_unnumbered(layout[c]) for c in columns)), columns)
        for columns in found.values()
    ]


def particles_before(channel: Channel) -> list[list[int]]:
    """Particles of the chart that stand before each object."""
    chart = channel.chart
    pair = chart.pair if isinstance(chart, ReconstructedChart) else None
    found: list[list[int]] = []
    seen: list[int] = []
    for particle in dict.fromkeys(c.particle for c in channel.coordinates):
        found.append(list(seen))
        paired = pair is not None and particle == pair.first
        seen += [pair.first, pair.second] if pair is not None and paired else [particle]
    return found


def _unnumbered(coordinate: Coordinate) -> Coordinate:
    return replace(coordinate, name=re.sub(r"\d+$", "", coordinate.name), particle=0)
