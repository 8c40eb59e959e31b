"""Records as they are: decays into three, resonances without a row, one particle of two beams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import Generator
from hepgen_ml.analysis.laws import check_sample
from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.phase_space import (
    MARGIN,
    BalancedChart,
    BeamsChart,
    Beside,
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
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.process import Process
from hepgen_ml.process.understanding import understood
from tests.phase_space.test_decays import W, hadronic_tops

WINDOW = 10.0


def without_rows(sample: EventSample, dropped: np.ndarray) -> EventSample:
    """A sample without some rows, whose products become those of their mothers."""
    n = np.diff(sample.offsets)
    event = np.repeat(np.arange(len(n)), n)
    first = sample.offsets[:-1][event]
    p = sample.particles
    mothers = {}
    new_number = np.zeros(len(event), dtype=int)
    kept_before = np.cumsum(~dropped)
    start = np.concatenate([[0], kept_before])[first]
    new_number[~dropped] = (kept_before - start)[~dropped]
    for name in ("mother1", "mother2"):
        mother = p[name].astype(int).copy()
        for _ in range(12):
            at = first + mother - 1
            gone = (mother > 0) & dropped[np.where(mother > 0, at, 0)]
            if not gone.any():
                break
            mother[gone] = p[name][at[gone]]
        at = np.where(mother > 0, first + mother - 1, 0)
        mothers[name] = np.where(mother > 0, new_number[at], 0)
    counts = np.bincount(event[~dropped], minlength=len(n))
    columns = {name: values[~dropped] for name, values in {**p, **mothers}.items()}
    return EventSample(sample.run, np.concatenate([[0], np.cumsum(counts)]), columns, sample.events)


def off_shell_w(n: int, seed: int = 0) -> EventSample:
    """Hadronic top pairs, the rows of W bosons far off their mass shells left out."""
    sample = hadronic_tops(n, seed)
    w = np.abs(sample.particles["pdg_id"]) == 24
    return without_rows(sample, w & (np.abs(sample.mass - W.mass) > WINDOW))


def learned(sample: EventSample) -> Process:
    learner = ProcessLearner()
    learner.add(sample)
    return learner.process(sample.run.beam_energy)


def check_round_trip(process: Process, sample: EventSample) -> None:
    encoded = process.encode(sample)
    assert len(encoded) == len(sample)
    kinematics = process.kinematics(encoded.x, encoded.subprocess, torch.zeros(len(sample)))
    assert kinematics.passes.all()
    invariants = process.invariants(kinematics.incoming, kinematics.final)
    assert torch.allclose(invariants, encoded.invariants, rtol=1e-4, atol=1e-3)
    again = Process.from_config(process.to_config())
    assert [c.chart.to_config() for c in again.channels] == [
        c.chart.to_config() for c in process.channels
    ]


def pair_masses(sample: EventSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masses of u d~ pairs from tops, of their tops, and whether the W has a row."""
    mass, tops, recorded = [], [], []
    for i in range(len(sample)):
        rows = slice(*sample.offsets[i : i + 2])
        ids = sample.pdg_id[rows]
        q = np.stack([sample.particles[k][rows] for k in ("px", "py", "pz", "energy")], 1)
        pair = q[np.isin(ids, (2, -1)) & (sample.status[rows] == 1)].sum(0)
        mass.append(np.sqrt(pair[3] ** 2 - (pair[:3] ** 2).sum()))
        tops.append(sample.mass[rows][ids == 6][0])
        recorded.append(24 in ids)
    return np.array(mass), np.array(tops), np.array(recorded)


def test_events_without_a_row_have_the_coordinates_of_those_with() -> None:
    sample = off_shell_w(4000)
    process = learned(sample)
    charts = [process.channels[s.chart].chart for s in process.subprocesses]
    assert len(charts) == 4  # of W+ and W-, both, one or none
    assert len({tuple(k.name for k in c.coordinates) for c in charts}) == 1
    specs = set()
    for sub, chart in zip(process.subprocesses, charts, strict=True):
        assert isinstance(chart, DecayChart)
        for node in chart.nodes:
            if node.label in ("24", "-24"):
                recorded = int(node.label) in sub.structure.pdg_id
                assert isinstance(node.mass, Peak if recorded else Beside)
                specs.add(node.mass)
    beside = next(s for s in specs if isinstance(s, Beside))
    recorded = next(s for s in specs if isinstance(s, Peak))
    assert (beside.first, beside.last) == (recorded.low, recorded.high)
    assert W.mass - beside.first == pytest.approx(WINDOW, abs=0.3)
    assert beside.last - W.mass == pytest.approx(WINDOW, abs=0.3)
    check_round_trip(process, sample)


