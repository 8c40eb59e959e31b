"""Helicities as integers, exact for all that generators write."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.sample import UNKNOWN_SPIN

_LARGEST_HELICITY = 4.0
_HALF = 100  # factor of half-integer helicities


def helicity_codes(spin: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Integer codes of helicities: integers as they are, half-integers times 100, 9 otherwise.

    Helicities are multiples of 1/2 up to 4, as generators write them for spins 1/2 to 2 (some with
    twice the number for fermions). The spin of a tau along its momentum, any number between -1 and
    1, has the code 9.
    """
    spin = np.asarray(spin, dtype=np.float64)
    known = (2 * spin == np.round(2 * spin)) & (np.abs(spin) <= _LARGEST_HELICITY)
    codes = np.where(spin == np.round(spin), spin, _HALF * spin)
    return np.where(known, codes, UNKNOWN_SPIN).astype(np.int32)


def helicities(codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Inverse of `helicity_codes`."""
    codes = np.asarray(codes, dtype=np.float64)
    return np.where(np.abs(codes) > UNKNOWN_SPIN, codes / _HALF, codes)
