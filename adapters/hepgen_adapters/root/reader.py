"""Common part of all readers of ROOT files: events of a tree in chunks, and bad events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.root.file import ROOTFile
from hepgen_adapters.root.names import EVENT, NUMBERS
from hepgen_adapters.root.weights import weights_of_lists
from hepgen_ml.errors import InputError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.sample import EventSample, RunInfo

_KEPT_ERRORS = 100


class TreeReader(ABC):
    """Reads a tree in chunks; subclasses define the content of an event."""

    defect = "a number is not finite"
    """Error message for bad events."""

    def __init__(self, file: ROOTFile, *, skip_bad: bool = False) -> None:
        self.file, self.path, self.skip_bad = file, file.path, skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = self.n_unselected = 0
        self.unselected_weight = 0.0
        self.left_out: Sequence[str] = ()
        self.run: RunInfo
        self._also: list[str] = []

    @property
    def states_strategy(self) -> bool:
        """Whether the weight strategy was stated by the source, as in files of this package."""
        return self.file.run is not None

    @abstractmethod
    def _wanted(self) -> list[str]:
        """Branches to read."""

    @abstractmethod
    def _sample(self, arrays: Mapping[str, Any]) -> tuple[EventSample, npt.NDArray[np.int64]]:
        """Events of a block and their numbers in it."""

    def also_read(self, names: Sequence[str]) -> None:
        """Read these columns too, if they exist, as attributes of the events."""
        known = {*self.file.names["attributes"].values()}
        self._also = [n for n in names if n in self.file.branches and n not in known]
        for name in self._also:
            values = self.file.arrays([name], 0, 1)[name]
            if values.ndim != 1 and values.layout.parameter("__array__") is None:
                kind = str(values.type.content)
                if not kind.startswith("string"):
                    raise self.file.fail(
                        f"branch {name} holds a list an event, not one value",
                        remedy="name a column with one value an event",
                    )

    def _begin(self) -> None:
        self.skipped, self.n_skipped, self.n_unselected = [], 0, 0
        self.unselected_weight = 0.0

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, at most `size` at a time."""
        self._begin()
        wanted = [*self._wanted(), *self._also]
        for start, stop in self.file.ranges(wanted):
            with self.file.reading(start + 1):
                arrays = self.file.arrays(wanted, start, stop)
                sample, numbers = self._sample(arrays)
                for name in self._also:
                    sample.attributes[name] = _texts(arrays[name])[numbers]
            finite = np.isfinite(sample.momentum).all(axis=1)
            bad = np.bincount(sample.event_index, ~finite, len(sample)) > 0
            bad |= ~np.isfinite(sample.events["weight"])
            if bad.any():
                sample = self._skip(sample, bad, numbers + start)
            yield from sample.chunks(size)

    def _skip(
        self, sample: EventSample, bad: npt.NDArray[np.bool_], numbers: npt.NDArray[np.int64]
    ) -> EventSample:
        for number in numbers[bad][:_KEPT_ERRORS]:
            remedy = "use --skip-bad to leave such events out"
            error = self.file.fail(self.defect, int(number) + 1, remedy)
            if not self.skip_bad:
                raise error
            if len(self.skipped) < _KEPT_ERRORS:
                self.skipped.append(error)
        self.n_skipped += int(bad.sum())
        total = self.file.tree.num_entries
        if 2 * self.n_skipped > total:
            raise self.file.fail(f"{self.n_skipped} of {total} events are bad")
        return sample[~bad]

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _texts(values: Any) -> npt.NDArray[np.str_]:
    """One value an event (n,) as text."""
    import awkward as ak

    if values.ndim == 1 and isinstance(values.type.content, ak.types.NumpyType):
        return np.asarray(ak.to_numpy(values)).astype(str)
    return np.array([str(text) for text in ak.to_list(values)], dtype=str)


def event_columns(file: ROOTFile, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of events as `EventSample` takes them: numbers, weights, scales, attributes."""
    import awkward as ak

    def named(kind: str) -> dict[str, Any]:
        return {name: arrays[branch] for branch, name in file.names[kind].items()}

    events = {
        column: ak.to_numpy(arrays[branch])
        for column, (branch, _) in (EVENT | NUMBERS).items()
        if branch in arrays
    }
    lists: dict[str, Any] = {}
    if file.weight_lists:
        n = len(arrays[next(iter(file.weight_lists))])
        nominal = np.asarray(events.get("weight", np.ones(n)), dtype=np.float64)
        lists = weights_of_lists(file.weight_lists, arrays, nominal)
    return {
        "events": events,
        "weights": {k: ak.to_numpy(v) for k, v in named("weights").items()} | lists,
        "scales": {k: ak.to_numpy(v) for k, v in named("scales").items()},
        "attributes": {
            k: np.array([bytes(x).decode(errors="replace") for x in ak.to_list(v)], dtype=str)
            for k, v in named("attributes").items()
        },
    }


def other_branches(file: ROOTFile, known: set[str]) -> list[str]:
    """Parts that are left out of files of other programs, as one line."""
    book = {"run", "luminosityBlock", "event"}
    counters = {f"n{k.split('_')[0]}" for k in file.branches}
    counters |= {f"n{k}" for k in file.branches} | {
        f"{k.split('.')[0]}_size" for k in file.branches
    }
    groups = {k for k in file.branches if any(b.startswith(f"{k}.") for b in file.branches)}
    others = sorted(set(file.branches) - known - book - counters - groups)
    found = []
    if others:
        some = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        found = [f"{len(others)} other branches ({some})" if len(others) > 1 else f"branch {some}"]
    if file.branches.refused:
        found.append(f"{file.branches.refused} branches with names that are not plain")
    return found
