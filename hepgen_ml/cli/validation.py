"""The verb that judges generated events: validate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    MAX_SEED,
    Debug,
    Device,
    EventOptions,
    Force,
    SkipBad,
    Verbose,
    grouped,
)
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import parse_count


@grouped
def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            readable=False, metavar="[FILE]...", help="More files of truth, as after --truth."
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False, metavar="FILE...", help="Held-out events, which the training never saw."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="DIR",
            help="Model directory, or the name of a model of the package.",
        ),
    ] = None,
    generated: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            metavar="FILE",
            help="Events to compare instead of a model's; may be repeated.",
        ),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            "--events",
            "-n",
            metavar="N",
            help="Number of generated events; by default that of the truth.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(readable=False, metavar="DIR", help="Directory of the report.")
    ] = Path("validation"),
    observables: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Function for further observables: it gets an EventSample and returns a dict of "
            "names to arrays.",
        ),
    ] = None,
    posterior: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=0,
            help="Posterior draws for the uncertainty band of a Bayesian model (10; for flow "
            "matching and diffusion none); 0 for none.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of generated events and classifiers.")
    ] = 0,
    device: Device = "auto",
    *,
    read: EventOptions,
    skip_bad: SkipBad = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Compare a model with held-out events: hepgen-ml validate --model DIR --truth FILE."""
    with _console.reporting(lambda: "no report was written", verbose=verbose, debug=debug):
        from hepgen_ml.errors import UsageError
        from hepgen_ml.validation.report import PAGE
        from hepgen_ml.validation.report import validate as write_report
        from hepgen_ml.validation.user_observables import load_function
        from hepgen_ml.validation.verdict import plain_words

        paths = [*(truth or []), *(files or [])]
        if not paths:
            raise UsageError("nothing to compare with", remedy="add --truth FILE")
        chosen = read.selection()
        user = None if observables is None else load_function(observables)
        with Progress({"draw": "figures"}) as progress:
            metrics = write_report(
                paths,
                model=model,
                generated=generated,
                out=out,
                n=None if events is None else parse_count(events),
                seed=seed,
                posterior=posterior,
                observables=user,
                device=device,
                selection=chosen,
                skip_bad=skip_bad,
                force=force,
                command=["hepgen-ml", *sys.argv[1:]],
                progress=progress,
            )
        for sentence in plain_words(metrics["summary"]):
            typer.echo(sentence)
        typer.echo(f"{out / PAGE}: {len(metrics['figures'])} figures")
