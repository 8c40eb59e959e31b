"""Colour lines of events, vertex by vertex."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.laws.chunk import BoolArray, Chunk
from hepgen_ml.events.laws.particle_ids import ANY_COLOR
from hepgen_ml.events.sample import FloatArray, IntArray

_LONGEST_CHAIN = 64  # of documentation lines between a particle and its resonance


def color(chunk: Chunk) -> tuple[FloatArray, FloatArray]:
    """Colours fit the particles, and every line starts once and ends once at each vertex.

    Counts the particles and lines that violate this. Vertices are the hard process and the decay of
    each resonance. Three lines that meet in a vertex (a junction, as in baryon number violation, in
    production or decay) end there if no other line is open; sextets have negative tags.
    """
    p = chunk.sample.particles
    c1, c2 = p["color1"].astype(np.int64), p["color2"].astype(np.int64)
    broken = chunk.sum(~_fits(chunk.properties[1], p["color1"], p["color2"]))
    # Nearly all events have lines from incoming to final particles only, and these obey both:
    out, into = chunk.final, chunk.incoming
    event = np.concatenate([chunk.event[out], chunk.event[into]])
    start, end = np.concatenate([c1[out], c2[into]]), np.concatenate([c2[out], c1[into]])
    odd = _unmatched(event, start, end)
    daughters, mothers = chunk.decays
    if len(daughters) and not chunk.shared.any():
        decaying = np.flatnonzero(np.bincount(mothers, minlength=len(c1)) > 0)
        vertex = np.concatenate([mothers, decaying])
        start = np.concatenate([c1[daughters], c2[decaying]])
        end = np.concatenate([c2[daughters], c1[decaying]])
        odd = np.union1d(odd, chunk.event[_unmatched(vertex, start, end)])
    elif len(daughters):
        odd = np.unique(chunk.event[mothers])
    if len(odd):
        broken[odd] += _open_lines(chunk[odd])
    return broken, np.zeros(chunk.n)


def _unmatched(vertex: IntArray, starts: IntArray, ends: IntArray) -> IntArray:
    """Vertices with a line that does not start once and end once there."""
    start, end = _line_keys(vertex, starts, ends), _line_keys(vertex, ends, starts)
    if np.array_equal(start, end) and np.all(start[1:] != start[:-1]):
        return np.zeros(0, dtype=np.int64)
    lines, where = np.unique(np.concatenate([start, end]), return_inverse=True)
    n_start = np.bincount(where[: len(start)], minlength=len(lines))
    n_end = np.bincount(where[len(start) :], minlength=len(lines))
    return np.unique(lines[(n_start != 1) | (n_end != 1)] >> 32)


def _fits(
    representation: IntArray, c1: npt.NDArray[Any], c2: npt.NDArray[Any]
) -> BoolArray:
    """Whether colour and anticolour tags are those of a colour representation."""
    none1, none2 = c1 == 0, c2 == 0
    some1, some2 = c1 > 0, c2 > 0
    good = representation == ANY_COLOR
    good |= (representation == 1) & none1 & none2
    good |= (representation == 3) & some1 & none2
    good |= (representation == -3) & none1 & some2
    good |= (representation == 8) & some1 & some2 & (c1 != c2)
    if (np.abs(representation) == 6).any():
        good |= (representation == 6) & some1 & (c2 < 0)
        good |= (representation == -6) & (c1 < 0) & some2
    return np.asarray(good)


def has_colors(chunk: Chunk) -> bool:
    """Whether any particle has a colour tag; some generators write no tags."""
    p = chunk.sample.particles
    return bool(p["color1"].any() or p["color2"].any())


def _line_keys(vertex: IntArray, tags: IntArray, others: IntArray) -> IntArray:
    """Sorted numbers of the lines at each vertex: those with a tag among `tags`.

    Parameters
    ----------
    vertex : (k,) int array
    tags, others : (k,) int array
        Tags that leave a vertex as colour and as anticolour, or the reverse; 0 for none. A
        negative tag is a second line of the other kind, as sextets have it.
    """
    own, sextet = tags > 0, others < 0
    keys = (vertex[own] << 32) | tags[own]
    if sextet.any():
        keys = np.concatenate([keys, (vertex[sextet] << 32) | -others[sextet]])
    keys.sort()
    return keys


def _vertices(chunk: Chunk) -> IntArray:
    """(rows,) row of the resonance that each row comes from, -1 for the hard process.

    Intermediate lines other than resonances (documentation, spacelike propagators) are skipped; the
    first of several resonances that decay together represents all of them.
    """
    p, sample = chunk.sample.particles, chunk.sample
    status, m1 = p["status"], p["mother1"].astype(np.int64)
    valid = (m1 > 0) & (m1 <= sample.counts[chunk.event])
    mother = np.where(valid, sample.offsets[:-1][chunk.event] + m1 - 1, -1)
    result = mother.copy()
    for _ in range(_LONGEST_CHAIN):
        through = (result >= 0) & ~np.isin(status[result], (-1, 2))
        if not through.any():
            break
        result[through] = mother[result[through]]
    result[status[result] != 2] = -1
    return np.where(result >= 0, chunk.joint[result], -1)


def _open_lines(chunk: Chunk) -> FloatArray:
    """(n,) lines of each event that do not start once and end once where they have to.

    Three lines of one kind that are open at a vertex, and nothing else there, are a junction.
    Every line of an event has a tag of its own, see `_used_again`: two ends, at incoming or final
    particles or in junctions.
    """
    p = chunk.sample.particles
    c1, c2 = p["color1"].astype(np.int64), p["color2"].astype(np.int64)
    rows, status, origin = len(chunk.event), p["status"], _vertices(chunk)
    # a vertex is the row of its resonance or, beyond all rows, the number of the event
    made_at = np.where(origin >= 0, origin, chunk.event + rows)
    parents = np.zeros(rows, dtype=bool)
    parents[origin[origin >= 0]] = True
    out = (status == 1) | (status == 2)
    decaying = parents[chunk.joint] & (status == 2)
    vertex = np.concatenate(
        [made_at[out], chunk.event[chunk.incoming] + rows, chunk.joint[decaying]]
    )
    start = np.concatenate([c1[out], c2[chunk.incoming], c2[decaying]])
    end = np.concatenate([c2[out], c1[chunk.incoming], c1[decaying]])
    first, last = _line_keys(vertex, start, end), _line_keys(vertex, end, start)
    lines, where = np.unique(np.concatenate([first, last]), return_inverse=True)
    n_start = np.bincount(where[: len(first)], minlength=len(lines))
    n_end = np.bincount(where[len(first) :], minlength=len(lines))
    bad = (n_start != 1) | (n_end != 1)
    at, group = np.unique(lines[bad] >> 32, return_inverse=True)
    n_bad = np.bincount(group, minlength=len(at))
    for a, b in ((n_start, n_end), (n_end, n_start)):
        n_open = np.bincount(group[(a[bad] == 1) & (b[bad] == 0)], minlength=len(at))
        n_bad[(n_open == n_bad) & (n_open == 3)] = 0
    event_of = np.concatenate([chunk.event, np.arange(chunk.n)])
    result = np.zeros(chunk.n)
    np.add.at(result, event_of[at], n_bad)
    joined = lines[bad][n_bad[group] == 0]
    again = _used_again(chunk, event_of[joined >> 32] << 32 | joined & 0xFFFFFFFF)
    return np.where(result > 0, result, again)


def _used_again(chunk: Chunk, legs: IntArray) -> FloatArray:
    """(n,) tags of each event that several lines have.

    The lines of junctions may have tags of lines elsewhere in the event, as in programs that
    number them at each vertex anew, if the final particles still show what is connected: one of
    them at most has a colour, and one its anticolour, and no three of them lead from one junction
    to another. Pythia showers and hadronises such events, and no others.

    Parameters
    ----------
    chunk : Chunk
    legs : (k,) int array
        Lines that end in junctions: event << 32 | tag.
    """
    p = chunk.sample.particles
    outside = chunk.final | chunk.incoming
    tags = np.concatenate([p["color1"][outside], p["color2"][outside]]).astype(np.int64)
    # the negative tag of a sextet is one of the other kind
    is_color = (tags > 0) == (np.arange(len(tags)) < len(tags) // 2)
    some, final = tags != 0, np.tile(chunk.final[outside], 2)
    keys = (np.tile(chunk.event[outside], 2) << 32 | np.abs(tags))[some]
    lines, where = np.unique(np.concatenate([keys, legs]), return_inverse=True)
    ends, n = np.bincount(where), len(lines)
    at_junctions = np.bincount(where[len(keys) :], minlength=n)
    colors, anticolors = (
        np.bincount(where[: len(keys)][(final & kind)[some]], minlength=n)
        for kind in (is_color, ~is_color)
    )
    clear = (ends % 2 == 0) & (np.maximum(colors, anticolors) <= 1)
    clear &= colors + anticolors <= at_junctions
    event = lines >> 32
    between = clear & (ends > 2) & (colors + anticolors == 2)
    clear &= ~between | (np.bincount(event, between, chunk.n)[event] < 3)
    return np.bincount(event[(ends != 2) & ~clear], minlength=chunk.n).astype(np.float64)
