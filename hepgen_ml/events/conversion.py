"""Conversion between file formats, with a list of the information that is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events.formats import AtomicWriter, has_free_weights, output_format
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EVENT_NUMBERS, EventSample, RunInfo
from hepgen_ml.events.source import EventSource
from hepgen_ml.events.weights import WeightSums, les_houches
from hepgen_ml.files.streams import is_stream

log = logging.getLogger(__name__)

Progress = Callable[[str, float, float | None], None]


@dataclass(frozen=True)
class Conversion:
    """Account of a conversion.

    Attributes
    ----------
    n_events : int
        Written to every file.
    n_skipped, n_unselected : int
        Bad events, and events with other numbers of objects than the selection.
    run : RunInfo
        Run information of the written events.
    left_out : dict of Path to tuple of str
        Parts of each input that were not read.
    lost : dict of Path to tuple of str
        Parts of the events that each output cannot hold.
    """

    n_events: int
    n_skipped: int
    n_unselected: int
    run: RunInfo
    left_out: dict[Path, tuple[str, ...]]
    lost: dict[Path, tuple[str, ...]]


def convert(
    source: str | Path | Sequence[str | Path],
    out: str | Path | Sequence[str | Path],
    *,
    selection: Selection | None = None,
    skip_bad: bool = False,
    force: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Write the events of some files to others, in chunks.

    Several inputs become one sample as in training: repeated runs are pooled;
    events of different processes get weights whose mean is the sum of the cross
    sections (weight strategy -4), and process numbers that differ. Weights of any
    scale, as HepMC3 and ROOT files have them, are brought into the form that LHE files
    need (`hepgen_ml.events.weights`), named weights with them.

    Parameters
    ----------
    source : path or glob pattern, or several
    out : path, or several
        Formats follow from the names; all get the same events. ``-`` is standard output.
    selection : Selection, optional
        Objects to read, from reconstructed or showered events.
    skip_bad : bool
        Leave out bad events instead of refusing them.
    force : bool
        Replace existing files.
    format : str, optional
        Of outputs that are pipes, where their names do not say it: ``lhe``, ``hepmc.gz``.
    progress : callable, optional
        Called with stage, done and total.

    Raises
    ------
    InputError, SampleError
        An input cannot be read, or the inputs do not belong together.
    OutputError
        An output exists or cannot hold such events.
    """
    events = EventSource(source, skip_bad=skip_bad, selection=selection)
    return convert_events(events, out, force=force, format=format, progress=progress)


