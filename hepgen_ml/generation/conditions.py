"""Conditions of events to be generated: as in the sample, fixed, or from a file."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.errors import InputError, UsageError
from hepgen_ml.events.conditions import with_run_value
from hepgen_ml.events.sample import FloatArray, RunInfo
from hepgen_ml.process.conditions import Conditions, Given
from hepgen_ml.process.process import Process

_MAX_BYTES = 1 << 30
"""Largest file of values."""


class ConditionValues:
    """Conditions of events, one after the other.

    Parameters
    ----------
    conditions : Conditions
    values : (n, K) array, optional
        One row for all events, or one row for each event, starting again after the last; by default
        drawn as in the sample.
    """

    def __init__(self, conditions: Conditions, values: FloatArray | None = None) -> None:
        self.conditions, self.values, self.position = conditions, values, 0

    def next(self, n: int, rng: np.random.Generator, numbers: Tensor | None = None) -> Tensor:
        """Values (n, K) float64 of the next n events, or of those with these numbers (n,) of them.

        The latter do not count: `position` stays.
        """
        if self.values is None:
            return torch.from_numpy(self.conditions.draw(n, rng))
        after = np.arange(n) if numbers is None else numbers.numpy()
        rows = (self.position + after) % len(self.values)
        self.position += n if numbers is None else 0
        return torch.from_numpy(self.values[rows])

    @property
    def cross_section(self) -> float:
        """Mean cross section in pb of events with these conditions; nan if it is unknown."""
        if self.values is None:
            sigma = self.conditions.cross_section(self.conditions.points)
            return float((sigma * self.conditions.shares).sum())
        return float(self.conditions.cross_section(self.values).mean())

    def run(self, run: RunInfo) -> RunInfo:
        """Run information of events with these conditions, from that of the model."""
        sigma = self.cross_section
        if math.isfinite(sigma) and run.cross_section > 0:
            run = run.scaled(sigma / run.cross_section)
        header, values = run.header, self.values
        for k, c in enumerate(self.conditions.each):
            text = None  # events differ in it
            if values is not None and len(values) == 1:
                text = str(c.texts(values[:, k])[0]) if c.levels else f"{values[0, k]:.10e}"
            header = with_run_value(header, c.name, text)
        return run.with_(header=header)


def values_for(process: Process, condition: Given | None) -> FloatArray | None:
    """Values (n, K) of a mapping from the names of conditions; None for those of the sample.

    Raises
    ------
    UsageError
        The model has no such conditions, or a value is invalid.
    """
    if not condition:
        return None
    if process.conditions is None:
        raise UsageError(
            "the model has no conditions", remedy="train it with --condition NAME"
        )
    return process.conditions.given(condition)


def parse_given(texts: Sequence[str], conditions: Conditions | None) -> Given | None:
    """Parse the conditions of a command line: NAME=VALUE each, or one file of values.

    Raises
    ------
    UsageError, InputError
        The text is neither, or the file lacks the values.
    """
    if not texts:
        return None
    if conditions is None:
        raise UsageError(
            "the model has no conditions", remedy="train it with `hepgen-ml train --condition NAME`"
        )
    given: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if separator and not os.path.exists(text):
            if name.strip() in given:
                raise UsageError(
                    f"condition {name.strip()!r} is given twice", remedy="give each condition once"
                )
            given[name.strip()] = value.strip()
        elif len(texts) == 1:
            return read_values(Path(text), conditions)
        else:
            raise UsageError(
                f"--condition {text[:100]!r} is neither NAME=VALUE nor a file alone",
                remedy="write NAME=VALUE for each condition, or name one file of values",
            )
    return given


def read_values(path: Path, conditions: Conditions) -> Given:
    """Conditions of events from a file.

    An .npz file has an array of each; others are text, a value of each condition in a line,
    separated by commas or blanks, after a line of names unless there is one condition only.

    Raises
    ------
    InputError
        The file cannot be read or holds something else.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("is larger than any such file")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        return _read_text(path, conditions)
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}", path=path,
            remedy="write --condition NAME=VALUE, or name a file of values",
        ) from None  # fmt: skip
    except (ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"holds no conditions: {error}", path=path,
            remedy="write a line of names and a line of values for each event, or an .npz file",
        ) from None  # fmt: skip


def _read_text(path: Path, conditions: Conditions) -> Given:
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line.split("#")[0] if not line.startswith("#") else line.lstrip("# ")
                 for line in file]  # fmt: skip
    rows = [row for row in csv.reader(line.replace("\t", ",") if "," in line or "\t" in line
                                      else ",".join(line.split()) for line in lines) if row]
    rows = [[cell.strip() for cell in row] for row in rows]
    names = list(conditions.names)
    if rows and set(rows[0]) & set(names):
        conditions.check_names(rows[0])
        names = rows.pop(0)
    elif len(names) > 1:
        raise ValueError(f"the first line does not name {', '.join(names)}")
    if not rows:
        raise ValueError("no values")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(f"event {number + 1} has {len(row)} values, not {len(names)}")
    return {name: np.array([row[k] for row in rows]) for k, name in enumerate(names)}
