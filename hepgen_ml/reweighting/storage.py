"""Storage of classifiers: one file of tensors with a document that is validated on reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, Strict
from torch import Tensor

from hepgen_ml.analysis.final_states import Signature
from hepgen_ml.events.conditions import MOST
from hepgen_ml.files import documents, probe
from hepgen_ml.files.model_files import CLASSIFIER
from hepgen_ml.files.probe import ProbeDocument
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.process.condition_document import ConditionDocument
from hepgen_ml.reweighting.classifiers import NetworkName, restored, under
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.folds import Calibration, GroupRatio

_KIND, _VERSION = "hepgen-ml classifier", 3


def save_classifiers(
    directory: Path, ratios: Mapping[Signature, GroupRatio], facts: Mapping[str, Any]
) -> Path:
    """Write the ratios and facts of a `Reweighter` into a directory as one file.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    described = []
    for number, (signature, ratio) in enumerate(ratios.items()):
        for k, one in enumerate(ratio.classifiers):
            tensors |= {f"{number}.{k}.{n}": t for n, t in one.state_dict().items()}
        if ratio.examples is not None:
            tensors |= {f"{number}.example.{n}": t for n, t in vars(ratio.examples).items()}
        described.append(
            {
                "final": list(signature.final),
                "resonances": list(signature.resonances),
                "members": len(ratio.classifiers),
                "calibration": asdict(ratio.single),
                "calibration_of_mean": asdict(ratio.mean),
                "rate": ratio.rate,
                "names": list(ratio.names),
                **probe.taken(ratio.said()),
            }
        )
    document = {"kind": _KIND, "version": _VERSION, "groups": described, "facts": facts}
    path = directory / CLASSIFIER
    save_tensors(path, tensors or {"none": torch.zeros(1)}, document)
    return path


def load_classifiers(
    directory: Path, device: torch.device | None
) -> tuple[NetworkName, dict[Signature, GroupRatio], bool, dict[str, Any]]:
    """Read the parts of a `Reweighter` that `save_classifiers` wrote.

    Raises
    ------
    ModelError
        Missing, damaged, of another version, or with other outputs than when stored.
    """
    path = directory / CLASSIFIER
    tensors, document = load_tensors(path)
    with documents.reading(path, "make it anew with `hepgen-ml reweight`"):
        if document.get("kind") != _KIND or document["version"] != _VERSION:
            raise ValueError("no classifier, or of another version of hepgen-ml")
        about = ClassifierDocument.model_validate(document)
        facts = dict(document["facts"])
        name, ratios, said = about.facts.network, {}, []
        for number, group in enumerate(about.groups):
            members = [
                restored(name, under(tensors, f"{number}.{k}."), device)
                for k in range(group.members)
            ]
            single, mean = (
                Calibration(c.slope, c.offset)
                for c in (group.calibration, group.calibration_of_mean)
            )
            one = GroupRatio(
                members, single, mean, group.rate, names=tuple(group.names),
                examples=_examples(under(tensors, f"{number}.example.")),
            )  # fmt: skip
            said.append((group.probe, one.said()))
            ratios[Signature(tuple(group.final), tuple(group.resonances))] = one
    for before, now in said:
        probe.require_same(before, now, path)
    return name, ratios, about.facts.full, facts


class CalibrationDocument(documents.Document):
    """Stored form of `Calibration`."""

    slope: documents.Number
    offset: documents.Number


class RatioDocument(documents.Document):
    """Stored form of a `GroupRatio`, without its classifiers."""

    final: list[documents.Integer]
    resonances: list[documents.Integer]
    members: Annotated[int, Strict(), Field(ge=0, le=1000)]
    calibration: CalibrationDocument
    calibration_of_mean: CalibrationDocument
    rate: documents.Amount
    names: Annotated[list[documents.Text], Field(max_length=10_000)] = Field(default_factory=list)
    probe: ProbeDocument | None = None


class ClassifierFacts(documents.Document):
    """Facts about a classifier that the program uses."""

    network: NetworkName
    folds: Annotated[int, Strict(), Field(ge=1, le=1000)]
    full: documents.Truth
    exchange_beams: documents.Truth
    unweighting_limit: documents.Positive
    conditions: Annotated[list[ConditionDocument], Field(max_length=MOST)] = Field(
        default_factory=list
    )
    truth_events: documents.Count = 0
    generated_events: documents.Count = 0
    effective_sample_size: documents.Amount = 0.0
    groups: dict[documents.Text, Any] = Field(default_factory=dict)


class ClassifierDocument(documents.Document):
    """Content of a file of classifiers beside its tensors."""

    groups: Annotated[list[RatioDocument], Field(max_length=100_000)]
    facts: ClassifierFacts


def _examples(tensors: dict[str, Tensor]) -> Inputs | None:
    """Stored examples; none in files of before."""
    return Inputs(**tensors) if tensors else None
