"""The laws of single events, judged for all events of a chunk at once.

A law is a function of a `Chunk` that returns its verdict as two arrays: by how
much each event deviates, and how much it may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hepgen_ml.events import EventSample, FloatArray, IntArray, RunInfo
from hepgen_ml.objects import JET
from hepgen_ml.validation.particle_ids import ANY_COLOR, UNKNOWN_CHARGE, ParticleIds

BoolArray = npt.NDArray[np.bool_]
Verdict = tuple[FloatArray, FloatArray]
DEFAULT_TOLERANCE = 1e-9
"""Of the beam energy."""


class Chunk:
    """Events with the quantities that several laws need.

    Parameters
    ----------
    sample : EventSample
    run : RunInfo
        Beams and printed digits.
    tolerance : float or None
        Relative to the beam energy; None for `DEFAULT_TOLERANCE` or what the
        printed digits allow, whichever is larger.
    ids : ParticleIds
    """

    def __init__(
        self, sample: EventSample, run: RunInfo, tolerance: float | None, ids: ParticleIds
    ) -> None:
        self.sample, self.run, self.ids = sample, run, ids
        self.n = len(sample)
        self.event = sample.event_index
        self.tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
        # half a unit of the last printed digit, relative to a number with mantissa 1
        digits = run.significant_digits
        self.rounding = (
            0.0 if digits is None or tolerance is not None else 0.5 * 10.0 ** (1 - digits)
        )

    def sum(self, values: npt.NDArray[np.generic]) -> FloatArray:
        """Per event."""
        return np.bincount(self.event, values, self.n).astype(np.float64, copy=False)

    def max(self, values: FloatArray) -> FloatArray:
        """Largest value of each event, nan counting as infinite; 0 for an empty event."""
        values = np.where(np.isnan(values), np.inf, values)
        filled = self.sample.counts > 0
        result = np.zeros(self.n)
        if filled.any():
            result[filled] = np.maximum.reduceat(values, self.sample.offsets[:-1][filled])
        return result

    @cached_property
    def incoming(self) -> BoolArray:
        """(rows,) incoming particles."""
        return np.asarray(self.sample.particles["status"] == -1)

    @cached_property
    def final(self) -> BoolArray:
        """(rows,) final particles."""
        return np.asarray(self.sample.particles["status"] == 1)

    @cached_property
    def sign(self) -> FloatArray:
        """(rows,) 1 for incoming, -1 for final particles, 0 for others."""
        return self.incoming.astype(np.float64) - self.final

    @cached_property
    def beam_energy(self) -> FloatArray:
        """(n,) the larger beam energy in GeV; the largest energy of the event where unknown."""
        beam = max(self.run.beam_energy)
        if beam > 0:
            return np.full(self.n, beam)
        return np.maximum(self.max(np.abs(self.sample.particles["energy"])), 1e-300)

    @cached_property
    def allowed(self) -> FloatArray:
        """(n,) allowed deviation of a sum over the event, relative to the beam energy."""
        if self.rounding == 0.0:
            return np.full(self.n, self.tolerance)
        total = self.sum(np.abs(self.sample.particles["energy"] * self.sign))
        return np.maximum(self.tolerance, self.rounding * total / self.beam_energy)

    @cached_property
    def properties(self) -> tuple[IntArray, IntArray, BoolArray]:
        """(rows,) three times the charge, colour representation, whether the id is known."""
        return self.ids.look_up(self.sample.particles["pdg_id"])

    @cached_property
    def first_mother(self) -> IntArray:
        """(rows,) row of the only mother, counted over the chunk; -1 for none or several."""
        p = self.sample.particles
        m1, m2 = p["mother1"].astype(np.int64), p["mother2"].astype(np.int64)
        counts = self.sample.counts[self.event]
        single = (m1 > 0) & (m1 <= counts) & ((m2 == 0) | (m2 == m1))
        return np.where(single, self.sample.offsets[self.event] + m1 - 1, -1)

    @cached_property
    def decays(self) -> tuple[IntArray, IntArray]:
        """Rows of daughters of resonances, and of their mothers."""
        daughters = np.flatnonzero(self.first_mother >= 0)
        mothers = self.first_mother[daughters]
        resonance = self.sample.particles["status"][mothers] == 2
        return daughters[resonance], mothers[resonance]

    @cached_property
    def shared(self) -> BoolArray:
        """(rows,) resonances that decay together with others: mothers given as a range."""
        p = self.sample.particles
        rows = np.flatnonzero((p["mother2"] > p["mother1"]) & (p["mother1"] > 0))
        result = np.zeros(len(self.event), dtype=bool)
        first = self.sample.offsets[:-1][self.event[rows]] + p["mother1"][rows] - 1
        last = self.sample.offsets[:-1][self.event[rows]] + p["mother2"][rows] - 1
        # the usual range is the two incoming particles, which are no resonances
        odd = ~(self.incoming[np.minimum(first, len(result) - 1)])
        for a, b in zip(first[odd], last[odd], strict=True):
            result[a : b + 1] = True
        result &= p["status"] == 2
        return result


def momentum(chunk: Chunk) -> Verdict:
    """Incoming and final momenta add up to the same, component by component."""
    p = chunk.sample.particles
    worst = np.zeros(chunk.n)
    for name in ("px", "py", "pz", "energy"):
        np.fmax(worst, np.abs(_no_nan(chunk.sum(p[name] * chunk.sign))), out=worst)
    return worst / chunk.beam_energy, chunk.allowed


def mass_shell(chunk: Chunk) -> Verdict:
    """E = sqrt(p^2 + m^2) with the mass of the record; a negative mass is spacelike."""
    p = chunk.sample.particles
    square = p["px"] ** 2 + p["py"] ** 2 + p["pz"] ** 2 + p["mass"] * np.abs(p["mass"])
    off = np.abs(p["energy"] - np.sqrt(np.clip(square, 0.0, None)))
    allowed = np.full(chunk.n, chunk.tolerance)
    if chunk.rounding:
        # energy, momentum and mass are each rounded
        largest = chunk.max(np.abs(p["energy"]))
        allowed = np.maximum(allowed, 3 * chunk.rounding * largest / chunk.beam_energy)
    return chunk.max(off) / chunk.beam_energy, allowed


def incoming(chunk: Chunk) -> Verdict:
    """Two incoming particles along the beam, the first toward +z, below the beam energies."""
    p = chunk.sample.particles
    counts = np.bincount(chunk.event[chunk.incoming], minlength=chunk.n)
    value = np.where(counts == 2, 0.0, np.inf)
    rows = np.flatnonzero(chunk.incoming & (counts == 2)[chunk.event]).reshape(-1, 2)
    events = chunk.event[rows[:, 0]]
    side = np.array([1.0, -1.0])
    for k in (0, 1):
        row = rows[:, k]
        off = np.maximum(np.abs(p["px"][row]), np.abs(p["py"][row]))
        if chunk.run.beam_energy[k] > 0:
            off = np.maximum(off, p["energy"][row] - chunk.run.beam_energy[k])
        off = np.where(p["pz"][row] * side[k] < 0, np.inf, off)
        value[events] = np.maximum(value[events], _no_nan(off) / chunk.beam_energy[events])
    return value, chunk.allowed


def color(chunk: Chunk) -> Verdict:
    """Colours fit the particles, and every colour line starts once and ends once.

    The number of particles and lines for which that is not so. Lines that meet
    in threes (junctions, as baryon number violation makes them) are accepted
    where nothing else is open; sextets have negative tags.
    """
    p = chunk.sample.particles
    c1, c2 = p["color1"].astype(np.int64), p["color2"].astype(np.int64)
    representation = chunk.properties[1]
    fits = {
        1: (c1 == 0) & (c2 == 0),
        3: (c1 > 0) & (c2 == 0),
        -3: (c1 == 0) & (c2 > 0),
        8: (c1 > 0) & (c2 > 0) & (c1 != c2),
        6: (c1 > 0) & (c2 < 0),
        -6: (c1 < 0) & (c2 > 0),
    }
    good = representation == ANY_COLOR
    for kind, ok in fits.items():
        good |= (representation == kind) & ok
    broken = chunk.sum(~good)

    out, into = chunk.final, chunk.incoming
    broken += _open_lines(
        np.concatenate([chunk.event[out], chunk.event[into]]),
        np.concatenate([c1[out], c2[into]]),
        np.concatenate([c2[out], c1[into]]),
        np.arange(chunk.n),
        chunk.n,
    )
    daughters, mothers = chunk.decays
    if len(daughters):
        unique = np.flatnonzero((np.bincount(mothers, minlength=len(c1)) > 0) & ~chunk.shared)
        keep = ~chunk.shared[mothers]
        daughters, mothers = daughters[keep], mothers[keep]
        broken += _open_lines(
            np.concatenate([mothers, unique]),
            np.concatenate([c1[daughters], c2[unique]]),
            np.concatenate([c2[daughters], c1[unique]]),
            chunk.event,
            chunk.n,
        )
    return broken, np.zeros(chunk.n)


def _open_lines(
    vertex: IntArray, starts: IntArray, ends: IntArray, event: IntArray, n_events: int
) -> FloatArray:
    """Lines of each event that do not start and end exactly once at their vertex.

    `starts` and `ends` are tags leaving `vertex` as colour and as anticolour, 0
    for none; `event` maps a vertex to its event.
    """

    def keys(tags: IntArray, others: IntArray) -> IntArray:
        own, sextet = tags > 0, others < 0  # a negative tag is a second line of the other kind
        joined = np.concatenate(
            [(vertex[own] << 32) | tags[own], (vertex[sextet] << 32) | -others[sextet]]
        )
        joined.sort()
        return joined

    start, end = keys(starts, ends), keys(ends, starts)
    result = np.zeros(n_events)
    if np.array_equal(start, end) and np.all(start[1:] != start[:-1]):
        return result
    lines, where = np.unique(np.concatenate([start, end]), return_inverse=True)
    n_start = np.bincount(where[: len(start)], minlength=len(lines))
    n_end = np.bincount(where[len(start) :], minlength=len(lines))
    bad = (n_start != 1) | (n_end != 1)
    vertices, group = np.unique(lines[bad] >> 32, return_inverse=True)
    n_start, n_end = n_start[bad], n_end[bad]
    n_bad = np.bincount(group, minlength=len(vertices))
    for a, b in ((n_start, n_end), (n_end, n_start)):
        n_open = np.bincount(group[(a == 1) & (b == 0)], minlength=len(vertices))
        n_bad[(n_open == n_bad) & (n_open % 3 == 0)] = 0
    np.add.at(result, event[vertices], n_bad)
    return result


def charge(chunk: Chunk) -> Verdict:
    """Electric charge is conserved in the event and in the decay of each resonance."""
    charges = chunk.properties[0].astype(np.float64)
    unknown = charges == UNKNOWN_CHARGE
    charges[unknown] = 0.0
    counted = chunk.sign != 0
    value = np.abs(chunk.sum(charges * chunk.sign))
    value[np.bincount(chunk.event, unknown & counted, chunk.n) > 0] = 0.0
    daughters, mothers = chunk.decays
    if len(daughters):
        rows = len(chunk.event)
        total = np.bincount(mothers, charges[daughters], rows)
        skip = np.bincount(mothers, unknown[daughters], rows) > 0
        skip |= unknown | chunk.shared
        skip |= np.bincount(mothers, minlength=rows) == 0
        value = np.maximum(value, chunk.max(np.where(skip, 0.0, np.abs(total - charges))))
    return value / 3, np.full(chunk.n, 0.1)


def finite(chunk: Chunk) -> Verdict:
    """No nan or infinity; a named weight or scale may be nan where an event has none."""
    s = chunk.sample
    bad = np.zeros(chunk.n)
    for values in s.particles.values():
        if values.dtype.kind == "f":
            broken = ~np.isfinite(values)
            if broken.any():
                bad += chunk.sum(broken)
    for values in s.events.values():
        if values.dtype.kind == "f":
            bad += ~np.isfinite(values)
    for values in (*s.weights.values(), *s.scales.values()):
        bad += np.isinf(values)
    return bad, np.zeros(chunk.n)


def known_ids(chunk: Chunk) -> Verdict:
    """Every particle id is in the PDG numbering or declared in the header, or of a jet."""
    unknown = ~chunk.properties[2]
    if chunk.sample.is_reconstructed:
        unknown &= chunk.sample.particles["pdg_id"] != JET
    return chunk.sum(unknown), np.zeros(chunk.n)


def mothers(chunk: Chunk) -> Verdict:
    """Mothers exist, are incoming or resonances, and no particle descends from itself.

    Incoming particles have none; the particles of the hard process have both
    incoming ones.
    """
    p = chunk.sample.particles
    m1, m2 = p["mother1"].astype(np.int64), p["mother2"].astype(np.int64)
    counts = chunk.sample.counts[chunk.event]
    start = chunk.sample.offsets[:-1][chunk.event]
    outside = (m1 < 0) | (m2 < 0) | (m1 > counts) | (m2 > counts)
    bad = outside | np.where(chunk.incoming, (m1 != 0) | (m2 != 0), m1 == 0)
    inside = ~outside & (m1 > 0)
    rows = np.flatnonzero(inside)
    first = start[rows] + m1[rows] - 1
    status = p["status"][first]
    bad[rows] |= status == 1
    two = np.bincount(chunk.event[chunk.incoming], minlength=chunk.n)[chunk.event[rows]] == 2
    second = np.where(m2[rows] > 0, start[rows] + m2[rows] - 1, first)
    bad[rows] |= (status == -1) & two & (~chunk.incoming[second] | (second == first))
    # follow the first mothers, twice as far each time; whoever meets no end goes round in a circle
    parent = np.arange(len(m1))
    parent[rows] = first
    root = ~inside
    for _ in range(int(np.ceil(np.log2(max(2, int(counts.max(initial=2)))))) + 1):
        parent = parent[parent]
    bad |= ~root[parent]
    return chunk.sum(bad), np.zeros(chunk.n)


def resonances(chunk: Chunk) -> Verdict:
    """The momentum of a resonance is the sum of its daughters'."""
    p = chunk.sample.particles
    is_resonance = np.asarray(p["status"] == 2)
    value = np.zeros(chunk.n)
    if is_resonance.any():
        daughters, of = chunk.decays
        rows = len(chunk.event)
        off = np.zeros(rows)
        for name in ("px", "py", "pz", "energy"):
            total = np.bincount(of, p[name][daughters], rows)
            np.maximum(off, np.abs(_no_nan(total - p[name])), out=off)
        off[np.bincount(of, minlength=rows) == 0] = np.inf
        off[~is_resonance | chunk.shared] = 0.0
        value = chunk.max(off) / chunk.beam_energy
    return value, chunk.allowed


