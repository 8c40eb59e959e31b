"""Content of the JSON document of a process, see `hepgen_ml.process.process.Process.to_config`."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Strict, model_validator

from hepgen_ml.files.documents import (
    Amount,
    Count,
    Document,
    Integer,
    Number,
    Positive,
    Truth,
)
from hepgen_ml.phase_space.cuts import right_classes
from hepgen_ml.process.chart_document import (
    MAX_PARTICLES,
    ChartDocument,
    Index,
    Label,
    Labels,
    LawDocument,
    Particles,
    conditions_of,
)
from hepgen_ml.process.condition_document import ConditionsDocument

MAX_BRANCHES = 100_000
"""Combinations of the options for scale and couplings of a channel."""

Mother = Annotated[int, Strict(), Field(ge=0, le=MAX_PARTICLES)]
Formula = Annotated[str, Strict(), Field(min_length=1, max_length=5000)]


class ConstantOption(Document):
    """A constant value."""

    kind: Literal["constant"]
    value: Number
    exception: Truth = False


class FormulaOption(Document):
    """A multiple of a formula of the momenta."""

    kind: Literal["formula"]
    formula: Formula
    factor: Positive
    exception: Truth = False


class TableOption(Document):
    """A function of the scale."""

    kind: Literal["table"]
    knots: Annotated[list[Number], Field(min_length=2, max_length=100_000)]
    inverse: list[Positive]
    of: tuple[Formula, Positive] | None = None

    @model_validator(mode="after")
    def _check(self) -> TableOption:
        if len(self.inverse) != len(self.knots) or any(a >= b for a, b in pairwise(self.knots)):
            raise ValueError("a table needs rising knots, each with a value")
        return self


class RuleDocument(Document):
    """Rule for the scale or a coupling, see `hepgen_ml.process.auxiliary.Auxiliaries`."""

    options: Annotated[
        list[Annotated[ConstantOption | FormulaOption | TableOption, Field(discriminator="kind")]],
        Field(max_length=1000),
    ]
    reference: tuple[Formula, Positive]
    free: Truth


class AuxiliariesDocument(Document):
    """Rules of a channel."""

    scale: RuleDocument
    alpha_qcd: RuleDocument
    alpha_qed: RuleDocument

    @model_validator(mode="after")
    def _check(self) -> AuxiliariesDocument:
        rules = (self.scale, self.alpha_qcd, self.alpha_qed)
        n = math.prod(len(rule.options) + rule.free for rule in rules)
        if not 1 <= n <= MAX_BRANCHES:
            raise ValueError(f"{n} combinations of options")
        return self


class ChannelDocument(Document):
    """Stored form of `hepgen_ml.process.process.Channel`.

    Rules for scale and couplings that several channels share are stored once; the others refer to
    that channel by its number.
    """

    chart: ChartDocument
    auxiliaries: AuxiliariesDocument | Count
    classes: Labels


class EvidenceDocument(Document):
    """Stored form of `hepgen_ml.phase_space.cuts.Evidence`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    entries: Count
    near: Count
    width: Amount
    position: Amount
    classes: Annotated[list[Label], Field(min_length=1, max_length=1000)]


class CutDocument(Document):
    """Stored form of `hepgen_ml.phase_space.Cut`."""

    observable: Literal[
        "pt", "abs_eta", "plus", "minus", "energy", "delta_r", "mass", "pt_pair", "pt_hat",
        "ht", "pt1", "pt2", "pt3", "pt4", "pt5", "pt6", "pt7", "pt8", "pt9",
    ]  # fmt: skip
    classes: Annotated[list[Label], Field(min_length=1, max_length=2)]
    low: Number | None
    high: Number | None
    evidence: tuple[EvidenceDocument | None, EvidenceDocument | None] | None = None

    @model_validator(mode="after")
    def _check(self) -> CutDocument:
        if not right_classes(self.observable, self.classes):
            raise ValueError("a cut on particles has one class, a cut on pairs two")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("a cut that no event passes")
        return self


class StructureDocument(Document):
    """Stored form of `hepgen_ml.process.structure.Structure`."""

    process_id: Integer
    pdg_id: Annotated[list[Integer], Field(min_length=1, max_length=MAX_PARTICLES)]
    status: Annotated[list[Integer], Particles]
    mother1: Annotated[list[Mother], Particles]
    mother2: Annotated[list[Mother], Particles]

    @model_validator(mode="after")
    def _check(self) -> StructureDocument:
        n = len(self.pdg_id)
        if not len(self.status) == len(self.mother1) == len(self.mother2) == n:
            raise ValueError("columns of different lengths")
        if max([*self.mother1, *self.mother2]) > n:
            raise ValueError("a mother that does not exist")
        if self.status.count(-1) not in (0, 2):
            raise ValueError("incoming particles have to be two, or none")
        return self


