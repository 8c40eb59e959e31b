"""Automatic choice of the model and of settings that the user has not given.

Each rule is one of the sample (how many events and coordinates, how uneven its channels are,
whether it contradicts a symmetry) and of the time; none refers to a particular process. For a
million Z + jets and half an hour they give the settings of the benchmark `zjets`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from hepgen_ml.config import AUTOMATIC, Config
from hepgen_ml.errors import NOTE, SampleError
from hepgen_ml.events.objects import JET
from hepgen_ml.models.registry import density_class
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.process.symmetry import check_reflection

log = logging.getLogger(__name__)

BAYESIAN = (
    "train one with --set jetgpt.bayesian=last; spline_flow, flow and ddpm have this setting too"
)
"""Remedy for a model whose weights have no posterior."""

_UNEVEN = 10.0
"""Ratio of events in the largest and the smallest channel above which rare channels are drawn more
often."""

_COORDINATES_PER_SECOND = 20_000.0
"""Approximate number of coordinates that one core learns in a second, to estimate the passes."""

_STEPS = 12_000
"""Number of steps for which the batch size is chosen; with fewer a network does not converge."""

_SIGN = 4.5
"""Standard deviations above which a sample contradicts reflections; smaller than if they are
requested."""

_NARROW, _MANY_COORDINATES, _FEW_EVENTS, _SHORT = 64, 8.0, 30_000, 5e6
"""Width of the network for events with at least so many coordinates, if the sample has fewer events
or if there is time for fewer coordinates: a wider network needs twice the time for each event, and
learns no more from it before it has seen far more events."""

_BATCHES = (128, 256, 512, 1024)
"""Sizes of batches."""

_BATCHES_OF_A_PASS = 50
"""Least number of batches in a pass over the events for what a model suggests."""

_LEAST = 1000.0
"""Number of coordinates in a batch below which a step is mostly overhead. Batches of jets have 512
events or more: their objects are gathered by kind and place, and half of that would cost a third of
the events."""


def chosen(
    config: Config, process: Process, encoded: Encoded, seconds: float | None = None
) -> Config:
    """The configuration with a model, and with its settings where these are not given.

    - Reconstructed events of several numbers of jets are learned jet by jet
      (`jetgpt-splitting`, with a narrower network), all others by `jetgpt`.
    - The network is narrower if events with many coordinates are few, or the time is short.
    - The batch size leaves time for about ten thousand steps, unless the number of steps is given.
    - If some numbers of jets are rare, their events are drawn up to four times as often.
    - If there is time for more than one pass over the events, reflected events are learned too,
      provided that the sample does not contradict this symmetry.

    A model that is given may suggest settings of its training, which are taken if a pass over the
    events has at least fifty of its batches.

    Parameters
    ----------
    config : Config
    process : Process
    encoded : Encoded
        Events to train on.
    seconds : float, optional
        Time of the training in seconds; by default that of the configuration.
    """
    if config.model != AUTOMATIC:
        return _as_suggested(config, len(encoded))
    jets = _number_of_jets_varies(process)
    seconds = config.training.max_time if seconds is None else seconds
    given = {
        f"{section}__{name}"
        for section in ("training", "network")
        for name in getattr(config, section).model_fields_set
    }
    rules = {
        "network__width": _width(config, process, encoded, seconds, jets),
        "training__batch_size": _batch_size(config, process, encoded, seconds, jets),
        **_draws(process, jets),
        "training__reflect": _reflection(process, encoded, seconds),
    }
    rules = {key: rule for key, rule in rules.items() if rule and key not in given}
    values: dict[str, Any] = {key: rule[0] for key, rule in rules.items() if rule}
    model = "jetgpt-splitting" if jets else "jetgpt"
    why = "the number of jets varies" if jets else "rates of final states are those of the sample"
    said = "".join(
        f"; {key.replace('__', '.')}={str(rule[0]).lower()}, {rule[1]}"
        for key, rule in rules.items() if rule
    )  # fmt: skip
    log.log(NOTE, "chosen: %s, %s%s", model, why, said)
    return config.with_(model=model, **values)


def _as_suggested(config: Config, n_events: int) -> Config:
    """The configuration with what its model suggests in place of defaults."""
    suggested = density_class(config).suggested(config)
    size = suggested.get("batch_size", config.training.batch_size)
    values = {
        name: value for name, value in suggested.items()
        if name not in config.training.model_fields_set
    }  # fmt: skip
    if not values or n_events < _BATCHES_OF_A_PASS * size:
        return config
    said = ", ".join(f"training.{name}={value}" for name, value in values.items())
    log.log(NOTE, "chosen: %s, which suits %s", said, config.model)
    return config.with_(**{f"training__{name}": value for name, value in values.items()})


Rule = tuple[Any, str] | None
"""A value and why it is chosen; None where the default stays."""


def _width(config: Config, process: Process, encoded: Encoded, seconds: float, jets: bool) -> Rule:
    if jets:
        return 96, "objects share parameters"
    if _coordinates(process, encoded) < _MANY_COORDINATES:
        return None
    if len(encoded) < _FEW_EVENTS:
        return _NARROW, "the sample is small"
    counted = "max_steps" in config.training.model_fields_set
    if counted or seconds * _COORDINATES_PER_SECOND > _SHORT:
        return None
    return _NARROW, "for more passes in a short time"


def _batch_size(
    config: Config, process: Process, encoded: Encoded, seconds: float, jets: bool
) -> Rule:
    if "max_steps" in config.training.model_fields_set:
        return None
    least = 512 if jets else min(_LEAST / _coordinates(process, encoded), 256)
    wanted = max(_seen(process, encoded, seconds) / _STEPS, 1.0)
    size = min((b for b in _BATCHES if b >= least), key=lambda b: abs(math.log(b / wanted)))
    time = f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
    return size, f"for enough steps in {time}"


def _draws(process: Process, jets: bool) -> dict[str, Rule]:
    ratio = _ratio_of_channels(process)
    if not jets or ratio <= _UNEVEN:
        return {}
    return {
        "training__channel_power": (0.5, f"the largest channel has {ratio:.2g} times the smallest"),
        "training__channel_boost": (4.0, "against overfitting of rare events"),
    }


def _reflection(process: Process, encoded: Encoded, seconds: float) -> Rule:
    if _seen(process, encoded, seconds) < len(encoded):
        return None
    try:
        check_reflection(process, encoded, _SIGN)
    except SampleError:
        return None
    return True, "the sample does not contradict this symmetry"


def _seen(process: Process, encoded: Encoded, seconds: float) -> float:
    """Approximate number of events that a training of this time processes."""
    return seconds * _COORDINATES_PER_SECOND / _coordinates(process, encoded)


def _coordinates(process: Process, encoded: Encoded) -> float:
    """Mean number of coordinates of the events."""
    sizes = torch.tensor([float(len(c.coordinates)) for c in process.channels])
    return max(float(sizes[process.channel_of[encoded.subprocess]].mean()), 1.0)


def _number_of_jets_varies(process: Process) -> bool:
    jets = {s.structure.pdg_id.count(JET) for s in process.subprocesses}
    return process.is_reconstructed and len(jets) > 1


def _ratio_of_channels(process: Process) -> float:
    rates: dict[int, float] = {}
    for s in process.subprocesses:
        rates[s.chart] = rates.get(s.chart, 0.0) + s.frequency
    known = [r for r in rates.values() if r > 0]
    return max(known) / min(known)
