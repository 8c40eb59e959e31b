"""Search for the formula or table that a generator used for scale and couplings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.process.auxiliary import EXACT, FloatArray, interpolated, positive, value_of
from hepgen_ml.process.exceptions import (
    NEARLY,
    RARE,
    deviation,
    exceptional_constants,
    exceptional_formulas,
    is_exception,
)
from hepgen_ml.process.scale_search import find_mean, stands_out
from hepgen_ml.process.scales import formula_names

MIN_SHARE = 2e-3
"""Smallest fraction of events for which a formula becomes an option."""

_FEWEST_EXACT = 8
"""Smallest number of events for an option."""

_MOST_MEANS, _MOST_OPTIONS = 3, 8
"""Largest number of successive searches for means, and of options of a rule."""

_WORTH_A_SEARCH = 0.01
"""Fraction of unexplained events for which other formulas are searched for."""

_MOST_INVERTED = 2
"""Largest number of tables by which couplings are converted to scales."""

_WIDEST = 30.0
"""Largest logarithm of a scale in GeV, and its largest range, for conversions from couplings."""

def learn_scale(
    incoming: Tensor,
    final: Tensor,
    value: FloatArray,
    process_id: npt.NDArray[Any] | None = None,
    exact: FloatArray | float = EXACT,
    masses: Sequence[float] | None = None,
    hints: Sequence[str] = (),
    elsewhere: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Rule for the scale of events of the same final state.

    Parameters
    ----------
    incoming : (m, 2, 4) tensor
    final : (m, n, 4) tensor
        Momenta in GeV of what is made in the collision.
    value : (m,) array
        Scales in GeV; values that are not positive are unknown.
    process_id : (m,) array, optional
        Processes of one final state may have scales of their own.
    exact : float or (m,) array
        Relative deviation that counts as exact.
    masses : sequence of float, optional
        As for `hepgen_ml.process.scale_search.find_mean`.
    hints : sequence of str
        Formulas of as many particles that hold elsewhere: tried before others are searched for.
    elsewhere : sequence of options
        Those of the rules of more frequent events: where these vary, the scale of a few events is
        no constant, and formulas that these events have, too, are tried first.

    Returns
    -------
    dict
        See `Auxiliaries`.
    """
    constant, few = _constant(value), _few(value)
    if constant is not None and not _by_chance(constant, value, elsewhere):
        return constant
    unknown, known = _unknown(value), value > 0
    rows = torch.from_numpy(known)
    incoming, final, value = incoming[rows], final[rows], value[known]
    tolerance = np.broadcast_to(np.asarray(exact, dtype=float), known.shape)[known]
    process = np.zeros(len(value), dtype=np.int64) if process_id is None else process_id[known]
    found: dict[tuple[str, float], None] = {}
    left = np.ones(len(value), dtype=bool)
    for number in np.unique(process).tolist():
        mine = np.flatnonzero(process == number)
        some = torch.from_numpy(mine)
        options, unexplained = _search(
            incoming[some], final[some], value[mine], tolerance[mine], masses, hints,
            _formulas(elsewhere, {*formula_names(final), *hints}) if few else [],
        )  # fmt: skip
        found |= dict.fromkeys(options[: max(_MOST_OPTIONS - len(found), 0)])
        left[mine] = unexplained
    names = dict.fromkeys([*formula_names(final), *(name for name, _ in found)])
    computed = {n: positive(n, incoming, final) for n in names}
    if found:
        off = np.stack([np.abs(value / (computed[n] * f) - 1) for n, f in found])
        left = np.asarray(~(off <= tolerance).any(axis=0))
    # The reference of the other events is the formula that describes them best.
    rest = left if left.any() else np.ones(len(value), dtype=bool)
    spread = {n: _spread(np.log(value / c)[rest]) for n, c in computed.items()}
    name = min(spread, key=lambda n: spread[n])
    options_: list[dict[str, Any]] = [
        {"kind": "formula", "formula": n, "factor": f} for n, f in found
    ]
    free = bool(left.mean() > RARE or not found)
    if not free and (lost := off.min(axis=0) > NEARLY).any():
        n, f = next(iter(found))
        options_ += exceptional_formulas((value / (computed[n] * f))[lost], n, f)
    return {"options": options_ + unknown, "reference": [name, 1.0], "free": free}


