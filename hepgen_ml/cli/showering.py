"""The verb that showers events: shower."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    DEFAULT_MODEL,
    Debug,
    Device,
    Force,
    GivenCondition,
    Verbose,
)
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import parse_count, stated_cross_section
from hepgen_ml.errors import InputError


def shower(
    out: Annotated[
        Path,
        typer.Option(
            readable=False, metavar="FILE", help="Output file: .hepmc, .hepmc.gz, .hepmc.zst, or -."
        ),
    ],
    events: Annotated[
        str, typer.Option("--events", "-n", metavar="N", help="Number of events.")
    ] = "1000",
    model: Annotated[
        Path,
        typer.Option(
            readable=False,
            metavar="DIR",
            help="Model directory, or the name of a model of the package.",
        ),
    ] = DEFAULT_MODEL,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same events; random by default."),
    ] = None,
    condition: GivenCondition = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--pythia",
            readable=False,
            metavar="FILE",
            help="File with settings of Pythia, one per line.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes; by default one for each core."),
    ] = None,
    stream_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="hepmc|hepmc.gz|…",
            help="Format of standard output (--out -) or of a pipe: hepmc, hepmc.gz, hepmc.zst.",
        ),
    ] = None,
    device: Device = "auto",
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Generate events and shower them: hepgen-ml shower -n 1000 --out events.hepmc.gz."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        n = parse_count(events)
        lines = [] if settings is None else read_settings(settings)
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
        from hepgen_ml.generation.conditions import parse_given
        from hepgen_ml.generation.generator import Generator
        from hepgen_ml.generation.showering import shower as run

        generator = Generator.load(model, device=device)
        given = parse_given(condition or [], generator.process.conditions)
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        count = workers or len(os.sched_getaffinity(0))
        begun = time.monotonic()
        with Progress() as progress:
            progress("shower", 0, n)
            done = run(
                generator, out, n, seed=seed, settings=lines, workers=count, force=force,
                format=stream_format, progress=progress, condition=given,
            )  # fmt: skip
        rate = n / (time.monotonic() - begun)
        made_of = generator.run_of(condition=given)
        sigma = stated_cross_section(made_of.cross_section, made_of.cross_section_error)
        size = _console.size_of(out)
        made = f"{done.n_events:,} showered events"
        _console.result_line(f"{out}: {made}, {sigma}, {size}, {rate:,.0f} events/s", [out])
        if done.n_refused:
            text = f"  {done.n_refused:,} events that Pythia refused were replaced"
            _console.result_line(text, [out])


def read_settings(path: Path) -> list[str]:
    """Settings of a file of Pythia (``.cmnd``), without comments.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            path=path,
            remedy="check the path",
        ) from error
    stripped = (line.split("!", 1)[0].strip() for line in lines)
    return [line for line in stripped if line and line[0].isalnum()]
