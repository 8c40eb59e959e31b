"""Collected events of a sample by structure, and their immediate properties."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space import AT_FULL, MARGIN, MassSpec
from hepgen_ml.phase_space.cuts import LIGHT
from hepgen_ml.phase_space.masses import MASSLESS
from hepgen_ml.process.structure import Structure

_KEPT = 5_000
"""Events per subprocess kept for fitting the rules of scale and couplings."""

_SAME_ENERGY = 1e-6
"""Relative spread of energies that do not vary."""

_FEW_ENERGIES = 10
"""Minimum number of events of a flavour of incoming particles to decide whether their energy is
fixed."""


class FullEnergies:
    """Weights of events by which of their incoming particles have the full energy of the beam.

    Attributes
    ----------
    full : (2,) array
        Energies in GeV along +z and -z: the largest of all so far.
    weights : (2, 2) array
        Sums of weights where the first, and the second, has this energy (1) or not (0).
    """

    def __init__(self) -> None:
        self.full = np.zeros(2)
        self.weights = np.zeros((2, 2))

    def add(self, energy: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> None:
        """Take in energies (events, 2) in GeV and weights (events,)."""
        self.move_to(energy.max(0))
        first, second = at_full_energy(energy, self.full).T.astype(np.int64)
        np.add.at(self.weights, (first, second), weight)

    def add_below(self, weights: Sequence[float]) -> None:
        """Take in the weights of events in which neither has the full energy."""
        total = float(self.weights[0, 0])
        for weight in weights:
            total += weight
        self.weights[0, 0] = total

    def move_to(self, full: npt.NDArray[np.float64]) -> None:
        """Compare with larger energies, which none of the events so far have."""
        for side in range(2):
            if not at_full_energy(self.full[side], full[side]):
                below, at = (self.weights.T if side else self.weights)
                below += at
                at[:] = 0.0
        self.full = np.maximum(self.full, full)


def at_full_energy(energy: Any, full: Any) -> Any:
    """Whether energies are the full one of a beam, to `AT_FULL`."""
    return energy > (1 - AT_FULL) * full


@dataclass
class Seen:
    """Memory of the events of one structure."""

    mass_low: npt.NDArray[np.float64]
    mass_high: npt.NDArray[np.float64]
    weight: float = 0.0
    patterns: dict[bytes, float] = field(default_factory=dict)
    priority: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    kept: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    at_full: FullEnergies = field(default_factory=FullEnergies)
    # final rows whose masses below `MASSLESS` are no rounding, see `keep_light_masses`
    light: frozenset[int] = frozenset()

    def keep(self, priority: npt.NDArray[np.float64], new: dict[str, npt.NDArray[Any]]) -> None:
        """Random subset of fixed size, each event with the same chance (smallest priorities)."""
        if len(self.priority):
            priority = np.concatenate([self.priority, priority])
            joined = {k: np.concatenate([self.kept[k], new[k]]) for k in new if k in self.kept}
            new = new | joined
        chosen = np.argsort(priority, kind="stable")[:_KEPT]
        self.priority, self.kept = priority[chosen], {k: v[chosen] for k, v in new.items()}


def keep_light_masses(every: Mapping[Structure, Seen]) -> None:
    """Keep masses that would count as zero, of particles that have the same in all events.

    Gravitinos and axions may be as light. Masses of partons and photons are zero, and those that
    follow from rounded momenta vary.
    """
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    for structure, seen in every.items():
        for row in structure.final if structure.incoming else ():
            own = abs(structure.pdg_id[row])
            low[own] = min(low.get(own, math.inf), float(seen.mass_low[row]))
            high[own] = max(high.get(own, 0.0), float(seen.mass_high[row]))
    light = {i for i in low if 0 < low[i] == high[i] < MASSLESS} - {*LIGHT, 22}
    for structure, seen in every.items() if light else ():
        seen.light = frozenset(r for r in structure.final if abs(structure.pdg_id[r]) in light)


@dataclass(frozen=True)
class Beams:
    """Energies of the incoming particles of some flavours along +z and -z, over all events.

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
    def full(self) -> tuple[float, float]:
        """Full energies of the beams in GeV."""
        return self.largest[0] / (1 + MARGIN), self.largest[1] / (1 + MARGIN)

    def at_full(self, which: tuple[bool, bool]) -> Beams:
        """The same where some of the incoming particles have the full energy."""
        first, second = (
            full if has else energy
            for has, full, energy in zip(which, self.full, self.energies, strict=True)
        )
        return replace(self, energies=(first, second))

    @property
    def both_fixed(self) -> bool:
        """Whether neither varies."""
        return None not in self.energies

    @property
    def one_fixed(self) -> bool:
        """Whether one of them varies and the other does not."""
        return self.energies.count(None) == 1


