"""Reader of LHE files."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.lhe import codes as codes
from hepgen_adapters.lhe.ahead import ParsedBlocks
from hepgen_adapters.lhe.columns import Columns, Names
from hepgen_adapters.lhe.comments import EventTexts
from hepgen_adapters.lhe.cross_section import with_weighted_cross_section
from hepgen_adapters.lhe.damage import REMEDY, TRUNCATED, error_of, resume, solve
from hepgen_adapters.lhe.front import END_OF_INIT, read_front
from hepgen_adapters.lhe.header import parse_header, printed_digits, unread
from hepgen_adapters.lhe.markup import Masker, attributes, masked
from hepgen_adapters.lhe.parse import parse_events
from hepgen_adapters.lhe.stream import (
    BEGINS,
    BLOCK,
    END_OF_EVENT,
    END_OF_FILE,
    Block,
    Blocks,
)
from hepgen_ml.errors import InputError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.sample import EVENT_COLUMNS, PARTICLE_COLUMNS, EventSample

MAX_NAMES = 8192
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_TEXT = 4096
KEPT_ERRORS = 10

_SECOND_INIT = re.compile(rb"<init[\s>]")
_SAME_IN_JOINED = (
    "beam_pdg_id", "beam_energy", "pdf_group", "pdf_set", "weight_strategy", "processes",
)  # fmt: skip
_NO_NUMBERS = "that are not numbers (nan instead)"


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
        for _ in self._parse([(ahead, None)], Columns(256, 4096, 0, 0), sizes=256, once=True):
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
            for sample in self._parse(parsed, columns, sizes=size):
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

    def _parse(
        self, blocks: Any, columns: Columns, *, sizes: int, once: bool = False
    ) -> Iterator[EventSample]:
        state = np.zeros(codes.STATE_SIZE, np.int64)
        hard_at, hard_value = np.empty(64, np.int64), np.empty(64)
        n_good = 0
        closed = truncated = False
        comment = b""  # end of the comment that contains the text so far
        self._n_no_weight = 0

        def chunk() -> tuple[EventSample, Columns]:
            nonlocal n_good
            n_events, n_rows = int(state[codes.N_EVENTS]), int(state[codes.N_ROWS])
            n_good += n_events
            sample = self._sample(columns, n_events, n_rows)
            rows = max(64, int(1.1 * n_rows / n_events * sizes))
            state[codes.N_EVENTS] = state[codes.N_ROWS] = 0
            return sample, Columns(sizes, rows, len(self._weights), len(self._scales))

        for block, parsed in blocks:
            state[codes.POSITION] = block.address
            if closed or comment:
                parsed = None  # the text does not begin with an event
            if comment:
                place = block.buffer.find(comment, 0, block.end)
                if place < 0:
                    continue
                state[codes.POSITION] = block.address + place + len(comment)
                comment = b""
            if closed:
                place = int(state[codes.POSITION]) - block.address
                behind = self._next_run(block, place, n_good + int(state[codes.N_EVENTS]))
                if behind < 0:
                    continue
                state[codes.POSITION], closed = block.address + behind, False
            if parsed is not None:
                done = 0
                while done < parsed.n_events:
                    used, rows = int(state[codes.N_EVENTS]), int(state[codes.N_ROWS])
                    if used == sizes:
                        sample, columns = chunk()
                        yield sample
                        continue
                    stop = min(parsed.n_events, done + sizes - used)
                    rows = columns.append(used, rows, parsed.columns, done, stop)
                    state[codes.N_ROWS], state[codes.N_EVENTS] = rows, used + stop - done
                    self._attributes(block, columns, used, used + stop - done, n_good)
                    done = stop
                state[codes.POSITION] = parsed.position
                self._n_no_weight += parsed.n_no_weight
            end = block.address + block.end
            while True:
                first = int(state[codes.N_EVENTS])
                status = parse_events(
                    end, state, *columns.targets(),
                    columns.weights, self._weights.table, np.array(self._by_position, np.int64),
                    columns.scales, self._scales.table, hard_at, hard_value,
                )  # fmt: skip
                last = int(state[codes.N_EVENTS])
                if last > first:
                    self._attributes(block, columns, first, last, n_good)
                if status == codes.END_OF_TEXT:
                    break
                if status in (codes.END_OF_FILE, codes.NEW_ROOT):
                    place = int(state[codes.POSITION]) - block.address
                    if status == codes.NEW_ROOT:
                        event = n_good + last + self.n_skipped + 1
                        self._bad(
                            InputError(TRUNCATED, path=self.path, event=event, remedy=REMEDY)
                        )
                    behind = self._next_run(block, place, n_good + last)
                    if behind < 0:
                        closed = True
                        break
                    state[codes.POSITION] = block.address + behind
                    continue
                if status == codes.OPEN_COMMENT:
                    place = int(state[codes.POSITION]) - block.address
                    comment = b"-->" if block.buffer[place + 2] == ord("-") else b"]]>"
                    break
                if status == codes.NO_EVENT_LEFT:
                    sample, columns = chunk()
                    yield sample
                elif status == codes.NO_ROW_LEFT:
                    columns.add_rows(int(state[codes.WANTED]), int(state[codes.N_ROWS]))
                elif status == codes.HARD_NUMBERS:
                    hard_at, hard_value = solve(block, state, hard_at, hard_value)
                elif status in (codes.NEW_WEIGHT, codes.NEW_POSITION, codes.NEW_SCALE):
                    self._new_name(block, state, columns, status)
                else:
                    event = n_good + last + self.n_skipped + 1
                    error = error_of(
                        block, state, status, self.path, event, skip_bad=self.skip_bad
                    )
                    truncated |= error.message == TRUNCATED
                    self._bad(error)
                    state[codes.POSITION] = block.address + resume(block, state)
                    state[codes.N_SOLVED] = 0
        if once:
            return
        self._n_no_weight += int(state[codes.N_NO_WEIGHT])
        self._finish(n_good + int(state[codes.N_EVENTS]), ended=closed or truncated)
        if state[codes.N_EVENTS]:
            yield self._sample(columns, int(state[codes.N_EVENTS]), int(state[codes.N_ROWS]))

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
                f"{self.skipped[0].message}",
                path=self.path,
                event=self.skipped[0].event,
                remedy="the file is not what it claims; make it again",
            )

    def _next_run(self, block: Block, place: int, n_good: int) -> int:
        """Place behind ``</init>`` of another file that is joined to this one; -1 without any.

        Raises
        ------
        InputError
            It belongs to another run, or events follow outside any file.
        """
        match = BEGINS.search(block.buffer, place, block.end)
        if match is None:
            return -1
        event = n_good + self.n_skipped + 1
        if match[0].startswith(b"<event"):
            raise InputError(
                "events follow behind </LesHouchesEvents>", path=self.path, event=event,
                remedy="take the closing tag out, or what follows it",
            )  # fmt: skip
        masker = Masker()
        masker.feed(bytes(memoryview(block.buffer)[match.start() : block.end]), final=True)
        found = END_OF_INIT.search(masker.masked)
        if found is None:
            raise InputError(TRUNCATED, path=self.path, event=event, remedy=REMEDY)
        behind = match.start() + found.end()
        front = bytes(memoryview(block.buffer)[match.start() : behind])
        run, declared = parse_header(front, self.path)
        first = self._first_run
        same = all(getattr(run, n) == getattr(first, n) for n in _SAME_IN_JOINED)
        if not same or declared != self._by_declaration:
            what = "weights that it declares" if same else "beams, processes and cross sections"
            raise InputError(
                f"a second file of other {what} is joined to the first", path=self.path,
                event=event, remedy="split them at <LesHouchesEvents> and name both files",
            )  # fmt: skip
        return behind

    def _bad(self, error: InputError) -> None:
        if not self.skip_bad:
            raise error
        self.n_skipped += 1
        if len(self.skipped) < KEPT_ERRORS:
            self.skipped.append(error)

    def _new_name(self, block: Block, state: Any, columns: Columns, status: int) -> None:
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
            start, stop = (int(state[i]) - block.address for i in (codes.MARK, codes.MARK_END))
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
            columns.widen(group, len(names), int(state[codes.N_EVENTS]))
        if group == "weights":
            self._note_names()

    def _attributes(
        self, block: Block, columns: Columns, first: int, last: int, n_before: int
    ) -> None:
        for event in np.flatnonzero(columns.spans[first:last, 0] != codes.NO_SPAN) + first:
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
                    event=n_before + int(event) + self.n_skipped + 1,
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
