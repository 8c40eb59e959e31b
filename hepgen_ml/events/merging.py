"""Combining runs: several files as one sample with the right relative cross sections."""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hepgen_ml.errors import SampleError
from hepgen_ml.events.conditions import slha_entries
from hepgen_ml.events.objects import JET
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun

log = logging.getLogger(__name__)

PEEK = 1000
"""Number of first events from which final states and the size of weights are estimated."""

_FEWEST = 100  # events of which final states say whether they are of one process
_NAMED = 8  # files that a message names
_SAME = 1e-6  # relative difference of parameters up to which these are the same


@dataclass(frozen=True)
class Merged:
    """Several runs seen as one.

    Attributes
    ----------
    run : RunInfo
        Run information of all; processes that share a number without being the same are renumbered.
    group : tuple of int
        Which files are runs of the same processes: group number of each file.
    group_cross_section : tuple of float
        In pb, one per group.
    shift : tuple of int
        To be added to the process numbers of each file.
    weights_like : tuple of int
        Number of the file whose mean weight each file gets; its own if these agree.
    """

    run: RunInfo
    group: tuple[int, ...]
    group_cross_section: tuple[float, ...]
    shift: tuple[int, ...]
    weights_like: tuple[int, ...]


@dataclass(frozen=True)
class FirstEvents:
    """Properties of a file, estimated from its first events.

    Attributes
    ----------
    n_events : dict of int to int
        By process number.
    species : dict of (int, int) to int
        Number of events of a process with a final particle of a PDG id. Light quarks, gluons,
        jets, hadrons and photons are left out: any process may have them.
    weight, weight_error : float
        Mean absolute weight.
    """

    n_events: Counter[int] = field(default_factory=Counter)
    species: Counter[tuple[int, int]] = field(default_factory=Counter)
    weight: float = 0.0
    weight_error: float = 0.0

    @classmethod
    def of(cls, sample: EventSample) -> FirstEvents:
        """Properties of the events of a sample that is not empty."""
        n = len(sample)
        process = sample.events.get("process_id", np.zeros(n, dtype=np.int32))
        ids = sample.particles.get("pdg_id", np.zeros(int(sample.offsets[-1]), dtype=np.int32))
        size = np.abs(ids)
        # numbers of supersymmetric and other new particles are beyond those of hadrons
        telling = (size > 5) & ~np.isin(size, (21, 22, JET)) & ((size < 100) | (size > 1_000_000))
        if not sample.is_reconstructed:
            telling &= sample.status == 1
        seen = set(zip(sample.event_index[telling].tolist(), ids[telling].tolist(), strict=True))
        weight = np.abs(sample.weight)
        return cls(
            Counter(process.tolist()),
            Counter((int(process[event]), pdg_id) for event, pdg_id in seen),
            float(weight.mean()),
            float(weight.std() / np.sqrt(n)),
        )

    def has_final_states_of(self, other: FirstEvents) -> bool:
        """Whether species are equally frequent within 50 %, or the events are too few to tell.

        Only processes in both files count, because files may be sorted.
        """
        n, shared, all_ = 0, 0.0, 0.0
        for process in self.n_events.keys() & other.n_events.keys():
            n_self, n_other = self.n_events[process], other.n_events[process]
            n_least = min(n_self, n_other)
            n += n_least
            for key in {k for k in self.species | other.species if k[0] == process}:
                fractions = self.species[key] / n_self, other.species[key] / n_other
                shared += n_least * min(fractions)
                all_ += n_least * max(fractions)
        return n < _FEWEST or shared >= 0.5 * all_

    def has_weights_of(self, other: FirstEvents) -> bool:
        """Whether mean weights agree up to statistical fluctuations."""
        margin = 5 * np.hypot(self.weight_error, other.weight_error) + 0.1 * other.weight
        return bool(abs(self.weight - other.weight) <= margin)


