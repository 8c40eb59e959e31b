"""Tensors with JSON metadata as safetensors files, each replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hepgen_ml.errors import ModelError, OutputError
from hepgen_ml.files import documents
from hepgen_ml.files.outputs import make_readable, replacing

Module = TypeVar("Module", bound=nn.Module)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata to a safetensors file, completely or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with replacing(path) as place:
        try:
            save_file(whole, place, metadata={"json": json.dumps(metadata)})
        except SafetensorError as error:
            raise OutputError(
                f"cannot be written: {error}", path=path, remedy="free some space"
            ) from error
        make_readable(place) # safetensors makes it unreadable for other users


def load_tensors(path: Path, *, infinite: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Parameters
    ----------
    path : Path
    infinite : bool
        Allow infinities and nan in the metadata.

    Raises
    ------
    ModelError
        The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get("json", "{}")
        if unknown := {str(t.dtype) for t in tensors.values()} - _TYPES:
            raise ValueError(f"tensors of type {min(unknown)}")
        metadata = documents.parse(text, infinite=infinite)
    except (OSError, SafetensorError, *documents.UNUSABLE) as error:
        raise ModelError(
            f"is missing or damaged: {documents.problem(error)}", path=path, remedy="train again"
        ) from None
    return tensors, metadata


def restored(build: Callable[[], Module], tensors: Mapping[str, Tensor]) -> Module:
    """Module from its tensors; nothing is allocated before their shapes are known to be right.

    Parameters
    ----------
    build : callable
        Called twice. The tensors that it makes have no values at first, and are not read by it.
    tensors : mapping of str to Tensor

    Raises
    ------
    ValueError
        They are those of another module, or hold a number that is not finite.
    """
    with torch.device("meta"):
        shapes = build().state_dict()
    for name in sorted(set(shapes) ^ set(tensors)):
        raise ValueError(f"{name[:100]}: {'missing' if name in shapes else 'not expected'}")
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name].shape or tensor.dtype != shapes[name].dtype:
            raise ValueError(f"{name}: {tuple(tensor.shape)}, not {tuple(shapes[name].shape)}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{name}: holds a number that is not finite")
    module = build()
    module.load_state_dict(tensors)
    return module.eval()


_TYPES = {f"torch.{kind}{bits}" for kind in ("float", "int") for bits in (16, 32, 64)}
_TYPES |= {"torch.bool", "torch.uint8", "torch.int8"}
