"""Rules of scale and couplings in words, and how often each of them holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.channels import Channel
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.exceptions import is_exception
from hepgen_ml.process.process import Process
from hepgen_ml.process.scales import in_words

MOST_NAMED = 3
"""Largest number of subprocesses and formulas in a sentence."""

_NAMES = {"scale": "scale", "alpha_qcd": "α_s", "alpha_qed": "α_em"}

_HOW = {
    "constant": "constant", "formula": "exact by formula", "table": "exact by a table in the scale",
    "drawn": "drawn from a density", "exception": "that of a few exceptions",
}  # fmt: skip


def auxiliary_fractions(process: Process, encoded: Encoded) -> dict[str, dict[str, float]]:
    """Rules of scale and couplings: fractions of the events by the kind of rule.

    Returns
    -------
    dict
        For each of ``scale``, ``alpha_qcd``, ``alpha_qed`` fractions for ``constant``, ``formula``,
        ``table``, ``exception`` and ``drawn``, as far as they occur.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in AUXILIARY}
    if process.is_reconstructed or not len(encoded):
        return {}
    for channel, rows in process.groups.of_rules(process.channel_of[encoded.subprocess]):
        choice = channel.auxiliaries.branches[encoded.branch[rows].numpy()]
        for k, name in enumerate(AUXILIARY):
            kinds = [*map(_kind, channel.auxiliaries.rules[name]["options"]), "drawn"]
            for number, count in zip(*np.unique(choice[:, k], return_counts=True), strict=True):
                kind = kinds[number]
                found[name][kind] = found[name].get(kind, 0.0) + float(count) / len(encoded)
    return {n: {k: round(v, 6) for k, v in kinds.items()} for n, kinds in found.items()}


def scales_in_words(process: Process, facts: Mapping[str, Any]) -> str:
    """How scale and couplings are determined, with the formulas of the largest channel."""
    fractions: Mapping[str, Mapping[str, float]] = facts.get("auxiliary_fractions") or {}
    largest = _largest(process)
    parts = []
    for name in AUXILIARY:
        rule, known = largest.auxiliaries.rules[name], fractions.get(name)
        kinds = dict(known) if known else _kinds(rule)
        text = ", ".join(
            (f"{100 * value:.3g} % " if known else "") + _HOW[kind]
            for kind, value in sorted(kinds.items(), key=lambda pair: -pair[1])
        )
        formulas = [
            in_words(o["formula"], o["factor"], largest.chart.made_labels)
            for o in rule["options"] if _kind(o) == "formula"
        ]  # fmt: skip
        constants = [o["value"] for o in rule["options"] if _kind(o) == "constant"]
        if set(kinds) == {"constant"}:
            value = constants[0] if constants else -1.0
            text = f"constant, {value:.6g}" if value > 0 else "not given"
        elif name == "scale" and formulas:
            text += f" ({some(formulas, MOST_NAMED)})"
        parts.append(f"{_NAMES[name]}: {text}")
    return "; ".join(parts)


def _kinds(rule: Mapping[str, Any]) -> dict[str, float]:
    """Kinds of options of a rule, if their frequencies are unknown."""
    kinds = {kind: 0.1 if kind == "exception" else 1.0 for kind in map(_kind, rule["options"])}
    return kinds | ({"drawn": 0.5} if rule["free"] else {})


def _kind(option: Mapping[str, Any]) -> str:
    return "exception" if is_exception(option) else str(option["kind"])


def _largest(process: Process) -> Channel:
    """The channel with most events."""
    rates = np.bincount(
        process.channel_of.numpy(), process.frequencies, minlength=len(process.channels)
    )
    return process.channels[int(rates.argmax())]


def some(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many there are beyond them."""
    more = len(names) - most
    return "; ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
