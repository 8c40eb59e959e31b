"""Every density with every kind of chart: it trains, resumes, generates, and has a likelihood."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hepgen_ml.config import Config, load_config
from hepgen_ml.errors import HepgenError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.names import BUILT_IN
from hepgen_ml.phase_space import BeamsChart, PairChart
from tests.models.test_models import SMALL
from tests.process.test_beam_charts import of_beams
from tests.process.test_decay_charts import without_rows
from tests.samples import toy_top_pairs, toy_z_jets
from tests.scans import labelled, resonance

N = 1200
STEPS = 20


def either_sign() -> EventSample:
    sample = toy_top_pairs(N)
    sample.events["weight"] = np.where(np.arange(N) % 8 == 0, -1.0, 1.0)
    return sample


def radiating() -> EventSample:
    """W pairs of beams with radiation, down to their threshold."""
    chart = BeamsChart(["W+", "W-"], [80.4, 80.4], [None, None], [100.0, 100.0], [0.0, 0.0])
    return of_beams(chart, 5 * N, (11, -11), (0.0, 0.0), 23, (24, -24), (100.0, 100.0))


def scattering() -> EventSample:
    """An electron of fixed energy and a photon of any energy, with cuts."""
    chart = PairChart(
        ["a", "e"], [0.0, 0.000511], [None, 27.5], [920.0, 0.0], [0.0, 0.000511], 5.0, 2.0,
        [[0.0, 0.0], [25 / 55, 0.0]],
    )  # fmt: skip
    sample = of_beams(chart, N, (22, 11), (0.0, 0.000511), 23, (22, 11), (920.0, 27.5))
    return without_rows(sample, sample.particles["status"] == 2)


SAMPLES: dict[str, Callable[[], EventSample]] = {
    "partons": lambda: toy_top_pairs(N),
    "decays": lambda: resonance(np.full(N, 900.0)),
    "reconstructed": lambda: toy_z_jets(N, most=2),
    "radiation": radiating,
    "scattering": scattering,
    "conditions": lambda: labelled(N),
    "signs": either_sign,
}


def config_of(model: str) -> Config:
    settings = [
        f"model={model}", f"training.max_steps={STEPS}", "training.batch_size=128",
        "training.max_time=1e6", "training.max_epochs=1000", "flow.likelihood_steps=4",
        "ddpm.steps=4", "ddpm.likelihood_steps=4",
    ]  # fmt: skip
    return load_config(None, [*SMALL, *settings])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("model", BUILT_IN)
def test_every_model_takes_every_sample(
    model: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("hepgen_ml.models.flow.base_distribution._PROPOSALS", 5000)
    monkeypatch.setattr("hepgen_ml.training.acceptance.EVENTS", 200)
    clock = iter(range(10**9))  # progress is told twice a second
    monkeypatch.setattr("hepgen_ml.training.trainer.time.monotonic", lambda: float(next(clock)))
    sample, config = SAMPLES[kind](), config_of(model)
    if kind == "conditions":
        config = config.with_(conditions=("mass", "model"))

    class StopError(Exception):
        pass

    def stop(stage: str, done: float, total: float | None, info: dict[str, float]) -> None:
        if info.get("step", 0) >= STEPS // 2:
            raise StopError

    out = tmp_path / "model"
    if model == "jetgpt-splitting" and kind != "reconstructed":
        with pytest.raises(HepgenError, match="jets"):
            Generator.train(sample, out=out, config=config, device="cpu")
        return
    with caplog.at_level(logging.WARNING):
        with pytest.raises(StopError):
            Generator.train(sample, out=out, config=config, device="cpu", progress=stop)
        generator = Generator.train(sample, out=out, config=config, device="cpu", resume=True)
    assert generator.facts["steps"] == STEPS
    assert not [r for r in caplog.records if "lost" in r.getMessage()]
    made = Generator.load(out, device="cpu").sample(200, seed=1)
    assert len(made) == 200
    assert np.isfinite(made.momentum).all()
    if generator.surrogate.density.has_likelihood:
        for events in (sample[:25], made[:25]):
            assert np.isfinite(generator.log_prob(events)).all()
