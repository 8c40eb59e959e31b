"""Several files as one sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml.errors import SampleError
from hepgen_ml.events import EventSample, RunInfo, Subrun
from hepgen_ml.merging import merge_runs
from hepgen_ml.training.data import SampleSource, encode_all, learn_process, split

from .samples import toy_top_pairs


def run(sigma: float, process_id: int = 1, energy: float = 6500.0) -> RunInfo:
    return RunInfo(
        (2212, 2212), (energy, energy), processes=(Subrun(process_id, sigma, 0.01 * sigma),)
    )


def test_repeated_runs_are_averaged() -> None:
    merged = merge_runs([run(10.0), run(10.2)], [None, None])
    assert merged.group == (0, 0)
    assert merged.run.cross_section == pytest.approx(10.1)
    assert merged.run.cross_section_error == pytest.approx(0.5 * np.hypot(0.1, 0.102))


def test_different_processes_add_up() -> None:
    merged = merge_runs([run(10.0), run(3.0), run(10.1)], [None] * 3)
    assert merged.group == (0, 1, 0)
    assert merged.run.cross_section == pytest.approx(13.05)
    assert len({p.process_id for p in merged.run.processes}) == 2
    assert merged.shift[0] == merged.shift[2] == 0
    assert merged.shift[1] == 1


def test_mixed_beams_are_refused() -> None:
    with pytest.raises(SampleError, match=r"b\.lhe.*same beams"):
        merge_runs([run(1.0), run(1.0, energy=7000.0)], [Path("a.lhe"), Path("b.lhe")])


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
