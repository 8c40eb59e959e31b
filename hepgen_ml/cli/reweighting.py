"""The verb that corrects events with a classifier: reweight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import (
    DEFAULT_MODEL,
    Debug,
    Device,
    EventOptions,
    Force,
    Seed,
    Verbose,
    grouped,
)
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import parse_count, parse_duration
from hepgen_ml.errors import UsageError
from hepgen_ml.files.outputs import refuse_existing, write_json
from hepgen_ml.files.streams import is_stream

if TYPE_CHECKING:
    from hepgen_ml.generation.reweighting import Done


@grouped
def reweight(
    truth: Annotated[
        list[Path],
        typer.Option(readable=False, metavar="FILE", help="True events; may be repeated."),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="DIR", help="Trained model whose events are weighted."
        ),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(readable=False, metavar="FILE", help="Events to weight instead of a model's."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="FILE", help="The events of --source with weights."),
    ] = None,
    events: Annotated[
        str,
        typer.Option(
            "--events", "-n", metavar="N", help="Largest number of events to use from each sample."
        ),
    ] = "200000",
    network: Annotated[
        str, typer.Option(help="trees+mlp, trees, mlp, transformer, lgatr, deep-sets, gatr or gap.")
    ] = "trees+mlp",
    folds: Annotated[
        int,
        typer.Option(
            min=2,
            max=100,
            help="Classifiers per final state, each trained without one part of the events.",
        ),
    ] = 5,
    full: Annotated[
        bool,
        typer.Option("--full", help="Flavours, helicities, colours and scale are inputs too."),
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time of all classifiers together: 90s, 10m.")
    ] = None,
    training_events: Annotated[
        bool,
        typer.Option("--training-events", help="Allow the training sample as truth."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            metavar="FILE.json",
            help="File for the differences between the samples.",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    *,
    read: EventOptions,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Weight events to agree with others: hepgen-ml reweight --model DIR --truth FILE."""
    with _console.reporting(lambda: "nothing was stored", verbose=verbose, debug=debug):
        n_events = parse_count(events)
        seconds = None if max_time is None else parse_duration(max_time)
        chosen = read.selection()
        _check(source, model, out)
        from hepgen_ml.generation import reweighting as tasks

        refuse_existing(out, report, force=force)
        options = tasks.Options(
            network=network, folds=folds, full=full, n_events=n_events, seconds=seconds,
            seed=seed, device=device, selection=chosen,
        )  # fmt: skip
        with Progress({"classifier": "%"}) as progress:
            if source:
                assert out is not None
                done = tasks.reweight_sample(
                    source, truth, out, options, force=force, progress=progress
                )
                place = str(out)
            else:
                done = tasks.reweight_model(
                    model or DEFAULT_MODEL, truth, options, force=force,
                    training_events=training_events, progress=progress,
                )  # fmt: skip
                place = str(model or DEFAULT_MODEL)
        _show(place, done)
        if report is not None:
            write_json(report, done.report)


def _check(source: list[Path] | None, model: Path | None, out: Path | None) -> None:
    """Refuse options that exclude each other, and outputs that are not files."""
    if source and (model is not None or out is None):
        raise UsageError(
            "--source needs --out, and excludes --model",
            remedy="write --source A --truth B --out FILE, or --model DIR --truth B",
        )
    if not source and out is not None:
        raise UsageError(
            "--out needs --source", remedy="weights of a model are stored with the model"
        )
    if out is not None and is_stream(out):
        raise UsageError("is not a file", path=out, remedy="name a file, and convert it to a pipe")


def _show(place: str, done: Done) -> None:
    """Print what the weights are worth, and where the samples differ."""
    facts = done.reweighter.facts
    typer.echo(
        f"{place}: effective sample size {facts['effective_sample_size']:.1%}, "
        f"largest weight {facts['largest_weight']:.3g}, "
        f"efficiency of --unweight {1 / facts['unweighting_limit']:.1%}"
    )
    for name, group in facts["groups"].items():
        if "auc_held_out" in group:
            typer.echo(
                f"  {name}: AUC {group['auc_held_out']:.4f} held out, "
                f"{group['auc_in_training']:.4f} in training, rate {group['rate']:.4f}"
            )
    if facts["truth_without_counterpart"] > 0:
        typer.echo(
            f"  {facts['truth_without_counterpart']:.2%} of the truth is in final states "
            "without any event to weight"
        )
    typer.echo(done.text)
