"""Values that a user gives for conditions, and those that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.config import load_config
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.process.conditions import Condition, Conditions
from hepgen_ml.training.directory import begin

MASS = Condition(Wanted("mass"), 100.0, 1000.0)
SHIFT = Condition(Wanted("shift"), -1.0, 1000.0)


def conditions(each: Condition) -> Conditions:
    return Conditions((each,), np.array([[each.low], [each.high]]), np.full(2, 0.5), True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([100, [1]], "neither one value nor one for each event"),
        ([[1, 2]], "neither one value nor one for each event"),
        (np.ma.array([200.0, 300.0], mask=[False, True]), "is masked in row 2"),
        (np.ma.masked, "is masked in row 1"),
        ([200.0, np.nan], "is nan in row 2"),
        ([200, None], "'None', which is not a finite number"),
        (True, "'True', which is not a finite number"),
        ("1e400", "not a finite number"),
        ([200, 0], "is 0 in row 2; it enters by its logarithm"),
        ("-5", "is -5; it enters by its logarithm"),
    ],
)
def test_what_is_no_value_is_refused(given: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        conditions(MASS).given({"mass": given})  # type: ignore[dict-item]


def test_zero_is_a_value_of_what_enters_as_it_is() -> None:
    assert conditions(SHIFT).given({"shift": ["0", "-5"]}).tolist() == [[0.0], [-5.0]]
    unmasked = np.ma.array([200.0, 300.0], mask=False)
    assert conditions(MASS).given({"mass": unmasked}).tolist() == [[200.0], [300.0]]


def test_events_without_a_logarithm_are_named() -> None:
    with pytest.raises(SampleError, match="event 12: condition 'mass' is 0; it enters by its log"):
        conditions(MASS).numbers(np.array([["200"], ["0"]]), first=10)


@pytest.mark.parametrize("other", ['["mass","width"]', '["mass:32"]', "[]"])
def test_trainings_are_not_resumed_with_other_conditions(tmp_path: Path, other: str) -> None:
    config = load_config(None, ['conditions=["mass"]'])
    begin(tmp_path, "a" * 64, config, resume=False)
    begin(tmp_path, "a" * 64, config, resume=True)
    with pytest.raises(UsageError, match="begun with another network"):
        begin(tmp_path, "a" * 64, load_config(None, [f"conditions={other}"]), resume=True)
