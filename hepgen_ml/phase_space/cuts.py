"""Generation cuts: their observables, their notation, and masks of events inside.

`hepgen_ml.phase_space.cut_finder` finds those of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.events.objects import JET
from hepgen_ml.phase_space.coordinates import two_body_momentum
from hepgen_ml.phase_space.leading import (
    LEADING,
    LEPTON,
    in_words,
    leading_observables,
    members,
    places,
)
from hepgen_ml.phase_space.made import OF_COLLISION, OF_DECAYS, Made, base_class
from hepgen_ml.phase_space.observables import (
    ALL,
    JETS,
    SINGLE,
    Key,
    base_key,
    made_observables,
    of_single,
    pairs_of,
    particle_observables,
    whole_observables,
)

LIGHT = frozenset([1, 2, 3, 4, 5, 21])
_STEPS = 500  # of the ratio of smallest transverse momenta with and without masses


def flavour_class(pdg_id: int, mass: float) -> str:
    """Class of particles that share their cuts.

    Gluons and the quarks d, u, s, c, b that are lighter than 1 GeV are ``j``, as in run cards, so
    that a massless b quark is one too; reconstructed jets are ``Jet``; other particles are named
    by the absolute value of their PDG number. Reports group particles by
    `hepgen_ml.analysis.final_states.class_of` instead, where b quarks are apart.
    """
    if abs(pdg_id) == JET:
        return "Jet"
    if abs(pdg_id) in LIGHT and mass < 1.0:
        return "j"
    return str(abs(pdg_id))


@dataclass(frozen=True)
class Evidence:
    """Evidence for one bound of a cut.

    Attributes
    ----------
    entries : int
        Number of particles or pairs in which the bound was searched.
    near : int
        Number of entries next to the bound. Without a cut a similar number is expected beyond it.
    width : float
        Distance from the bound up to which these entries lie.
    position : float
        Relative position of their median between first and last: 0.5 for a sharp edge, 0.9 in a
        tail.
    classes : tuple of str
        Classes whose entries were combined, as in ``pt(j)`` or ``mass(j, 4)``.
    """

    entries: int
    near: int
    width: float
    position: float
    classes: tuple[str, ...]

    def __str__(self) -> str:
        pooled = f"; of {' and '.join(self.classes)}" if len(self.classes) > 1 else ""
        return (
            f"{self.near:,} of {self.entries:,} entries within {self.width:.3g} of this bound, "
            "none beyond it, where without a cut a similar number is expected; median position "
            f"{self.position:.2f} of that range, 0.5 for a sharp edge{pooled}"
        )


Evidences = tuple[Evidence | None, Evidence | None]
"""Evidence for the lower and the upper bound; None where the user states it or it is unknown."""


@dataclass(frozen=True)
class Cut:
    """One bound: `low` <= observable <= `high` for every particle or pair of the classes.

    Attributes
    ----------
    observable : str
        ``pt``, ``abs_eta``, ``energy`` (of photons), and ``plus`` and ``minus``, the light-cone
        momenta E + pz and E - pz (of leptons), of a particle, ``delta_r``, ``mass`` or the
        transverse momentum ``pt_pair`` of a pair.
        The momentum transfer from a beam of fixed energy E along -z to a particle is
        Q² = 2 E (E' + pz') up to masses.
        ``ht`` of ``j`` is the scalar sum of the transverse momenta of the partons that no decay
        makes (with charm and bottom quarks), that of ``all`` the sum of the transverse masses of
        all that the collision makes; ``mass`` of ``all`` is that of the collision.
        ``pt1`` is the largest transverse momentum of a class in each event, ``pt2`` the second one,
        and so on, where there are so many; ``l`` stands for all charged leptons.
        ``pt_hat`` of events with two particles is the transverse momentum that massless ones
        would have at the same angle and total energy in their rest frame.
    classes : tuple of str
        Flavour classes, one or two.
    low, high : float
        GeV for momenta and masses; infinite where there is no bound.
    evidence : (Evidence or None, Evidence or None)
        For bounds that were found in a sample.
    """

    observable: str
    classes: tuple[str, ...]
    low: float = -math.inf
    high: float = math.inf
    evidence: Evidences = field(default=(None, None), compare=False, repr=False)

    def __str__(self) -> str:
        name = f"{self.observable}({', '.join(self.classes)})"
        if self.observable in LEADING:
            name = in_words(self.observable, self.classes[0])
        left = "" if math.isinf(self.low) else f"{self.low:g} <= "
        right = "" if math.isinf(self.high) else f" <= {self.high:g}"
        return f"{left}{name}{right}"


def right_classes(observable: str, classes: Sequence[str]) -> bool:
    """Whether a cut on this observable may name these classes."""
    if observable == "ht":
        return list(classes) in (["j"], [ALL])
    if observable == "mass" and list(classes) == [ALL]:
        return True
    if observable in LEADING:
        # of any origin, see `places`
        return len(classes) == 1 and classes[0] != ALL and classes[0] == base_class(classes[0])
    if {ALL, LEPTON} & {*classes}:
        return False
    if observable in SINGLE:
        return len(classes) == 1 and observable in of_single(classes[0])
    return len(classes) == 2


class Acceptance:
    """The cuts of a process.

    Parameters
    ----------
    cuts : sequence of Cut

    Attributes
    ----------
    of_ranks : bool
        Whether some are on the leading particles of a class.
    """

    def __init__(self, cuts: Sequence[Cut] = ()) -> None:
        self.cuts = tuple(cuts)
        self._by_key = {(c.observable, c.classes): c for c in self.cuts}
        self.of_ranks = any(c.observable in LEADING for c in self.cuts)

    def pt_min(self, label: str) -> float:
        """Smallest transverse momentum of a flavour class, 0 without a cut."""
        return self.low("pt", label)

    def low(self, observable: str, *classes: str) -> float:
        """Smallest value in GeV of an observable of flavour classes, 0 without a cut."""
        cut = self._by_key.get((observable, tuple(sorted(classes))))
        return 0.0 if cut is None or math.isinf(cut.low) else cut.low

    def pt_of_pair(self, labels: Sequence[str], masses: Sequence[float]) -> float:
        """Smallest transverse momentum of each of two particles that are a final state.

        With masses (in GeV, the largest possible) it is below the cut on ``pt_hat``, least at the
        smallest total energy. It is rounded down, so that light flavours have the same.
        """
        own = max(map(self.pt_min, labels))
        hat = self.low("pt_hat", *labels)
        if hat <= sum(masses) / 2:
            return own
        m, m1, m2 = (torch.tensor(v, dtype=torch.float64) for v in (2 * hat, *masses))
        part = float(two_body_momentum(m, m1, m2)) / hat
        return max(own, hat * math.floor(part * _STEPS + 1e-9) / _STEPS)

    def distances(self, labels: Sequence[str]) -> list[float]:
        """Smallest distance of each particle to the one before, 0 for the first and without cut."""
        return [0.0, *(self.low("delta_r", a, b) for a, b in pairwise(labels))]

    def bounds(self, labels: Sequence[str]) -> list[tuple[str, tuple[int, ...], float, float]]:
        """Bounds on particles of these classes by their places: equal where cuts are the same."""
        if not self._by_key:
            return []
        all_places = range(len(labels))
        at: list[tuple[int, ...]] = [(i,) for i in all_places]
        found = []
        for where in (*at, *combinations(all_places, 2)):
            classes = tuple(sorted(labels[i] for i in where))
            for name in SINGLE if len(where) == 1 else pairs_of(len(labels)):
                if cut := self._by_key.get((name, classes)):
                    found.append((name, where, cut.low, cut.high))
        if cut := self._by_key.get(("ht", ("j",))):
            jets = tuple(i for i in all_places if base_class(labels[i]) in JETS)
            found.append(("ht", jets, cut.low, cut.high))
        for name, classes in self._by_key:
            if name in LEADING:
                cut, some = self._by_key[name, classes], tuple(places(labels, classes[0]))
                found.append((name, some, cut.low, cut.high))
        return found

    @property
    def classes(self) -> set[str]:
        """Flavour classes that have cuts."""
        own = {name for cut in self.cuts for name in cut.classes}
        of_any = {name for cut in self.cuts if cut.observable in LEADING
                  for name in members(cut.classes[0])}  # fmt: skip
        if ("ht", ("j",)) in self._by_key:
            of_any |= JETS
        own.update(name + origin for name in of_any for origin in ("", OF_COLLISION, OF_DECAYS))
        return own

    def concerned(self, made: Sequence[Made]) -> tuple[Made, ...]:
        """What collisions make, without names that no cut has; none if no cut concerns a decay."""
        classes = self.classes
        sums = any(cut.observable == "ht" for cut in self.cuts)
        named = any(one.decays and one.label in classes for one in made)
        if not named and not (sums and any(one.decays for one in made)):
            return ()
        known = (one if one.label in classes else one._replace(label="") for one in made)
        return tuple(sorted(known, key=lambda one: one.places))

    def passes(self, p: Tensor, labels: Sequence[str], made: Sequence[Made] = ()) -> Tensor:
        """Mask (events,) of final states (events, n, 4) inside every cut.

        Cuts on particles that decay need to know what the collision makes.
        """
        good = torch.ones(len(p), dtype=torch.bool, device=p.device)
        if not self.cuts:
            return good
        of_final = particle_observables(p, labels, self._by_key)
        of_made = made_observables(p, made, self._by_key)
        of_all = whole_observables(p, labels, made, self._by_key)
        of_all |= leading_observables(p, labels, self._by_key)
        for key, values in (*of_final.items(), *of_made.items(), *of_all.items()):
            cut = self._by_key[key]
            good &= ((values >= cut.low) & (values <= cut.high)).all(-1)
        return good

    def described(self) -> list[str]:
        """Each bound in words, with its evidence."""
        lines = []
        for cut in reported(self.cuts):
            bounds = (replace(cut, high=math.inf), replace(cut, low=-math.inf))
            for bound, evidence in zip(bounds, cut.evidence, strict=True):
                if not (math.isinf(bound.low) and math.isinf(bound.high)):
                    lines.append(f"{bound}" + (f" ({evidence})" if evidence else ""))
        return lines

    def to_config(self) -> list[dict[str, Any]]:
        """Plain JSON values; infinite bounds are None."""
        return [
            {
                "observable": c.observable,
                "classes": list(c.classes),
                "low": None if math.isinf(c.low) else c.low,
                "high": None if math.isinf(c.high) else c.high,
                "evidence": [None if e is None else asdict(e) for e in c.evidence],
            }
            for c in self.cuts
        ]

    @classmethod
    def from_config(cls, config: Sequence[dict[str, Any]]) -> Acceptance:
        """Inverse of `to_config`."""
        return cls(
            [
                Cut(
                    c["observable"],
                    tuple(c["classes"]),
                    -math.inf if c["low"] is None else float(c["low"]),
                    math.inf if c["high"] is None else float(c["high"]),
                    _evidence(c.get("evidence") or (None, None)),
                )
                for c in config
            ]
        )


def tighter(cuts: Sequence[Cut]) -> list[Cut]:
    """One cut for each observable, with the tightest of all bounds."""
    found: dict[tuple[str, tuple[str, ...]], Cut] = {}
    for cut in cuts:
        key = (cut.observable, cut.classes)
        other = found.get(key, cut)
        found[key] = Cut(*key, max(cut.low, other.low), min(cut.high, other.high))
    return list(found.values())


def reported(cuts: Sequence[Cut]) -> list[Cut]:
    """Cuts as they are reported: bounds that do not depend on the origin as one."""
    groups: dict[Key, list[Cut]] = {}
    for cut in cuts:
        groups.setdefault(base_key((cut.observable, cut.classes)), []).append(cut)
    apart = {base_class(c) for cut in cuts for c in cut.classes if c != base_class(c)}
    found: list[Cut] = []
    for key, some in groups.items():
        origins = 1
        for name in set(key[1]):
            if name in apart:
                origins *= key[1].count(name) + 1
        rest = some
        if len(some) == origins > 1:
            low = some[0].low if len({c.low for c in some}) == 1 else -math.inf
            high = some[0].high if len({c.high for c in some}) == 1 else math.inf
            one = some[0].evidence
            why = one[0] if math.isfinite(low) else None, one[1] if math.isfinite(high) else None
            rest = [_without(c, low, high) for c in some]
            found.append(Cut(*key, low, high, why))
        found += rest
    return [c for c in found if math.isfinite(c.low) or math.isfinite(c.high)]


def _without(cut: Cut, low: float, high: float) -> Cut:
    """A cut without bounds that are reported for all origins."""
    low_left = -math.inf if cut.low == low else cut.low
    high_left = math.inf if cut.high == high else cut.high
    return replace(cut, low=low_left, high=high_left, evidence=(
        cut.evidence[0] if math.isfinite(low_left) else None,
        cut.evidence[1] if math.isfinite(high_left) else None,
    ))  # fmt: skip


def _evidence(config: Sequence[dict[str, Any] | None]) -> Evidences:
    """Evidence for both bounds from plain JSON values."""
    low, high = (
        None if e is None else Evidence(**e | {"classes": tuple(e["classes"])}) for e in config
    )
    return low, high


def overridden(found: Sequence[Cut], stated: Sequence[Cut]) -> list[Cut]:
    """Cuts that were found; stated cuts replace their bounds on the same side."""
    result = {(c.observable, c.classes): c for c in found}
    for cut in tighter(stated):
        key = (cut.observable, cut.classes)
        other = result.get(key, cut)
        low = cut if math.isfinite(cut.low) else other
        high = cut if math.isfinite(cut.high) else other
        result[key] = Cut(*key, low.low, high.high, (low.evidence[0], high.evidence[1]))
    return list(result.values())