def merge_runs(
    runs: Sequence[RunInfo],
    paths: Sequence[Path | None],
    peek: Callable[[int], FirstEvents] = lambda _: FirstEvents(),
    points: Sequence[object] = (),
) -> Merged:
    """Decide how runs belong together.

    Runs with the same process numbers, compatible cross sections and the same final
    states are repetitions of one another: their events are pooled, their cross sections
    averaged (`average`). Other runs are different processes: their cross sections add.

    Parameters
    ----------
    runs : sequence of RunInfo
    paths : sequence of Path
    peek : callable
        Returns the first events of a file by its number; called if several files may be
        repetitions.
    points : sequence, optional
        Point of a scan that each run is of. Runs of different points are no repetitions, and
        processes keep their numbers; the whole has the mean of the cross sections of all points.

    Raises
    ------
    SampleError
        Runs with different beams.
    """
    first = runs[0]
    for run, path in zip(runs, paths, strict=True):
        same = run.beam_pdg_id == first.beam_pdg_id and np.allclose(
            run.beam_energy, first.beam_energy, rtol=1e-6
        )
        if not same:
            raise SampleError(
                f"beams {run.beam_pdg_id} at {run.beam_energy} GeV, but {first.beam_pdg_id} at "
                f"{first.beam_energy} GeV in {paths[0]}",
                path=path,
                remedy="train on files with the same beams",
            )
    _warn_of_parameters(runs, paths, points)
    look = functools.cache(peek)
    groups = _grouped(runs, paths, look, points)
    weights_like = list(range(len(runs)))
    for group in groups:
        if len(group) == 1:
            continue
        names = [str(paths[i]) for i in group[:_NAMED]] + ["..."] * (len(group) > _NAMED)
        log.info(
            "%d files are taken as repetitions of one run, their cross sections averaged: %s",
            len(group), ", ".join(names),
        )  # fmt: skip
        # keep weights whose mean is a cross section
        model = next((i for i in group if abs(runs[i].weight_strategy) == 4), group[0])
        for i in group:
            if not look(i).has_weights_of(look(model)):
                weights_like[i] = model
    used_at: dict[object, set[int]] = {}
    processes_at: dict[object, list[Subrun]] = {}
    sigma: list[float] = []
    shifts = [0] * len(runs)
    for group in groups:
        point = points[group[0]] if points else None
        used, processes = used_at.setdefault(point, set()), processes_at.setdefault(point, [])
        ids = {p.process_id for p in runs[group[0]].processes}
        shift = 0 if not ids & used else max(used) + 1 - min(ids)
        used |= {i + shift for i in ids}
        for i in group:
            shifts[i] = shift
        averaged = average([runs[i] for i in group])
        sigma.append(sum(p.cross_section for p in averaged) if averaged else np.nan)
        processes += [replace(p, process_id=p.process_id + shift) for p in averaged]
    number = {i: g for g, group in enumerate(groups) for i in group}
    return Merged(
        first.with_(
            processes=_mean(list(processes_at.values())),
            weight_strategy=runs[weights_like[0]].weight_strategy,
            weight_cross_sections=_common([run.weight_cross_sections for run in runs]),
            shard=first.shard if len(runs) == 1 else None,
        ),
        tuple(number[i] for i in range(len(runs))),
        tuple(map(float, sigma)),
        tuple(shifts),
        tuple(weights_like),
    )


def _warn_of_parameters(
    runs: Sequence[RunInfo], paths: Sequence[Path | None], points: Sequence[object]
) -> None:
    """Name a parameter of the model in which files differ, other than points of a scan."""
    firsts: dict[object, tuple[int, dict[str, float]]] = {}
    same: set[tuple[object, str]] = set()
    for i, run in enumerate(runs):
        point = points[i] if points else None
        if (point, run.header) in same:
            continue
        same.add((point, run.header))
        entries = slha_entries(run.header)
        first, others = firsts.setdefault(point, (i, entries))
        for name, b in entries.items():
            a = others.get(name, b)
            if a == b or abs(a - b) <= _SAME * max(abs(a), abs(b)):
                continue
            log.warning(
                "the parameter %s is %.9g in %s and %.9g in %s: the header of all together is that "
                "of the former (train with --condition %s to tell their events apart)",
                name, a, paths[first], b, paths[i], name,
            )  # fmt: skip
            return


