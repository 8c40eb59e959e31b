"""Acceptance of processes with very many channels."""

from __future__ import annotations

import time

import numpy as np
import torch

from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.process import Process
from hepgen_ml.training.data import Progress

_LONGEST = 25.0
"""Seconds that it takes at most."""

_SHRINK = 20.0
"""Draws that the acceptance of all channels counts as in that of each."""

_TOGETHER = 8192
"""Draws of all channels together, about."""


def acceptance_together(
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

    What a channel's own draws leave open, the acceptance of all of them says.

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
    while drawn[0] < most:
        chosen = [rng.choice(m, n, p=p) for m, p in zip(members, shares, strict=True)]
        subprocess = torch.from_numpy(np.concatenate(chosen))
        x = surrogate.density.sample(subprocess.to(device), generator)
        passes = process.kinematics(x, subprocess, torch.zeros(len(x))).passes.numpy()
        passed += passes.reshape(n_channels, n).sum(1)
        drawn += n
        taken = time.monotonic() - begun
        if progress is not None:
            progress("acceptance", min(taken / seconds, 1.0), 1.0, {})
        if taken * (1 + n / drawn[0]) > seconds:
            break
    mean = max(float(passed.sum()), 0.5) / drawn.sum()
    return ((passed + _SHRINK * mean) / (drawn + _SHRINK)).tolist()
