"""What is not known about a cross section is nan inside, absent in files and said in words."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hepgen_adapters._run_json import dump_run, load_run
from typer.testing import CliRunner

from hepgen_ml.cli import app
from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events.formats import write
from hepgen_ml.events.merging import merge_runs
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.model_card import model_card
from hepgen_ml.models.storage import run_from_config, run_to_config
from hepgen_ml.training.data import SampleSource, learn_process, with_mean_weight
from tests.generation.test_generator import settings
from tests.parton_events import parton_sample
from tests.samples import toy_top_pairs

NAN = float("nan")


def unknown(sample: EventSample) -> EventSample:
    processes = tuple(Subrun(p.process_id, NAN, NAN) for p in sample.run.processes)
    sample.run = sample.run.with_(processes=processes, weight_strategy=3)
    sample.events["weight"] = np.ones(len(sample))
    return sample


@pytest.mark.parametrize(
    "processes", [(), (Subrun(1, NAN, NAN),), (Subrun(1, 2.0, 0.1), Subrun(2, NAN, NAN))]
)
def test_total_is_not_known(processes: tuple[Subrun, ...]) -> None:
    run = RunInfo(processes=processes)
    assert np.isnan(run.cross_section)
    assert np.isnan(run.cross_section_error)
    sample = EventSample(run, [0, 1], {k: [1.0] for k in ("px", "py", "pz", "energy")})
    assert "cross section not known" in repr(sample)


def test_error_alone_is_not_known() -> None:
    run = RunInfo(processes=(Subrun(1, 2.0, NAN), Subrun(2, 3.0, 0.1)))
    assert run.cross_section == 5.0
    assert np.isnan(run.cross_section_error)


@pytest.mark.parametrize("subrun", [Subrun(4, NAN, NAN), Subrun(4, 2.0, NAN), Subrun(4, 2.0, 0.1)])
def test_stored_as_json(subrun: Subrun) -> None:
    run = RunInfo(processes=(subrun,))
    text = json.dumps(run_to_config(run), allow_nan=False)
    for back in (run_from_config(json.loads(text)), load_run(dump_run(run), "x.root")):
        np.testing.assert_equal(vars(back.processes[0]), vars(subrun))


def test_zero_of_earlier_versions_is_not_known() -> None:
    config = run_to_config(RunInfo(processes=(Subrun(1, 0.0, 0.0), Subrun(2, 0.0, 0.0))))
    assert np.isnan(run_from_config(config).cross_section)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"processes": 3}', '{"processes": [{"process_id": 1}]}', "[" * 100_000,
     '{"beam_energy": [1e999, 3]}',
     '{"processes": [{"process_id": 1, "cross_section": NaN, "error": 1, "max_weight": 1}]}'],
)  # fmt: skip
def test_bad_run_information(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.root: run information"):
        load_run(text, "x.root")


def test_runs_without_cross_section_are_pooled_with_their_like() -> None:
    a, b = RunInfo(processes=(Subrun(1, NAN, NAN),)), RunInfo(processes=(Subrun(1, 2.0, 0.1),))
    assert merge_runs([a, a], [None] * 2).group == (0, 0)
    assert np.isnan(merge_runs([a, a], [None] * 2).run.cross_section)
    assert merge_runs([a, b], [None] * 2).group == (0, 1)
    assert merge_runs([RunInfo(), RunInfo()], [None] * 2).group == (0, 0)


def test_files_leave_it_out(tmp_path: Path) -> None:
    sample = unknown(parton_sample(20))
    write(sample, tmp_path / "e.hepmc")
    assert "GenCrossSection" not in (tmp_path / "e.hepmc").read_text()
    write(sample, tmp_path / "e.root")
    with pytest.raises(OutputError, match="--cross-section"):
        write(sample, tmp_path / "e.lhe")
    for name in ("e.hepmc", "e.root"):
        done = CliRunner().invoke(app, ["info", str(tmp_path / name)])
        assert "not known" in done.stdout
        done = CliRunner().invoke(app, ["info", "--json", str(tmp_path / name)])
        assert json.loads(done.stdout)["cross_section"] is None
        done = CliRunner().invoke(app, ["check", str(tmp_path / name)])
        assert done.exit_code == 0, done.stdout
        assert "not judged" in done.stdout


def test_training_and_generation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        generator = Generator.train(
            unknown(toy_top_pairs(1500)), out=tmp_path / "m",
            config=settings("training.max_steps=5"), device="cpu",
        )  # fmt: skip
    assert "--cross-section" in caplog.text
    events = Generator.load(tmp_path / "m", device="cpu").sample(50, seed=1)
    assert np.isnan(events.run.cross_section)
    assert (events.weight == 1).all()
    assert generator.describe()["cross_section"] is None
    card = model_card(generator.process, generator.config, generator.run, {})
    assert "cross section: not known" in card
    done = CliRunner().invoke(
        app, ["generate", "--model", str(tmp_path / "m"), "-n", "20", "--out",
              str(tmp_path / "g.root"), "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "20 events, cross section not known" in done.stdout


def test_mean_weight_is_the_cross_section_only_where_the_source_says_so() -> None:
    sample = toy_top_pairs(1200, jets=False)
    sample.run = sample.run.with_(
        processes=(Subrun(0, NAN, NAN), Subrun(1, NAN, NAN)), weight_strategy=-4
    )
    source = SampleSource(sample)
    process = learn_process(source, seed=0)
    assert with_mean_weight(source, process).cross_section == pytest.approx(3.0)
    source.states_strategy = False  # as files of others in HepMC3 and ROOT
    assert np.isnan(with_mean_weight(source, process).cross_section)
