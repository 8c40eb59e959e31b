"""Charge and colour of particle ids, from the PDG numbering and the sample's own header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN_CHARGE = 999
INTERNAL = (81, 100)
"""First and last id that the numbering leaves to the inside of generators: no particles."""

ANY_COLOR = 0
"""Colour representation of an id whose representation is not known."""

_NAMED = 8
"""Ids that a sentence names."""

_LEFT_RIGHT = {
    9900012: 0, 9900014: 0, 9900016: 0, 9900023: 0, 9900024: 3, 9900041: 6, 9900042: 6,
}  # fmt: skip
"""Three times the charge of particles of left-right symmetric models, by PDG number."""

_HIDDEN = {1: -1, 2: 2, 3: -1, 4: 2, 5: -1, 6: 2, 11: -3, 12: 0, 13: -3, 14: 0, 15: -3, 16: 0}
"""Three times the charge of particles of hidden valleys (49xxxxx) that also feel the forces of the
standard model, by their last digits. All others are neutral singlets, mesons with digits of charged
ones too."""

_BY_RULE = (
    "is_SUSY", "is_technicolor", "is_excited_quark_or_lepton", "is_Rhadron", "is_nucleus",
    "is_dyon", "is_Qball", "is_hadron", "is_diquark",
)  # fmt: skip
"""Classes of the numbering whose digits say the charge, for particles without an entry too."""


_EXCHANGED = (110, 990, 9990)
"""Reggeon, pomeron and odderon."""

_OF_MODELS = 1_000_000
"""Ids from which the first digits denote classes of particles, such as R-hadrons."""

_SECTION = re.compile(r"^[ \t]*(BLOCK|DECAY)\b", re.I | re.M)


class ParticleIds:
    """Looks up ids; those that the header declares (SLHA) are known too.

    Parameters
    ----------
    header : str
        Header of an event file, possibly with ``BLOCK QNUMBERS``, ``BLOCK MASS`` and ``DECAY``.
    """

    def __init__(self, header: str = "") -> None:
        self._declared: set[int] = set()
        self._charge: dict[int, int] = {}
        self._color: dict[int, int] = {}
        self._read(header)

    def _read(self, header: str) -> None:
        """Add the declarations of an SLHA header; in linear time, because headers are untrusted."""
        found = list(_SECTION.finditer(header))
        for k, match in enumerate(found):
            end = found[k + 1].start() if k + 1 < len(found) else len(header)
            is_decay = match[1].upper() == "DECAY"
            words = header[match.end() : end].partition("\n")[0].split(maxsplit=2)
            if not is_decay and words and words[0].upper() == "MASS":
                lines = header[match.end() : end].splitlines()[1:]
                rows = (line.split(maxsplit=1) for line in lines)
                numbers = [_integer(entry[0]) for entry in rows if entry]
                self._declared.update(abs(n) for n in numbers if n is not None)
                continue
            if not is_decay and (len(words) < 2 or words[0].upper() != "QNUMBERS"):
                continue
            number = _integer(words[0 if is_decay else 1]) if words else None
            if number is None:
                continue
            self._declared.add(abs(number))
            for line in () if is_decay else header[match.end() : end].splitlines()[1:]:
                entry = line.split(maxsplit=2)
                value = _integer(entry[1]) if len(entry) > 1 else None
                if value is not None and entry[0] in ("1", "3"):
                    (self._charge if entry[0] == "1" else self._color)[abs(number)] = value

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
        found = np.array([self._properties(int(i)) for i in unique], dtype=np.int64)
        charge, color, known = found.reshape(-1, 3).T  # without any ids, too
        return charge[where], color[where], known[where].astype(bool)

    def _properties(self, pdg_id: int) -> tuple[int, int, bool]:
        size, sign = abs(pdg_id), -1 if pdg_id < 0 else 1
        charge, color, known = _numbering(size)
        color = self._color.get(size, color)
        charge = self._charge.get(size, charge)
        if charge != UNKNOWN_CHARGE:
            charge *= sign
        if abs(color) in (3, 6):
            color *= sign
        return charge, color, known or size in self._declared

    def without_charge(self, ids: Iterable[int]) -> list[int]:
        """Ids, without sign and in order, whose charge is not known."""
        return sorted({abs(i) for i in ids if self._properties(i)[0] == UNKNOWN_CHARGE})


@lru_cache(maxsize=8)
def ids_of(header: str) -> ParticleIds:
    """`ParticleIds` of a header; that of the chunks of one run is read once."""
    return ParticleIds(header)


def taken_as_neutral(ids: Iterable[int], header: str) -> list[str]:
    """Message about ids whose charge neither the numbering nor the header states."""
    found = ids_of(header).without_charge(ids)
    if not found:
        return []
    names = ", ".join(map(str, found[:_NAMED])) + (", ..." if len(found) > _NAMED else "")
    return [
        f"the charge of {names} is neither in the PDG numbering nor in the header (BLOCK "
        "QNUMBERS): taken as neutral, and conservation of charge is not judged there"
    ]


def _integer(text: str) -> int | None:
    """Integer of a few digits, None for anything else."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if len(digits) <= 10 and digits.isascii() and digits.isdigit() else None


