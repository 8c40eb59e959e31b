"""Frequencies of final states, subprocesses, colour flows and helicities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hepgen_ml.analysis.final_states import color_partners, layouts, name_of, row_ids
from hepgen_ml.analysis.metrics import (
    MIN_ENTRIES,
    ChiSquare,
    Counts,
    homogeneity,
    is_uniform,
    survival,
)
from hepgen_ml.events.helicities import helicities, helicity_codes
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample, FloatArray, IntArray


@dataclass(frozen=True)
class Frequencies:
    """Comparison of how often categories occur.

    Attributes
    ----------
    names : tuple of str
        Category after merging of the small ones into ``(rare)``.
    truth, generated : (k,) float array
        Weighted fraction of the events.
    pulls : (k,) float array
        Standard normal for samples of the same distribution.
    test : ChiSquare
        Test of all fractions together, including their correlation.
    """

    names: tuple[str, ...]
    truth: FloatArray
    generated: FloatArray
    pulls: FloatArray
    test: ChiSquare

    @property
    def worst(self) -> int:
        """Category of the largest pull."""
        return int(np.argmax(np.abs(self.pulls)))

    @property
    def worst_p_value(self) -> float:
        """Probability that the largest of so many independent pulls is larger."""
        single = survival(float(self.pulls[self.worst] ** 2), 1)
        return float(-np.expm1(len(self.pulls) * np.log1p(-min(single, 1 - 1e-16))))


Kind = Literal["final state", "subprocess", "color flow", "helicity"]


def categories(sample: EventSample, kind: Kind) -> dict[str, FloatArray]:
    """Count the events of each category.

    Parameters
    ----------
    sample : EventSample
    kind : {"final state", "subprocess", "color flow", "helicity"}
        Colour flows and helicities are counted per subprocess. A colour flow is
        written as the place of each tag's partner, so that tags do not matter;
        identical particles are ordered by transverse momentum.

    Returns
    -------
    dict of str to (3,) float array
        Number of events, sum of weights and of squared weights. Empty if the
        sample lacks the columns, or knows no helicity.
    """
    needs = {"color flow": ("color1", "color2"), "helicity": ("spin",)}.get(kind, ())
    if any(c not in sample.particles for c in needs):
        return {}
    if kind == "helicity" and np.all(sample.spin == UNKNOWN_SPIN):
        return {}
    found: dict[str, FloatArray] = {}
    for layout in layouts(sample, by_flavor=True):
        pdg_id = sample.pdg_id[layout.rows].astype(np.int64)
        matrix = pdg_id
        if kind == "color flow":
            partners = color_partners(sample, layout.rows)
            matrix = np.concatenate([pdg_id, partners.reshape(len(pdg_id), -1)], axis=1)
        elif kind == "helicity":
            spin = helicity_codes(sample.spin[layout.rows])
            matrix = np.concatenate([pdg_id, spin], axis=1)
        ids = row_ids(matrix) if kind != "final state" else np.zeros(len(pdg_id), dtype=np.int64)
        counts = Counts.of(ids, sample.weight[layout.index], int(ids.max()) + 1)
        _, first = np.unique(ids, return_index=True)
        for number, row in enumerate(first):
            name = str(layout.signature)
            if kind != "final state":
                name = _subprocess_name(pdg_id[row], layout.n_incoming, layout.n_resonances)
                pattern = matrix[row, pdg_id.shape[1] :].tolist()
                name += f" {_pattern_name(pattern, kind)}" if pattern else ""
            found[name] = found.get(name, 0.0) + counts.table[number]
    return found


def frequencies(truth: EventSample, generated: EventSample, kind: Kind) -> Frequencies | None:
    """Compare how often categories occur, see `categories` and `homogeneity`.

    Categories with fewer than 2 x `MIN_ENTRIES` events in both samples together
    are one, ``(rare)``.

    Returns
    -------
    Frequencies or None
        None if there are fewer than two categories to compare.
    """
    tallies = [categories(s, kind) for s in (truth, generated)]
    if not all(tallies):
        return None
    names = sorted(tallies[0].keys() | tallies[1].keys())
    absent = np.zeros(3)
    table = [np.array([t.get(name, absent) for name in names]) for t in tallies]
    rare = table[0][:, 0] + table[1][:, 0] < 2 * MIN_ENTRIES
    target = np.where(rare, np.sum(~rare), np.cumsum(~rare) - 1)
    counts = [
        Counts(t, is_uniform(s.weight)).merged(target)
        for t, s in zip(table, (truth, generated), strict=True)
    ]
    kept = [n for n, r in zip(names, rare, strict=True) if not r] + ["(rare)"] * bool(rare.any())
    if len(kept) < 2:
        return None
    return Frequencies(tuple(kept), *homogeneity(*counts))


def _subprocess_name(pdg_id: IntArray, n_incoming: int, n_resonances: int) -> str:
    names = [name_of(i) for i in pdg_id.tolist()]
    final = n_incoming + n_resonances
    through = f" [{' '.join(names[n_incoming:final])}]" if n_resonances else ""
    return f"{' '.join(names[:n_incoming])} >{through} {' '.join(names[final:])}"


def _pattern_name(pattern: list[int], kind: Kind) -> str:
    if kind == "helicity":
        names = {-1: "-", 1: "+", 0: "0", 9: "?"}
        values = helicities(pattern).tolist()
        return "(" + "".join(names.get(h) or f"[{h:+g}]" for h in values) + ")"
    # "1c-3a": colour of particle 1 and anticolour of particle 3 share a tag
    place = [f"{i // 2 + 1}{'ca'[i % 2]}" for i in range(len(pattern))]
    lines = [f"{place[i]}-{place[j]}" for i, j in enumerate(pattern) if j > i]
    open_ends = [place[i] for i, j in enumerate(pattern) if j == -2]
    return "(" + " ".join(lines + open_ends) + ")"
