"""What is wrong with a setting, in plain words: the values that it may have, and similar names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

_LARGE = 2**30
"""Upper bounds from here on only keep numbers finite, and are not shown."""

_LONGEST, _MOST_NAMES = 60, 12


def values_in_words(schema: Mapping[str, Any], *, beyond: bool = False) -> str:
    """Values that a setting may have.

    Parameters
    ----------
    schema : mapping
        JSON schema of the setting.
    beyond : bool
        State an upper bound that only keeps numbers finite, too.
    """
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return ", ".join(values_in_words(part, beyond=beyond) for part in schema["anyOf"])
    names = {"boolean": "true, false", "string": "text", "object": "table", "array": "list"}
    kind = schema.get("type", "text")
    text = names.get(kind, kind)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None:
        text += f", {'above' if 'exclusiveMinimum' in schema else 'at least'} {_number(low)}"
    if high is not None and (high < _LARGE or beyond):
        text += f", {'below' if 'exclusiveMaximum' in schema else 'at most'} {_number(high)}"
    return text


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def first_problem(error: ValidationError, kind: type[BaseModel], *within: str) -> str:
    """The first setting that is wrong, the values that it may have, and the one that it has.

    Parameters
    ----------
    error : ValidationError
    kind : type
        Settings that were validated, of the section `within`.
    """
    first = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in (*within, *first["loc"]))
    if first["type"] in ("value_error", "assertion_error"):  # our words
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"{key}: {message}" if key else message
    name, schema = _setting(kind, first["loc"], within)
    if not schema:
        return f"{key}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    if set(schema) & {"$ref", "properties", "allOf"}:  # a section
        expected = section_in_words(name, next(iter(_fields(kind, name)), "…"))
    else:
        expected = _expected(schema, first["type"], first["input"])
    return f"{name}: expected {expected}, found {_shown(first['input'])}"


def section_in_words(name: str, setting: str) -> str:
    """What a section is, with one of its settings."""
    return f"a section with settings, such as {name}.{setting}"


def _expected(schema: Mapping[str, Any], problem: str, found: Any) -> str:
    values = values_in_words(schema, beyond=problem.startswith("less_than"))
    if "enum" in schema:
        return f"one of {values}"
    kind = schema.get("type")
    if kind == "array":
        example = found if isinstance(found, str) else "…"
        return f"a list of texts, such as {_shown([example])}"
    if kind == "boolean":
        return values.replace(",", " or")
    finite = isinstance(found, float) and not math.isfinite(found)
    article = {"integer": "an ", "number": "a finite " if finite else "a "}.get(str(kind), "")
    return article + values


def _setting(
    kind: type[BaseModel], place: Sequence[int | str], within: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """Name and schema of the setting at a place; of a list, if one of its entries is wrong."""
    path = list(within)
    schema: dict[str, Any] = {}
    for part in place:
        field = kind.model_fields.get(str(part))
        if field is None:
            break
        path.append(str(part))
        schema = kind.model_json_schema()["properties"][str(part)]
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return ".".join(path), schema


def _fields(kind: type[BaseModel], name: str) -> Iterable[str]:
    field = kind.model_fields.get(name)
    inner = None if field is None else field.annotation
    is_section = isinstance(inner, type) and issubclass(inner, BaseModel)
    return inner.model_fields if is_section else ()  # type: ignore[union-attr]


def _shown(value: Any) -> str:
    """A value as in a file of settings."""
    if isinstance(value, Mapping):
        return "a section"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a value of another kind ({type(value).__name__})"
    text = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}.get(text, text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def no_such_setting(name: str, known: Sequence[str], elsewhere: Iterable[str] = ()) -> str:
    """Message about a name that no setting has, with the nearest ones.

    Parameters
    ----------
    name : str
        With its section, if it was given one.
    known : sequence of str
        Names that would have been possible there.
    elsewhere : iterable of str
        All other names, which may have been meant.
    """
    name = "".join(c if c.isprintable() else "?" for c in name[:_LONGEST])
    near = _nearest(name, [*known, *elsewhere])
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        more = f" and {len(known) - _MOST_NAMES} others" if len(known) > _MOST_NAMES else ""
        hint = f"there are {', '.join(known[:_MOST_NAMES]) or 'none'}{more}"
    return f"{name}: no such setting; {hint}"


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Names of the same word in another section first, then those that are spelt alike."""
    word = name.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == word]
    if same:
        return list(dict.fromkeys(same))[:3]
    alike = get_close_matches(name, known, n=1, cutoff=0.75)
    if alike:
        return alike
    words = {other.rpartition(".")[2]: other for other in reversed(known)}
    return [words[w] for w in get_close_matches(word, words, n=1, cutoff=0.75)]
