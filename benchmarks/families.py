"""Compare the families of generative networks at equal training time.

    python benchmarks/zoo.py make ttbar01j zjets ttbar_hadronic --dir DIR
    python benchmarks/families.py search --dir DIR --minutes 3 --trials 6      # optional
    python benchmarks/families.py run --dir DIR --minutes 20
    python benchmarks/families.py run --dir DIR --steps 832 --families lgatr-cfm mlp-cfm
    python benchmarks/families.py run --dir DIR --minutes 1 4 16 --families lgatr-cfm mlp-cfm jetgpt
    python benchmarks/families.py table --dir DIR --figure families.png

`run` trains every family for so long on the threads of OMP_NUM_THREADS, on each sample and, with
--sizes, on so many of its events; it generates events and compares them with truth that training
never saw; with several --minutes it does so for each, and the figure shows AUCs against them.
`search` gives each family the same number of short trainings on the first sample: the
defaults and random choices among `CHOICES`, judged by the half of the truth that `run` does not
use. What was the best is written beside the samples and taken by `run`; without a search all
families have their defaults. Results are JSON files in DIR; those that are there are not made
again. With --steps, trainings have equal numbers of steps instead of equal time, and --set changes
a setting of all, also in a search; `table` with the same options shows these.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo

import hepgen_ml
from hepgen_ml.config import load_config
from hepgen_ml.errors import HepgenError, UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.models.names import names
from hepgen_ml.validation.comparison import compare

SAMPLES = ("ttbar01j", "zjets", "ttbar_hadronic")

LEFT_OUT = {"gatr-cfm", "ddpm-mlp", "ddpm-transformer", "ddpm-gatr", "ddpm-lgatr"}
"""Variants of a family that another member of it stands for."""

RATES = ("training.learning_rate=1e-3", "training.learning_rate=3e-3",
         "training.learning_rate=6e-3")  # fmt: skip
MARKERS = "os^Dv*"
ABSCISSAE = {"minutes": "training time [minutes]", "events": "number of training events"}
BATCHES = ("training.batch_size=512", "training.batch_size=1024", "training.batch_size=2048")

CHOICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "jetgpt": (RATES, BATCHES, ("network.width=64", "network.width=96", "network.width=128")),
    "cfm": (RATES, BATCHES, ("network.width=64", "network.width=128", "network.width=256")),
    "lgatr-cfm": (RATES, BATCHES, ("lgatr.channels=4", "lgatr.channels=8", "lgatr.blocks=4")),
    "ddpm": (RATES, BATCHES, ("network.width=64", "network.width=128", "network.width=256")),
    "spline-flow": (RATES, BATCHES, ("spline_flow.couplings=8", "spline_flow.couplings=12",
                                     "spline_flow.couplings=18")),
    "gan": (RATES, BATCHES),
}  # fmt: skip
"""Settings that `search` chooses among, by name of the model or the end or beginning of it."""


def families() -> list[str]:
    return [name for name in names() if name not in LEFT_OUT]


def choices_of(family: str) -> tuple[tuple[str, ...], ...]:
    """The alternatives of a family; rates and batches alone for one that is not listed."""
    fitting = [k for k in CHOICES if family.startswith(k) or family.endswith(k)]
    return CHOICES[max(fitting, key=len)] if fitting else (RATES, BATCHES)


def truth_of(directory: Path, sample: str) -> tuple[EventSample, EventSample]:
    """Truth to choose settings by and truth to judge by."""
    truth = hepgen_ml.read(zoo.files(directory, sample)[1], selection=zoo.selection(sample))
    truth = zoo.shuffled(truth)[: 8 * zoo.N_TRUTH]
    return truth[: len(truth) // 2], truth[len(truth) // 2 :]


def train(
    directory: Path, sample: EventSample, family: str, minutes: float, settings: list[str], to: str
) -> hepgen_ml.Generator:
    config = load_config(None, ["training.max_epochs=100000", *settings])
    return hepgen_ml.Generator.train(
        sample, model=family, out=directory / to, force=True, config=config,
        max_time=60 * minutes,
    )  # fmt: skip


def judge(generator: hepgen_ml.Generator, truth: EventSample) -> dict[str, Any]:
    """Everything the table shows of a trained model."""
    begun = time.monotonic()
    generated = generator.sample(max(zoo.N_GENERATED, min(len(truth), 200_000)), seed=1)
    rate = len(generated) / (time.monotonic() - begun)
    comparison = compare(truth, generated, n_classifier=zoo.N_TRUTH)
    facts = generator.facts
    found = {
        "rate": rate, "parameters": facts["parameters"], "steps": facts["steps"],
        "passes": facts["steps"] * generator.config.training.batch_size / facts["events"],
        "threads": torch.get_num_threads(), "worst": zoo.worst_marginals(comparison),
        "peaks": zoo.peak_ratios(truth, generated),
    } | zoo.areas(comparison)  # fmt: skip
    try:
        log_p = generator.log_prob(truth[:2000])
    except HepgenError:  # a family without a likelihood
        return found
    finite = np.isfinite(log_p)
    return found | {
        "log_prob": float(log_p[finite].mean()),
        "log_prob_error": float(log_p[finite].std() / np.sqrt(finite.sum())),
        "finite": float(finite.mean()),
    }


def run(
    directory: Path, sample: str, family: str, minutes: float, size: int, more: list[str]
) -> dict[str, Any]:
    """Train a family on a sample, with more settings than the best ones found, and judge it."""
    events = hepgen_ml.read(zoo.files(directory, sample)[0], selection=zoo.selection(sample))
    events = zoo.shuffled(events)[: size or None]
    chosen = directory / f"search_{family}.json"
    settings = json.loads(chosen.read_text())[0]["settings"] if chosen.exists() else []
    settings = [*settings, *more]
    result: dict[str, Any] = {
        "sample": sample, "family": family, "minutes": minutes, "events": len(events),
        "settings": settings,
    }  # fmt: skip
    try:
        to = f"{sample}_{family}_model" if not more else f"{sample}_{family}_other_model"
        generator = train(directory, events, family, minutes, settings, to)
        return result | judge(generator, truth_of(directory, sample)[1])
    except HepgenError as error:  # jetgpt-splitting without jets, for one
        return result | {"refused": str(error).splitlines()[0]}


def search(
    directory: Path, sample: str, family: str, minutes: float, trials: int, more: list[str]
) -> None:
    """Defaults and random alternatives of a family, with more settings; the best first into a file.

    Settings with which a training fails are the last, with the reason instead of an AUC.
    """
    random = np.random.default_rng(1)
    tried: list[list[str]] = [[]]
    while len(tried) < trials:
        tried.append([str(random.choice(c)) for c in choices_of(family)])
    events = hepgen_ml.read(zoo.files(directory, sample)[0], selection=zoo.selection(sample))
    truth = truth_of(directory, sample)[0]
    done: list[dict[str, Any]] = []
    for settings in tried:
        found: dict[str, Any] = {"settings": settings, "minutes": minutes, "sample": sample}
        done.append(found)
        try:
            to = f"search_{family}_model"
            generator = train(directory, events, family, minutes, [*settings, *more], to)
            made = generator.sample(min(len(truth), zoo.N_GENERATED), seed=1)
        except UsageError as error:  # the family cannot learn the sample at all
            print(f"{family}: {error}", flush=True)
            return
        except HepgenError as error:  # it diverged, or its events are outside the cuts
            found["failed"] = str(error).splitlines()[0]
        else:
            found["auc"] = zoo.areas(compare(truth, made, n_classifier=zoo.N_TRUTH))["auc"]
        auc = found.get("auc")
        result = found["failed"] if auc is None else f"{auc[0]:.4f} ± {auc[1]:.4f}"
        print(f"{family} {' '.join(settings) or 'defaults'}: {result}", flush=True)
    done.sort(key=lambda r: abs(r["auc"][0] - 0.5) if "auc" in r else np.inf)
    (directory / f"search_{family}.json").write_text(json.dumps(done, indent=1) + "\n")


def table(results: list[dict[str, Any]]) -> str:
    """Markdown table of all results."""
    several = len({r["minutes"] for r in results}) > 1
    lines = [
        "| sample, events | family | AUC, kinematics | AUC, everything | largest χ²/ndf | peaks: "
        "position, width | log-likelihood | events/s | parameters | passes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        sample = f"{r['sample']}, {r['events']:,}"
        if several:
            sample += f", {r['minutes']:g} min"
        if "refused" in r:
            lines.append(f"| {sample} | `{r['family']}` | refused: {r['refused']} |")
            continue
        worst = r["worst"][0] if r["worst"] else None
        likelihood = "" if "log_prob" not in r else (
            f"{r['log_prob']:.3f} ± {r['log_prob_error']:.3f}"
        )  # fmt: skip
        lines.append(" | ".join([
            f"| {sample}", f"`{r['family']}`",
            *(f"{r[k][0]:.4f} ± {r[k][1]:.4f} ({r[k + '_floor'][0]:.4f})"
              for k in ("auc", "auc_full")),
            "" if worst is None else f"{worst['chi2']:.2f}, {worst['observable']}".replace(
                "|", "\\|"),
            "; ".join(filter(None, zoo.peak_texts(r["peaks"]))), likelihood, f"{r['rate']:,.0f}",
            f"{r['parameters']:,}", f"{r['passes']:.1f} |",
        ]))  # fmt: skip
    return "\n".join(lines)


def title(sample: str) -> str:
    """Process of a sample."""
    import pythia_hard

    return zoo.STORED[sample][1] if sample in zoo.STORED else pythia_hard.PROCESSES[sample].title


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """AUC of every family on every sample, or against training events or training time."""
    import matplotlib.pyplot as plt

    shown = [r for r in results if "refused" not in r]
    samples = list(dict.fromkeys(r["sample"] for r in shown))
    kinds = list(dict.fromkeys(r["family"] for r in shown))
    against = next((name for name in ABSCISSAE
                    if len({(r["sample"], r[name]) for r in shown}) > len(samples)), None)
    canvas, axes = plt.subplots(
        1, len(samples), figsize=(5.5 * len(samples), 4.2), sharey=against is None, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, sample in zip(axes[0], samples, strict=True):
        for k, kind in enumerate(kinds):
            rows = sorted((r[against or "events"], *r["auc"]) for r in shown
                          if (r["sample"], r["family"]) == (sample, kind))  # fmt: skip
            if not rows:
                continue
            n, value, error = np.array(rows).T
            if against:
                ax.errorbar(n, value, error, fmt=f"{MARKERS[k % len(MARKERS)]}-", color=f"C{k}",
                            label=kind, capsize=3)  # fmt: skip
            else:
                ax.errorbar(value, np.full(len(n), k), xerr=error, fmt="o", color="C0")
        floor = np.mean([r["auc_floor"][0] for r in shown if r["sample"] == sample])
        line = {"color": "0.4", "ls": "--", "zorder": 0, "label": "truth against truth"}
        if against:
            ax.set(xscale="log", xlabel=ABSCISSAE[against], title=title(sample))
            ax.set_ylabel("AUC, generated against true events")
            values = sorted({r[against] for r in shown})
            ax.set_xticks(values, [f"{v:,g}" for v in values], minor=False)
            ax.xaxis.set_minor_locator(plt.NullLocator())
            ax.axhline(floor, **line)
            ax.legend()
        else:
            ax.axvline(floor, **line)
            ax.set_yticks(range(len(kinds)), kinds)
            ax.set(xlabel="AUC, generated against true events", title=title(sample))
            ax.set_ylim(len(kinds) - 0.5, -0.5)
            ax.grid(axis="y", color="0.9")
            ax.set_axisbelow(True)
            ax.legend()
    canvas.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("search", "run", "table"))
    parser.add_argument("--dir", type=Path, default=Path("zoo"))
    parser.add_argument("--samples", nargs="+", default=list(SAMPLES), choices=zoo.names())
    parser.add_argument("--families", nargs="+", default=families(), choices=names())
    parser.add_argument("--minutes", type=float, nargs="+", default=[20.0])
    parser.add_argument("--steps", type=int, help="of each training, however long they take")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--trials", type=int, default=6, help="trainings of a search")
    parser.add_argument("--sizes", nargs="+", type=int, default=[0], help="events; 0: all")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    more, lengths = list(options.set), {f"{m:g}min": m for m in options.minutes}
    if options.steps:
        more.append(f"training.max_steps={options.steps}")
        lengths = {f"{options.steps}steps": 1e4}
    if options.verb == "search":
        (minutes, *_), sample = lengths.values(), options.samples[0]
        for family in options.families:
            search(options.dir, sample, family, minutes, options.trials, more)
        return
    end = "".join("_" + setting.rpartition(".")[2] for setting in options.set)
    paths = [
        (sample, family, size, minutes,
         options.dir / f"family_{sample}_{family}_{size or 'all'}_{length}{end}.json")
        for sample in options.samples for size in options.sizes for family in options.families
        for length, minutes in lengths.items()
    ]  # fmt: skip
    if options.verb == "run":
        for sample, family, size, minutes, path in paths:
            if not path.exists():
                result = run(options.dir, sample, family, minutes, size, more)
                path.write_text(json.dumps(result, indent=1) + "\n")
                print(table([result]).splitlines()[-1], flush=True)
        return
    results = [json.loads(path.read_text()) for *_, path in paths if path.exists()]
    print(table(results))
    if options.figure:
        figure(results, options.figure)


if __name__ == "__main__":
    main()
