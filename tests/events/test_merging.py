"""Several files as one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml.errors import SampleError
from hepgen_ml.events.conversion import convert
from hepgen_ml.events.merging import FirstEvents, merge_runs
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.events.source import EventSource
from hepgen_ml.training.data import SampleSource, encode_all, learn_process
from hepgen_ml.training.drawing import split
from tests.parton_events import parton_sample
from tests.samples import toy_top_pairs, toy_z_jets


def run(sigma: float, process_id: int = 1, energy: float = 6500.0) -> RunInfo:
    return RunInfo(
        (2212, 2212), (energy, energy), processes=(Subrun(process_id, sigma, 0.01 * sigma),)
    )


def test_repeated_runs_are_averaged() -> None:
    """By their errors: that of two equally good ones is smaller by the root of two."""
    merged = merge_runs([run(10.0), run(10.1)], [None, None])
    assert merged.group == (0, 0)
    w = 1 / np.array([0.1, 0.101]) ** 2
    expected = (w @ [10.0, 10.1]) / w.sum()
    assert merged.run.cross_section == pytest.approx(expected)
    assert merged.group_cross_section == (pytest.approx(expected),)
    assert merged.run.cross_section_error == pytest.approx(w.sum() ** -0.5)


@pytest.mark.parametrize("error", [0.4, 0.0, np.nan])
def test_jobs_of_one_integration_know_no_more_than_one(error: float) -> None:
    one = RunInfo(processes=(Subrun(0, 574.0, error), Subrun(3, 500.0, 0.1)))
    merged = merge_runs([one] * 5, [None] * 5)
    assert merged.group == (0,) * 5
    np.testing.assert_equal(
        [vars(p) for p in merged.run.processes], [vars(p) for p in one.processes]
    )


def test_jobs_of_several_integrations() -> None:
    """Two gridpacks of the same precision with three and one jobs count the same."""
    a, b = RunInfo(processes=(Subrun(0, 10.0, 0.1),)), RunInfo(processes=(Subrun(0, 10.1, 0.1),))
    merged = merge_runs([a, b, a, a], [None] * 4)
    assert merged.run.cross_section == pytest.approx(10.05)
    assert merged.run.cross_section_error == pytest.approx(0.1 / np.sqrt(2))


def test_runs_that_scatter_have_a_larger_error() -> None:
    runs = [RunInfo(processes=(Subrun(0, x, 0.01),)) for x in (10.0, 10.04)]
    merged = merge_runs(runs, [None] * 2)
    assert merged.run.cross_section == pytest.approx(10.02)
    assert merged.run.cross_section_error == pytest.approx(0.02)


def test_average_with_an_unknown_error() -> None:
    runs = [
        RunInfo(processes=(Subrun(0, 10.0, 0.1),)),
        RunInfo(processes=(Subrun(0, 10.1, np.nan),)),
    ]
    merged = merge_runs(runs, [None] * 2)
    assert merged.run.cross_section == pytest.approx(10.05)
    assert np.isnan(merged.run.cross_section_error)


def test_different_processes_add_up() -> None:
    merged = merge_runs([run(10.0), run(3.0), run(10.1)], [None] * 3)
    assert merged.group == (0, 1, 0)
    assert merged.run.cross_section == pytest.approx(13.05, abs=0.01)
    assert len({p.process_id for p in merged.run.processes}) == 2
    assert merged.shift[0] == merged.shift[2] == 0
    assert merged.shift[1] == 1


def test_mixed_beams_are_refused() -> None:
    with pytest.raises(SampleError, match=r"b\.lhe.*same beams"):
        merge_runs([run(1.0), run(1.0, energy=7000.0)], [Path("a.lhe"), Path("b.lhe")])


def test_files_of_other_parameters_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the parameter; that of a scan differs as it should."""
    header = "<slha>\nBLOCK MASS # of particles\n  6 {} # mt\n 24 80.4\nDECAY 6 1.4\n 1.0 2 5 24\n"
    runs = [run(10.0).with_(header=header.format(m)) for m in ("1.725e+02", "172.5", "173")]
    paths = [Path("a.lhe"), Path("b.lhe"), Path("c.lhe")]
    merge_runs(runs[:2], paths[:2])
    merge_runs(runs, paths, points=[0, 0, 2])
    assert "parameter" not in caplog.text
    merge_runs(runs, paths)
    assert "mass:6 is 172.5 in a.lhe and 173 in c.lhe" in caplog.text
    assert "--condition mass:6" in caplog.text