@pytest.mark.slow
def test_peaks_of_events_without_a_row_are_kept(tmp_path: Path) -> None:
    """With and without a row, pairs have masses on their side of the edge; tops have their peak."""
    truth = off_shell_w(6000)
    config = Config().with_(
        model="jetgpt", training__max_steps=250, training__batch_size=512, network__width=48,
        network__blocks=2, training__max_epochs=1000,
    )  # fmt: skip
    Generator.train(truth, out=tmp_path / "m", config=config, skip_bad=True)
    events = Generator.load(tmp_path / "m").sample(4000, seed=1)
    assert not any(r.n_broken for r in check_sample([events], events.run))
    mass, top, recorded = pair_masses(events)
    assert (np.abs(mass[recorded] - W.mass) < WINDOW + 0.1).all()
    assert (np.abs(mass[~recorded] - W.mass) > WINDOW - 0.1).all()
    true_mass, true_top, true_recorded = pair_masses(truth)
    n, m = (~recorded).sum(), (~true_recorded).sum()
    assert n / 4000 == pytest.approx(m / 6000, rel=0.2)
    for found, true in ((top[recorded], true_top[true_recorded]),
                        (top[~recorded], true_top[~true_recorded]),
                        (mass[recorded], true_mass[true_recorded])):  # fmt: skip
        assert np.median(found) == pytest.approx(np.median(true), abs=0.25)
        spread = [np.subtract(*np.quantile(v, [0.75, 0.25])) for v in (found, true)]
        assert spread[0] == pytest.approx(spread[1], rel=0.25)


def test_a_peak_without_any_row_is_found() -> None:
    sample = hadronic_tops(3000)
    sample = without_rows(sample, np.abs(sample.particles["pdg_id"]) == 24)
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    for node in channel.chart.nodes:
        if node.label in ("6>1", "-6>1"):
            assert isinstance(node.mass, Peak)
            assert node.mass.mass == pytest.approx(W.mass, abs=0.3)
            assert len(node.children) == 2
    check_round_trip(process, sample)


def test_what_no_event_names_stays_as_it_is() -> None:
    """Products of a top quark that no event has a row of are made in the collision."""
    sample = hadronic_tops(1000)
    ids = sample.particles["pdg_id"]
    process = learned(without_rows(sample, (np.abs(ids) == 24) | (ids == 6)))
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    assert channel.chart.n_made == 4
    everything = learned(without_rows(sample, (np.abs(ids) == 24) | (np.abs(ids) == 6)))
    assert not isinstance(everything.channels[0].chart, DecayChart)


def lepton_pairs_and_a_jet(n: int, flavours: tuple[int, int]) -> EventSample:
    """Final particles only, as Sherpa writes them: Z or W bosons have no row."""
    z = Peak(40.0, 250.0, 91.2, 2.5)
    nodes = [Node("j", 0.0), Node("z", z, (2, 3)), Node("a", 0.0), Node("b", 0.0)]
    chart = DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [20.0]})
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(n, chart.n_coordinates)))
    for i, c in enumerate(chart.coordinates):
        if c.periodic:
            x[:, i] = torch.from_numpy(rng.uniform(-np.pi, np.pi, n))
        elif c.name.startswith("logit_mass"):
            x[:, i] = torch.from_numpy(rng.logistic(size=n))
    final, total = chart.inverse(x)
    p = torch.cat([incoming_momenta(total, 0.0, 0.0), final], 1).numpy()
    rows = {"pdg_id": (21, 1, 1, *flavours), "status": (-1, -1, 1, 1, 1),
            "mother1": (0, 0, 1, 1, 1), "mother2": (0, 0, 2, 2, 2)}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {"mass": np.zeros(5 * n), "spin": np.full(5 * n, 9.0)}
    columns |= {name: np.zeros(5 * n) for name in ("color1", "color2", "lifetime")}
    run = RunInfo((2212, 2212), (6500.0, 6500.0), processes=(Subrun(1, 10.0, 0.1),))
    return EventSample(run, 5 * np.arange(n + 1), columns, {"process_id": np.ones(n)})


@pytest.mark.parametrize("flavours", [(13, -13), (-11, 12)])
def test_leptons_of_a_resonance_that_no_event_names(flavours: tuple[int, int]) -> None:
    sample = lepton_pairs_and_a_jet(3000, flavours)
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    (pair,) = (node for node in channel.chart.nodes if node.children)
    assert isinstance(pair.mass, Peak)
    assert pair.mass.mass == pytest.approx(91.2, abs=0.3)
    check_round_trip(process, sample)


