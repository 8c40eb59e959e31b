"""Train many processes with the defaults and judge them by truth that training never saw.

    python benchmarks/zoo.py make --dir zoo                        # samples, with Pythia
    python benchmarks/zoo.py run --dir zoo --minutes 3             # train, generate, judge
    python benchmarks/zoo.py table --dir zoo --figure zoo.png      # all results

Each process is trained by `hepgen-ml train` on one core without any setting but --max-time, and
judged by an independent sample: a classifier per final state beside its floor, marginals,
resonance peaks, frequencies, conservation laws, and the shower of Pythia. Processes that are not
Pythia's are taken from the directory that HEPGEN_ML_DATA names, a random half to train on and the
other to judge by. `sherpa_objects` needs sherpa_zjets.root there, which `sherpa_zjets.py` makes
with Sherpa itself; without it that row is left out. Needs pythia8mc; results are JSON files beside
the samples, one for each process and time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pythia_hard

import hepgen_ml
from hepgen_ml.analysis.peaks import peaks
from hepgen_ml.events.laws.checks import check_sample
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.comparison import Comparison, compare, with_floor

STORED = {
    "ttbar01j": ("ttbar01j_train.lhe.gz", "pp → tt̄ + 0, 1 jets (MadGraph)", ""),
    "ttbar2j": ("ttbar2j_train.lhe.gz", "pp → tt̄jj (MadGraph)", ""),
    "zjets": ("zjets_train.root", "pp → Z + jets, reconstructed", "Muon:2,Jet:0-10"),
    "sherpa_zjets": ("sherpa_zjets.lhe.gz", "pp → Z + 0, 1, 2 jets (Sherpa)", ""),
    "sherpa_objects": (
        "sherpa_zjets.root",
        "pp → Z + jets, reconstructed (Sherpa)",
        "Muon:2,Jet:0-10",
    ),
}
"""File, title and objects of samples that are not made here."""

N_TRAIN, N_TRUTH, N_GENERATED, N_SHOWERED = 100_000, 60_000, 60_000, 1_000


def names() -> list[str]:
    """All processes."""
    return [*STORED, *pythia_hard.PROCESSES]


def files(directory: Path, name: str) -> tuple[Path, Path]:
    """The sample to train on and the truth of a process."""
    suffix = ".root" if STORED.get(name, ("",))[0].endswith(".root") else ".lhe.gz"
    return directory / f"{name}{suffix}", directory / f"{name}_truth{suffix}"


def make(directory: Path, chosen: list[str]) -> None:
    """Write the samples that are not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        train, truth = files(directory, name)
        if train.exists() and truth.exists():
            continue
        print(name, flush=True)
        if name in pythia_hard.PROCESSES:
            hepgen_ml.write(pythia_hard.make(name, N_TRAIN, 1), train, force=True)
            hepgen_ml.write(pythia_hard.make(name, N_TRUTH, 2), truth, force=True)
            continue
        source = Path(os.environ.get("HEPGEN_ML_DATA", "")) / STORED[name][0]
        if not source.is_file():
            print(f"  {source} is missing: set HEPGEN_ML_DATA", file=sys.stderr)
            continue
        sample = hepgen_ml.read(source, selection=selection(name))
        order = np.random.default_rng(0).permutation(len(sample))
        half = len(sample) // 2
        for path, rows in ((train, order[:half]), (truth, order[half:])):
            hepgen_ml.write(sample[np.sort(rows)], path, force=True)


def selection(name: str) -> Selection | None:
    objects = STORED[name][2] if name in STORED else ""
    return Selection(parse_objects(objects)) if objects else None


def run(directory: Path, name: str, minutes: float) -> dict[str, Any]:
    """Train one process, generate and judge."""
    train, truth_file = files(directory, name)
    model = directory / f"{name}_{minutes:g}min"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hepgen_ml", "train", "--from", str(train), "--out",
               str(model), "--max-time", f"{60 * minutes:g}s", "--force"]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    result: dict[str, Any] = {
        "name": name, "minutes": minutes, "wall": time.perf_counter() - start,
        "title": STORED[name][1] if name in STORED else pythia_hard.PROCESSES[name].title,
        "said": done.stdout.strip().splitlines(),
    }  # fmt: skip
    if done.returncode:
        return result | {"refused": (done.stderr.strip() or done.stdout).splitlines()[-1]}
    generator = hepgen_ml.Generator.load(model)
    facts = generator.describe()
    result |= {
        "model": facts["model"],
        "subprocesses": len(facts["subprocesses"]),
        "channels": len(facts["coordinates"]),
        "coordinates": max(len(c) for c in facts["coordinates"]),
        "cuts": facts["cuts"],
        "training": {k: v for k, v in facts["training"].items() if isinstance(v, int | float)},
    }
    truth = hepgen_ml.read(truth_file, selection=selection(name))
    truth = shuffled(truth)[: 4 * N_TRUTH]
    start = time.perf_counter()
    generated = generator.sample(max(N_GENERATED, min(len(truth), 200_000)), seed=1)
    result["rate"] = len(generated) / (time.perf_counter() - start)
    comparison = compare(truth, generated, n_classifier=N_TRUTH)
    result |= areas(comparison) | {"worst": worst_marginals(comparison)}
    result["frequencies"] = {
        kind: {"worst_pull": float(f.pulls[f.worst]), "p_value": f.worst_p_value, "where":
               f.names[f.worst]} for kind, f in comparison.frequencies.items()
    }  # fmt: skip
    result["peaks"] = peak_ratios(truth, generated)
    laws = check_sample(generated.chunks(20_000), generated.run)
    result["broken"] = [law.text for law in laws if law.judged and law.n_broken]
    if not generated.is_reconstructed:
        settings = pythia_hard.PROCESSES[name].settings if name not in STORED else ()
        new = [line for line in settings if line.split(":")[0].isdigit() and "Mode" not in line]
        result["shower"] = {
            "truth": _shower(truth[:N_SHOWERED], new),
            "generated": _shower(generated[:N_SHOWERED], new),
        }  # fmt: skip
    energies = [s.energy[s.status == -1] if not s.is_reconstructed else None for s in
                (truth, generated)]  # fmt: skip
    if energies[0] is not None:
        result["incoming"] = [_incoming(s) for s in (truth, generated)]
    return result


