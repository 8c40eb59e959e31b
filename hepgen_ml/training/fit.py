"""Complete training from a sample to a model directory; can be interrupted and resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hepgen_ml.config import Config
from hepgen_ml.events.source import Progress
from hepgen_ml.models.storage import TrainedModel, load_model, require_storable, save_model
from hepgen_ml.training.clock import Clock
from hepgen_ml.training.closing import complete
from hepgen_ml.training.directory import begin, claimed, finish, wait_for
from hepgen_ml.training.encoded import EncodedSample
from hepgen_ml.training.preparation import Prepared, prepare
from hepgen_ml.training.ranks import ALONE, Packed, Ranks
from hepgen_ml.training.trainer import Trainer

log = logging.getLogger(__name__)

Refiner = Callable[[Trainer[Any], Prepared], None]
"""Trains a surrogate with classifiers in its loss."""

Regression = Callable[
    [Prepared, EncodedSample, Path, bool, float, torch.device, Progress | None], dict[str, Any]
]
"""Function that learns the named weights of a sample into a model directory. Its arguments are the
prepared model, the sample, the directory, whether to resume an interrupted training, and the time
in seconds; it returns facts."""


def fit(
    read: Callable[[], EncodedSample],
    config: Config,
    *,
    out: Path,
    device: torch.device,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    refine: Refiner,
    regress: Regression,
    ranks: Ranks = ALONE,
) -> TrainedModel:
    """Learn process and density of a sample and store the model.

    Parameters
    ----------
    read : callable
        Returns the sample; called when the directory is reserved.
    config : Config
    out : Path
        Directory of the model; also holds checkpoint and history while training.
    device : torch.device
    resume : bool
        Resume an unfinished training in `out`.
    force : bool
        Replace a model in `out`.
    progress : callable, optional
        Called with stage, done, total and a dict of numbers.
    refine : callable
        Trains the surrogate if ``training.classifier_rounds`` is set.
    regress : callable
        Learns the named weights of the sample, if it has any.
    ranks : Ranks, optional
        Processes that train together. The first one performs all stages except the training of the
        network; the others need access to `out`, from which they read the model at the end.

    Raises
    ------
    InputError, SampleError
        The sample cannot be read or trained on.
    OutputError
        `out` contains other files, or is not the same directory for all processes.
    UsageError
        The processes have different settings.
    """
    ranks.require_equal(config.model_dump(mode="json"))
    clock = Clock(config.training.max_time)
    with claimed(out, force=force, resume=resume) if ranks.first else nullcontext():

        def begun() -> tuple[EncodedSample, float]:
            sample = read()
            clock.reading = sample.seconds_read
            return sample, begin(out, sample.fingerprint, config, resume=resume)

        sample, seconds = ranks.share(begun, _packed, _unpacked)
        if not ranks.first:
            wait_for(out)
        ready = prepare(sample, config, seconds)
        if ranks.first:
            require_storable(ready.process, out)
        if sample.variations is not None:
            share = ready.config.training.variations_share * clock.seconds
            ready.facts |= regress(ready, sample, out, resume, share, device, progress)
        task = ready.task(device)
        left = ranks.share_number(lambda: clock.for_network(ready.config.training).max_time)
        settings = ready.config.training.model_copy(update={"max_time": left})
        trainer = Trainer(
            task, settings, seed=config.seed, directory=out, progress=progress, ranks=ranks
        )
        if trainer.resume():
            log.info("resumed at step %d", trainer.step)
        if settings.classifier_rounds:
            refine(trainer, ready)
        else:
            trainer.run()
        if not ranks.first:
            ranks.wait()
            return load_model(out, device)
        about = complete(ready, task, clock, progress)
        facts = {**_facts(sample, ready, trainer), **about}
        model = TrainedModel(ready.surrogate, ready.process, ready.config, ready.run, facts, device)
        save_model(out, model)
        finish(out)
        ranks.release()
    return model


def _packed(begun: tuple[EncodedSample, float]) -> Packed:
    """A sample for the other processes, without named weights, which only the first one learns."""
    sample, seconds = begun
    tensors, document = replace(sample, variations=None).packed()
    return tensors, {"sample": document, "seconds": seconds}


def _unpacked(packed: Packed) -> tuple[EncodedSample, float]:
    tensors, document = packed
    return EncodedSample.unpacked(tensors, document["sample"]), float(document["seconds"])


def _facts(sample: EncodedSample, ready: Prepared, trainer: Trainer[Any]) -> dict[str, Any]:
    """Facts about a training for the model card."""
    return {
        "sample_sha256": sample.fingerprint,
        "sample_files": list(sample.files),
        "bad_events_skipped": sample.n_skipped,
        "not_learned": list(sample.not_learned),
        **ready.facts,
        "steps": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "validation_loss": trainer.best_loss,
        "parameters": ready.surrogate.n_parameters,
        "device": str(trainer.task.device),
        "threads": torch.get_num_threads(),
        "processes": trainer.ranks.size,
    }
