"""Named weights learned with a sample, judged by events that were held out.

Top pairs with up to one jet (`ttbar01j_train.lhe.gz` in the directory that HEPGEN_ML_DATA names)
get real variations: seven points of the renormalisation and factorisation scale, ten sets of parton
densities and 100 members made from these, all from the densities that come with pythia8mc; and two
of an effective theory, the interference of the chromomagnetic moment of the top (1010.6304) and of
an operator that makes the charge asymmetry, which changes sign.

    python benchmarks/variations.py --max-time 30m
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import hepgen_ml
from hepgen_ml import Generator
from hepgen_ml.cli.quantities import parse_duration
from hepgen_ml.config import Config
from hepgen_ml.events.sample import EventSample

FloatArray = npt.NDArray[np.float64]

NOMINAL = 13
"""NNPDF2.3 LO, alpha_s = 0.130, in Pythia's numbering: the set of the sample."""

SETS = (14, 15, 16, 17, 20, 21, 22, 3, 5, 8)
N_MEMBERS = 100
POINTS = [(r, f) for r in (0.5, 1.0, 2.0) for f in (0.5, 1.0, 2.0) if 0.25 < r / f < 4]
TOP = 173.0


def density(number: int) -> Callable[[FloatArray, FloatArray, FloatArray], FloatArray]:
    """Parton density x f(flavour, x, scale) of a proton."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for text in ("Print:quiet=on", "PartonLevel:all=off", "HardQCD:gg2gg=on",
                 "PhaseSpace:pTHatMin=100", "Beams:eCM=13000", f"PDF:pSet={number}"):  # fmt: skip
        pythia.readString(text)
    pythia.init()
    found = pythia.getPDFPtr(2212)

    def values(flavour: FloatArray, x: FloatArray, scale: FloatArray) -> FloatArray:
        triples = zip(flavour.tolist(), x.tolist(), (scale**2).tolist(), strict=True)
        assert pythia is not None  # kept alive: it owns the density
        return np.array([found.xf(f, at, q2) for f, at, q2 in triples])

    return values


def variations(sample: EventSample, seed: int = 1) -> dict[str, FloatArray]:
    """Ratios to the nominal weight by name."""
    first = sample.offsets[:-1]
    flavour = np.stack([sample.pdg_id[first], sample.pdg_id[first + 1]], 1)
    x = np.stack([sample.energy[first], sample.energy[first + 1]], 1) / 6500.0
    power = 2.0 + sample.process_id

    def luminosity(f: Any, factor: float = 1.0) -> FloatArray:
        return f(flavour[:, 0], x[:, 0], factor * sample.scale) * f(
            flavour[:, 1], x[:, 1], factor * sample.scale
        )

    nominal = density(NOMINAL)
    centre = luminosity(nominal)
    at = {f: luminosity(nominal, f) / centre for f in (0.5, 1.0, 2.0)}
    found: dict[str, FloatArray] = {}
    for r, f in POINTS:
        running = 1 + sample.alpha_qcd * (33 - 10) / (12 * np.pi) * np.log(r**2)
        found[f"MUR={r} MUF={f}"] = running**-power * at[f]
    # far from all data sets may be negative; the twentieth part of the nominal one stands for it
    sets = [np.maximum(luminosity(density(number)) / centre, 0.05) for number in SETS]
    found |= {f"PDF={number}": ratio for number, ratio in zip(SETS, sets, strict=True)}
    rng = np.random.default_rng(seed)
    logs = np.log(np.stack(sets, 1))
    for k in range(N_MEMBERS):
        found[f"PDF=member_{k + 1}"] = np.exp(logs @ rng.normal(0, 0.15, len(SETS)))
    return found | effective_theory(sample)


def effective_theory(sample: EventSample) -> dict[str, FloatArray]:
    """Ratios of amplitudes of the top pair, at the angle that the event gives it."""
    first = sample.offsets[:-1]
    p = sample.momentum
    one, two, t, tbar = (p[first + k] for k in range(4))
    metric = np.array([-1.0, -1.0, -1.0, 1.0])

    def dot(a: FloatArray, b: FloatArray) -> FloatArray:
        return np.asarray((a * b * metric).sum(1))

    s = 2 * TOP**2 + 2 * dot(t, tbar)
    left = dot(one, t) + dot(two, tbar)
    right = dot(two, t) + dot(one, tbar)
    tau1, tau2 = left / (left + right), right / (left + right)
    rho = 4 * TOP**2 / s
    squared = tau1**2 + tau2**2 + rho - rho**2 / (4 * tau1 * tau2)
    gluons = (sample.pdg_id[first] == 21) | (sample.pdg_id[first + 1] == 21)
    quarks = tau1**2 + tau2**2 + rho / 2
    strong = np.sqrt(4 * np.pi * sample.alpha_qcd)
    size = 0.3 * np.sqrt(2) * strong * 0.246 * 0.173 / (np.pi * sample.alpha_qcd)
    chromo = size * np.where(gluons, 1 / np.maximum(squared, 0.05), 2.25 / quarks)
    pair = (sample.pdg_id[first] + sample.pdg_id[first + 1] == 0) & ~gluons
    side = np.sign(sample.pdg_id[first])
    asymmetry = np.where(pair, s / 1e6 * side * (tau2 - tau1) / quarks, 0.0)
    return {"EFT chromo": 1 + chromo + chromo**2 / 2, "EFT asymmetry": asymmetry}


def with_variations(sample: EventSample) -> EventSample:
    """The sample with its variations as named weights, in groups as MadGraph declares them."""
    ratios = variations(sample)
    groups = []
    for title, start in (("Central scale variation", "MUR"), ("PDF sets", "PDF="), ("EFT", "EFT")):
        lines = [f'<weight id="{n}">{n}</weight>' for n in ratios if n.startswith(start)]
        groups += [f'<weightgroup name="{title}">', *lines, "</weightgroup>"]
    run = sample.run.with_(
        weight_names={n: n for n in ratios}, weight_groups="\n".join(groups)
    )
    return EventSample(
        run, sample.offsets, sample.particles, sample.events,
        weights={n: r * sample.weight for n, r in ratios.items()},
    )  # fmt: skip


def observables(sample: EventSample) -> dict[str, FloatArray]:
    """Distributions that are compared, with bins of equal content."""
    first = sample.offsets[:-1]
    p = sample.momentum
    t, pair = p[first + 2], p[first + 2] + p[first + 3]
    mass = np.sqrt(np.maximum(pair[:, 3] ** 2 - (pair[:, :3] ** 2).sum(1), 0))
    return {
        "pt(t)": np.hypot(t[:, 0], t[:, 1]),
        "y(t)": np.arctanh(t[:, 2] / t[:, 3]),
        "m(t t~)": mass,
        "pt(t t~)": np.hypot(pair[:, 0], pair[:, 1]) + 1e-3 * (sample.counts == 4),
        "scale": sample.scale,
    }


def chi2(truth: EventSample, made: EventSample, name: str) -> float:
    """Largest chi2/ndf of weighted marginals, their sums as they are."""
    worst = 0.0
    for key, x in observables(truth).items():
        y = observables(made)[key]
        edges = np.unique(np.quantile(x, np.linspace(0, 1, 31)))
        edges[0], edges[-1] = -np.inf, np.inf
        total, error = [], []
        for sample, values in ((truth, x), (made, y)):
            w = (sample.weights[name] if name else sample.weight) / len(sample)
            total.append(np.histogram(values, edges, weights=w)[0])
            error.append(np.histogram(values, edges, weights=w**2)[0])
        use = (error[0] > 0) & (error[1] > 0)
        pull2 = (total[0] - total[1])[use] ** 2 / (error[0] + error[1])[use]
        worst = max(worst, float(pull2.mean()))
    return worst


def rates(generator: Generator, n: int = 50_000) -> tuple[float, float]:
    """Events per second with the named weights and without."""
    found, ratios = [], generator._sampler.ratios
    for some in (ratios, None):
        generator._sampler.ratios = some
        generator.sample(5_000, seed=1)
        begun = time.monotonic()
        generator.sample(n, seed=2)
        found.append(n / (time.monotonic() - begun))
    generator._sampler.ratios = ratios
    return found[0], found[1]


def main() -> None:
    """Train, generate, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-time", default="30m", help="of the training")
    parser.add_argument("--events", type=int, default=100_000, help="to train on")
    parser.add_argument("--truth", type=int, default=150_000, help="held-out events")
    parser.add_argument("--out", type=Path, help="keep the model here")
    options = parser.parse_args()
    path = Path(os.environ.get("HEPGEN_ML_DATA", "")) / "ttbar01j_train.lhe.gz"
    sample = hepgen_ml.read(path)
    order = np.random.default_rng(3).permutation(len(sample))
    train = with_variations(sample[np.sort(order[: options.events])])
    truth = with_variations(sample[np.sort(order[-options.truth :])])
    with TemporaryDirectory() as place:
        config = Config().with_(training__max_time=parse_duration(options.max_time))
        out = options.out or Path(place) / "model"
        generator = Generator.train(train, out=out, config=config, seed=1)
        _report(generator, train, truth)


