"""Storage of a tagger: one file of tensors with a document that is validated on reading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from hepgen_ml.classification.directory import FILE
from hepgen_ml.classification.network import JetNetwork, example
from hepgen_ml.classification.settings import Inputs, TaggerSettings
from hepgen_ml.errors import ModelError
from hepgen_ml.files import documents, probe
from hepgen_ml.files.outputs import naming
from hepgen_ml.files.probe import ProbeDocument
from hepgen_ml.files.tensors import load_tensors, restored, save_tensors

_KIND, _VERSION = "hepgen-ml tagger", 1
MOST_CLASSES, LONGEST_NAME = 1000, 200

_Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class FactsDocument(documents.Document):
    """About the training."""

    jets: dict[_Name, documents.Count]
    steps: documents.Count
    seconds: documents.Amount
    passes: documents.Amount
    validation_loss: documents.Number
    parameters: documents.Count
    fine_tuned_from: list[_Name]


class TaggerDocument(documents.Document):
    """Contents of the file apart from tensors."""

    kind: Literal["hepgen-ml tagger"]
    version: documents.Count
    network: _Name
    sizes: dict[_Name, documents.Truth | documents.Count | documents.Number | _Name]
    inputs: Inputs
    classes: Annotated[list[_Name], Field(min_length=2, max_length=MOST_CLASSES)]
    features: Annotated[list[_Name], Field(max_length=1000)]
    most: Annotated[int, Field(ge=1, le=10_000)]
    facts: FactsDocument
    probe: ProbeDocument | None = None


def save_network(
    directory: Path,
    module: JetNetwork,
    settings: TaggerSettings,
    classes: tuple[str, ...],
    features: tuple[str, ...],
    most: int,
    facts: dict[str, Any],
) -> None:
    """Write a tagger into a directory."""
    document = {
        "kind": _KIND,
        "version": _VERSION,
        "network": settings.network,
        "sizes": settings.all_sizes,
        "inputs": settings.inputs,
        "classes": list(classes),
        "features": list(features),
        "most": most,
        "facts": facts,
        **probe.taken(example(module, len(features), most)),
    }
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    save_tensors(directory / FILE, dict(module.state_dict()), document)


def load_network(
    directory: Path, device: torch.device
) -> tuple[JetNetwork, tuple[str, ...], tuple[str, ...], int, TaggerSettings, dict[str, Any]]:
    """Read the parts of a `Tagger` that `save_network` wrote.

    Raises
    ------
    ModelError
        Missing, damaged, or of a newer version.
    """
    path = directory / FILE
    if not path.exists():
        raise ModelError(
            "holds no tagger", path=directory, remedy="make one with hepgen-ml tag train"
        )
    tensors, found = load_tensors(path)
    with documents.reading(path):
        about = TaggerDocument.model_validate(found)
        if about.version > _VERSION:
            raise ValueError(f"of version {about.version}, this program knows {_VERSION}")
        if len(set(about.classes)) < len(about.classes):
            raise ValueError("two classes of one name")
        module = restored(lambda: _network(about), tensors)
    probe.require_same(about.probe, example(module, len(about.features), about.most), path)
    settings = TaggerSettings(about.network, dict(about.sizes), about.inputs)
    return (
        module.to(device), tuple(about.classes), tuple(about.features), about.most,
        settings, about.facts.model_dump(),
    )  # fmt: skip


def _network(about: TaggerDocument) -> JetNetwork:
    return JetNetwork(
        about.network, len(about.features), len(about.classes), about.inputs == "kinematic",
        about.most, **about.sizes,
    )  # fmt: skip
