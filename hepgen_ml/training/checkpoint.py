"""The state of an unfinished training on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, Strict
from torch import Tensor

from hepgen_ml.errors import ModelError
from hepgen_ml.files import documents
from hepgen_ml.files.tensors import load_tensors, save_tensors

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file in a model directory."""

Loss = Annotated[float, Strict()] | None
"""Infinite or null if there was none."""


class RateDocument(documents.Document):
    """State of `hepgen_ml.training.schedule.LearningRate`."""

    best: Loss
    idle: documents.Count
    began: documents.Amount | None
    rate: documents.Amount


class CheckpointDocument(documents.Document):
    """Contents of a checkpoint apart from tensors."""

    round: documents.Count
    step: documents.Count
    seconds: documents.Amount
    done: documents.Amount
    rates: dict[str, RateDocument]
    history: Annotated[list[dict[str, Loss]], Field(max_length=1_000_000)]


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, completely or not at all.

    Parameters
    ----------
    path : Path
    tensors : mapping
    state : mapping
        Entries of `CheckpointDocument`; numbers that are not finite are written as null.
    """
    save_tensors(path, dict(tensors), _finite(state))


def read(
    path: Path, expected: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], CheckpointDocument]:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
    expected : mapping of str to Tensor
        Required tensors, by name, with their shapes.

    Raises
    ------
    ModelError
        It is damaged or belongs to another training.
    """
    tensors, document = load_tensors(path, infinite=True)
    try:
        state = CheckpointDocument.model_validate(document)
        for name, like in expected.items():
            if tensors[name].shape != like.shape:
                raise ValueError(f"{name} has another shape")
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} holds numbers that are not finite")
    except documents.UNUSABLE as error:
        raise unfit(path, error) from None
    return tensors, state


Stored = tuple[dict[str, Tensor], CheckpointDocument] | None
"""Result of `read`, or None without a checkpoint."""


def packed(stored: Stored) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain values for `hepgen_ml.training.ranks.Ranks.share`."""
    if stored is None:
        return {}, {}
    tensors, state = stored
    return tensors, {"state": _finite(state.model_dump())}


def unpacked(found: tuple[Mapping[str, Tensor], Mapping[str, Any]]) -> Stored:
    """Inverse of `packed`."""
    tensors, document = found
    if not document:
        return None
    return dict(tensors), CheckpointDocument.model_validate(document["state"])


def unfit(path: Path, error: Exception) -> ModelError:
    """The error of a checkpoint that does not belong to the training that would resume it."""
    return ModelError(
        f"does not fit this training: {documents.problem(error)}",
        path=path,
        remedy="resume with the configuration it was begun with, or start with --force",
    )


def _finite(value: Any) -> Any:
    """Null for numbers that are not known: JSON has neither nan nor infinity."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
