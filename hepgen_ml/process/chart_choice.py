"""Choosing the chart of a subprocess from what its events look like."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import CHARGED, JET, NamedResonance, collection_of
from hepgen_ml.phase_space import (
    MARGIN,
    Acceptance,
    BalancedChart,
    BeamsChart,
    Chart,
    Cut,
    DecayChart,
    FixedEnergyChart,
    MassSpec,
    Node,
    Peak,
    ReconstructedChart,
    Resonance,
)
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.structure import Structure

Layout = tuple[Chart, tuple[str, ...], tuple[int, ...]]
"""A chart, the classes and the rows of its particles."""

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class Beams:
    """Energies of the incoming particles along +z and -z, over all events.

    Attributes
    ----------
    energies : (float or None, float or None)
        In GeV, where an energy does not vary.
    largest : (float, float)
        In GeV, a little above that of the sample.
    """

    energies: tuple[float | None, float | None]
    largest: tuple[float, float]

    @property
    def both_fixed(self) -> bool:
        """Whether neither varies."""
        return None not in self.energies

    @classmethod
    def seen(
        cls, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], nominal: Sequence[float]
    ) -> Beams:
        """From the smallest and largest energies of a sample and those of the beams."""
        fixed = (high - low) <= 1e-6 * high
        return cls(
            tuple(float(h) if f else None for f, h in zip(fixed, high, strict=True)),  # type: ignore[arg-type]
            tuple(float(max(h, e)) * (1 + MARGIN) for h, e in zip(high, nominal, strict=True)),  # type: ignore[arg-type]
        )


class ChartLearner:
    """Charts of all structures of a sample.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    cuts : CutFinder
    stated : sequence of Cut
    acceptance : Acceptance
    beams : Beams
        What the energies of the incoming particles do.
    named : sequence of NamedResonance
        Reconstructed objects that come from one particle.

    Raises
    ------
    UsageError
        A resonance is named that no event has, or two with an object in common.
    """

    def __init__(
        self,
        seen: Mapping[Structure, Seen],
        cuts: CutFinder,
        stated: Sequence[Cut],
        acceptance: Acceptance,
        beams: Beams,
        named: Sequence[NamedResonance] = (),
    ) -> None:
        self.seen, self.cuts, self.stated = seen, cuts, tuple(stated)
        self.acceptance, self.beams = acceptance, beams
        self.named = tuple(named)
        self._peaks: dict[tuple[str, ...], tuple[float, float] | None] = {}
        self._resonances: dict[int, MassSpec] = {}
        self._check_names()

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
        production = self._production(structure, [pt_min[r] for r in order])
        kinds: dict[str, type[Chart]] = {
            c.kind: c for c in (BalancedChart, FixedEnergyChart, BeamsChart)
        }
        chart = kinds[production.pop("kind")](labels, masses, **production)
        return chart, tuple(classes[r] for r in order), tuple(order)

    def _production(self, structure: Structure, pt_min: Sequence[float]) -> dict[str, Any]:
        """Kind of the chart of what is made in the collision, and what it needs of the beams."""
        balanced = {"kind": BalancedChart.kind, "pt_min": list(pt_min[:-1])}
        if len(pt_min) < 2:
            return balanced
        if self.beams.both_fixed:
            return {"kind": FixedEnergyChart.kind, "total": self._total(structure)}
        leptons = all(10 < abs(structure.pdg_id[r]) < 20 for r in structure.incoming)
        if not leptons and all(e is None for e in self.beams.energies):
            return balanced
        masses = [sum(b) / 2 for b in _bounds(self.seen[structure], structure.incoming)]
        return {
            "kind": BeamsChart.kind,
            "energies": list(self.beams.energies),
            "largest": list(self.beams.largest),
            "incoming_masses": [float(f"{m:.10g}") for m in masses],
        }

    def _total(self, structure: Structure) -> list[float]:
        """Total momentum of beams of fixed energy."""
        e1, e2 = (e or 0.0 for e in self.beams.energies)
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
        if self.beams.both_fixed and len(order) < 2:
            return None
        production = self._production(structure, [pt_min[r] for r in order])
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
        labels = _labels([_object_name(number) for number in ids])
        resonances = self._named_resonances(structure, masses)
        taken = {row for r in resonances for row in r.objects}
        pair = self._pair(structure, masses, labels)
        if pair is not None and not taken & set(pair.objects):
            resonances.append(pair)
        resonances.sort(key=lambda r: min(r.objects))
        chart = ReconstructedChart(
            labels,
            masses,
            [self.acceptance.pt_min(c) for c in classes],
            [row > 0 and ids[row] == ids[row - 1] for row in range(len(ids))],
            resonances,
        )
        return chart, classes, tuple(range(len(ids)))

    def _check_names(self) -> None:
        """Refuse resonances that no event has, and those that share an object."""
        if not self.named:
            return
        if any(structure.incoming for structure in self.seen):
            raise UsageError(
                "resonances are named by reconstructed objects, and these events are partons",
                remedy="leave --resonance out: resonances of partons are those of the event record",
            )
        names = [r.name for r in self.named]
        if len(set(names)) < len(names):
            raise UsageError("two resonances have the same name", remedy="give each its own")
        for resonance in self.named:
            if all(resonance.rows(s.pdg_id) is None for s in self.seen):
                longest = max(self.seen, key=lambda s: len(s.pdg_id))
                raise UsageError(
                    f"no event has all objects of {str(resonance)!r}",
                    remedy=f"events have at most {', '.join(_numbered(longest.pdg_id))}",
                )
        for structure in self.seen:
            rows = [r for n in self.named for r in n.rows(structure.pdg_id) or ()]
            shared = next((r for r in rows if rows.count(r) > 1), None)
            if shared is not None:
                raise UsageError(
                    f"{_numbered(structure.pdg_id)[shared]} is named twice by the resonances "
                    f"{'; '.join(map(str, self.named))}",
                    remedy="an object comes from one of them",
                )

    def _named_resonances(
        self, structure: Structure, masses: list[float | None]
    ) -> list[Resonance]:
        """Resonances of the user's that these events have."""
        found = []
        for named in self.named:
            rows = named.rows(structure.pdg_id)
            if rows is None:
                continue
            if named.objects not in self._peaks:
                mass = self._masses(partial(_rows, named))
                peak = find_peak(mass)
                if peak is None:
                    low, middle, high = np.quantile(mass, [0.25, 0.5, 0.75])
                    # As wide as the distribution itself: any smooth map does.
                    peak = (float(f"{middle:.6g}"), float(f"{max(high - low, 1e-3):.6g}"))
                    log.warning(
                        "the mass of %s shows no peak: its coordinate follows a broad one at "
                        "%.4g GeV", named, peak[0],
                    )  # fmt: skip
                self._peaks[named.objects] = peak
            found.append(self._resonance_of(named.name, structure, rows, masses,
                                            self._peaks[named.objects]))  # fmt: skip
        return found

    def _resonance_of(
        self,
        label: str,
        structure: Structure,
        rows: tuple[int, ...],
        masses: list[float | None],
        peak: tuple[float, float] | None,
    ) -> Resonance:
        assert peak is not None
        low, high = sum(masses[r] or 0.0 for r in rows), math.inf
        if len(rows) == 2:
            classes = [flavour_class(structure.pdg_id[r], 0.0) for r in rows]
            ends = self.cuts.range("mass", (classes[0], classes[1]), self.stated)
            low, high = max(low, ends[0]), ends[1]
        return Resonance(label, rows, Peak(low, high, *peak))

    def _masses(
        self, rows_of: Callable[[Structure], Sequence[int] | None]
    ) -> npt.NDArray[np.float64]:
        """Mass of some objects together, over all structures that have them."""
        found = [np.zeros((0, 4))]
        for structure, seen in self.seen.items():
            if rows := rows_of(structure):
                found.append(seen.kept["final"][:, list(rows)].sum(1))
        momenta = torch.from_numpy(np.concatenate(found))
        return np.asarray(torch.sqrt(invariant_mass_squared(momenta).clamp_min(0.0)))

    def _pair(
        self, structure: Structure, masses: list[float | None], labels: list[str]
    ) -> Resonance | None:
        """The only leptons of an event, if they are of one flavour and have a peak."""
        rows = _lepton_pair(structure)
        if rows is None or any(masses[row] is None for row in rows):
            return None
        flavour = str(collection_of(structure.pdg_id[rows[0]]))
        if (flavour,) not in self._peaks:
            same = {structure.pdg_id[r] for r in rows}

            def pair(other: Structure) -> tuple[int, ...]:
                found = _lepton_pair(other)
                return found if found and {other.pdg_id[r] for r in found} == same else ()

            self._peaks[(flavour,)] = find_peak(self._masses(pair))
        if self._peaks[(flavour,)] is None:
            return None
        label = ",".join(labels[r] for r in rows)
        return self._resonance_of(label, structure, rows, masses, self._peaks[(flavour,)])


def _rows(named: NamedResonance, structure: Structure) -> tuple[int, ...] | None:
    return named.rows(structure.pdg_id)


def _lepton_pair(structure: Structure) -> tuple[int, int] | None:
    """The leptons of an event, if these are one particle and its antiparticle."""
    ids = structure.pdg_id
    leptons = [r for r, n in enumerate(ids) if collection_of(n) in CHARGED]
    if len(leptons) != 2 or ids[leptons[0]] != -ids[leptons[1]]:
        return None
    return leptons[0], leptons[1]


def _numbered(pdg_id: Sequence[int]) -> list[str]:
    """Names of objects as those of resonances."""
    names = [str(collection_of(n)) for n in pdg_id]
    return [f"{name}{names[: i + 1].count(name)}" for i, name in enumerate(names)]


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
