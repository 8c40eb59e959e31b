"""Command line: one thin function per verb over the library.

Torch and the file libraries are imported inside the verbs, so that ``--help``
answers at once.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from hepgen_ml import __version__, _console
from hepgen_ml._options import (
    CrossSection,
    Cuts,
    Debug,
    Device,
    Force,
    JetEta,
    JetPt,
    JetRadius,
    Objects,
    SkipBad,
    Verbose,
    selection,
)
from hepgen_ml.errors import HepgenError, InputError, OutputError, UsageError
from hepgen_ml.objects import Selection

app = typer.Typer(
    name="hepgen-ml",
    help="Learn an event sample of collider physics and generate new events from it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEFAULT_MODEL = Path("hepgen-model")
LHE_SUFFIXES = (".lhe", ".lhe.gz")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"hepgen-ml {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Files, as after --from."),
    ] = None,
    from_lhe: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE...", help="LHE files to learn from; names, patterns, .gz."),
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE...", help="Files of any format, told by the name."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="jetgpt (if not configured), jetgpt-splitting, lgatr-cfm, mlp-cfm …"),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Model directory.")] = DEFAULT_MODEL,
    device: Device = "auto",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of all random numbers; 0 if not configured.")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after 90s, 20m, 1h30m …")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from a checkpoint.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Settings that replace defaults.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated."),
    ] = None,
    objects: Objects = None,
    cut: Cuts = None,
    cross_section: CrossSection = None,
    jet_radius: JetRadius = None,
    jet_pt: JetPt = None,
    jet_eta: JetEta = None,
    skip_bad: SkipBad = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Learn a sample: hepgen-ml train --from-lhe a.lhe.gz b.lhe.gz --max-time 20m."""
    with _console.reporting(lambda: _kept(out), verbose=verbose, debug=debug):
        paths = _inputs(from_lhe or [], [*(from_ or []), *(files or [])])
        chosen = selection(objects, cross_section, jet_radius, jet_pt, jet_eta)
        seconds = None if max_time is None else _console.parse_duration(max_time)
        from hepgen_ml.config import load_config
        from hepgen_ml.generator import Generator

        settings = load_config(config, set_ or [])
        settings = settings.with_(cuts=(*settings.cuts, *(cut or [])))
        with _console.Progress({"train": "%"}) as progress:
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
                skip_bad=skip_bad,
                selection=chosen,
                progress=progress,
            )
        facts = generator.describe()["training"]
        typer.echo(
            f"{out}: learned {facts['events']:,} events, {facts['steps']:,} steps in "
            f"{_console.duration(facts['training_seconds'])}, "
            f"validation loss {facts['validation_loss']:.4f}"
        )


@app.command()
def encode(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Files, as after --from."),
    ] = None,
    from_lhe: Annotated[
        list[Path] | None, typer.Option(metavar="FILE...", help="LHE files to learn from.")
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE...", help="Files of any format, told by the name."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE.safetensors", help="The encoded sample.")
    ] = Path("sample.safetensors"),
    objects: Objects = None,
    cut: Cuts = None,
    cross_section: CrossSection = None,
    jet_radius: JetRadius = None,
    jet_pt: JetPt = None,
    jet_eta: JetEta = None,
    skip_bad: SkipBad = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Make a sample ready to train on elsewhere: hepgen-ml train --from sample.safetensors."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.phase_space import parse_cut
        from hepgen_ml.training.encoded import SUFFIX, encode_sample

        if not out.name.endswith(SUFFIX):
            raise UsageError(f"not named {SUFFIX}", path=out, remedy="change the name")
        if out.exists() and not force:
            raise OutputError("exists already", path=out, remedy="add --force to replace it")
        paths = _inputs(from_lhe or [], [*(from_ or []), *(files or [])])
        chosen = selection(objects, cross_section, jet_radius, jet_pt, jet_eta)
        with _console.Progress() as progress:
            sample = encode_sample(
                paths,
                skip_bad=skip_bad,
                selection=chosen,
                cuts=[parse_cut(text) for text in cut or []],
                progress=progress,
            )
        sample.save(out)
        size = _console.file_size(out.stat().st_size)
        typer.echo(f"{out}: {len(sample.encoded):,} events, {size}")


