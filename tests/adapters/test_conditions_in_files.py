"""Values of events that files of other programs bring, asked for by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import uproot

import hepgen_ml
from hepgen_ml.errors import InputError, SampleError
from hepgen_ml.events.conditions import parse_conditions
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.source import EventSource
from tests.object_files import nano
from tests.scans import point

N = 30
VALUES = np.arange(N) % 3 * 100.0 + 600.0


def read(path: Path, *names: str, skip_bad: bool = False) -> EventSample:
    source = EventSource(path, conditions=parse_conditions(names), skip_bad=skip_bad)
    return next(chunk for _, chunk in source.raw())


def lhe(path: Path, text: str) -> Path:
    """Events with a text behind their particles that has the value for {}."""
    hepgen_ml.write(point(800, N), path)
    values = iter(VALUES.tolist())
    plain = path.read_text()
    path.write_text(re.sub("</event>", lambda _: text.format(next(values)) + "\n</event>", plain))
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [("# model T2_{:g} 0.5", "model"), ("# a=1 mass={:g}", "mass"), ("#mass: {:g}", "mass"),
     ("<mass> {:g} </mass>", "mass"), ("# gridpack mass = {:g} # text", "mass")],
)  # fmt: skip
def test_comments_of_lhe_events(text: str, name: str, tmp_path: Path) -> None:
    found = read(lhe(tmp_path / "a.lhe", text), name).attributes[name]
    expected = [f"T2_{v:g}" if name == "model" else f"{v:g}" for v in VALUES]
    assert found.tolist() == expected


def test_comments_next_to_bad_events_are_refused(tmp_path: Path) -> None:
    path = lhe(tmp_path / "a.lhe", "# mass = {:g}")
    broken = re.sub(r"(?m)^( *13 .*) \S+$", r"\1 x", path.read_text(), count=1)
    path.write_text(broken)
    with pytest.raises(InputError, match="comments"):
        read(path, "mass", skip_bad=True)


def test_attributes_of_hepmc_events(tmp_path: Path) -> None:
    path = tmp_path / "a.hepmc"
    hepgen_ml.write(point(800, N), path)
    lines, values = [], iter(VALUES.tolist())
    for line in path.read_text().splitlines():
        lines.append(line)
        if line.startswith("U "):
            lines.append(f"A 0 mass {next(values):g}")
    path.write_text("\n".join(lines) + "\n")
    assert read(path, "mass").attributes["mass"].astype(float).tolist() == VALUES.tolist()
    with pytest.raises(SampleError, match="no value of the condition"):
        read(path, "width")


def test_columns_of_root_files(tmp_path: Path) -> None:
    path, other = tmp_path / "a.root", tmp_path / "b.root"
    hepgen_ml.write(point(800, N), path)
    with uproot.open(path) as file:
        names = [f"LHEPart_{k}" for k in ("pt", "eta", "phi", "mass", "pdgId", "status")]
        columns = {k: file["Events"][k].array() for k in [*names, "LHEPart_incomingpz"]}
    nano(other, **columns, mass=VALUES.astype(np.float32), number=np.arange(N),
         several=[[1.0, 2.0]] * N)  # fmt: skip
    found = read(other, "mass", "number")
    assert found.attributes["mass"].astype(float).tolist() == VALUES.tolist()
    assert found.attributes["number"].tolist() == [str(i) for i in range(N)]
    with pytest.raises(InputError, match="list an event"):
        read(other, "several")
