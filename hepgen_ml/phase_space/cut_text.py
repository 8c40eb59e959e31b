"""Cuts in words, as the command line takes and reports them."""

from __future__ import annotations

import math
import re

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import OBJECTS
from hepgen_ml.phase_space.cuts import Cut, right_classes
from hepgen_ml.phase_space.leading import LEADING, LEPTON, class_and_rank
from hepgen_ml.phase_space.made import base_class
from hepgen_ml.phase_space.observables import ALL, OF_PAIRS, SINGLE

_NAME = "|".join((*SINGLE, *OF_PAIRS, "ht"))
_CUT = re.compile(
    rf"\s*(?:(\S+)\s*<=?\s*)?({_NAME})\s*\(([^()]*)\)\s*(?:(<|>)=?\s*(\S+)\s*)?"
)


def parse_cut(text: str) -> Cut:
    """Cut as in ``pt(Jet) > 25``, ``pt(Jet1) > 40`` or ``delta_r(Jet, Jet) > 0.4``.

    Parameters
    ----------
    text : str
        An observable of one class (``pt``, ``abs_eta``, ``energy``, ``plus``, ``minus``) or two
        (``delta_r``, ``mass``, ``pt_pair``, ``pt_hat``), ``ht(j)``, ``ht(all)`` or ``mass(all)``,
        ``<`` or ``>``, and a number; or as cuts are reported, ``20 <= pt(j) <= 50``. Classes are
        collections (``Muon``),
        ``j`` for quarks below 1 GeV and gluons, or PDG numbers. The transverse momentum of the
        leading particle of a class is ``pt(j1)`` or ``pt(22:1)``, that of the second ``pt(j2)``;
        ``l`` stands for all charged leptons there. ``j of the collision`` and ``j of decays``
        tell particles of a class that the collision makes from those of decays.

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> str(parse_cut("delta_r(Jet, Muon) > 0.4"))
    '0.4 <= delta_r(13, Jet)'
    >>> str(parse_cut("20 <= pt(j of the collision) <= 50"))
    '20 <= pt(j of the collision) <= 50'
    """
    match = _CUT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        observable, names = match[2], [name.strip() for name in match[3].split(",")]
        if observable == "pt" and len(names) == 1 and (ranked := class_and_rank(names[0])):
            names, observable = [ranked[0]], LEADING[ranked[1] - 1]
        classes = tuple(sorted(_class_named(name) for name in names))
        if not right_classes(observable, classes):
            raise ValueError(text)
        low, high = _bounds(*match.group(1, 4, 5))
    except ValueError:
        raise UsageError(
            f"{text!r} is not a cut",
            remedy="write pt(Jet) > 25, pt(Jet1) > 40 for the leading one, abs_eta(Jet) < 4.5, "
            "delta_r(Jet,Muon) > 0.4 or mass(Muon,Muon) > 60; energy is of photons (22), plus and "
            "minus are of leptons",
        ) from None
    return Cut(observable, classes, low, high)


def _bounds(before: str | None, relation: str | None, after: str | None) -> tuple[float, float]:
    """Bounds that are written before an observable and behind it."""
    numbers = [float(text) for text in (before, after) if text is not None]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError("no number")
    if before is None:
        return (numbers[0], math.inf) if relation == ">" else (-math.inf, numbers[0])
    low, high = numbers[0], numbers[-1] if after is not None else math.inf
    if relation == ">" or not low < high:
        raise ValueError("bounds that nothing is between")
    return low, high


def _class_named(text: str) -> str:
    text = " ".join(text.split())
    name = base_class(text)
    if name in (ALL, LEPTON) and name != text:
        raise ValueError(text)
    known = name in ("j", "Jet", ALL, LEPTON)
    own = name if known else str(abs(OBJECTS[name] if name in OBJECTS else int(name)))
    return own + text[len(name) :]