def _no_nan(values: FloatArray) -> FloatArray:
    return np.where(np.isnan(values), np.inf, values)


@dataclass(frozen=True)
class Law:
    """A law and what it takes to judge it.

    Attributes
    ----------
    name : str
    judge : callable
        From a `Chunk` to deviation and allowed deviation, both (n,).
    unit : str
        Of the deviation, as read after a number.
    columns : tuple of str
        Particle columns beside the momenta.
    needs_incoming : bool
        Cannot be judged in samples without incoming particles.
    """

    name: str
    judge: Callable[[Chunk], Verdict]
    unit: str
    columns: tuple[str, ...] = ()
    needs_incoming: bool = False


_MOTHERS = ("status", "mother1", "mother2")
LAWS = (
    Law("finite numbers", finite, "numbers"),
    Law("momentum balance", momentum, "of the beam energy", ("status",), True),
    Law("mass shells", mass_shell, "of the beam energy", ("mass",)),
    Law("incoming particles", incoming, "of the beam energy", ("status",), True),
    Law("mothers", mothers, "particles", _MOTHERS, True),
    Law("resonances", resonances, "of the beam energy", _MOTHERS),
    Law("charge", charge, "e", ("pdg_id", *_MOTHERS), True),
    Law("colour connection", color, "lines", ("pdg_id", "color1", "color2", *_MOTHERS), True),
    Law("particle ids", known_ids, "particles", ("pdg_id",)),
)
