"""Samples with weights, of either sign: what is learned of them, and what comes out."""

from __future__ import annotations

import gzip
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import Generator, read, write
from hepgen_ml.config import Config
from hepgen_ml.errors import SampleError
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.sample import EventSample, concatenate
from hepgen_ml.events.weights import effective_size
from hepgen_ml.models.base import weighted_mean
from hepgen_ml.models.jetgpt.autoregressive import AutoregressiveDensity
from hepgen_ml.phase_space import Coordinate
from hepgen_ml.training.data import (
    SampleSource,
    encode_all,
    learn_process,
)
from hepgen_ml.training.drawing import draw_rates, evened, split
from hepgen_ml.training.preparation import thinned
from tests.samples import toy_top_pairs, toy_z_jets

FAST = Config().with_(
    training__max_steps=40, training__batch_size=256, training__max_epochs=100,
    network__width=32, network__blocks=2, network__mixtures=8,
)  # fmt: skip


def signed(sample: EventSample, weight: np.ndarray, part: float = 0.25) -> EventSample:
    """Two copies of the events: weights w (1 + part) and -w part, whose sum is w."""
    copies = []
    for factor in (1 + part, -part):
        copy = concatenate([sample], run=sample.run)
        copy.events = {**copy.events, "weight": sample.weight * weight * factor * 2}
        copies.append(copy)
    both = concatenate(copies)
    order = np.random.default_rng(0).permutation(len(both))
    mean = float(both.weight.mean())
    share = sample.run.cross_section / mean
    both.events = {**both.events, "weight": both.weight * share}
    return both[order]


class Line:
    """A single real coordinate."""

    coordinates = (Coordinate("x"),)
    n_coordinates = 1
    channel_of = torch.zeros(1, dtype=torch.int64)

    @property
    def channels(self) -> list[Line]:
        return [self]


def density(x: np.ndarray) -> np.ndarray:
    """Positive: a wide Gaussian, less a part of it about one, plus a narrow one below zero."""

    def gauss(mean: float, width: float) -> np.ndarray:
        return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))

    return np.asarray((gauss(0, 1) + 0.4 * gauss(-1, 0.3) - 0.2 * gauss(1, 0.5)) / 1.2)


def test_density_of_signed_weights() -> None:
    """An eighth of the events is negative, two fifths of those about one."""
    rng, n = np.random.default_rng(1), 40_000
    counts = rng.multinomial(n, np.array([1.0, 0.4, 0.2]) / 1.6)
    parts = [rng.normal(m, s, k) for m, s, k in zip((0, -1, 1), (1, 0.3, 0.5), counts, strict=True)]
    x = torch.from_numpy(np.concatenate(parts)).unsqueeze(1)
    weight = torch.ones(n)
    weight[-counts[2] :] = -1.0
    weight /= weight.mean()
    torch.manual_seed(0)
    condition = torch.nn.Embedding(1, 16)

    class Condition(torch.nn.Module):
        def forward(self) -> torch.Tensor:
            return condition.weight

    config = Config().with_(network__width=16, network__blocks=1, network__heads=2,
                            network__mixtures=16)  # fmt: skip
    model = AutoregressiveDensity(Line(), Condition(), config)
    nothing = torch.zeros(n, dtype=torch.int64)
    model.fit_coordinates(x, nothing)
    z = model.prepare(x, nothing)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    steps = 400
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        i = torch.randint(n, (1024,))
        optimizer.zero_grad()
        model.loss(z[i], nothing[i], weight[i]).backward()
        optimizer.step()
        schedule.step()
    edges = torch.linspace(-3, 3, 31, dtype=torch.float64)
    middle, width = (edges[1:] + edges[:-1]) / 2, 0.2
    with torch.no_grad():
        found = model.log_prob(middle.unsqueeze(1), nothing[:30]).exp().numpy()
    truth = density(middle.numpy())
    squares = np.histogram(x[:, 0].numpy(), edges.numpy(), weights=weight.numpy() ** 2)[0]
    floor = np.sqrt(squares.clip(1)) / n / width
    pull = (found - truth) / np.hypot(floor, 0.02 * truth)
    assert np.sqrt(np.mean(pull**2)) < 1.3
    assert np.abs(pull).max() < 4
    # and not that of the events without their signs
    wrong = (density_of_events(middle.numpy()) - truth) / floor
    assert np.sqrt(np.mean(wrong**2)) > 10


