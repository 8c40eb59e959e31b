"""Toy jets: one prong, or two with an angle between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from hepgen_ml.events.jets import Checked, Jets, JetSelection


def toy(n: int, prongs: int, seed: int, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Lists px, py, pz, energy, charge of n jets with 4 to 12 massless constituents."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(4, 13, n)
    jet = np.repeat(np.arange(n), counts)
    rows = len(jet)
    pt = 600 * rng.exponential(1.0, rows) / counts[jet]
    eta0, phi0 = rng.uniform(-2, 2, n)[jet], rng.uniform(-np.pi, np.pi, n)[jet]
    angle = rng.uniform(0, 2 * np.pi, n)[jet]
    side = rng.choice([-0.2, 0.2], rows) if prongs == 2 else np.zeros(rows)
    eta = eta0 + side * np.cos(angle) + rng.normal(0, 0.05, rows)
    phi = phi0 + side * np.sin(angle) + rng.normal(0, 0.05, rows)
    flat = {
        "px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta),
        "energy": pt * np.cosh(eta), "charge": rng.integers(-1, 2, rows),
        "pt": pt, "eta": eta, "phi": phi, "mass": np.zeros(rows),
    }  # fmt: skip
    return {name: ak.unflatten(values, counts) for name, values in flat.items()}


def jets(n: int, prongs: int, seed: int, features: tuple[str, ...] = ()) -> Jets:
    """The same as `Jets`."""
    lists = toy(n, prongs, seed)

    def flat(*names: str) -> Any:
        columns = [ak.to_numpy(ak.flatten(lists[name])).astype(float) for name in names]
        return np.stack(columns, axis=1) if names else np.zeros((len(ak.flatten(lists["px"])), 0))

    checked = Checked(Path("toy"), JetSelection(features=features), False)
    return checked.jets(
        ak.to_numpy(ak.num(lists["px"])), flat("px", "py", "pz", "energy"), flat(*features)
    )


def write(
    path: Path, lists: dict[str, Any], *columns: str, tree: str = "tree", **more: Any
) -> Path:
    """A ROOT file of some lists, named part_NAME, and columns of jets."""
    with uproot.recreate(path) as file:
        file[tree] = {f"part_{name}": lists[name] for name in columns} | more
    return path
