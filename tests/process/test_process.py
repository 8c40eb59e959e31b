"""From events to coordinates and back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.generation.generator import Generator
from hepgen_ml.phase_space import (
    BalancedChart,
    FixedEnergyChart,
    parse_cut,
)
from hepgen_ml.process.assembly import assemble
from hepgen_ml.process.encoded import Discrete
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from hepgen_ml.process.seen import FullEnergies
from hepgen_ml.process.structure import color_flow, tables
from hepgen_ml.training.data import SampleSource, encode_all, learn_process
from hepgen_ml.training.encoded import encode_sample
from tests.samples import TOP, learned, toy_top_pairs


def learn(sample: EventSample) -> Process:
    learner = ProcessLearner()
    for chunk in sample.chunks(700):
        learner.add(chunk)
    return learner.process(sample.run.beam_energy)


def rebuild(process: Process, sample: EventSample) -> tuple[EventSample, EventSample]:
    """Original and reconstructed events, azimuths included."""
    encoded = process.encode(sample)
    chosen = sample[encoded.event.numpy()]
    phi = torch.zeros(len(encoded), dtype=torch.float64)
    for c, channel in enumerate(process.channels):
        for number, sub in enumerate(process.subprocesses):
            if sub.chart != c or channel.cyclic is None:
                continue
            where = torch.nonzero(encoded.subprocess == number).squeeze(-1)
            row = chosen.offsets[:-1][where.numpy()] + sub.order[0]
            phi[where] = torch.atan2(
                torch.from_numpy(chosen.py[row]), torch.from_numpy(chosen.px[row])
            )
    kinematics = process.kinematics(encoded.x, encoded.subprocess, phi)
    assert kinematics.passes.all()
    discrete = Discrete(encoded.pattern, encoded.branch, encoded.free)
    again = assemble(process, kinematics, encoded.subprocess, discrete, sample.run)
    return chosen, again


@pytest.fixture(scope="module")
def sample() -> EventSample:
    return toy_top_pairs(3000)


@pytest.fixture(scope="module")
def process(sample: EventSample) -> Process:
    return learn(sample)


def test_what_is_learned(process: Process) -> None:
    assert len(process.channels) == 2
    assert len(process.subprocesses) == 4
    assert process.frequencies.sum() == pytest.approx(1.0)
    zero_jet = next(c for c in process.channels if len(c.classes) == 2)
    assert [c.name for c in zero_jet.coordinates] == [
        "log_pt:6",
        "rapidity:6",
        "balancing_rapidity:-6",
    ]
    scale = zero_jet.auxiliaries.rules["scale"]
    assert not scale["free"]
    assert [o["kind"] for o in scale["options"]] == ["formula"]
    one_jet = next(c for c in process.channels if len(c.classes) == 3)
    assert one_jet.chart.labels[0] == "j1"
    assert one_jet.chart.pt_min == (20.0, 0.0)
    assert one_jet.auxiliaries.rules["scale"]["free"]
    assert one_jet.auxiliaries.rules["alpha_qcd"]["options"][0]["kind"] == "table"
    assert one_jet.auxiliaries.rules["alpha_qed"]["options"][0]["kind"] == "constant"


def test_events_survive_the_round_trip(sample: EventSample, process: Process) -> None:
    before, after = rebuild(process, sample)
    assert len(before) == len(sample)
    for name in ("pdg_id", "status", "mother1", "mother2", "spin"):
        assert np.array_equal(before.particles[name], after.particles[name])
    for name in ("px", "py", "pz", "energy", "mass"):
        assert np.allclose(before.particles[name], after.particles[name], atol=1e-7)
    for name in ("scale", "alpha_qcd", "alpha_qed"):
        assert np.allclose(before.events[name], after.events[name], rtol=2e-5)
    for _, _, table in tables(after):
        flow = color_flow(table["color1"], table["color2"])
        assert np.array_equal(flow[:, 0::2], table["color1"])


def test_stored_form(sample: EventSample, process: Process) -> None:
    again = Process.from_config(json.loads(json.dumps(process.to_config())))
    assert torch.equal(again.encode(sample).x, process.encode(sample).x)
    assert torch.equal(again.encode(sample).pattern, process.encode(sample).pattern)


def test_order_in_the_file_does_not_matter(sample: EventSample, process: Process) -> None:
    """Incoming partons swapped in the file, mothers with them: the same event."""
    rows = np.arange(len(sample.px))
    for start in sample.offsets[:-1]:
        rows[start], rows[start + 1] = start + 1, start
    columns = {name: values[rows] for name, values in sample.particles.items()}
    swapped = EventSample(sample.run, sample.offsets, columns, sample.events)
    assert torch.equal(process.encode(swapped).x, process.encode(sample).x)
    assert torch.equal(process.encode(swapped).pattern, process.encode(sample).pattern)


def test_identical_particles_are_ordered() -> None:
    """gg -> g g: whichever gluon comes first in the file, the harder one is first."""
    p = np.array([[30.0, 0, 10, 0], [-30.0, 0, -20, 0], [25.0, 5, 0, 0], [-25.0, -5, 3, 0]])
    p[:, 3] = np.sqrt((p[:, :3] ** 2).sum(1))
    extra = np.array([[1.0, 0, 0, 1.0]])
    for order in ([0, 1], [1, 0]):
        final = p[order].copy()
        final[0, :2] *= 1.0
        final = np.concatenate([final, extra * 0 + p[2:3] * 0.5])
        total = final.sum(0)
        incoming = np.array(
            [[0, 0, total[3] / 2, total[3] / 2], [0, 0, -total[3] / 2, total[3] / 2]]
        )
        momenta = np.concatenate([incoming, final])
        columns = {
            "pdg_id": [21] * 5,
            "status": [-1, -1, 1, 1, 1],
            "mother1": [0, 0, 1, 1, 1],
            "mother2": [0, 0, 2, 2, 2],
            **{n: momenta[:, i] for i, n in enumerate(("px", "py", "pz", "energy"))},
        }
        sample = EventSample(RunInfo(), [0, 5], columns)
        _, _, table = next(iter(tables(sample)))
        pt = np.hypot(table["px"], table["py"])[0, 2:]
        assert (np.diff(pt) <= 0).all()


def test_color_flow_is_canonical() -> None:
    color1 = np.array([[511, 0, 7], [3, 0, 9]])
    color2 = np.array([[0, 511, 0], [0, 3, 0]])
    flow = color_flow(color1, color2)
    assert np.array_equal(flow[0], flow[1])
    assert flow[0].tolist() == [501, 0, 0, 501, 502, 0]


def lepton_collisions(n: int, seed: int = 0) -> EventSample:
    """e+ e- -> q q~ g at 91.2 GeV, flat in the chart's coordinates."""
    chart = FixedEnergyChart(["j1", "j2", "j3"], [0.0] * 3, [0.0, 0.0, 0.0, 91.2])
    torch.manual_seed(seed)
    x = torch.randn(n, chart.n_coordinates, dtype=torch.float64)
    p, _ = chart.inverse(x)
    beam = torch.tensor([[0.0, 0, 45.6, 45.6], [0, 0, -45.6, 45.6]], dtype=torch.float64)
    momenta = torch.cat([beam.expand(n, 2, 4), p], 1).reshape(-1, 4).numpy()
    columns = {
        "pdg_id": np.tile([11, -11, 1, -1, 21], n),
        "status": np.tile([-1, -1, 1, 1, 1], n),
        "mother1": np.tile([0, 0, 1, 1, 1], n),
        "mother2": np.tile([0, 0, 2, 2, 2], n),
        "color1": np.tile([0, 0, 501, 0, 502], n),
        "color2": np.tile([0, 0, 0, 502, 501], n),
        "mass": np.zeros(5 * n),
        **{name: momenta[:, i] for i, name in enumerate(("px", "py", "pz", "energy"))},
    }
    run = RunInfo((11, -11), (45.6, 45.6))
    return EventSample(run, 5 * np.arange(n + 1), columns, {"process_id": np.ones(n, int)})


