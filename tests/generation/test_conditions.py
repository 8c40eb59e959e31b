"""Conditions of the user, from files to files: rates, masses, cross sections, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hepgen_ml
from hepgen_ml.cli import app
from hepgen_ml.config import load_config
from hepgen_ml.errors import HepgenError, SampleError, UsageError
from hepgen_ml.events.conditions import parse_conditions, run_value, with_run_value
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training.encoded import encode_sample
from tests.scans import cross_section, header, labelled, pair_masses, point, up_share

SMALL = ["network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=6",
         "training.batch_size=256", "training.max_steps=60", "spline_flow.couplings=2",
         "spline_flow.width=16", "flow.steps=4", "flow.likelihood_steps=4"]  # fmt: skip
MASSES = (600, 800, 1200, 1400)


def trained(path: Path, source: object, *settings: str, **more: object) -> Generator:
    config = load_config(None, [*SMALL, *settings])
    Generator.train(source, out=path, config=config, device="cpu", **more)  # type: ignore[arg-type]
    return Generator.load(path, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("scan")
    found = []
    for mass in MASSES:
        found.append(place / f"{mass}.lhe")
        hepgen_ml.write(point(mass, 500, mass), found[-1])
    return found


@pytest.fixture(scope="module")
def generator(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Generator:
    out = tmp_path_factory.mktemp("model") / "m"
    return trained(out, files, "model=jetgpt", 'conditions=["mass:32"]')


def test_streams_at_several_conditions_do_not_mix(generator: Generator) -> None:
    """Each keeps its conditions, in whatever order they are begun and read."""
    light, heavy = (generator.stream(300, seed=1, condition={"mass:32": m}) for m in (650, 1300))
    generator.stream(300, seed=1)
    for stream, mass in ((light, 650), (heavy, 1300)):
        (events,) = stream
        assert abs(np.median(pair_masses(events)) / mass - 1) < 0.02
        assert float(run_value(events.run.header, "mass:32") or 0) == mass


def test_parameters_are_found_in_headers() -> None:
    text = header(800.0) + "\n 6500.0 = ebeam1 ! energy\nDECAY 32 2.5E+01\n# scan: tanb = 10\n"
    text += "<xqcut>20.0</xqcut>\nmodel T2tt = T2tt_600_50\n32:m0 = 810\n"
    assert run_value(text, "mass:32") == "8.000000E+02"
    assert run_value(text, "MASS:6") == "1.73E+02"
    assert run_value(text, "mass:1") is None  # of another block
    assert run_value(text, "decay:32") == "2.5E+01"
    assert run_value(text, "ebeam1") == "6500.0"
    assert run_value(text, "xqcut") == "20.0"
    assert run_value(text, "32:m0") == "810"
    changed = with_run_value(text, "mass:32", "9.0e+02")
    assert run_value(changed, "mass:32") == "9.0e+02"
    assert changed.replace("9.0e+02", "8.000000E+02") == text
    text += "BLOCK MASS2\n 1 2\n"
    for name in ("mass:32", "decay:32", "ebeam1", "xqcut", "32:m0"):
        changed = with_run_value(text, name, "77")
        assert run_value(changed, name) == "77"
        assert len(changed.splitlines()) == len(text.splitlines())
        without = with_run_value(text, name, None)
        assert run_value(without, name) is None
        for other in ("MASS:6", "xqcut", "mass2:1"):
            assert other == name or run_value(without, other) == run_value(text, other)
    assert with_run_value(text, "nothing", None) == text == with_run_value(text, "nothing", "1")
    decay = "DECAY 32 2.5\n 1.0 2 13 -13\nDECAY 6 1.5\n"
    assert with_run_value(decay, "decay:32", None) == "DECAY 6 1.5\n"


def test_headers_state_one_value_or_none(generator: Generator) -> None:
    """Not the first of the scan, which other programs and `log_prob` would believe."""
    for given in (None, {"mass:32": [700.0, 900.0]}):
        events = generator.sample(20, seed=1, condition=given)
        assert run_value(events.run.header, "mass:32") is None
        assert run_value(events.run.header, "mass:6") is not None
        events.attributes = {}
        with pytest.raises(SampleError, match="no value of the condition 'mass:32'"):
            generator.log_prob(events)


def test_unseen_mass_has_its_own_peak_rates_and_cross_section(generator: Generator) -> None:
    events = generator.sample(4000, seed=1, condition={"mass:32": 1000})
    mass = pair_masses(events)
    assert abs(np.median(mass) - 1000.0) < 6.0
    spread = np.quantile(mass, 0.75) - np.quantile(mass, 0.25)
    assert 20.0 < spread < 40.0  # 29 GeV of a width of 30
    assert set(events.attributes["mass_32"]) == {"1000"}
    up = (events.pdg_id.reshape(-1, 5)[:, :2].max(1) == 2).mean()
    assert abs(up - up_share(np.array(1000.0))) < 0.05
    assert events.run.cross_section == pytest.approx(cross_section(1000.0), rel=0.01)
    assert run_value(events.run.header, "mass:32") == "1.0000000000e+03"


def test_conditions_occur_as_in_the_sample_or_as_given(generator: Generator) -> None:
    events = generator.sample(2000, seed=2)
    found, counts = np.unique(events.attributes["mass_32"].astype(float), return_counts=True)
    assert found.tolist() == list(map(float, MASSES))
    assert (np.abs(counts - 500) < 100).all()
    values = np.linspace(600, 1400, 300)
    events = generator.sample(600, seed=2, condition={"mass:32": values})
    np.testing.assert_allclose(events.attributes["mass_32"].astype(float), np.tile(values, 2))
    assert abs(np.median(pair_masses(events) / np.tile(values, 2)) - 1) < 0.01


def test_events_go_through_files_with_their_conditions(
    generator: Generator, tmp_path: Path
) -> None:
    events = generator.sample(200, seed=3)
    before = generator.log_prob(events)
    assert np.isfinite(before).all()
    for name in ("a.lhe", "a.hepmc", "a.root"):
        hepgen_ml.write(events, tmp_path / name)
        again = hepgen_ml.read(tmp_path / name)
        assert again.attributes["mass_32"].tolist() == events.attributes["mass_32"].tolist(), name
        np.testing.assert_allclose(generator.log_prob(again), before, atol=1e-3)


def test_density_knows_its_condition(generator: Generator) -> None:
    own = point(800, 300, 5)
    right = generator.log_prob(own)
    own.attributes["mass_32"] = np.full(300, "1400")
    assert right.mean() > generator.log_prob(own).mean() + 2


def test_the_same_events_from_workers_and_shards(generator: Generator) -> None:
    given = {"mass:32": np.linspace(700, 1300, 137)}
    whole = generator.sample(300, seed=4, condition=given)
    parts = [
        chunk
        for i in range(2)
        for chunk in generator.stream(300, seed=4, shard=(i, 2), condition=given)
    ]
    np.testing.assert_array_equal(whole.px, np.concatenate([c.px for c in parts]))
    labels = np.concatenate([c.attributes["mass_32"] for c in parts])
    np.testing.assert_array_equal(whole.attributes["mass_32"], labels)


@pytest.mark.parametrize("model", ["spline-flow", "mlp-cfm", "ddpm", "gan", "transformer-cfm"])
def test_every_density_takes_conditions(model: str, files: list[Path], tmp_path: Path) -> None:
    generator = trained(tmp_path / "m", files, f"model={model}", 'conditions=["mass:32"]',
                        "training.max_steps=3")  # fmt: skip
    events = generator.sample(50, seed=1, condition={"mass:32": 1000})
    assert abs(np.median(pair_masses(events)) / 1000 - 1) < 0.1
    if model != "gan":
        assert np.isfinite(generator.log_prob(events)).all()


def test_attributes_continuous_and_categorical(tmp_path: Path) -> None:
    sample = labelled(2000)
    generator = trained(tmp_path / "m", sample, "model=jetgpt", 'conditions=["mass", "model"]')
    events = generator.sample(500, seed=1, condition={"mass": 900.0, "model": "light"})
    assert abs(np.median(pair_masses(events)) / 900 - 1) < 0.02
    assert set(events.attributes["model"]) == {"light"}
    drawn = generator.sample(500, seed=1)
    mass = drawn.attributes["mass"].astype(float)
    assert 600 <= mass.min() < 700 < 1300 < mass.max() <= 1400
    assert abs(np.median(pair_masses(drawn) / mass) - 1) < 0.02
    with pytest.raises(UsageError, match="not one of its categories"):
        generator.sample(5, condition={"mass": 900.0, "model": "other"})


def test_what_is_wrong_is_said(generator: Generator, caplog: pytest.LogCaptureFixture) -> None:
    for given, what in (
        ({"mas": 3}, "no condition 'mas'"), ({"mass:32": np.nan}, "nan"),
        ({"mass:32": ["700", "x"]}, "value 2: .*'x'"),
        ({"mass:32": [[1.0]]}, "one value"), ({"mass:32": "heavy"}, "not a finite number"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=what) as error:
            generator.sample(10, condition=given)  # type: ignore[arg-type]
        assert error.value.remedy or "one value" in what
    generator.sample(10, condition={"mass:32": 3000}, seed=1)
    assert "extrapolation" in caplog.text


def _changed(sample: EventSample, name: str, values: object) -> EventSample:
    sample.attributes[name] = np.asarray(values)
    return sample


def test_unusable_conditions_are_refused(files: list[Path]) -> None:
    sample = labelled(1200)
    for name, broken, what in (
        ("mass", _changed(labelled(1200), "mass", ["1.0"] * 1199 + [""]), "no value"),
        ("mass", _changed(labelled(1200), "mass", ["1.0"] * 1199 + ["nan"]), "nan"),
        ("mass", _changed(labelled(1200), "mass", ["1.0"] * 1200), "in all events"),
        ("tag", _changed(labelled(1200), "tag", [f"n{i}" for i in range(1200)]), "more than"),
        ("nothing", sample, "no value of the condition"),
    ):  # fmt: skip
        with pytest.raises(SampleError, match=what) as error:
            encode_sample(broken, conditions=parse_conditions([name]))
        assert error.value.remedy
    with pytest.raises(HepgenError, match="does not name a condition"):
        parse_conditions(["a=b"])


@pytest.mark.slow
def test_report_and_classifier_at_the_conditions_of_the_truth(
    generator: Generator, files: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from hepgen_ml.generation.reweighting import Options, reweight_model
    from hepgen_ml.validation.report import validate

    assert generator.directory is not None
    truth = []
    for mass in (600, 1000):
        truth.append(tmp_path / f"{mass}.lhe")
        hepgen_ml.write(point(mass, 800, mass + 7), truth[-1])
    options = Options(network="mlp", folds=2, seconds=2.0)
    done = reweight_model(generator.directory, truth, options, force=True)
    assert [c.name for c in done.reweighter.conditions] == ["mass:32"]
    weighted = Generator.load(generator.directory).sample(
        100, seed=1, weights="classifier", condition={"mass:32": 1000}
    )
    assert np.isfinite(weighted.weight).all()
    metrics = validate(truth, model=generator.directory, out=tmp_path / "report")
    assert metrics["generated"]["events"] == 1600
    described = dict(generator.describe()["understood"])
    assert described["conditions"].startswith("mass:32, values from 600 to 1400")
    assert "with the conditions" in described["resonances"]


def test_masses_that_a_condition_fixes(tmp_path: Path) -> None:
    samples = []
    for mass in (600.0, 900.0, 1400.0):
        sample = point(mass, 500, int(mass))
        # the muons stand for new particles of a quarter of the mass, without a row of the pair
        particles = dict(sample.particles)
        rows = np.abs(particles["pdg_id"]) == 13
        particles["mass"] = np.where(rows, mass / 4, particles["mass"])
        p2 = sum(particles[c] ** 2 for c in ("px", "py", "pz"))
        particles["energy"] = np.where(rows, np.sqrt(p2 + (mass / 4) ** 2), particles["energy"])
        pair = {c: particles[c].reshape(-1, 5)[:, 3:].sum(1) for c in ("pz", "energy")}
        for i, sign in ((0, 1), (1, -1)):
            e = (pair["energy"] + sign * pair["pz"]) / 2
            particles["energy"].reshape(-1, 5)[:, i] = e
            particles["pz"].reshape(-1, 5)[:, i] = sign * e
        keep = np.tile([True, True, False, True, True], 500)
        for i in (3, 4):
            particles["mother1"].reshape(-1, 5)[:, i] = 1
            particles["mother2"].reshape(-1, 5)[:, i] = 2
        columns = {name: values[keep] for name, values in particles.items()}
        samples.append(tmp_path / f"{mass:g}.lhe")
        made = EventSample(sample.run, 4 * np.arange(501), columns, sample.events)
        hepgen_ml.write(made, samples[-1])
    generator = trained(tmp_path / "m", samples, "model=jetgpt", 'conditions=["mass:32"]',
                        "training.max_steps=10")  # fmt: skip
    events = generator.sample(100, seed=1, condition={"mass:32": 1000.0})
    found = events.mass[np.abs(events.pdg_id) == 13]
    np.testing.assert_allclose(found, 250.0, rtol=1e-9)
    p = events.momentum[np.abs(events.pdg_id) == 13]
    np.testing.assert_allclose(p[:, 3] ** 2 - (p[:, :3] ** 2).sum(1), 250.0**2, rtol=1e-9)


class Recorded:
    """A shower program that keeps the partons that it is given."""

    def open(self, path: Path, run: RunInfo, *_: object) -> Recorded:
        self.run, self.chunks = run, list[EventSample]()
        path.touch()
        return self

    def shower(self, chunks: Iterator[EventSample], seeds: object) -> Iterator[int]:
        for chunk in chunks:
            self.chunks.append(chunk)
            yield len(chunk)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("given", ["mass:32=900", "masses.txt"])
def test_showers_at_conditions(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """The same events as without a shower, and the cross section of the point."""
    program = Recorded()
    monkeypatch.setattr("hepgen_ml.generation.showering.shower_program", lambda _: program)
    monkeypatch.setattr("hepgen_ml.generation.showering.CHUNK", 30)
    monkeypatch.chdir(tmp_path)
    Path("masses.txt").write_text("700\n900\n1200\n")
    arguments = ["shower", "--model", generator.directory, "-n", 100, "--seed", 4, "--workers", 1,
                 "--device", "cpu", "--condition", given, "--out", "a.hepmc"]  # fmt: skip
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    values = 900.0 if "=" in given else np.array([700.0, 900.0, 1200.0])
    events = generator.sample(100, seed=4, condition={"mass:32": values})
    np.testing.assert_array_equal(np.concatenate([c.px for c in program.chunks]), events.px)
    assert program.run == events.run
    assert f"{events.run.cross_section:.4g}"[:4] in done.output
