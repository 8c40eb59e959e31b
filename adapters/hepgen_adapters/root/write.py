"""Writing ROOT files through uproot."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._run_json import dump_run, shortened
from hepgen_adapters.root.names import (
    EVENT,
    EXACT,
    INTEGER,
    METADATA,
    MOTHERS,
    NUMBER,
    NUMBERS,
    OBJECT_EXACT,
    TEXT,
    VERSION,
)
from hepgen_adapters.root.weights import branches_of, collections
from hepgen_ml.errors import OutputError
from hepgen_ml.events.objects import CHARGED, OBJECTS
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate

_UUID = uuid.UUID(int=0)
_DATE = datetime.datetime(1995, 1, 1)
_CLOCK = threading.RLock()

_FLUSH_EVENTS = 50_000
_FLUSH_ROWS = 1_000_000
_MAX_ETA = 40.0  # of particles along the beam: beyond any cut, yet cosh(eta)**2 fits 32 bits


def write_columns(path: Path, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write columns of numbers as a tree ``tree``."""
    import uproot

    with _timeless(), uproot.recreate(path, uuid_function=lambda: _UUID) as file:
        tree = file.mktree("tree", {name: values.dtype for name, values in columns.items()})
        n = len(next(iter(columns.values())))
        for start in range(0, n, _FLUSH_EVENTS):
            tree.extend({k: v[start : start + _FLUSH_EVENTS] for k, v in columns.items()})


