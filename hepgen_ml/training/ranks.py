"""The processes that train one model together.

Each process computes the gradient of its micro-batches; the sum is the same for all, and so are
weights, learning rates and decisions. The first one reads the sample, writes all files, and sends
results to the others. Data travels as tensors and JSON, never as pickled objects.
"""

from __future__ import annotations

import functools
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.files.version import __version__
from hepgen_ml.training.devices import find_device
from hepgen_ml.training.launched import SPEAKS, Launched, launched

T = TypeVar("T")

Packed = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Tensors by name, and a document of plain values."""

_MEETING = timedelta(minutes=10)
"""Time limit for the start of all processes."""

_PATIENCE = timedelta(days=30)
"""Time limit while a process reads, calibrates or validates; a dead one is noticed at once."""

_POLL = 0.02  # seconds

_POLITENESS = 0.5  # seconds in which the first process may report an error

_LINGER = 5.0
"""Seconds in which the first process, to which the store may belong, waits until the others
know whether they report an error."""

_PIECE = 1 << 26  # bytes that are sent at a time

_SPOKEN, _HEARD = "hepgen_ml/spoken", "hepgen_ml/heard"
"""Counters in the store: processes that wanted to report an error, and those that know whether
they may."""


class LostError(OutputError):
    """Another process of the training is lost."""


class Ranks:
    """The processes of one training from the view of one of them; by default a single one.

    Parameters
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    device : torch.device, optional
        Of gradients.

    Attributes
    ----------
    rank, size : int
    first : bool
        Whether this process reads and writes files.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size, self.first = rank, size, rank == 0
        self._control: Any = None
        self._fast: Any = None
        if size > 1:
            self._control = dist.new_group(backend="gloo", timeout=_PATIENCE)
            on_gpu = device is not None and device.type == "cuda"
            self._fast = dist.new_group(backend="nccl") if on_gpu else self._control

    def pieces(self, wanted: int) -> int:
        """Number of micro-batches: at least the wanted one, and equal for each process."""
        return self.size * -(-wanted // self.size)

    def mine(self, n: int) -> range:
        """Numbers of the pieces of work (of n) for this process."""
        return range(self.rank, n, self.size)

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; the same to the last bit on each of them."""
        if self.size > 1:
            group = self._control if tensor.device.type == "cpu" else self._fast
            with _peers():
                dist.all_reduce(tensor, group=group)
        return tensor

    def add_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Sum gradients over all processes, in place, and a loss, which is returned.

        A parameter without a gradient in any process keeps none.
        """
        if self.size == 1:
            return loss
        with torch.no_grad():
            each = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            known = torch.tensor([float(p.grad is not None) for p in parameters]).to(loss)
            flat = torch.cat([*(g.reshape(-1) for g in each), known, loss.reshape(1)])
            *sums, known, loss = self.add(flat).split([*(g.numel() for g in each), len(known), 1])
            for p, total, n in zip(parameters, sums, known.tolist(), strict=True):
                p.grad = total.view_as(p).to(p.dtype) if n else None
        return loss

    def agree(self, seconds: float, signal: int | None = None) -> tuple[float, int | None]:
        """The time of the clock of the first process, and a signal received by any process."""
        if self.size == 1:
            return seconds, signal
        table = torch.zeros(self.size, 2, dtype=torch.float64)
        table[self.rank] = torch.tensor([seconds, signal or 0])
        self.add(table)
        number = int(table[:, 1].max())
        return float(table[0, 0]), number or None

    @torch.no_grad()
    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the tensors of the first one, in place."""
        if self.size == 1:
            return
        for tensor in tensors:
            group = self._control if tensor.device.type == "cpu" else self._fast
            whole = tensor.contiguous()
            with _peers():
                dist.broadcast(whole.view(torch.uint8) if tensor.dim() else whole, 0, group=group)
            if whole is not tensor:
                tensor.copy_(whole)

    def share(
        self, make: Callable[[], T], pack: Callable[[T], Packed], unpack: Callable[[Packed], T]
    ) -> T:
        """Result of a function of the first process, on all of them; the others wait for it.

        Parameters
        ----------
        make : callable
            Called by the first process alone.
        pack, unpack : callable
            Translate to tensors and plain values, and back.
        """
        if self.size == 1:
            return make()
        if not self.first:
            return unpack(self._receive())
        made = make()
        self._send(*pack(made))
        return made

    def require_equal(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings, or versions, that differ between processes, which would wait for ever.

        Raises
        ------
        UsageError
            In all of them, with the names of what differs.
        """
        if self.size == 1:
            return
        mine = _flat({"version of hepgen-ml": __version__, **settings})
        first = self.share(lambda: mine, lambda found: ({}, found), lambda packed: {**packed[1]})
        differs = [float(mine.get(name) != text) for name, text in first.items()]
        differs.append(float(bool(mine.keys() - first.keys())))
        counts = self.add(torch.tensor(differs, dtype=torch.float64)).tolist()
        names = [name for name, n in zip([*first, "others"], counts, strict=True) if n]
        if names:
            raise UsageError(
                f"the {self.size} processes of this training differ in {', '.join(names)}",
                remedy="give all of them the same options and the same configuration file",
            )

    def share_number(self, make: Callable[[], float]) -> float:
        """A number computed by the first process."""
        return self.share(make, lambda x: ({}, {"x": x}), lambda packed: float(packed[1]["x"]))

    def wait(self) -> None:
        """Wait for `release`."""
        if not self.first:
            self._receive()

    def release(self) -> None:
        """Signal the end to the others; the loss of a process no longer matters."""
        if self.size > 1:
            with suppress(LostError):
                self._send({}, {})

    def _send(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        layout = {name: [_name(t.dtype), *t.shape] for name, t in tensors.items()}
        text = json.dumps({"tensors": layout, "document": document}).encode()
        self._broadcast(torch.tensor([len(text)]))
        self._broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        for tensor in tensors.values():
            self._broadcast(tensor)

    def _receive(self) -> Packed:
        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        text = torch.empty(int(length), dtype=torch.uint8)
        self._broadcast(text)
        found = json.loads(bytes(text.tolist()))
        tensors = {}
        for name, (kind, *shape) in found["tensors"].items():
            tensors[name] = torch.empty(shape, dtype=getattr(torch, kind))
            self._broadcast(tensors[name])
        return tensors, found["document"]

    def _broadcast(self, tensor: Tensor) -> None:
        """Send in parts, so that signals are handled in between."""
        flat = tensor.reshape(-1)
        for piece in flat.split(max(_PIECE // tensor.element_size(), 1)):
            with _peers():
                work = dist.broadcast(piece, 0, group=self._control, async_op=True)
                while not work.is_completed():
                    time.sleep(_POLL)
                work.wait()


_meetings = itertools.count()

ALONE = Ranks()
"""A training in one process."""


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted names, as JSON."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = json.dumps(value)
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def _peers() -> Iterator[None]:
    """Translate errors of communication to errors of this package."""
    try:
        yield
    except RuntimeError as error:  # torch's own errors of communication are such
        raise LostError(
            "another process of this training has ended",
            remedy="check its messages and those of the batch system; continue with --resume",
        ) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun has started for this training.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``; each process of a machine uses a different GPU.

    Yields
    ------
    ranks : Ranks
        `ALONE` where torchrun has not been used.
    device : torch.device

    Raises
    ------
    UsageError
        The others cannot be reached, or there are fewer GPUs than processes on this machine.
    LostError
        One of the others has ended.
    """
    place = launched()
    if place.size == 1:
        yield ALONE, find_device(device)
        return
    ours = not dist.is_initialized()
    store = None
    try:
        where = _device(device, place.local)
        yield _met(place, where, ours), where
    except BaseException as error:
        with suppress(RuntimeError, ValueError):  # it has not met the others
            store = dist.distributed_c10d._get_default_store()
        # Of an interruption the first process tells, or that this one is lost.
        if place.rank == 0 or isinstance(error, Exception):
            speaks = _speaks(place.rank, store)
            if place.rank or isinstance(error, LostError):  # another one has told the cause
                setattr(error, SPEAKS, speaks)
        if place.rank and store is not None:
            with suppress(RuntimeError):
                store.add(_HEARD, 1)
        raise
    finally:
        if ours and dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()
        if ours and place.rank == 0 and store is not None:
            _linger(store, place.size)


def _met(place: Launched, device: torch.device, ours: bool) -> Ranks:
    def meet() -> Ranks:
        if ours:
            dist.init_process_group(
                "gloo", store=_store(), rank=place.rank, world_size=place.size, timeout=_MEETING
            )
        return Ranks(place.rank, place.size, device)

    try:
        return _interruptible(meet)
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(
            f"the {place.size} processes of this training cannot connect: {str(error)[:200]}",
            remedy="start them with torchrun, and check the address of the first machine",
        ) from error


@functools.cache
def _address_book() -> Any:
    return next(rendezvous("env://", timeout=_MEETING))[0]


def _store() -> Any:
    """Store for one group of processes; groups are numbered, since earlier addresses are stale."""
    return PrefixStore(f"hepgen_ml/{next(_meetings)}", _address_book())


def _interruptible(work: Callable[[], T]) -> T:
    """Result of a blocking library call during which signals are not handled."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
    if failed:
        raise failed[0]
    return done[0]


def _speaks(rank: int, store: Any) -> bool:
    """Whether no other process has yet reported why the training ends."""
    if rank:
        time.sleep(_POLITENESS)
    if store is None:  # all have the same error, or this one cannot reach the others
        return rank == 1
    try:
        return bool(store.add(_SPOKEN, 1) == 1)
    except RuntimeError:  # it belonged to the first process, which is lost
        return rank == 1


def _linger(store: Any, size: int) -> None:
    """Keep the store until all others know whether they report."""
    end = time.monotonic() + _LINGER
    with suppress(RuntimeError, ValueError, KeyboardInterrupt):
        while store.add(_HEARD, 0) < size - 1 and time.monotonic() < end:
            time.sleep(_POLL)


def _device(name: str, local: int) -> torch.device:
    found = find_device(name)
    if found.type != "cuda" or name not in ("auto", "cuda"):
        return found
    if local >= torch.cuda.device_count():
        raise UsageError(
            f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
            remedy="start one process for each GPU, or use --device cpu",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
