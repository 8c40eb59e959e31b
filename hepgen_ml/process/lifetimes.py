"""Lifetimes of particles: the distance c tau in mm that each event record states (VTIMUP).

The lifetime of an unstable particle follows an exponential distribution in its own rest frame,
independent of its momentum, so that one number describes a species. If the lifetimes of a sample
follow another distribution (a fixed one, or one cut off by a detector's size), its quantiles are
kept. Where the mean follows conditions of the user, such as the mass of a scan, it is a function of
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space.laws import Law
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.following import mean_follows
from hepgen_ml.process.lifetime_patterns import Drawn, PatternTable
from hepgen_ml.process.pattern_learner import PatternLearner
from hepgen_ml.process.structure import Structure

FloatArray = npt.NDArray[np.float64]

_KEPT = 20_000
"""Minimum number of lifetimes of a species to find their distribution."""

_MOST = 1000
"""Largest number of species."""

_KNOTS = 201
"""Quantiles of a distribution that is not exponential."""

_FEWEST, _APART, _ALIKE = 20, 6.0, 1e-3
"""Number of particles from which a process has lifetimes of its own, if their mean or their prompt
part is so many standard deviations from that of all processes and the mean relatively so far."""

_CLEAR = 1.6
"""Kolmogorov-Smirnov distance times the square root of the number above which the distribution is
not exponential; 1.1 is exceeded by chance in 5 % of samples, 1.6 in less than one of 10,000."""


@dataclass(frozen=True)
class Lifetime:
    """Distribution of the lifetimes of a species.

    Attributes
    ----------
    pdg_id : int
        Of particle and antiparticle, without sign.
    status : int
        1 for final particles, 2 for resonances; a generator may state lifetimes of one kind only.
    prompt : float
        Fraction of particles with lifetime zero.
    mean : float
        Of the others, c tau in mm.
    quantiles : tuple of float
        Of the others at equal steps from 0 to 1, in mm; empty if they follow an exponential.
    law : Law, optional
        Mean as a function of the user's conditions; quantiles are then those over this mean, times
        `mean`.
    process : int, optional
        Number of the process (LPRUP) whose particles have it; by default those of all.
    """

    pdg_id: int
    status: int
    prompt: float
    mean: float
    quantiles: tuple[float, ...] = ()
    law: Law | None = None
    process: int | None = None

    def draw(
        self,
        n: int,
        rng: np.random.Generator,
        values: FloatArray | None = None,
        state: npt.NDArray[np.int8] | None = None,
    ) -> FloatArray:
        """Lifetimes (n,) in mm, at conditions (n, K) where the mean follows these.

        Which of them are zero follows from the state of each particle in its event, if it has one,
        see `hepgen_ml.process.lifetime_patterns.Drawn`.
        """
        prompt, u = rng.random(n) < self.prompt, rng.random(n)
        if state is not None:
            prompt = np.where(state < 0, prompt, state == 0)
        if self.quantiles:
            lifetimes = np.interp(u, np.linspace(0, 1, len(self.quantiles)), self.quantiles)
        else:
            lifetimes = -self.mean * np.log1p(-u)
        if self.law is not None:
            if values is None:
                raise ValueError("this lifetime follows conditions, and there are none")
            lifetimes = lifetimes * self.law(torch.from_numpy(values)).numpy() / self.mean
        return np.where(prompt, 0.0, lifetimes)

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "pdg_id": self.pdg_id, "status": self.status, "prompt": self.prompt, "mean": self.mean,
            "quantiles": list(self.quantiles),
            **({} if self.law is None else {"law": self.law.to_config()}),
            **({} if self.process is None else {"process": self.process}),
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Lifetime:
        """Inverse of `to_config`."""
        return cls(
            int(config["pdg_id"]), int(config["status"]), float(config["prompt"]),
            float(config["mean"]), tuple(float(v) for v in config.get("quantiles", ())),
            Law.from_config(config["law"]) if config.get("law") else None,
            config.get("process"),
        )  # fmt: skip


@dataclass
class _Seen:
    """Memory of the lifetimes of a species."""

    n: int = 0
    n_positive: int = 0
    total: float = 0.0
    n_kept: int = 0
    # Parts of the arrays of priorities, lifetimes and conditions, joined when they are needed.
    priority: list[FloatArray] = field(default_factory=list)
    kept: list[FloatArray] = field(default_factory=list)
    given: list[npt.NDArray[np.str_]] = field(default_factory=list)

    def join(self, chosen: npt.NDArray[np.int64] | slice = slice(None)) -> None:
        """Make each list one array, of the values at some places of it."""
        for parts in (self.priority, self.kept):
            parts[:] = [np.concatenate([np.zeros(0), *parts])[chosen]]
        if self.given:
            self.given = [np.concatenate(self.given)[chosen]]
        self.n_kept = len(self.kept[0])

    @classmethod
    def of_all(cls, parts: Sequence[_Seen]) -> _Seen:
        """Several as one, of lifetimes that are kept in the same proportion."""
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            part.join()
        share = min(part.n_kept / part.n_positive for part in parts if part.n_positive) if any(
            part.n_positive for part in parts) else 1.0  # fmt: skip
        found = cls(sum(p.n for p in parts), sum(p.n_positive for p in parts),
                    sum(p.total for p in parts))  # fmt: skip
        for part in parts:
            first = np.argsort(part.priority[0])[: round(share * part.n_positive)]
            found.priority.append(part.priority[0][first])
            found.kept.append(part.kept[0][first])
            found.given += [given[first] for given in part.given]
        return found

    def differs(self, whole: _Seen) -> bool:
        """Whether these lifetimes are clearly others than all of a species."""
        prompt, all_prompt = (1 - s.n_positive / s.n for s in (self, whole))
        error = math.sqrt(max(all_prompt * (1 - all_prompt), 1 / whole.n) / self.n)
        if self.n < _FEWEST or abs(prompt - all_prompt) > _APART * error:
            return self.n >= _FEWEST
        if self.n_positive < _FEWEST:
            return False
        self.join()
        own, mean = self.total / self.n_positive, whole.total / whole.n_positive
        spread = max(float(self.kept[0].std()), 1e-9 * mean) / math.sqrt(self.n_positive)
        return abs(own - mean) > _APART * spread and abs(own / mean - 1) > _ALIKE


class LifetimeLearner:
    """Collects the lifetimes of all species, in bounded memory.

    Parameters
    ----------
    seed : int
        Of the random choice of those that are kept.
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._seen: dict[tuple[int, int], dict[int, _Seen]] = {}
        self._patterns = PatternLearner()

    def add(
        self,
        structures: Sequence[Structure],
        first: npt.NDArray[np.int64],
        lifetime: FloatArray,
        given: npt.NDArray[np.str_] | None = None,
    ) -> None:
        """Take in the lifetimes (m, n) of events of structures, with conditions (m, K).

        Events of one structure come after another; `first` (k + 1,) says where those of each begin,
        and their number.
        """
        for structure, (begin, end) in zip(structures, pairwise(first.tolist()), strict=True):
            self._patterns.add(structure, lifetime[begin:end])
        sizes = np.diff(first)
        species, number = _species(structures)
        counted = np.broadcast_to(sizes[:, None], number.shape)[number >= 0]
        n_species = np.bincount(number[number >= 0], counted, len(species))
        good: npt.NDArray[np.bool_] = np.isfinite(lifetime) & (lifetime > 0)
        of_event = np.repeat(np.arange(len(sizes)), sizes)
        good &= (number >= 0)[of_event]
        # structure by structure, row by row
        event, row = np.nonzero(good)
        order = np.lexsort((event, row, of_event[event]))
        event, row = event[order], row[order]
        priority = self._rng.random(len(event))
        begins = np.ones(len(event), dtype=bool)
        begins[1:] = (np.diff(of_event[event]) != 0) | (np.diff(row) != 0)
        own = number[of_event[event], row]
        for k, (pdg_id, status, process) in enumerate(species):
            seen = self._seen.setdefault((pdg_id, status), {}).setdefault(process, _Seen())
            seen.n += int(n_species[k])
            mine = np.flatnonzero(own == k)
            if len(mine):
                self._keep(
                    seen, lifetime[event[mine], row[mine]], priority[mine],
                    np.append(np.flatnonzero(begins[mine]), len(mine)),
                    None if given is None else given[event[mine]],
                )  # fmt: skip

    def _keep(
        self,
        seen: _Seen,
        values: FloatArray,
        priority: FloatArray,
        first: npt.NDArray[np.int64],
        given: npt.NDArray[np.str_] | None,
    ) -> None:
        """Random subset of bounded size (smallest priorities).

        It is cut to this size after the events of a structure, whose values begin at `first`.
        """
        seen.total = float(np.cumsum([seen.total, *_sums(values, first)])[-1])
        seen.n_positive += len(values)
        start = 0
        while start < len(values):
            full = np.flatnonzero(seen.n_kept + first - start > 2 * _KEPT)
            stop = int(first[full[0]]) if len(full) else len(values)
            if given is not None:
                seen.given.append(given[start:stop])
            seen.n_kept += stop - start
            seen.priority.append(priority[start:stop])
            seen.kept.append(values[start:stop])
            if seen.n_kept > 2 * _KEPT:
                seen.join(np.argpartition(np.concatenate(seen.priority), _KEPT)[:_KEPT])
            start = stop

    def lifetimes(self, conditions: Conditions | None = None) -> tuple[Lifetime, ...]:
        """Lifetimes of all species with lifetimes; their means may follow conditions.

        Processes whose lifetimes differ, as in samples of several hypotheses, have their own.
        """
        found = []
        for (pdg_id, status), processes in sorted(self._seen.items()):
            whole = _Seen.of_all(list(processes.values()))
            if not 0 < whole.total < math.inf:
                continue
            parts: dict[int | None, _Seen] = {None: whole}
            # rather the same for all processes than none for some species
            few = len(self._seen) * len(processes) <= _MOST
            several = conditions is None and len(processes) > 1 and few
            if several and any(seen.differs(whole) for seen in processes.values()):
                parts = {p: s if s.n >= _FEWEST else whole for p, s in sorted(processes.items())}
            found += [
                replace(_lifetime(pdg_id, status, seen, conditions), process=process)
                for process, seen in parts.items() if seen.total > 0
            ]  # fmt: skip
        return tuple(found[:_MOST])

    def patterns(
        self, structures: Sequence[Structure], lifetimes: Sequence[Lifetime]
    ) -> tuple[PatternTable, ...]:
        """Lifetimes that the particles of an event of some subprocesses have together or not."""
        processes = {s.process_id for s in structures}
        chances = {}
        for v in lifetimes:
            for process in processes if v.process is None else (v.process,):
                chances[(v.pdg_id, v.status), process] = 1 - v.prompt
        return self._patterns.tables(structures, chances)


