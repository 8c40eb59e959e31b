"""Samples in memory or in several files, as one stream of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import InputError, SampleError, UsageError
from hepgen_ml.events.conditions import Wanted, values_of_run, with_conditions
from hepgen_ml.events.formats import expand, format_of, has_free_weights, open_sample
from hepgen_ml.events.hard_process import HardProcess
from hepgen_ml.events.interfaces import DEFAULT_CHUNK, Reader
from hepgen_ml.events.merging import PEEK, FirstEvents, Merged, merge_runs
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EVENT_NUMBERS, EventSample, RunInfo
from hepgen_ml.events.weights import multiply_weights

log = logging.getLogger(__name__)

Mask = Callable[[EventSample], npt.NDArray[np.bool_]]
"""Function from a sample to the mask (n,) of events to keep."""

Progress = Callable[[str, float, float | None, dict[str, float]], None]
"""Callback for progress: stage, amount done, total (None if unknown), and further numbers."""


class EventSource:
    """Events of one sample or several files as one stream that can be read several times.

    Parameters
    ----------
    source : EventSample, or path or glob pattern or several of these
    skip_bad : bool
        Leave out events that cannot be understood.
    selection : Selection, optional
        Objects to read.
    inside : callable, optional
        Mask (n,) of the events of a sample to keep; the share of the others in the cross section is
        subtracted.
    conditions : sequence of Wanted
        Conditions that events are to have as attributes, also where they are parameters of the
        run of each file.
    hard : bool
        Give events without beams, remnants and the like, see `hepgen_ml.events.hard_process`.

    Attributes
    ----------
    runs : list of RunInfo
        Run information of each file.
    merged : Merged
    paths : list of Path
        Empty for a sample in memory.
    n_events, n_skipped, n_unselected : int
        Events of the latest pass: read, bad ones, and left out by the selection.
    left_out : dict of Path to tuple of str
        Parts of each file that were not read; known after a pass.
    states_strategy : bool
        Whether all files state the weight strategy of their runs.
    """

    keeps_empty = True
    """Whether events without any particle or object count."""

    def __init__(
        self,
        source: EventSample | str | Path | Sequence[str | Path],
        *,
        skip_bad: bool = False,
        selection: Selection | None = None,
        inside: Mask | None = None,
        conditions: Sequence[Wanted] = (),
        hard: bool = False,
    ) -> None:
        self.conditions = tuple(conditions)
        self.hard_process = HardProcess() if hard else None
        self.skip_bad, self.selection, self.inside = skip_bad, selection, inside
        self.n_events = self.n_skipped = self.n_unselected = 0
        self.left_out: dict[Path, tuple[str, ...]] = {}
        self.sample = source if isinstance(source, EventSample) else None
        self.paths: list[Path] = []
        self._looks: dict[int, FirstEvents] = {}
        self._numbers: dict[int, tuple[int | None, ...]] = {}
        self.states_strategy = True
        if self.sample is not None:
            self.runs = [self.sample.run]
        else:
            assert not isinstance(source, EventSample)
            self.paths = expand([source] if isinstance(source, str | Path) else source)
            self.runs = []
            headers: dict[str, str] = {}  # many files of one run share theirs in memory
            for number, path in enumerate(self.paths):
                with closing(self._open(path)) as reader:
                    header = headers.setdefault(reader.run.header, reader.run.header)
                    self.runs.append(reader.run.with_(header=header))
                    free = has_free_weights(format_of(path))
                    self.states_strategy &= bool(getattr(reader, "states_strategy", not free))
                    if len(self.paths) > 1 and selection is None:
                        self._look_into(number, reader)
        self._of_run = [values_of_run(run, self.conditions) for run in self.runs]
        points = [tuple(v.items()) for v in self._of_run] if self.conditions else []
        self._point = [points.index(p) for p in points]  # first file of the same point of a scan
        self.merged: Merged = merge_runs(
            self.runs, self.paths or [None], self._first_events, self._point
        )
        if selection is not None and selection.cross_section is not None and self.n_groups > 1:
            raise UsageError(
                f"one cross section for {self.n_groups} different processes",
                remedy="leave out --cross-section, or take the files of one process",
            )
        self._sums = np.zeros((len(self.runs), 2))  # weights of selected and other events
        self._of_process: dict[int, tuple[float, float]] = {}
        self._factor = np.ones(len(self.runs))  # to the weights of each file
        self._group_weight: list[float] | None = None

    def _open(self, path: Path) -> Reader:
        reader = open_sample(path, skip_bad=self.skip_bad, selection=self.selection)
        also: Callable[[list[str]], None] | None = getattr(reader, "also_read", None)
        if self.conditions and also is not None:
            also([wanted.name for wanted in self.conditions])
        return reader

    def _look_into(self, number: int, reader: Reader) -> None:
        """Record properties of the first events of one of several files while it is open."""
        self._looks[number], self._numbers[number] = FirstEvents(), ()
        with suppress(InputError): # defects of the file are reported when it is read
            for chunk in reader.chunks(PEEK):
                self._looked_at(number, chunk)
                break

    def _looked_at(self, number: int, first: EventSample) -> None:
        """Record properties of the first events of a file."""
        self._looks[number] = FirstEvents.of(first)
        self._numbers[number] = _numbers_of(first)

    def first_numbers(self, number: int) -> tuple[int | None, ...]:
        """Numbers of the first event of a file, None for those that it lacks; () without events."""
        if number not in self._numbers:
            first = self.first_of(number)
            self._numbers[number] = () if first is None else _numbers_of(first)
        return self._numbers[number]

    def _first_events(self, number: int) -> FirstEvents:
        """Properties of a file, from all of its events if possible, as selected ones look alike."""
        if number in self._looks:
            return self._looks[number]
        for selection in dict.fromkeys((None, self.selection)):
            # defects of the file are reported when it is read
            with suppress(InputError, UsageError):
                reader = open_sample(self.paths[number], skip_bad=True, selection=selection)
                with closing(reader):
                    for chunk in reader.chunks(PEEK):
                        return FirstEvents.of(chunk)
        return FirstEvents()

    @property
    def run(self) -> RunInfo:
        """Run information of all files together, after a pass that of the selected events."""
        if not self._sums[:, 1].any():
            return self.merged.run
        sums = self._group_sums()
        whole = float(sums[:, 0].sum() / sums.sum())
        if self.is_scan:
            return self.merged.run.scaled(whole)
        fractions = sums[:, 0] / sums.sum(axis=1)
        group = self.merged.group
        owners = [
            g for g in range(self.n_groups) for _ in self.runs[group.index(g)].processes
        ]  # of the processes of the whole
        processes = []
        for p, g in zip(self.merged.run.processes, owners, strict=True):
            # Cuts take more of one process than of another; a reader's selection counts too.
            inside, outside = self._of_process.get(p.process_id, (0.0, 0.0))
            share = inside / (inside + outside) if inside + outside > 0 else fractions[g]
            changed = replace(p, cross_section=p.cross_section * share, error=p.error * share)
            processes.append(changed)
        scaled = self.merged.run.scaled(whole)  # cross sections of named weights
        return scaled.with_(processes=tuple(processes))

    @property
    def mean_weight(self) -> float:
        """Weights of the selected events of the latest pass over the number of all."""
        return float(self._sums[:, 0].sum() / max(self.n_events + self.n_unselected, 1))

    def _group_sums(self) -> npt.NDArray[np.float64]:
        """Weights of selected and of other events in each group."""
        sums = np.zeros((self.n_groups, 2))
        np.add.at(sums, list(self.merged.group), self._sums)
        return sums

    def peek(self) -> EventSample:
        """The first event.

        Raises
        ------
        InputError
            The first file holds none.
        """
        first = self.first_of(0)
        if first is None:
            raise InputError("holds no events", path=self.paths[0], remedy="check how it was made")
        return first

    def first_of(self, number: int) -> EventSample | None:
        """The first event of file `number`, as it is there; None where it holds none."""
        if self.sample is not None:
            return self.sample[:1]
        reader = self._open(self.paths[number])
        with closing(reader):
            return next(iter(reader.chunks(1)), None)

    def raw(self) -> Iterator[tuple[int, EventSample]]:
        """Number of the file and chunk, as in the file except for the size of weights."""
        self.n_events = self.n_skipped = self.n_unselected = 0
        self._of_process = {}
        sums = np.zeros_like(self._sums)
        if self.sample is not None:
            for chunk in self.sample.chunks(DEFAULT_CHUNK):
                self.n_events += len(chunk)
                yield 0, self._inside(self._conditioned(chunk, 0), sums[0], 0)
        for number, path in enumerate(self.paths):
            reader = self._open(path)
            try:
                for chunk in reader.chunks(DEFAULT_CHUNK):
                    self.n_events += len(chunk)
                    multiply_weights(chunk, self._factor[number])
                    chunk = self._conditioned(chunk, number)
                    yield number, self._inside(chunk, sums[number], number)
                sums[number, 1] += reader.unselected_weight * self._factor[number]
                self.n_skipped += reader.n_skipped
                self.n_unselected += reader.n_unselected
                self.left_out[path] = tuple(reader.left_out)
            finally:
                reader.close()
        self._sums = sums

    def _inside(
        self, chunk: EventSample, sums: npt.NDArray[np.float64], number: int
    ) -> EventSample:
        """Events inside the stated cuts; sums of weights of these and of others grow."""
        if self.hard_process is not None:
            chunk = self.hard_process(chunk)
        passes = (chunk.counts > 0) | self.keeps_empty
        if self.inside is not None:
            passes &= self.inside(chunk)
        if self.inside is not None and "process_id" in chunk.events:
            for process in np.unique(chunk.process_id).tolist():
                mine = chunk.process_id == process
                key = process + self.merged.shift[number]
                selected, others = self._of_process.get(key, (0.0, 0.0))
                selected += float(chunk.weight[mine & passes].sum())
                others += float(chunk.weight[mine & ~passes].sum())
                self._of_process[key] = selected, others
        if passes.all():
            sums[0] += chunk.weight.sum()
            return chunk
        sums += chunk.weight[passes].sum(), chunk.weight[~passes].sum()
        self.n_unselected += int((~passes).sum())
        self.n_events -= int((~passes).sum())
        return chunk[passes]

    def _conditioned(self, chunk: EventSample, number: int) -> EventSample:
        """A chunk of file `number` whose events have their conditions."""
        if not self.conditions or not len(chunk):
            return chunk
        path = self.paths[number] if self.paths else None
        return with_conditions(chunk, self.conditions, self._of_run[number], path)

    @property
    def is_scan(self) -> bool:
        """Whether files are of different points of a scan."""
        return len(set(self._point)) > 1

    @property
    def scan_cross_sections(self) -> dict[tuple[str, ...], float]:
        """Cross sections in pb by the values of all conditions, where runs have all of them."""
        names = [w.name for w in self.conditions]
        found: dict[tuple[str, ...], float] = {}
        if not self.is_scan or any(set(names) - set(v) for v in self._of_run):
            return found
        for point in sorted(set(self._point)):
            groups = {
                g for p, g in zip(self._point, self.merged.group, strict=True) if p == point
            }
            key = tuple(self._of_run[point][name] for name in names)
            sigma = sum(self.merged.group_cross_section[g] for g in groups)
            # the selection removes a part of it
            mine = np.array(self._point) == point
            whole = self._sums[mine].sum()
            found[key] = sigma * (self._sums[mine, 0].sum() / whole if whole else 1.0)
        return found

    def joined(self, number: int, chunk: EventSample) -> EventSample:
        """A chunk of file `number` as part of the whole: weights, process numbers, run."""
        if self._group_weight is not None:
            multiply_weights(chunk, self._group_weight[self.merged.group[number]])
        if self.merged.shift[number] and "process_id" in chunk.events:
            chunk.events["process_id"] = chunk.process_id + self.merged.shift[number]
        return chunk

    @property
    def n_groups(self) -> int:
        """Number of different processes in the files, each with its own cross section."""
        return len(self.merged.group_cross_section)

    def weigh_groups(self) -> None:
        """Give each group of files the weight of its cross section; the mean becomes their sum.

        Within a group, files have the same mean absolute weight. Needs a pass over the files
        where several processes are combined, and one where weights of a group differ in size.

        Raises
        ------
        SampleError
            A cross section is not known.
        """
        self._match_weights()
        if self.n_groups < 2:
            return
        several = [p for p in set(self._point) if len(self._groups_of(p)) > 1]
        for number, (run, path) in enumerate(zip(self.runs, self.paths, strict=True)):
            # the only process at its point of a scan needs no cross section
            if self.is_scan and self._point[number] not in several:
                continue
            if not run.cross_section > 0:
                raise SampleError(
                    "has no cross section, so it cannot be combined with other processes",
                    path=path,
                    remedy="give it with --cross-section, or take one file at a time",
                )
        counts = np.zeros(len(self.runs))
        for number, chunk in self.raw():
            counts[number] += len(chunk)
        # the selection removes a part of the cross section of a group, too
        if not (self._group_sums().sum(axis=1) > 0).all():
            raise SampleError(
                "the weights of a process do not have a positive sum",
                path=self.paths[0],
                remedy="take one process at a time",
            )
        expected = np.array(self.merged.group_cross_section) * self.n_events
        if self.is_scan:
            expected = self._by_points(counts)
        self._group_weight = list(expected / self._group_sums().sum(axis=1))

    def _groups_of(self, point: int) -> list[int]:
        """Groups of files at a point of a scan."""
        pairs = zip(self._point, self.merged.group, strict=True)
        return sorted({g for p, g in pairs if p == point})

    def _by_points(self, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sums of weights of each group, so that weights average to one at each point of a scan.

        Thus the density at each point is learned from all of its events, even if cross sections
        differ strongly from point to point.
        """
        sigma = np.array(self.merged.group_cross_section)
        expected = np.zeros(self.n_groups)
        for point in set(self._point):
            groups = self._groups_of(point)
            n = counts[np.array(self._point) == point].sum()
            share = sigma[groups] / sigma[groups].sum() if len(groups) > 1 else 1.0
            expected[groups] = n * share
        return expected

    def multiply_weights(self, factor: float) -> None:
        """Multiply all weights of later passes."""
        self._factor *= factor

    def _match_weights(self) -> None:
        """Rescale files whose weights differ in size from those of other runs of their process."""
        like = list(self.merged.weights_like)
        if like == list(range(len(like))):
            return
        sums = np.zeros((len(like), 2))
        for number, chunk in self.raw():
            sums[number] += np.abs(chunk.weight).sum(), len(chunk)
        if not sums[:, 0].all():
            return  # a file without events that count
        mean = sums[:, 0] / sums[:, 1]
        self._factor *= np.where(np.arange(len(like)) == like, 1.0, mean[like] / mean)
        for number, model in enumerate(like):
            if number != model:
                log.info(
                    "weights of %s are multiplied by %.6g, to be as large as those of %s",
                    self.paths[number], self._factor[number], self.paths[model],
                )  # fmt: skip


def _numbers_of(sample: EventSample) -> tuple[int | None, ...]:
    """Numbers of the first event, None for those that it lacks."""
    columns = sample.events
    return tuple(int(columns[k][0]) if k in columns else None for k in EVENT_NUMBERS)
