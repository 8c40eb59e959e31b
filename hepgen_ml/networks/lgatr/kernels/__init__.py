"""Fused loops over tokens for CPUs in single precision, compiled by numba on first use.

Plain torch walks through memory once per elementary operation; these do all that lies
between two matrix products in one pass. They compute what the formulas in
`hepgen_ml.networks.lgatr.algebra` and `layers` state; tests compare the two. Arrays are
those of `Multivectors` with one dimension of tokens: scalars (T, .), vectors (4, T, .),
bivectors (3, T, .). Loops share as many threads as torch uses.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numba
import torch

from hepgen_ml.networks.compiled import compiled

FAST = {"nnan", "nsz", "arcp", "contract", "afn", "reassoc"}
"""Sums may be reordered; infinities are respected."""

GROUP = 32
"""Tokens that a thread takes at a time."""

inline = compiled(fastmath=FAST, forceinline=True, error_model="numpy")


def parallel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function whose `numba.prange` shares as many threads as torch uses."""
    loop = compiled(parallel=True, fastmath=FAST, nogil=True, error_model="numpy")(function)

    @wraps(function)
    def call(*arguments: Any) -> Any:
        _share_threads()
        return loop(*arguments)

    return call


def _share_threads() -> None:
    """Let numba use the threads of torch.

    Both may run on one OpenMP, whose number of threads numba sets to that of the cores when it
    starts its own, regardless of `torch.set_num_threads` and OMP_NUM_THREADS.
    """
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
