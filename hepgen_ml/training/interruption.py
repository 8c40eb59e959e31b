"""Deferral of requests to stop until a consistent state."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptions:
    """Defers Ctrl-C and SIGTERM to moments at which a run may stop.

    Used as a context manager, and called at these moments, when the previous handlers get the
    signal that has arrived. A second signal is not deferred. It has no effect in threads other than
    the main one, which get no signals.

    Attributes
    ----------
    waiting : int or None
        Signal that has arrived.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.waiting: int | None = None

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    self._before[number] = handler
                    signal.signal(number, self._keep)
        return self

    def __call__(self, number: int | None) -> None:
        """Stop now by this signal, which another process may have received."""
        if number is None:
            return
        self.waiting = None
        if number in self._before:
            self._before[number](number, None)
        else:
            raise KeyboardInterrupt

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self.waiting is not None:
            self._before[number](number, frame)
        self.waiting = number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self(self.waiting)