class BeamEnergies:
    """Ranges of the energies of incoming particles, by the side they come from and their flavour.

    A sample may have a photon of fixed energy in some events, and partons of this photon in others.
    """

    def __init__(self) -> None:
        self._low: dict[tuple[int, int], float] = {}
        self._high: dict[tuple[int, int], float] = {}
        self._number: dict[tuple[int, int], int] = {}

    def add(
        self, flavours: Sequence[int], low: Sequence[float], high: Sequence[float], n: int
    ) -> None:
        """Take in the ranges of the energies in GeV of n incoming particles of two flavours."""
        for side, flavour in enumerate(flavours):
            key = side, flavour
            self._low[key] = min(self._low.get(key, math.inf), low[side])
            self._high[key] = max(self._high.get(key, 0.0), high[side])
            self._number[key] = self._number.get(key, 0) + n

    def largest(self, nominal: Sequence[float]) -> tuple[float, float]:
        """Largest energies in GeV of all flavours, those of the beams or above."""
        first, second = (
            max([e, *(h for (side, _), h in self._high.items() if side == k)]) * (1 + MARGIN)
            for k, e in enumerate(nominal)
        )
        return first, second

    def of(self, flavours: Sequence[int], nominal: Sequence[float]) -> Beams:
        """Energies of the incoming particles of two flavours."""
        first, second = (
            self._fixed(k, flavour, full)
            for k, (flavour, full) in enumerate(zip(flavours, nominal, strict=True))
        )
        return Beams((first, second), self.largest(nominal))

    def _fixed(self, side: int, flavour: int, full: float) -> float | None:
        """Energy of a flavour where it does not vary.

        Few events may have the same energy by chance; unless it is the full energy of the beam, the
        energy of all flavours together is then used.
        """
        keys, own = [(side, flavour)], self._high[side, flavour]
        if self._number[keys[0]] < _FEW_ENERGIES and abs(own - full) > _SAME_ENERGY * full:
            keys = [key for key in self._high if key[0] == side]
        low, high = min(self._low[k] for k in keys), max(self._high[k] for k in keys)
        return high if high - low <= _SAME_ENERGY * high else None


def mass_bounds(seen: Seen, rows: Iterable[int]) -> list[tuple[float, float]]:
    """Smallest and largest mass of some rows, in GeV."""
    return [(float(seen.mass_low[r]), float(seen.mass_high[r])) for r in rows]


def fixed_or_interval(seen: Seen, row: int) -> MassSpec:
    """Fixed mass, or the interval of one that varies."""
    if row in seen.light:
        return float(seen.mass_high[row])
    return _spec_of(float(seen.mass_low[row]), float(seen.mass_high[row]))


@lru_cache(100_000)
def _spec_of(low: float, high: float) -> MassSpec:
    if high < MASSLESS:
        return 0.0
    if high - low <= 1e-4 * high:
        return float(f"{(low + high) / 2:.10g}")
    margin = 1e-3 * (high - low)
    return (max(low - margin, 0.0), high + margin)


def name_of(pdg_id: int, flavour: str) -> str:
    """Name of a particle in labels; light partons share a name."""
    return flavour if flavour == "j" else str(pdg_id)


def unique_labels(names: list[str]) -> list[str]:
    """Names made unique by a rank where they repeat."""
    counts: dict[str, int] = {}
    labels = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        repeated = names.count(name) > 1 or name in ("j", "Jet")
        labels.append(f"{name}{counts[name]}" if repeated else name)
    return labels