def one_multiplicity(sample: EventSample, jets: int, sigma: float) -> EventSample:
    """The events with so many jets, as if they were a file of their own with process 1."""
    part = sample[sample.process_id == jets]
    process = Subrun(1, sigma, 0.001 * sigma)
    part.run = part.run.with_(processes=(process,), weight_strategy=3)
    part.events["weight"] = np.ones(len(part))
    part.events["process_id"] = np.ones(len(part), dtype=np.int32)
    return part


def test_files_have_the_weight_of_their_cross_section(tmp_path: Path) -> None:
    """1500 events of 2 pb beside 500 of 6 pb: the second process is three quarters."""
    sample = toy_top_pairs(4000)
    a = one_multiplicity(sample, 0, 2.0)[:1500]
    b = one_multiplicity(sample, 1, 6.0)[:500]
    paths = [tmp_path / "a.lhe.gz", tmp_path / "b.lhe.gz"]
    hepgen_ml.write(a, paths[0])
    hepgen_ml.write(b, paths[1])
    source = SampleSource(paths)
    assert source.run.cross_section == pytest.approx(8.0)
    process = learn_process(source, seed=0)
    with_jet = sum(s.frequency for s in process.subprocesses if len(s.order) == 3)
    assert with_jet == pytest.approx(0.75)
    encoded = encode_all(source, process)
    assert float(encoded.weight.mean()) == pytest.approx(1.0)
    three = process.channel_of[encoded.subprocess] == process.channel_of[encoded.subprocess[-1]]
    share = encoded.weight[three].sum() / encoded.weight.sum()
    assert float(share) == pytest.approx(0.75)
    assert len({s.structure.process_id for s in process.subprocesses}) == 2


def test_pieces_of_one_run_are_the_run(tmp_path: Path) -> None:
    sample = toy_top_pairs(2000)
    paths = [tmp_path / "a.lhe", tmp_path / "b.lhe"]
    hepgen_ml.write(sample[:1200], paths[0])
    hepgen_ml.write(sample[1200:], paths[1])
    together, alone = SampleSource(paths), SampleSource(sample)
    assert together.run.cross_section == pytest.approx(alone.run.cross_section)
    p, q = learn_process(together, seed=0), learn_process(alone, seed=0)
    assert np.allclose(p.frequencies, q.frequencies)


def lepton_pairs(
    lepton: int, n: int = 300, weight: float = 1.0, strategy: int = 3, seed: int = 1
) -> EventSample:
    """Drell-Yan pairs of 10 pb, process number 1 whatever the leptons are."""
    sample = parton_sample(2 * n, seed)[1::2]
    ids = sample.pdg_id
    sample.particles["pdg_id"] = np.where(np.abs(ids) == 13, np.sign(ids) * lepton, ids)
    sample.events["process_id"] = np.ones(n, dtype=np.int32)
    sample.events["weight"] = np.full(n, weight)
    sample.weights, sample.scales = {}, {}
    sample.run = run(10.0).with_(weight_strategy=strategy)
    return sample


