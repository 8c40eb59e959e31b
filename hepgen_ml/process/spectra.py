"""Spectra of varying beam energies: events at the full energy, and resonances below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from hepgen_ml.phase_space import AT_FULL, MARGIN
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.process.peaks import BROAD, find_peak
from hepgen_ml.process.seen import Beams, Seen, mass_bounds
from hepgen_ml.process.structure import Structure

_FEWEST_AT_FULL = 0.01
"""Part of the events from which those at the full energy of a beam are an atom."""

_FULL = 0.98
"""Part of the largest energy above which collisions count as those of full energy."""

_FEW = 100
"""Minimum number of kept events of some incoming flavours; below it those of all flavours are
used."""


AtFull = tuple[bool, bool]
"""Which incoming particles have the full energy of their beam."""


class Part(NamedTuple):
    """Events of a structure in which the same incoming particles have the full energy.

    Attributes
    ----------
    structure : Structure
    at_full : (bool, bool)
    share : float
        Of the weight of the structure.
    """

    structure: Structure
    at_full: AtFull
    share: float


class Spectra:
    """Spectra of the energies of incoming particles, by the flavours of these.

    Parameters
    ----------
    seen : mapping of Structure to Seen
    beams : mapping of flavours to Beams
    """

    def __init__(
        self, seen: Mapping[Structure, Seen], beams: Mapping[tuple[int, ...], Beams]
    ) -> None:
        self._seen, self._beams = seen, beams
        self._of: dict[tuple[int, ...], list[Structure]] = {}
        for structure in seen:
            self._of.setdefault(structure.beams, []).append(structure)
        self._peak: dict[tuple[int, ...], tuple[float, float] | None] = {}
        self._full: dict[tuple[int, ...], tuple[bool, bool]] = {}

    def below_full_energy(self, structure: Structure) -> tuple[float, float] | None:
        """Resonance below the full energy of two beams whose energies vary, if there is one."""
        key = structure.beams
        if key not in self._peak:
            both = self._beams[key].energies == (None, None)
            self._peak[key] = self._resonance(self._alike(key)) if both else None
        return self._peak[key]

    def at_full(self, structure: Structure) -> tuple[bool, bool]:
        """Whether a fraction of the events has the full energy, for each varying beam."""
        key = structure.beams
        if key not in self._full:
            self._full[key] = self._atoms(self._beams[key], self._alike(key))
        return self._full[key]

    def are_beams(self, structure: Structure) -> bool:
        """Whether incoming particles are beams that radiate, not partons of composite ones."""
        leptons = all(10 < abs(flavour) < 20 for flavour in structure.beams)
        return leptons or (22 in structure.beams and any(self.at_full(structure)))

    def parts(self, structure: Structure) -> list[Part]:
        """Events of a structure by the beams that have their full energy, where some have."""
        whole = [Part(structure, (False, False), 1.0)]
        if not structure.incoming:
            return whole
        beams = self._beams[structure.beams]
        if beams.energies == (None, None) and not self.are_beams(structure):
            return whole
        varies = self.at_full(structure)
        seen = self._seen[structure].at_full
        seen.move_to(np.array(beams.full))
        weights = seen.weights
        for side in range(2):
            if not varies[side]:  # then it makes no difference
                weights = np.moveaxis(weights, side, 0)
                weights = np.moveaxis(np.stack([weights.sum(0), np.zeros(2)]), 0, side)
        total = weights[weights > 0].sum()
        if not any(varies) or not total > 0:
            return whole
        which = product((False, True), repeat=2)
        return [
            Part(structure, (first, second), float(w / total))
            for first, second in which if (w := weights[int(first), int(second)]) > 0
        ]  # fmt: skip

    def _alike(self, key: tuple[int, ...]) -> list[Structure]:
        """Structures with these incoming flavours, or with all flavours of the same energies."""
        own = self._of[key]
        if sum(len(self._seen[s].kept["final"]) for s in own) >= _FEW:
            return own
        energies = self._beams[key].energies
        return [s for s in self._seen if self._beams[s.beams].energies == energies]

    def _resonance(self, structures: Iterable[Structure]) -> tuple[float, float] | None:
        totals = [self._seen[s].kept["final"].sum(1) for s in structures]
        squared = invariant_mass_squared(torch.from_numpy(np.concatenate(totals)))
        masses = np.sqrt(np.maximum(squared.numpy(), 0.0))
        most = _FULL * masses.max()
        peak = find_peak(masses[masses < most])
        # a spectrum that rises towards the full energy is not a resonance
        narrow = peak is not None and peak[1] < BROAD * peak[0] and sum(peak) + 2 * peak[1] < most
        return peak if narrow else None

    def _atoms(self, beams: Beams, structures: Iterable[Structure]) -> tuple[bool, bool]:
        near, total = np.zeros(2), 0
        full = np.array(beams.largest) / (1 + MARGIN)
        for structure in structures:
            seen = self._seen[structure]
            masses = [sum(b) / 2 for b in mass_bounds(seen, structure.incoming)]
            momenta = torch.from_numpy(seen.kept["final"].sum(1))
            energy = incoming_momenta(momenta, *masses)[..., 3].numpy()
            near += (energy > (1 - AT_FULL) * full).sum(0)
            total += len(energy)
        first, second = (
            e is None and bool(n > _FEWEST_AT_FULL * total)
            for e, n in zip(beams.energies, near, strict=True)
        )
        return first, second
