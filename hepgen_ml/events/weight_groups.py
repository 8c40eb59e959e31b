"""Declarations of named weights in run information, as LHE files write them."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from xml.sax.saxutils import escape, quoteattr

from hepgen_ml.events.run import RunInfo

_WEIGHT = re.compile(
    r"[ \t]*<weight\b[^<>]*?\bid\s*=\s*(['\"])([^<>]*?)\1[^<>]*(?:/>|>[^<]*</weight>)[ \t]*\n?"
)
_EMPTY = re.compile(r"[ \t]*<weightgroup\b[^<>]*>\s*</weightgroup>[ \t]*\n?")


def declared(
    run: RunInfo, texts: Mapping[str, str], group: str = "hepgen-ml", combine: str = "none"
) -> RunInfo:
    """Run information that declares these weights too, in a group of their own.

    Parameters
    ----------
    run : RunInfo
    texts : mapping
        What each weight is, by its name. Those that a group of the run names stay there.
    group : str
        Name of the others' group.
    combine : str
        How their spread becomes an uncertainty.
    """
    there = _declared(run.weight_groups)
    lines = [
        f"<weight id={quoteattr(name)}>{escape(text)}</weight>"
        for name, text in texts.items() if name not in there
    ]  # fmt: skip
    groups = run.weight_groups
    if lines:
        own = [f'<weightgroup name="{group}" combine="{combine}">', *lines, "</weightgroup>"]
        groups = "\n".join([groups, *own] if groups else own)
    return run.with_(weight_names={**run.weight_names, **texts}, weight_groups=groups)


def kept(groups: str, names: Collection[str]) -> str:
    """Declarations of these weights only, without groups that have none of them."""
    some = _WEIGHT.sub(lambda m: m[0] if plain(m[2]) in names else "", groups)
    return groups if some == groups else _EMPTY.sub("", some).strip("\n")


def _declared(groups: str) -> set[str]:
    return {plain(match[2]) for match in _WEIGHT.finditer(groups)}


def plain(text: str) -> str:
    """Value of an attribute with its entities resolved, as readers of LHE files do."""
    try:
        return html.unescape(text)
    except (ValueError, OverflowError):  # a number of thousands of digits
        return text