def test_lepton_collider_keeps_its_energy() -> None:
    sample = lepton_collisions(2000)
    process = learn(sample)
    assert isinstance(process.channels[0].chart, FixedEnergyChart)
    x = 2 * torch.randn(500, process.n_coordinates, dtype=torch.float64)
    subprocess = torch.zeros(500, dtype=torch.int64)
    kinematics = process.kinematics(x, subprocess, torch.zeros(500))
    assert kinematics.passes.all()
    total = kinematics.final.sum(1)
    expected = torch.tensor([0.0, 0.0, 0.0, 91.2], dtype=torch.float64)
    assert (total - expected).abs().max() < 1e-11
    before, after = rebuild(process, sample)
    assert np.allclose(before.px, after.px, atol=1e-7)


def test_resonances_follow_their_daughters() -> None:
    """A status-2 row is the sum of what descends from it."""
    tops = toy_top_pairs(1500, jets=False)
    table = {name: values.reshape(-1, 4) for name, values in tops.particles.items()}
    columns = {}
    for name, values in table.items():
        pair = values[:, 2] + values[:, 3]
        columns[name] = np.insert(values, 2, pair, axis=1)
    columns["pdg_id"][:, 2], columns["status"][:, 2] = 23, 2
    columns["mother1"][:, 3:], columns["mother2"][:, 3:] = 3, 3
    columns["mother1"][:, 2], columns["mother2"][:, 2] = 1, 2
    columns["color1"][:, 2] = columns["color2"][:, 2] = 0
    columns["spin"][:, 2] = 9
    e, px, py, pz = (columns[n][:, 2] for n in ("energy", "px", "py", "pz"))
    columns["mass"][:, 2] = np.sqrt(e**2 - px**2 - py**2 - pz**2)
    sample = EventSample(
        tops.run,
        5 * np.arange(len(tops) + 1),
        {n: v.reshape(-1) for n, v in columns.items()},
        tops.events,
    )
    process = learn(sample)
    before, after = rebuild(process, sample)
    for name in ("px", "py", "pz", "energy"):
        assert np.allclose(before.particles[name], after.particles[name], atol=1e-7)
    assert np.allclose(before.mass, after.mass, rtol=1e-6)
    assert after.mass.reshape(-1, 5)[:, 2].min() > 2 * TOP


