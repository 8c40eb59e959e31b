"""Sphinx directives that write the command line's options and the settings from the code.

``{command-line}`` lists every verb with its arguments and options, as `hepgen-ml VERB --help`
has them; ``{settings}`` lists every setting with its default, values and meaning. The meaning is
that of the table in docs/cli.md, which a test compares with the code, else the code's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from hepgen_ml import config
from hepgen_ml.cli import app

_TABLE = Path(__file__).parents[1] / "cli.md"
_MEANING = re.compile(r"^\| `(\w+\.\w+)(?:\.PATTERN)?` \| [^|]* \| (.*) \|$", re.M)
_SHARED = ("--verbose", "--debug", "--help")


class _Generated(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


class CommandLine(_Generated):
    """All verbs of the command line."""

    def lines(self) -> Iterator[str]:
        group = get_command(app)
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            yield from ("", f"## hepgen-ml {name}", "", command.help or "", "")
            yield from ("| option | meaning | default |", "|---|---|---|")
            for parameter in command.params:
                if not set(parameter.opts) & set(_SHARED):
                    yield _row(parameter)


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.metavar or parameter.name}`"
    else:
        shown = ", ".join(f"`{name}`" for name in parameter.opts)
        shown += f" `{parameter.metavar}`" if parameter.metavar else ""
    return f"| {shown} | {_cell(parameter.help or '')} | {_default(parameter.default)} |"


class Settings(_Generated):
    """All settings of the configuration, section by section."""

    def lines(self) -> Iterator[str]:
        sections = _sections()
        fields = config.Config.model_fields
        yield from _section("", config.Config, {k for k in fields if k not in sections})
        for name, section in sections.items():
            yield from _section(name, section, set(section.model_fields))


def _sections() -> dict[str, type[BaseModel]]:
    of_model = getattr(config, "sections", None)  # where models register their own
    if of_model is not None:
        return dict(of_model(config.Config().model))
    return {
        name: field.annotation
        for name, field in config.Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _section(name: str, section: type[BaseModel], keys: set[str]) -> Iterator[str]:
    title = f"`[{name}]`" if name else "Top level"
    yield from ("", f"## {title}", "", *(section.__doc__ or "").splitlines()[:1], "")
    yield from ("| setting | default | values | meaning |", "|---|---|---|---|")
    schema = section.model_json_schema()["properties"]
    meanings = dict(_MEANING.findall(_TABLE.read_text(encoding="utf-8")))
    for key, field in section.model_fields.items():
        if key in keys:
            full = f"{name}.{key}" if name else key
            default = field.get_default(call_default_factory=True)
            yield (
                f"| `{full}` | {_default(default)} | {_values(schema[key])} "
                f"| {meanings.get(full) or _cell(field.description or '')} |"
            )


def _values(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    kind = {"integer": "integer", "number": "number", "boolean": "`true`, `false`"}
    text = kind.get(schema.get("type", ""), "text" if schema.get("type") == "string" else "list")
    if schema.get("type") == "object":
        text = "table"
    if low is not None:
        text += f", {'above' if 'exclusiveMinimum' in schema else 'at least'} {low:g}"
    if high is not None and high < 2**30:
        text += f", {'below' if 'exclusiveMaximum' in schema else 'at most'} {high:g}"
    return text


def _default(value: Any) -> str:
    if value is None or value in ("", (), [], {}):
        return ""
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", r"\|").split())


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("settings", Settings)
    return {"version": typer.__version__, "parallel_read_safe": True}
