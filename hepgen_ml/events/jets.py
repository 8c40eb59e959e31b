"""Jets with their constituents, the inputs of taggers, and their interface to file formats."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import NOTE, InputError, UsageError
from hepgen_ml.events.formats import expand, format_of
from hepgen_ml.events.sample import FloatArray, IntArray

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Texts = npt.NDArray[np.str_]

MOST_CONSTITUENTS = 200
"""Number of hardest constituents kept of each jet; jets of public samples have fewer."""

_KEPT_ERRORS = 100


@dataclass(frozen=True)
class Jets:
    """Jets as flat columns with offsets.

    Attributes
    ----------
    offsets : (n + 1,) int64 array
        Constituents of jet i are rows ``offsets[i]:offsets[i + 1]``, the hardest first.
    momenta : (rows, 4) float32 array
        px, py, pz and energy of constituents in GeV.
    features : (rows, s) float32 array
        Further numbers of each constituent.
    names : tuple of str
        Names of the features: ``("charge", "d0")``.
    label : (n,) array of str
        Class of each jet, empty where it is not known.
    number : (n,) int64 array
        Number of each jet in its file, from 0: the entry, if entries are jets.
    """

    offsets: IntArray
    momenta: Floats
    features: Floats
    names: tuple[str, ...]
    label: Texts
    number: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> IntArray:
        """Constituents (n,) of jets."""
        return np.diff(self.offsets)

    @property
    def momentum(self) -> FloatArray:
        """Momenta (n, 4) of jets: the sums of those of their constituents."""
        rows = np.repeat(np.arange(len(self)), self.counts)
        columns = [np.bincount(rows, p.astype(np.float64), len(self)) for p in self.momenta.T]
        return np.stack(columns, axis=1)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> Jets:
        """Some of the jets, by numbers, a mask or a slice."""
        chosen = np.arange(len(self))[which]
        counts = self.counts[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts)
        return Jets(
            offsets, self.momenta[rows], self.features[rows], self.names, self.label[chosen],
            self.number[chosen],
        )  # fmt: skip

    def with_label(self, label: str) -> Jets:
        """The same jets, all of one class."""
        return replace(self, label=np.full(len(self), label))


def joined(parts: Sequence[Jets]) -> Jets:
    """Jets one after another; at least one part, all with the same features."""
    counts = np.concatenate([part.counts for part in parts])
    return Jets(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([part.momenta for part in parts]),
        np.concatenate([part.features for part in parts]),
        parts[0].names,
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.number for part in parts]),
    )


@dataclass(frozen=True)
class JetSelection:
    """Selection of jets, their features and their labels.

    Attributes
    ----------
    tree : str, optional
        Of a ROOT file with several.
    constituents : str, optional
        Prefix of the names of branches, ``PFCands_`` or ``part_``, needed if several lists of
        momenta could be constituents.
    features : tuple of str
        Numbers of each constituent beside its momentum, such as ``charge``.
    label : str, optional
        Column with the class of each jet, as a number or text.
    flags : tuple of str
        Columns that are one for the jets of a class and zero for others, in place of `label`.
    jet_radius, jet_pt, jet_eta : float, optional
        Radius of the anti-kT jets that are clustered from the particles of events; smallest
        transverse momentum in GeV and largest pseudorapidity. By default 0.8, 200 and 2.5.
    most : int
        Number of hardest constituents kept of each jet.
    """

    tree: str | None = None
    constituents: str | None = None
    features: tuple[str, ...] = ()
    label: str | None = None
    flags: tuple[str, ...] = field(default=())
    jet_radius: float | None = None
    jet_pt: float | None = None
    jet_eta: float | None = None
    most: int = MOST_CONSTITUENTS


class JetReader(Protocol):
    """An opened file of jets.

    Attributes
    ----------
    checked : Checked
        How many jets were left out or cut short so far.
    """

    checked: Checked

    def chunks(self) -> Iterator[Jets]:
        """Jets in the order of the file, in bounded pieces."""

    def close(self) -> None: ...


class Checked:
    """Jets as readers give them: finite, not empty, their hardest constituents first.

    Parameters
    ----------
    path : Path
    selection : JetSelection
    skip_bad : bool
        Leave out invalid jets, and count them.

    Attributes
    ----------
    n_read, n_skipped, n_cut : int
        Jets so far, those left out, and those with more constituents than are kept.
    """

    def __init__(self, path: Path, selection: JetSelection, skip_bad: bool) -> None:
        self.path, self.selection, self.skip_bad = path, selection, skip_bad
        self.n_read = self.n_skipped = self.n_cut = 0

    def jets(
        self,
        counts: npt.NDArray[Any],
        momenta: npt.NDArray[Any],
        features: npt.NDArray[Any],
        label: Texts | None = None,
    ) -> Jets:
        """Jets of columns that a file has.

        Parameters
        ----------
        counts : (n,) int array
            Constituents of each jet.
        momenta : (rows, 4) array
            px, py, pz, energy in GeV.
        features : (rows, s) array
        label : (n,) array of str, optional

        Raises
        ------
        InputError
            A jet has no constituents, or a number is not finite.
        """
        n = len(counts)
        owner = np.repeat(np.arange(n), counts)
        with np.errstate(over="ignore", invalid="ignore"):
            pt2 = momenta[:, 0] ** 2 + momenta[:, 1] ** 2
            single = np.concatenate([momenta, features], axis=1).astype(np.float32)
        wrong = ~np.isfinite(single).all(axis=1) | ~(momenta[:, 3] > 0)
        bad = np.bincount(owner, wrong, n) > 0
        self._judge(counts, bad)
        good = ~bad & (counts > 0)
        # the hardest first; those beyond the largest number are left out
        order = np.lexsort((-pt2, owner))
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = order[(place < self.selection.most) & good[owner]]
        kept = np.minimum(counts[good], self.selection.most)
        number = self.n_read + np.flatnonzero(good)
        self.n_read += n
        self.n_cut += int((counts[good] > self.selection.most).sum())
        return Jets(
            np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
            single[order, :4],
            single[order, 4:],
            self.selection.features,
            np.full(len(kept), "") if label is None else label[good].astype(str),
            number,
        )

    def _judge(self, counts: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> None:
        empty = counts == 0
        wrong = np.flatnonzero(bad | empty)
        if not len(wrong):
            return
        if not self.skip_bad:
            first = int(wrong[0])
            what = (
                "has no constituents"
                if empty[first]
                else "has a number that is not finite, or an energy that is not positive"
            )
            raise InputError(
                f"jet {self.n_read + first + 1} {what}",
                path=self.path,
                remedy="use --skip-bad to leave such jets out",
            )
        self.n_skipped += len(wrong)


def open_jets(
    path: str | Path, selection: JetSelection | None = None, *, skip_bad: bool = False
) -> JetReader:
    """Open a file of jets, or of events whose particles are clustered to jets.

    Raises
    ------
    InputError
        No such file, or no jets in it.
    UsageError
        Its format has no jets.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise InputError("no such file", path=path, remedy="check the path")
    opener = getattr(format_of(path), "open_jets", None)
    if opener is None:
        raise UsageError(
            "holds no jets with constituents",
            path=path,
            remedy="name a ROOT file with lists of constituents, or a HepMC3 file",
        )
    reader: JetReader = opener(path, selection or JetSelection(), skip_bad=skip_bad)
    return reader


