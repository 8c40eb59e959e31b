"""Learning rates as planned, and their early end when held-out events gain nothing more."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml.config import Config, TrainingConfig, load_config
from hepgen_ml.models.jetgpt.autoregressive import JetGPT
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.training.encoded import EncodedSample, encode_sample
from hepgen_ml.training.schedule import LearningRate
from hepgen_ml.training.surrogate_task import SurrogateTask
from hepgen_ml.training.trainer import Trainer
from tests.samples import toy_top_pairs

CONFIG = load_config(
    None,
    ["network.width=32", "network.blocks=1", "network.mixtures=8", "training.batch_size=128",
     "training.max_steps=1500", "training.max_epochs=1e6", "training.max_time=1e6",
     "training.validation_interval=15", "training.learning_rate=5e-3"],
)  # fmt: skip


@pytest.fixture(scope="module")
def sample() -> EncodedSample:
    return encode_sample(toy_top_pairs(1000))


def trainer(
    sample: EncodedSample, directory: Path, config: Config = CONFIG
) -> Trainer[SurrogateTask]:
    torch.manual_seed(0)
    surrogate = Surrogate(sample.process, config)
    surrogate.fit_standardization(sample.encoded[:300])
    directory.mkdir(exist_ok=True)
    task = SurrogateTask(
        surrogate.train(), sample.encoded[:300], sample.encoded[300:], device=torch.device("cpu")
    )
    return Trainer(task, config.training, seed=1, directory=directory)


def planned(**changes: float) -> LearningRate:
    return LearningRate(TrainingConfig(learning_rate=1.0, warmup=0.1, **changes))


def test_plan() -> None:
    rate = planned()
    assert rate(500, 0.05) == pytest.approx(0.5)
    assert rate(1000, 0.1) == pytest.approx(1.0)
    assert rate(5500, 0.55) == pytest.approx(0.5)
    assert rate(10_000, 1.0) == pytest.approx(1e-3)
    assert rate(0, 0.1) == pytest.approx(0.01)  # the first steps are warm-up in any case
    assert LearningRate(rate.config, 20)(1, 0.1) == pytest.approx(1.0)  # there are few in all
    assert not rate.finished(0.999)
    assert rate.finished(1.0)


def test_early_fall() -> None:
    rate = planned(patience=2)
    done = 0.4
    for loss, gains in ((3.0, True), (2.0, True), (2.1, False), (2.05, False)):
        assert not rate.falls_early(4000, done)
        assert rate.is_best(loss) == gains
    before = rate(4000, done)
    assert rate.falls_early(4000, done)
    assert not rate.falls_early(4000, done)  # once
    values = [rate(4000, d) for d in np.linspace(done, 1.25 * done, 9)]
    assert values[0] == pytest.approx(before / 2)
    assert np.all(np.diff(values) < 0)
    assert values[-1] < 1e-3
    assert not rate.finished(1.24 * done)
    assert rate.finished(1.25 * done)


def test_no_early_fall() -> None:
    for changes, done in (({"patience": 0}, 0.4), ({"patience": 1}, 0.9)):
        rate = planned(**changes)
        assert [rate.is_best(loss) for loss in (1.0, 2.0, 2.0)] == [True, False, False]
        assert not rate.falls_early(10, done)
    rate = planned(patience=1)
    assert [rate.is_best(loss) for loss in (1.0, 2.0)] == [True, False]
    rate.forget()  # other weights, other losses
    assert not rate.falls_early(10, 0.4)
    assert rate.is_best(3.0)


def test_state_survives_a_checkpoint() -> None:
    rate, other = planned(patience=1), planned(patience=1)
    for loss in (1.0, 2.0):
        rate.is_best(loss)
    other.restore(rate.state())
    assert other.falls_early(10, 0.4)
    third, longer = planned(patience=1), planned(patience=1)
    third.restore(other.state())
    assert third(20, 0.45) == other(20, 0.45) > 0
    longer.restore(other.state(), 0.5)  # a plan of twice the length, of which half is over
    assert longer(20, 0.225) == pytest.approx(other(20, 0.45))


def test_a_loss_that_is_no_number_is_not_the_best() -> None:
    rate = planned()
    assert [rate.is_best(loss) for loss in (2.0, math.nan, 3.0, 1.0)] == [True, False, False, True]


def test_over_fitting_ends_a_training(sample: EncodedSample, tmp_path: Path) -> None:
    """It stops well before its plan, and its best weights are as good as those of the plan."""
    early = trainer(sample, tmp_path / "early")
    early.run()
    assert early.step < CONFIG.training.max_steps / 2
    assert all(rate.finished(early.done) for rate in early.rates.values())
    rows = early.history.rows
    density = [row["validation_loss"] for row in rows]
    assert early.rates["density"].progress.best == min(density)
    assert rows[-1]["learning_rate"] < 0.01 * CONFIG.training.learning_rate
    late = trainer(sample, tmp_path / "late", CONFIG.with_(training__patience=0,
                                                           training__max_steps=early.step))
    late.run()
    assert min(density) < min(row["validation_loss"] for row in late.history.rows) + 0.05


def test_parts_end_apart(sample: EncodedSample, tmp_path: Path) -> None:
    """What is finished rests while the other goes on."""
    run = trainer(sample, tmp_path / "m")
    for _ in range(3):
        run._one_step()
        run.step += 1
    done = run.done
    run.rates["density"].progress.began = done / 2
    assert run.rates["density"].finished(done)
    assert done < run.end
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    run._one_step()
    moved = {name.split(".")[0] for name, p in run.parameters.items() if not p.equal(before[name])}
    assert moved == {"heads"}


def test_validations_draw_the_same(sample: EncodedSample, tmp_path: Path) -> None:
    """Of a loss with random times and base points, what changes is what was learned."""
    run = trainer(sample, tmp_path / "m", CONFIG.with_(model="mlp-cfm"))
    for _ in range(2):
        run._validate(0.0, 1.0)
        run._one_step()  # leaves the averages next to where they were
        run.averages.average = {name: p.clone() for name, p in run.averages.best.items()}
    first, second = (row["validation_loss"] for row in run.history.rows)
    assert first == second


def test_resumed_in_the_fall(sample: EncodedSample, tmp_path: Path) -> None:
    config = CONFIG.with_(training__max_steps=200)

    def go_on(run: Trainer[SurrogateTask], steps: int) -> None:
        for _ in range(steps):
            run._one_step()
            run.step += 1

    def fallen(directory: Path) -> Trainer[SurrogateTask]:
        run = trainer(sample, directory, config)
        go_on(run, 24)
        for loss in (1.0, 2.0, 2.0, 2.0):
            run.rates["density"].is_best(loss)
        assert run.rates["density"].falls_early(run.step, run.done)
        return run

    whole, begun = fallen(tmp_path / "a"), fallen(tmp_path / "b")
    go_on(whole, 5)
    go_on(begun, 2)
    begun.save()
    resumed = trainer(sample, tmp_path / "b", config)
    assert resumed.resume()
    go_on(resumed, 3)
    for name, p in whole.parameters.items():
        assert torch.allclose(p, resumed.parameters[name], atol=1e-6), name


def test_what_keeps_its_plan(
    sample: EncodedSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posteriors and generated events are not judged by the loss of held-out events."""
    assert trainer(sample, tmp_path / "a").task.may_end_early("density")
    bayesian = load_config(None, ["network.width=16", "jetgpt.bayesian=last"])
    assert not trainer(sample, tmp_path / "b", bayesian).task.may_end_early("density")
    monkeypatch.setattr(JetGPT, "early_stopping", False)
    other = trainer(sample, tmp_path / "c").task
    assert not other.may_end_early("density")
    assert other.may_end_early("heads")


def test_batches_larger_than_the_sample(sample: EncodedSample, tmp_path: Path) -> None:
    """A step is one pass then, not several."""
    config = CONFIG.with_(training__batch_size=4096, training__max_epochs=10.0)
    run = trainer(sample, tmp_path / "m", config)
    run.step = 5
    assert run.done == pytest.approx(0.5)


def test_lost_steps_are_told(
    sample: EncodedSample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Steps whose gradient is not a number teach nothing, and users hear of them."""
    config = CONFIG.with_(training__max_steps=30)
    training = trainer(sample, tmp_path / "m", config)
    right, calls = training.task.loss, iter(range(10_000))

    def loss(part: str, data: object, rows: torch.Tensor) -> torch.Tensor:
        value = right(part, data, rows)  # type: ignore[arg-type]
        return value * math.nan if value.requires_grad and next(calls) % 6 == 0 else value

    monkeypatch.setattr(training.task, "loss", loss)
    training.run()
    assert "training steps are lost" in caplog.text
    assert all(torch.isfinite(p).all() for p in training.task.module.parameters())
