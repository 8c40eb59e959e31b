"""Outputs that are read while they are written: standard output, pipes and named pipes.

Unlike files, they cannot be withheld until they are complete. Instead, a failed output is never
terminated like a complete file: its reader finds it truncated.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
import threading
from pathlib import Path

from hepgen_ml.errors import OutputError, PipeClosedError
from hepgen_ml.files.outputs import naming

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_NAMED = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_PIECE = 1 << 20  # bytes


def is_stream(path: str | Path) -> bool:
    """Whether an output is standard output, an open descriptor, a pipe or a device.

    Parameters
    ----------
    path : path-like
        ``-`` is standard output.
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def is_standard_output(path: str | Path) -> bool:
    """Whether an output of this name is mixed with the messages of a program."""
    return _descriptor(path) == 1


def _descriptor(path: str | Path) -> int | None:
    match = _DESCRIPTOR.fullmatch(str(path))
    return int(match[1]) if match else _NAMED.get(str(path))


class Stream:
    """An output under construction whose bytes go to their reader immediately.

    Writers write to a pipe whose name has their suffix; a thread forwards the bytes. Therefore
    formats need not distinguish streams, and the actions of a writer after an error do not reach
    the reader.

    Parameters
    ----------
    path : path-like
        See `is_stream`. Opening a named pipe waits until a program opens it for reading.
    suffix : str
        Of the format, with the one of the compression.

    Attributes
    ----------
    path : Path
    place : Path
        Where to write.

    Raises
    ------
    OutputError
        The descriptor is not open, or the pipe may not be written to.
    """

    def __init__(self, path: str | Path, suffix: str) -> None:
        self.path = Path(path)
        self.error: OSError | None = None
        self._cut = False
        with naming(self.path):
            number = _descriptor(path)
            try:
                self._target = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                raise OutputError(
                    "is not open", path=path, remedy="redirect it, as in 3>events.lhe"
                ) from None
        self._directory = tempfile.mkdtemp(prefix="hepgen-ml-")
        self.place = Path(self._directory, "events" + suffix)
        os.mkfifo(self.place, 0o600)
        self._source = os.open(self.place, os.O_RDONLY | os.O_NONBLOCK)
        self._end = os.open(self.place, os.O_WRONLY)  # no end of file before commit or discard
        os.set_blocking(self._source, True)
        self._threads: list[threading.Thread] = []
        self._start()

    def _start(self) -> None:
        self._threads.append(threading.Thread(target=self._pass_on, daemon=True))
        self._threads[-1].start()

    def _pass_on(self) -> None:
        while piece := os.read(self._source, _PIECE):
            view = memoryview(piece)
            while view and not self._cut and self.error is None:
                try:
                    view = view[os.write(self._target, view) :]
                except OSError as error:
                    self.error = error

    def check(self) -> None:
        """Raise the error that occurred while bytes were forwarded.

        Raises
        ------
        PipeClosedError
            The reader has gone.
        OutputError
            Any other reason for which they cannot be written.
        """
        if self.error is None:
            return
        if self.error.errno == errno.EPIPE:
            raise PipeClosedError("its reader ended before the last event", path=self.path)
        with naming(self.path):
            raise self.error

    def commit(self) -> None:
        """Wait until all bytes are forwarded, and end the output."""
        try:
            self._end_writing()
            self._threads[0].join()
            self.check()
        finally:
            self._release()

    def cut(self) -> None:
        """Stop forwarding bytes, even if the reader has stopped reading without ending."""
        if not self._cut and self._end >= 0:
            self._cut = True
            self._start() # the first thread may wait for the reader forever

    def discard(self) -> None:
        """End the output at its present position; may be called again."""
        if self._end < 0:
            return
        self.cut()
        self._end_writing()
        self._release()

    def _end_writing(self) -> None:
        os.close(self._end)
        self._end = -1

    def _release(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        for thread in self._threads:
            thread.join(timeout=1.0)
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._target)
            os.close(self._source)
