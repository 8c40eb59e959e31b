"""Samples whose events have very different weights: densities of the events as they are."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from hepgen_ml.config import Config
from hepgen_ml.process.encoded import Encoded, effective_number
from hepgen_ml.process.process import Process, by_value

log = logging.getLogger(__name__)

_FEW = 0.5
"""Events of equal weight that a sample is worth, over its events, below which generated events
have weights as those of the sample."""


def with_weights(config: Config, process: Process, encoded: Encoded) -> Config:
    """The configuration with a decision on the weights of generated events.

    Parameters
    ----------
    config : Config
    process : Process
    encoded : Encoded
        Events to train on, with their weights.
    """
    if config.training.weights != "auto":
        return config
    fraction = worth(process, encoded)
    if fraction >= _FEW:
        return config.with_(training__weights="equal")
    log.warning(
        "weights differ so much that the events are worth %.1f %% of as many equal ones: the "
        "density of the events as they are is learned, and generated events have weights "
        "(training.weights=equal for events of equal weight)", 100 * fraction,
    )  # fmt: skip
    return config.with_(training__weights="sample")


def worth(process: Process, encoded: Encoded) -> float:
    """Events that the absolute weights are worth, channel by channel, over all events."""
    size = encoded.weight.abs()
    channels = by_value(process.channel_of[encoded.subprocess])
    return sum(effective_number(size[rows]) for _, rows in channels) / len(encoded)


def as_they_are(process: Process, encoded: Encoded) -> tuple[Process, Encoded, Tensor]:
    """The sample with signs for weights, and the logarithms (m,) of the absolute weights.

    Subprocesses have the frequencies of their events. Events of weight zero are left out.
    """
    encoded = encoded[torch.nonzero(encoded.weight).squeeze(-1)]
    log_weight = torch.log(encoded.weight.abs())
    encoded.weight = encoded.weight.sign()
    counts = torch.zeros(len(process.subprocesses), dtype=torch.float64)
    counts = counts.index_add(0, encoded.subprocess, encoded.weight)
    least = 1e-6 * float(counts.clamp_min(0).sum())
    subprocesses = [
        replace(s, frequency=max(float(n), least) if s.frequency > 0 else 0.0)
        for s, n in zip(process.subprocesses, counts, strict=True)
    ]
    total = sum(s.frequency for s in subprocesses)
    subprocesses = [replace(s, frequency=s.frequency / total) for s in subprocesses]
    process = Process(subprocesses, process.channels, process.acceptance, process.beam_energy)
    return process, encoded, log_weight
