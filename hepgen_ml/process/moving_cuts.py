"""Cuts of a sample that move with the conditions of the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.phase_space import Cut
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.phase_space.edges import Edge, lower_edge
from hepgen_ml.phase_space.observables import Key, particle_observables
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.following import cells_of
from hepgen_ml.process.origins import Origins
from hepgen_ml.process.seen import Seen
from hepgen_ml.process.structure import Structure

_FEWEST = 400
"""Minimum number of values at a condition to find an edge."""

_APART, _CLEAR = 0.02, 10.0
"""Distance of an edge at some conditions from that of all events above which it differs, relative
to its value and in mean spacings of the values next to it."""

_MARGIN = 6.0
"""Mean spacings between a line below all values and the bound."""

_MOST_NODES = 1000
_NAMED = 6
"""Values of a condition that a message names."""


@dataclass(frozen=True)
class MovingCut:
    """Lower bound of an observable that is a function of one condition.

    Attributes
    ----------
    observable, classes : str, tuple of str
        See `hepgen_ml.phase_space.Cut`.
    condition : int
        Its number among those of the model.
    nodes : tuple of (float, float)
        Values of the condition, rising, and the bound there; linear between them.
    linear : bool
        Whether the bound goes on as a straight line beyond the nodes, else it stays as it is there.
    """

    observable: str
    classes: tuple[str, ...]
    condition: int
    nodes: tuple[tuple[float, float], ...]
    linear: bool

    def low(self, values: FloatArray) -> FloatArray:
        """Bound (n,) at conditions (n, K)."""
        c = values[:, self.condition]
        at, low = np.array(self.nodes).T
        if self.linear:
            slope = (low[-1] - low[0]) / (at[-1] - at[0])
            return np.asarray(low[0] + slope * (c - at[0]))
        return np.interp(c, at, low)

    def passes(self, p: Tensor, labels: Sequence[str], values: Tensor) -> Tensor:
        """Mask (m,) of final states (m, n, 4) above the bound at their conditions (m, K)."""
        key = self.observable, self.classes
        found = particle_observables(p, labels, {key}).get(key)
        if found is None:
            return torch.ones(len(p), dtype=torch.bool)
        return (found >= torch.from_numpy(self.low(values.numpy()))[:, None]).all(-1)

    def described(self, conditions: Conditions) -> str:
        """The bound in words."""
        name, text = conditions.each[self.condition].name, f"({', '.join(self.classes)})"
        text = f"{self.observable}{text}"
        if not self.linear:
            at = _some(
                [f"{low:.6g} at {_value(conditions, self.condition, c)}" for c, low in self.nodes]
            )
            between = "" if conditions.each[self.condition].levels else ", linear between these"
            return f"{at}{between} <= {text}"
        (first, low), (last, high) = self.nodes[0], self.nodes[-1]
        slope = (high - low) / (last - first)
        start = low - slope * first
        sign = "-" if slope < 0 else "+"
        line = f"{start:.6g} {sign} " if start else "-" if slope < 0 else ""
        return f"{line}{abs(slope):.6g} {name} <= {text}"

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "observable": self.observable, "classes": list(self.classes),
            "condition": self.condition, "nodes": [list(n) for n in self.nodes],
            "linear": self.linear,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MovingCut:
        """Inverse of `to_config`; the document has been validated."""
        nodes = tuple((float(c), float(low)) for c, low in config["nodes"])
        classes = tuple(str(c) for c in config["classes"])
        return cls(
            str(config["observable"]), classes, int(config["condition"]), nodes,
            bool(config["linear"]),
        )  # fmt: skip


Place = tuple[Edge, FloatArray]
"""An edge, and the conditions there."""


class Found(NamedTuple):
    """Result of the search for moving cuts.

    Attributes
    ----------
    cuts : tuple of MovingCut
        Those that a line or the points of a scan describe.
    others : list of str
        Sentences about the others.
    """

    cuts: tuple[MovingCut, ...] = ()
    others: Sequence[str] = ()


def moving_cuts(
    seen: Mapping[Structure, Seen],
    found: Iterable[Cut],
    classes: Iterable[str],
    conditions: Conditions,
    origins: Origins,
) -> Found:
    """Lower cuts that at some conditions are far above those of all events.

    Parameters
    ----------
    seen : mapping of Structure to Seen
        With the conditions of the events as numbers.
    found : iterable of Cut
        Found in all events together.
    classes : iterable of str
        Flavour classes whose transverse momenta are checked even without such a cut.
    conditions : Conditions
    origins : Origins
        Of final particles, where cuts depend on these.
    """
    lows: dict[Key, float] = {("pt", (label,)): 0.0 for label in classes}
    lows |= {(c.observable, c.classes): c.low for c in found if np.isfinite(c.low)}
    values, given = _observed(seen, set(lows), origins)
    cuts, texts = [], []
    for key in sorted(values):
        own, where = np.concatenate(values[key]), np.concatenate(given[key])
        edges = _edges(key, own, where, conditions)
        if len(edges) < 2:
            continue
        low, high = (min(edges, key=_place), max(edges, key=_place))
        common = lows[key] or low[0].at
        above = [e for e, _ in edges if e.at - common > _CLEAR * e.spacing + _APART * e.at]
        if 2 * len(above) < len(edges):
            continue
        cut = _law(key, own, where, edges, conditions)
        if cut is not None:
            cuts.append(cut)
            continue
        name = f"{key[0]}({', '.join(key[1])})"
        only = f"only {name} < {lows[key]:g} is cut, which is wrong beyond the sample's range"
        texts.append(
            f"the cut on {name} moves with the conditions, from about {low[0].at:.4g} at "
            f"{_at(low[1], conditions)} to {high[0].at:.4g} at {_at(high[1], conditions)}: that "
            "there are few events below is learned by the density, not enforced; "
            + (only if lows[key] else "nothing is cut")
        )
    return Found(tuple(cuts), texts)


def _law(
    key: Key, values: FloatArray, given: FloatArray, edges: Sequence[Place], conditions: Conditions
) -> MovingCut | None:
    """A bound that is proportional to a condition, linear in it or given at points of a scan."""
    for k, one in enumerate(conditions.each):
        if not one.levels:
            for line in _lines(key, values, given[:, k]):
                cut = MovingCut(*key, k, line, linear=True)
                slack = values - cut.low(given)
                cells = cells_of(given, conditions.kinds, conditions.scan)
                if all(_begins_at_zero(slack[rows]) for rows in cells if len(rows) >= _FEWEST):
                    return cut
    if not conditions.scan or len(edges) > _MOST_NODES:
        return None
    n_cells = len(cells_of(given, conditions.kinds, conditions.scan))
    for k in range(len(conditions.each)):
        at: dict[float, list[Edge]] = {}
        for edge, where in edges:
            at.setdefault(float(where[k]), []).append(edge)
        alike = all(
            abs(e.at - some[0].at) <= _CLEAR * max(e.spacing, some[0].spacing)
            for some in at.values() for e in some
        )  # fmt: skip
        if alike and len(edges) == n_cells and len(at) > 1:
            nodes = tuple((c, min(e.at for e in at[c])) for c in sorted(at))
            return MovingCut(*key, k, nodes, linear=False)
    return None


def _lines(
    key: Key, values: FloatArray, c: FloatArray
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Straight lines below all values (n,) as functions of a condition (n,), each by two points."""
    low, high = float(c.min()), float(c.max())
    if not low < high:
        return
    if low > 0:
        ratio = np.sort(values / c)
        edge = lower_edge(ratio, len(ratio), None if key[0] == "mass" else 0.0)
        if edge is not None and edge.at <= ratio[0]:
            yield (0.0, 0.0), (1.0, edge.at)
    at, least = _hull(c, values)
    middle = float(c.mean())
    right = int(np.clip(np.searchsorted(at, middle), 1, len(at) - 1))
    slope = (least[right] - least[right - 1]) / (at[right] - at[right - 1])
    line = least[right] + slope * (c - at[right])
    slack = np.sort(values - line)
    n = min(64, len(slack) - 1)
    down = _MARGIN * float(slack[n] - slack[0]) / n
    first, last = (float(least[right] + slope * (x - at[right]) - down) for x in (low, high))
    yield (low, float(f"{first:.10g}")), (high, float(f"{last:.10g}"))


