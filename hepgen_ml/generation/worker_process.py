"""A process that fulfils tasks: its threads, its signals, and its end."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from hepgen_ml.generation.blocks import Counts

_WATCH = 1.0  # seconds until a process notices that its parent has ended

DEFERRED = {signal.SIGINT, signal.SIGTERM}
"""Signals that wait until a process has its own handlers, see `begin_worker`."""


def work(
    tasks: Connection,
    turn: Any,
    results: Connection,
    others: tuple[Connection, ...],
    is_copy: bool,
    begin: Callable[..., Callable[[Any], tuple[Any, Counts]]],
    arguments: tuple[Any, ...],
) -> None:
    """Fulfil tasks until the process is ended, see `hepgen_ml.generation.workers.Workers`."""
    for end in others:
        end.close()
    begin_worker()
    compute_with_one_thread()
    make: Callable[[Any], tuple[Any, Counts]] | None = None
    with suppress(BrokenPipeError, EOFError):  # its result is no longer needed
        if is_copy:
            results.send(None)  # it has begun
        while True:
            with turn:
                task = tasks.recv()
            try:
                if make is None:
                    make = begin(*arguments)
                found: Any = make(task)
            except Exception as error:
                found = _sendable(error)
            results.send((task.index, found))


def _sendable(error: Exception) -> Exception:
    """An error as it can be sent to another process."""
    try:
        copy.deepcopy(error)  # is made again there in the same way
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def compute_with_one_thread() -> None:
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


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Context in which signals wait, also for the new processes.

    A copy would answer them with the handlers of this process, which may only take a note, and
    Python discards those that arrive right after the copy is made.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker() -> None:
    """Leave signals to the main process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    while os.getppid() == parent.pid:
        time.sleep(_WATCH)
    os._exit(1)
