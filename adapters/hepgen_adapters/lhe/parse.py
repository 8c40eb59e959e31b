"""Compiled parser of `<event>` blocks: text straight into columns.

`parse_events` runs over a text that ends behind an ``</event>`` and stops when it needs its caller:
for more memory, an unknown name, a number that only Python can decide, or an error. An event counts
only when it is complete, so that the caller can call again.
"""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

import numpy as np

from hepgen_adapters.lhe import codes as _lhe_codes
from hepgen_adapters.lhe import tail as _lhe_tail
from hepgen_adapters.lhe.codes import (
    BAD_COUNT,
    BAD_MOTHER,
    BAD_NUMBER,
    BAD_TAG,
    END_OF_FILE,
    END_OF_TEXT,
    FEW_LINES,
    FOUND,
    HARD_NUMBERS,
    LONG_LINE,
    MARK,
    N_EVENTS,
    N_HARD,
    N_ROWS,
    N_SOLVED,
    NEW_ROOT,
    NO_EVENT_LEFT,
    NO_ROW_LEFT,
    NO_SPAN,
    NOT_FINITE,
    OPEN_COMMENT,
    POSITION,
    SHORT_LINE,
    SHORTEST_PARTICLE,
    UNCLOSED,
    WANTED,
)
from hepgen_adapters.lhe.tail import (
    CDATA_WORD,
    COMMENT_WORD,
    END_EVENT_WORD,
    END_FILE_WORD,
    EVENT_WORD,
    MASK4,
    MASK6,
    ROOT_WORD,
    find,
    find_end,
    is_space,
    parse_number,
    parse_tail,
    skip_space,
)
from hepgen_adapters.text import memory as _lhe_memory
from hepgen_adapters.text import numbers as _lhe_numbers
from hepgen_adapters.text.memory import (
    load8,
    load64,
    opaque,
    source_version,
    store_float,
    store_int,
)
from hepgen_adapters.text.numbers import (
    INFINITE,
    OK,
    follow,
    parse_float,
    parse_int,
    skip_blanks,
)
from hepgen_ml.networks.compiled import compiled


