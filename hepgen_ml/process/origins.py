"""Which particles collisions make and which decays make, in events of each structure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from hepgen_ml.phase_space.cuts import LIGHT, Acceptance
from hepgen_ml.phase_space.made import OF_COLLISION, OF_DECAYS, Made
from hepgen_ml.process.decay_trees import Relatives, Tree, decay_tree
from hepgen_ml.process.structure import Structure


class Origins:
    """Products of decays, also of resonances that a record does not name.

    Generators leave out the row of a resonance far off its mass shell. What it decays to is then
    told by the other events, see `Relatives`. Particles that are equal to one of its products may
    each be the product, and count as such.

    Attributes
    ----------
    apart : frozenset of str
        Flavour classes whose names tell the origin.
    """

    def __init__(self) -> None:
        self.apart: frozenset[str] = frozenset()
        self._relatives = Relatives(())
        self._products: dict[Structure, frozenset[int]] = {}
        self._completed: dict[Structure, Tree] = {}
        self._trees: dict[Structure, Tree] = {}

    def add(self, structures: Iterable[Structure]) -> None:
        """Take in structures, and decide on those that are new by all that are known."""
        trees: dict[Structure, Tree] = {}
        for structure in structures:
            if structure in self._products or structure in trees:
                continue
            tree = decay_tree(structure) if structure.incoming else None
            if tree is None:
                self._products[structure] = structure.products
            else:
                trees[structure] = self._trees[structure] = tree
                self._relatives.add(structure, tree)
        for structure, tree in trees.items():
            self._products[structure] = self._decided(structure, tree)

    def relatives(
        self, structures: Collection[Structure]
    ) -> tuple[dict[Structure, Tree], Relatives]:
        """Decays of structures as their records have them, and what is known of these alone."""
        trees = {s: self._trees[s] for s in structures if s in self._trees}
        if len(trees) == len(self._trees):
            return trees, self._relatives
        return trees, Relatives(trees.items())

    def products(self, structure: Structure) -> frozenset[int]:
        """Final particles, by their place in `Structure.final`, that decays make."""
        return self._products[structure]

    def labels(self, structure: Structure, classes: Iterable[str]) -> list[str]:
        """Flavour classes of the final particles, with their origins."""
        products = self._products[structure]
        return [c + OF_DECAYS if k in products else c for k, c in enumerate(classes)]

    def label(self, structure: Structure, row: int, flavour: str) -> str:
        """Class of a particle, with its origin if this class has other cuts then."""
        if flavour not in self.apart:
            return flavour
        is_product = structure.final.index(row) in self._products[structure]
        return flavour + (OF_DECAYS if is_product else OF_COLLISION)

    def made(
        self, structure: Structure, classes: Sequence[str], order: Sequence[int] | None = None
    ) -> tuple[Made, ...]:
        """What the collision makes, with resonances whose row is missing, see `Structure.made`.

        Where particles are equal to a product, one of them is taken for it.
        """
        tree = self._completed.get(structure)
        if tree is None:
            return structure.made(classes, order)
        place = {row: k for k, row in enumerate(structure.final if order is None else order)}
        found = []
        for node in tree.made:
            places = tuple(sorted(place[leaf] for leaf in tree.leaves(node)))
            own = abs(tree.pdg_id(structure, node))
            name = classes[places[0]] if len(places) == 1 else "" if own in LIGHT else str(own)
            found.append(Made(name, places))
        return tuple(found)

    def _decided(self, structure: Structure, tree: Tree) -> frozenset[int]:
        direct = [n for n in tree.made if n not in tree.children]
        if len(direct) > 0 and len(tree.made) > 1:
            tree = self._relatives.completed_at_top(structure, tree)
            if tree.systems:
                self._completed[structure] = tree
            ids = {structure.pdg_id[r] for r in _chosen(tree, tree.made)}
            direct = [
                n for n in tree.made if n not in tree.children and structure.pdg_id[n] not in ids
            ]
        return frozenset(k for k, row in enumerate(structure.final) if row not in direct)


def _chosen(tree: Tree, nodes: Iterable[int]) -> list[int]:
    """Final particles that were chosen, among equal ones, as products of systems without a row."""
    found: list[int] = []
    for node in nodes:
        if node < 0:
            found += [n for n in tree.children[node] if n >= 0 and n not in tree.children]
            found += _chosen(tree, tree.children[node])
    return found


def origins_for(acceptance: Acceptance, structures: Iterable[Structure]) -> Origins:
    """Origins by which cuts hold for what the collisions of these structures make.

    No structure is looked at if there is no cut on a particle that decays, or on a sum.
    """
    some, origins = sorted(structures), Origins()
    decaying = {str(abs(s.pdg_id[row])) for s in some for row in s.intermediate}
    sums = any(cut.observable == "ht" for cut in acceptance.cuts)
    if decaying and (sums or decaying & acceptance.classes):
        origins.add(some)
    return origins
