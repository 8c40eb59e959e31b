"""Channels of one shape, whose events go through one chart together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepgen_ml.phase_space import Chart
from hepgen_ml.phase_space.alike import Alike, shape_of
from hepgen_ml.phase_space.made import Made
from hepgen_ml.process.channels import Channel

MANY_CHANNELS = 64
"""Number above which channels are joined. With few of them there is little to gain, and numbers
would differ in the last digit from those of earlier versions."""


class Group(NamedTuple):
    """Events that go through one chart together.

    Attributes
    ----------
    chart : Chart
        Of these events.
    channel : Channel
        One of theirs; cuts and coordinates are those of all of them.
    made : tuple of Made
        What the collisions make, as far as cuts concern it.
    rows : (m,) int64 tensor
        Of the events.
    """

    chart: Chart
    channel: Channel
    made: tuple[Made, ...]
    rows: Tensor


class ChannelGroups:
    """Groups of channels that differ by masses and by names that no cut knows.

    Parameters
    ----------
    channels : sequence of Channel
    classes : collection of str
        Flavour classes that have cuts.
    made : sequence of tuple of Made
        What the collisions of each channel make, as far as cuts concern it.

    Attributes
    ----------
    group_of : list of int
        First channel of the group of each channel.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        classes: Collection[str],
        made: Sequence[tuple[Made, ...]],
    ) -> None:
        self._channels, self._made = channels, made
        self._group = torch.arange(len(channels))
        self._place = torch.zeros(len(channels), dtype=torch.int64)
        self._alike: dict[int, Alike] = {}
        if len(channels) > MANY_CHANNELS:
            self._join(classes)
        self.group_of: list[int] = self._group.tolist()
        numbers: dict[int, int] = {}
        rules = [numbers.setdefault(id(c.auxiliaries), len(numbers)) for c in channels]
        self._rules = torch.tensor(rules)
        """Number of the rules of each channel."""

    def _join(self, classes: Collection[str]) -> None:
        found: dict[Any, list[int]] = {}
        for c, channel in enumerate(self._channels):
            shape = shape_of(channel.chart)
            cut = tuple(name if name in classes else "" for name in channel.classes)
            key = c if shape is None else (shape, cut, self._made[c])
            found.setdefault(key, []).append(c)
        for members in found.values():
            first = members[0]
            if len(members) > 1:
                self._alike[first] = Alike([self._channels[c].chart for c in members])
                self._group[members] = first
                self._place[members] = torch.arange(len(members))

    def of(self, channel: Tensor, values: Tensor | None) -> Iterator[Group]:
        """Groups of events of channels (m,), with conditions (m, K) if there are any."""
        for first, rows in by_value(self._group[channel]):
            own = self._channels[first]
            if first in self._alike:
                chart = self._alike[first].of(self._place[channel[rows]])
            else:
                chart = own.chart.given(None if values is None else values[rows])
            yield Group(chart, own, self._made[first], rows)

    def of_rules(self, channel: Tensor) -> Iterator[tuple[Channel, Tensor]]:
        """A channel and rows of events of channels (m,) with the same rules for scales."""
        for _, rows in by_value(self._rules[channel]):
            yield self._channels[int(channel[rows[0]])], rows

    def of_made(self, channel: Tensor) -> Iterator[tuple[Channel, Tensor]]:
        """As `of_rules`, of which the momenta of what is made follow in the same way, too."""
        n_rules = int(self._rules.max()) + 1
        for _, rows in by_value(self._group[channel] * n_rules + self._rules[channel]):
            yield self._channels[int(channel[rows[0]])], rows


def by_value(number: Tensor) -> list[tuple[int, Tensor]]:
    """Values that occur among whole numbers (m,), rising, each with its rows."""
    present, counts = torch.unique(number, return_counts=True)
    rows = torch.argsort(number, stable=True).split(counts.tolist())
    return list(zip(present.tolist(), rows, strict=True))
