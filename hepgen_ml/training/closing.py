"""Stages after the training of a surrogate: weights of events, calibration, acceptance."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events.source import Progress
from hepgen_ml.models.event_weights import Biased
from hepgen_ml.models.last_layers import find_axes
from hepgen_ml.process.encoded import Discrete, Encoded
from hepgen_ml.training.acceptance import measure_acceptance
from hepgen_ml.training.biased import learn_weights, normalise_weights
from hepgen_ml.training.clock import CLOSING, Clock
from hepgen_ml.training.output_run import weighted_run
from hepgen_ml.training.preparation import Prepared
from hepgen_ml.training.surrogate_task import SurrogateTask

_MOST_GENERATED = 1_000_000
"""Largest number of events that a density generates after its training for its calibration."""

_CALIBRATION_EVENTS = 200_000

_MOST_DRAWN = 5
"""Largest number of generated events per event of the sample to normalise weights."""

_TRIAL = 4_096
"""Number of events to estimate the time of a calibration, and its minimum."""


def complete(
    ready: Prepared, task: SurrogateTask, clock: Clock, progress: Progress | None
) -> dict[str, Any]:
    """Complete a trained surrogate with weights, posterior, calibration and acceptance.

    Learns the weights of a biased sample, and adds the largest one to the run information; finds
    the posterior of last layers; adjusts the mean probabilities of the heads to those of the
    sample; measures the acceptance.

    Parameters
    ----------
    ready : Prepared
    task : SurrogateTask
        Whose training is over.
    clock : Clock
    progress : callable, optional
        Called with stage, done, total and an empty dict.

    Returns
    -------
    dict
        Facts for the model card.
    """
    surrogate, seed = ready.surrogate, ready.config.seed
    facts: dict[str, Any] = {}
    if ready.biased is not None and surrogate.event_weights is not None:
        facts["event_weights"] = _learn_weights(ready, clock.for_closing() / 2, task.device)
    seconds = min(clock.for_closing(), CLOSING * clock.seconds) / 2
    find_axes(surrogate.density, ready.training, seed, seconds)
    _calibrate(ready, task, clock.for_closing() / 2, progress)
    if surrogate.event_weights is not None and "event_weights" in facts:
        most, seconds = _MOST_DRAWN * len(ready.training), clock.for_closing() / 2
        normalise_weights(surrogate, ready.process, task.device, seed, most, seconds)
        ready.run = weighted_run(ready.run, float(surrogate.event_weights.largest))
    facts["acceptance"] = measure_acceptance(
        surrogate, ready.process, task.device, seed, clock.for_closing(), progress
    )
    return facts


def _learn_weights(ready: Prepared, seconds: float, device: torch.device) -> dict[str, float | str]:
    """Learn the weights of a biased sample, from training and held-out events."""
    density, weights = ready.surrogate.density, ready.surrogate.event_weights
    assert weights is not None
    assert ready.biased is not None
    prepared = []
    for encoded, log_weight in ready.biased:
        encoded = Encoded(*(getattr(encoded, f.name).to(device) for f in fields(Encoded)))
        z = density.prepare(encoded.x, encoded.labels)
        prepared.append(Biased(z, encoded, log_weight.to(device)))
    training, validation = prepared
    return learn_weights(
        weights, ready.process, training, validation, seconds, ready.config.seed
    )


@torch.no_grad()
def _calibrate(
    ready: Prepared, task: SurrogateTask, seconds: float, progress: Progress | None
) -> None:
    """Make the mean of the predicted probabilities equal the sample's fractions.

    Uses as many events as time allows, see `_CALIBRATION_EVENTS` and `_MOST_GENERATED`.
    """
    seed, surrogate, data, d = ready.config.seed, task.module, task.train, task.train.discrete
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data))).to(task.device)
    some = order[d.pattern[order] >= 0][:_CALIBRATION_EVENTS]
    surrogate.eval()
    if progress is not None:
        progress("calibrate", 0, 1, {})
    density = surrogate.density
    generator = torch.Generator(device=task.device).manual_seed(seed + 1)
    most = min(len(data), _MOST_GENERATED)
    if density.learns_rates:
        known = ready.process.conditions

        def generate(n: int) -> None:
            density.sample_events(n, None, None, *([] if known is None else [known.drawn(n)]))

        most = _affordable(generate, most, seconds / 2)
    density.after_training(ready.training, ready.process.inside, generator, most)

    def predicted(rows: Tensor) -> None:
        discrete = Discrete(d.pattern[rows], d.branch[rows], d.free[rows])
        z, invariants = data.z[rows], data.invariants[rows]
        surrogate.heads.log_prob(z, invariants, data.subprocess[rows], discrete)

    some = some[: _affordable(lambda n: predicted(some[:n]), len(some), seconds / 2)]
    surrogate.heads.calibrate(
        data.z[some],
        data.invariants[some],
        data.subprocess[some],
        Discrete(d.pattern[some], d.branch[some], d.free[some]),
        data.weight[some],
    )
    if progress is not None:
        progress("calibrate", 1, 1, {})


def _affordable(work: Callable[[int], object], most: int, seconds: float) -> int:
    """Number of events that can be processed within a time, from a trial with a few."""
    if most <= _TRIAL:
        return most
    work(_TRIAL // 8)  # the first call includes initialisation
    begun = time.monotonic()
    work(_TRIAL)
    rate = _TRIAL / max(time.monotonic() - begun, 1e-9)
    return int(min(max(seconds * rate, _TRIAL), most))
