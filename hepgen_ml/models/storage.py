"""A trained model on disk: a directory of weights, configuration and model card.

``model.safetensors`` holds the weights, ``config.json`` everything else
(versioned; it names the weights' hash), ``README.md`` is the model card for
people. ``validation.json``, where there is one, is the summary of a report about
these weights. Nothing in it is executed when it is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hepgen_ml.config import AUTOMATIC, Config
from hepgen_ml.errors import ModelError, OutputError, UsageError
from hepgen_ml.events.run import RunInfo, processes_from_json
from hepgen_ml.files import documents
from hepgen_ml.files.directories import DirectoryLock
from hepgen_ml.files.garbage import uncollected
from hepgen_ml.files.model_files import CARD, CLASSIFIER, CONFIG, VALIDATION, WEIGHTS
from hepgen_ml.files.outputs import naming, remove, write_json, write_text
from hepgen_ml.files.provenance import file_hash, packages
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.models import registry
from hepgen_ml.models.included import FORMAT_VERSION, read_document
from hepgen_ml.models.model_card import model_card
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.networks.bayesian import LEAST_STORED, check_axes, expect_axes
from hepgen_ml.networks.principal_axes import LOG_VARIANCE
from hepgen_ml.process.document import ProcessDocument
from hepgen_ml.process.process import Process

_HALF = (torch.float16, torch.bfloat16)

_MANY_SUBPROCESSES = 30_000
"""Number of subprocesses above which a model may be too large to be stored."""

_SPARE_ELEMENTS = 10_000_000
"""Number of tensor elements that a network may allocate beyond a multiple of its weights."""


@dataclass(frozen=True)
class TrainedModel:
    """Contents of a model directory, ready to generate events.

    Attributes
    ----------
    surrogate : Surrogate
    process : Process
    config : Config
    run : RunInfo
        Of generated events: cross section and beams of the training sample.
    facts : dict
        About the training: sample hash and size, losses, time (plain JSON values).
    device : torch.device
        Device of the surrogate.
    """

    surrogate: Surrogate
    process: Process
    config: Config
    run: RunInfo
    facts: dict[str, Any]
    device: torch.device


@uncollected()
def require_storable(process: Process, directory: Path) -> None:
    """Raise OutputError, before it is trained, for a model that could not be loaded again."""
    document = process.to_config()
    if len(process.subprocesses) > _MANY_SUBPROCESSES:
        _text_of_process(document, directory)
    try:
        ProcessDocument.model_validate(document)
    except ValueError as error:
        raise OutputError(
            f"the process cannot be stored: {documents.problem(error)}", path=directory,
            remedy="this is a fault of hepgen-ml: please report it with this line",
        ) from None  # fmt: skip


def _text_of_process(document: dict[str, Any], directory: Path) -> str:
    try:
        return documents.text_of(document)
    except ValueError as error:
        raise OutputError(
            f"the process cannot be stored: {error}", path=directory,
            remedy="train on a part of the events or of the subprocesses",
        ) from None  # fmt: skip


def save_model(directory: Path, model: TrainedModel, *, half: bool = False) -> None:
    """Write a model directory; ``config.json`` appears last, so that it refers to complete weights.

    Parameters
    ----------
    directory : Path
        Made if need be.
    model : TrainedModel
    half : bool
        Store the parameters of the networks in half precision (16 bits, a relative error of
        2.4e-4), which halves the file. They are used in single precision in any case.
        Standardisations and frequencies, which physics depends on directly, are kept as they are.

    Raises
    ------
    OutputError
        The disk is full, or a fact is not finite; the latter is detected before anything is
        replaced.
    """
    for name, value in model.facts.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise OutputError(
                f"cannot be written: {name.replace('_', ' ')} is {value}",
                path=directory,
                remedy="train again, with a smaller training.learning_rate if it is a loss",
            ) from None
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    process = model.process.to_config()
    text_of_process = _text_of_process(process, directory)
    remove(directory, VALIDATION, CLASSIFIER)  # they were about other weights
    tensors = dict(model.surrogate.state_dict())
    if half:
        tensors |= _halved(model.surrogate)
    save_tensors(directory / WEIGHTS, tensors, {})
    before = {
        "format": "hepgen-ml model",
        "version": FORMAT_VERSION,
        "precision": "float16" if half else "float32",
        "least_log_variance": LOG_VARIANCE[0],
        "weights_sha256": file_hash(directory / WEIGHTS),
        "config": model.config.model_dump(),
        "run": run_to_config(model.run),
    }
    after = {"training": model.facts, "packages": packages()}
    # that of the process may be long, and is there already
    parts = [documents.text_of(before)[1:-1], f'"process":{text_of_process}',
             documents.text_of(after)[1:-1]]  # fmt: skip
    text = documents.within_limits("{" + ",".join(parts) + "}")
    write_text(directory / CARD, model_card(model.process, model.config, model.run, model.facts))
    write_text(directory / CONFIG, text + "\n")


def _halved(surrogate: Surrogate) -> dict[str, Tensor]:
    """Parameters in half precision, except tensors with a number that is too large for it."""
    found = {name: p.detach().half() for name, p in surrogate.named_parameters()}
    return {name: tensor for name, tensor in found.items() if bool(tensor.isfinite().all())}


@uncollected()
def load_model(directory: Path, device: torch.device) -> TrainedModel:
    """Read a model directory.

    Raises
    ------
    ModelError
        Missing, damaged, or of a newer format.
    """
    document = read_document(directory)
    retrain = "train again or fetch it anew"
    if file_hash(directory / WEIGHTS) != document.get("weights_sha256"):
        raise ModelError(
            "is damaged: weights and config.json do not match",
            path=directory / WEIGHTS,
            remedy=retrain,
        )
    tensors, _ = load_tensors(directory / WEIGHTS)
    _require_model(directory / CONFIG, document["config"])
    with documents.reading(directory / CONFIG, retrain):
        config = Config.of_stored(document["config"])
        process = Process.from_config(document["process"])
        run = run_from_config(document["run"])
        with _Budget(_SPARE_ELEMENTS + 8 * sum(t.numel() for t in tensors.values())):
            surrogate = Surrogate(process, config)
    tensors = surrogate.heads.compacted(tensors, "heads.")
    if (least := document.get("least_log_variance")) is None:
        least = LEAST_STORED
    tensors |= {n: t.clamp_min(least) for n, t in tensors.items() if n.endswith(".log_variance")}
    expect_axes(surrogate, tensors)
    _check_weights(directory / WEIGHTS, tensors, surrogate.state_dict())
    parameters = {name for name, _ in surrogate.named_parameters()}
    allowed = parameters if document.get("precision") == "float16" else set()
    if coarse := sorted({n for n, t in tensors.items() if t.dtype in _HALF} - allowed):
        raise ModelError(
            f"is damaged: {coarse[0][:100]} is stored in half precision",
            path=directory / WEIGHTS,
            remedy=retrain,
        )
    surrogate.load_state_dict(tensors)
    with documents.reading(directory / WEIGHTS, retrain):
        check_axes(surrogate)
    if surrogate.event_weights is not None:
        try:
            surrogate.event_weights.check(process)
        except ValueError as error:
            raise ModelError(
                f"holds weights of other events: {error}", path=directory, remedy=retrain
            ) from None
    facts = dict(document.get("training", {}))
    return TrainedModel(surrogate.to(device).eval(), process, config, run, facts, device)


def _require_model(path: Path, config: Any) -> None:
    """Refuse a model of a package that is not installed here."""
    name = config.get("model") if isinstance(config, dict) else None
    if isinstance(name, str) and name != AUTOMATIC:
        try:
            registry.find(name)
        except UsageError as error:
            raise ModelError(
                f"cannot be used: {error.message}", path=path, remedy=error.remedy
            ) from None


class _Budget(TorchFunctionMode):
    """Limit the number of tensor elements, because a small file can request any number."""

    _FACTORIES = frozenset(["empty", "zeros", "ones", "full", "rand", "randn"])

    def __init__(self, n_elements: int) -> None:
        super().__init__()
        self.left = n_elements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._FACTORIES:
            size = args or (kwargs.get("size", ()),)
            sizes = size[0] if isinstance(size[0], list | tuple) else size
            self.left -= math.prod(n for n in sizes if isinstance(n, int))
            if self.left < 0:
                raise ValueError("config describes a network that is larger than its weights")
        return func(*args, **kwargs)


def _check_weights(path: Path, found: Mapping[str, Tensor], shapes: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the network that ``config.json`` describes."""
    wrong = sorted(set(shapes) ^ set(found)) or sorted(
        name for name, tensor in found.items()
        if tensor.shape != shapes[name].shape
        or tensor.dtype.is_floating_point != shapes[name].dtype.is_floating_point
    )  # fmt: skip
    if wrong:
        kinds = [
            "no tensor" if one is None else f"{tuple(one.shape)} {one.dtype}"
            for one in (found.get(wrong[0]), shapes.get(wrong[0]))
        ]
        raise ModelError(
            f"holds weights of another network than this version of hepgen-ml has: "
            f"{wrong[0][:100]} is {kinds[0]}, not {kinds[1]}",
            path=path,
            remedy="train again, or use the version that is named in config.json",
        )
    for name, tensor in found.items():
        # Logarithms of frequencies are infinite where something never happens.
        allowed = tensor.isneginf() if name.endswith("prior") else False
        if not bool((tensor.isfinite() | allowed).all()):
            raise ModelError(
                f"is damaged: {name} holds a number that is not finite",
                path=path,
                remedy="train again or fetch it anew",
            )


