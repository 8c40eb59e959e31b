"""Samples with very different weights: densities of the events without their weights."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from hepgen_ml.config import Config, TrainingConfig
from hepgen_ml.events.weights import effective_size
from hepgen_ml.models.event_weights import Biased, EventWeights
from hepgen_ml.models.rates import drawn_labels
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import labelled, which
from hepgen_ml.process.process import Process
from hepgen_ml.training.task import Task
from hepgen_ml.training.trainer import Trainer

log = logging.getLogger(__name__)

_FEW = 0.5
"""Ratio of the effective sample size to the number of events below which generated events have
weights like the sample."""


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
        if (rare := starved(process, encoded)) < _STARVED_SHARE:
            return config.with_(training__weights="equal")
        log.warning(
            "%.1f %% of the events are of subprocesses that equal weights would make less than a "
            "hundredth as frequent: the density of the events as they are is learned, and "
            "generated events have weights (training.weights=equal for events of equal weight)",
            100 * rare,
        )
        return config.with_(training__weights="sample")
    log.warning(
        "the effective sample size is only %.1f %% of the number of events: the biased "
        "density of the events as they are is learned, and generated events have weights "
        "(training.weights=equal for events of equal weight)", 100 * fraction,
    )  # fmt: skip
    return config.with_(training__weights="sample")


_STARVED, _STARVED_SHARE = 0.01, 0.01
"""Ratio of the share of a subprocess in the weights to that in the events below which it is rare,
as signals beside their background are, and the share of such events above which they matter."""

_STEPS = 2000
"""Number of steps in which weights are learned."""

_GOOD = 0.003
"""Relative statistical error of that mean at which no more events are drawn."""

_DRAWN, _ROUNDS = 8192, 20
"""Events drawn at a time, and how often those outside of the cuts are drawn again."""


def worth(process: Process, encoded: Encoded) -> float:
    """Effective sample size of the absolute weights, summed over channels, over all events."""
    size = encoded.weight.abs()
    channels = by_value(process.channel_of[encoded.subprocess])
    return sum(effective_size(size[rows]) for _, rows in channels) / len(encoded)


def starved(process: Process, encoded: Encoded) -> float:
    """Part of the events in subprocesses that would be far rarer in events of equal weight.

    Conditions of the user determine rates of their own: with them there are none.
    """
    if process.conditions is not None:
        return 0.0
    n, counts = len(process.subprocesses), torch.ones(len(encoded), dtype=torch.float64)
    events, weights = (
        torch.zeros(n, dtype=torch.float64).index_add(0, encoded.subprocess, values)
        for values in (counts, encoded.weight.abs())
    )
    rare = weights / weights.sum() < _STARVED * events / events.sum()
    return float(events[rare].sum() / events.sum())


def as_they_are(process: Process, encoded: Encoded) -> tuple[Process, Encoded, Tensor]:
    """The sample with the signs as weights, and the logarithms (m,) of the absolute weights.

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
    process = replace(process, subprocesses=subprocesses)
    return process, encoded, log_weight


class WeightTask(Task[Biased]):
    """The training of the weights of a biased sample, by their deviance."""

    module: EventWeights

    def loss(self, part: str, data: Biased, rows: Tensor) -> Tensor:
        return self.module.deviance(data, rows)