def density_of_events(x: np.ndarray) -> np.ndarray:
    gauss = np.exp(-0.5 * ((x - 1) / 0.5) ** 2) / (0.5 * np.sqrt(2 * np.pi))
    return np.asarray((1.2 * density(x) + 0.4 * gauss) / 1.6)


def test_negative_events_gain_a_bounded_amount() -> None:
    each = torch.tensor([1.0, 3.0, 50.0], requires_grad=True)
    weight = torch.tensor([1.0, 1.0, -1.0])
    loss = weighted_mean(each, weight)
    assert loss.item() == pytest.approx((1 + 3 - 13) / 3)
    loss.backward()
    assert each.grad is not None
    assert each.grad.tolist() == pytest.approx([1 / 3, 1 / 3, 0.0])
    # in proportion to the coordinates that an event has
    size = torch.tensor([1.0, 1.0, 20.0])
    assert weighted_mean(each, weight, size).item() == pytest.approx((1 + 3 - 50) / 3)
    assert weighted_mean(each, weight.abs()).item() == pytest.approx(54 / 3)


def test_weights_of_either_sign_are_what_is_learned(caplog: pytest.LogCaptureFixture) -> None:
    plain = toy_top_pairs(3000)
    gluons = (plain.pdg_id[plain.offsets[:-1]] == 21).astype(float)
    sample = signed(plain, 0.5 + gluons)
    source = SampleSource(sample)
    process = learn_process(source, seed=0)
    found = sum(
        s.frequency for s in process.subprocesses if s.structure.pdg_id[0] == 21
    )  # fmt: skip
    expected = 1.5 * gluons.sum() / (1.5 * gluons.sum() + 0.5 * (1 - gluons).sum())
    assert found == pytest.approx(expected, abs=1e-6)
    assert sum(s.frequency for s in process.subprocesses) == pytest.approx(1.0)
    encoded = encode_all(source, process)
    assert "50 % of them negative" in caplog.text
    weight = evened(process, encoded.subprocess, encoded.weight)
    assert float(weight.mean()) == pytest.approx(1.0)
    channel = process.channel_of[encoded.subprocess]
    power = [effective_size(encoded.weight[channel == c]) for c in (0, 1)]
    shares = [float(weight[channel == c].sum() / weight.sum()) for c in (0, 1)]
    assert shares == pytest.approx([p / sum(power) for p in power])


def test_weights_that_are_equal_count_as_one() -> None:
    sample = toy_top_pairs(1200)
    process = learn_process(SampleSource(sample), seed=0)
    encoded = process.encode(sample)
    assert torch.allclose(
        evened(process, encoded.subprocess, encoded.weight), torch.ones(1200).double()
    )


@pytest.mark.parametrize("boost", [0.0, 2.0])
def test_events_of_rare_channels_are_drawn_so_often_at_most(boost: float) -> None:
    sample = toy_top_pairs(3000)
    rare = np.flatnonzero(sample.counts == sample.counts.max())
    sample = sample[np.setdiff1d(np.arange(len(sample)), rare[60:])]
    process = learn_process(SampleSource(sample), seed=0)
    subprocess = process.encode(sample).subprocess
    rate = draw_rates(process, subprocess, 0.5, boost)
    counts = torch.bincount(process.channel_of[subprocess])
    assert rate.mean() == pytest.approx(1.0)
    free = float((counts.max() / counts.min()) ** 0.5)
    assert free > 2.5
    assert rate.max() / rate.min() == pytest.approx(boost or free)


