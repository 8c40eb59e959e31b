"""Conditions of the user as numbers: their ranges, how often they occur, cross sections.

`hepgen_ml.events.conditions` treats their names and their values in a sample.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.conditions import Wanted, number_of, texts_of
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.phase_space.laws import Kind, Law, fit_law

log = logging.getLogger(__name__)

MOST_POINTS = 2000
"""Number of events whose conditions represent the distribution of continuous conditions."""

MOST_CATEGORIES = 200
"""Largest number of values of a categorical condition."""

_WIDE = 1.5
"""Ratio of largest and smallest value above which a positive condition enters by its logarithm."""

_NAMED = 8
"""Values that a message names."""

Given = Mapping[str, float | str | npt.ArrayLike]
"""Values by the names of conditions: one for all events, or one of each."""


@dataclass(frozen=True)
class Condition:
    """One condition of a trained model.

    Attributes
    ----------
    wanted : Wanted
    low, high : float
        Range of a continuous one in the sample.
    levels : tuple of str
        Values of a categorical one; none of a continuous one.
    """

    wanted: Wanted
    low: float = 0.0
    high: float = 0.0
    levels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name as written by the user."""
        return self.wanted.name

    @property
    def kind(self) -> Kind:
        """Transformation in functions of conditions."""
        if self.levels:
            return "category"
        return "log" if self.low > 0 and self.high > _WIDE * self.low else "linear"

    def numbers(self, texts: npt.NDArray[np.str_], first: int = 0) -> FloatArray:
        """Numbers (n,) for values (n,) as written; for categories the numbers of their levels.

        Raises
        ------
        SampleError
            A value is invalid.
        """
        found, inverse = np.unique(texts, return_inverse=True)
        values = [self.number(str(text)) for text in found]
        wrong = next((i for i, v in enumerate(values) if v is None), None)
        if wrong is not None:
            raise SampleError(
                f"condition {self.name!r} is {str(found[wrong])[:100]!r}, which is "
                + ("not one of its categories" if self.levels else "not a finite number"),
                event=first + int(np.flatnonzero(inverse.ravel() == wrong)[0]) + 1,
                remedy=f"the model knows {self.range}",
            )
        result = np.array(values, dtype=np.float64)[inverse.ravel()]
        lost = np.flatnonzero(self.without_logarithm(result))
        if lost.size:
            raise SampleError(
                f"condition {self.name!r} is {result[lost[0]]:.6g}; it enters by its logarithm",
                event=first + int(lost[0]) + 1,
                remedy=f"the model knows {self.range}: take values above zero",
            )
        return result

    def without_logarithm(self, values: FloatArray) -> npt.NDArray[np.bool_]:
        """Mask of the values (n,) that are not positive, if it enters by its logarithm."""
        return (values <= 0) & (self.kind == "log")

    def number(self, text: str) -> float | None:
        """Number of a value, None if it is invalid."""
        if self.levels:
            return float(self.levels.index(text)) if text in self.levels else None
        value = number_of(text)
        return value if value is not None and math.isfinite(value) else None

    def texts(self, values: FloatArray) -> npt.NDArray[np.str_]:
        """Values (n,) as they are written."""
        if self.levels:
            return np.array(self.levels)[values.astype(np.int64)]
        found, inverse = np.unique(values, return_inverse=True)
        return np.array([f"{v:.15g}" for v in found])[inverse.ravel()]

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name, "categorical": self.wanted.categorical, "low": self.low,
            "high": self.high, "levels": list(self.levels),
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Condition:
        """Inverse of `to_config`; the document has been validated."""
        wanted = Wanted(str(config["name"]), bool(config["categorical"]))
        low, high = float(config["low"]), float(config["high"])
        return cls(wanted, low, high, tuple(config["levels"]))

    @property
    def range(self) -> str:
        """Values in the sample, as text."""
        if self.levels:
            more = ", ..." if len(self.levels) > _NAMED else ""
            return ", ".join(self.levels[:_NAMED]) + more
        return f"values from {self.low:.6g} to {self.high:.6g}"


