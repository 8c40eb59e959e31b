"""Kinds of particles and decays: the same for those that differ by generations or signs only."""

from __future__ import annotations

from collections.abc import Sequence

from hepgen_ml.process.decay_trees import Tree
from hepgen_ml.process.structure import Structure

_KINDS = {11: "l", 13: "l", 15: "l", 12: "v", 14: "v", 16: "v", 1: "d", 3: "d", 2: "u", 4: "u"}
"""Particles that differ by their generation only."""

Decay = tuple[int, tuple[str, ...]]
"""Id of a particle without sign, and the kinds of its products."""


def kind_of_product(structure: Structure, tree: Tree, node: int, mother: int) -> str:
    """Class of a product, the same for all generations, and whether its sign is its mother's."""
    own, of_mother = tree.pdg_id(structure, node), tree.pdg_id(structure, mother)
    return kind_of(own) + ("-" if own * of_mother < 0 else "+")


def kind_of(pdg_id: int) -> str:
    """Class of a particle, the same for all generations."""
    return _KINDS.get(abs(pdg_id), str(abs(pdg_id)))


def kind_of_decay(structure: Structure, tree: Tree, node: int, products: Sequence[int]) -> Decay:
    """Class of a decay: those that differ by generations or signs only have the same."""
    kinds = sorted(kind_of_product(structure, tree, n, node) for n in products)
    return abs(tree.pdg_id(structure, node)), tuple(kinds)