def _build(version):
    @compiled(nogil=True)
    def parse_events(
        end, state, offsets, ints, floats, process_id, event_floats, spans,
        weights, weight_table, by_position, scales, scale_table, hard_at, hard_value,
    ):  # fmt: skip
        """Parse events from ``state[POSITION]`` on.

        Parameters
        ----------
        end : int
            Address behind the text; at least 64 zero bytes follow it.
        state : (STATE_SIZE,) int64 array
        offsets : (capacity + 1,) int64 array
        ints : (6, rows) int32 array
            pdg_id, status, mother1, mother2, color1, color2.
        floats : (7, rows) float64 array
            px, py, pz, energy, mass, lifetime, spin.
        process_id : (capacity,) int32 array
        event_floats : (4, capacity) float64 array
            weight, scale, alpha_qed, alpha_qcd.
        spans : (capacity, 2) int64 array
            Addresses of the attributes of each ``<event ...>``; NO_SPAN where there are none.
        weights, scales : (capacity, names) float64 array
        weight_table, scale_table : (uint8 array, int64 array)
            Names, joined, and their bounds.
        by_position : int64 array
            Column of the i-th number of ``<weights>``.
        hard_at, hard_value : int64, float64 array
            Addresses of undecided numbers, and their values once decided.

        Returns
        -------
        int
            One of the codes above.
        """
        if version == 0:  # part of the cache's key
            return -1
        capacity, row_capacity = len(process_id), ints.shape[1]
        int_base, float_base = ints.ctypes.data, floats.ctypes.data
        int_step, float_step = 4 * row_capacity, 8 * row_capacity
        no_names = len(weight_table[1]) + len(scale_table[1]) == 2
        widths = np.zeros(13, np.int64)
        width_at = widths.ctypes.data
        address = state[POSITION]
        event, row = state[N_EVENTS], state[N_ROWS]
        while True:
            while True:
                address = skip_space(address)
                if address >= end:
                    state[POSITION] = end
                    return END_OF_TEXT
                word = load64(address)
                if word & MASK6 == EVENT_WORD:
                    byte = load8(address + 6)
                    if byte == 62 or is_space(byte):
                        break
                elif word == END_FILE_WORD:
                    state[POSITION] = address
                    return END_OF_FILE
                elif word == ROOT_WORD:
                    state[POSITION] = address
                    return NEW_ROOT
                elif word & MASK4 == COMMENT_WORD or word == CDATA_WORD:
                    behind = find_end(address + 4, end, word == CDATA_WORD)
                    if behind == 0:
                        state[POSITION] = address
                        return OPEN_COMMENT
                    address = behind
                    continue
                address = find(address + 1, end, 60)
            state[POSITION] = address
            if event >= capacity:
                return NO_EVENT_LEFT
            state[N_HARD] = 0
            state[MARK] = address
            spans[event, 0] = NO_SPAN
            address += 6
            if load8(address) != 62:
                spans[event, 0] = address
                quote = np.uint8(0)
                byte = load8(address)
                while address < end and (byte != 62 or quote != 0):
                    if quote != 0:
                        if byte == quote:
                            quote = np.uint8(0)
                    elif byte == 34 or byte == 39:
                        quote = byte
                    elif byte == 60:
                        break
                    address += 1
                    byte = load8(address)
                if byte != 62:
                    return BAD_TAG
                spans[event, 1] = address
            address = skip_space(address + 1)
            while load64(address) & MASK4 == COMMENT_WORD:
                state[MARK] = address
                address = find_end(address + 4, end, False)
                if address == 0:
                    return UNCLOSED
                address = skip_space(address)
            state[MARK] = address
            if load8(address) == 60:
                return SHORT_LINE
            address, count, status = parse_int(address)
            if status != OK or not is_space(load8(address)):
                return BAD_NUMBER
            if count < 0 or count * SHORTEST_PARTICLE > end - address:
                return BAD_COUNT
            address = skip_blanks(address)
            state[MARK] = address
            behind, number, status = parse_int(address)
            if status != OK or not is_space(load8(behind)):
                byte = load8(address)
                return SHORT_LINE if is_space(byte) or byte == 60 else BAD_NUMBER
            process_id[event] = number
            address = behind
            for column in range(4):
                address = skip_blanks(address)
                state[MARK] = address
                behind, value, status = parse_number(address, state, hard_at, hard_value)
                if status != OK:
                    byte = load8(address)
                    if is_space(byte) or byte == 60:
                        return SHORT_LINE
                    return NOT_FINITE if status == INFINITE else BAD_NUMBER
                event_floats[column, event] = value
                address = behind
            if row + count > row_capacity:
                state[WANTED] = row + count
                return NO_ROW_LEFT
            for particle in range(count):
                # The rest of the line before: empty but for a comment.
                byte = load8(address)
                if byte != 10:
                    address = skip_blanks(address)
                    byte = load8(address)
                    if byte == 35:
                        address = find(address, end, 10)
                    elif byte != 10 and byte != 13 and byte != 60:
                        state[MARK] = address
                        return LONG_LINE
                address = skip_blanks(address + 1 if byte == 10 else address)
                byte = load8(address)
                if is_space(byte):
                    address = skip_space(address)
                    byte = load8(address)
                while byte == 60 and load64(address) & MASK4 == COMMENT_WORD:
                    state[MARK] = address
                    address = find_end(address + 4, end, False)
                    if address == 0:
                        return UNCLOSED
                    address = skip_space(address)
                    byte = load8(address)
                if byte == 60 or byte == 35 or byte == 0:
                    state[MARK] = address
                    state[FOUND], state[WANTED] = particle, count
                    return FEW_LINES
                store = int_base + 4 * (row + particle)
                field = address
                mothers_wrong = False
                for column in range(opaque(6)):
                    behind, number, status = parse_int(address)
                    if status != OK or load8(behind) > 32:
                        # Some programs write whole numbers as 1.0.
                        state[MARK] = address
                        byte = load8(address)
                        if is_space(byte) or byte == 60:
                            state[FOUND] = column
                            return SHORT_LINE
                        behind, value, status = parse_number(address, state, hard_at, hard_value)
                        if status != OK or value != np.rint(value) or abs(value) > 2147483647:
                            return BAD_NUMBER
                        number = np.int64(value)
                    if column == 2 or column == 3:
                        mothers_wrong |= number < 0 or number > count
                    store_int(store, np.int32(number))
                    store += int_step
                    # The first column is seldom aligned.
                    field = follow(field, behind, width_at + 8 * column) if column else behind
                    address = skip_blanks(field)
                if mothers_wrong:
                    state[MARK] = address
                    state[FOUND], state[WANTED] = particle + 1, count
                    return BAD_MOTHER
                store = float_base + 8 * (row + particle)
                for column in range(opaque(7)):
                    behind, value, status = parse_float(address)
                    if status != OK or load8(behind) > 32:
                        state[MARK] = address
                        byte = load8(address)
                        if is_space(byte) or byte == 60:
                            state[FOUND] = column + 6
                            return SHORT_LINE
                        behind, value, status = parse_number(address, state, hard_at, hard_value)
                        if status != OK:
                            return NOT_FINITE if status == INFINITE else BAD_NUMBER
                    store_float(store, value)
                    store += float_step
                    field = follow(field, behind, width_at + 48 + 8 * column)
                    address = skip_blanks(field)
            byte = load8(address)
            if not is_space(byte) and byte != 35 and byte != 60:
                state[MARK] = address
                return LONG_LINE
            address = skip_space(address)
            if load64(address) == END_EVENT_WORD and no_names:
                address += 8
            else:
                address, status = parse_tail(
                    address, end, event, state, weights, weight_table, by_position,
                    scales, scale_table, hard_at, hard_value,
                )  # fmt: skip
                if status != OK:
                    return status
            if state[N_HARD] > state[N_SOLVED]:
                return HARD_NUMBERS
            state[N_SOLVED] = 0
            event += 1
            row += count
            offsets[event] = row
            state[POSITION], state[N_EVENTS], state[N_ROWS] = address, event, row

    return parse_events


parse_events = _build(source_version(_lhe_codes, _lhe_memory, _lhe_numbers, _lhe_tail))
