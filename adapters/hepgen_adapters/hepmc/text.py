"""Common part of reading and writing HepMC3: compression, names, escapes."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import IO, Any

from isal import igzip, igzip_lib

ABSENT = "absent_weights"
"""Attribute of an event: numbers of its weights, from 0, that are 0 because they do not exist."""

RUN_ATTRIBUTE = "hepgen_ml_run"
NAMES_ATTRIBUTE = "hepgen_ml_weight_names"
NOMINAL = "Default"


def open_bytes(path: Path, mode: str) -> IO[bytes]:
    """Open by suffix; gzip output carries no name or time: equal events, equal files."""
    name = path.name.lower()
    if name.endswith(".gz"):
        if mode == "rb":
            return igzip.open(path, "rb")
        return _Gzip(path)
    if name.endswith(".zst"):
        return _zstd().open(path, mode)
    return path.open(mode)


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found]
    except ImportError:
        from backports import zstd
    return zstd


def decompression_errors() -> Any:
    """Exceptions of reading a damaged file, compressed or not."""
    errors: Any = (EOFError, OSError, igzip_lib.IsalError, _zstd().ZstdError)
    return errors


NOT_FINITE = 1.7976931348623157e308
"""Text that `FiniteWeights` writes for weights that are not finite."""

_WEIGHTS = re.compile(rb"^W [^\n]*", re.MULTILINE)
_WORD = re.compile(rb"[+-]?(?:nan|inf)\w*", re.IGNORECASE)


def _finite(line: re.Match[bytes]) -> bytes:
    return _WORD.sub(repr(NOT_FINITE).encode(), line[0])


class FiniteWeights(io.RawIOBase):
    """Text of a HepMC3 file, with `NOT_FINITE` for weights that HepMC3 writes but cannot read.

    Parameters
    ----------
    file : binary file
        Lines are checked (`lines`), so that they have an end and are not long.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._rest, self._ready = file, b"", b""
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            piece = self._file.read(1 << 20)
            text = self._rest + piece
            if not text:
                return 0
            end = text.rfind(b"\n") + 1 if piece else len(text)
            text, self._rest = text[:end], text[end:]
            begin = 0
            if not self._begun:  # a W line in front of the events has names
                begin = text.find(b"\nE ")
                self._begun, begin = begin >= 0, begin if begin >= 0 else len(text)
            self._ready = text[:begin] + _WEIGHTS.sub(_finite, text[begin:])
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n


class _Gzip(io.BufferedWriter):
    """Compressed output that also closes the file below it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        compressed = igzip.IGzipFile(filename="", mode="wb", fileobj=self._file, mtime=0)
        super().__init__(compressed, 1 << 20)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._file.close()


def escape(text: str) -> str:
    """HepMC3's spelling of backslashes and line ends in run-level texts."""
    return text.replace("\\", "\\\\").replace("\n", "\\|")


def tokens(names: list[str]) -> list[str]:
    """Weight names without blanks, where HepMC3 would split them; each once."""
    result: dict[str, None] = {}
    for name in names:
        token = stem = "_".join(name.split()) or "_"
        k = 2
        while token in result:
            token, k = f"{stem}_{k}", k + 1
        result[token] = None
    return list(result)
