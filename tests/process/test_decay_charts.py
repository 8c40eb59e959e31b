"""Records as they are: decays into three, and resonances without a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import Generator
from hepgen_ml.config import Config
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.phase_space import (
    Beside,
    DecayChart,
    Node,
    Peak,
)
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import invariant_mass_squared
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.process import Process
from tests.colored_events import colored
from tests.phase_space.test_decays import CHART, W, hadronic_tops
from tests.samples import learned

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


def test_a_fixed_mass_is_fixed_without_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node(n.label, W.mass, n.children) if "24" in n.label else n for n in CHART.nodes]
    chart = DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [0.0]})
    monkeypatch.setattr("tests.phase_space.test_decays.CHART", chart)
    sample = hadronic_tops(1200)
    event = np.repeat(np.arange(len(sample)), np.diff(sample.offsets))
    sample = without_rows(sample, (np.abs(sample.pdg_id) == 24) & (event % 5 == 0))
    process = learned(sample)
    assert len(process.subprocesses) == 2
    for channel in process.channels:
        assert isinstance(channel.chart, DecayChart)
        masses = [n.mass for n in channel.chart.nodes if n.label in ("24", "-24")]
        assert masses == pytest.approx(2 * [W.mass], abs=1e-3)
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


def test_systems_without_a_row_are_as_heavy_as_their_products() -> None:
    """Top quarks of which every second one has no row: momentum is that of the event anyhow."""
    sample = hadronic_tops(2000)
    p = sample.particles
    without = (np.abs(p["pdg_id"]) == 6) & (sample.event_index % 2 == 0)
    process = learned(without_rows(sample, without))
    torch.manual_seed(1)
    for chart in (c.chart for c in process.channels):
        assert isinstance(chart, DecayChart)
        for i, node in enumerate(chart.nodes[: chart.n_made]):
            assert isinstance(node.mass, Peak)
            assert chart.least[i] == node.mass.low >= sum(chart.least[c] for c in node.children)
        _, total = chart.inverse(8 * torch.randn(200, chart.n_coordinates, dtype=torch.float64))
        assert (total[:, :2].abs() <= 1e-6 * total[:, 3:]).all()
    check_round_trip(process, without_rows(sample, without))


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


@pytest.mark.parametrize("n", [4, 5, 6])
def test_decays_into_four_and_more(n: int) -> None:
    """A tau lepton into three pions and more, or a new particle into quarks."""
    sample = colored([
        (21, -1, 0, 0, 501, 502), (21, -1, 0, 0, 502, 501), (35, 2, 1, 2, 0, 0),
        *[(i, 1, 3, 3, 0, 0) for i in (16, -211, 211, -211, 22, 22)[:n]],
    ], 100)  # fmt: skip
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    assert [len(node.children) for node in channel.chart.nodes].count(2) == n - 1
    check_round_trip(process, sample)


def test_the_smallest_energy_of_a_photon_ends_the_mass_of_two_muons() -> None:
    """In e+ e- -> mu mu gamma the mass is below that of photons of 2 GeV."""
    rng = np.random.default_rng(4)
    n, root = 4000, 91.2
    energy = 2.0 * (root / 4 - 1) ** (rng.random(n) ** 2)
    mass = np.sqrt(root**2 - 2 * root * energy)
    chart = DecayChart(
        [Node("g", 0.0), Node("ll", (0.0, root), (2, 3)), Node("a", 0.0), Node("b", 0.0)], 2,
        {"kind": "fixed_energy", "total": [0.0, 0.0, 0.0, root]},
    )  # fmt: skip
    x = torch.from_numpy(rng.normal(size=(n, chart.n_coordinates)))
    at = [c.name for c in chart.coordinates].index("logit_mass:ll")
    x[:, at] = torch.from_numpy(np.log(mass / (root - mass)))
    final, total = chart.inverse(x)
    p = torch.cat([incoming_momenta(total, 0.0, 0.0), final], 1).numpy()
    sample = of_rows(p, (11, -11, 22, 13, -13))
    found = learned(sample).channels[0].chart
    assert isinstance(found, DecayChart)
    (pair,) = [node for node in found.nodes if node.children]
    assert isinstance(pair.mass, tuple)
    assert mass.max() <= pair.mass[1] < mass.max() + 0.05


def of_rows(p: np.ndarray, ids: tuple[int, ...]) -> EventSample:
    """Events of massless particles that are made in the collision of two leptons."""
    n, k = p.shape[:2]
    rows = {"pdg_id": ids, "status": (-1, -1, *[1] * (k - 2)),
            "mother1": (0, 0, *[1] * (k - 2)), "mother2": (0, 0, *[2] * (k - 2))}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {name: np.zeros(n * k) for name in ("color1", "color2", "lifetime", "mass")}
    columns["spin"] = np.full(n * k, 9.0)
    energy = float(p[0, 0, 3])
    run = RunInfo((11, -11), (energy, energy), processes=(Subrun(1, 1.0, 0.1),))
    return EventSample(run, k * np.arange(n + 1), columns, {"process_id": np.ones(n)})


def resonance_and_a_jet(
    n: int, peak: Peak, process_id: int, resonance: int = 32
) -> EventSample:
    """A heavy resonance that decays to muons beside a jet."""
    nodes = [Node("j", 0.0), Node("z", peak, (2, 3)), Node("a", 0.0), Node("b", 0.0)]
    chart = DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [20.0]})
    rng = np.random.default_rng(process_id)
    x = torch.from_numpy(rng.normal(size=(n, chart.n_coordinates)))
    at = [c.name for c in chart.coordinates].index("logit_mass:z")
    x[:, at] = torch.from_numpy(rng.logistic(size=n))
    final, total = chart.inverse(x)
    pair = final[:, 1:].sum(1, keepdim=True)
    p = torch.cat([incoming_momenta(total, 0.0, 0.0), final[:, :1], pair, final[:, 1:]], 1).numpy()
    rows = {"pdg_id": (21, 1, 1, resonance, 13, -13), "status": (-1, -1, 1, 2, 1, 1),
            "mother1": (0, 0, 1, 1, 4, 4), "mother2": (0, 0, 2, 2, 4, 4)}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    mass = np.zeros((n, 6))
    mass[:, 3] = np.sqrt(invariant_mass_squared(pair[:, 0]).numpy())
    columns |= {"mass": mass.ravel(), "spin": np.full(6 * n, 9.0)}
    columns |= {name: np.zeros(6 * n) for name in ("color1", "color2", "lifetime")}
    run = RunInfo((2212, 2212), (6500.0, 6500.0),
                  processes=(Subrun(1, 1.0, 0.1), Subrun(2, 1.0, 0.1)))  # fmt: skip
    events = {"process_id": np.full(n, process_id)}
    return EventSample(run, 6 * np.arange(n + 1), columns, events)


def test_resonances_of_several_masses_under_one_id() -> None:
    """Hypotheses in one file, by the number of the process: each has its own peak."""
    peaks = [Peak(500.0, 1500.0, 1000.0, 10.0), Peak(1000.0, 3000.0, 2000.0, 30.0)]
    parts = [resonance_and_a_jet(800, peak, i + 1) for i, peak in enumerate(peaks)]
    sample = concatenate(parts, parts[0].run)
    process = learned(sample)
    masses = {process.subprocesses[i].structure.process_id: channel.chart.nodes
              for i, channel in enumerate(process.channels)}  # fmt: skip
    for number, peak in enumerate(peaks, 1):
        (found,) = [node.mass for node in masses[number] if node.children]
        assert isinstance(found, Peak)
        assert found.mass == pytest.approx(peak.mass, rel=2e-3)
        assert found.width == pytest.approx(peak.width, rel=0.3)
    check_round_trip(process, sample)
    # one hypothesis in two processes has one
    parts[1] = resonance_and_a_jet(800, peaks[0], 2)
    (channel,) = learned(concatenate(parts, parts[0].run)).channels
    assert isinstance(channel.chart, DecayChart)


@pytest.mark.parametrize("index", [0, 1])
def test_processes_without_rows_have_the_mass_that_they_show(index: int) -> None:
    peaks = [Peak(500.0, 1500.0, 1000.0, 10.0), Peak(1000.0, 3000.0, 2000.0, 30.0)]
    parts = [resonance_and_a_jet(400, peak, i + 1) for i, peak in enumerate(peaks)]
    last = resonance_and_a_jet(400, peaks[index], 3)
    parts.append(without_rows(last, last.status == 2))
    process = learned(concatenate(parts, parts[0].run))
    (system,) = {
        node.mass for i, s in enumerate(process.subprocesses) if s.structure.process_id == 3
        for node in process.channels[process.channel_of[i]].chart.nodes if node.children
    }  # fmt: skip
    assert isinstance(system, Peak)
    assert system.mass == pytest.approx(peaks[index].mass, rel=3e-3)


def test_systems_without_a_row_have_the_resonance_of_their_process() -> None:
    """Resonances with the same products, such as J/psi and Upsilon, in processes of one file."""
    peaks = {32: Peak(500.0, 1500.0, 1000.0, 10.0), 33: Peak(1000.0, 3000.0, 2000.0, 30.0)}
    parts = [resonance_and_a_jet(400, peak, i - 31, i) for i, peak in peaks.items()]
    far = [abs(s.mass - peak.mass) > 2 * peak.width
           for s, peak in zip(parts, peaks.values(), strict=True)]  # fmt: skip
    parts = [without_rows(s, (s.status == 2) & f) for s, f in zip(parts, far, strict=True)]
    process = learned(concatenate(parts, parts[0].run))
    for i, s in enumerate(process.subprocesses):
        chart = process.channels[process.channel_of[i]].chart
        (system,) = [node for node in chart.nodes if node.children]
        assert system.label == str(s.structure.process_id + 31)
        assert system.mass[2] == pytest.approx(1000.0 * s.structure.process_id, rel=5e-3)


def test_few_systems_near_the_peak_leave_the_others_beside_it() -> None:
    """Where identical particles make it ambiguous what a system is, its mass may be any."""
    peak = Peak(500.0, 1500.0, 1000.0, 10.0)
    many, few = resonance_and_a_jet(600, peak, 1), resonance_and_a_jet(50, peak, 1)
    few.particles["pdg_id"][few.pdg_id == 1] = 2
    far, further = (abs(s.mass - peak.mass) > 2 * peak.width for s in (many, few))
    parts = [
        without_rows(many, (many.status == 2) & far),
        without_rows(few, (few.status == 2) & (further | (few.event_index < 8))),
    ]
    sample = concatenate(parts, parts[0].run)
    process = learned(sample)
    found = {}
    for i, s in enumerate(process.subprocesses):
        (system,) = [n for n in process.channels[process.channel_of[i]].chart.nodes if n.children]
        found[s.structure.pdg_id[1], 2 in s.structure.status] = type(system.mass)
    assert found == {(1, True): Peak, (1, False): Beside, (2, True): Peak, (2, False): Peak}
    check_round_trip(process, sample)
