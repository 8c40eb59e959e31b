"""Taggers of top jets: networks, number of jets, pre-training, and breaking of the symmetry.

    python benchmarks/pythia_jets.py --out jets -n 40000
    python benchmarks/tagging.py run jets --out tagging.jsonl --study networks --seeds 3
    python benchmarks/tagging.py table tagging.jsonl

Studies: `networks` compares the architectures on equal jets for an equal number of passes; `sizes`
trains them on fewer and more jets; `finetuning` trains on eight classes (top, W, Z, H to bb, cc and
gg, quark, gluon) and goes on with tops against quarks and gluons; `references` compares the ways of
breaking the Lorentz symmetry of L-GATr. Every training is a line of the output, and those that are
there are not done again. The last 10,000 jets of `top.root` and `qcd.root` judge and are used for
nothing else. `--full` has the networks of arXiv:2411.00446 and all constituents, for a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hepgen_ml.classification import Tagger
from hepgen_ml.classification.settings import FINE_TUNING, TRAINING, TaggerSettings
from hepgen_ml.events.jets import Jets, JetSelection, read_jets

SMALL: dict[str, dict[str, Any]] = {
    "lgatr": {"channels": 8, "scalars": 16, "blocks": 2, "heads": 4},
    "transformer": {"width": 64, "blocks": 3, "heads": 4},
    "deep-sets": {"width": 64, "layers": 3},
}
FULL: dict[str, dict[str, Any]] = {
    "lgatr": {"channels": 16, "scalars": 32, "blocks": 12, "heads": 8},
    "transformer": {"width": 128, "blocks": 10, "heads": 8},
    "deep-sets": {"width": 256, "layers": 4, "latent": 256},
}
REFERENCES: tuple[tuple[str, bool], ...] = (
    ("plane+time", True), ("none", True), ("time", True), ("plane+time", False),
    ("beams+time", True), ("beams", True),
)  # fmt: skip
STUDIES = ("networks", "finetuning", "references", "sizes")
TEST, FIRST_OF_PRETRAINING = 10_000, 20_000


class Sample:
    """Jets of the files, as the studies divide them."""

    def __init__(self, directory: Path, most: int) -> None:
        self.directory = directory
        self.selection = JetSelection(most=most, label="origin")
        self.top, self.qcd = self.read("top"), self.read("qcd")
        self.test = {"top": self.top[-TEST:], "qcd": self.qcd[-TEST:]}

    def read(self, name: str, most: int | None = None) -> Jets:
        return read_jets(self.directory / f"{name}.root", self.selection, max_jets=most)

    def training(self, n: int) -> dict[str, Jets]:
        """Half of n jets each; never those of pre-training or of the test."""
        last = len(self.top) - TEST if n // 2 > FIRST_OF_PRETRAINING else FIRST_OF_PRETRAINING
        if n // 2 > last:
            raise SystemExit(f"{n} jets to train on: the files have {2 * last}")
        return {"top": self.top[: n // 2], "qcd": self.qcd[: n // 2]}

    def pretraining(self, n: int) -> dict[str, Jets]:
        """Eight classes of n jets at most."""
        others = {name: self.read(name, n) for name in ("w", "z", "hbb", "hcc", "hgg")}
        parts = slice(FIRST_OF_PRETRAINING, -TEST)
        qcd = self.qcd[parts]
        gluon = qcd.label == "21"
        return {
            "top": self.top[parts][:n], **others, "quark": qcd[~gluon][:n], "gluon": qcd[gluon][:n],
        }  # fmt: skip


def plan(study: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Trainings of a study, as what is written beside their results."""
    for seed in range(options.seeds):
        for network in options.network:
            one = {"study": study, "network": network, "seed": seed, "n": options.n}
            if study == "networks":
                yield one
            elif study == "sizes":
                yield from ({**one, "n": n} for n in options.sizes)
            elif study == "finetuning":
                yield from ({**one, "n": n, "tuned": True} for n in (options.n // 5, options.n))
                yield {**one, "n": options.n // 5, "tuned": False}
            elif network == "lgatr":
                yield from (
                    {**one, "references": r, "tokens": t, "inputs": "momenta"}
                    for r, t in REFERENCES
                )


def train(one: dict[str, Any], sample: Sample, options: argparse.Namespace) -> dict[str, Any]:
    sizes = dict((FULL if options.full else SMALL)[one["network"]])
    if "references" in one:
        sizes |= {"references": one["references"], "reference_tokens": one["tokens"]}
    config = TRAINING.model_copy(update={
        "max_epochs": options.passes, "max_time": options.max_time, "patience": 0,
    })  # fmt: skip
    settings = TaggerSettings(one["network"], sizes, one.get("inputs", "kinematic"), config)
    start = None
    if one.get("tuned"):
        start = pretrained(one, settings, sample, options)
        settings = TaggerSettings(training=FINE_TUNING.model_copy(update={
            "max_epochs": options.passes, "max_time": options.max_time, "patience": 0,
        }))  # fmt: skip
    began = time.process_time()
    tagger = Tagger.fit(
        sample.training(one["n"]), settings, start=start, seed=one["seed"], device=options.device
    )
    seconds = time.process_time() - began
    return one | {
        "passes": tagger.facts["passes"], "parameters": tagger.facts["parameters"],
        "cpu_seconds": round(seconds), "constituents": sample.selection.most,
        **tagger.judge(sample.test, "qcd").plain(),
    }  # fmt: skip


def pretrained(
    one: dict[str, Any], settings: TaggerSettings, sample: Sample, options: argparse.Namespace
) -> Tagger:
    """Tagger of eight classes, stored beside the results so that it is trained once."""
    place = options.out.with_suffix("") / f"{one['network']}-{one['seed']}"
    if not place.exists():
        jets = sample.pretraining(options.pretraining_jets)
        tagger = Tagger.fit(jets, settings, seed=one["seed"], device=options.device)
        tagger.save(place)
    return Tagger.load(place, options.device)


def run(options: argparse.Namespace) -> None:
    done = set()
    if options.out.exists():
        done = {key(json.loads(line)) for line in options.out.read_text().splitlines()}
    sample = Sample(options.jets, 200 if options.full else options.constituents)
    for study in options.study:
        for one in plan(study, options):
            if key(one) not in done:
                result = train(one, sample, options)
                print(json.dumps(result), flush=True)
                with options.out.open("a") as file:
                    file.write(json.dumps(result) + "\n")


def key(one: dict[str, Any]) -> tuple[Any, ...]:
    names = ("study", "network", "seed", "n", "tuned", "references", "tokens")
    return tuple(one.get(name) for name in names)


def table(options: argparse.Namespace) -> None:
    """Means of seeds with their standard deviation, or the error by counting of a single one."""
    groups = defaultdict(list)
    for line in options.out.read_text().splitlines():
        one = json.loads(line)
        groups[tuple(x for i, x in enumerate(key(one)) if i != 2)].append(one)
    print("| study | network | jets | | AUC | accuracy | 1/ε_B (0.5) | 1/ε_B (0.3) | seeds | CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (study, network, n, tuned, references, tokens), found in groups.items():
        about = "" if tuned is None else "fine-tuned" if tuned else "from scratch"
        if references is not None:
            about = f"{references}, {'tokens' if tokens else 'channels'}"
        cells = [summary([f[name] for f in found]) for name in ("auc", "accuracy")]
        for i in range(2):
            some = [f["rejections"]["top"][i] for f in found]
            text = summary([r["value"] for r in some], 0)
            if len(some) == 1 and some[0]["error"] is not None:
                text += f" ± {some[0]['error']:.0f}"
            cells.append(text)
        cpu = np.mean([f["cpu_seconds"] for f in found])
        row = (study, network, n, about, *cells, len(found), f"{cpu:.0f} s")
        print("| " + " | ".join(map(str, row)) + " |")


def summary(values: list[float], digits: int = 4) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run", help="train and judge")
    runs.add_argument("jets", type=Path, help="directory of pythia_jets.py")
    runs.add_argument("--out", type=Path, default=Path("tagging.jsonl"))
    runs.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    runs.add_argument("--network", nargs="+", choices=SMALL, default=list(reversed(SMALL)))
    runs.add_argument("-n", type=int, default=10_000, help="jets to train on, half of them tops")
    runs.add_argument("--sizes", nargs="+", type=int, default=[2_000, 40_000])
    runs.add_argument("--pretraining-jets", type=int, default=3_000, help="of each class")
    runs.add_argument("--passes", type=float, default=8.0)
    runs.add_argument("--max-time", type=float, default=1e9, help="seconds of each training")
    runs.add_argument("--constituents", type=int, default=30, help="the hardest of each jet")
    runs.add_argument("--seeds", type=int, default=1)
    runs.add_argument("--device", default="auto")
    runs.add_argument("--full", action="store_true")
    tables = verbs.add_parser("table", help="tables of what was run")
    tables.add_argument("out", type=Path)
    options = parser.parse_args()
    (run if options.verb == "run" else table)(options)


if __name__ == "__main__":
    main()
