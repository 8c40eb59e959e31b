"""Events of any colour flow, with momenta that obey every law."""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate

Row = tuple[int, int, int, int, int, int]
"""PDG id, status, mothers, colour and anticolour."""

BEAM = 6500.0
RESONANCE = 400.0  # mass in GeV of every resonance


def massless(n: int, total: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Momenta (n, 4) of massless particles that add up to `total`, isotropic in its rest frame."""
    if n == 1:
        return total[None]
    q = rng.normal(size=(n, 3))
    p = np.column_stack([q, np.linalg.norm(q, axis=1)])
    p = _boosted(p, p.sum(0), to_rest=True)
    p *= np.sqrt(total[3] ** 2 - total[:3] @ total[:3]) / p[:, 3].sum()
    return _boosted(p, total, to_rest=False)


def _boosted(p: np.ndarray, frame: np.ndarray, *, to_rest: bool) -> np.ndarray:
    mass = np.sqrt(frame[3] ** 2 - frame[:3] @ frame[:3])
    b = -frame[:3] if to_rest else frame[:3]
    energy = (p[:, 3] * frame[3] + p[:, :3] @ b) / mass
    along = (p[:, 3] + energy) / (frame[3] + mass)
    return np.column_stack([p[:, :3] + along[:, None] * b, energy])


def _pair(mass1: float, mass2: float, total: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    s = total[3] ** 2 - total[:3] @ total[:3]
    size = np.sqrt((s - (mass1 + mass2) ** 2) * (s - (mass1 - mass2) ** 2) / (4 * s))
    q = rng.normal(size=3)
    q *= size / np.linalg.norm(q)
    p = np.array([[*q, np.hypot(size, mass1)], [*-q, np.hypot(size, mass2)]])
    return _boosted(p, total, to_rest=False)


def colored(rows: list[Row], n: int = 20, seed: int = 1, header: str = "") -> EventSample:
    """n events of these particles; resonances of 400 GeV, everything else massless."""
    rng = np.random.default_rng(seed)
    table = np.array(rows)
    samples = []
    run = RunInfo(
        beam_energy=(BEAM, BEAM), weight_strategy=3, processes=(Subrun(1, 1.0, 0.01),),
        header=header, pdf_set=(247000, 247000),
    )  # fmt: skip
    for _ in range(n):
        children = {
            k: [i for i, row in enumerate(rows) if row[1] != -1 and row[2] == k + 1]
            for k in range(len(rows))
        }
        hard = children[0]
        resonances = [i for i in hard if rows[i][1] == 2]
        s = RESONANCE if len(hard) == 1 else rng.uniform(1000, 1500)
        y = rng.uniform(-1, 1)
        e = s / 2 * np.array([np.exp(y), np.exp(-y)])
        p = np.zeros((len(rows), 4))
        mass = np.zeros(len(rows))
        p[0], p[1] = (0, 0, e[0], e[0]), (0, 0, -e[1], e[1])
        total = p[0] + p[1]
        mass[[i for i, row in enumerate(rows) if row[1] == 2]] = RESONANCE
        if len(hard) == 2 and resonances:
            p[hard] = _pair(mass[hard[0]], mass[hard[1]], total, rng)
        else:
            assert len(hard) == 1 or not resonances
            p[hard] = massless(len(hard), total, rng)
            if len(hard) == 1 and rows[hard[0]][1] == 1:
                mass[hard[0]] = s
        for k in resonances:
            p[children[k]] = massless(len(children[k]), p[k], rng)
        names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2")
        columns = dict(zip(names, table.T, strict=True))
        columns |= dict(zip(("px", "py", "pz", "energy"), p.T, strict=True))
        columns |= {"mass": mass, "lifetime": np.zeros(len(rows)), "spin": np.full(len(rows), 9.0)}
        events = {"process_id": [1], "scale": [200.0], "alpha_qed": [1 / 128], "alpha_qcd": [0.1]}
        samples.append(EventSample(run, [0, len(rows)], columns, events))
    return concatenate(samples, run)