@dataclass(frozen=True)
class Conditions:
    """All conditions of a model together.

    Attributes
    ----------
    each : tuple of Condition
    points : (R, K) float array
        Points of a scan, or values of some events for continuous conditions.
    shares : (R,) float array
        How often these occur, summing to one.
    scan : bool
        Whether these are the only values in the sample.
    cross_sections : (R,) float array
        In pb at the points of a scan; nan where not known.
    """

    each: tuple[Condition, ...]
    points: FloatArray
    shares: FloatArray
    scan: bool
    cross_sections: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def names(self) -> tuple[str, ...]:
        """Names as written by the user."""
        return tuple(c.name for c in self.each)

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """Definitions by which a sample is searched."""
        return tuple(c.wanted for c in self.each)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Transformation of each in functions of conditions."""
        return tuple(c.kind for c in self.each)

    def of(self, sample: EventSample, first: int = 0, path: Path | None = None) -> FloatArray:
        """Values (n, K) of the events of a sample.

        Raises
        ------
        SampleError
            An event has none.
        """
        return self.numbers(texts_of(sample, self.wanted, first, path), first)

    def numbers(self, texts: npt.NDArray[np.str_], first: int = 0) -> FloatArray:
        """Values (n, K) of texts (n, K)."""
        columns = [c.numbers(texts[:, k], first) for k, c in enumerate(self.each)]
        return np.stack(columns, axis=1)

    def attributes(self, values: FloatArray) -> dict[str, npt.NDArray[np.str_]]:
        """Attributes of events with values (n, K)."""
        return {c.wanted.attribute: c.texts(values[:, k]) for k, c in enumerate(self.each)}

    def as_in(self, sample: EventSample, n: int, seed: int) -> dict[str, npt.NDArray[Any]]:
        """Values of n events, by name, that occur as those of a sample.

        Values of all its events, or of a random subset if n is smaller; repeated if n is larger. In
        a weighted sample they are drawn in proportion to the weights.
        """
        values, rng = self.of(sample), np.random.default_rng(seed)
        weight = sample.weight.clip(0.0)
        if len(weight) and np.ptp(weight) > 1e-9 * weight.max():
            rows = rng.choice(len(values), n, p=weight / weight.sum())
        else:
            rows = np.resize(rng.permutation(len(values)), n)
        return {c.name: c.texts(values[rows, k]) if c.levels else values[rows, k]
                for k, c in enumerate(self.each)}  # fmt: skip

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Values (n, K) that occur as in the sample."""
        if not self.scan and len(self.each) == 1 and not self.each[0].levels:
            order = np.argsort(self.points[:, 0])
            middle = np.cumsum(self.shares[order]) - self.shares[order] / 2
            return np.interp(rng.random(n), middle, self.points[order, 0])[:, None]
        return self.points[rng.choice(len(self.points), n, p=self.shares)]

    def drawn(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Values (n, K) float64 that occur as in the sample, with random numbers of torch."""
        device = torch.device("cpu") if generator is None else generator.device
        shares = torch.from_numpy(self.shares).to(device)
        rows = torch.multinomial(shares, n, replacement=True, generator=generator)
        return torch.from_numpy(self.points)[rows.cpu()]

    def given(self, values: Given) -> FloatArray:
        """Values (n, K), or (1, K) where all are single numbers, of a mapping.

        Raises
        ------
        UsageError
            Unknown or missing names, invalid values, or values for different numbers of events.
        """
        self.check_names(values)
        columns = []
        for c in self.each:
            try:
                texts = np.atleast_1d(np.asarray(values[c.name]))
            except ValueError:  # lists of different lengths
                texts = np.zeros((0, 0))
            if np.ma.is_masked(values[c.name]):
                masked = np.ma.getmaskarray(values[c.name])  # type: ignore[arg-type]
                raise UsageError(
                    f"condition {c.name!r} is masked in row {np.flatnonzero(masked)[0] + 1}",
                    remedy="give a value for each event",
                )
            if texts.ndim != 1 or not len(texts):
                raise UsageError(
                    f"condition {c.name!r} has neither one value nor one for each event",
                    remedy="give a number, or a list of them",
                )
            if texts.dtype.kind in "fiu" and not c.levels:
                column = texts.astype(np.float64)
                wrong = np.flatnonzero(~np.isfinite(column))
                if wrong.size:
                    raise UsageError(
                        f"condition {c.name!r} is {column[wrong[0]]} in row {wrong[0] + 1}",
                        remedy="give finite numbers",
                    )
                lost = np.flatnonzero(c.without_logarithm(column))
                if lost.size:
                    raise UsageError(
                        f"condition {c.name!r} is {column[lost[0]]:.6g} in row {lost[0] + 1}; it "
                        "enters by its logarithm",
                        remedy=f"the model knows {c.range}: take values above zero",
                    )
            else:
                try:
                    column = c.numbers(np.char.strip(texts.astype(str)))
                except SampleError as error:
                    where = f"value {error.event}: " if len(texts) > 1 else ""
                    raise UsageError(where + error.message, remedy=error.remedy) from None
            columns.append(column)
        n = max(map(len, columns))
        if any(len(column) not in (1, n) for column in columns):
            raise UsageError(
                "the conditions are given for different numbers of events",
                remedy="give one value of each, or one for each event",
            )
        found = np.stack([np.broadcast_to(column, n) for column in columns], axis=1)
        return found

    def check_names(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        """Refuse unknown, missing and repeated names."""
        unknown = next((n for n in names if n not in self.names), None)
        if unknown is not None:
            raise UsageError(
                f"the model has no condition {str(unknown)[:100]!r}",
                remedy=f"it has {', '.join(self.names)}",
            )
        missing = next((c for c in self.each if c.name not in names), None)
        if missing is not None:
            raise UsageError(
                f"the condition {missing.name!r} has no value", remedy=f"give one: {missing.range}"
            )

    def warn_outside(self, values: FloatArray) -> None:
        """Warn if values (n, K) are outside the range of the sample."""
        for k, c in enumerate(self.each):
            outside = (values[:, k] < c.low) | (values[:, k] > c.high)
            if not c.levels and outside.any():
                log.warning(
                    "%s = %.6g is outside of the sample (%s): this is an extrapolation",
                    c.name, values[outside, k][0], c.range,
                )  # fmt: skip

    @cached_property
    def n_features(self) -> int:
        """Number of inputs of a network for the conditions."""
        return sum(len(c.levels) or 2 for c in self.each)

    def features(self, values: Tensor) -> Tensor:
        """Inputs (m, F) float32 of a network for values (m, K).

        Scaled values and their squares: networks without sharp inputs interpolate smoothly.
        """
        columns = []
        for k, c in enumerate(self.each):
            if c.levels:
                one_hot = values[:, [k]] == torch.arange(len(c.levels), device=values.device)
                columns.append(one_hot.to(torch.float32))
                continue
            value, low, high = values[:, k], c.low, c.high
            if c.kind == "log":
                value, low, high = value.clamp_min(1e-300).log(), math.log(low), math.log(high)
            u = ((2 * value - low - high) / (high - low)).to(torch.float32).unsqueeze(-1)
            columns += [u, u**2 - 1 / 3]
        return torch.cat(columns, dim=-1)

    @cached_property
    def _cross_section(self) -> Law | None:
        known = self.cross_sections > 0
        if not self.scan or len(known) != len(self.points) or not known.all():
            return None
        errors = np.full(len(known), 1e-3)
        return fit_law(self.points, self.cross_sections, errors, self.kinds)

    def cross_section(self, values: FloatArray) -> FloatArray:
        """Cross sections (n,) in pb at values (n, K), interpolated between the points of a scan.

        nan if the sample does not state them.
        """
        law = self._cross_section
        if law is None:
            return np.full(len(values), np.nan)
        return law(torch.from_numpy(np.array(values, dtype=np.float64))).numpy()

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "each": [c.to_config() for c in self.each],
            "points": self.points.tolist(), "shares": self.shares.tolist(), "scan": self.scan,
            "cross_sections": [
                float(v) if np.isfinite(v) else None for v in self.cross_sections
            ],
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Conditions:
        """Inverse of `to_config`; the document has been validated."""
        each = tuple(map(Condition.from_config, config["each"]))
        shares = np.array(config["shares"], dtype=np.float64)
        sigma = [np.nan if v is None else v for v in config["cross_sections"]]
        points = np.array(config["points"], dtype=np.float64).reshape(-1, len(each))
        return cls(each, points, shares / shares.sum(), bool(config["scan"]), np.array(sigma))
