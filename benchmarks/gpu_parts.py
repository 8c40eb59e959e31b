"""Parts of the measurements on a GPU, which `gpu.py` runs one after the other."""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

SMALL = [
    "network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=4",
    "training.batch_size=256", "training.compile=false", "flow.steps=2",
]  # fmt: skip
SMALL_LGATR = ["lgatr.channels=4", "lgatr.scalars=8", "lgatr.blocks=1", "lgatr.heads=2"]

EQUAL = ("jetgpt", "lgatr-cfm", "transformer-cfm")

PAPER = {"jetgpt": "jetgpt", "flow": "lgatr-cfm"}

Add = Callable[[str, float, str], None]
"""Adds a figure: name, value, unit."""


def module_of(path: Path) -> ModuleType:
    """A script as a module, under a name of its own."""
    name = f"script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def settings_of(model: str, quick: bool) -> list[str]:
    """Settings of the papers' networks, those of examples/train_on_gpu.py; or small ones."""
    if quick:
        return [f"model={model}", *SMALL, *(SMALL_LGATR if model == "lgatr-cfm" else [])]
    presets = module_of(ROOT / "examples" / "train_on_gpu.py").PRESETS.get(model, {})
    return [f"model={model}", *(f"{key}={value}" for key, value in presets.items())]


class Timer:
    """Times calls on a device.

    Parameters
    ----------
    device : str
    seconds : float
        That all calls of a case may take.
    """

    def __init__(self, device: str, seconds: float) -> None:
        self.cuda, self.seconds = device.startswith("cuda"), seconds

    def __call__(self, function: Callable[[], object]) -> float:
        """Median time of a call, after two that are not counted."""
        for _ in range(2):
            self._once(function)
        times: list[float] = []
        while not times or (sum(times) < self.seconds and len(times) < 50):
            times.append(self._once(function))
        return statistics.median(times)

    def _once(self, function: Callable[[], object]) -> float:
        import torch

        if self.cuda:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        function()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - begun


def attempt(what: str, work: Callable[[], None]) -> None:
    """A figure that cannot be had costs no other one."""
    try:
        work()
    except Exception as error:
        print(f"{what}: {type(error).__name__}: {str(error)[:500]}", flush=True)


def prepared(options: argparse.Namespace, model: str, device: str) -> Any:
    """A new surrogate with its task on a device, and the settings of its training."""
    import torch

    from hepgen_ml.config import load_config
    from hepgen_ml.models.flow import base_distribution
    from hepgen_ml.training.encoded import EncodedSample
    from hepgen_ml.training.preparation import prepare
    from hepgen_ml.training.surrogate_task import SurrogateTask

    sample = EncodedSample.load(options.sample)
    if options.quick:
        base_distribution._PROPOSALS = 2000
        sample.encoded = sample.encoded[torch.arange(min(3000, len(sample.encoded)))]
    config = load_config(None, settings_of(model, options.quick))
    ready = prepare(sample, config, config.training.max_time)
    task = SurrogateTask(
        ready.surrogate, ready.training, ready.validation, device=torch.device(device)
    )
    return task, config


def equality(options: argparse.Namespace, add: Add) -> None:
    """Largest relative deviations from the CPU, of what both compute from the same numbers."""
    for model in ("jetgpt", "lgatr-cfm") if options.quick else tuple(EQUAL):
        attempt(model, lambda model=model: _equal(options, model, add))  # type: ignore[misc]


