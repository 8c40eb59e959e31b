"""What a `BalancedChart` describes relative to other particles of the event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hepgen_ml.phase_space import Beside, MassSpec, Peak
from hepgen_ml.phase_space.spectrum import Peaks

_HEAVY = 20.0
"""Mass in GeV above which two particles carry away a recoil in proportion to their masses. Light
ones may take any part of it."""


def recoiling(
    masses: Sequence[MassSpec], pt_min: Sequence[float], close: Sequence[float]
) -> dict[str, Any]:
    """Arguments of a `BalancedChart` for particles that are described relative to others.

    Parameters
    ----------
    masses : sequence of float, (low, high) or Peak
        Of all particles.
    pt_min : sequence of float
        Smallest transverse momentum in GeV of each.
    close : sequence of float
        Smallest distance to the particle before of all but the last, 0 without a cut.
    """
    found: dict[str, Any] = {"close": list(close)} if any(close) else {}
    # beside two jets the density of top quarks becomes worse, not better
    if len(masses) == 3 and not any(pt_min[-2:]) and not any(close[-1:]):
        first, second = map(_middle, masses[-2:])
        # rounded, so that charts of particles of similar masses are computed together
        if min(first, second) > _HEAVY and (share := round(first / (first + second), 1)) < 1:
            found |= {"share": share} if share else {}
    return found


def _middle(mass: MassSpec) -> float:
    """Fixed mass or the position of its peak in GeV, 0 without one."""
    if isinstance(mass, Peak | Beside):
        return mass.mass
    if isinstance(mass, Peaks):
        return max(mass.peaks)[1]
    return mass if isinstance(mass, float) else 0.0
