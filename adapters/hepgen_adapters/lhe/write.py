"""Writer of LHE files."""

from __future__ import annotations

import logging
import math
import queue
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from isal import igzip

from hepgen_adapters.lhe import text as text
from hepgen_adapters.lhe.header import format_header
from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import (
    EVENT_COLUMNS,
    PARTICLE_COLUMNS,
    UNKNOWN_SPIN,
    EventSample,
    FloatArray,
    RunInfo,
)

PIECE_BYTES = 4 << 20
_DEFAULTS = {"mother1": 0, "mother2": 0, "color1": 0, "color2": 0, "lifetime": 0.0}
_XML_NAME = re.compile(r"[A-Za-z_][\w.:-]*")
_FOOTER = b"</LesHouchesEvents>\n"

_log = logging.getLogger(__name__)


class _Sink:
    """A file that is compressed and written in a separate thread."""

    def __init__(self, path: Path, compression: int) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  closed in close()
        self._stream: Any = self._file
        if path.name.lower().endswith(".gz"):
            # Without name and time, so that the same events give the same bytes.
            self._stream = igzip.IGzipFile("", "wb", compression, self._file, mtime=0)
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._error is None:
                try:
                    self._stream.write(piece)
                except BaseException as error:
                    self._error = error

    def write(self, piece: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._pieces.put(piece)

    def close(self) -> None:
        self._pieces.put(None)
        self._thread.join()
        try:
            if self._stream is not self._file and self._error is None:
                self._stream.close()
        finally:
            self._file.close()
        if self._error is not None:
            raise self._error


def _tags(pieces: Iterable[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoded = [piece.encode("utf-8", "replace") for piece in pieces]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded) + b"\0", dtype=np.uint8), bounds


class LHEWriter:
    """An LHE file being written; see `hepgen_ml.events.formats.Writer`.

    Numbers have 17 significant digits and read back exactly. Under weight
    strategies ±3 the weights have to be of equal size: all weights are divided
    by it. Strategies ±4 become -4.

    Parameters
    ----------
    path : Path
    run : RunInfo
    compression : int
        Level 0 to 3 of a ``.gz`` file.
    """

    def __init__(self, path: Path, run: RunInfo, *, compression: int = 1) -> None:
        self.path, self.run = Path(path), run
        self.strategy = -4 if abs(run.weight_strategy) == 4 else run.weight_strategy
        self._unit: float | None = None
        self._names: tuple[list[str], list[str]] | None = None
        self._n_events, self._sum, self._sum2 = 0, 0.0, 0.0
        self._closed = self._has_empty = False
        self._sink = _Sink(self.path, compression)

    def write(self, sample: EventSample) -> None:
        """Append events.

        Raises
        ------
        OutputError
            A required column is missing, a number is not finite, a weight does
            not fit the strategy, or the names differ from those of the first call.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            columns = self._particle_columns(sample)
            process_id, floats = self._event_columns(sample)
        names = list(sample.weights), list(sample.scales)
        if self._names is None:
            self._check_names(names[1], "scale")
            self._sink.write(format_header(self.run, self.strategy, names[0]).encode())
            self._names = names
        if names != self._names:
            raise self._refuse("the named weights or scales differ from those of the first events")
        n_events = len(sample)
        empty = np.flatnonzero(sample.counts == 0)
        if len(empty) and not self._has_empty:
            self._has_empty = True
            _log.warning(
                "%s: event %d has no particles: Pythia ends at such events",
                self.path.name, self._n_events + int(empty[0]) + 1,
            )  # fmt: skip
        weights = self._stack(sample.weights, n_events, "weight") / (self._unit or 1.0)
        scales = self._stack(sample.scales, n_events, "scale")
        weight_tags = _tags(f"<wgt id={quoteattr(name)}>" for name in names[0])
        scale_tags = _tags(f' {name}="' for name in names[1])
        attributes, attribute_bounds = self._attributes(sample)
        addresses = np.array([column.ctypes.data for column in columns], dtype=np.int64)
        longest = int(np.diff(attribute_bounds).max(initial=0))
        per_event = text.EVENT_BYTES + longest + weight_tags[1][-1] + scale_tags[1][-1]
        per_event += text.VALUE_BYTES * (len(names[0]) + len(names[1]))
        rows_per_event = max(1.0, float(sample.offsets[-1]) / max(1, n_events))
        step = max(1, int(PIECE_BYTES / (per_event + rows_per_event * text.PARTICLE_BYTES)))
        for first in range(0, n_events, step):
            last = min(first + step, n_events)
            rows = int(sample.offsets[last] - sample.offsets[first])
            room = (last - first) * per_event + rows * text.PARTICLE_BYTES
            out = np.empty(int(room), dtype=np.uint8)
            length = text.format_events(
                out.ctypes.data, first, last, sample.offsets, addresses, process_id, floats,
                attributes, attribute_bounds, weights, *weight_tags, scales, *scale_tags,
            )  # fmt: skip
            self._sink.write(out[:length].tobytes())
        self._n_events += n_events

    def close(self) -> None:
        """Finish the file; raises OSError if it could not be written."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._names is None:
                self._sink.write(format_header(self.run, self.strategy, ()).encode())
            self._sink.write(_FOOTER)
        finally:
            self._sink.close()
        self._check_mean()

    def _refuse(self, what: str, event: int | None = None, remedy: str = "") -> OutputError:
        number = None if event is None else self._n_events + event + 1
        return OutputError(what, path=self.path, event=number, remedy=remedy)

    def _finite(self, sample: EventSample, name: str, values: npt.NDArray[Any]) -> None:
        if not np.isfinite(values.sum()) and not np.isfinite(values).all():
            index = int(np.flatnonzero(~np.isfinite(values))[0])
            if len(values) != len(sample):
                index = int(np.searchsorted(sample.offsets, index, "right")) - 1
            raise self._refuse(f"{name} is not finite", index, "nothing can read such an event")

    def _particle_columns(self, sample: EventSample) -> list[npt.NDArray[Any]]:
        if sample.is_reconstructed:
            what = "an LHE file cannot hold reconstructed objects"
            raise self._refuse(what, remedy="name the output .root")
        columns = []
        n_rows = int(sample.offsets[-1])
        for name, dtype in PARTICLE_COLUMNS.items():
            column = sample.particles.get(name)
            if column is None:
                default = UNKNOWN_SPIN if name == "spin" else _DEFAULTS.get(name)
                if default is None:
                    what = f"LHE files need the column {name!r}, which this sample lacks"
                    raise self._refuse(what, remedy="name the output .root")
                column = np.full(n_rows, default, dtype)
            if dtype is np.float64:
                self._finite(sample, name, column)
            columns.append(column)
        return columns

    def _event_columns(self, sample: EventSample) -> tuple[npt.NDArray[np.int32], FloatArray]:
        n_events = len(sample)
        floats = np.full((4, n_events), -1.0)  # -1: unknown, in the accord
        for row, name in zip(floats, list(EVENT_COLUMNS)[1:], strict=True):
            if name in sample.events:
                row[:] = sample.events[name]
                self._finite(sample, name, row)
        floats[0] = self._nominal(floats[0])
        process_id = sample.events.get("process_id")
        if process_id is None:
            if len(self.run.processes) != 1:
                what = f"no process_id in the events and {len(self.run.processes)} processes"
                raise self._refuse(what, remedy="give a cross section if the source has none")
            process_id = np.full(n_events, self.run.processes[0].process_id, np.int32)
        return process_id, floats

    def _nominal(self, weights: FloatArray) -> FloatArray:
        self._sum += float(weights.sum())
        self._sum2 += float((weights**2).sum())
        if abs(self.strategy) != 3 or not len(weights):
            return weights
        if self._unit is None:
            self._unit = float(abs(weights[0])) or 1.0
        fits = np.abs(np.abs(weights) - self._unit) <= 1e-6 * self._unit
        if not fits.all():
            event = int(np.flatnonzero(~fits)[0])
            raise self._refuse(
                f"weight {weights[event]:g} under weight strategy {self.strategy}, of which "
                "readers keep only the sign",
                event,
                "use strategy -4 with weights whose mean is the cross section",
            )
        return np.sign(weights)

    def _stack(self, columns: Mapping[str, FloatArray], n_events: int, what: str) -> FloatArray:
        for name, column in columns.items():
            if np.isinf(column).any():
                event = int(np.flatnonzero(np.isinf(column))[0])
                raise self._refuse(f"{what} {name!r} is infinite", event)
        return np.array(list(columns.values()), dtype=float).reshape(len(columns), n_events)

    def _check_names(self, names: Iterable[str], what: str) -> None:
        for name in names:
            if not _XML_NAME.fullmatch(name):
                raise self._refuse(f"{what} name {name!r} cannot be written", remedy="rename it")

    def _attributes(
        self, sample: EventSample
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Text of the attributes of each event; Delphes wants plain ``<event>`` without any."""
        if not sample.attributes:
            return np.zeros(0, np.uint8), np.zeros(0, np.int64)
        self._check_names(sample.attributes, "attribute")
        known: dict[tuple[str, str], str] = {}
        pieces = [""] * len(sample)
        for name, values in sample.attributes.items():
            for event, value in enumerate(values.tolist()):
                if value:
                    piece = known.get((name, value))
                    if piece is None:
                        piece = known[name, value] = f" {name}={quoteattr(value)}"
                    pieces[event] += piece
        return _tags(pieces)

    def _check_mean(self) -> None:
        if self.strategy != -4 or not self._n_events or not self.run.processes:
            return
        mean = self._sum / self._n_events
        variance = max(0.0, self._sum2 / self._n_events - mean**2)
        sigma, error = self.run.cross_section, self.run.cross_section_error
        allowed = 5 * math.sqrt(variance / self._n_events) + 5 * error + 1e-3 * abs(sigma)
        if abs(mean - sigma) > allowed:
            _log.warning(
                "%s: the mean weight is %g but the cross section %g pb; Pythia takes the former",
                self.path.name, mean, sigma,
            )  # fmt: skip
