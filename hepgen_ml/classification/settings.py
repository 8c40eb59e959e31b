"""Settings of taggers: the network, its inputs, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hepgen_ml.config import TrainingConfig, override_settings, training_settings
from hepgen_ml.config.problems import no_such_setting
from hepgen_ml.errors import UsageError

Inputs = Literal["kinematic", "momenta"]

TRAINING = TrainingConfig(
    batch_size=128, learning_rate=3e-3, weight_decay=0.05, max_steps=200_000, max_epochs=50,
    ema=0.998, clip=1.0, validation_fraction=0.1, patience=5,
)  # fmt: skip
"""Training from scratch."""

FINE_TUNING = TRAINING.model_copy(update={"max_epochs": 20.0})
"""Training of the new last layer; the others learn more slowly, see `RATE_BEFORE`."""

RATE_BEFORE = 0.3
"""Learning rate of layers that have learned before, in units of that of the last one."""

_SIZES: dict[str, dict[str, Any]] = {
    "lgatr": {"references": "plane+time"},
    "gap": {"references": "plane+time"},
}
"""References break the symmetry to rotations about the beam: arXiv:2411.00446, table 3."""


@dataclass(frozen=True)
class TaggerSettings:
    """Settings of a tagger.

    Attributes
    ----------
    network : str
        ``lgatr``, ``transformer``, ``deep-sets``, ``gatr``, ``gap`` or ``mlp``.
    sizes : dict
        Sizes of the network that differ from their defaults.
    inputs : {"kinematic", "momenta"}
        Whether constituents have the numbers of `hepgen_ml.classification.inputs.KINEMATIC`
        beside their momenta, and those of the file.
    training : TrainingConfig or None
        None for the defaults, which differ for fine-tuning.
    """

    network: str = "lgatr"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs = "kinematic"
    training: TrainingConfig | None = None

    @property
    def all_sizes(self) -> dict[str, Any]:
        """Sizes of the network, with the defaults of taggers."""
        return _SIZES.get(self.network, {}) | dict(self.sizes)


def settings(
    network: str,
    inputs: str,
    overrides: Sequence[str],
    *,
    fine_tuning: bool = False,
    seconds: float | None = None,
) -> TaggerSettings:
    """Settings of the options of a command line.

    Parameters
    ----------
    network, inputs : str
    overrides : sequence of str
        ``network.blocks=3``, ``training.batch_size=256``.
    fine_tuning : bool
    seconds : float, optional
        Longest time of the training.

    Raises
    ------
    UsageError
        No such setting, or a value out of range.
    """
    data: dict[str, Any] = {}
    override_settings(data, overrides)
    if unknown := [key for key in data if key not in ("network", "training")]:
        raise UsageError(
            no_such_setting(unknown[0], ["network", "training"]),
            remedy="write --set network.NAME=VALUE or --set training.NAME=VALUE",
        )
    if any(not isinstance(section, dict) for section in data.values()):
        raise UsageError(
            "network and training are sections of settings, not settings",
            remedy="write --set network.NAME=VALUE",
        )
    if inputs not in ("kinematic", "momenta"):
        raise UsageError(
            f"inputs {inputs[:100]!r} are not known", remedy="take kinematic or momenta"
        )
    values = data.get("training", {})
    if seconds is not None:
        values = values | {"max_time": seconds}
    defaults = FINE_TUNING if fine_tuning else TRAINING
    return TaggerSettings(
        network, data.get("network", {}), "momenta" if inputs == "momenta" else "kinematic",
        training_settings(values, defaults),
    )  # fmt: skip
