"""Wheel and source distribution hold what is needed, and work outside of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build from a source tree with the backend that pip would call."""
    out.mkdir(exist_ok=True)
    code = f"from hatchling.build import build_{kind}; print(build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", code, cwd=source).splitlines()[-1]


@pytest.mark.slow
def test_distributions_work_outside_of_the_repository(tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "tests/conftest.py", "Makefile"):
        assert (source / name).is_file(), name
    assert not (source / ".venv").exists()
    wheels = build("wheel", ROOT, tmp_path / "dist"), build("wheel", source, tmp_path / "second")
    contents = [sorted(zipfile.ZipFile(wheel).namelist()) for wheel in wheels]
    assert contents[0] == contents[1]
    for name in ("hepgen_ml/py.typed", "hepgen_ml/pretrained/ttbar01j/model.safetensors"):
        assert name in contents[0]
    assert not any(name.startswith(("tests", "docs", "examples")) for name in contents[0])

    # An environment of its own that sees the dependencies of this one, but not the editable
    # installation of the package: a path in a .pth file does not bring its own .pth files.
    place = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    python = place / "bin" / "python"
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheels[1])
    clean = {"PATH": os.defpath, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run(sys.executable, *install, cwd=tmp_path, environment=clean)
    where = run(python, "-c", "import hepgen_ml; print(hepgen_ml.__file__)", cwd=tmp_path,
                environment=clean)  # fmt: skip
    assert Path(where.strip()).is_relative_to(packages)
    program = place / "bin" / "hepgen-ml"
    outputs = ("e.lhe.gz", "e.hepmc", "e.root")
    written = [word for name in outputs for word in ("--out", name)]
    generate = ("generate", "--model", "ttbar01j", "-n", 200, *written)
    run(program, *generate, cwd=tmp_path, environment=clean)
    run(program, "check", *outputs, cwd=tmp_path, environment=clean)