def test_what_cancels_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sample = toy_top_pairs(2000)
    quarks = sample.pdg_id[sample.offsets[:-1]] == 2
    with_jet = sample.counts == 5
    weight = np.where(quarks & with_jet, -1.0, 1.0)
    sample.events = {**sample.events, "weight": 3.0 * weight}
    source = SampleSource(sample)
    process = learn_process(source, seed=0)
    assert "left out 1 subprocesses" in caplog.text
    assert "2 -2 -> 6 -6 21" in caplog.text
    jets = sum(s.frequency for s in process.subprocesses if len(s.order) == 3)
    assert jets == pytest.approx(weight[with_jet].sum() / weight.sum()), "rates of jets are kept"
    assert len(process.subprocesses) == 3
    assert min(process.frequencies) > 0
    assert len(encode_all(source, process)) == 2000 - (quarks & with_jet).sum()


def test_nothing_is_refused() -> None:
    sample = toy_top_pairs(1200)
    sample.events = {**sample.events, "weight": np.where(np.arange(1200) % 2, 1.0, -1.0)}
    with pytest.raises(SampleError, match="add up to 0"):
        learn_process(SampleSource(sample), seed=0)


def test_division_and_caps_keep_signs() -> None:
    weight = torch.ones(1000, dtype=torch.float64)
    weight[:400] = -1.0
    order, held_out = split(weight, 0.05, 1)
    assert float(weight[torch.from_numpy(held_out)].sum()) == 10
    assert len(order) == 950
    sample = signed(toy_top_pairs(1000), np.ones(1000))
    process = learn_process(SampleSource(sample), seed=0)
    encoded = process.encode(sample)
    totals = torch.bincount(encoded.subprocess, weights=encoded.weight)
    channel = process.channel_of[encoded.subprocess]
    rates = torch.bincount(channel, weights=encoded.weight) / totals.sum()
    fewer = thinned(process, encoded, 200, True)
    some = process.channel_of[fewer.subprocess]
    assert torch.bincount(some).tolist() == [200, 200]
    found = torch.bincount(some, weights=fewer.weight) / fewer.weight.sum()
    assert torch.allclose(found, rates)
    assert float((fewer.weight < 0).double().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("model", ["jetgpt", "mlp-cfm"])
def test_events_have_the_cross_section_of_the_sample(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 2000)
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 200)
    plain = toy_top_pairs(1500)
    sample = signed(plain, np.ones(1500))
    assert sample.weight.mean() == pytest.approx(3.0)
    write(sample, tmp_path / "signed.lhe.gz")
    config = FAST.with_(model=model, training__max_steps=10)
    generator = Generator.train(tmp_path / "signed.lhe.gz", out=tmp_path / "m", config=config)
    assert generator.facts["negative_weights"] == pytest.approx(0.5)
    assert generator.facts["effective_events"] == pytest.approx(1500 / 1.625, rel=1e-3)
    events = generator.sample(400, seed=1)
    assert (events.weight == 3.0).all()
    assert np.isfinite(generator.log_prob(plain[:50])).all()
    for name in ("a.lhe", "a.hepmc", "a.root"):
        write(events, tmp_path / name)
        again = read(tmp_path / name)
        assert again.run.cross_section == pytest.approx(3.0)
        assert again.weight.mean() == pytest.approx(3.0)
        laws = {r.name: r.n_broken for r in check_sample([again], again.run)}
        assert laws["normalisation"] == 0


def test_signs_alone(tmp_path: Path) -> None:
    """Strategy -3: the run has the cross section, weights are signs."""
    sample = toy_top_pairs(1500)
    rng = np.random.default_rng(1)
    sample.events = {**sample.events, "weight": np.where(rng.random(1500) < 0.2, -1.0, 1.0)}
    sample.run = sample.run.with_(weight_strategy=-3)
    write(sample, tmp_path / "signs.lhe")
    assert "-1" in (tmp_path / "signs.lhe").read_text()
    config = FAST.with_(training__max_steps=5)
    generator = Generator.train(tmp_path / "signs.lhe", out=tmp_path / "m", config=config)
    events = generator.sample(200, seed=1)
    assert (events.weight == 1.0).all()
    for name in ("a.lhe", "a.hepmc", "a.root"):
        write(events, tmp_path / name)
        again = read(tmp_path / name)
        assert again.run.cross_section == pytest.approx(3.0)
        assert np.ptp(again.weight) == 0


