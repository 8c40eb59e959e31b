"""Parsing blocks of text ahead in threads, while later text is decompressed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepgen_adapters.lhe import codes as codes
from hepgen_adapters.lhe.columns import Columns, Names
from hepgen_adapters.lhe.parse import parse_events
from hepgen_adapters.lhe.stream import Block, Blocks

WORKERS = 2
_SMALL = 1 << 18
"""Size of a block that is parsed faster than a thread starts, as in many small files."""

MAX_VALUES = 1 << 21


@dataclass
class Parsed:
    """Events of a block up to the point where the parser stopped."""

    columns: Columns
    n_events: int
    position: int
    n_no_weight: int


class ParsedBlocks:
    """Iterate over (block, Parsed) in the order of the file.

    Parameters
    ----------
    blocks : Blocks
    names : callable
        Names of weights, their columns by position and names of scales as known so far.
    """

    def __init__(self, blocks: Blocks, names: Callable[[], tuple[Names, list[int], Names]]) -> None:
        self._blocks, self._names = blocks, names
        self._free: list[Columns] = []

    def __iter__(self) -> Iterator[tuple[Block, Parsed]]:
        waiting: deque[tuple[Block, Future[Parsed]]] = deque()
        with ThreadPoolExecutor(WORKERS) as workers:
            try:
                for block in self._blocks:
                    waiting.append((block, self._submit(workers, block)))
                    if len(waiting) > WORKERS:
                        yield from self._finished(waiting)
                while waiting:
                    yield from self._finished(waiting)
            except Exception:
                # Events before the defect come first.
                while waiting:
                    yield from self._finished(waiting)
                raise

    def _finished(
        self, waiting: deque[tuple[Block, Future[Parsed]]]
    ) -> Iterator[tuple[Block, Parsed]]:
        block, future = waiting.popleft()
        parsed = future.result()
        yield block, parsed
        self._free.append(parsed.columns)
        self._blocks.release(block)

    def _submit(self, workers: ThreadPoolExecutor, block: Block) -> Future[Parsed]:
        weights, by_position, scales = self._names()
        n_values = 1 + len(weights) + len(scales)
        n_events = min(block.end // 100, MAX_VALUES // n_values) + 1
        columns = self._free.pop() if self._free else None
        if columns is None or not columns.fits(n_events, len(weights), len(scales)):
            columns = Columns(n_events, block.end // 60 + 64, len(weights), len(scales))
        tables = weights.table, np.array(by_position, np.int64), scales.table
        if block.end < _SMALL:
            done: Future[Parsed] = Future()
            done.set_result(_attempt(block, columns, tables))
            return done
        return workers.submit(_attempt, block, columns, tables)


def _attempt(block: Block, columns: Columns, tables: tuple[Any, Any, Any]) -> Parsed:
    state = np.zeros(codes.STATE_SIZE, np.int64)
    state[codes.POSITION] = block.address
    weight_table, by_position, scale_table = tables
    parse_events(
        block.address + block.end, state, *columns.targets(), columns.weights, weight_table,
        by_position, columns.scales, scale_table, np.empty(0, np.int64), np.empty(0),
    )  # fmt: skip
    found = codes.N_EVENTS, codes.POSITION, codes.N_NO_WEIGHT
    return Parsed(columns, *(int(state[i]) for i in found))
