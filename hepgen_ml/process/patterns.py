"""Patterns of colours and helicities, the discrete part of events, counted and numbered.

A pattern is a row of integers, as `hepgen_ml.process.structure.patterns` makes it. Samples may have
very many subprocesses of a few events each; those are handled row by row, which is quicker.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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


def pattern_numbers(found: npt.NDArray[np.int32], known: npt.NDArray[np.int32]) -> Tensor:
    """Row of `known` that each row of `found` equals, −1 if none."""
    if len(found) <= _FEW_ROWS:
        place = {row.tobytes(): i for i, row in enumerate(known.astype(np.int32))}
        numbers = [place.get(row.tobytes(), -1) for row in found.astype(np.int32)]
        return torch.tensor(numbers, dtype=torch.int64)
    both = np.concatenate([known, found])
    _, inverse = np.unique(both, axis=0, return_inverse=True)
    inverse = inverse.ravel()  # two-dimensional in NumPy 2.0
    number = np.full(len(both), -1)
    number[inverse[: len(known)]] = np.arange(len(known))
    return torch.from_numpy(number[inverse[len(known) :]])
