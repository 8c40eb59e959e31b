"""The collision of two partons in records that contain more than that.

Records of the Les Houches accord may begin with the beams (status -9), followed by their remnants
and the partons; contain propagators (status -2); and have rows that are no particles, such as a
collision's system or a string (the id 0, or 81 to 100, which the PDG numbering leaves to the
inside of generators). Laws are judged, and densities learned, for the collision alone. Some
generators write no mothers for what the collision makes; densities are learned of events that do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.laws.particle_ids import INTERNAL, ids_of
from hepgen_ml.events.sample import EventSample, IntArray

BoolArray = npt.NDArray[np.bool_]

BEAM, PROPAGATOR = -9, -2
"""Statuses of the Les Houches accord."""

_NAMED = 8  # ids in a sentence


def beams_and_remnants(sample: EventSample) -> BoolArray:
    """Rows (rows,) of beams, and of what descends from a single beam but is not incoming."""
    p = sample.particles
    found: BoolArray = np.zeros(int(sample.offsets[-1]), dtype=bool)
    if not {"status", "mother1", "mother2"} <= set(p):
        return found
    found |= p["status"] == BEAM
    if not found.any():
        return found
    mother = _single_mother(sample)
    inner = found.copy()  # what may have remnants as daughters
    others = np.flatnonzero((mother >= 0) & (p["status"] != -1) & ~found)
    while len(others):
        mine = inner[mother[others]]
        if not mine.any():
            break
        inner[others[mine]] = True
        others = others[~mine]
    return inner


def outside(sample: EventSample) -> BoolArray:
    """Rows (rows,) that are not part of the collision of two partons, see `hard_process`."""
    p = sample.particles
    found = beams_and_remnants(sample)
    if not {"status", "mother1", "mother2"} <= set(p):
        return found
    status, size = p["status"], np.abs(p["pdg_id"])
    found |= status == PROPAGATOR
    none = (size == 0) | ((size >= INTERNAL[0]) & (size <= INTERNAL[1]))
    none &= (status != -1) & (status != 1)
    if none.any():
        rows = np.flatnonzero(none)
        known = ids_of(sample.run.header).look_up(p["pdg_id"][rows])[2]
        found[rows[~known]] = True
    return found


def hard_process(sample: EventSample) -> EventSample:
    """Events without beams, remnants, propagators and rows that are no particles.

    Their daughters become those of their mothers. Where a record has no mothers of what the
    collision makes, these are the incoming particles. Other events remain as they are.
    """
    return with_mothers(without(sample, outside(sample)))


class HardProcess:
    """`hard_process` of the chunks of a sample, with an account of what is left out.

    Parameters
    ----------
    complete : bool
        Put in the mothers that records lack.
    """

    def __init__(self, complete: bool = True) -> None:
        self._ids: dict[int, None] = {}
        self._n_final = self._n_completed = 0
        self._complete = complete

    def __call__(self, chunk: EventSample) -> EventSample:
        """The chunk without what does not belong to the collision."""
        rows = outside(chunk)
        if rows.any():
            if len(self._ids) <= _NAMED:
                self._ids |= dict.fromkeys(np.unique(chunk.particles["pdg_id"][rows]).tolist())
            self._n_final += int((rows & (chunk.particles["status"] == 1)).sum())
        chunk = without(chunk, rows)
        if self._complete and (lacking := _without_mothers(chunk)).any():
            self._n_completed += len(np.unique(chunk.event_index[lacking]))
            chunk = with_mothers(chunk)
        return chunk

    @property
    def left_out(self) -> list[str]:
        """Sentences about what was left out or put in so far, if anything was."""
        return [*self._about_rows(), *self._about_mothers()]

    def _about_mothers(self) -> list[str]:
        if not self._n_completed:
            return []
        return [
            f"{self._n_completed:,} events state no mothers of what the collision makes: these are "
            "taken to be the incoming particles, and generated events state them, as Pythia "
            "refuses events without"
        ]

    def _about_rows(self) -> list[str]:
        if not self._ids:
            return []
        some = list(self._ids)
        names = ", ".join(map(str, some[:_NAMED])) + (", ..." if len(some) > _NAMED else "")
        final = f"; {self._n_final:,} of them are final particles" if self._n_final else ""
        return [
            f"beams, remnants, propagators and rows that are no particles (ids {names}){final}: "
            "only the collision of the two incoming particles counts"
        ]


def with_mothers(sample: EventSample) -> EventSample:
    """Events with the incoming particles as mothers of what the collision makes, where none are."""
    rows = _without_mothers(sample)
    if not rows.any():
        return sample
    event, columns = sample.event_index, dict(sample.particles)
    wanted = np.bincount(event[rows], minlength=len(sample)) > 0
    incoming = np.flatnonzero((columns["status"] == -1) & wanted[event]).reshape(-1, 2)
    number = np.zeros((len(sample), 2), dtype=np.int64)
    number[wanted] = incoming - sample.offsets[:-1][wanted][:, None] + 1
    for name, value in (("mother1", number[:, 0]), ("mother2", number[:, 1])):
        columns[name] = np.where(rows, value[event], columns[name])
    return EventSample(
        sample.run, sample.offsets, columns, sample.events,
        weights=sample.weights, scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip


def _without_mothers(sample: EventSample) -> BoolArray:
    """Rows (rows,) that lack mothers in events where no particle names an incoming one."""
    p = sample.particles
    none: BoolArray = np.zeros(int(sample.offsets[-1]), dtype=bool)
    if not {"status", "mother1", "mother2"} <= set(p):
        return none
    incoming = p["status"] == -1
    rows = ~incoming & (p["mother1"] == 0) & (p["mother2"] == 0)
    if not rows.any():
        return none
    event, m1 = sample.event_index, p["mother1"].astype(np.int64)
    inside = (m1 > 0) & (m1 <= sample.counts[event])
    mother = np.where(inside, sample.offsets[event] + m1 - 1, 0)
    names_incoming = np.bincount(event, inside & incoming[mother], len(sample)) > 0
    pair = np.bincount(event, incoming, len(sample)) == 2
    return np.asarray(rows & (pair & ~names_incoming)[event])


def without(sample: EventSample, rows: BoolArray) -> EventSample:
    """A sample without some rows, whose daughters become those of their mothers."""
    if not rows.any():
        return sample
    p, event = sample.particles, sample.event_index
    kept = ~rows
    number: IntArray = np.cumsum(kept, dtype=np.int64)  # from 1 over the sample
    before = np.concatenate([[0], number])[sample.offsets[:-1]]
    counts = np.diff(np.concatenate([before, [number[-1]]]))
    changed = np.bincount(event[rows], minlength=len(sample)) > 0
    mothers = _lifted(sample, rows)
    for column in mothers:
        at = column >= 0
        column[at] = number[column[at]] - before[event[at]]
        column[~at] = 0
    low, high = np.minimum(*mothers), np.maximum(*mothers)
    single = low == 0
    first, second = np.where(single, high, low), np.where(single, 0, high)
    first, second = _of_both(sample, rows, first, second, number)
    untouched = ~changed[event]
    columns = {name: values[kept] for name, values in p.items()}
    columns["mother1"] = np.where(untouched, p["mother1"], first)[kept]
    columns["mother2"] = np.where(untouched, p["mother2"], second)[kept]
    return EventSample(
        sample.run, np.concatenate([[0], np.cumsum(counts)]), columns, sample.events,
        weights=sample.weights, scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip


def _single_mother(sample: EventSample) -> IntArray:
    """Row (rows,) of the only mother; -1 without one, or with several."""
    p, event = sample.particles, sample.event_index
    m1, m2 = p["mother1"].astype(np.int64), p["mother2"].astype(np.int64)
    one = (m1 > 0) & (m1 <= sample.counts[event]) & ((m2 == 0) | (m2 == m1))
    return np.where(one, sample.offsets[event] + m1 - 1, -1)


def _lifted(sample: EventSample, rows: BoolArray) -> tuple[IntArray, IntArray]:
    """Rows of the first and last mother that are not left out; -1 for none."""
    p, event = sample.particles, sample.event_index
    counts, start = sample.counts[event], sample.offsets[event]
    of = []
    for name in ("mother1", "mother2"):
        m = p[name].astype(np.int64)
        of.append(np.where((m > 0) & (m <= counts), start + m - 1, -1))
    of[0] = np.where(of[0] < 0, of[1], of[0])
    of[1] = np.where(of[1] < 0, of[0], of[1])
    result = []
    for own in of:
        mother = own.copy()
        mother[p["status"] == -1] = -1
        for _ in range(int(sample.counts.max(initial=0))):  # also if mothers form a circle
            gone = (mother >= 0) & rows[mother]
            if not gone.any():
                break
            mother[gone] = own[mother[gone]]
        mother[(mother >= 0) & rows[mother]] = -1
        result.append(mother)
    return result[0], result[1]


def _of_both(
    sample: EventSample, rows: BoolArray, first: IntArray, second: IntArray, number: IntArray,
) -> tuple[IntArray, IntArray]:
    """Mothers (rows,) with both incoming particles for what has one of them, or nothing."""
    event, status = sample.event_index, sample.particles["status"]
    incoming = np.flatnonzero((status == -1) & ~rows)
    n = np.bincount(event[incoming], minlength=len(sample))
    before = np.concatenate([[0], number])[sample.offsets[:-1]]
    lowest = np.full(len(sample), np.iinfo(np.int64).max)
    highest = np.zeros(len(sample), dtype=np.int64)
    own = number[incoming] - before[event[incoming]]
    np.minimum.at(lowest, event[incoming], own)
    np.maximum.at(highest, event[incoming], own)
    alone = (second == 0) | (second == first)
    top = (status != -1) & (n[event] == 2)
    top &= (first == 0) | (alone & ((first == lowest[event]) | (first == highest[event])))
    return np.where(top, lowest[event], first), np.where(top, highest[event], second)
