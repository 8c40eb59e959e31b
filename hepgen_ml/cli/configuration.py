"""Verb that lists the settings of a training: settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from hepgen_ml.cli import console as _console
from hepgen_ml.cli.options import Debug, Verbose
from hepgen_ml.config import AUTOMATIC, Config, sections
from hepgen_ml.config.problems import values_in_words
from hepgen_ml.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """One setting as it is listed.

    Attributes
    ----------
    name : str
        With its section, as in ``--set name=value``.
    default, values, meaning : str
    """

    name: str
    default: str
    values: str
    meaning: str


def listed(model: str = AUTOMATIC) -> dict[str, list[Setting]]:
    """Settings of a model, or of all of them, by the name of their section.

    Settings outside any section have the name ``""``. The descriptions are those of the models.

    Raises
    ------
    UsageError
        There is no such model.
    """
    found = sections(model)
    top = set(Config.model_fields) - set(found)
    return {
        "": _settings("", Config, top),
        **{name: _settings(name, kind, set(kind.model_fields)) for name, kind in found.items()},
    }


def _settings(section: str, kind: type[BaseModel], keys: set[str]) -> list[Setting]:
    schema = kind.model_json_schema()["properties"]
    found = []
    for key, field in kind.model_fields.items():
        if key in keys:
            default = field.get_default(call_default_factory=True)
            name = f"{section}.{key}" if section else key
            meaning = field.description or ""
            found.append(Setting(name, _default(default), values_in_words(schema[key]), meaning))
    return found


def _default(value: Any) -> str:
    if value in ((), {}):
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def settings(
    section: Annotated[
        str | None,
        typer.Argument(metavar="[SECTION]", help="Only this section, such as training."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Only the settings of this model; auto for all.")
    ] = AUTOMATIC,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """List the settings of a training, for train --set: hepgen-ml settings training."""
    with _console.reporting(verbose=verbose, debug=debug):
        found = listed(model)
        if section is not None and section not in found:
            raise UsageError(
                f"{section!r} is not a section of settings",
                remedy=f"choose from {', '.join(filter(None, found))}",
            )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in ("setting", "default", "meaning and values"):
            table.add_column(column, no_wrap=column != "meaning and values")
        for name in found if section is None else (section,):
            for row in found[name]:
                table.add_row(row.name, Text(row.default), Text(f"{row.meaning} ({row.values})"))
        _console.stdout_console().print(table)
