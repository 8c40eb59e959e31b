r"""Posterior draws of a Bayesian surrogate as weight variations of its events.

Events come from the equal mixture of K posterior draws with densities p_k, so
that under their nominal weight they follow the posterior predictive density.
The variations

.. math:: w_k(x) = p_k(x) / \frac{1}{K} \sum_j p_j(x)

turn a histogram of all events into that of draw k; their mean over k is one.
The spread of the K histograms is the uncertainty of the surrogate. Colour flow,
helicities and scale are drawn by networks without posterior and cancel in the
ratio, as do the Jacobian of the chart and the azimuth of the event. The
fractions of the draws inside the cuts are taken as equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo, concatenate
from hepgen_ml.events.weight_groups import declared
from hepgen_ml.models.base import DensityModel
from hepgen_ml.models.choice import BAYESIAN

MAX_DRAWS = 1000

Block = tuple[EventSample, Tensor, Tensor]
"""Events, their learned coordinates (m, D) and subprocesses (m,)."""


def names_of(n_draws: int) -> list[str]:
    """Names of the weight variations: ``posterior_1`` ... ``posterior_K``."""
    return [f"posterior_{k + 1}" for k in range(n_draws)]


def check(density: DensityModel, n_draws: int) -> None:
    """Refuse models without a posterior.

    Raises
    ------
    UsageError
        A number of draws below two or above `MAX_DRAWS` or that of the members of an ensemble, or
        a model that is not Bayesian.
    """
    if not 2 <= n_draws <= MAX_DRAWS:
        raise UsageError(
            f"{n_draws} posterior draws are too few or too many",
            remedy=f"ask for 2 to {MAX_DRAWS}, say 10",
        )
    if not density.has_likelihood:
        raise UsageError(
            "the model has no likelihood, from which weights are computed",
            remedy="take another model",
        )
    if 0 < density.most_draws < n_draws:
        raise UsageError(
            f"{n_draws} draws do not fit an ensemble of {density.most_draws}",
            remedy=f"ask for 2 to {density.most_draws}",
        )
    if not density.most_draws:
        raise UsageError(
            "the model is not Bayesian: it has no posterior to draw from",
            remedy=BAYESIAN,
        )


def with_posterior(run: RunInfo, n_draws: int) -> RunInfo:
    """Run information that declares the weight variations."""
    names = {
        name: f"posterior draw {k} of {n_draws} of the surrogate"
        for k, name in enumerate(names_of(n_draws), 1)
    }
    return declared(run, names, "hepgen-ml posterior", "replicas")


def sample_posterior(
    density: DensityModel, n: int, n_draws: int, run: RunInfo, make: Callable[[Tensor], Block]
) -> EventSample:
    """Events of the equal mixture of posterior draws, with their weight variations.

    Parameters
    ----------
    density : DensityModel
    n, n_draws : int
        Event i is of draw i mod K.
    run : RunInfo
        From `with_posterior`.
    make : callable
        Makes events of the density as it is when called, from their numbers (m,) among all n;
        those outside the cuts have to be drawn again there, so that they stay with their draw.
    """
    blocks: list[Block] = []
    numbers: list[Tensor] = []
    for k in range(min(n_draws, n)):
        numbers.append(torch.arange(k, n, n_draws))
        with density.posterior_draw(k):
            blocks.append(make(numbers[-1]))
    order = torch.argsort(torch.cat(numbers))
    events = concatenate([block[0] for block in blocks], run)[order.numpy()]
    x = torch.cat([x for _, x, _ in blocks])[order]
    subprocess = torch.cat([subprocess for _, _, subprocess in blocks])[order]
    variations = weights(density, x, subprocess, n_draws) * events.weight
    events.weights |= dict(zip(names_of(n_draws), variations, strict=True))
    return events


@torch.no_grad()
def weights(density: DensityModel, x: Tensor, subprocess: Tensor, n_draws: int) -> FloatArray:
    """Variations w_k (K, m) of events with coordinates (m, D); their mean over k is one."""
    device = density.mean.device
    subprocess = subprocess.to(device)
    z = density.prepare(x.to(device), subprocess)
    log_p = density.log_prob_draws(z, subprocess, n_draws).to("cpu", torch.float64)
    log_mean = torch.logsumexp(log_p, 0) - math.log(n_draws)
    return np.asarray(torch.exp(log_p - log_mean).numpy())
