"""Memory of the events of a sample by structure, and the numbers that follow from it directly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.phase_space import MARGIN, MassSpec
from hepgen_ml.phase_space.masses import MASSLESS


@dataclass
class Seen:
    """Memory of the events of one structure."""

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


def mass_bounds(seen: Seen, rows: Iterable[int]) -> list[tuple[float, float]]:
    """Smallest and largest mass of some rows, in GeV."""
    return [(float(seen.mass_low[r]), float(seen.mass_high[r])) for r in rows]


def fixed_or_interval(seen: Seen, row: int) -> MassSpec:
    """Fixed mass, or the interval of one that varies."""
    low, high = float(seen.mass_low[row]), float(seen.mass_high[row])
    if high < MASSLESS:
        return 0.0
    if high - low <= 1e-4 * high:
        return float(f"{(low + high) / 2:.10g}")
    margin = 1e-3 * (high - low)
    return (max(low - margin, 0.0), high + margin)


def name_of(pdg_id: int, flavour: str) -> str:
    """Name of a particle in labels: all light partons have the same."""
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
