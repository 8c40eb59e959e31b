"""Charts of collisions whose beams have energies of their own: radiation, formation, pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.phase_space import (
    MARGIN,
    BalancedChart,
    BeamsChart,
    Chart,
    DecayChart,
    FixedEnergyChart,
    FormationChart,
    Node,
    PairChart,
    Peak,
    RadiativeReturnChart,
)
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from hepgen_ml.process.understanding import understood
from tests.process.test_decay_charts import check_round_trip, learned, without_rows


def of_beams(
    chart: Chart, n: int, incoming: tuple[int, int], masses: tuple[float, float],
    resonance: int, products: tuple[int, int], beam: tuple[float, float], full: float = 0.0,
) -> EventSample:  # fmt: skip
    """Events of two particles from a resonance that is all that is made in the collision.

    A part of them has the full energy of each beam.
    """
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.logistic(size=(n, chart.n_coordinates)))
    for i, c in enumerate(chart.coordinates):
        if c.periodic:
            x[:, i] = torch.from_numpy(rng.uniform(-np.pi, np.pi, n))
        elif isinstance(chart, PairChart):
            x[:, i] /= 2 if c.name.startswith("artanh") else 1  # flat between the edges
            x[:, i] -= 4 if c.name in ("logit_mass:beams", "logit_energy:beam1") else 0
        elif c.name == "logit_energy:beam1":
            x[:, i] = 4 + x[:, i]
        if full and c.name.startswith("logit_energy"):
            x[torch.from_numpy(rng.random(n) < full), i] = 24.0
        if full and c.name == "logit_share:beams":  # one beam, the other, or both
            which = torch.from_numpy(rng.random(n))
            x[which < full, i] = torch.where(which[which < full] < full / 2, 24.0, -24.0).double()
            x[which > 1 - full / 2, i - 1] = 60.0
    final, total = chart.inverse(x)
    p = torch.cat([incoming_momenta(total, *masses), final.sum(1, keepdim=True), final], 1).numpy()
    p = p[np.isfinite(p).all((1, 2))]
    n = len(p)
    mass = np.sqrt(np.maximum(p[..., 3] ** 2 - (p[..., :3] ** 2).sum(-1), 0.0))
    mass[:, :2], mass[:, 3:] = masses, [chart.fixed_mass(i) or 0.0 for i in range(2)]
    rows = {"pdg_id": (*incoming, resonance, *products), "status": (-1, -1, 2, 1, 1),
            "mother1": (0, 0, 1, 3, 3), "mother2": (0, 0, 2, 3, 3)}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {"mass": mass.ravel(), "spin": np.full(5 * n, 9.0)}
    columns |= {name: np.zeros(5 * n) for name in ("color1", "color2", "lifetime")}
    run = RunInfo((11, 2212), beam, processes=(Subrun(1, 10.0, 0.1),))
    events = {"process_id": np.ones(n), "scale": np.full(n, 91.0), "alpha_qed": np.full(n, 0.0078),
              "alpha_qcd": np.full(n, 0.118)}  # fmt: skip
    return EventSample(run, 5 * np.arange(n + 1), columns, events)


def test_a_resonance_of_radiating_beams() -> None:
    """The energies of the beams are its coordinates, and there is no other for its mass."""
    chart = BeamsChart(["u", "u~"], [0.33, 0.33], [None, None], [100.0, 100.0], [0.0, 0.0])
    sample = of_beams(chart, 500, (11, -11), (0.0, 0.0), 23, (2, -2), (100.0, 100.0))
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, BeamsChart)
    assert len(channel.coordinates) == 3
    check_round_trip(process, sample)


def test_energies_of_beams_that_are_full_in_a_part_of_the_events() -> None:
    """They make subprocesses of their own, whose frequencies and energies are exact."""
    chart = BeamsChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [125.0, 125.0], [0.0, 0.0], [True, True]
    )
    sample = of_beams(chart, 2000, (11, -11), (0.0, 0.0), 23, (2, -2), (125.0, 125.0), full=0.6)
    process = learned(sample)
    kinds = {s.at_full: type(process.channels[s.chart].chart) for s in process.subprocesses}
    assert kinds == {
        (False, False): BeamsChart, (False, True): BeamsChart, (True, False): BeamsChart,
        (True, True): FixedEnergyChart,
    }  # fmt: skip
    check_full_energies(process, sample, 125.0)
    assert "and 125 GeV in 6" in dict(understood(process, sample.run, {}))["beams"]
    stored = json.loads(json.dumps(process.to_config()))
    assert Process.from_config(stored).to_config() == stored
    # taken in little by little, and against larger energies at the end
    learner = ProcessLearner()
    for start in range(0, 2000, 300):
        learner.add(sample[start : start + 300])
    rates = {s.at_full: s.frequency for s in learner.process((125.0, 125.0)).subprocesses}
    assert rates == pytest.approx({s.at_full: s.frequency for s in process.subprocesses})
    above = learner.process((126.0, 125.0)).subprocesses
    assert {s.at_full: s.frequency for s in above} == pytest.approx({
        (False, both): sum(f for (_, b), f in rates.items() if b == both) for both in (False, True)
    })  # fmt: skip


def check_full_energies(process: Process, sample: EventSample, beam: float) -> None:
    """Whether frequencies of events at the full energy are those of the sample, exactly."""
    check_round_trip(process, sample)
    true = sample.energy[sample.status == -1].reshape(-1, 2) > beam * (1 - 1e-9)
    for sub in process.subprocesses:
        assert sub.frequency == pytest.approx((true == sub.at_full).all(1).mean(), rel=1e-9)
    assert process.knows(sample).all()
    encoded = process.encode(sample)
    kinematics = process.kinematics(encoded.x, encoded.subprocess, torch.zeros(len(sample)))
    made = kinematics.incoming[..., 3].numpy()[encoded.event.argsort()]
    assert np.abs(made[true] / beam - 1).max() < 1e-14
    assert (made[~true] < beam * (1 - 1e-8)).all()
    # whatever a network draws, it is what its subprocess says
    x = 12 * torch.randn(2000, process.n_coordinates, dtype=torch.float64)
    number = torch.arange(2000) % len(process.subprocesses)
    kinematics = process.kinematics(x, number, torch.zeros(2000))
    full = kinematics.incoming[..., 3].numpy() > beam * (1 - 1e-8) * (1 + 1e-15)
    wanted = np.array([process.subprocesses[i].at_full for i in number.tolist()])
    passes = kinematics.passes.numpy()
    assert passes.mean() > 0.5
    assert (full == wanted)[passes].all()


def test_a_spectrum_of_beams_is_no_resonance() -> None:
    """One beam at its full energy, the other just below it, time and again."""
    chart = BeamsChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [125.0, 125.0], [0.0, 0.0], [True, True]
    )
    for full in (0.3, 0.9):
        sample = of_beams(chart, 3000, (11, -11), (0, 0), 23, (2, -2), (125.0, 125.0), full=full)
        charts = {type(channel.chart) for channel in learned(sample).channels}
        assert charts == {BeamsChart, FixedEnergyChart}


@pytest.mark.parametrize("with_row", [True, False])
def test_radiation_down_to_a_resonance(with_row: bool) -> None:
    """The mass of the collision is a coordinate, also of events at the full energy."""
    chart = RadiativeReturnChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [100.0, 100.0], [0.0, 0.0], [91.2, 2.5]
    )
    sample = of_beams(chart, 3000, (11, -11), (0.0, 0.0), 23, (2, -2), (100.0, 100.0))
    if not with_row:
        sample = without_rows(sample, sample.particles["status"] == 2)
    process = learned(sample)
    (channel,) = process.channels
    found = channel.chart
    assert isinstance(found, RadiativeReturnChart)
    assert abs(found.peak[0] - 91.2) < 0.5
    assert 1.0 < found.peak[1] < 6.0
    check_round_trip(process, sample)
    # as far from the full energy as rounding lets one see
    x = torch.tensor([[28.0, 0.0, 0.3, 0.1], [28.0, 20.0, 0.3, 0.1]], dtype=torch.float64)
    x = x[:, : channel.chart.n_coordinates]
    kinematics = process.kinematics(x, torch.zeros(2, dtype=torch.int64), torch.zeros(2))
    assert ((kinematics.incoming[..., 3] / 100.0 - 1).abs() < 1e-9).all()


def test_full_energies_beside_a_resonance() -> None:
    """Beamstrahlung leaves a part of the beams' particles their energy, radiation meets a peak."""
    chart = RadiativeReturnChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [100.0 * (1 + MARGIN)] * 2, [0.0, 0.0],
        [91.2, 2.5], [True, True],
    )  # fmt: skip
    sample = of_beams(chart, 4000, (11, -11), (0.0, 0.0), 23, (2, -2), (100.0, 100.0), full=0.4)
    process = learned(sample)
    charts = {s.at_full: process.channels[s.chart].chart for s in process.subprocesses}
    assert isinstance(charts.pop((True, True)), FixedEnergyChart)
    assert len(charts) == 3
    assert all(isinstance(chart, RadiativeReturnChart) for chart in charts.values())
    check_full_energies(process, sample, 100.0)


