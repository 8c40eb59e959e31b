"""Small parton-level samples that obey every law, for the tests of formats and laws."""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun

BEAM = 6500.0
TOP, W, B, MUON, Z = 173.0, 80.4, 4.8, 0.10566, 91.2

# id, status, mothers, colours, helicity of each row
TOPS = [
    (21, -1, 0, 0, 501, 502, 1),
    (21, -1, 0, 0, 502, 503, -1),
    (6, 2, 1, 2, 501, 0, 9),
    (-6, 1, 1, 2, 0, 503, 1),
    (24, 2, 3, 3, 0, 0, 0),
    (5, 1, 3, 3, 501, 0, -1),
    (-13, 1, 5, 5, 0, 0, 1),
    (14, 1, 5, 5, 0, 0, -1),
]
MUONS = [
    (2, -1, 0, 0, 501, 0, -1),
    (-2, -1, 0, 0, 0, 501, 1),
    (23, 2, 1, 2, 0, 0, 0),
    (13, 1, 3, 3, 0, 0, -1),
    (-13, 1, 3, 3, 0, 0, 1),
]


def boost(p: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Take p from the rest frame of `frame` to where `frame` is given."""
    mass = np.sqrt(frame[3] ** 2 - frame[:3] @ frame[:3])
    energy = (p[3] * frame[3] + p[:3] @ frame[:3]) / mass
    along = (p[3] + energy) / (frame[3] + mass)
    return np.append(p[:3] + along * frame[:3], energy)


def decay(parent: np.ndarray, m1: float, m2: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Isotropic two-body decay."""
    square = parent[3] ** 2 - parent[:3] @ parent[:3]
    mass = np.sqrt(square)
    size = np.sqrt((square - (m1 + m2) ** 2) * (square - (m1 - m2) ** 2)) / (2 * mass)
    cosine, phi = rng.uniform(-1, 1), rng.uniform(-np.pi, np.pi)
    sine = np.sqrt(1 - cosine**2)
    q = size * np.array([sine * np.cos(phi), sine * np.sin(phi), cosine])
    return [
        boost(np.append(q, np.hypot(size, m1)), parent),
        boost(np.append(-q, np.hypot(size, m2)), parent),
    ]


def momenta(kind: list, rng: np.random.Generator) -> tuple[np.ndarray, list[float]]:
    mass = rng.uniform(400, 1000) if kind is TOPS else Z
    rapidity = rng.uniform(-1, 1)
    e1, e2 = mass / 2 * np.exp(rapidity), mass / 2 * np.exp(-rapidity)
    total = np.array([0, 0, e1 - e2, e1 + e2])
    incoming = [np.array([0, 0, e1, e1]), np.array([0, 0, -e2, e2])]
    if kind is MUONS:
        return np.array([*incoming, total, *decay(total, MUON, MUON, rng)]), [0, 0, Z, MUON, MUON]
    top, antitop = decay(total, TOP, TOP, rng)
    w, b = decay(top, W, B, rng)
    rows = [*incoming, top, antitop, w, b, *decay(w, MUON, 0.0, rng)]
    return np.array(rows), [0, 0, TOP, TOP, W, B, MUON, 0.0]


def parton_sample(n: int = 60, seed: int = 1) -> EventSample:
    """Top pairs with one leptonic decay and Drell-Yan muons, in turn, with named weights."""
    rng = np.random.default_rng(seed)
    kinds = [TOPS if i % 2 == 0 else MUONS for i in range(n)]
    table = np.array([row for kind in kinds for row in kind])
    made = [momenta(kind, rng) for kind in kinds]
    p = np.concatenate([m for m, _ in made])
    names = ("pdg_id", "status", "mother1", "mother2", "color1", "color2", "spin")
    particles = dict(zip(names, table.T, strict=True))
    particles |= dict(zip(("px", "py", "pz", "energy"), p.T, strict=True))
    particles["mass"] = np.concatenate([m for _, m in made])
    particles["lifetime"] = np.where(np.abs(particles["pdg_id"]) == 13, 0.125, 0.0)
    run = RunInfo(
        beam_energy=(BEAM, BEAM),
        pdf_set=(247000, 247000),
        weight_strategy=3,
        processes=(Subrun(0, 30.0, 0.5), Subrun(7, 30.0, 0.25)),
        generators=(("By hand", "1.0", "two lines\nof text"),),
        weight_names={"mur=2 muf=2": "both up", "mur_2_muf_2": 'a "quote" \\ and more'},
    )
    return EventSample(
        run,
        np.concatenate([[0], np.cumsum([len(kind) for kind in kinds])]),
        particles,
        {
            "process_id": np.array([0 if kind is TOPS else 7 for kind in kinds]),
            "weight": np.ones(n),
            "scale": rng.uniform(80, 300, n),
            "alpha_qed": np.full(n, 1 / 128),
            "alpha_qcd": rng.uniform(0.1, 0.13, n),
        },
        weights={name: rng.uniform(0.5, 1.5, n) for name in run.weight_names},
        scales={"mups": np.where(np.arange(n) % 3 == 0, np.nan, rng.uniform(20, 60, n))},
        attributes={"npLO": np.array([str(i % 3) for i in range(n)])},
    )


def changed(sample: EventSample, column: str, row: int, value: float) -> EventSample:
    """Copy with one particle entry replaced."""
    particles = dict(sample.particles)
    particles[column] = particles[column].copy()
    particles[column][row] = value
    return EventSample(
        sample.run,
        sample.offsets,
        particles,
        sample.events,
        weights=sample.weights,
        scales=sample.scales,
        attributes=sample.attributes,
    )


def assert_same(a: EventSample, b: EventSample, *, tolerance: float = 0.0) -> None:
    """All columns equal, floats within a relative tolerance."""
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for group in ("particles", "events", "weights", "scales", "attributes"):
        first, second = getattr(a, group), getattr(b, group)
        assert set(first) == set(second), group
        for name in first:
            if first[name].dtype.kind == "f":
                np.testing.assert_allclose(first[name], second[name], rtol=tolerance, err_msg=name)
            else:
                np.testing.assert_array_equal(first[name], second[name], err_msg=name)
