"""Branches of a tree as objects: names in a file are never evaluated.

uproot takes names as expressions, patterns and aliases that the file itself may bring
(`arrays`, `iterate`, ``filter_name``). This module avoids that: branches are accessed as objects,
and only those with plain names and with columns of numbers or text are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_PLAIN = re.compile(r"(?:([A-Za-z_]\w*)/(?=\1\.))?([A-Za-z_]\w*(?:\.\w+)*)", re.ASCII)
"""A name, with that of the branch it is in where a file has both in one: ``Jet/Jet.PT``."""

_LONGEST_NAME, _LONGEST_TITLE = 512, 1_000_000
_MOST_BRANCHES = 100_000


class Branches:
    """The branches of a tree by their own names: ``Jet_pt``, ``Jet.PT``.

    Parameters
    ----------
    tree : uproot.TTree or uproot.RNTuple

    Attributes
    ----------
    refused : int
        Branches whose names are not plain; they are not read.
    """

    def __init__(self, tree: Any) -> None:
        self._tree, self.refused = tree, 0
        self._found: dict[str, Any] = {}
        for count, branch in enumerate(_walk(tree)):
            if count >= _MOST_BRANCHES:
                raise ValueError(f"more than {_MOST_BRANCHES} branches")
            match = _PLAIN.fullmatch(str(branch.name)[: _LONGEST_NAME + 1])
            if match is None or len(match[0]) > _LONGEST_NAME:
                self.refused += 1
            else:
                self._found.setdefault(match[2], branch)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def title(self, name: str) -> str:
        """Title of a branch, which says what it holds; empty without one."""
        return str(getattr(self._found[name], "title", "") or "")[:_LONGEST_TITLE]

    def longest(self) -> tuple[str, int]:
        """The branch with most entries, and how many; zero where the format does not count them."""
        counts = {n: int(getattr(b, "num_entries", 0)) for n, b in self._found.items()}
        name = max(counts, key=counts.__getitem__, default="")
        return name, counts.get(name, 0)

    def array(self, name: str, start: int, stop: int) -> Any:
        """Awkward array of entries `start` to `stop`: numbers, lists of numbers, or texts.

        Raises
        ------
        ValueError
            A branch of another kind.
        """
        import awkward as ak

        branch = self._found[name]
        interpretation = getattr(branch, "interpretation", None)
        if interpretation is not None and not _is_plain(interpretation):
            raise ValueError(f"branch {name} does not hold numbers")
        found = branch.array(entry_start=start, entry_stop=stop, library="ak")
        kind = found.type.content
        while isinstance(kind, ak.types.ListType | ak.types.RegularType) and not _is_text(kind):
            kind = kind.content
        if not (isinstance(kind, ak.types.NumpyType) or _is_text(kind)):
            raise ValueError(f"branch {name} does not hold numbers")
        if len(found) != stop - start:
            raise ValueError(f"branch {name} has {len(found)} entries instead of {stop - start}")
        return found

    def entries_for(self, size: int, names: Iterable[str]) -> int:
        """Approximate number of entries of some branches with a size in bytes."""
        n_bytes = sum(int(getattr(self._found[n], "uncompressed_bytes", 0)) for n in names)
        n = int(self._tree.num_entries)
        return n if n_bytes <= 0 else max(1, size * n // n_bytes)

    def common_ends(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Numbers of entries at which all of some branches begin a new block."""
        ends: npt.NDArray[np.int64] | None = None
        for name in names:
            offsets = getattr(self._found[name], "entry_offsets", None)
            if offsets is None:
                return np.zeros(0, dtype=np.int64)
            own = np.asarray(offsets, dtype=np.int64)
            ends = own if ends is None else np.intersect1d(ends, own)
        return np.zeros(0, dtype=np.int64) if ends is None else ends


def _walk(tree: Any) -> Iterator[Any]:
    """Every branch and sub-branch; for an RNTuple every column of the first level."""
    branches = getattr(tree, "branches", None)
    if branches is None:
        yield from tree.itervalues(recursive=False)
        return
    waiting = list(reversed(branches))
    while waiting:
        branch = waiting.pop()
        yield branch
        waiting += reversed(branch.branches)


def _is_plain(interpretation: Any) -> bool:
    """Whether entries are numbers, lists of numbers, or text, which need no class."""
    import uproot

    if isinstance(interpretation, uproot.AsStrings):
        return True
    if isinstance(interpretation, uproot.AsJagged):
        interpretation = interpretation.content
    if not isinstance(interpretation, uproot.AsDtype):
        return False
    dtype = np.dtype(interpretation.from_dtype)
    return dtype.names is None and dtype.base.kind in "biuf"


def _is_text(kind: Any) -> bool:
    return kind.parameters.get("__array__") in ("string", "bytestring")
