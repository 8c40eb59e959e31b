"""Reading ``LHEPart`` events through uproot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._root_names import EVENT, EXACT, INTEGER, METADATA, MOTHERS, VERSION
from hepgen_adapters._run_json import MAX_LENGTH, load_run
from hepgen_ml.errors import InputError
from hepgen_ml.events import UNKNOWN_SPIN, EventSample, RunInfo, Subrun
from hepgen_ml.formats import DEFAULT_CHUNK


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
        wanted += [branch for branch, _ in EVENT.values() if branch in self._branches]
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
        for column, (branch, _) in INTEGER.items():
            if branch in flat:
                particles[column] = flat[branch]
        for column, branch in MOTHERS.items():
            if branch in flat:
                particles[column] = flat[branch].astype(np.int32) + 1
        if self._columns is not None:
            particles = {k: v for k, v in particles.items() if k in self._columns}
        events = {
            column: ak.to_numpy(arrays[branch])
            for column, (branch, _) in EVENT.items()
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
    if not {"pxExact", "pyExact", "pzExact", "energyExact"} <= set(flat):
        return {}
    columns = {c: flat[branch] for c, branch in EXACT.items() if branch in flat}
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
