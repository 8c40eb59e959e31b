"""Loops compiled by numba, kept on disk where that is possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numba

log = logging.getLogger(__name__)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile functions as `numba.njit` does, and keep the result for the next run.

    Where neither the package's directory nor the user's cache can be written to, every run
    compiles anew. ``NUMBA_CACHE_DIR`` may name another place.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # numba's for a cache without a place
            _tell(str(error))
            return numba.njit(**options)(function)

    return decorate


@cache
def _tell_once() -> None:
    log.info(
        "compiled loops cannot be kept on disk, so that every run begins slowly: "
        "set NUMBA_CACHE_DIR to a directory that can be written to"
    )


def _tell(reason: str) -> None:
    log.debug("%s", reason)
    _tell_once()
