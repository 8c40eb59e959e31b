"""Conditions of the user: named values on which the events of a sample depend.

A condition is an attribute of the events (``<event mass="800">``, an attribute of a HepMC event, a
column of a ROOT file of ours), or a parameter of the run that differs between files: an entry of an
SLHA block in the header (``mass:32``, ``decay:32``), a line of a run card, an element or a ``name =
value`` of the header. In all cases it becomes an attribute of every event, and generated events
have it in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, RunInfo

MOST = 16
"""Largest number of conditions."""

_LONGEST = 100
"""Characters of a name."""

_NAMED = 12
"""Names that an error message lists."""

_SLHA_END = re.compile(r"^[ \t]*(?:BLOCK|DECAY)\b|^[ \t]*<", re.MULTILINE | re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
_INDEX = re.compile(r"-?\d+$")
_MOST_LINES = 10
"""Lines of a header that state one parameter, at most."""

_BLOCK = re.compile(r"([A-Za-z][A-Za-z0-9_]*):(-?\d+(?:,-?\d+)*)$")
_ELEMENT_NAME = re.compile(r"[A-Za-z_][\w.-]*$")


@dataclass(frozen=True)
class Wanted:
    """A condition by the name that the user gave it.

    Attributes
    ----------
    name : str
    categorical : bool
        Whether its values are labels without an order, even if they look like numbers.
    """

    name: str
    categorical: bool = False

    @property
    def attribute(self) -> str:
        """Name of the corresponding attribute of events: ``mass_32`` for `mass:32`."""
        text = re.sub(r"[^\w.-]", "_", self.name)
        return text if _ELEMENT_NAME.match(text) else f"_{text}"

    def __str__(self) -> str:
        return f"category({self.name})" if self.categorical else self.name


def parse_condition(text: str) -> Wanted:
    """Parse a condition: NAME, BLOCK:ENTRY of an SLHA block, or category(NAME).

    Raises
    ------
    UsageError
        The text names nothing.
    """
    inner = re.fullmatch(r"\s*category\((.*)\)\s*", text)
    name = (inner.group(1) if inner else text).strip()
    if not name or len(name) > _LONGEST or not name.isprintable() or set(name) & set("=<>\"'&"):
        raise UsageError(
            f"{text[:_LONGEST]!r} does not name a condition",
            remedy="write NAME, BLOCK:ENTRY such as mass:32, or category(NAME)",
        )
    return Wanted(name, inner is not None)


def parse_conditions(texts: Sequence[str]) -> tuple[Wanted, ...]:
    """Several conditions, each of them once."""
    found = tuple(parse_condition(text) for text in texts)
    attributes = [wanted.attribute for wanted in found]
    twice = next((w for w in found if attributes.count(w.attribute) > 1), None)
    if twice is not None:
        raise UsageError(f"condition {twice.name!r} is named twice", remedy="name it once")
    if len(found) > MOST:
        raise UsageError(f"{len(found)} conditions are too many", remedy=f"name {MOST} at most")
    return found


def run_value(header: str, name: str) -> str | None:
    """Value of a parameter in the header of a file; None if the header lacks it.

    Searched as an entry of an SLHA block (``decay:32`` is the width of particle 32), as a line
    ``value = name`` of a run card, as ``<name>value</name>``, and as ``name = value``.
    """
    place = _place(header, name)
    return None if place is None else header[slice(*place)]


def _place(header: str, name: str) -> tuple[int, int] | None:
    """Positions of the first character of a parameter's value and of that after its last."""
    if block := _BLOCK.match(name):
        found = _slha_entry(header, block.group(1), block.group(2).split(","))
        if found is not None:
            return found
    key = re.escape(name)
    patterns = (
        rf"^[ \t]*(\S+)[ \t]*=[ \t]*{key}[ \t]*(?:[!#].*)?$",
        rf"<{key}>\s*([^<>\s]+)\s*</{key}>",
        rf"^[ \t#!]*(?:set[ \t]+|model[ \t]+)?{key}[ \t]*[=:][ \t]*[\"']?([^\s\"'#!<>]+)",
    )
    for pattern in patterns:
        match = re.search(pattern, header, re.MULTILINE)
        if match is not None:
            return match.span(1)
    return None


def _slha_entry(header: str, block: str, entry: Sequence[str]) -> tuple[int, int] | None:
    if block.lower() == "decay" and len(entry) == 1:
        match = re.search(
            rf"^[ \t]*DECAY[ \t]+{entry[0]}[ \t]+({_NUMBER})", header, re.MULTILINE | re.IGNORECASE
        )
        return None if match is None else match.span(1)
    span = _slha_block(header, block)
    match = None if span is None else _entry_pattern(entry).search(header, *span)
    return None if match is None else match.span(2)


def _slha_block(header: str, block: str) -> tuple[int, int] | None:
    """Positions of the first and last character of the entries of a block."""
    start = re.search(rf"^[ \t]*BLOCK[ \t]+{block}\b.*$", header, re.MULTILINE | re.IGNORECASE)
    if start is None:
        return None
    stop = _SLHA_END.search(header, start.end())
    return start.end(), stop.start() if stop else len(header)


