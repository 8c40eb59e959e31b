"""Runs of one file that several LHE files have been joined to."""

from __future__ import annotations

from pathlib import Path

from hepgen_adapters.lhe.damage import REMEDY, TRUNCATED
from hepgen_adapters.lhe.front import END_OF_INIT
from hepgen_adapters.lhe.header import parse_header
from hepgen_adapters.lhe.markup import Masker
from hepgen_adapters.lhe.stream import BEGINS, Block
from hepgen_ml.errors import InputError
from hepgen_ml.events.run import RunInfo

_SAME = "beam_pdg_id", "beam_energy", "pdf_group", "pdf_set", "weight_strategy", "processes"


def next_run(
    block: Block, place: int, path: Path, event: int, first: RunInfo, declared: list[str]
) -> int:
    """Place behind ``</init>`` of another file that is joined to the first; -1 without any.

    Parameters
    ----------
    block : Block
    place : int
        Place behind the end of the file before.
    path : Path
    event : int
        Number of the next event.
    first : RunInfo
        Run of the first file.
    declared : list of str
        Names of weights that it declares.

    Raises
    ------
    InputError
        The file belongs to another run, or events follow outside any file.
    """
    match = BEGINS.search(block.buffer, place, block.end)
    if match is None:
        return -1
    if match[0].startswith(b"<event"):
        raise InputError(
            "events follow behind </LesHouchesEvents>", path=path, event=event,
            remedy="take the closing tag out, or what follows it",
        )  # fmt: skip
    masker = Masker()
    masker.feed(bytes(memoryview(block.buffer)[match.start() : block.end]), final=True)
    found = END_OF_INIT.search(masker.masked)
    if found is None:
        raise InputError(TRUNCATED, path=path, event=event, remedy=REMEDY)
    behind = match.start() + found.end()
    run, names = parse_header(bytes(memoryview(block.buffer)[match.start() : behind]), path)
    same = all(getattr(run, n) == getattr(first, n) for n in _SAME)
    if not same or names != declared:
        what = "weights that it declares" if same else "beams, processes and cross sections"
        raise InputError(
            f"a second file of other {what} is joined to the first", path=path,
            event=event, remedy="split them at <LesHouchesEvents> and name both files",
        )  # fmt: skip
    return behind
