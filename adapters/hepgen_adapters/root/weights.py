"""Named weights as the collections of NanoAOD: by scale, parton densities and reweighting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.sample import RunInfo

_BY_WORDS = {
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
    found, group = {}, ""
    for tag in _TAG.finditer(text):
        if tag[3] is None:
            group = "" if tag[1] else tag[2]
        elif (name := _ID.search(tag[3])) is not None:
            found[name[2]] = group
    return found


def branches_of(
    chosen: Mapping[str, list[str]],
    weights: Mapping[str, npt.NDArray[np.float64]],
    nominal: npt.NDArray[np.float64],
) -> dict[str, Any]:
    """Branches of lists of ratios; nan where the nominal weight is zero."""
    import awkward as ak

    found: dict[str, Any] = {}
    for branch, names in chosen.items():
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.stack([weights[name] / nominal for name in names], 1).astype(np.float32)
        found[branch] = ak.unflatten(ratio.ravel(), np.full(len(nominal), len(names)))
    return found
