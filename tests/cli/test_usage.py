"""Wrong options, the end of a dialogue and models without some fact, as one line or none."""

from __future__ import annotations

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from hepgen_ml.cli import app, tables
from hepgen_ml.cli.usage import Verbs
from hepgen_ml.generation.description import describe
from hepgen_ml.models.included import find_model
from hepgen_ml.models.storage import load_model


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_unknown_option_is_a_usage_error() -> None:
    assert _run("train", "--no-such-option").exit_code == 2
    assert _run("generate").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train --from-lhe", "option '--from-lhe' requires an argument (see --help)"),
        ("generate", "missing option '--out' (see root generate --help)"),
        ("generat", "no such command 'generat' (did you mean 'generate'?; see root --help)"),
        (
            "tag train --max-tim 2m",
            "no such option: --max-tim (possible options: --max-time; see root tag train --help)",
        ),
    ],
)
def test_a_wrong_option_is_an_error_of_one_line(arguments: str, line: str) -> None:
    result = CliRunner().invoke(app, arguments.split(), prog_name="root")
    assert (result.exit_code, result.stderr) == (2, f"error: {line}\n")
    assert not result.stdout


def test_help_without_arguments() -> None:
    assert "generate" in _run().output
    assert "apply" in _run("tag").output


@pytest.mark.parametrize("cause", [typer.Abort, EOFError])
def test_the_end_of_a_dialogue_is_an_error_of_one_line(
    cause: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    program = typer.Typer(cls=Verbs)

    @program.callback()
    def _common() -> None:
        pass

    @program.command()
    def ask() -> None:
        raise cause

    with pytest.raises(SystemExit) as ended:
        program(["ask"])
    assert (ended.value.code, capsys.readouterr().err.strip()) == (1, "error: aborted")


@pytest.mark.parametrize(
    ("fractions", "text"),
    [(None, ""), ([], ""), ([0.5], "50 % of"), ([0.5, 1.0], "50 % to 100 % of")],
)
def test_a_model_without_a_measured_acceptance_is_shown(
    fractions: list[float] | None, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = find_model("ttbar01j")
    about = describe(load_model(path, torch.device("cpu")))
    about["training"] = {**about["training"], "acceptance": fractions}
    tables.show(path, about)
    shown = capsys.readouterr().out
    assert (" acceptance " in shown) == bool(text)
    assert text in shown