def _species(
    structures: Sequence[Structure],
) -> tuple[list[tuple[int, int, int]], npt.NDArray[np.int64]]:
    """Species with status and process in the order of their rows, and those of all rows (k, n).

    Incoming particles have none, -1.
    """
    known: dict[tuple[int, int, int], int] = {}
    rows = [
        [-1 if status == -1 else known.setdefault((abs(i), status, s.process_id), len(known))
         for i, status in zip(s.pdg_id, s.status, strict=True)]
        for s in structures
    ]  # fmt: skip
    return list(known), np.array(rows)


def _sums(values: FloatArray, first: npt.NDArray[np.int64]) -> list[float]:
    """Sums of values of groups that begin at `first`, which ends with the number of values."""
    if len(first) == len(values) + 1:
        return list(values)
    return [float(values[a:b].sum()) for a, b in pairwise(first.tolist())]


def _lifetime(pdg_id: int, status: int, seen: _Seen, conditions: Conditions | None) -> Lifetime:
    mean = seen.total / seen.n_positive
    seen.join()
    (kept,), law = seen.kept, None
    if conditions is not None and seen.given:
        values = conditions.numbers(seen.given[0])
        law = mean_follows(kept, values, conditions)
        if law is not None:
            kept = kept / law(torch.from_numpy(values)).numpy()
            kept *= mean / kept.mean()
    quantiles: tuple[float, ...] = ()
    if not _is_exponential(kept, mean):
        steps = np.linspace(0, 1, _KNOTS)
        quantiles = tuple(float(v) for v in np.quantile(kept, steps))
    return Lifetime(pdg_id, status, 1 - seen.n_positive / seen.n, mean, quantiles, law)


