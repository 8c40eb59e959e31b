"""Files of a training run and its model, each replaced atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hepgen_ml.errors import ModelError, OutputError


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata to a safetensors file, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    partial = path.with_name(f".partial-{path.name}")
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    try:
        save_file(whole, partial, metadata={"json": json.dumps(metadata)})
        partial.chmod(0o666 & ~_umask())  # safetensors lets nobody else read it
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"cannot be written: {error}", path=path, remedy="free some space"
        ) from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(
            f"cannot be written: {error.strerror or error}", path=path, remedy="free some space"
        ) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    ModelError
        The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get("json", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"is missing or damaged: {error}", path=path, remedy="train again"
        ) from None
    return tensors, metadata
