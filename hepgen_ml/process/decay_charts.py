"""Charts of events with resonances, in their record or in that of similar events."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space import (
    Acceptance,
    BalancedChart,
    Beside,
    Chart,
    Cut,
    DecayChart,
    MassSpec,
    Node,
    Peak,
)
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.phase_space.masses import MovingMass, MovingPeak, above, largest, smallest
from hepgen_ml.phase_space.spectrum import Peaks
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.decay_kinds import Decay, kind_of, kind_of_decay, kind_of_product
from hepgen_ml.process.decay_trees import (
    Tree,
    in_pairs,
    usual_pair,
)
from hepgen_ml.process.kept_masses import Place
from hepgen_ml.process.masses import FinalMasses
from hepgen_ml.process.origins import Origins
from hepgen_ml.process.peaks import BROAD, find_peak
from hepgen_ml.process.recoil import recoiling
from hepgen_ml.process.resonance_masses import ResonanceMasses
from hepgen_ml.process.seen import Seen, fixed_or_interval, name_of, unique_labels
from hepgen_ml.process.structure import Structure
from hepgen_ml.process.unnamed import System, bounded_systems, name_systems

Layout = tuple[Chart, tuple[str, ...], tuple[int, ...]]
"""A chart, the classes and the rows of its particles."""

Production = Callable[[Structure, Sequence[float], bool], dict[str, Any] | None]
"""Function that returns the kind and the arguments of the chart of the production from the smallest
transverse momenta; None if a single particle has no chart. The last argument is whether the mass of
this particle varies."""

_MASSES = 5000
"""Largest number of masses from which the peak of an unnamed system is found."""

_MOST_PRODUCTS = 5
"""Largest number of products of decays whose pairs are searched for peaks."""

_Pair = tuple[tuple[str, str] | None, tuple[float, float] | None]
"""Kinds of two particles, and the peak of their mass."""


class DecayCharts:
    """Charts with resonances for all structures of a sample.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    acceptance : Acceptance
    cuts : CutFinder
    stated : sequence of Cut
    origins : Origins
        Of final particles, where cuts depend on these.
    conditions : Conditions, optional
        Which masses may follow.
    """

    def __init__(
        self,
        seen: Mapping[Structure, Seen],
        acceptance: Acceptance,
        cuts: CutFinder,
        stated: Sequence[Cut],
        origins: Origins,
        conditions: Conditions | None = None,
    ) -> None:
        self.seen, self.acceptance, self._conditions = seen, acceptance, conditions
        self._cuts, self._stated, self._origins = cuts, stated, origins
        self.final_masses = FinalMasses(seen, conditions)
        trees, relatives = origins.relatives(seen)
        self._trees = {s: relatives.completed(s, tree) for s, tree in trees.items()}
        self._masses = ResonanceMasses(seen, self._trees, conditions)
        self._unnamed_masses: dict[System, MassSpec] = {
            **name_systems(self._trees, self._masses),
            **bounded_systems(self._trees, self._masses, acceptance, self._class_of),
        }
        self._pairs: dict[Decay, _Pair] = {}
        self._kinds: dict[tuple[int, ...], Decay] = {}
        self._chosen: dict[tuple[Structure, frozenset[int]], tuple[float, float]] = {}
        self._decays: dict[Decay, list[tuple[Structure, int]]] = {}
        for structure, tree in self._trees.items():
            for node, products in tree.children.items():
                if 2 < len(products) <= _MOST_PRODUCTS:
                    key = kind_of_decay(structure, tree, node, products)
                    self._decays.setdefault(key, []).append((structure, node))
        self._repeated = self._names_that_repeat()
        # Very many structures may differ by flavours that no chart knows.
        self._charts: dict[Any, DecayChart] = {}

    def layout(self, structure: Structure, production: Production) -> Layout | None:
        """Chart, classes and rows; None for events without decays."""
        tree = self._trees.get(structure)
        if tree is None or not tree.children:
            return None
        flavours = {r: self._flavour(structure, r) for r in structure.final}
        classes = {r: self._origins.label(structure, r, c) for r, c in flavours.items()}
        while len(tree.made) == 1:
            spec = self._named(structure, tree, tree.made[0])
            if production(structure, [0.0], isinstance(spec, tuple)) is not None:
                break
            tree = tree.without_first()
        if not tree.children:
            return None
        tree = in_pairs(structure, tree, partial(self._pair, structure, tree))
        specs = self._specs(structure, tree)
        pt_min = structure.smallest_momenta(self.acceptance, classes)
        pt_min |= {n: self._pt_min(structure, tree, n, classes) for n in tree.made
                   if n in tree.children}  # fmt: skip
        last = max(tree.made, key=lambda n: (pt_min[n] == 0.0, largest(specs[n]), n))
        order = sorted(
            (n for n in tree.made if n != last), key=lambda n: (-pt_min[n], largest(specs[n]), n)
        )
        order.append(last)
        queue = list(order)
        for node in queue:
            queue += tree.children.get(node, ())
        labels = self._labels(structure, tree, order, queue, flavours)
        number = {node: i for i, node in enumerate(queue)}
        nodes = tuple(
            (labels[n], specs[n], tuple(number[c] for c in tree.children.get(n, ())))
            for n in queue
        )
        varies = isinstance(specs[order[0]], tuple)
        arguments = production(structure, [pt_min[n] for n in order], varies)
        assert arguments is not None
        close = self.acceptance.distances([classes.get(n, "") for n in order])[:-1]
        if arguments["kind"] == BalancedChart.kind:
            masses = [specs[n] for n in order]
            arguments |= recoiling(masses, [pt_min[n] for n in order], close)
        key = nodes, len(order), repr(arguments)
        if key not in self._charts:
            particles = [Node(*node) for node in nodes]
            self._charts[key] = DecayChart(particles, len(order), arguments, planes=True)
        chart = self._charts[key]
        rows = tuple(queue[i] for i in chart.leaves)
        return chart, tuple(classes[r] for r in rows), rows

    def _flavour(self, structure: Structure, row: int) -> str:
        mass = largest(fixed_or_interval(self.seen[structure], row))
        return flavour_class(structure.pdg_id[row], mass)

    def _class_of(self, structure: Structure, row: int) -> str:
        """Flavour class of a final particle, with its origin where cuts depend on it."""
        return self._origins.label(structure, row, self._flavour(structure, row))

    def _pt_min(
        self, structure: Structure, tree: Tree, node: int, classes: Mapping[int, str]
    ) -> float:
        """Smallest transverse momentum of a resonance, or of the pair that it becomes."""
        own = self.acceptance.pt_min(str(abs(tree.pdg_id(structure, node))))
        leaves = tree.leaves(node)
        if len(leaves) != 2:
            return own
        return max(own, self.acceptance.low("pt_pair", *(classes[r] for r in leaves)))

    def _labels(
        self,
        structure: Structure,
        tree: Tree,
        order: Sequence[int],
        queue: Sequence[int],
        classes: Mapping[int, str],
    ) -> dict[int, str]:
        """Names of all nodes; common parts of different flavours and decays share a name."""
        names = [
            name_of(tree.pdg_id(structure, n), classes.get(n, "")) if n not in tree.systems
            or tree.systems[n] else _name_of_system(structure, tree.leaves(n))
            for n in order
        ]  # fmt: skip
        labels = dict(zip(order, unique_labels(names), strict=True))
        inner: dict[str, int] = {}
        for node in queue:
            for k, child in enumerate(tree.children.get(node, ())):
                own = tree.pdg_id(structure, child)
                if child not in tree.children or own == 0:
                    # Products are named after their mothers, so that flavours share parameters.
                    labels[child] = f"{labels[node]}>{k + 1}"
                    continue
                name = f"{labels[node]}>{own}" if own in self._repeated else str(own)
                inner[name] = inner.get(name, 0) + 1
                labels[child] = name if inner[name] == 1 else f"{name}:{inner[name]}"
        return labels

    def _names_that_repeat(self) -> set[int]:
        """Ids of resonances that some event has twice, which need their mothers' names."""
        found: set[int] = set()
        for structure, tree in self._trees.items():
            ids = [tree.pdg_id(structure, n) for n in tree.children]
            found.update(i for i in ids if ids.count(i) > 1)
            # a decay product with the name of a particle produced in the collision
            made = {tree.pdg_id(structure, n) for n in tree.made}
            found.update(
                i for n in tree.children if n not in tree.made
                and (i := tree.pdg_id(structure, n)) in made
            )  # fmt: skip
        return found

    def _specs(self, structure: Structure, tree: Tree) -> dict[int, MassSpec]:
        """Masses of all nodes."""
        seen = self.seen[structure]
        specs: dict[int, MassSpec] = {r: fixed_or_interval(seen, r) for r in structure.final}
        if self._conditions is not None:
            moving = {r: self.final_masses.of(structure, r) for r in structure.final}
            specs |= {r: m for r, m in moving.items() if isinstance(m, MovingMass)}

        def add(node: int, room: float) -> None:
            if node not in tree.children:
                return
            if tree.pdg_id(structure, node):
                specs[node] = self._named(structure, tree, node)
            else:
                specs[node] = self._unnamed(structure, tree, node, room)
            for child in tree.children[node]:
                add(child, min(largest(specs[node]), room))

        for node in tree.made:
            add(node, math.inf)
            if node in tree.children:
                specs[node] = above(specs[node], _least(tree, specs, node))
        return specs

    def _named(self, structure: Structure, tree: Tree, node: int) -> MassSpec:
        """Mass of a resonance, or of the system in its place."""
        if node not in tree.children:
            return fixed_or_interval(self.seen[structure], node)
        flavour = abs(tree.pdg_id(structure, node))
        if flavour == 0:
            return self._unnamed(structure, tree, node, math.inf)
        if node >= 0:
            return self._masses.of(flavour, structure.process_id)
        without = self._masses.without_row(flavour, structure, tree.leaves(node))
        return self._within_cuts(structure, tree, node, without)

    def _within_cuts(
        self, structure: Structure, tree: Tree, node: int, spec: MassSpec
    ) -> MassSpec:
        """Range of the mass of a system without a row, which cuts on pairs may begin and end.

        A smallest energy of a photon beside two muons, for example, is a largest mass of these.
        """
        leaves = tree.leaves(node)
        if isinstance(spec, MovingPeak):
            return spec
        if node in tree.made and len(leaves) == 2 and isinstance(spec, tuple):
            ids, seen = structure.pdg_id, self.seen[structure]
            a, b = (flavour_class(ids[r], largest(fixed_or_interval(seen, r))) for r in leaves)
            low, high = self._cuts.range("mass", (a, b), self._stated)
            if not isinstance(spec, Beside):
                first = low if spec[0] < low < spec[1] and spec[0] < high else spec[0]
                last = high if first < high < spec[1] else spec[1]
                if isinstance(spec, Peak | Peaks):
                    spec = spec._replace(low=first, high=last)
                else:
                    spec = (first, last)
            elif low < spec.first:
                spec = spec._replace(low=max(low, spec.low))
        return spec

    def _pair(
        self, structure: Structure, tree: Tree, node: int, products: Sequence[int]
    ) -> tuple[int, int]:
        """The two products of a decay that form a system: those with a peak, or the default."""
        wanted, peak = self._peak_of(structure, tree, node, products)
        if wanted is not None and peak is not None:
            kinds = [kind_of_product(structure, tree, n, node) for n in products]
            first = kinds.index(wanted[0])
            second = next(i for i, k in enumerate(kinds) if k == wanted[1] and i != first)
            leaves = tree.leaves(products[first]) + tree.leaves(products[second])
            self._chosen[structure, frozenset(leaves)] = peak
            return first, second
        seen = self.seen[structure]
        masses = [
            sum(largest(fixed_or_interval(seen, r)) for r in tree.leaves(n)) if n >= 0 else 0.0
            for n in products
        ]
        return usual_pair([tree.pdg_id(structure, n) if n >= 0 else 0 for n in products], masses)

    def _peak_of(
        self, structure: Structure, tree: Tree, node: int, products: Sequence[int]
    ) -> _Pair:
        """Kinds of two products whose mass has a peak, and the peak; None without a peak."""
        # systems that are chosen on the way are not those of the record, nor have they a resonance
        if len(products) > _MOST_PRODUCTS or any(
            n < 0 and not tree.systems.get(n) for n in products
        ):
            return None, None
        ids = tuple(tree.pdg_id(structure, n) for n in (node, *products))
        if ids not in self._kinds:
            self._kinds[ids] = kind_of_decay(structure, tree, node, products)
        key = self._kinds[ids]
        if key not in self._pairs:
            places: dict[tuple[str, str], list[Place]] = {}
            whole: list[Place] = []
            for other, n in self._decays.get(key, ()):
                its = self._trees[other]
                children = its.children[n]
                found = [kind_of_product(other, its, c, n) for c in children]
                whole.append((other, its.leaves(n)))
                for i, j in combinations(range(len(children)), 2):
                    rows = its.leaves(children[i]) + its.leaves(children[j])
                    a, b = sorted((found[i], found[j]))
                    places.setdefault((a, b), []).append((other, rows))
            masses = {
                kinds: self._masses.kept.of_all(some) for kinds, some in places.items()
            }
            ends = np.cumsum([len(self.seen[other].kept["final"]) for other, _ in whole])
            of_whole = self._masses.kept.of_all(whole)
            self._pairs[key] = _narrowest(masses, _largest_median(of_whole, ends))
        return self._pairs[key]

    def _unnamed(self, structure: Structure, tree: Tree, node: int, room: float) -> MassSpec:
        """Mass of a non-resonant system, which may not exceed that of its mother."""
        spec = self._unnamed_masses.get((structure, frozenset(tree.leaves(node))))
        if spec is not None:
            return self._within_cuts(structure, tree, node, spec)
        high = room
        if not math.isfinite(room):
            high = 2 * float(self._masses.kept.of(structure, tree.leaves(node)).max())
        peak = self._chosen.get((structure, frozenset(tree.leaves(node))))
        return Peak(0.0, high, *peak) if peak else (0.0, high)


