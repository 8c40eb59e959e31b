"""Networks of events by name."""

from __future__ import annotations

from typing import Any

from hepgen_ml.errors import UsageError
from hepgen_ml.networks.event_networks.base import EventNetwork, EventShape
from hepgen_ml.networks.event_networks.geometric import GAP, GATrNetwork, LGATrNetwork
from hepgen_ml.networks.event_networks.plain import MLP, DeepSets, TransformerNetwork
from hepgen_ml.networks.names import EVENT_NETWORKS

_CLASSES: tuple[type[EventNetwork], ...] = (
    MLP, DeepSets, TransformerNetwork, GAP, GATrNetwork, LGATrNetwork,
)  # fmt: skip
_BY_NAME = dict(zip(EVENT_NETWORKS, _CLASSES, strict=True))
_MOST = {"blocks": 64, "layers": 64, "heads": 64, "mlp_ratio": 8}


def sizes(name: str) -> dict[str, Any]:
    """Names and defaults of the sizes of a network.

    Raises
    ------
    UsageError
        There is no such network.
    """
    if name not in _BY_NAME:
        raise UsageError(
            f"the network {name[:100]!r} is not known", remedy=f"take {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name].sizes()


def build(
    name: str,
    n_scalars: int,
    n_out: int,
    *,
    n_particles: int = 0,
    n_globals: int = 0,
    **chosen: Any,
) -> EventNetwork:
    """Network of events by name.

    Parameters
    ----------
    name : {"mlp", "deep-sets", "transformer", "gap", "gatr", "lgatr"}
    n_scalars : int
        Scalars s of each particle, such as its type as one-hot numbers.
    n_out : int
        Numbers that it gives for each event.
    n_particles : int
        Largest number k of particles; only ``mlp``, ``gap`` and ``deep-sets`` with
        ``invariants=True`` need it.
    n_globals : int
        Numbers g that describe a whole event.
    **chosen
        Sizes of the network, see its class; other sizes have their defaults.

    Raises
    ------
    UsageError
        No such network, no such size, or one that is impossible.

    Examples
    --------
    >>> network = build("deep-sets", n_scalars=3, n_out=1, width=32)
    >>> network(torch.randn(5, 4, 4), torch.randn(5, 4, 3)).shape  # doctest: +SKIP
    torch.Size([5, 1])
    """
    known = sizes(name)
    for key, value in chosen.items():
        if key not in known:
            raise UsageError(
                f"the network {name} has no size {key[:100]!r}",
                remedy=f"it has {', '.join(known)}",
            )
        most = _MOST.get(key, 4096)
        if type(value) is not type(known[key]) or (type(value) is int and not 1 <= value <= most):
            limits = f", at most {most}" if type(known[key]) is int else ""
            raise UsageError(
                f"{key} = {value!r} is not possible for the network {name}",
                remedy=f"its default is {known[key]!r}{limits}",
            )
    shape = EventShape(n_scalars, n_out, n_particles, n_globals)
    try:
        network = _BY_NAME[name](shape, **known | chosen)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"network {name}: {error}", remedy="choose other sizes") from None
    network.settings = {"name": name, **shape._asdict(), **known, **chosen}
    return network
