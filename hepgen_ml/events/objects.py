"""Reconstructed objects: muons, electrons, photons, jets as an analysis sees them.

A reconstructed sample is an `EventSample` without mothers and statuses. Objects with a
particle behind them have its PDG number, the charge as its sign; jets have the number that
generators use for a jet of any flavour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import UsageError

JET = 93
"""Number of a jet, that of Sherpa's jet container; the PDG scheme does not use it."""

OBJECTS: dict[str, int] = {
    "Electron": 11,
    "Muon": 13,
    "Tau": 15,
    "Photon": 22,
    "Jet": JET,
}
"""Collections by the name that NanoAOD gives them, with the absolute value of their number.
Names are in the order in which objects stand in an event."""

CHARGED = ("Electron", "Muon", "Tau")
"""Collections whose objects have a charge; those of charge -1 have positive numbers."""

MASSES = {"Electron": 0.000510998950, "Muon": 0.1056583755, "Tau": 1.77693, "Photon": 0.0}
"""Masses in GeV (PDG 2024) where a file stores none; jets have their own."""


@dataclass(frozen=True)
class ObjectCount:
    """Number of objects of one collection that an event may have.

    Attributes
    ----------
    name : str
        Key of `OBJECTS`.
    low, high : int
        Both included.
    """

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Selection:
    """Objects to take from files of reconstructed or showered events.

    Attributes
    ----------
    objects : tuple of ObjectCount
        Collections that are read; events with other numbers of them are left out.
    cross_section, cross_section_error : float, optional
        In pb, for files that do not state it.
    tree : str, optional
        Name of the tree of a ROOT file, with its directories: ``dir/nominal``.
    jet_radius : float
        Radius of the anti-kT algorithm, for files of particles.
    jet_pt, jet_eta : float
        Smallest transverse momentum in GeV and largest pseudorapidity of clustered jets.
    """

    objects: tuple[ObjectCount, ...] = field(default=())
    cross_section: float | None = None
    cross_section_error: float | None = None
    tree: str | None = None
    jet_radius: float = 0.4
    jet_pt: float = 20.0
    jet_eta: float = 5.0


def parse_objects(text: str) -> tuple[ObjectCount, ...]:
    """Collections and counts as in ``Muon:2,Jet:0-10``.

    Parameters
    ----------
    text : str
        Names of `OBJECTS`, each with one number or a range.

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> parse_objects("Muon:2,Jet:0-10")[1]
    ObjectCount(name='Jet', low=0, high=10)
    """
    found: dict[str, ObjectCount] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)\s*:\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None or match[1] not in OBJECTS or match[1] in found:
            raise UsageError(
                f"{part.strip()!r} chooses no objects",
                remedy=f"write Muon:2,Jet:0-10 with the names {', '.join(OBJECTS)}, each once",
            )
        low, high = int(match[2]), int(match[3] or match[2])
        if high < low or high == 0:
            raise UsageError(f"{part.strip()!r} is not a range", remedy="write Jet:0-10")
        found[match[1]] = ObjectCount(match[1], low, high)
    return tuple(found[name] for name in OBJECTS if name in found)


def rank_of(pdg_id: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Place of each object's collection in the order of an event, 0 for unknown ones."""
    known = np.array(list(OBJECTS.values()))
    return np.asarray((np.abs(pdg_id)[..., None] == known).argmax(-1), dtype=np.int64)


def collection_of(pdg_id: int) -> str | None:
    """Name of the collection of an object, None if it belongs to none."""
    return next((name for name, number in OBJECTS.items() if number == abs(pdg_id)), None)


def counts_text(objects: Sequence[ObjectCount]) -> str:
    """Inverse of `parse_objects`."""
    return ",".join(f"{o.name}:{o.low}" + (f"-{o.high}" if o.high > o.low else "") for o in objects)


@dataclass(frozen=True)
class NamedResonance:
    """Objects of an event that come from one particle.

    Attributes
    ----------
    name : str
    objects : tuple of str
        Two or three: a collection, ``+`` or ``-`` for one charge, and a number from 1, in the order
        of an event: particles before antiparticles, by transverse momentum within.
    """

    name: str
    objects: tuple[str, ...]

    def rows(self, pdg_id: Sequence[int]) -> tuple[int, ...] | None:
        """Rows of the objects in an event with these PDG numbers; None if objects are missing."""
        rows = []
        for text in self.objects:
            match = _OBJECT.fullmatch(text)
            assert match is not None
            sign = {"-": (1,), "+": (-1,), "": (1, -1)}[match[2]]
            alike = [r for r, n in enumerate(pdg_id) if n in [s * OBJECTS[match[1]] for s in sign]]
            number = int(match[3] or 1)
            if number > len(alike):
                return None
            rows.append(alike[number - 1])
        return tuple(rows)

    def __str__(self) -> str:
        return f"{self.name}: {' '.join(self.objects)}"


_OBJECT = re.compile(rf"({'|'.join(OBJECTS)})([+-]?)([1-9]\d*)?")


def parse_resonance(text: str) -> NamedResonance:
    """Resonance as in ``Z: Muon1 Muon2`` or ``top: Jet1 Jet2 Jet3``.

    Parameters
    ----------
    text : str
        A name, a colon, and two or three objects.

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> parse_resonance("W: Jet1 Jet2").objects
    ('Jet1', 'Jet2')
    """
    name, _, rest = text.partition(":")
    objects = tuple(rest.replace(",", " ").split())
    good = re.fullmatch(r"\w[\w+-]*", name.strip()) and name.strip() not in OBJECTS
    if not good or len(objects) not in (2, 3) or not all(map(_OBJECT.fullmatch, objects)):
        raise UsageError(
            f"{text!r} is not a resonance",
            remedy='write "Z: Muon1 Muon2" or "top: Jet1 Jet2 Jet3", with objects of '
            f"{', '.join(OBJECTS)}",
        )
    return NamedResonance(name.strip(), objects)
