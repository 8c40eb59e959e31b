"""Verbs that learn: train, encode."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    DEFAULT_MODEL,
    Debug,
    Device,
    EventOptions,
    Force,
    Resume,
    SkipBad,
    Verbose,
    grouped,
)
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import duration, file_size, parse_duration
from hepgen_ml.errors import UsageError
from hepgen_ml.files.outputs import refuse_existing
from hepgen_ml.models.names import names

LHE_SUFFIXES = (".lhe", ".lhe.gz")


class Sample(NamedTuple):
    """Options of the verbs that learn: which events, and what of them, see `grouped`."""

    files: Annotated[
        list[Path] | None,
        typer.Argument(readable=False, metavar="[FILE]...", help="Files, as after --from."),
    ] = None
    from_lhe: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            metavar="FILE...",
            help="LHE files to learn, plain or gzipped, or patterns of their names.",
        ),
    ] = None
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            readable=False,
            metavar="FILE...",
            help="Files to learn, in any format, recognised by the name.",
        ),
    ] = None
    cut: Annotated[
        list[str] | None,
        typer.Option(
            "--cut",
            metavar="CUT",
            help="Learn only events inside a cut, such as pt(Jet)>25 or delta_r(j,j)>0.4, which "
            "then holds for generated events too; may be repeated.",
        ),
    ] = None
    no_cuts: Annotated[
        bool,
        typer.Option(
            "--no-cuts", help="Do not search the sample for cuts; only those of --cut hold."
        ),
    ] = False
    resonance: Annotated[
        list[str] | None,
        typer.Option(
            "--resonance",
            metavar="NAME: OBJECTS",
            help='Objects that come from one decay, such as "W: Jet1 Jet2"; may be repeated.',
        ),
    ] = None
    condition: Annotated[
        list[str] | None,
        typer.Option(
            "--condition",
            metavar="NAME",
            help="Quantity on which events depend: an attribute of events, or a parameter of the "
            "run that differs from file to file, such as mass:32; may be repeated.",
        ),
    ] = None
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="PATTERN",
            help="Named weights of the sample to learn, by name or description, such as 'MUR*'; by "
            "default all of them; may be repeated.",
        ),
    ] = None
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Learn the nominal weight only.")
    ] = False
    skip_bad: SkipBad = False

    def paths(self) -> list[Path]:
        """Input files.

        Raises
        ------
        UsageError
            There are none, or files of another format after --from-lhe.
        """
        from hepgen_ml.events.formats import expand

        # what follows the first file of --from-lhe arrives as an argument
        lhe, others = self.from_lhe or [], [*(self.from_ or []), *(self.files or [])]
        if not lhe and not others:
            raise UsageError("no files to learn from", remedy="add --from-lhe FILE or --from FILE")
        paths = expand([*lhe, *others])
        if lhe:
            for path in expand(lhe):
                if not path.name.lower().endswith(LHE_SUFFIXES):
                    raise UsageError(
                        "not named .lhe or .lhe.gz", path=path,
                        remedy="use --from for other formats",
                    )  # fmt: skip
        return paths

    def variations(self) -> tuple[str, ...]:
        """Patterns of the named weights to learn.

        Raises
        ------
        UsageError
            Some are chosen and refused at once.
        """
        if self.weights and self.no_weights:
            raise UsageError(
                "--weights and --no-weights exclude each other", remedy="leave out one of them"
            )
        return () if self.no_weights else tuple(self.weights or ("*",))


@grouped
def train(
    learn: Sample,
    model: Annotated[
        str | None,
        typer.Option(help=f"auto (default), {', '.join(names())}."),
    ] = None,
    out: Annotated[
        Path, typer.Option(readable=False, metavar="DIR", help="Model directory.")
    ] = DEFAULT_MODEL,
    device: Device = "auto",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all random numbers; by default 0.")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after this time: 90s, 20m, 1h30m.")
    ] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, metavar="K", help="Train K networks side by side, for uncertainties."
        ),
    ] = None,
    resume: Resume = False,
    config: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE.toml", help="Settings that replace defaults."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, see hepgen-ml settings; may be repeated.",
        ),
    ] = None,
    *,
    read: EventOptions,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Learn a sample: hepgen-ml train --from-lhe a.lhe.gz b.lhe.gz --max-time 20m."""
    # Of processes that train together, the first one reads the files, and talks.
    first = _console.is_first()
    with _console.reporting(
        lambda: _console.kept(out), verbose=verbose, debug=debug, together=True
    ):
        paths = learn.paths() if first else []
        chosen = read.selection()
        seconds = None if max_time is None else parse_duration(max_time)
        from hepgen_ml.config import load_config
        from hepgen_ml.generation.generator import Generator

        settings = load_config(config, set_ or [])
        settings = settings.with_(
            cuts=(*settings.cuts, *(learn.cut or [])),
            resonances=(*settings.resonances, *(learn.resonance or [])),
            conditions=(*settings.conditions, *(learn.condition or [])),
            **({"find_cuts": False} if learn.no_cuts else {}),
            **({} if ensemble is None else {"network__ensemble": ensemble}),
        )
        if learn.weights or learn.no_weights:
            settings = settings.with_(training__variations=learn.variations())
        stages = dict.fromkeys(
            ("formulas", "weights", "train", "calibrate", "measure acceptance"), "%"
        )
        with Progress(stages) if first else nullcontext() as progress:
            generator = Generator.train(
                paths,
                model=model,
                out=out,
                config=settings,
                seed=seed,
                device=device,
                max_time=seconds,
                resume=resume,
                force=force,
                skip_bad=learn.skip_bad,
                selection=chosen,
                progress=progress,
            )
        if not first:
            return
        found = generator.describe()
        facts = found["training"]
        typer.echo(
            f"{out}: learned {facts['events']:,} events, {facts['steps']:,} steps in "
            f"{duration(facts['training_seconds'])}, "
            f"validation loss {facts['validation_loss']:.4f}"
        )
        from hepgen_ml.cli.tables import show_understanding

        show_understanding(found["understood"])


@grouped
def encode(
    learn: Sample,
    out: Annotated[
        Path, typer.Option(readable=False, metavar="FILE.safetensors", help="The encoded sample.")
    ] = Path("sample.safetensors"),
    *,
    read: EventOptions,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Prepare a sample for training elsewhere: hepgen-ml encode --from-lhe events.lhe.gz."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.events.conditions import parse_conditions
        from hepgen_ml.events.objects import parse_resonance
        from hepgen_ml.training.encoded import SUFFIX, encode_sample

        if not out.name.endswith(SUFFIX):
            raise UsageError(f"not named {SUFFIX}", path=out, remedy="change the name")
        refuse_existing(out, force=force)
        paths = learn.paths()
        chosen = read.selection()
        with Progress({"formulas": "%"}) as progress:
            sample = encode_sample(
                paths,
                skip_bad=learn.skip_bad,
                selection=chosen,
                cuts=learn.cut or [],
                resonances=[parse_resonance(text) for text in learn.resonance or []],
                conditions=parse_conditions(learn.condition or []),
                find_cuts=not learn.no_cuts,
                variations=learn.variations(),
                progress=progress,
            )
        sample.save(out)
        size = file_size(out.stat().st_size)
        typer.echo(f"{out}: {len(sample.encoded):,} events, {size}")
