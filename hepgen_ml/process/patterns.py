"""Patterns of colours and helicities, the discrete part of events, counted.

A pattern is a row of integers, as `hepgen_ml.process.structure.patterns` makes it. Samples may have
very many subprocesses of a few events each; those are handled row by row, which is quicker.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FEW_ROWS = 32


def sums_of_patterns(
    rows: npt.NDArray[np.int32], weight: npt.NDArray[np.float64]
) -> dict[bytes, float]:
    """Sums of weights over equal rows (m, k), by the bytes of these, in rising order of rows."""
    if len(rows) > _FEW_ROWS:
        rows, inverse = np.unique(rows, axis=0, return_inverse=True)
        weight = np.bincount(inverse.ravel(), weights=weight).astype(np.float64)
    sums: dict[bytes, float] = {}
    for row, w in zip(rows, weight.tolist(), strict=True):
        key = row.tobytes()
        sums[key] = sums.get(key, 0.0) + w
    if len(sums) > 1 and len(rows) <= _FEW_ROWS:
        sums = dict(sorted(sums.items(), key=lambda item: np.frombuffer(item[0], "i4").tolist()))
    return sums