@pytest.mark.parametrize("suffix", [".lhe.gz", ".hepmc", ".root"])
def test_other_final_states_are_other_processes(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Lepton universality: equal cross sections, equal process numbers."""
    caplog.set_level("INFO", logger="hepgen_ml.events.merging")
    paths = [tmp_path / f"{name}{suffix}" for name in ("e", "mu", "mu2")]
    for path, lepton, seed in zip(paths, (11, 13, 13), (1, 2, 3), strict=True):
        hepgen_ml.write(lepton_pairs(lepton, seed=seed), path)
    source = EventSource(paths)
    assert source.merged.group == (0, 1, 1)
    assert source.run.cross_section == pytest.approx(20.0)
    repetitions = [r for r in caplog.messages if "2 files are taken as repetitions" in r]
    assert len(repetitions) == 1
    assert f"{paths[1]}, {paths[2]}" in repetitions[0]
    assert any("different final states" in r and str(paths[0]) in r for r in caplog.messages)
    source.weigh_groups()
    sums = [0.0, 0.0, 0.0]
    for number, chunk in source.raw():
        sums[number] += float(source.joined(number, chunk).weight.sum())
    assert sums == pytest.approx([9000.0, 4500.0, 4500.0])


def test_objects_of_other_kinds_are_other_processes(tmp_path: Path) -> None:
    paths = [tmp_path / "mu.root", tmp_path / "mu2.root", tmp_path / "e.root"]
    for seed, path in enumerate(paths):
        sample = toy_z_jets(300, seed)
        if path.name == "e.root":
            ids = sample.pdg_id
            sample.particles["pdg_id"] = np.where(np.abs(ids) == 13, np.sign(ids) * 11, ids)
        hepgen_ml.write(sample, path)
    chosen = Selection(parse_objects("Jet:1-4"))  # which all have
    assert EventSource(paths, selection=chosen).merged.group == (0, 0, 1)


def test_kinds_of_final_states() -> None:
    """Light flavours, rates of jets and the order of processes tell nothing; charges do."""
    sample = toy_top_pairs(1000)
    first = FirstEvents.of(sample)
    jets = sample[np.argsort(-sample.counts)][:500]
    jets.particles["pdg_id"][jets.pdg_id == 21] = 1
    assert FirstEvents.of(jets).has_final_states_of(first)
    assert first.has_final_states_of(FirstEvents.of(jets))
    pairs = lepton_pairs(13)
    half = pairs[:]
    half.particles["status"] = np.where(half.pdg_id == 13, 2, half.status)
    other = pairs[:]
    other.particles["status"] = np.where(other.pdg_id == -13, 2, other.status)
    assert not FirstEvents.of(half).has_final_states_of(FirstEvents.of(other))
    few = FirstEvents.of(half[:50])
    assert few.has_final_states_of(FirstEvents.of(other))  # too few to say
    both = concatenate([pairs, lepton_pairs(11)])
    both.events["process_id"] = np.repeat([1, 2], 300)
    assert FirstEvents.of(both[:400]).has_final_states_of(FirstEvents.of(both[300:]))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_events_of_repetitions_count_alike(tmp_path: Path, order: tuple[int, int]) -> None:
    """One file has unit weights, the other those of its cross section, of either sign."""
    weighted = lepton_pairs(13, 200, 10.0, -4, seed=2)
    weighted.events["weight"] = weighted.weight * np.tile([1.5, 1.5, 1.5, -0.5], 50) / 1.25
    weighted.weights["up"] = weighted.weight * 2
    paths = [tmp_path / "unit.lhe", tmp_path / "weighted.lhe"]
    hepgen_ml.write(lepton_pairs(13, 600), paths[0])
    hepgen_ml.write(weighted, paths[1])
    convert([paths[i] for i in order], tmp_path / "all.root")
    back = hepgen_ml.read(tmp_path / "all.root")
    assert back.run.cross_section == pytest.approx(10.0)
    assert back.run.weight_strategy == -4
    unit = np.isnan(back.weights["up"])
    assert unit.sum() == 600
    assert np.allclose(back.weight[unit], 10.0)
    assert np.allclose(back.weight[~unit], weighted.weight)
    source = EventSource([paths[i] for i in order])
    source.weigh_groups()
    source.weigh_groups()  # a second time changes nothing
    weight = np.concatenate([source.joined(*found).weight for found in source.raw()])
    assert np.allclose(weight, back.weight)
    assert source.mean_weight == pytest.approx(back.weight.mean())


def test_weights_that_fluctuate_stay_as_they_are(tmp_path: Path) -> None:
    paths = [tmp_path / "a.lhe", tmp_path / "b.lhe"]
    samples = []
    for seed, path in enumerate(paths):
        sample = lepton_pairs(13, 300, 1.0, -4, seed=seed)
        sample.events["weight"] = np.random.default_rng(seed).exponential(10.0, 300)
        samples.append(sample)
        hepgen_ml.write(sample, path)
    source = EventSource(paths)
    source.weigh_groups()
    for number, chunk in source.raw():
        assert np.array_equal(source.joined(number, chunk).weight, samples[number].weight)


def test_samples_without_colours_are_learned(caplog: pytest.LogCaptureFixture) -> None:
    sample = toy_top_pairs(1500)
    sample.particles["color1"][:] = sample.particles["color2"][:] = 0
    process = learn_process(SampleSource(sample), seed=0)
    assert "no colour flow" in caplog.text
    assert all(
        (s.patterns[:, : 2 * len(s.structure.pdg_id)] == 0).all() for s in process.subprocesses
    )


def test_more_bad_than_good_is_refused() -> None:
    sample = toy_top_pairs(1500)
    rows = sample.offsets[:-1][:900] + 2
    sample.particles["px"][rows] += 50.0
    with pytest.raises(SampleError, match="900 bad events and 600 good"):
        learn_process(SampleSource(sample, skip_bad=True), seed=0)


def test_split_is_random_and_reproducible() -> None:
    order, held_out = split(torch.ones(1000), 0.2, 5)
    assert held_out.sum() == 200
    assert len(order) == 800
    assert not held_out[order.numpy()].any()
    # spread over the file, as files are not always shuffled
    assert 60 < held_out[:500].sum() < 140
    assert np.array_equal(held_out, split(torch.ones(1000), 0.2, 5)[1])
    assert not np.array_equal(held_out, split(torch.ones(1000), 0.2, 6)[1])
