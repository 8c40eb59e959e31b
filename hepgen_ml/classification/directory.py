"""The directory of a tagger: whose it is, and what an unfinished training leaves in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from hepgen_ml.errors import ModelError, OutputError, UsageError
from hepgen_ml.events.jets import Jets
from hepgen_ml.files import documents
from hepgen_ml.files.directories import DirectoryLock, is_unfinished
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


@contextmanager
def claimed(directory: Path, *, force: bool, resume: bool = False) -> Iterator[None]:
    """The directory is ours alone while the context lasts, and is gone if nothing was written.

    Raises
    ------
    OutputError
        It is in use, or holds what may not be replaced.
    """
    with naming(directory):
        if os.path.lexists(directory) and not directory.is_dir():
            raise OutputError("is a file", path=directory, remedy="choose another --out")
        names = set(os.listdir(directory)) if directory.is_dir() else set()
    names = {name for name in names if not is_unfinished(name)}
    if names and not names & {FILE, PLAN}:
        raise OutputError(
            "holds other things than a tagger", path=directory, remedy="choose another --out"
        )
    if resume and FILE in names and PLAN not in names:
        raise OutputError(
            "its training is finished", path=directory, remedy="add --force to train anew"
        )
    if names and not (force or resume):
        unfinished = PLAN in names
        raise OutputError(
            "holds an unfinished training" if unfinished else "exists already",
            path=directory,
            remedy="add --resume to go on with it" if unfinished else "add --force to replace it",
        )
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with DirectoryLock(directory):
            yield
    finally:
        with suppress(OSError):  # what is not empty stays
            directory.rmdir()


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
    remove(directory, FILE, HISTORY, CHECKPOINT)
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
