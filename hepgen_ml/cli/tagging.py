"""Verbs of jet tagging: tag train, tag test, tag apply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import Debug, Device, Force, Resume, Seed, Verbose, grouped
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import duration, parse_duration
from hepgen_ml.errors import UsageError
from hepgen_ml.networks.names import EVENT_NETWORKS

if TYPE_CHECKING:
    from hepgen_ml.classification.metrics import Merit
    from hepgen_ml.events.jets import JetSelection

app = typer.Typer(
    help="Learn classes of jets from their constituents: tag train, tag test, tag apply.",
    no_args_is_help=True,
)

DEFAULT_TAGGER = Path("hepgen-tagger")

Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME=FILE",
        help="A class and a file of its jets, FILE.root:TREE for one of several trees; with --from "
        "NAME=VALUE,VALUE of --label, or NAME=COLUMN that is one for this class. May be repeated.",
    ),
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--from", readable=False, metavar="FILE", help="Files of jets; may be repeated."),
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of --from with the class of each jet.")
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="Further features of each constituent: columns of a ROOT file, or charge, "
        "photon, neutral_hadron, charged_hadron, electron, muon of particles.",
    ),
]
Constituents = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="Prefix of the constituents, part or PFCands, if a tree has several lists.",
    ),
]
Tree = Annotated[
    str | None, typer.Option(metavar="NAME", help="Tree of ROOT files with several trees.")
]
JetRadius = Annotated[
    float | None, typer.Option(min=0, help="Radius of anti-kT jets clustered from particles (0.8).")
]
JetPt = Annotated[
    float | None, typer.Option(min=0, metavar="GEV", help="Smallest pT of such jets (200).")
]
JetEta = Annotated[float | None, typer.Option(min=0, help="Largest |eta| of such jets (2.5).")]
MaxConstituents = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help="Number of hardest constituents of a jet to use (200)."),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out jets that cannot be used, and count them."),
]


class JetOptions(NamedTuple):
    """Options of all verbs that read jets, see `grouped`."""

    constituents: Constituents = None
    tree: Tree = None
    jet_radius: JetRadius = None
    jet_pt: JetPt = None
    jet_eta: JetEta = None
    skip_bad: SkipBad = False

    def selection(
        self, features: tuple[str, ...], most: int | None, label: str | None = None
    ) -> JetSelection:
        """Selection of jets with these features and this largest number of constituents."""
        from hepgen_ml.events.jets import MOST_CONSTITUENTS, JetSelection

        if len(set(features)) < len(features):
            raise UsageError("--features repeats a name", remedy="name each once")
        return JetSelection(
            tree=self.tree, constituents=self.constituents, features=features, label=label,
            jet_radius=self.jet_radius, jet_pt=self.jet_pt, jet_eta=self.jet_eta,
            most=most or MOST_CONSTITUENTS,
        )  # fmt: skip


Background = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Background class of the rejections; by default the last."),
]
Report = Annotated[
    Path | None,
    typer.Option(readable=False, metavar="FILE.json", help="Write the figures of merit as JSON."),
]
Model = Annotated[Path, typer.Option("--model", readable=False, metavar="DIR", help="The tagger.")]


@app.command("train")
@grouped
def train(
    classes: Classes = None,
    from_: Files = None,
    label: Label = None,
    network: Annotated[str, typer.Option(help=f"{', '.join(EVENT_NETWORKS)}.")] = "lgatr",
    out: Annotated[
        Path, typer.Option(readable=False, metavar="DIR", help="Directory of the tagger.")
    ] = DEFAULT_TAGGER,
    finetune: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="DIR",
            help="Start from this tagger of other classes, with a new last layer.",
        ),
    ] = None,
    inputs: Annotated[
        str,
        typer.Option(
            help="kinematic: momenta, and logarithms and angles relative to the jet; momenta: "
            "these alone."
        ),
    ] = "kinematic",
    features: Features = None,
    max_time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Largest time of the training: 90s, 20m, 1h30m (20m)."),
    ] = None,
    test_fraction: Annotated[
        float,
        typer.Option(min=0.001, max=0.9, help="Fraction of the jets for the test of the tagger."),
    ] = 0.1,
    background: Background = None,
    report: Report = None,
    resume: Resume = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="network.NAME=VALUE, a size of the network, or training.NAME=VALUE; may be "
            "repeated.",
        ),
    ] = None,
    max_constituents: MaxConstituents = None,
    *,
    read: JetOptions,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Train a tagger: hepgen-ml tag train --class top=top.root --class qcd=qcd.root."""
    with _console.reporting(lambda: _console.kept(out), verbose=verbose, debug=debug):
        seconds = None if max_time is None else parse_duration(max_time)
        from hepgen_ml.classification.directory import DIRECTORY
        from hepgen_ml.classification.division import require_enough, split_off
        from hepgen_ml.classification.samples import read_classes
        from hepgen_ml.classification.settings import settings
        from hepgen_ml.classification.tagger import Tagger

        chosen = settings(
            network, inputs, set_ or [], fine_tuning=finetune is not None, seconds=seconds
        )
        start = None if finetune is None else Tagger.load(finetune, device)
        claim = DIRECTORY.claimed(out, force=force, resume=resume)
        with claim, Progress({"train": "%"}) as progress:
            names = start.features if start is not None and features is None else _list(features)
            selection = read.selection(names, max_constituents, label)
            jets = read_classes(classes or [], from_ or [], selection, skip_bad=read.skip_bad)
            _require_class(background, tuple(jets))
            test, rest = split_off(jets, test_fraction, seed)
            require_enough(jets, rest)
            tagger = Tagger.fit(
                rest, chosen, start=start, most=max_constituents, seed=seed, device=device,
                directory=out, resume=resume, progress=progress,
            )  # fmt: skip
            tagger.save(out)
        facts = tagger.facts
        typer.echo(
            f"{out}: learned {sum(facts['jets'].values()):,} jets of {len(jets)} classes, "
            f"{facts['steps']:,} steps in {duration(facts['seconds'])}, "
            f"validation loss {facts['validation_loss']:.4f}"
        )
        _show(tagger.judge(test, background), report)


