"""Learning a `Process` from a stream of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.helicities import helicity_codes
from hepgen_ml.events.objects import NamedResonance
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample
from hepgen_ml.events.summary import particle_name
from hepgen_ml.files.garbage import uncollected
from hepgen_ml.phase_space import Chart, Cut
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import Acceptance
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.phase_space.made import Made
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.channel_rules import ChannelRules
from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.chart_choice import ChartLearner
from hepgen_ml.process.condition_learner import ConditionLearner
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.gathered import Gathered
from hepgen_ml.process.lifetimes import LifetimeLearner
from hepgen_ml.process.moving_cuts import Found, moving_cuts
from hepgen_ml.process.origins import Origins, origins_for
from hepgen_ml.process.patterns import sums_of_patterns
from hepgen_ml.process.process import Process
from hepgen_ml.process.seen import BeamEnergies, Beams, Seen, fixed_or_interval, keep_light_masses
from hepgen_ml.process.spectra import Part
from hepgen_ml.process.structure import Batch, Structure, batches

log = logging.getLogger(__name__)

_NAMED = 8
"""Subprocesses that a warning names."""


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
    conditions : sequence of Wanted
        Conditions of the events, which are attributes of theirs.
    """

    def __init__(
        self,
        seed: int = 0,
        cuts: Sequence[Cut] = (),
        resonances: Sequence[NamedResonance] = (),
        *,
        find_cuts: bool = True,
        conditions: Sequence[Wanted] = (),
    ) -> None:
        self._conditions = ConditionLearner(conditions, seed)
        self._stated, self._named = tuple(cuts), tuple(resonances)
        self._rng = np.random.default_rng(seed)
        self._seen: dict[Structure, Seen] = {}
        self._cuts, self._find_cuts = CutFinder(find_cuts), find_cuts
        self._origins = Origins()
        self._labelled: dict[tuple[Structure, tuple[str, ...]], tuple[list[str], Any]] = {}
        self._energies = BeamEnergies()
        self._nominal = np.zeros(2)
        self._lifetimes = LifetimeLearner(seed)
        self._spins: set[int] = set()
        self._moving = Found()
        self.n_events = 0

    @uncollected()
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
        given = self._conditions.add(sample)
        self._nominal = np.maximum(self._nominal, sample.run.beam_energy)
        found: list[tuple[Structure, FinalStates]] = []
        for batch in batches(sample, discrete=True):
            if not sample.is_reconstructed:
                self._check(batch)
            found += self._add(batch, sample, given)
        self._origins.add(structure for structure, _ in found)
        self._cuts.add_all([self._with_origins(*one) for one in found])
        self._note_what_is_not_learned(sample)
        self.n_events += len(sample)

    def _check(self, batch: Batch) -> None:
        """Refuse events that are not collisions of two partons."""
        for structure, first in zip(batch.structures, batch.first, strict=False):
            if len(structure.incoming) == 2 and structure.final:
                continue
            n_incoming, n_final = len(structure.incoming), len(structure.final)
            decay = "decays of one particle are not supported; " if n_incoming == 1 else ""
            raise SampleError(
                f"{n_incoming} incoming and {n_final} final particles",
                event=int(batch.events[first]) + 1 + self.n_events,
                remedy=f"{decay}training needs two incoming partons (status -1) and a final "
                "state; to train on the objects of showered events, choose them with --objects",
            )

    def _add(
        self, batch: Batch, sample: EventSample, given: npt.NDArray[np.str_]
    ) -> list[tuple[Structure, FinalStates]]:
        """Take in events of one length; there may be very many structures with few events each."""
        found = []
        own = Gathered(batch, sample, self._nominal)
        events = {k: sample.events[k][batch.events] for k in AUXILIARY if k in sample.events}
        if given.shape[1]:
            events["conditions"] = given[batch.events]
        priority = self._rng.random(len(batch.events))
        for k, structure in enumerate(batch.structures):
            rows = own.rows(k)
            seen = self._seen.get(structure)
            if seen is None:
                seen = self._seen[structure] = Seen(own.mass_low[k].copy(), own.mass_high[k].copy())
            else:
                seen.mass_low = np.minimum(seen.mass_low, own.mass_low[k])
                seen.mass_high = np.maximum(seen.mass_high, own.mass_high[k])
            weight = own.weight[rows]
            seen.weight += float(weight.sum())
            for key, w in sums_of_patterns(own.patterns[rows], weight).items():
                seen.patterns[key] = seen.patterns.get(key, 0.0) + w
            if structure.incoming:
                self._energies.add(structure.beams, own.low[k], own.high[k], len(weight))
                seen.at_full.move_to(self._nominal)
                if own.is_below[k]:
                    seen.at_full.add_below(weight.tolist())
                else:
                    seen.at_full.add(own.energy[rows], weight)
            final = own.momenta(structure.final)[rows]
            incoming = own.momenta(structure.incoming)[rows]
            kept = {"final": final, "incoming": incoming, **{n: v[rows] for n, v in events.items()}}
            seen.keep(priority[rows], kept)
            state = FinalStates(
                torch.from_numpy(final), own.classes(k, structure), bool(structure.incoming),
                structure.pairs_of_decays, structure.products,
            )  # fmt: skip
            found.append((structure, state))
        if "lifetime" in batch.columns:
            conditions = events.get("conditions")
            lifetime = batch.columns["lifetime"]
            self._lifetimes.add(batch.structures, batch.first, lifetime, conditions)
        return found

    def _with_origins(self, structure: Structure, state: FinalStates) -> FinalStates:
        """A final state with classes that tell which particles decays make."""
        key = structure, tuple(state.labels)
        if key not in self._labelled:
            labels = self._origins.labels(structure, state.labels)
            made = self._origins.made(structure, labels) if structure.incoming else ()
            self._labelled[key] = labels, made
        labels, made = self._labelled[key]
        return state._replace(labels=labels, made=made)

    def _leave_out(self) -> None:
        """Remove subprocesses and patterns whose sum of weights is not positive."""
        total = sum(s.weight for s in self._seen.values())
        if not total > 0:
            raise SampleError(
                f"the weights of its events add up to {total:g}",
                remedy="a density needs a positive cross section; take more events, or the "
                "opposite sign of all weights for an interference term that is negative",
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
        # Negative fluctuations compensate positive ones: the total rate of each multiplicity is
        # kept.
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

    def _note_what_is_not_learned(self, sample: EventSample) -> None:
        if "spin" in sample.particles:
            spin = sample.particles["spin"]
            lost = (helicity_codes(spin) == UNKNOWN_SPIN) & (spin != UNKNOWN_SPIN)
            self._spins.update(np.unique(np.abs(sample.pdg_id[lost])).tolist())

    @property
    def not_learned(self) -> list[str]:
        """Sentences about properties of particles that generated events lack."""
        found = list(self._moving.others)
        if self._spins:
            found.append(
                f"spins that are not helicities ({_names(self._spins)}) are not learned; generated "
                "particles have spin 9, unknown"
            )
        return found

    @uncollected()
    def process(
        self,
        beam_energy: tuple[float, float],
        progress: Callable[[int, int], None] = lambda done, total: None,
        cross_sections: Mapping[tuple[str, ...], float] | None = None,
    ) -> Process:
        """The process of the events seen so far.

        Parameters
        ----------
        beam_energy : (float, float)
            In GeV; zero if the file does not state it, which stands for the largest energy in the
            sample.
        progress : callable
            Called with how many of the rules for scale and couplings are found, and their number.
        cross_sections : mapping, optional
            In pb, by the values of conditions that are parameters of runs.
        """
        if not self._seen:
            raise SampleError("there are no events", remedy="check how the sample was made")
        self._leave_out()
        keep_light_masses(self._seen)
        conditions = self._conditions.found(cross_sections or {})
        if conditions is not None:
            for seen in self._seen.values():
                seen.kept["conditions"] = conditions.numbers(seen.kept["conditions"])
        beams = {
            structure.beams: self._energies.of(structure.beams, beam_energy)
            for structure in self._seen if structure.incoming
        }  # fmt: skip
        acceptance = self._acceptance(beams, conditions)
        learner = ChartLearner(
            self._seen, self._cuts, self._stated, acceptance, beams, self._origins, self._named,
            conditions,
        )  # fmt: skip
        limit = self._limit(beams.values(), beam_energy)
        origins = origins_for(acceptance, self._seen)
        total_weight = sum(s.weight for s in self._seen.values())
        moving = {name for cut in self._moving.cuts for name in cut.classes}
        groups: dict[str, list[Part]] = {}
        layouts: dict[str, tuple[Chart, tuple[str, ...]]] = {}
        orders: dict[str, dict[Structure, tuple[int, ...]]] = {}
        known: dict[tuple[Chart, tuple[str, ...], tuple[Made, ...]], str] = {}
        for structure in sorted(self._seen):
            for part in learner.spectra.parts(structure):
                chart, classes, order = learner.chart(structure, part.at_full)
                decaying = acceptance.concerned(origins.made(structure, classes, order))
                if (chart, classes, decaying) not in known:
                    # particles of equal masses share a chart, but no channel if they have other
                    # cuts
                    moved = [c if c in moving else "" for c in classes]
                    bounds = acceptance.bounds(classes)
                    text = repr((chart.to_config(), bounds, moved, decaying))
                    known[chart, classes, decaying] = text
                key = known[chart, classes, decaying]
                groups.setdefault(key, []).append(part)
                layouts[key] = chart, classes
                orders.setdefault(key, {})[structure] = order
        channels: list[Channel] = []
        subprocesses: list[Subprocess] = []
        charts = {key: chart for key, (chart, _) in layouts.items()}
        structures = {key: [part.structure for part in parts] for key, parts in groups.items()}
        rules_of = ChannelRules(self._seen, self._rng).learned(structures, orders, charts, progress)
        for key, parts in groups.items():
            chart, classes = layouts[key]
            rules = rules_of[key]
            for part in parts:
                structure = part.structure
                order = orders[key][structure]
                full = beams[structure.beams].full if any(part.at_full) else (0.0, 0.0)
                subprocesses.append(
                    self._subprocess(part, total_weight, len(channels), order, full)
                )
            channels.append(Channel(chart, rules, classes))
        lifetimes = self._lifetimes.lifetimes(conditions)
        patterns = self._lifetimes.patterns([s.structure for s in subprocesses], lifetimes)
        return Process(
            subprocesses, channels, acceptance, limit, lifetimes, conditions, self._moving.cuts,
            patterns,
        )  # fmt: skip

    def _acceptance(
        self, beams: Mapping[tuple[int, ...], Beams], conditions: Conditions | None
    ) -> Acceptance:
        """The cuts of the sample, those that move with conditions apart."""
        found = self._cuts.acceptance(
            self._stated,
            light_cone=any(b.one_fixed for b in beams.values()),
            energies=bool(beams) and all(b.both_fixed for b in beams.values()),
            slices=bool(beams) and all(map(_of_partons, beams, beams.values())),
            angles=_of_angles(beams),
        )
        self._origins.apart = self._cuts.apart
        if conditions is not None and self._find_cuts:
            stated = {(c.observable, c.classes) for c in self._stated}
            cuts = [c for c in found.cuts if (c.observable, c.classes) not in stated]
            named = [c for c in self._cuts.classes if ("pt", (c,)) not in stated]
            self._moving = moving_cuts(self._seen, cuts, named, conditions, self._origins)
        return found

    def _subprocess(
        self, part: Part, total: float, channel: int, order: tuple[int, ...],
        full: tuple[float, float],
    ) -> Subprocess:  # fmt: skip
        """Subprocess of a channel, with its part of the total weight and its patterns in order."""
        structure, seen = part.structure, self._seen[part.structure]
        found = np.stack([np.frombuffer(k, dtype=np.int32) for k in seen.patterns])
        frequency = np.array(list(seen.patterns.values()))
        tidy = np.lexsort(found.T[::-1])
        masses = [fixed_or_interval(seen, r) for r in structure.incoming] or [0.0, 0.0]
        return Subprocess(
            structure,
            part.share * seen.weight / total,
            channel,
            order,
            tuple(m if isinstance(m, float) else 0.0 for m in masses),  # type: ignore[arg-type]
            found[tidy],
            frequency[tidy] / frequency.sum(),
            tuple(e if has else None for e, has in zip(full, part.at_full, strict=True)),  # type: ignore[arg-type]
        )

    def _limit(self, beams: Iterable[Beams], nominal: tuple[float, float]) -> tuple[float, float]:
        """Largest energies in GeV of incoming particles, those that are fixed with rounding."""
        low, high = self._energies.largest(nominal)
        for b in beams:
            low, high = (
                most if energy is None else max(most, energy * (1 + 1e-6))
                for most, energy in zip((low, high), b.energies, strict=True)
            )
        return low, high


def _of_partons(flavours: tuple[int, ...], beams: Beams) -> bool:
    """Whether both of the colliding particles are partons of a beam, with little of its energy."""
    return beams.energies == (None, None) and not any(_are_leptons([f]) for f in flavours)


def _of_angles(beams: Mapping[tuple[int, ...], Beams]) -> tuple[str, ...]:
    """Observables of two particles that their angle determines, as leptons rarely radiate much."""
    if all(b.both_fixed for b in beams.values()):
        return "pt", "abs_eta"
    return ("abs_eta",) if all(map(_are_leptons, beams)) else ()


def _are_leptons(flavours: Iterable[int]) -> bool:
    return all(10 < abs(f) < 20 for f in flavours)


def _names(ids: set[int]) -> str:
    """Names of the particles in a warning."""
    some = sorted(ids)
    return ", ".join(map(particle_name, some[:_NAMED])) + (", ..." if len(some) > _NAMED else "")


def _reaction(structure: Structure) -> str:
    """Flavours of a subprocess as text."""
    incoming, final = (
        " ".join(str(structure.pdg_id[r]) for r in rows)
        for rows in (structure.incoming, structure.final)
    )
    return f"{incoming} -> {final}" if incoming else final
