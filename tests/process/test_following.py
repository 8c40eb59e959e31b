"""Masses and widths as functions of conditions, found in scans of one and two parameters."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hepgen_ml.events.conditions import Wanted
from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space import DecayChart
from hepgen_ml.phase_space.cut_text import parse_cut
from hepgen_ml.phase_space.laws import Law, fit_law
from hepgen_ml.phase_space.masses import MovingMass, MovingPeak
from hepgen_ml.process.conditions import Condition, Conditions
from hepgen_ml.process.following import follows
from hepgen_ml.process.labels import labelled
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from hepgen_ml.process.understanding import understood
from tests.scans import resonance

RNG = np.random.default_rng(1)


def conditions(points: np.ndarray, levels: int = 0) -> Conditions:
    each = [
        Condition(Wanted(f"c{k}"), float(c.min()), float(c.max())) for k, c in enumerate(points.T)
    ]
    if levels:
        each[-1] = Condition(Wanted("kind"), levels=tuple("abcdefgh"[:levels]))
    return Conditions(tuple(each), points, np.full(len(points), 1 / len(points)), True)


def breit_wigner(mass: np.ndarray, width: np.ndarray) -> np.ndarray:
    angle = RNG.uniform(np.arctan(-12.0), np.arctan(12.0), len(mass))
    return np.sqrt(mass**2 + mass * width * np.tan(angle))


def at(law: Law, *values: float) -> float:
    return float(law(torch.tensor([values], dtype=torch.float64)))


def test_a_scan_of_mass_and_width() -> None:
    points = np.array([(m, w) for m in (500.0, 800.0, 1200.0) for w in (0.01, 0.03, 0.06)])
    values = np.repeat(points, 500, axis=0)
    mass = breit_wigner(values[:, 0], values[:, 0] * values[:, 1])
    found = follows(mass, values, conditions(points))
    assert isinstance(found, MovingPeak)
    for m, w in ((500.0, 0.03), (1000.0, 0.02), (700.0, 0.06)):  # also between the points
        assert at(found.position, m, w) == pytest.approx(m, rel=0.1 * w)
        assert at(found.width, m, w) == pytest.approx(m * w, rel=0.15)


def test_a_peak_that_is_another_function_of_the_condition() -> None:
    points = np.linspace(1.0, 9.0, 7)[:, None]
    values = np.repeat(points, 800, axis=0)
    true = 300.0 + 40.0 * values[:, 0] ** 1.5
    found = follows(breit_wigner(true, 0.02 * true), values, conditions(points))
    assert isinstance(found, MovingPeak)
    assert at(found.position, 6.1) == pytest.approx(300 + 40 * 6.1**1.5, rel=0.01)
    # most events are where their coordinate is small: the peak is at zero for every condition
    nodes = [("X", found, (1, 2)), ("X>1", 0.0, ()), ("X>2", 0.0, ())]
    chart = DecayChart(
        [{"label": n, "mass": m, "children": c} for n, m, c in nodes], 1,
        {"kind": "balanced", "pt_min": []},
    )  # fmt: skip
    x = torch.zeros(7, chart.n_coordinates, dtype=torch.float64)
    _, total = chart.given(torch.from_numpy(points)).inverse(x)
    made = torch.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(-1)).numpy()
    np.testing.assert_allclose(made, 300 + 40 * points[:, 0] ** 1.5, rtol=0.01)
    with pytest.raises(ValueError, match="conditions"):
        chart.given(None)


def test_a_spectrum_that_follows_no_formula_is_exact_at_its_points() -> None:
    points = np.arange(8.0)[:, None] + 1
    at_points = RNG.uniform(300.0, 900.0, 8)
    found = follows(np.repeat(at_points, 50), np.repeat(points, 50, axis=0), conditions(points))
    assert isinstance(found, MovingMass)
    np.testing.assert_allclose(found.law(torch.from_numpy(points)), at_points, rtol=1e-9)
    between = at(found.law, 3.5)
    assert min(at_points[2:4]) * 0.5 < between < max(at_points[2:4]) * 2


def test_categories_have_their_own_masses() -> None:
    points = np.array([[float(k)] for k in range(3)])
    values = np.repeat(points, 600, axis=0)
    true = np.array([400.0, 700.0, 550.0])[values[:, 0].astype(int)]
    found = follows(breit_wigner(true, 0.03 * true), values, conditions(points, levels=3))
    assert isinstance(found, MovingPeak)
    for k, mass in enumerate((400.0, 700.0, 550.0)):
        assert at(found.position, k) == pytest.approx(mass, rel=0.005)


def test_what_does_not_move_is_left_alone() -> None:
    points = np.array([[1.0], [2.0], [4.0]])
    values = np.repeat(points, 1000, axis=0)
    z = breit_wigner(np.full(3000, 91.2), np.full(3000, 2.5))
    assert follows(z, values, conditions(points)) is None
    assert follows(np.full(3000, 173.0), values, conditions(points)) is None
    assert follows(RNG.exponential(100.0, 3000) + 1, values, conditions(points)) is None


def test_laws_are_stored() -> None:
    points = RNG.uniform(1.0, 3.0, (12, 2))
    target = np.exp(points.sum(1) + 0.3 * np.sin(9 * points[:, 0]))
    law = fit_law(points, target, np.full(12, 1e-6), ("linear", "log"))
    again = Law.from_config(law.to_config())
    where = torch.from_numpy(RNG.uniform(1.0, 3.0, (50, 2)))
    assert torch.equal(again(where), law(where))
    np.testing.assert_allclose(law(torch.from_numpy(points)), target, rtol=1e-6)


MOVING = {
    "proportional": lambda c: 0.4 * c, "linear": lambda c: 90 + 0.2 * c,
    "falling": lambda c: 390 - 0.25 * c, "curved": lambda c: 6e7 / c**2 + 60,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "scan"),
    [("proportional", True), ("curved", True), ("linear", False), ("falling", False),
     ("curved", False)],
)  # fmt: skip
def test_cuts_that_move_with_a_condition(kind: str, scan: bool) -> None:
    """They are enforced where a line describes them, or the points of a scan; else named."""
    rng = np.random.default_rng(2)
    points = np.array([600.0, 680.0, 780.0, 900.0])
    mass = rng.choice(points, 8000) if scan else rng.uniform(600, 900, 8000)
    sample, pt = with_least_pt(mass)
    sample = sample[pt > MOVING[kind](mass)]
    learner = ProcessLearner(conditions=[Wanted("mass")])
    learner.add(sample)
    process = learner.process(sample.run.beam_energy)
    said = [text for text in learner.not_learned if "pt(13) moves" in text]
    if kind == "curved" and not scan:
        assert said
        assert not process.moving_cuts
        return
    assert not said
    (cut,) = process.moving_cuts
    where = points if scan else np.array([600.0, 660.0, 720.0, 900.0])
    assert cut.low(where[:, None]) == pytest.approx(MOVING[kind](where), rel=0.04)
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    phi = torch.zeros(len(sample), dtype=torch.float64)
    labels = labelled(encoded.subprocess, encoded.conditions)
    assert process.kinematics(encoded.x, labels, phi).passes.all()
    # whatever a network draws, no event is below
    made = process.kinematics(2 * torch.randn(len(sample), encoded.x.shape[1]), labels, phi)
    pt = made.final[made.passes, :, :2].norm(dim=-1).min(1).values.numpy()
    given = encoded.conditions[made.passes].numpy()
    assert 0 < len(pt) < len(sample)
    assert (pt >= cut.low(given)).all()
    stored = json.loads(json.dumps(process.to_config()))
    assert Process.from_config(stored).moving_cuts == process.moving_cuts
    stored["moving_cuts"][0]["condition"] = 1
    with pytest.raises(ValueError, match="moves with a condition"):
        Process.from_config(stored)
    text = process.cuts_in_words[-1]
    assert text.endswith("<= pt(13)")
    assert (text == "0.4 mass <= pt(13)") == (kind == "proportional")
    assert text in dict(understood(process, sample.run, {}))["cuts"]
    alone = ProcessLearner(conditions=[Wanted("mass")], find_cuts=False)
    alone.add(sample)
    assert not alone.process(sample.run.beam_energy).moving_cuts


def with_least_pt(mass: np.ndarray) -> tuple[EventSample, np.ndarray]:
    """A resonance of these masses, the condition, and the smaller transverse momentum."""
    sample = resonance(mass, 3)
    sample.attributes["mass"] = mass.astype(str)
    final = sample.status == 1
    return sample, np.hypot(sample.px, sample.py)[final].reshape(-1, 2).min(1)


@pytest.mark.parametrize("kind", ["fixed", "stated"])
def test_cuts_that_stay_or_are_stated(kind: str) -> None:
    mass = np.random.default_rng(2).uniform(600, 1400, 8000)
    sample, pt = with_least_pt(mass)
    sample = sample[pt > (50.0 if kind == "fixed" else 0.2 * mass)]
    cuts = [parse_cut("pt(13) > 120")] if kind == "stated" else []
    learner = ProcessLearner(conditions=[Wanted("mass")], cuts=cuts)
    learner.add(sample)
    process = learner.process(sample.run.beam_energy)
    low = process.acceptance.pt_min("13")
    assert low == pytest.approx({"fixed": 50.0, "stated": 120.0}[kind], rel=0.02)
    assert not [text for text in learner.not_learned if "pt(13) moves" in text]
    assert not process.moving_cuts


def test_spectra_without_cuts_do_not_move() -> None:
    mass = np.random.default_rng(2).uniform(600, 1400, 8000)
    sample = resonance(mass, 3)
    sample.attributes["mass"] = mass.astype(str)
    learner = ProcessLearner(conditions=[Wanted("mass")])
    learner.add(sample)
    learner.process(sample.run.beam_energy)
    assert not learner.not_learned
