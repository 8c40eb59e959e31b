"""Decimal text to double precision and back, compiled, without the interpreter lock.

Reading follows D. Lemire, "Number parsing at a gigabyte per second"
(arXiv:2101.11408): exact, with the rare undecided token reported as `HARD` so
that the caller can ask Python. Digits are taken eight at a time from one
64-bit word. Writing scales the binary mantissa with one 64 x 64 -> 128 bit
product to an integer of 17 digits; the scaled value is off by less than 0.02
units of the last digit, and 0.055 would still return the same double.
"""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from __future__ import annotations

import numpy as np
from numba import njit

from hepgen_adapters.text.memory import (
    bits_float,
    float_bits,
    leading_zeros,
    load8,
    load16,
    load32,
    load64,
    load_long,
    multiply_high,
    opaque,
    store64,
    store_long,
    trailing_zeros,
)
from hepgen_adapters.text.memory import (
    store8 as store8,
)

OK, BAD, HARD, INFINITE = 0, 1, 2, 3

SMALLEST_POWER, LARGEST_POWER = -342, 345


def _powers_of_five():
    """Leading 128 bits of 5**q: truncated, and rounded up for -27 <= q < 0."""
    high, low = [], []
    for q in range(SMALLEST_POWER, LARGEST_POWER + 1):
        power = 5 ** abs(q)
        if q >= 0:
            shift = power.bit_length() - 128
            value = power >> shift if shift > 0 else power << -shift
        else:
            length = (power - 1).bit_length()
            # Rounded up where 5**q has an exact counterpart, so that ties are seen as such.
            extra = 127 if q >= -27 else length + 128
            value = (1 << (length + extra)) // power + 1
            value >>= value.bit_length() - 128
        high.append(value >> 64)
        low.append(value & (2**64 - 1))
    return np.array(high, dtype=np.uint64), np.array(low, dtype=np.uint64)


