"""Mistakes in the use of options as one line, like all other errors."""

from __future__ import annotations

import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hepgen_ml.cli.console import error_line
from hepgen_ml.errors import UsageError


class Verbs(TyperGroup):
    """The verbs of the command line, whose parser reports an error in one line."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments, run the verb, and exit."""
        if not options.pop("standalone_mode", True):
            return super().main(*arguments, **options | {"standalone_mode": False})
        try:
            code = super().main(*arguments, **options | {"standalone_mode": False})
        except typer.Abort:  # also the end of standard input, where a verb asks for more
            error_line("aborted")
            sys.exit(1)
        except Exception as error:
            # the parser's exceptions have no public name in typer
            if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
                raise
            # without any argument: the help text, printed already or by the exception itself
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()  # type: ignore[attr-defined]
            else:
                error_line(_in_one_line(error))
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else 0)


def _in_one_line(error: Any) -> UsageError:
    """The error of the parser with what may have been meant and where to look."""
    text = " ".join(error.format_message().split()).removesuffix(".")
    found = re.fullmatch(r"(.*?)\.? \(?((?:Did you mean|Possible options:) [^)]*)\)?", text)
    what, meant = found.groups() if found else (text, "")
    verb = error.ctx.command_path + " " if getattr(error, "ctx", None) else ""
    hints = [meant[:1].lower() + meant[1:]] * bool(meant) + [f"see {verb}--help"]
    return UsageError(what[:1].lower() + what[1:], remedy="; ".join(hints))
