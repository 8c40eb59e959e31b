"""Front of an LHE file: the text up to ``</init>``."""

from __future__ import annotations

import re
from pathlib import Path

from hepgen_adapters.lhe.markup import Masker
from hepgen_adapters.lhe.stream import BLOCK, GZIP_ERRORS, gzip_error, open_text
from hepgen_ml.errors import InputError

MAX_HEADER = 256 << 20

END_OF_INIT = re.compile(rb"</init\s{0,16}>")


def read_front(path: Path, *, skip_bad: bool) -> tuple[bytes, int]:
    """The text of a file up to ``</init>`` and a little more, and the end of the former.

    Raises
    ------
    InputError
        There is no ``</init>``, or the text before it cannot be read.
    """
    text, masker = bytearray(), Masker()
    end = -1
    try:
        with open_text(path) as stream:
            while end < 0 or len(text) < end + BLOCK:
                piece = stream.read(BLOCK)
                if not piece:
                    break
                text += piece
                if len(text) > MAX_HEADER:
                    raise InputError(
                        f"no event in the first {MAX_HEADER >> 20} MB",
                        path=path,
                        remedy="check that this is an LHE file",
                    )
                if end < 0:
                    seen = max(0, len(masker.masked) - 32)
                    masker.feed(piece)
                    found = END_OF_INIT.search(masker.masked, seen)
                    end = found.end() if found else -1
                    if len(text) > 1 << 16 and b"<LesHouchesEvents" not in text[: 1 << 16]:
                        break
    except GZIP_ERRORS as error:
        if end < 0 or not skip_bad:
            raise gzip_error(error, path) from error
    except ValueError as error:
        remedy = "take them out, or check that this is an LHE file"
        raise InputError(str(error), path=path, remedy=remedy) from None
    if not text:
        raise InputError("is empty", path=path, remedy="check how it was made")
    if end < 0:  # a comment that nothing ends is text
        masker.feed(b"", final=True)
        found = END_OF_INIT.search(masker.masked)
        end = found.end() if found else -1
    if end < 0:
        if b"<LesHouchesEvents" in text:
            what = "ends before </init>: no event, the file is truncated"
            raise InputError(what, path=path, remedy="copy or make the file again")
        end = len(text)
    return bytes(text), end
