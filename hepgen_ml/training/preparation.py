"""Preparation of a new surrogate and its training events from an encoded sample."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hepgen_ml.config import Config, TrainingConfig
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import RunInfo
from hepgen_ml.events.weights import effective_size
from hepgen_ml.files.garbage import uncollected
from hepgen_ml.models import registry
from hepgen_ml.models.choice import chosen
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.process.scales_in_words import auxiliary_fractions
from hepgen_ml.process.symmetry import (
    check_reflection,
    exchanged_beams,
    has_equal_beams,
    has_exchange,
    looks_symmetric,
    reflected,
    symmetrize_frequencies,
)
from hepgen_ml.process.unseen import MOST_UNSEEN, unseen_share, unseen_warning
from hepgen_ml.training.biased import as_they_are, with_weights
from hepgen_ml.training.drawing import draw_rates, evened, split
from hepgen_ml.training.encoded import EncodedSample
from hepgen_ml.training.output_run import output_run
from hepgen_ml.training.surrogate_task import SurrogateTask

log = logging.getLogger(__name__)

_NAMED = 4
"""Settings without effect that a warning names."""


@dataclass
class Prepared:
    """A new surrogate and its training events.

    Attributes
    ----------
    surrogate : Surrogate
        Its standardisation is that of the events, its weights are random.
    process : Process
    config : Config
        Configuration with all automatic choices made.
    run : RunInfo
        Of generated events.
    training, validation : Encoded
    n_events : int
        Independent training events: mirror images do not count.
    rate : (m,) tensor or None
        How often training events are drawn.
    biased : list of (Encoded, tensor) or None
        If generated events have weights like the sample: training and validation events, with the
        logarithms (m,) of their absolute weights.
    facts : dict
        About the sample, for the model card.
    """

    surrogate: Surrogate
    process: Process
    config: Config
    run: RunInfo
    training: Encoded
    validation: Encoded
    n_events: int
    rate: Tensor | None
    biased: list[tuple[Encoded, Tensor]] | None
    facts: dict[str, Any]

    def task(self, device: torch.device) -> SurrogateTask:
        """Training of the surrogate on these events."""
        return SurrogateTask(
            self.surrogate, self.training, self.validation, device=device,
            n_events=self.n_events, rate=self.rate,
        )  # fmt: skip


@uncollected()
def prepare(sample: EncodedSample, config: Config, seconds: float) -> Prepared:
    """Choose a model, if it is automatic, and its training and validation events.

    Parameters
    ----------
    sample : EncodedSample
    config : Config
    seconds : float
        Planned for the training.

    Raises
    ------
    SampleError
        The validation events do not have a positive sum of weights, or a reflection does not
        leave the events as they are.
    UsageError
        The model cannot learn such a process.
    """
    process, encoded = sample.process, sample.encoded
    unseen = unseen_share(encoded)
    run = output_run(sample.run, process, sample.fingerprint)
    config = with_weights(config, process, encoded)
    log_weight = None
    if config.training.weights == "sample":
        process, encoded, log_weight = as_they_are(process, encoded)
    config = chosen(config, process, encoded, seconds)  # by the density that is learned
    kind = registry.density_class(config)
    if unused := config.without_effect(kind.network_settings(config)):
        more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
        log.warning("no effect on a %s: %s%s", config.model, ", ".join(unused[:_NAMED]), more)
    if process.conditions is not None and not kind.conditional:
        raise UsageError(
            f"{config.model} cannot depend on conditions",
            remedy="take another model, such as that of --model auto, or leave --condition out",
        )
    if process.is_reconstructed and kind.learns_rates:
        unseen = 0.0  # models may draw more jets than the sample has
    elif unseen > MOST_UNSEEN:
        log.warning("%s", unseen_warning(unseen))
    process = kind.adapt(process, config)
    if n_more := process.n_coordinates - encoded.x.shape[1]:
        encoded = replace(encoded, x=F.pad(encoded.x, (0, n_more)))
    of_rates = encoded.labels, encoded.weight
    if not kind.learns_rates:
        weight = evened(process, encoded.subprocess, encoded.weight)
        encoded = replace(encoded, weight=weight)
    facts = {
        "events": len(encoded),
        "effective_events": round(effective_size(encoded.weight)),
        "negative_weights": round(float((encoded.weight < 0).double().mean()), 6),
        "auxiliary_fractions": auxiliary_fractions(process, encoded),
        "unseen_structures": round(unseen, 6),
    }
    order, held_out = split(encoded.weight, config.training.validation_fraction, config.seed)
    training, validation = encoded[order], encoded[torch.from_numpy(np.flatnonzero(held_out))]
    if not len(training):
        raise SampleError(
            "no events are left to train on",
            remedy="take more events, or hold out fewer (training.validation_fraction)",
        )
    if not validation.weight.sum() > 0:
        raise SampleError(
            "the weights of the events held out do not have a positive sum",
            remedy="take more events, or hold out more (training.validation_fraction)",
        )
    biased = None if log_weight is None else [
        (part, log_weight[rows])
        for part, rows in ((training, order), (validation, torch.from_numpy(held_out)))
    ]  # fmt: skip
    validation.weight = validation.weight / validation.weight.mean()
    torch.manual_seed(config.seed)
    surrogate = Surrogate(process, config)
    surrogate.fit_standardization(training)
    ready = Prepared(surrogate, process, config, run, training, validation, 0, None, biased, facts)
    _choose_events(ready)
    if surrogate.rates is not None:
        surrogate.rates.fit(*of_rates, [s.frequency for s in process.subprocesses])
    surrogate.density.before_training(ready.training, ready.rate)
    return ready


def _choose_events(ready: Prepared) -> None:
    """Thin and mirror the training events, and compute how often each is drawn."""
    process, settings = ready.process, ready.config.training
    learns_rates = ready.surrogate.density.learns_rates
    training = ready.training
    if settings.max_events:
        training = thinned(process, training, settings.max_events, learns_rates)
    if settings.reflect:
        check_reflection(process, training)
    ready.n_events = round(effective_size(training.weight))
    training, symmetries = _with_images(training, process, ready.run, settings)
    ready.training = training
    ready.facts |= {"validation_events": len(ready.validation), **symmetries}
    if settings.channel_power < 1:
        how = settings.channel_power, settings.channel_boost
        ready.rate = draw_rates(process, training.subprocess, *how)
        if not learns_rates:  # validated like the training
            ready.validation.weight *= draw_rates(process, ready.validation.subprocess, *how)


def thinned(process: Process, training: Encoded, most: int, keep_rates: bool) -> Encoded:
    """At most so many training events of each channel, chosen at random.

    Parameters
    ----------
    process : Process
    training : Encoded
    most : int
    keep_rates : bool
        Transfer the weight of removed events to the remaining ones, separately for negative
        weights; for models that learn the rates of channels. Other models take rates from the
        process, and the density of a channel does not depend on its share; their training then
        covers all multiplicities more evenly.
    """
    channel_of = process.channel_of[training.subprocess]
    rng = np.random.default_rng(len(training))
    kept = []
    for c in torch.unique(channel_of).tolist():
        rows = torch.nonzero(channel_of == c).squeeze(-1)
        if len(rows) <= most:
            kept.append(rows)
            continue
        below = training.weight[rows] < 0
        n_below = round(most * int(below.sum()) / len(rows))
        for alike, n in ((rows[~below], most - n_below), (rows[below], n_below)):
            chosen = alike[torch.from_numpy(rng.permutation(len(alike))[:n])]
            if keep_rates and n:
                training.weight[chosen] *= (
                    training.weight[alike].sum() / training.weight[chosen].sum()
                )
            kept.append(chosen)
    some = training[torch.cat(kept).sort().values]
    some.weight /= some.weight.mean()
    return some


def _with_images(
    training: Encoded, process: Process, run: RunInfo, config: TrainingConfig
) -> tuple[Encoded, dict[str, str]]:
    """Training events and their images under valid symmetries, and facts about these."""
    said = {"beam_exchange": "not used", "reflection": "not used"}
    if not has_exchange(run, process):
        equal = has_equal_beams(run)
        said["beam_exchange"] = "not used: " + (
            "the total momentum is fixed" if equal else "the beams differ"
        )
    elif config.exchange_beams and looks_symmetric(process, training):
        symmetrize_frequencies(process)
        training = _doubled(training, *exchanged_beams(process, training))
        said["beam_exchange"] = "holds: trained on mirror images too"
    elif config.exchange_beams:
        log.warning("beams are equal but the events favour one side: no mirror images are used")
        said["beam_exchange"] = "does not hold: the events favour one side"
    if config.reflect:
        training = _doubled(training, *reflected(process, training))
        said["reflection"] = "holds: trained on reflected events too"
    return training, said


def _doubled(training: Encoded, mirrored: Encoded, possible: Tensor) -> Encoded:
    """Training events and their mirror images, which share the weight of the event."""
    training.weight[possible] /= 2
    mirrored.weight /= 2
    both = Encoded.join([training, mirrored])
    # Shuffled, so that any part is representative.
    order = np.random.default_rng(len(both)).permutation(len(both))
    both = both[torch.from_numpy(order)]
    both.weight /= both.weight.mean()
    return both
