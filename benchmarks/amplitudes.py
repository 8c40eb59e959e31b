"""Six networks learn the squared amplitudes of q q~ -> Z + n gluons: accuracy, pulls, rates, use.

    python -m venv ORACLE && ORACLE/bin/pip install pyamplicol==1.0.1
    python benchmarks/amplitudes.py make --python ORACLE/bin/python --dir DIR --gluons 1 2 3
    python benchmarks/amplitudes.py train --dir DIR --gluons 1 2 3 --cpu-time 45 --small
    python benchmarks/amplitudes.py table --dir DIR

`make` needs exact amplitudes, see `amplitude_points.py`; everything after it needs hepgen-ml alone.
`train` gives every network the same time of one core, as a number of steps whose time is measured
before, so that other work on the machine changes nothing. Each result is stored when it is there;
those that exist are left out. `table` prints the tables of `results/amplitudes.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hepgen_ml.events.sample import EventSample, FloatArray, RunInfo
from hepgen_ml.events.weights import effective_size, unweighting_limit
from hepgen_ml.networks.names import EVENT_NETWORKS
from hepgen_ml.regression.calibration import pull_widths
from hepgen_ml.regression.model import Settings, train_member
from hepgen_ml.regression.points import Encoder
from hepgen_ml.regression.regressor import Regressor
from hepgen_ml.regression.targets import Target
from hepgen_ml.regression.unweighting import unweight_twice

TEST = 15_000
"""Last points of each file, which no network sees."""

LOSS = {1: 0.01, 2: 0.01, 3: 0.05, 4: 0.2}
"""Part of the weight above the limit of `make`, by the number of gluons."""

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {}, "deep-sets": {},
    "transformer": {"width": 64, "blocks": 2, "heads": 4},
    "gap": {"channels": 16, "scalars": 32, "blocks": 2},
    "gatr": {"channels": 8, "scalars": 16, "blocks": 2, "heads": 4},
    "lgatr": {"channels": 8, "scalars": 16, "blocks": 2, "heads": 4},
}  # fmt: skip
THESIS: dict[str, dict[str, Any]] = {
    "mlp": {}, "deep-sets": {}, "transformer": {"blocks": 8},
    "gap": {"channels": 96, "scalars": 96, "blocks": 8},
    "gatr": {"channels": 32, "scalars": 32, "blocks": 8},
    "lgatr": {"channels": 32, "scalars": 32, "blocks": 8},
}  # fmt: skip


def sample_of(momenta: FloatArray, data: dict[str, np.ndarray]) -> EventSample:
    """Points as events."""
    n, k = momenta.shape[:2]
    columns = dict(zip(("px", "py", "pz", "energy"), momenta.reshape(-1, 4).T, strict=True))
    columns |= {name: np.tile(data[name], n) for name in ("pdg_id", "status")}
    return EventSample(RunInfo(), np.arange(n + 1) * k, columns)


def load(place: Path, n: int) -> dict[str, np.ndarray]:
    """What `make` wrote."""
    with np.load(place / f"z{n}g.npz", allow_pickle=False) as file:
        return dict(file)


def make(options: argparse.Namespace) -> None:
    """Points and exact amplitudes."""
    from amplitude_points import Oracle
    from amplitude_points import make as points

    options.dir.mkdir(parents=True, exist_ok=True)
    for n in options.gluons:
        oracle = Oracle(options.python, options.dir, n)
        begun = time.monotonic()
        data = points(oracle, options.points, LOSS[n], options.seed)
        np.savez(options.dir / f"z{n}g.npz", **data)
        print(f"Z + {n} g: {options.points:,} of {oracle.points:,} points, "
              f"{1e6 * data['exact_seconds']:.1f} us each, std of log A "
              f"{np.log(data['amplitude']).std():.2f}, {time.monotonic() - begun:.0f} s",
              flush=True)  # fmt: skip


def cpu_time_of_a_step(sample: EventSample, settings: Settings, values: FloatArray) -> float:
    """Seconds of one core for a step of training."""
    encoder, target = Encoder.of(sample), Target.of(values, "A", "values")
    points = encoder.encode(sample).with_target(
        torch.from_numpy(target.standardized(values)).float()
    )
    times = []
    for steps in (3, 3, 23):  # the first compiles loops
        few = Settings(settings.network, settings.sizes, max_steps=steps, max_time=1e6,
                       batch_size=settings.batch_size)  # fmt: skip
        begun = time.process_time()
        train_member(encoder, points, points[:50], few, seed=0, device=torch.device("cpu"),
                     report=lambda done: None)  # fmt: skip
        times.append(time.process_time() - begun)
    return (times[2] - times[1]) / 20


def one(
    data: dict[str, np.ndarray], n: int, network: str, size: int, options: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Train a network and judge it by points that it has not seen."""
    momenta, amplitude = data["momenta"], data["amplitude"]
    train, values = sample_of(momenta[:size], data), amplitude[:size]
    sizes = (SMALL if options.small else THESIS)[network]
    plain = Settings(network, sizes, batch_size=options.batch_size)
    step = cpu_time_of_a_step(train[:2000], plain, values[:2000])
    steps = max(int(options.cpu_time / step), 30)
    settings = Settings(network, sizes, batch_size=options.batch_size, max_time=1e6,
                        max_steps=steps, loss=options.loss)  # fmt: skip
    begun = time.monotonic()
    made = Regressor.fit(train, values, settings, seed=seed)
    seconds = time.monotonic() - begun
    test, truth = sample_of(momenta[-TEST:], data), amplitude[-TEST:]
    made.predict(test[:4096])
    began = time.process_time()
    predicted = made.predict(test)
    rate = (time.process_time() - began) / TEST
    log, scale = np.log(truth), made.target.std
    mean, sigma = np.log(predicted.value), np.log1p(predicted.uncertainty / predicted.value)
    width, by_quantile = pull_widths(mean, sigma, log)
    off = np.abs(predicted.value / truth - 1)
    found = {
        "gluons": n, "network": network, "train": size, "seed": seed, "steps": made.facts["steps"],
        "step_ms": 1e3 * step, "seconds": seconds, "cpu_time": options.cpu_time,
        "parameters": sum(p.numel() for p in made.networks[0].parameters()),
        "mse": float(np.mean(((mean - log) / scale) ** 2)), "median": float(np.median(off)),
        "error_99": float(np.quantile(off, 0.99)), "pull_width": width, "pull_widths": by_quantile,
        "within_one_sigma": float(np.mean(np.abs(mean - log) < sigma)),
        "predict_us": 1e6 * rate, "exact_us": 1e6 * float(data["exact_seconds"]),
    }  # fmt: skip
    return found | use(made, data, options.proposals, rate)


