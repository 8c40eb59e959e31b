"""Learned ratios of weights in a model directory, and their declarations in runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from hepgen_ml.events.sample import RunInfo
from hepgen_ml.events.weight_groups import declared, kept
from hepgen_ml.files import documents, probe
from hepgen_ml.files.model_files import VARIATIONS
from hepgen_ml.files.probe import ProbeDocument
from hepgen_ml.files.tensors import load_tensors, restored, save_tensors
from hepgen_ml.process.process import Process
from hepgen_ml.reweighting.named_weights.ratios import NamedWeight, WeightRatios

_KIND, _VERSION = "hepgen-ml weight variations", 2


def save_ratios(directory: Path, ratios: WeightRatios) -> None:
    """Write learned ratios into a model directory."""
    document = {
        "kind": _KIND,
        "version": _VERSION,
        "weights": [w.to_json() for w in ratios.weights],
        "groups": ratios.groups,
        "n_components": ratios.n_components,
        "width": ratios.width,
        "same_beams": ratios.same_beams,
        "shared": ratios.shared,
        "n_subprocesses": len(ratios.process.subprocesses),
        **probe.taken(ratios.example()),
    }
    save_tensors(directory / VARIATIONS, dict(ratios.state_dict()), document)


def load_ratios(directory: Path, process: Process, device: torch.device) -> WeightRatios:
    """Read what `save_ratios` wrote.

    Raises
    ------
    ModelError
        Missing, damaged, newer, or of another process.
    """
    path = directory / VARIATIONS
    tensors, document = load_tensors(path)
    with documents.reading(path):
        if document.get("kind") != _KIND:
            raise ValueError("no weight variations")
        about = RatiosDocument.model_validate(document)
        if about.version > _VERSION:
            raise ValueError(f"of version {about.version}, this program knows {_VERSION}")
        if about.n_subprocesses != len(process.subprocesses):
            raise ValueError("of another process")
        weights = [
            NamedWeight(w.name, w.text, w.logarithmic, w.constant, dict(w.facts))
            for w in about.weights
        ]
        if len({w.name for w in weights}) < len(weights):
            raise ValueError("two weights of one name")
        if about.version < 2:  # logarithms, or ratios as they are
            forms = [w.logarithmic for w in weights if w.constant is None]
            tensors["unit"] = torch.tensor(forms, dtype=torch.float64)
        sizes = about.n_components, about.width, about.same_beams, about.shared
        model = restored(lambda: WeightRatios(process, weights, about.groups, *sizes), tensors)
    probe.require_same(about.probe, model.example(), path)
    return model.to(device)


class WeightDocument(documents.Document):
    """Stored form of `NamedWeight`."""

    name: documents.Text
    text: documents.LongText
    logarithmic: documents.Truth
    constant: documents.Number | None
    facts: dict[documents.Text, documents.Number]


class RatiosDocument(documents.Document):
    """Contents of the file apart from tensors."""

    version: documents.Count
    weights: Annotated[list[WeightDocument], Field(min_length=1, max_length=100_000)]
    groups: documents.LongText
    n_components: Annotated[int, Field(ge=0, le=1024)]
    width: Annotated[int, Field(ge=1, le=4096)]
    same_beams: documents.Truth
    shared: documents.Truth = False
    n_subprocesses: documents.Count
    probe: ProbeDocument | None = None


def declared_weights(run: RunInfo, ratios: WeightRatios) -> RunInfo:
    """Run information that declares the weights, in the groups that they have in the sample."""
    texts = {w.name: w.text for w in ratios.weights}
    return declared(run.with_(weight_groups=kept(ratios.groups, texts)), texts)
