"""Samples of several runs and processes: cross sections combine, repetitions are pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepgen_ml.errors import SampleError
from hepgen_ml.events.conversion import convert
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.merging import merge_runs
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.training.data import SampleSource
from tests.object_files import nano
from tests.parton_events import parton_sample


def one_process(sigma: float, n: int, seed: int, weight: float = 1.0, **run: Any) -> EventSample:
    sample = parton_sample(n, seed)
    events = sample.events | {"process_id": np.ones(n), "weight": np.full(n, weight)}
    info = RunInfo(beam_energy=(6500.0, 6500.0), processes=(Subrun(1, sigma, 0.01 * sigma),), **run)
    weights = {name: np.full(n, 2.0 * weight) for name in info.weight_names}
    return EventSample(info, sample.offsets, sample.particles, events, weights=weights)


def test_repetitions_are_pooled(tmp_path: Path) -> None:
    paths = [tmp_path / "a.lhe", tmp_path / "b.lhe"]
    for seed, path in enumerate(paths):
        write(one_process(10.0, 30, seed), path)
    done = convert(paths, tmp_path / "all.root")
    back = read(tmp_path / "all.root")
    assert len(back) == done.n_events == 60
    assert back.run.weight_strategy == 3
    np.testing.assert_array_equal(back.weight, 1.0)
    assert back.run.cross_section == pytest.approx(10.0)
    assert back.run.cross_section_error == 0.1  # both are of one integration


def test_processes_are_combined_by_their_cross_sections(tmp_path: Path) -> None:
    a = one_process(30.0, 40, 0)
    b = one_process(10.0, 20, 1, 5.0, weight_strategy=-4, weight_names={"up": ""}, header="b")
    paths = [tmp_path / "a.lhe", tmp_path / "b.lhe.gz"]
    write(a, paths[0])
    write(b, paths[1])
    outs = [tmp_path / "all.root", tmp_path / "all.lhe"]
    done = convert(paths, outs)
    assert "its own header text (the first file's is kept)" in done.left_out[paths[1]]
    for out in outs:
        back = read(out)
        assert back.run.weight_strategy == -4
        assert back.run.cross_section == pytest.approx(40.0)
        assert back.weight.mean() == pytest.approx(40.0)
        assert [p.process_id for p in back.run.processes] == [1, 2]
        first = back.process_id == 1
        assert first.sum() == 40
        assert back.weight[first].sum() / back.weight.sum() == pytest.approx(0.75)
        assert np.isnan(back.weights["up"][first]).all()
        np.testing.assert_allclose(back.weights["up"][~first], 2 * back.weight[~first])
    # as in training
    source = SampleSource(paths)
    source.weigh_groups()
    weight = np.concatenate([chunk.weight for chunk in source.chunks()])
    np.testing.assert_allclose(weight, read(outs[0]).weight)


def test_selection_scales_the_cross_sections_of_groups(tmp_path: Path) -> None:
    def objects(name: str, n_jets: list[int], sigma: float) -> Path:
        path = nano(
            tmp_path / name,
            **{f"Jet_{q}": [[30.0 + k for k in range(n)] for n in n_jets]
               for q in ("pt", "eta", "phi", "mass")},
        )  # fmt: skip
        out = tmp_path / f"our-{name}"
        chosen = Selection(parse_objects("Jet:0-9"), cross_section=sigma)
        assert convert(path, out, selection=chosen).run.cross_section == sigma
        return out

    paths = [objects("a.root", [1, 1, 2, 0], 8.0), objects("b.root", [1, 2], 1.0)]
    out = tmp_path / "all.root"
    done = convert(paths, out, selection=Selection(parse_objects("Jet:1")))
    assert (done.n_events, done.n_unselected) == (3, 3)
    assert [p.cross_section for p in done.run.processes] == pytest.approx([4.0, 0.5])
    back = read(out)
    assert back.run.cross_section == pytest.approx(4.5)
    assert back.weight.mean() == pytest.approx(4.5)
    np.testing.assert_allclose(back.weight / back.weight[2], [4.0, 4.0, 1.0])


def test_unknown_cross_sections_do_not_combine(tmp_path: Path) -> None:
    a, b = one_process(10.0, 10, 0), one_process(-1.0, 10, 1)
    write(a, tmp_path / "a.lhe")
    write(b, tmp_path / "b.lhe")
    with pytest.raises(SampleError, match=r"b\.lhe: has no cross section"):
        convert([tmp_path / "a.lhe", tmp_path / "b.lhe"], tmp_path / "c.root")
    assert not (tmp_path / "c.root").exists()


def test_one_run_stays_as_it_is() -> None:
    run = RunInfo(processes=(Subrun(10001, -1.0, -1.0, -1.0),))
    assert merge_runs([run], [None]).run == run
