"""Verbs on files of events and models: convert, merge, check, info, models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    Debug,
    EventOptions,
    Force,
    Format,
    SkipBad,
    Verbose,
    grouped,
)
from hepgen_ml.cli.progress import Progress, counted
from hepgen_ml.cli.quantities import stated_cross_section
from hepgen_ml.errors import HepgenError, InputError
from hepgen_ml.events.objects import Selection

if TYPE_CHECKING:
    from hepgen_ml.events.conversion import Conversion


Outputs = Annotated[
    list[Path],
    typer.Option(
        "--out",
        readable=False,
        metavar="FILE",
        help="Output file, or - for standard output; if repeated, each gets the same events.",
    ),
]


@grouped
def convert(
    files: Annotated[
        list[Path], typer.Argument(readable=False, metavar="FILE...", help="Event files.")
    ],
    out: Outputs,
    stream_format: Format = None,
    *,
    read: EventOptions,
    skip_bad: SkipBad = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Write events in another format: hepgen-ml convert a.lhe.gz b.lhe.gz --out all.root."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        chosen = read.selection()
        from hepgen_ml.events.conversion import convert as convert_files

        with Progress() as progress:
            done = convert_files(
                files, out, selection=chosen, skip_bad=skip_bad, force=force,
                format=stream_format, progress=progress,
            )  # fmt: skip
        _show_conversion(done)


def merge(
    files: Annotated[
        list[Path],
        typer.Argument(readable=False, metavar="FILE...", help="Event files, or patterns."),
    ],
    out: Outputs,
    stream_format: Format = None,
    incomplete: Annotated[
        bool,
        typer.Option(
            "--incomplete", help="Join shards even if some are missing, or there more often."
        ),
    ] = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Join parts of a run: hepgen-ml merge events-*.lhe.gz --out events.lhe.gz."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        from hepgen_ml.events.joining import merge as merge_files

        with Progress() as progress:
            done = merge_files(
                files, out, force=force, format=stream_format, incomplete=incomplete,
                progress=progress,
            )  # fmt: skip
        _show_conversion(done)


def _show_conversion(done: Conversion) -> None:
    def say(text: str) -> None:
        _console.result_line(text, done.lost)

    sigma = stated_cross_section(done.run.cross_section, done.run.cross_section_error)
    for path, lost in done.lost.items():
        say(f"{path}: {done.n_events:,} events, {sigma}, {_console.size_of(path)}")
        for text in lost:
            say(f"  lost: {text}")
    for path, left_out in done.left_out.items():
        for text in left_out:
            say(f"  not taken from {path}: {text}")
    if done.n_unselected:
        say(f"  left out: {done.n_unselected:,} events with other numbers of objects")
    if done.n_skipped:
        say(f"  left out: {done.n_skipped:,} bad events")
    if not any([*done.lost.values(), *done.left_out.values()]):
        say("  nothing was lost")


@grouped
def check(
    files: Annotated[
        list[Path], typer.Argument(readable=False, metavar="FILE...", help="Event files.")
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Allowed relative deviation; by default from the number of digits in the file.",
        ),
    ] = None,
    *,
    read: EventOptions,
    skip_bad: SkipBad = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Test conservation laws and consistency, one line each; exit code 1 if any is broken."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.events.formats import expand

        chosen = read.selection()
        codes = [_check_one(path, tolerance, skip_bad, chosen) for path in expand(files)]
        if any(codes):
            raise typer.Exit(max(codes))


def _check_one(
    path: Path, tolerance: float | None, skip_bad: bool, chosen: Selection | None
) -> int:
    """Check one file and return its exit code; an unreadable file is reported as well."""
    from hepgen_ml.events.formats import format_of, has_free_weights, open_sample
    from hepgen_ml.events.laws.checks import check_sample

    try:
        reader = open_sample(path, skip_bad=skip_bad, selection=chosen)
        try:
            with Progress() as progress:
                chunks = counted(reader.chunks(), progress, "check")
                free = has_free_weights(format_of(path))
                results = check_sample(chunks, reader.run, tolerance, free_weights=free)
        finally:
            reader.close()
    except HepgenError as error:
        _console.error_line(error)
        return error.exit_code
    typer.echo(f"{path}")
    for result in results:
        verdict = "BROKEN" if result.n_broken else "ok" if result.judged else "-"
        _show_law(verdict, result.name, result.text)
    if reader.n_skipped:
        _show_law("BROKEN", "readable events", f"{reader.n_skipped} left out: {reader.skipped[0]}")
    return int(reader.n_skipped > 0 or any(result.n_broken for result in results))


def _show_law(verdict: str, name: str, text: str) -> None:
    color = {"ok": "green", "BROKEN": "red"}.get(verdict, "yellow")
    typer.echo(f"  {typer.style(f'{verdict:<6}', fg=color)}  {name:<22}  {text}")


@grouped
def info(
    path: Annotated[
        Path, typer.Argument(readable=False, metavar="DIR-or-FILE", help="Model or event file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    *,
    read: EventOptions,
    skip_bad: SkipBad = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Show the content of a model, a regression, a tagger or an event file."""
    with _console.reporting(verbose=verbose, debug=debug):
        chosen = read.selection()
        found = _describe(path, skip_bad, chosen)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            from hepgen_ml.cli import learners
            from hepgen_ml.cli import tables as _tables

            (learners if "kind" in found else _tables).show(path, found)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """List the models that come with the package; --model takes them by name."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.models.included import PRETRAINED, described

        found = described()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        for name, model in found.items():
            events = f", {model['events']:,} events" if model["events"] else ""
            typer.echo(f"{name}: {model['sample']} ({model['model']}{events})")
        typer.echo("`hepgen-ml info NAME` describes a model; its card is README.md in the "
                   f"directory {PRETRAINED}/NAME")  # fmt: skip


def _describe(path: Path, skip_bad: bool, chosen: Selection | None) -> dict[str, Any]:
    if not os.path.isfile(path):  # models need torch, files answer without
        from hepgen_ml.models.included import pretrained

        if os.path.isdir(path) or str(path) in pretrained():
            from hepgen_ml.cli import learners
            from hepgen_ml.generation.generator import Generator

            if os.path.isdir(path) and (found := learners.described(path)) is not None:
                return found
            return dict(Generator.load(path, device="cpu").describe())
        raise InputError("no such file or directory", path=path, remedy="check the path")
    from hepgen_ml.events.formats import format_of, open_sample
    from hepgen_ml.events.summary import summarize

    reader = open_sample(path, skip_bad=skip_bad, selection=chosen)
    try:
        return {"format": format_of(path).name, **summarize(reader)}
    finally:
        reader.close()
