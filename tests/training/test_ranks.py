"""Trainings by several processes together."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hepgen_ml import write
from hepgen_ml.config import load_config
from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training import ranks
from hepgen_ml.training.directory import PLAN, wait_for
from hepgen_ml.training.encoded import encode_sample
from hepgen_ml.training.launched import launched
from hepgen_ml.training.ranks import Ranks
from tests.generation.test_generator import SETTINGS
from tests.reweighting.test_named_weights import with_weights
from tests.samples import toy_top_pairs
from tests.training import ranks_program

PROGRAM = Path(ranks_program.__file__)
ROOT = PROGRAM.parents[2]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def launch(size: int, command: list[str]) -> list[subprocess.Popen[str]]:
    """What torchrun does, without the seconds that it takes to start itself."""
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    path = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")])
    return [
        subprocess.Popen(
            [sys.executable, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **place, "RANK": str(r), "LOCAL_RANK": str(r), "PYTHONPATH": path},
        )
        for r in range(size)
    ]  # fmt: skip


def course(directory: Path) -> np.ndarray:
    """Steps and losses of a training."""
    with (directory / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ("step", "train_loss", "validation_loss", "validation_head_loss")
    return np.array([[float(row[name]) for name in names] for row in rows])


@pytest.mark.usefixtures("few_draws")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The same losses and weights; what is random, and weights of either sign, are no exception."""
    finished = ["signed", "bayesian"]
    ranks_program.encode(tmp_path)
    pair = launch(2, [str(PROGRAM), str(tmp_path), *finished, "exists", "other", "stopped"])
    whole = {
        name: ranks_program.train(
            tmp_path, name, "training.accumulate=2", out=tmp_path / "one" / name
        )
        for name in finished
    }
    for process in pair:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second = ((tmp_path / f"said-{r}").read_text().splitlines() for r in range(2))
    steps = f"2 processes, {ranks_program.STEPS} steps"
    assert first[:2] == second[:2] == [f"{name}: {steps}" for name in finished]
    # Of an error that the first process has told, the other one says nothing.
    assert first[2] == "exists: OutputError False"
    assert second[2] == "exists: LostError False"
    # Other settings would be waited for without end.
    assert first[3:5] == second[3:5]
    assert first[3] == "other: UsageError False"
    assert "differ in training.ema, training.clip (give all of them" in first[4]
    assert not (tmp_path / "other").exists()
    assert first[5:] == second[5:] == ["stopped: KeyboardInterrupt False"]
    for name in finished:
        np.testing.assert_allclose(
            course(tmp_path / name), course(tmp_path / "one" / name), rtol=2e-6, err_msg=name
        )
        together = Generator.load(tmp_path / name, device="cpu").surrogate.state_dict()
        for key, tensor in whole[name].surrogate.state_dict().items():
            torch.testing.assert_close(together[key], tensor, atol=1e-5, rtol=1e-5)
    # What two have begun, one ends: with as many pieces it is the same again.
    resumed = ranks_program.train(
        tmp_path, "stopped", "training.accumulate=2", out=tmp_path / "stopped", resume=True
    )
    assert resumed.facts["steps"] == ranks_program.STEPS
    whole_course = course(tmp_path / "signed")
    assert len(whole_course) == 4
    judged = [0, 2, 3]  # the mean loss of the steps before an interruption is not kept
    np.testing.assert_allclose(
        course(tmp_path / "stopped")[:, judged], whole_course[:, judged], rtol=2e-6
    )
    # Without random numbers and negative weights, the number of pieces does not matter.
    losses = []
    for k in (1, 3):
        more = f"training.accumulate={k}", "training.max_steps=2"
        ranks_program.train(tmp_path, "plain", *more, out=tmp_path / str(k))
        losses.append(course(tmp_path / str(k)))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_pieces_are_shared_evenly() -> None:
    four = Ranks()
    four.size = 4
    assert [four.pieces(k) for k in (1, 4, 5, 8)] == [4, 4, 8, 8]
    shares = []
    for four.rank in range(4):
        shares += list(four.mine(10))
    assert sorted(shares) == list(range(10))


