"""Choosing the chart of a subprocess from what its events look like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.objects import CHARGED, JET, MASSES, collection_of
from hepgen_ml.phase_space import (
    Acceptance,
    BalancedChart,
    Chart,
    Cut,
    DecayChart,
    FixedEnergyChart,
    MassSpec,
    Node,
    Pair,
    Peak,
    ReconstructedChart,
)
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.phase_space.cuts import CutFinder, flavour_class
from hepgen_ml.structure import Structure

Layout = tuple[Chart, tuple[str, ...], tuple[int, ...]]
"""A chart, the classes and the rows of its particles."""

_MASSLESS = 2e-4
"""Masses below this, in GeV, are taken as zero: rounding, or regulators of some generators."""


@dataclass
class Seen:
    """What is remembered of one structure."""

    mass_low: npt.NDArray[np.float64]
    mass_high: npt.NDArray[np.float64]
    weight: float = 0.0
    patterns: dict[bytes, float] = field(default_factory=dict)
    priority: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


class ChartLearner:
    """Charts of all structures of a sample.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    cuts : CutFinder
    stated : sequence of Cut
    acceptance : Acceptance
    fixed_energy : (float, float), optional
        Energies of the incoming particles in GeV if they do not vary.
    """

    def __init__(
        self,
        seen: Mapping[Structure, Seen],
        cuts: CutFinder,
        stated: Sequence[Cut],
        acceptance: Acceptance,
        fixed_energy: tuple[float, float] | None,
    ) -> None:
        self.seen, self.cuts, self.stated = seen, cuts, tuple(stated)
        self.acceptance, self.fixed_energy = acceptance, fixed_energy
        self._peaks: dict[int, tuple[float, float] | None] = {}
        self._resonances: dict[int, MassSpec] = {}

    def chart(self, structure: Structure) -> Layout:
        """Chart of a structure, the classes and the rows of its particles in chart order."""
        if not structure.incoming:
            return self._reconstructed(structure)
        if structure.intermediate:
            found = self._decays(structure)
            if found is not None:
                return found
        seen = self.seen[structure]
        specs = {row: fixed_or_interval(seen, row) for row in structure.final}
        sizes = {r: m if isinstance(m, float) else m[1] for r, m in specs.items()}
        classes = {r: flavour_class(structure.pdg_id[r], sizes[r]) for r in structure.final}
        pt_min = {r: self.acceptance.pt_min(classes[r]) for r in structure.final}
        # The balancing particle should have no cut and, if there is a choice, a large mass:
        # then the region where it goes soft holds no structure.
        last = max(structure.final, key=lambda r: (pt_min[r] == 0.0, sizes[r], r))
        order = sorted(
            (r for r in structure.final if r != last), key=lambda r: (-pt_min[r], sizes[r], r)
        )
        order.append(last)
        labels = _labels([_name(structure.pdg_id[r], classes[r]) for r in order])
        masses = [specs[r] for r in order]
        chart: Chart
        if self.fixed_energy is not None and len(order) > 1:
            chart = FixedEnergyChart(labels, masses, self._total(structure))
        else:
            chart = BalancedChart(labels, masses, [pt_min[r] for r in order[:-1]])
        return chart, tuple(classes[r] for r in order), tuple(order)

    def _total(self, structure: Structure) -> list[float]:
        """Total momentum of beams of fixed energy."""
        assert self.fixed_energy is not None
        e1, e2 = self.fixed_energy
        m1, m2 = (sum(b) / 2 for b in _bounds(self.seen[structure], structure.incoming))
        p1, p2 = math.sqrt(max(e1**2 - m1**2, 0.0)), math.sqrt(max(e2**2 - m2**2, 0.0))
        return [0.0, 0.0, p1 - p2, e1 + e2]

    def _decays(self, structure: Structure) -> Layout | None:
        """Chart with resonances; None where the record is no chain of two-body decays."""
        tree = decay_tree(structure)
        if tree is None:
            return None
        made, children = tree
        seen, ids = self.seen[structure], structure.pdg_id
        specs: dict[int, MassSpec] = {r: fixed_or_interval(seen, r) for r in structure.final}
        inner = [r for r in children if r not in made]
        if any(isinstance(specs[r], tuple) for pair in children.values() for r in pair
               if r in specs):  # fmt: skip
            return None
        for row in children:
            specs[row] = self._resonance(abs(ids[row]))
        sizes = {r: m[1] if isinstance(m, tuple) else m for r, m in specs.items()}
        classes = {r: flavour_class(ids[r], sizes[r]) for r in structure.final}
        pt_min = {r: self.acceptance.pt_min(classes[r]) if r in classes else 0.0 for r in made}
        last = max(made, key=lambda r: (pt_min[r] == 0.0, sizes[r], r))
        order = sorted((r for r in made if r != last), key=lambda r: (-pt_min[r], sizes[r], r))
        order.append(last)
        names = _labels([_name(ids[r], classes.get(r, "")) for r in [*order, *inner]])
        labels = dict(zip([*order, *inner], names, strict=True))
        queue, place = list(order), 0
        while place < len(queue):
            queue += children.get(queue[place], ())
            place += 1
        for row, pair in children.items():
            # Products are named by their mothers: flavours share what they have in common.
            labels |= {r: f"{labels[row]}>{k + 1}" for k, r in enumerate(pair) if r not in labels}
        number = {row: i for i, row in enumerate(queue)}
        nodes = [
            Node(labels[r], specs[r], tuple(number[c] for c in children.get(r, ()))) for r in queue
        ]
        production: dict[str, Any] = {
            "kind": BalancedChart.kind, "pt_min": [pt_min[r] for r in order[:-1]]
        }  # fmt: skip
        if self.fixed_energy is not None:
            if len(order) < 2:
                return None
            production = {"kind": FixedEnergyChart.kind, "total": self._total(structure)}
        chart = DecayChart(nodes, len(order), production)
        rows = tuple(queue[i] for i in chart.leaves)
        return chart, tuple(classes[r] for r in rows), rows

    def _resonance(self, flavour: int) -> MassSpec:
        """Mass of a resonance and its range, over all structures that have it."""
        if flavour not in self._resonances:
            found, low, high = [], math.inf, 0.0
            for structure, seen in self.seen.items():
                for row in structure.intermediate:
                    if abs(structure.pdg_id[row]) == flavour and structure.leaves(row):
                        columns = [structure.final.index(r) for r in structure.leaves(row)]
                        q = torch.from_numpy(seen.kept["final"][:, columns].sum(1))
                        found.append(torch.sqrt(invariant_mass_squared(q).clamp_min(0.0)).numpy())
                        low = min(low, float(found[-1].min()), float(seen.mass_low[row]))
                        high = max(high, float(found[-1].max()), float(seen.mass_high[row]))
            mass = np.concatenate(found)
            if high - low <= 1e-4 * high:
                self._resonances[flavour] = float(f"{(low + high) / 2:.10g}")
            else:
                margin = 1e-3 * (high - low)
                ends = (max(low - margin, 0.0), high + margin)
                peak = find_peak(mass)
                self._resonances[flavour] = Peak(*ends, *peak) if peak else ends
        return self._resonances[flavour]

    def _reconstructed(self, structure: Structure) -> Layout:
        seen, ids = self.seen[structure], structure.pdg_id
        masses: list[float | None] = []
        for row, number in enumerate(ids):
            spec = fixed_or_interval(seen, row)
            masses.append(spec if isinstance(spec, float) and abs(number) != JET else None)
        classes = tuple(flavour_class(number, 0.0) for number in ids)
        pair = self._pair(structure, masses)
        paired = () if pair is None else (pair.first, pair.second)
        ordered = [
            row > 0 and ids[row] == ids[row - 1] and row - 1 not in paired
            for row in range(len(ids))
        ]
        labels = _labels([_object_name(number) for number in ids])
        chart = ReconstructedChart(
            labels, masses, [self.acceptance.pt_min(c) for c in classes], ordered, pair
        )
        return chart, classes, tuple(range(len(ids)))

    def _pair(self, structure: Structure, masses: list[float | None]) -> Pair | None:
        """The only leptons of an event, if they are of one flavour and have a peak."""
        leptons = [r for r, n in enumerate(structure.pdg_id) if abs(n) in (11, 13, 15)]
        if len(leptons) != 2 or structure.pdg_id[leptons[0]] != -structure.pdg_id[leptons[1]]:
            return None
        if any(masses[row] is None for row in leptons):
            return None
        flavour = abs(structure.pdg_id[leptons[0]])
        if flavour not in self._peaks:
            kept = [
                s.kept["final"][:, [i for i, n in enumerate(other.pdg_id) if abs(n) == flavour]]
                for other, s in self.seen.items()
                if sum(abs(n) in (11, 13, 15) for n in other.pdg_id) == 2
                and {flavour, -flavour} <= set(other.pdg_id)
            ]
            momenta = torch.from_numpy(np.concatenate(kept).sum(1))
            mass = np.sqrt(invariant_mass_squared(momenta).clamp_min(0.0).numpy())
            self._peaks[flavour] = find_peak(mass)
        peak = self._peaks[flavour]
        if peak is None:
            return None
        threshold = 2 * MASSES[{11: "Electron", 13: "Muon", 15: "Tau"}[flavour]]
        low, high = self.cuts.range("mass", (str(flavour), str(flavour)), self.stated)
        return Pair(leptons[0], leptons[1], *peak, max(threshold, low), high)


def decay_tree(structure: Structure) -> tuple[list[int], dict[int, tuple[int, int]]] | None:
    """Rows made in the collision, and the two products of each row that decays.

    Copies of a particle (a resonance with a single product) are left out. None where a decay
    has more than two products, or a resonance none.
    """
    incoming = {r + 1 for r in structure.incoming}
    products: dict[int, list[int]] = {}
    made = []
    for row in (*structure.intermediate, *structure.final):
        mother = structure.mother1[row]
        if mother in incoming or mother == 0:
            made.append(row)
        else:
            products.setdefault(mother - 1, []).append(row)

    def resolved(row: int) -> int:
        while len(products.get(row, ())) == 1:
            row = products[row][0]
        return row

    made = sorted(resolved(r) for r in made)
    children: dict[int, tuple[int, int]] = {}
    queue = list(made)
    while queue:
        row = queue.pop()
        found = [resolved(r) for r in products.get(row, ())]
        if structure.status[row] == 1 and not found:
            continue
        if len(found) != 2:
            return None
        # Resonances first, particles before antiparticles.
        found.sort(key=lambda r: (structure.status[r] == 1, structure.pdg_id[r] < 0))
        children[row] = (found[0], found[1])
        queue += found
    return (made, children) if children else None


def find_peak(mass: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Position and full width of a resonance in GeV, None if the masses show none.

    The position is the mean of the half-sample mode (the densest half of the densest half,
    and so on), the width twice the median distance from it, which is what a Breit-Wigner has.
    """
    ordered = np.sort(mass)
    while len(ordered) > 50:
        half = (len(ordered) + 1) // 2
        spans = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
        first = int(np.argmin(spans))
        ordered = ordered[first : first + half]
    position = float(ordered.mean())
    width = 2 * float(np.median(np.abs(mass - position)))
    if not 1e-6 * position < width < 0.3 * position:
        return None
    return float(f"{position:.6g}"), float(f"{width:.6g}")


def _bounds(seen: Seen, rows: Iterable[int]) -> list[tuple[float, float]]:
    return [(float(seen.mass_low[r]), float(seen.mass_high[r])) for r in rows]


def fixed_or_interval(seen: Seen, row: int) -> MassSpec:
    """Fixed mass, or the interval of one that varies."""
    low, high = float(seen.mass_low[row]), float(seen.mass_high[row])
    if high < _MASSLESS:
        return 0.0
    if high - low <= 1e-4 * high:
        return float(f"{(low + high) / 2:.10g}")
    margin = 1e-3 * (high - low)
    return (max(low - margin, 0.0), high + margin)


def _object_name(pdg_id: int) -> str:
    name = str(collection_of(pdg_id))
    return name + ("-" if pdg_id > 0 else "+") if name in CHARGED else name


def _name(pdg_id: int, flavour: str) -> str:
    return flavour if flavour == "j" else str(pdg_id)


def _labels(names: list[str]) -> list[str]:
    """Names made unique by a rank where they repeat."""
    counts: dict[str, int] = {}
    labels = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        repeated = names.count(name) > 1 or name in ("j", "Jet")
        labels.append(f"{name}{counts[name]}" if repeated else name)
    return labels
