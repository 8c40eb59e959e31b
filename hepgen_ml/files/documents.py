"""JSON documents in models, encoded samples and checkpoints, validated as a whole.

Documents are untrusted. Their content is described once, as pydantic models with the type and range
of every value; a document is used only after it has been validated completely.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from hepgen_ml.errors import HepgenError, ModelError
from hepgen_ml.files.garbage import uncollected

MAX_BYTES = 64 << 20
"""Largest size of a document; a process of hundreds of subprocesses takes less than 1 MiB."""


def _unicode(text: str) -> str:
    """Half a surrogate pair, which JSON can hold, cannot be written to any file."""
    text.encode()
    return text


Integer = Annotated[int, Strict(), Field(ge=-(2**31), lt=2**31)]
Count = Annotated[int, Strict(), Field(ge=0, lt=2**53)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Amount = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1 + 1e-6)]
Truth = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(max_length=10_000), AfterValidator(_unicode)]
LongText = Annotated[str, Strict(), AfterValidator(_unicode)]
Digest = Annotated[str, Strict(), Field(pattern="^[0-9a-f]{64}$")]


UNUSABLE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip
"""Exceptions from values that are valid one by one but do not fit together."""

_MAYBE_INFINITE = re.compile(rb"NaN|Infinity|[eE][+]?[0-9]{3,}\s*[],}]|[0-9]{309}")
"""What a document with a number that is not finite contains: a name, or too large a number."""


class Document(BaseModel):
    """Base of the descriptions of documents; entries that are not described are ignored."""

    model_config = ConfigDict(frozen=True)


@uncollected()
def parse(text: str | bytes, *, infinite: bool = False) -> dict[str, Any]:
    """Contents of a JSON document.

    Parameters
    ----------
    text : str or bytes
    infinite : bool
        Allow infinities and nan.

    Raises
    ------
    ValueError
        Not a JSON object, too large, too deeply nested, or with a number that is not finite.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MB")

    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if not infinite and _MAYBE_INFINITE.search(text if isinstance(text, bytes) else text.encode()):
        _require_finite(found)
    return found


def text_of(document: dict[str, Any]) -> str:
    """A document as JSON that `parse` reads.

    Raises
    ------
    ValueError
        It has a number that is not finite, or is too large.
    """
    return within_limits(json.dumps(document, allow_nan=False, separators=(",", ":")))


def within_limits(text: str) -> str:
    """A document that `parse` does not find too large; ValueError if it does."""
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"larger than {MAX_BYTES >> 20} MB; does the sample have a great many subprocesses?"
        )
    return text


def _require_finite(document: dict[str, Any]) -> None:
    todo: list[tuple[Any, Any]] = [((), document)]
    while todo:
        key, value = todo.pop()
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in entries:
            if isinstance(one, float):
                if not math.isfinite(one):
                    raise ValueError(f"{_joined((key, name))}: {one} is not a finite number")
            elif one and isinstance(one, dict | list):
                todo.append(((key, name), one))


def _joined(key: Any) -> str:
    """Path of names of an entry, from pairs of parent and name."""
    names: list[str] = []
    while key:
        key, name = key
        names.insert(0, str(name)[:100])
    return ".".join(names)


def read(path: Path) -> dict[str, Any]:
    """Contents of a file with a JSON document.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        As `parse`.
    """
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1))


def problem(error: Exception) -> str:
    """Defect of a document in one line that names the entry."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    text = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, KeyError):
        return f"{text} is missing"
    if isinstance(error, OSError):
        return error.strerror or text
    return text


@contextmanager
def reading(path: Path, remedy: str = "train again, or fetch it anew") -> Iterator[None]:
    """Report whatever is wrong with the content of a file as damage of the file.

    Raises
    ------
    ModelError
    """
    try:
        yield
    except (HepgenError, OSError, *UNUSABLE) as error:
        raise ModelError(f"is damaged: {problem(error)}", path=path, remedy=remedy) from None


Pair = Annotated[list[Integer], Field(min_length=2, max_length=2)]
NumberOrUnknown = Number | None


class SubrunDocument(Document):
    """A process of `RunDocument`."""

    process_id: Integer
    cross_section: NumberOrUnknown
    error: NumberOrUnknown
    max_weight: Number


class RunDocument(Document):
    """Stored form of `hepgen_ml.events.sample.RunInfo`."""

    beam_pdg_id: Pair
    beam_energy: Annotated[list[Amount], Field(min_length=2, max_length=2)]
    pdf_group: Pair
    pdf_set: Pair
    weight_strategy: Annotated[int, Strict(), Field(ge=-4, le=4)]
    processes: Annotated[list[SubrunDocument], Field(max_length=100_000)]
    generators: Annotated[
        list[Annotated[list[LongText], Field(min_length=3, max_length=3)]],
        Field(max_length=10_000),
    ]
    header: LongText


Fact = Text | Truth | Count | Number | list[Text] | list[Number] | None


class WeightFacts(Document):
    """Rule by which the weights of a biased sample follow from its events."""

    rule: Literal["formula", "regression"]
    precision: Amount


class TrainingFacts(Document):
    """Facts about a training, for readers; the program uses the entries described here."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Fact]

    sample_sha256: Text = ""
    sample_files: list[Text] = []
    acceptance: list[Annotated[float, Strict(), Field(gt=0, le=1)]] | None = None
    events: Count | None = None
    effective_events: Count | None = None
    negative_weights: Fraction | None = None
    event_weights: WeightFacts | None = None
    not_learned: list[Text] = []
    unseen_structures: Fraction = 0.0
    beam_exchange: Text = ""
    reflection: Text = ""
    auxiliary_fractions: dict[
        Literal["scale", "alpha_qcd", "alpha_qed"],
        dict[Literal["constant", "formula", "table", "exception", "drawn"], Fraction],
    ] = {}


class ModelDocument(Document):
    """``config.json`` of a model, except for the parts described elsewhere."""

    format: Literal["hepgen-ml model"]
    version: Count
    weights_sha256: Digest
    precision: Literal["float32", "float16"] = "float32"
    least_log_variance: Number | None = None
    config: dict[str, Any]
    run: RunDocument
    process: dict[str, Any]
    training: TrainingFacts = TrainingFacts()
