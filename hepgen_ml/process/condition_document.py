"""Stored form of conditions, which is validated on reading."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from hepgen_ml.events.conditions import MOST
from hepgen_ml.files.documents import Amount, Document, Number, Positive, Text, Truth
from hepgen_ml.process.conditions import MOST_CATEGORIES, MOST_POINTS


class ConditionDocument(Document):
    """Stored form of a `Condition`."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    categorical: Truth
    low: Number
    high: Number
    levels: Annotated[list[Text], Field(max_length=MOST_CATEGORIES)]

    @model_validator(mode="after")
    def _check(self) -> ConditionDocument:
        if not self.levels and not self.low < self.high:
            raise ValueError("a condition without a range")
        return self


class ConditionsDocument(Document):
    """Stored form of `Conditions`."""

    each: Annotated[list[ConditionDocument], Field(min_length=1, max_length=MOST)]
    points: Annotated[
        list[Annotated[list[Number], Field(max_length=MOST)]],
        Field(min_length=1, max_length=MOST_POINTS),
    ]
    shares: list[Amount]
    scan: Truth
    cross_sections: Annotated[list[Positive | None], Field(max_length=MOST_POINTS)]

    @model_validator(mode="after")
    def _check(self) -> ConditionsDocument:
        for row in self.points:
            if len(row) != len(self.each):
                raise ValueError("points: not a value of every condition")
            for value, c in zip(row, self.each, strict=True):
                if c.levels and not (value.is_integer() and 0 <= value < len(c.levels)):
                    raise ValueError("points: a category that does not exist")
        if len(self.shares) != len(self.points) or not 0 < sum(self.shares) < math.inf:
            raise ValueError("shares: not one of every point, with a positive sum")
        if len(self.cross_sections) not in (0, len(self.points)):
            raise ValueError("cross_sections: not one of every point")
        return self