class ROOTWriter:
    """Writes events in large baskets; see `hepgen_adapters.root` for the branches.

    Attributes
    ----------
    run : RunInfo
        Written last; may be replaced before.
    """

    def __init__(self, path: Path, run: RunInfo, *, four_vectors: bool = True) -> None:
        import uproot

        self.path, self.run, self.four_vectors = path, run, four_vectors
        self._pending: list[EventSample] = []
        self._columns: tuple[Any, ...] | None = None
        self._tree: Any = None
        self._n = 0
        self._sums = np.zeros(2)
        self._branches: dict[str, str] = {}
        self._objects: dict[str, None] = {}  # collections that occur
        self._numeric: list[str] | None = None  # attributes that are numbers
        self._kinds: dict[str, list[str]] | None = None  # named weights by NanoAOD's collections
        with _timeless():
            self._file = uproot.recreate(path, uuid_function=lambda: _UUID)
        self._closed = False

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk; all chunks have the same columns."""
        columns = tuple(
            tuple(getattr(sample, group))
            for group in ("particles", "events", "weights", "scales", "attributes")
        )
        if self._columns is None:
            self._columns = columns
        elif columns != self._columns:
            raise OutputError(
                "the columns change between chunks", path=self.path, remedy="write two files"
            )
        self._pending.append(sample)
        n_rows = sum(int(s.offsets[-1]) for s in self._pending)
        if n_rows >= _FLUSH_ROWS or sum(map(len, self._pending)) >= _FLUSH_EVENTS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        joined = concatenate(self._pending)
        self._pending = []
        for sample in joined.chunks(_FLUSH_EVENTS):
            branches = self._event_branches(sample)
            if self._tree is None:
                types = {
                    name: v.dtype if isinstance(v, np.ndarray) else v.type.content
                    for name, v in branches.items()
                }
                with _timeless():
                    self._tree = self._file.mktree("Events", types, title="Events")
            with _timeless():
                self._tree.extend(branches)
            weight = sample.events["weight"]
            self._sums += np.sum(weight), np.sum(weight**2)
            self._n += len(sample)

    def _event_branches(self, sample: EventSample) -> dict[str, Any]:
        import awkward as ak

        n = len(sample)
        branches: dict[str, Any] = {
            "run": np.ones(n, dtype=np.uint32),
            "luminosityBlock": np.ones(n, dtype=np.uint32),
            "event": np.arange(self._n + 1, self._n + n + 1, dtype=np.uint64),
        }
        for column, (branch, dtype) in (NUMBERS | EVENT).items():
            if column in sample.events:
                branches[branch] = sample.events[column].astype(dtype)
        branches["LHEWeight_originalXWGTUP"] = sample.events["weight"]
        self._name(branches, "LHEWeight_", sample.weights)
        if self._kinds is None:
            self._kinds = collections(sample.run, sample.weights)
        branches |= branches_of(self._kinds, sample.weights, sample.events["weight"])
        self._name(branches, "LHEScale_", sample.scales)
        if sample.is_reconstructed:
            branches |= self._object_branches(sample)
        else:
            branches |= _parton_densities(sample)
            record = _particle_branches(sample, self.four_vectors)
            branches["LHEPart"] = ak.unflatten(ak.zip(record, depth_limit=1), sample.counts)
        texts = {name: _text_column(values) for name, values in sample.attributes.items()}
        self._name(branches, TEXT, texts)
        self._name(branches, NUMBER, self._numbers(sample))
        return branches

    def _numbers(self, sample: EventSample) -> dict[str, npt.NDArray[np.float64]]:
        """Attributes that are numbers in the first events, beside their texts; nan for others."""
        columns = {name: _number_column(values) for name, values in sample.attributes.items()}
        if self._numeric is None:
            self._numeric = [n for n, v in columns.items() if np.isfinite(v).any()]
        return {name: columns[name] for name in self._numeric}

    def _object_branches(self, sample: EventSample) -> dict[str, Any]:
        """All collections, also those without any object: later events may have some."""
        import awkward as ak

        p, number = sample.particles, np.abs(sample.particles["pdg_id"])
        known = np.isin(number, list(OBJECTS.values()))
        if not known.all():
            row = int(np.argmin(known))
            raise OutputError(
                f"particle {p['pdg_id'][row]} belongs to no collection of objects",
                path=self.path,
                event=self._n + int(sample.event_index[row]) + 1,
                remedy="particles that are not reconstructed objects need statuses and mothers",
            )
        polar = _polar(sample)
        branches = {}
        for name, pdg_id in OBJECTS.items():
            rows = number == pdg_id
            record = {k: v[rows].astype(np.float32) for k, v in polar.items()}
            if name == "Photon":
                del record["mass"]  # NanoAOD has none
            if name in CHARGED:
                record["charge"] = np.where(p["pdg_id"][rows] > 0, -1, 1).astype(np.int32)
            if self.four_vectors:
                record |= {b: p[c][rows] for c, b in OBJECT_EXACT.items() if c in p}
            counts = np.bincount(sample.event_index[rows], minlength=len(sample))
            branches[name] = ak.unflatten(ak.zip(record, depth_limit=1), counts)
            if rows.any():
                self._objects[name] = None
        return branches

    def _name(self, branches: dict[str, Any], prefix: str, columns: Any) -> None:
        """Branch names for columns of any name, the same for every chunk."""
        for name, values in columns.items():
            key = f"{prefix}:{name}"
            if key not in self._branches:
                # an underscore would make coffea look for a collection of this name
                mark = "" if prefix == TEXT else "_"
                stem = prefix + re.sub(r"\W|_" if mark == "" else r"\W", mark, name, flags=re.ASCII)
                taken = {*self._branches.values(), *branches}
                branch, k = stem, 2
                while branch in taken:
                    branch, k = f"{stem}_{k}", k + 1
                self._branches[key] = branch
            branches[self._branches[key]] = values

    def close(self) -> None:
        """Write pending events, the sums of weights and the run information."""
        if self._closed:
            return
        self._closed = True
        with _timeless(), contextlib.closing(self._file):
            self._flush()
            runs: dict[str, npt.NDArray[Any]] = {
                "run": np.ones(1, dtype=np.uint32),
                "genEventCount": np.array([self._n], dtype=np.int64),
                "genEventSumw": self._sums[:1],
                "genEventSumw2": self._sums[1:],
            }
            sigma, error = self.run.cross_section, self.run.cross_section_error
            if np.isfinite(sigma):
                runs["genCrossSection"] = np.array([sigma])
            if np.isfinite(error):
                runs["genCrossSectionError"] = np.array([error])
            self._file.mktree("Runs", {k: v.dtype for k, v in runs.items()}, title="Runs")
            self._file["Runs"].extend(runs)
            names: dict[str, dict[str, str]] = {
                "LHEWeight_": {}, "LHEScale_": {}, TEXT: {}, NUMBER: {},
            }  # fmt: skip
            for key, branch in self._branches.items():
                prefix, name = key.split(":", 1)
                names[prefix][branch] = name
            self._file[METADATA] = json.dumps(
                {
                    "version": VERSION,
                    "weights": names["LHEWeight_"],
                    "scales": names["LHEScale_"],
                    "attributes": names[TEXT],
                    "columns": [] if self._columns is None else self._columns[0],
                    "run": dump_run(shortened(self.run)),
                }
                | ({"objects": list(self._objects)} if self._objects else {})
            )


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    """Files without the time of writing: the same events give the same bytes.

    uproot takes the dates of a file and its objects from the clock, without an option.
    """
    import uproot

    with _CLOCK:
        given = uproot._util.datetime_to_code
        uproot._util.datetime_to_code = lambda _: given(_DATE)
        try:
            yield
        finally:
            uproot._util.datetime_to_code = given


def _parton_densities(sample: EventSample) -> dict[str, Any]:
    """``Generator_id1, id2, x1, x2``; 0 and -1 unless each event has two incoming particles."""
    p = sample.particles
    if "status" not in p or "pdg_id" not in p:
        return {}
    rows = np.flatnonzero(p["status"] == -1)
    n = len(sample)
    ids = np.zeros((n, 2), dtype=np.int32)
    x = np.full((n, 2), -1.0)
    if np.array_equal(sample.event_index[rows], np.repeat(np.arange(n), 2)):
        pairs = rows.reshape(n, 2)
        swap = (p["pz"][pairs[:, 0]] < 0) & (p["pz"][pairs[:, 1]] > 0)
        pairs = np.where(swap[:, None], pairs[:, ::-1], pairs)
        ids = p["pdg_id"][pairs]
        beams = np.array(sample.run.beam_energy)
        if np.all(beams > 0):
            x = (p["energy"][pairs] + np.abs(p["pz"][pairs])) / (2 * beams)
    return {
        "Generator_id1": ids[:, 0],
        "Generator_id2": ids[:, 1],
        "Generator_x1": np.ascontiguousarray(x[:, 0]),
        "Generator_x2": np.ascontiguousarray(x[:, 1]),
    }


def _polar(sample: EventSample) -> dict[str, npt.NDArray[Any]]:
    """pt, eta, phi and mass; incoming particles have no direction of their own."""
    p = sample.particles
    px, py, pz = p["px"], p["py"], p["pz"]
    pt = np.hypot(px, py)
    incoming = p["status"] == -1 if "status" in p else np.zeros(len(px), dtype=bool)
    pt = np.where(incoming, 0.0, pt)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        eta = np.clip(np.nan_to_num(np.arcsinh(pz / pt)), -_MAX_ETA, _MAX_ETA)
    return {
        "pt": pt,
        "eta": np.where(incoming, 0.0, eta),
        "phi": np.where(incoming, 0.0, np.arctan2(py, px)),
        "mass": p["mass"] if "mass" in p else np.zeros(len(px)),
    }


def _particle_branches(sample: EventSample, exact: bool) -> dict[str, npt.NDArray[Any]]:
    p = sample.particles
    record = _polar(sample)
    record["incomingpz"] = np.where(p["status"] == -1, p["pz"], 0.0)
    record = {name: values.astype(np.float32) for name, values in record.items()}
    for column, (branch, dtype) in INTEGER.items():
        if column in p:
            record[branch] = p[column].astype(dtype)
    if "spin" in p:
        record["spin"] = np.rint(p["spin"]).astype(np.int32)
    for column, branch in MOTHERS.items():
        if column in p:
            record[branch] = (p[column] - 1).astype(np.int16)
    if exact:
        for column, branch in EXACT.items():
            if column in p:
                record[branch] = p[column]
    return record


def _number_column(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Texts as numbers, nan for other texts."""
    with contextlib.suppress(ValueError):
        return values.astype(np.float64)
    return np.array([_number(v) for v in values.tolist()])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _text_column(values: npt.NDArray[Any]) -> Any:
    """Strings as lists of UTF-8 bytes, which a TTree can hold."""
    import awkward as ak

    parts = [str(v).encode() for v in values.tolist()]
    flat = np.frombuffer(b"".join(parts), dtype=np.uint8)
    return ak.unflatten(flat, [len(part) for part in parts])
