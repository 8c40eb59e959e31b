"""Posterior of last layers after the training, in the principal axes of what the events say.

Where the weights have little information, a Laplace approximation is far too wide: a spline flow
is not linear in them over the width of the prior. Therefore its variances are only where an
optimisation begins, which minimises the bound of the training with the means fixed.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from hepgen_ml.models.base import DensityModel
from hepgen_ml.networks.bayesian import Variational, variational_layers
from hepgen_ml.networks.principal_axes import Watch
from hepgen_ml.process.encoded import Encoded

_EVENTS, _LEAST = 20_000, 500
"""Events for the information, and the least number of each subprocess, if there are so many; of
many subprocesses it is smaller, so that at most twice as many events are used."""

_BATCH = 1024

_STEPS, _STEP_EVENTS, _WAY = 300, 256, 30.0
"""Of the optimisation of variances; the last is the largest change of a logarithm, at a constant
rate."""

_FEWEST, _TRIAL = 60, 5
"""Steps that are always taken, and those after which the others are counted."""

_WIDEST = -4.0
"""Largest logarithm of a variance at its begin: wider ones are found from below, because the loss
of draws far beyond where the density is linear in them is too noisy to come down from."""


def find_axes(
    density: DensityModel, events: Encoded, seed: int, seconds: float = math.inf
) -> None:
    """Replace the posterior of last layers by one in principal axes; means stay as they are.

    Of densities with ``principal_axes`` that have a posterior of last layers only, see
    `hepgen_ml.networks.principal_axes`. Others are not changed.

    Parameters
    ----------
    density : DensityModel
        Trained, with its best weights. Its `n_training` events have the information.
    events : Encoded
        Training events.
    seed : int
        Of the choice of events.
    seconds : float
        For the optimisation; it takes `_FEWEST` steps at least.
    """
    found = [m for m in density.modules() if isinstance(m, DensityModel) and _maps(m)]
    if not found:
        return
    chosen, factor = _some(events, seed)
    x, labels = events.x[chosen], events.labels[chosen]
    weight = events.weight[chosen].abs().cpu() * factor
    scale = density.n_training / float(weight.sum())
    for member in found:
        maps, device = _maps(member), member.mean.device
        z = member.prepare(x.to(device), labels.to(device))
        root = torch.sqrt(weight).to(device, z.dtype)
        data = z, labels.to(device), root
        _find(member, maps, data, scale)
        _widen(member, maps, data, scale, seed, seconds / len(found))


def _maps(density: DensityModel) -> list[Variational]:
    """Weights whose posterior is to be found; none if others have one too."""
    layers = variational_layers(density)
    maps = [weights for layer in layers for weights in layer.of]
    return maps if density.principal_axes and len(layers) == 2 * len(maps) else []


def _some(events: Encoded, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of some events of each subprocess, and how many events each of them stands for."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(events), generator=rng)
    subprocess = events.subprocess.cpu()[order]
    sizes = torch.bincount(subprocess)
    part = min(1.0, _EVENTS / len(events))
    least = min(_LEAST, math.ceil(_EVENTS / max(int((sizes > 0).sum()), 1)))
    wanted = torch.minimum(sizes, (part * sizes).floor().clamp_min(least).long())
    order = order[torch.argsort(subprocess, stable=True)]
    rows = torch.cat([
        rows[:n] for rows, n in zip(order.split(sizes.tolist()), wanted.tolist(), strict=True)
    ])  # fmt: skip
    return rows, (sizes / wanted.clamp_min(1))[events.subprocess.cpu()[rows]].double()


@torch.enable_grad()
def _find(
    density: DensityModel, maps: list[Variational], data: tuple[Tensor, ...], scale: float
) -> None:
    """Find the axes of linear maps in a first pass, and the variances along them in a second."""
    means = [weights.mean for weights in maps]
    density.eval()
    watches = [Watch(*weights.matrices, weights.mean.device) for weights in maps]
    for weights, watch in zip(maps, watches, strict=True):
        weights.axes, weights.watch = None, watch
    try:
        for last in (False, True):
            for z, labels, root in zip(*(part.split(_BATCH) for part in data), strict=True):
                # Products of two derivatives have the weight itself.
                total = (root * density.log_prob_z(z, labels)).sum()
                torch.autograd.grad(total, means, allow_unused=True)
            for weights, watch in zip(maps, watches, strict=True):
                if last:
                    weights.axes = watch.posterior(scale, weights.prior_std)
                else:
                    watch.rotate()
    finally:
        for weights in maps:
            weights.watch = None


@torch.enable_grad()
def _widen(
    density: DensityModel,
    maps: list[Variational],
    data: tuple[Tensor, ...],
    scale: float,
    seed: int,
    seconds: float,
) -> None:
    """Optimise the variances along the axes: those that minimise the bound of the training."""
    z, labels, root = data
    devices = [z.device] if z.device.type == "cuda" else []
    axes = [weights.axes for weights in maps if weights.axes is not None]
    widths = [a.log_variance.clamp(max=_WIDEST).requires_grad_() for a in axes]
    optimizer = torch.optim.Adam(widths)
    rng = torch.Generator().manual_seed(seed)
    for weights, a, width in zip(maps, axes, widths, strict=True):
        weights.train()  # noise, of these maps only
        a.log_variance = width
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            steps, done, begun = _STEPS, 0, time.monotonic()
            while done < steps:
                rows = torch.randint(len(z), (_STEP_EVENTS,), generator=rng).to(z.device)
                log_p = (root[rows] ** 2 * density.log_prob_z(z[rows], labels[rows])).sum()
                kl = torch.stack([a.kl(w.prior_std) for a, w in zip(axes, maps, strict=True)])
                loss = kl.sum() / scale - log_p * len(z) / len(rows)
                for width, gradient in zip(widths, torch.autograd.grad(loss, widths), strict=True):
                    width.grad = gradient
                if done == _TRIAL and math.isfinite(seconds):
                    rate = _TRIAL / max(time.monotonic() - begun, 1e-9)
                    steps = min(steps, max(_FEWEST, int(rate * seconds)))
                part = 0.5 * (1 + math.cos(math.pi * done / steps))
                optimizer.param_groups[0]["lr"] = _WAY / steps * part
                optimizer.step()
                done += 1
    finally:
        for weights, a in zip(maps, axes, strict=True):
            weights.eval()
            a.log_variance = a.log_variance.detach()
