"""Compiled parser of the text between the particles and `</event>`: weights, scales."""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

from hepgen_adapters.lhe.codes import (
    BAD_NUMBER,
    BAD_TAG,
    MANY_LINES,
    MARK,
    MARK_END,
    MAX_NAME,
    N_HARD,
    N_NO_WEIGHT,
    N_SOLVED,
    NEW_POSITION,
    NEW_SCALE,
    NEW_WEIGHT,
    NOT_FINITE,
    UNCLOSED,
)
from hepgen_adapters.text.memory import (
    load8,
    load64,
)
from hepgen_adapters.text.numbers import (
    BAD,
    HARD,
    INFINITE,
    OK,
    parse_float,
)


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _mask(length: int) -> np.uint64:
    return np.uint64((1 << 8 * length) - 1)


END_EVENT_WORD, END_FILE_WORD = _word(b"</event>"), _word(b"</LesHou")
EVENT_WORD, _WGT, _WEIGHTS, _SCALES = (
    _word(t) for t in (b"<event", b"<wgt", b"<weights", b"<scales")
)
_END_WGT, _RWGT, COMMENT_WORD, _END_SCALES = (
    _word(t) for t in (b"</wgt>", b"<rwgt", b"<!--", b"</scales")
)
ROOT_WORD = _word(b"<LesHouc")
CDATA_WORD = _word(b"<![CDATA")
_MASK3, MASK4, _MASK5, MASK6, _MASK7 = (_mask(n) for n in (3, 4, 5, 6, 7))
_COMMENT_END, _CDATA_END = _word(b"-->"), _word(b"]]>")


@njit(forceinline=True)
def is_space(byte):
    """Whether a byte is white space."""
    return byte == 32 or byte == 10 or byte == 13 or byte == 9


@njit
def skip_space(address):
    """Address of the first byte that is not white space."""
    while is_space(load8(address)):
        address += 1
    return address


@njit
def find(address, end, byte):
    """Address of the next such byte, or `end`."""
    while address < end and load8(address) != byte:
        address += 1
    return address


@njit
def find_end(address, end, cdata):
    """Address behind the end of a comment or CDATA section; 0 if it does not end."""
    ending = _CDATA_END if cdata else _COMMENT_END
    while address + 3 <= end:
        if load64(address) & _MASK3 == ending:
            return address + 3
        address += 1
    return np.int64(0)


@njit
def _no_number(address, end):
    """Address behind a word that is not a number."""
    byte = load8(address)
    while address < end and byte != 60 and not is_space(byte):
        address += 1
        byte = load8(address)
    return address


@njit
def parse_number(address, state, hard_at, hard_value):
    """A number of the tail or event line; undecided ones are looked up or recorded."""
    behind, value, status = parse_float(address)
    if status == HARD:
        index = state[N_HARD]
        if index < state[N_SOLVED]:
            value = hard_value[index]
        elif index < len(hard_at):
            hard_at[index] = address
        state[N_HARD] = index + 1
        status = OK
        if not np.isfinite(value):
            status = INFINITE
    byte = load8(behind)
    if status == OK and not (is_space(byte) or byte == 60 or byte == 34 or byte == 39):
        status = BAD
    return behind, value, status


@njit
def _attribute(address, end, state):
    """Next ``name = 'value'`` of a tag: (behind, name, name end, value, value end).

    A name of no length means that the tag ends here; `behind` is 0 on an error.
    """
    address = skip_space(address)
    name = address
    byte = load8(address)
    if byte == 62 or byte == 47:
        return address, name, name, name, name
    while address < end and byte != 61 and byte != 62 and byte != 60 and not is_space(byte):
        address += 1
        byte = load8(address)
    name_end = address
    address = skip_space(address)
    state[MARK] = name
    if load8(address) != 61:
        return np.int64(0), name, name, name, name
    address = skip_space(address + 1)
    quote = load8(address)
    if quote != 34 and quote != 39:
        return np.int64(0), name, name, name, name
    value = address + 1
    value_end = find(value, end, quote)
    if value_end >= end or name_end == name:
        return np.int64(0), name, name, name, name
    return value_end + 1, name, name_end, value, value_end


@njit
def _lookup(name, end, names, bounds, n_names, hint):
    """Index of a name in the table, `hint` tried first; -1 when it is new."""
    length = end - name
    for step in range(n_names):
        index = hint + step
        if index >= n_names:
            index -= n_names
        start = bounds[index]
        if bounds[index + 1] - start == length:
            same = 0
            while same < length and names[start + same] == load8(name + same):
                same += 1
            if same == length:
                return index
    return -1


