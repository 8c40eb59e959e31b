"""Processes of this machine that make blocks of events, with one thread each."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any

from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.blocks import Block, Counts, made_here

_START = 6.0
"""Approximate time in seconds that a process takes to load torch and a model."""

_AHEAD = 2  # blocks waiting for each process

_WATCH = 1.0  # seconds until a process notices that its parent has ended

Made = tuple[EventSample, Counts]


def made_by_workers(
    blocks: list[Block],
    make: Callable[[Block], EventSample],
    workers: int,
    begin: Callable[..., Callable[[Block], Made]],
    arguments: tuple[Any, ...],
    add: Callable[[Counts], None],
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks in order, made by several processes where that pays.

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
        Called in each process with these arguments; returns the function that generates blocks and
        counts.
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
    yield from Workers(workers, "spawn", begin, arguments).made(blocks[1:], add)


def made_by_copies(
    blocks: list[Block],
    make: Callable[[Block], Made],
    workers: int,
    add: Callable[[Counts], None],
) -> Iterator[tuple[Block, EventSample]]:
    """Blocks in order, made by copies of this process, which exist when this function returns.

    Copies take no time to start and share the memory of what has been loaded. They lack all other
    threads of this process, so that it must have computed nothing in several threads before, and
    should open files that other threads write to only afterwards.

    Parameters
    ----------
    blocks, workers, add
        As for `made_by_workers`.
    make : callable
        Makes a block, with its counts.

    Raises
    ------
    OutputError
        A process has died.
    """
    copies = Workers(min(workers, len(blocks)), "fork", lambda: make, ())
    return copies.made(blocks, add)


class Workers:
    """Processes that make blocks of events.

    Each sends its results through a separate pipe, so that the death of a process is always
    noticed. They end with the process that started them.

    Parameters
    ----------
    n : int
        Number of processes.
    method : {"spawn", "fork"}
        How they start.
    begin, arguments : callable, tuple
        As for `made_by_workers`.
    """

    def __init__(
        self,
        n: int,
        method: str,
        begin: Callable[..., Callable[[Block], Made]],
        arguments: tuple[Any, ...],
    ) -> None:
        context: Any = multiprocessing.get_context(method)
        self._tasks = context.SimpleQueue()
        self._processes: list[Any] = []
        self._results: list[Connection] = []
        with one_thread_each(), warnings.catch_warnings():
            # Python cannot know that the threads of numerical libraries stand being copied.
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(n):
                ours, theirs = context.Pipe(duplex=False)
                self._results.append(ours)
                others = tuple(self._results) if method == "fork" else ()  # copies have these, too
                process = context.Process(
                    target=_work, args=(self._tasks, theirs, others, begin, arguments), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)

    def made(
        self, blocks: Iterable[Block], add: Callable[[Counts], None]
    ) -> Iterator[tuple[Block, EventSample]]:
        """Blocks in order; afterwards the processes end.

        Parameters
        ----------
        blocks : iterable of Block
        add : callable
            Takes in the counts of each block.

        Raises
        ------
        OutputError
            A process has died.
        """
        made: dict[int, Made] = {}
        waiting: deque[Block] = deque()
        further = iter(blocks)
        try:
            for block in islice(further, _AHEAD * len(self._processes)):
                self._order(block, waiting)
            while waiting:
                block = waiting.popleft()
                while block.index not in made:
                    self._receive(made, None)
                self._receive(made, 0.0)  # what is ready; nobody shall wait while events are used
                for following in islice(further, 1):
                    self._order(following, waiting)
                sample, counts = made.pop(block.index)
                add(counts)
                yield block, sample
        finally:
            self.close()

    def _order(self, block: Block, waiting: deque[Block]) -> None:
        self._tasks.put(block)
        waiting.append(block)

    def _receive(self, made: dict[int, Made], timeout: float | None) -> None:
        """Receive finished blocks, at least one unless there is a timeout."""
        for ready in wait(self._results, timeout):
            assert isinstance(ready, Connection)
            try:
                index, found = ready.recv()
            except (EOFError, OSError) as error:
                raise OutputError(
                    "a process that generates events has died",
                    remedy="take fewer processes (--workers) or more memory",
                ) from error
            if isinstance(found, BaseException):
                raise found
            made[index] = found

    def close(self) -> None:
        """End all processes immediately."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for end in self._results:
            end.close()
        self._tasks.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


def _work(
    tasks: Any,
    results: Connection,
    others: tuple[Connection, ...],
    begin: Callable[..., Callable[[Block], Made]],
    arguments: tuple[Any, ...],
) -> None:
    """Make blocks in a process that `Workers` has started, until it is ended."""
    for end in others:
        end.close()
    begin_worker()
    _compute_with_one_thread()
    make: Callable[[Block], Made] | None = None
    with suppress(BrokenPipeError):  # its result is no longer needed
        while True:
            block = tasks.get()
            try:
                if make is None:
                    make = begin(*arguments)
                found: Any = make(block)
            except Exception as error:
                found = _sendable(error)
            results.send((block.index, found))


def _sendable(error: Exception) -> Exception:
    """An error as it can be sent to another process."""
    try:
        copy.deepcopy(error)  # is made again there in the same way
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _compute_with_one_thread() -> None:
    """Do what the environment says; a copy of a process has read it before it was set."""
    import torch

    torch.set_num_threads(1)
    if (numba := sys.modules.get("numba")) is not None:
        with suppress(RuntimeError):  # its threads have been started
            numba.core.config.reload_config()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Context in which new processes compute with one thread."""
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


def begin_worker() -> None:
    """Leave signals to the main process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    while os.getppid() == parent.pid:
        time.sleep(_WATCH)
    os._exit(1)
