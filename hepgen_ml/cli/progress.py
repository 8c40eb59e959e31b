"""Progress of long jobs on the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from hepgen_ml.cli.quantities import duration

if TYPE_CHECKING:
    from hepgen_ml.events.sample import EventSample

LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal
BRIEF = 1.0  # seconds; shorter stages get no line at all there


@dataclass
class _Stage:
    """Progress of one stage of a job."""

    begun: float
    first: float
    at: float
    done: float = 0.0
    total: float | None = None
    info: Mapping[str, float] = field(default_factory=dict)
    shown_at: float = 0.0
    shown: float = -1.0
    bar: Any = None

    def line(self, unit: str) -> str:
        """Amount, rate and remaining time first: a narrow terminal cuts the end."""
        elapsed, advanced, info = self.at - self.begun, self.done - self.first, dict(self.info)
        if self.total is None and not self.done:  # nothing is counted
            return duration(elapsed) if elapsed >= BRIEF else ""
        if unit == "%":
            parts = [f"{100 * self.done / (self.total or 1.0):.0f} %"]
        else:
            of = "" if self.total is None else f" of {self.total:,.0f}"
            parts = [f"{self.done:,.0f}{of} {unit}"]
            if elapsed > 0 and unit == "events" and advanced > 0:
                info.setdefault("events_per_s", advanced / elapsed)
        if "events_per_s" in info:
            parts.append(f"{info.pop('events_per_s'):,.0f} events/s")
        if self.total is not None and advanced > 0 and self.done < self.total:
            parts.append(f"{duration(elapsed * (self.total - self.done) / advanced)} left")
        for name, value in info.items():
            digits = (
                f"{value:,.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"
            )
            parts.append(f"{name} {digits}")
        return ", ".join(parts)


class Progress:
    """Progress of a long job: bars on a terminal, lines elsewhere.

    Used as a context manager and called as ``progress(stage, done, total, info)``,
    any number of times; `total` is None while unknown.

    Parameters
    ----------
    units : mapping of str to str
        Unit of each stage; ``events`` by default, or ``%``.
    """

    def __init__(self, units: Mapping[str, str] | None = None) -> None:
        self._units = units or {}
        self._bars: Any = None
        self._stages: dict[str, _Stage] = {}
        self._now: str | None = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars
            from rich.table import Column

            self._bars = Bars(
                TextColumn("{task.description:<8}", table_column=Column(min_width=8)),
                BarColumn(bar_width=12, table_column=Column(min_width=12)),
                TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True, ratio=1)),
                console=Console(stderr=True, highlight=False),
            )
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(whole=kind is None)
        if self._bars is not None:
            self._bars.stop()

    def _end(self, *, whole: bool = True) -> None:
        """Show the stage so far as ended, and as complete if it is `whole`."""
        if self._now is None:
            return
        name, self._now = self._now, None
        state, unit = self._stages[name], self._units.get(name, "events")
        counts = state.total is not None or state.done > 0
        if not counts and whole:
            state.at = time.monotonic()
        if self._bars is not None:
            if state.total is None and whole:
                amount = state.done or 1.0
                self._bars.update(state.bar, completed=amount, total=amount, line=state.line(unit))
        elif state.shown != state.done and (
            state.at - state.begun >= (BRIEF if counts else LINE_EVERY)
        ):
            self._print(name, state)

    def __call__(
        self, stage: str, done: float, total: float | None, info: Mapping[str, float] | None = None
    ) -> None:
        now = time.monotonic()
        if stage != self._now:
            self._end()
            self._now = stage
        if stage not in self._stages:
            # What is done at the first call took time before; a short job is complete at once.
            first = 0.0 if total is not None and done >= total else done
            self._stages[stage] = _Stage(begun=now, first=first, at=now, shown_at=now)
        state = self._stages[stage]
        state.at, state.done, state.total, state.info = now, done, total, info or {}
        if self._bars is not None:
            line = state.line(self._units.get(stage, "events"))
            if state.bar is None:
                state.bar = self._bars.add_task(stage, total=total, line=line)
            self._bars.update(state.bar, completed=done, total=total, line=line)
        elif now - state.shown_at >= LINE_EVERY:
            self._print(stage, state)

    def _print(self, name: str, stage: _Stage) -> None:
        typer.echo(f"{name}: {stage.line(self._units.get(name, 'events'))}", err=True)
        stage.shown, stage.shown_at = stage.done, time.monotonic()


def counted(chunks: Iterable[EventSample], progress: Progress, stage: str) -> Iterator[EventSample]:
    """Pass chunks on and report how many events went by."""
    n = 0
    for chunk in chunks:
        n += len(chunk)
        progress(stage, n, None)
        yield chunk