def convert_events(
    events: EventSource,
    out: str | Path | Sequence[str | Path],
    *,
    force: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Write the events of a source as `convert` does."""
    selection = events.selection
    paths = [Path(p) for p in ([out] if isinstance(out, str | Path) else out)]
    formats = [output_format(p, format)[0] for p in paths]
    first = events.peek()
    for fmt in formats:
        fmt.cannot_hold(first)
    events.weigh_groups()
    target = _Target(events, paths, format, force, progress)
    strict = not all(map(has_free_weights, formats))
    given = selection is not None and selection.cross_section is not None
    mean_is_cross_section = events.states_strategy and abs(events.run.weight_strategy) == 4
    if events.n_groups == 1 and (
        (strict and (given or not events.states_strategy))
        or (mean_is_cross_section and not abs(events.run.cross_section) > 0)
    ):
        target.adapt_weights(given)
    try:
        done = target.write(selection, strict and not target.adapted)
    except _WeightsDifferError:
        target.adapt_weights(given)
        done = target.write(selection, False)
    if not np.isfinite(done.run.cross_section):
        log.warning(
            "%s: the cross section is not known and is left out (give it with --cross-section)",
            ", ".join(map(str, paths)),
        )
    return done


class _WeightsDifferError(Exception):
    """Events of strategy ±3 have weights of different size, which LHE files do not allow."""


class _Alike:
    """Weights of one size in all chunks."""

    def __init__(self) -> None:
        self.size: float | None = None

    def require(self, chunk: EventSample) -> None:
        """Raise `_WeightsDifferError` where they are not."""
        if not len(chunk):
            return
        weight = np.abs(chunk.events["weight"])
        self.size = float(weight[0]) if self.size is None else self.size
        if np.any(np.abs(weight - self.size) > 1e-6 * self.size):
            raise _WeightsDifferError


class _Target:
    """Events that are written to the outputs.

    Parameters
    ----------
    events : EventSource
    paths : sequence of Path
        Outputs.
    format : str, optional
        Of those that are pipes.
    force : bool
        Replace existing files.
    progress : callable, optional
    """

    def __init__(
        self,
        events: EventSource,
        paths: Sequence[Path],
        format: str | None,
        force: bool,
        progress: Progress | None,
    ) -> None:
        self.events, self.paths, self.format = events, paths, format
        self.formats = [output_format(p, format)[0] for p in paths]
        self.force, self.progress = force, progress
        self.adapted: RunInfo | None = None
        self.counted_anew = _numbers_collide(events)

    def adapt_weights(self, given: bool) -> None:
        """Bring weights and processes into the form of the Les Houches accord, in a first pass.

        Parameters
        ----------
        given : bool
            Whether the cross section is the user's instead of the file's.
        """
        self.adapted = None
        sums = WeightSums.of(self._chunks())
        stated = self.events.states_strategy
        try:
            self.adapted, factor = les_houches(self.run(), sums, stated=stated, exact=given)
        except OutputError as error:  # the input lacks it
            path = next(iter(self.events.paths), None)
            raise InputError(error.message, path=path, remedy=error.remedy) from None
        self.events.multiply_weights(factor)

    def run(self) -> RunInfo:
        """Run information of the whole, with the weights that the events get."""
        events = self.events
        run = events.run
        if events.n_groups > 1:
            run = run.with_(weight_strategy=-4)
        if len(events.runs) > 1:
            names = {k: v for r in reversed(events.runs) for k, v in r.weight_names.items()}
            run = run.with_(weight_names={k: names[k] for k in self._weight_names()})
        if self.adapted is not None:
            run = run.with_(
                processes=self.adapted.processes, weight_strategy=self.adapted.weight_strategy
            )
        return run

    def write(self, selection: Selection | None, unit: bool) -> Conversion:
        """Write all events; with `unit`, those of strategy ±3 must have weights of equal size."""
        events = self.events
        unit = unit and abs(self.run().weight_strategy) == 3
        n_events = events.n_events or None
        incomplete = selection is not None and selection.objects
        if n_events is None and any(
            f.needs_n_events or (incomplete and not f.run_last) for f in self.formats
        ):
            for _ in events.raw():
                pass
            n_events = events.n_events
        lost: dict[Path, dict[str, None]] = {path: {} for path in self.paths}
        done = 0
        alike = _Alike() if unit else None
        if alike is not None and any(map(is_stream, self.paths)):
            for chunk in self._chunks(): # a pipe cannot be restarted
                alike.require(chunk)
        with AtomicWriter(
            self.paths, self.run(), n_events, force=self.force, format=self.format
        ) as writer:
            for chunk in self._chunks():
                if alike is not None:
                    alike.require(chunk)
                for path, fmt in zip(self.paths, self.formats, strict=True):
                    lost[path] |= dict.fromkeys(fmt.cannot_hold(chunk))
                writer.write(chunk)
                done += len(chunk)
                if self.progress is not None:
                    self.progress("convert", done, n_events)
            run = self.run()
            writer.set_run(run)
        return Conversion(
            done,
            events.n_skipped,
            events.n_unselected,
            run,
            _left_out(events),
            {path: tuple(texts) for path, texts in lost.items()},
        )

    def _weight_names(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.events.runs for name in run.weight_names))

    def _chunks(self) -> Iterator[EventSample]:
        run, names, done = self.run(), self._weight_names(), 0
        for number, chunk in self.events.raw():
            joined = self.events.joined(number, chunk)
            joined.run = run
            if len(self.events.runs) > 1:
                # all chunks of a file have the same columns; nan where a weight is absent
                absent = dict.fromkeys(names, np.full(len(joined), np.nan))
                joined.weights = absent | joined.weights
            if self.counted_anew:
                first = done + 1  # as `Generator` counts
                for name in EVENT_NUMBERS:
                    joined.events.pop(name, None)
                joined.events["event_number"] = np.arange(first, first + len(joined))
            done += len(joined)
            yield joined


def _numbers_collide(events: EventSource) -> bool:
    """Whether some of several files number their events, but not all, or from the same number."""
    if len(events.paths) < 2:
        return False
    found = [n for n in map(events.first_numbers, range(len(events.paths))) if n]
    numbered = [numbers[0] is not None for numbers in found]
    return any(numbered) and not (all(numbered) and len(set(found)) == len(found))


def _left_out(events: EventSource) -> dict[Path, tuple[str, ...]]:
    found = dict(events.left_out)
    first = events.runs[0]
    for path, run in zip(events.paths[1:], events.runs[1:], strict=True):
        texts = [t for t, a, b in (
            ("header text", run.header, first.header),
            ("declarations of weight groups", run.weight_groups, first.weight_groups),
            ("names of generators", run.generators, first.generators),
        ) if a and a != b]  # fmt: skip
        found[path] = (*found[path], *(f"its own {t} (the first file's is kept)" for t in texts))
    return found
