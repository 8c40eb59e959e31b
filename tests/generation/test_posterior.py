"""Posterior weights: their meaning, and what every format and its readers make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyhepmc
import pylhe
import pytest
import torch
import uproot
from torch import nn
from typer.testing import CliRunner

from hepgen_ml.cli import app
from hepgen_ml.config import load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.events.formats import read
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.networks.bayesian import posterior_draw, variational_layers
from tests.samples import toy_top_pairs

SETTINGS = ["network.width=32", "network.blocks=2", "network.heads=2", "network.mixtures=8",
            "training.batch_size=256", "training.max_steps=80"]  # fmt: skip
K = 4
NAMES = [f"posterior_{k}" for k in range(1, K + 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bayesian model whose draws differ visibly."""
    out = tmp_path_factory.mktemp("models") / "bayesian"
    config = load_config(None, [*SETTINGS, "jetgpt.bayesian=last", "jetgpt.order=['phi:*']"])
    generator = Generator.train(toy_top_pairs(2000), out=out, config=config, device="cpu")
    for layer in variational_layers(generator.surrogate):
        nn.init.constant_(layer.log_variance, -5.0)
    generator.save(out, force=True)
    return out


@pytest.fixture(scope="module")
def sample(model: Path) -> EventSample:
    return Generator.load(model, device="cpu").sample(3001, seed=1, posterior=K)


def test_weights_are_variations_around_the_nominal_one(sample: EventSample) -> None:
    assert list(sample.weights) == list(sample.run.weight_names) == NAMES
    w = np.stack(list(sample.weights.values())) / sample.weight
    assert w.shape == (K, 3001)
    assert np.allclose(w.mean(0), 1.0, atol=1e-12)
    assert (w > 0).all()
    assert 0.02 < w.std() < 1.0
    assert np.allclose(w.mean(1), 1.0, atol=5 * w.std() / np.sqrt(3001))


def test_posteriors_of_older_models_keep_their_least_width(model: Path, tmp_path: Path) -> None:
    """Models from before the bound was widened have the draws that they had."""
    generator, path = Generator.load(model, device="cpu"), tmp_path / "narrow"
    for layer in variational_layers(generator.surrogate):
        nn.init.constant_(layer.log_variance, -12.0)
    generator.save(path)

    def widths() -> set[float]:
        layers = variational_layers(Generator.load(path, device="cpu").surrogate)
        return {float(w) for layer in layers for w in layer.log_variance.detach().unique()}

    assert widths() == {-12.0}
    document = json.loads((path / "config.json").read_text())
    del document["least_log_variance"]
    (path / "config.json").write_text(json.dumps(document))
    assert widths() == {-11.0}


def test_weights_are_ratios_of_densities(model: Path) -> None:
    """Recomputed from the written events by `Generator.log_prob`, draw by draw."""
    generator = Generator.load(model, device="cpu")
    sample = generator.sample(300, seed=2, posterior=K)
    log_p = []
    for k in range(K):
        with posterior_draw(generator.surrogate.density, k):
            log_p.append(generator.log_prob(sample))
    p = np.exp(np.array(log_p) - np.max(log_p, axis=0))
    expected = p / p.mean(0)
    found = np.stack(list(sample.weights.values())) / sample.weight
    assert np.allclose(found, expected, rtol=2e-3)


def test_weighted_events_follow_their_draw(model: Path) -> None:
    """A histogram under posterior_k is that of events sampled from draw k alone."""
    generator = Generator.load(model, device="cpu")
    density, n = generator.surrogate.density, 20_000
    mixture = generator.sample(n, seed=3, posterior=K)
    encoded = generator.process.encode(mixture)
    channel = int(generator.process.channel_of.max())
    rows = generator.process.channel_of[encoded.subprocess] == channel
    width = len(density.layouts[channel])
    x = encoded.x[rows, :width].numpy()
    for k in range(K):
        w = mixture.weights[NAMES[k]][encoded.event[rows].numpy()] / mixture.weight[0]
        with posterior_draw(density, k):
            alone = generator.process.encode(generator.sample(n, seed=4))
        y = alone.x[generator.process.channel_of[alone.subprocess] == channel, :width].numpy()
        mean = (w[:, None] * x).sum(0) / w.sum()
        error = np.sqrt(((w[:, None] * (x - mean)) ** 2).sum(0) / w.sum() ** 2 + y.var(0) / len(y))
        assert np.abs((mean - y.mean(0)) / error).max() < 4.5
    # the variations are no decoration: some draw differs from the mixture by more than noise
    means = [np.average(x, axis=0, weights=mixture.weights[n][encoded.event[rows].numpy()])
             for n in NAMES]  # fmt: skip
    assert (np.ptp(means, axis=0) / (x.std(0) / np.sqrt(len(x)))).max() > 5