def test_slow_massive_partons_do_not_move_with_the_others() -> None:
    """The total momentum alone allows it; such events are drawn again."""
    sample = toy_top_pairs(1000, jets=False)
    process = learn(sample)
    massive = [replace(s, incoming_masses=(0.0, 40.0)) for s in process.subprocesses]
    process.subprocesses[:] = massive
    encoded = process.encode(sample)
    names = [c.name.partition(":")[0] for c in process.channels[0].coordinates]
    shift = 2.5 * torch.tensor([float("rapidity" in n) for n in names], dtype=torch.float64)
    assert shift.any()
    k = process.kinematics(encoded.x + shift, encoded.subprocess, torch.zeros(len(encoded)))
    backwards = (k.incoming[:, 1, 2] > 1e-3) & (k.incoming[:, 0, 3] < process.beam_energy[0])
    assert backwards.any()
    assert not k.passes[backwards].any()
    assert k.passes[~backwards].any()


def test_unknown_structures_are_left_out(process: Process) -> None:
    other = toy_top_pairs(50, seed=5)
    other.particles["pdg_id"][other.offsets[0]] = 5
    encoded = process.encode(other)
    assert 0 not in encoded.event.tolist()
    assert len(encoded) == 49


def test_events_without_beams_are_refused() -> None:
    sample = toy_top_pairs(20)
    sample.particles["status"][sample.offsets[3]] = 1
    with pytest.raises(SampleError, match="event 4: 1 incoming"):
        learn(sample)