class SubprocessDocument(Document):
    """Stored form of `hepgen_ml.process.process.Subprocess`."""

    structure: StructureDocument
    frequency: Amount
    chart: Count
    order: Annotated[list[Index], Field(min_length=1, max_length=MAX_PARTICLES)]
    incoming_masses: Annotated[list[Amount], Field(min_length=2, max_length=2)]
    patterns: Annotated[list[list[Integer]], Field(min_length=1, max_length=1_000_000)]
    pattern_frequency: list[Amount]
    full_energy: tuple[Positive | None, Positive | None] = (None, None)

    @model_validator(mode="after")
    def _check(self) -> SubprocessDocument:
        n = len(self.structure.pdg_id)
        final = [i for i, status in enumerate(self.structure.status) if status == 1]
        if sorted(self.order) != final:
            raise ValueError("order: not the final particles, each once")
        if any(len(row) != 3 * n for row in self.patterns):
            raise ValueError("patterns: not three numbers of every particle")
        if len(self.pattern_frequency) != len(self.patterns) or not sum(self.pattern_frequency) > 0:
            raise ValueError("pattern_frequency: not one of every pattern, with a positive sum")
        return self


class LifetimeDocument(Document):
    """Stored form of `hepgen_ml.process.lifetimes.Lifetime`."""

    pdg_id: Annotated[int, Strict(), Field(ge=1)]
    status: Integer
    prompt: Annotated[Amount, Field(le=1)]
    mean: Positive
    quantiles: Annotated[list[Amount], Field(max_length=10_000)] = Field(default_factory=list)
    law: LawDocument | None = None
    process: Integer | None = None

    @model_validator(mode="after")
    def _check(self) -> LifetimeDocument:
        if len(self.quantiles) == 1 or any(a > b for a, b in pairwise(self.quantiles)):
            raise ValueError("quantiles: two or more that rise")
        return self


class PatternTableDocument(Document):
    """Stored form of `hepgen_ml.process.lifetime_patterns.PatternTable`."""

    patterns: Annotated[
        list[Annotated[list[Annotated[int, Strict(), Field(ge=0, le=2)]], Particles]],
        Field(min_length=1, max_length=1000),
    ]
    frequency: list[Positive]
    subprocesses: Annotated[list[Count], Field(max_length=100_000)]

    @model_validator(mode="after")
    def _check(self) -> PatternTableDocument:
        if len(self.frequency) != len(self.patterns) or not sum(self.frequency) < math.inf:
            raise ValueError("frequency: not one of every pattern")
        return self


class MovingCutDocument(Document):
    """Stored form of `hepgen_ml.process.moving_cuts.MovingCut`."""

    observable: Literal[
        "pt", "abs_eta", "plus", "minus", "energy", "delta_r", "mass", "pt_pair", "pt_hat"
    ]
    classes: Annotated[list[Label], Field(min_length=1, max_length=2)]
    condition: Index
    nodes: Annotated[list[tuple[Number, Number]], Field(min_length=2, max_length=1000)]
    linear: Truth

    @model_validator(mode="after")
    def _check(self) -> MovingCutDocument:
        if any(a[0] >= b[0] for a, b in pairwise(self.nodes)):
            raise ValueError("nodes: values of a condition that do not rise")
        return self


class ProcessDocument(Document):
    """Stored form of `hepgen_ml.process.process.Process`."""

    beam_energy: Annotated[list[Amount], Field(min_length=2, max_length=2)]
    acceptance: Annotated[list[CutDocument], Field(max_length=10_000)]
    channels: Annotated[list[ChannelDocument], Field(min_length=1, max_length=100_000)]
    subprocesses: Annotated[list[SubprocessDocument], Field(min_length=1, max_length=100_000)]
    lifetimes: Annotated[list[LifetimeDocument], Field(max_length=1000)] = Field(
        default_factory=list
    )
    lifetime_patterns: Annotated[list[PatternTableDocument], Field(max_length=1000)] = Field(
        default_factory=list
    )
    conditions: ConditionsDocument | None = None
    moving_cuts: Annotated[list[MovingCutDocument], Field(max_length=10_000)] = Field(
        default_factory=list
    )

    @model_validator(mode="after")
    def _check(self) -> ProcessDocument:
        n = 0 if self.conditions is None else len(self.conditions.each)
        if any(law != n for c in self.channels for law in conditions_of(c.chart)):
            raise ValueError("a mass follows another number of conditions")
        if any(v.law is not None and len(v.law.kinds) != n for v in self.lifetimes):
            raise ValueError("a lifetime follows another number of conditions")
        if any(cut.condition >= n for cut in self.moving_cuts):
            raise ValueError("a cut moves with a condition that does not exist")
        for number, s in enumerate(self.subprocesses):
            where = f"subprocesses.{number}"
            if s.chart >= len(self.channels):
                raise ValueError(f"{where}: chart: a channel that does not exist")
            if len(s.order) != len(self.channels[s.chart].classes):
                raise ValueError(f"{where}: order: not the particles of its channel")
        if len({tuple(s.structure.status).count(-1) for s in self.subprocesses}) > 1:
            raise ValueError("subprocesses: some with incoming particles, some without")
        if not 0 < sum(s.frequency for s in self.subprocesses) < math.inf:
            raise ValueError("subprocesses: frequencies without a positive sum")
        return self
