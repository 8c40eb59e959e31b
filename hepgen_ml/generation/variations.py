"""Named weights of the training sample for generated and other events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.errors import ModelError, SampleError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.models.storage import VARIATIONS
from hepgen_ml.process.process import Process
from hepgen_ml.regression.features import inputs_of
from hepgen_ml.regression.learning import learn_ratios
from hepgen_ml.regression.storage import load_ratios, save_ratios
from hepgen_ml.regression.weight_ratios import WeightRatios
from hepgen_ml.training.data import Progress
from hepgen_ml.training.encoded import EncodedSample

FACT = "named_weights"
"""Fact about a training: number of named weights that were learned with the density."""

_MOST_SEEN = 4


def learn_into(
    process: Process,
    sample: EncodedSample,
    directory: Path,
    resume: bool,
    seconds: float,
    seed: int,
    device: torch.device,
    progress: Progress | None,
) -> dict[str, Any]:
    """Learn the named weights of a sample into a model directory.

    Parameters
    ----------
    process : Process
        That the model is built with.
    sample : EncodedSample
        With variations.
    directory : Path
    resume : bool
        Take what an interrupted training of the same sample has left there.
    seconds, seed, device, progress

    Returns
    -------
    dict
        Facts about the training.
    """
    assert sample.variations is not None
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
        seconds=seconds, seed=seed, device=device, report=report,
    )  # fmt: skip
    save_ratios(directory, ratios)
    return facts


def ratios_of(
    directory: Path, facts: dict[str, Any], process: Process, device: torch.device
) -> WeightRatios | None:
    """Ratios that a model directory holds, if its training has learned any.

    Raises
    ------
    ModelError
        They are damaged or missing.
    """
    expected = facts.get(FACT)
    if not expected:
        return None
    ratios = load_ratios(directory, process, device)
    if len(ratios.weights) != expected:
        raise ModelError(
            f"holds {len(ratios.weights)} named weights, config.json tells of {expected}",
            path=directory / VARIATIONS,
            remedy="train again, or fetch the model anew",
        )
    return ratios


def ratios_of_events(
    ratios: WeightRatios, sample: EventSample
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ratios and errors (n, K) of events.

    Raises
    ------
    SampleError
        Events that are not of the process.
    """
    encoded = ratios.process.encode(sample)
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
