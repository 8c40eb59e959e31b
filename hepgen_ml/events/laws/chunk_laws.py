"""The laws of single events, judged for all events of a chunk at once.

A law is a function of a `Chunk` that returns its verdict as two arrays: by how
much each event deviates, and how much it may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hepgen_ml.events.laws.chunk import BoolArray, Chunk
from hepgen_ml.events.laws.color_lines import color, has_colors
from hepgen_ml.events.laws.particle_ids import INTERNAL, UNKNOWN_CHARGE
from hepgen_ml.events.objects import JET
from hepgen_ml.events.sample import FloatArray

Verdict = tuple[FloatArray, FloatArray]

_NEUTRINOS, _WITHOUT_PARTS = (12, 14, 16), (11, 13, 15, 22)
"""Beams whose energies have a spectrum, or a spread about the nominal energy."""

_SPREAD = 1.0
"""Largest relative excess over the nominal energy of an elementary beam (energy spread,
beamstrahlung): above twice of it, the header states the energy of something else."""


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
    """Two incoming particles along the beam, in opposite directions, below the beam energies.

    Either may come first, and a target at rest counts for both directions. A single incoming
    particle is a decay if the run has no second beam. Energies of elementary beams have a spread
    about the nominal energy, and those of neutrinos a spectrum.
    """
    p = chunk.sample.particles
    counts = np.bincount(chunk.event[chunk.incoming], minlength=chunk.n)
    value = np.where(counts == 2, 0.0, np.inf)
    if not (chunk.run.beam_energy[1] > 0 and chunk.run.beam_pdg_id[1]):
        value[counts == 1] = 0.0
    rows = np.flatnonzero(chunk.incoming & (counts == 2)[chunk.event]).reshape(-1, 2)
    pz = p["pz"][rows]
    swapped = pz[:, 0] < pz[:, 1]
    if swapped.any():
        rows[swapped] = rows[swapped, ::-1]
        pz = p["pz"][rows]
    events = chunk.event[rows[:, 0]]
    for k, side in ((0, 1.0), (1, -1.0)):
        row = rows[:, k]
        off = np.maximum(np.abs(p["px"][row]), np.abs(p["py"][row]))
        np.maximum(off, -side * pz[:, k], out=off)
        stated, beam = chunk.run.beam_energy[k], abs(chunk.run.beam_pdg_id[k])
        if stated > 0 and beam not in _NEUTRINOS:
            above = p["energy"][row] - stated
            spread = _SPREAD * stated if beam in _WITHOUT_PARTS else 0.0
            off = np.maximum(off, np.where(above > spread, above, 0.0))
        value[events] = np.maximum(value[events], _no_nan(off) / chunk.beam_energy[events])
    return value, chunk.allowed


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


def without_charge(chunk: Chunk) -> list[int]:
    """PDG ids whose charge is known neither from the numbering nor from the header."""
    unknown = chunk.properties[0] == UNKNOWN_CHARGE
    if not unknown.any():
        return []
    found: list[int] = np.unique(np.abs(chunk.sample.particles["pdg_id"][unknown])).tolist()
    return found


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
    """No particle has the id zero or one that belongs to the inside of generators.

    Unless the header declares it. Others that it does not declare are taken as neutral particles.
    """
    size = np.abs(chunk.sample.particles["pdg_id"])
    none = (size == 0) | ((size >= INTERNAL[0]) & (size <= INTERNAL[1]))
    return chunk.sum(_undeclared(chunk) & none), np.zeros(chunk.n)


def without_entry(chunk: Chunk) -> list[int]:
    """PDG ids that neither the numbering nor the header knows."""
    ids = chunk.sample.particles["pdg_id"][_undeclared(chunk)]
    found: list[int] = np.unique(np.abs(ids)).tolist()
    return found


def _undeclared(chunk: Chunk) -> BoolArray:
    unknown = ~chunk.properties[2]
    if chunk.sample.is_reconstructed:
        unknown &= chunk.sample.particles["pdg_id"] != JET
    return unknown


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
    # follow the first mothers, twice as far each time; a chain without an end is a cycle
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
    """A conservation or consistency law with its test.

    Attributes
    ----------
    name : str
    judge : callable
        From a `Chunk` to deviation and allowed deviation, both (n,).
    unit : str
        Unit of the deviation, to be read after a number.
    columns : tuple of str
        Particle columns beside the momenta.
    needs_incoming : bool
        Cannot be judged in samples without incoming particles.
    given : callable, optional
        Whether a chunk has the information that the law needs; a sample without it is not judged.
    not_given : str
        Description of the missing information.
    doubt : callable, optional
        Returns the PDG ids of a chunk that the result should name.
    doubts : str
        Message about them; by default, that the law cannot be judged for them.
    """

    name: str
    judge: Callable[[Chunk], Verdict]
    unit: str
    columns: tuple[str, ...] = ()
    needs_incoming: bool = False
    given: Callable[[Chunk], bool] | None = None
    not_given: str = ""
    doubt: Callable[[Chunk], list[int]] | None = None
    doubts: str = "not judged with {}: neither PDG numbering nor header says it of these"


_MOTHERS = ("status", "mother1", "mother2")
LAWS = (
    Law("finite numbers", finite, "numbers"),
    Law("momentum balance", momentum, "of the beam energy", ("status",), True),
    Law("mass shells", mass_shell, "of the beam energy", ("mass",)),
    Law("incoming particles", incoming, "of the beam energy", ("status",), True),
    Law("mothers", mothers, "particles", _MOTHERS, True),
    Law("resonances", resonances, "of the beam energy", _MOTHERS),
    Law("charge", charge, "e", ("pdg_id", *_MOTHERS), True, doubt=without_charge),
    Law(
        "colour connection",
        color,
        "lines",
        ("pdg_id", "color1", "color2", *_MOTHERS),
        True,
        given=has_colors,
        not_given="colour flow not given",
    ),
    Law(
        "particle ids",
        known_ids,
        "particles",
        ("pdg_id",),
        doubt=without_entry,
        doubts="{}: neither in the PDG numbering nor declared in the header (BLOCK QNUMBERS)",
    ),
)
