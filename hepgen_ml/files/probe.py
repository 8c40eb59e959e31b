"""Outputs of a stored network for fixed events, kept with its weights.

Weights of the right shapes may belong to different code, for example with another order of
particles or another scale of an input. A network with different outputs is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from hepgen_ml.errors import ModelError
from hepgen_ml.files import documents
from hepgen_ml.files.version import __version__

_TOLERANCE = 1e-2
"""Absolute and relative tolerance: far above rounding, and below any change of definition."""


class ProbeDocument(documents.Document):
    """Stored form: the version of hepgen-ml, and outputs."""

    version: documents.Text
    outputs: Annotated[list[documents.Number], Field(min_length=1, max_length=10_000)]


def taken(outputs: npt.ArrayLike) -> dict[str, Any]:
    """Plain values of outputs to store; empty if they are not finite."""
    flat = np.asarray(outputs, dtype=np.float64).ravel()
    if not len(flat) or not np.isfinite(flat).all():
        return {}
    return {"probe": {"version": __version__, "outputs": flat[:10_000].tolist()}}


def require_same(stored: ProbeDocument | None, outputs: npt.ArrayLike, path: Path) -> None:
    """Refuse a network whose outputs differ from those at the time of storage.

    Raises
    ------
    ModelError
        The outputs differ, or have another shape.
    """
    if stored is None:  # earlier versions stored no outputs
        return
    before = np.array(stored.outputs)
    now = np.asarray(outputs, dtype=np.float64).ravel()[:10_000]
    if now.shape == before.shape and np.allclose(now, before, _TOLERANCE, _TOLERANCE):
        return
    raise ModelError(
        f"gives other outputs than when hepgen-ml {stored.version} stored it (this is "
        f"{__version__}): its weights have changed, or the code that uses them has",
        path=path,
        remedy="use the version that stored it, or train again",
    )


def momenta(n: int, k: int) -> npt.NDArray[np.float64]:
    """Momenta (n, k, 4) in GeV, always the same: px, py, pz, energy."""
    number = torch.arange(n * k, dtype=torch.float64).reshape(n, k)
    pt, phi, eta = 40 + 30 * torch.sin(1.3 * number), 2.4 * number, torch.sin(0.7 * number)
    x, y, z = pt * torch.cos(phi), pt * torch.sin(phi), pt * torch.sinh(eta)
    energy = torch.sqrt(x**2 + y**2 + z**2 + 25.0)
    return torch.stack([x, y, z, energy], dim=-1).numpy()