def draw_lifetimes(
    lifetimes: Sequence[Lifetime],
    events: EventSample,
    rng: np.random.Generator,
    values: FloatArray | None = None,
    drawn: Drawn | None = None,
) -> None:
    """Put lifetimes into events, species by species, at the conditions (events, K) of these.

    Which particles have one is drawn for each alone, or with the others of its event before.
    """
    column = events.particles["lifetime"] if lifetimes else np.zeros(0)
    for lifetime in lifetimes:
        rows = (np.abs(events.pdg_id) == lifetime.pdg_id) & (events.status == lifetime.status)
        if lifetime.process is not None:
            rows &= events.process_id[events.event_index] == lifetime.process
        own = values[events.event_index[rows]] if values is not None and lifetime.law else None
        state = None if drawn is None else drawn.state[rows]
        column[rows] = lifetime.draw(int(rows.sum()), rng, own, state)
    if drawn is not None:
        column[:] = column[drawn.source]


def _is_exponential(values: FloatArray, mean: float) -> bool:
    """Whether values may follow an exponential distribution of this mean."""
    n = len(values)
    expected = -np.expm1(-np.sort(values) / mean)
    steps = np.arange(n + 1) / n
    distance = max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())
    return bool(distance * math.sqrt(n) < _CLEAR)