def shuffled(sample: EventSample) -> EventSample:
    return sample[np.random.default_rng(3).permutation(len(sample))]


def areas(comparison: Comparison) -> dict[str, Any]:
    """AUCs and their floors: the mean over final states by their events, and the worst."""
    size = np.array([len(g.truth) for g in comparison.groups], dtype=float)
    found: dict[str, Any] = {"groups": len(size), "left_out": comparison.left_out}
    for key in ("auc", "auc_floor", "auc_full", "auc_full_floor"):
        values = np.array([[g.areas[key].value, g.areas[key].error] for g in comparison.groups])
        share = size / size.sum()
        found[key] = [float(share @ values[:, 0]), float(np.sqrt(share**2 @ values[:, 1] ** 2))]
        found[f"{key}_worst"] = float(values[:, 0].max())
    return found


def worst_marginals(comparison: Comparison, n: int = 5) -> list[dict[str, Any]]:
    rows = [
        {"state": str(g.signature), "observable": m.observable.name, "chi2": m.test.per_ndf,
         "floor": floor}
        for g in comparison.groups for m, floor in with_floor(g) if m.test.ndf
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["chi2"])[:n]


def peak_ratios(truth: EventSample, generated: EventSample) -> list[dict[str, Any]]:
    found = []
    for peak in peaks(truth, generated):
        a, b = peak.spectra
        if a is None or b is None:
            continue
        position, width = b.position / a.position, b.width / a.width
        found.append({
            "name": peak.name, "position": position,
            "position_error": np.hypot(a.position_error, b.position_error) / a.position,
            "width": width,
            "width_error": width * np.hypot(a.width_error / a.width, b.width_error / b.width),
        })  # fmt: skip
    return found


def _incoming(sample: EventSample) -> dict[str, Any]:
    """Energies of the incoming particles along +z and -z and the energy of the collision."""
    rows = sample.status == -1
    p = sample.momentum[rows].reshape(-1, 2, 4)
    p = np.take_along_axis(p, np.argsort(-p[:, :, 2], axis=1)[:, :, None], axis=1)
    total = p.sum(1)
    root = np.sqrt(np.maximum(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1), 0.0))
    low, high = np.quantile(p[:, :, 3], (0.0, 1.0), axis=0)
    return {
        "energy_low": low.tolist(), "energy_high": high.tolist(),
        "at_full_energy": float(np.average(root > 0.99 * root.max(), weights=sample.weight)),
    }  # fmt: skip


