"""Sampling with the key/value cache against re-running the network on every prefix.

    python benchmarks/sampling.py [--coordinates 17] [--events 2048] [--repeats 7] [--threads N]

Both ways use the same JetGPT network (0.8M parameters by default) with random
weights, the same threads and the same mixture draws. Prints the rates, their
ratio, and the fraction of the machine's matrix-product peak that the cached
sampler reaches (peak: a large single-precision product, measured in the same run).
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coordinates", type=int, default=17)
    parser.add_argument("--events", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = load_config(None, ["network.width=128", "network.blocks=6", *arguments.set])
    model = JetGPT(Stub(arguments.coordinates), config).eval()
    body = sum(p.numel() for p in model.transformer.parameters())
    head = 3 * config.network.mixtures * config.network.width
    subprocess = torch.zeros(arguments.events, dtype=torch.int64)

    def cached() -> Tensor:
        with torch.inference_mode():
            return model.sample_z(subprocess)

    ours = median_time(cached, arguments.repeats)
    naive = median_time(
        lambda: sample_by_prefixes(model, subprocess), max(3, arguments.repeats // 2)
    )
    a, b = torch.randn(4096, 4096), torch.randn(4096, 4096)
    peak = 2 * 4096**3 / median_time(lambda: a @ b, 5)
    flops = 2 * (body + head) * arguments.coordinates
    rate = arguments.events / ours
    print(f"transformer parameters      {body / 1e6:.2f} M, {arguments.threads} threads")
    print(f"cached sampling             {rate:.0f} events/s")
    print(f"prefix by prefix            {arguments.events / naive:.0f} events/s")
    print(f"ratio                       {naive / ours:.1f}")
    print(f"matrix-product peak         {peak / 1e9:.0f} GFLOP/s")
    print(f"rate the peak would allow   {peak / flops:.0f} events/s")
    print(f"fraction of the peak        {rate * flops / peak:.2f}")


if __name__ == "__main__":
    main()
