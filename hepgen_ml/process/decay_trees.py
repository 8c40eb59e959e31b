"""Decays of an event record as trees, also through systems that the record does not name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hepgen_ml.process.structure import Structure

Choice = Callable[[int, Sequence[int]], tuple[int, int]]
"""Places of the two products, of a node's products, that form a system of their own."""

_Place = tuple[int, tuple[str, ...]]
"""A particle (0 for the collision), and the classes of its other products."""

_Decay = tuple[tuple[int, ...], int]
"""Ids of products, and of the resonance that decays to them."""

_NEW = 1_000_000
"""Ids of supersymmetric particles, excited fermions and others begin here."""


@dataclass(frozen=True)
class Tree:
    """Particles that are made in the collision, and their decays.

    Nodes are rows of the record, or negative numbers for systems that it does not name.

    Attributes
    ----------
    made : tuple of int
        Nodes that are made in the collision.
    children : dict of int to tuple of int
        Products of every node that decays.
    systems : dict of int to int
        Of the systems without a row: id of the resonance that other events have in their place, or
        0.
    """

    made: tuple[int, ...]
    children: dict[int, tuple[int, ...]]
    systems: dict[int, int] = field(default_factory=dict)

    def leaves(self, node: int) -> list[int]:
        """Rows of the final particles that a node ends in."""
        if node not in self.children:
            return [node]
        return [leaf for c in self.children[node] for leaf in self.leaves(c)]

    def pdg_id(self, structure: Structure, node: int) -> int:
        """Id of a node, 0 for a non-resonant system."""
        return self.systems[node] if node < 0 else structure.pdg_id[node]

    def ordered(self, structure: Structure, nodes: Iterable[int]) -> tuple[int, ...]:
        """Resonances first, particles before antiparticles."""
        return tuple(
            sorted(nodes, key=lambda n: (n not in self.children, self.pdg_id(structure, n) < 0))
        )

    def without_first(self) -> Tree:
        """The products of the only particle made in the collision in its place."""
        (node,) = self.made
        rest = {n: c for n, c in self.children.items() if n != node}
        systems = {n: i for n, i in self.systems.items() if n != node}
        return Tree(tuple(sorted(self.children[node])), rest, systems)


def decay_tree(structure: Structure) -> Tree | None:
    """Decays as the record has them.

    Copies of a particle (a resonance with a single product) and resonances without products are
    left out. None if a particle has two decaying mothers, because it belongs to neither.
    """
    found = _recorded(structure.status, structure.mother1, structure.mother2)
    if found is None:
        return None
    made, products = found
    children = dict(products)
    tree = Tree(made, children)
    children.update({n: tree.ordered(structure, c) for n, c in products})
    return tree


_MOST_REMEMBERED = 20_000
_Products = tuple[tuple[int, tuple[int, ...]], ...]


@lru_cache(_MOST_REMEMBERED)
def _recorded(
    status: tuple[int, ...], mother1: tuple[int, ...], mother2: tuple[int, ...]
) -> tuple[tuple[int, ...], _Products] | None:
    """What is made in the collision and the products of decays, which flavours do not change."""
    incoming = {row + 1 for row, s in enumerate(status) if s == -1}
    final = [row for row, s in enumerate(status) if s == 1]
    intermediate = [row for row, s in enumerate(status) if s not in (-1, 1)]
    products: dict[int, list[int]] = {}
    made = []
    for row in (*intermediate, *final):
        mothers = {mother1[row], mother2[row]} - {0}
        if not mothers or mothers & incoming:
            made.append(row)
        elif len(mothers) > 1:
            return None
        else:
            products.setdefault(mothers.pop() - 1, []).append(row)

    def reached(row: int) -> list[int]:
        """Particle that stands for a row: itself, its only product, or none."""
        if status[row] == 1:
            return [row]
        found = [n for r in products.get(row, ()) for n in reached(r)]
        if len(found) > 1:
            children[row] = tuple(found)
            return [row]
        return found

    children: dict[int, tuple[int, ...]] = {}
    tree = Tree(tuple(sorted(n for row in made for n in reached(row))), children)
    if sorted(leaf for n in tree.made for leaf in tree.leaves(n)) != final:
        return None
    return tree.made, tuple(children.items())


