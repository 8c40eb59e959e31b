"""What a checkpoint of a training holds beside tensors."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Strict

from hepgen_ml.files import documents

Loss = Annotated[float, Strict()] | None
"""Infinite or null if there was none."""


class RateDocument(documents.Document):
    """State of `hepgen_ml.training.schedule.LearningRate`."""

    best: Loss
    idle: documents.Count
    began: documents.Amount | None
    rate: documents.Amount


class HistoryDocument(documents.Document):
    """A row of the training's history; losses may be unknown."""

    step: documents.Amount
    seconds: documents.Amount
    learning_rate: documents.Amount
    train_loss: Loss
    validation_loss: Loss
    validation_head_loss: Loss
    events_per_second: documents.Amount


class CheckpointDocument(documents.Document):
    """What a checkpoint holds beside tensors."""

    round: documents.Count
    step: documents.Count
    seconds: documents.Amount
    done: documents.Amount
    rates: dict[str, RateDocument]
    history: Annotated[list[HistoryDocument], Field(max_length=1_000_000)]