def _hull(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Corners of the convex curve below all points, from left to right."""
    corners: list[tuple[float, float]] = []
    for point in sorted(zip(x.tolist(), y.tolist(), strict=True)):
        if corners and point[0] == corners[-1][0]:
            continue
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (point[0] - x0) < (point[1] - y0) * (x1 - x0):
                break
            corners.pop()
        corners.append(point)
    found = np.array(corners)
    return found[:, 0], found[:, 1]


def _begins_at_zero(slack: FloatArray) -> bool:
    """Whether distances from a bound have an edge there."""
    values = np.sort(slack)
    edge = lower_edge(values, len(values))
    if edge is None:
        return False
    spacing = max(float(values[m] - values[0]) / m for m in (8, 64))
    return bool(0.0 <= values[0] <= 3 * _MARGIN * spacing)


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_NAMED]) + (", ..." if len(texts) > _NAMED else "")


def _value(conditions: Conditions, k: int, value: float) -> str:
    one = conditions.each[k]
    return f"{one.name} = {one.levels[int(value)] if one.levels else f'{value:.6g}'}"


def _observed(
    seen: Mapping[Structure, Seen], keys: set[Key], origins: Origins
) -> tuple[dict[Key, list[FloatArray]], dict[Key, list[FloatArray]]]:
    """Smallest value of each observable in kept events (n,), and conditions (n, K) of these."""
    values: dict[Key, list[FloatArray]] = {}
    given: dict[Key, list[FloatArray]] = {}
    for structure, one in seen.items():
        classes = {r: flavour_class(structure.pdg_id[r], float(one.mass_low[r]))
                   for r in structure.final}  # fmt: skip
        labels = [origins.label(structure, r, c) for r, c in classes.items()]
        p = torch.from_numpy(one.kept["final"])
        for key, found in particle_observables(p, labels, keys).items():
            values.setdefault(key, []).append(found.min(-1).values.numpy())
            given.setdefault(key, []).append(one.kept["conditions"])
    return values, given


def _edges(key: Key, values: FloatArray, given: FloatArray, conditions: Conditions) -> list[Place]:
    """Edges at points of a scan or in ranges of conditions, with their middle."""
    found, natural = [], None if key[0] == "mass" else 0.0
    for rows in cells_of(given, conditions.kinds, conditions.scan):
        if len(rows) < _FEWEST:
            continue
        edge = lower_edge(np.sort(values[rows]), len(rows), natural)
        if edge is not None:
            found.append((edge, np.median(given[rows], axis=0)))
    return found


def _place(edge: Place) -> float:
    return edge[0].at


def _at(values: FloatArray, conditions: Conditions) -> str:
    return ", ".join(_value(conditions, k, float(f"{v:.4g}")) for k, v in enumerate(values))