def _shower(sample: EventSample, settings: Sequence[str] = ()) -> dict[str, float]:
    """Fraction that Pythia accepts, and the mean number of charged particles after the shower.

    The settings tell it of particles that it does not have.
    """
    from hepgen_adapters.pythia import LHAupSample, load_pythia

    pythia = load_pythia().Pythia("", False)
    for line in ("Print:quiet = on", "SLHA:verbose = 0", "Random:setSeed = on", "Random:seed = 5",
                 "PartonLevel:MPI = off",
                 "Main:timesAllowErrors = 1000000000", *settings):  # fmt: skip
        pythia.readString(line)
    LHAupSample(sample).attach(pythia)
    if not pythia.init():
        return {"accepted": 0.0, "charged": float("nan"), "charged_error": float("nan")}
    charged, accepted = [], 0
    for _ in range(len(sample)):
        if pythia.next():
            accepted += 1
            charged.append(pythia.event.nFinal(True))
        elif pythia.infoPython().atEndOfFile():
            break
    return {
        "accepted": accepted / len(sample),
        "charged": float(np.mean(charged)) if charged else float("nan"),
        "charged_error": float(np.std(charged) / np.sqrt(max(len(charged), 1)))
        if charged else float("nan"),
    }  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Markdown tables of all results: distributions, then peaks, shower and speed."""
    distributions = [
        "| process | minutes | subprocesses, channels, coordinates | AUC, kinematics | "
        "AUC, everything | largest χ²/ndf |",
        "|---|---|---|---|---|---|",
    ]
    others = [
        "| process | position of a peak over truth | width over truth | accepted by the shower | "
        "⟨n charged⟩ | time (min) | events/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        if "refused" in r:
            distributions.append(
                f"| {r['title']} | {r['minutes']:g} | refused: {r['refused']} | | | |"
            )
            continue
        worst = r["worst"][0] if r["worst"] else None
        marginal = (
            "" if worst is None
            else f"{worst['chi2']:.2f} ({worst['floor']:.2f}), {worst['observable']}"
        )  # fmt: skip
        distributions.append(" | ".join([
            f"| {r['title']}", f"{r['minutes']:g}",
            f"{r['subprocesses']}, {r['channels']}, {r['coordinates']}",
            *(f"{r[k][0]:.4f} ± {r[k][1]:.4f} ({r[k + '_floor'][0]:.4f})"
              for k in ("auc", "auc_full")),
            marginal.replace("|", "\\|") + " |",
        ]))  # fmt: skip
        others.append(" | ".join([
            f"| {r['title']}", *peak_texts(r["peaks"]), *_shower_texts(r.get("shower")),
            f"{r['wall'] / 60:.1f}", f"{r['rate']:,.0f} |",
        ]))  # fmt: skip
    return "\n".join([*distributions, "", *others])


def peak_texts(found: list[dict[str, Any]]) -> tuple[str, str]:
    """Largest deviations of peaks from the truth, in position and in width, as ratios."""
    if not found:
        return "", ""
    position = max(found, key=lambda p: abs(p["position"] - 1))
    width = max(found, key=lambda p: abs(p["width"] - 1))
    return (
        f"{position['position']:.4f} ± {position['position_error']:.4f}, {position['name']}",
        f"{width['width']:.3f} ± {width['width_error']:.3f}, {width['name']}",
    )


def _shower_texts(shower: dict[str, Any] | None) -> tuple[str, str]:
    if shower is None or not shower["truth"]["accepted"]:  # objects, or no colours
        return "", ""
    a, b = shower["generated"], shower["truth"]
    return (
        f"{a['accepted']:.3f} ({b['accepted']:.3f})",
        f"{a['charged']:.1f} ({b['charged']:.1f} ± {b['charged_error']:.1f})",
    )


def figure(results: list[dict[str, Any]], path: Path) -> None:
    """AUC of every process beside its floor."""
    import matplotlib.pyplot as plt

    shown = [r for r in results if "refused" not in r]
    titles = list(dict.fromkeys(r["title"] for r in shown))
    times = sorted({r["minutes"] for r in shown})
    canvas, axes = plt.subplots(figsize=(9, 0.3 * len(titles) + 1.2), layout="constrained")
    for k, minutes in enumerate(times):
        rows = [r for r in shown if r["minutes"] == minutes]
        y = [titles.index(r["title"]) + 0.15 * k for r in rows]
        axes.errorbar(
            [r["auc"][0] for r in rows], y, xerr=[r["auc"][1] for r in rows], fmt="o",
            label=f"generated, after {minutes:g} minutes", color=f"C{k}", markersize=4,
        )  # fmt: skip
        axes.plot([r["auc_floor"][0] for r in rows], y, "|", color="0.4",
                  label="truth against truth" if k == 0 else None)  # fmt: skip
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    axes.axvline(0.5, color="0.8", zorder=0)
    axes.set_xlabel("AUC, generated against true events")
    axes.legend()
    canvas.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("make", "run", "table"))
    parser.add_argument("processes", nargs="*", help="all if none is named")
    parser.add_argument("--dir", type=Path, default=Path("zoo"))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--again", action="store_true", help="repeat results that are there")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_intermixed_args()
    unknown = set(options.processes) - set(names())
    if unknown:
        parser.error(f"no process {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    chosen = options.processes or names()
    if options.verb == "make":
        make(options.dir, chosen)
        return
    if options.verb == "run":
        for name in chosen:
            path = options.dir / f"{name}_{options.minutes:g}min.json"
            if path.exists() and not options.again:
                continue
            if not any(options.dir.glob(f"{name}_truth.*")):
                print(f"{name}: no sample, make it first", file=sys.stderr)
                continue
            result = run(options.dir, name, options.minutes)
            path.write_text(json.dumps(result, indent=1) + "\n")
            print(table([result]).splitlines()[-1], flush=True)
        return
    paths = [p for n in chosen for p in sorted(options.dir.glob(f"{n}_[0-9]*min.json"))]
    results = [json.loads(p.read_text()) for p in paths]
    results.sort(key=lambda r: (names().index(r["name"]), r["minutes"]))
    print(table(results))
    if options.figure:
        figure(results, options.figure)


if __name__ == "__main__":
    main()
