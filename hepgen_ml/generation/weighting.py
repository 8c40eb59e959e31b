"""Choice of the weights of generated events, or of their acceptance by weights."""

from __future__ import annotations

from typing import Literal

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import RunInfo
from hepgen_ml.generation.sample_weights import SampleWeights
from hepgen_ml.models.event_weights import EventWeights
from hepgen_ml.reweighting import Reweighter
from hepgen_ml.reweighting.application import ClassifierWeights

Weights = Literal["classifier", "sample"]
Weighting = ClassifierWeights | SampleWeights


def choose_weighting(
    learned: EventWeights | None,
    classifier: Reweighter | None,
    run: RunInfo,
    weights: Weights | None,
    unweight: bool,
) -> Weighting | None:
    """Object that weights events, or accepts them by their weights; None for unit weights.

    Parameters
    ----------
    learned : EventWeights or None
        Weights that undo the bias of the sample.
    classifier : Reweighter or None
    run : RunInfo
        Of the generated events.
    weights : {"classifier", "sample"} or None
    unweight : bool
        Accept events by their weights.

    Raises
    ------
    UsageError
        The model has no such weights.
    """
    if learned is None and weights == "sample":
        raise UsageError(
            "the model makes events of equal weight",
            remedy="train with --set training.weights=sample for weights as in the sample",
        )
    if learned is not None and weights != "classifier":
        return SampleWeights(run, float(learned.largest), unweight)
    if learned is not None and unweight:
        raise UsageError(
            "events of this model have weights in addition to those of the classifier",
            remedy="leave out --unweight, or --weights classifier",
        )
    if weights is None and not unweight:
        return None
    if classifier is None:
        raise UsageError(
            "the model has no classifier to weight events with",
            remedy="make it with `hepgen-ml reweight --model DIR --truth FILE`",
        )
    return ClassifierWeights(classifier, run, unweight)
