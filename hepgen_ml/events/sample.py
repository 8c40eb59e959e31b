"""Columnar event samples; together with their run (`hepgen_ml.events.run`) they replace files.

Units are GeV for momenta, mm for lifetimes and pb for cross sections. Particle
numbering follows the Les Houches accord (hep-ph/0109068, hep-ph/0609017):
mothers count from 1 within the event, 0 means none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.run import RunInfo as RunInfo
from hepgen_ml.events.run import Shard as Shard
from hepgen_ml.events.run import Subrun as Subrun

if TYPE_CHECKING:
    import awkward as ak

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PARTICLE_COLUMNS: dict[str, type] = {
    "pdg_id": np.int32,
    "status": np.int32,
    "mother1": np.int32,
    "mother2": np.int32,
    "color1": np.int32,
    "color2": np.int32,
    "px": np.float64,
    "py": np.float64,
    "pz": np.float64,
    "energy": np.float64,
    "mass": np.float64,
    "lifetime": np.float64,
    "spin": np.float64,
}
"""Name and type of every per-particle column, in the order of an LHE line."""

EVENT_COLUMNS: dict[str, type] = {
    "process_id": np.int32,
    "weight": np.float64,
    "scale": np.float64,
    "alpha_qed": np.float64,
    "alpha_qcd": np.float64,
}
"""Name and type of every per-event column, in the order of an LHE event line."""

EVENT_NUMBERS: dict[str, type] = {
    "event_number": np.int64,
    "run_number": np.int64,
    "luminosity_block": np.int64,
}
"""Optional columns that identify an event; without them events count from the first."""

UNKNOWN_SPIN = 9.0
"""Value of ``spin`` for a particle whose helicity is not known (Les Houches accord)."""


class EventSample:
    """Events as flat columns, one row per particle, with the offsets of each event.

    Every column is also an attribute: ``sample.px`` of particles, ``sample.weight`` of events.
    Momenta, masses and scales are in GeV, lifetimes (cτ) in mm.

    Parameters
    ----------
    run : RunInfo
        Beams, cross sections and weights of the run.
    offsets : (n + 1,) int64 array
        Particles of event i are rows ``offsets[i]:offsets[i + 1]``.
    particles : mapping of str to array
        Columns of `PARTICLE_COLUMNS`; px, py, pz and energy are required, a
        reconstructed sample may lack others.
    events : mapping of str to array, optional
        Columns of `EVENT_COLUMNS` and `EVENT_NUMBERS`; a missing weight is 1.
    weights : mapping of str to (n,) float array, optional
        Named weights beside the nominal one.
    scales : mapping of str to (n,) float array, optional
        Named scales in GeV (attributes of the LHE `<scales>` tag); nan where absent.
    attributes : mapping of str to (n,) array of str, optional
        Attributes of the `<event>` tag; empty where absent.
    """

    def __init__(
        self,
        run: RunInfo,
        offsets: npt.ArrayLike,
        particles: Mapping[str, npt.ArrayLike],
        events: Mapping[str, npt.ArrayLike] | None = None,
        *,
        weights: Mapping[str, npt.ArrayLike] | None = None,
        scales: Mapping[str, npt.ArrayLike] | None = None,
        attributes: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        self.run = run
        self.offsets: IntArray = np.ascontiguousarray(offsets, dtype=np.int64)
        if self.offsets.ndim != 1 or len(self.offsets) == 0 or self.offsets[0] != 0:
            raise ValueError("offsets must be one-dimensional and start with 0")
        n_events, n_rows = len(self.offsets) - 1, int(self.offsets[-1])
        self.particles = {
            name: _column(name, values, PARTICLE_COLUMNS.get(name), n_rows)
            for name, values in particles.items()
        }
        self.events = {
            name: _column(name, values, (EVENT_COLUMNS | EVENT_NUMBERS).get(name), n_events)
            for name, values in (events or {}).items()
        }
        if "weight" not in self.events:
            self.events["weight"] = np.ones(n_events)
        self.weights = {
            name: _column(name, values, np.float64, n_events)
            for name, values in (weights or {}).items()
        }
        self.scales = {
            name: _column(name, values, np.float64, n_events)
            for name, values in (scales or {}).items()
        }
        self.attributes = {
            name: _column(name, values, None, n_events)
            for name, values in (attributes or {}).items()
        }

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        for group in ("particles", "events"):
            columns = self.__dict__.get(group, {})
            if name in columns:
                return columns[name]
        raise AttributeError(f"this sample has no column {name!r}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        sigma = self.run.cross_section
        known = f"{sigma:.6g} pb" if np.isfinite(sigma) else "cross section not known"
        return (
            f"<EventSample: {len(self)} events, {len(self.particles['px'])} particles, "
            f"{len(self.weights)} named weights, {known}>"
        )

    @property
    def counts(self) -> IntArray:
        """(n,) number of particles of each event."""
        return np.diff(self.offsets)

    @property
    def event_index(self) -> IntArray:
        """(rows,) event number, from 0, of each particle row."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def is_reconstructed(self) -> bool:
        """Whether events hold reconstructed objects (`hepgen_ml.events.objects`), not partons."""
        return "status" not in self.particles

    @property
    def momentum(self) -> FloatArray:
        """(rows, 4) momenta (px, py, pz, E) in GeV."""
        p = self.particles
        return np.stack([p["px"], p["py"], p["pz"], p["energy"]], axis=1)

    def __getitem__(self, index: slice | npt.ArrayLike) -> EventSample:
        """Events chosen by slice, boolean mask or integer array, in that order."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._contiguous(start, max(start, stop))
            index = np.arange(start, stop, step)
        chosen = np.asarray(index)
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise IndexError(f"mask of length {len(chosen)} on a sample of {len(self)} events")
            chosen = np.flatnonzero(chosen)
        counts = self.counts[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][chosen] - offsets[:-1], counts)
        return self._select(offsets, rows, chosen)

    def _contiguous(self, start: int, stop: int) -> EventSample:
        first, last = self.offsets[start], self.offsets[stop]
        return self._select(
            self.offsets[start : stop + 1] - first, slice(first, last), slice(start, stop)
        )

    def _select(self, offsets: IntArray, rows: Any, chosen: Any) -> EventSample:
        def take(columns: Mapping[str, npt.NDArray[Any]], where: Any) -> dict[str, Any]:
            return {name: values[where] for name, values in columns.items()}

        return EventSample(
            self.run,
            offsets,
            take(self.particles, rows),
            take(self.events, chosen),
            weights=take(self.weights, chosen),
            scales=take(self.scales, chosen),
            attributes=take(self.attributes, chosen),
        )

    def chunks(self, size: int) -> Iterable[EventSample]:
        """Successive slices of at most `size` events."""
        for start in range(0, len(self), size):
            yield self._contiguous(start, min(start + size, len(self)))

    def to_awkward(self) -> ak.Array:
        """Awkward record array with vector behaviours.

        Returns
        -------
        awkward.Array
            One record an event: the event columns, ``weights``, ``scales``, ``attributes`` (texts,
            such as the values of conditions) as far as there are any, and ``particles`` (records
            named Momentum4D, so that ``.pt``, ``.eta``, ``.deltaR`` work).
        """
        from hepgen_ml.events.records import records

        return records(
            self.counts, self.particles, self.events, weights=self.weights, scales=self.scales,
            attributes=self.attributes,
        )  # fmt: skip


def _column(name: str, values: npt.ArrayLike, dtype: Any, length: int) -> npt.NDArray[Any]:
    column = np.ascontiguousarray(values, dtype=dtype)
    if column.shape != (length,):
        raise ValueError(f"column {name!r} has shape {column.shape}, expected ({length},)")
    return column


def concatenate(samples: Sequence[EventSample], run: RunInfo | None = None) -> EventSample:
    """Join samples with the same columns.

    Parameters
    ----------
    samples : sequence of EventSample
    run : RunInfo, optional
        Run information of the result; by default that of the first sample, which is no shard if
        the samples are not all of the same one.
    """
    if not samples:
        raise ValueError("nothing to concatenate")
    if len(samples) == 1 and run is None:
        return samples[0]
    counts = np.concatenate([s.counts for s in samples])

    def join(group: str, missing: Any = None) -> dict[str, npt.NDArray[Any]]:
        names = list(dict.fromkeys(name for s in samples for name in getattr(s, group)))
        columns = {}
        for name in names:
            parts = [getattr(s, group).get(name) for s in samples]
            if any(p is None for p in parts):
                if name in EVENT_NUMBERS:
                    continue  # numbers that some events lack identify nothing
                if missing is None:
                    raise ValueError(f"column {name!r} is missing in some samples")
                parts = [
                    np.full(len(s), missing) if p is None else p
                    for p, s in zip(parts, samples, strict=True)
                ]
            columns[name] = np.concatenate(parts)
        return columns

    if run is None:
        run = samples[0].run
        if any(s.run.shard != run.shard for s in samples):
            run = run.with_(shard=None)
    return EventSample(
        run,
        np.concatenate([[0], np.cumsum(counts)]),
        join("particles"),
        join("events"),
        weights=join("weights", np.nan),
        scales=join("scales", np.nan),
        attributes=join("attributes", ""),
    )
