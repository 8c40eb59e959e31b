"""Directory of a regression or a tagger: its lock, and the files of an unfinished training.

A finished regression or tagger is one file, beside the history of its training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import UsageError
from hepgen_ml.files import documents
from hepgen_ml.files.directories import Contents, claimed
from hepgen_ml.files.outputs import naming, remove, write_text
from hepgen_ml.training.checkpoint import CHECKPOINT
from hepgen_ml.training.history import HISTORY


class PlanDocument(documents.Document):
    """Inputs and settings of an unfinished training."""

    fingerprint: documents.Digest


@dataclass(frozen=True)
class LearnerDirectory:
    """Directories of one kind.

    Attributes
    ----------
    contents : Contents
        Files by which they are recognised, with a plan.
    begun_with : str
        Description for messages of the inputs that must not change when a training is resumed.
    """

    contents: Contents
    begun_with: str

    def _plan(self, directory: Path) -> Path:
        if self.contents.plan is None:
            raise ValueError("no training without a plan can go on")
        return directory / self.contents.plan

    def claimed(
        self, directory: Path, *, force: bool = False, resume: bool = False
    ) -> AbstractContextManager[None]:
        """Reserve a directory, see `hepgen_ml.files.directories.claimed`."""
        return claimed(directory, self.contents, force=force, resume=resume)

    def begin(self, directory: Path, fingerprint: str, *, resume: bool) -> None:
        """Start a training in a directory, or resume one.

        Raises
        ------
        ModelError, UsageError
            The unfinished training is damaged, or was begun with something else.
        """
        path = self._plan(directory)
        if resume and path.exists():
            with documents.reading(path, "start again with --force"):
                before = PlanDocument.model_validate(documents.read(path))
            if before.fingerprint != fingerprint:
                raise UsageError(
                    f"was begun with {self.begun_with}",
                    path=directory,
                    remedy="give the same as before, or start again with --force",
                )
            return
        with naming(directory):
            directory.mkdir(parents=True, exist_ok=True)
        # the finished file is the last, because it identifies the directory
        self._clear(directory, HISTORY, self.contents.finished)
        write_text(path, PlanDocument(fingerprint=fingerprint).model_dump_json() + "\n")

    def finish(self, directory: Path) -> None:
        """Remove the files that only an unfinished training needs."""
        self._clear(directory, self._plan(directory).name)

    @staticmethod
    def member(directory: Path, number: int) -> Path:
        """Directory of the training of one member of an ensemble."""
        place = directory / f"member-{number}"
        with naming(place):
            place.mkdir(exist_ok=True)
        return place

    @staticmethod
    def _clear(directory: Path, *names: str) -> None:
        for place in directory.glob("member-*"):
            remove(place, CHECKPOINT, HISTORY)
            with suppress(OSError):  # other files are kept
                place.rmdir()
        remove(directory, CHECKPOINT, *names)


def fingerprint_of(columns: Iterable[npt.NDArray[np.generic]], about: object) -> str:
    """Hash of the numbers and of the settings that a training depends on."""
    digest = hashlib.sha256(repr(about).encode())
    for column in columns:
        digest.update(f"{column.shape}{column.dtype}".encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
