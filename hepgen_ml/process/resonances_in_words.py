"""Masses of resonances in words, with what they follow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.summary import particle_name
from hepgen_ml.phase_space import DecayChart, MassSpec, ReconstructedChart
from hepgen_ml.phase_space.masses import MovingMass, MovingPeak
from hepgen_ml.phase_space.spectrum import Peaks
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.process import Process
from hepgen_ml.process.scales_in_words import some

MOST_RESONANCES = 8
"""Number of resonances that are named."""


def resonances_in_words(process: Process) -> str:
    """Masses of all resonances, the most frequent first."""
    found: dict[str, str] = {}
    for s in sorted(process.subprocesses, key=lambda s: -s.frequency):
        chart = process.channels[s.chart].chart
        if isinstance(chart, ReconstructedChart):
            for resonance in chart.resonances:
                found.setdefault(resonance.label, _mass(resonance.mass))
        if isinstance(chart, DecayChart):
            ids = frozenset(abs(s.structure.pdg_id[r]) for r in s.structure.intermediate)
            for k, node in enumerate(chart.nodes):
                if not node.children:
                    continue
                if flavour := _flavour(node.label, ids):
                    if (name := particle_name(flavour)) not in found:
                        found[name] = _mass(node.mass, process.conditions)
                    continue
                about = _mass(node.mass, process.conditions)
                known = any(about.split(", from")[0] in text for text in found.values())
                if _has_peak(node.mass) and not known:
                    rows = [s.order[leaf] for leaf in chart.leaves_of(k)]
                    names = " ".join(particle_name(s.structure.pdg_id[r]) for r in rows)
                    found.setdefault(f"{names} without a row", about)
    return some([f"{name} {text}" for name, text in found.items()], MOST_RESONANCES) or (
        "none with a peak" if process.is_reconstructed else "none in the record"
    )


def _has_peak(spec: MassSpec) -> bool:
    """Whether a mass is fixed or has a peak, at conditions if there are any."""
    return not isinstance(spec, tuple) or len(spec) > 2


@lru_cache(10_000)
def _flavour(label: str, ids: frozenset[int]) -> int | None:
    """Flavour, of some, that a label of a chart names, behind its mother's or with a rank."""
    text = label.split(">")[-1].split(":")[0].lstrip("-")
    named = [i for i in ids if text == str(i)] or [
        i for i in ids if text.startswith(str(i)) and text[len(str(i)) :].isdigit()
    ]
    return max(named, default=None)


def _range(values: Tensor) -> str:
    return f"from {float(values.min()):.4g} to {float(values.max()):.4g}"


def _mass(spec: MassSpec, conditions: Conditions | None = None) -> str:
    if isinstance(spec, MovingMass | MovingPeak):
        assert conditions is not None
        at = torch.from_numpy(conditions.points)
        if isinstance(spec, MovingMass):
            return f"{_range(spec.law(at))} GeV with the conditions, fixed"
        peak, full = spec.position(at), spec.width(at)
        return f"{_range(peak)} GeV with the conditions, width {_range(full)} GeV"
    if isinstance(spec, float | int):
        return f"at {spec:.6g} GeV, fixed"
    if isinstance(spec, Peaks):
        peaks = " and ".join(f"at {m:.6g} GeV with width {w:.3g} GeV" for _, m, w in spec.peaks)
        return f"{peaks}, from {spec.low:.4g} GeV on"
    if len(spec) > 2:
        low, high, mass, width = spec[:4]
        ends = f"from {low:.4g}" + (f" to {high:.4g} GeV" if np.isfinite(high) else " GeV on")
        return f"at {mass:.6g} GeV with width {width:.3g} GeV, {ends}"
    return f"between {spec[0]:.4g} and {spec[1]:.4g} GeV without a peak"
