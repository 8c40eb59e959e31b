"""Charge and colour of particle ids, from the PDG numbering and the sample's own header."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

UNKNOWN_CHARGE = 999
ANY_COLOR = 0
"""Colour representation of an id whose representation is not known."""

_QNUMBERS = re.compile(
    r"^\s*BLOCK\s+QNUMBERS\s+(\d+)(.*?)(?=^\s*(?:BLOCK|DECAY)\b|\Z)", re.I | re.M | re.S
)
_ENTRY = re.compile(r"^\s*([13])\s+([-+]?\d+)", re.M)
_DECAY = re.compile(r"^\s*DECAY\s+(\d+)\b", re.I | re.M)


class ParticleIds:
    """Looks up ids; those that the header declares (SLHA) are known too.

    Parameters
    ----------
    header : str
        Header of an event file, possibly with ``BLOCK QNUMBERS`` and ``DECAY``.
    """

    def __init__(self, header: str = "") -> None:
        self._declared: set[int] = {int(i) for i in _DECAY.findall(header)}
        self._charge: dict[int, int] = {}
        self._color: dict[int, int] = {}
        for number, body in _QNUMBERS.findall(header):
            entries = {int(k): int(v) for k, v in _ENTRY.findall(body)}
            self._declared.add(int(number))
            if 1 in entries:
                self._charge[int(number)] = entries[1]
            if 3 in entries:
                self._color[int(number)] = entries[3]

    def look_up(
        self, ids: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Properties of many ids.

        Parameters
        ----------
        ids : (rows,) int array

        Returns
        -------
        charge : (rows,) int array
            Three times the electric charge; `UNKNOWN_CHARGE` where not known.
        color : (rows,) int array
            1, 3, -3, 8, 6, -6 or `ANY_COLOR`.
        known : (rows,) bool array
        """
        unique, where = np.unique(ids, return_inverse=True)
        found = [self._properties(int(i)) for i in unique]
        charge, color, known = (np.array(x) for x in zip(*found, strict=True))
        return charge[where], color[where], known[where]

    def _properties(self, pdg_id: int) -> tuple[int, int, bool]:
        size, sign = abs(pdg_id), -1 if pdg_id < 0 else 1
        charge, color, known = _numbering(size)
        color = self._color.get(size, color)
        if size in self._charge:
            charge = self._charge[size]
        if charge != UNKNOWN_CHARGE:
            charge *= sign
        if abs(color) in (3, 6):
            color *= sign
        return charge, color, known or size in self._declared


@lru_cache(maxsize=4096)
def _numbering(size: int) -> tuple[int, int, bool]:
    """Charge, colour and whether known, of a positive id by the PDG numbering rules."""
    from particle import PDGID, InvalidParticle, Particle, ParticleNotFound

    if size == 0:
        return UNKNOWN_CHARGE, ANY_COLOR, False
    pdg = PDGID(size)
    try:
        Particle.from_pdgid(size)
        known = True
    except (ParticleNotFound, InvalidParticle):
        # by rule: new physics, nuclei and diquarks; 81 to 100 belong to the inside of generators
        known = bool(pdg.is_valid) and not 81 <= size <= 100
    charge = pdg.three_charge
    return UNKNOWN_CHARGE if charge is None else int(charge), _color(size, pdg), known


def _color(size: int, pdg: object) -> int:
    if size <= 8 or (size % 1_000_000 in range(1, 9) and size // 1_000_000 in (1, 2, 4)):
        return 3
    if size in (9, 21, 1000021):
        return 8
    if getattr(pdg, "is_diquark", False):
        return -3
    if size <= 37 or 1_000_010 < size < 1_000_040 or 2_000_010 < size < 2_000_016:
        return 1
    if getattr(pdg, "is_hadron", False) or getattr(pdg, "is_nucleus", False):
        return 1
    return ANY_COLOR
