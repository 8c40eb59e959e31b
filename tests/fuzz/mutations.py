"""Ways to damage a file, each a function of a random generator."""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

NUMBERS = [b"nan", b"-inf", b"1e999", b"-1", b"0", b"99999999999", b"1e-400", b"", b"abc", b"0x10"]
TEXTS = [
    b"<event>", b"</event>", b"</LesHouchesEvents>", b"<LesHouchesEvents version='3.0'>", b"<init>",
    b"</init>", b"<!-- ", b"-->", b"<![CDATA[", b"]]>", b"<wgt id='1'> 2 </wgt>", b"\\", b"\0",
    b"\xff\xfe", b"\xc3\xa9", b"\r\n", b"E 1 1 3\n", b"A 99 flow1 501\n", b"P 1 0 21 0 0 0 0 0 1\n",
    b"V -1 0 [1]\n", b"HepMC::Asciiv3-END_EVENT_LISTING\n", b"T x\\\n", b"W a\\b\n",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 10**30, 1e308, float("nan"), float("inf"), "", "x", "../../x", [], {},
    [[]], [None], {"a": 1}, "a" * 5000, [1] * 1000, "mean:2:1*mt2.99", "core_mt:9,9",
]  # fmt: skip
_NUMBER = re.compile(rb"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")

Mutation = Callable[[bytes, random.Random], bytes]


def _place(data: bytes, rng: random.Random) -> int:
    """A place, in the first kilobytes half of the time: that is where structure is."""
    limit = len(data) if rng.random() < 0.5 else min(len(data), 4000)
    return rng.randrange(max(limit, 1))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        if changed:
            changed[_place(data, rng)] = rng.randrange(256)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """End early."""
    return data[: rng.randrange(len(data) + 1)]


def remove(data: bytes, rng: random.Random) -> bytes:
    """Take a piece out."""
    i = _place(data, rng)
    return data[:i] + data[i + rng.choice([1, 4, 50, 1000]) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Put a piece in once more."""
    i, length = _place(data, rng), rng.choice([1, 20, 400])
    return data[:i] + data[i : i + length] * rng.choice([2, 2, 50]) + data[i + length :]


def lines(data: bytes, rng: random.Random) -> bytes:
    """Exchange, drop or double lines."""
    parts = data.splitlines(keepends=True)
    if len(parts) < 2:
        return data
    i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
    what = rng.randrange(3)
    if what == 0:
        parts[i], parts[j] = parts[j], parts[i]
    elif what == 1:
        del parts[i]
    else:
        parts.insert(j, parts[i])
    return b"".join(parts)


def number(data: bytes, rng: random.Random) -> bytes:
    """Replace numbers."""
    found = list(_NUMBER.finditer(data[:100_000]))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS) + data[match.end() :]


def text(data: bytes, rng: random.Random) -> bytes:
    """Put in what has a meaning."""
    i = _place(data, rng)
    return data[:i] + rng.choice(TEXTS) * rng.choice([1, 1, 100]) + data[i:]


def join(data: bytes, rng: random.Random) -> bytes:
    """Put the file behind itself, or behind a part of it."""
    return data[: rng.choice([len(data), rng.randrange(len(data) + 1)])] + data


def encode(data: bytes, rng: random.Random) -> bytes:
    """Another encoding of the text."""
    content = data.decode("latin-1")
    code = rng.choice(["utf-16", "utf-32", "utf-8-sig"])
    return content.encode(code)


OF_TEXT: list[Mutation] = [
    flip, cut, remove, repeat, lines, lines, number, number, text, text, join, encode,
]  # fmt: skip
OF_BYTES: list[Mutation] = [flip, flip, cut, remove, repeat, text, join]


def several(data: bytes, rng: random.Random, kinds: list[Mutation]) -> bytes:
    """One to three mutations."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        data = rng.choice(kinds)(data, rng)
    return data


def inside(data: bytes, rng: random.Random) -> bytes:
    """Damage of a compressed text, before or after compression."""
    if rng.random() < 0.3:
        return several(data, rng, OF_BYTES)
    return gzip.compress(several(gzip.decompress(data), rng, OF_TEXT), 1, mtime=0)


def document(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop or double values of a JSON document."""
    if rng.random() < 0.2:
        return several(data, rng, OF_TEXT)
    content = json.loads(data)
    for _ in range(rng.choice([1, 1, 2])):
        holders: list[tuple[Any, Any]] = []
        _walk(content, holders)
        if not holders:
            break
        holder, key = rng.choice(holders)
        what = rng.random()
        if what < 0.7:
            holder[key] = rng.choice(VALUES)
        elif what < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[f"{key}_"] = holder[key]
    if rng.random() < 0.02:
        return (b"[" * 100_000) + b"]" * 100_000
    return json.dumps(content).encode()


def _walk(value: Any, holders: list[tuple[Any, Any]]) -> None:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))[:6]
    for key, inner in items:
        holders.append((value, key))
        if isinstance(inner, dict | list):
            _walk(inner, holders)


def tensors(data: bytes, rng: random.Random) -> bytes:
    """Damage of a safetensors file: its header as a document, or its bytes."""
    if rng.random() < 0.5 or len(data) < 8:
        return several(data, rng, OF_BYTES)
    length = struct.unpack("<Q", data[:8])[0]
    header = document(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
