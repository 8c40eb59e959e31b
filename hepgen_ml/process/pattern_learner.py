"""Search for the patterns of lifetimes that the events of a sample have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.process.lifetime_patterns import (
    COPIED,
    NONE,
    OWN,
    FloatArray,
    Pattern,
    PatternTable,
    Species,
    copied,
    unstable,
)
from hepgen_ml.process.structure import Structure

_FEWEST, _CLEAR = 20, 4.0
"""Number of events from which patterns are judged by themselves, and standard deviations from which
they are others than those of independent particles or of other events."""

_FEW_ROWS = 32
"""Events of a structure that are counted one by one."""

_MOST_PATTERNS, _MOST_TABLES, _MOST_COMBINED = 1000, 1000, 10
"""Largest numbers of patterns of a table, of tables, and of particles all of whose patterns are
compared with those seen."""


class PatternLearner:
    """Counts the patterns of all structures, in bounded memory."""

    def __init__(self) -> None:
        self._seen: dict[Structure, Counter[Pattern]] = {}
        self._too_many: set[Structure] = set()

    def add(self, structure: Structure, lifetime: FloatArray) -> None:
        """Take in the lifetimes (m, n) of events of one structure."""
        seen = self._seen.setdefault(structure, Counter())
        good = np.isfinite(lifetime) & (lifetime > 0)
        n = len(structure.pdg_id)
        if not good.any():
            seen[(NONE,) * n] += len(lifetime)
            return
        states = good.astype(np.int8)
        for row, original in copied(structure).items():
            states[good[:, row] & (lifetime[:, row] == lifetime[:, original]), row] = COPIED
        for pattern, count in _counted(states):
            if len(seen) < _MOST_PATTERNS or pattern in seen:
                seen[pattern] += count
            else:
                self._too_many.add(structure)

    def tables(
        self, structures: Sequence[Structure], chances: Mapping[tuple[Species, int], float]
    ) -> tuple[PatternTable, ...]:
        """Tables of the subprocesses whose particles are not independent.

        Parameters
        ----------
        structures : sequence of Structure
            Of all subprocesses.
        chances : mapping
            Of a species and the number of a process to the fraction of particles with lifetimes.
        """
        species = frozenset(s for s, _ in chances)
        own = {
            s: _restricted(self._seen[s], rows)
            for s in dict.fromkeys(structures)
            if s in self._seen and s not in self._too_many and (rows := unstable(s, species))
        }
        chosen = _chosen(own, _Pools(own, species), species, chances)
        found: dict[tuple[tuple[Pattern, float], ...], list[int]] = {}
        for number, structure in enumerate(structures):
            if counts := chosen.get(structure):
                key = tuple(sorted((p, float(c)) for p, c in counts.items()))
                found.setdefault(key, []).append(number)
        return tuple(
            PatternTable(tuple(p for p, _ in key), tuple(c for _, c in key), tuple(numbers))
            for key, numbers in list(found.items())[:_MOST_TABLES]
        )


def _counted(states: npt.NDArray[np.int8]) -> Iterable[tuple[Pattern, int]]:
    """Different rows of a table, sorted, with how often each occurs."""
    if len(states) <= _FEW_ROWS:  # there may be very many structures of a few events
        return sorted(Counter(map(tuple, states.tolist())).items())
    rows, counts = np.unique(states, axis=0, return_counts=True)
    return zip(map(tuple, rows.tolist()), counts.tolist(), strict=True)


Counts = Mapping[Pattern, int]


class _Pools:
    """Patterns of structures with the same unstable particles, by process and in all."""

    def __init__(
        self, own: Mapping[Structure, Counts], species: frozenset[Species]
    ) -> None:
        self._key = {s: _kind(s, species) for s in own}
        self._counts: dict[Any, Counter[Pattern]] = {}
        for structure, counts in own.items():
            for key in self._keys(structure):
                self._counts.setdefault(key, Counter()).update(counts)

    def _keys(self, structure: Structure) -> tuple[Any, Any]:
        kind = self._key[structure]
        return (kind, structure.process_id), kind

    def of(self, structure: Structure) -> Counts:
        """Those of its process if there are enough, else those of all."""
        process, whole = (self._counts[key] for key in self._keys(structure))
        return process if sum(process.values()) >= _FEWEST else whole


def _kind(structure: Structure, species: frozenset[Species]) -> Any:
    """The unstable particles, with what each copies and the flavours of their mothers."""
    rows, originals = unstable(structure, species), copied(structure)
    mother = [structure.mother1[r] - 1 for r in rows]
    return tuple(
        (structure.pdg_id[r], structure.status[r],
         rows.index(originals[r]) if originals.get(r) in rows else -1,
         structure.pdg_id[m] if m >= 0 and structure.status[m] != -1 else 0)
        for r, m in zip(rows, mother, strict=True)
    )  # fmt: skip


def _chosen(
    own: Mapping[Structure, Counts],
    pools: _Pools,
    species: frozenset[Species],
    chances: Mapping[tuple[Species, int], float],
) -> dict[Structure, Counts]:
    """Patterns of each structure that has such."""
    found: dict[Structure, Counts] = {}
    judged: dict[tuple[int, tuple[float, ...]], bool] = {}
    few = []
    for structure, counts in own.items():
        pooled = pools.of(structure)
        if sum(counts.values()) >= _FEWEST and _differs(counts, pooled):
            pooled = counts
        if sum(pooled.values()) < _FEWEST:
            few.append((structure, pooled))
            continue
        own_chances = _chances_of(structure, species, chances)
        key = id(pooled), own_chances  # very many structures may have the patterns of one pool
        if key not in judged:
            judged[key] = _dependent(pooled, own_chances)
        if judged[key]:
            found[structure] = pooled
    # Rare events are like the others.
    together = all(_together(p) for counts in own.values() for p in counts)
    if together and (found or _never_mixed(own, species, chances)):
        rates = _rates(own)
        for structure, pooled in few:
            found[structure] = _all_or_none(pooled, *rates[structure.process_id])
    elif found:
        found |= dict(few)
    return found


def _chances_of(
    structure: Structure,
    species: frozenset[Species],
    chances: Mapping[tuple[Species, int], float],
) -> tuple[float, ...]:
    """Chance of each unstable particle of a structure to have a lifetime."""
    kinds = [(abs(structure.pdg_id[r]), structure.status[r]) for r in unstable(structure, species)]
    return tuple(chances.get((kind, structure.process_id), 0.0) for kind in kinds)


def _never_mixed(
    own: Mapping[Structure, Counts],
    species: frozenset[Species],
    chances: Mapping[tuple[Species, int], float],
) -> bool:
    """Whether many events of independent particles would have lifetimes of some of these only.

    There may be very many structures, each with too few events to be judged by itself.
    """
    expected = 0.0
    for structure, counts in own.items():
        p = _chances_of(structure, species, chances)
        expected += sum(counts.values()) * (1 - math.prod(p) - math.prod(1 - v for v in p))
    return expected > _CLEAR**2


def _restricted(counts: Counts, rows: Sequence[int]) -> Counter[Pattern]:
    """Patterns of some particles."""
    some: Counter[Pattern] = Counter()
    for pattern, count in counts.items():
        some[tuple(pattern[r] for r in rows)] += count
    return some


def _together(pattern: Pattern) -> bool:
    return all(pattern) or not any(pattern)


def _rates(own: Mapping[Structure, Counts]) -> dict[int, tuple[int, int]]:
    """Numbers of events with and without lifetimes, by process."""
    rates: dict[int, tuple[int, int]] = {}
    for structure, counts in own.items():
        some, none = rates.get(structure.process_id, (0, 0))
        for pattern, count in counts.items():
            some, none = (some + count, none) if any(pattern) else (some, none + count)
        rates[structure.process_id] = some, none
    return rates


def _all_or_none(counts: Counts, some: int, none: int) -> Counts:
    """All particles with lifetimes or none, as often as in other events."""
    whole = next((p for p in counts if any(p)), None)
    length = len(next(iter(counts)))
    found = {whole or (OWN,) * length: some, (NONE,) * length: none}
    return {p: count for p, count in found.items() if count}


def _differs(counts: Counts, pooled: Counts) -> bool:
    """Whether patterns are clearly others than those of all that are alike (chi-squared)."""
    n, whole = sum(counts.values()), sum(pooled.values())
    if n == whole:
        return False
    chi2, bins, rare, rare_expected = 0.0, 0, 0.0, 0.0
    for pattern, count in pooled.items():
        expected, seen = n * count / whole, counts.get(pattern, 0)
        if expected < 5:
            rare, rare_expected = rare + seen, rare_expected + expected
        else:
            chi2, bins = chi2 + (seen - expected) ** 2 / expected, bins + 1
    if rare_expected > 0:
        chi2, bins = chi2 + (rare - rare_expected) ** 2 / max(rare_expected, 1.0), bins + 1
    return chi2 - bins > _CLEAR**2 + _CLEAR * math.sqrt(2 * bins)


def _dependent(counts: Counts, chances: Sequence[float]) -> bool:
    """Whether particles are not independent, each with the chance of its species."""
    patterns = np.array(list(counts))
    weight = np.array(list(counts.values()), dtype=float)
    n, p = weight.sum(), np.array(chances)
    if (patterns == COPIED).any():
        return True
    some = (patterns > 0).astype(float)
    rate = weight @ some / n
    error = np.sqrt(np.maximum(p * (1 - p), 1 / n) / n)
    if (np.abs(rate - p) > _CLEAR * error).any():
        return True
    away = some - rate
    covariance = (away * weight[:, None]).T @ away / n
    spread = np.sqrt(np.maximum(rate * (1 - rate), 1e-300))
    related = np.abs(covariance) / np.outer(spread, spread) * math.sqrt(n)
    related[rate * (1 - rate) < 1 / n] = 0
    if (np.triu(related, 1) > _CLEAR).any():
        return True
    return _combined(counts, p, n)


def _combined(counts: Counts, p: FloatArray, n: float) -> bool:
    """Whether patterns are missing that independent particles would have, pairs of which are so."""
    k = len(p)
    if k > _MOST_COMBINED or 10 * 2**k > n:
        return False
    every = (np.arange(2**k)[:, None] >> np.arange(k)) & 1
    chance = np.where(every, p, 1 - p).prod(1)
    seen = np.array([tuple(row) in counts for row in every.tolist()])
    return bool(n * chance[~seen].sum() > _CLEAR**2 + n * (chance * (1 - chance) ** n).sum())
