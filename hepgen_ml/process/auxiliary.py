"""Scale and couplings of an event: exact where the generator's formula is recognised.

Generators choose the scale by a formula, often one of several by the kinematics
(which parton an emission is clustered to). A rule therefore has *options*,
each exact: a constant, a formula of the momenta, or a table in the scale. Which
option an event takes is a categorical variable, like its colour flow. Events
that no option explains take the last choice, *free*: the logarithm of their
value over a reference is learned as a density. Where they are very few, their values are options
of their own, see `hepgen_ml.process.exceptions`. `hepgen_ml.process.scale_rules` finds the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.process.exceptions import closest
from hepgen_ml.process.scales import formula

FloatArray = npt.NDArray[np.float64]

AUXILIARY = ("scale", "alpha_qcd", "alpha_qed")
"""Event columns treated here, in the order in which they may depend on each other."""

EXACT = 2e-5
"""Relative agreement that counts as exact; scales are printed with about 7 digits."""


class Auxiliaries:
    """Rules for scale and couplings of the events of one channel.

    Parameters
    ----------
    rules : mapping of str to dict
        For each of `AUXILIARY`: ``options``, a list of ``{"kind": "constant",
        "value"}``, ``{"kind": "formula", "formula", "factor"}`` or ``{"kind":
        "table", "knots", "inverse"}`` (1/value, linear between knots in log
        scale); an ``exception`` is true where few events have it; ``reference``, (formula,
        factor) of the free choice, and ``free``, whether that choice occurs.
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
        self._parts: dict[tuple[frozenset[int], ...], Auxiliaries] = {}

    def check(self, incoming: Tensor, final: Tensor) -> None:
        """Raise ValueError or IndexError for formulas that such momenta do not have."""
        for rule in self.rules.values():
            _reference(rule, incoming, final)
            for option in rule["options"]:
                value_of(option, incoming, final, np.ones(len(final)))

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
            unexplained = taken = np.zeros(m, dtype=bool)
            if rule["options"]:
                exact = np.stack([value_of(o, incoming, final, scale) for o in rule["options"]])
                choice[:, k], is_exact, taken = closest(
                    rule["options"], exact, values[name], scale, EXACT
                )
                unexplained = ~is_exact
            else:
                unexplained = ~unexplained
            if not rule["free"]:
                # Rules without a free choice hold to rounding for (almost) all of the sample.
                choice[~taken, k] = -1
                continue
            choice[unexplained, k] = len(rule["options"])
            reference = _reference(rule, incoming, final)
            with np.errstate(invalid="ignore", divide="ignore"):
                free[:, k] = np.where(unexplained, np.log(values[name] / reference), 0.0)
        sizes = [self._n_choices(name) for name in AUXILIARY]
        branch = np.ravel_multi_index(tuple(np.maximum(choice, 0).T), sizes)
        branch[(choice < 0).any(1)] = -1
        return torch.from_numpy(branch), torch.from_numpy(free)

    def occurring(
        self,
        incoming: Tensor,
        final: Tensor,
        values: Mapping[str, FloatArray],
        sizes: Sequence[int],
    ) -> list[Auxiliaries]:
        """The same rules without the options that none of some events uses.

        For groups of events of these sizes, one after another: one object for all groups that use
        the same.
        """
        found = []
        branch, _ = self.encode(incoming, final, values)
        for own in branch.split(list(sizes)):
            choice = self.branches[own[own >= 0].numpy()]
            used = tuple(frozenset(column.tolist()) for column in choice.T)
            if used not in self._parts:
                self._parts[used] = self._part(used)
            found.append(self._parts[used])
        return found

    def _part(self, used: Sequence[frozenset[int]]) -> Auxiliaries:
        """The rules with those options alone that are used."""
        rules = {}
        for name, taken in zip(AUXILIARY, used, strict=True):
            rule = self.rules[name]
            options = [o for i, o in enumerate(rule["options"]) if i in taken]
            free = rule["free"] and (len(rule["options"]) in taken or not options)
            rules[name] = {**rule, "options": options, "free": free}
            if not options and not free:
                rules[name] = rule
        return Auxiliaries(rules)

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
                    value[rows] = value_of(option, incoming[some], final[some], scale)
                else:
                    reference = _reference(rule, incoming[some], final[some])
                    value[rows] = reference * np.exp(free[some, k].numpy())
            columns[name] = value
        return columns


def value_of(
    option: dict[str, Any], incoming: Tensor, final: Tensor, scale: FloatArray
) -> FloatArray:
    """Values (m,) by an option; ``scale`` is that of the events, for a table without its own."""
    if option["kind"] == "constant":
        return np.full(len(final), float(option["value"]))
    if option["kind"] == "formula":
        return option["factor"] * formula(option["formula"], incoming, final).numpy()
    if option.get("of") is not None:
        name, factor = option["of"]
        scale = factor * positive(name, incoming, final)
    knots, inverse = np.asarray(option["knots"]), np.asarray(option["inverse"])
    found = interpolated(np.log(np.maximum(scale, 1e-300)), knots, inverse)
    # Continued to small scales, the strong coupling has a pole, and is negative beyond it.
    least = float(inverse.min()) / 2
    return 1.0 / (np.maximum(found, least) if least > 0 else found)


def _reference(rule: dict[str, Any], incoming: Tensor, final: Tensor) -> FloatArray:
    name, factor = rule["reference"]
    return np.asarray(factor * positive(name, incoming, final))


def positive(name: str, incoming: Tensor, final: Tensor) -> FloatArray:
    """A formula, nowhere zero: particles along the beam have no transverse momentum."""
    return np.asarray(np.maximum(formula(name, incoming, final).numpy(), 1e-12))


def interpolated(x: FloatArray, knots: FloatArray, y: FloatArray) -> FloatArray:
    """Piecewise linear, continued linearly beyond the ends."""
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (y[i + 1] - y[i]) / (knots[i + 1] - knots[i])
    return np.asarray(y[i] + slope * (x - knots[i]))
