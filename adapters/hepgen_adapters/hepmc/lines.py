"""Compiled check of the lines of a HepMC3 ASCII file, before a library reads them.

The library trusts what it reads: a backslash at the end of a line, or an attribute of a missing
particle, ends the process or changes the next event. Therefore the letter, the numbers and the
ranges of every line are checked here. Opening a file reads it once anyway.

The grammar (HepMC3's ``ReaderAscii``): ``E number n_vertices n_particles [@ x y z t]``,
``U GEV MM``, ``W weights``, ``A owner name value``, ``P id mother pdg_id px py pz e m status``,
``V id status [p,...] [@ x y z t]``; in front of the events ``W names``, ``N names``, ``T tool``,
``A name value``.
"""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

import numba
import numpy as np

from hepgen_adapters.text import memory as _lhe_memory
from hepgen_adapters.text import numbers as _lhe_numbers
from hepgen_adapters.text.memory import load8, source_version
from hepgen_adapters.text.numbers import BAD, HARD, parse_float, parse_int
from hepgen_ml.networks.compiled import compiled

# Places in the state.
N_EVENTS, IN_EVENT, ENDED, VERTICES, PARTICLES, N_VERTICES, N_PARTICLES = range(7)
"""Counts: events so far, and vertices and particles of the present event, announced and found."""
WEIGHTS, N_BEFORE, LINE, N_NAMES, BAD_EVENT, FIRST_NUMBER, OTHER_NUMBERS = range(7, 14)
NOT_FINITE = 14
"""Whether any weight is nan or infinite."""
STATE_SIZE = 15

# Codes of errors.
(
    FINE, UNKNOWN_LINE, WRONG_NUMBERS, WRONG_COUNT, WRONG_OWNER, WRONG_ID, WRONG_LINK, BACKSLASH,
    OUTSIDE, AFTER_END, ZERO_BYTE, WRONG_UNIT, TOO_LONG,
) = range(13)  # fmt: skip
WHAT = {
    UNKNOWN_LINE: "a line is none of HepMC3",
    WRONG_NUMBERS: "a line has too few numbers, too many, or something that is none",
    WRONG_COUNT: "it has other numbers of particles or vertices than it announces",
    WRONG_OWNER: "an attribute belongs to a particle or vertex that the event does not have",
    WRONG_ID: "particles are not numbered in their order",
    WRONG_LINK: "a particle or vertex is linked to one that does not come before it",
    BACKSLASH: "a text has a backslash that escapes nothing",
    OUTSIDE: "a line of an event stands outside of events",
    AFTER_END: "another event listing is joined to the first: split them, and name both files",
    ZERO_BYTE: "a line has a zero byte",
    WRONG_UNIT: "units are GEV or MEV, and MM or CM",
    TOO_LONG: "a line is longer than the 262,143 bytes that HepMC3 reads",
}
REMEDIES = {
    WRONG_LINK: "particles before the vertices that they enter, without circles: Sherpa writes "
    "such events with HEPMC_TREE_LIKE: true",
}
"""What helps where making the file again would not."""
LONGEST = (1 << 18) - 2


@numba.njit
def _blank(at):
    while load8(at) == 32 or load8(at) == 9:
        at += 1
    return at


@numba.njit
def _at_end(at, end):
    """Whether the rest of a line is blank, apart from a carriage return."""
    at = _blank(at)
    return at >= end or (load8(at) == 13 and at + 1 >= end)


@numba.njit
def _whole(at, end):
    """A 32-bit integer: (address behind it or 0, value)."""
    at = _blank(at)
    if at >= end:
        return np.int64(0), np.int64(0)
    behind, value, status = parse_int(at)
    byte = load8(behind)
    if status == BAD or behind <= at or behind > end or abs(value) > 2147483647:
        return np.int64(0), np.int64(0)
    if not (byte == 32 or byte == 9 or byte == 10 or byte == 13 or byte == 44 or byte == 93):
        return np.int64(0), np.int64(0)
    return behind, value


