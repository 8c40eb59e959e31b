"""Variational weights: divergence, noise, draws, and how models and training treat them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hepgen_ml.config import load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.networks.bayesian import (
    BayesianLinear,
    Variational,
    kl_divergence,
    make_bayesian,
    posterior_draw,
    variational_layers,
)
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.training.surrogate_task import SurrogateTask
from hepgen_ml.training.trainer import Trainer
from tests.samples import learned, toy_top_pairs

SMALL = ["network.width=32", "network.blocks=2", "network.mixtures=8", "network.heads=2"]


@pytest.fixture(scope="module")
def process() -> Process:
    return learned(toy_top_pairs(1500))


@pytest.fixture(scope="module")
def encoded(process: Process) -> Encoded:
    return process.encode(toy_top_pairs(1500))


def build(process: Process, encoded: Encoded, *more: str, spread: float = -4.0) -> Surrogate:
    torch.manual_seed(0)
    surrogate = Surrogate(process, load_config(None, [*SMALL, *more]))
    surrogate.fit_standardization(encoded)
    for layer in variational_layers(surrogate):
        nn.init.constant_(layer.log_variance, spread)
    return surrogate.eval()


def test_divergence_is_that_of_torch() -> None:
    torch.manual_seed(0)
    layer = BayesianLinear(nn.Linear(5, 3), prior_std=0.7)
    nn.init.normal_(layer.log_variance, -2.0, 1.5)
    expected = 0.0
    for part in (layer, layer.offset):
        q = torch.distributions.Normal(part.mean, torch.exp(0.5 * part.log_variance))
        p = torch.distributions.Normal(0.0, torch.tensor(0.7))
        expected += torch.distributions.kl_divergence(q, p).sum().item()
    assert kl_divergence(layer).item() == pytest.approx(expected, rel=1e-5)
    assert kl_divergence(nn.Sequential(layer, layer, nn.Linear(2, 2))) == kl_divergence(layer)
    assert kl_divergence(nn.Linear(2, 2)) == 0.0
    used = torch.tensor([[True, False], [True, True]])
    half = Variational(torch.ones(2, 2), 1.0, used)
    assert half.kl().item() == pytest.approx(0.75 * Variational(torch.ones(2, 2)).kl().item())


def test_noise_has_the_variance_of_the_posterior() -> None:
    torch.manual_seed(0)
    layer = BayesianLinear(nn.Linear(6, 2))
    nn.init.constant_(layer.log_variance, -1.0)
    x = torch.randn(1, 6).expand(50_000, -1)
    nn.init.constant_(layer.offset.log_variance, 0.0)
    out = layer(x)
    expected = 1.0 + math.exp(-1.0) * float((x[0] ** 2).sum())
    assert out.var(0).detach().numpy() == pytest.approx(expected, rel=0.03)
    assert torch.allclose(out.mean(0), layer.eval()(x[0]), atol=0.04)
    out.sum().backward()
    assert layer.log_variance.grad.abs().min() > 0
    # without inputs and biases there is no noise, and the gradient is finite
    layer.offset = None
    layer.train()(torch.zeros(3, 6)).sum().backward()
    assert torch.isfinite(layer.log_variance.grad).all()


@pytest.mark.parametrize("n", [100, 1_000_000])
def test_posterior_has_the_width_that_the_events_leave(n: int) -> None:
    """That of a mean of Gaussian events, of any number of them."""
    layer = Variational(torch.zeros(1))
    optimizer = torch.optim.Adam([layer.log_variance], 0.1)
    for _ in range(700):
        loss = (0.5 * layer.variance + layer.kl() / n).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.variance.item() == pytest.approx(1 / n, rel=0.1)


def test_draws_are_functions_of_the_stored_seed() -> None:
    torch.manual_seed(0)
    layer = BayesianLinear(nn.Linear(40, 50)).eval()
    nn.init.constant_(layer.log_variance, -2.0)
    module, x = nn.Sequential(layer), torch.randn(7, 40)
    mean = module(x)
    with posterior_draw(module, 3):
        third = module(x)
        with posterior_draw(module, 4):
            assert not torch.allclose(module(x), third)
        assert torch.equal(module(x), third)
        with posterior_draw(module, None):
            assert torch.equal(module(x), mean)
        pull = (layer.weight - layer.mean) / math.exp(-1.0)
    assert torch.equal(module(x), mean)
    assert abs(pull.mean().item()) < 0.1
    assert pull.std().item() == pytest.approx(1.0, abs=0.1)
    other = BayesianLinear(nn.Linear(40, 50)).eval()
    other.load_state_dict(layer.state_dict())
    with posterior_draw(other, 3):
        assert torch.equal(other(x), third)


def test_replaced_maps_are_the_same_function() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 2)))
    x = torch.randn(3, 4)
    before = network(x)
    make_bayesian(network)
    assert len(variational_layers(network)) == 4
    assert torch.equal(network.eval()(x), before)


@pytest.mark.parametrize("which", ["last", "all"])
@pytest.mark.parametrize("density", ["mixtures", "bins"])
def test_samples_of_a_draw_follow_its_density(
    process: Process, encoded: Encoded, which: str, density: str
) -> None:
    """Sampling with its cache and the parallel pass use the same drawn weights."""
    order = ["jetgpt.order=['phi:*','rapidity:*']", f"jetgpt.density={density}"]
    model = build(process, encoded, f"jetgpt.bayesian={which}", *order).density
    z = model.prepare(encoded.x, encoded.subprocess)[:200]
    subprocess = encoded.subprocess[:200]
    with torch.no_grad():
        together = model.log_prob_draws(z, subprocess, 3)
        mean = model.log_prob_z(z, subprocess)
    for k in range(3):
        with posterior_draw(model, k), torch.no_grad():
            assert torch.allclose(model.log_prob_z(z, subprocess), together[k], atol=1e-4)
        assert (together[k] - mean).abs().mean() > 1e-3
    # importance sampling: the mean of p_1/p_0 over events of draw 0 is one
    many = torch.full((20_000,), int(subprocess[0]))
    with posterior_draw(model, 0):
        x = model.sample_z(many, torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second, _ = model.log_prob_draws(x, many, 3)
    ratio = torch.exp(second - first).clamp_max(100.0)
    assert abs(ratio.mean().item() - 1) < 5 * float(ratio.std()) / math.sqrt(len(ratio))


def test_order_changes_the_factors_and_not_the_columns(process: Process, encoded: Encoded) -> None:
    model = build(process, encoded, "jetgpt.order=['phi:*','*rapidity*']").density
    layout = [c.name for c in model.layouts[-1]]
    inside = [layout[i] for i in model.order[-1]]
    assert inside[0].startswith("phi:")
    assert sorted(inside) == sorted(layout)
    row = torch.nonzero(process.channel_of[encoded.subprocess] == len(model.layouts) - 1)[0]
    z = model.prepare(encoded.x[row], encoded.subprocess[row]).expand(2, -1).clone()
    first = layout.index(inside[0])
    z[1, first] += 0.5
    parameters = model.parameters_of(z, encoded.subprocess[row].expand(2), len(model.layouts) - 1)
    changed = (parameters[0] - parameters[1]).abs().amax(-1) > 1e-6
    assert [layout[i] for i in torch.nonzero(~changed).flatten()] == [inside[0]]
    x = model.sample(encoded.subprocess, torch.Generator().manual_seed(0))
    angle = layout.index(inside[0])
    rows = process.channel_of[encoded.subprocess] == len(model.layouts) - 1
    assert x[rows, angle].abs().max() <= math.pi


def test_loss_contains_the_divergence_while_training(process: Process, encoded: Encoded) -> None:
    model = build(process, encoded, "jetgpt.bayesian=last", spread=-11.0).density
    model.n_training = 500
    z, one = model.prepare(encoded.x, encoded.subprocess), torch.ones(len(encoded))
    with torch.no_grad():
        quiet = model.loss(z, encoded.subprocess, one)
        loud = model.train().loss(z, encoded.subprocess, one)
    assert (loud - quiet).item() == pytest.approx(kl_divergence(model).item() / 500, rel=0.02)


def test_training_events_and_weight_decay(
    process: Process, encoded: Encoded, tmp_path: Path
) -> None:
    surrogate = build(process, encoded, "jetgpt.bayesian=all", spread=-9.0)
    config = load_config(None, ["training.batch_size=64", "training.max_steps=2"]).training
    task = SurrogateTask(surrogate, encoded, encoded[:50], n_events=700, device=torch.device("cpu"))
    trainer = Trainer(task, config, seed=1, directory=tmp_path)
    assert surrogate.density.n_training == 700
    prior = {id(p) for layer in variational_layers(surrogate) for p in layer.parameters()}
    decayed = [p for g in trainer.optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert decayed
    assert not prior & {id(p) for p in decayed}
    every = [id(p) for g in trainer.optimizer.param_groups for p in g["params"]]
    assert sorted(every) == sorted(id(p) for p in surrogate.parameters())
    trainer.run()
    assert all(np.isfinite(row["validation_loss"]) for row in trainer.history.rows)


def test_mirror_images_are_no_events(tmp_path: Path) -> None:
    config = load_config(None, [*SMALL, "jetgpt.bayesian=last", "training.max_steps=2"])
    generator = Generator.train(toy_top_pairs(1200), out=tmp_path / "m", config=config)
    facts = generator.facts
    assert generator.surrogate.density.n_training == facts["events"] - facts["validation_events"]


def test_resumed_training_is_the_same(process: Process, encoded: Encoded, tmp_path: Path) -> None:
    """Noise, averages and the state of the optimiser go on where they stopped."""
    overrides = ["training.batch_size=64", "training.max_steps=20", "training.max_epochs=1e6",
                 "training.max_time=1e6"]  # fmt: skip
    config = load_config(None, overrides).training

    def trainer(directory: Path) -> Trainer[SurrogateTask]:
        surrogate = build(process, encoded, "jetgpt.bayesian=all", spread=-9.0).train()
        directory.mkdir(exist_ok=True)
        task = SurrogateTask(surrogate, encoded, encoded[:50], device=torch.device("cpu"))
        return Trainer(task, config, seed=1, directory=directory)

    whole, begun = trainer(tmp_path / "a"), trainer(tmp_path / "b")
    whole.run()
    for _ in range(8):
        begun._one_step()
        begun.step += 1
    begun.save()
    resumed = trainer(tmp_path / "b")
    assert resumed.resume()
    resumed.run()
    for name, p in whole.task.module.state_dict().items():
        assert torch.allclose(p, resumed.task.module.state_dict()[name], atol=1e-6), name
    widths = [layer.log_variance for layer in variational_layers(whole.task.module)]
    assert any((w + 9.0).abs().max() > 0.005 for w in widths)


FLOWS = {"spline-flow": "spline_flow", "mlp-cfm": "flow", "transformer-cfm": "flow", "ddpm": "ddpm"}
FAST = ["spline_flow.couplings=2", "spline_flow.width=16", "flow.likelihood_steps=3",
        "ddpm.likelihood_steps=3"]  # fmt: skip


@pytest.mark.parametrize("model", FLOWS)
@pytest.mark.parametrize("how", ["last", "all"])
def test_flows_have_posteriors_too(
    model: str, how: str, process: Process, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    settings = f"model={model}", f"{FLOWS[model]}.bayesian={how}", *FAST
    density = build(process, encoded, *settings).density
    n_linear = sum(isinstance(m, BayesianLinear) for m in density.modules())
    assert density.bayesian
    assert (n_linear > 0) == (how == "all")
    z = density.prepare(encoded.x, encoded.subprocess)
    some, sub, weight = z[:64], encoded.subprocess[:64], torch.ones(64)
    # noise while training only, and the divergence over the number of events
    density.n_training = 10**12
    with torch.no_grad():
        assert density.loss(some, sub, weight) == density.loss(some, sub, weight)
        density.train()
        torch.manual_seed(1)
        free = density.loss(some, sub, weight)
        density.n_training = 100
        torch.manual_seed(1)
        bound = density.loss(some, sub, weight)
        divergence = kl_divergence(density)
    assert float(bound - free) == pytest.approx(float(divergence) / 100, rel=1e-3)
    density.loss(some, sub, weight).backward()
    for layer in variational_layers(density):
        assert layer.log_variance.grad is not None
        assert layer.log_variance.grad.isfinite().all()
    density.eval()
    # draws are densities of their own, from which events are drawn
    log_p = density.log_prob_draws(some[:8], sub[:8], 2)
    assert (log_p[0] != log_p[1]).any()
    with posterior_draw(density, 0):
        assert torch.equal(density.log_prob_z(some[:8], sub[:8]), log_p[0])
        drawn = density.sample_z(sub, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn, density.sample_z(sub, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("model", ["lgatr-cfm", "ddpm-gatr"])
def test_equivariant_networks_have_none_and_say_so(
    model: str, process: Process, encoded: Encoded
) -> None:
    section = "ddpm" if "ddpm" in model else "flow"
    with pytest.raises(UsageError, match="no Bayesian weights"):
        build(process, encoded, f"model={model}", f"{section}.bayesian=last")


def test_bounds_of_flows_are_the_evidence_of_events(process: Process, encoded: Encoded) -> None:
    """A velocity that is wrong by a shift of the events costs as much as their likelihood.

    Gaussian events, displaced by d standard deviations from where the network has them: their
    log-likelihood is smaller by d^2 / 2, which posteriors weigh against their priors.
    """
    from hepgen_ml.models.diffusion.ddpm import Diffusion
    from hepgen_ml.models.flow.flow_matching import FlowMatching
    from tests.models.flow.flows import Plane, encoded_from

    shift = 0.5
    z = torch.randn(100_000, 2)
    z[:, 1] = 2 * math.pi * torch.rand(len(z)) - math.pi
    sub, weight = torch.zeros(len(z), dtype=torch.int64), torch.ones(len(z))

    class Fixed(nn.Module):
        """Exact answer for N(centre, 1) on the line, and a uniform angle."""

        def __init__(self, kind: str, centre: float) -> None:
            super().__init__()
            self.kind, self.centre = kind, centre

        def forward(self, t: torch.Tensor, x: torch.Tensor, _: object) -> torch.Tensor:
            if self.kind == "ddpm":
                a = (1 - t) * math.pi / 2
                signal, noise = torch.cos(a), torch.sin(a)
            else:
                signal, noise = t, 1 - t
            pull = (x[:, 0] - signal * self.centre) / (signal**2 + noise**2)
            eps, clean = noise * pull, self.centre + signal * pull
            line = signal * eps - noise * clean if self.kind == "ddpm" else clean - eps
            return torch.stack([line, torch.zeros_like(line)], -1)

    for kind, made in (("ddpm", Diffusion), ("flow", FlowMatching)):
        name = "ddpm" if kind == "ddpm" else "mlp-cfm"
        config = load_config(
            None, [f"model={name}", f"{kind}.bayesian=last", "flow.gaussian=false", *SMALL]
        )
        model = made(Plane(), config)  # type: ignore[arg-type]
        model.fit_standardization(encoded_from(z[:2000].double()))
        model.base.location.zero_()
        model.base.cholesky.copy_(torch.eye(2))
        model.base.log_kappa.fill_(-6.0)
        losses = []
        for centre in (0.0, shift):
            keep = model.velocity.head
            model.velocity = Fixed(kind, centre)  # type: ignore[assignment]
            model.velocity.head = keep  # type: ignore[assignment]
            with torch.no_grad():
                losses.append(float(model.eval().loss(z, sub, weight)))
        assert losses[1] - losses[0] == pytest.approx(shift**2 / 2, rel=0.05), kind
