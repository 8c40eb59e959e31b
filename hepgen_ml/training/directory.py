"""Directory of a training: its lock, and the files of an unfinished training."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

from hepgen_ml.config import Config
from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.files import directories, documents
from hepgen_ml.files.directories import Contents
from hepgen_ml.files.model_files import CARD, CLASSIFIER, CONFIG, VALIDATION, VARIATIONS, WEIGHTS
from hepgen_ml.files.outputs import remove, write_text
from hepgen_ml.training.checkpoint import CHECKPOINT
from hepgen_ml.training.history import HISTORY

PLAN = "training.json"
"""File in a model directory with an unfinished training, with its sample and settings."""


_DELAY, _POLL = 20.0, 0.2
"""Seconds until a file system shows what another machine has written, and between looks."""

claimed = partial(
    directories.claimed,
    contents=Contents("a model", finished=CONFIG, plan=PLAN, further=(WEIGHTS,)),
)
"""Reserve the directory of a model for this run."""


def begin(directory: Path, fingerprint: str, config: Config, *, resume: bool) -> float:
    """Start a training in a directory, or resume it.

    Parameters
    ----------
    directory : Path
        Claimed.
    fingerprint : str
        Of the sample.
    config : Config
    resume : bool
        Resume an unfinished training, if there is one.

    Returns
    -------
    float
        Seconds that the training was begun with.

    Raises
    ------
    ModelError, SampleError, UsageError
        The unfinished training is damaged, or was begun with something else.
    """
    if resume and (directory / PLAN).exists():
        return _check_plan(directory, fingerprint, config).training.max_time
    # From here on the directory belongs to the new model: an interrupted training must not
    # leave an old one beside its checkpoint.
    stored = (CONFIG, CARD, CLASSIFIER, VALIDATION, VARIATIONS)
    remove(directory, *stored, HISTORY, CHECKPOINT, WEIGHTS)  # recognised until the last is gone
    document = {"sample_sha256": fingerprint, "config": config.model_dump()}
    write_text(directory / PLAN, json.dumps(document))
    return config.training.max_time


def wait_for(directory: Path) -> None:
    """Wait until the directory in which another process has begun a training is seen here.

    Raises
    ------
    OutputError
        It is on the disk of another machine, or the name is relative to another directory.
    """
    end = time.monotonic() + _DELAY
    while not (directory / PLAN).exists():
        if time.monotonic() > end:
            raise OutputError(
                "the first process trains in another directory of this name",
                path=directory.absolute(),
                remedy="start all in the same directory, on a file system that they share",
            )
        time.sleep(_POLL)


def finish(directory: Path) -> None:
    """Remove the files that only an unfinished training needs."""
    remove(directory, PLAN, CHECKPOINT)


def _check_plan(directory: Path, fingerprint: str, config: Config) -> Config:
    """Sample and settings of a training, which must not change when it is resumed."""
    path = directory / PLAN
    try:
        document = documents.read(path)
        same_sample = document["sample_sha256"] == fingerprint
        before = Config.of_stored(document["config"])
    except (OSError, *documents.UNUSABLE) as error:
        raise ModelError(
            f"is damaged: {documents.problem(error)}", path=path, remedy="start again with --force"
        ) from None
    if not same_sample:
        raise SampleError(
            "the unfinished training used another sample", path=directory,
            remedy="give the same files as before",
        )
    fixed = ("model", "network", "resonances", "conditions", "find_cuts", "seed")
    events = (
        "validation_fraction", "max_events", "channel_power", "channel_boost", "batch_size",
        "exchange_beams", "reflect", "weights", "classifier_rounds", "classifier_power",
        "variations",
    )  # fmt: skip
    if (
        any(getattr(before, name) != getattr(config, name) for name in fixed)
        or any(getattr(before.training, name) != getattr(config.training, name) for name in events)
        or before.fixed_settings() != config.fixed_settings()
    ):
        raise UsageError(
            "was begun with another network, model, seed, resonances, conditions, search for cuts "
            "or choice of events",
            path=directory,
            remedy="give the same configuration as before, or start again with --force",
        )
    return before
