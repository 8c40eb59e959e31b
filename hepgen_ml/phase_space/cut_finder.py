"""Finding the cuts of a sample, with the evidence for each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.phase_space.cuts import Acceptance, Cut, Evidence, overridden, tighter
from hepgen_ml.phase_space.edges import HARDLY_ANY, Edge, ends, is_fixed, lower_edge
from hepgen_ml.phase_space.extremes import Extremes, FinalStates
from hepgen_ml.phase_space.implied import without_implied
from hepgen_ml.phase_space.leading import LEADING, LEPTON, members
from hepgen_ml.phase_space.made import base_class
from hepgen_ml.phase_space.observables import ALL, JETS, SINGLE, Key, base_key, of_whole
from hepgen_ml.phase_space.origins import (
    by_origin,
    final_name,
    kept_apart,
    named,
    named_apart,
    of_each_origin,
    of_own,
    renamed,
    with_origins,
    with_own,
)
from hepgen_ml.phase_space.smallest import BOUNDED_ABOVE, Seen, Smallest

MIN_ENTRIES, MIN_PAIRS = 150, 500
"""Minimum numbers of values to infer a cut on particles and on pairs."""

_ABOVE_THRESHOLD = 1.1
"""Lower cuts on masses are above this multiple of the sum of the masses, which is a kinematic edge
itself."""

_DIFFERENT = 20.0
"""Mean spacings between the edge of a class and that of all its relatives, if it is another."""

_MANY, _SHARP = 2000, 0.64
"""Number of entries, and the largest position of the middle one of those next to the edge, for an
upper cut where most distributions have a tail: in transverse momenta, and in masses that have no
lower cut."""

_RELATIVES = {"4": "j", "5": "j", "13": "11", "14": "12", "16": "12"}
"""Classes to which generators apply the same cuts, by one of them: charm and bottom quarks with
masses are jets as others are, electrons and muons are leptons."""

_LIGHT_CONE = ("plus", "minus")
_WITHOUT_ANGLE = {"pt": 2, "pt_hat": 3}
"""Rows of extreme values before the one with the angle in the frame of the collision."""

_DETERMINED = ("plus", "minus", "mass")
"""Observables that are determined by those with which their edges are compared."""

Edges = tuple[Edge | None, Edge | None]
"""Below and above, the latter of the negative values."""


_OF_FINAL = ("abs_eta", "delta_r", "pt_pair", "pt_hat")
"""Observables of final particles alone."""


class CutFinder:
    """Finds cuts in a stream of events from extreme values, in bounded memory.

    Parameters
    ----------
    find : bool
        Search cuts; otherwise only stated cuts count.

    Attributes
    ----------
    classes : set of str
        Flavour classes, without origins.
    apart : frozenset of str
        Those of which particles of collisions and of decays have different cuts, once
        `acceptance` has found these.
    """

    def __init__(self, find: bool = True) -> None:
        self._find = find
        self._extremes = Extremes()
        self._common: dict[Key, Seen] | None = None
        self.classes: set[str] = set()
        self._final: set[str] = set()
        self.apart: frozenset[str] = frozenset()

    def add(
        self,
        p: Tensor,
        labels: Sequence[str],
        *,
        balanced: bool = True,
        decays: Collection[tuple[int, int]] = (),
    ) -> None:
        """Take in final states (events, n, 4) of particles with these classes, see `add_all`."""
        self.add_all([FinalStates(p, labels, balanced, decays)])

    def add_all(self, states: Sequence[FinalStates]) -> None:
        """Take in final states of any classes."""
        for state in states:
            names = (*state.labels, *(one.label for one in state.made if one.label))
            self.classes.update(map(base_class, names))
            self._final.update(state.labels)
        self._common = None
        if self._find:
            self._extremes.add_all(states)

    def range(
        self, observable: str, classes: tuple[str, ...], stated: Sequence[Cut] = ()
    ) -> tuple[float, float]:
        """Bounds of an observable: its cuts, or infinite.

        An upper one needs a density that would have many entries beyond it.
        """
        key = (observable, tuple(sorted(classes)))
        seen = self._of_any_origin().get(key, Seen())
        low = high = None
        if seen.entries >= _fewest(observable):
            low = lower_edge(seen.low.values, seen.entries)
            high = lower_edge(seen.high.values, seen.entries)
            if high is not None and not ends(seen.high.values, seen.entries):
                high = None
        same = [c for c in stated if (c.observable, c.classes) == key]
        (cut,) = overridden([_cut(key, (low, high), (None, None))], same)
        return cut.low, cut.high

    def acceptance(
        self,
        stated: Sequence[Cut] = (),
        *,
        light_cone: bool = False,
        energies: bool = False,
        slices: bool = True,
        angles: Collection[str] = (),
    ) -> Acceptance:
        """The cuts whose edges are populated, and the stated cuts.

        Parameters
        ----------
        stated : sequence of Cut
            Their bounds replace those found.
        light_cone : bool
            Search in light-cone momenta, too: if a beam has a fixed energy, cuts on the momentum
            transfer are edges of these.
        energies : bool
            Search in energies of photons, where those of the beams are fixed.
        slices : bool
            Search upper cuts where the energy of the beams ends no distribution: on transverse
            momenta, and on masses without a lower cut.
        angles : collection of str
            Observables of two particles that are all of a collision which the angle determines,
            because the energy hardly varies: there a cut has edges in all of them.

        Raises
        ------
        UsageError
            A stated cut on particles that the events do not have.
        """
        for cut in stated:
            known = self.classes | {ALL}
            if cut.observable == "ht" and known & JETS:
                known.add("j")  # which charm and bottom quarks are here
            if known & members(LEPTON):
                known.add(LEPTON)
            known |= {final_name(c, [base_class(c)]) for c in self._final}
            missing = [c for c in cut.classes if c not in known]
            if missing:
                raise UsageError(
                    f"no particle is of class {missing[0]!r}, so {str(cut)!r} cuts nothing",
                    remedy=f"the classes are {', '.join(sorted(self.classes))}",
                )
            only_made = self.classes - {*map(base_class, self._final)}
            decaying = [c for c in cut.classes if c in only_made]
            if decaying and cut.observable in _OF_FINAL:
                raise UsageError(
                    f"particles of class {decaying[0]!r} decay, so {str(cut)!r} cuts nothing",
                    remedy="cuts on these are on their pt, or on the mass of two",
                )
        left_out = (*(() if light_cone else _LIGHT_CONE), *(() if energies else ("energy",)))

        def found_in(memory: Mapping[Key, Seen]) -> list[Cut]:
            families: dict[Key, dict[Key, Seen]] = {}
            for key, seen in memory.items():
                if seen.entries and key[0] not in left_out and "" not in key[1]:
                    families.setdefault(_alike(key), {})[key] = seen
            found = [cut for family in families.values() for cut in _of_family(family, angles)]
            return [c if slices else _without_slice(c) for c in found]

        every, memory = self._extremes.seen, self._of_any_origin()
        found = found_in(memory)
        parts = [found_in(part) for part in by_origin(every, _alike)]
        own = of_own([cut for part in parts for cut in part], found, stated)
        self.apart = kept_apart(own, every) | named_apart(stated)
        if self.apart:
            memory = renamed(every, partial(final_name, apart=self.apart))
            own = [named(cut, self.apart) for cut in own]
            found = with_own(with_origins(found, memory), own)
            stated = tighter(of_each_origin(stated, self.apart))
        return Acceptance(overridden(without_implied(found, memory), stated))

    def _of_any_origin(self) -> dict[Key, Seen]:
        """Memory of classes without origins."""
        if self._common is None:
            self._common = renamed(self._extremes.seen, base_class)
        return self._common


def _alike(key: Key) -> Key:
    """Observable and classes without origins, by one of those that have the same cuts."""
    observable, classes = base_key(key)
    return observable, tuple(sorted(_RELATIVES.get(c, c) for c in classes))


def _of_family(family: dict[Key, Seen], angles: Collection[str]) -> list[Cut]:
    """Cuts in one observable of classes that generators treat in the same way.

    An edge is searched in all entries together, and an entry of any class outside contradicts it. A
    class with many entries may have a different edge. A class with few entries has that of its
    relatives, if none of its entries is outside, and no edge if many entries of these show none.
    """
    own = {key: _edges(key, seen, angles) for key, seen in family.items()}
    pool, pooled = Seen(), own[next(iter(own))]
    if len(family) > 1:
        pool = Seen.joined(list(family.values()))
        pooled = _edges(next(iter(family)), pool, angles, strays=False)
    largest = max(family, key=lambda key: family[key].entries)
    together = tuple(", ".join(key[1]) for key in family)
    found = []
    for key, seen in family.items():
        bounds: list[tuple[Edge | None, Evidence | None]] = []
        for side in (0, 1):
            edge, common, relative = own[key][side], pooled[side], own[largest][side]
            owner, classes = seen, together
            few_of_many = seen.entries < HARDLY_ANY <= family[largest].entries
            if common is None and relative is None and few_of_many:
                edge = None
            elif common is not None and len(family) > 1 and not _differs(edge, common):
                edge, owner = common, pool
            elif edge is not None:
                classes = (", ".join(key[1]),)
            elif relative is not None and seen.entries < _fewest(key[0]):
                beyond = seen.ends[0] if side == 0 else -seen.ends[1]
                if beyond >= relative.at:
                    edge, owner, classes = relative, family[largest], (", ".join(largest[1]),)
            bounds.append((edge, _evidence(edge, owner, classes) if edge else None))
        (low, why_low), (high, why_high) = bounds
        if low is not None or high is not None:
            found.append(_cut(key, (low, high), (why_low, why_high)))
    return found


def _without_slice(cut: Cut) -> Cut:
    """A cut without its upper bound, if this is on what may end with the energy of the beams.

    Without both, if it is on whole collisions.
    """
    if of_whole(cut.observable, cut.classes):
        return replace(cut, low=-math.inf, high=math.inf, evidence=(None, None))
    without_end = cut.observable == "mass" and math.isinf(cut.low)
    if cut.observable in ("pt", "pt_hat", "pt_pair") or without_end:
        return replace(cut, high=math.inf, evidence=(cut.evidence[0], None))
    return cut


def _fewest(name: str) -> int:
    return MIN_ENTRIES if name in SINGLE else MIN_PAIRS


def _differs(edge: Edge | None, common: Edge) -> bool:
    """Whether the edge of a class differs from that of all its relatives."""
    return edge is not None and edge.at - common.at > _DIFFERENT * edge.spacing


def _edges(key: Key, seen: Seen, angles: Collection[str], strays: bool = True) -> Edges:
    """Edges of an observable that are not kinematic, from sufficiently many entries."""
    low = high = None
    if seen.entries < _fewest(key[0]):
        return low, high
    if key[0] == "energy" and not (seen.direct and not seen.alone):
        return low, high  # ends with what decays, or is the same in all events
    if of_whole(*key):
        return _edges_of_whole(key, seen)
    if key[0] == "pt_pair":
        return _evident_edges(seen)
    if key[0] in LEADING:
        return _edge_of_leading(seen), None

    def fixed(extremes: Smallest) -> bool:
        if key[0] in _WITHOUT_ANGLE:
            # the largest may be whole momenta, in the frame of the collision
            n = None if extremes is seen.high else _WITHOUT_ANGLE[key[0]]
            return is_fixed(extremes.rows[:n], seen.entries)
        if key[0] == "abs_eta":  # follows from these, each of which may make an edge
            return all(is_fixed(extremes.rows[[0, k]], seen.entries) for k in (1, 2))
        return is_fixed(extremes.rows, seen.entries, determined=key[0] in _DETERMINED)

    def is_angle(edge: Edge) -> bool:
        return key[0] in angles and seen.alone and _is_sharp(seen, edge)

    if key[0] != "abs_eta":
        natural = seen.threshold if key[0] == "mass" else 0.0
        low = lower_edge(seen.low.values, seen.entries, natural, strays)
        if low is not None and (
            low.at < _ABOVE_THRESHOLD * natural or seen.of_decays[0] < low.at
            or not (fixed(seen.low) or is_angle(low))
        ):  # fmt: skip
            low = None
    if key[0] in BOUNDED_ABOVE:
        high = lower_edge(seen.high.values, seen.entries, strays=strays)
        if high is not None and key[0] == "abs_eta" and not ends(seen.high.values, seen.entries):
            high = None
        if high is not None and (
            -seen.of_decays[1] < high.at
            or not (fixed(seen.high) or (key[0] != "pt" and is_angle(high)))
        ):
            high = None
        # products of a decay end with the mass of what decays
        if key[0] in ("pt", "pt_hat") or (key[0] == "mass" and low is None):
            high = high if high is not None and seen.direct and _is_sharp(seen, high) else None
    return low, high


def _edges_of_whole(key: Key, seen: Seen) -> Edges:
    """Edges of an observable of whole collisions, some of which make more than two particles."""
    natural = seen.threshold if key[1] == (ALL,) else 0.0
    low, high = _evident_edges(seen, natural)
    if low is not None and low.at < _ABOVE_THRESHOLD * natural:
        low = None
    return low, high


def _evident_edges(seen: Seen, natural: float = 0.0) -> Edges:
    """Sharp edges that other observables do not make, if collisions make more than two parts."""
    if seen.alone:
        return None, None
    low = lower_edge(seen.low.values, seen.entries, natural)
    high = lower_edge(seen.high.values, seen.entries)
    low, high = (
        edge if edge is not None and _is_sharp(seen, edge) and is_fixed(some.rows, seen.entries)
        else None
        for edge, some in ((low, seen.low), (high, seen.high))
    )  # fmt: skip
    return low, high


def _edge_of_leading(seen: Seen) -> Edge | None:
    """Lower edge of a transverse momentum by rank, above that of all particles of the class."""
    low = lower_edge(seen.low.values, seen.entries, seen.threshold)
    if low is None or seen.of_decays[0] < low.at or not _is_sharp(seen, low):
        return None
    return low if is_fixed(seen.low.rows, seen.entries) else None


def _is_sharp(seen: Seen, edge: Edge) -> bool:
    """Whether an edge has enough evidence where most distributions have a tail."""
    return seen.entries >= _MANY and edge.position <= _SHARP


def _cut(key: Key, edges: Edges, evidence: tuple[Evidence | None, Evidence | None]) -> Cut:
    low, high = edges
    return Cut(
        *key,
        low=-math.inf if low is None else low.at,
        high=math.inf if high is None else -high.at,
        evidence=evidence,
    )


def _evidence(edge: Edge, seen: Seen, classes: tuple[str, ...]) -> Evidence:
    return Evidence(seen.entries, edge.near, edge.width, edge.position, classes)
