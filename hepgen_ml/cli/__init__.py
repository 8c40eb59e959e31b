"""Command line: one thin function per verb over the library.

Torch and the file libraries are imported inside the verbs, so that ``--help``
answers at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.configuration import settings
from hepgen_ml.cli.files import check, convert, info, merge, models
from hepgen_ml.cli.generation import generate
from hepgen_ml.cli.regression import regress
from hepgen_ml.cli.reweighting import reweight
from hepgen_ml.cli.showering import shower
from hepgen_ml.cli.tagging import app as _tagging
from hepgen_ml.cli.training import encode, train
from hepgen_ml.cli.usage import Verbs
from hepgen_ml.cli.validation import validate
from hepgen_ml.files.version import __version__

app = typer.Typer(
    name="hepgen-ml",
    cls=Verbs,
    help="Learn a sample of collider events and generate new ones.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


VERBS = (
    train, encode, generate, shower, reweight, regress, validate, convert, merge, check, info,
    models, settings,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
app.add_typer(_tagging, name="tag")


def main() -> None:
    """Entry point of the ``hepgen-ml`` command."""
    share_cores()
    _console.run(app)


def share_cores() -> None:
    """Let threads that wait for others sleep soon, unless the user has chosen a policy.

    On cores that other programs use, one thread of a step often waits until another one gets its
    turn. By default it computes meanwhile, for milliseconds, which the other one then lacks.
    OpenMP reads this when torch is loaded: GNU's a number of loops, that of LLVM milliseconds.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ |= {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