_HIGH, _LOW = _powers_of_five()
_EXACT = 10.0 ** np.arange(23)
_WHOLE = np.array([10**i for i in range(20)], dtype=np.uint64)
_ROOM = np.array([2**64 // 10**i - 1 for i in range(9)], dtype=np.uint64)

_B0 = np.uint64(0x3030303030303030)
_B76 = np.uint64(0x7676767676767676)
_B80 = np.uint64(0x8080808080808080)
_SPACES = np.uint64(0x2020202020202020)
_LANES = np.uint64(0x000000FF000000FF)
_MUL1 = np.uint64(0x000F424000000064)
_MUL2 = np.uint64(0x0000271000000001)
_10, _8, _16, _32, _63 = (np.uint64(i) for i in (10, 8, 16, 32, 63))
_0, _1, _3, _9, _52 = (np.uint64(i) for i in (0, 1, 3, 9, 52))
_1E8 = np.uint64(10**8)
_MASK9 = np.uint64(0x1FF)
_ONES = np.uint64(2**64 - 1)
_2P53 = np.uint64(2**53)
_2P52 = np.uint64(2**52)
_SIGN = np.uint64(1 << 63)


@njit(forceinline=True)
def _value(word):
    """Number with these eight digits, one a byte, the first in the lowest."""
    word = word * _10 + (word >> _8)
    return ((word & _LANES) * _MUL1 + ((word >> _16) & _LANES) * _MUL2) >> _32


@njit(forceinline=True)
def digits(address):
    """Value and number (at most 8) of the decimal digits at an address."""
    word = load64(address) ^ _B0
    other = ((word + _B76) | word) & _B80
    count = trailing_zeros(other) >> 3
    if count == 0:
        return _0, count
    return _value(word << np.uint64(64 - 8 * count)), count


@njit
def to_double(mantissa, power):
    """(value, status) of mantissa * 10**power, correctly rounded."""
    if mantissa <= _2P53 and -22 <= power <= 22:
        if power < 0:
            return np.float64(mantissa) / _EXACT[-power], OK
        return np.float64(mantissa) * _EXACT[power], OK
    if mantissa == _0:
        return 0.0, OK
    if power > 308:
        return 0.0, INFINITE
    if power < SMALLEST_POWER:
        return 0.0, HARD
    shift = leading_zeros(mantissa)
    mantissa <<= np.uint64(shift)
    index = power - SMALLEST_POWER
    high, low = multiply_high(mantissa, _HIGH[index]), mantissa * _HIGH[index]
    if high & _MASK9 == _MASK9:
        extra = multiply_high(mantissa, _LOW[index])
        low += extra
        if low < extra:
            high += _1
    if low == _ONES and not -27 <= power <= 55:
        return 0.0, HARD
    upper = high >> _63
    rounded = high >> (upper + _9)
    exponent = ((217706 * power) >> 16) + 63 + np.int64(upper) - shift + 1023
    if exponent <= 0:
        return 0.0, HARD
    if low <= _1 and -4 <= power <= 23 and rounded & _3 == _1 and rounded << (upper + _9) == high:
        rounded &= ~_1
    rounded = (rounded + (rounded & _1)) >> _1
    if rounded >= _2P53:
        rounded = _2P52
        exponent += 1
    if exponent >= 2047:
        return 0.0, INFINITE
    return bits_float((rounded & ~_2P52) | (np.uint64(exponent) << _52)), OK


@njit(forceinline=True)
def parse_float(address):
    """Number at an address: (address behind it, value, status).

    Takes what C and Fortran write: ``-.93E+03``, ``0.1D+03``, ``1.``, ``.5-101``.
    """
    # The common shapes first: 1. and 1.23456789...e+01 with up to 16 decimals.
    first = load8(address)
    negative = first == 45
    start = address + np.int64(negative or first == 43)
    head = np.uint64(load16(start))
    lead = (head & np.uint64(255)) - np.uint64(48)
    if lead < _10 and head >> _8 == np.uint64(46):
        if load8(start + 2) <= 32:
            value = np.float64(np.int64(lead))
            return start + 2, -value if negative else value, OK
        part, count = digits(start + 2)
        if count > 0:
            mantissa = lead * _WHOLE[count] + part
            behind = start + 6 + count
            if count == 8:
                part, more = digits(start + 10)
                mantissa = mantissa * _WHOLE[more] + part
                behind += more
                count += more
            tail = np.uint64(load32(behind - 4))
            sign = (tail >> _8) & np.uint64(255)
            word = (tail >> _16) ^ np.uint64(0x3030)
            if (
                (tail | np.uint64(32)) & np.uint64(255) == np.uint64(101)
                and (sign == np.uint64(43) or sign == np.uint64(45))
                and ((word + np.uint64(0x7676)) | word) & np.uint64(0x8080) == _0
                and load8(behind) <= 32
            ):
                exponent = np.int64(word & np.uint64(15)) * 10 + np.int64(word >> _8)
                power = (44 - np.int64(sign)) * exponent - count
                if mantissa <= _2P53 and -22 <= power <= 0:
                    value = np.float64(np.int64(mantissa)) / _EXACT[-power]
                    return behind, -value if negative else value, OK
                value, status = to_double(mantissa, power)
                return behind, -value if negative else value, status
    return parse_any_float(address)


@njit
def parse_any_float(address):
    """`parse_float` for every shape."""
    first = load8(address)
    negative = first == 45
    address += negative or first == 43
    start = address
    mantissa, count = digits(address)
    address += count
    total = count
    overflow = False
    while count == 8:
        part, count = digits(address)
        overflow |= mantissa > _ROOM[count]
        mantissa = mantissa * _WHOLE[count] + part
        address += count
        total += count
    power = np.int64(0)
    if load8(address) == 46:
        address += 1
        count = np.int64(8)
        while count == 8:
            part, count = digits(address)
            overflow |= mantissa > _ROOM[count]
            mantissa = mantissa * _WHOLE[count] + part
            address += count
            power -= count
        total -= power
    if total == 0:
        return start, 0.0, BAD
    letter = load8(address)
    lower = letter | np.uint8(32)
    if lower == 101 or lower == 100 or letter == 45 or letter == 43:
        address += lower >= 100
        sign = load8(address)
        address += sign == 45 or sign == 43
        part, count = digits(address)
        if count == 0:
            return start, 0.0, BAD
        address += count
        if count > 4:
            return address, 0.0, HARD
        power += -np.int64(part) if sign == 45 else np.int64(part)
    if overflow:
        return address, 0.0, HARD
    value, status = to_double(mantissa, power)
    return address, bits_float(float_bits(value) | (np.uint64(negative) << _63)), status


@njit(forceinline=True)
def parse_int(address):
    """32-bit integer at an address: (address behind it, value, status)."""
    first = load8(address)
    negative = first == 45
    address += negative or first == 43
    value, count = digits(address)
    address += count
    if count == 8:
        part, count = digits(address)
        if count > 2:
            return address, np.int64(0), BAD
        address += count
        value = value * _WHOLE[count] + part
        if value > np.uint64(2147483648 if negative else 2147483647):
            return address, np.int64(0), BAD
    elif count == 0:
        return address, np.int64(0), BAD
    return address, -np.int64(value) if negative else np.int64(value), OK


@njit(forceinline=True)
def follow(field, actual, width_at):
    """End of a field, through its width in the line before where that is still right.

    Most files are printed in columns. The processor then goes on with the next
    field without waiting for the digits of this one: twice the speed.
    """
    guess = field + load_long(width_at)
    if guess == actual:
        return opaque(guess)
    store_long(width_at, actual - field)
    return actual


@njit(forceinline=True)
def skip_blanks(address):
    """Address of the next byte that is neither space nor tab."""
    address += trailing_zeros(load64(address) ^ _SPACES) >> 3
    byte = load8(address)
    while byte == 32 or byte == 9:
        address += 1
        byte = load8(address)
    return address


_PAIRS = np.frombuffer("".join(f"{i:02d}" for i in range(100)).encode(), dtype=np.uint8).copy()
_1E16 = np.uint64(10**16)
_1E17 = np.uint64(10**17)
_100 = np.uint64(100)
_10000 = np.uint64(10000)


@njit(forceinline=True)
def _scaled(mantissa, exponent, power):
    """round(mantissa * 2**exponent * 10**power) for a result below 2**60."""
    index = power - SMALLEST_POWER
    factor = _HIGH[index] + (_LOW[index] >> _63)
    high = multiply_high(mantissa, factor) + ((mantissa * factor) >> _63)
    shift = np.uint64(-(exponent + ((217706 * power) >> 16) + 1))
    return (high + (_1 << (shift - _1))) >> shift


@njit(forceinline=True)
def _eight_digits(value):
    """Eight ASCII digits of a number below 1e8, the first in the lowest byte."""
    # Split into 4+4, 2+2 and 1+1 digits within the lanes of one word.
    upper = value // _10000
    word = upper | ((value - upper * _10000) << _32)
    tens = ((word * np.uint64(10486)) >> np.uint64(20)) & np.uint64(0x7F0000007F)
    word = tens | ((word - tens * _100) << _16)
    tens = ((word * np.uint64(103)) >> _10) & np.uint64(0x000F000F000F000F)
    return tens | ((word - tens * _10) << _8) | _B0


@njit
def format_float(address, value):
    """Write a finite number so that it reads back exactly; returns the address behind it.

    At most 24 bytes that count: sign, 17 digits without trailing zeros (at
    least one decimal), exponent. Up to 8 bytes more may be touched.
    """
    bits = float_bits(value)
    store8(address, np.uint8(45))
    address += np.int64(bits >> _63)
    bits &= ~_SIGN
    if bits == _0:
        store64(address, np.uint64(0x30302B65302E30))  # 0.0e+00
        return address + 7
    exponent = np.int64(bits >> _52)
    mantissa = bits & ~(np.uint64(0x7FF) << _52)
    if exponent == 0:
        exponent = np.int64(1)
    else:
        mantissa |= _2P52
    shift = leading_zeros(mantissa)
    mantissa <<= np.uint64(shift)
    exponent -= 1075 + shift
    decimal = ((exponent + 63) * 78913) >> 18  # floor(log10(2**n)), at most one too small
    number = _scaled(mantissa, exponent, 16 - decimal)
    if number >= _1E17:
        decimal += 1
        number = _scaled(mantissa, exponent, 16 - decimal)
        if number < _1E16:  # just below a power of ten, rounded up to it before
            number = _1E16
    elif number < _1E16:
        number = _1E16
    upper = number // _1E8
    lower = number - upper * _1E8
    lead = upper // _1E8
    upper -= lead * _1E8
    store8(address, np.uint8(lead + np.uint64(48)))
    store8(address + 1, np.uint8(46))
    word = _eight_digits(upper)
    store64(address + 2, word)
    address += 10
    if lower != _0:
        word = _eight_digits(lower)
        store64(address, word)
        address += 8
    zeros = leading_zeros(word ^ _B0) >> 3
    address -= zeros - (zeros == 8)
    sign = 45 if decimal < 0 else 43
    decimal = abs(decimal)
    store8(address, np.uint8(101))
    store8(address + 1, np.uint8(sign))
    address += 2
    if decimal >= 100:
        store8(address, np.uint8(48 + decimal // 100))
        decimal %= 100
        address += 1
    store8(address, _PAIRS[2 * decimal])
    store8(address + 1, _PAIRS[2 * decimal + 1])
    return address + 2


@njit
def format_int(address, value):
    """Write a 32-bit integer; returns the address behind it. Up to 11 bytes may be touched."""
    store8(address, np.uint8(45))
    address += value < 0
    rest = np.uint64(abs(np.int64(value)))
    if rest < _10:
        store8(address, np.uint8(rest + np.uint64(48)))
        return address + 1
    if rest >= _1E8:
        lead = rest // _1E8
        rest -= lead * _1E8
        if lead >= _10:
            store8(address, np.uint8(lead // _10 + np.uint64(48)))
            address += 1
        store8(address, np.uint8(lead % _10 + np.uint64(48)))
        store64(address + 1, _eight_digits(rest))
        return address + 9
    word = _eight_digits(rest)
    zeros = trailing_zeros(word ^ _B0) >> 3
    store64(address, word >> np.uint64(8 * zeros))
    return address + 8 - zeros
