"""A trained model with all parts of its generation, which are loaded and saved together."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hepgen_ml.errors import ModelError, UsageError, about
from hepgen_ml.files.model_files import CLASSIFIER, CONFIG, VARIATIONS
from hepgen_ml.files.outputs import remove
from hepgen_ml.generation.sampling import Sampler
from hepgen_ml.generation.variations import ratios_of
from hepgen_ml.models.included import find_model
from hepgen_ml.models.storage import TrainedModel, load_model, save_model
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.named_weights.ratios import WeightRatios
from hepgen_ml.reweighting.named_weights.storage import declared_weights, save_ratios
from hepgen_ml.training.devices import find_device
from hepgen_ml.training.directory import PLAN, claimed


class Parts(NamedTuple):
    """A model, and what corrects and accompanies its events, see `Generator`."""

    model: TrainedModel
    classifier: Reweighter | None = None
    directory: Path | None = None
    ratios: WeightRatios | None = None

    def named(self) -> AbstractContextManager[None]:
        """Add the directory of the model to errors, if it has one."""
        return about(self.directory, ModelError, UsageError)

    def sampler(self) -> Sampler:
        """Draws events of the model."""
        model = self.model
        return Sampler(model.surrogate, model.process, model.run, model.device, self.ratios)


def assembled(
    model: TrainedModel,
    classifier: Reweighter | None,
    directory: Path | None,
    ratios: WeightRatios | None,
) -> Parts:
    """Parts that fit each other: the network is at rest, its events declare the named weights."""
    run = model.run if ratios is None else declared_weights(model.run, ratios)
    model.surrogate.eval()
    return Parts(replace(model, run=run), classifier, directory, ratios)


def load_parts(path: str | Path, device: str) -> Parts:
    """Read a model directory, or a model that comes with the package by its name.

    Raises
    ------
    ModelError
        The model is missing, damaged or from a newer version, or its training is unfinished.
    """
    directory = find_model(path)
    if os.path.exists(directory / PLAN) and not os.path.exists(directory / CONFIG):
        raise ModelError(
            "its training is not finished", path=directory, remedy="train with --resume"
        )
    place = find_device(device)
    model = load_model(directory, place)
    has_classifier = os.path.lexists(directory / CLASSIFIER)
    classifier = Reweighter.load(directory, place) if has_classifier else None
    return assembled(model, classifier, directory, ratios_of(directory, model))


def save_parts(parts: Parts, directory: Path, *, force: bool, half: bool) -> None:
    """Write a model directory.

    Raises
    ------
    OutputError
        The directory holds other files than those of a model, or a model without `force`.
    """
    with claimed(directory, force=force):
        if parts.ratios is None:
            remove(directory, VARIATIONS)
        else:
            save_ratios(directory, parts.ratios)
        save_model(directory, parts.model, half=half)
        if parts.classifier is not None:
            parts.classifier.save(directory)
