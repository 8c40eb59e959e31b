"""Processes of this machine that make blocks of events, with one thread each."""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from hepgen_ml.errors import OutputError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.blocks import Block, Counts, made_here
from hepgen_ml.generation.worker_process import deferred_signals, one_thread_each, work

_START = 6.0
"""Approximate time in seconds that a process takes to load torch and a model."""

_AHEAD = 2  # blocks waiting for each process

_POLL = 0.1  # seconds

_POLLS = 600
"""Number of polls until a copy must have begun; they do not pass while a job is suspended."""

_KILLED = 10.0  # seconds in which the system ends a killed process, unless its disk hangs

Made = tuple[EventSample, Counts]


class Task(Protocol):
    """What a process makes at a time, such as a `Block`."""

    @property
    def index(self) -> int:
        """Its number among all tasks of the processes."""


T = TypeVar("T", bound=Task)
R = TypeVar("R")


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
    others = Workers[Block, EventSample](workers, "spawn", begin, arguments)
    yield from others.made(blocks[1:], add)


def can_be_copied() -> bool:
    """Whether numba has no threads here yet: on GNU's OpenMP copies of this process would end.

    A classifier or a network that computes with its parallel kernels may have started them.
    """
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    return not getattr(parallel, "_is_initialized", False)


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
        A process has died, or a copy does not begin.
    """
    n = min(workers, len(blocks))
    copies = Workers[Block, EventSample](n, "fork", lambda: make, ())
    return copies.made(blocks, add)


class Workers(Generic[T, R]):
    """Processes that make blocks of events, or other results of tasks.

    Each sends its results through a separate pipe, so that the death of a process is always
    noticed. Tasks of any size are sent by a thread, since this process may have to receive results
    before there is room for another task. The processes end with the one that started them.

    Parameters
    ----------
    n : int
        Number of processes.
    method : {"spawn", "fork"}
        How they start.
    begin, arguments : callable, tuple
        As for `made_by_workers`.

    Raises
    ------
    OutputError
        The system starts no further process, or a copy does not begin: it waits for a lock that
        another thread of this process held when it was made.
    """

    def __init__(
        self,
        n: int,
        method: str,
        begin: Callable[..., Callable[[T], tuple[R, Counts]]],
        arguments: tuple[Any, ...],
    ) -> None:
        context: Any = multiprocessing.get_context(method)
        self._owner = os.getpid()
        self._processes: list[Any] = []
        self._results: list[Connection] = []
        self._ordered: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None
        tasks, self._tasks = context.Pipe(duplex=False)
        self._turn = context.Lock()  # to receive a task; here, since processes find it by name
        try:
            with one_thread_each(), deferred_signals(), warnings.catch_warnings():
                # Python cannot know that the threads of numerical libraries stand being copied.
                warnings.simplefilter("ignore", DeprecationWarning)
                for _ in range(n):
                    self._start(context, method == "fork", tasks, begin, arguments)
            tasks.close()  # so that nobody waits to send a task when all processes have ended
            if method == "fork":
                self._wait_for_copies()
        except BaseException as error:
            tasks.close()
            self.close()
            if isinstance(error, OSError):
                raise OutputError(
                    f"a process that generates events cannot be started: {error}",
                    remedy="take fewer processes (--workers)",
                ) from error
            raise

    def _start(
        self,
        context: Any,
        is_copy: bool,
        tasks: Connection,
        begin: Callable[..., Callable[[T], tuple[R, Counts]]],
        arguments: tuple[Any, ...],
    ) -> None:
        ours, theirs = context.Pipe(duplex=False)
        self._results.append(ours)
        others = (self._tasks, *self._results) if is_copy else ()  # copies have these, too
        process = context.Process(
            target=work,
            args=(tasks, self._turn, theirs, others, is_copy, begin, arguments),
            daemon=True,
        )
        try:
            process.start()
            self._processes.append(process)
        finally:
            theirs.close()

    def _wait_for_copies(self) -> None:
        """Receive from each copy that it has begun."""
        silent = list(self._results)
        for _ in range(_POLLS):
            for ready in wait(silent, _POLL):
                _received(ready)
                silent.remove(ready)  # type: ignore[arg-type]
            if not silent:
                return
        raise OutputError(
            f"{len(silent)} of {len(self._results)} copies of this process do not begin: another "
            "thread held a lock when they were made",
            remedy="take one process (--workers 1), or start them before other threads",
        )

    def made(self, tasks: Iterable[T], add: Callable[[Counts], None]) -> Iterator[tuple[T, R]]:
        """Tasks with their results in order, see `results`; afterwards the processes end."""
        try:
            yield from self.results(tasks, add)
        finally:
            self.close()

    def results(self, tasks: Iterable[T], add: Callable[[Counts], None]) -> Iterator[tuple[T, R]]:
        """Tasks with their results in order.

        Parameters
        ----------
        tasks : iterable of Task
            Numbered differently from all earlier ones.
        add : callable
            Takes in the counts of each.

        Raises
        ------
        OutputError
            A process has died.
        """
        made: dict[int, tuple[R, Counts]] = {}
        waiting: deque[T] = deque()
        further = iter(tasks)
        for task in islice(further, _AHEAD * len(self._processes)):
            self._order(task, waiting)
        while waiting:
            task = waiting.popleft()
            while task.index not in made:
                self._receive(made, None)
            self._receive(made, 0.0)  # what is ready; nobody shall wait while results are used
            for following in islice(further, 1):
                self._order(following, waiting)
            result, counts = made.pop(task.index)
            add(counts)
            yield task, result

    def _order(self, task: T, waiting: deque[T]) -> None:
        if self._sender is None:
            self._sender = threading.Thread(
                target=_send, args=(self._ordered, self._tasks), daemon=True
            )
            self._sender.start()
        self._ordered.put(task)
        waiting.append(task)

    def _receive(self, made: dict[int, tuple[R, Counts]], timeout: float | None) -> None:
        """Receive results, at least one unless there is a timeout."""
        for ready in wait(self._results, timeout):
            index, found = _received(ready)
            if isinstance(found, BaseException):
                raise found
            made[index] = found

    def close(self) -> None:
        """End all processes immediately.

        By a signal that a process can neither ignore nor lose: a copy may not have its own
        handlers yet, or may be suspended.
        """
        if os.getpid() != self._owner:
            return  # a copy of this process, where this object has become garbage
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(_KILLED)
        for end in self._results:
            end.close()
        if self._sender is not None:
            self._ordered.put(None)
            self._sender.join(_KILLED)
        self._tasks.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


def _received(end: Any) -> Any:
    """What a process has sent."""
    try:
        return end.recv()
    except (EOFError, OSError) as error:
        raise OutputError(
            "a process that generates events has died",
            remedy="take fewer processes (--workers) or more memory",
        ) from error


def _send(ordered: queue.SimpleQueue[Any], tasks: Connection) -> None:
    """Send tasks to the processes until there is none, or no process."""
    with suppress(OSError):
        while (task := ordered.get()) is not None:
            tasks.send(task)
