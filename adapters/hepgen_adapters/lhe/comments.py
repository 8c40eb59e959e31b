"""Values in the text of events: comments and elements of individual programs.

``# model T2tt_600_50`` and ``# mass = 800`` behind the particles of an event, and
``<mass>800</mass>``, are not part of the standard. They are searched by name, and only on request.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe.stream import open_text

_BLOCK = 1 << 20
_LONGEST = 1 << 26
"""Largest size of an event in bytes."""

_MAX_TEXT = 1000
_END = b"</event>"


class EventTexts:
    """Values of events by name, in the order of the file.

    Parameters
    ----------
    path : Path
    start : int
        Where the events begin in the text.
    names : sequence of str
    """

    def __init__(self, path: Path, start: int, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._patterns = [_pattern(name) for name in names]
        self._events = self._read(path, start)

    def take(self, n: int) -> dict[str, npt.NDArray[np.str_]]:
        """Values (n,) of the next events by name, empty where an event has none."""
        rows = [row for _, row in zip(range(n), self._events, strict=False)]
        rows += [("",) * len(self.names)] * (n - len(rows))
        columns = zip(*rows, strict=True) if rows else [()] * len(self.names)
        found = dict(zip(self.names, columns, strict=True))
        return {name: np.array(texts) for name, texts in found.items() if any(texts)}

    def close(self) -> None:
        """Close the file."""
        self._events.close()  # type: ignore[attr-defined]

    def _read(self, path: Path, start: int) -> Iterator[tuple[str, ...]]:
        with io.BufferedReader(open_text(path), _BLOCK) as file:
            left = start
            while left and (passed := file.read(min(left, _BLOCK))):
                left -= len(passed)
            text = b""
            while block := file.read(_BLOCK):
                text += block
                *events, text = text.split(_END)
                for event in events:
                    yield tuple(_value(pattern, event) for pattern in self._patterns)
                if len(text) > _LONGEST:
                    return  # the reader itself reports the defect


def _pattern(name: str) -> re.Pattern[bytes]:
    key = re.escape(name).encode()
    return re.compile(
        rb"(?:#|<!--)[^\n]{0,1000}?(?<![\w.])" + key + rb"[ \t]*[=: \t][ \t]*[\"']?([^\s<>#\"']+)"
        rb"|<" + key + rb">\s*([^<>\s]+)\s*</" + key + rb">"
    )


def _value(pattern: re.Pattern[bytes], event: bytes) -> str:
    match = pattern.search(event)
    if match is None:
        return ""
    return (match[1] or match[2])[:_MAX_TEXT].decode("utf-8", "replace")