def use(
    made: Regressor, data: dict[str, np.ndarray], most: int, rate: float
) -> dict[str, Any]:
    """Unweighting of proposals by the surrogate and the exact weight."""
    phase_space = data["proposal_phase_space"][:most]
    exact = phase_space * data["proposal_amplitude"][:most]
    surrogate = phase_space * made.predict(sample_of(data["proposal_momenta"][:most], data)).value
    done = unweight_twice(surrogate, lambda rows: exact[rows])
    # the same with exact weights alone
    left = np.maximum(exact / (limit := unweighting_limit(exact)), 1.0)
    expected = np.minimum(exact / limit, 1.0)
    efficiency = float(expected.mean())
    # effective size of accepted events: each is there with its probability and weight
    share = float((expected * left).sum() ** 2 / (expected * left**2).sum() / expected.sum())
    exact_time = float(data["exact_seconds"])
    return {
        "candidates": len(exact), "first": done.first, "second": done.second,
        "effective": done.effective, "x_quantiles": done.quantiles, "x_largest": done.largest,
        "direct": efficiency, "direct_effective": share,
        "sum_of_surrogate": float(surrogate.sum() / exact.sum()),
        "gain": done.gain(exact_time, rate, efficiency * share),
        "weights_effective": effective_size(exact) / len(exact),
    }  # fmt: skip