class Relatives:
    """The resonances in the events of a sample, and the particles that accompany them.

    Parameters
    ----------
    trees : iterable of (Structure, Tree)
        Of all events.
    """

    def __init__(self, trees: Iterable[tuple[Structure, Tree]]) -> None:
        # Ids of the products of a resonance and itself; all that it may descend from (0 is the
        # collision) with what descends from that beside it; and the resonances among that.
        self._known: dict[_Decay, dict[_Place, set[tuple[int, ...]]]] = {}
        self._processes: dict[_Decay, set[int]] = {}
        self._orders: dict[int, list[_Decay]] = {}
        self._possible: dict[tuple[int, frozenset[int], int], list[_Decay]] = {}
        for structure, tree in trees:
            self.add(structure, tree)

    def add(self, structure: Structure, tree: Tree) -> None:
        """Take in the decays of one more structure."""
        self._orders.clear()
        self._possible.clear()
        for node in tree.made:
            self._note(structure, tree, node, [(0, tree.made)])

    def _candidates(self, process: int, ids: frozenset[int], most: int) -> list[_Decay]:
        """Decays to at most so many of these ids, the largest first.

        Of equal products, those of resonances of a process come first: several may have the same
        products, such as Z and H -> b b~ in processes of one file.
        """
        if process not in self._orders:
            self._orders[process] = sorted(
                self._known, key=lambda d: (-len(d[0]), process not in self._processes[d])
            )
        key = process, ids, most
        if key not in self._possible:
            self._possible[key] = [
                d for d in self._orders[process] if len(d[0]) <= most and ids.issuperset(d[0])
            ]
        return self._possible[key]

    def _note(
        self,
        structure: Structure,
        tree: Tree,
        node: int,
        above: list[tuple[int, tuple[int, ...]]],
    ) -> None:
        if node not in tree.children:
            return
        ids = structure.pdg_id
        key = tuple(sorted(ids[c] for c in tree.children[node])), ids[node]
        places = self._known.setdefault(key, {})
        self._processes.setdefault(key, set()).add(structure.process_id)
        for mother, beside in above:
            others = [n for n in beside if n != node]
            place = mother, _classes(structure, tree, others)
            places.setdefault(place, set()).add(_resonances(structure, tree, others))
        for child in tree.children[node]:
            further = [
                (mother, (*(n for n in beside if n != node), *tree.children[node]))
                for mother, beside in above
            ]
            own = ids[node], tree.children[node]
            self._note(structure, tree, child, [*further, own])

    def completed_at_top(self, structure: Structure, tree: Tree) -> Tree:
        """Systems in the place of resonances that are made in the collision, see `completed`."""
        tree = Tree(tree.made, dict(tree.children), dict(tree.systems))
        return replace(tree, made=self._grouped(structure, tree, 0, tree.made))

    def completed(self, structure: Structure, tree: Tree) -> Tree:
        """Systems in the place of resonances that other events of the same particles have."""
        children, systems = dict(tree.children), dict(tree.systems)
        tree = Tree(tree.made, children, systems)
        made = self._grouped(structure, tree, 0, tree.made)
        queue = list(made)
        while queue:
            node = queue.pop()
            if node in children:
                own = tree.pdg_id(structure, node)
                found = self._grouped(structure, tree, own, children[node])
                children[node] = tree.ordered(structure, found)
                queue += found
        return Tree(made, children, systems)

    def _grouped(
        self, structure: Structure, tree: Tree, mother: int, nodes: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Products of a particle (the collision: 0), missing resonances put in."""
        most = len(nodes) - (mother != 0)
        identified = [(tree.pdg_id(structure, n), n) for n in nodes]
        if most < 2:
            return nodes
        ids = frozenset(i for i, _ in identified)
        for products, resonance in self._candidates(structure.process_id, ids, most):
            chosen = _find(products, identified)
            if chosen is None:
                continue
            rest = [n for n in nodes if n not in chosen]
            # The accompanying particles must exist: W -> f f' of t -> b f f' comes with a b quark.
            # What the record names among them is named in the other events as well.
            named = Counter(_resonances(structure, tree, rest))
            known = self._known[products, resonance].get(
                (mother, _classes(structure, tree, rest)), ()
            )
            if not any(named <= Counter(others) for others in known):
                continue
            system = -1 - len(tree.systems)
            tree.systems[system] = resonance
            tree.children[system] = tree.ordered(structure, chosen)
            return self._grouped(structure, tree, mother, (*rest, system))
        return nodes


def in_pairs(structure: Structure, tree: Tree, choose: Choice) -> Tree:
    """Every decay into more than two as a chain of decays into two.

    Parameters
    ----------
    structure : Structure
    tree : Tree
    choose : callable
        Returns the two products of a node that form a system.
    """
    children, systems = dict(tree.children), dict(tree.systems)
    result = Tree(tree.made, children, systems)
    for node in tree.children:
        products = list(children[node])
        while len(products) > 2:
            pair = [products[i] for i in choose(node, products)]
            system = -1 - len(systems)
            systems[system] = 0
            children[system] = result.ordered(structure, pair)
            products = [*(n for n in products if n not in pair), system]
        children[node] = result.ordered(structure, products)
    return result


def usual_pair(ids: Sequence[int], masses: Sequence[float]) -> tuple[int, int]:
    """Places of the two particles that most likely come from one vertex.

    Leptons of one generation, a quark and an antiquark, a particle and its antiparticle, in this
    order; then the lightest. Others recoil against them.

    Parameters
    ----------
    ids : sequence of int
        0 for a system.
    masses : sequence of float
        In GeV.
    """

    def rank(pair: tuple[int, int]) -> tuple[int, float, int]:
        a, b = (ids[i] for i in pair)
        first, second = sorted((abs(a), abs(b)))
        opposite = a * b < 0
        if opposite and first >= 11 and second <= 16 and (first + 1) // 2 == (second + 1) // 2:
            kind = 0
        elif opposite and second <= 6:
            kind = 1 if first == second else 2
        elif opposite and first == second:
            kind = 3
        else:
            kind = 4 + sum(abs(i) > _NEW or i == 0 for i in (a, b))
        return kind, masses[pair[0]] + masses[pair[1]], -sum(pair)

    n = len(ids)
    return min(((i, j) for i in range(n) for j in range(i + 1, n)), key=rank)


def lepton_pairs(structure: Structure, nodes: Iterable[int]) -> list[tuple[str, tuple[int, int]]]:
    """Unambiguous pairs of leptons to which one particle may have decayed.

    A charged lepton and its antiparticle (kind ``ll``) or a charged lepton and a neutrino of its
    generation (``lv``), if these are the only ones of the generation among the nodes.

    Parameters
    ----------
    structure : Structure
    nodes : iterable of int
        Rows of particles that do not decay.
    """
    found = []
    rows = [n for n in nodes if n >= 0]
    for charged in (11, 13, 15):
        own = [n for n in rows if abs(structure.pdg_id[n]) in (charged, charged + 1)]
        if len(own) != 2:
            continue
        first, second = (structure.pdg_id[n] for n in own)
        if first * second < 0 and charged in (abs(first), abs(second)):
            kind = "ll" if first == -second else "lv"
            found.append((kind, (own[0], own[1])))
    return found


def with_system(structure: Structure, tree: Tree, nodes: Sequence[int]) -> Tree:
    """Tree in which some of what the collision makes comes from a system without a row."""
    system = -1 - len(tree.systems)
    result = Tree(
        (*(n for n in tree.made if n not in nodes), system),
        dict(tree.children),
        {**tree.systems, system: 0},
    )
    result.children[system] = result.ordered(structure, nodes)
    return result


def _resonances(structure: Structure, tree: Tree, nodes: Iterable[int]) -> tuple[int, ...]:
    """Ids of all decaying particles among some nodes and their products."""
    found: list[int] = []
    queue = list(nodes)
    while queue:
        node = queue.pop()
        if node in tree.children:
            found.append(tree.pdg_id(structure, node))
            queue += tree.children[node]
    return tuple(sorted(found))


def _classes(structure: Structure, tree: Tree, nodes: Iterable[int]) -> tuple[str, ...]:
    """Names of the final particles of some nodes; light partons share a name."""
    ids = [structure.pdg_id[r] for n in nodes for r in tree.leaves(n)]
    return tuple(sorted("j" if abs(i) <= 5 or i == 21 else str(i) for i in ids))


def _find(wanted: Sequence[int], nodes: list[tuple[int, int]]) -> list[int] | None:
    """One node of each of these ids."""
    found: list[int] = []
    for pdg_id in wanted:
        node = next((n for i, n in nodes if i == pdg_id and n not in found), None)
        if node is None:
            return None
        found.append(node)
    return found
