"""Which model suits a sample, and settings that follow from it where the user has not said them."""

from __future__ import annotations

import logging
from typing import Any

from hepgen_ml.config import AUTOMATIC, Config
from hepgen_ml.errors import SampleError
from hepgen_ml.events.objects import JET
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.process.symmetry import check_reflection

log = logging.getLogger(__name__)

BAYESIAN = "train one with --set jetgpt.bayesian=last"
"""What to do for a model whose weights have a posterior."""

_UNEVEN = 10.0
"""Ratio of events of the largest and the smallest channel from which rare ones count more."""


def chosen(config: Config, process: Process, encoded: Encoded) -> Config:
    """The configuration with a model, and with its settings where these are not given.

    Reconstructed events of several numbers of jets are learned jet by jet
    (`jetgpt-splitting`), with rare numbers of jets drawn more often and with reflected events
    where the sample shows no sign against the symmetry; the values are those that Z + jets was
    tuned with (benchmarks/README.md). All other events are learned by `jetgpt` with its defaults.

    Parameters
    ----------
    config : Config
    process : Process
    encoded : Encoded
        Events to train on.
    """
    if config.model != AUTOMATIC:
        return config
    if not _number_of_jets_varies(process):
        return config.with_(model="jetgpt")
    values: dict[str, Any] = {"training__batch_size": 512, "network__width": 96}
    if _ratio_of_channels(process) > _UNEVEN:
        values["training__channel_power"] = 0.75
    if _may_be_reflected(process, encoded):
        values["training__reflect"] = True
    given = {
        f"{section}__{name}"
        for section in ("training", "network")
        for name in getattr(config, section).model_fields_set
    }
    values = {key: value for key, value in values.items() if key not in given}
    text = ", ".join(f"{k.replace('__', '.')}={v}" for k, v in values.items())
    log.warning(
        "the number of jets varies: jetgpt-splitting is trained%s",
        f" with {text} (--model jetgpt is the other choice)" if text else "",
    )
    return config.with_(model="jetgpt-splitting", **values)


def _number_of_jets_varies(process: Process) -> bool:
    jets = {s.structure.pdg_id.count(JET) for s in process.subprocesses}
    return process.is_reconstructed and len(jets) > 1


def _ratio_of_channels(process: Process) -> float:
    rates: dict[int, float] = {}
    for s in process.subprocesses:
        rates[s.chart] = rates.get(s.chart, 0.0) + s.frequency
    known = [r for r in rates.values() if r > 0]
    return max(known) / min(known)


def _may_be_reflected(process: Process, encoded: Encoded) -> bool:
    try:
        check_reflection(process, encoded)
    except SampleError:
        return False
    return True