def train(options: argparse.Namespace) -> None:
    """All networks, one result a line."""
    path = options.dir / "results.jsonl"
    done = set()
    if path.exists():
        for line in path.read_text().splitlines():
            r = json.loads(line)
            done.add((r["gluons"], r["network"], r["train"], r["seed"], r["cpu_time"]))
    for n in options.gluons:
        data = load(options.dir, n)
        whole = len(data["momenta"]) - TEST
        for size in options.sizes or [whole]:
            for network in options.networks:
                for seed in range(options.seeds):
                    key = (n, network, min(size, whole), seed, options.cpu_time)
                    if key in done:
                        continue
                    result = one(data, n, network, min(size, whole), options, seed)
                    with path.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                    print(f"Z + {n} g, {network}, {key[2]:,} points: MSE {result['mse']:.2e}, "
                          f"median {result['median']:.3%}, pulls {result['pull_width']:.2f}, "
                          f"{result['steps']} steps, gain {result['gain']:.2f}",
                          flush=True)  # fmt: skip


def table(options: argparse.Namespace) -> None:
    """Tables of all results, means over seeds."""
    lines = (options.dir / "results.jsonl").read_text().splitlines()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in map(json.loads, lines):
        groups.setdefault((r["gluons"], r["train"], r["cpu_time"], r["network"]), []).append(r)
    order = {name: i for i, name in enumerate(EVENT_NETWORKS)}
    print("| gluons | points | network | parameters | steps | MSE | median error | 99 % | pulls "
          "| by quantile of A | within 1 sigma |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    keys = sorted(groups, key=lambda k: (k[0], -k[1], k[2], order[k[3]]))
    for key in keys:
        rs = groups[key]
        r = rs[0]
        mse = np.array([x["mse"] for x in rs])
        spread = f" ± {mse.std():.1e}" if len(rs) > 1 else ""
        quantiles = ", ".join(f"{w:.2f}" for w in r["pull_widths"])
        print(f"| {key[0]} | {key[1]:,} | {key[3]} | {r['parameters']:,} | {r['steps']:,} "
              f"| {mse.mean():.2e}{spread} | {r['median']:.2%} | {r['error_99']:.1%} "
              f"| {r['pull_width']:.2f} | {quantiles} | {r['within_one_sigma']:.0%} |")  # fmt: skip
    print("\n| gluons | network | exact | surrogate | first | second | effective "
          "| x at 50, 90, 99, 99.9 % | largest x | exact alone | gain |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for key in keys:
        r = groups[key][0]
        x = ", ".join(f"{v:.2f}" for v in r["x_quantiles"])
        print(f"| {key[0]} | {key[3]} ({key[1]:,}) | {r['exact_us']:.1f} us "
              f"| {r['predict_us']:.1f} us | {r['first']:.2%} | {r['second']:.1%} "
              f"| {r['effective']:.1%} | {x} | {r['x_largest']:.3g} "
              f"| {r['direct']:.2%} | {r['gain']:.2f} |")  # fmt: skip


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    for verb in (make, train, table):
        sub = verbs.add_parser(verb.__name__, help=(verb.__doc__ or "").rstrip("."))
        sub.set_defaults(run=verb)
        sub.add_argument("--dir", type=Path, required=True)
        if verb is table:
            continue
        sub.add_argument("--gluons", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3, 4])
        if verb is make:
            sub.add_argument("--python", type=Path, required=True, help="that has pyamplicol")
            sub.add_argument("--points", type=int, default=120_000)
            sub.add_argument("--seed", type=int, default=1)
            continue
        sub.add_argument("--networks", nargs="+", default=EVENT_NETWORKS, choices=EVENT_NETWORKS)
        sub.add_argument("--sizes", type=int, nargs="+", help="training points; all if not given")
        sub.add_argument("--seeds", type=int, default=1)
        sub.add_argument("--cpu-time", type=float, default=600.0, help="seconds of each training")
        sub.add_argument("--batch-size", type=int, default=256)
        sub.add_argument("--loss", default="mse")
        sub.add_argument("--small", action="store_true", help="networks for minutes on a core")
        sub.add_argument("--proposals", type=int, default=100_000, help="candidates to unweight")
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
