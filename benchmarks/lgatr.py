"""Our L-GATr against the public package lgatr, at its best setting of each kind.

    python benchmarks/lgatr.py [--batch 256 2048] [--tokens 8] [--repeats 7] [--threads N]
                               [--device cpu] [--mode default] [--quick] [--memory]

The network of the event-generation papers (6 blocks, 16 multivector and 32 scalar
channels, 8 heads) with the same weights on both sides. Uncompiled, lgatr runs with each
choice of `sparse_gp` and `sparse_linear`; compiled, with the sparse product and either
choice of `sparse_linear`. The fastest counts, separately for the forward pass and the
training step (forward, backward, AdamW). Of each kind, settings that take 1.3 times as long as
the fastest when all are warm are out; the others are timed in turns, and medians are
printed. `--quick` leaves out everything compiled, `--memory` measures memory alone. The
fraction of the peak counts our matrix products only, a training step as three forward
passes; the peak is that of a large single-precision product in the same run. Memory is that
of one training step beyond what the process held before, each in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# This file has the name of the package it compares with.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from hepgen_ml.networks.lgatr import LGATr
from hepgen_ml.networks.lgatr.algebra import from_components
from hepgen_ml.networks.lgatr.inference import Inference
from hepgen_ml.networks.lgatr.layers import EquiAttention, EquiLinear
from tests.lgatr_reference import Shape, network, reference, twin

Function = Callable[[], object]
SETTINGS = list(itertools.product((False, True), repeat=2))


def setting_name(setting: tuple[bool, bool]) -> str:
    return f"gp {'sparse' if setting[0] else 'dense'}, linear {'sparse' if setting[1] else 'dense'}"


def their_network(setting: tuple[bool, bool], device: str) -> nn.Module:
    torch.manual_seed(0)
    return reference(Shape(), sparse_gp=setting[0], sparse_linear=setting[1]).to(device)


def inputs(batch: int, tokens: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, tokens, Shape.in_channels, 16, generator=generator)
    return x.to(device), torch.randn(batch, tokens, Shape.in_scalars, generator=generator).to(
        device
    )


def forward(function: Callable[..., object], *arguments: object) -> Function:
    def run() -> None:
        with torch.no_grad():
            function(*arguments)

    return run


def training_step(
    function: Callable[..., tuple[Tensor, ...]], module: nn.Module, *arguments: object
) -> Function:
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)

    def run() -> None:
        optimizer.zero_grad()
        sum(t.square().mean() for t in function(*arguments)).backward()
        optimizer.step()

    return run


def kind(name: str) -> str:
    """What a case competes with: the other settings of lgatr, plain or compiled."""
    return name.partition(",")[0] if name.startswith("lgatr") else name


def median_times(cases: dict[str, Function], repeats: int, device: str) -> dict[str, float]:
    """In turns, so that all suffer alike from what else the machine does."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    warm: dict[str, float] = {}
    for name, case in cases.items():
        print(f"\r{'warming up ' + name:70}", end="", file=sys.stderr, flush=True)
        for _ in range(2):
            wait()
            began = time.perf_counter()
            case()
            wait()
            warm[name] = time.perf_counter() - began
    cases = {
        name: case for name, case in cases.items()
        if warm[name] < 1.3 * min(t for other, t in warm.items() if kind(other) == kind(name))
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(repeats):
        print(f"\r{f'repeat {i + 1} of {repeats}':70}", end="", file=sys.stderr, flush=True)
        for name, case in cases.items():
            wait()
            began = time.perf_counter()
            case()
            wait()
            times[name].append(time.perf_counter() - began)
    print(f"\r{'':70}\r", end="", file=sys.stderr)
    return {name: statistics.median(values) for name, values in times.items()}


def matrix_flops(model: LGATr, tokens: int) -> int:
    """Of the matrix products of a forward pass, per event of so many tokens."""
    per_token = 0
    for module in model.modules():
        if isinstance(module, EquiLinear):
            scalars, _, vectors, bivectors = module.weights()
            assert vectors is not None
            per_token += 2 * (scalars.numel() + 4 * vectors.numel() + 3 * bivectors.numel())
        elif isinstance(module, EquiAttention):
            per_token += 4 * tokens * module.heads * len(module.metric)
    return per_token * tokens


def memory_of_step(which: str, batch: int, tokens: int, device: str) -> int:
    """Bytes that a training step needs beyond what the process has, in this process."""
    model: nn.Module
    if which == "ours":
        torch.manual_seed(0)
        model = network(Shape()).to(device)

        def prepare(n: int) -> Function:
            return training_step(model, model, from_components(*inputs(n, tokens, device)))
    else:
        model = their_network(SETTINGS[int(which)], device)

        def prepare(n: int) -> Function:
            return training_step(model, model, *inputs(n, tokens, device))

    prepare(2)()  # libraries, kernels, caches
    step = prepare(batch)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    step()
    return resident("VmHWM") - before


def resident(which: str) -> int:
    """Bytes of memory that this process holds (VmRSS) or held at most (VmHWM), on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


def memory_in_fresh_process(which: str, batch: int, arguments: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "--memory-of", which, "--batch", str(batch)]
    for option in ("tokens", "threads", "device"):
        command += [f"--{option}", str(getattr(arguments, option))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def cases_for(
    batch: int, arguments: argparse.Namespace
) -> tuple[dict[str, Function], dict[str, Function], LGATr]:
    """Forward passes and training steps by name."""
    device, data = arguments.device, inputs(batch, arguments.tokens, arguments.device)
    x = from_components(*data)
    compiler = {"mode": None if arguments.mode == "default" else arguments.mode, "dynamic": False}
    passes: dict[str, Function] = {}
    steps: dict[str, Function] = {}
    ours: LGATr | None = None
    for compiled in (False,) if arguments.quick else (False, True):
        for setting in SETTINGS:
            if compiled and not setting[0]:
                continue  # dense products only pay when nothing is fused
            theirs = their_network(setting, device)
            if ours is None:
                ours = twin(theirs, Shape())
                check(theirs, ours, data)
            function = torch.compile(theirs, **compiler) if compiled else theirs
            name = f"lgatr {'compiled' if compiled else 'plain'}, {setting_name(setting)}"
            passes[name] = forward(function, *data)
            steps[name] = training_step(function, theirs, *data)
    assert ours is not None
    passes["ours, network"] = forward(ours, x)
    passes["ours, Inference"] = forward(Inference(ours), x)
    trained = twin(their_network(SETTINGS[0], device), Shape())
    steps["ours, network"] = training_step(trained, trained, x)
    if not arguments.quick:
        passes["ours, compiled"] = forward(torch.compile(ours, **compiler), x)
        trained = twin(their_network(SETTINGS[0], device), Shape())
        steps["ours, compiled"] = training_step(torch.compile(trained, **compiler), trained, x)
    return passes, steps, ours


def check(theirs: nn.Module, ours: LGATr, data: tuple[Tensor, Tensor]) -> None:
    """Both compute the same before anyone measures them."""
    with torch.no_grad():
        expected, result = theirs(*data), ours.components(*data)
    for a, b in zip(expected, result, strict=True):
        worst = float((a - b).abs().max() / a.abs().max())
        assert worst < 1e-4, f"the two networks differ by {worst:.1e}"


def best(times: dict[str, float], start: str) -> tuple[str, float]:
    name = min((name for name in times if name.startswith(start)), key=times.__getitem__)
    return name, times[name]


def report(batch: int, arguments: argparse.Namespace) -> None:
    torch.compiler.reset()
    passes, steps, ours = cases_for(batch, arguments)
    times = median_times(passes, arguments.repeats, arguments.device)
    step_times = median_times(steps, arguments.repeats, arguments.device)
    size = arguments.peak_size
    a, b = (torch.randn(size, size, device=arguments.device) for _ in range(2))
    peak_time = median_times({"peak": lambda: a @ b}, 5, arguments.device)["peak"]
    peak, flops = 2 * size**3 / peak_time, matrix_flops(ours, arguments.tokens)

    print(f"\nbatch of {batch} events of {arguments.tokens} tokens")
    for title, table, work in (("forward", times, 1), ("training step", step_times, 3)):
        for name, seconds in table.items():
            line = f"  {title:14} {name:42} {batch / seconds:10.0f} events/s"
            if name.startswith("ours"):
                line += f"   {work * flops * batch / seconds / peak:.2f} of the peak"
            print(line)
    print(f"  matrix-product peak {peak / 1e9:.0f} GFLOP/s, "
          f"{flops / 1e6:.1f} MFLOP per event in our matrix products")  # fmt: skip

    rows = [
        ("forward, plain", times, "lgatr plain", "ours, network"),
        ("training step, plain", step_times, "lgatr plain", "ours, network"),
        ("inference against its plain forward", times, "lgatr plain", "ours, Inference"),
    ]
    if not arguments.quick:
        rows += [
            ("forward, both compiled", times, "lgatr compiled", "ours, compiled"),
            ("training step, both compiled", step_times, "lgatr compiled", "ours, compiled"),
            ("our fastest inference against its plain forward", times, "lgatr plain", "ours"),
            ("our fastest forward against its fastest", times, "lgatr", "ours"),
            ("our fastest step against its fastest", step_times, "lgatr", "ours"),
        ]
    print("  ratios")
    for title, table, theirs, mine in rows:
        (name, slow), (our_name, fast) = best(table, theirs), best(table, mine)
        print(f"    {title:50} {slow / fast:6.2f}   ({name} / {our_name})")
    report_memory(batch, arguments, best(step_times, "lgatr plain")[0])


def report_memory(batch: int, arguments: argparse.Namespace, fastest: str = "") -> None:
    usage = {"ours": memory_in_fresh_process("ours", batch, arguments)}
    for i, setting in enumerate(SETTINGS):
        usage[f"lgatr plain, {setting_name(setting)}"] = memory_in_fresh_process(
            str(i), batch, arguments
        )
    print(f"  memory of a training step of {batch} events, plain")
    for name, bytes_ in usage.items():
        mark = "   (its fastest)" if name == fastest else ""
        print(f"    {name:50} {bytes_ / 2**20:8.0f} MiB{mark}")
    least = min(value for name, value in usage.items() if name != "ours")
    if fastest:
        print(f"    {'its fastest / ours':50} {usage[fastest] / max(usage['ours'], 1):6.2f}")
    print(f"    {'its leanest / ours':50} {least / max(usage['ours'], 1):6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mode", default="default", help="mode of torch.compile, for both")
    parser.add_argument("--peak-size", type=int, default=4096)
    parser.add_argument("--quick", action="store_true", help="nothing compiled")
    parser.add_argument("--memory", action="store_true", help="nothing but memory")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        batch = arguments.batch[0]
        print(memory_of_step(arguments.memory_of, batch, arguments.tokens, arguments.device))
        return
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} threads")
    for batch in arguments.batch:
        (report_memory if arguments.memory else report)(batch, arguments)


if __name__ == "__main__":
    main()
