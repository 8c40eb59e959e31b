"""Named weights as the collections of NanoAOD: by scale, parton densities and reweighting.

Entries of a collection are ratios to the nominal weight, and only its title says what they are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.sample import RunInfo
from hepgen_ml.events.weight_groups import declared, plain

if TYPE_CHECKING:
    from hepgen_adapters.root.file import ROOTFile

log = logging.getLogger(__name__)

_LISTS = ("LHEScaleWeight", "LHEPdfWeight", "LHEReweightingWeight", "PSWeight")
_SCALES, _N_SCALES, _CENTRE = "LHEScaleWeight", 9, 4
"""NanoAOD has nine scales, or eight without the nominal one, the fifth."""

_MOST_ENTRIES, _LONGEST_TEXT = 10_000, 200

_FEW_ENTRIES, _MOST_PADDING = 64, 20
"""Lists that may be longer than the others, and how much longer the longest one may be than the
mean: every event gets as many named weights as the longest list has entries."""

_IS = re.compile(r"\[(\d{1,5})\]\s*is\s*(.*?)\s*(?=;|\[\d+\]\s*is|$)", re.DOTALL)
_LHA = re.compile(r"LHA IDs?\s*(\d{1,9})\s*-\s*(\d{1,9})")
"""Titles of NanoAOD: ``[0] is MUF="0.5" MUR="0.5"; [1] is …``, ``for LHA IDs 306000 - 306102``."""

_BY_WORDS = {
    "PSWeight": re.compile(r"\bPSWeight"),
    "LHEScaleWeight": re.compile(r"scale|\bmu_?[rf]\b|\bren_?fac|\brenscfact|\bfacscfact", re.I),
    "LHEPdfWeight": re.compile(
        r"pdf|lhapdf|hessian|replica|error_?set|nnpdf|\bct1\d|\bmmht|\bmsht|\bmstw|\bhera", re.I
    ),
    "LHEReweightingWeight": re.compile(r"re?weig?ht|rwgt|\beft\b|smeft|operator|coupling", re.I),
}

_TAG = re.compile(r"<(/?)weightgroup\b([^<>]*)>|<weight\b([^<>]*)>")
_ID = re.compile(r"\bid\s*=\s*(['\"])([^<>]*?)\1")
_OWN = re.compile(r"(posterior|classifier)_\d+")


def collections(run: RunInfo, names: Iterable[str]) -> dict[str, list[str]]:
    """Weights of each collection of NanoAOD, by the words of their groups or of the weights.

    Other weights are in no collection, but have their ``LHEWeight_`` branch.
    """
    groups = _groups(run.weight_groups)
    found: dict[str, list[str]] = {}
    for name in names:
        if _OWN.fullmatch(name):
            continue
        texts = (groups.get(name, ""), f"{name} {run.weight_names.get(name, '')}")
        kind = next(
            (kind for text in texts for kind, words in _BY_WORDS.items() if words.search(text)),
            None,
        )
        if kind is not None:
            found.setdefault(kind, []).append(name)
    return found


def _groups(text: str) -> dict[str, str]:
    """Attributes of the group in which each weight is declared."""
    found: dict[str, str] = {}
    groups = [""]
    for tag in _TAG.finditer(text):
        if tag[3] is None and not tag[1]:
            groups.append(f"{groups[-1]} {tag[2]}")  # a group in a group is of both
        elif tag[3] is None:
            groups = groups[:-1] or [""]
        elif (name := _ID.search(tag[3])) is not None:
            found[plain(name[2])] = groups[-1] if groups else ""
    return found


def lists_of(file: ROOTFile) -> dict[str, list[str]]:
    """Names of the weights in each collection of a file of another program, by its branch."""
    if file.run is not None:
        return {}
    found = {}
    for branch in _LISTS:
        if branch not in file.branches or not _is_list(file.arrays([branch], 0, 1)[branch]):
            continue
        size, mean = _lengths(file, branch)
        if size > _MOST_ENTRIES or (size > _FEW_ENTRIES and size > _MOST_PADDING * mean):
            _say_not_read(file.path, branch, size, mean)
        elif size:
            without = branch == _SCALES and size == _N_SCALES - 1
            found[branch] = [f"{branch}_{k + (without and k >= _CENTRE)}" for k in range(size)]
    return found


def with_lists(run: RunInfo, lists: Mapping[str, list[str]], titles: Mapping[str, str]) -> RunInfo:
    """The run with these weights, each collection as a group, as their titles describe them."""
    for branch, names in lists.items():
        texts = _texts(titles.get(branch, ""), len(names))
        run = declared(run, dict(zip(names, texts, strict=True)), group=branch)
    return run


def weights_of_lists(
    lists: Mapping[str, list[str]], arrays: Mapping[str, Any], nominal: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Weights by name; nan where the list of an event has no such entry."""
    found: dict[str, npt.NDArray[np.float64]] = {}
    for branch, names in lists.items():
        values = arrays[branch]
        if branch == _SCALES and len(names) == _N_SCALES:
            values = _with_centre(values)
        weight = _table(values, len(names))
        with np.errstate(over="ignore", invalid="ignore"):
            weight *= nominal
        found |= dict(zip(names, weight, strict=True))
    return found


