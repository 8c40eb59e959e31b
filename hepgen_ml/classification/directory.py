"""The directory of a tagger: whose it is, and what an unfinished training leaves in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from hepgen_ml.errors import ModelError, UsageError
from hepgen_ml.events.jets import Jets
from hepgen_ml.files import directories, documents
from hepgen_ml.files.directories import Contents
from hepgen_ml.files.outputs import naming, remove, write_text
from hepgen_ml.training.checkpoint import CHECKPOINT
from hepgen_ml.training.history import HISTORY

FILE = "tagger.safetensors"
"""The finished tagger."""

PLAN = "tagging.json"
"""What an unfinished training began with."""


class PlanDocument(documents.Document):
    """Contents of `PLAN`."""

    fingerprint: documents.Digest


claimed = partial(directories.claimed, contents=Contents("a tagger", finished=FILE, plan=PLAN))
"""Let this run alone write into the directory of a tagger."""


def begin(directory: Path, fingerprint: str, *, resume: bool) -> None:
    """Begin a training in a directory, or go on with one.

    Raises
    ------
    ModelError, UsageError
        The unfinished training is damaged, or was begun with something else.
    """
    path = directory / PLAN
    if resume and path.exists():
        try:
            before = PlanDocument.model_validate(documents.read(path))
        except (OSError, *documents.UNUSABLE) as error:
            raise ModelError(
                f"is damaged: {documents.problem(error)}", path=path,
                remedy="start again with --force",
            ) from None  # fmt: skip
        if before.fingerprint != fingerprint:
            raise UsageError(
                "was begun with other jets, another network, seed or first tagger",
                path=directory,
                remedy="give the same as before, or start again with --force",
            )
        return
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    remove(directory, HISTORY, CHECKPOINT, FILE)  # the last: by it the directory is recognised
    write_text(path, PlanDocument(fingerprint=fingerprint).model_dump_json() + "\n")


def finish(directory: Path) -> None:
    """Remove what only an unfinished training needs."""
    remove(directory, PLAN, CHECKPOINT)


def fingerprint_of(parts: Iterable[Jets], about: object) -> str:
    """Hash of jets and of the settings that a training depends on."""
    digest = hashlib.sha256(repr(about).encode())
    for jets in parts:
        for column in (jets.offsets, jets.momenta, jets.features):
            digest.update(np.ascontiguousarray(column).data)
        digest.update("\n".join(jets.label.tolist()).encode())
    return digest.hexdigest()