@app.command("test")
@grouped
def judge(
    model: Model = DEFAULT_TAGGER,
    classes: Classes = None,
    from_: Files = None,
    label: Label = None,
    background: Background = None,
    report: Report = None,
    *,
    read: JetOptions,
    device: Device = "auto",
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Judge a tagger by other jets of known class: hepgen-ml tag test --class top=new.root …."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.classification.samples import read_classes
        from hepgen_ml.classification.tagger import Tagger

        tagger = Tagger.load(model, device)
        selection = read.selection(tagger.features, tagger.most, label)
        jets = read_classes(classes or [], from_ or [], selection, skip_bad=read.skip_bad)
        _show(tagger.judge(jets, background), report)


@app.command("apply")
@grouped
def apply(
    from_: Annotated[
        list[Path],
        typer.Option(
            "--from", readable=False, metavar="FILE", help="Files of jets; may be repeated."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(readable=False, metavar="FILE", help="Scores, as .npz or .root."),
    ],
    model: Model = DEFAULT_TAGGER,
    *,
    read: JetOptions,
    device: Device = "auto",
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Write the scores of jets: hepgen-ml tag apply --from jets.root --out scores.npz."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.classification.samples import write_scores
        from hepgen_ml.classification.tagger import Tagger

        tagger = Tagger.load(model, device)
        selection = read.selection(tagger.features, tagger.most)
        with Progress({"tag": "jets"}) as progress:
            n = write_scores(
                tagger, from_, out, selection, skip_bad=read.skip_bad, force=force,
                progress=progress,
            )  # fmt: skip
        typer.echo(f"{out}: scores of {n:,} jets for {', '.join(tagger.classes)}")


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _require_class(name: str | None, classes: tuple[str, ...]) -> None:
    """Before the training, which takes long."""
    if name is not None and name not in classes:
        raise UsageError(
            f"--background {name!r} is not one of the classes",
            remedy=f"choose from {', '.join(classes)}",
        )


def _show(merit: Merit, report: Path | None) -> None:
    for line in merit.lines():
        typer.echo(line)
    if report is not None:
        from hepgen_ml.files.outputs import write_json

        write_json(report, merit.plain())
