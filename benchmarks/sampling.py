"""Sampling with the key/value cache against re-running the network on every prefix.

    python benchmarks/sampling.py [--coordinates 17] [--events 2048] [--repeats 7] [--threads 1 2]

Both ways use the same JetGPT network (0.8M parameters by default) with random
weights, the same threads and the same mixture draws. Prints for each number of threads the rates,
their ratio, and the fraction of the machine's matrix-product peak that the cached sampler reaches.
The peak is that of a large single-precision product with as many threads, measured before and after
the sampling, of which the larger counts. Operations are those of the matrix products alone: two for
each element of a weight matrix, event and coordinate; attention, norms and draws count as nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from hepgen_ml.config import load_config
from hepgen_ml.models.conditions import coordinate_features
from hepgen_ml.models.jetgpt.autoregressive import JetGPT
from hepgen_ml.phase_space import Coordinate


class Stub:
    """As much of a process as the network needs: one channel of so many coordinates."""

    def __init__(self, n: int) -> None:
        from types import SimpleNamespace

        layout = tuple(Coordinate(f"x{i}", periodic=i % 3 == 2) for i in range(n))
        self.channels = [SimpleNamespace(coordinates=layout)]
        self.n_coordinates, self.conditions = n, None
        self.channel_of = torch.zeros(1, dtype=torch.int64)
        structure = SimpleNamespace(pdg_id=(21, 21, 6, -6), incoming=[0, 1], process_id=1)
        self.subprocesses = [SimpleNamespace(structure=structure, order=(2, 3), chart=0)]


@torch.inference_mode()
def sample_by_prefixes(model: JetGPT, subprocess: Tensor) -> Tensor:
    """What a sampler without a cache does: the whole network again for every coordinate."""
    n = len(model.numbers[0])
    z = torch.zeros(len(subprocess), n)
    condition = model.condition()[subprocess].unsqueeze(1)
    weights = model.value[model.numbers[0]] * model.keep[model.numbers[0]].unsqueeze(-1)
    for t in range(n):
        past = torch.einsum("mtf,tfw->mtw", coordinate_features(z[:, :t]), weights[:t])
        tokens = torch.nn.functional.pad(past, (0, 0, 1, 0))
        tokens = tokens + model.target.weight[model.numbers[0][: t + 1]] + condition
        hidden = model.transformer(tokens)[:, -1]
        parameters = torch.addmm(model.head_bias[t], hidden, model.head[t])
        z[:, t] = model.densities[t].sample(parameters)
    return z


def median_time(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak() -> float:
    """Operations per second of a large matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / median_time(lambda: a @ b, 9)


def operations(model: JetGPT, coordinates: int) -> int:
    """Of the matrix products for an event."""
    matrices = sum(p.numel() for p in model.transformer.parameters() if p.dim() == 2)
    values = model.value[model.numbers[0]]
    heads = sum(
        model.head.shape[1] * model.densities[number].n_parameters for number in model.numbers[0]
    )
    return 2 * (coordinates * matrices + heads + values[:-1].numel())


def measure(model: JetGPT, subprocess: Tensor, coordinates: int, repeats: int) -> None:
    """Print the figures for the present number of threads."""

    def cached() -> Tensor:
        with torch.inference_mode():
            return model.sample_z(subprocess)

    before = peak()
    ours = median_time(cached, repeats)
    naive = median_time(lambda: sample_by_prefixes(model, subprocess), max(3, repeats // 2))
    most = max(before, peak())
    flops = operations(model, coordinates)
    rate = len(subprocess) / ours
    print(f"{torch.get_num_threads()} threads")
    print(f"  cached sampling             {rate:.0f} events/s")
    print(f"  prefix by prefix            {len(subprocess) / naive:.0f} events/s")
    print(f"  ratio                       {naive / ours:.1f}")
    print(f"  matrix-product peak         {most / 1e9:.0f} GFLOP/s")
    print(f"  rate the peak would allow   {most / flops:.0f} events/s")
    print(f"  fraction of the peak        {rate * flops / most:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinates", type=int, default=17)
    parser.add_argument("--events", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config = load_config(None, ["network.width=128", "network.blocks=6", *arguments.set])
    model = JetGPT(Stub(arguments.coordinates), config).eval()
    n = sum(p.numel() for p in model.transformer.parameters())
    print(
        f"{n / 1e6:.2f} M parameters of the transformer, "
        f"{operations(model, arguments.coordinates) / 1e6:.1f} MFLOP per event"
    )
    subprocess = torch.zeros(arguments.events, dtype=torch.int64)
    for threads in dict.fromkeys(arguments.threads):
        torch.set_num_threads(threads)
        measure(model, subprocess, arguments.coordinates, arguments.repeats)


if __name__ == "__main__":
    main()
