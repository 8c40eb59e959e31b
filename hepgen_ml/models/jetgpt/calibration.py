"""Calibration of `jetgpt-splitting` with a sample, before and after its training."""

from __future__ import annotations

import torch
from torch import Tensor

from hepgen_ml.events.weights import effective_size
from hepgen_ml.models.base import Inside
from hepgen_ml.models.jetgpt.growth import GrowingDensity
from hepgen_ml.phase_space.coordinates import azimuth, pseudorapidity
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import labelled, values_of, which

_LEAST = 20
"""Minimum number of events for an offset (for each outcome) or a mean weight."""

MOST_GENERATED = 1_000_000
"""Largest number of events generated to measure how often a jet is added."""

_STAY = 0.1
"""Assumed minimum fraction of events with the largest number of jets that stop there."""

_BATCH = 4096


def fit_edges(model: GrowingDensity, encoded: Encoded) -> None:
    """Take the smallest distances between objects, where rings end, from a sample."""
    pointers = model.components.pointers
    if pointers is None:
        return
    for number, family in enumerate(model.families):
        for sub in family.subprocess:
            mine = encoded.subprocess == sub
            x = encoded.x[mine]
            if len(x) == 0:
                continue
            z = model.prepare(x, torch.full((len(x),), sub))
            length = int(model.n_objects[sub])
            given = values_of(encoded.labels[mine])
            p = model.momenta(z, number, length, given)
            for place, (kind, _) in enumerate(model.objects[number][:length]):
                direction = model.components.direction(kind)
                if place == 0 or not direction:
                    continue
                own = p[:, model.lists.particle(number, place)]
                pointers.fit_edge(
                    model.components.numbers[kind][min(direction)],
                    model.lists.around(p, number, length, place, given),
                    pseudorapidity(own).float(),
                    azimuth(own).float(),
                )


def emphasize(
    model: GrowingDensity, subprocess: Tensor, weight: Tensor, rate: Tensor | None
) -> None:
    """Weigh the loss of later jets by how often they are drawn.

    If events with many jets are drawn more often than they occur, their weights compensate for
    this, and the purpose is lost: the third jet, and the largest number of jets, are then hardly
    learned. But each factor of equation 5.16 is a separate density, given the objects before it, so
    that a factor in its part of the loss does not move the minimum. Therefore the k-th object and
    the splitting after it are multiplied by the inverse mean weight of the events with at least k
    objects.

    Parameters
    ----------
    model : GrowingDensity
    subprocess, weight : (m,) tensors
        Of the training events.
    rate : (m,) tensor or None
        How often they are drawn; None: once.
    """
    rate = torch.ones_like(weight) if rate is None else rate
    for number in range(len(model.families)):
        rows = model.family_of[subprocess] == number
        n, w, r = model.n_objects[subprocess[rows]], weight[rows], rate[rows]
        factor = 1.0
        for k in range(model.emphasis.shape[1]):
            some = n >= k
            if int(some.sum()) >= _LEAST and float(w[some].sum()) > 0:
                factor = float(r[some].sum() / w[some].sum())
            model.emphasis[number, k] = factor


@torch.no_grad()
def calibrate_rates(
    model: GrowingDensity,
    subprocess: Tensor,
    weight: Tensor,
    generator: torch.Generator | None = None,
    inside: Inside | None = None,
    most: int = MOST_GENERATED,
) -> None:
    """Make the mean probability of another jet after n of them the sample's fraction, for each n.

    Gradients of rare events are averaged with those of thousands of others, so that their rates
    deviate by more than the statistics of the sample. One offset of the log odds after each object
    corrects this, and keeps their dependence on the kinematics. The mean is that of generated
    events, because their small deviations accumulate with every jet. There is no offset after the
    largest number of jets of the sample, and none if almost all events have the same outcome.

    Models that continue beyond the largest number n move events from n to n + 1 and more. To keep
    the rate of n jets, the rate of n jets and more is increased by 1 / (1 - p), with the mean
    probability p of another jet.

    Parameters
    ----------
    model : GrowingDensity
    subprocess, weight : (m,) tensors
        Of the training events.
    generator : torch.Generator, optional
    inside : callable, optional
        As of `GrowingDensity.sample_events`.
    most : int
        Events to generate at most.
    """
    n_made = min(len(subprocess), most)
    given = None if model.conditions is None else model.conditions.drawn(n_made, generator)
    x, made, *_ = model.sample_events(n_made, generator, inside, given)
    z = model.prepare(x, made)
    drawn = labelled(made, given)
    subprocess = which(subprocess)
    for number, family in enumerate(model.families):
        fixed = model.fixed[number]
        top = fixed + family.top - family.fewest
        mine = model.family_of[subprocess] == number
        n, w = model.n_objects[subprocess[mine]], weight[mine].double()
        rows = torch.nonzero(model.family_of[made] == number).squeeze(-1)
        odds = _log_odds(model, z[rows], drawn[rows], number)
        last = odds[:, -1][~odds[:, -1].isnan()]
        if len(last) >= _LEAST:
            leaves = float(torch.sigmoid(last.double()).mean())
            w = torch.where(n == top, w / max(1 - leaves, _STAY), w)
        for k in range(top - fixed):
            asked = n >= fixed + k
            goes_on = n[asked] > fixed + k
            some = odds[:, k][~odds[:, k].isnan()]
            parts = w[asked][goes_on], w[asked][~goes_on]
            # Weights of either sign may leave less than nothing of a few events.
            if len(some) >= _LEAST and all(
                float(x.sum()) > 0 and effective_size(x) >= _LEAST for x in parts
            ):
                wanted = float(parts[0].sum() / (parts[0].sum() + parts[1].sum()))
                model.offset[number, fixed + k] += offset(some.double(), wanted)


def _log_odds(model: GrowingDensity, z: Tensor, labels: Tensor, family: int) -> Tensor:
    """Log odds (m, jets + 1) of another jet after each number of them; NaN beyond an event's own.

    Up to the largest number of jets of the sample.
    """
    fixed, n = model.fixed[family], model.n_objects[which(labels)]
    top = fixed + model.families[family].top - model.families[family].fewest
    odds = torch.full((len(z), top - fixed + 1), torch.nan, device=z.device)
    for length in range(fixed, top + 1):
        reached = n == length if length < top else n >= top
        for part in torch.nonzero(reached).squeeze(-1).split(_BATCH):
            momenta = model.momenta(z[part], family, length, values_of(labels[part]))
            shown = model.shown(labels[part])
            hidden = model.histories(z[part], momenta, family, length, shown)
            odds[part, : length - fixed + 1] = model.log_odds(hidden, family)
    return odds


def offset(log_odds: Tensor, wanted: float) -> float:
    """Offset of log odds (m,) with which the mean probability is the desired one."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = float(torch.sigmoid(log_odds + middle).mean())
        low, high = (middle, high) if mean < wanted else (low, middle)
    return (low + high) / 2
