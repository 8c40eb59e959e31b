"""An opened ROOT file: its tree of events, our metadata, cross section, and blocks of branches."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._objects import with_cross_section
from hepgen_adapters._run_json import MAX_LENGTH, load_run
from hepgen_adapters.root.branches import Branches
from hepgen_adapters.root.names import METADATA, NUMBERS, VERSION
from hepgen_adapters.root.weights import lists_of, with_lists
from hepgen_ml.errors import InputError
from hepgen_ml.events.objects import OBJECTS, Selection
from hepgen_ml.events.sample import RunInfo, Subrun

log = logging.getLogger(__name__)

_BLOCK_BYTES = 32 << 20
_BLOCK_EVENTS = 200_000
_BLOCK_WEIGHTS = 4_000_000  # numbers in lists of weights, which are filled up to the longest
_MOST_CYCLES = 10
_MOST_RUNS = 1_000_000
_SAME_SUM = 1e-5
_TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")


class ROOTFile:
    """An opened ROOT file with a tree of events.

    Parameters
    ----------
    path : Path
    tree : str, optional
    any_tree : bool
        Take the only tree of a file, whatever its name.

    Attributes
    ----------
    tree : uproot.TTree
        Tree of the given name; by default ``Events``, or ``Delphes`` if there is no ``Events``.
    branches : Branches
        By their names.
    run : RunInfo or None
        Of files of ours.
    names : dict
        Names of weights, scales and attributes by branch, for files of ours.
    weight_lists : dict
        Names of the weights in each list of ratios, as NanoAOD has them, for files of others.
    columns : list of str or None
        Particle columns, for files of ours.
    objects : tuple of str
        Collections of a file of ours with reconstructed objects; else empty.

    Raises
    ------
    InputError
        On files that are not ROOT, hold no such tree, or whose run information is not valid.
    """

    def __init__(self, path: Path, tree: str | None = None, *, any_tree: bool = False) -> None:
        import uproot

        self.path = Path(path)
        self._wanted_tree, self._any_tree = tree, any_tree
        self.run: RunInfo | None = None
        self.names: dict[str, dict[str, str]] = {"weights": {}, "scales": {}, "attributes": {}}
        self.weight_lists: dict[str, list[str]] = {}
        self.columns: list[str] | None = None
        self.objects: tuple[str, ...] = ()
        try:
            # data that are read once are not cached
            self._file = uproot.open(self.path, array_cache=None)
        except Exception as error:  # uproot raises many kinds on damaged files
            raise self.fail(f"is not a ROOT file that can be read ({first_line(error)})") from error
        try:
            self._describe()
        except InputError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self.fail(f"cannot be read ({first_line(error)})") from error

    def fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        """Error about this file."""
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    @contextmanager
    def reading(self, event: int | None = None) -> Iterator[None]:
        """Any error of uproot, which raises many kinds, counts as damage of the file."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            raise self.fail(f"is damaged ({first_line(error)})", event) from error

    def _describe(self) -> None:
        names = set(self._file.keys(cycle=False))
        self._trees = names
        wanted = ("Events", "Delphes") if self._wanted_tree is None else (self._wanted_tree,)
        if self._any_tree and self._wanted_tree is None:
            kinds = self._file.classnames(cycle=False)
            only = [k for k, c in kinds.items() if c in _TREES]
            wanted = tuple(only) if len(only) == 1 else wanted
        found = [n for n in wanted if n in names]
        if not found or not hasattr(self._file[found[0]], "num_entries"):
            kinds = self._file.classnames(cycle=False)
            others = sorted(k for k, c in kinds.items() if c in _TREES)
            trees = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            raise self.fail(
                f"has no tree {wanted[0]!r}",
                remedy=f"it has {trees}: choose one with --tree" if others
                else "name a file in NanoAOD format or of Delphes",
            )  # fmt: skip
        self.tree_name, self.tree = found[0], self._file[found[0]]
        self.branches = Branches(self.tree)
        if self.tree.num_entries == 0:
            raise self.fail("holds no events", remedy="check how it was made")
        name, longest = self.branches.longest()
        if self.tree.num_entries < max(longest, 0):
            raise self.fail(
                f"is damaged: its tree states {self.tree.num_entries} events, "
                f"but branch {name} has {longest}"
            )
        self._compare_cycles()
        if METADATA in names:
            self._read_metadata(str(self._file[METADATA]))

    def _compare_cycles(self) -> None:
        """Warn if an older cycle has more events; the newest counts, as in ROOT."""
        cycles = [k for k in self._file if k.rpartition(";")[0] == self.tree_name]
        for key in cycles[:_MOST_CYCLES] if len(cycles) > 1 else []:
            with suppress(Exception):  # a damaged older cycle does not matter
                older = int(self._file[key].num_entries)
                if older > self.tree.num_entries:
                    _say_older(self.path, key, older, self.tree.num_entries)

    def _read_metadata(self, text: str) -> None:
        damaged = "its metadata is not valid"
        if len(text) > 2 * MAX_LENGTH:
            raise self.fail(damaged)
        try:
            content = json.loads(text)
            version = content["version"]
            for kind in self.names:
                entries = content[kind]
                for branch, name in entries.items():
                    if not isinstance(name, str) or branch not in self.branches:
                        raise self.fail(f"{damaged}: no branch {branch!r}")
                self.names[kind] = entries
            self.columns = [str(name) for name in content["columns"]]
            self.objects = tuple(n for n in OBJECTS if n in content.get("objects", ()))
            run = content["run"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.fail(damaged) from error
        if version != VERSION:
            raise self.fail(
                f"was written by a newer version (format {version!r})", remedy="upgrade hepgen-ml"
            )
        self.run = load_run(str(run), self.path)

    def first(self, branch: str, entry: int = 0) -> float | None:
        """Number in one entry of a branch, the first if it has several; None without any."""
        if branch not in self.branches:
            return None
        values = self.arrays([branch], entry, entry + 1)[branch]
        numbers = np.ravel(np.asarray(values[0], dtype=np.float64))
        return float(numbers[0]) if len(numbers) else None

    def run_info(self, weight: str, cross_section: str, selection: Selection | None) -> RunInfo:
        """Run information, as stored by hepgen-ml or as found in other files, with named weights.

        Parameters
        ----------
        weight : str
            Branch of the nominal weight, if there is one.
        cross_section : str
            Branch of the event tree with a running estimate in pb; the last entry counts.
        selection : Selection, optional
            With a cross section for files that have none.
        """
        if self.run is not None:
            return with_cross_section(self.run, selection, self.path)
        first_weight = self.first(weight)
        unit = first_weight is None or abs(abs(first_weight) - 1.0) < 1e-6
        value, error = self._stated_cross_section(weight)
        if value is None:
            last = self.tree.num_entries - 1
            value, error = (self.first(cross_section + k, last) for k in ("", "Error"))
        processes: tuple[Subrun, ...] = ()
        if value is not None and np.isfinite(value) and value > 0:
            known = error is not None and np.isfinite(error) and error > 0
            processes = (Subrun(0, value, error if known and error else float("nan")),)
        run = RunInfo(weight_strategy=-3 if unit else -4, processes=processes, significant_digits=6)
        self.weight_lists = lists_of(self)
        titles = {name: self.branches.title(name) for name in self.weight_lists}
        run = with_lists(run, self.weight_lists, titles)
        return with_cross_section(run, selection, self.path)

    def _stated_cross_section(self, weight: str) -> tuple[float | None, float | None]:
        """Cross section of the events in the file and its error in pb, by the tree ``Runs``.

        Its entries are runs of one process with their sums of weights over all events; a skimmed
        file has fewer events, and their share of the cross section.
        """
        if "Runs" not in self._trees:
            return None, None
        with self.reading():
            return self._of_runs(weight)

    def _of_runs(self, weight: str) -> tuple[float | None, float | None]:
        runs = self._file["Runs"]
        n = int(getattr(runs, "num_entries", 0))
        branches = Branches(runs) if n > 0 else ()
        if "genCrossSection" not in branches or n > _MOST_RUNS:
            return None, None

        def column(name: str, missing: float) -> npt.NDArray[np.float64]:
            if name not in branches:
                return np.full(n, missing)
            assert isinstance(branches, Branches)
            return np.asarray(branches.array(name, 0, n), dtype=np.float64)

        value, error = column("genCrossSection", np.nan), column("genCrossSectionError", np.nan)
        total = column("genEventSumw", np.nan)
        share = total / total.sum() if np.isfinite(total).all() and total.sum() > 0 else None
        if share is None:
            return float(np.mean(value)), float(np.mean(error))
        fraction = 1.0
        if weight in self.branches:
            fraction = self._sum_of(weight) / float(total.sum())
            if abs(fraction - 1) < _SAME_SUM:  # all events: sums of 32-bit numbers
                fraction = 1.0
            elif not 0 <= fraction < 1:
                log.warning(
                    "%s: the sum of %s over the events is %.4g times genEventSumw in Runs, so that "
                    "the cross section stated there does not belong to these events and is not "
                    "used; give it with --cross-section",
                    self.path, weight, fraction,
                )  # fmt: skip
                return None, None
        return float(share @ value) * fraction, float(share @ error) * fraction

    def _sum_of(self, branch: str) -> float:
        """Sum of a number over all entries."""
        return float(sum(
            np.sum(np.asarray(self.arrays([branch], *ends)[branch], dtype=np.float64))
            for ends in self.ranges([branch])
        ))  # fmt: skip

    def numbers(self) -> list[str]:
        """Branches with event numbers, if these differ from their order."""
        found = [b for b, _ in NUMBERS.values() if b in self.branches]
        if found != [b for b, _ in NUMBERS.values()]:
            return []
        for start, stop in self.ranges(found):
            arrays = self.arrays(found, start, stop)
            for branch in found:
                values = np.asarray(arrays[branch])
                expected = np.arange(start + 1, stop + 1) if branch == "event" else 1
                if not np.array_equal(values, np.broadcast_to(expected, values.shape)):
                    return found
        return []

    def ranges(self, branches: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Ranges of entries to read at once: bounded, and along the file's own blocks."""
        n = self.tree.num_entries
        with self.reading():
            limit = self.branches.entries_for(_BLOCK_BYTES, branches) if branches else n
            n_weights = sum(len(self.weight_lists.get(name, ())) for name in branches)
            limit = min(limit, _BLOCK_EVENTS, _BLOCK_WEIGHTS // max(n_weights, 1))
            limit = max(limit, 1)
            ends = self.branches.common_ends(branches)
        start = 0
        while start < n:
            inside = ends[(ends > start) & (ends <= start + limit)]
            stop = int(inside[-1]) if len(inside) else min(start + limit, n)
            yield start, stop
            start = stop

    def arrays(self, branches: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """Awkward arrays of some branches by their names."""
        stop = min(stop, self.tree.num_entries)
        with self.reading(start + 1):
            return {b: self.branches.array(b, start, stop) for b in dict.fromkeys(branches)}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@lru_cache(maxsize=1024)
def _say_older(path: Path, key: str, older: int, newest: int) -> None:
    """Log a message once, even if the file is read several times."""
    log.warning(
        "%s: the newest cycle of the tree is read, which has %d events; %s has %d",
        path, newest, key, older,
    )  # fmt: skip


def first_line(error: Exception) -> str:
    """First line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
