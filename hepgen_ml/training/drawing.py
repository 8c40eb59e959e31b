"""Which events a training sees and how often: held-out events, weights and rates of channels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.process import Process


def evened(process: Process, subprocess: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    r"""Weights (m,) that add up to the statistical power of each channel.

    Events of different processes have different cross sections. For a density that is conditioned
    on the subprocess this affects rates only: each channel is learned best if its total weight is
    its effective sample size :math:`(\sum w)^2 / \sum w^2`, which gives each event unit weight if
    weights are equal. They average to one over all channels.
    """
    channel_of, weight = process.channel_of[subprocess], weight.clone()
    for _, rows in by_value(channel_of):
        w = weight[rows]
        if not w.sum() > 0:
            w = w.abs()  # weights of a channel may cancel after cuts
        weight[rows] = w * (w.sum() / (w**2).sum().clamp_min(1e-300))
    return weight / weight.mean()


def draw_rates(
    process: Process, subprocess: torch.Tensor, power: float, boost: float = 0.0
) -> torch.Tensor:
    """How often each event (m,) is drawn, on average once.

    Parameters
    ----------
    process : Process
    subprocess : (m,) int64 tensor
    power : float
        The share of each channel in a batch is proportional to this power of its number of events.
    boost : float
        Largest drawing rate relative to events of the largest channel; 0 for no limit.
        It prevents overfitting of the events of very rare channels.
    """
    channel_of = process.channel_of[subprocess]
    counts = torch.bincount(channel_of).double().clamp_min(1)
    rates = counts ** (power - 1)
    if boost > 0:
        rates = rates.clamp_max(max(boost, 1.0) * float(rates.min()))
    rate = rates[channel_of]
    return rate / rate.mean()


def split(
    weight: torch.Tensor, fraction: float, seed: int
) -> tuple[torch.Tensor, npt.NDArray[np.bool_]]:
    """Random division into training and validation events.

    Both have the same part of the events of negative weight (n,), so that neither sum of weights
    is negative by chance.

    Returns
    -------
    order : (n - k,) int64 tensor
        Training events.
    held_out : (n,) bool array
        The k validation events, never trained on.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    held_out = np.zeros(len(weight), dtype=bool)
    for sign in (False, True):
        rows = np.flatnonzero((weight < 0).numpy() == sign)
        n = max(round(fraction * len(rows)), 0 if sign else 1)
        held_out[rows[rng.permutation(len(rows))[:n]]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), held_out
