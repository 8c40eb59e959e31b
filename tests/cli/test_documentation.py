"""What the command line says about itself, and what the documentation says about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

import hepgen_ml
from hepgen_ml import errors
from hepgen_ml.cli import app
from hepgen_ml.cli import console as _console
from hepgen_ml.cli.configuration import listed
from tests.cli.test_cli import run

ROOT = Path(__file__).parents[2]


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
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
    named = {kind.exit_code for kind in errors.HepgenError.__subclasses__()}
    own = {value for name, value in vars(_console).items() if name.startswith("EXIT_")}
    assert codes == named | own | {0, 1}


def all_verbs() -> dict[str, Any]:
    """Commands of the parser, those of groups with the name of the group."""
    verbs = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for group in [name for name, verb in verbs.items() if hasattr(verb, "commands")]:
        verbs |= {f"{group} {name}": verb for name, verb in verbs.pop(group).commands.items()}
    return verbs


def code_of_pages() -> Iterator[tuple[str, str]]:
    """Pages and the commands in them: code in blocks and in lines, continued lines joined."""
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"),
                 *(ROOT / "benchmarks").rglob("*.md")):  # fmt: skip
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S):
            yield from ((page.name, line) for line in block.splitlines())
        rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        yield from ((page.name, line) for line in re.findall(r"^ {4,}(\S.*)", rest, re.M))
        yield from ((page.name, line) for line in re.findall(r"`([^`]+)`", rest))


def test_commands_of_the_documentation_exist() -> None:
    """Verbs and options as the parser has them, and options of scripts as they are in these."""
    verbs, n = all_verbs(), 0
    for page, line in code_of_pages():
        for part in re.split(r" [|&]+ |; ", line):
            words = part.split("#")[0].split()
            named = {w.split("=")[0] for w in words if re.match(r"--?[a-zA-Z]", w)}
            if words[:1] == ["hepgen-ml"] and len(words) > 1 and words[1].islower():
                verb = " ".join(words[1:3]) if " ".join(words[1:3]) in verbs else words[1]
                assert verb in {*verbs, "tag"}, f"{page}: {line}"
                found = verbs[verb].params if verb in verbs else []
                known = {o for p in found for o in (*p.opts, *p.secondary_opts)} | {"--help"}
                assert named <= known or not found, f"{page}: {named - known} in {line}"
                n += 1
            elif words[:1] in (["python"], ["python3"]) and len(words) > 1:
                script = ROOT / words[1]
                if words[1].endswith(".py") and words[1].startswith(("benchmarks/", "examples/")):
                    text = script.read_text(encoding="utf-8")
                    missing = [o for o in named if f'"{o}"' not in text]
                    assert not missing, f"{page}: {missing} in {line}"
                    n += 1
    assert n > 100


def test_settings_of_the_documentation_exist() -> None:
    """Those of models and trainings, and of the networks of taggers."""
    from hepgen_ml.config import load_config, sections
    from hepgen_ml.networks.event_networks import sizes

    kinds, of_taggers = sections("auto"), sizes("lgatr")
    n = 0
    for page, line in code_of_pages():
        given = re.findall(r"--set ([a-z_]+)\.([a-z_]+)=(\"[^\"]*\"|'[^']*'|[^\s`),]+)", line)
        bare = re.fullmatch(r"([a-z_]+)\.([a-z_]+)(?:=(\S+))?", line)
        if bare is not None and bare[1] in kinds and bare[2] != "py":
            given.append((bare[1], bare[2], bare[3] or ""))
        for section, name, value in given:
            if section not in kinds:
                assert section in ("section", "mixture"), f"{page}: {line}"  # examples
            elif name in kinds[section].model_fields:
                n += 1
                if re.fullmatch(r"[\w.+-]+", value) and not value.isupper():
                    load_config(None, [f"{section}.{name}={value}"])
            else:
                assert page == "tagging.md", f"{page}: {line}"
                assert section == "network", f"{page}: {line}"
                assert name in of_taggers, f"{page}: {line}"
    assert n > 50


def test_documentation_knows_every_option() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    verbs = all_verbs()
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
