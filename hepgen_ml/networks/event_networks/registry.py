"""Networks of events by name."""

from __future__ import annotations

from typing import Any

from hepgen_ml.errors import UsageError
from hepgen_ml.networks.event_networks.base import EventNetwork
from hepgen_ml.networks.event_networks.geometric import GAP, GATrNetwork, LGATrNetwork
from hepgen_ml.networks.event_networks.plain import MLP, DeepSets, TransformerNetwork
from hepgen_ml.networks.names import EVENT_NETWORKS

_CLASSES: tuple[type[EventNetwork], ...] = (
    MLP, DeepSets, TransformerNetwork, GAP, GATrNetwork, LGATrNetwork,
)  # fmt: skip
_BY_NAME = dict(zip(EVENT_NETWORKS, _CLASSES, strict=True))


def build(
    name: str,
    n_scalars: int,
    n_out: int,
    *,
    n_particles: int = 0,
    n_globals: int = 0,
    **sizes: Any,
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
    **sizes
        Of the network, see its class; what is left out has its default.

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
    if name not in _BY_NAME:
        raise UsageError(f"no network {name[:100]!r}", remedy=f"take {', '.join(_BY_NAME)}")
    kind = _BY_NAME[name]
    known = kind.sizes()
    for key, value in sizes.items():
        if key not in known:
            raise UsageError(
                f"the network {name} has no size {key[:100]!r}",
                remedy=f"it has {', '.join(known)}",
            )
        if type(value) is not type(known[key]) or (isinstance(value, int) and not 0 <= value < 1e5):
            raise UsageError(
                f"{key} = {value!r} of the network {name}", remedy=f"its default is {known[key]!r}"
            )
    try:
        network = kind(
            n_scalars, n_out, n_particles=n_particles, n_globals=n_globals, **known | sizes
        )
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"network {name}: {error}", remedy="choose other sizes") from None
    network.settings = {
        "name": name, "n_scalars": n_scalars, "n_out": n_out, "n_particles": n_particles,
        "n_globals": n_globals, **known, **sizes,
    }  # fmt: skip
    return network
