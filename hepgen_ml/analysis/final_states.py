"""Events grouped by final state, their particles in canonical order.

This module knows no particular process. Events with the same final-state classes form a group: a
class is a PDG id, except that gluons and the quarks d, u, s, c share the class `JET`. Particles of
one class are ordered by transverse momentum. Resonances (status 2) belong to the group too, so that
their masses are observables like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError
from hepgen_ml.events.objects import JET as RECONSTRUCTED_JET
from hepgen_ml.events.sample import EventSample, IntArray
from hepgen_ml.events.summary import particle_name

JET = 0
"""Class of gluons, of the quarks d, u, s, c and of reconstructed jets."""

_LIGHT = (1, 2, 3, 4, 21, RECONSTRUCTED_JET)
_INCOMING, _RESONANCE, _FINAL = 0, 1, 2


@dataclass(frozen=True)
class Signature:
    """Definition of a group of events.

    Attributes
    ----------
    final : tuple of int
        Classes of the final-state particles.
    resonances : tuple of int
        PDG ids of the intermediate particles (status 2).
    """

    final: tuple[int, ...]
    resonances: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = " ".join(name_of(c) for c in self.final)
        return text + (f" [{' '.join(map(name_of, self.resonances))}]" if self.resonances else "")

    @property
    def latex(self) -> str:
        r"""Label for figures in mathtext, without dollar signs: ``t \bar{t} j``."""
        return r"\,".join(latex_of(c) for c in self.final)


def class_of(pdg_id: npt.ArrayLike) -> IntArray:
    """Class of each PDG id: `JET` for gluons, quarks d, u, s, c and jets, else the id itself.

    The b quark is a class of its own, because b jets are tagged. Cuts have other classes, see
    `hepgen_ml.phase_space.cuts.flavour_class`.
    """
    ids = np.asarray(pdg_id, dtype=np.int64)
    return np.where(np.isin(np.abs(ids), _LIGHT), JET, ids)


@cache
def name_of(pdg_class: int) -> str:
    """Plain-text name of a class or PDG id."""
    return "j" if pdg_class == JET else particle_name(pdg_class)


@cache
def latex_of(pdg_class: int) -> str:
    """Mathtext name of a class or PDG id, without dollar signs."""
    from particle import InvalidParticle, Particle, ParticleNotFound

    if pdg_class == JET:
        return "j"
    try:
        return str(Particle.from_pdgid(pdg_class).latex_name)
    except (InvalidParticle, ParticleNotFound):
        return rf"\mathrm{{{pdg_class}}}"


def row_ids(matrix: npt.ArrayLike) -> IntArray:
    """Give each row of an integer matrix a number, equal rows the same.

    Parameters
    ----------
    matrix : (n, k) int array

    Returns
    -------
    (n,) int64 array
        0, 1, ... in lexicographic order of the rows.
    """
    rows = np.asarray(matrix, dtype=np.int64)
    ids = np.zeros(len(rows), dtype=np.int64)
    for column in rows.T:
        distinct, codes = np.unique(column, return_inverse=True)
        ids = np.unique(ids * len(distinct) + codes, return_inverse=True)[1]
    return ids


@dataclass(frozen=True)
class Layout:
    """Events with the same sections and classes, their rows in canonical order.

    Attributes
    ----------
    signature : Signature
    index : (n,) int array
        Event numbers in the sample.
    rows : (n, m) int array
        Particle rows: incoming, resonances, final state.
    n_incoming, n_resonances : int
        Numbers of columns, of m, that come first and next.
    """

    signature: Signature
    index: IntArray
    rows: IntArray
    n_incoming: int
    n_resonances: int


def layouts(sample: EventSample, *, by_flavor: bool = False) -> Iterator[Layout]:
    """Group events and order their particles.

    Incoming particles are ordered along the beam axis, the one with the larger
    p_z first; the others by class, within a class by falling transverse momentum.

    Parameters
    ----------
    sample : EventSample
        A sample without statuses is all final state.
    by_flavor : bool
        Order by PDG id before transverse momentum within the class of jets.

    Yields
    ------
    Layout
        Events with few particles first.
    """
    p = sample.particles
    if "pdg_id" not in p:
        raise SampleError("has no particle ids", remedy="observables need the PDG id column")
    pdg_id = p["pdg_id"].astype(np.int64)
    status = p.get("status", np.ones(len(pdg_id), dtype=np.int32))
    section = np.full(len(status), -1)
    for value, code in ((-1, _INCOMING), (2, _RESONANCE), (1, _FINAL)):
        section[status == value] = code
    classes = np.where(section == _FINAL, class_of(pdg_id), pdg_id)
    # heavy quarks, leptons and bosons by |id|, particle before antiparticle, jets last
    order_of_class = np.where(
        (classes == JET) & (section == _FINAL), 1 << 40, 2 * np.abs(classes) + (classes < 0)
    )
    order_of_class[section == _INCOMING] = 0
    falling = np.where(section == _INCOMING, -p["pz"], -np.hypot(p["px"], p["py"]))
    flavor = np.where(section == _FINAL, pdg_id, 0) if by_flavor else np.zeros_like(pdg_id)
    event = sample.event_index
    order = np.lexsort((falling, flavor, order_of_class, section, event))
    order = order[section[order] >= 0]

    counts = np.bincount(event[order], minlength=len(sample))
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    grouping = np.where(section == _INCOMING, 0, classes)
    for m in np.unique(counts[counts > 0]):
        index = np.flatnonzero(counts == m)
        rows = order[starts[index][:, None] + np.arange(m)]
        ids = row_ids(np.concatenate([section[rows], grouping[rows]], axis=1))
        for one in range(ids.max() + 1):
            chosen = ids == one
            first = rows[np.argmax(chosen)]
            kinds = section[first]
            if not np.any(kinds == _FINAL):
                continue
            yield Layout(
                Signature(
                    tuple(classes[first[kinds == _FINAL]].tolist()),
                    tuple(classes[first[kinds == _RESONANCE]].tolist()),
                ),
                index[chosen],
                rows[chosen],
                int(np.sum(kinds == _INCOMING)),
                int(np.sum(kinds == _RESONANCE)),
            )


def color_partners(sample: EventSample, rows: IntArray) -> IntArray:
    """Colour flow as a pattern that does not depend on the tags of the file.

    Parameters
    ----------
    sample : EventSample
    rows : (n, m) int array
        Particle rows of n events.

    Returns
    -------
    (n, m, 2) int array
        For colour and anticolour of each particle: the place (2 j + side, counted
        from 0 in the row) of the first other one in the event with the same tag,
        -1 for no colour, -2 for a tag that occurs nowhere else.
    """
    both = np.stack([sample.color1[rows], sample.color2[rows]], axis=2).reshape(len(rows), -1)
    tags = np.abs(both)  # a sextet's second line of the other kind is negative
    partner = np.where(tags == 0, -1, -2).astype(np.int64)
    width = tags.shape[1]
    for slot in range(width):
        # going backwards, the first match in the row is what remains
        for other in range(width - 1, -1, -1):
            if other != slot:
                same = (tags[:, slot] == tags[:, other]) & (tags[:, slot] != 0)
                partner[same, slot] = other
    return partner.reshape(len(rows), -1, 2)
