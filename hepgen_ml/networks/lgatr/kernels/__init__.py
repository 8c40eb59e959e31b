"""Fused loops over tokens for CPUs in single precision, compiled by numba on first use.

Plain torch walks through memory once per elementary operation; these do all that lies
between two matrix products in one pass. They compute what the formulas in
`hepgen_ml.networks.lgatr.algebra` and `layers` state; tests compare the two. Arrays are
those of `Multivectors` with one dimension of tokens: scalars (T, .), vectors (4, T, .),
bivectors (3, T, .).
"""

import numba

FAST = {"nnan", "nsz", "arcp", "contract", "afn", "reassoc"}
"""Sums may be reordered; infinities are respected."""

parallel = numba.njit(parallel=True, fastmath=FAST, cache=True, nogil=True, error_model="numpy")
inline = numba.njit(fastmath=FAST, cache=True, forceinline=True, error_model="numpy")

GROUP = 32
"""Tokens that a thread takes at a time."""
