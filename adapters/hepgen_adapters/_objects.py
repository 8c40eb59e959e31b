"""Common part of all readers of reconstructed objects: columns, order, selection."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import InputError
from hepgen_ml.events.objects import CHARGED, MASSES, OBJECTS, ObjectCount, Selection, counts_text
from hepgen_ml.events.sample import RunInfo, Subrun

log = logging.getLogger("hepgen_adapters.objects")

MEASURED_MASS = ("Tau", "Jet")
"""Collections whose objects have individual masses. Stored masses of electrons, muons and photons
are a constant with the rounding errors of 32 bits, so that those of `MASSES` are used."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Objects:
    """Objects of one collection, of all events of a chunk.

    Attributes
    ----------
    counts : (n_events,) int array
    px, py, pz, mass : (rows,) float arrays
        In GeV.
    charge : (rows,) array, optional
        Only its sign counts; for collections of `CHARGED`.
    energy : (rows,) float array, optional
        By default that of momentum and mass.
    """

    counts: Ints
    px: Floats
    py: Floats
    pz: Floats
    mass: Floats
    charge: npt.NDArray[np.generic] | None = None
    energy: Floats | None = None


def from_polar(
    name: str,
    counts: Ints,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike | None,
    charge: npt.NDArray[np.generic] | None,
) -> Objects:
    """Objects of collection `name` from detector coordinates, computed in 64 bits.

    Masses below zero, which come from rounding, become zero.
    """
    pt, eta, phi = (np.asarray(x, dtype=np.float64) for x in (pt, eta, phi))
    if mass is None or name not in MEASURED_MASS:
        mass = np.full(len(pt), MASSES.get(name, 0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        return Objects(
            counts,
            pt * np.cos(phi),
            pt * np.sin(phi),
            pt * np.sinh(eta),
            np.maximum(np.asarray(mass, dtype=np.float64), 0.0),
            charge,
        )


def object_columns(
    collections: Mapping[str, Objects], n_events: int
) -> tuple[Ints, dict[str, npt.NDArray[np.generic]]]:
    """Offsets and particle columns of a reconstructed sample.

    Parameters
    ----------
    collections : mapping of str to Objects
    n_events : int

    Returns
    -------
    offsets : (n_events + 1,) int array
    columns : dict
        ``pdg_id, px, py, pz, energy, mass``; within an event in the order of `OBJECTS`, leptons in
        the order of the file, photons and jets by transverse momentum.
    """
    parts = [(name, collections[name]) for name in OBJECTS if name in collections]
    numbers, falling, kinds, events = [], [], [], []
    for kind, (name, c) in enumerate(parts):
        number = np.full(len(c.px), OBJECTS[name], dtype=np.int32)
        if name in CHARGED and c.charge is not None:
            number[np.asarray(c.charge) >= 0] *= -1
        numbers.append(number)
        falling.append(np.zeros(len(c.px)) if name in CHARGED else -np.hypot(c.px, c.py))
        kinds.append(np.full(len(c.px), kind))
        events.append(np.repeat(np.arange(n_events), c.counts))

    def join(arrays: Iterable[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        return np.concatenate([*arrays]) if parts else np.zeros(0)

    event = join(events).astype(np.int64)
    order = np.lexsort((join(falling), join(kinds), event))
    columns = {"pdg_id": join(numbers)[order]}
    for column in ("px", "py", "pz"):
        columns[column] = join(getattr(c, column) for _, c in parts)[order]
    columns["energy"] = join(_energy(c) for _, c in parts)[order]
    columns["mass"] = join(c.mass for _, c in parts)[order]
    counts = np.bincount(event, minlength=n_events).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)]), columns


def _energy(c: Objects) -> Floats:
    if c.energy is not None:
        return c.energy
    with np.errstate(over="ignore"):
        energy: Floats = np.sqrt(c.px**2 + c.py**2 + c.pz**2 + c.mass**2)
    return energy


def is_selected(
    counts: Mapping[str, Ints], objects: Iterable[ObjectCount], n_events: int
) -> npt.NDArray[np.bool_]:
    """Mask of events with the selected numbers of objects."""
    selected = np.ones(n_events, dtype=bool)
    for o in objects:
        selected &= (counts[o.name] >= o.low) & (counts[o.name] <= o.high)
    return selected


def nothing_selected(
    path: Path, objects: Iterable[ObjectCount], found: Iterable[ObjectCount]
) -> InputError:
    """Error for a file without any event with the selected objects."""
    there = counts_text(tuple(found))
    remedy = f'its first events have --objects "{there}"' if there else "choose other objects"
    return InputError(f"no event has {counts_text(tuple(objects))}", path=path, remedy=remedy)


def found_counts(counts: Mapping[str, Ints]) -> tuple[ObjectCount, ...]:
    """Smallest and largest numbers that occur; collections without any object are left out."""
    return tuple(
        ObjectCount(name, int(counts[name].min()), int(counts[name].max()))
        for name in OBJECTS
        if name in counts and len(counts[name]) and counts[name].max() > 0
    )


def with_cross_section(run: RunInfo, selection: Selection | None, path: Path) -> RunInfo:
    """Run information with the cross section that the user gave, if any.

    Processes keep their shares of it, if these are known.
    """
    if selection is None or selection.cross_section is None:
        return run
    stated, given = run.cross_section, selection.cross_section
    error = math.nan if (e := selection.cross_section_error) is None else e
    if not stated > 0:
        number = run.processes[0].process_id if run.processes else 0
        return run.with_(processes=(Subrun(number, given, error),), weight_cross_sections={})
    if abs(stated - given) > 1e-6 * given:
        _say_replaced(path, stated, given)
    run = run.scaled(given / stated)
    return run.with_(processes=tuple(
        replace(p, error=error * math.sqrt(max(p.cross_section, 0.0) / given))
        for p in run.processes
    ))  # fmt: skip


@lru_cache(maxsize=1024)
def _say_replaced(path: Path, stated: float, given: float) -> None:
    """Log a message once, even if the file is read several times."""
    log.warning("%s: its cross section of %g pb is replaced by %g pb as asked", path, stated, given)
