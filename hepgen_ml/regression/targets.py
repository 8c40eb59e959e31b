"""Targets of regressions: numbers of events, validated and standardised (thesis equation 6.22)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, FloatArray

log = logging.getLogger(__name__)

NOMINAL = "weight"
"""Name of the nominal weight as a target."""

_DOMINANT = 0.5
"""Share of a single event in the squared spread of a target, from which on it is named."""

Kind = Literal["ratio", "weight", "values"]
"""Kinds of targets: a named weight over the nominal one, the nominal weight, given numbers."""

_CONSTANT = 1e-6
"""Relative range that counts as rounding."""

_LOGARITHMS = (-744.0, 709.0)
"""Smallest positive number in double precision."""

_LARGEST = 1e150
"""Largest number whose square is finite; numbers outside this range or its inverse need other
units."""


@dataclass(frozen=True)
class Target:
    """Transformation of a target to numbers of mean zero and width one.

    Attributes
    ----------
    name : str
    kind : {"ratio", "weight", "values"}
    logarithmic : bool
        The logarithm is learned, as for all positive numbers.
    mean, std : float
        Of the logarithm, or of the numbers themselves.
    """

    name: str
    kind: Kind
    logarithmic: bool
    mean: float
    std: float

    @classmethod
    def of(
        cls, values: FloatArray, name: str, kind: Kind, logarithmic: bool | None = None
    ) -> Target:
        """Learn mean and width of numbers.

        Parameters
        ----------
        values : (n,) array
        name, kind : str
        logarithmic : bool, optional
            By default where all numbers are positive.

        Raises
        ------
        SampleError
            A number is not finite, all are the same, or some not positive for a logarithm.
        """
        bad = ~np.isfinite(values)
        if bad.any():
            raise SampleError(
                f"the target {name!r} is {values[np.argmax(bad)]} ({int(bad.sum())} such events)",
                event=int(np.argmax(bad)) + 1, remedy="leave these events out",
            )  # fmt: skip
        positive = values > 0
        if logarithmic is None:
            logarithmic = bool(positive.all())
        if logarithmic and not positive.all():
            raise SampleError(
                f"the target {name!r} is {values[np.argmin(positive)]:.6g}, which has no logarithm",
                event=int(np.argmin(positive)) + 1, remedy="leave out --log",
            )  # fmt: skip
        y = np.log(values) if logarithmic else values
        largest = float(np.abs(y).max())
        if not logarithmic and (largest > _LARGEST or 0 < largest < 1 / _LARGEST):
            raise SampleError(
                f"the target {name!r} has numbers up to {largest:.3g}",
                event=int(np.argmax(np.abs(y))) + 1, remedy="give it in other units",
            )  # fmt: skip
        spread, size = float(np.ptp(y)), 1.0 if logarithmic else float(np.abs(y).max())
        if spread <= _CONSTANT * size:
            raise SampleError(
                f"the target {name!r} is {values[0]:.6g} in all events: there is nothing to learn",
                remedy="choose another target",
            )
        _tell_outlier(values, y, name)
        return cls(name, kind, logarithmic, float(y.mean()), float(y.std()))

    def standardized(self, values: FloatArray) -> FloatArray:
        """Standardised numbers."""
        y = np.log(values) if self.logarithmic else values
        return np.asarray((y - self.mean) / self.std)

    def restored(self, y: FloatArray, sigma: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Numbers and their uncertainties, from standardised ones."""
        value = self.std * y + self.mean
        if not self.logarithmic:
            return value, self.std * sigma
        value = np.clip(value, *_LOGARITHMS)
        width = np.log(np.expm1(np.clip(self.std * sigma, 1e-300, 50.0)))
        return np.exp(value), np.exp(np.clip(value + width, *_LOGARITHMS))


class Learned(NamedTuple):
    """Numbers (n,) of events, with a name and a kind."""

    values: FloatArray
    name: str
    kind: Kind


def target_of(sample: EventSample, target: str | npt.ArrayLike | Learned) -> Learned:
    """Target number of each event.

    Parameters
    ----------
    sample : EventSample
    target : str, (n,) array or Learned
        A named weight, which counts relative to the nominal one (the ratio is a function of the
        event); ``weight`` for the nominal weight itself; or the numbers.

    Raises
    ------
    UsageError
        There is no such weight, the number of values is wrong, or the values are not real numbers.
    SampleError
        The nominal weight of an event is zero, so that there is no ratio.
    """
    if not isinstance(target, str):
        if not isinstance(target, Learned):
            target = Learned(np.asarray(target), "target", "values")
        values, name, kind = target
        if values.dtype.kind not in "fiub":
            raise UsageError(
                f"the target has the type {values.dtype}", remedy="give real numbers"
            )
        values = values.astype(np.float64)
        if values.shape != (len(sample),):
            raise UsageError(
                f"the target has the shape {values.shape} for {len(sample)} events",
                remedy="give one number for each event",
            )
        return Learned(values, name, kind)
    if target in sample.weights:
        if (zero := sample.weight == 0).any():
            raise SampleError(
                f"the nominal weight is zero, so that {target!r} has no ratio to it",
                event=int(np.argmax(zero)) + 1, remedy="leave the event out",
            )  # fmt: skip
        return Learned(sample.weights[target] / sample.weight, target, "ratio")
    if target == NOMINAL:
        return Learned(sample.weight, target, "weight")
    known = [*sample.weights, NOMINAL]
    shown = ", ".join(known[:8]) + (" …" if len(known) > 8 else "")
    raise UsageError(f"the events have no weight {target[:100]!r}", remedy=f"there are {shown}")


def _tell_outlier(values: FloatArray, y: FloatArray, name: str) -> None:
    """Warn of a single event whose number all others are small against: these are not learned."""
    largest = int(np.argmax(np.abs(y - y.mean())))
    square = ((y - y.mean()) / np.abs(y - y.mean()).max()) ** 2
    share = 1 / float(square.sum())
    if share > _DOMINANT:
        log.warning(
            "event %d alone, where the target %r is %.6g, is %.3g %% of its squared spread: the "
            "differences of all others are hardly learned (leave the event out)",
            largest + 1, name, values[largest], 100 * share,
        )  # fmt: skip
