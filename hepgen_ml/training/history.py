"""History of a training, one row for each validation, and its table."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.files.outputs import write_text

log = logging.getLogger(__name__)

HISTORY = "history.csv"
"""Name of the table in a model directory."""

HISTORY_COLUMNS = (
    "step",
    "seconds",
    "learning_rate",
    "train_loss",
    "validation_loss",
    "validation_head_loss",
    "events_per_second",
)
"""Columns of the training of a surrogate."""


class History:
    """Rows of numbers; the table is rewritten after each of them.

    Parameters
    ----------
    path : Path or None
        File of the table; None to keep it in memory only.
    losses : iterable of str
        Names of the validation losses.

    Attributes
    ----------
    rows : list of dict
    """

    def __init__(self, path: Path | None, losses: Iterable[str]) -> None:
        self.path = path
        self.columns = (
            "step", "seconds", "learning_rate", "train_loss", *losses, "events_per_second",
        )  # fmt: skip
        self.rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        """Append a row with a number for each column."""
        self.rows.append(row)
        self.write()

    def restore(self, rows: Iterable[dict[str, float | None]]) -> None:
        """Restore the rows of a checkpoint, in which unknown numbers are None.

        Raises
        ------
        ValueError
            They have other columns.
        """
        self.rows = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
        if any(set(row) != set(self.columns) for row in self.rows):
            raise ValueError("history has other columns")
        self.write()

    def write(self) -> None:
        """Write the table."""
        if self.path is None:
            return
        lines = [",".join(self.columns)]
        lines += [",".join(f"{row[name]:.8g}" for name in self.columns) for row in self.rows]
        write_text(self.path, "\n".join(lines) + "\n")


def read_history(directory: Path) -> dict[str, npt.NDArray[np.float64]] | None:
    """Columns of a model's training history, None without a history."""
    path = directory / HISTORY
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [[float(row[c]) for c in HISTORY_COLUMNS] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        log.warning("%s is not a valid history and is left out: %s", path, error)
        return None
    if len(rows) < 2:  # no curve
        return None
    return dict(zip(HISTORY_COLUMNS, np.array(rows).T, strict=True))
