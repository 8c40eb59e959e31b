"""Reading LHEH5 files of versions 0 to 2."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._run_json import load_run
from hepgen_adapters.lheh5.layout import (
    INTEGERS,
    METADATA,
    METADATA_VERSION,
    NOMINAL,
    NOT_WEIGHTS,
    PARTICLE_COLUMNS,
    PB_PER_GEV2,
    columns_of_weights,
)
from hepgen_adapters.lheh5.sources import Columns, source_of
from hepgen_adapters.lheh5.tables import Tables
from hepgen_ml.errors import InputError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.sample import (
    EVENT_COLUMNS,
    EVENT_NUMBERS,
    EventSample,
    RunInfo,
    Subrun,
    concatenate,
)
from hepgen_ml.events.sample import (
    PARTICLE_COLUMNS as SAMPLE_COLUMNS,
)
from hepgen_ml.files import documents

log = logging.getLogger("hepgen_adapters.lheh5")

_PASS = 200_000  # rows of events read at once to add up their weights
_MOST_ROWS = 100_000  # particles of one event
_MOST_PROCESSES = 100_000
_KEPT_ERRORS = 100
_FAR = 5.0  # standard deviations between stated and summed cross section
_COLUMN_OF = {"process_id": "pid", "scale": "scale", "alpha_qed": "aqed", "alpha_qcd": "aqcd"}


class LHEH5Reader:
    """An opened LHEH5 file; see `hepgen_ml.events.formats.Reader`.

    Weights of version 2 become those of strategy -4: their mean is the sum of weights over the
    sum of trials. Rows with weight zero and no particles only count trials and are not events.
    """

    n_unselected = 0
    unselected_weight = 0.0
    states_strategy = True

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        self.path, self.skip_bad = path, skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = 0
        self.left_out: list[str] = []
        self.tables = Tables(path)
        try:
            self.source = source_of(self.tables)
            self._ours = self._document()
            self._read_run()
            if self.source.n_events == 0:
                raise self.tables.fail("holds no events", remedy="check how it was made")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.tables.close()

    def _document(self) -> dict[str, Any] | None:
        """Group of a file written by hepgen-ml, validated."""
        if "document" not in self.tables.names(METADATA):
            return None
        damaged = f"what group {METADATA!r} says is not valid"
        try:
            found = documents.parse(self.tables.text(f"{METADATA}/document"))
            if found["version"] != METADATA_VERSION:
                raise self.tables.fail("was written by a newer version", remedy="upgrade hepgen-ml")
            result: dict[str, Any] = {
                "process_ids": [int(i) for i in found["process_ids"]],
                "factor": float(found["factor"]),
                "equal": float(found["equal"]),
                "weights": None,  # files of before have columns of the same names
            }
            if "weights" in found:
                result["weights"] = columns_of_weights([str(n) for n in found["weights"]])
            known = {
                "columns": SAMPLE_COLUMNS, "event_columns": EVENT_COLUMNS,
                "numbers": EVENT_NUMBERS, "scales": None, "attributes": None,
            }  # fmt: skip
            for kind, allowed in known.items():
                names = [str(n) for n in found[kind]]
                if allowed is not None and not set(names) <= set(allowed):
                    raise self.tables.fail(f"{damaged}: {kind}")
                result[kind] = names
            if not (result["factor"] > 0 and result["equal"] > 0):
                raise self.tables.fail(f"{damaged}: factor")
            self._run = load_run(self.tables.text(f"{METADATA}/run"), self.path)
        except (*documents.UNUSABLE, AttributeError) as error:
            raise self.tables.fail(f"{damaged} ({documents.problem(error)})") from error
        for kind in ("scales", "numbers", "attributes"):
            if result[kind]:
                dataset = self.tables.shape(f"{METADATA}/{kind}")
                if dataset != (self.source.n_events, len(result[kind])):
                    raise self.tables.fail(f"{damaged}: {kind} of {dataset}")
        return result

    def _read_run(self) -> None:
        """Run information, names of weights and the factor that normalises their mean to a rate."""
        names = self.source.event_names
        self._nominal = next((n for n in NOMINAL if n in names), "")
        if not self._nominal:
            remedy = "name a file with Les Houches events"
            raise self.tables.fail("its events have no weight", remedy=remedy)
        self._named = {n: n for n in self.source.weight_names if n not in NOT_WEIGHTS}
        if self._ours is not None:
            self.run, self.factor = self._run, 1.0 / self._ours["factor"]
            if (columns := self._ours["weights"]) is not None:
                if set(columns.values()) != set(self._named):
                    raise self.tables.fail(f"what group {METADATA!r} says is not valid: weights")
                self._named = columns
            self._process_ids = np.array(self._ours["process_ids"] or [0], dtype=np.int64)
            return
        if unread := [n for n in ("ctevents", "ctparticles") if n in self.tables.names()]:
            self.left_out.append(f"counter-events of MC@NLO ({', '.join(unread)})")
        init = defaultdict(float, self.source.init())
        processes = self._processes()
        self._process_ids = np.array([p.process_id for p in processes] or [0], dtype=np.int64)
        strategy = int(init["weightingStrategy"]) if self.source.version < 2 else -4
        self.factor = 1.0
        if self.source.version >= 2:
            processes = self._by_trials(processes)
        self.run = RunInfo(
            beam_pdg_id=(int(init["beamA"]), int(init["beamB"])),
            beam_energy=(abs(init["energyA"]), abs(init["energyB"])),
            pdf_group=(int(init["PDFgroupA"]), int(init["PDFgroupB"])),
            pdf_set=(int(init["PDFsetA"]), int(init["PDFsetB"])),
            weight_strategy=strategy if strategy in (-4, -3, -2, -1, 1, 2, 3, 4) else 3,
            processes=processes,
            generators=self.source.generators(),
            weight_names={name: "" for name in self._named},
        )

    def _processes(self) -> tuple[Subrun, ...]:
        table = self.source.processes()
        n = len(table.get("procId", ()))
        if n > _MOST_PROCESSES:
            raise self.tables.fail(f"states {n} processes")
        missing = np.full(n, np.nan)
        in_gev = self.source.full_version == (2, 0, 0)
        unit = table.get("unitWeight", np.ones(n)) * (PB_PER_GEV2 if in_gev else 1.0)
        found = []
        for i in range(n):
            number = table["procId"][i]
            if not abs(number) < 2**31 or number != int(number):
                raise self.tables.fail(f"process {i + 1} has the id {number}")
            sigma, error = (float(table.get(k, missing)[i]) for k in ("xSection", "error"))
            known = math.isfinite(sigma) and sigma != 0
            top = float(unit[i]) if math.isfinite(unit[i]) and unit[i] > 0 else 1.0
            found.append(Subrun(int(number), sigma if known else math.nan,
                                error if known and error >= 0 else math.nan, top))  # fmt: skip
        return tuple(found)

    def _by_trials(self, processes: tuple[Subrun, ...]) -> tuple[Subrun, ...]:
        """Factor of the weights, and the cross section of the events if none is stated."""
        sums, n_bad = np.zeros(4), 0  # trials, weights, their squares, events
        for start in range(0, self.source.n_events, _PASS):
            stop = min(start + _PASS, self.source.n_events)
            columns = self.source.events(start, stop)
            w = columns[self._nominal]
            trials = columns.get("trials", np.ones(len(w)))
            bad = ~(trials >= 1) | ~np.isfinite(trials)
            n_bad += int(bad.sum())
            w = np.where(np.isfinite(w), w, 0.0)
            sums += np.where(bad, 1.0, trials).sum(), w.sum(), (w**2).sum(), (w != 0).sum()
        if n_bad:
            log.warning("%s: trials of %d events are not positive integers and count as 1",
                        self.path, n_bad)  # fmt: skip
        n_trials, total, squares, n = sums.tolist()
        if not n > 0:
            raise self.tables.fail("all weights are zero", remedy="check how it was made")
        self.factor = float(n / n_trials)
        mean = total / n_trials
        error = math.sqrt(max(squares / n_trials - mean**2, 0.0) / n_trials)
        stated = sum(p.cross_section for p in processes)
        stated_error = math.sqrt(sum(p.error**2 for p in processes if p.error > 0))
        near = abs(stated - mean) <= _FAR * math.hypot(error, stated_error) + 1e-6 * abs(mean)
        if processes and near:
            return processes
        if processes and math.isfinite(stated):
            log.warning(
                "%s: states a cross section of %g pb; that of its events, the sum of weights over "
                "trials, is %g pb and taken", self.path, stated, mean,
            )  # fmt: skip
        if len(processes) == 1:
            (one,) = processes
            return (Subrun(one.process_id, mean, error, one.max_weight),)
        if processes and math.isfinite(stated) and stated != 0:
            part = mean / stated
            return tuple(Subrun(p.process_id, part * p.cross_section, abs(part) * p.error,
                                p.max_weight) for p in processes)  # fmt: skip
        return processes if processes else (Subrun(0, mean, error),)

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, `size` at a time."""
        n_good = 0
        for start in range(0, self.source.n_events, size):
            stop = min(start + size, self.source.n_events)
            sample = self._chunk(start, stop)
            n_good += len(sample)
            if self.n_skipped > max(n_good, 10) and stop == self.source.n_events:
                raise self.tables.fail(f"{self.n_skipped} bad events and {n_good} good ones")
            if len(sample):
                yield sample

    def _chunk(self, start: int, stop: int) -> EventSample:
        columns = self.source.events(start, stop)
        counts, first = columns["nparticles"], columns["start"]
        if not (np.isfinite(counts).all() and np.isfinite(first).all()):
            return self._singly(start, stop, "its number of particles is none")
        bad = (counts < 0) | (counts > _MOST_ROWS) | (first < 0)
        bad |= first + counts > self.source.n_particles
        wanted = ~bad
        if self._ours is None:  # trials without an event
            wanted &= columns[self._nominal] != 0
        for row in np.flatnonzero(bad):
            self._bad("its particles reach beyond the end of the file", start + int(row))
        rows = np.flatnonzero(wanted)
        if len(rows) == 0:
            return self._empty()
        sizes, first = counts[rows].astype(np.int64), first[rows].astype(np.int64)
        low, high = int(first.min()), int((first + sizes).max())
        if high - low > 4 * int(sizes.sum()) + 100_000:
            raise self.tables.fail(
                "particles of its events are far from each other", start + int(rows[0]) + 1
            )
        table = self.source.particles(low, high)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        index = np.arange(offsets[-1]) + np.repeat(first - low - offsets[:-1], sizes)
        particles = {name: table[column][index] for name, column in PARTICLE_COLUMNS.items()
                     if column in table}  # fmt: skip
        good = self._valid(particles, offsets, columns, rows, start)
        sample = self._sample(particles, offsets, columns, rows, start)
        return sample if good.all() else sample[good]

    def _singly(self, start: int, stop: int, what: str) -> EventSample:
        """Part of the file with invalid numbers of particles, read event by event."""
        if stop - start > 1:
            middle = (start + stop) // 2
            parts = [p for p in (self._chunk(start, middle), self._chunk(middle, stop)) if len(p)]
            return concatenate(parts) if parts else self._empty()
        self._bad(what, start)
        return self._empty()

    def _empty(self) -> EventSample:
        return EventSample(self.run, [0], {name: [] for name in PARTICLE_COLUMNS})

    def _bad(self, what: str, event: int) -> None:
        """Refuse an event (from 0), or leave it out."""
        error = self.tables.fail(what, event + 1)
        if not self.skip_bad:
            raise error
        self.n_skipped += 1
        if len(self.skipped) < _KEPT_ERRORS:
            self.skipped.append(error)

    def _valid(
        self,
        particles: dict[str, npt.NDArray[np.float64]],
        offsets: npt.NDArray[np.int64],
        columns: Columns,
        rows: npt.NDArray[np.int64],
        start: int,
    ) -> npt.NDArray[np.bool_]:
        """(n,) events whose numbers are valid; others are refused or neutralised."""
        event = np.repeat(np.arange(len(rows)), np.diff(offsets))
        good = np.isfinite(columns[self._nominal][rows])
        for name, values in particles.items():
            fine = np.isfinite(values)
            if name in INTEGERS:
                fine &= (np.abs(values) < 2**31) & (values == np.floor(values))
            if not fine.all():
                good[event[~fine]] = False
                particles[name] = np.where(fine, values, 0.0)
        pid = columns.get("pid", np.zeros(len(columns[self._nominal])))
        good &= np.abs(np.nan_to_num(pid[rows], nan=np.inf)) < 2**31
        for k in np.flatnonzero(~good):
            self._bad("holds a number that is none", start + int(rows[k]))
        return good

    def _sample(
        self,
        particles: dict[str, npt.NDArray[np.float64]],
        offsets: npt.NDArray[np.int64],
        columns: Columns,
        rows: npt.NDArray[np.int64],
        start: int,
    ) -> EventSample:
        weight = columns[self._nominal][rows]
        events: dict[str, npt.NDArray[Any]] = {}
        for name, column in _COLUMN_OF.items():
            if column in columns:
                events[name] = columns[column][rows]
            if name == "process_id":
                events["weight"] = weight * self.factor
        if "process_id" in events:
            events["process_id"] = self._process_numbers(events["process_id"])
        if "scale" in events:
            other = columns.get("rscale", columns["scale"])[rows]
            events["scale"] = np.where(events["scale"] > 0, events["scale"], other)
        weights = {n: columns[column][rows] * self.factor for n, column in self._named.items()}
        scales: dict[str, npt.NDArray[Any]] = {}
        attributes: dict[str, npt.NDArray[Any]] = {}
        if self._ours is None:
            for name, column in (("mur", "rscale"), ("muf", "fscale")):
                own = columns.get(column)
                if own is not None and np.any(own[rows] != events.get("scale", 0.0)):
                    scales[name] = own[rows]
        else:
            particles = {k: v for k, v in particles.items() if k in self._ours["columns"]}
            equal, factor = self._ours["equal"], self._ours["factor"]
            if factor != 1.0:  # equal weights come back exactly
                same = np.abs(weight) == equal * factor
                events["weight"] = np.where(same, np.copysign(equal, weight), events["weight"])
            events = {k: events[k] for k in self._ours["event_columns"]}
            stop = start + int(rows[-1]) + 1
            for kind, target in (("scales", scales), ("numbers", events)):
                if names := self._ours[kind]:
                    table = self.tables.rows(f"{METADATA}/{kind}", start, stop)[rows]
                    target.update(zip(names, table.T, strict=True))
            if names := self._ours["attributes"]:
                texts = self.tables.texts(f"{METADATA}/attributes", start, stop, len(names))
                attributes = dict(zip(names, texts[rows].T, strict=True))
        return EventSample(
            self.run, offsets, particles, events, weights=weights, scales=scales,
            attributes=attributes,
        )  # fmt: skip

    def _process_numbers(self, pid: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Numbers of processes: an id of ``procInfo``, or else its row counted from 1.

        In files of hepgen-ml both are the row, and the ids of the Les Houches accord are separate.
        """
        numbers = np.nan_to_num(pid).astype(np.int64)
        by_row = self._process_ids[np.clip(numbers, 1, len(self._process_ids)) - 1]
        if self._ours is not None:
            return by_row
        return np.where(np.isin(numbers, self._process_ids), numbers, by_row)
