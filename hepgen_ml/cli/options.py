"""Options that several verbs of the command line share."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import Selection, parse_objects

DEFAULT_MODEL = Path("hepgen-model")
MAX_SEED = 10**9
"""Largest seed of classifiers, each of which adds a small number; scikit-learn allows 32 bits."""

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Report progress in more detail.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debugging messages.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 … or auto.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random numbers.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the unfinished training in --out.")
]
GivenCondition = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=VALUE|FILE",
        help="Value of a condition that the model was trained with; may be repeated. Or a file "
        "of values: .npz, or text with names in its first line. As in the sample by default.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing output.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="lhe|hepmc|…",
        help="Format of standard output (--out -) or of a pipe: lhe, lhe.gz, hepmc, hepmc.gz.",
    ),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out events that cannot be read, and count them.")
]
Objects = Annotated[
    str | None,
    typer.Option(
        "--objects",
        metavar="NAME:N,…",
        help="Reconstructed objects to read, with their numbers, such as Muon:2,Jet:0-10; "
        "Electron, Muon, Tau, Photon or Jet.",
    ),
]
CrossSection = Annotated[
    str | None,
    typer.Option(
        "--cross-section",
        metavar="PB",
        help="Total cross section of the files in pb, such as 1460.9 or 1460.9+-0.9.",
    ),
]
JetRadius = Annotated[
    float | None,
    typer.Option(
        "--jet-radius", min=0, help="Radius of the anti-kT jets of showered events (0.4)."
    ),
]
JetPt = Annotated[
    float | None,
    typer.Option("--jet-pt", min=0, metavar="GEV", help="Smallest pT of such jets in GeV (20)."),
]
JetEta = Annotated[
    float | None,
    typer.Option("--jet-eta", min=0, help="Largest |eta| of such jets (5)."),
]

Tree = Annotated[
    str | None,
    typer.Option(
        "--tree", metavar="NAME", help="Tree of a ROOT file, if not Events or Delphes."
    ),
]


def parse_cross_section(text: str) -> tuple[float, float | None]:
    """Value and error in pb of ``1460.9`` (error not known), ``1460.9+-0.9`` or ``1460.9±0.9``.

    Raises
    ------
    UsageError
        Anything else, and values that are not positive.
    """
    number = r"\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*"
    match = re.fullmatch(rf"{number}(?:(?:\+-|±){number})?(?:pb)?\s*", text)
    if match is None or not 0 < float(match[1]) < math.inf:
        raise UsageError(
            f"{text!r} is not a cross section in pb", remedy="write 1460.9 or 1460.9+-0.9"
        )
    return float(match[1]), None if match[2] is None else float(match[2])


class EventOptions(NamedTuple):
    """Options of all verbs that read events, see `grouped`."""

    objects: Objects = None
    cross_section: CrossSection = None
    jet_radius: JetRadius = None
    jet_pt: JetPt = None
    jet_eta: JetEta = None
    tree: Tree = None

    def selection(self) -> Selection | None:
        """Selection of the options, None without any.

        Raises
        ------
        UsageError
            An option cannot be understood, or jets are defined that are not asked for.
        """
        jets = {"jet_radius": self.jet_radius, "jet_pt": self.jet_pt, "jet_eta": self.jet_eta}
        given = {name: value for name, value in jets.items() if value is not None}
        if self == EventOptions():
            return None
        chosen = () if self.objects is None else parse_objects(self.objects)
        if given and all(o.name != "Jet" for o in chosen):
            option = "--" + next(iter(given)).replace("_", "-")
            raise UsageError(
                f"{option} needs jets among --objects", remedy='add --objects "...,Jet:0-10"'
            )
        value, error = None, None
        if self.cross_section is not None:
            value, error = parse_cross_section(self.cross_section)
        return Selection(
            objects=chosen, cross_section=value, cross_section_error=error, tree=self.tree, **given
        )


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Make each field of a parameter that is a NamedTuple an option of the command line.

    Verbs that share options have one parameter for all of them: ``read: EventOptions``.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if hasattr(kind, "_field_defaults")}
    parameters = []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name in groups:
            defaults = groups[name]._field_defaults
            options = get_type_hints(groups[name], include_extras=True)
        else:
            defaults, options = {name: parameter.default}, {name: hints[name]}
        parameters += [
            inspect.Parameter(key, parameter.KEYWORD_ONLY, default=defaults[key], annotation=kind)
            for key, kind in options.items()
        ]

    def run(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(*(given.pop(key) for key in kind._fields))
        verb(**given)

    run.__name__, run.__doc__, run.__module__ = verb.__name__, verb.__doc__, verb.__module__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
