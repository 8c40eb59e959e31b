"""From one file format to another, with an account of what is lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hepgen_ml.events import EventSample, RunInfo
from hepgen_ml.formats import AtomicWriter, format_of
from hepgen_ml.objects import Selection
from hepgen_ml.sources import EventSource

Progress = Callable[[str, float, float | None], None]


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes
    ----------
    n_events : int
        Written to every file.
    n_skipped, n_unselected : int
        Bad events, and events with other numbers of objects than the selection.
    run : RunInfo
        Of the written events.
    left_out : dict of Path to tuple of str
        What of each input is not in the events read.
    lost : dict of Path to tuple of str
        What of these each output cannot hold.
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
    progress: Progress | None = None,
) -> Conversion:
    """Write the events of some files to others, in chunks.

    Several inputs become one sample as in training: repeated runs are pooled;
    events of different processes get weights whose mean is the sum of the cross
    sections (weight strategy -4), and process numbers that differ.

    Parameters
    ----------
    source : path or glob pattern, or several
    out : path, or several
        Formats follow from the names; all get the same events.
    selection : Selection, optional
        Objects to read, from reconstructed or showered events.
    skip_bad : bool
        Leave out bad events instead of refusing them.
    force : bool
        Replace existing files.
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
    paths = [Path(p) for p in ([out] if isinstance(out, str | Path) else out)]
    formats = [format_of(p) for p in paths]
    first = events.peek()
    for fmt in formats:
        fmt.cannot_hold(first)
    events.weigh_groups()
    n_events = events.n_events or None
    incomplete = selection is not None and selection.objects
    if n_events is None and any(
        f.needs_n_events or (incomplete and not f.run_last) for f in formats
    ):
        for _ in events.raw():
            pass
        n_events = events.n_events
    lost: dict[Path, dict[str, None]] = {path: {} for path in paths}
    done = 0
    with AtomicWriter(paths, _run(events), n_events, force=force) as writer:
        for chunk in _chunks(events):
            for path, fmt in zip(paths, formats, strict=True):
                lost[path] |= dict.fromkeys(fmt.cannot_hold(chunk))
            writer.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress("convert", done, n_events)
        run = _run(events)
        writer.set_run(run)
    return Conversion(
        done,
        events.n_skipped,
        events.n_unselected,
        run,
        _left_out(events),
        {path: tuple(texts) for path, texts in lost.items()},
    )


def _run(events: EventSource) -> RunInfo:
    """Run information of the whole, with the weights that the events get."""
    run = events.run
    if events.n_groups > 1:
        run = run.with_(weight_strategy=-4)
    if len(events.runs) > 1:
        names = {k: v for r in reversed(events.runs) for k, v in r.weight_names.items()}
        run = run.with_(weight_names={k: names[k] for k in _weight_names(events)})
    return run


def _weight_names(events: EventSource) -> list[str]:
    return list(dict.fromkeys(name for run in events.runs for name in run.weight_names))


def _chunks(events: EventSource) -> Iterator[EventSample]:
    run, names = _run(events), _weight_names(events)
    for number, chunk in events.raw():
        joined = events.joined(number, chunk)
        joined.run = run
        if len(events.runs) > 1:
            # all chunks of a file have the same columns; nan where a weight is absent
            absent = dict.fromkeys(names, np.full(len(joined), np.nan))
            joined.weights = absent | joined.weights
        yield joined


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
