"""Resonances that the record of no event names: their masses show them.

Some generators write final particles only, as Sherpa and Whizard do. Pairs of leptons, of quarks,
of gluons and of photons have a peak if they come from one particle; so have a bottom quark and a W
boson, and all particles of a collision together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space import Acceptance, Cut, Peak
from hepgen_ml.phase_space.masses import MovingPeak
from hepgen_ml.phase_space.observables import ALL
from hepgen_ml.phase_space.spectrum import Peaks
from hepgen_ml.process.decay_trees import Tree, lepton_pairs, with_system
from hepgen_ml.process.peaks import BROAD, find_peak
from hepgen_ml.process.resonance_masses import ResonanceMasses
from hepgen_ml.process.spikes import with_spikes
from hepgen_ml.process.structure import Structure

Spec = Peak | Peaks | MovingPeak | float
"""Mass of a system in GeV: with one peak or several, or fixed."""

System = tuple[Structure, frozenset[int]]
"""A structure, and the rows of the final particles of a system."""

_MASSES, _FEWEST = 5000, 50
"""Largest and smallest number of masses from which a peak is found."""

_NARROW, _TWO_SIDED = 0.05, 0.02
"""Ratio of width and position up to which systems other than of leptons have a peak, and number of
masses on each side of it relative to those in it: an edge has some on one side only."""

_AS_MANY = 0.5
"""Number of masses below a broad peak relative to those above: a steep spectrum that cuts on
transverse momenta begin has a third, a resonance more below, where parton densities are larger."""

_LEPTONS, _PARTONS = ("ll", "lv"), ("ud", "qq", "bb", "gg", "aa")
"""Kinds of pairs whose mass may have several peaks."""

_FIXED = 1e-4
"""Relative range of masses that are the same in all events."""

_MOST_KINDS = 12
"""Largest number of kinds of whole collisions, the most frequent first."""

_CHARGES = {1: -1, 2: 2, 3: -1, 4: 2, 5: -1, 11: -3, 13: -3, 15: -3}
"""Three times the charge of quarks and charged leptons."""

_Found = Iterator[tuple[str, tuple[int, ...]]]
"""Kinds of systems, and their nodes."""


def name_systems(
    trees: dict[Structure, Tree], masses: ResonanceMasses
) -> dict[System, Spec]:
    """Masses of systems in the place of resonances, which become nodes of the trees.

    Parameters
    ----------
    trees : dict of Structure to Tree
        Changed where such systems are found.
    masses : ResonanceMasses
    """
    found: dict[System, Spec] = {}
    for candidates in (_pairs, _top_quarks, _wholes):
        kinds: dict[str, list[tuple[Structure, tuple[int, ...]]]] = {}
        for structure, tree in trees.items():
            for kind, nodes in candidates(structure, tree):
                kinds.setdefault(kind, []).append((structure, nodes))
        for kind in sorted(kinds, key=lambda k: -len(kinds[k]))[:_MOST_KINDS]:
            places = kinds[kind]
            rows = [(s, [r for n in nodes for r in trees[s].leaves(n)]) for s, nodes in places]
            spec = _spec(kind, rows, masses)
            if spec is None:
                continue
            for (structure, nodes), (_, leaves) in zip(places, rows, strict=True):
                trees[structure] = with_system(structure, trees[structure], nodes)
                found[structure, frozenset(leaves)] = spec
    return found


def bounded_systems(
    trees: dict[Structure, Tree],
    masses: ResonanceMasses,
    acceptance: Acceptance,
    class_of: Callable[[Structure, int], str],
) -> dict[System, tuple[float, float]]:
    """Masses in GeV, of pairs and of whole collisions, that cuts bound; they become nodes of trees.

    A density smears an edge that no coordinate ends at. Particles that have cuts of their own stay
    as they are, with charts that begin at these.

    Parameters
    ----------
    trees : dict of Structure to Tree
        Changed where such systems are found.
    masses : ResonanceMasses
    acceptance : Acceptance
    class_of : callable
        Flavour class of a final particle of a structure, by its row.
    """
    cuts = [c for c in acceptance.cuts if c.observable == "mass"]
    found: dict[System, tuple[float, float]] = {}
    for structure, tree in trees.items() if cuts else ():
        labels = {
            n: str(abs(tree.pdg_id(structure, n))) if n in tree.children else class_of(structure, n)
            for n in tree.made
        }
        for cut in cuts:
            nodes = _bounded_by(cut, tree, labels)
            own = {labels[n] for n in nodes}
            if not nodes or any(own & {*c.classes} for c in acceptance.cuts if c != cut):
                continue
            leaves = [r for n in nodes for r in tree.leaves(n)]
            high = cut.high
            if math.isinf(high):
                high = 2 * float(masses.kept.of(structure, leaves).max())
            trees[structure] = with_system(structure, tree, nodes)
            found[structure, frozenset(leaves)] = max(cut.low, 0.0), high
            break
    return found


def _bounded_by(cut: Cut, tree: Tree, labels: Mapping[int, str]) -> tuple[int, ...]:
    """Particles of a collision, by their classes, with a mass within a cut, if unambiguous."""
    nodes = tuple(n for n in tree.made if cut.classes == (ALL,) or labels[n] in cut.classes)
    if cut.classes != (ALL,) and sorted(labels[n] for n in nodes) != sorted(cut.classes):
        return ()
    # charts of two final particles know smallest masses
    known = math.isinf(cut.high) and not any(n in tree.children for n in nodes)
    return () if len(nodes) < 2 or known else nodes


def _spec(
    kind: str, rows: list[tuple[Structure, list[int]]], masses: ResonanceMasses
) -> Spec | None:
    """Mass of all systems of a kind, None without a peak."""
    mass = masses.kept.of_all(rows)
    moving = masses.follow(mass, [structure for structure, _ in rows])
    if isinstance(moving, MovingPeak):
        return moving
    top = 2 * float(mass.max(initial=0.0))
    every, mass = mass, mass[:: max(1, len(mass) // _MASSES)]
    if len(mass) < _FEWEST:
        return None
    middle = float(np.median(mass))
    if float(np.ptp(mass)) <= _FIXED * middle:
        return float(f"{middle:.10g}")
    peak = find_peak(mass)
    one: tuple[float, float] | Peak = (0.0, top)
    if peak is not None:
        known = is_of_leptons(mass, *peak) if kind in _LEPTONS else is_narrow(mass, *peak)
        one = Peak(0.0, top, *peak) if known else one
    spec = with_spikes(one, every) if kind in (*_LEPTONS, *_PARTONS) else one
    return spec if isinstance(spec, Peak | Peaks) else None


def is_narrow(mass: npt.NDArray[np.float64], position: float, width: float) -> bool:
    """Whether a peak is that of a particle, with masses on both sides: no edge."""
    if width > _NARROW * position:
        return False
    below, core, above = _around(mass, position, width)
    return min(below, above) >= _TWO_SIDED * core


def is_of_leptons(mass: npt.NDArray[np.float64], position: float, width: float) -> bool:
    """Whether a peak of two leptons is that of a particle, which may be broad."""
    if width <= _NARROW * position:
        return True
    below, _, above = _around(mass, position, width)
    return width <= BROAD * position and below >= _AS_MANY * above


def _around(
    mass: npt.NDArray[np.float64], position: float, width: float
) -> tuple[int, int, int]:
    """Numbers of masses below, in and above a peak."""
    edges = position + width * np.array([-2.5, -0.75, -0.5, 0.5, 0.75, 2.5])
    below, _, core, _, above = np.histogram(mass, edges)[0].tolist()
    return below, core, above


def _alone(tree: Tree) -> list[int]:
    """Final particles that no resonance makes."""
    return [n for n in tree.made if n not in tree.children]


def _pairs(structure: Structure, tree: Tree) -> _Found:
    """Unambiguous pairs of final particles to which one particle may have decayed."""
    ids, alone = structure.pdg_id, _alone(tree)
    yield from lepton_pairs(structure, alone)
    for charged in (11, 13, 15):  # two W bosons that decay alike
        row = {ids[n]: n for n in alone if abs(ids[n]) in (charged, charged + 1)}
        if len(row) == 4 == sum(abs(ids[n]) in (charged, charged + 1) for n in alone):
            yield "lv", (row[-charged], row[charged + 1])
            yield "lv", (row[charged], row[-charged - 1])
    for sign in (1, -1):  # of the charge of a W boson
        up, down = ([n for n in alone if ids[n] in of] for of in ((2 * sign, 4 * sign),
                                                                  (-sign, -3 * sign)))
        if len(up) == len(down) == 1:
            yield "ud", (up[0], down[0])
    for kind, among in (("qq", (1, 2, 3, 4)), ("bb", (5,)), ("gg", (21,)), ("aa", (22,))):
        own = [n for n in alone if abs(ids[n]) in among]
        if len(own) == 2 and (kind in ("gg", "aa") or ids[own[0]] == -ids[own[1]]):
            yield kind, (own[0], own[1])


def _top_quarks(structure: Structure, tree: Tree) -> _Found:
    """Bottom quarks with the only system of the charge of their W boson."""
    for bottom, charge in ((5, 3), (-5, -3)):
        quarks = [n for n in _alone(tree) if structure.pdg_id[n] == bottom]
        bosons = [
            n for n in tree.made
            if n in tree.children and _charge(structure, tree.leaves(n)) == charge
        ]  # fmt: skip
        if len(quarks) == len(bosons) == 1:
            yield "bW", (bosons[0], quarks[0])


def _wholes(structure: Structure, tree: Tree) -> _Found:
    """All that the collision makes, where neither the record nor others name a resonance."""
    named = bool(structure.intermediate) or any(tree.systems.values())
    if len(tree.made) > 1 and not named:
        ids = [abs(structure.pdg_id[r]) for r in structure.final]
        yield " ".join(sorted("j" if i <= 5 or i == 21 else str(i) for i in ids)), tree.made


def _charge(structure: Structure, rows: Iterable[int]) -> int:
    """Three times the charge of some final particles."""
    ids = (structure.pdg_id[r] for r in rows)
    return sum(_CHARGES.get(abs(i), 0) * (1 if i > 0 else -1) for i in ids)
