"""Events in blocks, each with random numbers of its own, made in this process or in several."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.events.sample import EventSample, concatenate

BLOCK = 10_000
"""Most events that are drawn together, with random numbers of their own."""

_START = 6.0
"""Seconds that a process takes to load torch and a model, about."""

_AHEAD = 2  # blocks waiting for each process

Counts = tuple[float, ...]
"""What a block adds to the counts of drawn and accepted events."""


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


def in_chunks(
    made: Iterable[tuple[Block, EventSample]], start: int, stop: int, chunk: int
) -> Iterator[EventSample]:
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


def made_by_workers(
    blocks: list[Block],
    make: Callable[[Block], EventSample],
    workers: int,
    begin: Callable[..., Callable[[Block], tuple[EventSample, Counts]]],
    arguments: tuple[Any, ...],
    add: Callable[[Counts], None],
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks in order, made by several processes with one thread each where that pays.

    The first block is made here. Where its time says that the others are made sooner than
    further processes have started, these are made here, too.

    Parameters
    ----------
    blocks : list of Block
    make : callable
        Makes a block here.
    workers : int
        Processes at most.
    begin, arguments : callable, tuple
        Called in each process with these arguments; returns what makes blocks and counts there.
    add : callable
        Takes in the counts of each block.

    Raises
    ------
    OutputError
        A process has died.
    """
    begun = time.monotonic()
    yield blocks[0], make(blocks[0])
    alone = (time.monotonic() - begun) * (len(blocks) - 1)
    workers = min(workers, len(blocks) - 1)
    if workers < 2 or alone < _START + alone / workers:
        yield from made_here(blocks[1:], make)
        return
    waiting: deque[tuple[Block, Future[tuple[EventSample, Counts]]]] = deque()
    with one_thread_each():
        pool = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin,
            initargs=(begin, arguments),
        )  # fmt: skip
        try:
            for block in blocks[1:]:
                waiting.append((block, pool.submit(_make, block)))
                if len(waiting) >= _AHEAD * workers:
                    yield _taken(waiting, add)
            while waiting:
                yield _taken(waiting, add)
        except BrokenExecutor as error:
            raise OutputError(
                "a process that makes events has died",
                remedy="take fewer processes (--workers) or more memory",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _taken(
    waiting: deque[tuple[Block, Future[tuple[EventSample, Counts]]]], add: Callable[[Counts], None]
) -> tuple[Block, EventSample]:
    block, future = waiting.popleft()
    sample, counts = future.result()
    add(counts)
    return block, sample


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute with one thread."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_OF_PROCESS: dict[str, Any] = {}


def begin_worker() -> None:
    """Leave interrupts to the main process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _begin(begin: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    begin_worker()
    _OF_PROCESS["make"] = begin(*arguments)


def _make(block: Block) -> tuple[EventSample, Counts]:
    found: tuple[EventSample, Counts] = _OF_PROCESS["make"](block)
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
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
