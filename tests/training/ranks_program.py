"""One of several processes that train together, for test_ranks: python ranks_program.py DIR NAME...

Trains the models of the given names, each in a directory of its own, but for one that is there;
one of them with other settings in each process.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from hepgen_ml.config import Config
from hepgen_ml.errors import HepgenError
from hepgen_ml.generation.generator import Generator
from hepgen_ml.models.flow import base_distribution
from hepgen_ml.training import acceptance
from hepgen_ml.training.encoded import encode_sample
from hepgen_ml.training.trainer import Trainer
from tests.generation.test_generator import settings
from tests.samples import toy_top_pairs

STEPS = 20

MODELS = {
    "plain": ["model=jetgpt"],
    "signed": ["model=jetgpt", "training.precision=bfloat16"],
    "bayesian": ["model=mlp-cfm", "flow.bayesian=all", "network.dropout=0.1"],
    "exists": ["model=jetgpt"],
    "other": ["model=jetgpt"],
    "stopped": ["model=jetgpt", "training.precision=bfloat16"],
}
"""Settings by name; two of them are trained to their end."""


def config(name: str, *more: str) -> Config:
    """Settings of a training, without end by time."""
    return settings(
        f"training.max_steps={STEPS}", "training.max_time=1e6", "training.validation_interval=5",
        *MODELS[name], *more,
    )  # fmt: skip


def encode(directory: Path) -> None:
    """Samples that are read by all trainings; one has weights of either sign."""
    events = toy_top_pairs(1000)
    encode_sample(events, find_cuts=False).save(directory / "plain.safetensors")
    events.events["weight"][::5] *= -1
    encode_sample(events, find_cuts=False).save(directory / "signed.safetensors")


def train(directory: Path, name: str, *more: str, out: Path, **options: Any) -> Generator:
    """Train one of the models."""
    sample = directory / f"{'signed' if name in ('signed', 'stopped') else 'plain'}.safetensors"
    return Generator.train(sample, out=out, config=config(name, *more), device="cpu", **options)


def _stop_at_the_second_validation() -> None:
    """As if this process got Ctrl-C then."""
    validate, calls = Trainer._validate, []

    def patched(self: Trainer[Any], *arguments: Any) -> None:
        validate(self, *arguments)
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    Trainer._validate = patched  # type: ignore[method-assign]


def main() -> None:
    # Programs that a shell runs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    base_distribution._PROPOSALS, acceptance.EVENTS = 2000, 200
    directory, rank = Path(sys.argv[1]), os.environ["RANK"]
    said = []
    for name in sys.argv[2:]:
        if name == "stopped" and rank == "1":
            _stop_at_the_second_validation()
        more = ["training.clip=2", "training.ema=0.5"] if name == "other" and rank == "1" else []
        try:
            out = directory / ("signed" if name == "exists" else name)
            facts = train(directory, name, *more, out=out).facts
            said.append(f"{name}: {facts['processes']} processes, {facts['steps']} steps")
        except (HepgenError, KeyboardInterrupt) as error:
            said.append(f"{name}: {type(error).__name__} {getattr(error, 'speaks', False)}")
            if name == "other":
                said.append(str(error))
    (directory / f"said-{rank}").write_text("\n".join(said))


if __name__ == "__main__":
    main()
