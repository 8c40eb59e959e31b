"""The verb that learns a number of each event, and predicts it: regress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import Debug, Device, EventOptions, Force, Objects, Resume, Tree, Verbose
from hepgen_ml.cli.progress import Progress
from hepgen_ml.cli.quantities import duration, parse_count, parse_duration
from hepgen_ml.errors import UsageError, about
from hepgen_ml.networks.names import EVENT_NETWORKS

if TYPE_CHECKING:
    from hepgen_ml.events.objects import Selection
    from hepgen_ml.regression.model import Settings
    from hepgen_ml.regression.regressor import Regressor


_OF_TRAINING = (
    "network", "size", "loss", "ensemble", "bayesian", "log", "events", "max_time", "seed",
    "resume",
)  # fmt: skip
"""Options that do not apply to predictions, by the names of the parameters of `regress`."""


def regress(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", readable=False, metavar="FILE",
            help="Events to learn from: an event file, or arrays as .npz.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Number to learn: a named weight (over the nominal one), weight, or a column of a "
            "ROOT or .npz file.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(readable=False, metavar="DIR", help="Trained regression to predict with."),
    ] = None,
    predict: Annotated[
        Path | None, typer.Option(readable=False, metavar="FILE", help="Events to predict.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            readable=False, metavar="DIR|FILE",
            help="Directory of the regression; or of predictions: .npz with value and uncertainty, "
            "or an event file with the target as a named weight.",
        ),
    ] = None,
    network: Annotated[
        str, typer.Option(metavar="NAME", help=", ".join(EVENT_NETWORKS) + ".")
    ] = "deep-sets",
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N", help="Size of the network: width=256, blocks=8; may be repeated."
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(metavar="mse|likelihood", help="Mean squared error, or Gaussian likelihood."),
    ] = "mse",
    ensemble: Annotated[
        int, typer.Option(min=1, max=100, metavar="K", help="Number of networks, in the same time.")
    ] = 1,
    bayesian: Annotated[
        bool, typer.Option("--bayesian", help="Give the last layer a posterior.")
    ] = False,
    log: Annotated[
        bool | None,
        typer.Option("--log/--no-log", help="Learn the logarithm; by default if all are positive."),
    ] = None,
    events: Annotated[
        str, typer.Option("--events", "-n", metavar="N", help="Learn from the first N events.")
    ] = "1000000",
    max_time: Annotated[
        str, typer.Option(metavar="TIME", help="Time of the training: 90s, 10m, 1h30m.")
    ] = "10m",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    device: Device = "auto",
    objects: Objects = None,
    tree: Tree = None,
    resume: Resume = False,
    force: Force = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Learn a number of each event: hepgen-ml regress --from FILE --target NAME --out DIR."""
    with _console.reporting(lambda: _console.kept(out), verbose=verbose, debug=debug):
        given = {"--from": source, "--target": target, "--model": model, "--predict": predict}
        names = [name for name, value in given.items() if value is not None]
        if out is None or names not in (["--from", "--target"], ["--model", "--predict"]):
            raise UsageError(
                "give --out, and either --from and --target or --model and --predict",
                remedy="write --from FILE --target NAME --out DIR to learn, and "
                "--model DIR --predict FILE --out FILE to predict",
            )
        chosen = EventOptions(objects=objects, tree=tree).selection()
        if predict is not None and model is not None:
            _refuse_options_of_training(context)
            _predict(model, predict, out, device, chosen, force)
            return
        assert source is not None
        assert target is not None
        from hepgen_ml.regression.model import Settings
        from hepgen_ml.regression.regressor import DIRECTORY

        settings = Settings(
            network=network, sizes=_sizes(network, size or []),
            loss=loss,  # type: ignore[arg-type]
            members=ensemble, bayesian=bayesian, max_time=parse_duration(max_time),
        )  # fmt: skip
        with DIRECTORY.claimed(out, force=force, resume=resume):
            made = _learn(
                source, target, settings, parse_count(events), log, seed, device, chosen, out,
                resume,
            )  # fmt: skip
            made.save(out)
        _tell(made, out)


def _refuse_options_of_training(context: typer.Context) -> None:
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name in _OF_TRAINING and source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"{option.opts[0]} is an option of the training and cannot be used with --predict",
                remedy="leave it out: all events of the file are predicted by the model as it is",
            )


def _sizes(network: str, texts: list[str]) -> dict[str, object]:
    from hepgen_ml.networks.event_networks import sizes

    known, chosen = sizes(network), dict[str, object]()
    for text in texts:
        name, separator, value = text.partition("=")
        default = known.get(name)
        if default is None or not separator:
            shown = ", ".join(f"{k}={v}".lower() for k, v in known.items())
            raise UsageError(
                f"--size {text[:50]!r} is not a size of {network}", remedy=f"it has {shown}"
            )
        kind = type(default)
        try:
            if kind is bool:
                chosen[name] = {"true": True, "false": False}[value.lower()]
            else:
                chosen[name] = kind(value)
        except (ValueError, KeyError):
            raise UsageError(
                f"--size {text[:50]!r} is not a usable value",
                remedy=f"the default is {name}={default}".lower(),
            ) from None
    return chosen


def _learn(
    source: Path,
    target: str,
    settings: Settings,
    n_events: int,
    logarithmic: bool | None,
    seed: int,
    device: str,
    chosen: Selection | None,
    out: Path,
    resume: bool,
) -> Regressor:
    from hepgen_ml.errors import SampleError
    from hepgen_ml.regression.point_files import training_sample
    from hepgen_ml.regression.regressor import Regressor
    from hepgen_ml.training.devices import find_device

    where = find_device(device)
    sample, learned = training_sample(source, target, max_events=n_events, selection=chosen)
    with Progress({"regression": "%"}) as progress, about(source, SampleError):
        return Regressor.fit(
            sample, learned, settings, logarithmic=logarithmic, seed=seed, device=where,
            directory=out, resume=resume, progress=progress,
        )  # fmt: skip


def _predict(
    model: Path, events: Path, out: Path, device: str, chosen: Selection | None, force: bool
) -> None:
    from numpy import median

    from hepgen_ml.regression.application import predict_file
    from hepgen_ml.regression.regressor import Regressor
    from hepgen_ml.training.devices import find_device

    regressor = Regressor.load(model, find_device(device))
    found = predict_file(regressor, events, out, force=force, selection=chosen)
    relative = float(median(found.uncertainty / abs(found.value).clip(min=1e-300)))
    _console.result_line(
        f"{out}: {regressor.target.name} of {len(found.value):,} events, "
        f"median uncertainty {relative:.2%}, {_console.size_of(out)}",
        [out],
    )


def _tell(made: Regressor, out: Path) -> None:
    facts = made.facts
    quantiles = ", ".join(f"{w:.2f}" for w in facts["pull_widths"])
    typer.echo(
        f"{out}: {made.target.name} of {facts['events']:,} events learned by {facts['network']} "
        f"in {duration(facts['seconds'])}"
    )
    scale = "log " if made.target.logarithmic else ""
    typer.echo(
        f"  held out: median error {facts['median_error']:.3%}, 99 % below "
        f"{facts['error_99']:.2%}, mean squared error {facts['mse']:.3g} of standardised {scale}"
        f"{made.target.name}, sum {facts['sum_ratio']:.5f} of true"
    )
    typer.echo(
        f"  pulls of width {facts['pull_width']:.2f}; from small to large {made.target.name}: "
        f"{quantiles}"
    )
