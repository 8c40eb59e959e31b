"""Masses of final-state particles that vary from event to event, over all subprocesses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.phase_space import MassSpec, Peak
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.following import follows
from hepgen_ml.process.peaks import apart, find_peak
from hepgen_ml.process.seen import Seen, fixed_or_interval
from hepgen_ml.process.structure import Structure


class FinalMasses:
    """Masses of final-state particles in GeV: fixed, or with a range, and a peak if they have one.

    A mass that varies has the same range in all subprocesses, so that these share a chart: of W, Z,
    H and top to which a generator gave a width without decaying them. Processes whose masses are
    far apart have ranges of their own.

    Parameters
    ----------
    seen : mapping of Structure to Seen
        Of parton-level events.
    conditions : Conditions, optional
        Which masses may follow.
    """

    def __init__(
        self, seen: Mapping[Structure, Seen], conditions: Conditions | None = None
    ) -> None:
        self._seen, self._conditions = seen, conditions
        rows: dict[int, list[tuple[Structure, int]]] = {}
        varies = set()
        for structure in seen:
            for row in structure.final if structure.incoming else ():
                flavour = abs(structure.pdg_id[row])
                if not self._is_fixed(structure, row):
                    rows.setdefault(flavour, []).append((structure, row))
                    if isinstance(fixed_or_interval(seen[structure], row), tuple):
                        varies.add(flavour)
        self._hypotheses = {flavour: self._apart(rows[flavour]) for flavour in sorted(varies)}
        self._varying: dict[tuple[int, int], MassSpec] = {}
        for flavour, number_of in self._hypotheses.items():
            for number in sorted({number_of.get(s.process_id, 0) for s, _ in rows[flavour]}):
                own = [r for r in rows[flavour] if number_of.get(r[0].process_id, 0) == number]
                self._varying[flavour, number] = self._range(own)

    def of(self, structure: Structure, row: int) -> MassSpec:
        """Mass of one particle of a structure."""
        flavour = abs(structure.pdg_id[row])
        number = self._hypotheses.get(flavour, {}).get(structure.process_id, 0)
        varying = self._varying.get((flavour, number))
        if varying is None or self._is_fixed(structure, row):
            return fixed_or_interval(self._seen[structure], row)
        return varying

    def _is_fixed(self, structure: Structure, row: int) -> bool:
        """Whether a mass is that of all events of a structure, and not only of a single one."""
        seen = self._seen[structure]
        mass = fixed_or_interval(seen, row)
        return isinstance(mass, float) and (mass == 0.0 or len(seen.priority) > 1)

    def _masses(self, rows: list[tuple[Structure, int]]) -> npt.NDArray[np.float64]:
        momenta = [self._seen[s].kept["final"][:, s.final.index(row)] for s, row in rows]
        mass2 = invariant_mass_squared(torch.from_numpy(np.concatenate(momenta)))
        return np.asarray(torch.sqrt(mass2.clamp_min(0.0)))

    def _apart(self, rows: list[tuple[Structure, int]]) -> dict[int, int]:
        """Processes whose masses have a range of their own, see `apart`."""
        of_process: dict[int, list[tuple[Structure, int]]] = {}
        for structure, row in rows:
            of_process.setdefault(structure.process_id, []).append((structure, row))
        if self._conditions is not None or len(of_process) < 2:
            return {}
        return apart({process: self._masses(some) for process, some in of_process.items()})

    def _range(self, rows: list[tuple[Structure, int]]) -> MassSpec:
        low = min(float(self._seen[s].mass_low[row]) for s, row in rows)
        high = max(float(self._seen[s].mass_high[row]) for s, row in rows)
        margin = 1e-3 * (high - low)
        ends = (max(low - margin, 0.0), high + margin)
        mass = self._masses(rows)
        if self._conditions is not None:
            values = np.concatenate([self._seen[s].kept["conditions"] for s, _ in rows])
            moving = follows(mass, values, self._conditions)
            if moving is not None:
                return moving
        peak = find_peak(mass)
        return Peak(*ends, *peak) if peak else ends
