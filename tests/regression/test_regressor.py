"""Numbers of events learned by networks: accuracy, pulls, files, and what is wrong with inputs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from typer.testing import CliRunner

from hepgen_ml import Regressor
from hepgen_ml.cli import app
from hepgen_ml.errors import InputError, SampleError, UsageError
from hepgen_ml.events.formats import read, write
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.regression.calibration import Calibration, pull_widths
from hepgen_ml.regression.model import Settings
from hepgen_ml.regression.point_files import read_npz, training_sample
from hepgen_ml.regression.targets import Target
from tests.regression.amplitudes import FEW, points, z_plus_jet
from tests.samples import toy_top_pairs


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["regress", *map(str, arguments)])
    return result.exit_code, result.stdout + result.stderr


def with_ratio(n: int, seed: int = 0) -> EventSample:
    """Top pairs with a named weight that is a function of the event."""
    sample = toy_top_pairs(n, seed)
    energy = sample.energy[sample.offsets[:-1]] + sample.energy[sample.offsets[:-1] + 1]
    ratio = (energy / 600) ** 0.7 * (1 + 0.1 * sample.process_id)
    return EventSample(
        sample.run.with_(weight_names={"other": "another model"}), sample.offsets,
        sample.particles, sample.events, weights={"other": ratio * sample.weight},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "sizes", "steps"),
    [
        ("mlp", {}, 4000),
        ("lgatr", {"channels": 8, "scalars": 16, "blocks": 2, "heads": 4}, 800),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_amplitudes_are_learned_with_uncertainties_that_fit(
    tmp_path: Path, network: str, sizes: dict[str, int], steps: int
) -> None:
    sample, columns = read_npz(points(tmp_path, 20_000))
    settings = Settings(network, sizes, max_steps=steps, batch_size=128)
    made = Regressor.fit(sample, columns["amplitude"], settings)
    truth, amplitude = read_npz(points(tmp_path, 5_000, 1))[0], z_plus_jet(5_000, 1)[1]
    value, sigma = made.predict(truth)
    assert np.median(np.abs(value / amplitude - 1)) < 0.05
    pull = np.log(value / amplitude) / np.log1p(sigma / value)
    assert 0.7 < np.sqrt(np.mean(pull**2)) < 1.4


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "likelihood"}, {"members": 2}, {"bayesian": True},
    ],
)  # fmt: skip
def test_a_regression_learns_and_is_stored(tmp_path: Path, settings: dict[str, Any]) -> None:
    sample, columns = read_npz(points(tmp_path, 3000))
    few = Settings(FEW.network, FEW.sizes, max_steps=150, batch_size=128, **settings)
    made = Regressor.fit(sample, columns["amplitude"], few)
    assert made.facts["mse"] < 0.6  # of a target of variance one
    assert 0.8 < made.facts["pull_width"] < 1.25
    value, sigma = made.predict(sample[:100])
    assert (sigma > 0).all()
    assert np.corrcoef(np.log(value), np.log(columns["amplitude"][:100]))[0, 1] > 0.7
    made.save(tmp_path / "out")
    again = Regressor.load(tmp_path / "out").predict(sample[:100])
    np.testing.assert_array_equal(value, again.value)
    np.testing.assert_array_equal(sigma, again.uncertainty)


def test_predictions_know_no_order_of_particles_in_the_file(tmp_path: Path) -> None:
    sample, columns = read_npz(points(tmp_path, 300))
    made = Regressor.fit(sample, columns["amplitude"], FEW)
    order = np.argsort(np.random.default_rng(1).random((300, 4)), axis=1)
    order = order + sample.offsets[:-1, None]
    shuffled = EventSample(
        sample.run, sample.offsets, {k: v[order.ravel()] for k, v in sample.particles.items()}
    )
    assert np.array_equal(made.predict(sample).value, made.predict(shuffled).value)


def test_uncertainties_are_calibrated_by_size() -> None:
    rng = np.random.default_rng(1)
    truth, sigma = rng.normal(size=20_000), np.exp(rng.normal(-3, 0.3, 20_000))
    mean = truth + sigma * np.exp(0.4 * truth) * rng.normal(size=20_000)
    found = Calibration.of(mean, sigma, truth)(mean, sigma)
    width, by_quantile = pull_widths(mean, found, truth)
    assert abs(width - 1) < 0.02
    assert all(abs(w - 1) < 0.1 for w in by_quantile)


def test_files_in_and_out(tmp_path: Path) -> None:
    """Two commands; a weight of LHE, a column of ROOT, arrays; and what a file says."""
    write(with_ratio(400), tmp_path / "a.lhe")
    options = ("--size", "width=16", "--size", "layers=2", "--max-time", "1s", "--device", "cpu")
    code, text = invoke("--from", tmp_path / "a.lhe", "--target", "other", *options,
                        "--out", tmp_path / "model")  # fmt: skip
    assert code == 0, text
    assert "pulls of width" in text
    write(toy_top_pairs(50, 3), tmp_path / "b.lhe")
    code, text = invoke("--model", tmp_path / "model", "--predict", tmp_path / "b.lhe",
                        "--out", tmp_path / "c.npz")  # fmt: skip
    assert code == 0, text
    with np.load(tmp_path / "c.npz") as found:
        value, sigma = found["value"], found["uncertainty"]
    assert value.shape == sigma.shape == (50,)
    code, text = invoke("--model", tmp_path / "model", "--predict", tmp_path / "b.lhe",
                        "--out", tmp_path / "d.lhe")  # fmt: skip
    assert code == 0, text
    events = read(tmp_path / "d.lhe")
    np.testing.assert_allclose(events.weights["other"] / events.weight, value, rtol=1e-5)
    assert '<weight id="other">' in events.run.weight_groups
    told = CliRunner().invoke(app, ["info", str(tmp_path / "model")])
    assert told.exit_code == 0, told.output
    for said in ("deep-sets", "other, over the nominal weight", "scale", "median error", "pulls"):
        assert said in told.output
    told = CliRunner().invoke(app, ["info", str(tmp_path / "model"), "--json"])
    found = json.loads(told.stdout)
    assert (found["kind"], found["target"]["name"]) == ("regression", "other")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "regression.json").write_text("{}")
    told = CliRunner().invoke(app, ["info", str(tmp_path / "begun")])
    assert "unfinished training (continue with `hepgen-ml regress --resume`" in told.stderr


def test_a_column_of_root_is_learned(tmp_path: Path) -> None:
    path = tmp_path / "a.root"
    sample = with_ratio(300)
    write(sample, path)
    amplitude = sample.weights["other"] / sample.weight
    with uproot.open(path) as file:
        arrays = file["Events"].arrays(library="ak", how=dict)
    groups = {k[8:]: v for k, v in arrays.items() if k.startswith("LHEPart_")}
    with uproot.recreate(tmp_path / "b.root") as file:
        data = {"LHEPart": ak.zip(groups), "genWeight": arrays["genWeight"], "amplitude": amplitude}
        file.mktree("Events", {k: ak.type(ak.Array(v)).content for k, v in data.items()})
        file["Events"].extend(data)
    found, learned = training_sample(tmp_path / "b.root", "amplitude", max_events=250)
    assert len(found) == 250
    np.testing.assert_array_equal(learned.values, amplitude[:250])
    with pytest.raises(InputError, match="amplitude, genWeight"):
        training_sample(tmp_path / "b.root", "amplitudes")
    with pytest.raises(InputError, match="lists"):
        training_sample(tmp_path / "b.root", "LHEPart_pt")


def test_inputs_that_cannot_be_learned_are_said_in_one_line(tmp_path: Path) -> None:
    _, amplitude = z_plus_jet(300)
    nan, zero = amplitude.copy(), amplitude.copy()
    nan[7], zero[3] = np.nan, 0.0
    out = ("--out", tmp_path / "out", "--max-time", "1s")
    for seed, (column, options, code, said) in enumerate((
        (amplitude, ("--target", "amp"), 2, "has no column 'amp' (it has amplitude)"),
        (nan, (), 4, "event 8: the target 'amplitude' is nan (1 such events)"),
        (np.ones(300), (), 4, "is 1 in all events: there is nothing to learn"),
        (zero, ("--log",), 4, "event 4: the target 'amplitude' is 0, which has no logarithm"),
        (amplitude, ("--network", "cnn"), 2, "the network 'cnn' is not known (take mlp, deep-sets"),
        (amplitude, ("--size", "blocks=2"), 2, "is not a size of deep-sets"),
        (amplitude, ("--size", "width=9999"), 2, "at most 4096"),
    )):  # fmt: skip
        path = points(tmp_path, 300, seed, amplitude=column)
        options = options if "--target" in options else ("--target", "amplitude", *options)
        found, text = invoke("--from", path, *options, *out)
        assert (found, text.count("\n")) == (code, 1), text
        assert said in text
        assert not (tmp_path / "out").exists()
    write(with_ratio(300), tmp_path / "a.lhe")
    code, text = invoke("--from", tmp_path / "a.lhe", "--target", "odd", *out)
    assert (code, "no weight 'odd' (there are other, weight)" in text) == (2, True), text
    assert invoke("--from", tmp_path / "a.lhe", "--predict", "x", *out)[0] == 2
    sample, _ = read_npz(path)
    with pytest.raises(UsageError, match="one number for each event"):
        Regressor.fit(sample, amplitude[:-1], FEW)
    with pytest.raises(SampleError, match="needs 200"):
        Regressor.fit(sample[:100], amplitude[:100], FEW)


@pytest.mark.parametrize(
    "given", ["--resume", "--log", "--no-log", "--bayesian", "--events=5", "-n 5", "--seed=0",
              "--ensemble=2", "--network=mlp", "--size=width=16", "--loss=mse", "--max-time=1s"]
)  # fmt: skip
def test_options_of_the_training_are_refused_at_predictions(tmp_path: Path, given: str) -> None:
    """They were ignored; even where they say the default."""
    code, text = invoke("--model", tmp_path / "m", "--predict", tmp_path / "b.lhe",
                        "--out", tmp_path / "c.npz", *given.split())  # fmt: skip
    assert (code, text.count("\n")) == (2, 1), text
    assert "is an option of the training and cannot be used with --predict" in text


def test_other_events_than_trained_are_refused(tmp_path: Path) -> None:
    sample, columns = read_npz(points(tmp_path, 300))
    Regressor.fit(sample, columns["amplitude"], FEW).save(tmp_path / "model")
    photon = points(tmp_path, 300, 1, pdg_id=np.array([2, -2, 22, 23]))
    code, text = invoke("--model", tmp_path / "model", "--predict", photon,
                        "--out", tmp_path / "o.npz")  # fmt: skip
    assert (code, text.count("\n")) == (4, 1)
    assert (
        "event 1: the particles are u u~ > gamma Z0, the regression was trained on u u~ > g Z0"
        in text
    )
    lost = points(tmp_path, 300, 2, pdg_id=np.array([2, -2, 21, 0]))
    made = Regressor.load(tmp_path / "model")
    with pytest.raises(SampleError, match="event 1"):
        made.predict(read_npz(lost)[0])
    assert not (tmp_path / "o.npz").exists()
    mixed = sample[:6]  # the first of all others, whatever their particles
    mixed.particles["pdg_id"][mixed.offsets[3] + 2] = 22
    mixed.particles["pdg_id"][mixed.offsets[4] + 2] = 1
    with pytest.raises(SampleError, match=r"event 4: .*gamma Z0"):
        made.predict(mixed)


def test_several_multiplicities_and_scales_are_learned_together() -> None:
    sample = with_ratio(400)
    made = Regressor.fit(sample, "other", Settings("transformer", {"width": 16, "blocks": 1},
                                                   max_steps=20, batch_size=64))  # fmt: skip
    assert made.encoder.columns == ("scale", "alpha_qcd")
    assert {len(s) for s in made.encoder.signatures} == {4, 5}
    assert made.predict(sample[:7]).value.shape == (7,)
    lost = EventSample(sample.run, sample.offsets, sample.particles)
    with pytest.raises(SampleError, match="have no scale"):
        made.predict(lost)


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good, _ = z_plus_jet(5)
    path = tmp_path / "a.npz"
    for change, said in (
        ({"momenta": good["momenta"][..., :3]}, "momenta is of shape"),
        ({"pdg_id": np.array([1.0, 2, 3, 4])}, "pdg_id is not integers"),
        ({"status": np.array([2, -1, 1, 1])}, "status has other numbers"),
        ({"momenta": np.array([None] * 5)}, "momenta is missing"),
        ({"momenta": good["momenta"][..., [3, 0, 1, 2]]}, "event 1: a particle has the energy"),
        ({"momenta": good["momenta"] * [1, 1, 1, -1]}, "event 1: a particle has the energy -"),
    ):
        np.savez(path, **{**good, **change})
        with pytest.raises(InputError, match=said):
            read_npz(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(path)
    np.savez(path, **good)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(path)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 4, 4), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("momenta.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
                         + header)  # fmt: skip
    with pytest.raises(InputError, match="momenta is missing"):
        read_npz(path)


def test_an_empty_run_has_no_weight_but_its_own() -> None:
    sample = EventSample(RunInfo(), [0, 1], {k: [1.0] for k in ("px", "py", "pz", "energy")})
    with pytest.raises(SampleError, match="no particle ids"):
        Regressor.fit(sample[np.zeros(300, dtype=int)], np.arange(300.0), FEW)


@pytest.mark.parametrize("change", ["huge", "tiny", "spread", "zeros", "signs"])
def test_numbers_of_any_size_are_learned(tmp_path: Path, change: str) -> None:
    sample, columns = read_npz(points(tmp_path, 300))
    rng, a = np.random.default_rng(0), columns["amplitude"]
    target = {
        "huge": a * (1e307 / a.max()), "tiny": a * (1e-305 / a.max()),
        "spread": 10.0 ** rng.uniform(-300, 300, 300), "zeros": np.where(a > 20, a, 0.0),
        "signs": a * rng.choice([-1, 1], 300),
    }[change]  # fmt: skip
    few = Settings("deep-sets", {"width": 8, "layers": 2}, max_steps=5, batch_size=64)
    made = Regressor.fit(sample, target, few)
    made.save(tmp_path / "m")
    value, sigma = Regressor.load(tmp_path / "m").predict(sample)
    assert np.isfinite([value, sigma]).all()
    assert (sigma >= 0).all()
    if change in ("huge", "tiny"):
        assert 0.3 < np.median(value / target) < 3


def test_numbers_that_are_none_are_said(tmp_path: Path) -> None:
    arrays, a = z_plus_jet(300)
    sample, _ = read_npz(points(tmp_path, 300))
    for target, error, said in (
        (a * 1j, UsageError, "the target has the type"),
        (a.astype(str), UsageError, "the target has the type"),
        (-a * (1e307 / a.max()), SampleError, "in other units"),
        (-a * (1e-305 / a.max()), SampleError, "in other units"),
    ):
        with pytest.raises(error, match=said):
            Regressor.fit(sample, target, FEW)
    path = tmp_path / "b.npz"
    for target in (a[:-1], np.array([object()] * 300), a[:, None]):
        np.savez(path, **arrays, amplitude=target)
        with pytest.raises(UsageError, match="not one real number for each of 300 events"):
            training_sample(path, "amplitude")


def test_an_event_against_which_all_others_are_small_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a = np.linspace(-1, 1, 300)
    Target.of(a, "t", "values")
    assert not caplog.text
    a[7] = 1e30
    Target.of(a, "t", "values")
    assert "event 8 alone, where the target 't' is 1e+30, is 99.7 % of its squared" in caplog.text


@pytest.mark.parametrize("out", ["p.npz", "p.lhe"])
def test_a_file_without_events_cannot_be_predicted(tmp_path: Path, out: str) -> None:
    sample = with_ratio(300)
    write(sample, tmp_path / "some.lhe")
    text = (tmp_path / "some.lhe").read_text()
    (tmp_path / "none.lhe").write_text(
        text[: text.index("<event>")] + "</LesHouchesEvents>\n", encoding="utf-8"
    )
    few = Settings("deep-sets", {"width": 8, "layers": 2}, max_steps=2, batch_size=64)
    Regressor.fit(sample, "other", few).save(tmp_path / "m")
    code, said = invoke(
        "--model", tmp_path / "m", "--predict", tmp_path / "none.lhe", "--out", tmp_path / out
    )
    assert code == 3, said
    assert "holds no events" in said
    assert not (tmp_path / out).exists()
