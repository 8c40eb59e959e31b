"""Density of events under a surrogate."""

from __future__ import annotations

import math

import numpy as np
import torch

from hepgen_ml.errors import UsageError
from hepgen_ml.events.hard_process import hard_process
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.generation.sampling import HEAD_BATCH
from hepgen_ml.models.base import uniform_angle_log_prob
from hepgen_ml.models.storage import TrainedModel
from hepgen_ml.process.encoded import Discrete
from hepgen_ml.process.labels import values_of


@torch.inference_mode()
def log_prob(model: TrainedModel, sample: EventSample, device: torch.device) -> FloatArray:
    """Log density (n,) of events, see `hepgen_ml.generation.generator.Generator.log_prob`.

    Parameters
    ----------
    model : TrainedModel
        Its facts have the fraction of each channel's draws inside the cuts.
    sample : EventSample
    device : torch.device
        Where the networks are.

    Raises
    ------
    UsageError
        The model has no likelihood.
    """
    surrogate, process = model.surrogate, model.process
    if not surrogate.density.has_likelihood:
        raise UsageError(
            f"{model.config.model} has no likelihood",
            remedy="train another model, such as that of --model auto",
        )
    accepted = model.facts.get("acceptance", [1.0] * len(process.channels))
    result = np.full(len(sample), -np.inf)
    encoded = process.encode(hard_process(sample))  # of the collision alone, as in training
    channel_of = process.channel_of[encoded.subprocess]
    log_frequency = torch.log(torch.from_numpy(process.frequencies))
    for c, channel in enumerate(process.channels):
        rows = torch.nonzero(channel_of == c).squeeze(-1)
        for part in rows.split(HEAD_BATCH):
            x, sub = encoded.x[part], encoded.labels[part]
            log_p = surrogate.density.log_prob(x.to(device), sub.to(device)).to("cpu")
            z = surrogate.density.prepare(x.to(device), sub.to(device))
            names = ("pattern", "branch", "free")
            discrete = Discrete(*(getattr(encoded, n)[part].to(device) for n in names))
            log_p += surrogate.heads.log_prob(
                z, encoded.invariants[part].to(device), sub.to(device), discrete
            ).to("cpu")
            if not surrogate.density.learns_rates:
                rates = surrogate.rates
                log_p += log_frequency[sub] if rates is None else rates.log_prob(sub).cpu()
            log_p -= channel.chart.given(values_of(sub)).log_det(
                channel.join(x, torch.zeros(len(x), dtype=torch.float64))
            )
            log_p -= math.log(accepted[c])
            if channel.cyclic is not None:
                log_p += uniform_angle_log_prob()
            kinematics = process.kinematics(x, sub, torch.zeros(len(x)))
            log_p[~kinematics.passes] = -torch.inf
            result[encoded.event[part].numpy()] = log_p.numpy()
    return result