@lru_cache(maxsize=4096)
def _numbering(size: int) -> tuple[int, int, bool]:
    """Charge, colour and validity of a positive id by the PDG numbering rules.

    In ranges that the numbering leaves to models and generators, such as from 9000001 on, digits do
    not denote quarks; the charge is then unknown.
    """
    from particle import PDGID, InvalidParticle, Particle, ParticleNotFound

    if size == 0:
        return UNKNOWN_CHARGE, ANY_COLOR, False
    pdg = PDGID(size)
    charge: int | None = None
    try:
        charge = Particle.from_pdgid(size).three_charge
        known = True
    except (ParticleNotFound, InvalidParticle):
        # by rule: new physics, nuclei and diquarks; 81 to 100 belong to the inside of generators
        known = bool(pdg.is_valid) and not INTERNAL[0] <= size <= INTERNAL[1]
        known &= not pdg.is_hadron or is_hadron(size)
        if known and _has_charge_by_rule(size, pdg):
            charge = pdg.three_charge
    charge = _LEFT_RIGHT.get(size, charge)
    if _is_hidden(size):
        charge, known = _HIDDEN.get(size - 4_900_000, 0), True
    return UNKNOWN_CHARGE if charge is None else int(charge), _color(size, pdg), known


def is_hadron(pdg_id: int) -> bool:
    """Whether the digits of an id are those of quarks that form a hadron.

    Models use numbers such as 99926, whose digits denote no quarks or add up to a broken charge.
    """
    from particle import PDGID

    size = abs(pdg_id)
    pdg = PDGID(size)
    if not pdg.is_hadron or size in _EXCHANGED or size >= _OF_MODELS:
        return bool(pdg.is_hadron)
    return "9" not in f"{size:07d}"[-4:-1] and (pdg.three_charge or 0) % 3 == 0


def _has_charge_by_rule(size: int, pdg: Any) -> bool:
    """Whether the numbering defines the charge of a valid id that has no entry of its own."""
    if size < 41:  # those up to 80 are left to models
        return True
    if 5_000_000 < size < 6_000_000:  # Kaluza-Klein excitations end in what they excite
        return size % 100_000 <= 39
    return not 9_900_000 <= size < 10_000_000 and any(getattr(pdg, name) for name in _BY_RULE)


def _is_hidden(size: int) -> bool:
    """Whether an id is that of a particle of a hidden valley."""
    return 4_900_000 < size < 5_000_000


def _color(size: int, pdg: Any) -> int:
    if _is_hidden(size):
        return 3 if size <= 4_900_006 else 1
    if size <= 8 or (size % 1_000_000 in range(1, 9) and size // 1_000_000 in (1, 2, 4)):
        return 3
    if size in (9, 21, 1000021):
        return 8
    if pdg.is_diquark and size < 10_000:  # 9942103 ends like one, and is a state of charmonium
        return -3
    if size <= 37 or 1_000_010 < size < 1_000_040 or 2_000_010 < size < 2_000_016:
        return 1
    if not 9_900_000 <= size < 10_000_000 and (is_hadron(size) or pdg.is_nucleus):
        return 1
    return ANY_COLOR
