"""Locks on files, with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import socket


def take(file: int) -> bool | None:
    """Lock an open file until it is closed or the process ends, without waiting.

    Returns
    -------
    bool or None
        False if another holds it, None on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def owner() -> bytes:
    """Machine and number of this process, as written to the files that it locks."""
    return f"{_machine()} {os.getpid()}".encode()


def is_of_this_machine(file: int) -> bool:
    """Whether a process of this machine, or none yet, has locked an open file."""
    return _read(file)[0] in ("", _machine())


def is_alive(file: int) -> bool:
    """Whether the process that has locked an open file may still run."""
    machine, process = _read(file)
    if machine != _machine() or not process.isdecimal():
        return machine != ""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError: # lock of another process
        return True
    return True


def _machine() -> str:
    return socket.gethostname() or "unknown"


def _read(file: int) -> tuple[str, str]:
    machine, _, process = os.pread(file, 1024, 0).decode(errors="replace").partition(" ")
    return machine, process