def _search(
    incoming: Tensor,
    final: Tensor,
    value: FloatArray,
    tolerance: FloatArray,
    masses: Sequence[float] | None,
    hints: Sequence[str],
    first: Sequence[tuple[str, float]] = (),
) -> tuple[list[tuple[str, float]], npt.NDArray[np.bool_]]:
    """Formulas and factors that describe events exactly, and the events without a formula.

    Of those that describe as many, one of the first is taken.
    """
    computed = {n: positive(n, incoming, final) for n in formula_names(final)}
    own = [(n, f) for n, c in computed.items() for f in (1.0, _factor(value / c)) if f > 0]
    if len(value) == 1:  # which any factor describes
        own = [(n, f) for n, f in own if (4 * f).is_integer()]
    computed |= {n: positive(n, incoming, final) for n, _ in first}
    candidates = [*first, *own]
    computed |= {n: positive(n, incoming, final) for n in hints}
    candidates += [(n, 1.0) for n in hints]
    off = np.stack([np.abs(value / (computed[n] * f) - 1) for n, f in candidates])
    left, found = np.ones(len(value), dtype=bool), []
    # The fitted factor is always exact for one of the events.
    fewest = max(MIN_SHARE * len(value), min(_FEWEST_EXACT, len(value)))
    counts = ((off <= tolerance) & left).sum(axis=1)
    while counts.max() >= fewest:
        best = int(np.argmax(counts))
        if stands_out(off[best][left], tolerance[left]):
            found.append(candidates[best])
            left &= off[best] > tolerance
            counts = np.where(counts > 0, ((off <= tolerance) & left).sum(axis=1), 0)
        counts[best] = 0
    for _ in range(_MOST_MEANS):
        if left.mean() <= _WORTH_A_SEARCH:
            break
        mean = find_mean(final[torch.from_numpy(left)], value[left], tolerance[left], masses)
        if mean is None:
            break
        found.append((mean.name, 1.0))
        left &= np.abs(value / positive(mean.name, incoming, final) - 1) > tolerance
    return found, left


def _spread(x: FloatArray) -> float:
    """Half of the shortest interval with 50 % of the values, and a tenth of that with 90 %."""
    low, quarter, three, high = np.quantile(x, [0.05, 0.25, 0.75, 0.95])
    return float((three - quarter) / 2 + (high - low) / 10)


