"""ROOT files in NanoAOD naming: generator-level particles, weights and run information.

Tree ``Events``, one entry an event: ``LHEPart_*`` as CMS NanoAOD has it (32-bit
pt, eta, phi, mass; incoming particles have pt = eta = phi = 0 and their momentum
in ``incomingpz``; mother indices count from 0, -1 is none), and, unless turned
off, the exact 64-bit columns that 32 bits cannot hold: ``LHEPart_px, py, pz,
energy, generatedMass, cosSpin, lifetime``. Named weights are the branches
``LHEWeight_<name>`` with characters that ROOT does not allow replaced; the exact
names are in the object ``hepgen_ml`` (JSON), beside the run information. Tree
``Runs`` has the sums of weights and the cross section in pb.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.run_json import MAX_LENGTH, dump_run, load_run
from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events import UNKNOWN_SPIN, EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.formats import DEFAULT_CHUNK

METADATA = "hepgen_ml"
VERSION = 1
_FLUSH_EVENTS = 50_000
_FLUSH_ROWS = 1_000_000
_MAX_ETA = 40.0  # of particles along the beam: beyond any cut, yet cosh(eta)**2 fits 32 bits

# column of EventSample: 64-bit branch
_EXACT = {
    "px": "px",
    "py": "py",
    "pz": "pz",
    "energy": "energy",
    "mass": "generatedMass",
    "spin": "cosSpin",
    "lifetime": "lifetime",
}
# column of EventSample: branch, type in the file
_INTEGER = {
    "pdg_id": ("pdgId", np.int32),
    "status": ("status", np.int32),
    "color1": ("color1", np.int32),
    "color2": ("color2", np.int32),
}
_MOTHERS = {"mother1": "firstMotherIdx", "mother2": "lastMotherIdx"}
_EVENT = {
    "weight": ("genWeight", np.float64),
    "process_id": ("LHE_ProcessId", np.int32),
    "scale": ("Generator_scalePDF", np.float64),
    "alpha_qcd": ("LHE_AlphaS", np.float64),
    "alpha_qed": ("LHE_AlphaQED", np.float64),
}


class ROOT:
    """ROOT format, NanoAOD naming, written as a TTree."""

    name = "root"
    suffixes = (".root",)

    def open(self, path: Path, *, skip_bad: bool = False) -> ROOTReader:
        """Open for reading; raises InputError on files without ``LHEPart``."""
        return ROOTReader(path, skip_bad=skip_bad)

    def create(
        self,
        path: Path,
        run: RunInfo,
        n_events: int,
        *,
        four_vectors: bool = True,
        **options: Any,
    ) -> ROOTWriter:
        """Begin a file.

        Parameters
        ----------
        path : path-like
        run : RunInfo
        n_events : int
        four_vectors : bool
            Also write the exact 64-bit columns; without them four-momenta close
            only to 32-bit precision.
        **options
            Options of other formats, ignored.
        """
        return ROOTWriter(path, run, four_vectors=four_vectors)


class ROOTWriter:
    """Writes events in large baskets; see the module for the branches."""

    def __init__(self, path: Path, run: RunInfo, *, four_vectors: bool = True) -> None:
        import uproot

        self.path, self.run, self.four_vectors = path, run, four_vectors
        self._pending: list[EventSample] = []
        self._columns: tuple[Any, ...] | None = None
        self._tree: Any = None
        self._n = 0
        self._sums = np.zeros(2)
        self._branches: dict[str, str] = {}
        self._file = uproot.recreate(path)
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
                self._tree = self._file.mktree("Events", types, title="Events")
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
        for column, (branch, dtype) in _EVENT.items():
            if column in sample.events:
                branches[branch] = sample.events[column].astype(dtype)
        branches["LHEWeight_originalXWGTUP"] = sample.events["weight"]
        self._name(branches, "LHEWeight_", sample.weights)
        self._name(branches, "LHEScale_", sample.scales)
        branches |= _parton_densities(sample)
        record = _particle_branches(sample, self.four_vectors)
        branches["LHEPart"] = ak.unflatten(ak.zip(record, depth_limit=1), sample.counts)
        texts = {name: _text_column(values) for name, values in sample.attributes.items()}
        self._name(branches, "LHEText_", texts)
        return branches

    def _name(self, branches: dict[str, Any], prefix: str, columns: Any) -> None:
        """Branch names for columns of any name, the same for every chunk."""
        for name, values in columns.items():
            key = f"{prefix}:{name}"
            if key not in self._branches:
                stem = prefix + (re.sub(r"\W", "_", name, flags=re.ASCII) or "_")
                taken = {*self._branches.values(), *branches}
                branch, k = stem, 2
                while branch in taken:
                    branch, k = f"{stem}_{k}", k + 1
                self._branches[key] = branch
            branches[self._branches[key]] = values

    def close(self) -> None:
        """Write what is pending, the sums of weights and the run information."""
        if self._closed:
            return
        self._closed = True
        try:
            self._flush()
            runs: dict[str, npt.NDArray[Any]] = {
                "run": np.ones(1, dtype=np.uint32),
                "genEventCount": np.array([self._n], dtype=np.int64),
                "genEventSumw": self._sums[:1],
                "genEventSumw2": self._sums[1:],
                "genCrossSection": np.array([self.run.cross_section]),
                "genCrossSectionError": np.array([self.run.cross_section_error]),
            }
            self._file.mktree("Runs", {k: v.dtype for k, v in runs.items()}, title="Runs")
            self._file["Runs"].extend(runs)
            names: dict[str, dict[str, str]] = {"LHEWeight_": {}, "LHEScale_": {}, "LHEText_": {}}
            for key, branch in self._branches.items():
                prefix, name = key.split(":", 1)
                names[prefix][branch] = name
            self._file[METADATA] = json.dumps(
                {
                    "version": VERSION,
                    "weights": names["LHEWeight_"],
                    "scales": names["LHEScale_"],
                    "attributes": names["LHEText_"],
                    "columns": [] if self._columns is None else self._columns[0],
                    "run": dump_run(self.run),
                }
            )
        finally:
            self._file.close()


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


def _particle_branches(sample: EventSample, exact: bool) -> dict[str, npt.NDArray[Any]]:
    p = sample.particles
    px, py, pz = p["px"], p["py"], p["pz"]
    pt = np.hypot(px, py)
    incoming = p["status"] == -1 if "status" in p else np.zeros(len(px), dtype=bool)
    pt = np.where(incoming, 0.0, pt)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        eta = np.clip(np.nan_to_num(np.arcsinh(pz / pt)), -_MAX_ETA, _MAX_ETA)
    record = {
        "pt": pt,
        "eta": np.where(incoming, 0.0, eta),
        "phi": np.where(incoming, 0.0, np.arctan2(py, px)),
        "mass": p["mass"] if "mass" in p else np.zeros(len(px)),
        "incomingpz": np.where(incoming, pz, 0.0),
    }
    record = {name: values.astype(np.float32) for name, values in record.items()}
    for column, (branch, dtype) in _INTEGER.items():
        if column in p:
            record[branch] = p[column].astype(dtype)
    if "spin" in p:
        record["spin"] = np.rint(p["spin"]).astype(np.int32)
    for column, branch in _MOTHERS.items():
        if column in p:
            record[branch] = (p[column] - 1).astype(np.int16)
    if exact:
        for column, branch in _EXACT.items():
            if column in p:
                record[branch] = p[column]
    return record


def _text_column(values: npt.NDArray[Any]) -> Any:
    """Strings as lists of UTF-8 bytes, which a TTree can hold."""
    import awkward as ak

    parts = [str(v).encode() for v in values.tolist()]
    flat = np.frombuffer(b"".join(parts), dtype=np.uint8)
    return ak.unflatten(flat, [len(part) for part in parts])


class ROOTReader:
    """Reads ``LHEPart`` events through uproot.

    Files of `ROOTWriter` with 64-bit columns come back exactly. From other files
    in NanoAOD naming four-momenta have 32-bit precision, incoming particles are
    taken where they are stored, and mothers and colours only where they are.

    Raises
    ------
    InputError
        On files that are not ROOT, lack the tree ``Events`` or ``LHEPart``, or
        whose run information is not valid.
    """

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        import uproot

        self.path, self.skip_bad = Path(path), skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = 0
        try:
            self._file = uproot.open(self.path)
        except Exception as error:  # uproot raises many kinds on damaged files
            raise self._fail(f"is not a ROOT file that can be read ({_first(error)})") from error
        try:
            self._describe()
        except InputError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._fail(f"cannot be read ({_first(error)})") from error

    def _fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    def _describe(self) -> None:
        names = set(self._file.keys(cycle=False))
        if "Events" not in names or not hasattr(self._file["Events"], "num_entries"):
            raise self._fail("has no tree 'Events'", remedy="name a file in NanoAOD format")
        self._tree = self._file["Events"]
        self._branches = set(self._tree.keys())
        needed = {f"LHEPart_{k}" for k in ("pt", "eta", "phi", "pdgId")}
        if needed - self._branches:
            raise self._fail(
                f"its events have no {', '.join(sorted(needed - self._branches))}",
                remedy="only generator-level particles (LHEPart) are read from ROOT",
            )
        if self._tree.num_entries == 0:
            raise self._fail("holds no events", remedy="check how it was made")
        self._names: dict[str, dict[str, str]] = {"weights": {}, "scales": {}, "attributes": {}}
        self._columns: list[str] | None = None
        if METADATA in names:
            self._read_metadata(str(self._file[METADATA]))
        else:
            self.run = self._foreign_run(names)

    def _read_metadata(self, text: str) -> None:
        damaged = "its metadata is not valid"
        if len(text) > 2 * MAX_LENGTH:
            raise self._fail(damaged)
        try:
            content = json.loads(text)
            version = content["version"]
            for kind in self._names:
                entries = content[kind]
                for branch, name in entries.items():
                    if not isinstance(name, str) or branch not in self._branches:
                        raise self._fail(f"{damaged}: no branch {branch!r}")
                self._names[kind] = entries
            self._columns = [str(name) for name in content["columns"]]
            run = content["run"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._fail(damaged) from error
        if version != VERSION:
            raise self._fail(
                f"was written by a newer version (format {version!r})", remedy="upgrade hepgen-ml"
            )
        self.run = load_run(str(run), self.path)

    def _foreign_run(self, names: set[str]) -> RunInfo:
        first = {k for k in ("genWeight", "LHEWeight_originalXWGTUP") if k in self._branches}
        weights = {k: float(self._tree[k].array(entry_stop=1, library="np")[0]) for k in first}
        unit = abs(abs(weights.get("genWeight", 1.0)) - 1.0) < 1e-6
        processes: tuple[Subrun, ...] = ()
        if "Runs" in names and "genCrossSection" in self._file["Runs"].keys():  # noqa: SIM118
            value = float(self._file["Runs/genCrossSection"].array(library="np")[0])
            processes = (Subrun(0, value, 0.0),)
        return RunInfo(
            weight_strategy=-3 if unit else -4, processes=processes, significant_digits=6
        )

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, `size` at a time."""
        wanted = [k for k in self._branches if k.startswith("LHEPart_")]
        wanted += [branch for branch, _ in _EVENT.values() if branch in self._branches]
        wanted += [branch for names in self._names.values() for branch in names]
        for start in range(0, self._tree.num_entries, size):
            try:
                arrays = self._tree.arrays(wanted, entry_start=start, entry_stop=start + size)
                sample = self._sample(arrays)
            except InputError:
                raise
            except Exception as error:
                raise self._fail(f"is damaged ({_first(error)})", start + 1) from error
            finite = np.isfinite(sample.momentum).all(axis=1)
            bad = np.bincount(sample.event_index, ~finite, len(sample)) > 0
            bad |= ~np.isfinite(sample.events["weight"])
            if bad.any():
                sample = self._skip(sample, bad, start)
            if len(sample):
                yield sample

    def _skip(self, sample: EventSample, bad: npt.NDArray[np.bool_], start: int) -> EventSample:
        for i in np.flatnonzero(bad)[:100]:
            error = self._fail(
                "a number is not finite",
                start + int(i) + 1,
                "use --skip-bad to leave such events out",
            )
            if not self.skip_bad:
                raise error
            if len(self.skipped) < 100:
                self.skipped.append(error)
        self.n_skipped += int(bad.sum())
        if 2 * self.n_skipped > self._tree.num_entries:
            raise self._fail(f"{self.n_skipped} of {self._tree.num_entries} events are bad")
        return sample[~bad]

    def _sample(self, arrays: Any) -> EventSample:
        import awkward as ak

        fields = set(arrays.fields)
        counts = ak.to_numpy(ak.num(arrays["LHEPart_pdgId"]))
        flat = {
            k[8:]: ak.to_numpy(ak.flatten(arrays[k])) for k in fields if k.startswith("LHEPart_")
        }
        particles = _exact_columns(flat) or _derived_columns(flat)
        for column, (branch, _) in _INTEGER.items():
            if branch in flat:
                particles[column] = flat[branch]
        for column, branch in _MOTHERS.items():
            if branch in flat:
                particles[column] = flat[branch].astype(np.int32) + 1
        if self._columns is not None:
            particles = {k: v for k, v in particles.items() if k in self._columns}
        events = {
            column: ak.to_numpy(arrays[branch])
            for column, (branch, _) in _EVENT.items()
            if branch in fields
        }

        def named(kind: str) -> dict[str, Any]:
            return {name: arrays[branch] for branch, name in self._names[kind].items()}

        return EventSample(
            self.run,
            np.concatenate([[0], np.cumsum(counts)]),
            particles,
            events,
            weights={k: ak.to_numpy(v) for k, v in named("weights").items()},
            scales={k: ak.to_numpy(v) for k, v in named("scales").items()},
            attributes={
                k: np.array([bytes(x).decode(errors="replace") for x in ak.to_list(v)], dtype=str)
                for k, v in named("attributes").items()
            },
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _first(error: Exception) -> str:
    """First line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _exact_columns(flat: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    if not {"px", "py", "pz", "energy"} <= set(flat):
        return {}
    columns = {c: flat[branch] for c, branch in _EXACT.items() if branch in flat}
    if "mass" not in columns and "mass" in flat:
        columns["mass"] = flat["mass"]
    return columns


def _derived_columns(flat: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Momenta from 32-bit pt, eta, phi, mass; incoming particles from ``incomingpz``."""
    pt, eta, phi = (flat[k].astype(np.float64) for k in ("pt", "eta", "phi"))
    mass = flat["mass"].astype(np.float64) if "mass" in flat else np.zeros(len(pt))
    status = flat.get("status", np.ones(len(pt), dtype=np.int32))
    along = flat["incomingpz"].astype(np.float64) if "incomingpz" in flat else np.zeros(len(pt))
    with np.errstate(over="ignore", invalid="ignore"):
        pz = np.where(status == -1, along, np.where(pt > 0, pt * np.sinh(eta), 0.0))
    px, py = pt * np.cos(phi), pt * np.sin(phi)
    return {
        "px": px,
        "py": py,
        "pz": pz,
        "energy": np.sqrt(px**2 + py**2 + pz**2 + mass**2),
        "mass": mass,
        "status": status,
        "spin": flat["spin"].astype(np.float64)
        if "spin" in flat
        else np.full(len(pt), UNKNOWN_SPIN),
    }