def test_draws_do_not_depend_on_process_chunk_or_shard(model: Path, sample: EventSample) -> None:
    again = Generator.load(model, device="cpu").sample(3001, seed=1, posterior=K)
    assert np.array_equal(again.weights["posterior_3"], sample.weights["posterior_3"])
    generator = Generator.load(model, device="cpu")
    chunks = [*generator.stream(23, seed=5, chunk=10, posterior=K)]
    assert [len(c) for c in chunks] == [10, 10, 3]
    assert all(list(c.weights) == NAMES for c in chunks)
    # the weights of given events are the same, however they were made
    from hepgen_ml.generation.posterior import weights

    encoded = generator.process.encode(sample[:50])
    w = weights(generator.surrogate.density, encoded.x, encoded.subprocess, K)
    assert np.allclose(w, np.stack([v[:50] for v in sample.weights.values()]) / 3.0, rtol=1e-4)


def test_no_posterior_means_an_error(model: Path) -> None:
    generator = Generator.load("ttbar01j", device="cpu")
    with pytest.raises(UsageError, match=r"not Bayesian.*jetgpt.bayesian=last"):
        generator.sample(10, posterior=5)
    with pytest.raises(UsageError, match="1 posterior draws are too few"):
        Generator.load(model, device="cpu").sample(10, posterior=1)
    arguments = [
        "generate",
        "-n",
        "10",
        "--model",
        "ttbar01j",
        "--posterior",
        "3",
        "--out",
        "x.lhe",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == UsageError.exit_code
    assert not Path("x.lhe").exists()


def test_sampling_without_posterior_uses_the_means(model: Path) -> None:
    generator = Generator.load(model, device="cpu")
    plain = generator.sample(200, seed=7)
    assert plain.weights == {}
    assert plain.run.weight_names == {}
    generator.sample(50, seed=1, posterior=K)
    assert np.array_equal(generator.sample(200, seed=7).px, plain.px)


@pytest.fixture(scope="module")
def files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("files")
    paths = {kind: place / f"events.{kind}" for kind in ("lhe", "hepmc", "root")}
    outputs = [word for path in paths.values() for word in ("--out", str(path))]
    arguments = [
        "generate",
        "-n",
        "60",
        "--seed",
        "1",
        "--posterior",
        str(K),
        "--model",
        str(model),
    ]
    result = CliRunner().invoke(app, [*arguments, *outputs])
    assert result.exit_code == 0, result.output
    return paths


@pytest.mark.parametrize("kind", ["lhe", "hepmc", "root"])
def test_own_reader(files: dict[str, Path], kind: str) -> None:
    reference, again = read(files["lhe"]), read(files[kind])
    assert list(again.weights) == NAMES
    assert again.run.weight_names["posterior_2"] == "posterior draw 2 of 4 of the surrogate"
    for name in NAMES:
        assert np.allclose(again.weights[name], reference.weights[name], rtol=1e-12)


def test_pylhe(files: dict[str, Path]) -> None:
    expected = read(files["lhe"])
    found = pylhe.LHEFile.fromfile(str(files["lhe"]))
    (group,) = found.header.initrwgt.entries
    assert (group.name, group.combine) == ("hepgen-ml posterior", "replicas")
    assert [w.id for w in group.weights] == NAMES
    events = list(found.events)
    assert len(events) == 60
    for i, event in enumerate(events):
        for name in NAMES:
            assert event.weights[name] == pytest.approx(expected.weights[name][i], rel=1e-12)


def test_pyhepmc(files: dict[str, Path]) -> None:
    expected = read(files["lhe"])
    with pyhepmc.open(str(files["hepmc"])) as file:
        events = list(file)
    assert len(events) == 60
    assert list(events[0].weight_names) == ["Default", *NAMES]
    for i, event in enumerate(events):
        assert event.weight("posterior_2") == pytest.approx(expected.weights["posterior_2"][i])
        for name in NAMES:
            assert event.cross_section.xsec(name) == pytest.approx(expected.run.cross_section)


def test_uproot(files: dict[str, Path]) -> None:
    expected = read(files["lhe"])
    with uproot.open(files["root"]) as file:
        for name in NAMES:
            assert np.allclose(file[f"Events/LHEWeight_{name}"].array(), expected.weights[name])


def test_pythia(files: dict[str, Path]) -> None:
    """Pythia knows the names and hands the ratios on."""
    pythia8mc = pytest.importorskip("pythia8mc")
    expected = read(files["lhe"])
    pythia = pythia8mc.Pythia("", False)
    for line in ("Print:quiet = on", "Beams:frameType = 4", f"Beams:LHEF = {files['lhe']}",
                 "HadronLevel:all = off", "PartonLevel:all = off"):  # fmt: skip
        assert pythia.readString(line)
    assert pythia.init()
    n = 0
    while pythia.next():
        info = pythia.infoPython()
        names = list(info.weightNameVector())
        values = dict(zip(names, info.weightValueVector(), strict=True))
        found = [value for name in NAMES for key, value in values.items() if key.endswith(name)]
        assert len(found) == K, names
        nominal = values[names[0]]
        ratio = [expected.weights[name][n] / expected.weight[n] for name in NAMES]
        assert np.allclose(np.array(found) / nominal, ratio, rtol=1e-6)
        n += 1
    assert n == 60


def test_torch_generator_is_untouched_by_draws(model: Path) -> None:
    generator = Generator.load(model, device="cpu")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    generator.sample(20, seed=1, posterior=2)
    assert torch.equal(state, torch.get_rng_state())