def test_the_first_process_waits_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store in which they see that it reports an error is its own."""

    class Store:
        answers = iter([0, 0, 1, 2])

        def add(self, name: str, n: int) -> int:
            assert (name, n) == (ranks._HEARD, 0)
            return next(self.answers)

    ranks._linger(Store(), 3)
    assert next(Store.answers, None) is None
    monkeypatch.setattr(ranks, "_LINGER", 0.1)
    Store.answers = itertools.repeat(1)
    ranks._linger(Store(), 3)  # one of them is dead


def test_a_directory_that_the_others_do_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hepgen_ml.training.directory._DELAY", 0.5)
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError, match="trains in another directory of this name"):
        wait_for(tmp_path / "model")
    threading.Timer(0.2, (tmp_path / "model" / PLAN).touch).start()
    wait_for(tmp_path / "model")


def test_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "h"),
                        ("MASTER_PORT", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun"):
        launched()
    monkeypatch.delenv("MASTER_PORT")
    assert launched() == (0, 1, 0)  # a variable of somebody else's


def begun(out: Path, command: list[str]) -> list[subprocess.Popen[str]]:
    """Two processes that train, some steps after their beginning."""
    pair = launch(2, command)
    deadline = time.monotonic() + 120
    while not (out / "history.csv").exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in pair)
        time.sleep(0.05)
    return pair


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_ends_ends_all(rank: int, number: signal.Signals, tmp_path: Path) -> None:
    """With one line of one process; what was trained so far can be resumed, by three as well."""
    sample, out = tmp_path / "sample.lhe", tmp_path / "model"
    write(toy_top_pairs(1500), sample)
    options = [f"--set={text}" for text in SETTINGS]
    train = ["-m", "hepgen_ml", "train", str(sample), "--out", str(out), "--device", "cpu",
             "--model", "jetgpt", *options]  # fmt: skip
    pair = begun(out, [*train, "--max-time", "10m", "--set", "training.checkpoint_interval=1"])
    time.sleep(3)
    pair[rank].send_signal(number)
    said = [process.communicate(timeout=60)[1] for process in pair]
    errors = [line for text in said for line in text.splitlines() if line.startswith("error")]
    assert len(errors) == 1, said
    if number == signal.SIGTERM:
        assert [process.returncode for process in pair] == [143, 143]
        assert "keeps the last checkpoint" in errors[0]
    else:
        assert pair[1 - rank].returncode == 6
        assert "another process of this training has ended" in errors[0]
    three = launch(3, [*train, "--resume", "--max-time", "5s"])
    for process in three:
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    facts = Generator.load(out, device="cpu").facts
    assert facts["processes"] == 3
    assert facts["steps"] > 20


@pytest.mark.slow
def test_torchrun(shipped_sample: Path, tmp_path: Path) -> None:
    """The command of the documentation; one process reports."""
    options = [f"--set={text}" for text in [*SETTINGS, "training.max_steps=30"]]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m",
         "hepgen_ml", "train", str(shipped_sample), "--out", str(tmp_path / "m"),
         "--device", "cpu", "--model", "jetgpt", *options],
        capture_output=True, text=True, timeout=300, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")])},
    )  # fmt: skip
    assert done.stdout.count("learned 20,000 events, 30 steps") == 1
    assert Generator.load(tmp_path / "m", device="cpu").facts["processes"] == 2


@pytest.mark.slow
def test_what_the_first_process_does_alone(tmp_path: Path) -> None:
    """Named weights and classifier rounds; the others wait, and have the result."""
    sample = tmp_path / "sample.safetensors"
    encode_sample(with_weights(1500)).save(sample)
    settings = [*SETTINGS, "model=jetgpt", "training.max_steps=40", "training.max_time=600",
                "training.classifier_rounds=1", "training.variations_share=0.02"]  # fmt: skip
    options = [f"--set={text}" for text in settings]
    train = ["-m", "hepgen_ml", "train", str(sample), "--device", "cpu"]
    for process in launch(2, [*train, "--out", str(tmp_path / "two"), *options]):
        _, text = process.communicate(timeout=300)
        assert process.returncode == 0, text
    one = Generator.train(
        sample, out=tmp_path / "one", device="cpu",
        config=load_config(None, [*settings, "training.accumulate=2"]),
    )  # fmt: skip
    np.testing.assert_allclose(course(tmp_path / "two"), course(tmp_path / "one"), rtol=1e-4)
    two = Generator.load(tmp_path / "two", device="cpu")
    assert list(two.run.weight_names) == list(one.run.weight_names) != []
    assert set(two.sample(100, seed=1).weights) == set(two.run.weight_names)