def _report(generator: Generator, train: EventSample, truth: EventSample) -> None:
    inside = np.zeros(len(truth), dtype=bool)
    inside[generator.process.encode(truth).event.numpy()] = True
    known = truth[inside]
    ratio, error = generator.weight_ratios(known)
    made = generator.sample(len(truth), seed=5)
    print(f"{len(train):,} events to train on, {len(truth):,} of truth, as many generated")
    print("| weights | cross section, same events | generated events | median error | 99 % "
          "| error as stated | chi2/ndf |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    rows: dict[str, list[list[float]]] = {}
    for k, name in enumerate(truth.weights):
        true = known.weights[name] / known.weight
        off = np.abs(ratio[:, k] - true)
        free = error[:, k] > 0  # events of subprocesses in which the ratio is not exact
        free |= not free.any()
        size = np.abs(true[free]) if true.min() > 0 else np.abs(true[free]).mean()
        sums = [float((s.weights[name] / s.weight).mean()) for s in (truth, made)]
        unit = sums[0] if true.min() > 0 else float(np.abs(true).mean())
        same = float(ratio[:, k].mean() - true.mean()) / unit
        covered = float(np.mean(off[free] <= error[free, k]))
        median, most = np.quantile(off[free] / size, [0.5, 0.99]).tolist()
        made_off = abs(sums[1] - sums[0]) / unit
        values = [abs(same), made_off, median, most, covered, chi2(truth, made, name)]
        group = "PDF members" if "member" in name else name.split("=")[0].split(" ")[-1]
        group = {"MUR": "scales", "PDF": "PDF sets"}.get(group, group)
        rows.setdefault(group, []).append(values)
    for group, values in rows.items():
        a = np.array(values)
        low, high = a[:, 4].min(), a[:, 4].max()
        print(f"| {len(a)} {group}, worst | {a[:, 0].max():.3%} | {a[:, 1].max():.3%} | "
              f"{a[:, 2].max():.3%} | {a[:, 3].max():.2%} | {low:.0%} to {high:.0%} | "
              f"{a[:, 5].max():.2f} |")  # fmt: skip
    print(f"| nominal | | | | | | {chi2(truth, made, ''):.2f} |")
    assert generator.ratios is not None
    with_, without = rates(generator)
    print(f"\n{len(truth.weights)} weights, {generator.ratios.n_components} components; "
          f"{with_:,.0f} events/s with them, {without:,.0f} without: "
          f"{without / with_ - 1:.0%} more time")  # fmt: skip


if __name__ == "__main__":
    main()