def _equal(options: argparse.Namespace, model: str, add: Add) -> None:
    import torch

    found: dict[str, list[Any]] = {}
    task, _ = prepared(options, model, "cpu")
    here, data = task.module.density.eval(), task.train
    rows = torch.arange(min(64 if options.quick else 1024, len(data)))
    start = torch.randn(data.z[rows].shape, generator=torch.Generator().manual_seed(1))
    for density in (here, copy.deepcopy(here).to(options.device)):
        place = density.mean.device
        z, subprocess = data.z[rows].to(place), data.subprocess[rows].to(place)

        def each(name: str, *values: torch.Tensor) -> None:
            found.setdefault(name, []).append([v.detach().cpu().double() for v in values])

        density.zero_grad()
        if model == "jetgpt":
            each("log densities", density.log_prob_z(z, subprocess))
            density.loss(z, subprocess, torch.ones_like(z[:, 0])).backward()
        else:
            begin = start.to(place)
            each("generated coordinates", density.transport(begin, subprocess))
            _velocity_error(density, begin, z, subprocess).backward()
        each("gradients", *(p.grad for p in density.parameters() if p.grad is not None))
    for name, (ours, theirs) in found.items():
        worst = max(
            float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))
            for a, b in zip(ours, theirs, strict=True)
        )
        add(f"{model}: deviation of {name} from the CPU", worst, "")


def _velocity_error(density: Any, start: Any, z: Any, subprocess: Any) -> Any:
    """The loss of a flow with times and base points that do not depend on the device."""
    import torch

    from hepgen_ml.models.conditions import Condition

    t, total = torch.linspace(0.05, 0.95, len(z)).to(z), z.new_zeros(())
    for c, rows in density.by_channel(subprocess):
        change = density.displacement(start[rows], z[rows], c)
        place = start[rows, : change.shape[1]] + t[rows].unsqueeze(-1) * change
        error = density.speed(t[rows], place, Condition(subprocess[rows], c)) - change
        total = total + (error**2).mean()
    return total


def lgatr(options: argparse.Namespace, add: Add) -> None:
    """Forward passes and training steps; the public package at the faster of its settings."""
    import torch

    from hepgen_ml.networks.lgatr.algebra import from_components

    timer = Timer(options.device, 0.0 if options.quick else 1.5)
    batch = options.batch or (2 if options.quick else 2048)
    mode = {"dynamic": False}
    try:
        tools = module_of(HERE / "lgatr.py")
        from tests.lgatr_reference import Shape, network
    except ImportError as error:
        print(f"without the public package: {error}", flush=True)
        tools = None
    if tools is None:
        from hepgen_ml.networks.lgatr import LGATr

        module = LGATr(
            blocks=6, in_channels=3, out_channels=1, channels=16, in_scalars=32, out_scalars=4,
            scalars=32, heads=8, attention_ratio=2, mlp_ratio=2,
        ).to(options.device)  # fmt: skip
        tools = _steps()
        data = (torch.randn(batch, 8, 3, 16), torch.randn(batch, 8, 32))
        data = tuple(t.to(options.device) for t in data)
    else:
        torch.manual_seed(0)
        module = network(Shape()).to(options.device)
        data = tools.inputs(batch, 8, options.device)
    x = from_components(*data)

    def measure(name: str, what: str, function: Any, module: Any, *arguments: Any) -> None:
        def work() -> None:
            if what == "forward":
                case = tools.forward(function, *arguments)
            else:
                case = tools.training_step(function, module, *arguments)
            add(f"L-GATr {name}: {what}", batch / timer(case), "events/s")

        attempt(f"{name}, {what}", work)

    theirs = []
    if hasattr(tools, "their_network"):
        for gp, linear in ((True, False),) if options.quick else ((False, False), (True, False)):
            name = f"lgatr, {tools.setting_name((gp, linear))}"
            attempt(name, lambda s=(gp, linear), n=name: theirs.append(  # type: ignore[misc]
                (n, tools.their_network(s, options.device))))  # fmt: skip
    for what in ("forward", "training step"):
        measure("ours, plain", what, module, module, x)
        for name, other in theirs:
            measure(f"{name}, plain", what, other, other, *data)
    if options.quick:
        return
    # Compiled last, and training steps after all forward passes: they take longest.
    for what in ("forward", "training step"):
        measure("ours, compiled", what, torch.compile(module, **mode), module, x)
        for name, other in theirs[-1:]:
            measure(f"{name}, compiled", what, torch.compile(other, **mode), other, *data)


