"""Learning a `Process` from a stream of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.events.helicities import helicity_codes
from hepgen_ml.events.objects import NamedResonance
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample
from hepgen_ml.events.summary import particle_name
from hepgen_ml.phase_space import Chart, Cut
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import flavour_class
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.process.auxiliary import AUXILIARY, Auxiliaries
from hepgen_ml.process.chart_choice import ChartLearner
from hepgen_ml.process.encoded import final_momenta
from hepgen_ml.process.lifetimes import LifetimeLearner
from hepgen_ml.process.process import Channel, Process, Subprocess
from hepgen_ml.process.scale_rules import best_table, learn_coupling, learn_scale, means_of
from hepgen_ml.process.scale_search import exchanged_masses
from hepgen_ml.process.seen import Beams, Seen, fixed_or_interval
from hepgen_ml.process.structure import PATTERN, Structure, tables

log = logging.getLogger(__name__)

_NAMED = 8
"""Subprocesses that a warning names."""

_KEPT = 5_000
"""Events per subprocess kept for fitting the rules of scale and couplings."""

_MOST_TABLES = 6
"""Functions of the scale that are tried for a coupling."""

_MOST_HINTS = 8
"""Formulas of other channels that are tried."""

_POOLED = 20_000
"""Events to which the rules of channels that make the same particles are fitted."""


class ProcessLearner:
    """Collects what a process needs from chunks of events, in bounded memory.

    Parameters
    ----------
    seed : int
        Of the random choice of events that rules are fitted to.
    cuts : sequence of Cut
        Stated cuts; the events that are added obey them.
    resonances : sequence of NamedResonance
        Reconstructed objects that come from one particle.
    find_cuts : bool
        Look for cuts at the edges of the sample, too.
    """

    def __init__(
        self,
        seed: int = 0,
        cuts: Sequence[Cut] = (),
        resonances: Sequence[NamedResonance] = (),
        *,
        find_cuts: bool = True,
    ) -> None:
        self._stated, self._named = tuple(cuts), tuple(resonances)
        self._rng = np.random.default_rng(seed)
        self._seen: dict[Structure, Seen] = {}
        self._cuts = CutFinder(find_cuts)
        self._energy_low = np.full(2, np.inf)
        self._energy_high = np.zeros(2)
        self._lifetimes = LifetimeLearner(seed)
        self._spins: set[int] = set()
        self.n_events = 0

    def add(self, sample: EventSample) -> None:
        """Take in a chunk of parton-level or of reconstructed events."""
        needed = ["pdg_id"] + ([] if sample.is_reconstructed else ["mother1"])
        missing = [n for n in needed if n not in sample.particles]
        if missing:
            raise SampleError(
                f"these events have no column {missing[0]!r}",
                remedy="training needs parton-level events with flavours and mothers, or "
                "reconstructed objects (see --objects)",
            )
        final_states: list[FinalStates] = []
        for structure, events, table in tables(sample, discrete=True):
            if not sample.is_reconstructed and (
                len(structure.incoming) != 2 or not structure.final
            ):
                n_incoming, n_final = len(structure.incoming), len(structure.final)
                decay = "decays of one particle are not supported; " if n_incoming == 1 else ""
                raise SampleError(
                    f"{n_incoming} incoming and {n_final} final particles",
                    event=int(events[0]) + 1 + self.n_events,
                    remedy=f"{decay}training needs two incoming partons (status -1) and a final "
                    "state; to train on the objects of showered events, choose them with --objects",
                )
            some = {n: v[events] for n, v in sample.events.items()}
            final_states.append(self._add(structure, table, some))
        self._cuts.add_all(final_states)
        self.n_events += len(sample)

    def _add(
        self,
        structure: Structure,
        table: dict[str, npt.NDArray[Any]],
        events: dict[str, npt.NDArray[Any]],
    ) -> FinalStates:
        n, weight = len(structure.pdg_id), events["weight"]
        mass = table["mass"]
        seen = self._seen.setdefault(structure, Seen(np.full(n, np.inf), np.full(n, -np.inf)))
        seen.weight += float(weight.sum())
        seen.mass_low = np.minimum(seen.mass_low, mass.min(0))
        seen.mass_high = np.maximum(seen.mass_high, mass.max(0))
        found, inverse = np.unique(table[PATTERN], axis=0, return_inverse=True)
        for row, w in zip(found, np.bincount(inverse.ravel(), weights=weight), strict=True):
            key = row.astype(np.int32).tobytes()
            seen.patterns[key] = seen.patterns.get(key, 0.0) + float(w)
        if structure.incoming:
            energy = table["energy"][:, structure.incoming]
            self._energy_low = np.minimum(self._energy_low, energy.min(0))
            self._energy_high = np.maximum(self._energy_high, energy.max(0))
        self._note_what_is_not_learned(structure, table)
        final = final_momenta(table, structure.final)
        classes = [flavour_class(structure.pdg_id[r], float(mass[0, r])) for r in structure.final]
        kept = {
            "final": final.numpy(),
            "incoming": final_momenta(table, structure.incoming).numpy(),
        }
        self._keep(seen, kept | {k: events[k] for k in AUXILIARY if k in events})
        return FinalStates(final, classes, bool(structure.incoming), structure.pairs_of_decays)

    def _keep(self, seen: Seen, new: dict[str, npt.NDArray[Any]]) -> None:
        """Random subset of fixed size, each event with the same chance (smallest priorities)."""
        priority = np.concatenate([seen.priority, self._rng.random(len(new["final"]))])
        joined = {
            k: np.concatenate([seen.kept[k], v]) if k in seen.kept else v for k, v in new.items()
        }
        chosen = np.argsort(priority, kind="stable")[:_KEPT]
        seen.priority = priority[chosen]
        seen.kept = {k: v[chosen] for k, v in joined.items()}

    def _leave_out(self) -> None:
        """Forget subprocesses and patterns whose weights do not add up to a rate."""
        total = sum(s.weight for s in self._seen.values())
        if not total > 0:
            raise SampleError(
                f"the weights of its events add up to {total:g}",
                remedy="a density needs a positive cross section; take more events",
            )
        before, lost = self._rates(), {}
        for structure, seen in list(self._seen.items()):
            some = {key: w for key, w in seen.patterns.items() if w > 0}
            if seen.weight > 0 and some:
                seen.patterns = some
            else:
                lost[_reaction(structure)] = self._seen.pop(structure).weight / total
        if not lost:
            return
        # Rates that fluctuate below zero belong to those that fluctuate above: the sum of all of
        # one multiplicity is as it was.
        after = self._rates()
        for structure, seen in self._seen.items():
            key = structure.process_id, len(structure.pdg_id)
            seen.weight *= max(before[key], 1e-6 * total) / after[key]
        names = sorted(lost, key=lambda name: lost[name])
        log.warning(
            "left out %d subprocesses whose weights do not add up to a rate, together %.2g of the "
            "whole: %s", len(lost), sum(lost.values()),
            ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else ""),
        )  # fmt: skip

    def _rates(self) -> dict[tuple[int, int], float]:
        """Sums of weights by process and number of particles."""
        rates: dict[tuple[int, int], float] = {}
        for structure, seen in self._seen.items():
            key = structure.process_id, len(structure.pdg_id)
            rates[key] = rates.get(key, 0.0) + seen.weight
        return rates

    def _note_what_is_not_learned(
        self, structure: Structure, table: dict[str, npt.NDArray[Any]]
    ) -> None:
        if "lifetime" in table:
            self._lifetimes.add(structure, table["lifetime"])
        if "spin" in table:
            spin = table["spin"]
            lost = (helicity_codes(spin) == UNKNOWN_SPIN) & (spin != UNKNOWN_SPIN)
            self._spins.update(np.abs(structure.pdg_id)[lost.any(0)].tolist())

    @property
    def not_learned(self) -> list[str]:
        """Properties of particles of the sample that generated ones do not have, in words."""
        found = []
        if self._spins:
            found.append(
                f"spins that are no helicities ({_names(self._spins)}) are not learned; generated "
                "particles have spin 9, unknown"
            )
        return found

    def process(
        self,
        beam_energy: tuple[float, float],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Process:
        """The process of the events seen so far.

        Parameters
        ----------
        beam_energy : (float, float)
            In GeV; zero where the file does not say, then the largest energy seen counts.
        progress : callable
            Called with how many of the rules for scale and couplings are found, and their number.
        """
        if not self._seen:
            raise SampleError("no events", remedy="check how the sample was made")
        self._leave_out()
        beams = Beams.seen(self._energy_low, self._energy_high, beam_energy)
        one_fixed = any(beams.energies) and not beams.both_fixed
        acceptance = self._cuts.acceptance(self._stated, light_cone=one_fixed)
        learner = ChartLearner(
            self._seen, self._cuts, self._stated, acceptance, beams, self._named
        )
        limit = tuple(
            e * (1 + 1e-6) if e is not None else largest
            for e, largest in zip(beams.energies, beams.largest, strict=True)
        )
        total_weight = sum(s.weight for s in self._seen.values())
        groups: dict[str, list[Structure]] = {}
        layouts: dict[str, tuple[Chart, tuple[str, ...]]] = {}
        orders: dict[Structure, tuple[int, ...]] = {}
        for structure in sorted(self._seen):
            chart, classes, order = learner.chart(structure)
            key = repr(chart.to_config())
            groups.setdefault(key, []).append(structure)
            layouts[key], orders[structure] = (chart, classes), order
        channels: list[Channel] = []
        subprocesses: list[Subprocess] = []
        charts = {key: chart for key, (chart, _) in layouts.items()}
        rules_of = self._auxiliaries(groups, orders, charts, progress)
        for key, structures in groups.items():
            chart, classes = layouts[key]
            rules = rules_of[key]
            for structure in structures:
                seen = self._seen[structure]
                found = np.stack([np.frombuffer(k, dtype=np.int32) for k in seen.patterns])
                frequency = np.array(list(seen.patterns.values()))
                tidy = np.lexsort(found.T[::-1])
                masses = [fixed_or_interval(seen, r) for r in structure.incoming] or [0.0, 0.0]
                subprocesses.append(
                    Subprocess(
                        structure,
                        seen.weight / total_weight,
                        len(channels),
                        orders[structure],
                        tuple(m if isinstance(m, float) else 0.0 for m in masses),  # type: ignore[arg-type]
                        found[tidy],
                        frequency[tidy] / frequency.sum(),
                    )
                )
            channels.append(Channel(chart, rules, classes))
        return Process(
            subprocesses, channels, acceptance, (limit[0], limit[1]), self._lifetimes.lifetimes()
        )

    def _auxiliaries(
        self,
        groups: dict[str, list[Structure]],
        orders: dict[Structure, tuple[int, ...]],
        charts: dict[str, Chart],
        progress: Callable[[int, int], None],
    ) -> dict[str, Auxiliaries]:
        """Rules of every channel, learned together for those that make the same particles.

        What a particle decays to does not matter for scale and couplings, so that channels
        with few events have the rules of others. What holds for those with most events is tried
        first for the others.
        """
        kept = {key: self._kept(structures, orders) for key, structures in groups.items()}
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
        for names in ranked:
            k, known = together[names], hints[len(names)]
            if "scale" in k:
                scales[names] = learn_scale(
                    torch.from_numpy(k["incoming"]), torch.from_numpy(k["made"]), k["scale"],
                    k["process_id"], hints=list(known)[:_MOST_HINTS],
                )  # fmt: skip
                known |= dict.fromkeys(means_of(scales[names]))
            done += 1
            progress(done, total)
        tables = {name: self._tables(name, together, scales) for name in AUXILIARY[1:]}
        unknown = {
            "options": [{"kind": "constant", "value": -1.0}],
            "reference": ["constant", 1.0],
            "free": False,
        }
        rules = {}
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
                        _exchanged(rule["scale"]), list(known)[:_MOST_HINTS],
                    )  # fmt: skip
                    known |= dict.fromkeys(means_of(rule[name]))
                done += 1
                progress(done, total)
            for key in pools[names]:
                own = kept[key]
                incoming, made = (torch.from_numpy(own[n]) for n in ("incoming", "made"))
                values = {n: own[n] for n in AUXILIARY if n in own}
                rules[key] = Auxiliaries(rule).occurring(incoming, made, values)
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
        names = [n for n in ("process_id", "incoming", "made", *AUXILIARY) if n in kept[0]]
        joined = {n: np.concatenate([k[n] for k in kept]) for n in names}
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


def _exchanged(rule: dict[str, Any]) -> list[float]:
    """Masses of exchanged particles in the formulas of a rule."""
    return exchanged_masses(o["formula"] for o in rule["options"] if o["kind"] == "formula")


def _names(ids: set[int]) -> str:
    """Particles that a warning is about, by name."""
    some = sorted(ids)
    return ", ".join(map(particle_name, some[:_NAMED])) + (", ..." if len(some) > _NAMED else "")


def _reaction(structure: Structure) -> str:
    """Flavours of a subprocess, for people."""
    incoming, final = (
        " ".join(str(structure.pdg_id[r]) for r in rows)
        for rows in (structure.incoming, structure.final)
    )
    return f"{incoming} -> {final}" if incoming else final
