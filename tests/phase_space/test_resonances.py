"""Resonances named by objects: their mass is a coordinate, whatever the objects are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepgen_ml import Generator
from hepgen_ml.config import Config
from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import MASSES, NamedResonance, parse_resonance
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.phase_space import ReconstructedChart
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.process import Process
from tests.parton_events import decay

M, WIDTH = 80.4, 6.0


def toy_hadronic(n: int = 3000, seed: int = 0, most: int = 4) -> EventSample:
    """Photon pairs or single electrons with jets, the first two of which come from a W.

    Events with fewer than two jets have none. Jets are in order of their momenta and above
    15 GeV; one in four events has a third or fourth jet below the others.
    """
    rng = np.random.default_rng(seed)
    rows, counts = [], []
    while len(counts) < n:
        electron = rng.random() < 0.5
        event = [(11 if electron else 22, _object(30 + rng.exponential(30), rng, MASSES["Electron"]
                                                  if electron else 0.0))]  # fmt: skip
        jets: list[np.ndarray] = []
        if rng.random() < 0.7:
            mass = M + WIDTH / 2 * np.tan(np.pi * (rng.random() - 0.5) * 0.95)
            if mass < 25:
                continue
            pt, y, phi = rng.exponential(60), rng.normal(0, 1), rng.uniform(-np.pi, np.pi)
            mt = np.hypot(pt, mass)
            w = np.array([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)])
            jets = decay(w, 4 + rng.exponential(2), 4 + rng.exponential(2), rng)
            least = min(np.hypot(*j[:2]) for j in jets)
            if least < 15:
                continue
            while len(jets) < most and rng.random() < 0.25:
                jets.append(_object(15 + (least - 15) * rng.random(), rng, 5.0))
        elif rng.random() < 0.3:
            jets = [_object(15 + rng.exponential(20), rng, 5.0)]
        jets.sort(key=lambda p: -np.hypot(*p[:2]))
        event += [(93, p) for p in jets]
        rows += [(number, *p) for number, p in event]
        counts.append(len(event))
    table = np.array(rows)
    columns = dict(zip(("pdg_id", "px", "py", "pz", "energy"), table.T, strict=True))
    square = table[:, 4] ** 2 - (table[:, 1:4] ** 2).sum(1)
    columns["mass"] = np.select(
        [table[:, 0] == 11, table[:, 0] == 22],
        [MASSES["Electron"], 0.0],
        np.sqrt(np.maximum(square, 0.0)),
    )
    run = RunInfo(beam_energy=(6500.0, 6500.0), processes=(Subrun(0, 10.0, 0.1),))
    return EventSample(run, np.concatenate([[0], np.cumsum(counts)]), columns)


def _object(pt: float, rng: np.random.Generator, mass: float) -> np.ndarray:
    eta, phi = rng.normal(0, 1.2), rng.uniform(-np.pi, np.pi)
    p = np.array([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])
    return np.append(p, np.sqrt((p**2).sum() + mass**2))


def learn(sample: EventSample, *resonances: str) -> Process:
    learner = ProcessLearner(resonances=[parse_resonance(r) for r in resonances])
    learner.add(sample)
    return learner.process(sample.run.beam_energy)


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_hadronic()


def charts(process: Process) -> dict[tuple[int, ...], ReconstructedChart]:
    found = {}
    for sub in process.subprocesses:
        chart = process.channels[sub.chart].chart
        assert isinstance(chart, ReconstructedChart)
        found[sub.structure.pdg_id] = chart
    return found


def test_names() -> None:
    assert parse_resonance("H: Photon1,Photon2") == NamedResonance("H", ("Photon1", "Photon2"))
    named = parse_resonance("x: Muon- Muon2 Jet2")
    assert named.rows((13, 13, -13, 93, 93)) == (0, 1, 4)
    assert named.rows((13, -13, 93)) is None
    assert parse_resonance("x: Muon+ Jet").rows((13, -13, 93, 93)) == (1, 2)
    for text in ("Jet1 Jet2", "W: Jet1", "W: Jet1 Jet2 Jet3 Jet4", "W: Quark1 Jet1",
                 "Jet: Jet1 Jet2", "W: Jet0 Jet1"):  # fmt: skip
        with pytest.raises(UsageError, match="is not a resonance"):
            parse_resonance(text)


def test_peaks_are_found_in_a_background() -> None:
    rng = np.random.default_rng(0)
    peak = 80.4 + 1.05 * rng.standard_cauchy(3000)
    rest = rng.lognormal(4.6, 0.5, 9000)
    position, width = find_peak(np.concatenate([peak, rest])) or (0.0, 0.0)
    assert position == pytest.approx(80.4, abs=0.3)
    assert width == pytest.approx(2.1, rel=0.25)
    assert find_peak(rest) is None
    assert find_peak(30 + rng.exponential(40, 8000)) is None
    assert find_peak(rng.normal(91, 3, 8000)) is not None


def test_coordinates_are_named_alike(sample: EventSample) -> None:
    found = charts(learn(sample, "W: Jet1 Jet2"))
    for ids, chart in found.items():
        jets = sum(i == 93 for i in ids)
        names = [c.name for c in chart.coordinates]
        assert ("logit_mass:W" in names) == (jets >= 2)
        if jets >= 2:
            assert names[:2] == ["log_mass:W>1", "log_mass:W>2"]
            (w,) = chart.resonances
            assert w.mass.mass == pytest.approx(M, abs=0.5)
            assert w.mass.width == pytest.approx(WIDTH, rel=0.25)
        if jets >= 3:
            assert "logit_pt:Jet3" in names
    assert len({len(c.coordinates) for c in found.values()}) > 3


def test_events_come_back(sample: EventSample) -> None:
    process = learn(sample, "W: Jet1 Jet2")
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    again = process.kinematics(encoded.x, encoded.subprocess, encoded.x[:, 0] * 0)
    assert again.passes.all()
    before = np.sort(np.hypot(sample.px, sample.py))
    after = np.hypot(*again.final.numpy()[..., :2].transpose(2, 0, 1))
    assert np.sort(after[after > 0]) == pytest.approx(before, rel=1e-9)


def test_triples_and_pairs_of_any_kind(sample: EventSample) -> None:
    triples = charts(learn(sample, "x: Electron1 Jet1 Jet2", "y: Jet3 Jet4"))
    chart = triples[(11, 93, 93, 93, 93)]
    assert [r.objects for r in chart.resonances] == [(0, 1, 2), (3, 4)]
    assert "logit_mass:x>2" in [c.name for c in chart.coordinates]
    assert not triples[(22, 93, 93)].resonances


def test_no_peak_is_a_smooth_map(sample: EventSample, caplog: pytest.LogCaptureFixture) -> None:
    process = learn(sample, "x: Photon1 Jet1")
    assert "x: Photon1 Jet1 shows no peak" in caplog.text
    chart = charts(process)[(22, 93, 93)]
    assert chart.resonances[0].mass.width > 30
    assert chart.resonances[0].mass.low == 0.0


@pytest.mark.parametrize(
    ("resonances", "message"),
    [
        (["H: Photon1 Photon2"], "no event has all objects.*Jet1"),
        (["W: Jet1 Jet2", "t: Electron1 Jet2 Jet3"], "Jet2 is named twice"),
        (["W: Jet1 Jet1"], "Jet1 is named twice"),
        (["W: Jet1 Jet2", "W: Jet3 Jet4"], "same name"),
    ],
)
def test_what_cannot_be(sample: EventSample, resonances: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        learn(sample, *resonances)
    assert caught.value.remedy


SMALL = Config().with_(
    training__max_steps=30, training__batch_size=256, training__max_epochs=100,
    network__width=32, network__blocks=2, network__mixtures=8, lgatr__channels=2,
    lgatr__scalars=8, lgatr__blocks=1, lgatr__heads=2, flow__solver="euler", flow__steps=2,
    flow__likelihood_solver="euler", flow__likelihood_steps=2, resonances=("W: Jet1 Jet2",),
)  # fmt: skip


@pytest.mark.parametrize(
    "model",
    ["jetgpt", "jetgpt-splitting", "mlp-cfm", pytest.param("lgatr-cfm", marks=pytest.mark.slow)],
)
def test_every_model_takes_them(
    sample: EventSample, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 100)
    steps = 3 if model == "lgatr-cfm" else 30
    config = SMALL.with_(
        model=model, splitting__max_jets=5, cuts=("pt(Jet) > 15",), training__max_steps=steps
    )
    Generator.train(sample, out=tmp_path / "m", config=config)
    generator = Generator.load(tmp_path / "m")
    events = generator.sample(300, seed=1)
    check_order(events)
    assert np.isfinite(generator.log_prob(sample[:10])).all()
    several = np.mean(events.counts >= 3)
    assert several == pytest.approx(np.mean(sample.counts >= 3), abs=0.12)


def check_order(events: EventSample) -> None:
    pt, jet = np.hypot(events.px, events.py), events.pdg_id == 93
    assert pt[jet].min() >= 15.0 * (1 - 1e-12)
    following = jet[1:] & jet[:-1]
    following[events.offsets[1:-1] - 1] = False
    assert (pt[1:] <= pt[:-1] * (1 + 1e-12))[following].all()


def pair_masses(events: EventSample) -> np.ndarray:
    """Mass of the first two jets of each event that has them."""
    jet = events.pdg_id == 93
    first = events.offsets[:-1] + np.minimum.reduceat(
        np.where(jet, np.arange(len(jet)) - np.repeat(events.offsets[:-1], events.counts), 99),
        events.offsets[:-1],
    )
    several = np.add.reduceat(jet, events.offsets[:-1]) >= 2
    i = first[several]
    p = [getattr(events, c)[i] + getattr(events, c)[i + 1] for c in ("px", "py", "pz", "energy")]
    return np.asarray(np.sqrt(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2))


@pytest.mark.slow
def test_a_short_training_has_the_peak(tmp_path: Path) -> None:
    """Position and width as in the sample; without the coordinate the peak is washed out."""
    sample = toy_hadronic(12_000, seed=3, most=2)
    spread = {}
    for resonances in ((), ("W: Jet1 Jet2",)):
        config = SMALL.with_(
            resonances=resonances, cuts=("pt(Jet) > 15",), training__max_steps=500,
            training__batch_size=512, training__validation_interval=100,
        )  # fmt: skip
        out = tmp_path / f"m{len(resonances)}"
        events = Generator.train(sample, out=out, config=config).sample(12_000, seed=1)
        mass = pair_masses(events)
        low, middle, high = np.quantile(mass, [0.25, 0.5, 0.75])
        spread[len(resonances)] = middle, high - low
    low, middle, high = np.quantile(pair_masses(sample), [0.25, 0.5, 0.75])
    # of 8,000 masses: the error of the median of a Breit-Wigner is pi/4 width / sqrt(n)
    assert spread[1][0] == pytest.approx(middle, abs=0.4)
    assert spread[1][1] == pytest.approx(high - low, rel=0.12)
    assert spread[0][1] > 1.5 * (high - low)
