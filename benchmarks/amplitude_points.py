"""Phase-space points and exact amplitudes of u u~ -> Z + n gluons, for `amplitudes.py make`.

Points come from our own chart: transverse momenta above 20 GeV fall as a power, rapidities are
logistic, and the Z boson balances the gluons. Cuts: pT > 20 GeV and Delta R > 0.4 for all final
particles. Weights are those of proton-proton collisions at 13 TeV with the simple parton densities
below; points are accepted by their weights up to a limit, above which the fraction `loss` of all
weight lies, and keep what is left of it.
"""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from hepgen_ml.events.sample import FloatArray
from hepgen_ml.events.weights import unweighting_limit
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.charts import BalancedChart

BEAM, Z_MASS, PT, DELTA_R = 6500.0, 91.188, 20.0, 0.4
_FALL, _SPREAD, _BOOST = 1.25, 1.0, 1.8
_BLOCK = {1: 400_000, 2: 400_000, 3: 200_000, 4: 50_000}
_PILOT = {1: 200_000, 2: 200_000, 3: 200_000, 4: 50_000}


@dataclass
class Oracle:
    """The exact amplitude, in a Python that has pyamplicol.

    Attributes
    ----------
    python, place : Path
    n : int
        Gluons.
    seconds : float
        Spent on amplitudes so far.
    points : int
        That it was asked for.
    """

    python: Path
    place: Path
    n: int
    seconds: float = 0.0
    points: int = 0

    def __call__(self, momenta: FloatArray) -> FloatArray:
        """Squared amplitudes (m,) of momenta (m, n + 3, 4) of u, u~, gluons and Z."""
        order = [0, 1, momenta.shape[1] - 1, *range(2, momenta.shape[1] - 1)]
        data = io.BytesIO()
        np.save(data, momenta[:, order][..., [3, 0, 1, 2]])
        worker = Path(__file__).with_name("amplitude_worker.py")
        command = [str(self.python), str(worker), str(self.place / f"z{self.n}g"), str(self.n)]
        done = subprocess.run(command, input=data.getvalue(), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-2000:])
        self.seconds += float(done.stderr.split()[-1])
        self.points += len(momenta)
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)


def proposals(n: int, m: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Momenta (k, n + 3, 4) of points inside the cuts, k of m, and their weights without |A|²."""
    chart = BalancedChart([*(f"g{i}" for i in range(n)), "Z"], [0.0] * n + [Z_MASS], [PT] * n)
    pt = PT * rng.random((m, n)) ** (-1 / _FALL)
    away = rng.logistic(0.0, _SPREAD, (m, n))
    of_z = rng.normal(0.0, _BOOST, (m, 1))
    y = np.concatenate([away + of_z, of_z], axis=1)
    phi = rng.uniform(-np.pi, np.pi, (m, n))
    columns = []
    for i in range(n):
        columns += [np.log(pt[:, i] - PT), y[:, i], phi[:, i]]
    x = torch.from_numpy(np.stack([*columns, y[:, n]], axis=1))
    p, total = chart.inverse(x)
    log_det = chart.log_det(x)
    momenta = torch.cat([incoming_momenta(total, 0.0, 0.0), p], dim=1).numpy()
    # from the density of log(pT - PT) to that of pT
    log_density = np.log(_FALL * (PT / pt) ** _FALL / pt * (pt - PT)).sum(1)
    log_density -= (np.abs(away) / _SPREAD + 2 * np.log1p(np.exp(-np.abs(away) / _SPREAD))).sum(1)
    log_density -= (of_z[:, 0] / _BOOST) ** 2 / 2
    log_weight = log_det.numpy() - log_density - np.log(2 * p[..., 3].numpy()).sum(1)
    x1, x2 = momenta[:, 0, 3] / BEAM, momenta[:, 1, 3] / BEAM
    inside = (x1 < 1) & (x2 < 1) & _inside(momenta[:, 2:])
    momenta, log_weight, x1, x2 = (a[inside] for a in (momenta, log_weight, x1, x2))
    # u along either beam
    swap = rng.random(len(momenta)) < 0.5
    quark, antiquark = np.where(swap, x2, x1), np.where(swap, x1, x2)
    momenta[swap, :2] = momenta[swap, 1::-1]
    weight = np.exp(log_weight) * up(quark) * antiup(antiquark) / (x1 * x2)
    return momenta, weight / (x1 * x2) * len(momenta) / m


def up(x: FloatArray) -> FloatArray:
    """Density of up quarks times x: roughly that of protons at the scale of the Z boson."""
    return 2.2 * x**0.7 * (1 - x) ** 3 + antiup(x)


def antiup(x: FloatArray) -> FloatArray:
    """Density of up antiquarks times x."""
    return 0.2 * x**-0.2 * (1 - x) ** 7


def _inside(p: FloatArray) -> np.ndarray:
    pt = np.hypot(p[..., 0], p[..., 1])
    keep = (pt > PT).all(1)
    eta, phi = np.arcsinh(p[..., 2] / pt), np.arctan2(p[..., 1], p[..., 0])
    for i, j in combinations(range(p.shape[1]), 2):
        turn = np.angle(np.exp(1j * (phi[:, i] - phi[:, j])))
        keep &= np.hypot(eta[:, i] - eta[:, j], turn) > DELTA_R
    return keep


def make(oracle: Oracle, n_points: int, loss: float, seed: int) -> dict[str, FloatArray]:
    """So many points with amplitude and weight, and some of all proposals beside them."""
    rng = np.random.default_rng([seed, oracle.n])
    momenta, phase_space = proposals(oracle.n, _PILOT[oracle.n], rng)
    amplitude = oracle(momenta)
    limit = unweighting_limit(phase_space * amplitude, loss)
    pilot = {
        "proposal_momenta": momenta, "proposal_phase_space": phase_space,
        "proposal_amplitude": amplitude,
    }  # fmt: skip
    kept: list[tuple[FloatArray, ...]] = []
    while sum(len(k[0]) for k in kept) < n_points:
        momenta, phase_space = proposals(oracle.n, _BLOCK[oracle.n], rng)
        amplitude = oracle(momenta)
        relative = phase_space * amplitude / limit
        take = rng.random(len(relative)) < relative
        kept.append((momenta[take], amplitude[take], np.maximum(relative[take], 1.0)))
    whole = [np.concatenate(columns)[:n_points] for columns in zip(*kept, strict=True)]
    z = np.full(oracle.n + 3, 21)
    z[:2], z[-1] = (2, -2), 23
    status = np.array([-1, -1] + [1] * (oracle.n + 1))
    exact_seconds = np.array(oracle.seconds / oracle.points)
    return pilot | {
        "momenta": whole[0], "amplitude": whole[1], "weight": whole[2], "pdg_id": z,
        "status": status, "exact_seconds": exact_seconds,
    }  # fmt: skip
