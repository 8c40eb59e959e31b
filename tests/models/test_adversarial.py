"""Adversarial network: both steps by one gradient, discrepancy of masses, settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hepgen_ml.config import load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.adversarial import GAN, _mass, _mmd
from hepgen_ml.models.conditions import Condition
from hepgen_ml.process.process import Process
from tests.samples import learned, toy_top_pairs, toy_z_jets

SMALL = ["model=gan", "network.width=16", "network.blocks=1"]


@pytest.fixture(scope="module")
def process() -> Process:
    return learned(toy_top_pairs(1000))


def gan(process: Process, *settings: str) -> GAN:
    torch.manual_seed(0)
    model = GAN(process, load_config(None, [*SMALL, *settings]))
    model.fit_standardization(process.encode(toy_top_pairs(1000)))
    torch.nn.init.normal_(model.generator.head.weight, std=0.1)  # type: ignore[arg-type]
    return model


def batch(model: GAN, process: Process, m: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    encoded = process.encode(toy_top_pairs(1000))
    z = model.prepare(encoded.x, encoded.subprocess)[:m]
    return z, encoded.subprocess[:m], torch.ones(m)


def test_one_gradient_moves_each_network_by_its_own_loss(process: Process) -> None:
    """The discriminator's gradient is that of its loss alone, the generator's that of fooling."""
    model = gan(process)
    z, sub, weight = batch(model, process)
    torch.manual_seed(3)
    model.train().loss(z, sub, weight).backward()
    found = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.manual_seed(3)
    noise = model.noise.sample(sub)
    fooled = of_discriminator = torch.zeros(())
    for c, rows in model.by_channel(sub):
        condition, d = Condition(sub[rows], c), len(model.layouts[c])
        made = model.generated(noise[rows, :d], condition)
        logit = model.discriminator(made, condition)
        fooled = fooled - torch.nn.functional.logsigmoid(logit).sum() / len(z)
        judged = [model._judged(z[rows, :d], condition, 1.0), model._judged(made, condition, -1.0)]
        of_discriminator = of_discriminator + sum(part.sum() for part in judged) / len(z)
    generator = dict(model.generator.named_parameters())
    expected = torch.autograd.grad(
        fooled, list(generator.values()), retain_graph=True, allow_unused=True
    )
    for name, gradient in zip(generator, expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(found[f"generator.{name}"], gradient, atol=1e-6, rtol=1e-4)
    discriminator = dict(model.discriminator.named_parameters())
    expected = torch.autograd.grad(
        of_discriminator, list(discriminator.values()), allow_unused=True
    )
    for name, gradient in zip(discriminator, expected, strict=True):
        if gradient is not None:
            at = found[f"discriminator.{name}"]
            torch.testing.assert_close(at, gradient, atol=1e-6, rtol=1e-4)


def test_events_of_negative_weight_cannot_lower_the_loss_without_bound(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no generated event is near them, a discriminator would gain by them for ever."""
    model = gan(process)
    z, sub, weight = batch(model, process)
    weight[0] = -1.0
    size = torch.ones((), requires_grad=True)

    def judged(x: Tensor, condition: Condition, sign: float) -> Tensor:
        each = torch.ones(len(x))
        if sign > 0:
            each[torch.where((x == z[0, : x.shape[1]]).all(-1))] = 1e4
        return size * each

    monkeypatch.setattr(model, "_judged", judged)
    model.train().loss(z, sub, weight).backward()
    assert size.grad is not None
    assert size.grad > 0


def test_discrepancy_is_least_for_the_right_peak() -> None:
    g = torch.Generator().manual_seed(0)
    weight = torch.ones(1000)

    def peak(position: float, width: float) -> Tensor:
        return position + width * torch.tan(3.0 * (torch.rand(1000, generator=g) - 0.5))

    true = peak(80.4, 2.0)
    for kernel in ("gaussian", "breit-wigner"):
        right = _mmd(true, peak(80.4, 2.0), weight, (1.0, 5.0), kernel)
        assert right < 0.01
        for position, width in ((84.0, 2.0), (80.4, 8.0), (80.4, 0.3)):
            assert _mmd(true, peak(position, width), weight, (1.0, 5.0), kernel) > 3 * right
    # weights of either sign: two events that cancel are none
    doubled = torch.cat([true, peak(60.0, 1.0)[:100]])
    signed = torch.cat([weight, torch.zeros(100)])
    assert _mmd(doubled, true, signed, (1.0,), "gaussian") < 1e-6


def test_masses_are_those_of_the_chart_and_wrong_ones_are_named(process: Process) -> None:
    labels = process.channels[0].chart.labels
    model = gan(process, f"gan.masses=['{labels[0]}']")
    z, subprocess, _ = batch(model, process)
    channel = next(c for c, which in enumerate(process.channels) if labels[0] in which.chart.labels)
    d = len(model.layouts[channel])
    p = model._momenta(z[:, :d], subprocess, channel)
    at = list(process.channels[channel].chart.labels).index(labels[0])
    torch.testing.assert_close(_mass(p[:, at]), torch.full((len(p),), 173.0).double(), atol=1.0,
                               rtol=0)  # fmt: skip
    with pytest.raises(UsageError, match=r"gan\.masses.*Nothing"):
        gan(process, "gan.masses=['Nothing']")


def test_no_likelihood_is_said_in_one_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Trained, stored and sampled like any other, of several multiplicities and either sign."""
    sample = toy_z_jets(1200, rate=0.3, most=2)
    sample.events["weight"] = np.where(np.arange(1200) % 7 == 0, -1.0, 1.0)
    config = load_config(None, [*SMALL, "training.max_steps=30", "training.batch_size=64"])
    Generator.train(sample, out=tmp_path / "gan", config=config, device="cpu")
    generator = Generator.load(tmp_path / "gan", device="cpu")
    events = generator.sample(200, seed=1)
    assert len(events) == 200
    with pytest.raises(UsageError, match="likelihood") as caught:
        generator.log_prob(events[:5])
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no likelihood"):
        generator.sample(10, posterior=2)