@numba.njit
def _real(at, end):
    """A number: (address behind it or 0, value), infinite if only Python can decide it."""
    at = _blank(at)
    if at >= end or load8(at) == 10 or load8(at) == 13:
        return np.int64(0), 0.0
    behind, value, status = parse_float(at)
    byte = load8(behind)
    if status == BAD or not (byte == 32 or byte == 9 or byte == 10 or byte == 13):
        # nan and inf, with or without a sign: checked with the event
        start = at + 1 if load8(at) == 43 or load8(at) == 45 else at
        letter = load8(start) | 32
        if letter != 110 and letter != 105:
            return np.int64(0), 0.0
        behind = start
        while behind < end and load8(behind) > 32:
            behind += 1
        if behind - start != 3 and behind - start != 8:
            return np.int64(0), 0.0
        value = np.nan
    elif status == HARD:
        value = np.inf
    return behind, value


@numba.njit
def _reals(at, end, n):
    """Address behind a given number of numbers, 0 if there are fewer."""
    for _ in range(n):
        at, _value = _real(at, end)
        if at == 0:
            return np.int64(0)
    return at


@numba.njit
def _position(at, end):
    """Whether a line ends here or with ``@ x y z t``."""
    if _at_end(at, end):
        return True
    at = _blank(at)
    if load8(at) != 64:
        return False
    at = _reals(at + 1, end, 4)
    return at != 0 and _at_end(at, end)


@numba.njit
def _escapes(at, end):
    """Whether each backslash escapes another one or a line end."""
    while at < end:
        if load8(at) == 92:
            following = load8(at + 1)
            if at + 1 >= end or (following != 92 and following != 124):
                return False
            at += 1
        at += 1
    return True


@numba.njit
def _word(at, end, text):
    """Address behind this word, 0 if it is another."""
    for k in range(len(text)):
        if at + k >= end or load8(at + k) != text[k]:
            return np.int64(0)
    behind = at + len(text)
    return behind if behind >= end or load8(behind) <= 32 else np.int64(0)


_GEV, _MEV, _MM, _CM, _SIGNAL = (
    np.frombuffer(t, dtype=np.uint8) for t in (b"GEV", b"MEV", b"MM", b"CM", b"signal_process_id")
)


@numba.njit
def _particle(at, end, state):
    at, number = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    if number != state[N_PARTICLES] + 1 or number > state[PARTICLES]:
        return WRONG_ID if number <= state[PARTICLES] else WRONG_COUNT
    at, mother = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    if mother >= number or mother < -state[VERTICES]:
        return WRONG_LINK
    at, _pdg_id = _whole(at, end)
    if at != 0:
        at = _reals(at, end, 5)
    if at != 0:
        at, _status = _whole(at, end)
    if at == 0 or not _at_end(at, end):
        return WRONG_NUMBERS
    state[N_PARTICLES] = number
    return FINE


@numba.njit
def _vertex(at, end, state):
    at, number = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    if number >= 0 or number < -state[VERTICES]:
        return WRONG_LINK
    at, _status = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    at = _blank(at)
    if load8(at) != 91:
        return WRONG_NUMBERS
    at += 1
    if load8(at) == 93:
        at += 1
    else:
        while True:
            at, incoming = _whole(at, end)
            if at == 0:
                return WRONG_NUMBERS
            if incoming < 1 or incoming > state[N_PARTICLES]:
                return WRONG_LINK
            byte = load8(at)
            at += 1
            if byte == 93:
                break
            if byte != 44:
                return WRONG_NUMBERS
    if not _position(at, end):
        return WRONG_NUMBERS
    state[N_VERTICES] += 1
    return FINE if state[N_VERTICES] <= state[VERTICES] else WRONG_COUNT


@numba.njit
def _attribute(at, end, state, process_id):
    at, owner = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    if owner > state[PARTICLES] or owner < -state[VERTICES]:
        return WRONG_OWNER
    at = _blank(at)
    if at >= end or load8(at) == 13:
        return WRONG_NUMBERS
    if owner == 0:
        behind = _word(at, end, _SIGNAL)
        if behind != 0:
            behind, value = _whole(behind, end)
            if behind != 0:
                process_id[state[N_EVENTS] - state[N_BEFORE]] = value
    return FINE if _escapes(at, end) else BACKSLASH


@numba.njit
def _weights(at, end, state, weight):
    n = 0
    while not _at_end(at, end):
        at, value = _real(at, end)
        if at == 0:
            return WRONG_NUMBERS
        if np.isnan(value):
            state[NOT_FINITE] = 1
        if n == 0:
            weight[state[N_EVENTS] - state[N_BEFORE]] = value
        n += 1
    state[WEIGHTS] = max(state[WEIGHTS], n)
    return FINE