def run_to_config(run: RunInfo) -> dict[str, Any]:
    """Plain JSON values; null for a cross section or an error that is not known."""
    processes = [p.to_json() for p in run.processes]
    found = {**asdict(run), "processes": processes, "weight_names": dict(run.weight_names)}
    del found["weight_cross_sections"]  # generated events have no such weights
    del found["shard"]
    return found


def run_from_config(config: Mapping[str, Any]) -> RunInfo:
    """Inverse of `run_to_config`.

    Raises
    ------
    ValueError
        The document describes no run; pydantic's names the entry.
    """
    documents.RunDocument.model_validate(config)

    def pair(name: str, kind: type) -> Any:
        low, high = config[name]
        return (kind(low), kind(high))

    return RunInfo(
        beam_pdg_id=pair("beam_pdg_id", int),
        beam_energy=pair("beam_energy", float),
        pdf_group=pair("pdf_group", int),
        pdf_set=pair("pdf_set", int),
        weight_strategy=int(config["weight_strategy"]),
        processes=processes_from_json(config["processes"]),
        generators=tuple((str(a), str(b), str(c)) for a, b, c in config["generators"]),
        header=str(config["header"]),
        significant_digits=None,
    )


def store_validation(directory: Path, summary: Mapping[str, Any]) -> None:
    """Keep the summary of a report with its model, and rewrite the model card with it.

    Parameters
    ----------
    directory : Path
        Model directory; its weights and ``config.json`` stay as they are.
    summary : mapping
        Of `hepgen_ml.validation.verdict`, with ``truth`` and ``generated`` (plain JSON values).

    Raises
    ------
    ModelError
        The directory holds no model.
    OutputError
        It cannot be written to.
    """
    document = read_document(directory)
    known = {"weights_sha256": document["weights_sha256"], **summary}
    with documents.reading(directory / CONFIG, "train again"):
        card = model_card(
            Process.from_config(document["process"]),
            Config.of_stored(document["config"]),
            run_from_config(document["run"]),
            dict(document.get("training", {})),
            summary,
        )
    with DirectoryLock(directory):
        write_json(directory / VALIDATION, known)
        write_text(directory / CARD, card)
