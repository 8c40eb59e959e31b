"""Files of events with numbers to learn: event files, ROOT columns, and arrays of NumPy (.npz).

An ``.npz`` file holds ``momenta`` (n, k, 4) as (px, py, pz, E) in GeV; ``pdg_id`` (k,) or (n, k), 0
where there is no particle; optionally ``status`` (k,) or (n, k), -1 for incoming and 1 for outgoing
particles (all outgoing if not given); and further arrays (n,), the columns. Nothing in it is
unpickled.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import InputError, UsageError
from hepgen_ml.events.formats import DEFAULT_CHUNK, format_of, open_sample, read
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo
from hepgen_ml.regression.targets import Learned, target_of

log = logging.getLogger(__name__)

NPZ = ".npz"
_MOST_BYTES = 32 << 30
_ROUNDING = 1e-3
"""Relative excess of a momentum over its energy that single precision may leave."""

_REMEDY = "write it with numpy.savez, see docs/regression.md"


def training_sample(
    path: Path, target: str, *, max_events: int | None = None, selection: Selection | None = None
) -> tuple[EventSample, Learned]:
    """Events of a file, with a target number for each.

    Parameters
    ----------
    path : Path
    target : str
        A column of the file (``.npz`` and ROOT), a named weight, or ``weight``.
    max_events : int, optional
        First events of the file.
    selection : Selection, optional
        Objects to read.

    Returns
    -------
    sample : EventSample
    target : Learned

    Raises
    ------
    InputError
        The file is missing, damaged, or of another format.
    UsageError
        It has no such weight or column.
    """
    if path.suffix == NPZ:
        sample, columns = read_npz(path)
        if target not in columns and target in _names(path):
            raise UsageError(
                f"its array {target[:100]!r} is not one real number for each of "
                f"{len(sample)} events",
                path=path, remedy=_REMEDY,
            )  # fmt: skip
        if target not in columns:
            raise UsageError(
                f"has no column {target[:100]!r}", path=path,
                remedy=f"it has {', '.join(columns) or 'none'}",
            )  # fmt: skip
        values = columns[target][:max_events]
        return sample[:max_events], Learned(values, target, "values")
    sample = read(path, selection=selection, max_events=max_events)
    zero = sample.weight == 0
    if target in sample.weights and zero.any() and not zero.all():
        log.warning(
            "%s: %d events are left out, whose nominal weight is zero: %s has no ratio to it",
            path, int(zero.sum()), target,
        )  # fmt: skip
        sample = sample[~zero]
    column = getattr(format_of(path), "column", None)
    try:
        return sample, target_of(sample, target)
    except UsageError as missing:
        if column is None:
            raise UsageError(missing.message, path=path, remedy=missing.remedy) from None
        tree = None if selection is None else selection.tree
        try:
            values = column(path, target, tree=tree)
        except InputError as absent:
            remedy = f"{missing.remedy}; {absent.remedy}"
            raise InputError(absent.message, path=path, remedy=remedy) from None
        if max_events is not None:
            values = values[:max_events]
        if len(values) != len(sample):
            raise InputError(
                f"{len(sample)} events of {len(values)} are read, so that the column {target!r} "
                "does not belong to them", path=path, remedy="read objects that all events have",
            ) from None  # fmt: skip
        return sample, Learned(values, target, "values")


def event_chunks(path: Path, selection: Selection | None = None) -> Iterator[EventSample]:
    """Events of a file, some at a time."""
    if path.suffix == NPZ:
        yield from read_npz(path)[0].chunks(DEFAULT_CHUNK)
        return
    reader = open_sample(path, selection=selection)
    try:
        yield from reader.chunks()
    finally:
        reader.close()


def read_npz(path: Path) -> tuple[EventSample, dict[str, FloatArray]]:
    """Events of a file of arrays, and its columns.

    Raises
    ------
    InputError
        The file is missing, no such file, or its arrays do not fit together.
    """
    arrays = _arrays(path)

    def fail(what: str) -> InputError:
        return InputError(what, path=path, remedy=_REMEDY)

    momenta = arrays.pop("momenta", None)
    if momenta is None or momenta.ndim != 3 or momenta.shape[2] != 4 or momenta.shape[1] < 1:
        shape = "missing" if momenta is None else f"of shape {momenta.shape}"
        raise fail(f"its array momenta is {shape}, not (n, k, 4)")
    n, k = momenta.shape[:2]
    if n == 0:
        raise InputError("holds no events", path=path, remedy="check how it was made")
    kinds: dict[str, npt.NDArray[np.int64]] = {}
    for name in ("pdg_id", "status"):
        values = arrays.pop(name, np.ones(k, dtype=np.int64) if name == "status" else None)
        if values is None or values.shape not in ((k,), (n, k)) or values.dtype.kind not in "iu":
            raise fail(f"its array {name} is not integers ({k},) or ({n}, {k})")
        kinds[name] = np.broadcast_to(values.astype(np.int64), (n, k))
    if not np.isin(kinds["status"], (-1, 1)).all():
        raise fail("its array status has other numbers than -1 (incoming) and 1 (outgoing)")
    there = kinds["pdg_id"] != 0
    columns = {
        name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()
        if values.shape == (n,) and values.dtype.kind in "fiu"
    }  # fmt: skip
    flat = momenta.astype(np.float64)[there]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is named elsewhere
        size = np.sqrt((flat[:, :3] ** 2).sum(1))
        # virtual photons may come in with any momentum, but not with a negative energy
        least = np.where(kinds["status"][there] == 1, size * (1 - _ROUNDING), 0.0)
        unphysical = flat[:, 3] < least
    if unphysical.any():
        row = int(np.argmax(unphysical))
        raise InputError(
            f"a particle has the energy {flat[row, 3]:.6g} and the momentum {size[row]:.6g}",
            path=path, event=int(np.flatnonzero(np.cumsum(there.sum(1)) > row)[0]) + 1,
            remedy="momenta are px, py, pz, E in this order; energies of incoming particles, of "
            "status -1, are positive too",
        )  # fmt: skip
    sample = EventSample(
        RunInfo(),
        np.concatenate([[0], np.cumsum(there.sum(1))]),
        {
            "pdg_id": kinds["pdg_id"][there], "status": kinds["status"][there],
            "px": flat[:, 0], "py": flat[:, 1], "pz": flat[:, 2], "energy": flat[:, 3],
        },
    )  # fmt: skip
    return sample, columns


def _names(path: Path) -> set[str]:
    """Names of the arrays in a file, also of those that are not read."""
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Arrays of numbers in a file; no array is read whose size is not that of its entry."""
    if not path.exists():
        raise InputError("no such file", path=path, remedy="check the path")
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if e.filename.endswith(".npy")]
            if sum(e.file_size for e in entries) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES >> 30} GB of arrays")
            for entry in entries:
                with archive.open(entry) as file:
                    version = np.lib.format.read_magic(file)
                    reader = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }.get(version)
                    if reader is None:
                        raise ValueError(f"version {version} of arrays")
                    shape, _, dtype = reader(file)
                    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.kind not in "fiu" or size > entry.file_size:
                    continue
                with archive.open(entry) as file:
                    found[entry.filename[:-4]] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, EOFError, NotImplementedError, RuntimeError, ValueError, TypeError,
            zipfile.BadZipFile, zipfile.LargeZipFile, MemoryError) as error:  # fmt: skip
        text = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"cannot be read: {text}", path=path, remedy=_REMEDY) from None
    return found
