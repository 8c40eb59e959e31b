"""Samples with weights that undo a bias: what is learned of them, and what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import read, write
from hepgen_ml.config import Config
from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.event_weights import Biased, EventWeights
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.learner import ProcessLearner
from hepgen_ml.process.process import Process
from hepgen_ml.training.biased import (
    as_they_are,
    learn_weights,
    normalise_weights,
    starved,
    with_weights,
    worth,
)
from tests.samples import TOP, toy_top_pairs

SIGMA = 3.0
SMALL = Config().with_(
    network__width=16, network__blocks=1, network__heads=2, training__max_steps=150,
    training__batch_size=256,
)  # fmt: skip


def top_pt(sample: EventSample) -> np.ndarray:
    """Transverse momentum of the top quark of each event."""
    p = sample.particles
    return np.hypot(p["px"], p["py"])[p["pdg_id"] == 6]


def bias(sample: EventSample) -> np.ndarray:
    """A power of the transverse mass of the top quark."""
    return (TOP**2 + top_pt(sample) ** 2) ** -30.0


def biased(n: int, noise: float = 0.0, seed: int = 0) -> EventSample:
    """Top pairs with weights that fall with the transverse momentum, and some noise."""
    sample = toy_top_pairs(n, seed, jets=False)
    weight = (top_pt(sample) + 50.0) ** -3.0 if noise else bias(sample)
    weight *= np.exp(noise * np.random.default_rng(seed).normal(size=n))
    sample.events["weight"] = weight * SIGMA / weight.mean()
    return sample


def learned(sample: EventSample) -> tuple[Process, Encoded]:
    learner = ProcessLearner()
    learner.add(sample)
    process = learner.process((6500.0, 6500.0))
    return process, process.encode(sample)


def weights_of(
    sample: EventSample, held_out: EventSample
) -> tuple[dict[str, float | str], torch.Tensor, Encoded, Process]:
    """Learn weights, and those of held-out events."""
    process, encoded = learned(sample)
    torch.manual_seed(0)
    network = EventWeights(process)
    parts = []
    for part in (encoded, process.encode(held_out)):
        weighted = part[:]
        process_, part, log_weight = as_they_are(process, weighted)
        z = torch.tanh(part.x / part.x.std(0).clamp_min(1e-6)).float()
        parts.append(Biased(z, part, log_weight))
    facts = learn_weights(network, process_, *parts, 30.0, 0)
    e = parts[1].encoded
    k = process.kinematics(e.x, e.subprocess, torch.zeros(len(e), dtype=torch.float64))
    with torch.no_grad():
        found = network(process, k.final, k.incoming, parts[1].z, e.invariants, e.subprocess)
    return facts, found, process.encode(held_out), process


def test_powers_of_a_scale_are_exact() -> None:
    facts, found, truth, process = weights_of(biased(3000), biased(2000, seed=1))
    assert facts["rule"] == "formula"
    ratio = found * SIGMA / truth.weight
    # the cross section of a sample is known to its statistics, the function exactly
    assert float(ratio.std() / ratio.mean()) < 1e-5
    assert worth(process, truth) < 0.5


def test_other_weights_are_regressed_to_their_mean() -> None:
    facts, found, truth, _ = weights_of(biased(6000, 0.3), biased(4000, 0.3, seed=1))
    assert facts["rule"] == "regression"
    assert float(facts["precision"]) < 0.35
    order = torch.argsort(truth.x[:, 0])
    for rows in order.chunk(4):
        sums = found[rows].sum() * SIGMA, truth.weight[rows].sum()
        assert float(sums[0] / sums[1]) == pytest.approx(1.0, abs=0.12)


def test_the_choice_follows_from_the_weights() -> None:
    process, encoded = learned(biased(1500))
    assert with_weights(Config(), process, encoded).training.weights == "sample"
    equal = Config().with_(training__weights="equal")
    assert with_weights(equal, process, encoded).training.weights == "equal"
    encoded.weight = 1 + 0.1 * torch.rand(len(encoded), dtype=torch.float64)
    encoded.weight[::7] *= -1
    assert with_weights(Config(), process, encoded).training.weights == "equal"


def with_signal(n: int, seed: int = 0) -> EventSample:
    """Two processes in one file, that with a jet with a cross section far below the other's."""
    sample = toy_top_pairs(n, seed)
    signal = sample.counts == sample.counts.max()
    sample.events["process_id"] = np.where(signal, 2, 1)
    sample.events["weight"] = np.where(signal, 1e-6, 1.0)
    return sample


def test_rare_processes_of_many_events_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """A signal as numerous as its background is not lost for the sake of equal weights."""
    sample = with_signal(1000)
    share = float((sample.process_id == 2).mean())
    process, encoded = learned(sample)
    assert starved(process, encoded) == pytest.approx(share)
    assert with_weights(Config(), process, encoded).training.weights == "sample"
    assert f"{100 * share:.1f} % of the events" in caplog.text
    for factor, weights in ((0.2, "equal"), (1.0, "equal")):
        encoded.weight[torch.from_numpy(sample.process_id == 2)] = factor
        assert with_weights(Config(), process, encoded).training.weights == weights
    # a handful of such events decides nothing
    few = sample[np.flatnonzero((sample.process_id == 1) | (np.arange(len(sample)) < 10))]
    assert with_weights(Config(), *learned(few)).training.weights == "equal"


