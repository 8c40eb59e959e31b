"""Reconstructed objects that come from one particle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hepgen_ml.phase_space.masses import MovingPeak, Peak, mass_config, mass_spec


@dataclass(frozen=True)
class Resonance:
    """Objects that come from one particle.

    Attributes
    ----------
    label : str
        Names its coordinates.
    objects : tuple of int
        Which of the chart, two or more.
    mass : Peak or MovingPeak
        Range and shape of their mass, which may follow conditions of the user.
    """

    label: str
    objects: tuple[int, ...]
    mass: Peak | MovingPeak

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        objects, mass = list(self.objects), mass_config(self.mass)
        return {"label": self.label, "objects": objects, "mass": mass}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Resonance:
        """Inverse of `to_config`."""
        mass = mass_spec(config["mass"])
        if not isinstance(mass, Peak | MovingPeak):
            raise ValueError("the mass of a resonance needs four numbers")
        return cls(str(config["label"]), tuple(int(i) for i in config["objects"]), mass)
