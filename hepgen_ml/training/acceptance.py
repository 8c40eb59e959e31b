"""Acceptance of a trained density: the fraction of its draws inside the cuts, by channel."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from hepgen_ml.events.source import Progress
from hepgen_ml.models.rates import drawn_labels
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.labels import labelled
from hepgen_ml.process.process import Process

EVENTS = 5_000
"""Draws per channel; at an acceptance of 95 % its relative error is 0.3 %."""

_FEWEST = 100
"""Number of draws per channel if time is short."""

FEW_CHANNELS = 64
"""Number of channels up to which the acceptance of each is measured separately."""

_LONGEST = 15.0
"""Largest time in seconds for very many channels."""

_SHRINK = 20.0
"""Weight of the common acceptance in that of each channel, in draws."""

_TOGETHER = 8192
"""Draws of all channels together, about."""


@torch.no_grad()
def measure_acceptance(
    surrogate: Surrogate,
    process: Process,
    device: torch.device,
    seed: int,
    seconds: float = math.inf,
    progress: Progress | None = None,
) -> list[float]:
    """Fraction of each channel's draws that obey all cuts.

    It normalises the density of generated events, since draws outside the cuts are rejected.

    Parameters
    ----------
    surrogate, process, device, seed
    seconds : float
        Time limit; with many channels it reduces the number of draws of each.
    progress : callable, optional
        Called with stage, done, total and an empty dict.
    """
    surrogate.eval()
    generator = torch.Generator(device=device).manual_seed(seed)
    if surrogate.density.learns_rates:
        return surrogate.density.acceptance(process.inside, EVENTS, generator)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    if len(process.channels) > FEW_CHANNELS:
        return _together(surrogate, process, device, rng, generator, EVENTS, seconds, progress)
    channel_of, fractions = process.channel_of.numpy(), []
    begun, n_channels, n, n_drawn = time.monotonic(), len(process.channels), EVENTS, 0
    tell = progress or (lambda *_: None)
    tell("measure acceptance", 0, n_channels, {})
    for c in range(n_channels):
        if n_drawn:
            taken = time.monotonic() - begun
            # draws for each of the remaining channels, from the time per draw so far
            affordable = max(seconds - taken, 0.0) / (taken / n_drawn * (n_channels - c))
            n = int(min(max(affordable, _FEWEST), EVENTS))
        n_drawn += n
        if surrogate.rates is not None:
            subprocess = drawn_labels(process, surrogate.rates, n, generator, c).cpu()
        else:
            p = np.where(channel_of == c, process.frequencies, 0.0)
            subprocess = torch.from_numpy(rng.choice(len(p), n, p=p / p.sum()))
        x = surrogate.density.sample(subprocess.to(device), generator)
        passes = process.kinematics(x, subprocess, torch.zeros(len(x))).passes
        # Half an event instead of none, so that the logarithm is finite.
        fractions.append(max(float(passes.sum()), 0.5) / len(x))
        tell("measure acceptance", c + 1, n_channels, {})
    return fractions


def _together(
    surrogate: Surrogate,
    process: Process,
    device: torch.device,
    rng: np.random.Generator,
    generator: torch.Generator,
    most: int,
    seconds: float,
    progress: Progress | None,
) -> list[float]:
    """Acceptance of very many channels, drawn together while there is time.

    Channels with few draws get the acceptance of all channels together.

    Parameters
    ----------
    surrogate, process, device
    rng, generator
        Choose subprocesses, and draw from the density.
    most : int
        Draws of each channel.
    seconds : float
        After which no more are made.
    progress : callable, optional
        Called with stage, done, total and an empty dict.
    """
    n_channels = len(process.channels)
    passed, drawn = np.zeros(n_channels), np.zeros(n_channels)
    members: list[list[int]] = [[] for _ in range(n_channels)]
    for s, c in enumerate(process.channel_of.tolist()):
        members[c].append(s)
    shares = [process.frequencies[m] / process.frequencies[m].sum() for m in members]
    begun, seconds, n = time.monotonic(), min(seconds, _LONGEST), max(1, _TOGETHER // n_channels)
    while True:
        chosen = [rng.choice(m, n, p=p) for m, p in zip(members, shares, strict=True)]
        subprocess = torch.from_numpy(np.concatenate(chosen))
        if process.conditions is not None:
            values = process.conditions.drawn(len(subprocess), generator)
            subprocess = labelled(subprocess, values)
        x = surrogate.density.sample(subprocess.to(device), generator)
        passes = process.kinematics(x, subprocess, torch.zeros(len(x))).passes.numpy()
        passed += passes.reshape(n_channels, n).sum(1)
        drawn += n
        taken = time.monotonic() - begun
        last = drawn[0] >= most or taken * (1 + n / drawn[0]) > seconds
        if progress is not None:
            share = max(drawn[0] / most, taken / seconds)
            progress("measure acceptance", 1.0 if last else min(share, 1.0), 1.0, {})
        if last:
            break
    mean = max(float(passed.sum()), 0.5) / drawn.sum()
    return ((passed + _SHRINK * mean) / (drawn + _SHRINK)).tolist()
