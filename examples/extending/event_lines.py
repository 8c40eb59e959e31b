"""A format of its own for parton-level events: JSON, one line for the run and one per event.

Installed with the entry point ``lines = "event_lines:EventLines"`` in the group
``hepgen_ml.formats``, it is read and written by every command under names that end in ``.jsonl``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun

PARTICLE = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")
MOMENTUM = ("px", "py", "pz", "energy", "mass")
COLUMNS = (*PARTICLE, *MOMENTUM)
LONGEST_LINE = 1_000_000
"""Characters. Files are untrusted: one line must not fill the memory."""


class EventLines:
    """The format: what it is called, and how its files are opened and created."""

    name = "lines"
    suffixes = (".jsonl",)
    needs_n_events = False
    run_last = False

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading; the run information is known at once."""
        if selection is not None and selection.objects:
            raise UsageError("holds partons, no objects", path=path, remedy="leave --objects out")
        return Reader(path, skip_bad)

    def create(self, path: Path, run: RunInfo, n_events: int | None, **options: Any) -> Writer:
        """Begin a file."""
        return Writer(path, run)

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """What of a sample is lost in such a file."""
        if sample.is_reconstructed:
            raise OutputError("reconstructed objects have no place here", remedy="write .root")
        lost = ["named weights"] if sample.weights else []
        return [*lost, "header texts"] if sample.run.header else lost


class Writer:
    """A file being written."""

    def __init__(self, path: Path, run: RunInfo) -> None:
        self.run = run
        self._file: IO[str] = path.open("w", encoding="utf-8")
        self._line(
            {
                "beams": [run.beam_pdg_id, run.beam_energy],
                "weight_strategy": run.weight_strategy,
                "processes": [[p.process_id, p.cross_section, p.error] for p in run.processes],
            }
        )

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk."""
        for i in range(len(sample)):
            rows = slice(*sample.offsets[i : i + 2])
            columns = [sample.particles[name][rows].tolist() for name in COLUMNS]
            head = [int(sample.process_id[i]), float(sample.weight[i]), float(sample.scale[i])]
            self._line([head, *columns])

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _line(self, content: Any) -> None:
        self._file.write(json.dumps(content) + "\n")


class Reader:
    """An opened file."""

    left_out = ()
    n_unselected = 0
    unselected_weight = 0.0

    def __init__(self, path: Path, skip_bad: bool) -> None:
        self.path, self.skip_bad = path, skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = 0
        self._file: IO[str] = path.open(encoding="utf-8", errors="replace")
        try:
            content = json.loads(self._file.readline(LONGEST_LINE))
            (first, second), energies = content["beams"]
            self.run = RunInfo(
                beam_pdg_id=(int(first), int(second)),
                beam_energy=(float(energies[0]), float(energies[1])),
                weight_strategy=int(content["weight_strategy"]),
                processes=tuple(
                    Subrun(int(n), float(value), float(error))
                    for n, value, error in content["processes"]
                ),
            )
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            self.close()
            raise InputError(
                f"does not begin with a run: {error}", path=path, line=1, remedy="check the file"
            ) from None

    def chunks(self, size: int = 20_000) -> Iterator[EventSample]:
        """Events in file order, `size` at a time."""
        events: list[Any] = []
        for number, line in enumerate(iter(lambda: self._file.readline(LONGEST_LINE), ""), 1):
            try:
                events.append(self._event(line))
            except (ValueError, TypeError, RecursionError) as error:
                bad = InputError(
                    str(error), path=self.path, event=number, line=number + 1,
                    remedy="leave it out with --skip-bad",
                )  # fmt: skip
                if not self.skip_bad:
                    raise bad from None
                self.n_skipped += 1
                self.skipped.append(bad)
            if len(events) == size:
                yield self._sample(events)
                events = []
        if events:
            yield self._sample(events)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @staticmethod
    def _event(line: str) -> tuple[list[float], np.ndarray]:
        head, *columns = json.loads(line)
        table = np.array(columns, dtype=float)  # refuses columns of different length
        if len(head) != 3 or table.ndim != 2 or len(table) != len(COLUMNS):
            raise ValueError(f"an event has 3 numbers and {len(COLUMNS)} columns")
        if not np.isfinite(table).all():
            raise ValueError("a momentum is not a finite number")
        return [float(value) for value in head], table

    def _sample(self, events: list[Any]) -> EventSample:
        heads = np.array([head for head, _ in events])
        table = np.concatenate([rows for _, rows in events], axis=1)
        return EventSample(
            self.run,
            np.cumsum([0, *(rows.shape[1] for _, rows in events)]),
            dict(zip(COLUMNS, table, strict=True)),
            dict(zip(("process_id", "weight", "scale"), heads.T, strict=True)),
        )
