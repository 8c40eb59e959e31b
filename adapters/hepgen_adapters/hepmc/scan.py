"""Properties of a whole HepMC3 file: number of events, weights, processes and cross section."""

from __future__ import annotations

import math
import re

import numpy as np

from hepgen_adapters.hepmc import lines as lines
from hepgen_ml.events.sample import Subrun

_NO_PROCESS = np.iinfo(np.int64).min
_MOST_PROCESSES = 10_000
_WEIGHT = re.compile(rb"(?:^|\n)W[ \t]+([^ \t\r\n]+)")
_CROSS_SECTION = b"\nA 0 GenCrossSection "


class Scan:
    """Collects the properties of a file from its text, part by part.

    Attributes
    ----------
    state : (STATE_SIZE,) int64 array
        Of the compiled check of the lines.
    cross_section : (float, float)
        That of the last event with its error, in pb; nan where it is not stated.
    of_weights : list of (float, float)
        Likewise, of the weights that follow the first one, where the last event states them.
    """

    def __init__(self) -> None:
        self.state = np.zeros(lines.STATE_SIZE, dtype=np.int64)
        self.cross_section = (math.nan, math.nan)
        self.of_weights: list[tuple[float, float]] = []
        self.unit_weights = True
        self._sums: dict[int, float] = {}
        self._open = (math.nan, _NO_PROCESS)

    @property
    def n_events(self) -> int:
        """Number of events that have started."""
        return int(self.state[lines.N_EVENTS])

    @property
    def has_numbers(self) -> bool:
        """Whether event numbers differ from the order of the events."""
        first = int(self.state[lines.FIRST_NUMBER])
        return first not in (0, 1) or bool(self.state[lines.OTHER_NUMBERS])

    def take(self, text: bytes) -> int:
        """Check complete lines and collect; returns a code of `lines`."""
        if not text:
            return lines.FINE
        # zero bytes behind the text, as the compiled reader of numbers looks ahead
        data = np.frombuffer(text + bytes(64), dtype=np.uint8)
        n = text.count(b"\nE ") + text.startswith(b"E ")
        weight = np.full(1 + n, math.nan)
        process_id = np.full(1 + n, _NO_PROCESS)
        weight[0], process_id[0] = self._open
        self.state[lines.N_BEFORE] = self.state[lines.N_EVENTS]
        start = int(data.ctypes.data)
        status = int(lines.check_lines(start, start + len(text), self.state, weight, process_id))
        if status != lines.FINE:
            return status
        if np.isinf(weight).any():
            _decide(weight, text)
        self._add(weight[:-1], process_id[:-1])
        self._open = float(weight[-1]), int(process_id[-1])
        self._find_cross_section(text)
        return status

    def finish(self) -> None:
        """Count the last event."""
        self._add(np.array([self._open[0]]), np.array([self._open[1]]))

    def _add(self, weight: np.ndarray, process_id: np.ndarray) -> None:
        weight = np.where(np.isfinite(weight), weight, 0.0)
        known = weight[weight != 0]
        self.unit_weights &= bool(np.all(np.abs(np.abs(known) - 1) < 1e-9))
        for number in np.unique(process_id):
            if len(self._sums) < _MOST_PROCESSES or int(number) in self._sums:
                total = float(weight[process_id == number].sum())
                self._sums[int(number)] = self._sums.get(int(number), 0.0) + total

    def _find_cross_section(self, text: bytes) -> None:
        at = text.rfind(_CROSS_SECTION)
        if at < 0 and not text.startswith(_CROSS_SECTION[1:]):
            return
        start = at + len(_CROSS_SECTION) if at >= 0 else len(_CROSS_SECTION) - 1
        # value, error, accepted and attempted events, then value and error of each further weight
        words = text[start : text.find(b"\n", start)].split()
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            return
        if len(numbers) >= 2 and math.isfinite(numbers[0]) and numbers[0] > 0:
            pairs = list(zip(numbers[4::2], numbers[5::2], strict=False))
            self.cross_section = _pair(numbers[0], numbers[1])
            self.of_weights = [_pair(*pair) for pair in pairs]

    def weight_cross_sections(self, names: list[str]) -> dict[str, tuple[float, float]]:
        """Cross sections of the named weights, if each has a separate one.

        The library repeats that of the first weight for all others if a program sets only one.
        """
        if len(names) != len(self.of_weights) or set(self.of_weights) <= {self.cross_section}:
            return {}
        return {
            name: pair
            for name, pair in zip(names, self.of_weights, strict=True)
            if math.isfinite(pair[0])
        }

    def processes(self) -> tuple[Subrun, ...]:
        """Each process number that events have, with its share of the cross section by weight."""
        sums = {k: v for k, v in self._sums.items() if k != _NO_PROCESS}
        if _NO_PROCESS in self._sums and abs(self._sums[_NO_PROCESS]) > 0:
            sums[0] = sums.get(0, 0.0) + self._sums[_NO_PROCESS]  # as events without one read
        total = sum(sums.values())
        value, error = self.cross_section
        if len(sums) < 2 or not total > 0:
            return (Subrun(next(iter(sums), 0), value, error),)
        shares = {k: v / total for k, v in sorted(sums.items())}
        size = math.sqrt(sum(f**2 for f in shares.values()))
        return tuple(Subrun(k, value * f, error * abs(f) / size) for k, f in shares.items())


def _pair(value: float, error: float) -> tuple[float, float]:
    """A cross section and its error as stated; nan if unknown."""
    if not math.isfinite(value) or value == error == 0:
        return math.nan, math.nan
    return value, error if math.isfinite(error) and error >= 0 else math.nan


def _decide(weight: np.ndarray, text: bytes) -> None:
    """Fill in first weights that have too many digits for the compiled reader."""
    pieces = (b"\n" + text).split(b"\nE ")  # the first belongs to an event that began before
    for k in np.flatnonzero(np.isinf(weight)).tolist():
        match = _WEIGHT.search(pieces[k])
        try:
            weight[k] = float(match[1]) if match else math.nan
        except ValueError:
            weight[k] = math.nan