def _entry_pattern(entry: Sequence[str]) -> re.Pattern[str]:
    indices = r"[ \t]+".join(map(re.escape, entry))
    return re.compile(rf"^([ \t]*{indices}[ \t]+)({_NUMBER})", re.MULTILINE)


def with_run_value(header: str, name: str, value: str | None) -> str:
    """The header with another value of a parameter, if it has the parameter at all.

    Without a value, because events differ in it, the lines that state one are left out.
    """
    place = _place(header, name)
    if value is not None:
        return header if place is None else header[: place[0]] + value + header[place[1] :]
    for _ in range(_MOST_LINES):
        if place is None:
            break
        start = header.rfind("\n", 0, place[0]) + 1
        stop = header.find("\n", place[1]) + 1 or len(header)
        if re.match(r"[ \t]*DECAY\b", header[start:stop], re.IGNORECASE):
            behind = _SLHA_END.search(header, stop)  # with the branching ratios that follow
            stop = behind.start() if behind else len(header)
        header = header[:start] + header[stop:]
        place = _place(header, name)
    return header


def slha_entries(header: str) -> dict[str, float]:
    """Numbers of the SLHA blocks and widths of a header, by names such as ``mass:32``."""
    found: dict[str, float] = {}
    block = ""
    for line in header.splitlines():
        words = line.partition("#")[0].split()
        head = words[0].lower() if words else ""
        if head == "block" and len(words) > 1:
            block = words[1].lower()
        elif head == "decay" and len(words) > 2:
            block = ""  # branching ratios follow
            _note(found, f"decay:{words[1]}", words[2])
        elif head.startswith("<"):
            block = ""
        elif block and len(words) > 1 and all(_INDEX.match(word) for word in words[:-1]):
            _note(found, f"{block}:{','.join(words[:-1])}", words[-1])
    return found


def _note(found: dict[str, float], name: str, text: str) -> None:
    if re.fullmatch(_NUMBER, text):
        found[name] = float(text.lower().replace("d", "e"))


def values_of_run(run: RunInfo, wanted: Sequence[Wanted]) -> dict[str, str]:
    """Values of those conditions that are parameters of a run, by name."""
    found = {w.name: run_value(run.header, w.name) for w in wanted}
    return {name: value for name, value in found.items() if value is not None}


def with_conditions(
    sample: EventSample,
    wanted: Sequence[Wanted],
    of_run: Mapping[str, str],
    path: Path | None = None,
) -> EventSample:
    """Add the conditions to the attributes of every event.

    Parameters
    ----------
    sample : EventSample
        Sample to which parameters of its run are added as attributes.
    wanted : sequence of Wanted
    of_run : mapping of str to str
        From `values_of_run`.
    path : Path, optional
        Of the file, for errors.

    Raises
    ------
    SampleError
        The sample has no such value.
    """
    for w in wanted:
        if w.attribute in sample.attributes:
            continue
        if w.name in sample.attributes:
            sample.attributes[w.attribute] = sample.attributes[w.name]
        elif w.name in sample.scales:
            sample.attributes[w.attribute] = sample.scales[w.name].astype(str)
        elif w.name in of_run:
            sample.attributes[w.attribute] = np.full(len(sample), of_run[w.name])
        else:
            raise _unknown(sample, w, path)
    return sample


def _unknown(sample: EventSample, wanted: Wanted, path: Path | None) -> SampleError:
    known = [*sample.attributes, *sample.scales][:_NAMED]
    brings = f"events have {', '.join(known)}" if known else "events have no attributes"
    return SampleError(
        f"brings no value of the condition {wanted.name!r}",
        path=path,
        remedy=f"name what the sample has ({brings}), or a parameter in the header of its files: "
        "an SLHA entry such as mass:32, or a line 'name = value'",
    )


def texts_of(
    sample: EventSample, wanted: Sequence[Wanted], first: int = 0, path: Path | None = None
) -> npt.NDArray[np.str_]:
    """Values (n, K) of the conditions of events, as they are written.

    Parameters
    ----------
    sample : EventSample
    wanted : sequence of Wanted
    first : int
        Number of events before these, for errors.
    path : Path, optional

    Raises
    ------
    SampleError
        An event has none.
    """
    columns = []
    for w in wanted:
        if w.attribute not in sample.attributes:
            sample = with_conditions(sample, [w], values_of_run(sample.run, [w]), path)
        values = np.char.strip(sample.attributes[w.attribute].astype(str))
        if (empty := np.flatnonzero(values == "")).size:
            raise SampleError(
                f"has no value of the condition {w.name!r}",
                path=path,
                event=first + int(empty[0]) + 1,
                remedy="leave the events without it out, or give it to all of them",
            )
        columns.append(values)
    if not columns:
        return np.empty((len(sample), 0), dtype="U1")
    return np.stack(columns, axis=1)


def number_of(text: str) -> float | None:
    """A number as event files write it; None for a name."""
    try:
        return float(text.replace("D", "E").replace("d", "e"))
    except ValueError:
        return None
