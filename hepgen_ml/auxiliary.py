"""Scale and couplings of an event: exact where the generator's formula is recognised.

Generators choose the scale by a formula, often one of several by the kinematics
(which parton an emission is clustered to). A rule therefore has *options*,
each exact: a constant, a formula of the momenta, or a table in the scale. Which
option an event takes is a categorical variable, like its colour flow. Events
that no option explains take the last choice, *free*: the logarithm of their
value over a reference is learned as a density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    boost,
    invariant_mass_squared,
    reverse,
    transverse_momentum,
)

FloatArray = npt.NDArray[np.float64]

AUXILIARY = ("scale", "alpha_qcd", "alpha_qed")
"""Event columns treated here, in the order in which they may depend on each other."""

EXACT = 2e-5
"""Relative agreement that counts as exact; scales are printed with about 7 digits."""

MIN_SHARE = 2e-3
"""Smallest fraction of events for which a formula becomes an option."""

_KNOTS = 512
_WINDOW = 31
_MAX_EMISSIONS = 4


def formula(name: str, incoming: Tensor, final: Tensor) -> Tensor:
    """A common scale choice.

    Parameters
    ----------
    name : str
        ``constant`` (1 GeV), ``ht`` (sum of transverse masses), ``sqrt_shat``,
        ``geometric_mean_mt``, ``min_mt`` (smallest transverse mass, the default of Pythia for
        two particles), ``pair_mt`` (transverse mass of the two heaviest
        particles together), ``max_pt`` or ``core_mt:i,j``: the geometric mean of
        the transverse masses of the two heaviest particles in their rest
        frame, to the axis of the first incoming parton less the particles i,
        j. This is the scale after clustering all others into the beams
        (the default of MadGraph), where i, j went to the first.
    incoming : (events, 2, 4) tensor
    final : (events, n, 4) tensor
        Momenta in GeV of what is made in the collision, resonances rather than what they decay to.

    Returns
    -------
    (events,) tensor, GeV
    """
    mass2 = invariant_mass_squared(final).clamp_min(0.0)
    mt = torch.sqrt(transverse_momentum(final) ** 2 + mass2)
    kind, _, argument = name.partition(":")
    if kind == "constant":
        return torch.ones_like(mt[:, 0])
    if kind == "ht":
        return mt.sum(1)
    if kind == "sqrt_shat":
        return torch.sqrt(invariant_mass_squared(final.sum(1)).clamp_min(1e-12))
    if kind == "geometric_mean_mt":
        return torch.exp(torch.log(mt.clamp_min(1e-6)).mean(1))
    if kind == "min_mt":
        return mt.amin(1)
    if kind == "max_pt":
        return transverse_momentum(final).amax(1)
    heavy = _heaviest(mass2)
    pair = final[:, heavy].sum(1)
    pair_mass2 = invariant_mass_squared(pair).clamp_min(1e-12)
    if kind == "pair_mt":
        return torch.sqrt(pair_mass2 + transverse_momentum(pair) ** 2)
    if kind != "core_mt":
        raise ValueError(f"unknown scale {name!r}")
    axis = incoming[:, 0]
    for i in (int(text) for text in argument.split(",") if text):
        axis = axis - final[:, i]
    pair_mass = torch.sqrt(pair_mass2)
    inside = boost(final[:, heavy[0]], reverse(pair), pair_mass)[:, :3]
    axis = boost(axis, reverse(pair), pair_mass)[:, :3]
    along = (inside * axis).sum(1) ** 2 / (axis**2).sum(1).clamp_min(1e-12)
    pt2 = ((inside**2).sum(1) - along).clamp_min(0.0)
    return torch.exp(0.25 * torch.log((pt2.unsqueeze(1) + mass2[:, heavy]).clamp_min(1e-12)).sum(1))


def _heaviest(mass2: Tensor) -> list[int]:
    """Columns of the two heaviest particles, in the order of the event."""
    order = mass2.mean(0).argsort(descending=True, stable=True)[:2]
    return sorted(order.tolist())


def formula_names(final: Tensor) -> list[str]:
    """Scale choices to be tried for a final state (events, n, 4), simple ones first."""
    names = ["constant", "ht", "sqrt_shat", "geometric_mean_mt", "min_mt"]
    if final.shape[1] > 1:
        heavy = _heaviest(invariant_mass_squared(final).clamp_min(0.0))
        others = [i for i in range(final.shape[1]) if i not in heavy]
        names += ["pair_mt", "max_pt"]
        if len(others) <= _MAX_EMISSIONS:
            for size in range(len(others) + 1):
                names += [f"core_mt:{','.join(map(str, s))}" for s in combinations(others, size)]
    return names


class Auxiliaries:
    """How scale and couplings follow for the events of one channel.

    Parameters
    ----------
    rules : mapping of str to dict
        For each of `AUXILIARY`: ``options``, a list of ``{"kind": "constant",
        "value"}``, ``{"kind": "formula", "formula", "factor"}`` or ``{"kind":
        "table", "knots", "inverse"}`` (1/value, linear between knots in log
        scale); ``reference``, (formula, factor) of the free choice, and
        ``free``, whether that choice occurs.
    """

    def __init__(self, rules: Mapping[str, dict[str, Any]]) -> None:
        self.rules = {name: dict(rules[name]) for name in AUXILIARY}
        for name, rule in self.rules.items():
            for option in rule["options"]:
                if option["kind"] not in ("constant", "formula", "table"):
                    raise ValueError(f"unknown option {option['kind']!r} for {name}")
        self.branches: npt.NDArray[np.int32] = np.array(
            list(product(*(range(self._n_choices(name)) for name in AUXILIARY))), dtype=np.int32
        )

    def _n_choices(self, name: str) -> int:
        rule = self.rules[name]
        return len(rule["options"]) + (1 if rule["free"] else 0)

    def is_free(self, branches: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """(k, 3) bool: which values of branches (k, 3) are learned as densities."""
        return branches >= np.array([len(self.rules[name]["options"]) for name in AUXILIARY])

    def encode(
        self, incoming: Tensor, final: Tensor, values: Mapping[str, FloatArray]
    ) -> tuple[Tensor, Tensor]:
        """Branch (m,) and logarithms over the reference (m, 3), zero where exact.

        The branch is −1 for an event that needs a free choice that the rules do not have. The
        logarithm is not finite for a value that is neither an option nor positive.
        """
        m = len(final)
        scale = values.get("scale", np.ones(m))
        choice = np.zeros((m, len(AUXILIARY)), dtype=np.int64)
        free = np.zeros((m, len(AUXILIARY)))
        for k, name in enumerate(AUXILIARY):
            rule = self.rules[name]
            if name not in values:
                continue
            exact = [self._value(o, incoming, final, scale) for o in rule["options"]]
            off = np.stack([_off(values[name], e) for e in exact] or [np.full(m, np.inf)])
            choice[:, k] = np.argmin(off, axis=0)
            unexplained = ~(off.min(axis=0) <= EXACT)
            if not rule["free"]:
                # Rules without a free choice hold to rounding for (almost) all of the sample.
                unexplained &= off.min(axis=0) > 1e-2
                choice[unexplained, k] = -1
                continue
            choice[unexplained, k] = len(rule["options"])
            reference = self._reference(rule, incoming, final)
            with np.errstate(invalid="ignore", divide="ignore"):
                free[:, k] = np.where(unexplained, np.log(values[name] / reference), 0.0)
        sizes = [self._n_choices(name) for name in AUXILIARY]
        branch = np.ravel_multi_index(tuple(np.maximum(choice, 0).T), sizes)
        branch[(choice < 0).any(1)] = -1
        return torch.from_numpy(branch), torch.from_numpy(free)

    def decode(
        self, incoming: Tensor, final: Tensor, branch: Tensor, free: Tensor
    ) -> dict[str, FloatArray]:
        """Event columns from momenta, branch (m,) and logarithms over the reference (m, 3)."""
        choice = self.branches[branch.numpy()]
        columns: dict[str, FloatArray] = {}
        for k, name in enumerate(AUXILIARY):
            rule = self.rules[name]
            value = np.zeros(len(final))
            for c in np.unique(choice[:, k]):
                rows = np.flatnonzero(choice[:, k] == c)
                some = torch.from_numpy(rows)
                if c < len(rule["options"]):
                    scale = columns["scale"][rows] if "scale" in columns else value[rows]
                    option = rule["options"][c]
                    value[rows] = self._value(option, incoming[some], final[some], scale)
                else:
                    reference = self._reference(rule, incoming[some], final[some])
                    value[rows] = reference * np.exp(free[some, k].numpy())
            columns[name] = value
        return columns

    @staticmethod
    def _value(
        option: dict[str, Any], incoming: Tensor, final: Tensor, scale: FloatArray
    ) -> FloatArray:
        if option["kind"] == "constant":
            return np.full(len(final), float(option["value"]))
        if option["kind"] == "formula":
            return option["factor"] * formula(option["formula"], incoming, final).numpy()
        knots, inverse = np.asarray(option["knots"]), np.asarray(option["inverse"])
        return 1.0 / _interpolate(np.log(np.maximum(scale, 1e-300)), knots, inverse)

    @staticmethod
    def _reference(rule: dict[str, Any], incoming: Tensor, final: Tensor) -> FloatArray:
        name, factor = rule["reference"]
        return np.asarray(factor * formula(name, incoming, final).numpy())


def learn_scale(incoming: Tensor, final: Tensor, value: FloatArray) -> dict[str, Any]:
    """Rule for the scale of events of one channel."""
    constant = _constant(value)
    if constant is not None:
        return constant
    unknown, known = _unknown(value), value > 0
    incoming, final = incoming[torch.from_numpy(known)], final[torch.from_numpy(known)]
    value = value[known]
    names = formula_names(final)
    computed = {n: formula(n, incoming, final).numpy() for n in names}
    candidates = [(n, f) for n in names for f in (_factor(value / computed[n]), 1.0) if f > 0]
    off = np.stack([np.abs(value / (computed[n] * f) - 1) for n, f in candidates])
    left, options = np.ones(len(value), dtype=bool), []
    while left.any():
        share = ((off <= EXACT) & left).mean(axis=1)
        best = int(np.argmax(share))
        if share[best] < MIN_SHARE:
            break
        name, factor = candidates[best]
        options.append({"kind": "formula", "formula": name, "factor": factor})
        left &= off[best] > EXACT
    # The reference of the rest is the formula that follows it most closely.
    rest = left if left.any() else np.ones(len(value), dtype=bool)
    spread = {n: np.median(np.abs(np.log(value / computed[n])[rest])) for n in names}
    name = min(spread, key=lambda n: spread[n])
    return {
        "options": options + unknown,
        "reference": [name, 1.0],
        "free": bool(left.mean() > 1e-3 or not options),
    }


def learn_coupling(scale: FloatArray, value: FloatArray, tables: Sequence[Any]) -> dict[str, Any]:
    """Rule for a coupling: constant, a function of the scale where it is one, or free.

    Parameters
    ----------
    scale, value : (m,) arrays
    tables : sequence of table options
        To choose from, see `coupling_table`.
    """
    constant = _constant(value)
    if constant is not None:
        return constant
    unknown, known = _unknown(value), value > 0
    scale, value = scale[known], value[known]
    shares = []
    for table in tables:
        guess = Auxiliaries._value(table, torch.empty(0), torch.empty(0), scale)
        shares.append(float(np.mean(np.abs(guess / value - 1) <= EXACT)))
    best = int(np.argmax(shares)) if shares else -1
    options = [dict(tables[best])] if shares and shares[best] > MIN_SHARE else []
    return {
        "options": options + unknown,
        "reference": ["constant", float(np.median(value))],
        "free": bool(not options or shares[best] < 1 - 1e-3),
    }


def coupling_table(scale: FloatArray, value: FloatArray) -> dict[str, Any] | None:
    """1/value as a function of log(scale), from events of which a few may not follow it.

    Knots are medians of both over neighbouring events: for a monotone function
    these lie on the curve, and 1/alpha is nearly linear between them.
    """
    known = (scale > 0) & (value > 0)
    scale, value = scale[known], value[known]
    if len(scale) < 8 * _WINDOW:
        return None
    order = np.argsort(scale)
    x, y = np.log(scale[order]), 1.0 / value[order]
    if x[-1] - x[0] < 1e-6:
        return None
    starts = np.searchsorted(x, np.linspace(x[0], x[-1], _KNOTS)) - _WINDOW // 2
    starts = np.unique(np.clip(starts, 0, len(x) - _WINDOW))
    windows = starts[:, None] + np.arange(_WINDOW)
    knots, inverse = np.median(x[windows], axis=1), np.median(y[windows], axis=1)
    keep = np.concatenate([[True], np.diff(knots) > 1e-9])
    if keep.sum() < 2:
        return None
    return {"kind": "table", "knots": knots[keep].tolist(), "inverse": inverse[keep].tolist()}


def _constant(value: FloatArray) -> dict[str, Any] | None:
    """Rule for values of which all that are known agree."""
    options, known = _unknown(value), value[value > 0]
    if len(known):
        middle = float(np.median(known))
        if np.any(np.abs(known - middle) > 1e-6 * middle):
            return None
        options.insert(0, {"kind": "constant", "value": middle})
    return {"options": options, "reference": ["constant", 1.0], "free": False}


def _unknown(value: FloatArray) -> list[dict[str, Any]]:
    """Option for the commonest value that is not positive, if any: −1 says "unknown" in LHE."""
    found, counts = np.unique(value[value <= 0], return_counts=True)
    return [{"kind": "constant", "value": float(v)} for v in found[np.argsort(-counts)[:1]]]


def _off(value: FloatArray, exact: FloatArray) -> FloatArray:
    """Relative deviation, zero between zeros."""
    return np.asarray(np.abs(value - exact) / np.maximum(np.abs(exact), 1e-300))


def _factor(ratio: FloatArray) -> float:
    """Median ratio, tidied where it is close to a multiple of a quarter."""
    middle = float(np.median(ratio))
    rounded = round(middle * 4) / 4
    return rounded if rounded > 0 and abs(middle / rounded - 1) < EXACT else middle


def _interpolate(x: FloatArray, knots: FloatArray, y: FloatArray) -> FloatArray:
    """Piecewise linear, continued linearly beyond the ends."""
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (y[i + 1] - y[i]) / (knots[i + 1] - knots[i])
    return np.asarray(y[i] + slope * (x - knots[i]))
