"""Mass peaks of an adversarial network with and without MMD (arXiv:1907.03764).

    python benchmarks/zoo.py make ttbar_hadronic --dir DIR
    python benchmarks/gan_peaks.py --dir DIR --minutes 10 --figure gan_peaks.png

Takes from p p -> t t~ -> six quarks the events in which both W bosons decay into u and d, and
trains `gan` three times for so long: in the plain coordinates of the six quarks, without the rows
of resonances, as the paper does, without MMD and with the MMD of the W and top masses; and with the
resonances of the record (`DecayChart`) without MMD. Prints the mode and the width that holds the
central half of each mass within 15 (W) and 25 (top) GeV of the pole, beside the truth's, the
fraction of events there, and the AUC of a classifier from all observables of the six quarks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import zoo

import hepgen_ml
from hepgen_ml.config import load_config
from hepgen_ml.events.sample import EventSample, FloatArray
from hepgen_ml.validation.comparison import compare

MASSES = {"W+": ((2, -1), 80.4, 15.0), "W-": ((-2, 1), 80.4, 15.0),
          "t": ((2, -1, 5), 173.0, 25.0), "t~": ((-2, 1, -5), 173.0, 25.0)}  # fmt: skip
"""Daughters, position and half of the window in GeV."""

MMD = ("j1 j2", "j3 j4", "j1 j2 5", "j3 j4 -5")  # d~ u, d u~ and both with their b
TRAININGS = {
    "plain coordinates": (True, []),
    "plain coordinates, MMD of masses": (True, [f"gan.masses={json.dumps(MMD)}"]),
    "decays": (False, []),
}
"""Whether rows of resonances are dropped, and settings."""


def six_quarks(sample: EventSample) -> EventSample:
    """Events in which both W bosons decay into u and d."""
    final, event = sample.status == 1, sample.event_index
    good = np.ones(len(sample), dtype=bool)
    for quark in (2, -1, 5, -2, 1, -5):
        found = np.bincount(event[final & (sample.pdg_id == quark)], minlength=len(sample))
        good &= found == 1
    return sample[np.flatnonzero(good)]


def without_resonances(sample: EventSample) -> EventSample:
    """The same events with the quarks as daughters of the collision."""
    kept = sample.status != 2
    particles = {name: values[kept] for name, values in sample.particles.items()}
    final = particles["status"] == 1
    particles["mother1"] = np.where(final, 1, 0)
    particles["mother2"] = np.where(final, 2, 0)
    counts = np.bincount(sample.event_index[kept], minlength=len(sample))
    return EventSample(
        sample.run, np.concatenate([[0], np.cumsum(counts)]), particles, sample.events,
        weights=sample.weights, scales=sample.scales,
    )  # fmt: skip


def mass(sample: EventSample, ids: tuple[int, ...]) -> FloatArray:
    """Invariant mass (n,) of one particle of each kind."""
    total = np.zeros((len(sample), 4))
    for pdg_id in ids:
        total += sample.momentum[(sample.status == 1) & (sample.pdg_id == pdg_id)]
    return np.sqrt(np.maximum(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1), 0.0))


def shape(m: FloatArray, pole: float, reach: float) -> dict[str, float]:
    """Median and width of the central half of the masses around a pole, and how many there are."""
    near = m[np.abs(m - pole) < reach]
    if len(near) < 100:
        return {"position": float("nan"), "width": float("nan"), "fraction": len(near) / len(m)}
    low, middle, high = np.quantile(near, [0.25, 0.5, 0.75])
    return {"position": middle, "width": high - low, "fraction": len(near) / len(m)}


def run(directory: Path, minutes: float, n: int) -> dict[str, Any]:
    """Train all three and measure the peaks."""
    sample, truth = (six_quarks(hepgen_ml.read(f)) for f in zoo.files(directory, "ttbar_hadronic"))
    spectra = {"truth": {name: mass(truth, ids) for name, (ids, *_) in MASSES.items()}}
    bare = without_resonances(truth)
    result: dict[str, Any] = {"events": len(sample), "minutes": minutes, "auc": {}}
    for k, (title, (plain, settings)) in enumerate(TRAININGS.items()):
        steps = ["training.max_epochs=100000", "training.max_steps=10000000", *settings]
        config = load_config(None, [*steps, "training.batch_size=256"])  # so that steps are many
        generator = hepgen_ml.Generator.train(
            without_resonances(sample) if plain else sample, model="gan", config=config,
            out=directory / f"gan_peaks_{k}", force=True, max_time=60 * minutes,
        )  # fmt: skip
        made = generator.sample(n, seed=1)
        spectra[title] = {name: mass(made, ids) for name, (ids, *_) in MASSES.items()}
        comparison = compare(bare, without_resonances(made), n_classifier=len(bare))
        result["auc"][title] = zoo.areas(comparison)["auc"]
        print(f"{title}: AUC {result['auc'][title][0]:.3f}", flush=True)
    result["peaks"] = {
        title: {name: shape(m, *MASSES[name][1:]) for name, m in all_of.items()}
        for title, all_of in spectra.items()
    }
    result["edges"] = {
        name: np.linspace(pole - reach, pole + reach, 61).tolist()
        for name, (_, pole, reach) in MASSES.items()
    }
    result["histograms"] = {
        title: {name: (np.histogram(m, result["edges"][name])[0] / len(m)).tolist()
                for name, m in all_of.items()} for title, all_of in spectra.items()
    }  # fmt: skip
    return result


def table(result: dict[str, Any]) -> str:
    """Markdown table of the peaks."""
    lines = ["| | " + " | ".join(MASSES) + " | AUC |", "|---|" + "---|" * (len(MASSES) + 1)]
    for title, found in result["peaks"].items():
        area = result["auc"].get(title)
        lines.append(" | ".join([
            f"| {title}",
            *(f"{found[m]['position']:.1f}, {found[m]['width']:.2f}, {found[m]['fraction']:.3f}"
              for m in MASSES),
            "" if area is None else f"{area[0]:.3f} ± {area[1]:.3f}",
        ]) + " |")  # fmt: skip
    return "\n".join(lines)


def figure(result: dict[str, Any], path: Path) -> None:
    """Spectra of one W and one top of all trainings."""
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    for ax, name in zip(axes, ("W+", "t"), strict=True):
        edges = np.array(result["edges"][name])
        for k, (title, of) in enumerate(result["histograms"].items()):
            style = {"color": "black"} if title == "truth" else {"color": f"C{k - 1}"}
            ax.stairs(np.array(of[name]) / np.diff(edges), edges, label=title, **style)
        daughters = {"W+": r"u\bar{d}", "t": r"u\bar{d}b"}[name]
        ax.set(xlabel=f"$m({daughters})$ [GeV]", ylabel="fraction of events per GeV")
        ax.set_xlim(edges[0], edges[-1])
    axes[1].legend(frameon=False, fontsize=9)
    canvas.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path("zoo"), help="samples of zoo.py")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("-n", type=int, default=30_000, help="events to generate")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    path = options.dir / f"gan_peaks_{options.minutes:g}min.json"
    if not path.exists():
        result = run(options.dir, options.minutes, options.n)
        path.write_text(json.dumps(result, indent=1) + "\n")
    result = json.loads(path.read_text())
    print(table(result))
    if options.figure:
        figure(result, options.figure)


if __name__ == "__main__":
    main()