def learn_coupling(
    incoming: Tensor,
    final: Tensor,
    scale: FloatArray,
    value: FloatArray,
    tables: Sequence[Any],
    process_id: npt.NDArray[Any] | None = None,
    masses: Sequence[float] = (),
    hints: Sequence[str] = (),
    elsewhere: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Rule for a coupling: constant, a function of a scale where it is one, or free.

    Generators print the scale of factorisation with the coupling at the scale of
    renormalisation, which may be another function of the momenta.

    Parameters
    ----------
    incoming, final : tensors
        As for `learn_scale`.
    scale, value : (m,) arrays
    tables : sequence of table options
        To choose from, see `hepgen_ml.process.coupling_tables.coupling_table`.
    process_id, masses, hints, elsewhere
        As for `learn_scale`.
    """
    constant = _constant(value)
    if constant is not None and not _by_chance(constant, value, elsewhere):
        return constant
    unknown, known = _unknown(value), value > 0
    rows = torch.from_numpy(known)
    incoming, final, scale, value = incoming[rows], final[rows], scale[known], value[known]
    process_id = None if process_id is None else process_id[known]
    middle = float(np.median(value))
    away = deviation(value, np.asarray(middle)) > EXACT
    if 0 < away.mean() <= RARE:
        options = [{"kind": "constant", "value": middle}, *exceptional_constants(value[away])]
        return {"options": options + unknown, "reference": ["constant", middle], "free": False}
    free = {
        "options": unknown, "reference": ["constant", middle], "free": True,
    }  # fmt: skip
    best, options, share = free, [], 0.0
    for table in tables:
        off = np.abs(value_of(table, incoming, final, scale) / value - 1)
        if np.mean(off <= EXACT) > share:
            options, share = [dict(table)], float(np.mean(off <= EXACT))
    if share < 1 - 1e-3:
        for table in tables[:_MOST_INVERTED]:
            told = list(dict.fromkeys([*hints, *means_of({"options": options})]))
            own = _own_scale(incoming, final, value, table, process_id, masses, told)
            off = _least_off(own, incoming, final, value)
            if np.mean(off <= EXACT) > share + 1e-3:
                options, share = own, float(np.mean(off <= EXACT))
    if share > MIN_SHARE and share * len(value) >= 1:
        best = {**free, "options": options + unknown, "free": bool(share < 1 - RARE)}
    if not best["free"]:
        exact = np.stack([value_of(o, incoming, final, scale) for o in options])
        lost = deviation(value, exact).min(axis=0) > NEARLY
        best["options"] = options + exceptional_constants(value[lost]) + unknown
    return best


def _own_scale(
    incoming: Tensor,
    final: Tensor,
    value: FloatArray,
    table: dict[str, Any],
    process_id: npt.NDArray[Any] | None,
    masses: Sequence[float],
    hints: Sequence[str],
) -> list[dict[str, Any]]:
    """The table as a function of other scales than that of the event, converted from couplings."""
    knots, inverse = np.asarray(table["knots"]), np.asarray(table["inverse"])
    if np.any(np.diff(inverse) <= 0) and np.any(np.diff(inverse) >= 0):
        return []  # couplings without a scale
    order = slice(None) if inverse[-1] > inverse[0] else slice(None, None, -1)
    log_scale = interpolated(1 / value, inverse[order], knots[order])
    if log_scale.max() - log_scale.min() > _WIDEST or np.abs(log_scale).max() > _WIDEST:
        return []  # far outside the range of the table
    slope = np.abs((inverse[-1] - inverse[0]) / (knots[-1] - knots[0])) * value
    exact = EXACT / np.maximum(slope, 1e-3)
    rule = learn_scale(incoming, final, np.exp(log_scale), process_id, exact, masses, hints)
    return [
        {**table, "of": [o["formula"], o["factor"]]}
        for o in rule["options"]
        if o["kind"] == "formula" and not is_exception(o)
    ]


def means_of(rule: Mapping[str, Any]) -> list[str]:
    """Means that a rule's options follow, themselves or by a table: hints for other rules."""
    names = [o.get("formula") or (o.get("of") or [""])[0] for o in rule["options"]]
    return [name for name in names if name.startswith("mean:")]


def _least_off(
    options: Sequence[dict[str, Any]], incoming: Tensor, final: Tensor, value: FloatArray
) -> FloatArray:
    """Relative deviation from the closest of some options that need no scale."""
    if not options:
        return np.full(len(value), np.inf)
    given = [value_of(o, incoming, final, value) for o in options]
    return np.asarray(np.min([np.abs(g / value - 1) for g in given], axis=0))


def _constant(value: FloatArray) -> dict[str, Any] | None:
    """Rule for values of which all that are known agree."""
    options, known = _unknown(value), value[value > 0]
    if len(known):
        middle = float(np.median(known))
        if np.any(np.abs(known - middle) > 1e-6 * middle):
            return None
        options.insert(0, {"kind": "constant", "value": middle})
    return {"options": options, "reference": ["constant", 1.0], "free": False}


def _few(value: FloatArray) -> bool:
    """Whether so few values are known that they agree by chance, or as there is only one."""
    return 0 < int((value > 0).sum()) < _FEWEST_EXACT


def _by_chance(
    constant: Mapping[str, Any], value: FloatArray, elsewhere: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether the constant of few events is none: elsewhere values vary, and none is the same."""
    same = [o["value"] for o in elsewhere if o["kind"] == "constant"]
    mine = constant["options"][0]["value"]
    return (
        _few(value)
        and len(same) < len(elsewhere)
        and not any(abs(mine - v) <= EXACT * abs(v) for v in same)
    )


def _formulas(
    options: Sequence[Mapping[str, Any]], known: Collection[str]
) -> list[tuple[str, float]]:
    """Formulas and factors among options, of those that events with these particles have."""
    formulas = [o for o in options if o["kind"] == "formula" and o["formula"] in known]
    return list(dict.fromkeys((o["formula"], o["factor"]) for o in formulas))


def _unknown(value: FloatArray) -> list[dict[str, Any]]:
    """Option for the most frequent value that is not positive: −1 means "unknown" in LHE."""
    found, counts = np.unique(value[value <= 0], return_counts=True)
    return [{"kind": "constant", "value": float(v)} for v in found[np.argsort(-counts)[:1]]]


def _factor(ratio: FloatArray) -> float:
    """Median ratio, tidied where it is close to a multiple of a quarter."""
    middle = float(np.median(ratio))
    rounded = round(middle * 4) / 4
    return rounded if rounded > 0 and abs(middle / rounded - 1) < EXACT else middle
