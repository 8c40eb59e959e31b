"""Reader of LHE files."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe import codes as codes
from hepgen_adapters.lhe.ahead import Parsed, ParsedBlocks
from hepgen_adapters.lhe.columns import Columns, Names
from hepgen_adapters.lhe.comments import EventTexts
from hepgen_adapters.lhe.cross_section import with_weighted_cross_section
from hepgen_adapters.lhe.damage import REMEDY, TRUNCATED, error_of, resume, solve
from hepgen_adapters.lhe.front import read_front
from hepgen_adapters.lhe.header import parse_header, printed_digits, unread
from hepgen_adapters.lhe.joined import next_run
from hepgen_adapters.lhe.markup import attributes, masked
from hepgen_adapters.lhe.parse import parse_events
from hepgen_adapters.lhe.stream import BLOCK, END_OF_EVENT, END_OF_FILE, Block, Blocks
from hepgen_ml.errors import InputError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.sample import EVENT_COLUMNS, PARTICLE_COLUMNS, EventSample

MAX_NAMES = 8192
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_TEXT = 4096
KEPT_ERRORS = 10

_SECOND_INIT = re.compile(rb"<init[\s>]")
_NO_NUMBERS = "that are not numbers (nan instead)"

_Text = Iterable[tuple[Block, Parsed | None]]
"""Blocks of a file, with their events if these have been parsed ahead."""


@dataclass
class _Pass:
    """One pass over the text of a file.

    Attributes
    ----------
    columns : Columns
        Events that are not in a chunk yet; ``state`` counts them.
    size : int
        Number of events of a chunk.
    state, hard_at, hard_value : array
        See `parse_events`.
    n_good : int
        Number of events in chunks.
    closed : bool
        The text so far ends behind a file, and another may be joined to it.
    truncated : bool
        An event ends early.
    comment : bytes
        End of the comment that contains the end of the text so far.
    """

    columns: Columns
    size: int
    state: Any = field(default_factory=lambda: np.zeros(codes.STATE_SIZE, np.int64))
    hard_at: Any = field(default_factory=lambda: np.empty(64, np.int64))
    hard_value: Any = field(default_factory=lambda: np.empty(64))
    n_good: int = 0
    closed: bool = False
    truncated: bool = False
    comment: bytes = b""

    @property
    def n_events(self) -> int:
        """Number of events in the columns."""
        return int(self.state[codes.N_EVENTS])

    @property
    def n_rows(self) -> int:
        """Number of their particles."""
        return int(self.state[codes.N_ROWS])


class LHEReader:
    """An opened LHE file; see `hepgen_ml.events.formats.Reader`.

    Parameters
    ----------
    path : Path
    skip_bad : bool
        Leave out events that cannot be understood.

    Raises
    ------
    InputError
        The file is not a complete LHE file of versions 1 to 3.
    """

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        self.path, self.skip_bad = Path(path), skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = self.n_unselected = 0
        self.unselected_weight = 0.0
        self.left_out: list[str] = []
        self._weights, self._scales = Names(), Names()
        self._by_position: list[int] = []
        self._declared: dict[str, str] = {}
        self._also: tuple[str, ...] = ()
        text, self._start = read_front(self.path, skip_bad=self.skip_bad)
        self.run, self._by_declaration = parse_header(text[: self._start], self.path)
        self._first_run = self.run
        self.run = with_weighted_cross_section(self.run, self.path)
        self._declared = dict(self.run.weight_names)
        self._n_no_weight = 0
        self._look_ahead(text[self._start :])

    def also_read(self, names: Sequence[str]) -> None:
        """Search values of these names also in comments and elements of the events."""
        self._also = tuple(names)

    def close(self) -> None:
        """Do nothing, because no file stays open between chunks."""

    def _look_ahead(self, text: bytes) -> None:
        """Learn names and printed digits from the first events."""
        if _SECOND_INIT.search(masked(text[: max(text.find(b"<event"), 0)])[0]):
            raise InputError(
                "has a second <init> block before its events", path=self.path,
                remedy="keep the one that describes the events",
            )  # fmt: skip
        stop = text.rfind(END_OF_EVENT) + len(END_OF_EVENT)
        if stop < len(END_OF_EVENT):
            if END_OF_FILE in text:
                remedy = "check how it was made"
                raise InputError("holds no events", path=self.path, remedy=remedy)
            if len(text) < BLOCK and not self.skip_bad:
                remedy = "copy or make the file again"
                raise InputError(TRUNCATED, path=self.path, event=1, remedy=remedy)
            return
        self.run = self.run.with_(significant_digits=printed_digits(text[: 1 << 16]))
        self.left_out = unread(text[:stop])
        ahead = Block(bytearray(text[:stop] + bytes(64)), stop, self._start)
        errors = self.skip_bad, self.skipped, self.n_skipped
        self.skip_bad = True  # the errors come when the chunks are read
        for _ in self._samples([(ahead, None)], _Pass(Columns(256, 4096, 0, 0), 256)):
            break
        self.skip_bad, self.skipped, self.n_skipped = errors
        self.skipped = []
        # Declared names are kept only if events have named weights.
        if self._weights.names:
            for name in self._declared:
                if name not in self._weights.names:
                    self._weights.declare(name)
        self._note_names()

    def _note_names(self) -> None:
        names = {name: self._declared.get(name, "") for name in self._weights.names}
        if list(names) != list(self.run.weight_names):
            self.run = self.run.with_(weight_names=names)

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, `size` at a time; memory does not grow with the file.

        Raises
        ------
        InputError
            A bad event or an incomplete file; with ``skip_bad`` only if more events are bad than
            good.
        """
        if size < 1:
            raise ValueError("size must be positive")
        self.skipped, self.n_skipped = [], 0
        blocks = Blocks(self.path, self._start, skip_bad=self.skip_bad)
        columns = Columns(size, 8 * size, len(self._weights), len(self._scales))
        parsed = ParsedBlocks(blocks, lambda: (self._weights, self._by_position, self._scales))
        texts = EventTexts(self.path, self._start, self._also) if self._also else None
        try:
            for sample in self._whole(parsed, _Pass(columns, size)):
                if texts is not None:
                    self._add_texts(sample, texts)
                yield sample
        finally:
            blocks.close()
            if texts is not None:
                texts.close()

    def _add_texts(self, sample: EventSample, texts: EventTexts) -> None:
        """Attributes of events from their comments, which include the bad events of the file."""
        found = texts.take(len(sample))
        if found and self.n_skipped:
            raise InputError(
                f"has bad events, so that {next(iter(found))} of the others cannot be read from "
                "their comments", path=self.path, remedy="leave the bad events out of the file",
            )  # fmt: skip
        sample.attributes = found | sample.attributes

    def _whole(self, blocks: _Text, at: _Pass) -> Iterator[EventSample]:
        """Chunks of all blocks of a file."""
        self._n_no_weight = 0
        yield from self._samples(blocks, at)
        self._n_no_weight += int(at.state[codes.N_NO_WEIGHT])
        self._finish(at.n_good + at.n_events, ended=at.closed or at.truncated)
        if at.n_events:
            yield self._sample(at.columns, at.n_events, at.n_rows)

    def _samples(self, blocks: _Text, at: _Pass) -> Iterator[EventSample]:
        """Chunks that are full after some blocks."""
        for block, parsed in blocks:
            at.state[codes.POSITION] = block.address
            if at.closed or at.comment:  # the text does not begin with an event
                if not self._reopened(block, at):
                    continue
            elif parsed is not None:
                yield from self._append(block, parsed, at)
            while True:
                first = at.n_events
                status = parse_events(
                    block.address + block.end, at.state, *at.columns.targets(),
                    at.columns.weights, self._weights.table, np.array(self._by_position, np.int64),
                    at.columns.scales, self._scales.table, at.hard_at, at.hard_value,
                )  # fmt: skip
                self._attributes(block, at, first)
                if status == codes.NO_EVENT_LEFT:
                    yield self._full(at)
                elif not self._goes_on(block, at, status):
                    break

    def _full(self, at: _Pass) -> EventSample:
        """A chunk of the events so far, and columns for the next."""
        n_events, n_rows = at.n_events, at.n_rows
        sample = self._sample(at.columns, n_events, n_rows)
        rows = max(64, int(1.1 * n_rows / n_events * at.size))
        at.columns = Columns(at.size, rows, len(self._weights), len(self._scales))
        at.n_good += n_events
        at.state[codes.N_EVENTS] = at.state[codes.N_ROWS] = 0
        return sample

    def _reopened(self, block: Block, at: _Pass) -> bool:
        """Go on behind a comment, or in the next joined file, if that begins in this block."""
        if at.comment:
            place = block.buffer.find(at.comment, 0, block.end)
            if place < 0:
                return False
            at.state[codes.POSITION] = block.address + place + len(at.comment)
            at.comment = b""
        return not at.closed or self._next_run(block, at)

    def _next_run(self, block: Block, at: _Pass) -> bool:
        """Go on with the next file that is joined to this one, if it begins in this block."""
        behind = next_run(
            block, int(at.state[codes.POSITION]) - block.address, self.path,
            self._event(at), self._first_run, self._by_declaration,
        )  # fmt: skip
        at.closed = behind < 0
        if not at.closed:
            at.state[codes.POSITION] = block.address + behind
        return not at.closed

    def _event(self, at: _Pass) -> int:
        """Number of the next event of the file."""
        return at.n_good + at.n_events + self.n_skipped + 1

    def _append(self, block: Block, parsed: Parsed, at: _Pass) -> Iterator[EventSample]:
        """Take over the events that were parsed ahead."""
        done = 0
        while done < parsed.n_events:
            used = at.n_events
            if used == at.size:
                yield self._full(at)
                continue
            stop = min(parsed.n_events, done + at.size - used)
            rows = at.columns.append(used, at.n_rows, parsed.columns, done, stop)
            at.state[codes.N_ROWS], at.state[codes.N_EVENTS] = rows, used + stop - done
            self._attributes(block, at, used)
            done = stop
        at.state[codes.POSITION] = parsed.position
        self._n_no_weight += parsed.n_no_weight

    def _goes_on(self, block: Block, at: _Pass, status: int) -> bool:
        """Give the parser what it stopped for; whether it goes on in this block."""
        if status == codes.END_OF_TEXT:
            return False
        if status in (codes.END_OF_FILE, codes.NEW_ROOT):
            if status == codes.NEW_ROOT:
                event = self._event(at)
                self._bad(InputError(TRUNCATED, path=self.path, event=event, remedy=REMEDY))
            return self._next_run(block, at)
        if status == codes.OPEN_COMMENT:
            place = int(at.state[codes.POSITION]) - block.address
            at.comment = b"-->" if block.buffer[place + 2] == ord("-") else b"]]>"
            return False
        if status == codes.NO_ROW_LEFT:
            at.columns.add_rows(int(at.state[codes.WANTED]), at.n_rows)
        elif status == codes.HARD_NUMBERS:
            at.hard_at, at.hard_value = solve(block, at.state, at.hard_at, at.hard_value)
        elif status in (codes.NEW_WEIGHT, codes.NEW_POSITION, codes.NEW_SCALE):
            self._new_name(block, at, status)
        else:
            event = self._event(at)
            error = error_of(block, at.state, status, self.path, event, skip_bad=self.skip_bad)
            at.truncated |= error.message == TRUNCATED
            self._bad(error)
            at.state[codes.POSITION] = block.address + resume(block, at.state)
            at.state[codes.N_SOLVED] = 0
        return True

    def _finish(self, n_good: int, *, ended: bool) -> None:
        """Log the events left out, and raise if the file ended early or has too few good events."""
        if self._n_no_weight:
            self.left_out = [
                *(text for text in self.left_out if not text.endswith(_NO_NUMBERS)),
                f"{self._n_no_weight} named weights {_NO_NUMBERS}",
            ]
        if not ended:  # and no warning was given before
            event = n_good + self.n_skipped + 1
            self._bad(InputError(TRUNCATED, path=self.path, event=event, remedy=REMEDY))
        if n_good == 0 and not self.n_skipped:
            raise InputError("holds no events", path=self.path, remedy="check how it was made")
        if self.n_skipped > n_good:
            raise InputError(
                f"{self.n_skipped} bad events against {n_good} good ones, the first: "
                f"{self.skipped[0].message}", path=self.path, event=self.skipped[0].event,
                remedy="the file is not what it claims; make it again",
            )  # fmt: skip

    def _bad(self, error: InputError) -> None:
        if not self.skip_bad:
            raise error
        self.n_skipped += 1
        if len(self.skipped) < KEPT_ERRORS:
            self.skipped.append(error)

    def _new_name(self, block: Block, at: _Pass, status: int) -> None:
        names, group = self._weights, "weights"
        if status == codes.NEW_SCALE:
            names, group = self._scales, "scales"
        if status == codes.NEW_POSITION:
            position = len(self._by_position)
            declared = dict(enumerate(self._by_declaration)).get(position)
            free = declared is not None and declared not in names.names
            name = declared if free and declared is not None else f"weights_{position + 1}"
            raw = html.escape(name, quote=False).encode()
            self._by_position.append(len(names))
        else:
            start, stop = (int(at.state[i]) - block.address for i in (codes.MARK, codes.MARK_END))
            raw = bytes(block.buffer[start:stop])
        if len(names) >= MAX_NAMES:
            raise InputError(
                f"more than {MAX_NAMES} different names of {group}",
                path=self.path,
                remedy="the file is damaged, or too large for this reader",
            )
        n_before = len(names)
        names.add(raw)
        if len(names) > n_before:
            at.columns.widen(group, len(names), at.n_events)
        if group == "weights":
            self._note_names()

    def _attributes(self, block: Block, at: _Pass, first: int) -> None:
        """Keep the attributes of the events from `first` on, which are in this block."""
        columns = at.columns
        for event in np.flatnonzero(columns.spans[first : at.n_events, 0] != codes.NO_SPAN) + first:
            start, stop = (int(x) - block.address for x in columns.spans[event])
            text = bytes(block.buffer[start:stop])
            found = attributes(text.decode("utf-8", "replace")) if text.strip() else {}
            for name, value in found.items():
                values = columns.attributes.get(name)
                if values is None:
                    values = columns.attributes[name] = [""] * len(columns.process_id)
                values[event] = value
            if len(text) > MAX_ATTRIBUTE_TEXT or len(columns.attributes) > MAX_ATTRIBUTES:
                raise InputError(
                    "too many or too long attributes of <event>",
                    path=self.path,
                    event=at.n_good + int(event) + self.n_skipped + 1,
                    remedy="the file is damaged",
                )

    def _sample(self, columns: Columns, n_events: int, n_rows: int) -> EventSample:
        def named(names: Names, matrix: npt.NDArray[np.float64]) -> dict[str, Any]:
            transposed = np.ascontiguousarray(matrix[:n_events, : len(names)].T)
            return dict(zip(names.names, transposed, strict=True))

        particles = [*columns.ints[:, :n_rows], *columns.floats[:, :n_rows]]
        events = [columns.process_id[:n_events], *columns.event_floats[:, :n_events]]
        return EventSample(
            self.run,
            columns.offsets[: n_events + 1],
            dict(zip(PARTICLE_COLUMNS, particles, strict=True)),
            dict(zip(EVENT_COLUMNS, events, strict=True)),
            weights=named(self._weights, columns.weights),
            scales=named(self._scales, columns.scales),
            attributes={
                name: np.array(values[:n_events]) for name, values in columns.attributes.items()
            },
        )
