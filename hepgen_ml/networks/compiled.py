"""Loops compiled by numba, kept on disk where that is possible."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from importlib.metadata import entry_points
from typing import Any

import numba
from numba.core import entrypoints
from numba.core.compiler_lock import global_compiler_lock

log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile functions as `numba.njit` does, and keep the result for the next run.

    If neither the package's directory nor the user's cache is writable, every run compiles again.
    ``NUMBA_CACHE_DIR`` may name another place. Arguments are numbers and arrays of numpy:
    extensions of numba by other packages wait, see `without_extensions`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            made = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # numba's for a cache without a place
            _tell(str(error))
            made = numba.njit(**options)(function)
        if made_by := getattr(made, "_compile_for_args", None):  # code of the first call
            made._compile_for_args = wraps(made_by)(without_extensions()(made_by))
        return made

    return decorate


@contextmanager
def without_extensions() -> Iterator[None]:
    """Context in which numba does not load extensions by other packages.

    numba loads all that are installed (awkward, vector, and sympy with it) before it compiles
    its first function, or takes one from its cache. That takes longer than generating some thousand
    events. Within this context the loading is deferred to the first function outside it. If one of
    these packages has been imported already, nothing is deferred, so that functions that other
    threads compile at the same time find their extensions.
    """
    with global_compiler_lock:
        waiting = getattr(entrypoints, "_already_initialized", None) is False
        if not waiting or _in_use():
            yield
            return
        entrypoints._already_initialized = True
        try:
            yield
        finally:
            entrypoints._already_initialized = False


def _in_use() -> bool:
    """Whether a package that extends numba has been imported."""
    return any(module in sys.modules for module in _extending())


@cache
def _extending() -> frozenset[str]:
    """Packages that extend numba."""
    found = entry_points(group="numba_extensions")
    return frozenset(point.module.partition(".")[0] for point in found)


@cache
def _tell_once() -> None:
    log.info(
        "compiled loops cannot be cached on disk, so that every run starts slowly: "
        "set NUMBA_CACHE_DIR to a directory that can be written to"
    )


def _tell(reason: str) -> None:
    log.debug("%s", reason)
    _tell_once()
