"""HepMC3 text of events of Pythia, compiled, with the vertices that their mothers make."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import numpy as np
from numba import njit

from hepgen_adapters.hepmc import record as hepmc_record
from hepgen_adapters.hepmc.record import (
    put,
    put_char,
    put_end,
    put_number,
    put_particle,
    put_real,
)
from hepgen_adapters.text import memory, numbers
from hepgen_adapters.text.memory import source_version
from hepgen_adapters.text.numbers import format_int
from hepgen_ml.networks.compiled import compiled

BYTES_PER_LINE = 512
"""Largest number of bytes of a particle with the line of its vertex and its number as a mother."""

_UNITS = np.frombuffer(b"U GEV MM\n", dtype=np.uint8).copy()


@njit
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit
def _joins_range(status):
    """Whether the mothers of a line are all lines from its first to its second: hadronization."""
    kind = abs(status)
    return 81 <= kind <= 86 or 101 <= kind <= 106


@njit
def vertices(status, mother1, mother2):
    """Particles in an order in which mothers come first, and the vertices between them.

    All mothers of a particle enter one vertex; a common mother of two particles joins their
    vertices.

    Parameters
    ----------
    status, mother1, mother2 : (n,) int arrays
        Of the lines of Pythia's event record; line 0 is the whole system.

    Returns
    -------
    order : (n - 1,) int array
        Lines, reordered.
    made, ends : (n - 1,) int arrays
        Vertices from 1 in which these particles are made and end; 0 for none.
    n_vertices : int
        -1 if particles are their own ancestors.
    """
    n = len(status)
    parent = np.arange(n)
    first = np.zeros(n, np.int64)
    for i in range(1, n):
        low, high = mother1[i], mother2[i]
        if low > 0 and high > low and _joins_range(status[i]):
            for m in range(low + 1, min(high, n - 1) + 1):
                parent[_root(parent, m)] = _root(parent, low)
        elif low > 0 and 0 < high < n and high != low:
            parent[_root(parent, high)] = _root(parent, low)
        first[i] = low if low > 0 else max(high, 0)
    # vertices by the root of their mothers, with the number of mothers still to come
    is_mother = np.zeros(n, np.bool_)
    for i in range(1, n):
        if 0 < first[i] < n:
            is_mother[_root(parent, first[i])] = True
    waiting = np.zeros(n, np.int64)
    ends = np.zeros(n, np.int64)  # root of the vertex in which a line ends
    for i in range(1, n):
        root = _root(parent, i)
        if is_mother[root]:
            ends[i] = root
            waiting[root] += 1
    begins = np.zeros(n + 1, np.int64)
    for i in range(1, n):
        if 0 < first[i] < n:
            begins[_root(parent, first[i]) + 1] += 1
    begins = np.cumsum(begins)
    fill, daughters = begins.copy(), np.zeros(n, np.int64)
    for i in range(1, n):
        if 0 < first[i] < n:
            root = _root(parent, first[i])
            daughters[fill[root]] = i
            fill[root] += 1
    order, made, number = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    n_order = n_vertices = 0
    for i in range(1, n):
        if not 0 < first[i] < n:
            order[n_order] = i
            n_order += 1
    done = 0
    while done < n_order:
        root = ends[order[done]]
        done += 1
        if root == 0:
            continue
        waiting[root] -= 1
        if waiting[root] > 0:
            continue
        n_vertices += 1
        number[root] = n_vertices
        for k in range(begins[root], begins[root + 1]):
            made[daughters[k]] = n_vertices
            order[n_order] = daughters[k]
            n_order += 1
    order = order[:n_order]
    if n_order < n - 1:
        n_vertices = -1
    return order, made[order], number[ends[order]], n_vertices


@njit
def _status(status, ends):
    """HepMC's status: 1 final, 2 decayed hadron, 4 beam, and Pythia's own, without sign, else."""
    size = abs(status)
    if status > 0:
        return 1
    if size == 12:
        return 4
    return 2 if 80 < size < 200 and ends > 0 else size


@njit
def _put_vertex(at, vertex, ends, place):
    """Line of a vertex: the numbers of its incoming particles, and its position unless zero."""
    at = put_number(put_char(at, 86), -vertex)
    at = put_char(put_number(at, 0), 32)
    separator = 91  # [ before the first, commas between
    for k in range(len(ends)):
        if ends[k] == vertex:
            at = format_int(put_char(at, separator), k + 1)
            separator = 44
    at = put_char(at, 93)
    if place[0] != 0 or place[1] != 0 or place[2] != 0 or place[3] != 0:
        at = put_char(put_char(at, 32), 64)
        for k in range(4):
            at = put_real(at, place[k])
    return put_end(at)


def _build(version):
    """Compile with the version of the modules it calls in the closure, see `source_version`."""

    @compiled()
    def format_events(
        out, number, offsets, pdg_id, status, mother1, mother2, values, heads, head_offsets
    ):
        """Write all events of a batch.

        Parameters
        ----------
        out : int
            Address of a buffer that is large enough, see `BYTES_PER_LINE`.
        number : int
            Of the first event.
        offsets : (n + 1,) int64 array
        pdg_id, status, mother1, mother2 : (rows,) int32 arrays
            Lines of Pythia's records, the whole system first.
        values : (rows, 9) float array
            px, py, pz, energy, mass in GeV; x, y, z, t of production in mm.
        heads, head_offsets : uint8 array, (n + 1,) int64 array
            Further lines of each event, ready to print.

        Returns
        -------
        length : int
            Bytes written.
        bad : int
            Index of the first event with particles that are their own ancestors, or -1.
        """
        if version == 0:  # part of the cache's key
            return 0, -1
        at = out
        for i in range(len(offsets) - 1):
            start, stop = offsets[i], offsets[i + 1]
            order, made, ends, n_vertices = vertices(
                status[start:stop], mother1[start:stop], mother2[start:stop]
            )
            if n_vertices < 0:
                return 0, i
            at = put_number(put_char(at, 69), number + i)
            at = put_number(at, n_vertices)
            at = put_end(put_number(at, len(order)))
            at = put(at, _UNITS)
            at = put(at, heads[head_offsets[i] : head_offsets[i + 1]])
            last = 0
            for k in range(len(order)):
                row = start + order[k]
                if made[k] != last:
                    last = made[k]
                    at = _put_vertex(at, last, ends, values[row, 5:])
                code = _status(status[row], ends[k])
                at = put_particle(at, k + 1, -made[k], pdg_id[row], values[row], code)
        return at - out, -1

    return format_events


format_events = _build(source_version(memory, numbers, hepmc_record))
