"""A sample prepared for training, and a file format for its transfer to another machine.

Reading needs the file libraries, training does not: on a GPU machine this file, torch and numpy
(with pydantic, safetensors and, for flows, torchdiffeq) are sufficient.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.config import Config
from hepgen_ml.errors import HepgenError, InputError, ModelError, UsageError
from hepgen_ml.events.conditions import Wanted, parse_conditions
from hepgen_ml.events.objects import NamedResonance, Selection, parse_resonance
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.events.source import Progress
from hepgen_ml.files import documents
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.models.storage import run_from_config, run_to_config
from hepgen_ml.process.auxiliary import AUXILIARY
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.inside import Cuts
from hepgen_ml.process.process import Process
from hepgen_ml.training.data import (
    SampleSource,
    encode_all,
    learn_process,
    with_mean_weight,
)
from hepgen_ml.training.variations import ALL, VariationCollector, Variations, matching

SUFFIX = ".safetensors"

_KIND = "hepgen-ml encoded sample"
_VERSION = 1

_STORED = {"subprocess": torch.int32, "pattern": torch.int32, "branch": torch.int32,
           "event": torch.int32, "weight": torch.float32, "free": torch.float32}  # fmt: skip
"""Narrower types in the file; coordinates stay in double precision."""


@dataclass
class EncodedSample:
    """All inputs of a training from a sample.

    Attributes
    ----------
    process : Process
    run : RunInfo
        Of the sample's files together.
    encoded : Encoded
        All events.
    fingerprint : str
        SHA-256 of the files.
    files : tuple of str
        Their names.
    n_skipped : int
        Bad events left out.
    not_learned : tuple of str
        Sentences about other properties that are left out.
    seconds_read : float
        Time to read the files in seconds; not stored.
    variations : Variations or None
        Ratios of its named weights.
    """

    process: Process
    run: RunInfo
    encoded: Encoded
    fingerprint: str
    files: tuple[str, ...]
    n_skipped: int
    not_learned: tuple[str, ...] = ()
    seconds_read: float = 0.0
    variations: Variations | None = None

    def save(self, path: str | Path) -> None:
        """Write the file, completely or not at all."""
        tensors, document = self.packed()
        for name, kind in _STORED.items():
            tensors[name] = tensors[name].to(kind)
        save_tensors(Path(path), tensors, document)

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and a document of plain values."""
        tensors = {
            f.name: getattr(self.encoded, f.name)
            for f in fields(Encoded)
            if f.name != "conditions" or self.process.conditions is not None
        }
        document = {
            "kind": _KIND,
            "version": _VERSION,
            "process": self.process.to_config(),
            "run": run_to_config(self.run),
            "fingerprint": self.fingerprint,
            "files": list(self.files),
            "n_skipped": self.n_skipped,
            "not_learned": list(self.not_learned),
        }
        if self.variations is not None:
            tensors |= self.variations.tensors()
            document["variations"] = self.variations.to_config()
        return tensors, document

    @classmethod
    def load(cls, path: str | Path) -> EncodedSample:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            Missing, damaged, or not such a file.
        """
        remedy = "make it with `hepgen-ml encode`"
        try:
            tensors, document = load_tensors(Path(path))
        except ModelError as error:
            raise InputError(error.message, path=path, remedy=remedy) from None
        try:
            return cls.unpacked(tensors, document)
        except (HepgenError, *documents.UNUSABLE) as error:
            raise InputError(
                f"is not usable: {documents.problem(error)}", path=path, remedy=remedy
            ) from None


    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> EncodedSample:
        """Inverse of `packed`; raises ValueError, KeyError and others for invalid content."""
        if document.get("kind") != _KIND:
            raise ValueError("no encoded sample")
        about = EncodedDocument.model_validate(document)
        if about.version > _VERSION:
            raise ValueError(f"of version {about.version}, this program knows {_VERSION}")
        process = Process.from_config(document["process"])
        encoded = _encoded(tensors, process)
        variations = None
        if about.variations is not None:
            variations = Variations.restored(about.variations, dict(tensors), len(encoded))
        return cls(
            process, run_from_config(document["run"]), encoded, about.fingerprint,
            tuple(about.files), about.n_skipped, tuple(about.not_learned),
            variations=variations,
        )  # fmt: skip


class EncodedDocument(documents.Document):
    """Contents of the file of an encoded sample apart from tensors, process and run."""

    version: documents.Count
    fingerprint: documents.Text
    files: list[documents.Text]
    n_skipped: documents.Count
    not_learned: tuple[documents.Text, ...] = ()
    process: dict[str, Any]
    run: dict[str, Any]
    variations: dict[str, Any] | None = None


def _encoded(tensors: Mapping[str, Tensor], process: Process) -> Encoded:
    """Tensors with the types of the training; raises ValueError or KeyError for invalid ones."""
    n = len(tensors["x"])
    sizes = {
        "x": (n, process.n_coordinates), "free": (n, len(AUXILIARY)),
        "invariants": (n, process.n_invariants),
    }  # fmt: skip
    if process.conditions is None:
        tensors = {**tensors, "conditions": torch.zeros(n, 0, dtype=torch.float64)}
    sizes["conditions"] = (n, 0 if process.conditions is None else len(process.conditions.each))
    widths = dict.fromkeys(("x", "free", "weight", "conditions"), torch.float64)
    columns: dict[str, Tensor] = {}
    for name in (f.name for f in fields(Encoded)):
        tensor, size = tensors[name], sizes.get(name, (n,))
        real = name in widths or name == "invariants"
        if tensor.shape != size or tensor.dtype.is_floating_point != real:
            kind = "real" if real else "whole"
            raise ValueError(f"{name}: not {' x '.join(map(str, size))} {kind} numbers")
        if tensor.dtype in (torch.bool, torch.uint8) or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name}: holds a number that is not finite")
        columns[name] = tensor.to(widths.get(name, torch.float32) if real else torch.int64)
    if not n:
        raise ValueError("holds no events")
    encoded = Encoded(**columns)
    _check_range("subprocess", encoded.subprocess, len(process.subprocesses))
    _check_range("event", encoded.event, 2**62)
    subprocess = encoded.subprocess
    patterns = torch.tensor([len(s.patterns) for s in process.subprocesses])
    branches = torch.tensor([len(c.auxiliaries.branches) for c in process.channels])
    _check_range("pattern", encoded.pattern, patterns[subprocess])
    _check_range("branch", encoded.branch, branches[process.channel_of[subprocess]])
    return encoded


def _check_range(name: str, values: Tensor, end: Tensor | int) -> None:
    if not bool(((values >= 0) & (values < end)).all()):
        raise ValueError(f"{name}: an event has one that does not exist")


def _check_conditions(process: Process, wanted: Sequence[Wanted], path: str | Path) -> None:
    """Refuse conditions that an encoded sample does not have; its own hold in any case."""
    known = () if process.conditions is None else process.conditions.wanted
    unknown = next((w for w in wanted if w not in known), None)
    if unknown is not None:
        raise UsageError(
            f"is encoded without the condition {unknown}", path=path,
            remedy=f"encode it again with --condition {unknown}",
        )  # fmt: skip


def encode_for(
    config: Config,
    source: EventSample | str | Path | Sequence[str | Path],
    *,
    skip_bad: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> EncodedSample:
    """Encode a sample with the cuts, resonances and seed of a configuration.

    Parameters
    ----------
    config : Config
    source, skip_bad, selection, progress
        As for `encode_sample`.
    """
    return encode_sample(
        source,
        seed=config.seed,
        skip_bad=skip_bad,
        selection=selection,
        cuts=config.cuts,
        conditions=parse_conditions(config.conditions),
        resonances=[parse_resonance(text) for text in config.resonances],
        find_cuts=config.find_cuts,
        variations=config.training.variations,
        progress=progress,
    )


def encode_sample(
    source: EventSample | str | Path | Sequence[str | Path],
    *,
    seed: int = 0,
    skip_bad: bool = False,
    selection: Selection | None = None,
    cuts: Cuts = (),
    conditions: Sequence[Wanted] = (),
    resonances: Sequence[NamedResonance] = (),
    find_cuts: bool = True,
    variations: Sequence[str] = ALL,
    progress: Progress | None = None,
) -> EncodedSample:
    """Learn the process of a sample and translate its events: two passes over the files.

    Parameters
    ----------
    source : EventSample, or file names or glob patterns, or one file of `EncodedSample.save`
    seed : int
        Seed of the choice of events for the search of formulas.
    skip_bad : bool
        Leave out bad events instead of refusing them.
    cuts : sequence of Cut or str
        Events outside are left out.
    conditions : sequence of Wanted
        Conditions of the density.
    find_cuts : bool
        Look for cuts at the edges of the sample, too.
    resonances : sequence of NamedResonance
        Objects whose mass is a coordinate.
    selection : Selection, optional
        Objects to learn, from files of reconstructed or showered events.
    variations : sequence of str
        Patterns of the named weights to keep.
    progress : callable, optional
    """
    one = source if isinstance(source, str | Path) else None
    if isinstance(source, Sequence) and len(source) == 1 and one is None:
        one = source[0]
    if one is not None and str(one).endswith(SUFFIX):
        if selection is not None or cuts or resonances or not find_cuts:
            raise UsageError(
                "is encoded already",
                path=one,
                remedy="choose objects, cuts and resonances with `hepgen-ml encode`",
            )
        begun = time.monotonic()
        loaded = EncodedSample.load(one)
        _check_conditions(loaded.process, conditions, one)
        kept = None if loaded.variations is None else loaded.variations.chosen(variations)
        if kept is None:
            matching({}, variations)  # an error if one was requested by name
        seconds = time.monotonic() - begun
        return replace(loaded, seconds_read=seconds, variations=kept)
    samples = SampleSource(
        source, skip_bad=skip_bad, selection=selection, cuts=cuts, conditions=conditions
    )
    with samples.reading:
        fingerprint = samples.fingerprint()
    process = learn_process(
        samples, seed=seed, resonances=resonances, find_cuts=find_cuts, progress=progress
    )
    collector = VariationCollector(variations, seed)
    encoded = encode_all(samples, process, variations=collector, progress=progress)
    files = tuple(p.name for p in samples.paths)
    run, found = with_mean_weight(samples, process), collector.found(samples.run)
    return EncodedSample(
        process, run, encoded, fingerprint, files, samples.n_skipped,
        (*samples.not_learned, *collector.not_learned), samples.reading.seconds, found,
    )  # fmt: skip
