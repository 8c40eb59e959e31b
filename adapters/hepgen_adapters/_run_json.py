"""Run information as JSON, for formats without a place for it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from hepgen_ml.errors import InputError
from hepgen_ml.events.run import RunInfo, finite_or_none, processes_from_json

MAX_LENGTH = 16_000_000
_ADAPTER = TypeAdapter(RunInfo)


def dump_run(run: RunInfo) -> str:
    """One line of ASCII JSON with every attribute of `run`."""
    content = {f.name: getattr(run, f.name) for f in fields(run)}
    content["weight_names"] = dict(run.weight_names)
    content["processes"] = [p.to_json() for p in run.processes]
    content["weight_cross_sections"] = {
        name: [finite_or_none(x) for x in pair] for name, pair in run.weight_cross_sections.items()
    }
    if run.shard is None:
        del content["shard"]
    else:
        content["shard"] = asdict(run.shard)
    return json.dumps(content, allow_nan=False)


def shortened(run: RunInfo, limit: int = MAX_LENGTH) -> RunInfo:
    """Run information whose JSON is no longer than `limit`.

    The opaque texts of the source are removed first, then descriptions; the rest is short.
    """
    for names in ((), ("header",), ("weight_groups",), ("weight_names", "generators")):
        run = run.with_(**{name: type(getattr(run, name))() for name in names})
        if len(dump_run(run)) <= limit:
            break
    return run


_TEXTS = {
    "header": "header text",
    "weight_groups": "declarations of weight groups",
    "weight_names": "descriptions of weights",
    "generators": "names of generators",
}


def lost_texts(run: RunInfo, limit: int = MAX_LENGTH) -> list[str]:
    """Description of the parts that `shortened` removes."""
    kept = shortened(run, limit)
    return [text for name, text in _TEXTS.items() if getattr(run, name) != getattr(kept, name)]


def load_run(text: str, path: str | Path) -> RunInfo:
    """Inverse of `dump_run` for untrusted text.

    Raises
    ------
    InputError
        If it is longer than `MAX_LENGTH`, not JSON, or not a valid RunInfo.
    """
    remedy = "the file is damaged or was changed; write it again"
    if len(text) > MAX_LENGTH:
        raise InputError("run information is too long", path=path, remedy=remedy)
    try:
        content = from_json(text, allow_inf_nan=False)
        if isinstance(content, dict) and "processes" in content:
            content["processes"] = processes_from_json(content["processes"])
        if isinstance(content, dict) and "weight_cross_sections" in content:
            content["weight_cross_sections"] = {
                name: tuple(math.nan if x is None else float(x) for x in pair)
                for name, pair in content["weight_cross_sections"].items()
            }
        run = _ADAPTER.validate_python(content)
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"])) or "JSON"
        raise InputError(
            f"run information is not valid ({place}: {what['msg']})", path=path, remedy=remedy
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"run information is not valid ({error})", path=path, remedy=remedy
        ) from error
    numbers = [*run.beam_energy]
    for pair in run.weight_cross_sections.values():
        numbers += pair
    for process in run.processes:
        numbers += [process.cross_section, process.error, process.max_weight]
    if any(map(math.isinf, numbers)):
        raise InputError("run information holds infinity", path=path, remedy=remedy)
    return run
