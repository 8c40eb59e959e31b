"""Which particles of an event have a lifetime together.

Generators state lifetimes of all unstable particles of an event or of none (a subprocess without
them, one step of several that makes them), or of some of several equal ones. A copy of a particle
in a chain has the lifetime of the original. Such an event has a *pattern*: for each particle of a
species with lifetimes, whether it has none, one of its own, or that of the particle it copies.
Where the patterns of a sample are not those of particles that are independent of each other, events
draw one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.structure import Structure

FloatArray = npt.NDArray[np.float64]
Species = tuple[int, int]
"""PDG id without sign, and status."""
Pattern = tuple[int, ...]

NONE, OWN, COPIED = 0, 1, 2
"""A particle without a lifetime, with its own, and with that of the particle that it copies."""


@dataclass(frozen=True)
class PatternTable:
    """Patterns of lifetimes and how frequent they are.

    Attributes
    ----------
    patterns : tuple of tuple of int
        0, 1 or 2 (none, its own, that of the particle it copies) for each particle of a species
        with lifetimes, in the order of the particles of a subprocess.
    frequency : tuple of float
        Of each pattern.
    subprocesses : tuple of int
        Numbers of those whose events have them.
    """

    patterns: tuple[Pattern, ...]
    frequency: tuple[float, ...]
    subprocesses: tuple[int, ...]

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "patterns": [list(p) for p in self.patterns], "frequency": list(self.frequency),
            "subprocesses": list(self.subprocesses),
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PatternTable:
        """Inverse of `to_config`."""
        patterns = tuple(tuple(int(v) for v in p) for p in config["patterns"])
        frequency = tuple(float(v) for v in config["frequency"])
        return cls(patterns, frequency, tuple(int(v) for v in config["subprocesses"]))


def stored_tables(
    config: Iterable[dict[str, Any]], structures: Sequence[Structure], species: Iterable[Species]
) -> tuple[PatternTable, ...]:
    """Tables from plain JSON values, for subprocesses of these structures.

    Raises
    ------
    ValueError
        Some subprocess has other particles, or several tables.
    """
    known, tables = frozenset(species), tuple(map(PatternTable.from_config, config))
    numbers = [number for table in tables for number in table.subprocesses]
    if len({*numbers}) < len(numbers):
        raise ValueError("lifetime_patterns: several tables of a subprocess")
    for table in tables:
        lengths = {len(pattern) for pattern in table.patterns}
        columns = zip(*table.patterns, strict=False)
        copies = [i for i, states in enumerate(columns) if COPIED in states]
        for number in table.subprocesses:
            if number >= len(structures):
                raise ValueError("lifetime_patterns: a subprocess that does not exist")
            rows, originals = unstable(structures[number], known), copied(structures[number])
            if lengths != {len(rows)}:
                raise ValueError("lifetime_patterns: not one number of every particle")
            if any(originals.get(rows[i]) not in rows for i in copies):
                raise ValueError("lifetime_patterns: a copy of no particle")
    return tables


class Drawn(NamedTuple):
    """Patterns of all particles (rows,) of some events.

    Attributes
    ----------
    state : int array
        As in a `PatternTable`; −1 where a particle is independent of the others.
    source : int array
        The row whose lifetime each has.
    """

    state: npt.NDArray[np.int8]
    source: npt.NDArray[np.int64]


def draw_patterns(
    tables: Sequence[PatternTable],
    species: Iterable[Species],
    structures: Sequence[Structure],
    events: EventSample,
    subprocess: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Drawn:
    """Patterns for events of some subprocesses (events,)."""
    n, known = len(events.pdg_id), frozenset(species)
    state, source = np.full(n, -1, dtype=np.int8), np.arange(n)
    events_of = dict(by_value(torch.from_numpy(subprocess)))
    for table in tables:
        frequency, patterns = np.array(table.frequency), np.array(table.patterns, dtype=np.int8)
        for number in table.subprocesses:
            if number not in events_of:
                continue
            first = events.offsets[:-1][events_of[number].numpy()]
            structure = structures[number]
            rows, originals = unstable(structure, known), copied(structure)
            drawn = rng.choice(len(patterns), len(first), p=frequency / frequency.sum())
            for column, row in enumerate(rows):
                own = patterns[drawn, column]
                state[first + row] = own
                if row in originals:
                    copies = first[own == COPIED]
                    source[copies + row] = copies + originals[row]
    while (source != source[source]).any():  # copies of copies
        source = source[source]
    return Drawn(state, source)


def unstable(structure: Structure, species: frozenset[Species]) -> list[int]:
    """Particles of species with lifetimes."""
    pairs = zip(structure.pdg_id, structure.status, strict=True)
    return [row for row, (i, status) in enumerate(pairs) if (abs(i), status) in species]


@lru_cache(maxsize=10_000)
def copied(structure: Structure) -> Mapping[int, int]:
    """The particle that each copy in a chain copies: its only mother, of the same flavour."""
    found = {}
    mothers = zip(structure.mother1, structure.mother2, strict=True)
    for row, (first, second) in enumerate(mothers):
        mother = first - 1
        if mother < 0 or mother == row or second not in (0, first):
            continue
        same = structure.pdg_id[mother] == structure.pdg_id[row]
        if same and -1 not in (structure.status[mother], structure.status[row]):
            found[row] = mother
    for row in list(found):  # a damaged record may have its mothers in a ring
        at, steps = row, 0
        while at in found and steps <= len(found):
            at, steps = found[at], steps + 1
        if steps > len(found):
            del found[row]
    return found
