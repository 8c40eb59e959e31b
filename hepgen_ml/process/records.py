"""Records of all subprocesses as tables, those of one topology together.

Samples of long decay chains may have tens of thousands of subprocesses with a few events each, but
their records differ by flavours alone: there are few chains of statuses and mothers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.seen import at_full_energy
from hepgen_ml.process.structure import PATTERN, Batch, Structure

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Topology:
    """Subprocesses whose records have the same statuses and mothers, k of them with n particles.

    Attributes
    ----------
    structure : Structure
        One of theirs.
    pdg_id : (k, n) int array
    order : (k, f) int array
        Rows of the f final particles in the order of the chart.
    masses : (k, f) float array
        Of these in GeV, nan where the mass varies.
    incoming_masses : (k, 2) float array
    patterns : (p, 3 n) int32 array
        Colour flows and helicities of all subprocesses, one after another.
    first : (k,) int array
        Place of the first pattern of each.
    """

    structure: Structure
    pdg_id: IntArray
    order: IntArray
    masses: FloatArray
    incoming_masses: FloatArray
    patterns: npt.NDArray[np.int32]
    first: IntArray

    def number_of(self, place: IntArray, found: npt.NDArray[np.int32]) -> IntArray:
        """Numbers (m,) of patterns (m, 3 n) of subprocesses (m,), −1 of unknown ones."""
        keys, order = self._sorted
        wanted = _hashes(place, found)
        at = order[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
        same = (self._owner[at] == place) & (self.patterns[at] == found).all(1)
        return np.where(same, at - self.first[place], -1)

    @cached_property
    def _owner(self) -> IntArray:
        """Subprocess of each pattern."""
        sizes = np.diff(np.append(self.first, len(self.patterns)))
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def _sorted(self) -> tuple[IntArray, IntArray]:
        """Hashes of all patterns with their subprocesses, sorted, and the places of these."""
        hashes = _hashes(self._owner, self.patterns)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order


def _hashes(place: IntArray, patterns: npt.NDArray[np.int32]) -> IntArray:
    """Hashes (m,) of 64 bits of patterns (m, 3 n) and their subprocesses (m,)."""
    factors = np.random.default_rng(1).integers(1, 2**62, patterns.shape[1] + 1) * 2 + 1
    with np.errstate(over="ignore"):
        return np.asarray((patterns * factors[1:]).sum(axis=1) + place * factors[0])


class Records:
    """Topologies of the records of all subprocesses.

    Parameters
    ----------
    subprocesses : sequence of Subprocess
    channels : sequence of Channel
    """

    def __init__(self, subprocesses: Sequence[Subprocess], channels: Sequence[Channel]) -> None:
        members: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for number, sub in enumerate(subprocesses):
            s = sub.structure
            members.setdefault((s.status, s.mother1, s.mother2), []).append(number)
        self._topology = np.zeros(len(subprocesses), dtype=np.int64)
        self._place = np.zeros(len(subprocesses), dtype=np.int64)
        self._index: dict[Structure, list[tuple[int, Subprocess]]] = {}
        for number, sub in enumerate(subprocesses):
            self._index.setdefault(sub.structure, []).append((number, sub))
        masses = [_masses(channel) for channel in channels]
        self._topologies = []
        for k, numbers in enumerate(members.values()):
            self._topology[numbers], self._place[numbers] = k, np.arange(len(numbers))
            self._topologies.append(_topology([subprocesses[i] for i in numbers], masses))

    def of(self, subprocess: IntArray) -> Iterator[tuple[Topology, IntArray, IntArray]]:
        """Topologies of events of subprocesses (m,), each with the rows (r,) of its events.

        The second array (r,) says which of the subprocesses of the topology these events have.
        """
        topology = self._topology[subprocess]
        for k in np.unique(topology).tolist():
            rows = np.flatnonzero(topology == k)
            yield self._topologies[k], rows, self._place[subprocess[rows]]

    def recognised(self, batch: Batch) -> tuple[IntArray, IntArray]:
        """Subprocesses and patterns (m,) of events of one length, −1 of those that are unknown.

        A structure has several subprocesses where a part of the events has the full energy of a
        beam.
        """
        number = np.full(len(batch.events), -1)
        ends = pairwise(batch.first.tolist())
        for structure, (first, last) in zip(batch.structures, ends, strict=True):
            some = self._index.get(structure, [])
            if not any(any(sub.at_full) for _, sub in some):
                number[first:last] = some[-1][0] if some else -1
                continue
            energies = [[sub.full_energy[side] for _, sub in some] for side in range(2)]
            full = [next((e for e in own if e is not None), math.inf) for own in energies]
            energy = batch.columns["energy"][first:last, structure.incoming]
            has = at_full_energy(energy, np.array(full))
            for k, sub in some:
                number[first:last][(has == sub.at_full).all(1)] = k
        pattern, known = np.full(len(number), -1), np.flatnonzero(number >= 0)
        found = batch.columns[PATTERN]
        for topology, at, place in self.of(number[known]):
            pattern[known[at]] = topology.number_of(place, found[known[at]])
        return number, pattern


def _masses(channel: Channel) -> list[float]:
    fixed = [channel.chart.fixed_mass(i) for i in range(len(channel.classes))]
    return [np.nan if mass is None else float(mass) for mass in fixed]


def _topology(subs: Sequence[Subprocess], masses: Sequence[Sequence[float]]) -> Topology:
    sizes = [len(s.patterns) for s in subs]
    return Topology(
        subs[0].structure,
        np.array([s.structure.pdg_id for s in subs], dtype=np.int64),
        np.array([s.order for s in subs], dtype=np.int64),
        np.array([masses[s.chart] for s in subs], dtype=np.float64),
        np.array([s.incoming_masses for s in subs], dtype=np.float64),
        np.concatenate([s.patterns for s in subs]),
        np.cumsum([0, *sizes[:-1]], dtype=np.int64),
    )
