"""Masses of resonances over all events of a sample, including events without their row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space import Beside, MassSpec, Peak
from hepgen_ml.phase_space.masses import MovingMass, MovingPeak, largest
from hepgen_ml.phase_space.spectrum import Peaks
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.decay_trees import Tree
from hepgen_ml.process.following import NEARLY_RIGHT, follows
from hepgen_ml.process.kept_masses import KeptMasses, Place
from hepgen_ml.process.peaks import apart, find_peak, nearest
from hepgen_ml.process.seen import Seen
from hepgen_ml.process.spikes import with_spikes
from hepgen_ml.process.structure import Structure

_Group = tuple[tuple[int, int], tuple[int, ...]]
"""A resonance with the number of its mass, see `ResonanceMasses`, and others in its place."""

_MOST_AMBIGUOUS = 0.2
"""Part of the events without a row up to which those near the peak are an ambiguity of few."""

_ALIKE = 1e-4
"""Relative differences up to which masses of rounded momenta are the same."""


class ResonanceMasses:
    """Masses of resonances in GeV: fixed, or with a range, and a peak if they have one.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    trees : mapping of Structure to Tree
        Decays of each structure.
    conditions : Conditions, optional
        Which masses may follow.

    Attributes
    ----------
    kept : KeptMasses
        Of the events of each structure.
    """

    def __init__(
        self,
        seen: Mapping[Structure, Seen],
        trees: Mapping[Structure, Tree],
        conditions: Conditions | None = None,
    ) -> None:
        self._seen, self._trees, self._conditions = seen, trees, conditions
        self.kept = KeptMasses(seen)
        self._rows: dict[int, list[tuple[Structure, int]]] = {}
        for structure in seen:
            for row in structure.intermediate:
                self._rows.setdefault(abs(structure.pdg_id[row]), []).append((structure, row))
        self._resonances: dict[tuple[int, int], MassSpec] = {}
        self._beside: dict[_Group, MassSpec] = {}
        self._ambiguous: dict[_Group, frozenset[Structure]] = {}
        self._decaying: dict[tuple[int, tuple[int, ...]], set[int]] = {}
        for flavour, rows in self._rows.items():
            for structure, row in rows:
                products = structure.process_id, _ids(structure, structure.leaves(row))
                self._decaying.setdefault(products, set()).add(flavour)
        self._hypotheses: dict[int, dict[int, int]] = {}

    def _key(self, flavour: int, process: int) -> tuple[int, int]:
        """Id of a resonance, and which of its masses it has in a process, see `apart`."""
        if flavour not in self._hypotheses:
            self._hypotheses[flavour] = self._apart(flavour) if self._conditions is None else {}
        return flavour, self._hypotheses[flavour].get(process, 0)

    def _apart(self, flavour: int) -> dict[int, int]:
        """Which of the masses of a resonance each process has.

        A process whose events all lack its row has the one that the system in its place shows.
        """
        recorded: dict[int, list[Place]] = {}
        for structure, row in self._rows[flavour]:
            if leaves := structure.leaves(row):
                recorded.setdefault(structure.process_id, []).append((structure, leaves))
        masses = {p: self.kept.of_all(places) for p, places in recorded.items()}
        if len(masses) < 2:
            return {}
        found = apart(masses)
        if max(found.values()) == 0:
            return found
        systems: dict[int, list[Place]] = {}
        for structure, leaves in self._systems(flavour):
            if structure.process_id not in masses:
                systems.setdefault(structure.process_id, []).append((structure, leaves))
        values = np.concatenate(list(masses.values()))
        number = np.concatenate([np.full(len(m), found[p]) for p, m in masses.items()])
        middle = [float(np.median(values[number == k])) for k in range(int(number.max()) + 1)]
        for process, places in systems.items():
            found[process] = nearest(self.kept.of_all(places), middle)
        return found

    def _systems(self, flavour: int) -> list[tuple[Structure, list[int]]]:
        """Final particles of all systems in the place of a resonance."""
        return [
            (structure, tree.leaves(node))
            for structure, tree in self._trees.items()
            for node, pdg_id in tree.systems.items()
            if abs(pdg_id) == flavour
        ]

    def of(self, flavour: int, process: int = 0) -> MassSpec:
        """Mass of a resonance and its range, over all structures that have it.

        Of a process, where processes have resonances of different masses under one id.
        """
        key = self._key(flavour, process)
        if key not in self._resonances:
            found: list[Place] = []
            stated = []
            for structure, row in self._rows[flavour]:
                mine = self._key(flavour, structure.process_id) == key
                if mine and (leaves := structure.leaves(row)):
                    seen = self._seen[structure]
                    found.append((structure, leaves))
                    stated += [float(seen.mass_low[row]), float(seen.mass_high[row])]
            mass = self.kept.of_all(found)
            moving = self.follow(mass, [structure for structure, _ in found])
            if moving is not None:
                self._resonances[key] = moving
                return moving
            low, high = min(*stated, float(mass.min())), max(*stated, float(mass.max()))
            alike = high - low <= _ALIKE * high
            # Rounded momenta scatter about a mass that is always the same.
            constant = alike and max(stated) - min(stated) <= 1e-9 * high
            peak = None if constant else find_peak(mass)
            if constant:
                self._resonances[key] = stated[0]
            elif alike and peak is None:
                self._resonances[key] = float(f"{np.median(mass):.10g}")
            else:
                margin = 1e-3 * (high - low)
                # up to where the masses of events without its row begin
                without = self._without(key)
                below, above = without[without < low], without[without > high]
                ends = (
                    max(low - min([margin, *(low - below[-1:]) / 2]), 0.0),
                    high + min([margin, *(above[:1] - high) / 2]),
                )
                spec: MassSpec = Peak(*ends, *peak) if peak else ends
                self._resonances[key] = spec if self._conditions else with_spikes(spec, mass)
        return self._resonances[key]

    def follow(
        self, mass: npt.NDArray[np.float64], structures: Sequence[Structure]
    ) -> MovingMass | MovingPeak | None:
        """Masses of events of these structures as a function of conditions."""
        if self._conditions is None:
            return None
        values = np.concatenate([self._seen[s].kept["conditions"] for s in structures])
        return follows(mass, values, self._conditions)

    def without_row(
        self, flavour: int, structure: Structure, leaves: Sequence[int]
    ) -> MassSpec:
        """Mass of the system of some particles in the place of a resonance, without its row.

        Generators leave out rows far from the peak. Such a system may be another resonance that
        decays to the same particles, as Z and H to b quarks: it has the peaks of all of them. A
        mass that is fixed, and the same in these events, is fixed in them, too. Where identical
        particles make it ambiguous which of them the system is, as with four b quarks, some
        structures have other masses, too.
        """
        group = self._group(flavour, structure, leaves)
        recorded = self.of(flavour, structure.process_id)
        if group not in self._beside:
            others = [self.of(other, structure.process_id) for other in group[1]]
            peaks = [other for other in others if isinstance(other, Peak)]
            self._ambiguous[group] = self._near(group, recorded) if not peaks else frozenset()
            mass = self._without(*group, self._ambiguous[group])
            spec = _beside(recorded, mass, others=bool(peaks))
            self._beside[group] = spec if self._conditions else with_spikes(spec, mass, peaks)
        if structure in self._ambiguous[group]:
            assert isinstance(recorded, Peak | Peaks)
            return recorded._replace(low=0.0, high=math.inf)
        return self._beside[group]

    def _group(self, flavour: int, structure: Structure, leaves: Sequence[int]) -> _Group:
        """Key of a resonance, and the others that decay to the same particles in its process."""
        found = self._decaying.get((structure.process_id, _ids(structure, leaves)), set())
        return self._key(flavour, structure.process_id), tuple(sorted(found - {flavour}))

    def _near(self, group: _Group, recorded: MassSpec) -> frozenset[Structure]:
        """Structures with masses of such systems among those recorded, if few events have them."""
        if not isinstance(recorded, Peak | Peaks):
            return frozenset()
        near, n_near, n = set(), 0, 0
        flavour = group[0][0]
        for structure, leaves in self._systems(flavour):
            if self._group(flavour, structure, leaves) == group:
                mass = self.kept.of(structure, leaves)
                n += len(mass)
                if ((mass > recorded.low) & (mass < recorded.high)).any():
                    near.add(structure)
                    n_near += len(mass)
        return frozenset(near if n_near <= _MOST_AMBIGUOUS * n else ())

    def _without(
        self,
        key: tuple[int, int],
        others: tuple[int, ...] | None = None,
        but: Collection[Structure] = (),
    ) -> npt.NDArray[np.float64]:
        """Sorted masses of systems in the place of a resonance, but those of some structures.

        Those that may be some other resonances as well, or all.
        """
        found: list[Place] = []
        for structure, leaves in self._systems(key[0]):
            group = self._group(key[0], structure, leaves)
            if structure not in but and group == (key, group[1] if others is None else others):
                found.append((structure, leaves))
        return np.sort(self.kept.of_all(found))


def _beside(
    recorded: MassSpec, mass: npt.NDArray[np.float64], *, others: bool = False
) -> MassSpec:
    """Range in GeV of the masses (m,) of events without the row of a resonance, sorted.

    Some of them may be those of other resonances.
    """
    if isinstance(recorded, MovingPeak):
        return recorded._replace(first=-NEARLY_RIGHT, last=NEARLY_RIGHT)
    if isinstance(recorded, float | int) and np.abs(mass - recorded).max() <= _ALIKE * recorded:
        return recorded
    if not isinstance(recorded, Peak | Peaks):
        return 0.0, 2 * max(largest(recorded), float(mass[-1]))
    around = recorded._replace(low=0.0, high=math.inf)
    first, last = recorded.low, recorded.high
    inside = mass[(mass > first) & (mass < last)]
    if len(inside) and others and isinstance(recorded, Peak):
        first, last = _empty(first, last, inside)
        low, high, position, width = recorded._replace(low=0.0, high=math.inf)
        if first < position - width and position + width < last:
            return Beside(low, high, position, width, first, last)
        return around
    if len(inside):
        # Events without the row are not those far from the peak.
        return around
    if mass[0] > last:
        return around._replace(low=last)
    if mass[-1] < first:
        return around._replace(high=first)
    if isinstance(around, Peaks):
        return around._replace(gaps=((first, last),))
    return Beside(around.low, around.high, around.mass, around.width, first, last)


def _empty(first: float, last: float, inside: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Largest part of a range without the masses that are in it, and without their surroundings."""
    ends = np.array([first, *inside, last])
    i = int(np.argmax(np.diff(ends)))
    low, high = float(ends[i]), float(ends[i + 1])
    margin = 0.2 * (high - low)
    return low + margin * (i > 0), high - margin * (i + 1 < len(ends) - 1)


def _ids(structure: Structure, rows: Sequence[int]) -> tuple[int, ...]:
    """Flavours of some particles, sorted."""
    return tuple(sorted(structure.pdg_id[r] for r in rows))
