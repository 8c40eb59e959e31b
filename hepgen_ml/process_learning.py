"""Learning a `Process` from a stream of events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.auxiliary import (
    AUXILIARY,
    Auxiliaries,
    coupling_table,
    learn_coupling,
    learn_scale,
)
from hepgen_ml.errors import SampleError
from hepgen_ml.events import EventSample
from hepgen_ml.objects import CHARGED, JET, MASSES, collection_of
from hepgen_ml.phase_space import (
    Acceptance,
    BalancedChart,
    Chart,
    Cut,
    FixedEnergyChart,
    Pair,
    ReconstructedChart,
)
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.phase_space.cuts import CutFinder, flavour_class
from hepgen_ml.phase_space.masses import MassSpec
from hepgen_ml.process import Channel, Process, Subprocess
from hepgen_ml.structure import Structure, patterns, tables
from hepgen_ml.tensors import final_momenta

_KEPT = 5_000
"""Events per subprocess kept for fitting the rules of scale and couplings."""

_MASSLESS = 2e-4
"""Masses below this, in GeV, are taken as zero: rounding, or regulators of some generators."""


@dataclass
class _Seen:
    """What is remembered of one structure."""

    mass_low: npt.NDArray[np.float64]
    mass_high: npt.NDArray[np.float64]
    weight: float = 0.0
    patterns: dict[bytes, float] = field(default_factory=dict)
    priority: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict)


class ProcessLearner:
    """Collects what a process needs from chunks of events, in bounded memory.

    Parameters
    ----------
    seed : int
        Of the random choice of events that rules are fitted to.
    cuts : sequence of Cut
        Stated cuts; the events that are added obey them.
    """

    def __init__(self, seed: int = 0, cuts: Sequence[Cut] = ()) -> None:
        self._stated = tuple(cuts)
        self._rng = np.random.default_rng(seed)
        self._seen: dict[Structure, _Seen] = {}
        self._cuts = CutFinder()
        self._energy_low = np.full(2, np.inf)
        self._energy_high = np.zeros(2)
        self._lifetimes = False
        self._peaks: dict[int, tuple[float, float] | None] = {}
        self.n_events = 0

    def add(self, sample: EventSample) -> None:
        """Take in a chunk of parton-level or of reconstructed events."""
        needed = ["pdg_id"] + ([] if sample.is_reconstructed else ["mother1"])
        missing = [n for n in needed if n not in sample.particles]
        if missing:
            raise SampleError(
                f"these events have no column {missing[0]!r}",
                remedy="training needs parton-level events with flavours and mothers, or "
                "reconstructed objects (see --objects)",
            )
        for structure, events, table in tables(sample):
            if not sample.is_reconstructed and (
                len(structure.incoming) != 2 or not structure.final
            ):
                found = f"{len(structure.incoming)} incoming and {len(structure.final)} final"
                raise SampleError(
                    f"{found} particles",
                    event=int(events[0]) + 1 + self.n_events,
                    remedy="training needs two incoming partons (status -1) and a final state; "
                    "to train on the objects of showered events, choose them with --objects",
                )
            self._add(structure, table, {n: v[events] for n, v in sample.events.items()})
        self.n_events += len(sample)

    def _add(
        self,
        structure: Structure,
        table: dict[str, npt.NDArray[Any]],
        events: dict[str, npt.NDArray[Any]],
    ) -> None:
        n, weight = len(structure.pdg_id), np.abs(events["weight"])
        mass = table["mass"]
        seen = self._seen.setdefault(structure, _Seen(np.full(n, np.inf), np.full(n, -np.inf)))
        seen.weight += float(weight.sum())
        seen.mass_low = np.minimum(seen.mass_low, mass.min(0))
        seen.mass_high = np.maximum(seen.mass_high, mass.max(0))
        found, inverse = np.unique(patterns(table), axis=0, return_inverse=True)
        for row, w in zip(found, np.bincount(inverse.ravel(), weights=weight), strict=True):
            key = row.astype(np.int32).tobytes()
            seen.patterns[key] = seen.patterns.get(key, 0.0) + float(w)
        if structure.incoming:
            energy = table["energy"][:, structure.incoming]
            self._energy_low = np.minimum(self._energy_low, energy.min(0))
            self._energy_high = np.maximum(self._energy_high, energy.max(0))
        self._lifetimes |= bool(np.any(table.get("lifetime", 0) != 0))
        final = final_momenta(table, structure.final)
        classes = [flavour_class(structure.pdg_id[r], float(mass[0, r])) for r in structure.final]
        self._cuts.add(final, classes)
        kept = {
            "final": final.numpy(),
            "incoming": final_momenta(table, structure.incoming).numpy(),
        }
        self._keep(seen, kept | {k: events[k] for k in AUXILIARY if k in events})

    def _keep(self, seen: _Seen, new: dict[str, npt.NDArray[Any]]) -> None:
        """Random subset of fixed size, each event with the same chance (smallest priorities)."""
        priority = np.concatenate([seen.priority, self._rng.random(len(new["final"]))])
        joined = {
            k: np.concatenate([seen.kept[k], v]) if k in seen.kept else v for k, v in new.items()
        }
        chosen = np.argsort(priority, kind="stable")[:_KEPT]
        seen.priority = priority[chosen]
        seen.kept = {k: v[chosen] for k, v in joined.items()}

    @property
    def has_lifetimes(self) -> bool:
        """Whether some particle has a lifetime; lifetimes are not learned."""
        return self._lifetimes

    def process(self, beam_energy: tuple[float, float]) -> Process:
        """The process of the events seen so far.

        Parameters
        ----------
        beam_energy : (float, float)
            In GeV; zero where the file does not say, then the largest energy seen counts.
        """
        if not self._seen:
            raise SampleError("no events", remedy="check how the sample was made")
        acceptance = self._cuts.acceptance(self._stated)
        spread = self._energy_high - self._energy_low
        fixed = bool(np.all(np.abs(spread) <= 1e-6 * self._energy_high))
        limit = tuple(
            float(b) if b > 0 else float(e)
            for b, e in zip(beam_energy, self._energy_high, strict=True)
        )
        if fixed:
            limit = tuple(float(e) * (1 + 1e-6) for e in self._energy_high)
        total_weight = sum(s.weight for s in self._seen.values())
        groups: dict[str, list[Structure]] = {}
        layouts: dict[str, tuple[Chart, tuple[str, ...]]] = {}
        orders: dict[Structure, tuple[int, ...]] = {}
        for structure in sorted(self._seen):
            chart, classes, order = self._chart(structure, acceptance, fixed)
            key = repr(chart.to_config())
            groups.setdefault(key, []).append(structure)
            layouts[key], orders[structure] = (chart, classes), order
        channels: list[Channel] = []
        subprocesses: list[Subprocess] = []
        rules_of = self._auxiliaries(groups, orders)
        for key, structures in groups.items():
            chart, classes = layouts[key]
            rules = rules_of[key]
            for structure in structures:
                seen = self._seen[structure]
                found = np.stack([np.frombuffer(k, dtype=np.int32) for k in seen.patterns])
                frequency = np.array(list(seen.patterns.values()))
                tidy = np.lexsort(found.T[::-1])
                masses = [_mass_spec(seen, row) for row in structure.incoming] or [0.0, 0.0]
                subprocesses.append(
                    Subprocess(
                        structure,
                        seen.weight / total_weight,
                        len(channels),
                        orders[structure],
                        tuple(m if isinstance(m, float) else 0.0 for m in masses),  # type: ignore[arg-type]
                        found[tidy],
                        frequency[tidy] / frequency.sum(),
                    )
                )
            channels.append(Channel(chart, rules, classes))
        return Process(subprocesses, channels, acceptance, (limit[0], limit[1]))

    def _chart(
        self, structure: Structure, acceptance: Acceptance, fixed: bool
    ) -> tuple[Chart, tuple[str, ...], tuple[int, ...]]:
        """Chart of a structure, the classes and the rows of its particles in chart order."""
        if not structure.incoming:
            return self._reconstructed_chart(structure, acceptance)
        seen = self._seen[structure]
        specs = {row: _mass_spec(seen, row) for row in structure.final}
        sizes = {r: m if isinstance(m, float) else m[1] for r, m in specs.items()}
        classes = {r: flavour_class(structure.pdg_id[r], sizes[r]) for r in structure.final}
        pt_min = {r: acceptance.pt_min(classes[r]) for r in structure.final}
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
        if fixed and len(order) > 1:
            e1, e2 = (float(v) for v in self._energy_high)
            m1, m2 = (sum(b) / 2 for b in _bounds(seen, structure.incoming))
            p1, p2 = math.sqrt(max(e1**2 - m1**2, 0.0)), math.sqrt(max(e2**2 - m2**2, 0.0))
            chart = FixedEnergyChart(labels, masses, [0.0, 0.0, p1 - p2, e1 + e2])
        else:
            chart = BalancedChart(labels, masses, [pt_min[r] for r in order[:-1]])
        return chart, tuple(classes[r] for r in order), tuple(order)

    def _reconstructed_chart(
        self, structure: Structure, acceptance: Acceptance
    ) -> tuple[Chart, tuple[str, ...], tuple[int, ...]]:
        seen, ids = self._seen[structure], structure.pdg_id
        masses: list[float | None] = []
        for row, number in enumerate(ids):
            spec = _mass_spec(seen, row)
            masses.append(spec if isinstance(spec, float) and abs(number) != JET else None)
        classes = tuple(flavour_class(number, 0.0) for number in ids)
        pair = self._pair(structure)
        paired = () if pair is None else (pair.first, pair.second)
        ordered = [
            row > 0 and ids[row] == ids[row - 1] and row - 1 not in paired
            for row in range(len(ids))
        ]
        labels = _labels([_object_name(number) for number in ids])
        chart = ReconstructedChart(
            labels, masses, [acceptance.pt_min(c) for c in classes], ordered, pair
        )
        return chart, classes, tuple(range(len(ids)))

    def _pair(self, structure: Structure) -> Pair | None:
        """The only leptons of an event, if they are of one flavour and have a peak."""
        leptons = [r for r, n in enumerate(structure.pdg_id) if abs(n) in (11, 13, 15)]
        if len(leptons) != 2 or structure.pdg_id[leptons[0]] != -structure.pdg_id[leptons[1]]:
            return None
        flavour = abs(structure.pdg_id[leptons[0]])
        if flavour not in self._peaks:
            kept = [
                s.kept["final"][:, [i for i, n in enumerate(other.pdg_id) if abs(n) == flavour]]
                for other, s in self._seen.items()
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
        low, high = self._cuts.range("mass", (str(flavour), str(flavour)), self._stated)
        return Pair(leptons[0], leptons[1], *peak, max(threshold, low), high)

    def _auxiliaries(
        self, groups: dict[str, list[Structure]], orders: dict[Structure, tuple[int, ...]]
    ) -> dict[str, Auxiliaries]:
        """Rules of every channel; couplings may follow the table of another channel."""
        kept = {key: self._kept(structures, orders) for key, structures in groups.items()}
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in AUXILIARY[1:]}
        for name, found in tables.items():
            for k in kept.values():
                if name in k and "scale" in k and np.ptp(k[name]) > 1e-6 * abs(k[name][0]):
                    table = coupling_table(k["scale"], k[name])
                    found += [] if table is None else [table]
        unknown = {
            "options": [{"kind": "constant", "value": -1.0}],
            "reference": ["constant", 1.0],
            "free": False,
        }
        rules = {}
        for key, k in kept.items():
            rule: dict[str, dict[str, Any]] = dict.fromkeys(AUXILIARY, unknown)
            if "scale" in k:
                incoming, final = torch.from_numpy(k["incoming"]), torch.from_numpy(k["final"])
                rule["scale"] = learn_scale(incoming, final, k["scale"])
            for name, candidates in tables.items():
                if name in k:
                    scale = k.get("scale", np.ones(len(k[name])))
                    rule[name] = learn_coupling(scale, k[name], candidates)
            rules[key] = Auxiliaries(rule)
        return rules

    def _kept(
        self, structures: list[Structure], orders: dict[Structure, tuple[int, ...]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Events kept of the structures of one channel, final states in the chart's order."""
        parts = []
        for structure in structures:
            columns = [structure.final.index(r) for r in orders[structure]]
            kept = self._seen[structure].kept
            parts.append({**kept, "final": kept["final"][:, columns]})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


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
    return (float(f"{position:.6g}"), float(f"{width:.6g}")) if width < 0.3 * position else None


def _bounds(seen: _Seen, rows: Iterable[int]) -> list[tuple[float, float]]:
    return [(float(seen.mass_low[r]), float(seen.mass_high[r])) for r in rows]


def _mass_spec(seen: _Seen, row: int) -> MassSpec:
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
