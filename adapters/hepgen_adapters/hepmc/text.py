"""What reading and writing HepMC3 share: compression, names, escapes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

from isal import igzip, igzip_lib

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
    """What reading a file, compressed or not, may raise where it is damaged."""
    errors: Any = (EOFError, OSError, igzip_lib.IsalError, _zstd().ZstdError)
    return errors


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