def read_jets(
    paths: str | Path | Sequence[str | Path],
    selection: JetSelection | None = None,
    *,
    skip_bad: bool = False,
    max_jets: int | None = None,
) -> Jets:
    """Read jets of files into memory, about 20 bytes for each constituent.

    Parameters
    ----------
    paths : path-like or sequence of path-like
        Files or glob patterns.
    selection : JetSelection, optional
    skip_bad : bool
        Leave out jets without constituents or with numbers that are not finite.
    max_jets : int, optional
        Stop after so many.

    Raises
    ------
    InputError
        A file has no jets, or an invalid one.
    """
    parts: list[Jets] = []
    n = 0
    for path in expand([paths] if isinstance(paths, str | Path) else paths):
        reader = open_jets(path, selection, skip_bad=skip_bad)
        before = n
        try:
            for chunk in reader.chunks():
                parts.append(chunk)
                n += len(chunk)
                if max_jets is not None and n >= max_jets:
                    break
        finally:
            reader.close()
        tell(path, reader.checked)
        if n == before:
            raise InputError("has no jets", path=path, remedy="check the file and the selection")
        if max_jets is not None and n >= max_jets:
            break
    jets = joined(parts)
    return jets if max_jets is None else jets[:max_jets]


def tell(path: Path, checked: Checked) -> None:
    """Say how many jets of a file were left out or cut short."""
    if checked.n_skipped:
        log.warning("%s: %d bad jets of %d were left out", path, checked.n_skipped, checked.n_read)
    if checked.n_cut:
        log.log(
            NOTE, "%s: of %d jets of %d only the %d hardest constituents are used",
            path, checked.n_cut, checked.n_read, checked.selection.most,
        )  # fmt: skip
