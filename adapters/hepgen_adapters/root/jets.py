"""Jets with constituents in ROOT files: one jet or one event in each entry of a tree.

Constituents are lists of numbers whose names have one beginning: ``part_px, part_py, part_pz,
part_energy`` as JetClass has them, or ``PFCands_pt, PFCands_eta, PFCands_phi, PFCands_mass`` as
NanoAOD has them. Where every entry is a jet, they are lists; where every entry is an event, they
are lists (of jets) of lists, or one list for the event and two for the jets that say which
constituents belong to which, ``FatJetPFCands_jetIdx`` and ``FatJetPFCands_pFCandsIdx``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.root.file import ROOTFile
from hepgen_ml.errors import UsageError
from hepgen_ml.events.jets import Checked, Jets, JetSelection

_CARTESIAN = (("px",), ("py",), ("pz",), ("energy", "e"))
_POLAR = (("pt",), ("eta",), ("phi",), ("mass", "m", "energy", "e"))
_JET_INDEX, _ROW_INDEX = re.compile(r"(\w+)_jetIdx"), re.compile(r"_(?:pf?cands?|part\w*)idx", re.I)
_OBJECTS = re.compile(r"(?:jets?|electrons?|muons?|taus?|photons?)[_.]?$", re.IGNORECASE)
"""Lists of complete objects of an event, which are constituents of a jet only on request."""

_CHUNK = 20_000


class ROOTJets:
    """Reads jets of a tree; see `hepgen_ml.events.jets.JetReader`.

    Raises
    ------
    InputError
        There are no lists of momenta, several of them, or a column is missing.
    UsageError
        The selection says how to cluster jets.
    """

    def __init__(self, path: Path, selection: JetSelection, *, skip_bad: bool = False) -> None:
        given = (selection.jet_radius, selection.jet_pt, selection.jet_eta)
        if any(value is not None for value in given):
            raise UsageError(
                "its jets are clustered already",
                path=path,
                remedy="leave out --jet-radius, --jet-pt and --jet-eta",
            )
        self.selection, self.checked = selection, Checked(path, selection, skip_bad)
        self.file = ROOTFile(path, selection.tree, any_tree=True)
        try:
            self.prefix, self.momentum = self._constituents()
            self.links = self._links()
            self._features = self._feature_branches()
            self._labels = (selection.label,) if selection.label else selection.flags
            if missing := [b for b in self._labels if b not in self.file.branches]:
                raise self.file.fail(
                    f"has no column {missing[0]!r}",
                    remedy=f"it has {_some(sorted(self.file.branches))}",
                )
        except BaseException:
            self.close()
            raise

    def _depth(self, branch: str) -> int:
        """0 for one number in each entry, 1 for a list, 2 for a list of lists."""
        return int(self.file.arrays([branch], 0, 1)[branch].ndim) - 1

    def _constituents(self) -> tuple[str, tuple[str, ...]]:
        """Prefix of the names of the momenta, and these names."""
        branches = list(self.file.branches)
        lower = {name.lower(): name for name in branches}
        found: dict[str, tuple[str, ...]] = {}
        for names in (_CARTESIAN, _POLAR):
            for branch in branches:
                if not branch.lower().endswith(names[0][0]):
                    continue
                prefix = branch[: -len(names[0][0])]
                start = prefix.lower()
                group = [next((lower[start + n] for n in q if start + n in lower), "")
                         for q in names]  # fmt: skip
                if all(group) and self._depth(branch) in (1, 2):
                    found.setdefault(prefix, tuple(group))
        wanted = self.selection.constituents
        if wanted is not None:
            some = {p: g for p, g in found.items() if p.rstrip("_.") == wanted.rstrip("_.")}
        else:
            possible = {p: g for p, g in found.items() if not _OBJECTS.search(p)}
            deepest = max((self._depth(g[0]) for g in possible.values()), default=0)
            some = {p: g for p, g in possible.items() if self._depth(g[0]) == deepest}
        if len(some) == 1:
            return next(iter(some.items()))
        lists = ", ".join(p.rstrip("_.") or "px" for p in sorted(found))
        if not found or (wanted is None and not some):
            more = f"; if its {lists} are constituents, say so with --constituents"
            raise self.file.fail(
                f"tree {self.file.tree_name} has no lists of momenta of constituents",
                remedy="it needs lists such as part_px, part_py, part_pz, part_energy, or "
                "part_pt, part_eta, part_phi, part_mass" + (more if found else ""),
            )
        raise self.file.fail(
            "has several lists of momenta" if wanted is None else f"has no lists {wanted!r}",
            remedy=f"choose the jets' constituents with --constituents: {lists}",
        )

    def _links(self) -> tuple[str, str] | None:
        """Branches with the assignment of constituents to jets of an event."""
        index = [n for n in self.file.branches if n.lower().endswith("idx")]
        names = [n for n in index if self._depth(n) == 1]
        own = self.prefix.rstrip("_.").lower()
        for name in names:
            match = _JET_INDEX.fullmatch(name)
            if match is None or not match[1].lower().endswith(own):
                continue
            for other in names:
                if other.startswith(match[1]) and _ROW_INDEX.fullmatch(other[len(match[1]) :]):
                    return name, other
        return None

    def _feature_branches(self) -> list[str]:
        found = []
        for name in self.selection.features:
            choices = [self.prefix + name, name]
            branch = next((b for b in choices if b in self.file.branches), None)
            if branch is None:
                own = [
                    b.removeprefix(self.prefix)
                    for b in self.file.branches
                    if b.startswith(self.prefix) and b not in self.momentum
                ]
                raise self.file.fail(
                    f"its constituents have no {name!r}", remedy=f"they have {_some(own)}"
                )
            found.append(branch)
        return found

    def chunks(self) -> Iterator[Jets]:
        """Jets in the order of the file."""
        wanted = [*self.momentum, *self._features, *self._labels, *(self.links or ())]
        for start, stop in self.file.ranges(wanted):
            for first in range(start, stop, _CHUNK):
                last = min(first + _CHUNK, stop)
                with self.file.reading(first + 1):
                    arrays = self.file.arrays(wanted, first, last)
                    columns = self._columns(arrays)
                    label = self._label(arrays, len(columns[0]))
                yield self.checked.jets(*columns, label)

    def _columns(
        self, arrays: Mapping[str, Any]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[Any]]:
        """Constituents of each jet, their momenta and features."""
        import awkward as ak

        lists = [arrays[b] for b in (*self.momentum, *self._features)]
        if self.links is not None:
            lists = [_linked(x, *(arrays[b] for b in self.links)) for x in lists]
        elif lists[0].ndim == 3:
            lists = [ak.flatten(x, axis=1) for x in lists]
        counts = ak.to_numpy(ak.num(lists[0], axis=1)).astype(np.int64)
        for x in lists:
            if x.ndim != 2 or not np.array_equal(ak.to_numpy(ak.num(x, axis=1)), counts):
                raise ValueError("lists of constituents have different lengths")
        flat = [ak.to_numpy(ak.flatten(x)).astype(np.float64) for x in lists]
        features = np.stack(flat[4:], axis=1) if len(flat) > 4 else np.zeros((len(flat[0]), 0))
        return counts, self._momenta(flat[:4]), features

    def _momenta(self, flat: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        if self.momentum[0].lower().endswith("px"):
            return np.stack(flat, axis=1)
        pt, eta, phi, last = flat
        with np.errstate(over="ignore", invalid="ignore"):
            px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
            energy = last
            if self.momentum[3].lower().endswith(("mass", "m")):
                energy = np.sqrt(px**2 + py**2 + pz**2 + np.maximum(last, 0.0) ** 2)
        return np.stack([px, py, pz, np.where(pt >= 0, energy, np.nan)], axis=1)

    def _label(self, arrays: Mapping[str, Any], n_jets: int) -> npt.NDArray[np.str_] | None:
        if not self._labels:
            return None
        columns = [_flat(arrays[b]) for b in self._labels]
        for branch, values in zip(self._labels, columns, strict=True):
            if len(values) != n_jets:
                raise self.file.fail(
                    f"column {branch!r} has not one value for each jet",
                    remedy="name a column of jets",
                )
        if self.selection.label:
            return _texts(columns[0])
        label = np.full(n_jets, "", dtype=object)
        for branch, values in zip(self._labels, columns, strict=True):
            label[np.asarray(values) > 0.5] = branch
        return label.astype(str)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _linked(values: Any, jet: Any, row: Any) -> Any:
    """Lists of an event as lists of jets, by the jet and the row of each pair that belongs."""
    import awkward as ak

    picked = values[row]
    n_jets = ak.to_numpy(ak.fill_none(ak.max(jet, axis=1), -1)).astype(np.int64) + 1
    entry = np.repeat(np.arange(len(jet)), ak.to_numpy(ak.num(jet, axis=1)))
    start = np.cumsum(n_jets) - n_jets
    owner = start[entry] + ak.to_numpy(ak.flatten(jet)).astype(np.int64)
    if len(owner) and owner.min() < 0:
        raise ValueError("a constituent belongs to a jet that is not there")
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=int(n_jets.sum()))
    return ak.unflatten(ak.to_numpy(ak.flatten(picked))[order], counts)


def _flat(values: Any) -> npt.NDArray[Any]:
    import awkward as ak

    kind = values.type.content
    text = getattr(kind, "parameters", {}).get("__array__") in ("string", "bytestring")
    if text:
        return np.array([x if isinstance(x, str) else x.decode() for x in ak.to_list(values)])
    return np.asarray(ak.to_numpy(ak.flatten(values, axis=None) if values.ndim > 1 else values))


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Values of a label as texts: 1 for 1.0 and true, too."""
    if values.dtype.kind == "U":
        return values
    if values.dtype.kind in "iu":
        return values.astype(str)
    numbers = values.astype(np.float64)
    whole = (np.abs(numbers) < 2**53) & (numbers == np.rint(numbers))
    # each by itself: the other values of a chunk must not change the text of a number
    return np.where(whole, np.where(whole, numbers, 0).astype(np.int64).astype(str),
                    values.astype(str))  # fmt: skip


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "none"
