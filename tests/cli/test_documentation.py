"""What the command line says about itself, and what the documentation says about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer.main

import hepgen_ml
from hepgen_ml import errors
from hepgen_ml.cli import app
from hepgen_ml.cli import console as _console
from hepgen_ml.cli.configuration import listed
from tests.cli.test_cli import run


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == f"hepgen-ml {hepgen_ml.__version__}"
    assert all(verb in run("--help").stdout for verb in ("train", "generate", "check", "info"))


def test_every_setting_is_listed_with_its_meaning() -> None:
    from hepgen_ml.config import AUTOMATIC, load_config, sections

    shown = " ".join(run("settings").stdout.split())
    for section, settings in listed().items():
        assert {s.name.split(".")[-1] for s in settings} == set(
            sections(AUTOMATIC)[section].model_fields
            if section
            else {"model", "conditions", "cuts", "find_cuts", "resonances", "seed"}
        )
        for setting in settings:
            assert setting.name in shown
            assert re.fullmatch(r"[A-Za-z].{10,}\.", setting.meaning), setting.name
            if setting.default != "none":
                load_config(overrides=[f"{setting.name}={setting.default}"])
    assert "network.width" not in run("settings", "training").stdout
    assert "flow.steps" not in run("settings", "--model", "jetgpt").stdout
    wrong = run("settings", "nonsense")
    assert wrong.exit_code == 2
    assert "choose from network" in wrong.stderr


def test_documentation_knows_every_exit_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
    named = {kind.exit_code for kind in errors.HepgenError.__subclasses__()}
    own = {value for name, value in vars(_console).items() if name.startswith("EXIT_")}
    assert codes == named | own | {0, 1}


def test_documentation_knows_every_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    verbs = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for group in [name for name, verb in verbs.items() if hasattr(verb, "commands")]:
        verbs |= {f"{group} {name}": verb for name, verb in verbs.pop(group).commands.items()}
    for name, command in verbs.items():
        assert f"## {name}\n" in text
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"
            if parameter.param_type_name == "option" and parameter.name != "help":
                named = any(re.search(rf"`{option}\b", text) for option in parameter.opts)
                assert named, f"{name}: {parameter.opts}"


def test_models_of_the_package_are_listed() -> None:
    assert "ttbar01j: " in run("models").stdout
    found = json.loads(run("models", "--json").stdout)
    assert (Path(found["ttbar01j"]["directory"]) / "README.md").is_file()
    assert found["ttbar01j"]["events"] == 200_000


def test_tables_have_no_trailing_blanks() -> None:
    lines = run("info", "ttbar01j").stdout.splitlines()
    assert any(len(line) > 100 for line in lines)
    assert not any(line.endswith(" ") for line in lines)
