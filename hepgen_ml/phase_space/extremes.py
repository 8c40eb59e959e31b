"""The extreme values of observables in a stream of events, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    azimuth,
    invariant_mass,
    pseudorapidity,
    transverse_momentum,
    wrap,
)
from hepgen_ml.phase_space.edges import Values
from hepgen_ml.phase_space.group_extremes import add_leading, add_pair_momenta, rows_of
from hepgen_ml.phase_space.made import Made, momenta_made, pairs_to_cut
from hepgen_ml.phase_space.observables import (
    ALL,
    OF_PAIRS,
    SINGLE,
    Key,
    jets_among,
    of_single,
    pair_observable,
    sum_of_transverse,
)
from hepgen_ml.phase_space.smallest import Indices, Seen

_VALUES = 1_000_000
"""Values of pairs that are computed together; bounds the memory."""

_ROUNDED = 1e-6
"""Transverse momenta below this multiple of the energy are sums of rounded ones that balance."""


class FinalStates(NamedTuple):
    """Final states that are made of particles of the same classes.

    Attributes
    ----------
    p : (events, n, 4) tensor
    labels : sequence of n str
        Flavour classes.
    balanced : bool
        Whether transverse momenta add up to zero.
    decays : collection of (int, int)
        Pairs of decay products of a resonance.
    products : collection of int
        Particles that come from a resonance.
    made : sequence of Made
        What the collision makes; of no interest if none of these decays.
    """

    p: Tensor
    labels: Sequence[str]
    balanced: bool = True
    decays: Collection[tuple[int, int]] = ()
    products: Collection[int] = ()
    made: Sequence[Made] = ()


class Extremes:
    """The smallest and largest values of all observables that a cut may bound.

    Of two particles whose transverse momenta balance, Delta R is above pi without any cut. Masses
    of pairs that a resonance becomes have ranges of their own. On masses with jets no
    analysis cuts, and they have no threshold beside which a cut could be recognised.

    Attributes
    ----------
    seen : dict
        Extreme values by observable and classes.
    """

    def __init__(self) -> None:
        self.seen: dict[Key, Seen] = {}
        self._known: set[tuple[Any, ...]] = set()

    def add_all(self, states: Sequence[FinalStates]) -> None:
        """Take in final states of any classes, those of equal length together."""
        groups: dict[tuple[int, bool], list[FinalStates]] = {}
        for state in states:
            self._register(tuple(state.labels))
            if len(state.p):
                groups.setdefault((len(state.labels), state.balanced), []).append(state)
        for (n, balanced), some in groups.items():
            two = n == 2 and balanced
            of_pairs = ["pt_hat", "mass"] if two else ["delta_r", "mass"]
            for part in _bounded(some, max(1, _VALUES // max(math.comb(n, 2), 1))):
                self._add_together(part, of_pairs)
        for decays, some in _decaying(states):
            for part in _bounded(some, max(1, _VALUES // max(math.comb(len(decays), 2), 1))):
                self._add_made(part, decays)
        for places, some in _of_places(states).items():
            self._add_whole(some, places)

    def _register(self, labels: tuple[str, ...]) -> None:
        """Make places for all observables, in an order that depends on the sample alone."""
        if labels in self._known:
            return
        self._known.add(labels)
        keys: list[Key] = [(name, (label,)) for label in labels for name in of_single(label)]
        pairs = dict.fromkeys(tuple(sorted(pair)) for pair in combinations(labels, 2))
        for key in (*keys, *((name, pair) for pair in pairs for name in OF_PAIRS)):
            if key not in self.seen:
                self.seen[key] = Seen()

    def _add_together(self, states: Sequence[FinalStates], of_pairs: Sequence[str]) -> None:
        """Take in final states of one length."""
        p, names, codes, sizes = _coded(states)
        each = np.repeat(codes, sizes, axis=0)
        particles = p.reshape(-1, 4)
        # the momentum of whole collisions, of reconstructed events it is unknown
        whole = p.sum(1) if states[0].balanced else None
        two = whole is not None and p.shape[1] == 2

        def alone(flat: Indices) -> list[Tensor]:
            return [particles[flat], *([] if whole is None else [whole[flat // p.shape[1]]])]

        for name, values in (
            ("pt", transverse_momentum(p)),
            ("abs_eta", pseudorapidity(p).abs()),
            ("plus", p[..., 3] + p[..., 2]),
            ("minus", p[..., 3] - p[..., 2]),
            ("energy", p[..., 3]),
        ):
            chosen = np.array([name in of_single(label) for label in names])[each]
            for code, at in _by_code(each, chosen):
                seen = self.seen[name, (names[code],)]
                seen.take_in(name, values.numpy().ravel(), at, partial(_others, name, alone))
                seen.alone &= two
        add_leading(self.seen, p, np.array(names)[codes], sizes, two)
        for label in {state.labels[place] for state in states for place in state.products}:
            for name in {"pt", "energy"}.intersection(of_single(label)):
                self.seen[name, (label,)].direct = False
        columns = list(combinations(range(p.shape[1]), 2))
        marked = [_marked(frozenset(s.decays), frozenset(s.products), p.shape[1]) for s in states]
        masses = invariant_mass(p[np.cumsum(sizes) - sizes]).numpy()
        decays, products = map(np.array, zip(*marked, strict=True))
        add_pair_momenta(self.seen, p, names, codes, sizes, decays, states[0].balanced)
        self._add_pairs(p, names, codes, sizes, columns, of_pairs, masses, decays, products)

    def _add_made(self, states: Sequence[FinalStates], decays: Sequence[bool]) -> None:
        """Take in particles made in collisions of which these decay, as if they were final."""
        p, names, codes, sizes = _coded(states)
        for name in names:
            self.seen.setdefault(("pt", (name,)), Seen())
        each, two = np.repeat(codes, sizes, axis=0), len(decays) == 2
        particles, whole, columns = p.reshape(-1, 4), p.sum(1), pairs_to_cut(decays)

        def alone(flat: Indices) -> list[Tensor]:
            return [particles[flat], whole[flat // len(decays)]]

        pt = transverse_momentum(p)
        # one that is alone has none, and that of its products is rounded
        values = torch.where(pt > _ROUNDED * p[..., 3], pt, 0.0).numpy().ravel()
        for code, at in _by_code(each, np.broadcast_to(np.array(decays), each.shape)):
            seen = self.seen["pt", (names[code],)]
            seen.take_in("pt", values, at, partial(_others, "pt", alone))
            seen.alone &= two
        for pair in {tuple(sorted((row[i], row[j]))) for row in codes.tolist() for i, j in columns}:
            self.seen.setdefault(("mass", tuple(names[c] for c in pair)), Seen())
        none = np.zeros((len(p), len(columns)), dtype=bool)
        masses = invariant_mass(p).numpy()
        sizes = np.ones(len(p), dtype=int)
        self._add_pairs(p, names, each, sizes, columns, ("mass",), masses, none, none)

    def _add_whole(self, states: Sequence[FinalStates], places: Sequence[tuple[int, ...]]) -> None:
        """Take in the mass and sums of transverse momenta of whole collisions."""
        p = torch.cat([state.p for state in states])
        q = momenta_made(p, places)
        each = np.repeat(np.arange(len(states)), [len(state.p) for state in states])
        of_jets = torch.zeros(len(states), len(places), dtype=torch.bool)
        for k, state in enumerate(states):
            of_jets[k, jets_among(state.made)] = True
        pt, jet = transverse_momentum(q), of_jets[each]
        ht, all_ht = torch.where(jet, pt, 0.0).sum(1), sum_of_transverse(q)
        total = p.sum(1)
        mass, velocity = invariant_mass(total), (total[:, 2] / total[:, 3]).abs()
        any_ht = ht.clamp_min(1e-300)
        share = torch.where(jet, pt, 0.0).amax(1) / any_ht
        least = torch.where(jet, pt, math.inf).amin(1) / any_ht
        contents = {
            tuple(tuple(sorted(made[i].label for i in some))
                  for some in (range(len(places)), jets_among(made)))
            for made in {tuple(state.made) for state in states}
        }  # fmt: skip
        few, few_jets = len(places) <= 2, int(of_jets.sum(1).max()) <= 1
        for key, values, others, alone in (
            (("mass", (ALL,)), mass, [all_ht, ht, velocity], few),
            (("ht", (ALL,)), all_ht, [mass, ht, velocity], few),
            (("ht", ("j",)), ht, [all_ht, share, least], few or few_jets),
        ):
            seen = self.seen.setdefault(key, Seen())
            table = [other.numpy() for other in others]
            seen.take_in(key[0], values.numpy(), np.arange(len(p)), partial(rows_of, table))
            seen.alone &= alone
            if key[1] == (ALL,):
                seen.threshold = min(seen.threshold, float(invariant_mass(q).sum(1).min()))
            seen.contents |= {labels[key[1] == ("j",)] for labels in contents}

    def _add_pairs(
        self,
        p: Tensor,
        names: Sequence[str],
        codes: Indices,
        sizes: Indices,
        columns: Sequence[tuple[int, int]],
        of_pairs: Sequence[str],
        masses: Values,
        decays: npt.NDArray[np.bool_],
        products: npt.NDArray[np.bool_],
    ) -> None:
        """Take in observables of pairs of the particles (events, n, 4).

        `codes` and `masses` (k, n) are those of k groups of events of these sizes, and `decays`
        says which pairs of theirs a resonance becomes, `products` in which is a product of one.
        """
        if not columns:
            return
        pairs = np.array(columns)
        ends = np.sort(codes[:, pairs], axis=2)
        code_of = ends[..., 0] * len(names) + ends[..., 1]
        of_one, each = np.repeat(decays, sizes, axis=0), np.repeat(code_of, sizes, axis=0)

        def classes(code: int) -> tuple[str, str]:
            return names[code // len(names)], names[code % len(names)]

        def momenta(flat: Indices) -> list[Tensor]:
            event, column = np.divmod(flat, len(pairs))
            return [p[event, pairs[column, k]] for k in (0, 1)]

        for name in of_pairs:
            flat = pair_observable(name, p, columns).numpy().ravel()
            own = ~of_one if name == "mass" else np.ones_like(of_one)
            for code, at in _by_code(each, own):
                if name != "mass" or "Jet" not in classes(code):
                    seen = self.seen[name, classes(code)]
                    seen.take_in(name, flat, at, partial(_others, name, momenta))
                    seen.alone &= p.shape[1] == 2
            for code, at in _by_code(each, ~own):
                self.seen[name, classes(code)].note_decays(flat[at].min(), flat[at].max())
        sums = masses[:, pairs].sum(2).ravel()
        for code, at in _by_code(code_of, np.ones_like(code_of, dtype=bool)):
            seen = self.seen["mass", classes(code)]
            seen.threshold = min(seen.threshold, float(sums[at].min()))
            seen.direct &= not products.ravel()[at].any()


def _coded(states: Sequence[FinalStates]) -> tuple[Tensor, list[str], Indices, Indices]:
    """Momenta of all, names of classes, places (k, n) of those among these, and numbers (k,)."""
    names = sorted({label for state in states for label in state.labels})
    code = {name: i for i, name in enumerate(names)}
    codes = np.array([[code[label] for label in state.labels] for state in states])
    sizes = np.array([len(state.p) for state in states])
    return torch.cat([state.p for state in states]), names, codes, sizes


@lru_cache(10_000)
def _marked(decays: frozenset[Any], products: frozenset[int], n: int) -> tuple[Any, Any]:
    """Which pairs of n particles a resonance becomes, and which have a product of one."""
    pairs = list(combinations(range(n), 2))
    return [pair in decays for pair in pairs], [not products.isdisjoint(pair) for pair in pairs]


def _of_places(
    states: Sequence[FinalStates],
) -> dict[tuple[tuple[int, ...], ...], list[FinalStates]]:
    """Final states of known collisions by the places of what these make."""
    alike: dict[tuple[tuple[int, ...], ...], list[FinalStates]] = {}
    for state in states:
        if state.balanced and len(state.p) and state.made:
            places = tuple(one.places for one in state.made)
            alike.setdefault(places, []).append(state)
    return alike


def _decaying(states: Sequence[FinalStates]) -> Iterator[tuple[list[bool], list[FinalStates]]]:
    """Particles made in collisions, some of which decay, in place of the final states.

    Those with the same decays together, each time with what decays.
    """
    for places, some in _of_places(states).items():
        decays = [len(place) > 1 for place in places]
        if any(decays):
            q = momenta_made(torch.cat([s.p for s in some]), places)
            parts = q.split([len(s.p) for s in some])
            yield decays, [
                FinalStates(part, [one.label for one in s.made])
                for part, s in zip(parts, some, strict=True)
            ]


def _others(
    name: str, momenta: Callable[[Indices], list[Tensor]], at: Indices
) -> list[Values]:
    """Observables at these places with which the edge of a cut does not move.

    Not those that are part of the observable by its definition, unless they make an edge.
    """
    p = momenta(at)
    pt = [transverse_momentum(q) for q in p]
    if name in SINGLE:
        one = p[0]
        found = {
            "pt": [pseudorapidity(one).abs(), *(_sine(one, q) for q in p[1:])],
            # that of the beam is the largest energy; the last may have a cut, see `implied`
            "abs_eta": [pt[0], one[:, 3], one[:, 3] - one[:, 2].abs()],
            "plus": [pt[0], one[:, 3] - one[:, 2]],
            "minus": [pt[0], one[:, 3] + one[:, 2]],
            "energy": [pseudorapidity(one).abs()],
        }[name]
    elif name == "pt_hat":
        eta = [pseudorapidity(q) for q in p]
        found = [(eta[0] - eta[1]).abs(), (eta[0] + eta[1]).abs(), _sine(p[0], p[0] + p[1])]
    else:
        found = [torch.minimum(pt[0], pt[1]), torch.maximum(pt[0], pt[1])]
        found.append(transverse_momentum(p[0] + p[1]))
        if name == "mass":
            found.append((pseudorapidity(p[0]) - pseudorapidity(p[1])).abs())
            found.append(wrap(azimuth(p[0]) - azimuth(p[1])).abs())
    return [values.numpy() for values in found]


def _sine(p: Tensor, whole: Tensor) -> Tensor:
    """Sine of the polar angles of particles in the rest frame of the collisions."""
    mass = invariant_mass(whole)
    energy = (p[:, 3] * whole[:, 3] - (p[:, :3] * whole[:, :3]).sum(-1)) / mass
    size2 = energy**2 - invariant_mass(p) ** 2
    return transverse_momentum(p) / torch.sqrt(size2.clamp_min(1e-300))


def _by_code(code: Indices, chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Indices]]:
    """Flat places of each code among those that are chosen."""
    at = np.flatnonzero(chosen)
    some = code.ravel()[at]
    order = np.argsort(some, kind="stable")
    found, starts = np.unique(some[order], return_index=True)
    yield from zip(found.tolist(), np.split(at[order], starts[1:]), strict=True) if len(at) else ()


def _bounded(states: Sequence[FinalStates], most: int) -> Iterator[list[FinalStates]]:
    """Final states in groups of at most so many events, none split that is smaller."""
    group: list[FinalStates] = []
    n = 0
    for state in states:
        whole = len(state.p) <= most
        for part in [state] if whole else [state._replace(p=p) for p in state.p.split(most)]:
            if n + len(part.p) > most and group:
                yield group
                group, n = [], 0
            group.append(part)
            n += len(part.p)
    if group:
        yield group
