"""Reading reconstructed objects: NanoAOD naming and trees of Delphes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._objects import (
    Objects,
    found_counts,
    from_polar,
    is_selected,
    nothing_selected,
    object_columns,
)
from hepgen_adapters.root.file import ROOTFile
from hepgen_adapters.root.names import EVENT, OBJECT_EXACT
from hepgen_adapters.root.reader import TreeReader, event_columns, other_branches
from hepgen_ml.errors import UsageError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.objects import CHARGED, OBJECTS, ObjectCount, Selection, counts_text
from hepgen_ml.events.sample import EventSample

_LOOK_AHEAD = 1000  # events that the counts in an error message are taken from


@dataclass(frozen=True)
class Layout:
    """Names of the branches of objects in a program.

    Attributes
    ----------
    separator : str
        Between collection and quantity.
    quantities : tuple of str
        Names of pt, eta, phi, mass, charge.
    weight, cross_section : str
        Branches of the event; the cross section in pb is a running estimate.
    """

    separator: str
    quantities: tuple[str, str, str, str, str]
    weight: str
    cross_section: str

    def branch(self, collection: str, quantity: int) -> str:
        """Name of a branch."""
        return f"{collection}{self.separator}{self.quantities[quantity]}"


NANOAOD = Layout("_", ("pt", "eta", "phi", "mass", "charge"), "genWeight", "")
DELPHES = Layout(".", ("PT", "Eta", "Phi", "Mass", "Charge"), "Event.Weight", "Event.CrossSection")
"""Delphes, classes/DelphesClasses.h: objects in TClonesArrays, the event in one of length 1."""


def _layout(file: ROOTFile) -> Layout:
    """Naming of a file from its branches, for any name of the tree."""
    delphes = any(DELPHES.branch(c, 0) in file.branches for c in OBJECTS)
    return DELPHES if delphes else NANOAOD


def _needed(layout: Layout, collection: str) -> list[str]:
    """Branches without which a collection cannot be read."""
    quantities = [0, 1, 2]
    if collection in CHARGED:
        quantities.append(4)
    elif collection == "Jet":
        quantities.append(3)
    return [layout.branch(collection, q) for q in quantities]


def _counts(file: ROOTFile, layout: Layout) -> tuple[ObjectCount, ...]:
    """Collections of a file and the numbers of objects in its first events."""
    import awkward as ak

    found = [c for c in OBJECTS if set(_needed(layout, c)) <= set(file.branches)]
    arrays = file.arrays([layout.branch(c, 0) for c in found], 0, _LOOK_AHEAD)
    found = [c for c in found if arrays[layout.branch(c, 0)].ndim == 2]
    return found_counts(
        {c: ak.to_numpy(ak.num(arrays[layout.branch(c, 0)], axis=1)) for c in found}
    )


def objects_remedy(file: ROOTFile) -> str:
    """Advice for a file without partons."""
    try:
        found = counts_text(_counts(file, _layout(file)))
    except Exception:  # ignore any error of uproot, because this is only a hint
        found = ""
    if found:
        return f'it holds reconstructed objects: read them with --objects "{found}"'
    return "generator-level particles (LHEPart) and reconstructed objects are read from ROOT"


class ObjectReader(TreeReader):
    """Reads reconstructed objects; see `hepgen_ml.events.objects`.

    Parameters
    ----------
    file : ROOTFile
    skip_bad : bool
        Leave out events with numbers that are not finite.
    selection : Selection, optional
        Not needed for files of ours, which know their objects.

    Raises
    ------
    InputError
        If a collection is missing.
    UsageError
        If the selection says how to cluster jets.
    """

    defect = "a number is not finite, a transverse momentum negative or a lepton's charge not ±1"

    def __init__(
        self, file: ROOTFile, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> None:
        super().__init__(file, skip_bad=skip_bad)
        self._layout = _layout(file)
        asked = selection.objects if selection is not None else ()
        self._objects = asked or tuple(ObjectCount(c, 0, 1 << 30) for c in file.objects)
        plain = Selection()
        jets = ("jet_radius", "jet_pt", "jet_eta")
        if selection is not None and any(getattr(selection, k) != getattr(plain, k) for k in jets):
            raise UsageError(
                "its jets are clustered already",
                path=self.path,
                remedy="leave out --jet-radius, --jet-pt and --jet-eta",
            )
        self._numbers = file.numbers()
        branches = set(file.branches)
        for o in self._objects:
            if missing := [b for b in _needed(self._layout, o.name) if b not in branches]:
                found = counts_text(_counts(file, self._layout))
                raise file.fail(
                    f"its events have no {', '.join(missing)}",
                    remedy=f'it holds --objects "{found}"' if found else "choose other objects",
                )
        for branch in [b for o in self._objects for b in self._branches_of(o.name).values()]:
            if file.arrays([branch], 0, 1)[branch].ndim != 2:
                raise file.fail(
                    f"branch {branch} holds one number an event, not a list of objects",
                    remedy="name a file whose branches are lists, one entry for each object, as "
                    "in NanoAOD",
                )
        self.run = file.run_info(self._layout.weight, self._layout.cross_section, selection)
        if file.run is None:
            self.left_out = other_branches(file, set(self._wanted()))
        else:
            names = [o.name for o in self._objects]
            self.left_out = [f"collection {c}" for c in file.objects if c not in names]

    def _branches_of(self, collection: str) -> dict[str, str]:
        """Branches to read, by their content."""
        exact = {c: f"{collection}_{b}" for c, b in OBJECT_EXACT.items()}
        names = [*_needed(self._layout, collection), self._layout.branch(collection, 3)]
        polar = {n.split(self._layout.separator)[1].lower(): n for n in names}
        if set(exact.values()) <= set(self.file.branches):
            return exact | ({"charge": polar["charge"]} if "charge" in polar else {})
        return {k: b for k, b in polar.items() if b in self.file.branches}

    def _event_branches(self) -> list[str]:
        named = [b for names in self.file.names.values() for b in names]
        named += self.file.weight_lists
        own = [b for b, _ in EVENT.values()] if self.file.run is not None else []
        wanted = dict.fromkeys([self._layout.weight, *own, *self._numbers, *named])
        return [b for b in wanted if b in self.file.branches]

    def _wanted(self) -> list[str]:
        objects = [b for o in self._objects for b in self._branches_of(o.name).values()]
        return objects + self._event_branches()

    def chunks(self, size: int = DEFAULT_CHUNK) -> Any:
        """Events in file order, at most `size` at a time.

        Raises
        ------
        InputError
            No event has the objects asked for, or an event is bad.
        """
        n = 0
        for chunk in super().chunks(size):
            n += len(chunk)
            yield chunk
        if n == 0 and self.n_unselected:
            raise nothing_selected(self.path, self._objects, _counts(self.file, self._layout))

    def _sample(self, arrays: Mapping[str, Any]) -> tuple[EventSample, npt.NDArray[np.int64]]:
        import awkward as ak

        of_events = {b: arrays[b] for b in self._event_branches()}
        columns = event_columns(self.file, of_events)
        if self._layout.weight in of_events:
            weight = of_events[self._layout.weight]
            if weight.ndim == 2:
                weight = ak.fill_none(ak.firsts(weight), 1.0)
            columns["events"]["weight"] = ak.to_numpy(weight).astype(np.float64)
        n_events = len(next(iter(arrays.values())))
        collections = {o.name: self._collection(o.name, arrays) for o in self._objects}
        counts = {name: c.counts for name, c in collections.items()}
        offsets, particles = object_columns(collections, n_events)
        sample = EventSample(self.run, offsets, particles, **columns)
        selected = is_selected(counts, self._objects, n_events)
        if not selected.all():
            self.n_unselected += int((~selected).sum())
            self.unselected_weight += float(np.nansum(sample.weight[~selected]))
            sample = sample[selected]
        return sample, np.flatnonzero(selected)

    def _collection(self, name: str, arrays: Mapping[str, Any]) -> Objects:
        import awkward as ak

        branches = self._branches_of(name)
        all_counts = [ak.to_numpy(ak.num(arrays[b], axis=1)) for b in branches.values()]
        counts = all_counts[0].astype(np.int64)
        if not all(np.array_equal(counts, other) for other in all_counts):
            raise ValueError(f"branches of {name} have different lengths")
        flat = {k: ak.to_numpy(ak.flatten(arrays[b])) for k, b in branches.items()}
        charge = _signed(flat["charge"]) if "charge" in flat else None
        size = "pt" if "pt" in flat else "energy"
        wrong = np.asarray(flat[size]) < 0
        if charge is not None:
            wrong |= np.abs(charge) != 1
        if wrong.any():  # missing measurements are nan, and their event is bad
            flat[size] = np.where(wrong, np.nan, flat[size])
        if "pt" not in flat:
            return Objects(
                counts, flat["px"], flat["py"], flat["pz"], flat["mass"], charge, flat["energy"]
            )
        pt, eta, phi = flat["pt"], flat["eta"], flat["phi"]
        return from_polar(name, counts, pt, eta, phi, flat.get("mass"), charge)


def _signed(charge: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Charges of any type: true is positive, and -1 may stand as the largest number of a type."""
    if charge.dtype.kind == "b":
        return np.where(charge, 1, -1).astype(np.int32)
    if charge.dtype.kind == "u":
        return charge.astype(f"i{charge.dtype.itemsize}")
    return charge
