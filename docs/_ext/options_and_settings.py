"""Sphinx directives that write the command line's options and the settings from the code.

``{command-line}`` lists every verb with its arguments and options, as `hepgen-ml VERB --help`
has them; ``{settings}`` lists every setting with its default, values and meaning, as
`hepgen-ml settings` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from hepgen_ml import config
from hepgen_ml.cli import app
from hepgen_ml.cli.configuration import listed

_SHARED = ("--verbose", "--debug", "--help")


class _Generated(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


class CommandLine(_Generated):
    """All verbs of the command line."""

    def lines(self) -> Iterator[str]:
        for name, command in _commands(get_command(app)):
            yield from ("", f"## hepgen-ml {name}", "", command.help or "", "")
            yield from ("| option | meaning | default |", "|---|---|---|")
            for parameter in command.params:
                if not set(parameter.opts) & set(_SHARED):
                    yield _row(parameter)


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Verbs, and those of groups of verbs by both names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.metavar or parameter.name}`"
    else:
        shown = ", ".join(f"`{name}`" for name in parameter.opts)
        shown += f" `{parameter.metavar}`" if parameter.metavar else ""
    return f"| {_cell(shown)} | {_cell(parameter.help or '')} | {_default(parameter.default)} |"


class Settings(_Generated):
    """All settings of the configuration, section by section, as `hepgen-ml settings` has them."""

    def lines(self) -> Iterator[str]:
        kinds: dict[str, type[BaseModel]] = {"": config.Config, **config.sections(config.AUTOMATIC)}
        for name, settings in listed().items():
            title = f"`[{name}]`" if name else "Top level"
            yield from ("", f"## {title}", "", *(kinds[name].__doc__ or "").splitlines()[:1], "")
            yield from ("| setting | default | values | meaning |", "|---|---|---|---|")
            for setting in settings:
                cells = (f"`{setting.name}`", f"`{setting.default}`", setting.values)
                yield "| " + " | ".join((*cells, _cell(setting.meaning))) + " |"


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
