"""Weights of any scale become weights that LHE files can have; cross sections that users give."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyhepmc
import pytest
from typer.testing import CliRunner

from hepgen_ml.cli import app
from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.conversion import convert
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.events.weights import WeightSums, declared, les_houches
from tests.object_files import nano
from tests.parton_events import parton_sample

NAN = float("nan")
N = 40


def with_weights(weight: np.ndarray | float, **run: object) -> EventSample:
    sample = parton_sample(N)
    events = {**sample.events, "weight": np.broadcast_to(weight, N).astype(float)}
    return EventSample(
        sample.run.with_(**run), sample.offsets, sample.particles, events, weights=sample.weights
    )


def foreign(
    path: Path, weights: np.ndarray, sigma: float | None, ids: tuple[int, ...] = (5,)
) -> Path:
    """Two muons an event in a HepMC3 file of another program, named weights twice as large."""
    info = pyhepmc.GenRunInfo()
    info.weight_names = ["0", "twice"]
    with pyhepmc.open(path, "w") as file:
        for i, weight in enumerate(weights):
            event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.MM)
            event.run_info = info
            event.event_number = i
            vertex = pyhepmc.GenVertex()
            for pz in (45.6, -45.6):
                vertex.add_particle_in(
                    pyhepmc.GenParticle((0, 0, pz, 45.6), 11 if pz > 0 else -11, 4)
                )
            for sign in (1, -1):
                p = (sign * 45.6 * np.sin(i), sign * 45.6 * np.cos(i), 0, 45.6)
                vertex.add_particle_out(pyhepmc.GenParticle(p, sign * 13, 1))
            event.add_vertex(vertex)
            event.weights = [weight, 2 * weight]
            event.attributes = {"signal_process_id": ids[i % len(ids)]}
            if sigma is not None:
                cross_section = pyhepmc.GenCrossSection()
                event.cross_section = cross_section
                cross_section.set_cross_section(sigma, 0.5, -1, -1)
            file.write(event)
    return path


WEIGHTS = np.random.default_rng(1).uniform(0.5, 1.5, N)


def test_sums() -> None:
    sums = WeightSums.of(with_weights(np.where(np.arange(N) % 4, 2.0, -2.0)).chunks(7))
    assert (sums.n, sums.total, sums.squares) == (N, 40.0, 160.0)
    assert sums.equal
    assert sums.negative
    assert sums.processes == {0: 0.0, 7: 40.0}
    assert not WeightSums.of([with_weights(WEIGHTS)]).equal


@pytest.mark.parametrize(
    ("weight", "run", "stated", "strategy", "factor"),
    [
        (1.0, {}, False, 3, 1.0),
        (17.0, {}, False, 3, 1.0),
        (np.where(np.arange(N) % 4, 2.0, -2.0), {}, False, -3, 1.0),
        (WEIGHTS, {}, False, -4, 60 / WEIGHTS.mean()),
        (WEIGHTS, {"weight_strategy": -4}, False, -4, 60 / WEIGHTS.mean()),
        (WEIGHTS, {"weight_strategy": -4}, True, -4, 60 / WEIGHTS.mean()),
        (60 * WEIGHTS, {"weight_strategy": -4}, True, -4, 1.0),  # up to fluctuations
        (60.0, {"weight_strategy": -4}, True, -4, 1.0),
        (60.0, {"weight_strategy": -4}, False, 3, 1.0),
        (WEIGHTS, {}, True, -4, 60 / WEIGHTS.mean()),
        (np.where(np.arange(N) % 4, 2.0, -2.0), {}, True, 3, 1.0),
    ],
)
def test_strategy(weight, run, stated, strategy, factor) -> None:
    sample = with_weights(weight, **run)
    found, multiplied = les_houches(sample.run, WeightSums.of([sample]), stated=stated)
    assert found.weight_strategy == strategy
    assert multiplied == pytest.approx(factor)
    assert found.cross_section == pytest.approx(60.0)


def test_strategy_of_what_stands_for_nothing() -> None:
    sample = with_weights(np.where(np.arange(N) % 2, 2.0, -2.0))
    with pytest.raises(OutputError, match="no cross section"):
        les_houches(sample.run, WeightSums.of([sample]), stated=False)
    unknown = with_weights(WEIGHTS, processes=(Subrun(0, NAN, NAN), Subrun(7, NAN, NAN)))
    with pytest.raises(OutputError, match="--cross-section"):
        les_houches(unknown.run, WeightSums.of([unknown]), stated=False)
    run, factor = les_houches(
        unknown.run.with_(weight_strategy=4), WeightSums.of([unknown]), stated=True
    )
    assert run.cross_section == pytest.approx(WEIGHTS.mean())
    assert [p.process_id for p in run.processes] == [0, 7]
    assert np.isnan(run.cross_section_error)
    assert factor == 1.0


def test_declared() -> None:
    sample = with_weights(WEIGHTS)
    sums = WeightSums.of([sample])
    assert declared(sample.run, sums.processes) is sample.run
    run = declared(sample.run.with_(processes=(Subrun(3, 10.0, 0.5),)), sums.processes)
    assert [p.process_id for p in run.processes] == [0, 7]
    assert run.cross_section == pytest.approx(10.0)
    assert run.cross_section_error == pytest.approx(0.5)
    first = WEIGHTS[::2].sum() / WEIGHTS.sum()
    assert run.processes[0].cross_section == pytest.approx(10 * first)


@pytest.mark.parametrize("weights", [WEIGHTS, 1000 * WEIGHTS, np.append(1.0, WEIGHTS[1:])])
def test_foreign_weights_to_lhe(tmp_path: Path, weights: np.ndarray) -> None:
    path = foreign(tmp_path / "e.hepmc", weights, 12.0, (1, 5))
    done = convert(path, tmp_path / "e.lhe")
    back = read(tmp_path / "e.lhe")
    assert back.run.weight_strategy == -4
    np.testing.assert_allclose(back.weight, weights * 12 / weights.mean())
    np.testing.assert_allclose(back.weights["twice"], 2 * back.weight)
    assert back.run.cross_section == pytest.approx(12.0)
    assert done.run.cross_section_error == pytest.approx(0.5)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert "BROKEN  normalisation" not in result.stdout
    assert "BROKEN  processes" not in result.stdout
    result = CliRunner().invoke(app, ["check", str(tmp_path / "e.lhe")])
    assert "BROKEN  normalisation" not in result.stdout
    assert "BROKEN  processes" not in result.stdout


def test_unknown_cross_section(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = foreign(tmp_path / "e.hepmc", WEIGHTS, None)
    with pytest.raises(InputError, match="--cross-section"):
        convert(path, tmp_path / "e.lhe")
    with caplog.at_level(logging.WARNING):
        convert(path, [tmp_path / "f.hepmc", tmp_path / "f.root"])
    assert "--cross-section" in caplog.text
    assert "f.hepmc" in caplog.text
    assert "GenCrossSection" not in (tmp_path / "f.hepmc").read_text()
    assert np.isnan(read(tmp_path / "f.root").run.cross_section)
    convert(path, tmp_path / "e.lhe", selection=Selection(cross_section=7.0))
    assert read(tmp_path / "e.lhe").weight.mean() == pytest.approx(7.0)


@pytest.mark.parametrize("first", ["e.lhe", "e.hepmc", "e.root"])
@pytest.mark.parametrize("last", ["f.lhe", "f.hepmc", "f.root"])
@pytest.mark.parametrize("weight", [1.0, 60 * WEIGHTS])
def test_given_cross_section(tmp_path: Path, first: str, last: str, weight) -> None:
    strategy = 3 if np.ndim(weight) == 0 else -4
    write(with_weights(weight, weight_strategy=strategy), tmp_path / first)
    arguments = ["convert", str(tmp_path / first), "--out", str(tmp_path / last)]
    done = CliRunner().invoke(app, [*arguments, "--cross-section", "7.5+-0.3"])
    assert done.exit_code == 0, done.output
    assert "7.50 ± 0.30 pb" in done.stdout
    back = read(tmp_path / last)
    assert back.run.cross_section == pytest.approx(7.5)
    assert back.run.cross_section_error == pytest.approx(0.3)
    assert [p.process_id for p in back.run.processes] == [0, 7]
    if last == "f.lhe" and strategy == -4:
        assert back.weight.mean() == pytest.approx(7.5)


def test_one_cross_section_for_different_processes(tmp_path: Path) -> None:
    sample = with_weights(1.0)
    write(sample, tmp_path / "a.lhe")
    sample.run = sample.run.with_(processes=(Subrun(0, 30.0, 0.5),))
    write(sample[::2], tmp_path / "b.lhe")
    with pytest.raises(UsageError, match="2 different processes"):
        convert([tmp_path / "a.lhe", tmp_path / "b.lhe"], tmp_path / "c.lhe",
                selection=Selection(cross_section=7.0))  # fmt: skip


def test_unequal_weights_under_strategy_three(tmp_path: Path) -> None:
    """As partially unweighted events have them, late in a file and in another chunk."""
    from tests.lhe_files import EVENT, INIT

    text = INIT.replace(" -4 2", " 3 2") + 21_000 * EVENT.replace("+1.0786064e+03", "2.0")
    path = tmp_path / "e.lhe.gz"
    import gzip

    path.write_bytes(gzip.compress(
        (text + 20 * EVENT.replace("+1.0786064e+03", "3.0") + "</LesHouchesEvents>\n").encode(), 1
    ))  # fmt: skip
    convert(path, tmp_path / "f.lhe")
    back = read(tmp_path / "f.lhe")
    assert back.run.weight_strategy == -4
    assert back.weight.mean() == pytest.approx(back.run.cross_section)
    assert back.weight[-1] == pytest.approx(1.5 * back.weight[0])
    convert(path, tmp_path / "f.root")  # where weights are as they are
    assert set(read(tmp_path / "f.root").weight) == {2.0, 3.0}


def test_write_chooses_the_strategy_of_unequal_weights(tmp_path: Path) -> None:
    """Events that were read under strategy 3 and are written again."""
    sample = with_weights(1.0)
    sample.weights = {"up": np.full(N, 3.0)}
    sample.run = sample.run.with_(weight_names={"up": ""})
    sample.events["weight"] = 1e5 * WEIGHTS
    write(sample, tmp_path / "a.lhe")
    back = read(tmp_path / "a.lhe")
    assert back.run.weight_strategy == -4
    assert back.weight.mean() == pytest.approx(back.run.cross_section) == pytest.approx(60.0)
    np.testing.assert_allclose(back.weights["up"] / back.weight, 3.0 / sample.weight)
    np.testing.assert_array_equal(sample.weight, 1e5 * WEIGHTS)  # the sample itself stays
    assert sample.run.weight_strategy == 3
    sample.run = sample.run.with_(processes=())
    with pytest.raises(OutputError, match=r"b\.lhe.*cross section"):
        write(sample, tmp_path / "b.lhe")
    assert not (tmp_path / "b.lhe").exists()
    write(sample, tmp_path / "b.root")  # where weights are as they are
    np.testing.assert_allclose(read(tmp_path / "b.root").weight, sample.weight)


def test_nanoaod_to_others(tmp_path: Path) -> None:
    """Weights of a skim stand for its part of the cross section; the sum of all is in `Runs`."""
    path = nano(
        tmp_path / "e.root", LHEPart_pt=[[0.0, 0.0, 20.0, 20.0]] * 4,
        LHEPart_eta=[[0.0, 0.0, 0.5, -0.5]] * 4, LHEPart_phi=[[0.0, 0.0, 0.0, np.pi]] * 4,
        LHEPart_mass=[[0.0] * 4] * 4, LHEPart_pdgId=[[21, 21, 13, -13]] * 4,
        LHEPart_status=[[-1, -1, 1, 1]] * 4, LHEPart_incomingpz=[[22.5526, -22.5526, 0.0, 0.0]] * 4,
        genWeight=[3.0, 5.0, -2.0, 6.0],
    )  # fmt: skip
    with pytest.raises(InputError, match="--cross-section"):
        convert(path, tmp_path / "e.lhe")
    convert(path, tmp_path / "e.lhe", selection=Selection(cross_section=9.0))
    back = read(tmp_path / "e.lhe")
    np.testing.assert_allclose(back.weight, np.array([3.0, 5.0, -2.0, 6.0]) * 3)
    assert back.run.weight_strategy == -4
    assert RunInfo().weight_cross_sections == {}


@pytest.mark.parametrize("suffix", [".lhe", ".hepmc", ".root", ".h5"])
def test_negative_cross_sections_are_kept(suffix: str, tmp_path: Path) -> None:
    """Those of interference terms; strategy -4 was refused as if the cross section were unknown."""
    processes = (Subrun(0, -30.0, 0.5), Subrun(7, -30.0, 0.25))
    sample = with_weights(-60.0, processes=processes, weight_strategy=-4)
    write(sample, tmp_path / "a.lhe")
    convert(tmp_path / "a.lhe", tmp_path / f"b{suffix}")
    convert(tmp_path / f"b{suffix}", tmp_path / "c.lhe")
    back = read(tmp_path / "c.lhe")
    np.testing.assert_array_equal(back.weight, sample.weight)
    assert back.run.cross_section == -60.0