def test_events_without_scale_cost_themselves_at_most(caplog: pytest.LogCaptureFixture) -> None:
    """A scale of -1 is kept where the learner saw it, and left out, aloud, where it did not."""
    sample, rows = toy_top_pairs(2000, jets=False), [5, 700]
    before = sample.scale.copy()
    source = SampleSource(sample)
    process = learn_process(source, seed=0)
    sample.events["scale"][rows] = -1.0
    assert len(encode_all(source, process)) == 1998
    assert "2 of 2000 events" in caplog.text
    assert "2 of them without a positive scale or coupling" in caplog.text
    sample.events["alpha_qcd"][rows] = -1.0
    process = learn_process(source, seed=0)
    encoded = encode_all(source, process)
    assert len(encoded) == 2000
    chosen, again = rebuild(process, sample)
    assert (again.scale[rows] == -1.0).all()
    assert np.allclose(np.delete(again.scale, rows), np.delete(before, rows), rtol=3e-5)
    assert np.allclose(again.alpha_qcd, chosen.alpha_qcd, rtol=1e-4)


def test_events_with_couplings_but_without_scale_are_encoded() -> None:
    sample = toy_top_pairs(1000, jets=False)
    del sample.events["scale"]
    process = learn(sample)
    assert len(process.encode(sample)) == 1000


def test_inverse_of_unique_may_have_two_dimensions(
    process: Process, sample: EventSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in NumPy 2.0."""
    expected = process.encode(sample)
    unique = np.unique

    def of_numpy_2_0(x: np.ndarray, **options: object) -> object:
        found = unique(x, **options)
        if options.get("axis") == 0 and options.get("return_inverse"):
            return found[0], found[1].reshape(-1, 1), *found[2:]
        return found

    monkeypatch.setattr(np, "unique", of_numpy_2_0)
    assert torch.equal(process.encode(sample).pattern, expected.pattern)


def test_jets_are_described_relative_to_each_other_where_a_cut_keeps_them_apart() -> None:
    sample = Generator.load("ttbar2j", device="cpu").sample(1200, seed=1)
    made = encode_sample(sample, cuts=[parse_cut("delta_r(j, j) > 0.4")], find_cuts=False)
    (channel,) = made.process.channels
    chart = channel.chart
    assert isinstance(chart, BalancedChart)
    assert chart.close == (0.0, 0.4, 0.0)
    assert channel.classes[:2] == ("j", "j")
    # what is nearer than the cut is about zero in both coordinates
    names = [c.name for c in channel.coordinates]
    y, phi = (made.encoded.x[:, names.index(n)] for n in ("close_rapidity:j2", "phi:j2"))
    distance = torch.hypot(0.4 * torch.sinh(y), phi)
    assert 0.4 < float(distance.min()) < 0.6
    stated = made.process.to_config()
    assert Process.from_config(stated).channels[0].chart.to_config() == chart.to_config()


def test_energies_move_when_a_larger_one_is_found() -> None:
    """Events at what was the largest energy of a beam so far are below the new one."""
    seen = FullEnergies()
    seen.add(np.array([[100.0, 50.0], [100.0, 40.0], [90.0, 50.0]]), np.array([1.0, 2.0, 4.0]))
    assert seen.weights.tolist() == [[0.0, 4.0], [2.0, 1.0]]
    seen.add(np.array([[100.0, 60.0]]), np.array([8.0]))
    assert seen.weights.tolist() == [[4.0, 0.0], [3.0, 8.0]]
    seen.move_to(np.array([200.0, 60.0]))
    assert seen.weights.tolist() == [[7.0, 8.0], [0.0, 0.0]]
    assert seen.full.tolist() == [200.0, 60.0]


def test_rules_of_any_channel_can_be_shared() -> None:
    """Channels refer to the rules of an earlier one, however many have rules of their own."""
    config = learned(toy_top_pairs(600, jets=False)).to_config()
    own = config["channels"][0]
    config["channels"] = [own] * 70 + [own | {"auxiliaries": 69}]
    process = Process.from_config(json.loads(json.dumps(config)))
    assert process.channels[70].auxiliaries is process.channels[69].auxiliaries
    assert process.channels[69].auxiliaries is not process.channels[0].auxiliaries
    config["channels"] = [own | {"auxiliaries": 1}, own]
    with pytest.raises(ValueError, match="not before it"):
        Process.from_config(config)