def test_a_subprocess_without_events_has_the_weight_of_its_process() -> None:
    """Those held out are generated, too, and not with the weight of the background."""
    process, encoded = learned(with_signal(1000))
    process, encoded, log_weight = as_they_are(process, encoded)
    signal = [i for i, s in enumerate(process.subprocesses) if s.structure.process_id == 2]
    network = EventWeights(process)
    z = torch.zeros_like(encoded.x)
    rows = torch.nonzero(encoded.subprocess != signal[0]).squeeze(-1)
    part = Biased(z[rows], encoded[rows], log_weight[rows])
    assert learn_weights(network, process, part, part, 30.0, 0)["rule"] == "formula"
    factors = network.log_factor + network.calibration
    assert float(factors[signal[0]]) == pytest.approx(float(factors[signal[1]]), abs=1e-6)


def test_rates_are_those_of_events_and_signs_stay() -> None:
    sample = toy_top_pairs(2000)
    process, encoded = learned(sample)
    first = encoded.subprocess == encoded.subprocess[0]
    encoded.weight[first] *= 100
    encoded.weight[::50] *= -1
    other, signs, log_weight = as_they_are(process, encoded)
    assert set(signs.weight.tolist()) == {1.0, -1.0}
    torch.testing.assert_close(signs.weight * torch.exp(log_weight), encoded.weight)
    share = float(signs.weight[first].sum() / signs.weight.sum())
    number = int(encoded.subprocess[0])
    assert other.frequencies[number] == pytest.approx(share, abs=1e-3)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    place = tmp_path_factory.mktemp("biased") / "model"
    Generator.train(biased(3000), out=place, config=SMALL, device="cpu")
    return Generator.load(place, device="cpu")


def test_generated_events_have_weights_and_the_tail(generator: Generator) -> None:
    events, truth = generator.sample(4000, seed=1), biased(4000, seed=2)
    assert generator.weighting is not None
    assert generator.run_of().weight_strategy == -4
    assert np.ptp(events.weight) > 0.1 * events.weight.mean()
    constant = events.weight / bias(events)
    np.testing.assert_allclose(constant, constant[0], rtol=1e-4)
    high = np.quantile(top_pt(truth), 0.8)
    assert np.mean(top_pt(events) > high) == pytest.approx(0.2, abs=0.05)
    assert 0 < generator.weighting.effective_fraction < 0.6


def test_the_mean_weight_is_the_cross_section(generator: Generator) -> None:
    """Of events that the density makes, whatever the weights of the sample are on average."""
    weights = generator.surrogate.event_weights
    assert weights is not None
    weights.calibration += 0.2
    before = generator.sample(4000, seed=5).weight.mean()
    arguments = generator.surrogate, generator.process, torch.device("cpu"), 0
    assert normalise_weights(*arguments, 30_000, 60.0) == pytest.approx(np.exp(0.2), rel=0.05)
    after = generator.sample(4000, seed=5).weight
    assert before / after.mean() == pytest.approx(np.exp(0.2), rel=0.05)
    error = after.std() / np.sqrt(len(after))
    assert after.mean() == pytest.approx(SIGMA, abs=4 * error + 0.01 * SIGMA)


def test_the_same_seed_gives_the_same_weights(generator: Generator) -> None:
    once, shard = generator.sample(300, seed=3), next(generator.stream(300, seed=3, shard=(1, 2)))
    np.testing.assert_array_equal(once.weight[150:], shard.weight)


def test_equal_weights_by_rejection(generator: Generator) -> None:
    events = generator.sample(500, seed=1, unweight=True)
    np.testing.assert_allclose(events.weight, SIGMA)
    weighted = generator.sample(4000, seed=2)
    mean = np.average(top_pt(weighted), weights=weighted.weight)
    assert top_pt(events).mean() == pytest.approx(mean, rel=0.1)


@pytest.mark.parametrize("suffix", [".lhe", ".hepmc", ".root"])
def test_files_carry_the_weights(generator: Generator, suffix: str, tmp_path: Path) -> None:
    events = generator.sample(200, seed=1)
    write(events, tmp_path / f"events{suffix}")
    back = read(tmp_path / f"events{suffix}")
    ratio = back.weight / events.weight
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert back.run.cross_section == pytest.approx(events.run.cross_section, rel=1e-5)
    if suffix == ".lhe":  # programs take the mean weight for the cross section
        assert back.run.weight_strategy == -4
        np.testing.assert_allclose(ratio[0], 1.0, rtol=1e-5)


def test_models_of_equal_weight_have_none(tmp_path: Path) -> None:
    config = SMALL.with_(training__max_steps=5, training__weights="equal")
    made = Generator.train(biased(1200), out=tmp_path / "m", config=config, device="cpu")
    assert np.ptp(made.sample(50, seed=1).weight) == 0
    with pytest.raises(UsageError, match="equal weight"):
        made.sample(50, weights="sample")


def test_settings_are_chosen_for_the_density_that_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symmetry that the weights restore is none of the events as they are."""

    class SeenError(Exception):
        pass

    def chosen(config: Config, process: Process, encoded: Encoded, seconds: float) -> Config:
        assert config.training.weights == "sample"
        assert (encoded.weight == 1).all()
        raise SeenError

    monkeypatch.setattr("hepgen_ml.training.preparation.chosen", chosen)
    with pytest.raises(SeenError):
        Generator.train(biased(1500), out=tmp_path / "m", config=SMALL.with_(model="auto"))
