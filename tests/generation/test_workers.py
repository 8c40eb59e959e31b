"""Blocks of events from several processes are those of one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hepgen_ml import EventSample, Generator
from hepgen_ml.config import Config
from hepgen_ml.errors import ModelError, OutputError, UsageError
from hepgen_ml.generation import blocks, worker_process, workers
from tests.samples import toy_top_pairs


@pytest.fixture(autouse=True)
def no_threads_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests in this process have started them, and they forbid copies of it."""
    monkeypatch.setattr("numba.np.ufunc.parallel._is_initialized", False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("workers") / "model"
    config = Config().with_(
        network__width=16, network__blocks=1, network__heads=2, network__mixtures=4,
        training__batch_size=256, training__max_steps=30,
    )  # fmt: skip
    Generator.train(toy_top_pairs(2000), out=out, config=config, device="cpu")
    return out


def assert_equal(a: EventSample, b: EventSample) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for group in ("particles", "events", "weights"):
        for name, values in getattr(a, group).items():
            np.testing.assert_array_equal(values, getattr(b, group)[name], err_msg=name)


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_the_number_of_processes_does_not_matter(
    model: Path, monkeypatch: pytest.MonkeyPatch, start: Literal["spawn", "fork"]
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 60)
    monkeypatch.setattr(workers, "_START", -1e9)  # other processes pay whatever they cost
    generator = Generator.load(model, device="cpu")
    alone = [*generator.stream(400, seed=4, chunk=90)]
    acceptance = generator.acceptance
    other = Generator.load(model, device="cpu")
    together = [*other.stream(400, seed=4, chunk=90, workers=2, start=start)]
    assert [len(c) for c in together] == [len(c) for c in alone]
    for a, b in zip(alone, together, strict=True):
        assert_equal(a, b)
    assert other.acceptance == acceptance
    part = [*other.stream(400, seed=4, shard=(1, 2), workers=2, start=start)]
    (whole,) = generator.stream(400, seed=4)
    assert_equal(part[0], whole[200:])


def test_few_events_are_made_here(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 60)

    def forbidden(*args: object, **kwargs: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr(workers, "Workers", forbidden)
    generator = Generator.load(model, device="cpu")
    assert sum(map(len, generator.stream(300, seed=1, workers=8))) == 300


def test_a_model_in_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 60)
    generator = Generator.load(model, device="cpu")
    generator.directory = None
    assert len(generator.sample(70, seed=1)) == 70
    with pytest.raises(UsageError, match="save it first"):
        next(generator.stream(300, seed=1, workers=2))


def test_copies_need_no_stored_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 60)
    generator = Generator.load(model, device="cpu")
    generator.directory = None
    with contextlib.closing(generator.stream(10**6, chunk=90, workers=2, start="fork")) as chunks:
        assert len(next(chunks)) == 90
    assert not multiprocessing.active_children()


def test_copies_end_with_a_stream_that_nobody_reads(model: Path) -> None:
    generator = Generator.load(model, device="cpu")
    chunks = generator.stream(10**6, workers=2, start="fork")
    copies = multiprocessing.active_children()
    assert len(copies) == 2
    chunks.close()
    for copy in copies:
        copy.join(10)
        assert copy.exitcode is not None


