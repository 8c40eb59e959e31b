"""Markup of LHE headers in linear time: comments, elements and attributes.

LHE files are only partly XML, so that XML parsers refuse them; and regular expressions that search
the end of an element from each start take minutes for some kilobytes. The functions here read a
text once.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_SECTIONS = ((b"<!--", b"-->"), (b"<![CDATA[", b"]]>"))
_OPENING = re.compile(rb"<!--|<!\[CDATA\[")
_ATTRIBUTE = re.compile(r"(?<![\w:.-])([\w:.-]++)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')")
_BLANKS = bytes(10 if byte == 10 else 32 for byte in range(256))

MOST_COMMENTS = 100_000

MAX_TAG = 1 << 16
"""Longest tag; anything longer is text."""


class Masker:
    """Finds comments and CDATA sections in a text that arrives in pieces.

    Attributes
    ----------
    masked : bytearray
        The text so far, with blanks in the place of comments and sections (line ends stay), up
        to the beginning of one that has not ended yet.
    comments : list of (int, int)
        Beginnings and ends of the comments.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self.masked = bytearray()
        self.comments: list[tuple[int, int]] = []
        self._searched = self._n_found = 0

    def feed(self, piece: bytes, *, final: bool = False) -> None:
        """Append a piece; at the end, unterminated comments are text.

        Raises
        ------
        ValueError
            More than `MOST_COMMENTS` comments.
        """
        self._text += piece
        text, masked = self._text, self.masked
        while True:
            match = _OPENING.search(text, len(masked))
            if match is None:
                # a possible start of a comment is kept back
                stop = len(text) if final else max(len(masked), len(text) - 9)
                masked += text[len(masked) : stop]
                return
            start, opening = match.start(), match[0]
            ending = dict(_SECTIONS)[opening]
            begin = max(start + len(opening), self._searched)
            end = text.find(ending, begin)
            if end < 0:
                if final:
                    masked += text[len(masked) :]
                    return
                self._searched = max(begin, len(text) - len(ending))
                masked += text[len(masked) : start]
                return
            end += len(ending)
            masked += text[len(masked) : start]
            masked += text[start:end].translate(_BLANKS)
            self._n_found += 1
            if self._n_found > MOST_COMMENTS:
                raise ValueError(f"has more than {MOST_COMMENTS} comments")
            if opening == b"<!--":
                self.comments.append((start, end))


def masked(text: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """A whole text with blanks in the place of comments and CDATA, and where comments are."""
    masker = Masker()
    masker.feed(text, final=True)
    return bytes(masker.masked), masker.comments


def unescape(text: str) -> str:
    """Text with entities resolved; invalid ones are unchanged."""
    try:
        return html.unescape(text)
    except (ValueError, OverflowError):  # a number of thousands of digits
        return text


def attributes(text: str) -> dict[str, str]:
    """Attributes of a tag, entities resolved."""
    return {
        name: unescape(double or single) for name, double, single in _ATTRIBUTE.findall(text)
    }


_ENDS_NAME = (b" ", b"\t", b"\r", b"\n", b">", b"/")


def elements(text: bytes, name: bytes, place: int = 0) -> Iterator[tuple[int, int, int, int]]:
    """Elements of a name; an element ends where another of the same name starts.

    Parameters
    ----------
    text : bytes
        Without comments.
    name : bytes
    place : int
        Where to begin.

    Yields
    ------
    start, inside, end, behind : int
        Start of the tag, start and end of its content, and the place behind the closing tag. The
        content of an element that is never closed ends with the next tag.
    """
    opening, closing = b"<" + name, b"</" + name
    next_closing = 0
    while (start := text.find(opening, place)) >= 0:
        place = start + len(opening)
        if text[place : place + 1] not in _ENDS_NAME:
            continue
        inside = end_of_tag(text, place)
        if inside < 0:
            place += MAX_TAG  # searched already
            continue
        place = inside
        if text[inside - 2 : inside - 1] == b"/":
            yield start, inside, inside, inside
            continue
        if 0 <= next_closing < inside:
            next_closing = text.find(closing, inside)
        end = next_closing
        following = text.find(b"<", inside)
        if end < 0 or (following != end and _holds(text, opening, inside, end)):
            end = following if following >= 0 else len(text)
            yield start, inside, end, end
            place = end
            continue
        behind = text.find(b">", end)
        place = len(text) if behind < 0 else behind + 1
        yield start, inside, end, place


def _holds(text: bytes, opening: bytes, start: int, stop: int) -> bool:
    """Whether a tag starts before `stop`, within the largest length of a tag."""
    found = text.find(opening, start, min(stop, start + MAX_TAG))
    behind = found + len(opening)
    return found >= 0 and text[behind : behind + 1] in _ENDS_NAME


def end_of_tag(text: bytes, place: int) -> int:
    """Place behind the ``>`` of a tag, quotes respected; -1 if it is longer than `MAX_TAG`."""
    stop = min(len(text), place + MAX_TAG)
    while True:
        end = text.find(b">", place, stop)
        if end < 0:
            return -1
        quotes = [(text.find(q, place, end), q) for q in (b'"', b"'")]
        opened = min((p for p in quotes if p[0] >= 0), default=None)
        if opened is None:
            return end + 1
        closed = text.find(opened[1], opened[0] + 1, stop)
        if closed < 0:
            return end + 1  # an apostrophe, not a quote
        place = closed + 1
