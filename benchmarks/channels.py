"""Time that samples of many subprocesses take, stage by stage.

    python benchmarks/channels.py gluinos -n 10000
    python benchmarks/channels.py sample.lhe.gz

A process of `pythia_hard.py` (which needs pythia8mc), or a file. Prints processor seconds of one
core: learning the process, encoding, building the network, a training step, the end of a training
(calibration and acceptance), saving, loading, and generating.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import hepgen_ml
from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.storage import TrainedModel, save_model
from hepgen_ml.models.surrogate import Surrogate
from hepgen_ml.process.encoded import Discrete
from hepgen_ml.training.acceptance import measure_acceptance
from hepgen_ml.training.batches import Batches, Order
from hepgen_ml.training.data import SampleSource, encode_all, learn_process

_STEPS, _DRAWN = 5, 2000


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the processor time that something takes."""
    begun = time.process_time()
    yield
    print(f"{name:<28}{time.process_time() - begun:10.2f} s", flush=True)


def sample_of(name: str, n: int) -> EventSample:
    """A file, or events of a process of Pythia."""
    if Path(name).exists():
        return hepgen_ml.read(name)
    import pythia_hard

    return pythia_hard.make(name, n)


def step_of(surrogate: Surrogate, data: Batches) -> Callable[[int], None]:
    """One training step without the optimiser."""

    order = Order(len(data))

    def one(number: int) -> None:
        i = order.rows(number, 1024, 0)
        z, subprocess, d = data.z[i], data.subprocess[i], data.discrete
        loss = surrogate.density.loss(z, subprocess, data.weight[i])
        discrete = Discrete(d.pattern[i], d.branch[i], d.free[i])
        heads = surrogate.heads.log_prob(z, data.invariants[i], subprocess, discrete)
        (loss - heads.mean()).backward()

    return one


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sample", help="process of pythia_hard.py, or file")
    parser.add_argument("-n", type=int, default=10_000, help="events of a process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sample = sample_of(options.sample, options.n)
    source = SampleSource(sample)
    with stage("learn the process"):
        process = learn_process(source, seed=0)
    print(f"{len(sample)} events, {len(process.subprocesses)} subprocesses, "
          f"{len(process.channels)} channels, {process.n_coordinates} coordinates")  # fmt: skip
    with stage("encode"):
        encoded = encode_all(source, process)
    torch.manual_seed(0)
    with stage("build the network"):
        surrogate = Surrogate(process, Config())
        surrogate.fit_standardization(encoded)
        data = Batches(surrogate, encoded, torch.device("cpu"))
    print(f"{surrogate.n_parameters} parameters")
    step = step_of(surrogate, data)
    step(0)
    begun = time.process_time()
    for number in range(_STEPS):
        step(number)
    print(f"{'training step of 1024':<28}{(time.process_time() - begun) / _STEPS:10.3f} s")
    surrogate.eval()
    with stage("calibrate"):
        surrogate.heads.calibrate(
            data.z, data.invariants, data.subprocess, data.discrete, data.weight
        )
    with stage("measure the acceptance"):
        measure_acceptance(surrogate, process, torch.device("cpu"), 0, 10.0)
    run = sample.run.with_(weight_strategy=3)
    with tempfile.TemporaryDirectory() as place:
        facts = {"acceptance": [1.0] * len(process.channels)}
        with stage("save"):
            config, device = Config(model="jetgpt"), torch.device("cpu")
            model = TrainedModel(surrogate, process, config, run, facts, device)
            save_model(Path(place), model)
        with stage("load"):
            generator = Generator.load(place, device="cpu")
    with stage(f"generate {_DRAWN} events"):
        generator.sample(_DRAWN, seed=1)


if __name__ == "__main__":
    main()
