"""Records of all subprocesses as tables, those of one topology together.

Samples of long decay chains may have tens of thousands of subprocesses with a few events each, but
their records differ by flavours alone: there are few chains of statuses and mothers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.structure import Structure

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
        order = np.argsort(topology, kind="stable")
        present, first = np.unique(topology[order], return_index=True)
        for k, rows in zip(present.tolist(), np.split(order, first[1:]), strict=True):
            yield self._topologies[k], rows, self._place[subprocess[rows]]


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