@pytest.mark.parametrize("extrapolation", ["naive", "override"])
def test_numbers_of_jets_from_signed_weights(extrapolation: str, tmp_path: Path) -> None:
    plain = toy_z_jets(3000)
    jets = plain.counts - 2
    sample = signed(plain, 1.0 + 0.5 * (jets > 0))
    config = FAST.with_(
        model="jetgpt-splitting", training__max_steps=300, splitting__max_jets=5,
        splitting__extrapolation=extrapolation,
    )  # fmt: skip
    generator = Generator.train(sample, out=tmp_path / "m", config=config)
    events = generator.sample(4000, seed=2)
    expected = (jets == 0).sum() / ((jets == 0).sum() + 1.5 * (jets > 0).sum())
    assert np.mean(events.counts == 2) == pytest.approx(expected, abs=0.05)
    assert generator.run.cross_section == plain.run.cross_section


def test_a_cross_section_that_is_not_the_mean_weight(caplog: pytest.LogCaptureFixture) -> None:
    sample = toy_top_pairs(1200)
    processes = tuple(replace(p, cross_section=5.0) for p in sample.run.processes)
    sample.run = sample.run.with_(processes=processes)
    learn_process(SampleSource(sample), seed=0)
    assert "mean weight is 3 " in caplog.text
    caplog.clear()
    sample.events = {**sample.events, "weight": np.full(1200, 10.0 / 1200)}
    with caplog.at_level(logging.WARNING):
        learn_process(SampleSource(sample), seed=0)
    assert "mean weight" not in caplog.text, "weights that add up to the cross section are fine"


READERS = Path(os.environ.get("HEPGEN_ML_DATA", "/nowhere")) / "readers"


@pytest.mark.skipif(not READERS.is_dir(), reason="needs HEPGEN_ML_DATA")
@pytest.mark.parametrize(
    ("name", "negative"),
    [pytest.param("madgraph-2.2.1-Z-fxfx.lhe.gz", 0.145, marks=pytest.mark.slow),
     ("powheg-box-v2-W.lhe", 0.01),
     ("powheg-box-v2-Zj.lhe", 0.0),  # the negative event is of a subprocess of its own
     pytest.param("powheg-box-v2-directphoton.lhe", 0.0, marks=pytest.mark.slow)],
)  # fmt: skip
def test_files_of_others(name: str, negative: float, tmp_path: Path) -> None:
    path = READERS / f"pylhe-testfile-{name}"
    sample = read(path)
    if len(sample) < 1000:  # the same events several times
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt") as file:
            text = file.read()
        start, end = text.index("<event"), text.rindex("</event>") + len("</event>")
        path = tmp_path / "many.lhe"
        path.write_text(text[:start] + (text[start:end] + "\n") * 11 + text[end:])
    config = FAST.with_(training__max_steps=5)
    generator = Generator.train(path, out=tmp_path / "m", config=config, skip_bad=True)
    assert generator.facts["negative_weights"] == pytest.approx(negative, abs=2e-3)
    expected = sample.run.cross_section
    if not expected > 0:  # weights alone have it
        expected = sample.weight.mean()
    assert generator.run.cross_section == pytest.approx(expected, rel=1e-3)
    events = generator.sample(300, seed=1)
    assert (events.weight > 0).all()
    write(events, tmp_path / "a.lhe")
    again = read(tmp_path / "a.lhe")
    laws = {r.name: r for r in check_sample([again], again.run)}
    assert laws["normalisation"].n_broken == 0, laws["normalisation"].text
