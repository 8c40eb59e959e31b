"""Compiled number parsing and formatting against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from hepgen_adapters.text import numbers as numbers
from hepgen_adapters.text.memory import PADDING
from numba import njit


@njit
def _parse(base, offsets, values, statuses):
    for i in range(len(offsets)):
        _, values[i], statuses[i] = numbers.parse_float(base + offsets[i])


@njit
def _parse_ints(base, offsets, values, statuses):
    for i in range(len(offsets)):
        _, values[i], statuses[i] = numbers.parse_int(base + offsets[i])


@njit
def _format(base, values, stride, lengths):
    for i in range(len(values)):
        lengths[i] = numbers.format_float(base + i * stride, values[i]) - (base + i * stride)


@njit
def _format_ints(base, values, stride, lengths):
    for i in range(len(values)):
        lengths[i] = numbers.format_int(base + i * stride, values[i]) - (base + i * stride)


def parse_tokens(tokens, kernel=_parse, dtype=float):
    text = ("\n".join(tokens) + "\n").encode() + bytes(PADDING)
    buffer = np.frombuffer(text, np.uint8)
    offsets = np.cumsum([0] + [len(t) + 1 for t in tokens])[:-1]
    values, statuses = np.empty(len(tokens), dtype), np.empty(len(tokens), np.int64)
    kernel(buffer.ctypes.data, offsets, values, statuses)
    return values, statuses


def format_values(values, kernel=_format):
    stride = 40
    buffer = np.zeros(len(values) * stride + PADDING, np.uint8)
    lengths = np.empty(len(values), np.int64)
    kernel(buffer.ctypes.data, values, stride, lengths)
    assert lengths.max() <= 24
    text = buffer.tobytes().decode("ascii")
    return [text[i * stride : i * stride + n] for i, n in enumerate(lengths.tolist())]


def same_bits(a, b):
    return np.array_equal(np.asarray(a).view(np.uint64), np.asarray(b).view(np.uint64))


def edge_cases():
    powers = [2.0**k for k in range(-1074, 1024)] + [float(f"1e{k}") for k in range(-323, 309)]
    powers += [9.9999999999999989e22, 1e23, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
    x = np.array(powers)
    x = np.concatenate([x, np.nextafter(x, 0), np.nextafter(x[x < 1.7e308], np.inf)])
    return np.concatenate([[0.0], x, [-0.0], -x])


@pytest.fixture(scope="module")
def doubles():
    rng = np.random.default_rng(20)
    bits = rng.integers(0, 2**64, 2_000_000, dtype=np.uint64).view(np.float64)
    parts = [bits[np.isfinite(bits)], rng.normal(0, 300, 1_000_000), edge_cases()]
    return np.concatenate([*parts, rng.integers(-(10**6), 10**6, 100_000).astype(float)])


def test_format_reads_back_exactly(doubles):
    tokens = format_values(doubles)
    assert same_bits(np.array([float(t) for t in tokens]), doubles)


def test_format_is_the_correctly_rounded_decimal_almost_always(doubles):
    some = doubles[::97]
    expected = [f"{x:.16e}" for x in some]
    got = [f"{float(t):.16e}" for t in format_values(some)]
    assert got == expected


def test_parse_own_format(doubles):
    values, statuses = parse_tokens(format_values(doubles))
    sure = statuses == numbers.OK
    assert same_bits(values[sure], doubles[sure])
    assert set(np.unique(statuses)) <= {numbers.OK, numbers.HARD}
    normal = np.abs(doubles) > 1e-300
    assert sure[normal].mean() > 0.9999


STYLES = [
    "{:.11E}",
    "{:.7e}",
    "{:.9E}",
    "{!r}",
    "{:.16e}",
    "{:.18e}",
    "{:.6f}",
    "{:+.10e}",
    "{:.0f}.",
]


@pytest.mark.parametrize("style", STYLES)
def test_parse_as_python_does(style):
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 40_000) * 10.0 ** rng.uniform(-12, 12, 40_000)])
    tokens = [style.format(float(x)) for x in values]
    parsed, statuses = parse_tokens(tokens)
    sure = statuses == numbers.OK
    assert same_bits(parsed[sure], np.array([float(t) for t in tokens])[sure])
    assert not (statuses == numbers.BAD).any()
    if style != "{:.18e}":
        assert sure.mean() > 0.99


def test_parse_random_decimals():
    rng = np.random.default_rng(4)
    mantissas = rng.integers(0, 2**63, 300_000)
    mantissas >>= rng.integers(0, 60, 300_000)
    powers = np.where(rng.random(300_000) < 0.5, rng.integers(-30, 30, 300_000), 0)
    powers += rng.integers(-330, 290, 300_000) * (rng.random(300_000) < 0.3)
    tokens = [f"{m}e{p}" for m, p in zip(mantissas.tolist(), powers.tolist(), strict=True)]
    parsed, statuses = parse_tokens(tokens)
    expected = np.array([float(t) for t in tokens])
    sure = statuses == numbers.OK
    assert same_bits(parsed[sure], expected[sure])
    assert np.isinf(expected[statuses == numbers.INFINITE]).all()


def test_parse_ties():
    # Odd multiples of half the spacing: the last digit decides nothing, evenness does.
    rng = np.random.default_rng(5)
    odd = (2**53 + rng.integers(0, 2**40, 200_000)) * 2 + 1
    shifts = rng.integers(0, 4, len(odd)).tolist()
    tokens = [f"{m}{'0' * s}e-{s}" for m, s in zip(odd.tolist(), shifts, strict=True)]
    tokens += [f"{m}.{'0' * s}" for m, s in zip(odd.tolist(), shifts, strict=True)]
    parsed, statuses = parse_tokens(tokens)
    sure = statuses == numbers.OK
    assert sure.mean() > 0.3
    assert same_bits(parsed[sure], np.array([float(t) for t in tokens])[sure])


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("-.93544317E+03", -0.93544317e3),
        ("0.1D+03", 100.0),
        ("0.1d-03", 1e-4),
        ("+0.0", 0.0),
        ("-0.", -0.0),
        (".5-101", 5e-102),
        ("0.12345678+123", 0.12345678e123),
        ("0.1234-100", 0.1234e-100),
        ("1", 1.0),
        ("-1.", -1.0),
        ("0.00000000000E+00", 0.0),
        ("12345678901234567", 12345678901234567.0),
        ("1E5", 1e5),
    ],
)
def test_parse_fortran(token, value):
    parsed, statuses = parse_tokens([token])
    assert statuses[0] == numbers.OK
    assert same_bits(parsed, np.array([value]))


@pytest.mark.parametrize(
    "token", ["nan", "inf", "-Infinity", "x", "-", ".", "+.", "1e", "1e+", "**"]
)
def test_parse_refuses(token):
    assert parse_tokens([token])[1][0] == numbers.BAD


def test_integers():
    rng = np.random.default_rng(6)
    edges = [
        0,
        2**31 - 1,
        -(2**31),
        *(s * 10**k + d for k in range(10) for s in (1, -1) for d in (-1, 0, 1)),
    ]
    values = np.concatenate(
        [rng.integers(-(2**31), 2**31, 50_000), rng.integers(-2000, 2000, 50_000), edges]
    )
    values = values[np.abs(values) < 2**31]
    tokens = format_values(values, _format_ints)
    assert tokens == [str(v) for v in values.tolist()]
    parsed, statuses = parse_tokens(tokens, _parse_ints, np.int64)
    assert (statuses == numbers.OK).all()
    assert np.array_equal(parsed, values)


@pytest.mark.parametrize(
    "token", ["2147483648", "-2147483649", "12345678901", "99999999999999", "x"]
)
def test_integers_out_of_range(token):
    assert parse_tokens([token], _parse_ints, np.int64)[1][0] == numbers.BAD