@njit
def _skip_element(address, end):
    """Address behind an ignored element: behind its closing tag, or behind the tag itself."""
    name = address + 1
    name_end = name
    byte = load8(name_end)
    while name_end < end and byte != 62 and byte != 47 and not is_space(byte):
        name_end += 1
        byte = load8(name_end)
    tag_end = find(address, end, 62)
    if load8(tag_end - 1) == 47:
        return tag_end + 1
    place = tag_end
    while True:
        place = find(place, end, 60)
        if place >= end or load64(place) == END_EVENT_WORD:
            return tag_end + 1
        if load8(place + 1) == 47:
            same = 0
            while same < name_end - name and load8(place + 2 + same) == load8(name + same):
                same += 1
            if same == name_end - name:
                return find(place, end, 62) + 1
        place += 1


@njit
def parse_tail(
    address, end, event, state, weights, weight_table, by_position, scales, scale_table,
    hard_at, hard_value,
):  # fmt: skip
    """Parse the text between the last particle and ``</event>``: (address behind it, status)."""
    names, bounds = weight_table
    n_names = len(bounds) - 1
    weights[event, :] = np.nan
    scales[event, :] = np.nan
    hint = 0
    while True:
        address = skip_space(address)
        state[MARK] = address
        if address >= end:
            return address, UNCLOSED
        byte = load8(address)
        if byte == 35:
            address = find(address, end, 10)
            continue
        if byte != 60:
            if 48 <= byte <= 57 or byte == 43 or byte == 45 or byte == 46:
                return address, MANY_LINES
            while address < end and byte != 10 and byte != 60:
                address += 1
                byte = load8(address)
            continue
        word = load64(address)
        if word == END_EVENT_WORD:
            return address + 8, OK
        if word in (END_FILE_WORD, ROOT_WORD) or word & MASK6 == EVENT_WORD:
            return address, UNCLOSED
        if word & MASK4 == _WGT and (is_space(load8(address + 4)) or load8(address + 4) == 62):
            place, name, name_end = address + 4, np.int64(0), np.int64(0)
            value, value_end = name, name
            while True:
                place, name, name_end, value, value_end = _attribute(place, end, state)
                if place == 0 or name == name_end:
                    return address, BAD_TAG
                if name_end - name == 2 and load8(name) == 105 and load8(name + 1) == 100:
                    break
            index = _lookup(value, value_end, names, bounds, n_names, hint)
            state[MARK], state[MARK_END] = value, value_end
            if index < 0 or not np.isnan(weights[event, index]):
                # a new or repeated id is another weight
                return address, BAD_TAG if value_end - value > MAX_NAME else NEW_WEIGHT
            hint = index + 1
            address = skip_space(find(place, end, 62) + 1)
            state[MARK] = address
            behind, number, status = parse_number(address, state, hard_at, hard_value)
            if status != OK:
                # a variation without a number does not invalidate the event
                behind, number = _no_number(address, end), np.nan
                state[N_NO_WEIGHT] += 1
            weights[event, index] = number
            address = skip_space(behind)
            if load64(address) & MASK6 == _END_WGT:
                address += 6
        elif word == _WEIGHTS:
            address = skip_space(find(address, end, 62) + 1)
            position = 0
            while load8(address) != 60:
                state[MARK] = address
                if position >= len(by_position):
                    return address, NEW_POSITION
                behind, number, status = parse_number(address, state, hard_at, hard_value)
                if status != OK:
                    behind, number = _no_number(address, end), np.nan
                    if behind == address:
                        return address, BAD_NUMBER
                    state[N_NO_WEIGHT] += 1
                weights[event, by_position[position]] = number
                position += 1
                address = skip_space(behind)
            address = find(address, end, 62) + 1
        elif word & _MASK7 == _SCALES:
            place = address + 7
            scale = 0
            while True:
                place, name, name_end, value, value_end = _attribute(place, end, state)
                if place == 0:
                    return address, BAD_TAG
                if name == name_end:
                    break
                index = _lookup(
                    name, name_end, scale_table[0], scale_table[1], len(scale_table[1]) - 1, scale
                )
                state[MARK], state[MARK_END] = name, name_end
                if index < 0:
                    return address, BAD_TAG if name_end - name > MAX_NAME else NEW_SCALE
                scale = index + 1
                state[MARK] = skip_space(value)
                behind, number, status = parse_number(state[MARK], state, hard_at, hard_value)
                if status != OK:
                    return address, NOT_FINITE if status == INFINITE else BAD_NUMBER
                if skip_space(behind) != value_end:
                    return address, BAD_NUMBER
                scales[event, index] = number
            closed = load8(place) == 47
            address = find(place, end, 62) + 1
            if not closed:
                while address < end and load64(address) != _END_SCALES:
                    if load64(address) == END_EVENT_WORD:
                        return address, BAD_TAG
                    address += 1
                address = find(address, end, 62) + 1
        elif word & MASK4 == COMMENT_WORD:
            address = find_end(address + 4, end, False)
            if address == 0:
                return state[MARK], UNCLOSED
        elif word == CDATA_WORD:
            address = find_end(address + 9, end, True)
            if address == 0:
                return state[MARK], UNCLOSED
        elif word & _MASK5 == _RWGT or load8(address + 1) == 47:
            address = find(address, end, 62) + 1
        else:
            address = _skip_element(address, end)