def _inputs(lhe: list[Path], others: list[Path]) -> list[Path]:
    """Input files; what follows the first file of --from-lhe arrives as an argument."""
    from hepgen_ml.formats import expand

    if not lhe and not others:
        raise UsageError("nothing to learn from", remedy="add --from-lhe FILE or --from FILE")
    paths = expand([*lhe, *others])
    if lhe:
        for path in expand(lhe):
            if not path.name.lower().endswith(LHE_SUFFIXES):
                raise UsageError(
                    "not named .lhe or .lhe.gz", path=path, remedy="use --from for other formats"
                )
    return paths


def _kept(out: Path) -> str:
    if (out / "checkpoint.safetensors").exists():
        return f"{out} keeps the last checkpoint; go on with --resume"
    return "no checkpoint was written yet, nothing is kept"


@app.command()
def generate(
    out: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="events.lhe, .lhe.gz, .hepmc, .hepmc.gz or .root; repeated, the same events in "
            "each. {shard} stands for the number of the shard.",
        ),
    ],
    events: Annotated[
        str, typer.Option("--events", "-n", metavar="N", help="How many, of all shards together.")
    ] = "10000",
    model: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Trained model, or the name of one in the package."),
    ] = DEFAULT_MODEL,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Same seed, same events; a new one if not given.")
    ] = None,
    device: Device = "auto",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Make only part I of N, I from 0 to N-1.")
    ] = "0/1",
    posterior: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Weight variations from K posterior draws of a Bayesian model."
        ),
    ] = None,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Generate events: hepgen-ml generate -n 1e6 --out events.lhe.gz --out events.root."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        total, part = _console.parse_count(events), _console.parse_shard(shard)
        paths = _outputs(out, part, force)
        from hepgen_ml.formats import AtomicWriter, format_of
        from hepgen_ml.generator import Generator

        for path in paths:
            format_of(path)
        generator = Generator.load(model, device=device)
        n = Generator.shard_size(total, part)
        if n == 0:
            raise UsageError(f"shard {shard} of {total} events is empty", remedy="use fewer shards")
        run = generator.run_of(posterior)
        begun, done = time.monotonic(), 0
        with (
            _console.Progress() as progress,
            AtomicWriter(paths, run, n, force=force) as writer,
        ):
            progress("generate", 0, n)
            for chunk in generator.stream(total, seed=seed, shard=part, posterior=posterior):
                writer.write(chunk)
                done += len(chunk)
                progress("generate", done, n)
        rate = n / (time.monotonic() - begun)
        sigma = _console.cross_section(
            generator.run.cross_section, generator.run.cross_section_error
        )
        for path in paths:
            size = _console.file_size(path.stat().st_size)
            typer.echo(f"{path}: {n:,} events, {sigma}, {size}, {rate:,.0f} events/s")


def _outputs(paths: list[Path], shard: tuple[int, int], force: bool) -> list[Path]:
    """Put the shard into the names; `force` only where shards cannot replace each other."""
    index, n_shards = shard
    named = [Path(str(path).replace("{shard}", str(index))) for path in paths]
    if force and n_shards > 1:
        for before, after in zip(paths, named, strict=True):
            if before == after:
                raise UsageError(
                    "--force with --shard could replace the file of another shard",
                    path=before,
                    remedy="put {shard} into the name, as in events-{shard}.lhe.gz",
                )
    return named


