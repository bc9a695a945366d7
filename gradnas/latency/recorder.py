"""Watching one forward pass: which modules were called, with what, within which choices.

Hooks see every module of any network, whatever its `forward` looks like, so nothing has to be known
about layers. Work that no module does (an addition, a pooling by function) is seen as what is left
of the module around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from gradnas.choice import Choice


class Place(NamedTuple):
    """One operation of one choice: the row is the edge, the column that of alpha.

    The row is 0 for a single choice.
    """

    choice: str
    row: int
    column: int


When = tuple[Place, ...]


@dataclass(eq=False)
class Call:
    """One call of a unit, or of a *holder*: a module that holds choices.

    Attributes:
        module, path: what was called, and its name in the network.
        when: the operations around it, and itself if it is one, outermost first.
        args, kwargs, output: what it was given and gave.
        parts: of a holder, the calls right inside it that are timed elsewhere; None for a unit.
        rest: a holder whose own work is a unit: the network, or an operation with choices inside.
    """

    module: nn.Module
    path: str
    when: When
    args: tuple[object, ...]
    kwargs: dict[str, object]
    output: object = None
    parts: list[Call] | None = None
    rest: bool = False


class Recorder:
    """Hooks that cut one forward pass of `net` into calls.

    Args:
        places: the modules that are alternatives of each other.

    Attributes:
        calls: units, and holders with a rest, in the order in which they ended.
        ran: every module that was called.
    """

    def __init__(self, net: nn.Module, places: Mapping[nn.Module, Place]) -> None:
        self.net = net
        self.places = places
        self.paths = {module: path for path, module in net.named_modules()}
        self.holders = _holders(net, places)
        self.calls: list[Call] = []
        self.ran: set[nn.Module] = set()
        self._open: list[Call] = []  # begun and not ended, outermost first; a unit is the last
        self._depth = 0  # calls deep inside a unit, with its own; 0: in no unit

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within: the hooks are on."""
        handles = []
        for module in self.net.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self.ran.add(module)
        if self._depth:
            # A unit is the largest module without a choice inside: what it calls is its own affair.
            self._depth += 1
            return
        when = self._open[-1].when if self._open else ()
        if module in self.places:
            when = (*when, self.places[module])
        call = Call(module, self.paths[module], when, args, dict(kwargs))
        if module in self.holders:
            call.parts = []
            # A module that merely holds choices has no entry of its own in a table.
            call.rest = module is self.net or module in self.places
        else:
            self._depth = 1
        self._open.append(call)

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        del args
        if self._depth > 1:
            self._depth -= 1
            return
        self._depth = 0
        call = self._open.pop()
        assert call.module is module
        call.output = output  # what the call is replaced by while the rest around it is timed
        is_unit = call.parts is None
        if is_unit or call.rest:
            self.calls.append(call)

        # A call is a part of the nearest holder around it whose own work is measured. Modules that
        # only hold choices are looked through: their own work counts as that holder's. A choice is
        # a part as a whole, and what is inside it none: it does not run when the rest is timed.
        if not (is_unit or isinstance(module, Choice)):
            return
        for around in reversed(self._open):
            if isinstance(around.module, Choice):
                return
            if around.rest:
                assert around.parts is not None
                around.parts.append(call)
                return


def _holders(net: nn.Module, places: Mapping[nn.Module, Place]) -> set[nn.Module]:
    """The network, its choices, and all modules with a choice or an alternative inside."""
    holders: set[nn.Module] = {net}
    for module in net.modules():
        if isinstance(module, Choice):
            holders.add(module)
        for inner in module.modules():
            is_inside = inner is not module
            if is_inside and (isinstance(inner, Choice) or inner in places):
                holders.add(module)
                break
    return holders


def alternatives(net: nn.Module) -> dict[nn.Module, Place]:
    """The operations of every `Choice` inside `net`."""
    places = {}
    for path, module in net.named_modules():
        if isinstance(module, Choice):
            name = module.name or path.replace(".", "/") or "choice"
            # Columns of alpha are in the order of the operations.
            for column, operation in enumerate(module.operations.values()):
                places[operation] = Place(name, 0, column)
    return places


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of a nesting of tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