def _steps() -> Any:
    """What `lgatr` needs of the benchmark that compares with the public package."""
    from types import SimpleNamespace

    import torch

    def forward(function: Any, *arguments: Any) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                function(*arguments)

        return run

    def training_step(function: Any, module: Any, *arguments: Any) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)

        def run() -> None:
            optimizer.zero_grad()
            sum(t.square().mean() for t in function(*arguments)).backward()
            optimizer.step()

        return run

    return SimpleNamespace(forward=forward, training_step=training_step)


def rates(options: argparse.Namespace, add: Add, model: str) -> None:
    """Rates of training and of sampling of a model, as they are and compiled."""
    import torch

    from hepgen_ml.training.trainer import Trainer

    task, config = prepared(options, model, options.device)
    surrogate = task.module
    timer = Timer(options.device, 0.2 if options.quick else 3.0)
    n = 500 if options.quick else 50_000
    subprocess = task.train.subprocess[torch.randint(len(task.train), (n,))]

    def sampling(how: str) -> None:
        surrogate.eval()
        with torch.inference_mode():
            seconds = timer(lambda: surrogate.density.sample_z(subprocess))
        add(f"{model}: sampling, {how}", n / seconds, "events/s")

    def training(how: str, compiled: bool) -> None:
        changes = {"max_time": 1e6, "max_steps": 10**9, "compile": compiled, "patience": 0}
        settings = config.training.model_copy(update=changes)
        trainer = Trainer(task, settings, seed=0)
        surrogate.train()
        steps = 2 if options.quick else 10

        def some() -> None:
            for _ in range(steps):
                trainer._one_step()
                trainer.step += 1

        add(f"{model}: training, {how}", steps * trainer.batch_size / timer(some), "events/s")

    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    attempt("training", lambda: training("plain", False))
    attempt("sampling", lambda: sampling("plain"))
    if options.device.startswith("cuda"):
        add(f"{model}: memory", torch.cuda.max_memory_allocated() / 2**20, "MiB")
    if options.quick:
        return
    attempt("training, compiled", lambda: training("compiled", True))
    attempt("sampling, compiled", lambda: sampling("compiled"))
    torch.compiler.reset()
    for module in surrogate.modules():
        if getattr(module, "compiles", False):
            module.compile(mode="reduce-overhead")
    attempt("sampling, CUDA graphs", lambda: sampling("CUDA graphs"))


def train(options: argparse.Namespace, add: Add) -> None:
    """A flow of the papers' size, by the script for users."""
    out, model = options.out / "lgatr-cfm", "lgatr-cfm"
    seconds = min(max(options.seconds - (20 if options.quick else 25), 3), 300)
    command = [
        sys.executable, str(ROOT / "examples" / "train_on_gpu.py"), str(options.sample),
        "--model", model, "--out", str(out), "--device", options.device,
        "--max-time", str(seconds), "--max-epochs", "1e6", "--force",
    ]  # fmt: skip
    for setting in settings_of(model, True)[1:] if options.quick else []:
        command += ["--set", setting]
    subprocess.run(command, check=True)
    facts = json.loads((out / "config.json").read_text())["training"]
    add("training of lgatr-cfm: validation loss", facts["validation_loss"], "")
    add("training of lgatr-cfm: steps", facts["steps"], "")
    add("training of lgatr-cfm: seconds", facts["training_seconds"], "s")
    rows = (out / "history.csv").read_text().splitlines()
    speeds = [float(row.split(",")[-1]) for row in rows[1:]]
    add("training of lgatr-cfm: events seen per second", statistics.median(speeds), "events/s")

    def generation() -> None:
        from hepgen_ml.generation.generator import Generator

        generator = Generator.load(out, device=options.device)
        n = 200 if options.quick else 20_000
        generator.sample(n, seed=0)
        begun = time.perf_counter()
        generator.sample(n, seed=1)
        add("lgatr-cfm: complete events", n / (time.perf_counter() - begun), "events/s")

    attempt("generation", generation)


PARTS: dict[str, Callable[[argparse.Namespace, Add], None]] = {
    "equality": equality,
    "jetgpt": lambda options, add: rates(options, add, PAPER["jetgpt"]),
    "flow": lambda options, add: rates(options, add, PAPER["flow"]),
    "lgatr": lgatr,
    "train": train,
}
