"""HepMC3 ASCII records of parton-level events, compiled.

One call turns a chunk of events into text. pyhepmc makes about 14 thousand such
events a second with colours, this several hundred thousand.
"""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

import numba
import numpy as np

from hepgen_adapters.text import memory as _lhe_memory
from hepgen_adapters.text import numbers as _lhe_numbers
from hepgen_adapters.text.memory import source_version, store8
from hepgen_adapters.text.numbers import format_float, format_int
from hepgen_ml.networks.compiled import compiled

BYTES_PER_EVENT = 4096
BYTES_PER_ROW = 512
BYTES_PER_WEIGHT = 32
REMNANT = 82
"""Particle id of a beam remnant (the generator-specific range of the PDG numbering)."""
REMNANT_STATUS = 63
INCOMING_STATUS = 21


@numba.njit
def put(at, text):
    """Copy bytes to an address; returns the address behind them."""
    for c in text:
        store8(at, c)
        at += 1
    return at


@numba.njit
def put_char(at, code):
    """Append a character; the address behind it."""
    store8(at, np.uint8(code))
    return at + 1


@numba.njit
def put_number(at, value):
    """Append a blank and an integer."""
    return format_int(put_char(at, 32), value)


@numba.njit
def put_real(at, value):
    """Append a blank and a number that reads back exactly."""
    return format_float(put_char(at, 32), value)


@numba.njit
def put_end(at):
    """Append the end of the line."""
    return put_char(at, 10)


@numba.njit
def _attribute(at, owner, name):
    return put(put_char(put_number(put_char(at, 65), owner), 32), name)


@numba.njit
def put_particle(at, number, mother, pdg_id, p, status):
    """Append the line of a particle with px, py, pz, energy and mass in p."""
    at = put_number(put_char(at, 80), number)
    at = put_number(at, mother)
    at = put_number(at, pdg_id)
    for k in range(5):
        at = put_real(at, p[k])
    return put_end(put_number(at, status))


