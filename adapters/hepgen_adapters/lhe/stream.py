"""Plain or gzipped text in blocks of whole events, read ahead in a thread."""

from __future__ import annotations

import io
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip_lib

from hepgen_adapters.text.memory import PADDING
from hepgen_ml.errors import InputError

BLOCK = 1 << 20
_FIRST_BLOCK = 1 << 17
"""Less than the others, so that many small files cost no large buffers."""

INPUT = 1 << 18
MAX_EVENT = 64 << 20
END_OF_EVENT = b"</event>"
END_OF_FILE = b"</LesHouchesEvents"
BEGINS = re.compile(rb"<LesHouchesEvents\b|<event(?:\s[^<>]{0,4096})?>\s{0,64}\d")
"""Tags with a meaning behind the end of a file: another file, or events outside any file."""

_LONGEST_BEGINNING = 8192


class GzipText(io.RawIOBase):
    """Text of a gzip file of one or more members, checksums verified.

    Returns the complete content of a truncated file before it raises EOFError.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed in close()
        self._input = b""
        self._decoder: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, place: Any) -> int:
        while True:
            if not self._input and (self._decoder is None or self._decoder.needs_input):
                self._input = self._file.read(INPUT)
                if self._decoder is None:
                    self._input = self._input.lstrip(b"\0")  # padding behind a member
                if not self._input:
                    if self._decoder is None:
                        return 0
                    raise EOFError
            if self._decoder is None:
                self._decoder = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
            text = self._decoder.decompress(self._input, len(place))
            self._input = b""
            if self._decoder.eof:
                self._input = self._decoder.unused_data.lstrip(b"\0")
                self._decoder = None
            if text:
                place[: len(text)] = text
                return len(text)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_text(path: Path) -> io.RawIOBase:
    """Binary stream of the file's text; gzip is recognised by its first bytes."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115  handed on
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return GzipText(path)
    file.seek(0)
    return file


def gzip_error(error: Exception, path: Path) -> InputError:
    """Error message for a compressed file."""
    if isinstance(error, EOFError):
        return InputError(
            "the gzip stream ends early: the file is truncated",
            path=path,
            remedy="copy or make it again; --skip-bad takes the whole events",
        )
    if isinstance(error, OSError):
        what = f"cannot be read: {error.strerror or error}"
        return InputError(what, path=path, remedy="check the file and its permissions")
    return InputError(
        f"the gzip stream is corrupt ({error})", path=path, remedy="copy or make the file again"
    )


GZIP_ERRORS: Any = (EOFError, OSError, igzip_lib.IsalError)


@dataclass
class Block:
    """Text ``buffer[:end]`` that ends behind an event; it starts at `offset` of the whole."""

    buffer: bytearray
    end: int
    offset: int
    final: bool = False
    address: int = 0

    def __post_init__(self) -> None:
        self.address = int(np.frombuffer(self.buffer, dtype=np.uint8).ctypes.data)


class Blocks:
    """Iterate over the blocks of a file from a place in its text on.

    The final block holds what follows the last event.

    Parameters
    ----------
    path : Path
    offset : int
        Number of bytes of decompressed text to skip.
    skip_bad : bool
        End without an error, with `truncated` set, if a gzip stream is truncated.
    """

    def __init__(self, path: Path, offset: int, *, skip_bad: bool = False) -> None:
        self.path, self.offset, self.skip_bad = path, offset, skip_bad
        self.truncated = False
        self._ready: queue.Queue[Block | Exception] = queue.Queue(maxsize=2)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)

    def __iter__(self) -> Iterator[Block]:
        self._thread.start()
        while True:
            block = self._ready.get()
            if isinstance(block, Exception):
                raise block
            yield block
            if block.final:
                return

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def release(self, block: Block) -> None:
        """Reuse the memory of a block."""
        if len(block.buffer) == 2 * BLOCK + PADDING:
            self._free.put(block.buffer)

    def _put(self, item: Block | Exception) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _produce(self) -> None:
        try:
            with open_text(self.path) as stream:
                skipped = 0
                while skipped < self.offset:
                    piece = stream.read(min(BLOCK, self.offset - skipped))
                    if not piece:
                        break
                    skipped += len(piece)
                self._cut(stream)
        except Exception as error:
            known = isinstance(error, GZIP_ERRORS)
            self._put(gzip_error(error, self.path) if known else error)

    def _buffer(self, size: int) -> bytearray:
        while BLOCK <= size <= 2 * BLOCK:
            try:
                return self._free.get_nowait()
            except queue.Empty:
                return bytearray(2 * BLOCK + PADDING)
        return bytearray(size + PADDING)

    def _fill(self, stream: io.RawIOBase, place: memoryview) -> int:
        """Bytes read into `place`; fewer than it holds only at the end of the file."""
        filled = 0
        while filled < len(place) and not self._stop.is_set():
            try:
                count = stream.readinto(place[filled:])
            except EOFError:
                if not self.skip_bad:
                    raise
                self.truncated = True
                break
            if not count:
                break
            filled += count
        return filled

    def _pass_over(self, stream: io.RawIOBase, text: bytes) -> tuple[bytes, int]:
        """Read on until another file begins; returns its text so far and the bytes left out."""
        passed = 0
        while not self._stop.is_set():
            match = BEGINS.search(text)
            if match is not None:
                return text[match.start() :], passed + match.start()
            keep = text[-_LONGEST_BEGINNING:]
            passed += len(text) - len(keep)
            scrap = bytearray(BLOCK)
            filled = self._fill(stream, memoryview(scrap))
            if not filled:
                return keep, passed
            text = keep + bytes(scrap[:filled])
        return b"", passed

    def _cut(self, stream: io.RawIOBase) -> None:
        rest = b""
        offset, more = self.offset, _FIRST_BLOCK
        while not self._stop.is_set():
            wanted = len(rest) + min(max(more, len(rest)), MAX_EVENT)
            more = BLOCK
            buffer = self._buffer(wanted)
            buffer[: len(rest)] = rest
            with memoryview(buffer) as whole, whole[len(rest) : wanted] as place:
                filled = len(rest) + self._fill(stream, place)
            buffer[filled : filled + PADDING] = bytes(PADDING)
            final = filled < wanted
            end = buffer.rfind(END_OF_EVENT, 0, filled) + len(END_OF_EVENT)
            if end < len(END_OF_EVENT):
                end = 0
                # Arbitrary text may follow the closing tag, also another file.
                closing = buffer.find(END_OF_FILE, 0, filled)
                if closing >= 0 and not final and not BEGINS.search(buffer, closing, filled):
                    self._put(Block(buffer, closing + len(END_OF_FILE), offset))
                    offset += closing + len(END_OF_FILE)
                    rest = bytes(memoryview(buffer)[closing + len(END_OF_FILE) : filled])
                    rest, passed = self._pass_over(stream, rest)
                    offset += passed
                    continue
                if filled > MAX_EVENT:
                    raise InputError(
                        f"an event is larger than {MAX_EVENT >> 20} MB",
                        path=self.path,
                        remedy="the file is damaged",
                    )
            if final:
                end = filled
            rest = bytes(memoryview(buffer)[end:filled])
            if end:
                self._put(Block(buffer, end, offset, final=final))
            elif final:
                self._put(Block(buffer, 0, offset, final=True))
            if final:
                return
            offset += end
