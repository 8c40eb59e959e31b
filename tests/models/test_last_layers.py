"""Posteriors of last layers in the principal axes of the information of the events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hepgen_ml.config import load_config
from hepgen_ml.errors import ModelError
from hepgen_ml.files.provenance import file_hash
from hepgen_ml.files.tensors import load_tensors, save_tensors
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.last_layers import _some
from hepgen_ml.networks.bayesian import (
    Variational,
    expect_axes,
    perturbed,
    posterior_draw,
    variational_layers,
)
from hepgen_ml.networks.principal_axes import Watch
from hepgen_ml.process.encoded import Encoded
from tests.samples import toy_top_pairs

SETTINGS = ["model=spline-flow", "spline_flow.width=16", "spline_flow.couplings=2",
            "training.batch_size=128", "training.max_steps=5", "network.width=32",
            "network.blocks=1"]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hepgen_ml.models.last_layers._STEPS", 20)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "flow"
    config = load_config(None, [*SETTINGS, "spline_flow.bayesian=last"])
    Generator.train(toy_top_pairs(1000), out=out, config=config, device="cpu")
    return out


@pytest.mark.parametrize("outputs", [(), (3,)])
@pytest.mark.parametrize("separate", [False, True])
def test_posterior_is_that_of_a_linear_model(outputs: tuple[int, ...], separate: bool) -> None:
    """Independent along the axes is exact where inputs and derivatives are independent."""
    rng = torch.Generator().manual_seed(0)
    weights = Variational(torch.zeros(2, 4, *outputs), prior_std=2.0)
    biases = Variational(torch.zeros(2, *outputs), 2.0, weight=weights)
    n, k = 30_000, weights.matrices[2]
    mix, scale = torch.randn(4, 4, generator=rng), torch.randn(k, k, generator=rng)
    h = torch.randn(n, 4, generator=rng) @ mix + 2.0
    g = torch.randn(n, 2, k, generator=rng) @ scale
    weights.watch = Watch(*weights.matrices, weights.mean.device)
    for last in (False, True):
        if separate:  # inputs of their own for each matrix, which here are the same
            hidden = h.unsqueeze(1).expand(-1, 2, -1)
            out = torch.einsum("mdw,dw...->md...", hidden, weights.mean) + biases.mean
        else:
            hidden = h
            out = torch.einsum("mw,dw...->md...", hidden, weights.mean) + biases.mean
        assert perturbed(weights.eval(), hidden, out, [0, 1], torch.Tensor) is out
        out.backward(g.reshape(out.shape))
        if not last:
            weights.watch.rotate()
    # inputs that all matrices share have one sum of products
    assert len(weights.watch.inputs) == (2 if separate else 1)
    weights.axes = weights.watch.posterior(0.5, weights.prior_std)
    assert len(weights.axes.inputs) == (2 if separate else 1)
    one = torch.cat([h, torch.ones(n, 1)], 1)
    precision = 0.5 * torch.kron(one.t() @ one, g[:, 1].t() @ g[:, 1] / n) + 0.25 * torch.eye(5 * k)
    u, v = weights.axes.inputs[-1], weights.axes.outputs[1]
    axes = torch.kron(u, v)
    found = axes @ torch.diag(torch.exp(weights.axes.log_variance[1]).flatten()) @ axes.t()
    size = torch.sqrt(torch.diag(found))
    exact = torch.linalg.inv(precision.double()).float()
    assert torch.allclose(found / size / size[:, None], exact / size / size[:, None], atol=0.1)
    # draws of weights and biases are those of one posterior
    draws = torch.stack([
        torch.cat([weights.draw(i)[1].reshape(4, k), biases.draw(i)[1].reshape(1, k)]).flatten()
        for i in range(600)
    ])  # fmt: skip
    # and so is the noise of single events, for outputs of any inputs
    weights.train()
    spread = perturbed(weights, hidden[:1].expand(20_000, *hidden.shape[1:]),
                       torch.zeros(20_000, 2, *outputs), [0, 1], torch.Tensor)[:, 1]  # fmt: skip
    along = torch.kron(one[:1], torch.eye(k))
    covariance = torch.cov(spread.reshape(-1, k).t()).reshape(k, k)
    expected = along @ found @ along.t()
    assert torch.allclose(covariance, expected, rtol=0.1, atol=0.05 * float(expected.max()))
    assert torch.allclose(torch.cov(draws.t()) / size / size[:, None],
                          found / size / size[:, None], atol=0.2)  # fmt: skip


def test_draws_are_stored_with_the_model(model: Path, tmp_path: Path) -> None:
    first = Generator.load(model, device="cpu")
    density = first.surrogate.density
    maps = [layer for layer in variational_layers(density) if layer.axes is not None]
    assert len(maps) == 2
    z, labels = torch.randn(50, density.mean.shape[1]), torch.zeros(50, dtype=torch.int64)
    with torch.no_grad():
        found = density.log_prob_draws(z, labels, 3)
        mean = density.log_prob_z(z, labels)
    first.save(tmp_path / "again")
    other = Generator.load(tmp_path / "again", device="cpu").surrogate.density
    with torch.no_grad():
        assert torch.equal(other.log_prob_draws(z, labels, 3), found)
        assert torch.equal(other.log_prob_z(z, labels), mean)
    sample = first.sample(200, seed=1, posterior=3)
    assert np.isfinite(np.stack(list(sample.weights.values()))).all()


def test_posteriors_of_older_models_are_those_of_independent_weights(
    model: Path, tmp_path: Path
) -> None:
    """Models without axes have draws that depend on means and variances of each weight alone."""
    generator = Generator.load(model, device="cpu")
    for layer in variational_layers(generator.surrogate):
        layer.axes = None
    generator.save(tmp_path / "old")
    layers = variational_layers(Generator.load(tmp_path / "old", device="cpu").surrogate)
    for layer in layers:
        rng = np.random.default_rng(np.random.SeedSequence(int(layer.seed), spawn_key=(1,)))
        noise = torch.from_numpy(rng.standard_normal(tuple(layer.mean.shape), dtype=np.float32))
        expected = layer.mean + torch.exp(0.5 * layer.log_variance) * noise
        assert torch.allclose(layer.draw(1), expected)


@pytest.mark.parametrize("kind", ["stretched", "missing", "shape"])
def test_damaged_axes_are_refused(model: Path, tmp_path: Path, kind: str) -> None:
    Generator.load(model, device="cpu").save(tmp_path / "bad")
    path = tmp_path / "bad" / "model.safetensors"
    tensors, metadata = load_tensors(path)
    name = min(n for n in tensors if n.endswith(".axes.inputs"))
    if kind == "stretched":
        tensors[name] = 1.01 * tensors[name]
    elif kind == "shape":
        tensors[name] = torch.eye(3).unsqueeze(0)
    else:
        del tensors[name.replace(".inputs", ".log_variance")]
    save_tensors(path, tensors, metadata)
    document = json.loads((tmp_path / "bad" / "config.json").read_text())
    document["weights_sha256"] = file_hash(path)
    (tmp_path / "bad" / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="orthogonal" if kind == "stretched" else "axes"):
        Generator.load(tmp_path / "bad", device="cpu")


def test_widths_that_no_training_finds_are_limited(model: Path, tmp_path: Path) -> None:
    """Numbers of a stored model that overflow, although they are finite."""
    generator = Generator.load(model, device="cpu")
    for layer in variational_layers(generator.surrogate):
        if layer.axes is not None:
            layer.axes.log_variance.fill_(1000.0)
    generator.save(tmp_path / "wide")
    for layer in variational_layers(Generator.load(tmp_path / "wide", device="cpu").surrogate):
        assert bool(layer.draw(0).isfinite().all())


def test_axes_take_no_memory_before_all_of_them_are_found() -> None:
    weights = Variational(torch.zeros(2, 4, 3))
    shapes = {"inputs": (1, 5, 5), "outputs": (2, 3, 3), "log_variance": (2, 5, 3)}
    stored = {f"map.axes.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    module = nn.ModuleDict({"map": weights})
    expect_axes(module, {n: t for n, t in stored.items() if not n.endswith("outputs")})
    assert weights.axes is None
    expect_axes(module, stored)
    assert weights.axes is not None


@pytest.mark.parametrize(("n", "each"), [(1, 50_000), (3, 9_000), (900, 200)])
def test_events_for_the_information_are_limited(n: int, each: int) -> None:
    """Of hundreds of subprocesses, too, and they stand for all events of each."""
    number = torch.arange(n).repeat(each)
    x, weight = torch.zeros(len(number), 1), torch.ones(len(number))
    events = Encoded(x, number, number, number, x, weight, x, number)
    rows, factor = _some(events, seed=0)
    assert 19_000 < len(rows) < 41_000
    assert len(torch.unique(rows)) == len(rows)
    sums = torch.bincount(number[rows], factor)
    assert torch.allclose(sums, torch.full_like(sums, float(each)))


def test_members_of_an_ensemble_have_axes_of_their_own(tmp_path: Path) -> None:
    config = load_config(None, [*SETTINGS, "spline_flow.bayesian=last", "network.ensemble=2"])
    out = tmp_path / "two"
    density = Generator.train(
        toy_top_pairs(1000), out=out, config=config, device="cpu"
    ).surrogate.density
    axes = [layer.axes for layer in variational_layers(density) if layer.axes is not None]
    assert len(axes) == 4
    assert not torch.equal(axes[0].inputs, axes[2].inputs)
    # information is that of all events: far from that of one
    assert min(float(a.log_variance.min()) for a in axes) < -5
    with posterior_draw(density, 1):
        assert isinstance(density, nn.Module)


def test_posteriors_of_all_layers_stay_those_of_the_training(tmp_path: Path) -> None:
    config = load_config(None, [*SETTINGS, "spline_flow.bayesian=all"])
    generator = Generator.train(
        toy_top_pairs(1000), out=tmp_path / "all", config=config, device="cpu"
    )
    assert all(layer.axes is None for layer in variational_layers(generator.surrogate))
