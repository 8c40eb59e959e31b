"""Streams that are closed or full, places that cannot be read or written, foreign devices."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from hepgen_ml.errors import UsageError
from hepgen_ml.events.formats import AtomicWriter
from hepgen_ml.events.sample import RunInfo
from hepgen_ml.models.included import PRETRAINED
from hepgen_ml.networks import compiled as _compiled
from hepgen_ml.training.devices import find_device

PROGRAM = f'"{sys.executable}" -m hepgen_ml'


def shell(command: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a shell's command."""
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    out = tmp_path / "events.lhe"
    code, text = shell(f"{PROGRAM} generate --model ttbar01j -n 5 --out {out} {closed}")
    assert code == 0, text
    assert out.read_text().startswith("<LesHouchesEvents")
    assert out.read_text().rstrip().endswith("</LesHouchesEvents>")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["info ttbar01j", "--help"])
def test_a_full_disk_behind_standard_output(arguments: str) -> None:
    code, text = shell(f"{PROGRAM} {arguments} > /dev/full")
    assert code == 6
    assert text.count("\n") == 1
    assert "No space left" in text


def test_a_terminal_without_unicode() -> None:
    code, text = shell(
        f"{PROGRAM} info ttbar01j", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0"
    )
    assert code == 0
    assert "0.40 pb" in text


@pytest.mark.parametrize("name", ["meta", "hpu", "fpga", "no device", "", "cuda:99", "xla"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(UsageError, match="use --device cpu") as found:
        find_device(name)
    assert "\n" not in str(found.value)


def test_compiled_loops_without_a_place_to_keep_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original: Any = numba.njit

    def njit(cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available")
        return original(**options)

    monkeypatch.setattr(numba, "njit", njit)
    monkeypatch.setattr(logging.getLogger("hepgen_ml"), "propagate", True)
    _compiled._tell_once.cache_clear()
    with caplog.at_level(logging.INFO, logger=_compiled.log.name):
        loop = _compiled.compiled(nogil=True)(lambda x: x + 1)
    monkeypatch.setattr(numba, "njit", original)
    assert loop(1) == 2
    assert "NUMBA_CACHE_DIR" in caplog.text


@pytest.fixture
def user() -> str:
    """Prefix of commands that have no more rights than the permissions of files give."""
    if os.geteuid():
        return ""
    prefix = "setpriv --bounding-set=-dac_override,-dac_read_search"
    if shutil.which("setpriv") is None or shell(f"{prefix} true")[0]:
        pytest.skip("root may read and write everything")
    return prefix


def test_permissions(tmp_path: Path, user: str) -> None:
    model = Path(shutil.copytree(PRETRAINED / "ttbar01j", tmp_path / "model"))
    events = tmp_path / "secret.lhe"
    with AtomicWriter([events], RunInfo(), None):
        pass
    places = [tmp_path / name for name in ("read-only", "closed")]
    for place, mode in zip(places, (0o555, 0o000), strict=True):
        place.mkdir()
        place.chmod(mode)
    events.chmod(0)
    (model / "config.json").chmod(0)
    program = f"{user} {PROGRAM}"
    generate = f"{program} generate --model ttbar01j -n 5 --out"
    cases = {
        f"{generate} {places[0]}/a.lhe": 6,
        f"{generate} {places[1]}/a.lhe": 6,
        f"{program} info {events}": 3,
        f"{program} info {places[1]}/a.lhe": 3,
        f"{program} generate --model {model} --out {tmp_path}/a.lhe": 5,
        f"{program} train {events} --out {places[1]}/model": 6,
    }
    try:
        for command, expected in cases.items():
            code, text = shell(command)
            assert (code, text.count("\n")) == (expected, 1), (command, text)
    finally:
        for place in places:
            place.chmod(0o755)
