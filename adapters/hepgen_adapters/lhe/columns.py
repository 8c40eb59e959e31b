"""Columns that the compiled LHE parser fills, and names of the named columns."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe.markup import unescape


class Names:
    """Names of columns in the order found, in the form the compiled parser looks them up."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._raw: list[bytes] = []
        self._declared: dict[str, int] = {}
        self.table: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
        self._build()

    def add(self, raw: bytes) -> str:
        """Note a name as it stands in the file; returns it as people write it.

        One that is there already is another column all the same, with a number behind its name;
        unless it has only been declared, in other characters (``&#9;`` for a tabulator).
        """
        name = plain = unescape(raw.decode("utf-8", "replace"))
        place = self._declared.pop(name, None)
        if place is not None and raw not in self._raw:
            self._raw[place] = raw
            self._build()
            return name
        self._raw.append(raw)
        k = 1
        while name in self.names:
            k += 1
            name = f"{plain}_{k}"
        self.names.append(name)
        self._build()
        return name

    def declare(self, name: str) -> None:
        """Note the name of a column that events may have, however they spell it."""
        name = self.add(html.escape(name, quote=False).encode())
        self._declared[name] = len(self) - 1

    def _build(self) -> None:
        bounds = np.cumsum([0, *map(len, self._raw)], dtype=np.int64)
        self.table = np.frombuffer(b"".join(self._raw) + b"\0", dtype=np.uint8).copy(), bounds

    def __len__(self) -> int:
        return len(self.names)


class Columns:
    """Room for one chunk, filled by the compiled parser."""

    def __init__(self, size: int, rows: int, n_weights: int, n_scales: int) -> None:
        self.offsets = np.zeros(size + 1, np.int64)
        self.ints = np.empty((6, rows), np.int32)
        self.floats = np.empty((7, rows))
        self.process_id = np.empty(size, np.int32)
        self.event_floats = np.empty((4, size))
        self.spans = np.empty((size, 2), np.int64)
        self.weights = np.empty((size, n_weights))
        self.scales = np.empty((size, n_scales))
        self.attributes: dict[str, list[str]] = {}

    def add_rows(self, rows: int, used: int) -> None:
        """Make room for at least `rows` particles, keeping the first `used`."""
        rows = rows + rows // 2
        for name in ("ints", "floats"):
            old = getattr(self, name)
            new = np.empty((len(old), rows), old.dtype)
            new[:, :used] = old[:, :used]
            setattr(self, name, new)

    def widen(self, name: str, width: int, used: int) -> None:
        """Make room for `width` named columns; those new are nan so far."""
        old = getattr(self, name)
        if width <= old.shape[1]:
            old[:used, width - 1] = np.nan
            return
        new = np.empty((len(old), width + width // 2))
        new[:used, : old.shape[1]] = old[:used]
        new[:used, old.shape[1] :] = np.nan
        setattr(self, name, new)

    def targets(self) -> tuple[npt.NDArray[Any], ...]:
        """Arrays in the order in which the compiled parser takes them."""
        return (
            self.offsets,
            self.ints,
            self.floats,
            self.process_id,
            self.event_floats,
            self.spans,
        )

    def fits(self, size: int, n_weights: int, n_scales: int) -> bool:
        """Whether it holds this number of events with exactly these numbers of named values."""
        widths = self.weights.shape[1], self.scales.shape[1]
        return len(self.process_id) >= size and widths == (n_weights, n_scales)

    def append(self, used: int, rows: int, other: Columns, first: int, last: int) -> int:
        """Copy events `first` to `last` of other columns behind the first `used` events.

        Returns the number of rows then in use.
        """
        start, stop = int(other.offsets[first]), int(other.offsets[last])
        total = rows + stop - start
        if total > self.ints.shape[1]:
            self.add_rows(total, rows)
        self.ints[:, rows:total] = other.ints[:, start:stop]
        self.floats[:, rows:total] = other.floats[:, start:stop]
        here, there = slice(used, used + last - first), slice(first, last)
        self.offsets[used + 1 : used + 1 + last - first] = other.offsets[first + 1 : last + 1] + (
            rows - start
        )
        self.process_id[here] = other.process_id[there]
        self.event_floats[:, here] = other.event_floats[:, there]
        self.spans[here] = other.spans[there]
        for mine, theirs in ((self.weights, other.weights), (self.scales, other.scales)):
            width = theirs.shape[1]
            mine[here, :width] = theirs[there]
            mine[here, width:] = np.nan
        return total