def _table(values: Any, size: int) -> npt.NDArray[np.float64]:
    """Entries of n lists as (size, n) array; nan where a list is shorter."""
    import awkward as ak

    counts = ak.to_numpy(ak.num(values, axis=1))
    flat = ak.to_numpy(ak.flatten(values, axis=1))
    if (counts == size).all():
        return np.array(flat.reshape(len(counts), size).T, dtype=np.float64, order="C")
    table = np.full((size, len(counts)), np.nan)
    begin = np.cumsum(counts) - counts
    for k in range(min(size, int(counts.max(initial=0)))):
        has = np.flatnonzero(counts > k)
        table[k, has] = flat[begin[has] + k]
    return table


def _with_centre(values: Any) -> Any:
    """Lists of 9 scales, also where an event leaves out the nominal one."""
    import awkward as ak

    whole = ak.concatenate([
        values[:, :_CENTRE], ak.ones_like(values[:, :1]), values[:, _CENTRE:]
    ], axis=1)  # fmt: skip
    return ak.where(ak.num(values, axis=1) == _N_SCALES - 1, whole, values)


def _is_list(values: Any) -> bool:
    return bool(values.ndim == 2 and values.layout.content.parameter("__array__") is None)


def _lengths(file: ROOTFile, branch: str) -> tuple[int, float]:
    """Largest and mean number of entries of a list."""
    import awkward as ak

    counter = f"n{branch}"
    name = counter if counter in file.branches else branch
    most, total, n = 0, 0.0, 0
    for start, stop in file.ranges([name]):
        values = file.arrays([name], start, stop)[name]
        counts = ak.to_numpy(values if values.ndim == 1 else ak.num(values, axis=1))
        most, n = max(most, int(counts.max())), n + len(counts)
        total += float(counts.sum(dtype=np.float64))
    return most, total / n


@lru_cache(maxsize=1024)
def _say_not_read(path: Path, branch: str, size: int, mean: float) -> None:
    """Log a message once, even if the file is read several times."""
    log.warning(
        "%s: the weights of %s are not read: their lists have up to %s entries, %.4g on average; "
        "%s at most are read, and lists of similar length",
        path, branch, f"{size:,}", mean, f"{_MOST_ENTRIES:,}",
    )  # fmt: skip


def _texts(title: str, n: int) -> list[str]:
    """What each of n entries is, by the title of their branch; empty where it does not say so."""
    texts = [""] * n
    title = " ".join(title.split())  # the patterns take long for long blanks
    for number, text in _IS.findall(title):
        if int(number) < n:
            texts[int(number)] = text[:_LONGEST_TEXT]
    lha = _LHA.search(title)
    if lha is not None and int(lha[2]) - int(lha[1]) + 1 == n:
        texts = [f"LHA ID {int(lha[1]) + k}" for k in range(n)]
    return texts


def branches_of(
    chosen: Mapping[str, list[str]],
    weights: Mapping[str, npt.NDArray[np.float64]],
    nominal: npt.NDArray[np.float64],
) -> dict[str, Any]:
    """Branches of lists of ratios; one where the nominal weight is zero and states none."""
    import awkward as ak

    found: dict[str, Any] = {}
    for branch, names in chosen.items():
        ratio = np.ones((len(nominal), len(names)), dtype=np.float32)
        with np.errstate(over="ignore"):
            for k, name in enumerate(names):
                np.divide(weights[name], nominal, out=ratio[:, k], where=nominal != 0,
                          casting="same_kind")  # fmt: skip
        np.nan_to_num(ratio, copy=False, nan=np.nan)  # beyond the largest number is the largest
        found[branch] = ak.unflatten(ratio.ravel(), np.full(len(nominal), len(names)))
    return found