def photons_and_what_is_inside(n: int, direct: int) -> EventSample:
    """Photons of 100 GeV that meet partons, and partons of such photons."""
    beams = BeamsChart(["j1", "j2"], [0.0, 0.0], [100.0, None], [100.0, 200.0], [0.0, 0.0])
    photons = of_beams(beams, direct, (22, 21), (0.0, 0.0), 23, (2, -2), (100.0, 200.0))
    partons = BeamsChart(["j1", "j2"], [0.0, 0.0], [None, None], [100.0, 200.0], [0.0, 0.0])
    resolved = of_beams(partons, n, (21, 21), (0.0, 0.0), 23, (2, -2), (100.0, 200.0))
    both = concatenate([photons, resolved])
    return without_rows(both, both.particles["status"] == 2)


@pytest.mark.parametrize("direct", [600, 4])
def test_an_energy_that_is_fixed_for_some_flavours(direct: int) -> None:
    """Photons have the energy of the beam in every event, and partons inside of them have not."""
    sample = photons_and_what_is_inside(600, direct)
    process = learned(sample)
    charts = {s.structure.beams: process.channels[s.chart].chart for s in process.subprocesses}
    assert charts[22, 21].to_config()["energies"] == [pytest.approx(100.0, rel=1e-12), None]
    assert isinstance(charts[21, 21], BalancedChart)
    check_round_trip(process, sample)
    number = next(i for i, s in enumerate(process.subprocesses) if s.structure.beams == (22, 21))
    x = 2 * torch.randn(500, process.n_coordinates, dtype=torch.float64)
    kinematics = process.kinematics(x, torch.full((500,), number), torch.zeros(500))
    assert kinematics.passes.double().mean() > 0.5
    made = kinematics.incoming[kinematics.passes][:, 0, 3]
    assert (made / 100.0 - 1).abs().max() < 1e-12
    beams = dict(understood(process, sample.run, {}))["beams"]
    assert "gamma of 100 GeV in every event or partons of any energy up to 100 GeV" in beams