def test_leptons_without_a_peak_stay_apart() -> None:
    """Nor do two of one generation with the same sign of their ids come from one particle."""
    sample = lepton_pairs_and_a_jet(3000, (13, 14))
    assert not isinstance(learned(sample).channels[0].chart, DecayChart)
    smooth = lepton_pairs_and_a_jet(3000, (13, -13))
    for k in ("px", "py", "pz", "energy"):
        rows = smooth.particles[k].reshape(-1, 5)
        rows[:, 3] = np.roll(rows[:, 3], 1)  # muons of different events
        rows[:, :2] = 0.0
    p = smooth.momentum.reshape(-1, 5, 4)
    total = torch.from_numpy(p[:, 2:].sum(1))
    for i, k in enumerate(("px", "py", "pz", "energy")):
        incoming = incoming_momenta(total, 0.0, 0.0)[..., i].numpy()
        smooth.particles[k].reshape(-1, 5)[:, :2] = incoming
    assert not isinstance(learned(smooth).channels[0].chart, DecayChart)


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
    """They are told from those next to them, and exact in what is generated."""
    chart = BeamsChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [125.0, 125.0], [0.0, 0.0], [True, True]
    )
    sample = of_beams(chart, 2000, (11, -11), (0.0, 0.0), 23, (2, -2), (125.0, 125.0), full=0.6)
    process = learned(sample)
    (channel,) = process.channels
    assert type(channel.chart) is BeamsChart
    assert channel.chart.at_full == (True, True)
    check_round_trip(process, sample)
    encoded = process.encode(sample)
    true = sample.energy[sample.status == -1].reshape(-1, 2)
    for i in range(2):
        full = true[:, i] > 125 * (1 - 1e-9)
        assert 0.55 < full.mean() < 0.65
        spread = encoded.x[encoded.event.argsort(), i][torch.from_numpy(full)]
        assert spread.min() > 20.5
        assert 0.8 < spread.std() < 1.2
    kinematics = process.kinematics(encoded.x, encoded.subprocess, torch.zeros(len(sample)))
    made = kinematics.incoming[..., 3]
    full = made > 125 * (1 - 1e-9)
    assert (made[full] / 125 - 1).abs().max() < 1e-14


def test_a_spectrum_of_beams_is_no_resonance() -> None:
    """One beam at its full energy, the other just below it, time and again."""
    chart = BeamsChart(
        ["u", "u~"], [0.33, 0.33], [None, None], [125.0, 125.0], [0.0, 0.0], [True, True]
    )
    for full in (0.3, 0.9):
        sample = of_beams(chart, 3000, (11, -11), (0, 0), 23, (2, -2), (125.0, 125.0), full=full)
        assert type(learned(sample).channels[0].chart) is BeamsChart


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
    (channel,) = process.channels
    assert isinstance(channel.chart, RadiativeReturnChart)
    assert channel.chart.at_full == (True, True)
    check_round_trip(process, sample)
    encoded = process.encode(sample)
    kinematics = process.kinematics(encoded.x, encoded.subprocess, torch.zeros(len(sample)))
    made = kinematics.incoming[..., 3].numpy()[encoded.event.argsort()]
    true = sample.energy[sample.status == -1].reshape(-1, 2)
    full = true > 100 * (1 - 1e-9)
    assert (full.mean(0) > 0.1).all()
    assert (full.mean(0) < 0.6).all()
    assert np.abs(made[full] / 100 - 1).max() < 1e-14
    assert (made[~full] < 100 * (1 - 1e-8)).all()


def photons_and_what_is_inside(n: int) -> EventSample:
    """Photons of 100 GeV that meet partons, and as often partons of such photons."""
    beams = BeamsChart(["j1", "j2"], [0.0, 0.0], [100.0, None], [100.0, 200.0], [0.0, 0.0])
    direct = of_beams(beams, n, (22, 21), (0.0, 0.0), 23, (2, -2), (100.0, 200.0))
    partons = BeamsChart(["j1", "j2"], [0.0, 0.0], [None, None], [100.0, 200.0], [0.0, 0.0])
    resolved = of_beams(partons, n, (21, 21), (0.0, 0.0), 23, (2, -2), (100.0, 200.0))
    both = concatenate([direct, resolved])
    return without_rows(both, both.particles["status"] == 2)


def test_an_energy_that_is_fixed_for_some_flavours() -> None:
    """Photons have the energy of the beam in every event, and partons inside of them have not."""
    sample = photons_and_what_is_inside(600)
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


@pytest.mark.parametrize("beams", ["photons", "one fixed"])
def test_cuts_of_a_pair_are_ends_of_coordinates(beams: str) -> None:
    """A smallest mass of two muons, and a smallest momentum transfer to an electron."""
    if beams == "photons":
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


def test_a_resonance_far_narrower_than_its_range() -> None:
    """Its mass is that of nearly all events, not the middle of the range, and has the peak."""
    chart = DecayChart(
        [Node("N", Peak(499.0, 501.0, 500.0, 1e-5), (2, 3)), Node("j", 0.0), Node("e", 0.0),
         Node("u", 0.0)],
        2, {"kind": "fixed_energy", "total": [0.0, 0.0, 0.0, 2000.0]},
    )  # fmt: skip
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.logistic(size=(2000, chart.n_coordinates)))
    final, _ = chart.inverse(x)
    masses = np.sqrt(invariant_mass_squared(final[:, 1:].sum(1)).numpy())
    assert np.ptp(masses) > 1e-4
    assert np.ptp(np.quantile(masses, (0.25, 0.75))) < 2e-5
    peak = find_peak(masses)
    assert peak is not None
    assert abs(peak[0] - 500.0) < 2e-6
    assert 0.5e-5 < peak[1] < 2e-5


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
