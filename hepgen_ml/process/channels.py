"""Subprocesses, and the channels of those that share a chart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space import Chart, Coordinate
from hepgen_ml.process.auxiliary import Auxiliaries
from hepgen_ml.process.structure import Structure

_COLUMNS = ("pdg_id", "status", "mother1", "mother2")


@dataclass(frozen=True)
class Subprocess:
    """An assignment of flavours with its fixed properties.

    Attributes
    ----------
    structure : Structure
    frequency : float
        Fraction of the sample.
    chart : int
        Index of its channel in the process.
    order : tuple of int
        Rows of the final-state particles in the order of the chart.
    incoming_masses : (float, float)
        In GeV.
    patterns : (k, 3n) int32 array
        Colour flows and helicities that occur, see `hepgen_ml.process.structure.patterns`.
    pattern_frequency : (k,) float array
        Their fractions within the subprocess.
    full_energy : (float or None, float or None)
        Energies in GeV of incoming particles which these have here, while those of other
        subprocesses of the same structure have less.
    """

    structure: Structure
    frequency: float
    chart: int
    order: tuple[int, ...]
    incoming_masses: tuple[float, float]
    patterns: npt.NDArray[np.int32]
    pattern_frequency: npt.NDArray[np.float64]
    full_energy: tuple[float | None, float | None] = (None, None)

    @property
    def at_full(self) -> tuple[bool, bool]:
        """Whether each incoming particle has the full energy, and not any below."""
        return self.full_energy[0] is not None, self.full_energy[1] is not None

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        kept = {name: list(getattr(self.structure, name)) for name in _COLUMNS}
        return {
            "structure": {"process_id": self.structure.process_id, **kept},
            "frequency": self.frequency,
            "chart": self.chart,
            "order": list(self.order),
            "incoming_masses": list(self.incoming_masses),
            "patterns": self.patterns.tolist(),
            "pattern_frequency": self.pattern_frequency.tolist(),
            **({"full_energy": list(self.full_energy)} if any(self.at_full) else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Subprocess:
        """Inverse of `to_config`."""
        known = config["structure"]
        columns = (tuple(int(v) for v in known[name]) for name in _COLUMNS)
        structure = Structure(int(known["process_id"]), *columns)
        return cls(
            structure,
            float(config["frequency"]),
            int(config["chart"]),
            tuple(int(v) for v in config["order"]),
            (float(config["incoming_masses"][0]), float(config["incoming_masses"][1])),
            np.array(config["patterns"], dtype=np.int32).reshape(-1, 3 * len(structure.pdg_id)),
            np.array(config["pattern_frequency"], dtype=np.float64),
            tuple(config.get("full_energy") or (None, None)),
        )


@dataclass(frozen=True)
class Channel:
    """Subprocesses that share a chart: the same masses, classes and cuts.

    Attributes
    ----------
    chart : Chart
    auxiliaries : Auxiliaries
    classes : tuple of str
        Flavour classes of the particles, in the order of the chart.
    """

    chart: Chart
    auxiliaries: Auxiliaries
    classes: tuple[str, ...]

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Coordinates that a density learns: those of the chart but the cyclic one."""
        return tuple(c for c in self.chart.coordinates if not c.cyclic)

    @cached_property
    def cyclic(self) -> int | None:
        """Column of the chart's cyclic coordinate."""
        return next((i for i, c in enumerate(self.chart.coordinates) if c.cyclic), None)

    def check(self, checked: set[Any]) -> None:
        """Raise ValueError or IndexError unless its parts belong together.

        Rules with what is made, once they are checked, are added to `checked`; there they need no
        further check.
        """
        n = len(self.classes)
        if len(self.chart.labels) != n:
            raise ValueError(f"{n} classes of {len(self.chart.labels)} particles")
        made = self.chart.made(torch.ones(1, n, 4, dtype=torch.float64))
        key = id(self.auxiliaries), made.numpy().tobytes()
        if key not in checked:
            self.auxiliaries.check(torch.ones(1, 2, 4, dtype=torch.float64), made)
            checked.add(key)

    def join(self, x: Tensor, phi: Tensor) -> Tensor:
        """Coordinates of the chart (m, D) from learned ones and the cyclic angle (m,)."""
        n, i = self.chart.n_coordinates, self.cyclic
        if i is None:
            return x[:, :n]
        return torch.cat([x[:, :i], phi.unsqueeze(-1), x[:, i : n - 1]], dim=-1)
