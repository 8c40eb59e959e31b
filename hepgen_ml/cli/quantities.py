"""Times, numbers of events, sizes and cross sections as the command line reads and shows them."""

from __future__ import annotations

import re

from hepgen_ml.errors import UsageError

_DURATION = re.compile(
    r"(?:(\d+(?:\.\d*)?)d)?(?:(\d+(?:\.\d*)?)h)?(?:(\d+(?:\.\d*)?)m)?(?:(\d+(?:\.\d*)?)s?)?"
)


def parse_duration(text: str) -> float:
    """Seconds in ``90s``, ``20m``, ``1h30m``, ``1d`` or a plain number of seconds.

    Raises
    ------
    UsageError
        Anything else, and nothing at all.

    Examples
    --------
    >>> parse_duration("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if match is None or not any(match.groups()):
        raise UsageError(f"{text!r} is not a time", remedy="write 90s, 20m or 1h30m")
    d, h, m, s = (float(part or 0) for part in match.groups())
    seconds = ((d * 24 + h) * 60 + m) * 60 + s
    if seconds <= 0:
        raise UsageError(f"{text!r} is too short a time", remedy="write 90s, 20m or 1h30m")
    return seconds


def parse_shard(text: str) -> tuple[int, int]:
    """Index and number of shards in ``i/n``, i from 0.

    Raises
    ------
    UsageError
        Anything that is not 0 <= i < n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(
            f"{text!r} is not a shard", remedy="write i/n with i from 0 to n-1: 0/8 … 7/8"
        )
    return int(match[1]), int(match[2])


def parse_count(text: str) -> int:
    """Positive whole number in ``50000``, ``50_000`` or ``5e4``.

    Raises
    ------
    UsageError
        Anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 2**53 or value != int(value):
        raise UsageError(f"{text!r} is not a number of events", remedy="write 50000 or 5e4")
    return int(value)


def duration(seconds: float) -> str:
    """``1 h 02 min``, ``3 min 05 s`` or ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def file_size(n_bytes: float) -> str:
    """Size with a decimal prefix.

    Examples
    --------
    >>> file_size(2322547)
    '2.32 MB'
    """
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while n_bytes >= 1000 and power < len(units) - 1:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.3g} {units[power]}"


def cross_section(value: float | None, error: float | None) -> str:
    """Cross section and error in pb, two digits of the error; None or nan where not known.

    Examples
    --------
    >>> cross_section(1078.6123, 0.4061)
    '1078.61 ± 0.41 pb'
    >>> cross_section(None, None)
    'not known'
    """
    from math import floor, isfinite, log10

    if value is None or not isfinite(value):
        return "not known"
    if error is None or not (isfinite(error) and error > 0):
        return f"{value:.6g} pb"
    digits = 1 - floor(log10(error))
    if -3 < digits < 8:
        return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f} pb"
    return f"{value:.6g} ± {error:.2g} pb"


def stated_cross_section(value: float, error: float) -> str:
    """`cross_section` as a phrase that names the quantity."""
    text = cross_section(value, error)
    return f"cross section {text}" if text == "not known" else text
