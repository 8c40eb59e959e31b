"""Settings by section: those of networks and trainings, and the base of those of models."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


def refuse_flag(value: Any, kind: Any) -> Any:
    """Refuse true and false where a number is meant, which pydantic takes as 1 and 0."""
    if isinstance(value, bool) and kind in (int, float):
        raise PydanticCustomError("number_type", "is not a number")
    return value


class Section(BaseModel):
    """Base of the settings of one section.

    Attributes
    ----------
    changeable : set of str
        Settings that may change when a training is resumed, because it does not depend on them.
    earlier : dict
        What models did that were stored before a setting existed, where its default is another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    changeable: ClassVar[frozenset[str]] = frozenset()
    earlier: ClassVar[dict[str, Any]] = {}

    @classmethod
    def of_earlier(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Settings of a stored model, which may be older than some of them or than their limits."""
        return cls.earlier | values

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_flag(value, cls.model_fields[str(info.field_name)].annotation)


class BayesianSection(Section):
    """Base of the settings of models whose weights may have a posterior."""

    bayesian: Literal["off", "last", "all"] = Field(
        "off",
        description="Which weights have a posterior: none, those of the output (last), or those "
        "of all linear maps (all).",
    )
    prior_std: float = Field(
        1.0, gt=0, description="Standard deviation of the Gaussian prior of these weights."
    )


class NetworkConfig(Section):
    """Size of the networks; spline flows and equivariant networks have sections of their own."""

    width: int = Field(128, ge=8, le=4096, description="Size of the hidden state.")
    blocks: int = Field(
        4, ge=1, le=64, description="Transformer blocks, or residual blocks of an MLP."
    )
    heads: int = Field(4, ge=1, le=64, description="Attention heads of each transformer block.")
    mlp_ratio: int = Field(
        2, ge=1, le=8, description="Width of the feed-forward layers, in units of network.width."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout of the output of each transformer layer in training; 0.1 delays "
        "overfitting of small samples.",
    )
    mixtures: int = Field(
        32, ge=1, le=512, description="Components of each coordinate's mixture density."
    )
    ensemble: int = Field(
        1, ge=1, le=100, description="Number of networks that are trained side by side."
    )


class TrainingConfig(Section):
    """Optimisation."""

    batch_size: int = Field(1024, ge=1, le=2**30, description="Events per step.")
    accumulate: int = Field(
        1,
        ge=1,
        le=2**20,
        description="Number of micro-batches of each batch, for batches that do not fit into "
        "memory. Processes that train together share them.",
    )
    learning_rate: float = Field(3e-3, gt=0, description="Highest learning rate.")
    weight_decay: float = Field(0.1, ge=0, description="Weight decay of AdamW, on matrices only.")
    warmup: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Fraction of the training in which the learning rate rises to its highest "
        "value.",
    )
    max_events: int = Field(
        0,
        ge=0,
        le=2**53,
        description="Largest number of training events of each channel (number of jets); rates "
        "are kept. 0: all events.",
    )
    channel_power: float = Field(
        1.0,
        ge=0,
        le=1,
        description="The share of a channel (number of jets) in a batch is proportional to this "
        "power of its number of events; 0: equal shares. Rates are kept.",
    )
    channel_boost: float = Field(
        0.0,
        ge=0,
        description="Largest drawing rate of events of a channel, relative to those of the "
        "largest channel; 0: no limit.",
    )
    max_steps: int = Field(
        40_000,
        ge=1,
        le=2**53,
        description="Largest number of training steps, also of the learning of named weights.",
    )
    max_epochs: float = Field(
        200.0,
        gt=0,
        description="Largest number of passes over the training events; mirror images count as "
        "events.",
    )
    max_time: float = Field(
        1200.0, gt=0, description="Largest training time in seconds; --max-time replaces it."
    )
    ema: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Decay per step of the averaged weights, which generate the events.",
    )
    clip: float = Field(
        5.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it."
    )
    validation_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fraction of the events that are held out for the validation loss and never "
        "trained on.",
    )
    validation_interval: int = Field(
        500,
        ge=1,
        le=2**53,
        description="Steps between two validations; fewer in small samples, with at least one "
        "validation in two passes over the events.",
    )
    patience: int = Field(
        3,
        ge=0,
        le=2**53,
        description="Validations without improvement after which training returns to the best "
        "weights and lets the learning rate fall to zero within a quarter of the training so far; "
        "0: never. Not used in Bayesian and bootstrap trainings.",
    )
    checkpoint_interval: float = Field(60.0, gt=0, description="Seconds between two checkpoints.")
    classifier_rounds: int = Field(
        0,
        ge=0,
        le=100,
        description="How often, after 40 % of the training, a classifier between true and "
        "generated events is trained and its weights enter the loss.",
    )
    classifier_power: float = Field(
        1.0, gt=0, description="Power of the classifier's weights in the loss."
    )
    weights: Literal["auto", "equal", "sample"] = Field(
        "auto",
        description="Weights of generated events. equal: equal weights for any sample; sample: "
        "the biased density of the events is learned, with weights that undo the bias; auto: "
        "sample if the effective sample size is less than half of the number of events.",
    )
    variations: tuple[str, ...] = Field(
        ("*",),
        description="Named weights of the sample to learn, by patterns such as MUR*; [] for "
        "none.",
    )
    variations_share: float = Field(
        0.15, gt=0, lt=1, description="Fraction of the time for the learning of these weights."
    )
    exchange_beams: bool = Field(
        True,
        description="Train on mirror images too if both beams are equal, an exact symmetry of "
        "unpolarised beams.",
    )
    reflect: bool = Field(
        False,
        description="Train on events reflected at a plane through the beams too, a symmetry of "
        "processes without parity violation.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number type in the transformer blocks during training."
    )
    compile: bool = Field(
        False,
        description="Compile the networks with torch.compile; meant for GPUs, and needs a C++ "
        "compiler.",
    )

    @field_validator("channel_boost")
    @classmethod
    def _ratio(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("is a ratio of the larger to the smaller: 0 or at least 1")
        return value