@app.command()
def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Event files.")],
    out: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Output; repeated, the same events in each."),
    ],
    objects: Objects = None,
    cross_section: CrossSection = None,
    jet_radius: JetRadius = None,
    jet_pt: JetPt = None,
    jet_eta: JetEta = None,
    skip_bad: SkipBad = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Write events in another format: hepgen-ml convert a.lhe.gz b.lhe.gz --out all.root."""
    with _console.reporting(lambda: "no file was written", verbose=verbose, debug=debug):
        chosen = selection(objects, cross_section, jet_radius, jet_pt, jet_eta)
        from hepgen_ml.conversion import convert as convert_files

        with _console.Progress() as progress:
            done = convert_files(
                files, out, selection=chosen, skip_bad=skip_bad, force=force, progress=progress
            )
        sigma = _console.cross_section(done.run.cross_section, done.run.cross_section_error)
        for path, lost in done.lost.items():
            size = _console.file_size(path.stat().st_size)
            typer.echo(f"{path}: {done.n_events:,} events, {sigma}, {size}")
            for text in lost:
                typer.echo(f"  lost: {text}")
        for path, left_out in done.left_out.items():
            for text in left_out:
                typer.echo(f"  not taken from {path}: {text}")
        if done.n_unselected:
            typer.echo(f"  left out: {done.n_unselected:,} events with other numbers of objects")
        if done.n_skipped:
            typer.echo(f"  left out: {done.n_skipped:,} bad events")
        if not any([*done.lost.values(), *done.left_out.values()]):
            typer.echo("  of these events nothing is lost")


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Event files.")],
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Allowed relative deviation; by default from the file's digits."),
    ] = None,
    objects: Objects = None,
    cross_section: CrossSection = None,
    jet_radius: JetRadius = None,
    jet_pt: JetPt = None,
    jet_eta: JetEta = None,
    skip_bad: SkipBad = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Check that events are physics: one line per law, exit code 1 if any is broken."""
    with _console.reporting(verbose=verbose, debug=debug):
        from hepgen_ml.formats import expand

        chosen = selection(objects, cross_section, jet_radius, jet_pt, jet_eta)
        codes = [_check_one(path, tolerance, skip_bad, chosen) for path in expand(files)]
        if any(codes):
            raise typer.Exit(max(codes))


def _check_one(
    path: Path, tolerance: float | None, skip_bad: bool, chosen: Selection | None
) -> int:
    """Exit code of one file; an unreadable one does not keep the others from being checked."""
    from hepgen_ml.formats import open_sample
    from hepgen_ml.validation.laws import check_sample

    try:
        reader = open_sample(path, skip_bad=skip_bad, selection=chosen)
        try:
            with _console.Progress() as progress:
                chunks = _console.counted(reader.chunks(), progress, "check")
                results = check_sample(chunks, reader.run, tolerance)
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


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="DIR-or-FILE", help="Model or event file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    objects: Objects = None,
    cross_section: CrossSection = None,
    jet_radius: JetRadius = None,
    jet_pt: JetPt = None,
    jet_eta: JetEta = None,
    skip_bad: SkipBad = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Show what a model or an event file holds."""
    with _console.reporting(verbose=verbose, debug=debug):
        chosen = selection(objects, cross_section, jet_radius, jet_pt, jet_eta)
        found = _describe(path, skip_bad, chosen)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            from hepgen_ml import _tables

            _tables.show(path, found)


def _describe(path: Path, skip_bad: bool, chosen: Selection | None) -> dict[str, Any]:
    from hepgen_ml.storage import pretrained

    if path.is_dir() or (not path.exists() and str(path) in pretrained()):
        from hepgen_ml.generator import Generator

        return dict(Generator.load(path, device="cpu").describe())
    if not path.exists():
        raise InputError("no such file or directory", path=path, remedy="check the path")
    from hepgen_ml.formats import format_of, open_sample
    from hepgen_ml.summary import summarize

    reader = open_sample(path, skip_bad=skip_bad, selection=chosen)
    try:
        return {"format": format_of(path).name, **summarize(reader)}
    finally:
        reader.close()


def main() -> None:
    """Entry point of the ``hepgen-ml`` command."""
    app()