@numba.njit
def _event(at, end, state):
    at, number = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    if state[N_EVENTS] == 1:
        state[FIRST_NUMBER] = number
    elif number != state[FIRST_NUMBER] + state[N_EVENTS] - 1:
        state[OTHER_NUMBERS] = 1
    at, vertices = _whole(at, end)
    if at == 0:
        return WRONG_NUMBERS
    at, particles = _whole(at, end)
    if at == 0 or not _position(at, end):
        return WRONG_NUMBERS
    if vertices < 0 or particles < 0:
        return WRONG_COUNT
    state[VERTICES], state[PARTICLES] = vertices, particles
    state[N_VERTICES] = state[N_PARTICLES] = 0
    return FINE


@numba.njit
def _unit(at, end):
    at = _blank(at)
    behind = max(_word(at, end, _GEV), _word(at, end, _MEV))
    if behind == 0:
        return WRONG_UNIT
    at = _blank(behind)
    behind = max(_word(at, end, _MM), _word(at, end, _CM))
    return FINE if behind != 0 and _at_end(behind, end) else WRONG_UNIT


def _build(version):
    @compiled(nogil=True)
    def check_lines(start, stop, state, weight, process_id):
        """Check complete lines; returns the code of an error, or FINE.

        Parameters
        ----------
        start, stop : int
            Addresses; `stop` is behind a line end, and zero bytes follow.
        state : (STATE_SIZE,) int64 array
            Carried from block to block. ``state[N_BEFORE]`` is the number of events that began
            before this block; the line of an error is ``state[LINE]``.
        weight : (1 + n,) float array
            First weight of the event that the block begins in, and of those that begin in it.
        process_id : (1 + n,) int64 array
        """
        if version == 0:  # part of the cache's key
            return -1
        at = start
        while at < stop:
            end = at
            while load8(end) != 10:
                if load8(end) == 0:
                    return ZERO_BYTE
                end += 1
            state[LINE] += 1
            letter = load8(at)
            blank = load8(at + 1) == 32
            inside = state[IN_EVENT] == 1
            status = FINE
            if end - at > LONGEST:
                status = TOO_LONG
            elif end == at or _at_end(at, end):
                pass
            elif letter == 72:  # HepMC::...
                if inside and state[N_PARTICLES] != state[PARTICLES]:
                    state[BAD_EVENT] = state[N_EVENTS]
                    return WRONG_COUNT
                if load8(at + 15) == 69:  # HepMC::Asciiv3-END_EVENT_LISTING
                    state[ENDED] = 1
                state[IN_EVENT] = 0
            elif state[ENDED] == 1:
                status = AFTER_END
            elif not blank:
                status = UNKNOWN_LINE
            elif letter == 69:  # E
                if inside and state[N_PARTICLES] != state[PARTICLES]:
                    state[BAD_EVENT] = state[N_EVENTS]
                    return WRONG_COUNT
                state[N_EVENTS] += 1
                state[IN_EVENT] = 1
                status = _event(at + 1, end, state)
            elif letter == 80:  # P
                status = _particle(at + 1, end, state) if inside else OUTSIDE
            elif letter == 86:  # V
                status = _vertex(at + 1, end, state) if inside else OUTSIDE
            elif letter == 65:  # A
                if inside:
                    status = _attribute(at + 1, end, state, process_id)
                elif not _escapes(at + 1, end):
                    status = BACKSLASH
            elif letter == 87:  # W
                if inside:
                    status = _weights(at + 1, end, state, weight)
                else:
                    state[N_NAMES] += 1
                    status = FINE if _escapes(at + 1, end) else BACKSLASH
            elif letter == 85:  # U
                status = _unit(at + 1, end) if inside else OUTSIDE
            elif letter == 78 or letter == 84:  # N, T
                status = FINE if _escapes(at + 1, end) else BACKSLASH
                if inside:
                    status = UNKNOWN_LINE
            else:
                status = UNKNOWN_LINE
            if status != FINE:
                state[BAD_EVENT] = state[N_EVENTS]
                return status
            at = end + 1
        return FINE

    return check_lines


check_lines = _build(source_version(_lhe_memory, _lhe_numbers))
