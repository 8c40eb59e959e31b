"""Toy scans: a resonance whose mass is a condition, with rates that follow it."""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun

MUON = 0.10566
WIDTH = 0.03  # over the mass
BEAM = 6500.0


def resonance(mass: np.ndarray, seed: int = 0, header: str = "") -> EventSample:
    """q q~ -> Z' -> mu mu at masses (n,) in GeV; u quarks are more frequent the heavier it is."""
    rng = np.random.default_rng(seed)
    n = len(mass)
    # of a Breit-Wigner distribution in the squared mass, within ten widths
    end = np.arctan(np.array([-10.0, 10.0]))
    m = mass * np.sqrt(1 + WIDTH * np.tan(rng.uniform(*end, n)))
    y = rng.normal(0.0, 0.3, n)
    cos, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    size = np.sqrt(m**2 / 4 - MUON**2)
    sin = np.sqrt(1 - cos**2)
    rest = np.stack([size * sin * np.cos(phi), size * sin * np.sin(phi), size * cos, m / 2], 1)
    muons = []
    for sign in (1.0, -1.0):
        p = rest * [sign, sign, sign, 1.0]
        pz = p[:, 2] * np.cosh(y) + p[:, 3] * np.sinh(y)
        energy = p[:, 3] * np.cosh(y) + p[:, 2] * np.sinh(y)
        muons.append(np.stack([p[:, 0], p[:, 1], pz, energy], 1))
    total = muons[0] + muons[1]
    plus, minus = (total[:, 3] + total[:, 2]) / 2, (total[:, 3] - total[:, 2]) / 2
    zero = np.zeros(n)
    beams = [np.stack([zero, zero, s * e, e], 1) for s, e in ((1, plus), (-1, minus))]
    rows = np.stack([*beams, total, *muons], 1)
    up = rng.random(n) < up_share(mass)
    quark = np.where(up, 2, 1)
    ids = np.stack([quark, -quark, np.full(n, 32), np.full(n, 13), np.full(n, -13)], 1)
    fixed = np.tile([(-1, 0, 0, 501, 0), (-1, 0, 0, 0, 501), (2, 1, 2, 0, 0), (1, 3, 3, 0, 0),
                     (1, 3, 3, 0, 0)], (n, 1))  # fmt: skip
    particles = {"pdg_id": ids.ravel()}
    names = ("status", "mother1", "mother2", "color1", "color2")
    particles |= dict(zip(names, fixed.T, strict=True))
    particles |= dict(zip(("px", "py", "pz", "energy"), rows.reshape(-1, 4).T, strict=True))
    particles["mass"] = np.stack([zero, zero, m, zero + MUON, zero + MUON], 1).ravel()
    particles |= {"lifetime": np.zeros(5 * n), "spin": np.full(5 * n, 9.0)}
    events = {"process_id": np.ones(n), "weight": np.ones(n), "scale": m,
              "alpha_qed": np.full(n, 1 / 128), "alpha_qcd": np.full(n, 0.1)}  # fmt: skip
    sigma = float(cross_section(np.mean(mass)))
    processes = (Subrun(1, sigma, 0.01 * sigma),)
    run = RunInfo(beam_energy=(BEAM, BEAM), processes=processes, header=header)
    return EventSample(run, 5 * np.arange(n + 1), particles, events)


def up_share(mass: np.ndarray) -> np.ndarray:
    """Part of the events that come from u quarks."""
    return 1 / (1 + np.exp(-(mass - 900.0) / 200.0))


def cross_section(mass: float) -> float:
    """In pb."""
    return 5.0 * (mass / 1000.0) ** -4


def header(mass: float) -> str:
    """Of a file at one mass."""
    return f"<slha>\nBLOCK MASS\n   6  1.73E+02\n  32  {mass:.6E}  # Z'\nBLOCK OTHER\n 1 3\n</slha>"


def point(mass: float, n: int, seed: int = 0) -> EventSample:
    """Events at one mass, which the header states."""
    return resonance(np.full(n, float(mass)), seed, header(mass))


def labelled(n: int, seed: int = 0) -> EventSample:
    """Events of masses between 600 and 1400 GeV, each with its own as an attribute."""
    mass = np.round(np.random.default_rng(seed).uniform(600.0, 1400.0, n), 4)
    sample = resonance(mass, seed + 1_000_000)
    sample.attributes["mass"] = mass.astype(str)
    sample.attributes["model"] = np.where(mass < 1000, "light", "heavy")
    return sample


def pair_masses(sample: EventSample) -> np.ndarray:
    """Masses of all muon pairs in GeV."""
    p = sample.momentum.reshape(len(sample), 5, 4)[:, 3:].sum(1)
    return np.sqrt(p[:, 3] ** 2 - (p[:, :3] ** 2).sum(1))
