"""Kinds of objects: what an event is made of, one object after another, and what each shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hepgen_ml.objects import OBJECTS
from hepgen_ml.phase_space import Coordinate, ReconstructedChart
from hepgen_ml.process import Channel

_NUMBERED = re.compile(rf"(:(?:{'|'.join(OBJECTS)})[+-]?)\d+$")


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


def objects_of(channel: Channel) -> list[tuple[Kind, list[int]]]:
    """Kinds of a channel's objects in order, each with its columns; a resonance is one object."""
    layout, groups = channel.coordinates, _groups(channel)
    found: dict[tuple[int, ...], list[int]] = {}
    for column, coordinate in enumerate(layout):
        found.setdefault(groups[coordinate.particle], []).append(column)
    return [
        (Kind(tuple(_unnumbered(layout[c]) for c in columns)), columns)
        for columns in found.values()
    ]


def particles_before(channel: Channel) -> list[list[int]]:
    """Particles of the chart that stand before each object."""
    groups, found = _groups(channel), []
    seen: list[int] = []
    for group in dict.fromkeys(groups[c.particle] for c in channel.coordinates):
        found.append(list(seen))
        seen += group
    return found


def _groups(channel: Channel) -> dict[int, tuple[int, ...]]:
    """Particles that form one object with each particle of a channel."""
    chart = channel.chart
    alone = tuple((i,) for i in range(len(channel.classes)))
    groups = chart.groups if isinstance(chart, ReconstructedChart) else alone
    return {i: group for group in groups for i in group}


def _unnumbered(coordinate: Coordinate) -> Coordinate:
    # Only names of objects end in their number; other digits belong to the name of a resonance.
    return replace(coordinate, name=_NUMBERED.sub(r"\1", coordinate.name), particle=0)