def _build(version):
    """Compile with the version of the modules it calls in the closure, see `source_version`."""

    @compiled()
    def format_events(
        out,
        numbers,
        offsets,
        pdg_id,
        status,
        mothers,
        colors,
        momentum,
        spin,
        lifetime,
        process_id,
        scalars,
        weights,
        extra,
        extra_offsets,
        beam_id,
        beam,
        pdf_set,
        constant,
        names,
    ):
        """Write all events of a chunk.

        Parameters
        ----------
        out : int
            Address of a buffer that is large enough: see the ``BYTES_PER_...`` constants.
        numbers : (n,) int64 array
            Numbers of the events.
        offsets : (n + 1,) int64 array
        pdg_id, status : (rows,) int32 arrays
        mothers, colors : (rows, 2) int32 arrays
            Mothers count from 1 within the event.
        momentum : (rows, 5) float array
            px, py, pz, energy, mass in GeV.
        spin, lifetime : (rows,) float arrays
            Written as attributes where known (not 9) and not zero.
        process_id : (n,) int32 array
        scalars : (n, 3) float array
            Scale, alpha_QCD, alpha_QED.
        weights : (n, number of weights) float array
        extra, extra_offsets : uint8 array, (n + 1,) int64 array
            Further lines of each event, ready to print.
        beam_id : (2,) int64 array
            0 for no beam on that side: the incoming particle is the beam.
        beam : (2, 5) float array
        pdf_set : (2,) int64 array
        constant : uint8 array
            Lines that are the same in every event.
        names : tuple of uint8 array
            Names of the attributes, in the order of `ATTRIBUTE_NAMES`.

        Returns
        -------
        length : int
            Bytes written.
        bad : int
            Index of the first event whose mothers form a circle or lie outside of
            the event, or -1. Nothing from there on is written.
        """
        if version == 0:  # part of the cache's key
            return 0, -1
        at = out
        most = 0
        for i in range(len(offsets) - 1):
            most = max(most, offsets[i + 1] - offsets[i])
        order = np.empty(most, np.int64)  # rows in the order of printing
        printed = np.empty(most, np.int64)  # number of each row in the file, 0 before it is placed
        born = np.empty(most, np.int64)  # vertex where it begins, 0 for none
        ends = np.empty(most, np.int64)  # vertex where it ends, 0 for none
        remnant = np.empty(5)

        for i in range(len(offsets) - 1):
            start, n = offsets[i], offsets[i + 1] - offsets[i]
            printed[:n] = 0
            born[:n] = 0
            ends[:n] = 0
            n_vertices = 0
            n_placed = 0
            count = 0  # particles in the file so far

            # incoming particles and their beams
            n_incoming = 0
            for j in range(n):
                if status[start + j] == -1:
                    n_incoming += 1
            side_of = np.full(2, -1)  # beam of the first and second incoming particle, -1 for none
            if n_incoming == 2:
                rows = np.flatnonzero(status[start : start + n] == -1)
                first, second = start + rows[0], start + rows[1]
                swap = 1 if momentum[first, 2] < 0.0 and momentum[second, 2] > 0.0 else 0
                for k in range(2):
                    row, side = start + rows[k], k ^ swap
                    whole = (
                        pdg_id[row] == beam_id[side]
                        and abs(momentum[row, 3] - beam[side, 3]) <= 1e-6 * beam[side, 3]
                    )
                    if beam_id[side] != 0 and not whole:
                        side_of[k] = side
                        count += 1
            k = 0
            for j in range(n):
                if status[start + j] != -1:
                    continue
                order[n_placed] = j
                n_placed += 1
                count += 1
                printed[j] = count
                if n_incoming == 2 and side_of[k] >= 0:
                    n_vertices += 1
                    born[j] = n_vertices
                    count += 1  # the remnant follows
                k += 1

            # everything else once its mothers are placed; one pass unless daughters come first
            hard = 0
            moved = True
            while n_placed < n and moved:
                moved = False
                for j in range(n):
                    if printed[j]:
                        continue
                    m1, m2 = mothers[start + j, 0] - 1, mothers[start + j, 1] - 1
                    if m1 < 0 and m2 >= 0:
                        m1 = m2
                    if m2 < m1:
                        m2 = m1
                    if m2 >= n or m1 < -1 or (m1 <= j <= m2):
                        return at - out, i
                    vertex = 0
                    if m1 < 0:
                        vertex = hard
                    else:
                        ready = True
                        for m in range(m1, m2 + 1):
                            ready = ready and printed[m] > 0
                        if not ready:
                            continue
                        vertex = ends[m1]
                        if vertex == 0:
                            n_vertices += 1
                            vertex = n_vertices
                            for m in range(m1, m2 + 1):
                                if ends[m] == 0:
                                    ends[m] = vertex
                            if (
                                status[start + m1] == -1
                            ):  # all incoming particles meet in one vertex
                                hard = vertex
                                for m in range(n):
                                    if status[start + m] == -1:
                                        ends[m] = vertex
                    born[j] = vertex
                    order[n_placed] = j
                    n_placed += 1
                    count += 1
                    printed[j] = count
                    moved = True
            if n_placed < n:
                return at - out, i

            # event header
            at = put_number(put_char(at, 69), numbers[i])
            at = put_number(at, n_vertices)
            at = put_end(put_number(at, count))
            at = put(at, names[0])  # units come before the weights, as HepMC3 prints them
            at = put_char(at, 87)
            for k in range(weights.shape[1]):
                at = put_real(at, weights[i, k])
            at = put_end(at)
            at = put(at, constant)
            if n_incoming == 2:
                rows = order[:2].copy()
                if momentum[start + rows[0], 2] < 0.0 and momentum[start + rows[1], 2] > 0.0:
                    rows = rows[::-1].copy()
                at = _attribute(at, 0, names[1])
                for k in range(2):
                    at = put_number(at, pdg_id[start + rows[k]])
                for k in range(2):
                    p, energy = momentum[start + rows[k]], beam[k, 3]
                    x = (p[3] + abs(p[2])) / (2.0 * energy) if energy > 0.0 else 1.0
                    at = put_real(at, x)
                at = put_real(at, scalars[i, 0])
                at = put(at, names[2])  # x times the densities are not known
                for k in range(2):
                    at = put_number(at, pdf_set[k])
                at = put_end(at)
            at = _attribute(at, 0, names[3])
            at = put_end(put_number(at, process_id[i]))
            for k in range(3):
                at = _attribute(at, 0, names[4 + k])
                at = put_end(put_real(at, scalars[i, k]))
            at = put(at, extra[extra_offsets[i] : extra_offsets[i + 1]])
            for j in order[:n]:
                row = start + j
                for k in range(2):
                    if colors[row, k]:
                        at = _attribute(at, printed[j], names[7 + k])
                        at = put_end(put_number(at, colors[row, k]))
                if spin[row] != 9.0:
                    at = _attribute(at, printed[j], names[9])
                    at = put_end(put_real(at, spin[row]))
                if lifetime[row] != 0.0:
                    at = _attribute(at, printed[j], names[10])
                    at = put_end(put_real(at, lifetime[row]))

            # particles, and each vertex with several incoming particles before its first daughter
            written = 0
            for k in range(2):
                if side_of[k] >= 0:
                    written += 1
                    side = side_of[k]
                    at = put_particle(at, written, 0, beam_id[side], beam[side], 4)
            n_written_vertices = 0
            beam_number = 0
            for position in range(n):
                j = order[position]
                row = start + j
                if status[row] == -1:
                    if n_incoming == 2 and side_of[position] >= 0:
                        beam_number += 1
                        n_written_vertices += 1
                        at = put_particle(
                            at, printed[j], beam_number, pdg_id[row], momentum[row], INCOMING_STATUS
                        )
                        for k in range(4):
                            remnant[k] = beam[side_of[position], k] - momentum[row, k]
                        pz = abs(remnant[2])
                        square = (remnant[3] - pz) * (remnant[3] + pz)
                        square -= remnant[0] ** 2 + remnant[1] ** 2
                        remnant[4] = np.sqrt(max(square, 0.0))
                        at = put_particle(
                            at, printed[j] + 1, beam_number, REMNANT, remnant, REMNANT_STATUS
                        )
                    else:
                        at = put_particle(at, printed[j], 0, pdg_id[row], momentum[row], 4)
                    continue
                mother = 0
                if born[j]:
                    last = -1
                    n_mothers = 0
                    for m in range(n):
                        if ends[m] == born[j]:
                            n_mothers += 1
                            last = m
                    mother = printed[last] if n_mothers == 1 else -born[j]
                    if born[j] > n_written_vertices:
                        n_written_vertices = born[j]
                        if n_mothers > 1:
                            at = put_number(put_char(at, 86), -born[j])
                            at = put(at, names[11])
                            separator = 91
                            for m in order[:n]:
                                if ends[m] == born[j]:
                                    at = put_char(at, separator)
                                    separator = 44
                                    at = format_int(at, printed[m])
                            at = put_char(at, 93)
                            at = put_end(at)
                code = status[row]
                if code < 0:
                    code = 3
                at = put_particle(at, printed[j], mother, pdg_id[row], momentum[row], code)
        return at - out, -1

    return format_events


format_events = _build(source_version(_lhe_memory, _lhe_numbers))


ATTRIBUTE_NAMES = tuple(
    np.frombuffer(name, dtype=np.uint8).copy()
    for name in (
        b"U GEV MM\n",
        b"GenPdfInfo",
        b" 0 0",
        b"signal_process_id",
        b"event_scale",
        b"alphaQCD",
        b"alphaQED",
        b"flow1",
        b"flow2",
        b"spin",
        b"lifetime",
        b" 0 ",
    )
)
