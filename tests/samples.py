"""Small samples made in the tests themselves."""

from __future__ import annotations

import numpy as np
import torch

from hepgen_ml.events import EventSample, RunInfo, Subrun
from hepgen_ml.phase_space.coordinates import from_pt_rapidity_phi

TOP = 173.0


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
