"""Rules for scale and couplings of all channels, learned together from the events kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.phase_space import Chart
from hepgen_ml.process.auxiliary import AUXILIARY, Auxiliaries
from hepgen_ml.process.coupling_tables import best_table
from hepgen_ml.process.exceptions import is_exception
from hepgen_ml.process.scale_rules import learn_coupling, learn_scale, means_of
from hepgen_ml.process.scale_search import exchanged_masses
from hepgen_ml.process.seen import Seen
from hepgen_ml.process.structure import Structure

_MOST_TABLES = 6
"""Functions of the scale that are tried for a coupling."""

_MOST_HINTS = 8
"""Formulas of other channels that are tried."""

_POOLED = 20_000
"""Events to which the rules of channels that make the same particles are fitted."""


class ChannelRules:
    """Learns the rules of the channels of a sample.

    Parameters
    ----------
    seen : mapping of Structure to Seen
        Events of the sample.
    rng : numpy.random.Generator
        Chooses events where there are more than needed.
    """

    def __init__(self, seen: Mapping[Structure, Seen], rng: np.random.Generator) -> None:
        self._seen, self._rng = seen, rng

    def learned(
        self,
        groups: dict[str, list[Structure]],
        orders: dict[str, dict[Structure, tuple[int, ...]]],
        charts: dict[str, Chart],
        progress: Callable[[int, int], None],
    ) -> dict[str, Auxiliaries]:
        """Rules of every channel, learned together for those that make the same particles.

        Scale and couplings do not depend on decays, so that channels with few events share the
        rules of others. Rules of channels with most events are tried first for the others.

        Parameters
        ----------
        groups : dict of str to list of Structure
            Structures of each channel.
        orders : dict of str to dict of Structure to tuple of int
            Rows of final particles in the order of the chart of each channel.
        charts : dict of str to Chart
            That of each channel.
        progress : callable
            Called with how many rules are found, and their number.
        """
        kept = {key: self._kept(structures, orders[key]) for key, structures in groups.items()}
        for key, k in kept.items():
            k["made"] = charts[key].made(torch.from_numpy(k["final"])).numpy()
        pools: dict[tuple[str, ...], list[str]] = {}
        for key in groups:
            names = tuple(label.lstrip("-") for label in charts[key].made_labels)
            pools.setdefault(names, []).append(key)
        together = {names: self._together([kept[k] for k in keys]) for names, keys in pools.items()}
        ranked = sorted(pools, key=lambda names: -len(together[names]["incoming"]))
        hints: dict[int, dict[str, None]] = {len(names): {} for names in pools}
        scales, done, total = {}, 0, len(pools) * len(AUXILIARY)
        elsewhere: dict[str, list[dict[str, Any]]] = {name: [] for name in AUXILIARY}
        for names in ranked:
            k, known = together[names], hints[len(names)]
            if "scale" in k:
                scales[names] = learn_scale(
                    torch.from_numpy(k["incoming"]), torch.from_numpy(k["made"]), k["scale"],
                    k["process_id"], hints=list(known)[:_MOST_HINTS],
                    elsewhere=elsewhere["scale"],
                )  # fmt: skip
                _note(elsewhere["scale"], scales[names])
                known |= dict.fromkeys(means_of(scales[names]))
            done += 1
            progress(done, total)
        tables = {name: self._tables(name, together, scales) for name in AUXILIARY[1:]}
        unknown = {
            "options": [{"kind": "constant", "value": -1.0}],
            "reference": ["constant", 1.0],
            "free": False,
        }
        rules: dict[str, Auxiliaries] = {}
        for names in ranked:
            k, known = together[names], hints[len(names)]
            rule: dict[str, dict[str, Any]] = dict.fromkeys(AUXILIARY, unknown)
            incoming, made = (torch.from_numpy(k[n]) for n in ("incoming", "made"))
            if names in scales:
                rule["scale"] = scales[names]
            for name, candidates in tables.items():
                if name in k:
                    scale = k.get("scale", np.ones(len(k[name])))
                    rule[name] = learn_coupling(
                        incoming, made, scale, k[name], candidates, k["process_id"],
                        _exchanged(rule["scale"]), list(known)[:_MOST_HINTS], elsewhere[name],
                    )  # fmt: skip
                    _note(elsewhere[name], rule[name])
                    known |= dict.fromkeys(means_of(rule[name]))
                done += 1
                progress(done, total)
            whole = Auxiliaries(rule)
            own = [kept[key] for key in pools[names]]
            every = _joined(own)
            parts = whole.occurring(
                torch.from_numpy(every["incoming"]), torch.from_numpy(every["made"]),
                {n: every[n] for n in AUXILIARY if n in every}, [len(k["made"]) for k in own],
            )  # fmt: skip
            rules |= dict(zip(pools[names], parts, strict=True))
        return rules

    def _tables(
        self,
        name: str,
        together: dict[tuple[str, ...], dict[str, npt.NDArray[Any]]],
        scales: dict[tuple[str, ...], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Functions of a scale that a coupling may be: one from each of the largest processes."""
        found: list[tuple[int, dict[str, Any]]] = []
        for names, k in together.items():
            if name not in k or names not in scales:
                continue
            masses = _exchanged(scales[names])
            for number in np.unique(k["process_id"]):
                rows = k["process_id"] == number
                value = k[name][rows]
                if not np.ptp(value) > 1e-6 * abs(value[0]):
                    continue
                incoming, made = (torch.from_numpy(k[n][rows]) for n in ("incoming", "made"))
                table = best_table(incoming, made, k["scale"][rows], value, masses)
                if table is not None:
                    found.append((len(value), table))
        found.sort(key=lambda pair: -pair[0])
        return [table for _, table in found[:_MOST_TABLES]]

    def _together(self, kept: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
        """Events of several channels that make the same particles, at most so many at random."""
        joined = _joined(kept)
        n_events = len(joined["incoming"])
        if n_events <= _POOLED:
            return joined
        chosen = np.sort(self._rng.permutation(n_events)[:_POOLED])
        return {n: v[chosen] for n, v in joined.items()}

    def _kept(
        self, structures: list[Structure], orders: dict[Structure, tuple[int, ...]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Events kept of the structures of one channel, final states in the chart's order."""
        parts = []
        for structure in structures:
            columns = [structure.final.index(r) for r in orders[structure]]
            kept = self._seen[structure].kept
            number = np.full(len(kept["final"]), structure.process_id)
            parts.append({**kept, "process_id": number, "final": kept["final"][:, columns]})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _note(options: list[dict[str, Any]], rule: Mapping[str, Any]) -> None:
    """Add those of a rule that are not among the options."""
    options += [o for o in rule["options"] if o not in options and not is_exception(o)]


def _joined(kept: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Events of several channels one after another."""
    names = [n for n in ("process_id", "incoming", "made", *AUXILIARY) if n in kept[0]]
    return {n: np.concatenate([k[n] for k in kept]) for n in names}


def _exchanged(rule: dict[str, Any]) -> list[float]:
    """Masses of exchanged particles in the formulas of a rule."""
    return exchanged_masses(o["formula"] for o in rule["options"] if o["kind"] == "formula")