def _grouped(
    runs: Sequence[RunInfo],
    paths: Sequence[Path | None],
    look: Callable[[int], FirstEvents],
    points: Sequence[object],
) -> list[list[int]]:
    """Numbers of the runs that are repetitions of one another."""
    groups: list[list[int]] = []
    for i, run in enumerate(runs):
        for group in groups:
            if points and points[i] != points[group[0]]:
                continue
            if not _same_numbers(run, runs[group[0]]):
                continue
            if look(i).has_final_states_of(look(group[0])):
                group.append(i)
                break
            log.warning(
                "%s and %s have the same process numbers and cross sections but different final "
                "states: their cross sections add", paths[group[0]], paths[i],
            )  # fmt: skip
        else:
            groups.append([i])
    return groups


def _mean(points: Sequence[Sequence[Subrun]]) -> tuple[Subrun, ...]:
    """Processes of all points of a scan, with the means of their cross sections."""
    if len(points) == 1:
        return tuple(points[0])
    found: dict[int, list[Subrun]] = {}
    for processes in points:
        for p in processes:
            found.setdefault(p.process_id, []).append(p)
    n = len(points)
    return tuple(
        replace(
            same[0],
            cross_section=float(sum(p.cross_section for p in same) / n),
            error=float(np.sqrt(sum(p.error**2 for p in same)) / n),
            max_weight=max(p.max_weight for p in same),
        )
        for same in found.values()
    )


def average(runs: Sequence[RunInfo]) -> tuple[Subrun, ...]:
    """Processes of several runs of the same ones, with the average of their cross sections.

    Runs whose cross sections and errors agree to all digits are jobs of one integration
    (gridpacks, or shards of one model): they add events but no information about the cross section,
    and count once. Independent integrations are averaged with weights 1/error^2, which is the mean
    by numbers of events where errors come from these; errors are enlarged by sqrt(chi^2/(N - 1))
    where the runs scatter by more than their errors, as the Particle Data Group does. Where an
    error is not known, all count the same and that of the mean is not known.

    Parameters
    ----------
    runs : sequence of RunInfo
        With the same process numbers.
    """
    integrations = list({_integration(run): run for run in runs}.values())
    averaged = []
    for k, process in enumerate(integrations[0].processes):
        members = [run.processes[k] for run in integrations]
        value = np.array([m.cross_section for m in members])
        error = np.array([m.error for m in members])
        largest = max(run.processes[k].max_weight for run in runs)
        if len(members) == 1:
            mean, of_mean = value[0], error[0]
        elif np.all(error > 0):
            weight = 1 / error**2
            mean = np.average(value, weights=weight)
            chi2 = float((((value - mean) / error) ** 2).sum())
            of_mean = np.sqrt(max(1.0, chi2 / (len(members) - 1)) / weight.sum())
        else:
            mean, of_mean = value.mean(), np.nan
        averaged.append(
            replace(process, cross_section=float(mean), error=float(of_mean), max_weight=largest)
        )
    return tuple(averaged)


def _integration(run: RunInfo) -> tuple[tuple[int, str, str], ...]:
    """Key that identifies one integration: its cross sections and errors, with nan equal to nan."""
    return tuple((p.process_id, repr(p.cross_section), repr(p.error)) for p in run.processes)


def _common(
    stated: Sequence[Mapping[str, tuple[float, float]]],
) -> Mapping[str, tuple[float, float]]:
    """Cross sections of named weights where all files agree about them."""
    texts = {repr(sorted(s.items())) for s in stated}
    return stated[0] if len(texts) == 1 else {}


def _same_numbers(a: RunInfo, b: RunInfo) -> bool:
    # numbers of Python, as this is asked of all pairs of many files
    if [p.process_id for p in a.processes] != [q.process_id for q in b.processes]:
        return False
    for p, q in zip(a.processes, b.processes, strict=True):
        errors = (0.0 if math.isnan(x.error) else x.error for x in (p, q))
        margin = 5 * math.hypot(*errors) + 0.01 * abs(q.cross_section)
        known = [math.isfinite(x.cross_section) for x in (p, q)]
        if any(known) and (not all(known) or abs(p.cross_section - q.cross_section) > margin):
            return False
    return True
