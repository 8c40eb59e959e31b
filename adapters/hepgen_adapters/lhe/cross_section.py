"""Cross sections of LHE files whose ``<init>`` block holds a placeholder."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe.stream import BLOCK, GZIP_ERRORS, open_text
from hepgen_ml.events.sample import RunInfo

_KEPT = 4096
"""Bytes kept of a block without an event, because an event may start there."""

_EVENT_LINE = rb"\s{0,8}\d{1,9}[ \t]{1,40}-?\d{1,9}[ \t]{1,40}([-+.\deE]{1,39})"
_TRIALS = re.compile(
    rb"<event\s[^<>]{0,400}?\btrials\s?=\s?['\"]\s{0,8}(\d{1,18})[^<>]{0,400}>" + _EVENT_LINE
)
_WEIGHT = re.compile(rb"<event(?:\s[^<>]{0,800})?()>" + _EVENT_LINE)


def with_weighted_cross_section(run: RunInfo, path: Path) -> RunInfo:
    """Run information with the cross section of the events, where the file states none.

    POWHEG prints -1 if the weights determine it: under strategies +-4 it is their mean, otherwise
    it is unknown. Sherpa prints 1 +- 1, because the value is known only at the end, and the number
    of trials with each event: the cross section is the sum of weights over that of trials.
    """
    found = [(p.cross_section, p.error) for p in run.processes]
    if found in ([(0.0, 0.0)], [(-1.0, -1.0)], [(-1.0, 0.0)], [(-1.0, 1.0)]):
        value, error = math.nan, math.nan
        if abs(run.weight_strategy) == 4:
            value, error = _by_weights(path, _WEIGHT)
    elif found == [(1.0, 1.0)]:
        value, error = _by_weights(path, _TRIALS)
        if math.isnan(value):
            return run
    else:
        return run
    (process,) = run.processes
    return run.with_(processes=(replace(process, cross_section=value, error=error),))


def _by_weights(path: Path, pattern: re.Pattern[bytes]) -> tuple[float, float]:
    """Sum of weights over that of trials with its statistical error; nan without trials.

    The pattern finds trials, none for one, and weight of each event.
    """
    sums = np.zeros(3)  # trials, weights, their squares
    n_events, tail = 0, b""
    try:
        with open_text(path) as stream:
            while piece := stream.read(BLOCK):
                text = tail + piece
                cut = text.rfind(b"<event")
                sums += _summed(pattern.findall(text, 0, cut if cut >= 0 else len(text)))
                n_events += text.count(b"<event", 0, max(cut, 0))
                tail = text[cut:] if cut >= 0 else text[-_KEPT:]
                if n_events and not sums[0]:
                    return math.nan, math.nan
            sums += _summed(pattern.findall(tail))
    except GZIP_ERRORS:
        return math.nan, math.nan  # reported when the events are read
    n = sums[0]
    if not n > 0 or not np.isfinite(sums).all():
        return math.nan, math.nan
    mean = sums[1] / n
    return float(mean), float(np.sqrt(max(sums[2] / n - mean**2, 0.0) / n))


def _summed(found: list[tuple[bytes, bytes]]) -> npt.NDArray[np.float64]:
    """Sums of trials, weights and squared weights."""
    if not found:
        return np.zeros(3)
    trials, weights = np.array(found, dtype="S40").T
    trials = np.where(trials == b"", b"1", trials)
    try:
        w = weights.astype(np.float64)
        return np.array([trials.astype(np.float64).sum(), w.sum(), (w**2).sum()])
    except ValueError:
        return np.full(3, np.nan)
