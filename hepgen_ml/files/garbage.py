"""Making very many objects that stay, such as those of a process of thousands of channels."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Without collection of cyclic garbage meanwhile; also a decorator of functions.

    The collector looks at all objects again whenever their number has grown by a quarter, which
    takes longer than to make them. Objects without cycles are freed in any case.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