@pytest.mark.parametrize("beams", ["photons", "one fixed", "both fixed"])
def test_cuts_of_a_pair_are_ends_of_coordinates(beams: str) -> None:
    """A smallest mass of two muons, and a smallest momentum transfer or angle of an electron."""
    if beams == "both fixed":
        chart = PairChart(["11", "-11"], [0.0, 0.0], [45.0, 45.0], [45.0, 45.0], [0.0, 0.0],
                          20.0, 10.0, [[0.0, 0.0], [0.0, 0.0]])  # fmt: skip
        masses, incoming, products, beam = (0.0, 0.0), (11, -11), (11, -11), (45.0, 45.0)
    elif beams == "photons":
        chart = PairChart(["13", "-13"], [0.1057, 0.1057], [None, None], [100.0, 100.0],
                          [0.0, 0.0], 10.0, 2.0, [[0.0, 0.0], [0.0, 0.0]])  # fmt: skip
        masses, incoming, products = (0.0, 0.0), (22, 22), (13, -13)
        beam = (100.0, 100.0)
    else:
        chart = PairChart(["2", "11"], [0.0, 0.000511], [None, 27.5], [920.0, 0.0],
                          [0.0, 0.000511], 5.0, 0.0, [[0.0, 0.0], [25 / 55, 0.0]])  # fmt: skip
        masses, incoming, products, beam = (0.0, 0.000511), (2, 11), (2, 11), (920.0, 27.5)
    sample = of_beams(chart, 6000, incoming, masses, 23, products, beam)
    sample = without_rows(sample, sample.particles["status"] == 2)
    process = learned(sample)
    found = process.channels[0].chart
    assert isinstance(found, PairChart)
    assert found.least_mass == pytest.approx(chart.least_mass, rel=2e-2)
    assert found.pt_min == pytest.approx(chart.pt_min, rel=2e-2)
    assert sum(found.light_cone, ()) == pytest.approx(sum(chart.light_cone, ()), rel=2e-2)
    check_round_trip(process, sample)
    # whatever a network draws, hardly an event is outside of the cuts
    x = 3 * torch.randn(2000, process.n_coordinates, dtype=torch.float64)
    kinematics = process.kinematics(x, torch.zeros(2000, dtype=torch.int64), torch.zeros(2000))
    assert kinematics.passes.double().mean() > 0.99


