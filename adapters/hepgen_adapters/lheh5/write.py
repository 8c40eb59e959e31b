"""Writing LHEH5 files, with chunks that are compressed here.

HDF5's deflate filter is plain zlib data, so that chunks compressed by ISA-L are ordinary ones.
Pythia's reader sets the conditions: every process states the largest number of rows that its
events have (``npLO``), and ``particles`` has at least as many rows as all events of that size
would need; rows that were never written are zeros and take no space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from hepgen_adapters._partons import require_partons
from hepgen_adapters._run_json import dump_run, shortened
from hepgen_adapters.lheh5.layout import (
    EVENTS,
    INIT,
    METADATA,
    METADATA_VERSION,
    PARTICLE_COLUMNS,
    PARTICLES,
    PROCESSES,
    columns_of_weights,
)
from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import (
    EVENT_COLUMNS,
    EVENT_NUMBERS,
    UNKNOWN_SPIN,
    EventSample,
    RunInfo,
    Subrun,
)

_EVENT_ROWS, _PARTICLE_ROWS = 4096, 16384
_LEVEL = 1
_FEWEST_ROWS = 3  # of an event, below which Pythia's reader does not work
_CLOSE = 1e-4  # equal weights as far from the cross section as a text of them is


class _Table:
    """A dataset of float64 rows that grows by whole compressed chunks."""

    def __init__(self, file: Any, name: str, columns: tuple[str, ...], rows: int) -> None:
        import h5py

        self.width, self.rows, self.n = len(columns), rows, 0
        self._pending: list[npt.NDArray[np.float64]] = []
        self._n_pending = 0
        self.dataset = file.create_dataset(
            name, (0, self.width), np.float64, maxshape=(None, self.width),
            chunks=(rows, self.width), compression="gzip", compression_opts=_LEVEL,
        )  # fmt: skip
        # the only attribute: Pythia takes the first for the names of columns
        self.dataset.attrs.create("properties", list(columns), dtype=h5py.string_dtype())

    def append(self, rows: npt.NDArray[np.float64]) -> None:
        """Add rows (n, columns)."""
        self._pending.append(rows)
        self._n_pending += len(rows)
        if self._n_pending >= self.rows:
            table = np.concatenate(self._pending)
            whole = len(table) // self.rows * self.rows
            for start in range(0, whole, self.rows):
                self._write(table[start : start + self.rows])
            self._pending, self._n_pending = [table[whole:]], len(table) - whole

    def _write(self, chunk: npt.NDArray[np.float64]) -> None:
        start = self.n
        self.n += len(chunk)
        self.dataset.resize(self.n, axis=0)
        if len(chunk) < self.rows:
            filled = np.zeros((self.rows, self.width))
            filled[: len(chunk)] = chunk
            chunk = filled
        packed = isal_zlib.compress(np.ascontiguousarray(chunk).tobytes(), _LEVEL)
        self.dataset.id.write_direct_chunk((start, 0), packed)

    def finish(self, at_least: int = 0) -> None:
        """Write the remaining rows; further rows up to a number are zero."""
        if self._n_pending:
            self._write(np.concatenate(self._pending))
            self._pending, self._n_pending = [], 0
        if self.n < at_least:
            self.dataset.resize(at_least, axis=0)


class LHEH5Writer:
    """An LHEH5 file of version 2.1 being written; see `hepgen_ml.events.formats.Writer`.

    Events have one trial each and weights whose mean is the cross section in pb. Equal weights of
    another size are multiplied by one factor, which the reader of hepgen-ml divides out.

    Attributes
    ----------
    run : RunInfo
        Written last; may be replaced before.
    """

    def __init__(self, path: Path, run: RunInfo) -> None:
        import h5py

        self.path, self.run = path, run
        # no times, so that the same events are the same bytes
        self._file = h5py.File(path, "w", libver=("earliest", "v110"), track_order=False)
        self._events: _Table | None = None
        self._particles: _Table | None = None
        self._weights: tuple[str, ...] = ()
        self._extra: dict[str, tuple[str, ...]] = {}
        self._columns: tuple[str, ...] = ()
        self._event_columns: tuple[str, ...] = ()
        self._row_of: dict[int, int] = {}
        self._longest: list[int] = []
        self._n_rows = self._n = 0
        self._factor: float | None = None
        self._equal = 1.0
        self._closed = False

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk; all chunks have the same columns."""
        require_partons(sample, "an LHEH5 file", self.path)
        if self._events is None:
            self._begin(sample)
        assert self._events is not None
        assert self._particles is not None
        extra = {name: tuple(getattr(sample, name)) for name in ("scales", "attributes")}
        numbers = tuple(n for n in EVENT_NUMBERS if n in sample.events)
        if tuple(sample.weights) != self._weights or extra | {"numbers": numbers} != self._extra:
            raise OutputError(
                "the columns change between chunks", path=self.path, remedy="write two files"
            )
        if not len(sample):
            return
        n, counts = len(sample), sample.counts
        table = np.zeros((n, len(EVENTS) + len(self._weights)))
        table[:, 0] = self._process_rows(sample) + 1
        table[:, 1] = counts
        table[:, 2] = self._n_rows + sample.offsets[:-1]
        table[:, 3] = 1.0
        scale = sample.events.get("scale", np.zeros(n))
        for column, name in ((4, ""), (5, "muf"), (6, "mur")):
            own = sample.scales.get(name)
            table[:, column] = scale if own is None else np.where(np.isnan(own), scale, own)
        for column, name in ((7, "alpha_qed"), (8, "alpha_qcd")):
            table[:, column] = sample.events.get(name, 0.0)
        table[:, 9] = sample.events["weight"] * self._factor_of(sample)
        for k, values in enumerate(sample.weights.values(), start=len(EVENTS)):
            table[:, k] = values * self._factor_of(sample)
        self._events.append(table)
        self._particles.append(_particle_rows(sample))
        self._append_extra(sample)
        self._n_rows += int(sample.offsets[-1])
        self._n += n

    def _begin(self, sample: EventSample) -> None:
        self._weights = tuple(sample.weights)
        self._columns = tuple(sample.particles)
        self._event_columns = tuple(n for n in EVENT_COLUMNS if n in sample.events)
        self._extra = {name: tuple(getattr(sample, name)) for name in ("scales", "attributes")}
        self._extra["numbers"] = tuple(n for n in EVENT_NUMBERS if n in sample.events)
        self._group = self._file.create_group(METADATA)
        columns = columns_of_weights(self._weights).values()
        self._events = _Table(self._file, "events", (*EVENTS, *columns), _EVENT_ROWS)
        self._particles = _Table(self._file, "particles", PARTICLES, _PARTICLE_ROWS)
        self._more: dict[str, Any] = {}
        for kind in ("scales", "numbers"):
            if names := self._extra[kind]:
                self._more[kind] = _Table(self._group, kind, names, _EVENT_ROWS)
        if names := self._extra["attributes"]:
            import h5py

            self._more["attributes"] = self._group.create_dataset(
                "attributes", (0, len(names)), h5py.string_dtype(), maxshape=(None, len(names)),
                chunks=(_EVENT_ROWS, len(names)), compression="gzip",
            )  # fmt: skip

    def _append_extra(self, sample: EventSample) -> None:
        for kind, columns in (("scales", sample.scales), ("numbers", sample.events)):
            if names := self._extra[kind]:
                rows = np.stack([columns[name].astype(np.float64) for name in names], axis=1)
                self._more[kind].append(rows)
        if names := self._extra["attributes"]:
            table = self._more["attributes"]
            table.resize(self._n + len(sample), axis=0)
            texts = np.stack([sample.attributes[name].astype(object) for name in names], axis=1)
            table[self._n :] = texts

    def _process_rows(self, sample: EventSample) -> npt.NDArray[np.int64]:
        """Rows (n,) of the process of each event in ``procInfo``, from 0."""
        if not self._row_of:
            for process in self.run.processes:
                self._row_of.setdefault(process.process_id, len(self._row_of))
            self._longest = [0] * len(self._row_of)
        ids = sample.events.get("process_id", np.zeros(len(sample), dtype=np.int32))
        rows = np.zeros(len(sample), dtype=np.int64)
        for number in np.unique(ids).tolist():
            row = self._row_of.setdefault(number, len(self._row_of))
            if row == len(self._longest):
                self._longest.append(0)
            mine = ids == number
            rows[mine] = row
            self._longest[row] = max(self._longest[row], int(sample.counts[mine].max()))
        return rows

    def _factor_of(self, sample: EventSample) -> float:
        """Factor that makes the mean of equal weights the cross section."""
        if self._factor is None:
            size, sigma = abs(float(sample.events["weight"][0])), abs(self.run.cross_section)
            self._factor = 1.0
            equal = abs(self.run.weight_strategy) == 3 and size > 0 and np.isfinite(sigma)
            if equal and sigma > 0 and abs(size / sigma - 1) > _CLOSE:
                self._factor, self._equal = sigma / size, size
        return self._factor

    def close(self) -> None:
        """Finish the file."""
        if self._closed:
            return
        self._closed = True
        try:
            self._finish()
        finally:
            self._file.close()

    def _finish(self) -> None:
        import h5py

        if self._events is None:
            self._begin(EventSample(self.run, [0], {k: [] for k in PARTICLE_COLUMNS}))
        assert self._events is not None
        assert self._particles is not None
        for kind, table in self._more.items():
            if kind != "attributes":
                table.finish()
        processes = self._processes()
        longest = max([_FEWEST_ROWS, *self._longest])
        self._events.finish()
        self._particles.finish(self._n * longest)
        run = self.run
        init = [*run.beam_pdg_id, *run.beam_energy, *run.pdf_group, *run.pdf_set, -4.0,
                len(processes)]  # fmt: skip
        rows = [
            [row + 1, longest, -1, p.cross_section, p.error, p.max_weight]
            for row, p in enumerate(processes)
        ]
        tables = (
            ("init", np.array(init, dtype=np.float64), INIT),
            ("procInfo", np.array(rows, dtype=np.float64).reshape(-1, len(PROCESSES)), PROCESSES),
        )
        for name, values, columns in tables:
            dataset = self._file.create_dataset(name, data=values)
            dataset.attrs.create("properties", list(columns), dtype=h5py.string_dtype())
        self._file.create_dataset("version", data=np.array([2, 1, 0], dtype=np.int32))
        document = {
            "version": METADATA_VERSION,
            "process_ids": [p.process_id for p in processes],
            "factor": self._factor or 1.0,
            "equal": self._equal,
            "columns": list(self._columns),
            "event_columns": list(self._event_columns),
            "weights": list(self._weights),
            **{kind: list(names) for kind, names in self._extra.items()},
        }
        texts = {"document": json.dumps(document), "run": dump_run(shortened(run))}
        for name, text in texts.items():
            self._group.create_dataset(name, data=text, dtype=h5py.string_dtype())

    def _processes(self) -> tuple[Subrun, ...]:
        """Processes in the order of ``procInfo``."""
        known = {p.process_id: p for p in self.run.processes}
        if not self._row_of:
            return self.run.processes
        missing = Subrun(0, np.nan, np.nan)
        return tuple(
            known.get(number) or Subrun(number, missing.cross_section, missing.error)
            for number in self._row_of
        )


def _particle_rows(sample: EventSample) -> npt.NDArray[np.float64]:
    """Rows (k, 13) of ``particles``; incoming particles have the mothers (0, 0) anyway."""
    rows = np.zeros((int(sample.offsets[-1]), len(PARTICLES)))
    for k, name in enumerate(PARTICLE_COLUMNS):
        if name in sample.particles:
            rows[:, k] = sample.particles[name]
        elif name == "spin":
            rows[:, k] = UNKNOWN_SPIN
    return rows
