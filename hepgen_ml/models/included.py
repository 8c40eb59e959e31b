"""Model directories, and models of the package by name. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hepgen_ml.errors import ModelError
from hepgen_ml.files import documents
from hepgen_ml.files.model_files import CONFIG

FORMAT_VERSION = 1

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""Models that come with the package, a directory each."""


def pretrained() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in PRETRAINED.glob(f"*/{CONFIG}"))


def described() -> dict[str, dict[str, Any]]:
    """The models of `pretrained` by name: sample, kind of model, directory.

    ``sample`` describes the events, ``events`` is the number of training events.
    """
    found = {}
    for name in pretrained():
        document = read_document(PRETRAINED / name)
        facts = document.get("training", {})
        found[name] = {
            "model": document["config"].get("model"),
            "sample": facts.get("sample") or "; ".join(facts.get("sample_files", [])),
            "events": facts.get("events"),
            "directory": str(PRETRAINED / name),
        }
    return found


def find_model(path: str | Path) -> Path:
    """Model directory: the one of this path, or else the pretrained one of this name.

    Raises
    ------
    ModelError
        Neither exists.
    """
    directory = Path(path)
    if os.path.exists(directory):
        return directory
    if str(path) in pretrained():
        return PRETRAINED / str(path)
    known = ", ".join(pretrained())
    raise ModelError(
        "holds no model",
        path=directory,
        remedy=f"train one with `hepgen-ml train`, or use one that comes with the package: {known}",
    )


def read_document(directory: Path) -> dict[str, Any]:
    """Contents of ``config.json``, its version checked."""
    path = directory / CONFIG
    if not os.path.isdir(directory) or (
        not os.path.isfile(path) and os.access(directory, os.R_OK | os.X_OK)
    ):
        raise ModelError(
            "holds no model", path=directory, remedy="train one with `hepgen-ml train`"
        )
    try:
        document = documents.read(path)
        if document.get("format") == "hepgen-ml model":
            found = document.get("version")
            if isinstance(found, int) and found > FORMAT_VERSION:
                raise ModelError(
                    f"has format version {found}, this program knows up to {FORMAT_VERSION}",
                    path=path,
                    remedy="upgrade hepgen-ml",
                )
        documents.ModelDocument.model_validate(document)
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror}", path=path, remedy="check its permissions"
        ) from None
    except ValueError as error:
        raise ModelError(
            f"is damaged: {documents.problem(error)}",
            path=path,
            remedy="train again or fetch it anew",
        ) from None
    return document