def _least(tree: Tree, specs: Mapping[int, MassSpec], node: int) -> float:
    """Sum of the smallest masses in GeV of the products of a decay."""
    products = tree.children[node]
    return sum(
        max(smallest(specs[n]), _least(tree, specs, n) if n in tree.children else 0.0)
        for n in products
    )


def _name_of_system(structure: Structure, rows: Sequence[int]) -> str:
    """Kinds of the final particles of a system, such as ll or 5,5."""
    kinds = [kind_of(structure.pdg_id[r]) for r in rows]
    return ("" if all(map(str.isalpha, kinds)) else ",").join(kinds)


def _largest_median(masses: npt.NDArray[np.float64], ends: npt.NDArray[np.int64]) -> float:
    """Largest of the medians of several groups of masses (m,) that end there, 0 without any."""
    if not len(masses):
        return 0.0
    parts = np.split(masses, ends[:-1])
    return max(float(part[0] if len(part) == 1 else np.median(part)) for part in parts)


def _narrowest(
    masses: Mapping[tuple[str, str], npt.NDArray[np.float64]], most: float
) -> _Pair:
    """The pair of products whose mass has the narrowest peak, if there is one."""
    best: _Pair = None, None
    for kinds, values in masses.items():
        peak = find_peak(values[:: max(1, len(values) // _MASSES)])
        # An accumulation at the kinematic limit is not a resonance.
        if peak is None or peak[1] > BROAD * peak[0] or peak[0] + 3 * peak[1] > most:
            continue
        if best[1] is None or peak[1] / peak[0] < best[1][1] / best[1][0]:
            best = kinds, peak
    return best
