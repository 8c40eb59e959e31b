"""Named weights of the training sample for generated and other events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import ModelError, SampleError, UsageError
from hepgen_ml.events.hard_process import hard_process
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.source import Progress
from hepgen_ml.files.model_files import VARIATIONS
from hepgen_ml.models.storage import TrainedModel
from hepgen_ml.reweighting.named_weights.features import inputs_of
from hepgen_ml.reweighting.named_weights.learning import learn_ratios
from hepgen_ml.reweighting.named_weights.ratios import WeightRatios
from hepgen_ml.reweighting.named_weights.storage import declared_weights, load_ratios, save_ratios
from hepgen_ml.training.encoded import EncodedSample
from hepgen_ml.training.preparation import Prepared

FACT = "named_weights"
"""Fact about a training: number of named weights that were learned with the density."""

_MOST_SEEN = 4


def learn_into(
    ready: Prepared,
    sample: EncodedSample,
    directory: Path,
    resume: bool,
    seconds: float,
    device: torch.device,
    progress: Progress | None,
) -> dict[str, Any]:
    """Learn the named weights of a sample into a model directory.

    Parameters
    ----------
    ready : Prepared
        The model before its training.
    sample : EncodedSample
        With variations.
    directory : Path
    resume : bool
        Take what an interrupted training of the same sample has left there.
    seconds, device, progress

    Returns
    -------
    dict
        Facts about the training.
    """
    assert sample.variations is not None
    process = ready.process
    facts = {FACT: len(sample.variations.texts)}
    if resume and (directory / VARIATIONS).exists():
        load_ratios(directory, process, device)
        return facts

    def report(done: float) -> None:
        if progress is not None:
            progress("weights", done, 1, {})

    low, high = sample.run.beam_pdg_id
    ratios = learn_ratios(
        process, sample.encoded, sample.variations, same_beams=low == high,
        seconds=seconds, seed=ready.config.seed, device=device,
        max_steps=ready.config.training.max_steps, report=report,
    )  # fmt: skip
    save_ratios(directory, ratios)
    return facts


def ratios_of(directory: Path, model: TrainedModel) -> WeightRatios | None:
    """Ratios that a model directory holds, if its training has learned any.

    Raises
    ------
    ModelError
        They are damaged or missing.
    """
    expected = model.facts.get(FACT)
    if not expected:
        return None
    ratios = load_ratios(directory, model.process, model.device)
    if len(ratios.weights) != expected:
        raise ModelError(
            f"holds {len(ratios.weights)} named weights, config.json states {expected}",
            path=directory / VARIATIONS,
            remedy="train again, or fetch the model anew",
        )
    return ratios


def ratios_of_events(
    ratios: WeightRatios | None, sample: EventSample
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ratios and errors (n, K) of events.

    Raises
    ------
    UsageError
        There are no ratios.
    SampleError
        Events that are not of the process.
    """
    ratios = _known(ratios)
    encoded = ratios.process.encode(hard_process(sample))
    if len(encoded) < len(sample):
        lost = np.setdiff1d(np.arange(len(sample)), encoded.event.numpy()) + 1
        some = ", ".join(map(str, lost[:_MOST_SEEN].tolist()))
        more = ", …" if len(lost) > _MOST_SEEN else ""
        raise SampleError(
            f"{len(lost)} of {len(sample)} events are not of the process of the model or outside "
            f"its cuts: event {some}{more}",
            remedy="give events of the same process; compare with `hepgen-ml info`",
        )
    ratio, error = ratios(inputs_of(ratios.process, encoded), errors=True)
    return np.asarray(ratio.numpy()), np.asarray(error.numpy())


def with_named_weights(ratios: WeightRatios | None, sample: EventSample) -> EventSample:
    """Events of the process with each named weight as its ratio to the nominal one predicts it.

    Raises
    ------
    UsageError
        There are no ratios.
    SampleError
        Events that are not of the process.
    """
    ratios = _known(ratios)
    ratio, _ = ratios_of_events(ratios, sample)
    weights = dict(zip(ratios.names, ratio.T * sample.weight, strict=True))
    return EventSample(
        declared_weights(sample.run, ratios), sample.offsets, sample.particles, sample.events,
        weights={**sample.weights, **weights}, scales=sample.scales, attributes=sample.attributes,
    )  # fmt: skip


def _known(ratios: WeightRatios | None) -> WeightRatios:
    if ratios is None:
        raise UsageError(
            "the model has learned no named weights",
            remedy="train it with a sample that has some, without --no-weights",
        )
    return ratios
