"""Events at which the compiled parser stops: the error message, and the place to continue."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe import codes as codes
from hepgen_adapters.lhe.header import fortran_float
from hepgen_adapters.lhe.stream import BLOCK, END_OF_EVENT, END_OF_FILE, MAX_EVENT, Block, open_text
from hepgen_ml.errors import InputError

TRUNCATED = "the file ends before </LesHouchesEvents>: it is truncated"
REMEDY = "--skip-bad leaves such events out"

MAX_TOKEN = 4096
assert MAX_EVENT > MAX_TOKEN


def error_of(
    block: Block, state: Any, status: int, path: Path, event: int, *, skip_bad: bool
) -> InputError:
    """Error for an event at which the parser stopped; without its line if it is skipped."""
    place = int(state[codes.MARK]) - block.address
    shown = bytes(block.buffer[place : place + 40]).split(b"\0")[0]
    word = (shown.split() or [b""])[0].decode("utf-8", "replace")
    found, wanted = int(state[codes.FOUND]), int(state[codes.WANTED])
    what = {
        codes.BAD_NUMBER: f"{word!r} is not a number",
        codes.NOT_FINITE: f"{word!r} is not finite",
        codes.SHORT_LINE: "a line has too few numbers",
        codes.LONG_LINE: f"a line has too many numbers ({word!r} is left over)",
        codes.FEW_LINES: f"{wanted} particles announced but {found} found",
        codes.MANY_LINES: f"more particles than announced (or stray text {word!r})",
        codes.BAD_MOTHER: f"a mother of particle {found} is not among the {wanted} particles",
        codes.UNCLOSED: "has no closing </event>",
        codes.BAD_TAG: f"a tag is malformed near {word!r}",
        codes.BAD_COUNT: f"the number of particles, {word}, is impossible",
    }[status]
    if status == codes.BAD_NUMBER and re.match(r"[+-]?(nan|inf)", word, re.I):
        what = f"{word!r} is not finite"
    start = int(state[codes.POSITION]) - block.address
    if block.final and all(
        block.buffer.find(tag, start, block.end) < 0 for tag in (END_OF_EVENT, END_OF_FILE)
    ):
        what = TRUNCATED
    return InputError(
        what,
        path=path,
        event=event,
        line=None if skip_bad else _line(path, block.offset + place),
        remedy=REMEDY,
    )


def _line(path: Path, offset: int) -> int:
    """Line number of a place in the text, by reading the file once more."""
    line = 1
    with open_text(path) as stream:
        while offset > 0:
            piece = stream.read(min(BLOCK, offset))
            if not piece:
                break
            line += piece.count(b"\n")
            offset -= len(piece)
    return line


def resume(block: Block, state: Any) -> int:
    """Place behind a bad event at which to continue."""
    start = int(state[codes.POSITION]) - block.address
    close = block.buffer.find(END_OF_EVENT, start, block.end)
    following = block.buffer.find(b"<event", start + 6, block.end if close < 0 else close)
    while following >= 0 and block.buffer[following + 6] not in b"> \t\r\n":
        following = block.buffer.find(b"<event", following + 6, block.end if close < 0 else close)
    if following >= 0:
        return following
    return close + 8 if close >= 0 else _closing(block, start)


def _closing(block: Block, start: int) -> int:
    place = block.buffer.find(END_OF_FILE, start, block.end)
    return place if place >= 0 else block.end


def solve(
    block: Block, state: Any, hard_at: Any, hard_value: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Convert with Python the numbers that the compiled parser left undecided."""
    count = int(state[codes.N_HARD])
    if count > len(hard_at):
        # Not all were noted; solve none, make room and let the parser note them again.
        state[codes.N_SOLVED] = 0
        return np.empty(2 * count, np.int64), np.empty(2 * count)
    for i in range(count):
        start = int(hard_at[i]) - block.address
        token = re.match(rb"[-+.\deEdD]*", block.buffer[start : start + MAX_TOKEN])
        try:
            hard_value[i] = fortran_float(token[0].decode()) if token else math.nan
        except ValueError:
            hard_value[i] = math.nan
    state[codes.N_SOLVED] = count
    return hard_at, hard_value
