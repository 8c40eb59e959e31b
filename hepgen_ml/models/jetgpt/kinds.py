"""Kinds of objects of which events consist, with the parameters that they share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hepgen_ml.events.objects import OBJECTS
from hepgen_ml.models.jetgpt.pointers import Surroundings
from hepgen_ml.phase_space import Coordinate, ReconstructedChart
from hepgen_ml.process.channels import Channel
from hepgen_ml.process.multiplicity import Family
from hepgen_ml.process.process import Process

_ORDER = ("eta:", "phi:", "log_pt:", "logit_pt:")

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


class ObjectLists:
    """Objects of each family's events, in the order in which they are made.

    Parameters
    ----------
    process : Process
    families : sequence of Family
    layouts : sequence of sequence of Coordinate
        Learned coordinates of each channel.

    Attributes
    ----------
    kinds : list of Kind
    objects : list of list of (kind, columns)
        Of the longest events of each family.
    fixed : list of int
        Objects of an event without optional jets.
    flavours : list of list of int
        Numbers of the particles' classes, for each channel.
    n_flavours : int
    """

    def __init__(
        self, process: Process, families: Sequence[Family], layouts: Sequence[Sequence[Coordinate]]
    ) -> None:
        self.channels, self._layouts, self._families = process.channels, layouts, families
        self._channel_of = process.channel_of.tolist()
        numbers: dict[Kind, int] = {}
        self.objects: list[list[tuple[int, list[int]]]] = []
        self._before: list[list[list[int]]] = []
        for family in families:
            longest = self._channel_of[family.subprocess[-1]]
            found = objects_of(self.channels[longest])
            self.objects.append([(numbers.setdefault(k, len(numbers)), at) for k, at in found])
            every = list(range(len(self.channels[longest].classes)))
            self._before.append([*particles_before(self.channels[longest]), every])
        self.kinds = list(numbers)
        self.fixed = [
            len(o) - len(f.subprocess) + 1 for o, f in zip(self.objects, families, strict=True)
        ]
        classes = [channel.classes for channel in self.channels]
        flavours = {c: i for i, c in enumerate(dict.fromkeys(c for row in classes for c in row))}
        self.flavours = [[flavours[c] for c in row] for row in classes]
        self.n_flavours = len(flavours)

    @property
    def order(self) -> tuple[str, ...]:
        """Order of the components of objects with pointers: those with pointers come last."""
        looking = {k for objects in self.objects for k, _ in objects[1:]}
        names = dict.fromkeys(c.name for k in sorted(looking) for c in self.kinds[k].coordinates)
        return tuple(name for what in _ORDER for name in names if name.startswith(what))

    def channel(self, family: int, length: int) -> int:
        """Channel of events with so many objects, or of the shortest."""
        return self._channel_of[
            self._families[family].subprocess[max(length - self.fixed[family], 0)]
        ]

    def particle(self, family: int, place: int) -> int:
        """Number of the particle in the chart for the object at a position."""
        channel = self.channel(family, place + 1)
        return self._layouts[channel][self.objects[family][place][1][0]].particle

    def before(self, family: int, length: int) -> list[list[int]]:
        """Particles before each object, and before what comes after so many objects."""
        return self._before[family][: length + 1]

    def around(
        self, p: Tensor, family: int, length: int, place: int, given: Tensor | None = None
    ) -> Surroundings:
        """Surroundings of the object at a position, from momenta (m, R, 4) of events of one length.

        Conditions (m, K) of the user where there are any.
        """
        chart = self.channels[self.channel(family, max(length, place + 1))].chart.given(given)
        kinds = torch.tensor(self.flavours[self.channel(family, length)], device=p.device)
        before = torch.zeros(p.shape[1], dtype=torch.bool, device=p.device)
        before[self._before[family][place]] = True
        particle = self.particle(family, place)
        return Surroundings.of(
            p, kinds, before.expand(len(p), -1), chart, self.n_flavours, particle
        )


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