def test_a_resonance_at_fixed_energy() -> None:
    chart = FixedEnergyChart(["u", "u~"], [0.33, 0.33], [0.0, 0.0, 0.0, 91.19])
    sample = of_beams(chart, 300, (11, -11), (0.0, 0.0), 23, (2, -2), (45.595, 45.595))
    process = learned(sample)
    assert isinstance(process.channels[0].chart, FixedEnergyChart)
    check_round_trip(process, sample)


def test_a_resonance_of_one_beam_of_fixed_energy() -> None:
    """Its mass has the peak, and the electron its energy in every event."""
    chart = DecayChart(
        [Node("42", Peak(150.0, 350.0, 250.0, 1.0), (1, 2)), Node("e", 0.000511), Node("u", 0.0)],
        1, {"kind": "formation", "energies": [27.5, None], "incoming_masses": [0.000511, 0.0]},
    )  # fmt: skip
    sample = of_beams(chart, 2000, (11, 2), (0.000511, 0.0), 42, (11, 2), (27.5, 920.0))
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    assert isinstance(channel.chart.production, FormationChart)
    assert [c.name for c in channel.coordinates] == ["logit_mass:42", "artanh_cos_theta:42>1"]
    check_round_trip(process, sample)
    x = torch.randn(200, 2, dtype=torch.float64)
    kinematics = process.kinematics(x, torch.zeros(200, dtype=torch.int64), torch.zeros(200))
    assert ((kinematics.incoming[:, 0, 3] / 27.5 - 1).abs() < 1e-12).all()


def test_a_resonance_of_one_fixed_beam_and_one_of_full_energy_in_some_events() -> None:
    """Events at the full energy have another chart, whose particles have another order."""
    beams, masses, ids = (27.5, 920.0), (0.000511, 0.0), (11, 22)
    peak = Peak(150.0, 300.0, 250.0, 1.0)
    below = DecayChart(
        [Node("42", peak, (1, 2)), Node("e", 0.000511), Node("u", 0.0)],
        1, {"kind": "formation", "energies": [27.5, None], "incoming_masses": [0.000511, 0.0]},
    )  # fmt: skip
    pz = np.sqrt(beams[0] ** 2 - masses[0] ** 2) - beams[1]
    at_full = FixedEnergyChart(["e", "u"], [0.000511, 0.0], [0.0, 0.0, pz, sum(beams)])
    sample = concatenate(
        [of_beams(chart, n, ids, masses, 42, (11, 2), beams)
         for chart, n in ((below, 2000), (at_full, 200))]
    )  # fmt: skip
    process = learned(sample)
    orders = {}
    for sub in process.subprocesses:
        channel = process.channels[sub.chart]
        classes = [{11: "11", 2: "j"}[sub.structure.pdg_id[row]] for row in sub.order]
        assert classes == list(channel.classes)
        orders[sub.at_full] = sub.order
    assert orders == {(False, False): (3, 4), (False, True): (4, 3)}
    check_round_trip(process, sample)
