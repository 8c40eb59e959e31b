"""Masses of final particles together, in the events that a learner keeps of each structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hepgen_ml.process.seen import Seen
from hepgen_ml.process.structure import Structure

FloatArray = npt.NDArray[np.float64]

Place = tuple[Structure, Sequence[int]]
"""A structure, and the rows of some of its final particles."""


class KeptMasses:
    """Masses in GeV, computed together for all structures whose final particles have the same rows.

    There may be tens of thousands of structures with a few events each.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    """

    def __init__(self, seen: Mapping[Structure, Seen]) -> None:
        self._seen = seen
        self._alike: dict[tuple[int, ...], list[Structure]] = {}
        self._events: dict[Structure, slice] = {}
        ends: dict[tuple[int, ...], int] = {}
        for structure, own in seen.items():
            status = structure.status
            self._alike.setdefault(status, []).append(structure)
            first = ends.get(status, 0)
            ends[status] = first + len(own.kept["final"])
            self._events[structure] = slice(first, ends[status])
        self._momenta: dict[tuple[int, ...], FloatArray] = {}
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], FloatArray] = {}

    def of(self, structure: Structure, rows: Sequence[int]) -> FloatArray:
        """Masses (events,) of some final particles of a structure together."""
        status = structure.status
        key = status, tuple(rows)
        if key not in self._known:
            if status not in self._momenta:
                kept = [self._seen[s].kept["final"] for s in self._alike[status]]
                self._momenta[status] = np.concatenate(kept)
            columns = [structure.final.index(r) for r in rows]
            total = np.add.reduce(self._momenta[status][:, columns], axis=1)
            self._known[key] = masses_of(total)
        return self._known[key][self._events[structure]]

    def of_all(self, places: Sequence[Place]) -> FloatArray:
        """The same of many structures, one after another."""
        return np.concatenate([np.zeros(0), *(self.of(*place) for place in places)])


def masses_of(momenta: FloatArray) -> FloatArray:
    """Masses (m,) of momenta (m, 4) in GeV."""
    x, y, z, energy = momenta.T
    size = np.sqrt(x * x + y * y + z * z)
    return np.sqrt(np.maximum((energy - size) * (energy + size), 0.0))
