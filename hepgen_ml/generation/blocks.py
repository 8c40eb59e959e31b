"""Generation of events in blocks with separate random numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, RunInfo, Shard, concatenate

BLOCK = 10_000
"""Largest number of events of a block, which has its own random numbers."""

Counts = tuple[float, ...]
"""Contribution of a block to the counts of drawn and accepted events."""


Chunks = Generator[EventSample, None, None]
"""Events that are made as they are taken; `close` ends what makes them."""


@dataclass(frozen=True)
class Block:
    """Events `first` to `last` (excluded) of all, and the number of their block."""

    index: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


def blocks_of(n: int, start: int, stop: int) -> list[Block]:
    """Blocks of n events that have any of `start` to `stop`; sizes differ by one at most."""
    if start >= stop:
        return []
    k = -(-n // BLOCK)
    size, larger = divmod(n, k)  # the first ones have one event more

    def first(index: int) -> int:
        return index * size + min(index, larger)

    def with_event(event: int) -> int:
        if event < first(larger):
            return event // (size + 1)
        return larger + (event - first(larger)) // size

    these = range(with_event(start), with_event(stop - 1) + 1)
    return [Block(i, first(i), first(i + 1)) for i in these]


def range_of(n: int, shard: tuple[int, int]) -> tuple[int, int]:
    """First and last event (excluded) of shard (i, k) of n events."""
    i, k = shard
    if not 0 <= i < k:
        raise UsageError(f"shard {i} of {k} does not exist", remedy="count from 0 to k-1")
    start = i * (n // k) + min(i, n % k)
    return start, start + n // k + (1 if i < n % k else 0)


def run_of_shard(run: RunInfo, n: int, shard: tuple[int, int]) -> RunInfo:
    """Run information for a file of shard (i, k) of n events, by which `merge` finds the others."""
    index, number = shard
    if number == 1:
        return run
    request = hashlib.sha256(f"{n} {run!r}".encode()).hexdigest()[:16]
    return run.with_(shard=Shard(index, number, request))


def range_to_make(n: int, shard: tuple[int, int], chunk: int) -> tuple[int, int]:
    """First and last event (excluded) of a shard that is to be made in chunks.

    Raises
    ------
    UsageError
        It has no events, or the chunks have none.
    """
    if n < 1:
        raise UsageError(f"cannot generate {n} events", remedy="ask for at least one")
    if chunk < 1:
        raise UsageError(f"chunks of {chunk} events", remedy="ask for at least one")
    first, stop = range_of(n, shard)
    if first == stop:
        raise UsageError(f"{n} events are too few for shard {shard[0]} of {shard[1]}")
    return first, stop


def in_chunks(
    made: Iterable[tuple[Block, EventSample]], start: int, stop: int, chunk: int
) -> Chunks:
    """Events `start` to `stop` (excluded) of blocks in order, numbered, in chunks of a size."""
    waiting: list[EventSample] = []
    n_waiting = 0
    for block, events in made:
        first, last = block.first, block.last
        events.events["event_number"] = np.arange(first + 1, last + 1)
        waiting.append(events[max(start - first, 0) : min(stop, last) - first])
        n_waiting += len(waiting[-1])
        if n_waiting < chunk:
            continue
        whole = concatenate(waiting)
        n_waiting %= chunk
        end = len(whole) - n_waiting
        yield from whole[:end].chunks(chunk)
        waiting = [whole[end:]] if n_waiting else []
    if n_waiting:
        yield concatenate(waiting)


def made_here(
    blocks: list[Block], make: Callable[[Block], EventSample]
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks made one after the other in this process."""
    for block in blocks:
        yield block, make(block)


def usable_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_directory(directory: Path | None) -> Path:
    """The directory of a model that other processes can load, or `UsageError`."""
    if directory is None:
        raise UsageError(
            "a model in memory cannot be used by several processes",
            remedy="save it first, or take one process",
        )
    return directory
