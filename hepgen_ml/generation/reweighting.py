"""Complete runs of reweighting, for a model or for the events of a file."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.events import formats
from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.formats import AtomicWriter
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.events.source import EventSource, Progress
from hepgen_ml.files.directories import DirectoryLock
from hepgen_ml.files.model_files import CLASSIFIER
from hepgen_ml.generation.judged import JudgedModel
from hepgen_ml.models.included import PRETRAINED, find_model, read_document
from hepgen_ml.process.conditions import Condition
from hepgen_ml.reweighting import location
from hepgen_ml.reweighting.application import ClassifierWeights
from hepgen_ml.reweighting.classifiers import NETWORKS, NetworkName
from hepgen_ml.reweighting.reweighter import Reweighter
from hepgen_ml.reweighting.training import Schedule
from hepgen_ml.training.data import SampleSource
from hepgen_ml.training.devices import find_device

log = logging.getLogger(__name__)

GENERATED = 2
"""Generated events per true event: they are cheap, and reduce the statistical fluctuations."""

Files = Sequence[str | Path]


@dataclass(frozen=True)
class Options:
    """Options for the training of classifiers.

    Attributes
    ----------
    network : str
        Of `hepgen_ml.reweighting.classifiers.NETWORKS`.
    folds : int
    full : bool
        See `Reweighter.fit`.
    n_events : int
        Of each sample, at most; of a model there are `GENERATED` times as many.
    seconds : float or None
        Time for all classifiers together.
    seed : int
    device : str
    selection : Selection or None
        Objects to read.
    """

    network: str = "trees+mlp"
    folds: int = 5
    full: bool = False
    n_events: int = 200_000
    seconds: float | None = None
    seed: int = 0
    device: str = "auto"
    selection: Selection | None = None

    def fit(
        self,
        truth: EventSample,
        generated: EventSample,
        progress: Progress | None,
        conditions: Sequence[Condition] = (),
    ) -> Reweighter:
        """Train classifiers between two samples."""
        if self.network not in NETWORKS:
            raise UsageError(
                f"{self.network!r} is not a classifier network",
                remedy=f"use one of {', '.join(NETWORKS)}",
            )
        name: NetworkName = next(n for n in get_args(NetworkName) if n == self.network)
        schedule = Schedule()
        if self.seconds is not None:
            schedule = replace(schedule, seconds=self.seconds, epochs=10_000)
        return Reweighter.fit(
            truth, generated, network=name, folds=self.folds, full=self.full, schedule=schedule,
            seed=self.seed, device=find_device(self.device), progress=progress,
            conditions=conditions,
        )  # fmt: skip


@dataclass(frozen=True)
class Done:
    """Result of a run.

    Attributes
    ----------
    reweighter : Reweighter
    report : dict
        Facts of the training and where the samples differ.
    text : str
        The latter for a terminal.
    """

    reweighter: Reweighter
    report: dict[str, Any]
    text: str


def reweight_model(
    model: str | Path,
    truth: Files,
    options: Options,
    *,
    force: bool = False,
    training_events: bool = False,
    progress: Progress | None = None,
) -> Done:
    """Train the classifier of a model and store it there.

    Parameters
    ----------
    model : path-like
    truth : files
        Of events that the model was not trained on.
    options : Options
    force : bool
        Replace a classifier.
    training_events : bool
        Allow the sample that the model was trained on.
    progress : callable, optional

    Raises
    ------
    UsageError
        The truth is the training sample, or a model that comes with the package is given.
    OutputError
        The model has a classifier already.
    """
    directory = find_model(model)
    if directory.parent == PRETRAINED:
        raise UsageError(
            "comes with the package and is not changed",
            path=directory,
            remedy="copy the directory and give its path",
        )
    if (directory / CLASSIFIER).exists() and not force:
        raise OutputError(
            "has a classifier already", path=directory, remedy="add --force to replace it"
        )
    read_document(directory)
    with DirectoryLock(directory):
        return _reweight_model(directory, truth, options, training_events, progress)


def _reweight_model(
    directory: Path,
    truth: Files,
    options: Options,
    training_events: bool,
    progress: Progress | None,
) -> Done:
    judged = JudgedModel(directory, options.device)
    generator, known = judged.generator, judged.conditions
    source = SampleSource(
        list(truth), selection=options.selection, cuts=generator.config.cuts,
        conditions=judged.wanted,
    )  # fmt: skip
    if not training_events and source.fingerprint() == generator.facts["sample_sha256"]:
        raise UsageError(
            "is the training sample of the model, for which weights would be biased",
            path=source.paths[0],
            remedy="give other events, or add --training-events",
        )
    true = read_some(truth, options, progress, judged.wanted)
    for warning in judged.unknown(true)[1]:
        log.warning("%s", warning)
    n = GENERATED * len(true)
    given = judged.given(true, n, options.seed)
    made = generator.sample(n, seed=options.seed + 1, condition=given)
    reweighter = options.fit(true, made, progress, () if known is None else known.each)
    reweighter.save(directory)
    return _done(reweighter, true, made)


def reweight_sample(
    source: Files,
    truth: Files,
    out: str | Path,
    options: Options,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Done:
    """Give the events of a sample weights with which they follow another.

    The classifiers are trained on these very events, so each is weighted by the one that
    did not see it. Mean weight and cross section become those of the truth.

    Parameters
    ----------
    source, truth : files
    out : path-like
        File of all source events that are used.
    options : Options
    force : bool
    progress : callable, optional
    """
    true, made = read_some(truth, options, progress), read_some(source, options, progress)
    reweighter = options.fit(true, made, progress)
    assert reweighter.held_out is not None
    sigma, error = true.run.cross_section, true.run.cross_section_error
    # processes keep their shares; the weights contain changes of rates between them
    processes = tuple(
        replace(p, cross_section=share * sigma, error=share * error)
        for p, share in zip(made.run.processes, _shares(made), strict=True)
    )
    weighting = ClassifierWeights(reweighter, made.run.with_(processes=processes))
    weighted = weighting.apply(made, reweighter.held_out)
    with AtomicWriter([Path(out)], weighting.run, len(weighted), force=force) as writer:
        for chunk in weighted.chunks(formats.DEFAULT_CHUNK):
            writer.write(chunk)
    return _done(reweighter, true, made)


def _shares(sample: EventSample) -> list[float]:
    """Share of each process in the cross section of the run, or in the weights if it is unknown."""
    total, processes = sample.run.cross_section, sample.run.processes
    if total > 0 or len(processes) < 2 or "process_id" not in sample.events:
        return [p.cross_section / total if total > 0 else 1 / len(processes) for p in processes]
    sums = [float(sample.weight[sample.process_id == p.process_id].sum()) for p in processes]
    return [s / sum(sums) for s in sums]


def read_some(
    files: Files,
    options: Options,
    progress: Progress | None = None,
    conditions: Sequence[Wanted] = (),
) -> EventSample:
    """At most `options.n_events` events of files, chosen at random, weights as in training."""
    source = EventSource(
        list(files), selection=options.selection, conditions=conditions, hard=True
    )
    source.weigh_groups()
    rng = np.random.default_rng(options.seed)
    kept: list[EventSample] = []
    keys: list[np.ndarray] = []
    n_kept, limit = 0, math.inf
    for number, chunk in source.raw():
        # the events with the smallest random keys: a random subset in bounded memory
        key = rng.random(len(chunk))
        chosen = key < limit
        kept.append(source.joined(number, chunk[chosen]))
        keys.append(key[chosen])
        n_kept += int(chosen.sum())
        if n_kept > 2 * options.n_events:
            kept, keys, limit = _smallest(kept, keys, options.n_events)
            n_kept = options.n_events
        if progress is not None:
            progress("read", source.n_events, None, {})
    if n_kept > options.n_events:
        kept, keys, limit = _smallest(kept, keys, options.n_events)
    return concatenate(kept, source.run)


def _smallest(
    kept: list[EventSample], keys: list[np.ndarray], n: int
) -> tuple[list[EventSample], list[np.ndarray], float]:
    key = np.concatenate(keys)
    chosen = np.sort(np.argpartition(key, n - 1)[:n])
    return [concatenate(kept)[chosen]], [key[chosen]], float(key[chosen].max())


def _done(reweighter: Reweighter, truth: EventSample, generated: EventSample) -> Done:
    assert reweighter.held_out is not None
    found = location.locate(truth, generated, reweighter.held_out)
    report = {**reweighter.facts, "located": location.to_dict(found)}
    return Done(reweighter, report, location.summary(found))
