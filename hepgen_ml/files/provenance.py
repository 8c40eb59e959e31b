"""Where stored results come from: hashes of files and versions of packages."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hepgen_ml.errors import ModelError


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror}",
            path=path,
            remedy="check its permissions",
        ) from None
    return digest.hexdigest()


def packages() -> dict[str, str]:
    """Versions of the packages on which the results of a model depend."""
    found = {}
    for name in ("hepgen-ml", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
