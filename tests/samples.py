"""Small samples made in the tests themselves."""

from __future__ import annotations

import numpy as np
import torch

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.phase_space.coordinates import from_pt_rapidity_phi
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process

MUON = 0.1056583755
TOP = 173.0


def learned(sample: EventSample) -> Process:
    """The process of a sample."""
    learner = ProcessLearner()
    learner.add(sample)
    return learner.process(sample.run.beam_energy)


def toy_top_pairs(n: int, seed: int = 0, *, jets: bool = True) -> EventSample:
    """pp -> t t~ (j) with simple densities, two flavours of initial state, two colour flows."""
    rng = np.random.default_rng(seed)
    offsets, rows, events = [0], [], []
    for _ in range(n):
        with_jet = jets and rng.random() < 0.5
        gluons = rng.random() < 0.7
        pt = rng.exponential(80.0)
        y = rng.normal(0.0, 0.6, 3)  # stays below the beam energy
        phi = rng.uniform(-np.pi, np.pi, 2)
        momenta = [_momentum(pt, y[0], phi[0], TOP)]
        if with_jet:
            momenta.append(_momentum(20.0 + rng.exponential(30.0), y[2], phi[1], 0.0))
        recoil = -sum(p[:2] for p in momenta)
        pt_last = float(np.hypot(*recoil))
        last = _momentum(pt_last, y[1], float(np.arctan2(recoil[1], recoil[0])), TOP)
        final = [momenta[0], last, *momenta[1:]]
        total = sum(final)
        plus, minus = (total[3] + total[2]) / 2, (total[3] - total[2]) / 2
        incoming = [np.array([0, 0, plus, plus]), np.array([0, 0, -minus, minus])]
        flavours, colors = _flow(gluons, with_jet, rng)
        spins = rng.choice([-1.0, 1.0], len(flavours))
        for i, p in enumerate([*incoming, *final]):
            status = -1 if i < 2 else 1
            mother = (0, 0) if i < 2 else (1, 2)
            mass = TOP if abs(flavours[i]) == 6 else 0.0
            rows.append([flavours[i], status, *mother, *colors[i], *p, mass, 0.0, spins[i]])
        offsets.append(len(rows))
        scale = float(np.sqrt(TOP**2 + pt**2)) if not with_jet else 100.0 + rng.exponential(20.0)
        events.append([int(with_jet), 3.0, scale, 1 / 132.5, 1 / (8.5 + 1.2 * np.log(scale / 91))])
    table, per_event = np.array(rows), np.array(events)
    names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2", "px", "py", "pz",
             "energy", "mass", "lifetime", "spin")  # fmt: skip
    event_names = ("process_id", "weight", "scale", "alpha_qed", "alpha_qcd")
    run = RunInfo(
        (2212, 2212), (6500.0, 6500.0), weight_strategy=-4,
        processes=(Subrun(0, 1.5, 0.01, 3.0), Subrun(1, 1.5, 0.01, 3.0)),
        generators=(("toy", "1", "test events"),),
    )  # fmt: skip
    return EventSample(
        run,
        offsets,
        {name: table[:, i] for i, name in enumerate(names)},
        {name: per_event[:, i] for i, name in enumerate(event_names)},
    )


def _momentum(pt: float, y: float, phi: float, mass: float) -> np.ndarray:
    values = (torch.tensor(v, dtype=torch.float64) for v in (pt, y, phi, mass))
    return from_pt_rapidity_phi(*values).numpy()


def _flow(
    gluons: bool, with_jet: bool, rng: np.random.Generator
) -> tuple[list[int], list[tuple[int, int]]]:
    if gluons and with_jet:
        flow = [(501, 502), (502, 503), (501, 0), (0, 504), (504, 503)]
        return [21, 21, 6, -6, 21], flow
    if gluons:
        first = [(501, 502), (502, 503), (501, 0), (0, 503)]
        second = [(503, 502), (501, 503), (501, 0), (0, 502)]
        return [21, 21, 6, -6], first if rng.random() < 0.5 else second
    if with_jet:
        return [2, -2, 6, -6, 21], [(501, 0), (0, 502), (501, 0), (0, 503), (503, 502)]
    return [2, -2, 6, -6], [(501, 0), (0, 502), (501, 0), (0, 502)]


def toy_z_jets(n: int = 4000, seed: int = 0, rate: float = 0.4, most: int = 4) -> EventSample:
    """Muon pairs with a peak at 91 GeV and jets that recoil against them.

    Jets have pT above 20 GeV, |eta| below 5 and keep 0.4 apart; one in ten is massless.
    Muons stand in order of pT, as files have them, so that either charge comes first.
    """
    rng = np.random.default_rng(seed)
    mass = np.clip(91.2 + 1.25 * np.tan(np.pi * (rng.random(n) - 0.5) * 0.97), 20.0, 120.0)
    counts, rows = [], []
    for i in range(n):
        jets: list[tuple[float, float, float, float]] = []
        wanted = min(rng.geometric(1 - rate) - 1, most)
        while len(jets) < wanted:
            pt, eta, phi = 20 + rng.exponential(25), rng.normal(0, 2), rng.uniform(-3.14, 3.14)
            apart = [
                np.hypot(eta - e, (phi - f + np.pi) % (2 * np.pi) - np.pi) for _, e, f, _ in jets
            ]
            if abs(eta) < 5 and all(d > 0.4 for d in apart):
                jets.append((pt, eta, phi, 0.0 if rng.random() < 0.1 else rng.lognormal(1.7, 0.4)))
        jets.sort(reverse=True)
        px = rng.normal(0, 6) - sum(p * np.cos(f) for p, _, f, _ in jets)
        py = rng.normal(0, 6) - sum(p * np.sin(f) for p, _, f, _ in jets)
        mt, y = np.sqrt(mass[i] ** 2 + px**2 + py**2), rng.normal(0, 1.5)
        z = np.array([px, py, mt * np.sinh(y), mt * np.cosh(y)])
        muons = _decay(z, mass[i], rng)
        both = sorted(zip((13, -13), muons, strict=True), key=lambda m: -np.hypot(*m[1][:2]))
        rows += [(number, *p, MUON) for number, p in both]
        for pt, eta, phi, m in jets:
            p3 = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
            rows.append((93, *p3, np.sqrt((p3**2).sum() + m**2), m))
        counts.append(2 + len(jets))
    columns = dict(
        zip(("pdg_id", "px", "py", "pz", "energy", "mass"), np.array(rows).T, strict=True)
    )
    run = RunInfo(beam_energy=(6500.0, 6500.0), processes=(Subrun(0, 1500.0, 1.0),))
    return EventSample(run, np.concatenate([[0], np.cumsum(counts)]), columns)


def _decay(q: np.ndarray, mass: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Two muons of a particle with momentum q, isotropic in its rest frame."""
    direction = rng.normal(size=3)
    k = np.sqrt(mass**2 / 4 - MUON**2) * direction / np.linalg.norm(direction)
    found = []
    for sign in (1, -1):
        along = (sign * k * q[:3]).sum()
        energy = (q[3] * mass / 2 + along) / mass
        p3 = sign * k + q[:3] * (mass / 2 + energy) / (q[3] + mass)
        found.append(np.array([*p3, np.sqrt((p3**2).sum() + MUON**2)]))
    return found
