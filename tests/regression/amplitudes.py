"""Events with squared amplitudes for tests of regressions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.regression.model import Settings

Z_MASS = 91.188
FEW = Settings("deep-sets", {"width": 32, "layers": 2}, max_steps=30, batch_size=128)


def z_plus_jet(n: int, seed: int = 0) -> tuple[dict[str, np.ndarray], FloatArray]:
    """Arrays of u u~ -> Z g, and the squared amplitude but for constants."""
    rng = np.random.default_rng(seed)
    pt, phi = 20 / rng.random(n) ** 0.5, rng.uniform(-np.pi, np.pi, n)
    y = rng.normal(0, 1, (2, n))
    mt = np.hypot(pt, Z_MASS)
    px, py = pt * np.cos(phi), pt * np.sin(phi)
    gluon = np.stack([px, py, pt * np.sinh(y[0]), pt * np.cosh(y[0])], -1)
    boson = np.stack([-px, -py, mt * np.sinh(y[1]), mt * np.cosh(y[1])], -1)
    total = gluon + boson
    plus, minus = (total[:, 3] + total[:, 2]) / 2, (total[:, 3] - total[:, 2]) / 2
    zero = np.zeros(n)
    quark = np.stack([zero, zero, plus, plus], -1)
    antiquark = np.stack([zero, zero, -minus, minus], -1)
    momenta = np.stack([quark, antiquark, gluon, boson], 1)

    def dot(a: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray(a[:, 3] * b[:, 3] - (a[:, :3] * b[:, :3]).sum(1))

    s, t, u = 2 * dot(quark, antiquark), -2 * dot(quark, gluon), -2 * dot(antiquark, gluon)
    amplitude = (t**2 + u**2 + 2 * s * Z_MASS**2) / (t * u)
    return {
        "momenta": momenta, "pdg_id": np.array([2, -2, 21, 23]),
        "status": np.array([-1, -1, 1, 1]),
    }, amplitude  # fmt: skip


def points(tmp_path: Path, n: int, seed: int = 0, **more: Any) -> Path:
    arrays, amplitude = z_plus_jet(n, seed)
    path = tmp_path / f"points{seed}.npz"
    np.savez(path, **{**arrays, "amplitude": amplitude, **more})
    return path
