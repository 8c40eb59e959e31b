"""The layouts of LHEH5 files behind one interface: columns of events and of particles by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lheh5.layout import EVENTS, INIT, PARTICLES, PROCESSES
from hepgen_adapters.lheh5.tables import Tables

Columns = dict[str, npt.NDArray[np.float64]]
"""Names and (n,) values."""

_MOST_GENERATORS = 100


class Source(Protocol):
    """Events of a file.

    Attributes
    ----------
    version : int
        Its first number, 0 to 2.
    full_version : tuple of int
    n_events, n_particles : int
        Rows.
    event_names, weight_names : list of str
        Columns of events, and those that may be named weights.
    """

    version: int
    full_version: tuple[int, ...]
    n_events: int
    n_particles: int
    event_names: list[str]
    weight_names: list[str]

    def init(self) -> dict[str, float]: ...

    def processes(self) -> Columns: ...

    def events(self, start: int, stop: int) -> Columns: ...

    def particles(self, start: int, stop: int) -> Columns: ...

    def generators(self) -> tuple[tuple[str, str, str], ...]: ...


def source_of(tables: Tables) -> Source:
    """Layout of a file by its datasets, because version numbers are unreliable.

    Raises
    ------
    InputError
        No Les Houches events.
    """
    names = tables.names()
    if "events" in names and tables.dataset("events") is not None:
        return Flat(tables)
    if "event" in names and tables.names("event"):
        return Grouped(tables)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise tables.fail(
        "holds no Les Houches events" + (f", only {shown}" if names else ""),
        remedy="name a file with datasets 'events' and 'particles' (LHEH5)",
    )


class Flat:
    """Version 2: five datasets."""

    version = 2

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        for name, width in (("events", 2), ("particles", 2), ("init", 1), ("procInfo", 2)):
            dataset = tables.dataset(name)
            if dataset is None or len(dataset.shape) != width:
                raise tables.fail(f"has no dataset {name!r} with {width} dimensions")
        self.event_names = tables.columns("events", EVENTS)
        self.particle_names = tables.columns("particles", PARTICLES)
        for needed, found in (("nparticles", self.event_names), ("start", self.event_names),
                              ("id", self.particle_names), ("px", self.particle_names),
                              ("py", self.particle_names), ("pz", self.particle_names),
                              ("e", self.particle_names)):  # fmt: skip
            if needed not in found:
                raise tables.fail(f"its columns lack {needed!r}")
        self.weight_names = self.event_names
        self.n_events = int(tables.dataset("events").shape[0])
        self.n_particles = int(tables.dataset("particles").shape[0])
        version = tables.dataset("version")
        self.full_version: tuple[int, ...] = ()
        if version is not None and version.shape == (3,):
            self.full_version = tuple(int(v) for v in tables.rows("version", 0, 3))

    def init(self) -> dict[str, float]:
        """Values of the run."""
        names = self.tables.columns("init", INIT)
        values = self.tables.rows("init", 0, len(names))
        return {n: float(v) for n, v in zip(names, values, strict=True) if np.isfinite(v)}

    def processes(self) -> Columns:
        """Columns of ``procInfo``."""
        names = self.tables.columns("procInfo", PROCESSES)
        n = min(int(self.tables.dataset("procInfo").shape[0]), 1_000_000)
        return dict(zip(names, self.tables.rows("procInfo", 0, n).T, strict=True))

    def events(self, start: int, stop: int) -> Columns:
        """Columns of events."""
        table = self.tables.rows("events", start, stop)
        return dict(zip(self.event_names, table.T, strict=True))

    def particles(self, start: int, stop: int) -> Columns:
        """Columns of particles."""
        table = self.tables.rows("particles", start, stop)
        return dict(zip(self.particle_names, table.T, strict=True))

    def generators(self) -> tuple[tuple[str, str, str], ...]:
        """Programs, from attributes of ``init`` where a writer left them."""
        attrs = self.tables.file["init"].attrs
        texts: list[list[str]] = []
        for key in ("generatorName", "generatorVersion", "generatorDescription"):
            try:
                found = np.ravel(attrs[key]).tolist() if key in attrs else []
            except Exception:  # unreadable text does not invalidate the file
                found = []
            texts.append([t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t)
                          for t in found[:_MOST_GENERATORS]])  # fmt: skip
        names, versions, about = texts
        fill = [""] * len(names)
        return tuple(zip(names, (versions + fill)[: len(names)], (about + fill)[: len(names)],
                         strict=True))  # fmt: skip


class Grouped:
    """Versions 0 and 1: one dataset a column."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.event_names = tables.names("event")
        self.particle_names = tables.names("particle")
        weight = tables.dataset("event/weight")
        counts, ids = tables.dataset("event/nparticles"), tables.dataset("particle/id")
        if weight is None or counts is None or ids is None:
            raise tables.fail("its groups 'event' and 'particle' lack weight, nparticles or id")
        self._start = "index/start" if "start" in tables.names("index") else "event/start"
        if tables.dataset(self._start) is None:
            raise tables.fail("does not say where the particles of an event start")
        self.n_events, self.n_particles = int(counts.shape[0]), int(ids.shape[0])
        self.weight_names: list[str] = []
        self.version = 0
        self.full_version: tuple[int, ...] = ()
        if len(weight.shape) == 2:
            self.version = 1
            self.weight_names = self._weight_columns(int(weight.shape[1]))

    def _weight_columns(self, width: int) -> list[str]:
        """Names of weights: the first attribute of the dataset, in versions 1."""
        attrs = self.tables.dataset("event/weight").attrs
        found: list[str] = []
        try:
            for key in attrs:
                found = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t)
                         for t in np.ravel(attrs[key]).tolist()]  # fmt: skip
                break
        except Exception as error:
            raise self.tables.fail("names of weights are damaged") from error
        if len(found) != width or len(set(found)) < width:
            found = [f"weight{k}" for k in range(width)]
        return found[1:]

    def init(self) -> dict[str, float]:
        """Values of the run."""
        found = {}
        for name in self.tables.names("init"):
            dataset = self.tables.dataset(f"init/{name}")
            if dataset is not None and dataset.size == 1:
                value = float(np.ravel(dataset[()])[0])
                if np.isfinite(value):
                    found[name] = value
        return found

    def processes(self) -> Columns:
        """Columns of ``procInfo``."""
        found: Columns = {}
        for name in self.tables.names("procInfo"):
            dataset = self.tables.dataset(f"procInfo/{name}")
            if dataset is not None:
                rows = np.ravel(np.asarray(dataset[:1_000_000] if dataset.shape else dataset[()]))
                found[name] = rows.astype(np.float64)
        n = len(found.get("procId", ()))
        return {name: v for name, v in found.items() if len(v) == n}

    def _columns(self, group: str, names: list[str], start: int, stop: int) -> Columns:
        found = {}
        for name in names:
            dataset = self.tables.dataset(f"{group}/{name}")
            if dataset is None or not dataset.shape:
                continue
            rows = self.tables.rows(f"{group}/{name}", start, stop)
            if len(rows) != stop - start:
                raise self.tables.fail(f"'{group}/{name}' is shorter than others of its group")
            found[name] = rows
        return found

    def events(self, start: int, stop: int) -> Columns:
        """Columns of events."""
        found = self._columns("event", self.event_names, start, stop)
        first = self.tables.rows(self._start, start, stop)
        if len(first) != stop - start:
            raise self.tables.fail("does not say for all events where their particles start")
        found["start"] = first
        if found["weight"].ndim == 2:
            table = found.pop("weight")
            found["weight"] = table[:, 0]
            found |= dict(zip(self.weight_names, table[:, 1:].T, strict=True))
        return {name: v for name, v in found.items() if v.ndim == 1}

    def particles(self, start: int, stop: int) -> Columns:
        """Columns of particles."""
        found = self._columns("particle", self.particle_names, start, stop)
        if missing := {"px", "py", "pz", "e"} - set(found):
            raise self.tables.fail(f"particles lack {min(missing)!r}")
        return found

    def generators(self) -> tuple[tuple[str, str, str], ...]:
        """These versions name none."""
        return ()
