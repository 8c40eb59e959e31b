"""Kill `generate`, `train`, `regress` and `tag train` at random moments and see what is left.

    python -m tests.kills --runs 50

After every kill nothing may be half-written, the next run must leave no partial file, and a
resumed training must end with the weights of one that was never interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepgen_ml.classification import Tagger
from hepgen_ml.cli import main as main_of_program
from hepgen_ml.config import TrainingConfig, override_settings
from hepgen_ml.events.formats import read
from hepgen_ml.files.directories import is_unfinished
from hepgen_ml.files.tensors import load_tensors
from hepgen_ml.generation.generator import Generator
from hepgen_ml.regression import model as regression
from hepgen_ml.regression.regressor import Regressor
from tests import jets

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: None, signal.SIGTERM: 143, signal.SIGINT: 130}

N_EVENTS = 3000
N_TRAINED = 1000
LONGEST = 600  # seconds of a run
NETWORK = (
    "network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=2",
)  # fmt: skip
TRAINING = (
    "training.batch_size=128", "training.max_steps=80", "training.max_time=1e6",
    "training.max_epochs=1e6", "training.validation_interval=20", "training.patience=2",
    "training.checkpoint_interval=0.05",
)  # fmt: skip


class Run:
    """The program with these arguments, in a copy of this process.

    A copy has all that is imported already, so that a run takes seconds and a random moment is
    one of its work, rarely one of its imports.
    """

    def __init__(self, *arguments: object) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._code: int | None = None
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                code = self._main([str(a) for a in arguments])
            except KeyboardInterrupt:  # where the program has not begun, or has ended
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os._exit(code)

    def _main(self, arguments: list[str]) -> int:
        """The program itself; its exit code."""
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(self._errors.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["hepgen-ml", *arguments]
        # a shell lets programs in the background ignore it, and so would the copy
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code: object = 1
        try:
            main_of_program()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except KeyboardInterrupt:
            raise
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        return code if isinstance(code, int) else 1

    def ended(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        end = time.monotonic() + within
        while self._code is None and time.monotonic() < end:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self._code is not None

    def send(self, how: signal.Signals) -> None:
        """Send a signal to a run that has not ended."""
        os.kill(self._pid, how)

    def result(self) -> tuple[int, str]:
        """Exit code, minus the signal if it was killed, and what it printed as errors."""
        if not self.ended(LONGEST):
            self.send(signal.SIGKILL)
            raise AssertionError(f"no end within {LONGEST} seconds")
        assert self._code is not None
        self._errors.seek(0)
        return self._code, self._errors.read().decode()


def run(*arguments: object) -> float:
    """Run to the end; seconds that it took."""
    begun = time.monotonic()
    code, errors = Run(*arguments).result()
    assert code == 0, (code, errors)
    return time.monotonic() - begun


def kill(moment: float, how: signal.Signals, *arguments: object) -> str:
    """Run and send a signal after so many seconds; what became of the run.

    A process that has not come to its own handlers has the system's answer to the signal.
    """
    process = Run(*arguments)
    if not process.ended(moment):
        process.send(how)
    code, errors = process.result()
    if code == 0:
        return "finished"
    if code == -how:
        return "killed" if how == signal.SIGKILL else "before it began"
    assert code == CODES[how], (code, how, errors)
    assert "Traceback" not in errors, errors
    return f"exit {code}"


def leftovers(directory: Path) -> list[str]:
    """Names of unfinished outputs in a directory and below."""
    return [str(p) for p in directory.rglob("*") if is_unfinished(p.name)]


def digest(path: Path) -> str:
    """Hash of the tensors of a file; what stands beside them has the time of the training."""
    found = hashlib.sha256()
    for name, tensor in sorted(load_tensors(path)[0].items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def said(number: int, runs: int, found: Counter[str]) -> None:
    """Say how far the campaign is."""
    text = ", ".join(f"{name} {n}" for name, n in sorted(found.items()))
    print(f"{number} of {runs}: {text}", file=sys.stderr, flush=True)


def generating(directory: Path, rng: random.Random, runs: int) -> Counter[str]:
    """Kill `generate`; what became of the runs, and how many left something for the next."""
    outputs = [directory / "events.lhe.gz", directory / "events.root"]
    arguments = ["generate", "--model", "ttbar01j", "-n", N_EVENTS, "--seed", 1, "--force"]
    arguments += [a for path in outputs for a in ("--out", path)]
    took = run(*arguments)
    found: Counter[str] = Counter()
    for number in range(runs):
        replaces = rng.random() < 0.5
        if not replaces:
            for path in outputs:
                path.unlink()
        before = {path: path.stat().st_ino for path in outputs if path.exists()}
        how = SIGNALS[number % len(SIGNALS)]
        became = kill(rng.uniform(0, 0.95 * took), how, *arguments)
        found[became] += 1
        found["left something"] += bool(leftovers(directory))
        assert became in ("finished", "killed") or not leftovers(directory), became
        for path in outputs:
            assert path.exists() or not (replaces or became == "finished"), path
            if path.exists() and path.stat().st_ino != before.get(path):
                assert len(read(path)) == N_EVENTS
        took = run(*arguments)  # the machine may have become faster
        assert not leftovers(directory), leftovers(directory)
        assert all(len(read(path)) == N_EVENTS for path in outputs)
        said(number + 1, runs, found)
    return found


@dataclass(frozen=True)
class Learner:
    """A verb that trains something in a directory, and can go on where it was interrupted.

    Attributes
    ----------
    arguments : callable
        Makes the sample in a directory; arguments of the program but for ``--out``.
    weights : str
        File of the trained weights.
    last : str
        File that is written last: whoever finds it has what is finished.
    plan : str
        File of an unfinished training.
    load : callable
        Reads what is finished.
    """

    arguments: Callable[[Path], list[object]]
    weights: str
    last: str
    plan: str
    load: Callable[[Path], object]


def learning(
    learner: Learner, directory: Path, rng: random.Random, runs: int
) -> Counter[str]:
    """Kill a training, and resume it, perhaps after more kills; what became of the runs."""
    model = directory / "model"
    arguments = [*learner.arguments(directory), "--out", model]
    took = run(*arguments)
    whole = digest(model / learner.weights)
    found: Counter[str] = Counter()
    for number in range(runs):
        shutil.rmtree(model)
        while True:
            how = SIGNALS[number % len(SIGNALS)]
            resume = ["--resume"] if model.exists() else []
            became = kill(rng.uniform(0, 0.9 * took), how, *arguments, *resume)
            found[became] += 1
            found["left something"] += bool(leftovers(directory))
            if (model / learner.last).exists():
                learner.load(model)
                break
            if rng.random() < 0.7:
                run(*arguments, *(["--resume"] if model.exists() else []))
                break
        # killed between the last file of the model and the removal of the checkpoint
        if (model / learner.plan).exists():
            run(*arguments, "--resume")
        if became != "finished" and leftovers(directory):
            run(*arguments, "--force")
        assert not leftovers(directory), leftovers(directory)
        assert not (model / learner.plan).exists()
        assert digest(model / learner.weights) == whole
        learner.load(model)
        said(number + 1, runs, found)
    return found


def of_events(directory: Path) -> list[object]:
    """Arguments of `train`."""
    sample = directory / "sample.lhe.gz"
    run("generate", "--model", "ttbar01j", "-n", N_TRAINED, "--seed", 2, "--out", sample)
    return ["train", sample, *sets(NETWORK), *sets(TRAINING)]


def of_points(directory: Path) -> list[object]:
    """Arguments of `regress`, which ends by steps here; its command line knows only time."""
    rng = np.random.default_rng(0)
    p = rng.normal(0, 50, (N_TRAINED, 3, 4))
    p[..., 3] = np.sqrt((p[..., :3] ** 2).sum(-1))
    amplitude = 1 / (1 + p[:, 0, 3] * p[:, 1, 3] - (p[:, 0, :3] * p[:, 1, :3]).sum(-1))
    np.savez(directory / "points.npz", momenta=p, pdg_id=[11, -11, 22], amplitude=amplitude)
    given: dict[str, Any] = {}
    override_settings(given, TRAINING)
    config = TrainingConfig(**given["training"])
    regression.Settings.training = lambda self, n_events: config  # type: ignore[method-assign]
    return ["regress", "--from", directory / "points.npz", "--target", "amplitude",
            "--size", "width=8", "--ensemble", 2]  # fmt: skip


def of_jets(directory: Path) -> list[object]:
    """Arguments of `tag train`."""
    columns = ("px", "py", "pz", "energy")
    classes: list[object] = []
    for prongs in (1, 2):
        path = directory / f"{prongs}.root"
        jets.write(path, jets.toy(N_TRAINED // 2, prongs, prongs), *columns)
        classes += ["--class", f"c{prongs}={path}"]
    return ["tag", "train", *classes, "--network", "deep-sets", "--set", "network.width=8",
            *sets(TRAINING)]  # fmt: skip


def sets(settings: Iterable[str]) -> list[object]:
    """Options that give settings."""
    return [part for setting in settings for part in ("--set", setting)]


LEARNERS = {
    "train": Learner(
        of_events, "model.safetensors", "config.json", "training.json", Generator.load
    ),
    "regress": Learner(
        of_points, "regression.safetensors", "regression.safetensors", "regression.json",
        Regressor.load,
    ),
    "tag": Learner(
        of_jets, "tagger.safetensors", "tagger.safetensors", "tagging.json", Tagger.load
    ),
}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=("generate", *LEARNERS), help="all if not given")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads cannot be copied
    for verb in [options.verb] if options.verb else ("generate", *LEARNERS):
        with tempfile.TemporaryDirectory() as place:
            end = Path(place), random.Random(options.seed), options.runs
            found = generating(*end) if verb == "generate" else learning(LEARNERS[verb], *end)
        text = ", ".join(f"{name} {n}" for name, n in sorted(found.items()))
        print(f"{verb}: {options.runs} runs, all in order: {text}", flush=True)


if __name__ == "__main__":
    main()
