"""Detection of cuts that move with the conditions of the user, which models do not support."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.phase_space import Cut
from hepgen_ml.phase_space.cuts import Key, flavour_class, particle_observables
from hepgen_ml.phase_space.edges import Edge, lower_edge
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.following import cells_of
from hepgen_ml.process.seen import Seen
from hepgen_ml.process.structure import Structure

_FEWEST = 400
"""Minimum number of values at a condition to find an edge."""

_APART, _CLEAR = 0.02, 10.0
"""Distance of an edge at some conditions from that of all events above which it differs, relative
to its value and in mean spacings of the values next to it."""


def moving_cuts(
    seen: Mapping[Structure, Seen],
    found: Iterable[Cut],
    classes: Iterable[str],
    conditions: Conditions,
) -> list[str]:
    """Sentences about lower cuts that at some conditions are far above those of all events.

    Parameters
    ----------
    seen : mapping of Structure to Seen
        With the conditions of the events as numbers.
    found : iterable of Cut
        Found in all events together.
    classes : iterable of str
        Flavour classes whose transverse momenta are checked even without such a cut.
    conditions : Conditions
    """
    lows: dict[Key, float] = {("pt", (label,)): 0.0 for label in classes}
    lows |= {(c.observable, c.classes): c.low for c in found if np.isfinite(c.low)}
    values, given = _observed(seen, set(lows))
    texts = []
    for key in sorted(values):
        edges = _edges(key, np.concatenate(values[key]), np.concatenate(given[key]), conditions)
        if len(edges) < 2:
            continue
        low, high = (min(edges, key=_place), max(edges, key=_place))
        common = lows[key] or low[0].at
        above = [e for e, _ in edges if e.at - common > _CLEAR * e.spacing + _APART * e.at]
        if 2 * len(above) < len(edges):
            continue
        name = f"{key[0]}({', '.join(key[1])})"
        cut = f"only {name} < {lows[key]:g} is cut, which is wrong beyond the sample's range"
        texts.append(
            f"the cut on {name} moves with the conditions, from about {low[0].at:.4g} at "
            f"{_at(low[1], conditions)} to {high[0].at:.4g} at {_at(high[1], conditions)}: that "
            "there are few events below is learned by the density, not enforced; "
            + (cut if lows[key] else "nothing is cut")
        )
    return texts


def _observed(
    seen: Mapping[Structure, Seen], keys: set[Key]
) -> tuple[dict[Key, list[FloatArray]], dict[Key, list[FloatArray]]]:
    """Smallest value of each observable in kept events (n,), and conditions (n, K) of these."""
    values: dict[Key, list[FloatArray]] = {}
    given: dict[Key, list[FloatArray]] = {}
    for structure, one in seen.items():
        labels = [flavour_class(structure.pdg_id[r], float(one.mass_low[r]))
                  for r in structure.final]  # fmt: skip
        p = torch.from_numpy(one.kept["final"])
        for key, found in particle_observables(p, labels, keys).items():
            values.setdefault(key, []).append(found.min(-1).values.numpy())
            given.setdefault(key, []).append(one.kept["conditions"])
    return values, given


def _edges(
    key: Key, values: FloatArray, given: FloatArray, conditions: Conditions
) -> list[tuple[Edge, FloatArray]]:
    """Edges at points of a scan or in ranges of conditions, with their middle."""
    found, natural = [], None if key[0] == "mass" else 0.0
    for rows in cells_of(given, conditions.kinds, conditions.scan):
        if len(rows) < _FEWEST:
            continue
        edge = lower_edge(np.sort(values[rows]), len(rows), natural)
        if edge is not None:
            found.append((edge, np.median(given[rows], axis=0)))
    return found


def _place(edge: tuple[Edge, FloatArray]) -> float:
    return edge[0].at


def _at(values: FloatArray, conditions: Conditions) -> str:
    texts = (
        f"{c.name} = {c.levels[int(v)] if c.levels else f'{v:.4g}'}"
        for c, v in zip(conditions.each, values, strict=True)
    )
    return ", ".join(texts)
