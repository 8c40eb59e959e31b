"""User-defined observables, in addition to those that follow from the final state."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.analysis.observables import Observable, ObservableTable
from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, FloatArray

ObservableFunction = Callable[[EventSample], Mapping[str | Observable, npt.ArrayLike]]
"""Gets a sample of n events, returns (n,) numbers for each name; nan where an event has none.

A name may end in its unit, ``H_T [GeV]``. An `Observable` in its place says how to label and
bin it.
"""

_LOG_FROM = 30.0
"""Quantiles 99 % over 1 % from which an observable is binned in its logarithm."""


def load_function(text: str) -> ObservableFunction:
    """Function in a file of Python, given as ``my_file.py:function``.

    The file is run: only ever name files that you trust.

    Raises
    ------
    UsageError
        There is no such file or function, or running the file fails.
    """
    place, _, name = text.rpartition(":")
    path = Path(place)
    if not place or path.suffix != ".py" or not name.isidentifier():
        raise UsageError(f"{text!r} does not name a function", remedy="write my_file.py:function")
    if not path.is_file():
        raise UsageError("no such file", path=path, remedy="check the path of --observables")
    spec = importlib.util.spec_from_file_location(f"user_observables_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"running it fails: {type(error).__name__}: {error}", path=path, remedy="correct it"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"has no function {name!r}", path=path, remedy="define it there")
    found: ObservableFunction = function
    return found


def extended(
    tables: dict[Signature, ObservableTable],
    sample: EventSample,
    function: ObservableFunction | None,
) -> dict[Signature, ObservableTable]:
    """Tables with the user's observables as further columns.

    Parameters
    ----------
    tables : dict of Signature to ObservableTable
        Tables of the sample's groups of events.
    sample : EventSample
    function : callable, optional
        Without one the tables stay as they are.

    Raises
    ------
    UsageError
        The function fails, or returns something else than (n,) numbers by name.
    """
    if function is None:
        return tables
    columns = _evaluated(function, sample)
    result = {}
    for signature, table in tables.items():
        taken = {o.name for o in table.observables}
        # an observable that no event of the final state has is left out
        new = {o: x[table.index] for o, x in columns.items()}
        new = {o: x for o, x in new.items() if np.isfinite(x).any()}
        if twice := [o.name for o in new if o.name in taken]:
            raise UsageError(
                f"there is an observable {twice[0]!r} already", remedy="give yours another name"
            )
        result[signature] = replace(
            table,
            observables=(*table.observables, *new),
            values=np.column_stack([table.values, *new.values()]).astype(np.float32),
        )
    return result


def _evaluated(function: ObservableFunction, sample: EventSample) -> dict[Observable, FloatArray]:
    name = getattr(function, "__name__", "observables")
    try:
        found = function(sample)
    except Exception as error:
        raise UsageError(
            f"your function {name!r} fails: {type(error).__name__}: {error}",
            remedy="it gets an EventSample and returns a dict of names to arrays",
        ) from error
    if not isinstance(found, Mapping):
        raise UsageError(
            f"your function {name!r} returns {type(found).__name__}",
            remedy="return a dict of names to arrays, a number for every event",
        )
    columns: dict[Observable, FloatArray] = {}
    for key, given in found.items():
        try:
            values = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != (len(sample),):
            raise UsageError(
                f"{key!s:.80} of your function {name!r} has the shape {np.shape(given)}",
                remedy=f"return ({len(sample)},) numbers, one for every event",
            )
        if isinstance(key, Observable):
            _check_label(key, name)
            columns[replace(key, user=True)] = values
        else:
            columns[_named(str(key), values)] = values
    return columns


def _check_label(observable: Observable, function: str) -> None:
    try:
        from matplotlib.mathtext import MathTextParser
    except ImportError:  # without figures no label is drawn
        return
    try:
        MathTextParser("path").parse(observable.axis_label)
    except ValueError:
        raise UsageError(
            f"the label {observable.label!r} of your function {function!r} cannot be drawn",
            remedy=r"write mathtext without dollar signs, such as H_{\mathrm{T}}",
        ) from None


def _named(name: str, values: FloatArray) -> Observable:
    """Observable of a plain name; binned in the logarithm if positive and wide."""
    match = re.fullmatch(r"(.*\S)\s*\[(.+)\]\s*", name)
    text, unit = (match[1], match[2]) if match else (name, "")
    # mathtext knows these characters, and those that it gives a meaning with a backslash
    label = re.sub(r"[^\w +\-*/<>=:,.;!?&'@()\[\]|%${}]", "", text)
    label = re.sub(r"([%${}_])", r"\\\1", label).replace(" ", r"\ ")
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99]) if len(finite) else (0.0, 0.0)
    log = len(finite) > 0 and finite.min() > 0 and high > _LOG_FROM * low
    return Observable(text, rf"\mathrm{{{label}}}", unit, bool(log), user=True)