def learn_weights(
    weights: EventWeights,
    process: Process,
    training: Biased,
    validation: Biased,
    seconds: float,
    seed: int,
) -> dict[str, float | str]:
    """Learn the weights of a sample, with the trainer where formulas do not say all.

    Parameters
    ----------
    weights : EventWeights
    process : Process
    training, validation : Biased
        On the device of the weights.
    seconds : float
        Time of the training of the network.
    seed : int

    Returns
    -------
    dict
        As of `EventWeights.learn`.
    """

    def regress(module: EventWeights, *left: Biased) -> None:
        config = TrainingConfig(
            batch_size=1024, learning_rate=2e-3, weight_decay=1e-2, warmup=0.0, clip=1.0,
            max_steps=_STEPS, max_epochs=float(2**53), max_time=seconds, patience=0,
            validation_interval=50,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            Trainer(WeightTask(module, *left), config, seed=seed).run()

    return weights.learn(process, training, validation, regress)


@torch.no_grad()
def normalise_weights(
    surrogate: Surrogate,
    process: Process,
    device: torch.device,
    seed: int,
    most: int,
    seconds: float,
) -> float:
    """Normalise the weights of generated events to mean one, within its statistical error.

    The weights are normalised with the events of the sample; if the density deviates from these,
    the mean differs, and the cross section would be wrong.

    Parameters
    ----------
    surrogate : Surrogate
        With its weights learned.
    process : Process
        With the frequencies of the events as they are.
    device : torch.device
    seed : int
    most : int
        Events drawn at most.
    seconds : float
        After which no more are drawn.

    Returns
    -------
    float
        The mean before. Deviations within its statistical error are not corrected.
    """
    weights = surrogate.event_weights
    assert weights is not None
    surrogate.eval()
    generator = torch.Generator(device=device).manual_seed(seed + 3)
    begun, n, total, squares, error = time.monotonic(), 0, 0.0, 0.0, math.inf
    while n < most and error > _GOOD and (not n or time.monotonic() - begun < seconds):
        w = _drawn_weights(surrogate, process, device, min(_DRAWN, most), generator)
        n, total, squares = n + len(w), total + float(w.sum()), squares + float((w**2).sum())
        mean = total / max(n, 1)
        error = math.sqrt(max(squares / max(n, 1) - mean**2, 0.0) / max(n, 1)) / max(mean, 1e-300)
    if not total > 0:
        return 1.0
    found = math.log(mean)
    shift = found * max(0.0, 1 - (error / found) ** 2) if found else 0.0
    weights.calibration -= shift
    weights.largest *= math.exp(-shift)
    log.info("mean weight before its normalisation: %.4f +- %.4f", mean, error * mean)
    return mean


def _drawn_weights(
    surrogate: Surrogate, process: Process, device: torch.device, n: int, generator: torch.Generator
) -> Tensor:
    """Weights of n generated events, on average one if they are right."""
    density, weights = surrogate.density, surrogate.event_weights
    assert weights is not None
    if density.learns_rates:
        known = process.conditions
        given = () if known is None else (known.drawn(n, generator),)
        drawn = density.sample_events(n, generator, process.inside, *given)
        x, subprocess = drawn.x.cpu(), labelled(drawn.subprocess.cpu(), *given or [None])
    else:
        rates = torch.as_tensor(process.frequencies, device=device)
        if surrogate.rates is not None:
            subprocess = drawn_labels(process, surrogate.rates, n, generator).cpu()
        else:
            subprocess = torch.multinomial(rates, n, replacement=True, generator=generator).cpu()
        x = torch.zeros(n, process.n_coordinates, dtype=torch.float64)
        todo = torch.arange(n)
        for _ in range(_ROUNDS):  # with their subprocess, as events are
            some = density.sample(subprocess[todo].to(device), generator).cpu().double()
            good = process.inside(some, subprocess[todo])
            x[todo[good]] = some[good]
            todo = todo[~good]
            if not len(todo):
                break
        kept = torch.ones(n, dtype=torch.bool)
        kept[todo] = False
        x, subprocess = x[kept], subprocess[kept]
    found = []
    for c, rows in by_value(process.channel_of[which(subprocess)]):
        length, sub = len(process.channels[c].classes), subprocess[rows]
        k = process.kinematics(x[rows], sub, torch.zeros(len(rows)))
        final = k.final[:, :length]
        z = density.prepare(x[rows].to(device), sub.to(device))
        invariants = process.invariants(k.incoming, final).to(device)
        found.append(weights(process, final, k.incoming, z, invariants, sub.to(device)).cpu())
    return torch.cat(found) if found else torch.zeros(0)
