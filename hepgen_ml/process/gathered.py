"""What is learned of events of one length, computed for all of their structures together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space import AT_FULL
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.process.structure import PATTERN, Batch, Structure

FloatArray = npt.NDArray[np.float64]


class Gathered:
    """Events of one length and their ranges, by structure.

    Parameters
    ----------
    batch : Batch
    sample : EventSample
    nominal : (2,) array
        Energies of the beams in GeV.

    Attributes
    ----------
    weight : (m,) array
    patterns : (m, 3 n) int32 array
    mass_low, mass_high : (k, n) arrays
        Smallest and largest masses of the particles of each of k structures.
    energy : (m, 2) array
        Of the incoming particles in GeV.
    low, high : lists of k [float, float]
        Ranges of these energies.
    is_below : list of k bool
        Whether no event of a structure has the full energy of a beam.
    """

    def __init__(self, batch: Batch, sample: EventSample, nominal: FloatArray) -> None:
        self._batch, columns = batch, batch.columns
        self._first: list[int] = batch.first.tolist()
        begin = batch.first[:-1]
        self.weight = sample.events["weight"][batch.events]
        self.patterns = columns[PATTERN]
        mass = columns["mass"]
        self.mass_low, self.mass_high = (f.reduceat(mass, begin) for f in (np.minimum, np.maximum))
        self._is_light = (mass[begin] < 1.0).tolist()
        # incoming particles come first, if there are any
        self.energy = columns["energy"][:, :2].astype(np.float64)
        low, high = (f.reduceat(self.energy, begin) for f in (np.minimum, np.maximum))
        below = np.all(high <= (1 - AT_FULL) * nominal, axis=1)
        self.is_below: list[bool] = np.asarray(below).tolist()
        self.low: list[list[float]] = low.tolist()
        self.high: list[list[float]] = high.tolist()
        self._momenta = np.stack([columns[name] for name in ("px", "py", "pz", "energy")], axis=-1)
        self._chosen: dict[tuple[int, ...], npt.NDArray[Any]] = {}

    def rows(self, k: int) -> slice:
        """Events of a structure."""
        return slice(self._first[k], self._first[k + 1])

    def momenta(self, particles: Sequence[int]) -> npt.NDArray[Any]:
        """Momenta (m, k, 4) of some rows of the records."""
        key = tuple(particles)
        if key not in self._chosen:
            self._chosen[key] = np.take(self._momenta, np.array(key, np.int64), axis=1)
        return self._chosen[key]

    def classes(self, k: int, structure: Structure) -> list[str]:
        """Flavour classes of the final particles of a structure, by masses of its first event."""
        light, ids = self._is_light[k], structure.pdg_id
        return [_class_of(ids[row], light[row]) for row in structure.final]


@lru_cache(10_000)
def _class_of(pdg_id: int, is_light: bool) -> str:
    return flavour_class(pdg_id, 0.0 if is_light else np.inf)
