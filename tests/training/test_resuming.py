"""Trainings that are stopped or killed, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from hepgen_ml.errors import ModelError, OutputError, SampleError, UsageError
from hepgen_ml.generation.generator import Generator
from tests.generation.test_generator import settings
from tests.samples import toy_top_pairs


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("model", ["jetgpt", "mlp-cfm"])
def test_resumed_training_is_the_same(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped half way and resumed: the weights of an uninterrupted run."""
    # Progress is told twice a second, which on a fast machine is not before the end.
    clock = iter(range(10**6))
    monkeypatch.setattr("hepgen_ml.training.trainer.time.monotonic", lambda: float(next(clock)))
    sample = toy_top_pairs(1500)
    config = settings("training.max_steps=60", "training.max_time=1e6", f"model={model}")
    whole = Generator.train(sample, out=tmp_path / "whole", config=config, device="cpu")

    class StopError(Exception):
        pass

    def stop(stage: str, done: float, total: float | None, info: dict[str, float]) -> None:
        if info.get("step", 0) >= 20:
            raise StopError

    with pytest.raises(StopError):
        Generator.train(sample, out=tmp_path / "parts", config=config, device="cpu", progress=stop)
    with pytest.raises(ModelError, match="--resume"):
        Generator.load(tmp_path / "parts")
    with pytest.raises(OutputError, match="--resume"):
        Generator.train(sample, out=tmp_path / "parts", config=config)
    with pytest.raises(SampleError, match="another sample"):
        Generator.train(
            toy_top_pairs(1500, seed=3), out=tmp_path / "parts", config=config, resume=True
        )
    with pytest.raises(UsageError, match="another network"):
        Generator.train(
            sample, out=tmp_path / "parts", config=settings("network.width=16"), resume=True
        )
    resumed = Generator.train(
        sample, out=tmp_path / "parts", config=config, device="cpu", resume=True
    )
    for name, p in whole.surrogate.state_dict().items():
        assert torch.allclose(p, resumed.surrogate.state_dict()[name], atol=1e-6), name


def test_stopping_at_a_validation_does_not_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the training that is resumed would have another history, and other best weights."""
    sample = toy_top_pairs(1500)
    config = settings(
        "training.max_steps=30", "training.max_time=1e6", "training.validation_interval=25"
    )
    clock = iter(range(10**6))
    monkeypatch.setattr("hepgen_ml.training.trainer.time.monotonic", lambda: float(next(clock)))

    class StopError(Exception):
        pass

    def stop(stage: str, done: float, total: float | None, info: dict[str, float]) -> None:
        if info.get("step", 0) == 25:
            raise StopError

    with pytest.raises(StopError):
        Generator.train(sample, out=tmp_path / "parts", config=config, device="cpu", progress=stop)
    rows = (tmp_path / "parts" / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["25"]


def test_killed_training_can_be_resumed(tmp_path: Path) -> None:
    """SIGKILL in the middle of training, then --resume."""
    out = tmp_path / "model"
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.samples import toy_top_pairs
        from tests.generation.test_generator import settings
        from hepgen_ml.generation.generator import Generator
        config = settings("training.checkpoint_interval=0.1", "training.max_steps=100000")
        Generator.train(toy_top_pairs(1500), out={str(out)!r}, config=config, device="cpu")
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ})
    try:
        checkpoint, deadline = out / "checkpoint.safetensors", time.monotonic() + 120
        written: set[int] = set()
        while len(written) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            if checkpoint.exists():
                written.add(checkpoint.stat().st_mtime_ns)
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(ModelError, match="--resume"):
        Generator.load(out)
    generator = Generator.train(
        toy_top_pairs(1500),
        out=out,
        config=settings("training.max_steps=1"),
        device="cpu",
        resume=True,
    )
    assert generator.facts["steps"] > 1
    assert len(Generator.load(out).sample(100, seed=0)) == 100
