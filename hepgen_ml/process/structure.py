"""Canonical form of parton-level events, independent of the kinematics.

Events of the same structure (flavours, statuses, mothers, process number) are
gathered into tables with one row per event and one column per particle:
incoming partons first, the one along +z leading, and identical final-state
particles ordered by transverse momentum. Objects of reconstructed samples count as
final particles without mothers, ordered by kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.helicities import helicity_codes
from hepgen_ml.events.objects import rank_of
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample
from hepgen_ml.phase_space.cuts import LIGHT, Acceptance
from hepgen_ml.phase_space.leading import smallest_by_rank
from hepgen_ml.phase_space.made import Made

Table = npt.NDArray[Any]

FIRST_COLOR = 501

PATTERN = "pattern"
"""Column (m, 3n) of the discrete part of events, see `patterns`."""


@dataclass(frozen=True, order=True)
class Structure:
    """An assignment of flavours, which distinguishes subprocesses.

    Attributes
    ----------
    process_id : int
        LPRUP of the run's process it belongs to.
    pdg_id, status, mother1, mother2 : tuple of int
        One entry per particle; mothers count from 1.
    """

    process_id: int
    pdg_id: tuple[int, ...]
    status: tuple[int, ...]
    mother1: tuple[int, ...]
    mother2: tuple[int, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.process_id, self.pdg_id, self.status, self.mother1, self.mother2))

    @cached_property
    def incoming(self) -> list[int]:
        """Rows of the incoming partons."""
        return _rows_of(self.status)[0]

    @cached_property
    def beams(self) -> tuple[int, ...]:
        """Flavours of the incoming partons."""
        return tuple(self.pdg_id[r] for r in self.incoming)

    @cached_property
    def final(self) -> list[int]:
        """Rows of the final-state particles."""
        return _rows_of(self.status)[1]

    @cached_property
    def intermediate(self) -> list[int]:
        """Rows of everything else: resonances."""
        return _rows_of(self.status)[2]

    def leaves(self, row: int) -> list[int]:
        """Final-state rows that descend from a particle."""
        return list(_leaves(row, self.status, self.mother1, self.mother2))

    @property
    def products(self) -> frozenset[int]:
        """Final-state particles, by their place in `final`, that come from a resonance."""
        return _products(self.status, self.mother1, self.mother2)

    @property
    def pairs_of_decays(self) -> frozenset[tuple[int, int]]:
        """Pairs of final-state particles, by their place in `final`, that a resonance becomes."""
        return _pairs_of_decays(self.status, self.mother1, self.mother2)

    def smallest_momenta(
        self, acceptance: Acceptance, classes: Mapping[int, str]
    ) -> dict[int, float]:
        """Smallest transverse momenta of the final particles of these classes, by row.

        Identical ones have those of their rank, see `smallest_by_rank`.
        """
        if not acceptance.of_ranks:
            return {r: acceptance.pt_min(label) for r, label in classes.items()}
        kinds = [(self.pdg_id[r], self.mother1[r], self.mother2[r]) for r in classes]
        values = smallest_by_rank(acceptance.low, [*classes.values()], kinds)
        return dict(zip(classes, values, strict=True))

    def made(self, classes: Sequence[str], order: Sequence[int] | None = None) -> tuple[Made, ...]:
        """What the collision makes, none if final particles do not come from one of these each.

        Parameters
        ----------
        classes : sequence of str
            Flavour classes of final-state particles.
        order : sequence of int, optional
            Their rows, those of `final` by default.
        """
        place = {row: k for k, row in enumerate(self.final if order is None else order)}
        found = []
        for row, leaves in _made(self.status, self.mother1, self.mother2):
            places = tuple(sorted(place[leaf] for leaf in leaves))
            own = abs(self.pdg_id[row])
            name = classes[places[0]] if len(places) == 1 else "" if own in LIGHT else str(own)
            found.append(Made(name, places))
        return tuple(found)


_Rows = tuple[int, ...]

# Decays of events that differ by flavours alone are the same: each is followed once.
_MOST_REMEMBERED = 20_000


@lru_cache(_MOST_REMEMBERED)
def _rows_of(status: _Rows) -> tuple[list[int], list[int], list[int]]:
    """Rows of incoming partons, of final particles and of all others."""
    rows = range(len(status))
    return (
        [i for i in rows if status[i] == -1],
        [i for i in rows if status[i] == 1],
        [i for i in rows if status[i] not in (-1, 1)],
    )


@lru_cache(_MOST_REMEMBERED)
def _leaves(row: int, status: _Rows, mother1: _Rows, mother2: _Rows) -> list[int]:
    """Rows of final particles that descend from a particle."""
    found: set[int] = set()
    seen, todo = {row}, [row]
    while todo:
        mother = todo.pop()
        for i in range(len(status)):
            if i in seen or mother + 1 not in (mother1[i], mother2[i]):
                continue
            if status[i] == 1:
                found.add(i)
            elif i > mother:
                seen.add(i)
                todo.append(i)
    return sorted(found)


@lru_cache(_MOST_REMEMBERED)
def _products(status: _Rows, mother1: _Rows, mother2: _Rows) -> frozenset[int]:
    """See `Structure.products`."""
    resonances = [row for row, s in enumerate(status) if s not in (-1, 1)]
    rows = {leaf for row in resonances for leaf in _leaves(row, status, mother1, mother2)}
    final = (i for i, s in enumerate(status) if s == 1)
    return frozenset(k for k, row in enumerate(final) if row in rows)


@lru_cache(_MOST_REMEMBERED)
def _made(status: _Rows, mother1: _Rows, mother2: _Rows) -> tuple[tuple[int, list[int]], ...]:
    """Rows that come from the collision itself, with the rows of final particles they become."""
    incoming = {row + 1 for row, s in enumerate(status) if s == -1}
    found = []
    for row, s in enumerate(status):
        mothers = {mother1[row], mother2[row]} - {0}
        if s != -1 and (not mothers or mothers & incoming):
            leaves = [row] if s == 1 else _leaves(row, status, mother1, mother2)
            found += [(row, leaves)] if leaves else []
    final = [row for row, s in enumerate(status) if s == 1]
    return tuple(found) if sorted(r for _, rows in found for r in rows) == final else ()


@lru_cache(_MOST_REMEMBERED)
def _pairs_of_decays(status: _Rows, mother1: _Rows, mother2: _Rows) -> frozenset[tuple[int, int]]:
    """See `Structure.pairs_of_decays`."""
    place = {row: k for k, row in enumerate(i for i, s in enumerate(status) if s == 1)}
    leaves = (
        _leaves(row, status, mother1, mother2) for row, s in enumerate(status) if s not in (-1, 1)
    )
    return frozenset(
        (min(pair), max(pair))
        for pair in (tuple(place[r] for r in rows) for rows in leaves if len(rows) == 2)
    )


class Batch(NamedTuple):
    """Events of the same number of particles n, those of a structure one after another.

    Attributes
    ----------
    structures : list of k Structure
    first : (k + 1,) int array
        Where the events of each begin, and the number m of all.
    events : (m,) int array
        Event numbers in the sample.
    columns : dict of str to (m, n) array
        Particle columns in canonical order, mothers renumbered with them.
    """

    structures: list[Structure]
    first: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]
    columns: dict[str, Table]


def tables(
    sample: EventSample, *, discrete: bool = False
) -> Iterator[tuple[Structure, npt.NDArray[np.int64], dict[str, Table]]]:
    """Events of a sample, gathered by structure.

    Parameters
    ----------
    sample : EventSample
    discrete : bool
        Add the column `PATTERN`, see `patterns`.

    Yields
    ------
    structure : Structure
    events : (m,) int array
        Event numbers in the sample.
    columns : dict of str to (m, n) array
        As those of a `Batch`.
    """
    for batch in batches(sample, discrete=discrete):
        ends = pairwise(batch.first.tolist())
        for structure, (first, last) in zip(batch.structures, ends, strict=True):
            table = {name: values[first:last] for name, values in batch.columns.items()}
            yield structure, batch.events[first:last], table


def batches(sample: EventSample, *, discrete: bool = False) -> Iterator[Batch]:
    """Events of a sample by their number of particles and structure.

    All that is computed is computed for all events of a length together: samples may have
    thousands of structures with few events each.

    Parameters
    ----------
    sample : EventSample
    discrete : bool
        Add the column `PATTERN`, see `patterns`.
    """
    counts = sample.counts
    for n in np.unique(counts):
        if n == 0:
            continue
        events = np.flatnonzero(counts == n)
        rows = sample.offsets[:-1][events][:, None] + np.arange(n)
        columns = {name: values[rows] for name, values in sample.particles.items()}
        if sample.is_reconstructed:
            columns = _by_kind(columns)
        columns = _ordered(_incoming_first(columns))
        if discrete:
            columns[PATTERN] = patterns(columns)
        order, ends = _alike(columns, sample.events.get("process_id"), events)
        columns, events = {name: v[order] for name, v in columns.items()}, events[order]
        first = np.array([0, *ends, len(events)])
        one = first[:-1]
        ids = sample.process_id[events[one]] if "process_id" in sample.events else 0 * one
        names = ("pdg_id", "status", "mother1", "mother2")
        rows_of = [map(tuple, columns[name][one].tolist()) for name in names]
        structures = [Structure(*s) for s in zip(map(int, ids), *rows_of, strict=True)]
        yield Batch(structures, first, events, columns)


def _by_kind(columns: dict[str, Table]) -> dict[str, Table]:
    """Reconstructed objects in a fixed order, with the columns of final particles."""
    pdg_id = columns["pdg_id"]
    order = np.argsort(2 * rank_of(pdg_id) + (pdg_id < 0), axis=1, kind="stable")
    columns = {name: np.take_along_axis(v, order, axis=1) for name, v in columns.items()}
    nothing = np.zeros_like(pdg_id)
    return columns | {"status": nothing + 1, "mother1": nothing, "mother2": nothing}


def _incoming_first(columns: dict[str, Table]) -> dict[str, Table]:
    status, pz = columns["status"], columns["pz"]
    n = status.shape[1]
    position = np.broadcast_to(np.arange(n) + 2.0, status.shape)
    # a target at rest has a longitudinal momentum of rounding's, of either sign: the larger leads
    largest = np.maximum(np.abs(pz).max(1, keepdims=True), 1e-300)
    key = np.where(status == -1, -pz / largest, position)
    order = np.argsort(key, axis=1, kind="stable")
    if (order == np.arange(n)).all():
        return columns
    columns = {name: np.take_along_axis(v, order, axis=1) for name, v in columns.items()}
    new_number = np.zeros((len(order), n + 1), dtype=np.int32)
    np.put_along_axis(new_number[:, 1:], order, np.arange(1, n + 1, dtype=np.int32)[None], axis=1)
    mothers = [
        np.take_along_axis(new_number, np.clip(columns[name], 0, n), axis=1)
        for name in ("mother1", "mother2")
    ]
    # A pair of mothers is written in ascending order; a zero second mother stays second.
    swap = (mothers[1] > 0) & (mothers[0] > mothers[1])
    columns["mother1"] = np.where(swap, mothers[1], mothers[0])
    columns["mother2"] = np.where(swap, mothers[0], mothers[1])
    return columns


def _alike(
    columns: dict[str, Table], process_id: Table | None, events: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], list[int]]:
    """Order of the events in which those of a structure are neighbours, and where others begin.

    Structures are equal by a 64-bit hash.
    """
    names = ("pdg_id", "status", "mother1", "mother2")
    parts = [columns[name] for name in names]
    if process_id is not None:
        parts.append(process_id[events][:, None])
    keys = np.concatenate(parts, axis=1).astype(np.int64)
    # A fixed seed: the order of the groups must not change from run to run.
    factors = np.random.default_rng(1).integers(1, 2**62, keys.shape[1]) * 2 + 1
    with np.errstate(over="ignore"):
        hashes = (keys * factors).sum(axis=1)
    order = np.argsort(hashes, kind="stable")
    return order, (np.flatnonzero(np.diff(hashes[order])) + 1).tolist()


def _ordered(columns: dict[str, Table]) -> dict[str, Table]:
    """Identical final-state particles of the same mothers by falling transverse momentum."""
    names = ("pdg_id", "mother1", "mother2", "status")
    same = np.ones((*columns["status"].shape, columns["status"].shape[1]), dtype=bool)
    for name in names:
        same &= columns[name][:, :, None] == columns[name][:, None, :]
    same &= (columns["status"] == 1)[:, :, None]
    n = same.shape[1]
    same |= np.eye(n, dtype=bool)
    # The first of those that are identical stands for all of them.
    kind = np.argmax(same, axis=1)
    if (kind == np.arange(n)).all():
        return columns
    pt2 = columns["px"] ** 2 + columns["py"] ** 2
    by_pt = np.argsort(-pt2, axis=1, kind="stable")
    source = np.take_along_axis(
        by_pt, np.argsort(np.take_along_axis(kind, by_pt, axis=1), axis=1, kind="stable"), axis=1
    )
    place = np.argsort(kind, axis=1, kind="stable")
    order = np.empty_like(source)
    np.put_along_axis(order, place, source, axis=1)
    return {name: np.take_along_axis(values, order, axis=1) for name, values in columns.items()}


def color_flow(color1: Table, color2: Table) -> npt.NDArray[np.int32]:
    """Colour tags renumbered by first appearance, (m, n) twice -> (m, 2n).

    Tags of the result alternate colour and anticolour, particle by particle,
    and count from 501; 0 stays 0. A negative tag, a sextet's second line of the other kind,
    stays negative.
    """
    signed = np.stack([color1, color2], axis=2).reshape(len(color1), -1)
    tags = np.abs(signed)
    flow = np.zeros_like(tags, dtype=np.int32)
    following = np.full(len(tags), FIRST_COLOR, dtype=np.int32)
    for j in range(tags.shape[1]):
        new = np.zeros(len(tags), dtype=np.int32)
        for i in range(j):
            same = (tags[:, j] == tags[:, i]) & (new == 0)
            new[same] = flow[same, i]
        fresh = (tags[:, j] != 0) & (new == 0)
        new[fresh] = following[fresh]
        following[fresh] += 1
        flow[:, j] = np.where(tags[:, j] == 0, 0, new)
    return np.where(signed < 0, -flow, flow)


def patterns(table: dict[str, Table]) -> npt.NDArray[np.int32]:
    """Discrete part of events of one structure: colour flow and helicities.

    Returns
    -------
    (m, 3n) int32 array
        Colour flow (2n) as from `color_flow`, then helicities (n) as from
        `helicity_codes`.
    """
    m, n = table["pdg_id"].shape
    if "color1" in table and "color2" in table:
        flow = color_flow(table["color1"], table["color2"])
    else:
        flow = np.zeros((m, 2 * n), dtype=np.int32)
    if "spin" in table:
        spin = helicity_codes(table["spin"])
    else:
        spin = np.full((m, n), UNKNOWN_SPIN, dtype=np.int32)
    return np.concatenate([flow, spin], axis=1)