def test_no_copies_beside_threads_of_numba(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GNU's OpenMP would end them: kernels of a classifier may have run when it was loaded."""
    monkeypatch.setattr("numba.np.ufunc.parallel._is_initialized", True)
    monkeypatch.setattr(blocks, "BLOCK", 60)
    generator = Generator.load(model, device="cpu")
    chunks = generator.stream(130, seed=1, workers=2, start="fork")
    assert not multiprocessing.active_children()
    assert sum(map(len, chunks)) == 130


def test_a_copy_that_dies(model: Path) -> None:
    chunks = Generator.load(model, device="cpu").stream(10**7, workers=2, start="fork")
    next(chunks)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(OutputError, match="has died"):
        for _ in chunks:
            pass


class _BlockError(Exception):
    def __init__(self, block: blocks.Block, more: str) -> None:
        super().__init__(f"{more} {block.index}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ModelError("broken", path="model", remedy="train"), ModelError), (None, RuntimeError)],
)
def test_errors_of_copies(error: Exception | None, kind: type[Exception]) -> None:
    def make(block: blocks.Block) -> workers.Made:
        if block.index == 2:
            raise error or _BlockError(block, "at")
        return toy_top_pairs(1), (1.0, 1.0)

    made = workers.made_by_copies(blocks.blocks_of(60_000, 0, 60_000), make, 2, lambda _: None)
    with pytest.raises(kind, match="broken" if error else "_BlockError: at 2") as caught:
        for _ in made:
            pass
    assert error is None or str(caught.value) == str(error)
    assert not multiprocessing.active_children()


@dataclass(frozen=True)
class _Large:
    index: int
    values: np.ndarray


def _doubled() -> Callable[[_Large], tuple[np.ndarray, tuple[float, ...]]]:
    return lambda task: (2 * task.values, ())


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_tasks_and_results_larger_than_a_pipe(start: str) -> None:
    processes = workers.Workers[_Large, np.ndarray](2, start, _doubled, ())
    for first in (0, 10):  # several times, as a shower replaces what it refuses
        tasks = [_Large(k, np.full(10**5, float(k))) for k in range(first, first + 10)]
        found = [*processes.results(tasks, lambda _: None)]
        assert [task.index for task, _ in found] == [task.index for task in tasks]
        for task, result in found:
            np.testing.assert_array_equal(result, 2 * task.values)
    unfinished = processes.results((_Large(k, np.zeros(10**6)) for k in range(20, 40)), print)
    processes._processes[0].kill()
    with pytest.raises(OutputError, match="has died"):
        list(unfinished)
    processes.close()
    assert not multiprocessing.active_children()


def _note(number: int, frame: object) -> None:
    """A handler that takes a note, as that of a training."""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_suspended_processes_are_ended(start: str) -> None:
    processes = workers.Workers[_Large, np.ndarray](2, start, _doubled, ())
    for process in processes._processes:
        os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    processes.close()
    assert time.monotonic() - begun < workers._KILLED
    assert not multiprocessing.active_children()


def test_a_copy_that_has_no_handlers_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps signals until then; the handler of this process does not get them."""
    before = signal.signal(signal.SIGTERM, _note)
    monkeypatch.setattr(worker_process, "begin_worker", lambda: _terminated(begin_worker))
    begin_worker = worker_process.begin_worker
    try:
        with pytest.raises(OutputError, match="has died"):
            workers.Workers[_Large, np.ndarray](1, "fork", _doubled, ())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not multiprocessing.active_children()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & worker_process.DEFERRED


def _terminated(begin_worker: Callable[[], None]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    begin_worker()


def test_a_copy_that_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    monkeypatch.setattr(worker_process, "compute_with_one_thread", lock.acquire)
    monkeypatch.setattr(workers, "_POLLS", 5)
    with lock, pytest.raises(OutputError, match=r"2 of 2 copies .* do not begin"):
        workers.Workers[_Large, np.ndarray](2, "fork", _doubled, ())
    assert not multiprocessing.active_children()


def test_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system starts one, but not another."""
    fork, pids = os.fork, [0]

    def limited() -> int:
        if pids.pop():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        pids.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", limited)
    with pytest.raises(OutputError, match=r"cannot be started: .*unavailable .*--workers"):
        workers.Workers[_Large, np.ndarray](2, "fork", _doubled, ())
    assert not multiprocessing.active_children()


def test_garbage_in_a_copy_ends_nobody() -> None:
    """An object that a copy has by inheritance leaves the processes of the original alone."""
    first = workers.Workers[_Large, np.ndarray](1, "fork", _doubled, ())
    second = workers.Workers[_Large, bool](1, "fork", _closing, (first,))
    tasks = [_Large(0, np.ones(3))]
    assert [r for _, r in second.made(tasks, lambda _: None)] == [True]
    ((_, result),) = first.made(tasks, lambda _: None)
    np.testing.assert_array_equal(result, [2, 2, 2])


def _closing(
    inherited: workers.Workers[_Large, np.ndarray],
) -> Callable[[_Large], tuple[bool, tuple[float, ...]]]:
    inherited.close()
    return lambda task: (True, ())


_KILLED = """
import signal, sys
from hepgen_ml.generation import blocks, workers
from hepgen_ml import Generator

def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit another
    blocks.BLOCK, workers._START = 200, -1e9
    generator = Generator.load(sys.argv[1])
    chunks = generator.stream(10**7, chunk=200, workers=2, start=sys.argv[2])
    for k, chunk in enumerate(chunks):
        if k == 4:
            print("running", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_no_process_is_left_behind(
    model: Path, tmp_path: Path, how: signal.Signals, start: str
) -> None:
    script = tmp_path / "run.py"
    script.write_text(_KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(model), start], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(how)
    deadline = time.monotonic() + 60
    try:
        process.wait(60)
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.2)
    except ProcessLookupError:
        return
    finally:
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    raise AssertionError("processes were left behind")
