"""Charts that differ by masses alone, computed together for the events of all of them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.chart import Chart
from hepgen_ml.phase_space.charts import BalancedChart
from hepgen_ml.phase_space.decay import DecayChart
from hepgen_ml.phase_space.masses import MassSpec
from hepgen_ml.phase_space.spectrum import Peaks


def shape_of(chart: Chart) -> Hashable:
    """What charts have in common that can be computed together; None for one that cannot."""
    if chart.follows_conditions:
        return None
    if isinstance(chart, DecayChart):
        nodes = tuple((_kind(n.mass), n.children) for n in chart.nodes)
        production = json.dumps(chart.made_by, sort_keys=True)
        return chart.kind, nodes, chart.n_made, production
    if type(chart) is BalancedChart:
        return chart.kind, tuple(map(_kind, chart.masses)), chart.pt_min, chart.close, chart.share
    return None


class Alike:
    """Charts of one shape, see `shape_of`.

    Parameters
    ----------
    charts : sequence of Chart
    """

    def __init__(self, charts: Sequence[Chart]) -> None:
        self._first = charts[0]
        self._masses = [_Masses(specs) for specs in zip(*map(_specs, charts), strict=True)]

    def of(self, which: Tensor) -> Chart:
        """The chart of m events, each of one of the charts (m,); its calls are for these events."""
        return self._first.with_masses([masses.of(which) for masses in self._masses])


class _Masses:
    """The same mass of several charts."""

    def __init__(self, specs: Sequence[MassSpec]) -> None:
        self._spec: Any = specs[0]
        self._values: Tensor | None = None
        if any(spec != self._spec for spec in specs):
            self._values = torch.tensor(specs, dtype=torch.float64)

    def of(self, which: Tensor) -> Any:
        if self._values is None:
            return self._spec
        values = self._values[which]
        if not isinstance(self._spec, tuple):
            return values
        columns = values.unbind(-1)
        return type(self._spec)(*columns) if hasattr(self._spec, "_fields") else columns


def _specs(chart: Chart) -> list[MassSpec]:
    return [n.mass for n in chart.nodes] if isinstance(chart, DecayChart) else list(chart.masses)


def _kind(spec: MassSpec) -> str:
    """Kind of a specification: fixed, in a range, or with a peak; each with several is its own."""
    return repr(spec) if isinstance(spec, Peaks) else type(spec).__name__
