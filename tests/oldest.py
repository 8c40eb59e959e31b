"""Try the oldest versions of all dependencies that pyproject.toml allows.

    python tests/oldest.py --environment /tmp/oldest

Makes an environment with them and runs the short part of the tests in it. torch is that of
constraints.txt: older ones have no build without CUDA everywhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCEPT = {"torch"}
_BOUND = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)")
SHORT = ("test_config.py", "adapters", "events", "process", "models", "cli")
"""Tests that touch every dependency and take a few minutes."""


def oldest() -> list[str]:
    """Lower bounds as exact versions, in the form of a constraints file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    lists = [project["project"]["dependencies"], *optional, *groups]
    found = {}
    for text in (entry for entries in lists for entry in entries if isinstance(entry, str)):
        match = _BOUND.fullmatch(text.split(";")[0].strip())
        if match and match[1].lower() not in EXCEPT:
            found[match[1].lower()] = match[2]
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    found |= {
        name.strip(): version.strip()
        for name, _, version in (line.partition("==") for line in pinned if "==" in line)
        if name.strip() not in found
    }
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", type=Path, required=True, metavar="DIR")
    parser.add_argument("--list", action="store_true", help="print the versions only")
    options = parser.parse_args()
    constraints = oldest()
    if options.list:
        print("\n".join(constraints))
        return 0
    python = options.environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", options.environment], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        pip = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
        subprocess.run([*pip, "-c", file.name, "-e", f"{ROOT}[plots,pythia]"], check=True)
        group = f"{ROOT}/pyproject.toml:test"
        subprocess.run([*pip, "-c", file.name, "--group", group], check=True)
    tests = [str(ROOT / "tests" / name) for name in SHORT]
    return subprocess.run([python, "-m", "pytest", "-q", "-m", "not slow", *tests]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
