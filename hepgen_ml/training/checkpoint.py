"""Files of a training run and its model, each replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hepgen_ml.errors import ModelError, OutputError
from hepgen_ml.files import make_readable, replacing


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata to a safetensors file, whole or not at all.

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
        make_readable(place)  # safetensors lets nobody else read it


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
