"""Reading ``LHEPart`` events through uproot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.root.file import ROOTFile
from hepgen_adapters.root.names import EVENT, EXACT, INTEGER, MOTHERS
from hepgen_adapters.root.objects import ObjectReader, objects_remedy
from hepgen_adapters.root.reader import TreeReader, event_columns, other_branches
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample, FloatArray


def open_root(
    path: Path, *, skip_bad: bool = False, selection: Selection | None = None
) -> TreeReader:
    """Reader for the content of a file, or for a selection."""
    file = ROOTFile(path, None if selection is None else selection.tree)
    try:
        if file.objects or (selection is not None and selection.objects):
            return ObjectReader(file, skip_bad=skip_bad, selection=selection)
        return ROOTReader(file, skip_bad=skip_bad, selection=selection)
    except BaseException:
        file.close()
        raise


def read_column(path: Path, name: str, tree: str | None = None) -> FloatArray:
    """A branch of one number an event, of all events."""
    import awkward as ak

    file = ROOTFile(path, tree)
    try:
        if name not in file.branches:
            known = [n for n in file.branches if "_" not in n] or list(file.branches)
            shown = ", ".join(sorted(known)[:12]) + (", …" if len(known) > 12 else "")
            what = f"has no column or named weight {name[:100]!r}"
            raise file.fail(what, remedy=f"it has {shown}")
        parts = [file.arrays([name], *ends)[name] for ends in file.ranges([name])]
        if any(part.ndim != 1 for part in parts):
            raise file.fail(
                f"branch {name} holds lists, not one number an event", remedy="choose another"
            )
        with file.reading():
            return np.concatenate([np.asarray(ak.to_numpy(p), dtype=np.float64) for p in parts])
    finally:
        file.close()


class ROOTReader(TreeReader):
    """Reads ``LHEPart`` events through uproot.

    Files of `ROOTWriter` with 64-bit columns come back exactly. From other files
    in NanoAOD naming four-momenta have 32-bit precision, incoming particles, mothers and colours
    are read if they are stored.

    Raises
    ------
    InputError
        On files without ``LHEPart``.
    """

    defect = (
        "a number is not finite, a transverse momentum negative, an integer no integer, or a "
        "mother not in the event"
    )

    def __init__(
        self, file: ROOTFile, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> None:
        super().__init__(file, skip_bad=skip_bad)
        needed = {f"LHEPart_{k}" for k in ("pt", "eta", "phi", "pdgId")}
        if missing := sorted(needed - set(file.branches)):
            raise file.fail(f"its events have no {', '.join(missing)}", remedy=objects_remedy(file))
        self._numbers = file.numbers()
        self.run = file.run_info("genWeight", "", selection)
        if file.run is None:
            self.left_out = other_branches(file, {*self._wanted(), "LHEWeight_originalXWGTUP"})

    def _wanted(self) -> list[str]:
        branches = self.file.branches
        wanted = [k for k in branches if k.startswith("LHEPart_")]
        wanted += [branch for branch, _ in EVENT.values() if branch in branches]
        wanted += [*self._numbers, *self.file.weight_lists]
        return wanted + [branch for names in self.file.names.values() for branch in names]

    def _sample(self, arrays: Mapping[str, Any]) -> tuple[EventSample, npt.NDArray[np.int64]]:
        import awkward as ak

        for name in (k for k in arrays if k.startswith("LHEPart_")):
            if arrays[name].ndim != 2:
                raise self.file.fail(
                    f"branch {name} holds one number an event, not a list of particles",
                    remedy="name a file whose branches are lists, as in NanoAOD",
                )
        counts = ak.to_numpy(ak.num(arrays["LHEPart_pdgId"]))
        flat = {
            k[8:]: ak.to_numpy(ak.flatten(v)) for k, v in arrays.items() if k.startswith("LHEPart_")
        }
        with np.errstate(over="ignore", invalid="ignore"):
            particles = _exact_columns(flat) or _derived_columns(flat)
        wrong = np.asarray(flat["pt"]) < 0
        if "spin" in particles:
            wrong |= ~np.isfinite(particles["spin"])
        for column, (branch, _) in INTEGER.items():
            if branch in flat:
                particles[column], bad = _whole(flat[branch])
                wrong |= bad
        for column, branch in MOTHERS.items():
            if branch in flat:
                row, bad = _whole(flat[branch])
                wrong |= bad | (row < -1) | (row >= np.repeat(counts, counts))
                particles[column] = row + 1
        if wrong.any():  # missing measurements are nan, and their event is bad
            particles["energy"] = np.where(wrong, np.nan, particles["energy"])
        if self.file.columns is not None:
            particles = {k: v for k, v in particles.items() if k in self.file.columns}
        sample = EventSample(
            self.run,
            np.concatenate([[0], np.cumsum(counts)]),
            particles,
            **event_columns(self.file, arrays),
        )
        return sample, np.arange(len(sample))


def _whole(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Numbers as integers, and a mask of those that are not 32-bit integers."""
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(values.astype(np.float64)) < 2**31)
        bad |= values != np.rint(values)
    return np.where(bad, 0, values).astype(np.int32), bad


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
